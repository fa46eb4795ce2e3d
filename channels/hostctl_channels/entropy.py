"""Making a guest's random numbers its own again, after a restore or a clone.

Linux mixes what is written to /dev/urandom into its pool at once, but draws from the pool only once
a minute: until then two copies of one guest give the same numbers. An ioctl would make it draw, but
no shell has one. A resume does, too (`random_pm_notification`, since 5.18), and to open
/dev/snapshot for writing announces one: nothing is suspended, no image is read, and the closing
takes it back. It wants root, and no lockdown; elsewhere the guest is as well off as before.
"""

from typing import Final

__all__ = ["FEED", "RESEED"]

RESEED: Final = "[ ! -c /dev/snapshot ] || true 2>/dev/null >/dev/snapshot || :"
"""A line of sh that makes the kernel draw from its pool."""

FEED: Final = f"cat >/dev/urandom && {{ {RESEED}; }}"
"""A line of sh that feeds its standard input."""
