"""QEMU, one private process per machine."""
