"""What runs inside the guest: the agent, and how to put it there."""
