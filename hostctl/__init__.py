"""Control virtual machines, and reach inside them, with no network."""
