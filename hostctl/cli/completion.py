"""`hostctl completion`: scripts for bash, zsh and fish, made from the parser itself.

shtab writes them; the name of each machine is filled in by a shell function that lists the state
directory, so that Tab starts no Python.
"""

import argparse
from typing import Final

import shtab

_STATE: Final = '"${HOSTCTL_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/hostctl}"'

_PREAMBLE: Final = {
    "bash": f"""\
_hostctl_machines() {{
  compgen -W "$(command ls {_STATE}/machines 2>/dev/null)" -- "$1"
}}
""",
    "zsh": f"""\
_hostctl_machines_zsh() {{
  local -a machines
  machines=(${{(f)"$(command ls {_STATE}/machines 2>/dev/null)"}})
  compadd -a machines
}}
""",
    "fish": """\
function _hostctl_machines
  set -l state "$HOSTCTL_STATE_DIR"
  test -n "$state"; or set state "$XDG_STATE_HOME/hostctl"
  test -n "$HOSTCTL_STATE_DIR$XDG_STATE_HOME"; or set state "$HOME/.local/state/hostctl"
  command ls $state/machines 2>/dev/null
end
""",
}


def completion(args: argparse.Namespace) -> int:
    """Print the script of one shell."""
    # The parser is main's; main imports this module late, so it is there by now.
    from .main import build_parser

    print(shtab.complete(build_parser(whole=True), args.shell, preamble=_PREAMBLE[args.shell]))
    return 0
