"""The table of commands, the parser made from it, and what becomes of errors.

Imports nothing heavy: a command's module is loaded after its line was parsed.
"""

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn

from . import arguments as take
from . import render
from .exits import GUESTS, Exit, UsageError, exit_for


class Command(NamedTuple):
    """One row: what is typed, where it lives ("module:function"), what it does, what it takes."""

    name: str
    target: str
    help: str
    declare: Callable[[argparse.ArgumentParser], None]

    @property
    def first(self) -> str:
        """The word that selects it, or its group."""
        return self.name.partition(" ")[0]


# fmt: off
COMMANDS: Final = tuple(Command(*row) for row in (
    ("create", "create:create", "make a machine, with no network", take.create),
    ("attach", "attach:attach", "bring the agent into a guest by any foothold", take.attach),
    ("detach", "attach:detach", "take away what attach brought", take.detach),
    ("caps", "caps:caps", "try every way into a guest, and tell what each can", take.caps),
    ("adopt", "adopt:adopt", "take a machine of libvirt or VirtualBox", take.adopt),
    ("start", "power:start", "start machines, and wait until they answer", take.start),
    ("stop", "power:stop", "shut machines down, by force if they do not obey", take.stop),
    ("pause", "power:pause", "freeze running machines", take.pause),
    ("resume", "power:resume", "let paused machines go on", take.pause),
    ("reset", "power:reset", "restart machines as their reset button would", take.reset),
    ("delete", "power:delete", "remove machines and all they stored", take.delete),
    ("tag", "tag:tag", "give machines tags, to select them by as @TAG", take.tag),
    ("list", "list:list_machines", "list the machines", take.list_),
    ("show", "show:show", "tell all about machines, and prove their isolation", take.show),
    ("wait", "power:wait", "wait until machines reach a state, or jobs end", take.wait),
    ("run", "run:run", "run a command in a machine of its own, gone afterwards", take.run),
    ("template create", "template:create", "boot, warm up, keep the moment", take.template_create),
    ("template list", "template:list_templates", "list templates", take.template_list),
    ("template delete", "template:delete", "remove a template", take.template_delete),
    ("clone", "template:clone", "make machines of a template, or of a snapshot", take.clone),
    ("pool create", "pool:create", "keep clones ready, to be handed out at once", take.pool_create),
    ("pool list", "pool:list_pools", "list pools, and how full they are", take.pool_list),
    ("pool fill", "pool:fill", "make what is missing, as is done after each take", take.pool_name),
    ("pool delete", "pool:delete", "remove a pool, and the clones that wait", take.pool_name),
    ("exec", "exec:exec_", "run a command in machines", take.exec_),
    ("shell", "shell:shell", "open a shell in a machine, at a terminal", take.shell),
    ("jobs", "jobs:jobs", "list the commands that exec --detach has started", take.jobs),
    ("logs", "jobs:logs", "print what jobs have printed", take.logs),
    ("signal", "jobs:signal", "send a signal to jobs", take.signal),
    ("forget", "jobs:forget", "remove what is kept of jobs", take.forget),
    ("events", "events:events", "tell what happens to machines, as it happens", take.events),
    ("stats", "stats:stats", "tell what machines use", take.stats),
    ("cp", "cp:cp", "copy files and folders into machines or out of them", take.cp),
    ("sync", "trees:sync", "move only what changed in a folder", take.sync),
    ("forward", "forward:forward", "carry connections into a machine", take.forward),
    ("snapshot save", "snapshot:save", "keep memory and disks as they are now", take.snapshot_save),
    ("snapshot list", "snapshot:list_snapshots", "list a machine's snapshots", take.snapshot_list),
    ("snapshot restore", "snapshot:restore", "go back to a snapshot", take.snapshot_tag),
    ("snapshot delete", "snapshot:delete", "forget a snapshot", take.snapshot_tag),
    ("image build", "image:build", "build an image from its recipe", take.image_build),
    ("image list", "image:list_images", "list images and recipes", take.image_list),
    ("screenshot", "screenshot:screenshot", "save what is on a machine's screen", take.screenshot),
    ("console", "console:console", "talk to a machine's serial console", take.console),
    ("doctor", "doctor:doctor", "check what this host can do, and how to mend it", take.doctor),
    ("completion", "completion:completion", "print a shell's completion script", take.completion),
))
# fmt: on
GROUPS: Final = {
    "template": "keep a booted machine's moment, from which clones begin",
    "pool": "keep clones of a template ready",
    "snapshot": "save, list, restore and delete snapshots",
    "image": "build and list images",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse(words)
    except UsageError as err:
        render.say(str(err))
        return exit_for(err, next((word for word in words[:2] if word in GUESTS), ""))
    return run(args)


def parse(words: list[str]) -> argparse.Namespace:
    """Parse a command line.

    Raises:
        UsageError: it cannot be obeyed.
        SystemExit: help or the version was asked for, and printed.
    """
    at = next((at for at, word in enumerate(words) if not word.startswith("-")), len(words))
    first = words[at] if at < len(words) else ""
    command = next((command for command in COMMANDS if command.name == first), None)
    if command is None or not _are_verbose(words[:at]):
        return build_parser(first).parse_args(words)
    # One command needs one parser: that of all costs 20 ms more.
    parser = _new_parser(f"hostctl {first}", _sentence(command.help))
    _furnish(parser, command, verbose=0)
    ours, guests = words[at + 1 :], list[str]()
    if first in GUESTS:
        ours, guests = take.split_guest_words(ours, _valued_options(parser))
    loud = sum(1 if word == "--verbose" else word.count("v") for word in words[:at])
    args = parser.parse_args(["--verbose"] * loud + ours)
    if guests:
        args.command = guests
    return args


def run(args: argparse.Namespace) -> int:
    """Load the command and run it; every error ends here, as one line."""
    try:
        if args.verbose:
            _log_to_stderr(args.verbose)
        code = int(_load(args.target)(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE
    except Exception as err:
        if args.verbose > 1:
            import traceback

            traceback.print_exception(err)
        render.say(render.error_line(err))
        return exit_for(render.leaf(err), args.label)


def build_parser(first: str | None = None, *, whole: bool = False) -> argparse.ArgumentParser:
    """Build the parser of the whole table.

    Only the command whose first word is `first` gets its arguments, or all, for completion.py.
    """
    parser = _new_parser(
        "hostctl",
        "Control virtual machines, and reach inside them, with no network.",
        '"hostctl COMMAND --help" tells more about each; "hostctl doctor" checks this host.',
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    _add_verbose(parser, default=0)
    top = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    parents = {"": top}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in parents:
            parents[group] = _add_group(top, group)
        _add_command(parents[group], name, command, bare=not whole and command.first != first)
    return parser


_Subparsers = argparse._SubParsersAction  # argparse has no public name for what it hands out


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing a usage text and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{_with_guess(message)}; see "{self.prog} --help"')


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Asks the terminal for its width itself: argparse would load shutil for that, and all of its
    compressors, 8 ms even where no help is printed.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(_terminal_width(), 100) - 2)


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from hostctl import __version__

        print(f"hostctl {__version__}")
        parser.exit()


def _load(target: str) -> Callable[[argparse.Namespace], int]:
    """Import the command's module, which imports most of hostctl.

    Two things are kept from costing some 20 ms of 290: looking for garbage among what importing
    makes, which has none; and TLS, which asyncio loads if it finds it, and which no machine needs.
    """
    gc.set_threshold(20_000)
    hidden = "ssl" not in sys.modules
    if hidden:
        sys.modules["ssl"] = None  # type: ignore[assignment]  # Python's way to say: cannot import
    try:
        module, _, function = target.partition(":")
        command: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module(f"hostctl.cli.{module}"), function
        )
        return command
    finally:
        if hidden:
            del sys.modules["ssl"]


def _new_parser(prog: str, description: str, epilog: str | None = None) -> _Parser:
    return _Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def _add_group(top: "_Subparsers[_Parser]", name: str) -> "_Subparsers[_Parser]":
    about = _sentence(GROUPS[name])
    parser = top.add_parser(
        name, help=GROUPS[name], description=about, formatter_class=_Formatter, allow_abbrev=False
    )
    return parser.add_subparsers(metavar="COMMAND", required=True, title="commands")


def _add_command(
    parent: "_Subparsers[_Parser]", name: str, command: Command, *, bare: bool
) -> None:
    parser = parent.add_parser(
        name,
        help=command.help,
        description=_sentence(command.help),
        formatter_class=_Formatter,
        add_help=not bare,
        allow_abbrev=False,
    )
    if not bare:
        _furnish(parser, command, verbose=argparse.SUPPRESS)


def _furnish(parser: _Parser, command: Command, *, verbose: int | str) -> None:
    command.declare(parser)
    _add_verbose(parser, default=verbose)
    parser.set_defaults(target=command.target, label=command.name)


def _add_verbose(parser: argparse.ArgumentParser, default: int | str) -> None:
    free = [flag for flag in ("-v", "--verbose") if flag not in parser._option_string_actions]
    more = "-vv" if "-v" in free else "twice"
    text = f"log to stderr; {more}: everything"
    parser.add_argument(*free, action="count", dest="verbose", default=default, help=text)


def _terminal_width() -> int:
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (ValueError, OSError):
        return 80


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _are_verbose(words: Sequence[str]) -> bool:
    return all(word == "--verbose" or not word.strip("-v") for word in words)


def _valued_options(parser: argparse.ArgumentParser) -> frozenset[str]:
    return frozenset(
        option
        for action in parser._actions
        if action.nargs is None
        for option in action.option_strings
    )


def _with_guess(message: str) -> str:
    """Turn argparse's list of all commands into the one that was meant."""
    head, bad, tail = message.partition("invalid choice: ")
    word, _, choices = tail.partition(" (choose from ")
    if not bad or "COMMAND" not in head:
        return message
    import difflib

    names = [name.strip("' ") for name in choices.rstrip(")").split(",")]
    close = difflib.get_close_matches(word.strip("'"), names, n=1)
    guess = f', did you mean "{close[0]}"?' if close else ""
    return f'unknown command "{word.strip(chr(39))}"{guess}'


def _log_to_stderr(verbose: int) -> None:
    import logging

    logging.basicConfig(
        level=logging.DEBUG if verbose > 1 else logging.INFO,
        format="%(relativeCreated)7.0f ms %(levelname).1s %(name)s: %(message)s",
    )
