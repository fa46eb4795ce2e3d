"""`hostctl events`: what happens to machines, as it happens."""

import argparse
from datetime import UTC, datetime

from hostctl.journal import Event

from . import opening, render


def events(args: argparse.Namespace) -> int:
    """Print events until interrupted."""
    return opening.run(_events(args))


async def _events(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        heartbeat_s = None if args.no_heartbeat else args.heartbeat_s
        watched = controller.events(*args.names, heartbeat_s=heartbeat_s, every_beat=args.alive)
        async for event in watched:
            if args.json:
                render.json_out(event.to_json())
            else:
                print(_line(event))
            # A reader of ours shall hear of it now.
            print(end="", flush=True)
    return 0


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.time_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    detail = "".join(f" {key}={value}" for key, value in event.detail.items())
    return render.safe(f"{when} {event.machine} {event.kind}{detail}")
