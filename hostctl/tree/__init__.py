"""Whole folders, into a guest and out of it: copied, or only what changed.

All of it goes through a channel's `exec`, `spawn`, `put` and `get`, so every channel has it.
"""

from .copy import Moved, TreeProgress, TreeReport, get_tree, put_tree
from .exclude import Exclude
from .landing import MAX_BYTES, MAX_FILES, Policy
from .packing import Looks
from .remote import Remote
from .syncing import sync_from, sync_to

__all__ = [
    "MAX_BYTES",
    "MAX_FILES",
    "Exclude",
    "Looks",
    "Moved",
    "Policy",
    "Remote",
    "TreeProgress",
    "TreeReport",
    "get_tree",
    "put_tree",
    "sync_from",
    "sync_to",
]
