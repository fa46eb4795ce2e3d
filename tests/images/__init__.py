"""Tests of hostctl_images."""
