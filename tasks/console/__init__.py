"""What a person reads and types: messages, progress, command lines, addresses without secrets."""
