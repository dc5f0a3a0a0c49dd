"""What was measured of a file, how it is judged, and which files it binds."""
