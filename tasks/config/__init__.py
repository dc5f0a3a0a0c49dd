"""The configuration: its tables, their rules, and how they are read."""
