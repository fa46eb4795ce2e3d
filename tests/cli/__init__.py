"""The command line: parsing, looks, exit codes, start-up, and the real thing on a real machine."""
