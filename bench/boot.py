#!/usr/bin/env python3
"""How long `tiny` takes from QEMU's start to the first byte of its agent, and what helps.

    .venv/bin/python bench/boot.py [ROUNDS]

Rounds are interleaved: each variant boots once per round, so load on the host hits all alike.
Compare within one run only, and on a loaded host by CPU seconds: a boot never waits for anything.
"""

import contextlib
import gzip
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import hostctl_images
from hostctl_images.image import cache_folder

DEADLINE_S = 60
PORTS = 5
MACHINE = "q35,sata=off,smbus=off"


@dataclass(frozen=True)
class Variant:
    """One way to boot."""

    name: str
    kernel: Path
    initrd: Path
    append: str
    machine: str = MACHINE
    extra: tuple[str, ...] = ()


class Times(NamedTuple):
    """What one boot took."""

    cpu_s: float
    wall_s: float


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        variants = list(_variants(Path(name)))
        times: dict[str, list[Times]] = {variant.name: [] for variant in variants}
        for _ in range(rounds):
            for variant in variants:
                times[variant.name].append(boot(variant))
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True)
    print(f"{qemu.stdout.splitlines()[0]}; host {platform.release()}; TCG; {rounds} rounds\n")
    print("| variant | CPU s, median (min-max) | wall s |\n|---|---|---|")
    for label, boots in times.items():
        cpu_s, wall_s = zip(*boots, strict=True)
        print(f"| {label} | {_spread(cpu_s)} | {_spread(wall_s)} |")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _variants(folder: Path) -> Iterator[Variant]:
    image = hostctl_images.build("tiny")
    ours = Variant("tiny as shipped", image.kernel, image.initrd, image.append)
    yield ours
    plain = "console=ttyS0 quiet panic=-1"
    yield replace(ours, name="plain command line", append=plain)
    if bzimage := _bzimage(folder):
        yield replace(ours, name="bzImage instead of vmlinux", kernel=bzimage)
        yield replace(ours, name="bzImage, plain command line", kernel=bzimage, append=plain)
    packed = folder / "initrd.gz"
    packed.write_bytes(gzip.compress(image.initrd.read_bytes(), 1))
    yield replace(ours, name="initrd gzip -1", initrd=packed)
    for word in image.append.split():
        if word not in plain.split():
            rest = " ".join(each for each in image.append.split() if each != word)
            yield replace(ours, name=f"without `{word.split('=')[0]}`", append=rest)
    yield replace(ours, name="with `mitigations=off`", append=f"{image.append} mitigations=off")
    yield replace(ours, name="with `acpi=noirq`", append=f"{image.append} acpi=noirq")
    yield replace(ours, name="QEMU: -machine pc", machine="pc")
    yield replace(ours, name="QEMU: -bios qboot.rom", extra=("-bios", "qboot.rom"))


def _bzimage(folder: Path) -> Path | None:
    """Unpack the kernel as Debian ships it, from the package in the cache."""
    for package in (cache_folder() / "packages").glob("linux-image-*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        return next((folder / "boot").glob("vmlinuz-*"))
    return None


def boot(variant: Variant) -> Times:
    """Boot once and return what it took until the agent had spoken."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "port"
        started = time.monotonic()
        with _running(_argv(variant, path)) as pid, contextlib.closing(_connect(path)) as port:
            port.settimeout(DEADLINE_S)
            if not port.recv(1):
                raise RuntimeError(f"{variant.name}: the port was closed")
            return Times(_cpu_s(pid), time.monotonic() - started)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _argv(variant: Variant, path: Path) -> list[str]:
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nic", "none"]
    argv += [
        "-machine",
        variant.machine,
        "-display",
        "none",
        "-accel",
        "tcg,thread=multi",
        "-m",
        "256",
        "-no-reboot",
    ]
    argv += ["-kernel", str(variant.kernel), "-initrd", str(variant.initrd)]
    argv += ["-append", variant.append, "-serial", "null", *variant.extra]
    argv += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=31"]
    for number in range(PORTS):
        where = f",path={path},server=on,wait=off" if number == 0 else ""
        argv += ["-chardev", f"{'socket' if where else 'null'},id=c{number}{where}"]
        argv += ["-device", f"virtserialport,chardev=c{number},name=org.hostctl.{number}"]
    return argv


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[int]:
    with subprocess.Popen(argv) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        port = socket.socket(socket.AF_UNIX)
        try:
            port.connect(str(path))
        except OSError:
            port.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return port


if __name__ == "__main__":
    main()
