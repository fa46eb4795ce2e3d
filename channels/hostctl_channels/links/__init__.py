"""Pipes: they move bytes and know nothing of frames."""
