#!/bin/sh
# Joins standard input and output to a socket in the guest. The host sends this text with each connection:
#   sh -c 'eval "$1"' dial TEXT TOKEN TOOLS tcp HOST PORT
#   sh -c 'eval "$1"' dial TEXT TOKEN TOOLS unix PATH
# The end of our input is the socket's half-close. That of the socket's other half is told on standard error, where
# the tool can: a line TOKEN eof BYTES; elsewhere we end. Status 69: this guest has no tool for such a socket.
# TOOLS, in one word: the first that is here is taken. netcat is any nc but busybox's.
# shellcheck disable=SC2016
token=$2 tools=$3 kind=$4
shift 4

has() { command -v "$1" >/dev/null 2>&1; }

perl='use IO::Socket::IP; use IO::Socket::UNIX; $SIG{PIPE} = "IGNORE";
my ($token, $kind, @to) = @ARGV; my ($n, $b) = (0);
my $s = $kind eq "tcp" ? IO::Socket::IP->new(PeerHost => $to[0], PeerPort => $to[1], Type => SOCK_STREAM)
	: IO::Socket::UNIX->new(Peer => $to[0]);
$s or do { print STDERR ($@ || $!), "\n"; exit 1 };
sub all { my ($to, $from) = @_; while (length $from) { my $k = syswrite $to, $from or exit; substr $from, 0, $k, "" } }
my $up = fork;
if (!$up) { while (sysread STDIN, $b, 65536) { all $s, $b } shutdown $s, 1; exit }
close STDIN;
while (sysread $s, $b, 65536) { $n += length $b; all \*STDOUT, $b }
syswrite STDERR, "$token eof $n\n";
waitpid $up, 0;'

python='import os, socket, sys, threading
token, kind, *to = sys.argv[1:]
try:
    if kind == "tcp": s = socket.create_connection(to)
    else: s = socket.socket(socket.AF_UNIX); s.connect(to[0])
except OSError as e: sys.exit(str(e))
def up():
    try:
        while b := os.read(0, 65536): s.sendall(b)
        s.shutdown(1)
    except OSError: pass
t = threading.Thread(target=up); t.start(); n = 0
try:
    while b := s.recv(65536): n += len(b); sys.stdout.buffer.write(b); sys.stdout.buffer.flush()
except OSError: pass
os.write(2, f"{token} eof {n}\n".encode()); t.join()'

flavour() { # → $nc: of the nc that is here
	nc=
	! has nc || case $(nc -h 2>&1) in
	*BusyBox*) nc=busybox ;;
	*OpenBSD*) nc=openbsd ;;
	*) nc=other ;;
	esac
}

for tool in $tools; do
	case $tool in
	perl) ! has perl || exec perl -e "$perl" -- "$token" "$kind" "$@" ;;
	python3) ! has python3 || exec python3 -c "$python" "$token" "$kind" "$@" ;;
	busybox)
		flavour
		case $kind:$nc in
		tcp:busybox) exec nc "$@" ;;
		tcp:*) ! has busybox || ! busybox nc --help >/dev/null 2>&1 || exec busybox nc "$@" ;;
		esac
		;;
	socat)
		has socat || continue
		to=UNIX-CONNECT:$(printf %s "$1" | sed 's/[],:!"'\''\\[({]/\\&/g')
		[ "$kind" = unix ] || to=TCP:$1:$2
		# It would wait for our end too, which is far; and its own end after ours comes too early.
		{ socat -d -d -t 86400 - "$to" 2>&1 >&3 3>&- | {
			bad=0
			while read -r line; do
				case $line in
				*'socket 2 '*'is at EOF'*) kill $$ ;;
				*' E '*) bad=1 && printf '%s\n' "${line##* E }" >&2 ;;
				esac
			done
			exit $bad
		}; } 3>&1
		exit
		;;
	netcat)
		flavour
		case $kind:$nc in
		tcp:openbsd) exec nc -v -N "$@" ;;
		unix:openbsd) exec nc -v -N -U "$@" ;;
		tcp:?*) exec nc "$@" ;;
		esac
		;;
	esac
done
exit 69
