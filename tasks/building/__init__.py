"""What a stage declares to doit, and what makes it stale."""
