"""The command line: messages, progress, suggested commands, addresses without secrets."""
