"""The door: what users type. Parses, calls the floors below, prints; decides nothing else."""
