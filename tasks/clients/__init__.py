"""The programs that load the files: what each expects, as a value."""
