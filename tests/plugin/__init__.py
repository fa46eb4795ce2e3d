"""The pytest plugin, as its users have it: pytest in a process of its own, loaded by entry point."""
