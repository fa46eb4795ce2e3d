"""`hostctl pool create|list|fill|delete`: clones that wait to be handed out."""

import argparse
from dataclasses import asdict

from hostctl.pool import Pool

from . import opening, render

_HEAD = ("TEMPLATE", "READY", "SIZE", "NOTE")


def create(args: argparse.Namespace) -> int:
    """Make the pool, and return when it is full."""
    return opening.run(_create(args))


async def _create(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        pool = await controller.create_pool(
            args.template, args.size, overcommit=args.overcommit, progress=render.talk
        )
    return _tell(args, pool)


def fill(args: argparse.Namespace) -> int:
    """Make what is missing."""
    return opening.run(_fill(args))


async def _fill(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        pool = await controller.fill_pool(args.template, progress=render.talk)
    return _tell(args, pool)


def list_pools(args: argparse.Namespace) -> int:
    """List the pools."""
    return opening.run(_list(args))


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        pools = await controller.pools()
    if args.json:
        render.json_out(list(map(asdict, pools)))
    else:
        print(render.table(_HEAD, map(_row, pools)))
    return 0


def delete(args: argparse.Namespace) -> int:
    """Remove a pool."""
    return opening.run(_delete(args))


async def _delete(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        await controller.delete_pool(args.template)
    if args.json:
        render.json_out({"template": args.template})
    else:
        render.talk(f"{args.template}: its pool is gone")
    return 0


def _tell(args: argparse.Namespace, pool: Pool) -> int:
    if args.json:
        render.json_out(asdict(pool))
    else:
        render.talk(f"{pool.template}: {pool.ready} of {pool.size} ready")
    return 0


def _row(pool: Pool) -> tuple[str, ...]:
    return pool.template, str(pool.ready), str(pool.size), pool.note or "-"
