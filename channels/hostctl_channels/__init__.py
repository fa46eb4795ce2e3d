"""The stairs between host and guest: channels that run commands and move files, the ports and links
they use.

Knows nothing of machines or hypervisors. The wire is documented in docs/PROTOCOL.md.
"""

from __future__ import annotations

__all__ = ["errors", "interface"]
