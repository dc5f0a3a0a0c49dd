"""sam2's model, its checkpoints, and what must change in it to be exported."""
