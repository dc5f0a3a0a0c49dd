"""What this build wrote down: where files are, what was deployed, what a checkpoint is."""
