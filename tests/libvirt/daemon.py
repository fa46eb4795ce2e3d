"""A libvirtd of the tests' own: the stock system daemon, in a mount namespace of its own.

Root only: as root libvirtd is always the system daemon, with fixed paths, so a private view of
those paths is what keeps the host's own libvirt, if there is one, out of it. Everything below the
folder is visible from outside too, and so are the daemon's sockets.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from hostctl.backends.libvirt.library import libvirt

from . import warden

PATIENCE_S = 30.0

# The host's cgroups are not ours to use, and a view of /dev per QEMU cannot be made inside our own.
# The rest is Debian's configuration, so that QEMU runs as another user, as it does for everybody.
QEMU_CONF = "cgroup_controllers = []\nnamespaces = []\n"
SSHD_CONF = """\
ListenAddress 127.0.0.1:{port}
HostKey {host_key}
AuthorizedKeysFile {key}.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
MaxStartups 50
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\n'


class Daemon:
    """libvirtd and virtlogd under one folder; `start_libvirtd` and `kill_libvirtd` may alternate.

    A context manager; leaving it ends all, machines too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run/libvirt/libvirt-sock"
        self.pool = root / "pool"
        self.uri = f"qemu+unix:///system?socket={self.socket}"

    def __enter__(self) -> "Daemon":
        self._prepare()
        argv = ["unshare", "--mount", sys.executable, warden.__file__, str(self.root)]
        pipe = subprocess.PIPE
        self._warden = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        self._tell("start", "virtlogd", "virtlogd")
        self.start_libvirtd()
        self._make_pool()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._warden.stdin is not None
        assert self._warden.stdout is not None
        self._warden.stdin.close()
        self._warden.wait(PATIENCE_S)
        self._warden.stdout.close()

    def start_sshd(self, folder: Path) -> str:
        """Start an sshd on loopback that lets us in; return the URI of libvirt behind it."""
        key, host_key = folder / "key", folder / "host_key"
        for path in (key, host_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        (self.root / "run/sshd").mkdir(mode=0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = folder / "sshd_config"
        config.write_text(SSHD_CONF.format(port=port, host_key=host_key, key=key))
        self._tell("start", "sshd", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
        _wait_for_port(port)
        query = f"keyfile={key}&no_verify=1&no_tty=1&proxy=netcat&socket={self.socket}"
        return f"qemu+ssh://root@127.0.0.1:{port}/system?{query}"

    def start_libvirtd(self) -> None:
        """Start it, and wait until it answers."""
        self._tell("start", "libvirtd", "libvirtd", "-f", str(self.root / "libvirtd.conf"))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                libvirt().open(self.uri).close()
            except libvirt().libvirtError as err:
                if time.monotonic() > deadline:
                    raise TimeoutError((self.root / "libvirtd.log").read_text()) from err
                time.sleep(0.01)
            else:
                return

    def kill_libvirtd(self) -> None:
        """Kill libvirtd, and nothing else, as a crash would."""
        self._tell("kill", "libvirtd")
        self.socket.unlink(missing_ok=True)

    def _make_pool(self) -> None:
        """Make hostctl's pool where we see it too: /var/lib/libvirt is another one in there."""
        self.pool.mkdir(mode=0o711)
        xml = (
            f"<pool type='dir'><name>hostctl</name><target><path>{self.pool}</path></target></pool>"
        )
        connect = libvirt().open(self.uri)
        connect.storagePoolCreateXML(xml, 0)
        connect.close()

    def _tell(self, *words: str) -> int:
        assert self._warden.stdin is not None
        assert self._warden.stdout is not None
        self._warden.stdin.write(" ".join(words) + "\n")
        self._warden.stdin.flush()
        return int(self._warden.stdout.readline())

    def _prepare(self) -> None:
        self.root.chmod(0o755)
        shutil.copytree("/etc/libvirt", self.root / "etc", symlinks=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / "etc/qemu/networks")  # no network at all
        for name in warden.VIEWS:
            (self.root / name).mkdir(exist_ok=True)
        (self.root / "run/lock").mkdir()  # where /var/lock leads
        with (self.root / "etc/qemu.conf").open("a") as file:
            file.write(QEMU_CONF)
        (self.root / "libvirtd.conf").write_text(LIBVIRTD_CONF)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
