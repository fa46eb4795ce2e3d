"""A libvirtd of the tests' own, for any user.

Run by root it is the stock system daemon, whose paths are fixed; a mount namespace gives it a
private view of them, which keeps the host's own libvirt, if there is one, out of it. Run by others
it is a session daemon, with folders by XDG's rules. Either way all lies below one folder, and is
visible from outside.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from hostctl.backends.libvirt.binding import libvirt

from . import warden

PATIENCE_S = 30.0
IS_ROOT = os.geteuid() == 0
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"  # where Debian has libvirtd

# The host's cgroups are not ours to use, and a view of /dev per QEMU cannot be made inside our own.
# The rest is Debian's configuration, so that QEMU runs as another user, as it does for everybody.
QEMU_CONF = "cgroup_controllers = []\nnamespaces = []\n"
SSH = '#!/bin/sh\nexec ssh -F none -o UserKnownHostsFile=/dev/null "$@"\n'
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
        self.mode = "system" if IS_ROOT else "session"
        self.uri = f"qemu+unix:///{self.mode}?socket={self.socket}"

    def __enter__(self) -> "Daemon":
        self._prepare()
        argv = ["unshare", "--mount"] if IS_ROOT else []
        argv += [sys.executable, warden.__file__, str(self.root)]
        pipe = subprocess.PIPE
        environ = os.environ | {"PATH": PATH} | ({} if IS_ROOT else self._xdg())
        self._warden = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environ)
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
        (self.root / "run/sshd").mkdir(mode=0o755)  # /run/sshd, where it is root's
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = folder / "sshd_config"
        config.write_text(SSHD_CONF.format(port=port, host_key=host_key, key=key))
        self._tell("start", "sshd", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
        _wait_for_port(port)
        ssh = folder / "ssh"
        ssh.write_text(SSH)  # or each run would add a line to the user's own known hosts
        ssh.chmod(0o700)
        query = f"command={ssh}&keyfile={key}&no_verify=1&no_tty=1&proxy=netcat"
        query += f"&socket={self.socket}"
        return f"qemu+ssh://{getpass.getuser()}@127.0.0.1:{port}/{self.mode}?{query}"

    def start_libvirtd(self, conf: str = "") -> None:
        """Start it, with more lines of configuration, and wait until it answers."""
        (self.root / "libvirtd.conf").write_text(LIBVIRTD_CONF + conf)
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

    def _xdg(self) -> dict[str, str]:
        folders = {"CONFIG_HOME": "etc", "CACHE_HOME": "cache", "DATA_HOME": "lib"}
        found = {f"XDG_{key}": str(self.root / name) for key, name in folders.items()}
        return {**found, "XDG_RUNTIME_DIR": str(self.root / "run")}

    def _prepare(self) -> None:
        self.root.chmod(0o755)
        if not IS_ROOT:
            for name in warden.VIEWS:
                (self.root / name).mkdir(mode=0o700)
            return
        shutil.copytree("/etc/libvirt", self.root / "etc", symlinks=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / "etc/qemu/networks")  # no network at all
        for name in warden.VIEWS:
            (self.root / name).mkdir(exist_ok=True)
        (self.root / "run/lock").mkdir()  # where /var/lock leads
        with (self.root / "etc/qemu.conf").open("a") as file:
            file.write(QEMU_CONF)


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
