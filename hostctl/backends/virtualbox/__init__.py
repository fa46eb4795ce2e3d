"""VirtualBox: its machines, through pyvbox in a process of its own, or through VBoxManage."""
