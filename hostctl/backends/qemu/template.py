"""A machine's moment as a template: RAM in a file that clones map copy-on-write, devices beside it.

QEMU's migration leaves out RAM that is a shared file (`x-ignore-shared`), so what is written and
read is the state of devices, some hundred kilobytes; the RAM file stays where it is. A clone maps
it privately: it pays for the pages it changes, and the template never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DeadlineExceeded, MonitorError
from ...state import MachineFiles

if TYPE_CHECKING:
    from .brief import Executing
    from .monitor import Monitor

__all__ = ["load_state", "save_state"]

POLL_S = 0.002
_PIECE = 1 << 16
_CAPABILITIES = ("x-ignore-shared",)


async def save_state(qmp: Monitor, files: MachineFiles, path: Path, timeout_s: float) -> None:
    """Freeze the guest, whose RAM is a shared file, and write its devices to `path`.

    QEMU may start no process and open no file of our choice, so it speaks to a socket of ours. It
    must be ended afterwards: were the guest to go on, the RAM would not fit the devices.
    """
    from .outflow import let_out

    await qmp.execute("stop")
    await let_out(qmp, files)
    await _enable(qmp, _CAPABILITIES)
    socket = files.socket("state")
    with path.open("xb") as file:
        done = asyncio.get_running_loop().create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(_PIECE):
                file.write(piece)
            writer.close()
            done.set_result(None)

        server = await asyncio.start_unix_server(take, socket)
        try:
            async with asyncio.timeout(timeout_s):
                await qmp.execute("migrate", {"uri": f"unix:{socket}"})
                await _migrated(qmp)
                await done
        except TimeoutError:
            raise DeadlineExceeded(f"qemu did not write its state in {timeout_s:g} s") from None
        finally:
            server.close()
            socket.unlink(missing_ok=True)


async def load_state(qmp: Executing, path: Path, socket: Path, timeout_s: float) -> None:
    """Read devices from `path` into a QEMU that waits for them; the guest is left frozen."""
    await _enable(qmp, _CAPABILITIES)
    await qmp.execute("migrate-incoming", {"uri": f"unix:{socket}"})
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_unix_connection(socket)
            writer.write(path.read_bytes())  # noqa: ASYNC240 some hundred kilobytes, just written
            writer.close()
            with contextlib.suppress(ConnectionError):  # QEMU hangs up first; it tells below how
                await writer.wait_closed()
            await _migrated(qmp)
    except TimeoutError:
        raise DeadlineExceeded(f"qemu did not read its state in {timeout_s:g} s") from None
    finally:
        socket.unlink(missing_ok=True)  # noqa: ASYNC240 a name of ours
    await _enable(qmp, (), _CAPABILITIES)  # or its snapshots would leave the RAM out


async def _enable(qmp: Executing, on: Iterable[str], off: Iterable[str] = ()) -> None:
    wanted = [(name, True) for name in on] + [(name, False) for name in off]
    states = [{"capability": name, "state": state} for name, state in wanted]
    await qmp.execute("migrate-set-capabilities", {"capabilities": states})


async def _migrated(qmp: Executing) -> None:
    while True:
        now = await qmp.execute("query-migrate")
        if now.get("status") == "completed":
            return
        if now.get("status") in ("failed", "cancelled"):
            raise MonitorError("migrate", now.get("error-desc") or "qemu does not say why")
        await asyncio.sleep(POLL_S)
