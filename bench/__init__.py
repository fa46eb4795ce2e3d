"""Measurements: what the line can do, what others reach, what hostctl reaches. See README.md."""
