"""A browser, the packages of npm, and the loopback server."""
