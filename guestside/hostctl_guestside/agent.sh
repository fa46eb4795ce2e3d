#!/bin/sh
# hostctl guest agent: docs/PROTOCOL.md; agent.md explains it. Needs sh, dd, printf; probes the rest.
# agent.sh [- | DEVICE]: serve all org.hostctl.N virtio ports, or stdin and stdout, or one tty.
# shellcheck disable=SC1007,SC2015,SC2030,SC2031,SC2034,SC2059,SC2086,SC2163,SC2229
set -fu
LC_ALL=C
CDPATH=
R=
H=org.hostctl
N='
'

# frame KIND STREAM LENGTH [FORMAT [ARGUMENT]]: LENGTH < 65536, in one write
frame() {
	printf "\\235H$1\\00$2$n\\0\\0\\$(($3 >> 14))$(($3 >> 11 & 7))$(($3 >> 8 & 7))\\$(($3 >> 6 & 3))$(($3 >> 3 & 7))$(($3 & 7))${4-}" ${5+"$5"}
}
done_() { frame D 0 0; }

oops() { # ERRNO TEXT
	t=$2
	while [ ${#t} -gt 900 ]; do t=${t%?????????}; done
	frame E 0 $((${#t} + 2)) "\\0\\$(($1 >> 6))$(($1 >> 3 & 7))$(($1 & 7))%s" "$t"
}

fail() { # WHAT: an error from what a tool said in $log
	t=
	while read -r m; do case $m in *records\ * | *bytes*copied*) ;; *?) t="$t${t:+ }$m" ;; esac done <"$log"
	: >"$log"
	e=5
	case $t in
	*permitted) e=1 ;;
	*'such file or directory') e=2 ;;
	*denied) e=13 ;;
	*'Not a directory') e=20 ;;
	*'s a directory') e=21 ;;
	*'left on device') e=28 ;;
	*'Read-only file system') e=30 ;;
	*'too long') e=36 ;;
	*exceeded) e=122 ;;
	esac
	oops $e "$1: ${t:-failed}"
}

has() { case " $feats " in *" $1 "*) ;; *) return 1 ;; esac }
need() { has "$1" || { oops 95 "this guest has no $1" && return 1; }; }

take() { # LENGTH [DD…]: bytes of the port, all in memory before they go on
	s=$1 && shift
	if has fullblock; then dd bs="$s" count=1 iflag=fullblock "$@"; else dd bs=1 count="$s" "$@"; fi
}

pour() { # LENGTH [DD…]: any length, in blocks
	s=$1 && shift
	if has fullblock; then dd bs=256k count="$s" iflag=fullblock,count_bytes "$@"; else dd bs=1 count="$s" "$@"; fi
}

feed() { # standard input
	while IFS=' ' read -r $R k s l t && [ "$k" = I ]; do take "$l" 2>/dev/null; done
}

# The one fork
child() {
	if [ "${KSH_VERSION-}" ]; then
		set -m
		(birth "$@") &
		set +m
		wait $!
	elif [ $o = - ]; then (exec "$@" </dev/null >&4 2>&5 4>&- 5>&-); else (birth "$@"); fi
}

birth() {
	[ "$in" ] || exec </dev/null
	exec >&4 2>&5 4>&- 5>&-
	[ -z "$in$limit" ] || { read -r s t </proc/self/stat && echo "$s" >"$my.job"; }
	[ -z "$cwd" ] || cd "$cwd" || exit 126
	while [ $_e -gt 0 ]; do
		export "$1"
		shift
		_e=$((_e - 1))
	done
	[ -z "$_u" ] || exec su -s /bin/sh -c 'exec "$@"' -- "$_u" sh "$@"
	exec "$@"
}

clock() { # → $u $v: CPU milliseconds of dead children
	times >"$my.t"
	{ read -r s && read -r u v; } <"$my.t"
	msec "$u" && u=$b && msec "$v" && v=$b
}
msec() { # 1m2.34s → $b
	s=${1#*m} && s=${s%s} && b=${s#*.}00
	while [ ${#b} -gt 3 ]; do b=${b%?}; done
	b=$((${1%m*} * 60000 + ${s%.*} * 1000 + 1$b - 1000))
}
u32() { # NUMBER → $b: printf escapes of four bytes
	b=
	for s in 24 16 8 0; do b="$b\\$(($1 >> s + 6 & 3))$(($1 >> s + 3 & 7))$(($1 >> s & 7))"; done
}

watch() { # TERM after $limit seconds, KILL two later
	doze "$limit" "$my.dog" || return
	: >"$my.dog"
	echo late >"$my.late"
	slay TERM "$self"
	doze 2 "$my.dog" || return
	slay KILL "$self"
}
doze() { # SECONDS FILE; false if woken
	sleep "$1" &
	echo $! >"$2"
	wait $!
}
wake() { { read -r s <"$1" && kill -s KILL "$s"; } 2>/dev/null || :; } # FILE

perform() {
	[ -z "$usage" ] || { clock && u0=$u v0=$v; }
	if [ "$limit" ]; then
		: >"$my.dog"
		watch </dev/null >/dev/null 4>&- 5>&- &
		dog=$!
	fi
	child "$@"
	rc=$? sig=0 flags=0 b='\0\0\0\0\0\0\0\0'
	[ $rc -le 128 ] || died $((rc - 128))
	if [ "$limit" ]; then
		s=0
		until [ -s "$my.dog" ] || [ $((s += 1)) -gt 999 ]; do sleep 0; done
		wake "$my.dog"
		wait "$dog"
		[ ! -s "$my.late" ] || { flags=1 && : >"$my.late"; }
		: >"$log"
		: >"$my.job"
	fi
	if [ "$usage" ]; then
		clock && flags=$((flags + 2))
		u32 $((u - u0)) && u=$b && u32 $((v - v0)) && b=$u$b
	fi
	if [ "$out" = - ]; then
		spooled 1 "$my.o"
		spooled 2 "$my.e"
	else
		# One birth since the last command, its own: nobody else holds the streams
		[ "$in" ] || { read -r s s s s s <$load && [ $((last + 1)) = "$s" ] && held=1 flags=$((flags + 4)); }
		last=$s
		printf %s "$n" >&4
		printf %s "$n" >&5
	fi
	frame X 0 15 "\\$((rc >> 6))$((rc >> 3 & 7))$((rc & 7))\\0$((sig >> 3 & 7))$((sig & 7))\\00$flags$b\\0\\0\\0\\0"
}

# 128+n is a signal if $log says so or if we sent it, else the command's own status
died() {
	if [ -s "$my.sig" ]; then
		read -r s <"$my.sig"
		[ "$s" != "$(kill -l "$1")" ] || sig=$1
	fi
	[ ! -s "$log" ] || { sig=$1 && : >"$log"; }
	[ $sig = 0 ] || rc=0
}

spooled() { # STREAM FILE
	[ -s "$2" ] || return 0
	frame B "$1" 0
	dd if="$2" bs=256k 2>/dev/null
	printf %s "$n"
}

# Streams: fd 4 and 5
drop() { held= && exec 4>&- 5>&-; }
streams() {
	case $out in
	=) [ "$held" ] && held= && return ;;
	-) command exec 4>"$my.o" 5>"$my.e" ;;
	*) drop && command exec 4<>"$ports/$H.out.$out" 5<>"$ports/$H.out.$err" &&
		printf %s "$n" >&4 && printf %s "$n" >&5 ;;
	esac
}

execute() { # OUT ERR OPTIONS [LIMIT] [CWD] [USER] [COUNT NAME=VALUE…] ARGV…
	out=$1 err=$2 s=$3 o=$3 in= usage= limit= cwd= _u= _e=0
	shift 3
	while [ "$s" != - ]; do
		case $s in
		i*) in=1 ;;
		r*) usage=1 ;;
		t*) limit=$1 && shift ;;
		d*) cwd=$1 && shift ;;
		u*) _u=$1 && shift ;;
		e*) _e=$1 && shift ;;
		esac
		s=${s#?}
	done
	[ -z "$cwd" ] || [ -d "$cwd" ] || { oops 2 "$cwd: no such folder to run in" && return; }
	[ -z "$limit" ] || need signal || return
	[ -z "$_u" ] || { need su && { id -u "$_u" >/dev/null 2>&1 || { oops 2 "no user $_u" && false; }; }; } || return
	[ ! -s "$my.sig" ] || : >"$my.sig"
	if ! streams; then
		: >"$log"
		oops 16 "stream port $out or $err is busy"
	elif [ "$in" ]; then
		frame S 0 0
		feed | perform "$@"
		: >"$my.job"
	else perform "$@"; fi
	[ "$held" ] || drop
}

# Every process as pid:parent:session:start → $all
survey() {
	all=
	set +f
	for s in /proc/[0-9]*/stat; do read -r t <"$s" && row "${t%% *}" ${t##*) }; done
	set -f
}
row() { all="$all $1:$3:$5:${21}"; }

# slay SIGNAL WORKER: its command, descendants, orphans no older. KILL until none is left.
slay() {
	job= since= pass=0
	[ ! -s "$my.job" ] || read -r job <"$my.job"
	survey
	hit=" $job "
	[ "$job" ] || for s in $all; do case $s in *:"$2":*:*) hit="$hit${s%%:*} " ;; esac done
	for s in $all; do case $hit in *" ${s%%:*} "*) since=${since:-${s##*:}} ;; esac done
	[ "$since" ] || return
	while grow "$2" && kill -s "$1" $hit && [ "$1" = KILL ] && [ $((pass += 1)) -lt 9 ]; do survey; done
	return 0
}
grow() { # WORKER: add to $hit until nothing is missing
	for s in $all; do
		p=${s%%:*} t=${s#*:}
		case $hit in
		*" $p "*) continue ;;
		*" ${t%%:*} "*) ;;
		*) case $t in 1:"$1":*) [ "${s##*:}" -ge "$since" ] && [ "$p" != "$1" ] || continue ;; *) continue ;; esac ;;
		esac
		hit="$hit$p "
		grow "$1"
		return
	done
	return 0
}

worker() { # ID → $boss: pid of its worker, if it is the same still
	case $1 in "$id" | *[!0-9]*) false ;; esac && read -r boss born <"$run/$1.pid" && birthday "$boss" && [ $born = $b ] && return
	oops 3 "no worker on port $1" && false
}
birthday() { # PID → $b: when it started, in ticks
	read -r t <"/proc/$1/stat" && set -- ${t##*) } && b=${20}
}

strike() { # ID SIGNAL, or 0: does its worker live?
	need signal && worker "$1" || return
	[ "$2" = 0 ] || {
		echo "$2" >"$run/$1.sig"
		(my=$run/$1 && slay "$2" "$boss") || { oops 3 "nothing runs on port $1" && return; }
	}
	done_
}

restart() { # ID: end its worker with all it runs
	need signal && worker "$1" || return
	(my=$run/$1 && : >"$my.job" && slay KILL "$boss")
	kill -s KILL "$boss"
	done_
}

put() { # PATH UMASK CHMOD MTIME OWNER VERIFY; then LENGTH bytes and a line V [DIGEST]
	part=${1%/*}/.hostctl-$n left=$l
	printf %s "$part" >"$my.part"
	if [ -d "$1" ]; then oops 21 "$1: is a directory"; elif [ ! -d "${1%/*}/" ]; then oops 2 "$1: no such folder"; else
		umask "$2"
		pour "$l" of="$part" 2>"$log" && left= || remainder
		umask 022
		[ -z "$left" ] && finish "$@" 2>"$log" && mv -f "$part" "$1" 2>"$log" && done_ && return
		rm -f "$part"
		fail "$1"
	fi
	[ -z "$left" ] || pour "$left" of=/dev/null 2>/dev/null
}

finish() {
	IFS=' ' read -r k s t want && [ "$k$s" = "V$n" ] &&
		{ [ -z "$5" ] || chown "$5" "$part"; } && { [ -z "$3" ] || chmod "$3" "$part"; } &&
		{ [ -z "$4" ] || touch -d "@$4" "$part"; } && [ -z "$6" ] && return
	s=$(sha256sum <"$part") && [ "${s%% *}" = "${want-}" ] || { echo 'not what was sent' >&2 && false; }
}

remainder() { # → $left: what dd did not take of a body
	left=$l
	while read -r s t; do
		case $s$t in
		[0-9]*+0records*) left=$((l - ${s%+*} * 262144)) && break ;;
		[0-9]*+[1-9]*records*) left=0 && break ;;
		esac
	done <"$log"
	[ $left -gt 0 ] || left=0
}

get() { # PATH STAT VERIFY
	[ ! -d "$1" ] || { oops 21 "$1: is a directory" && return; }
	facts=
	[ -z "$2" ] || facts=$(stat -L -c 'mode=%a mtime=%Y' "$1")
	frame B 0 0
	dd if="$1" bs=256k 2>"$log"
	s=$?
	printf %s "$n"
	[ $s = 0 ] || { fail "$1" && return; }
	: >"$log"
	[ -z "$3" ] || { s=$(sha256sum <"$1") && facts="$facts sha256=${s%% *}"; }
	frame D 0 ${#facts} %s "$facts"
}

reseed() { [ ! -c /dev/snapshot ] || true 2>/dev/null >/dev/snapshot || :; } # agent.md

serve() {
	[ ! -t 0 ] || { stty raw -echo && R=${BASH_VERSION+-n9999}; } # bash reads ahead
	n=0000000000000000
	drop
	frame R 0 0
	while IFS=' ' read -r $R k n l t; do
		case $k$n:$l in
		N????:) printf '\235HP\000000000000000%s\0\0\0\0' "$n" && continue ;;
		[A-Z]????????????????:*[0-9]) ;;
		*) continue ;;
		esac
		case $n$l in *[!0-9a-f]*) continue ;; esac
		case $k in
		X)
			[ "$l" = 0 ] || t=$(take "$l" 2>/dev/null)
			eval "execute $t"
			;;
		P) eval "put $t" ;;
		G) eval "get $t" ;;
		K) eval "strike $t" ;;
		R) eval "restart $t" ;;
		H) drop && frame H 0 $((${#feats} + 1)) '\001%s' "$feats" ;;
		C) ! need date || if date -u -s "@$t" >/dev/null 2>"$log"; then done_; else fail clock; fi ;;
		F) if { printf %s "$t" >/dev/urandom; } 2>"$log" && reseed; then done_; else fail entropy; fi ;;
		S) wake "$run/nap" && done_ ;;
		V) ;;
		*) oops 38 "unknown request $k" ;;
		esac
	done
	return 0
}

attend() { # ID DEVICE: serve a port; with no host, the ready frame blocks
	id=$1 my=$run/$1
	log=$my.log
	exec 2>>"$log"
	read -r self s </proc/self/stat && birthday self && echo "$self $b" >"$my.pid"
	for s in job sig late; do : >"$my.$s"; done
	[ ! -s "$my.part" ] || rm -f "$(dd if="$my.part" 2>/dev/null)"
	while [ -e "$2" ] && kill -0 $super; do
		serve <>"$2" >&0 || sleep 1
		[ ! -c "$2" ] || [ "${2#*tty}" = "$2" ] || sleep 1
	done
}

probe() {
	feats=agent=1
	! dd iflag=fullblock,count_bytes if=/dev/null of=/dev/null count=0 2>/dev/null || feats="$feats fullblock"
	[ ! -r /proc/self/stat ] || feats="$feats signal"
	for s in setsid stat su date sha256sum touch chown; do ! command -v $s >/dev/null || feats="$feats $s"; done
	for run in /run /dev/shm "${TMPDIR:-/tmp}"; do
		run=$run/hostctl.$$
		! (umask 077 && mkdir "$run") 2>/dev/null || return 0
	done
	echo 'no folder to work in' >&2
	exit 1
}

links() { # no udev here
	ports=$run
	for s in /sys/class/virtio-ports/*; do
		read -r t <"$s/name" && case $t in $H.*) [ -e "$ports/$t" ] || ln -s "/dev/${s##*/}" "$ports/$t" ;; esac
	done 2>/dev/null
}

guard() { # ID DEVICE, in a pipeline: what starts with & ignores SIGINT
	while [ -e "$2" ] && kill -0 $super 2>/dev/null; do (start "$@"); done
}
start() { # in a session of its own, which tells orphans
	has setsid && [ -f "$0" ] && exec setsid ${HOSTCTL_SH:-sh} "$0" "$@" $super "$run" "$ports" "$feats"
	attend "$@"
}

supervise() { # new ports get guards
	while kill -0 $super 2>/dev/null; do
		ports=${HOSTCTL_PORTS:-/dev/virtio-ports} new=
		set +f
		[ -e "$ports/$H.0" ] || links
		for s in "$ports/$H".*; do
			t=${s##*"$H".}
			case $t in *[!0-9]*) continue ;; esac
			case "$known " in *" $t "*) continue ;; esac
			known="$known $t" new="${new}guard $t $s | "
		done
		set -f
		[ -z "$new" ] || {
			eval "$new supervise"
			return
		}
		doze 5 "$run/nap" 2>/dev/null
		: >"$run/nap"
	done
	for s in $known; do read -r s t <"$run/$s.pid" && kill "$s"; done 2>/dev/null
	until rm -rf "$run"; do sleep 1; done
}

umask 022
super=$$ load=/proc/loadavg last=0
[ -r $load ] || load=/dev/null
case $# in
6) super=$3 run=$4 ports=$5 feats=$6 && attend "$1" "$2" ;;
0)
	probe
	known=
	supervise
	;;
*)
	ports=${HOSTCTL_PORTS:-/dev/virtio-ports}
	probe
	if [ "$1" != - ]; then attend 0 "$1"; else
		id=0 my=$run/0 self=$$
		log=$my.log
		serve 2>>"$log"
	fi
	rm -rf "$run"
	;;
esac
