"""`hostctl caps`: which ways lead into a guest, what each can, and why not the others."""

import argparse
from collections.abc import Iterator

from hostctl.attach import Look
from hostctl_channels.interface import Capability

from . import opening, render, several


def caps(args: argparse.Namespace) -> int:
    """Print the matrix; fails when no way leads in."""
    return opening.run(_caps(args))


async def _caps(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        chosen = several.chosen(controller, args)

        async def one(name: str) -> tuple[Look, ...]:
            return await controller.machine(name).channels()

        async def tell(name: str, looks: tuple[Look, ...], _: float) -> None:
            if args.json:
                several.show_json(chosen, name, "channels", [_as_json(look) for look in looks])
            else:
                several.show(chosen, name, "\n".join(_lines(looks)))

        return await several.each(args, chosen, one, tell, code=_code)


def _code(looks: tuple[Look, ...]) -> int:
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


def _lines(looks: tuple[Look, ...]) -> Iterator[str]:
    answering = [look for look in looks if look.answers]
    names = sorted(capability.value for capability in Capability)
    if answering:
        head = ("CAPABILITY", *(look.key.upper() for look in answering))
        yield render.table(head, (_row(name, answering) for name in names))
    for look in looks:
        if not look.answers:
            yield f"no {look.key}: {render.safe(look.why_not or '')}"
