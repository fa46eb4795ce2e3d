"""The hypervisors: power, devices, sockets; nothing about guests' insides."""
