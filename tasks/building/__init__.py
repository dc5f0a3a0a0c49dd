"""Declares stages to doit, and decides which are stale."""
