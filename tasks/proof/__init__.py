"""Measurements of files, the rules that judge them, and the hashes that bind them to files."""
