"""`hostctl tag`: give machines tags, take tags away, and tell which they have."""

import argparse

from . import opening, several


def tag(args: argparse.Namespace) -> int:
    """Change the tags of machines, or print them."""
    return opening.run(_tag(args))


async def _tag(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        chosen = several.chosen(controller, args)

        async def one(name: str) -> tuple[str, ...]:
            machine = controller.machine(name)
            if not (args.add or args.remove):
                return machine.tags
            return await machine.change_tags(add=args.add, remove=args.remove)

        async def tell(name: str, tags: tuple[str, ...], _: float) -> None:
            if args.json:
                several.show_json(chosen, name, "tags", list(tags))
            elif not (args.add or args.remove):
                print(f"{name}: {' '.join(tags)}" if chosen.is_group else "\n".join(tags))

        return await several.each(args, chosen, one, tell)
