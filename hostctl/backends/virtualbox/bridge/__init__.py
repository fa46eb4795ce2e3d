"""The bridge: what runs in VirtualBox's own Python, as a process that owns all of VirtualBox's API.

`vboxapi` belongs to the interpreter that VirtualBox was installed for, wants one thread, and takes
the process with it when it crashes. So hostctl starts that interpreter, hands it the sources of
this package through a pipe (it need not be able to see our files), and talks to it in messages
(`wire.py`). Modules here are written for Python 3.8 and import nothing of hostctl but each other;
those that hostctl itself imports (`wire`, `enums`) import nothing else at all.

An operation is a function in a module's `OPERATIONS`; `serve.py` tells what it may do.
"""
