"""Drawn images whose true masks are known."""
