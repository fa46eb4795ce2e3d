"""Commands in guests: run, at a terminal, in a machine of their own; and the jobs they leave."""

import argparse

from .. import units
from .options import add_channel, add_clone_options, add_json, add_steal, add_timeout
from .selection import SEVERAL, add_fan_out, add_group, add_jobs, add_name, add_template, add_words
from .values import typed


def exec_(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl exec`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl exec [options] NAME [options] [--] COMMAND [ARGUMENT ...]"
    add_group(parser)
    _add_command_options(parser)
    parser.add_argument(
        "-t",
        "--tty",
        action="store_true",
        help="give it a terminal, to which our keys go; Enter ~. leaves",
    )
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="print NAME/JOB at once, and leave it running: see hostctl jobs, logs, wait",
    )
    parser.add_argument(
        "--keep",
        metavar="SIZE",
        type=typed(units.parse_size),
        help="with --detach: how much of each stream the guest keeps (default: 16M)",
    )
    add_channel(parser)
    add_steal(parser)
    parser.add_argument(
        "--no-prefix",
        dest="prefix",
        action="store_false",
        help="of several machines: print their lines without their names",
    )
    add_json(parser)
    parser.set_defaults(command=[])
    parser.epilog = """\
examples:
  hostctl exec web -- uname -a
  hostctl exec --shell web -- 'ls /tmp | wc -l'
  tar c src | hostctl exec -i web -- tar x -C /root
  hostctl exec -t web -- top
  hostctl exec -d web -- make all
  hostctl exec 'web-*' -- uptime
  hostctl exec web,db,@ci --fail-fast -- make test

exit status: the command's own, 128+n when signal n ended it; 124 timed out,
125 hostctl failed, 126 refused or not executable, 127 not found in the guest,
or no machine matches. Of several machines: that of the first that failed, in
the order of the words and, within a pattern, of the alphabet.
Ctrl-C, SIGTERM and SIGHUP go to the command; a second Ctrl-C kills it."""


def shell(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl shell`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl shell [options] NAME [options] [[--] COMMAND [ARGUMENT ...]]"
    add_name(parser)
    _add_surroundings(parser)
    add_channel(parser)
    add_steal(parser)
    parser.set_defaults(command=[])
    parser.epilog = """\
Without COMMAND it is the user's login shell, in their home. Enter ~. leaves, and ends what runs;
~? tells more.

exit status: as that of exec; 129 after ~."""


def run(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl run`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl run [options] TEMPLATE [options] [--] COMMAND [ARGUMENT ...]"
    add_template(parser, "template", "a template, or an image, of which one is made once")
    parser.add_argument(
        "-v",
        "--put",
        metavar="SOURCE:PATH",
        action="append",
        default=[],
        help="copy this file or folder in first; folders above it are made; repeatable",
    )
    parser.add_argument(
        "--get",
        metavar="PATH:TARGET",
        action="append",
        default=[],
        help="copy this file or folder out afterwards, whatever the command's status; repeatable",
    )
    parser.add_argument("--keep", action="store_true", help="leave the machine there, and name it")
    add_clone_options(parser)
    _add_command_options(parser)
    parser.set_defaults(command=[])
    parser.epilog = """\
examples:
  hostctl run tiny -- uname -a
  hostctl run -v job.sh:/job.sh --get /tmp/out:out tiny -- sh /job.sh
  hostctl run -v src:/src -w /src --get /src/build:build tiny -- make

What is copied in is a copy: nothing is shared with the guest, so -v is no mount. The machine has no
network, and is removed whatever happens. Exit status as of hostctl exec."""


def jobs(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl jobs`."""
    add_words(parser, "*", f"{SEVERAL}, which mean those that run (default: all that run)")
    add_fan_out(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="NAME/JOB only")
    add_json(parser)


def logs(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl logs`."""
    add_jobs(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the job ends, as it prints"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stdout", dest="only", action="store_const", const=1, help="stdout alone")
    only.add_argument("--stderr", dest="only", action="store_const", const=2, help="stderr alone")
    add_json(parser)


def signal(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl signal`."""
    add_jobs(parser)
    parser.add_argument(
        "signal", metavar="SIGNAL", help="TERM, KILL, INT…: to the job and its process group"
    )
    add_json(parser)


def forget(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl forget`."""
    add_jobs(parser)
    parser.add_argument("-f", "--force", action="store_true", help="kill those that still run")
    add_json(parser)


def _add_command_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        "--interactive",
        action="store_true",
        help="pass our standard input on; without it the command reads an empty one",
    )
    _add_surroundings(parser)
    add_timeout(parser, "kill it after this long, and exit with 124", None)
    parser.add_argument(
        "--shell", action="store_true", help="join the words and let the guest's /bin/sh read them"
    )


def _add_surroundings(parser: argparse.ArgumentParser) -> None:
    """Declare what a command of the guest finds around it."""
    parser.add_argument(
        "-e",
        "--env",
        metavar="KEY[=VALUE]",
        action="append",
        default=[],
        help="set a variable; KEY alone takes ours; repeatable",
    )
    parser.add_argument("-w", "--workdir", metavar="DIR", help="where the command runs")
    parser.add_argument(
        "-u", "--user", metavar="USER", help="who runs it (default: the agent's user, root)"
    )
