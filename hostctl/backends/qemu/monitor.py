"""QEMU's monitor: one short conversation at a time, every wait bounded, every error ours.

qemu.qmp's objects stop here. Its quirks, and what is done about them:

- A QMP socket serves one client; a second one connects and waits for its greeting in silence.
  So the greeting has a deadline, and a conversation lasts as long as one operation.
- `disconnect` raises EOFError when QEMU hung up first, also after a proper `quit`: swallowed, for
  the command that met the end has been told already.
- Its event listener never ends when the connection does: jobs are polled instead, which also finds
  a job that a killed hostctl began.
- It logs what it raises: silenced below CRITICAL, or each failure would be told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from ...errors import DeadlineExceeded, MonitorError

__all__ = ["Monitor", "monitor"]

logger = logging.getLogger(__name__)
_library = logging.getLogger("qemu.qmp")
if _library.level == logging.NOTSET:
    _library.setLevel(logging.CRITICAL)

COMMAND_S = (
    10.0  # a healthy QEMU answers in a millisecond; a stopped (SIGSTOP) or swapped one in none
)
JOB_POLL_S = 0.01
RETRY_S = 0.02
JOB_PREFIX = "hostctl-"


class Monitor:
    """A conversation with QEMU; made by `monitor`."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = COMMAND_S,
    ) -> Any:
        """Return QEMU's answer.

        Raises:
            MonitorError: refused, no answer in time, or QEMU ended meanwhile.
        """
        logger.debug("> %s %s", command, arguments or "")
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._client.execute(command, arguments)
        except TimeoutError:
            raise MonitorError(command, f"no answer within {timeout_s:g} s") from None
        except ExecuteError as err:
            raise MonitorError(command, str(err)) from err
        except QMPError as err:
            raise MonitorError(command, "qemu ended before it answered") from err
        logger.debug("< %s", answer)
        return answer

    async def job(self, command: str, arguments: Mapping[str, object], timeout_s: float) -> None:
        """Run a command that starts a job, and wait for the job's end.

        After the deadline the job is cancelled as far as QEMU can.

        Raises:
            MonitorError: the command was refused or the job failed; `reason` is QEMU's.
            DeadlineExceeded: the job did not end in time.
        """
        job_id = f"{JOB_PREFIX}{secrets.token_hex(4)}"
        await self.execute(command, {"job-id": job_id, **arguments})
        try:
            async with asyncio.timeout(timeout_s):
                error = await self._concluded(job_id, timeout_s)
        except TimeoutError:
            with contextlib.suppress(MonitorError):
                await self.execute("job-cancel", {"id": job_id})
            raise DeadlineExceeded(f"qemu job {command} did not end in {timeout_s:g} s") from None
        if error is not None:
            raise MonitorError(command, error)

    async def dismiss_jobs(self) -> None:
        """Forget ended jobs whose hostctl was killed."""
        for job in await self.execute("query-jobs"):
            if job["status"] == "concluded" and job["id"].startswith(JOB_PREFIX):
                await self.execute("job-dismiss", {"id": job["id"]})

    async def _concluded(self, job_id: str, timeout_s: float) -> str | None:
        while True:
            # QEMU answers nothing while it reads or writes RAM, which may take long on a slow disk.
            for job in await self.execute("query-jobs", timeout_s=timeout_s):
                if job["id"] == job_id and job["status"] == "concluded":
                    await self.execute("job-dismiss", {"id": job_id})
                    error: str | None = job.get("error")
                    return error
            await asyncio.sleep(JOB_POLL_S)


@contextlib.asynccontextmanager
async def monitor(
    path: Path, *, timeout_s: float = COMMAND_S, is_alive: Callable[[], bool] = lambda: True
) -> AsyncIterator[Monitor]:
    """Talk to the monitor at `path`; tries until the deadline, or until `is_alive` says no.

    Raises:
        MonitorError: no greeting in time, or QEMU is not alive.
    """
    client = await _connect(path, timeout_s, is_alive)
    try:
        yield Monitor(client)
    finally:
        await _disconnect(client)


async def _connect(path: Path, timeout_s: float, is_alive: Callable[[], bool]) -> QMPClient:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        client = QMPClient(path.parent.name)
        try:
            async with asyncio.timeout_at(deadline):
                await client.connect(str(path))
            return client
        except TimeoutError:
            await _disconnect(client)
            hint = "another program holds the monitor, or qemu hangs"
            raise MonitorError(
                "connect", f"no greeting within {timeout_s:g} s", hint=hint
            ) from None
        except ConnectError as err:
            if not is_alive():
                raise MonitorError("connect", "qemu has ended") from err
            if asyncio.get_running_loop().time() >= deadline:
                raise MonitorError("connect", f"{err} within {timeout_s:g} s") from err
        except BaseException:
            await _disconnect(client)
            raise
        await asyncio.sleep(RETRY_S)


async def _disconnect(client: QMPClient) -> None:
    with contextlib.suppress(EOFError, OSError, QMPError, TimeoutError):
        async with asyncio.timeout(COMMAND_S):
            await client.disconnect()
