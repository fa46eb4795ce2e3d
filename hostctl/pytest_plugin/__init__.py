"""Virtual machines for pytest: fixtures, a marker, and what a failed test's report needs.

plugin.py is what pytest loads; the rest is imported when a test first wants a machine.
"""

from .wish import VmFactory

__all__ = ["VmFactory"]
