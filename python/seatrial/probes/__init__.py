"""Readings of the host and of sandboxes; each says what it read and never judges."""
