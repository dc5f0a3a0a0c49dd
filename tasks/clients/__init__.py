"""Clients: each program that loads the files, described as a value."""
