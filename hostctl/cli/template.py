"""`hostctl template create|list|delete` and `hostctl clone`: machines that begin in the middle."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from hostctl.backends.interface import MachineSpec
from hostctl.template import Template

from . import create as creating
from . import opening, render, units
from .exits import UsageError

_HEAD = ("NAME", "IMAGE", "CPUS", "MEMORY", "SIZE", "CREATED")


def create(args: argparse.Namespace) -> int:
    """Boot a machine, warm it up, and keep its moment."""
    if args.source is not None:
        _refuse_shape(args)
        return opening.run(_create(args, None))
    spec = creating.spec_of(args)
    if spec.image is not None:
        creating.ensure_image(spec.image)
    return opening.run(_create(args, spec))


async def _create(args: argparse.Namespace, spec: MachineSpec | None) -> int:
    how = {"warm": args.warm, "on_clone": script_of(args)}
    async with opening.open_controller() as controller:
        if spec is None:
            made = await controller.create_template_from(args.name, args.source, **how)
        else:
            made = await controller.create_template(
                args.name, spec, **how, timeout_s=args.timeout_s, progress=render.talk
            )
    if args.json:
        render.json_out(_fields(made))
    else:
        render.talk(f'{made.name}: kept; next: "hostctl clone {made.name} NAME"')
    return 0


def _refuse_shape(args: argparse.Namespace) -> None:
    """Raise UsageError if a machine is named and described."""
    told = [("image", args.image), ("kernel", args.kernel), ("initrd", args.initrd)]
    told += [("append", args.append), ("disk", args.disk), ("qemu-arg", args.qemu_arg)]
    for option, value in told:
        if value:
            text = f"--from and --{option} exclude each other; the machine has its own"
            raise UsageError(f"template create: {text}")


def list_templates(args: argparse.Namespace) -> int:
    """List the templates."""
    return opening.run(_list(args))


async def _list(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        found = controller.templates()
    if args.json:
        render.json_out([_fields(each) for each in found])
    else:
        print(render.table(_HEAD, map(_row, found)))
    return 0


def delete(args: argparse.Namespace) -> int:
    """Remove a template that no machine needs."""
    return opening.run(_delete(args))


async def _delete(args: argparse.Namespace) -> int:
    async with opening.open_controller() as controller:
        await controller.delete_template(args.name)
    render.talk(f"{args.name}: deleted")
    return 0


def clone(args: argparse.Namespace) -> int:
    """Make machines of a template."""
    return opening.run(_clone(args))


async def _clone(args: argparse.Namespace) -> int:
    names = _names(args)
    async with opening.open_controller() as controller:
        is_template = args.source in {each.name for each in controller.templates()}
        if is_template and args.snapshot is None:
            await controller.clone_all(
                args.source,
                names,
                timeout_s=args.timeout_s,
                on_clone=script_of(args),
                overcommit=args.overcommit,
            )
        elif args.on_clone:
            raise UsageError("clone: --on-clone goes with a template: a machine's clone is stopped")
        else:
            for name in names:  # each takes the other machine's lock
                await controller.clone_snapshot(args.source, name, snapshot=args.snapshot)
    if args.json:
        fields = {"of": args.source, "snapshot": args.snapshot}
        render.json_out([{"name": name, **fields} for name in names])
    else:
        render.talk(f"{', '.join(names)}: {'ready' if is_template else 'cloned, and stopped'}")
    return 0


def script_of(args: argparse.Namespace) -> str | None:
    """Return what the file of --on-clone says."""
    if args.on_clone is None:
        return None
    return Path(args.on_clone).read_text("utf-8", "surrogateescape")


def _names(args: argparse.Namespace) -> list[str]:
    if args.count is None:
        return list(dict.fromkeys(args.names))
    if len(args.names) != 1:
        raise UsageError("clone: --count goes with one NAME, which is numbered: NAME-1, NAME-2, …")
    return [f"{args.names[0]}-{number}" for number in range(1, args.count + 1)]


def _fields(found: Template) -> dict[str, object]:
    return {
        "name": found.name,
        "image": found.spec.image,
        "cpus": found.spec.cpus,
        "memory_mib": found.spec.memory_mib,
        "size_bytes": _used(found.folder),
        "on_clone": found.on_clone is not None,
        "created_s": round(found.created_s),
    }


def _row(found: Template) -> tuple[str, ...]:
    spec, when = found.spec, datetime.fromtimestamp(found.created_s, UTC).astimezone()
    return (
        found.name,
        spec.image or "-",
        str(spec.cpus),
        units.show_size(spec.memory_mib << 20),
        units.show_size(_used(found.folder)),
        when.strftime("%Y-%m-%d %H:%M"),
    )


def _used(folder: Path) -> int:
    """Return the bytes that its files take, which have holes."""
    return sum(each.stat().st_blocks * 512 for each in folder.rglob("*") if each.is_file())
