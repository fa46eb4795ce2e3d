"""libvirt: domains of this host or another, old or new; their channels travel in the connection."""
