"""The machine: its files, their hashes, its processor, and the errors that a disk gives."""
