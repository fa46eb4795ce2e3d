"""`hostctl completion`: scripts for bash, zsh and fish, made from the parser itself.

shtab writes them; the name of each machine is filled in by a shell function that lists the state
directory, so that Tab starts no Python.
"""

import argparse
from typing import Final

import shtab

_STATE: Final = '"${HOSTCTL_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/hostctl}"'

# What waits in a pool is nobody's yet. No glob, which the shells expand in different ways.
_NAMES: Final = (
    f"command ls {_STATE}/machines 2>/dev/null | while read -r name; do "
    f"command test -e {_STATE}/machines/$name/waiting || echo $name; done"
)

_PREAMBLE: Final = {
    "bash": f"""\
_hostctl_machines() {{
  compgen -W "$({_NAMES})" -- "$1"
}}
_hostctl_templates() {{
  compgen -W "$(command ls {_STATE}/templates 2>/dev/null)" -- "$1"
}}
""",
    "zsh": f"""\
_hostctl_machines_zsh() {{
  local -a machines
  machines=(${{(f)"$({_NAMES})"}})
  compadd -a machines
}}
_hostctl_templates_zsh() {{
  local -a templates
  templates=(${{(f)"$(command ls {_STATE}/templates 2>/dev/null)"}})
  compadd -a templates
}}
""",
    "fish": """\
function _hostctl_state
  set -l state "$HOSTCTL_STATE_DIR"
  test -n "$state"; or set state "$XDG_STATE_HOME/hostctl"
  test -n "$HOSTCTL_STATE_DIR$XDG_STATE_HOME"; or set state "$HOME/.local/state/hostctl"
  echo $state
end
function _hostctl_machines
  set -l state (_hostctl_state)
  for name in (command ls $state/machines 2>/dev/null)
    test -e $state/machines/$name/waiting; or echo $name
  end
end
function _hostctl_templates
  command ls (_hostctl_state)/templates 2>/dev/null
end
""",
}


def completion(args: argparse.Namespace) -> int:
    """Print the script of one shell."""
    # The parser is main's; main imports this module late, so it is there by now.
    from .main import build_parser

    print(shtab.complete(build_parser(whole=True), args.shell, preamble=_PREAMBLE[args.shell]))
    return 0
