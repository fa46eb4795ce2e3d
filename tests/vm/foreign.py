"""A QEMU that hostctl did not start, with nothing of ours: a guest agent and a monitor."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import hostctl_images
from hostctl_channels.ports import GUEST_AGENT


@dataclass(frozen=True, slots=True)
class Foreign:
    """Where it is reached."""

    monitor: Path
    lines: dict[str, str]
    process: asyncio.subprocess.Process


@asynccontextmanager
async def foreign_qemu(*more: str, serial_bus: bool = True) -> AsyncIterator[Foreign]:
    """Boot the image tiny-qga as somebody else would."""
    image = await asyncio.to_thread(hostctl_images.build, "tiny-qga")
    folder = Path(tempfile.mkdtemp(prefix="hf-"))
    monitor, agent = folder / "qmp", folder / "qga"
    words = [
        *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-m", "256"),
        *("-machine", "q35", "-accel", "tcg", "-kernel", str(image.kernel)),
        *("-initrd", str(image.initrd), "-append", image.append),
        *("-chardev", f"file,id=c,path={folder / 'console'}", "-serial", "chardev:c"),
        *("-chardev", f"socket,id=q,path={monitor},server=on,wait=off"),
        *("-mon", "chardev=q,mode=control"),
    ]
    if serial_bus:
        words += ["-device", "virtio-serial-pci,max_ports=31"]
        words += ["-chardev", f"socket,id=g,path={agent},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=g,name={GUEST_AGENT}"]
    process = await asyncio.create_subprocess_exec("qemu-system-x86_64", *words, *more)
    try:
        async with asyncio.timeout(20):
            while not await _greets(monitor):  # noqa: ASYNC110 its socket is there before it listens
                await asyncio.sleep(0.05)
        yield Foreign(monitor, {GUEST_AGENT: str(agent)} if serial_bus else {}, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shutil.rmtree(folder)


async def _greets(monitor: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(monitor)
    except OSError:
        return False
    greeting = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return b"QMP" in greeting
