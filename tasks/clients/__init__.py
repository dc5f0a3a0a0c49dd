"""Clients: the programs that load the files, each described as a value."""
