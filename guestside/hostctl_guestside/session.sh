#!/bin/sh
# What runs at a terminal that terminal.sh has made; the host puts this before it, and the guest's sh evals both:
#   set -- TOKEN ROWS COLUMNS HERE ARGV…
# With no ARGV it is the user's login shell, in his home unless HERE is set. fd 9 is the way to the host.
unset HOSTCTL_PTY
token=$1 rows=$2 columns=$3 here=$4
shift 4

login() { # → $shell, HOME and the rest, as the guest's passwd has them
	USER=$(id -un) shell=
	while IFS=: read -r name _ _ _ _ home shell; do
		[ "$name" != "$USER" ] || break
		home='' shell=''
	done </etc/passwd
	HOME=${home:-/} SHELL=${shell:-/bin/sh} LOGNAME=$USER
	export USER LOGNAME HOME SHELL
	[ "$here" ] || cd "$HOME" || cd /
}

if tty=$(tty); then
	stty sane rows "$rows" cols "$columns"
	way=-l
else
	way=-i
fi
printf '%s tty %s\n' "$token" "$tty" >&9
# Ctrl-C is for the command, not for us, who have to tell how it ended.
trap : INT QUIT
(
	exec 9>&-
	[ $# -gt 0 ] || {
		login
		set -- "$SHELL" $way
	}
	exec "$@"
)
printf '%s exit %s\n' "$token" $? >&9
