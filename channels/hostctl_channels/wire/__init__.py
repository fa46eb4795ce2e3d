"""The cellar: every byte between host and guest, with no I/O and no clock."""
