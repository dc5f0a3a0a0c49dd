"""The build's records: deployed files, their owners, and how they are put in place."""
