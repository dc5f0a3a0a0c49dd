"""Drawn images and clips with their true masks."""
