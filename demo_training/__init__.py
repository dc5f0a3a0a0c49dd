"""Trains the demo model and measures how well it segments and follows objects."""
