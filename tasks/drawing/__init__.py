"""Drawn images and clips whose true masks are known."""
