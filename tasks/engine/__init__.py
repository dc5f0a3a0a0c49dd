"""How the build runs: child processes, records, fingerprints, files."""
