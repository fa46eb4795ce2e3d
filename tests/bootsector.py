"""Guests of 512 bytes: a machine that is up in a third of a second, where no agent is needed."""

from pathlib import Path

from hostctl.backends.interface import DiskSpec, MachineSpec

FIRST, LAST = ord("0"), ord("o")

# Says 0 1 2 … o, over and over, one letter at each BIOS tick (18.2 a second), from a counter in RAM
# at 0x7e00: whether letters come tells if it runs, which one comes next tells its timeline.
COUNTER = bytes.fromhex(
    "31c08ed8"  #       xor ax,ax; mov ds,ax
    "c606007e30"  #     mov byte [0x7e00],'0'
    "fbf4"  #       on: sti; hlt
    "baf803a0007eee"  # mov dx,0x3f8; mov al,[0x7e00]; out dx,al
    "fe06007e"  #       inc byte [0x7e00]
    "803e007e7075ec"  # cmp byte [0x7e00],'p'; jne on
    "c606007e30ebe5"  # mov byte [0x7e00],'0'; jmp on
)
# Says ! once, then every byte back that its console hears.
ECHO = bytes.fromhex(
    "baf803b021ee"  #   mov dx,0x3f8; mov al,'!'; out dx,al
    "bafd03eca801"  # on: mov dx,0x3fd; in al,dx; test al,1
    "74fbb2f8ecee"  #   jz -5; mov dl,0xf8; in al,dx; out dx,al
    "ebf2"  #           jmp on
)
SILENT = bytes.fromhex("fbf4ebfc")  # on: sti; hlt; jmp on
REBOOTING = bytes.fromhex("eaf0ff00f0")  # jmp 0xf000:0xfff0, the reset vector


def boot_disk(directory: Path, code: bytes = COUNTER) -> DiskSpec:
    """Write a disk that boots `code`."""
    path = directory / f"boot-{code.hex()[:16]}.img"
    # 2 MiB: the BIOS reads by cylinder, and needs one whole.
    path.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(2 << 20, b"\0"))
    return DiskSpec(path, format="raw")


def boot_spec(
    name: str, directory: Path, code: bytes = COUNTER, *, extra_args: tuple[str, ...] = ()
) -> MachineSpec:
    """Return the spec of a machine that boots `code`, and answers to nobody."""
    disks = (boot_disk(directory, code),)
    return MachineSpec(name, disks=disks, memory_mib=32, accel="tcg", extra_args=extra_args)
