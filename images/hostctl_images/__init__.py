"""Build and find the small guest images."""
