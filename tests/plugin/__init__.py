"""The pytest plugin, as its users have it: in a process of its own, loaded by entry point."""
