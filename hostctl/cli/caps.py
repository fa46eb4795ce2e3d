"""`hostctl caps`: which ways lead into a guest, what each can, and why not the others."""

import argparse

from hostctl.attach import Look
from hostctl_channels.interface import Capability

from . import opening, render


def caps(args: argparse.Namespace) -> int:
    """Print the matrix; fails when no way leads in."""
    return opening.run(_caps(args))


async def _caps(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        looks = await controller.machine(args.name).channels()
    if args.json:
        render.json_out([_as_json(look) for look in looks])
    else:
        _print(looks)
    return 0 if any(look.answers for look in looks) else 1


def _as_json(look: Look) -> dict[str, object]:
    return {
        "channel": look.key,
        "title": look.title,
        "answers": look.answers,
        "why_not": look.why_not,
        "capabilities": list(look.capabilities),
    }


def _row(name: str, looks: list[Look]) -> tuple[str, ...]:
    return (name, *("yes" if name in look.capabilities else "-" for look in looks))


def _print(looks: tuple[Look, ...]) -> None:
    answering = [look for look in looks if look.answers]
    names = sorted(capability.value for capability in Capability)
    if answering:
        head = ("CAPABILITY", *(look.key.upper() for look in answering))
        print(render.table(head, (_row(name, answering) for name in names)))
    for look in looks:
        if not look.answers:
            print(f"no {look.key}: {render.safe(look.why_not or '')}")
