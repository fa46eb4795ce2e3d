"""`hostctl screenshot`: what is on a machine's screen, as a PNG."""

import argparse
import sys
from pathlib import Path

from . import opening, render


def screenshot(args: argparse.Namespace) -> int:
    """Save it."""
    return opening.run(_screenshot(args))


async def _screenshot(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        png = await controller.machine(args.name).screenshot()
    if args.file == "-":
        sys.stdout.buffer.write(png)
    else:
        _write(Path(args.file), png)
        render.talk(f"{args.name}: {args.file} written")
    return 0


def _write(path: Path, png: bytes) -> None:
    path.write_bytes(png)
