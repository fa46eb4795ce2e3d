"""How an image is made: one builder at a time, whole or not at all, the same from the same inputs.

In the cache folder:
    packages/          package files, kept; NAME.chosen says which one a name means
    kernels/DIGEST/    vmlinux and modules/, unpacked from one kernel package
    images/NAME        a link to .NAME-XXXXXXXX, the folder of the last build
    lock               held while any of this changes
A killed builder leaves a folder that no link names; the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import cpio, packages, procs, tiny, tiny_qga
from .closure import Closure, gather
from .errors import BuildFailed, ImageNotFound
from .image import MANIFEST, Image, cache_folder, code_digest, find, images_folder, texts_of
from .kernel import load_order, unpack_kernel
from .packages import Package

__all__ = ["build"]

TEMPORARY = ".tmp-"

Progress = Callable[[str], None]


def build(name: str, *, force: bool = False, progress: Progress | None = None) -> Image:
    """Build image `name`; see hostctl_images.build."""
    if not force:
        with contextlib.suppress(ImageNotFound):
            return find(name)
    say = progress or (lambda line: None)
    with _locked(say):
        if not force:
            with contextlib.suppress(ImageNotFound):
                return find(name)  # another builder was faster
        _sweep()
        _build_locked(name, force, say)
        _sweep()
        return find(name)


def _build_locked(name: str, renew: bool, say: Progress) -> None:
    folder = cache_folder() / "packages"
    kernel = packages.fetch(tiny.KERNEL_PACKAGE, folder, renew=renew, progress=say)
    busybox = packages.fetch(tiny.BUSYBOX_PACKAGE, folder, renew=renew, progress=say)
    with _temporary(folder) as temporary:
        programs = _programs(
            name, temporary, lambda each: packages.fetch(each, folder, renew=renew, progress=say)
        )
    unpacked = _unpacked_kernel(kernel, say)
    say(f"building image {name}")
    images = images_folder()
    images.mkdir(parents=True, exist_ok=True)
    target = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=images))
    _share(unpacked / "vmlinux", target / "vmlinux")
    _write_initrd(target / "initrd", unpacked / "modules", busybox, programs)
    _write_manifest(target, name, (kernel, busybox, *(programs.packages if programs else ())))
    _publish(target, images / name)


def _programs(name: str, folder: Path, fetch: Callable[[str], Package]) -> Closure | None:
    """Return the programs that a recipe has besides busybox."""
    if name == "tiny":
        return None
    return gather(fetch(tiny_qga.PACKAGE), tiny_qga.PROGRAM, folder, fetch)


def _unpacked_kernel(package: Package, say: Progress) -> Path:
    """Return the folder with vmlinux and modules/ of a kernel package, made on first use."""
    kernels = cache_folder() / "kernels"
    key = hashlib.sha256((package.sha256 + code_digest("kernel", "lz4")).encode()).hexdigest()
    folder = kernels / key[:32]
    if folder.is_dir():
        return folder
    say(f"unpacking {package.name}")
    kernels.mkdir(parents=True, exist_ok=True)
    with _temporary(kernels) as temporary:
        packages.unpack(package, temporary / "root")
        images = sorted((temporary / "root/boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise BuildFailed(f"{package.path.name} holds {len(images)} kernels, not one")
        target = temporary / "made"
        target.mkdir()
        _write(target / "vmlinux", unpack_kernel(images[0].read_bytes()))
        _keep_modules(temporary / "root", target / "modules")
        target.rename(folder)
    return folder


def _keep_modules(root: Path, target: Path) -> None:
    """Keep the wanted modules; the other 95 MB of a kernel package are of no use here."""
    target.mkdir()
    for module in load_order(root, tiny.MODULES):
        _write(target / f"{module.name}.ko", module.data)


def _write_initrd(path: Path, modules: Path, package: Package, programs: Closure | None) -> None:
    with _temporary(path.parent) as temporary:
        packages.unpack(package, temporary)
        busybox = temporary / "bin/busybox"
        applets = procs.run([busybox, "--list"]).split()
        parts = (load_order(modules, tiny.MODULES), busybox.read_bytes(), applets)
        if programs is None:
            files = tiny.entries(*parts)
        else:
            files = tiny_qga.entries(*parts, programs.files)
    with path.open("wb") as out:
        cpio.write(out, files)
        out.flush()
        os.fsync(out.fileno())


def _write_manifest(folder: Path, name: str, inputs: tuple[Package, ...]) -> None:
    outputs = {part: _digest(folder / part) for part in ("vmlinux", "initrd")}
    whole = json.dumps([outputs, tiny.APPEND], sort_keys=True)
    manifest = {
        "name": name,
        "digest": hashlib.sha256(whole.encode()).hexdigest(),
        "append": tiny.APPEND,
        "built": int(time.time()),
        "packages": {each.name: [each.version, each.sha256] for each in inputs},
        "texts": dict(texts_of(name)),
        "outputs": outputs,
    }
    _write(folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def _publish(folder: Path, link: Path) -> None:
    """Let `link` name `folder`, in one step."""
    folder.chmod(0o755)
    temporary = folder.parent / f"{TEMPORARY}{folder.name}"
    temporary.symlink_to(folder.name)
    temporary.replace(link)


def _sweep() -> None:
    """Remove what killed builders left, and builds that no link names any more."""
    for folder in (images_folder(), cache_folder() / "kernels", cache_folder() / "packages"):
        if not folder.is_dir():
            continue
        named = {path.readlink().name for path in folder.iterdir() if path.is_symlink()}
        for path in folder.glob(".*"):
            if path.is_symlink():
                path.unlink()
            elif path.name not in named:
                shutil.rmtree(path)


@contextlib.contextmanager
def _locked(say: Progress) -> Iterator[None]:
    """Hold the one lock of the cache folder; it goes with the process that holds it."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
    except OSError as err:
        hint = "set HOSTCTL_CACHE_DIR to a folder that you may write"
        raise BuildFailed(f"cannot use the cache folder {folder}: {err}", hint=hint) from err
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=parent) as name:
        yield Path(name)


def _share(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a kernel of 53 MB is there once."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
