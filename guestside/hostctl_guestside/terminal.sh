#!/bin/sh
# A terminal for a command, by whatever makes one here. The host sends this text with the request:
#   sh -c 'eval "$1"' terminal TEXT TOKEN SESSION TOOL...
# SESSION is what runs there: session.sh, with its words set. Of the TOOLs the first is taken that this guest has.
# Standard error tells the host what it must know, in lines that begin with TOKEN: tool NAME, tty PATH, exit STATUS.
# Tools hold it as fd 9. telnetd speaks telnet; the host undoes that. Tool none: no terminal, the streams as they are.
# shellcheck disable=SC2016
token=$2 HOSTCTL_PTY=$3
shift 3
export HOSTCTL_PTY

has() { command -v "$1" >/dev/null 2>&1; }
chosen() { printf '%s tool %s\n' "$token" "$1" >&2; }
file() { # [LAST LINE] → $file: what a tool can start that takes a file only
	folder=$(mktemp -d) && file=$folder/terminal || exit
	printf '#!/bin/sh\nrm -rf "${0%%/*}"\neval "$HOSTCTL_PTY"\n%s\n' "${1-}" >"$file" && chmod 700 "$file" || exit
}

# Python's own pty.spawn may lose the last bytes, and wait for a reader while the command waits for it.
python='import os, pty, select
pid, m = pty.fork()
if not pid: os.execv("/bin/sh", ["sh", "-c", "eval \"$HOSTCTL_PTY\""])
os.set_blocking(m, False)
keys, is_open = b"", True
while True:
    r, w, _ = select.select([m, 0] if is_open and not keys else [m], [m] if keys else [], [])
    if w: keys = keys[os.write(m, keys):]
    if 0 in r:
        keys = os.read(0, 4096)
        is_open = bool(keys)
    if m in r:
        try: b = os.read(m, 65536)
        except OSError: break
        if not b: break
        while b: b = b[os.write(1, b):]'

for tool in "$@"; do
	case $tool in
	script)
		has script || continue
		chosen script
		SHELL=/bin/sh exec script -qfc 'eval "$HOSTCTL_PTY"' /dev/null 9>&2
		;;
	python3)
		has python3 || continue
		chosen python3
		exec python3 -c "$python" 9>&2
		;;
	socat)
		has socat || continue
		chosen socat
		file
		socat - "EXEC:$file,pty,setsid,ctty,stderr,echo=0" 9>&2
		;;
	telnetd)
		run=telnetd
		has telnetd || { has busybox && run='busybox telnetd' && busybox telnetd --help >/dev/null 2>&1; } || continue
		chosen telnetd
		# It drops up to 2 KiB that wait for a full pipe when the terminal ends: they are of no account.
		file 'stty raw && printf %s "$token" && dd if=/dev/zero bs=4096 count=1 2>/dev/null'
		# It makes its standard output non-blocking, which is not its own: the pipe is.
		$run -i -f /dev/null -l "$file" 9>&2 | cat
		;;
	none)
		chosen none
		eval "$HOSTCTL_PTY" 9>&2
		;;
	*) continue ;;
	esac
	exit
done
chosen -
