"""The machine: its files, their hashes, its processor, and errors of its disk."""
