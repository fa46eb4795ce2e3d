"""What each command takes: argparse declarations, all in one light module.

`hostctl --help` and the completion scripts need them and nothing else, so nothing heavy may be
imported here (tests/cli/test_startup.py watches).
"""

import argparse
from collections.abc import Callable
from typing import Final, TypeVar

from . import units

_T = TypeVar("_T")
_Container = argparse.ArgumentParser | argparse._ArgumentGroup

SHELLS: Final = ("bash", "zsh", "fish")
CHANNELS: Final = ("auto", "agent", "qga", "guestcontrol", "serial", "console")  # connect.LINES
_SEVERAL: Final = "the machine; or several: names, patterns like 'web-[0-9]', tags like @ci"

# What shtab puts into the completion scripts; completion.py defines the shell function.
_MACHINE: Final = {
    "bash": "_hostctl_machines",
    "zsh": "_hostctl_machines_zsh",
    "fish": "(_hostctl_machines)",
}
_TEMPLATE: Final = {
    "bash": "_hostctl_templates",
    "zsh": "_hostctl_templates_zsh",
    "fish": "(_hostctl_templates)",
}


def create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl create`."""
    _add_new_name(parser)
    _add_shape(parser)
    parser.add_argument(
        "--tag",
        metavar="TAG",
        action="append",
        default=[],
        help="a word that selects it later, as @TAG; repeatable: see hostctl tag",
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--backend",
        choices=("qemu", "libvirt", "virtualbox"),
        default="qemu",
        help="a QEMU of its own (default), a domain of libvirt, or a machine of VirtualBox",
    )
    _add_connect(where)
    _add_login(parser)
    parser.add_argument("--start", action="store_true", help="start it, and wait until it answers")
    _add_timeout(parser, "with --start: how long to wait (default: 120s)", 120)
    _add_json(parser)


def attach(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl attach`."""
    place = parser.add_argument(
        "place",
        metavar="TARGET",
        help="a machine; or with --connect a domain of libvirt; or the QMP socket of a QEMU that "
        "somebody else started; or a serial line: a tty, a Unix socket, a URL like socket://HOST:PORT",
    )
    _complete(place, _MACHINE)
    parser.add_argument("--name", metavar="NAME", help="what to call a machine that is new here")
    parser.add_argument("--connect", metavar="URI", help="the libvirt that has the domain TARGET")
    parser.add_argument(
        "--line",
        metavar="PORT=PLACE",
        action="append",
        default=[],
        help="with a QMP socket: where one of its ports is reached, such as "
        "org.qemu.guest_agent.0=/run/qga.sock or serial.1=/dev/pts/3; repeatable",
    )
    parser.add_argument(
        "--baud",
        metavar="N",
        type=_count,
        help="speed of a serial line that is a real tty (default: 115200)",
    )
    _add_login(parser)
    parser.add_argument(
        "--persist", action="store_true", help="install the agent as a service of the guest"
    )
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    _add_json(parser)


def detach(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl detach`."""
    _add_names(parser)
    _add_json(parser)


def caps(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl caps`."""
    _add_names(parser)
    _add_json(parser)


def adopt(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl adopt`."""
    parser.add_argument(
        "domain",
        metavar="DOMAIN",
        help="a domain of libvirt or a machine of VirtualBox, by name or uuid",
    )
    parser.add_argument(
        "--backend",
        choices=("libvirt", "virtualbox"),
        default="libvirt",
        help="whose (default: libvirt)",
    )
    _add_connect(parser)
    parser.add_argument(
        "--name", metavar="NAME", help="what to call the machine (default: the domain's name)"
    )
    _add_login(parser)
    _add_json(parser)


def start(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl start`."""
    _add_names(parser)
    parser.add_argument(
        "--no-wait", action="store_true", help="return as soon as it runs, before it answers"
    )
    _add_timeout(parser, "how long to wait for the answer (default: 120s)", 120)
    _add_json(parser)


def stop(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl stop`."""
    _add_names(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-f", "--force", action="store_true", help="pull the plug now")
    how.add_argument(
        "--save",
        action="store_true",
        help="write memory to disk, for the next start to go on from (VirtualBox only)",
    )
    _add_timeout(parser, "how long the guest may take before the plug is pulled (default: 30s)", 30)
    _add_json(parser)


def pause(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pause`, and `resume`, which takes the same."""
    _add_names(parser)
    _add_json(parser)


def reset(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl reset`."""
    _add_names(parser)
    parser.add_argument("--no-wait", action="store_true", help="return before it answers again")
    _add_json(parser)


def delete(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl delete`."""
    _add_names(parser)
    parser.add_argument("-f", "--force", action="store_true", help="also when it runs")
    parser.add_argument(
        "--undefine",
        action="store_true",
        help="of an adopted machine, which is only forgotten otherwise: remove it from its "
        "hypervisor; its disks stay",
    )
    _add_json(parser)


def screenshot(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl screenshot`."""
    _add_name(parser)
    _add_file(parser, "file", metavar="FILE", help="where to: a PNG, or - for standard output")


def list_(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl list`."""
    _add_words(parser, "*", "machines, patterns, @tags (default: all)")
    _add_allow_empty(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    _add_json(parser)


def tag(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl tag`."""
    _add_names(parser)
    for option, text in (("--add", "give them this tag"), ("--remove", "take it away")):
        parser.add_argument(
            option, metavar="TAG", action="append", default=[], help=f"{text}; repeatable"
        )
    _add_json(parser)
    parser.epilog = """\
examples:
  hostctl tag web-1 web-2 --add ci --remove old
  hostctl tag web-1              print its tags
  hostctl exec @ci -- uptime     use one"""


def show(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl show`."""
    _add_names(parser)
    _add_json(parser)


def wait(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl wait`."""
    action = parser.add_argument(
        "names", metavar="NAME[/JOB]", nargs="+", help=f"{_SEVERAL}; or jobs: NAME/JOB, '@ci/*'"
    )
    _complete(action, _MACHINE)
    _add_fan_out(parser)
    parser.add_argument(
        "--for",
        dest="goal",
        choices=("ready", "running", "paused", "stopped"),
        default="ready",
        help="ready: its agent answers (default)",
    )
    _add_timeout(parser, "how long to wait (default: 120s; for jobs: as long as they run)", None)
    _add_json(parser)
    parser.epilog = """\
With jobs the exit status is that of the first that did not end with 0, as exec tells it."""


def jobs(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl jobs`."""
    _add_words(parser, "*", f"{_SEVERAL}, which mean those that run (default: all that run)")
    _add_fan_out(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="NAME/JOB only")
    _add_json(parser)


def events(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl events`."""
    action = parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="machines, or patterns such as 'web-*' (default: all)",
    )
    _complete(action, _MACHINE)
    beat = parser.add_mutually_exclusive_group()
    beat.add_argument(
        "--heartbeat",
        dest="heartbeat_s",
        metavar="DURATION",
        type=_typed(units.parse_duration),
        default=10.0,
        help="how often each agent is pinged (default: 10s)",
    )
    beat.add_argument("--no-heartbeat", action="store_true", help="leave the guests alone")
    parser.add_argument("--alive", action="store_true", help="tell each answer to a ping, too")
    _add_json(parser)


def stats(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl stats`."""
    _add_words(parser, "*", f"{_SEVERAL} (default: all that run)")
    _add_allow_empty(parser)
    _add_json(parser)


def logs(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl logs`."""
    _add_jobs(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the job ends, as it prints"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stdout", dest="only", action="store_const", const=1, help="stdout alone")
    only.add_argument("--stderr", dest="only", action="store_const", const=2, help="stderr alone")
    _add_json(parser)


def signal(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl signal`."""
    _add_jobs(parser)
    parser.add_argument(
        "signal", metavar="SIGNAL", help="TERM, KILL, INT…: to the job and its process group"
    )
    _add_json(parser)


def forget(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl forget`."""
    _add_jobs(parser)
    parser.add_argument("-f", "--force", action="store_true", help="kill those that still run")
    _add_json(parser)


def exec_(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl exec`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl exec [options] NAME [options] [--] COMMAND [ARGUMENT ...]"
    _add_group(parser)
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
        type=_typed(units.parse_size),
        help="with --detach: how much of each stream the guest keeps (default: 16M)",
    )
    _add_channel(parser)
    _add_steal(parser)
    parser.add_argument(
        "--no-prefix",
        dest="prefix",
        action="store_false",
        help="of several machines: print their lines without their names",
    )
    _add_json(parser)
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


def run(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl run`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl run [options] TEMPLATE [options] [--] COMMAND [ARGUMENT ...]"
    _add_template(parser, "template", "a template, or an image, of which one is made once")
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
    _add_clone_options(parser)
    _add_command_options(parser)
    parser.set_defaults(command=[])
    parser.epilog = """\
examples:
  hostctl run tiny -- uname -a
  hostctl run -v job.sh:/job.sh --get /tmp/out:out tiny -- sh /job.sh
  hostctl run -v src:/src -w /src --get /src/build:build tiny -- make

What is copied in is a copy: nothing is shared with the guest, so -v is no mount. The machine has no
network, and is removed whatever happens. Exit status as of hostctl exec."""


def template_create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template create`: it takes what `create` takes, for QEMU."""
    _add_new_name(parser)
    source = parser.add_argument(
        "--from",
        dest="source",
        metavar="MACHINE",
        help="keep the present moment of this machine, which goes on, instead of booting one",
    )
    _complete(source, _MACHINE)
    _add_shape(parser)
    parser.add_argument(
        "--warm",
        metavar="LINE",
        action="append",
        default=[],
        help="run this shell line in it before its moment is kept; repeatable",
    )
    _add_on_clone(parser, "a script that each clone's /bin/sh runs first; $1 is its name")
    _add_timeout(parser, "how long to wait for its boot, and for each line (default: 120s)", 120)
    _add_json(parser)
    parser.set_defaults(backend="qemu")


def template_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template list`."""
    _add_json(parser)


def template_delete(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl template delete`."""
    _add_template(parser, "name", "one that no machine came of")


def pool_create(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool create`."""
    _add_template(parser, "template", "a template, or an image, of which one is made once")
    parser.add_argument(
        "--size", metavar="N", type=_count, required=True, help="how many clones shall wait"
    )
    _add_overcommit(parser)
    _add_json(parser)
    parser.epilog = """\
A waiting clone is warm and frozen: it takes memory, and no CPU. hostctl run takes one, and another
process makes the next. Of a pool that is there, this changes the size."""


def pool_name(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool delete`, and `fill`, which takes the same."""
    _add_template(parser, "template", "one that has a pool")
    _add_json(parser)


def pool_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl pool list`."""
    _add_json(parser)


def clone(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl clone`."""
    source = parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a template; or a machine whose hypervisor can make a stopped one of its snapshots",
    )
    _complete(source, _TEMPLATE)
    parser.add_argument("names", metavar="NAME", nargs="+", help="what to call the clones")
    parser.add_argument(
        "--snapshot", metavar="TAG", help="of a machine: where they begin (default: the newest)"
    )
    parser.add_argument(
        "--count", metavar="N", type=_count, help="make so many of one NAME: NAME-1, NAME-2, …"
    )
    _add_clone_options(parser)
    _add_timeout(parser, "how long to wait for their answers (default: 60s)", 60)
    _add_json(parser)


def shell(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl shell`. The guest's words are cut off before argparse sees them."""
    parser.usage = "hostctl shell [options] NAME [options] [[--] COMMAND [ARGUMENT ...]]"
    _add_name(parser)
    _add_surroundings(parser)
    _add_channel(parser)
    _add_steal(parser)
    parser.set_defaults(command=[])
    parser.epilog = """\
Without COMMAND it is the user's login shell, in their home. Enter ~. leaves, and ends what runs;
~? tells more.

exit status: as that of exec; 129 after ~."""


def forward(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl forward`."""
    _add_name(parser)
    parser.add_argument(
        "forwards",
        metavar="LOCAL:GUEST",
        nargs="+",
        help="LOCAL: a port of this host's loopback, 0 for any free one, or the path of a new "
        "socket; GUEST: a port of the guest's loopback, HOST:PORT as it knows it, or a /path",
    )
    parser.add_argument(
        "--max-connections",
        metavar="N",
        type=_count,
        default=3,
        help="carried at once by each; of a machine's ports there are four pairs (default: 3)",
    )
    _add_channel(parser)
    _add_steal(parser)
    parser.epilog = """\
examples:
  hostctl forward web 8080:80
  hostctl forward web 0:/run/app.sock ./debug.sock:9229"""


def cp(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl cp`."""
    _add_file(
        parser,
        "sources",
        metavar="SOURCE",
        help="FILE, NAME:FILE, a pattern as NAME:/var/log/*.log, or - for standard input",
        nargs="+",
    )
    _add_file(
        parser,
        "destination",
        metavar="DESTINATION",
        help="NAME:FILE, FILE, or - for standard output; a folder gets the source's name",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="copy folders, whole")
    parser.add_argument(
        "--verify", choices=("sha256",), help="compare digests made on both sides (slower)"
    )
    parser.add_argument(
        "--mode", metavar="MODE", type=_mode, help="permissions of the copy, octal, such as 0644"
    )
    parser.add_argument(
        "-p",
        "--preserve",
        action="store_true",
        help="keep permissions and modification time; folders always do",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what has come of a file when it breaks off, and go on there the next time",
    )
    folders = parser.add_argument_group("with -r")
    folders.add_argument(
        "--replace", action="store_true", help="put the folder in the place of one that is there"
    )
    folders.add_argument(
        "--partial",
        action="store_true",
        help="after a failure keep what has come, as DESTINATION.partial",
    )
    folders.add_argument("--owners", action="store_true", help="keep numeric owners and groups")
    _add_tree(folders)
    _add_channel(parser)
    _add_progress(parser)
    _add_steal(parser)
    _add_json(parser)
    _add_fan_out(parser)
    parser.epilog = """\
examples:
  hostctl cp job.tar web:/tmp/
  hostctl cp -r src web:/srv/
  hostctl cp 'web:/var/log/*.log' logs/
  hostctl cp --verify sha256 web:/var/log/messages .
  pg_dump db | hostctl cp - db:/root/dump.sql
  hostctl cp job.tar '@ci:/tmp/'               to every machine with that tag; read once
  hostctl cp 'web-*:/var/log/messages' logs/   to logs/NAME/messages

A local file with a colon in its name is written ./like:this."""


def sync(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl sync`."""
    _add_file(parser, "source", metavar="SOURCE", help="a folder: FOLDER or NAME:FOLDER")
    _add_file(
        parser,
        "destination",
        metavar="DESTINATION",
        help="the folder that shall be equal: NAME:FOLDER or FOLDER; made if it is missing",
    )
    parser.add_argument(
        "--delete", action="store_true", help="remove what is not in the source, but for --exclude"
    )
    parser.add_argument(
        "-c",
        "--checksum",
        action="store_true",
        help="compare files by SHA-256, not by size and time (slower)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="only print what would be sent and removed"
    )
    _add_tree(parser)
    _add_channel(parser)
    _add_progress(parser)
    _add_steal(parser)
    _add_json(parser)
    _add_fan_out(parser)
    parser.epilog = """\
examples:
  hostctl sync src web:/srv/src
  hostctl sync --delete --exclude '*.tmp' web:/srv/data backup/data

Unlike cp, sync takes both folders as they are named: nothing lands under the source's name."""


def _add_tree(parser: _Container) -> None:
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out what has such a name, such as '*.o'; /NAME: only at the top; repeatable",
    )
    parser.add_argument(
        "--links",
        choices=("inside", "skip"),
        default="inside",
        help="from a guest: a symbolic link that leads out of the folder is an error (inside, the "
        "default), or left out (skip)",
    )
    parser.add_argument(
        "--max-bytes",
        metavar="SIZE",
        type=_typed(units.parse_size),
        help="from a guest: take no more than this (default: 16G)",
    )
    parser.add_argument(
        "--max-files",
        metavar="N",
        type=_count,
        help="from a guest: take no more files and folders than this (default: 500000)",
    )


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--progress",
        choices=("auto", "json", "none"),
        default="auto",
        help="a bar on a terminal (auto, the default), or JSON lines on stderr",
    )


def snapshot_save(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot save`."""
    snapshot_tag(parser)
    parser.add_argument(
        "--quiesce",
        action="store_true",
        help="freeze the guest's file systems meanwhile, by its QEMU guest agent",
    )


def snapshot_tag(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot restore`, and `delete`, which takes the same."""
    _add_group(parser)
    parser.add_argument("tag", metavar="TAG", help="the snapshot's name")
    _add_json(parser)


def snapshot_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl snapshot list`."""
    _add_names(parser)
    _add_json(parser)


def image_build(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl image build`."""
    parser.add_argument("image", metavar="IMAGE", help="a recipe's name, such as tiny")
    parser.add_argument(
        "-f", "--force", action="store_true", help="build again even if nothing changed"
    )
    _add_json(parser)


def image_list(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl image list`."""
    _add_json(parser)


def console(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl console`."""
    _add_name(parser)
    parser.add_argument(
        "--log", action="store_true", help="print what the console said so far, and return"
    )
    parser.add_argument(
        "--history",
        metavar="LINES",
        type=_lines,
        default=24,
        help="how much of that to show first (default: 24)",
    )
    _add_steal(parser)


def doctor(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl doctor`."""
    _add_json(parser)


def completion(parser: argparse.ArgumentParser) -> None:
    """Declare `hostctl completion`."""
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")
    parser.epilog = """\
install:
  bash  hostctl completion bash > ~/.local/share/bash-completion/completions/hostctl
  zsh   hostctl completion zsh  > a folder of your $fpath, as _hostctl
  fish  hostctl completion fish > ~/.config/fish/completions/hostctl.fish"""


def split_guest_words(words: list[str], valued: frozenset[str]) -> tuple[list[str], list[str]]:
    """Cut a line of `exec` into our words and the guest's.

    The guest's begin after `--`, or with the second word that is no option: `exec web ls -i` must
    list inodes, not become interactive. argparse cannot say that, and its own handling of `--`
    differs between Python versions. `valued` names the options which take a value.
    """
    named = False
    skip = False
    for at, word in enumerate(words):
        if skip:
            skip = False
        elif word == "--":
            return words[:at], words[at + 1 :]
        elif word.startswith("-") and word != "-":
            skip = _awaits_value(word, valued)
        elif named:
            return words[:at], words[at:]
        else:
            named = True
    return words, []


def _awaits_value(word: str, valued: frozenset[str]) -> bool:
    """Tell whether the next word belongs to this one: `--env K=V`, `-e K=V`, `-ie K=V`."""
    if word.startswith("--"):
        return word in valued
    first = next((at for at, letter in enumerate(word) if f"-{letter}" in valued), None)
    return first is not None and first == len(word) - 1


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


def _add_name(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument("name", metavar="NAME", help="the machine")
    _complete(action, _MACHINE)


def _add_group(parser: argparse.ArgumentParser) -> None:
    """Declare one word that may mean several machines, for lines that have further words."""
    text = "the machine; or several in one word: web,db, 'web-[0-9]', @ci"
    action = parser.add_argument("name", metavar="NAME", help=text)
    _complete(action, _MACHINE)
    _add_fan_out(parser)


def _add_connect(parser: _Container) -> None:
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="the libvirt to use, such as qemu:///system or qemu+ssh://root@host/system (default: "
        "the one of virsh); of VirtualBox: words to put before its programs",
    )


def _add_login(parser: _Container) -> None:
    login = parser.add_mutually_exclusive_group()
    _add_file(
        login,
        "--login",
        metavar="FILE",
        help="who logs in to the guest, at its serial line or by guest control: "
        'user = "…", password = "…", readable by you alone',
    )
    login.add_argument("--user", metavar="USER", help="the same, the password is asked for")


def _add_steal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steal",
        action="store_true",
        help="take ports over from whoever else holds their lines, such as virsh (libvirt only)",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    _add_words(parser, "+", _SEVERAL)
    _add_fan_out(parser)


def _add_words(parser: argparse.ArgumentParser, count: str, text: str) -> None:
    action = parser.add_argument("names", metavar="NAME", nargs=count, help=text)
    _complete(action, _MACHINE)


def _add_fan_out(parser: argparse.ArgumentParser) -> None:
    """Declare what only matters with several machines."""
    group = parser.add_argument_group("with several machines")
    group.add_argument(
        "--parallel", metavar="N", type=_count, help="how many at once (default: 16)"
    )
    end = group.add_mutually_exclusive_group()
    end.add_argument(
        "--fail-fast", action="store_true", help="the first that fails ends the others"
    )
    end.add_argument(
        "--keep-going",
        dest="fail_fast",
        action="store_false",
        help="one that fails does not hold up the others (default)",
    )
    _add_allow_empty(group)


def _add_allow_empty(parser: _Container) -> None:
    parser.add_argument(
        "--allow-empty", action="store_true", help="a pattern or @tag without a match is no error"
    )


def _add_new_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="what to call it: letters, digits, dots, dashes"
    )


def _add_timeout(parser: argparse.ArgumentParser, text: str, default: float | None) -> None:
    parser.add_argument(
        "--timeout",
        dest="timeout_s",
        metavar="TIME",
        type=_typed(units.parse_duration),
        default=default,
        help=text,
    )


def _add_template(parser: argparse.ArgumentParser, dest: str, text: str) -> None:
    _complete(parser.add_argument(dest, metavar="TEMPLATE", help=text), _TEMPLATE)


def _add_clone_options(parser: argparse.ArgumentParser) -> None:
    text = "a script that the clone's /bin/sh runs first, after the template's; $1 is its name"
    _add_on_clone(parser, text)
    _add_overcommit(parser)


def _add_overcommit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overcommit",
        action="store_true",
        help="start even if there may be too little memory for all of the clones' RAM",
    )


def _add_on_clone(parser: argparse.ArgumentParser, text: str) -> None:
    _add_file(parser, "--on-clone", metavar="SCRIPT", help=text)


def _add_command_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        "--interactive",
        action="store_true",
        help="pass our standard input on; without it the command reads an empty one",
    )
    _add_surroundings(parser)
    _add_timeout(parser, "kill it after this long, and exit with 124", None)
    parser.add_argument(
        "--shell", action="store_true", help="join the words and let the guest's /bin/sh read them"
    )


def _add_shape(parser: argparse.ArgumentParser) -> None:
    boot = parser.add_argument_group("what boots")
    boot.add_argument(
        "--image",
        metavar="IMAGE",
        help="an image by name, built when it is not there yet (default: tiny, unless --disk names "
        "a file to boot); none: the firmware looks for something to boot",
    )
    _add_file(boot, "--kernel", metavar="FILE", help="boot this kernel instead of an image")
    _add_file(boot, "--initrd", metavar="FILE", help="initial RAM disk for --kernel")
    boot.add_argument(
        "--append", metavar="LINE", help="kernel command line, added to the image's if there is one"
    )
    shape = parser.add_argument_group("the machine")
    shape.add_argument(
        "--memory",
        metavar="SIZE",
        type=_typed(units.parse_memory_mib),
        default=256,
        help="RAM, such as 256M or 2G (default: 256M)",
    )
    shape.add_argument(
        "--cpus",
        metavar="N",
        type=_count,
        default=1,
        help="virtual CPUs (default: 1; without KVM more are slower)",
    )
    shape.add_argument(
        "--disk",
        metavar="DISK",
        action="append",
        default=[],
        help="FILE[,size=SIZE][,format=qcow2|raw]: a disk image, itself left untouched, for writes "
        "go to an overlay; or size=SIZE: an empty disk; repeatable; of VirtualBox: vdi, vmdk, vhd, "
        "raw, which are copied, or iso, a CD",
    )
    shape.add_argument(
        "--accel",
        choices=("auto", "kvm", "hvf", "tcg"),
        default="auto",
        help="auto takes KVM or HVF only after it proved to boot (default)",
    )
    shape.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="one more word for QEMU's command line, such as --qemu-arg=-name; repeatable",
    )


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="NAME/JOB", help="a machine and the id of a job in it")


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "jobs",
        metavar="NAME/JOB",
        nargs="+",
        help="a machine and the id of a job in it; both may be patterns: 'web-*/*', '@ci/*'",
    )
    _add_fan_out(parser)


def _add_channel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channel",
        choices=CHANNELS,
        default="auto",
        help="how to reach the guest: our agent, QEMU's guest agent, VirtualBox's guest control, "
        "our agent on the serial line, a login on it, or the best that answers (default)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON; its keys stay as they are")


def _add_file(
    parser: _Container, name: str, *, metavar: str, help: str, nargs: str | None = None
) -> None:
    action = parser.add_argument(name, metavar=metavar, help=help, nargs=nargs)
    _complete(
        action,
        {
            "bash": "_shtab_compgen_files",
            "zsh": "_files",
            "fish": "(__fish_complete_path (commandline -ct))",
        },
    )


def _complete(action: argparse.Action, functions: dict[str, str]) -> None:
    """Tell shtab how to complete this argument; it looks for this attribute."""
    action.complete = functions  # type: ignore[attr-defined]  # shtab's convention


def _typed(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse show the message of a ValueError: of its own accord it hides it."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as err:
            raise argparse.ArgumentTypeError(str(err)) from err

    return convert


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a count; write 1 or more')
    return int(text)


def _lines(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is no number of lines; write 0 or more')
    return int(text)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise argparse.ArgumentTypeError(
            f'"{text}" are no permissions; write them octal, like 0644'
        )
    return mode
