"""Bring our agent into a guest that never heard of us, by whatever foothold there is, and undo it.

Owns the order of steps and what is written down of them; what happens in the guest is attach.sh's,
how a foothold works is its channel's, and ports are the back end's.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from hostctl_channels.console import ConsoleChannel
from hostctl_channels.errors import ChannelError, HostctlError, PortsBusy, ProtocolError
from hostctl_channels.interface import Capability, Command, PutOptions
from hostctl_channels.ports import PORTS, SERIAL
from hostctl_guestside import agent, attach_script

from .connect import LINES, Line, Site
from .errors import AttachFailed
from .state import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from hostctl_channels.interface import Channel
    from hostctl_channels.links.interface import Endpoint

__all__ = ["Attachment", "Look", "attach", "detach", "look"]

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
Plug = Callable[[], Awaitable[Mapping[str, "Endpoint"]]]
"""Adds our ports to the living machine; returns where all its ports are then."""

KEPT: Final = "/usr/local/lib/hostctl/agent.sh"  # survives a reboot
PASSING: Final = "/run/hostctl-agent.sh"  # does not, on any system with a tmpfs there
FAST: Final = "agent"
SLOW: Final = "serial"
TTY: Final = "/dev/ttyS1"  # what the line of SLOW is called in a guest that runs Linux
FOOTHOLDS_TO_SLOW: Final = ("console", "guestcontrol")
# How long each line may take to answer when it is looked at.
LOOK_S: Final = {"agent": 4.0, "qga": 6.0, "guestcontrol": 15.0, "serial": 6.0, "console": 45.0}
READY: Final = b"\x9dHR"  # what an agent says first; PROTOCOL 3
STEP_S: Final = 60.0  # for one script in the guest; a login on an emulated line is slow
ANSWER_S: Final = 30.0  # for the fresh agent
GONE_S: Final = 3.0  # of silence: an agent that is there answers in milliseconds
END_S: Final = 30.0  # for one that is told to leave


@dataclass(frozen=True, slots=True)
class Look:
    """One way into a guest, tried: the channel's key, and why it does not answer."""

    key: str
    title: str
    why_not: str | None
    capabilities: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """True if the guest can be reached by it."""
        return self.why_not is None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What `attach` did, or would do: the foothold's key, the agent's path in the guest, ...

    `channel` is what reaches the guest afterwards. `steps` are for a person.
    """

    foothold: str
    channel: str
    path: str
    is_service: bool
    steps: tuple[str, ...] = ()


async def look(site: Site, keys: tuple[str, ...] = ()) -> tuple[Look, ...]:
    """Try every line of a machine, or those of `keys`; those that share a wire one after the other.

    A login on the console is tried only where it is known who logs in.
    """
    lines = [line for line in LINES if not keys or line.key in keys]
    fast = [line for line in lines if line.port != SERIAL]
    found = list(await asyncio.gather(*(_look_at(line, site) for line in fast)))
    slow = [line for line in lines if line.port == SERIAL]
    return (*found, *[await _look_at(line, site) for line in slow])


async def _look_at(line: Line, site: Site) -> Look:
    if line.port not in site.endpoints:
        return Look(line.key, line.title, "the machine has no such line")
    if not line.is_at(site):
        return Look(line.key, line.title, "nobody said who logs in: --login FILE")
    channel = line.open(site)
    try:
        await channel.connect(LOOK_S[line.key])
        found = tuple(sorted(channel.capabilities))
        return Look(line.key, line.title, None, found)
    except HostctlError as err:
        return Look(line.key, line.title, str(err))
    finally:
        await channel.close()


async def attach(
    site: Site,
    record: Path,
    plug: Plug | None,
    *,
    is_kept: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Attachment:
    """Make the agent answer. Fine when it does already.

    `record` is a file for what was done; `plug` is None where ports cannot be added; `is_kept`
    installs the agent as a service.

    Raises:
        AttachFailed: there is no foothold, or the agent did not come to life; what was done so far
            is in `record`, for `detach`.
    """
    say = progress or (lambda _: None)
    say("looking for a foothold")
    looks = await look(site, (FAST,))
    if looks[0].answers:
        return Attachment(FAST, FAST, "", is_service=False, steps=("its agent answers already",))
    others = [line for line in LINES if line.key != FAST]
    looks += await look(site, tuple(line.key for line in others if line.port != SERIAL))
    if not any(each.answers for each in looks):  # a login on a silent line takes most of a minute
        looks += await look(site, tuple(line.key for line in others if line.port == SERIAL))
    return await _Attaching(site, record, plug, is_kept, say).run(looks, dry_run=dry_run)


class _Attaching:
    """One run of `attach`."""

    def __init__(
        self,
        site: Site,
        record: Path,
        plug: Plug | None,
        is_kept: bool,
        say: Progress,
    ) -> None:
        self._site = site
        self._record = record
        self._plug = plug
        self._is_kept = is_kept
        self._say = say

    async def run(self, looks: tuple[Look, ...], *, dry_run: bool) -> Attachment:
        foothold = _best(looks)
        has_ports = set(PORTS[:2]) <= set(self._site.endpoints)
        plan = self._plan(foothold, has_ports=has_ports)
        if dry_run or not plan.steps:
            return plan
        write_json(self._record, asdict(plan))  # before anything is done, so that all can be undone
        if plan.channel == FAST and not has_ports and self._plug:
            self._say("adding ports to the machine")
            self._site = self._site._replace(endpoints=await self._plug())
        await self._bring(foothold, plan)
        await self._await_agent(plan.channel)
        return plan

    def _plan(self, foothold: Line, *, has_ports: bool) -> Attachment:
        can_be_fast = has_ports or self._plug is not None
        channel = FAST if can_be_fast else SLOW
        path = KEPT if self._is_kept else PASSING
        if foothold.key == SLOW:
            if not can_be_fast:
                return Attachment(SLOW, SLOW, "", False, ())
        elif channel == SLOW and (
            foothold.key not in FOOTHOLDS_TO_SLOW or SERIAL not in self._site.endpoints
        ):
            raise AttachFailed(
                "the machine has no port for the agent, and none can be added",
                hint="give it virtio-serial ports named org.hostctl.0, .1, ..., or a second serial "
                "line",
            )
        steps = [f"write the agent to {path}, by: {foothold.title}"]
        if channel == FAST and not has_ports:
            steps.append("add virtio-serial ports org.hostctl.* to the running machine")
        if channel == SLOW and foothold.key == "console":
            steps.append("hand the serial line to the agent")
        else:
            steps.append("install it as a service, and start it" if self._is_kept else "start it")
        return Attachment(foothold.key, channel, path, self._is_kept, tuple(steps))

    async def _bring(self, foothold: Line, plan: Attachment) -> None:
        channel = foothold.open(self._site)
        try:
            await channel.connect(LOOK_S[foothold.key])
            self._say(f"writing the agent to {plan.path}")
            await _write_agent(channel, plan.path)
            self._say(plan.steps[-1])
            if isinstance(channel, ConsoleChannel) and plan.channel == SLOW:
                await channel.hand_over(b"sh %s $(tty)" % plan.path.encode(), READY)
            else:
                verb = "install" if plan.is_service else "start"
                device = (TTY,) if plan.channel == SLOW else ()
                await _run(channel, verb, plan.path, *device)
        finally:
            await channel.close()

    async def _await_agent(self, key: str) -> None:
        self._say("waiting for the agent")
        line = next(line for line in LINES if line.key == key)
        channel = line.open(self._site)
        try:
            await channel.connect(ANSWER_S)
        except ChannelError as err:
            raise AttachFailed(
                f"the agent was started, and does not answer: {err}",
                hint="undo it with: hostctl detach",
            ) from err
        finally:
            await channel.close()


async def detach(site: Site, record: Path) -> Attachment:
    """End the agent that `attach` brought, remove its file and its service.

    Raises:
        AttachFailed: it was not brought by us, or the guest cannot be reached; the record stays.
    """
    data = read_json(record)
    if data is None:
        raise AttachFailed("nothing is attached", hint="attach it with: hostctl attach")
    done = Attachment(**data | {"steps": tuple(data["steps"])})
    first = await look(site, (done.channel,))
    foothold = _best(first if first[0].answers else await look(site))
    channel = foothold.open(site)
    try:
        await channel.connect(LOOK_S[foothold.key])
        await _leave(channel, done)
    finally:
        await channel.close()
    await _await_end(site, done.channel)
    record.unlink()  # noqa: ASYNC240 a file of ours
    return done


async def _await_end(site: Site, key: str) -> None:
    """Wait until the agent has left: the next command must not meet one that is going."""
    line = next(line for line in LINES if line.key == key)
    try:
        async with asyncio.timeout(END_S):
            while await _answers(line, site):  # noqa: ASYNC110 it does not say that it has gone
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AttachFailed(
            f"the agent still answers after {END_S:g} s", hint="try again: hostctl detach"
        ) from None


async def _answers(line: Line, site: Site) -> bool:
    channel = line.open(site)
    try:
        await channel.connect(GONE_S)
    except (PortsBusy, ProtocolError):  # it ends just now, its last words among a login's
        return True
    except ChannelError:
        return False
    finally:
        await channel.close()
    return True


async def _leave(channel: Channel, done: Attachment) -> None:
    """Take the agent away; where we speak through it, it ends after its last answer.

    So nothing is asked of it after that: a slow line would need longer than it has left.
    """
    verb = "remove" if done.is_service else "stop"
    line = (
        '(sleep 2; rm -f "$3"; case $3 in */hostctl/*) rmdir "${3%/*}" ;; esac;'
        ' exec sh -c "$1" attach "$2" "$3") >/dev/null 2>&1 &'
    )
    words = (attach_script(), verb, done.path)
    result = await channel.exec(Command.of("sh", "-c", line, "detach", *words), max_output_bytes=0)
    if not result.exit.ok:
        raise AttachFailed(f"the agent cannot be removed: {result.exit}")


def _best(looks: tuple[Look, ...]) -> Line:
    """Return the best line that answers."""
    for line in LINES:
        if any(each.key == line.key and each.answers for each in looks):
            return line
    reasons = "; ".join(f"{each.title}: {each.why_not}" for each in looks)
    raise AttachFailed(
        f"no foothold in the guest: {reasons}",
        hint="it needs qemu-guest-agent; or, with --login FILE, VirtualBox's Guest Additions or a "
        "login on its serial line",
    )


async def _write_agent(channel: Channel, path: str) -> None:
    folder = path.rpartition("/")[0]
    made = await channel.exec(Command.of("mkdir", "-p", folder))
    if not made.exit.ok:
        raise AttachFailed(f"the guest has no {folder}: {_told(made.stderr)}")
    data = agent()
    can = Capability.SHA256 in channel.capabilities
    options = PutOptions(mode=0o755, verify="sha256" if can else None)
    await channel.put(io.BytesIO(data), len(data), path.encode(), options)


async def _run(channel: Channel, verb: str, *words: str) -> None:
    async with asyncio.timeout(STEP_S):
        result = await channel.exec(Command.of("sh", "-c", attach_script(), "attach", verb, *words))
    if not result.exit.ok:
        raise AttachFailed(f"the guest could not {verb} the agent: {_told(result.stderr)}")


def _told(stderr: bytes) -> str:
    text = stderr.strip().rsplit(b"\n", 1)[-1].decode("utf-8", "backslashreplace")[:200]
    return "".join(c if c.isprintable() else "?" for c in text) or "it said nothing"
