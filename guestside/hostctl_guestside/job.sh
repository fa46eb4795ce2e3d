#!/bin/sh
# Commands that outlive who started them. The host sends this text with each request, over any channel:
#   sh -c 'eval "$1"' job TEXT VERB [ARGUMENT]...
# spawn ID KEEP SECONDS USER FED FACTS ARGV…  start ARGV; KEEP bytes of each stream are kept; FED: it reads our input
# list                                        a line for each job
# look ID SECONDS                             its line, as soon as it has ended, or after so long
# read ID OUT ERR SECONDS                     what it printed from there on; waits so long for something
# signal ID NAME                              to all of its process group
# forget ID [force]                           what is kept of it
# A job is a folder: facts, keeper, pid, out, err, end. Status 80: read to the end, and it has ended; 81: no such job;
# 82: it runs; 83: the log is shorter than that; 84: the guest lacks something, or refuses. Needs setsid, mkfifo, ls and dd.
# shellcheck disable=SC2012,SC2015,SC2016,SC2034,SC2046,SC2086,SC2317
set -u
text=$1 verb=$2
shift 2
if [ "${HOSTCTL_JOBS-}" ]; then home=$HOSTCTL_JOBS; elif [ -w /run ]; then home=/run/hostctl-jobs; else home=/tmp/hostctl-jobs-$(id -u); fi

fail() { # STATUS TEXT
	printf '%s\n' "$2" >&2
	exit "$1"
}
nap() { sleep "$1" 2>/dev/null || sleep 1; }
now() { date +%s 2>/dev/null || echo -; }
born() { # PID → $b: when it started, in ticks
	read -r b 2>/dev/null <"/proc/$1/stat" && set -- ${b##*) } && b=${20}
}
runs() { # its keeper lives, and it has not ended
	[ ! -e "$job/end" ] && read -r s t u 2>/dev/null <"$job/keeper" && born "$s" && case $t in "$b") ;; *) false ;; esac
}
find() { # ID → $job
	job=$home/$1
	[ -d "$job" ] || fail 81 "no job $1"
}

spawn() {
	id=$1 keep=$2 seconds=$3 user=$4 fed=$5 facts=$6
	shift 6
	for s in setsid mkfifo dd; do command -v $s >/dev/null || fail 84 "it has no $s"; done
	[ -z "$user" ] || id -u "$user" >/dev/null 2>&1 || fail 84 "no user $user"
	[ -d "$home" ] || mkdir -m 700 "$home" 2>/dev/null # or another one does
	[ -O "$home" ] && mkdir "$home/$id" || fail 84 "no room in $home"
	job=$home/$id
	{
		printf '%s\n' "$facts" >"$job/facts" && printf '%s\n' "$text" >"$job/tend" && mkfifo "$job/1" "$job/2" &&
			: >"$job/out" && : >"$job/err" && { [ -z "$fed" ] || cat >"$job/in"; }
	} || {
		rm -rf "$job"
		fail 84 "no room in $home"
	}
	# What is started by & is deaf to SIGINT. So a shell of its own starts it in a pipeline, and dies before that ends.
	sh -c 'setsid sh "$@" </dev/null >/dev/null 2>&1 | kill -9 $$' job \
		"$job/tend" '' tend "$job" "$keep" "$seconds" "$user" "$@" >/dev/null 2>&1
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		[ ! -s "$job/keeper" ] || return 0
		nap 0.1
	done
	fail 84 'it did not start'
}

tend() { # JOB KEEP SECONDS USER ARGV…: the leader of its session, until what it printed is kept
	job=$1 keep=$2 seconds=$3 user=$4
	shift 4
	keep out <"$job/1" &
	keeper=$!
	keep err <"$job/2" &
	keeper="$keeper $!"
	exec 3>"$job/1" 4>"$job/2" 2>"$job/log"
	rm -f "$job/tend" "$job/1" "$job/2"
	born $$ && echo "$$ $b $(now)" >"$job/keeper"
	life "$@"
	# What it left behind may hold its streams for ever: that does not make it run.
	(nap 2 && mv "$job/ended" "$job/end") 3>&- 4>&- 2>/dev/null &
	exec 3>&- 4>&-
	wait $keeper
	[ ! -e "$job/ended" ] || mv "$job/ended" "$job/end"
}

keep() { # NAME: as much of our input as may be kept; the rest is read, too, for the command shall not notice
	(
		ulimit -f $((keep / 512)) 2>/dev/null
		exec cat >"$job/$1"
	) || {
		: >"$job/$1.cut"
		exec cat >/dev/null
	}
}

life() {
	late=0 sig=0
	if [ "$seconds" ]; then
		watch 3>&- 4>&- 2>/dev/null &
	fi
	child "$@"
	rc=$?
	[ $rc -le 128 ] || died $((rc - 128))
	[ -z "$seconds" ] || call_off
	[ ! -e "$job/late" ] || late=1
	times >"$job/times"
	echo "$rc $sig $late $(now)" >"$job/ended"
}

child() { # mksh tells of signals in the background only
	if [ "${KSH_VERSION-}" ]; then
		set -m
		(birth '' "$@") &
		set +m
		wait $!
	else (birth setsid "$@"); fi
}

birth() {
	[ ! -e "$job/in" ] || exec <"$job/in"
	read -r s t </proc/self/stat && echo "$s" >"$job/pid"
	exec >&3 2>&4 3>&- 4>&-
	s=$1
	shift
	[ -z "$user" ] || set -- su -s /bin/sh -c 'exec "$@"' -- "$user" sh "$@"
	exec $s "$@"
}

died() { # N: a signal if the shell said so, or if we sent it; else the status is the command's own
	if [ -s "$job/log" ]; then sig=$1; elif [ -e "$job/sig" ]; then
		read -r s <"$job/sig"
		[ "$s" != "$(kill -l "$1")" ] || sig=$1
	fi
}

watch() { # TERM after so long, KILL two seconds later
	doze "$seconds" || return
	: >"$job/dog"
	: >"$job/late"
	strike TERM
	doze 2 || return
	strike KILL
}
doze() { # SECONDS; 1 if woken
	sleep "$1" &
	echo $! >"$job/dog"
	wait $!
}
call_off() { # the watch, once it sleeps
	s=0
	until [ -s "$job/dog" ] || [ $((s += 1)) -gt 999 ]; do nap 0.01; done
	read -r s <"$job/dog" && kill -9 "$s"
} 2>/dev/null

strike() { # NAME
	read -r s <"$job/pid" && echo "$1" >"$job/sig" && { kill "-$1" "-$s" || kill "-$1" "$s"; } 2>/dev/null
}

sizes() { # → $o $e: bytes kept of both streams
	set -- $(LC_ALL=C ls -ln "$job/err" "$job/out") && e=$5 o=${14}
}
cut() { if [ -e "$job/$1.cut" ]; then echo 1; else echo 0; fi; }

tell() {
	state=lost facts='' start=- code=- sig=- late=0 end=- user=- system=-
	! runs || state=running
	[ ! -e "$job/end" ] || { state=ended && read -r code sig late end <"$job/end"; }
	read -r s t start 2>/dev/null <"$job/keeper"
	[ ! -e "$job/times" ] || { read -r s && read -r user system; } <"$job/times"
	read -r facts <"$job/facts"
	sizes
	printf '%s %s %s %s %s %s %s %s %s %s %s %s %s %s\n' "${job##*/}" $state $start $code $sig $late $end \
		$user $system $o $e "$(cut out)" "$(cut err)" "$facts"
}

piece() { # NAME OFFSET: a megabyte of it, at most
	exec 3<"$job/$1"
	[ "$2" = 0 ] || dd bs=1 skip="$2" count=0 <&3
	dd bs=64k count=16 <&3
} 2>/dev/null

read_() { # OUT ERR SECONDS
	n=$(($3 * 4))
	while :; do
		runs && over= || over=1
		sizes
		[ $o -ge $1 ] && [ $e -ge $2 ] || fail 83 "only $o and $e bytes are kept"
		[ "$over$((o + e > $1 + $2 || n <= 0))" = 0 ] || break
		n=$((n - 1))
		nap 0.25
	done
	piece out $1
	piece err $2 1>&2
	[ -z "$over" ] || [ $((o - $1 > 1048576 || e - $2 > 1048576)) = 1 ] || exit 80
}

look() { # SECONDS
	n=$(($1 * 5))
	while runs && [ $n -gt 0 ]; do
		n=$((n - 1))
		nap 0.2
	done
	tell
}

case $verb in
spawn) spawn "$@" ;;
tend) tend "$@" ;;
list)
	for job in "$home"/*; do [ ! -e "$job/keeper" ] || tell; done
	;;
look)
	find "$1"
	look "$2"
	;;
read)
	find "$1"
	read_ "$2" "$3" "$4"
	;;
signal)
	find "$1"
	! runs || strike "$2" || ! runs || fail 84 'it would not be signalled'
	;;
forget)
	find "$1"
	! runs || [ "${2-}" ] || fail 82 'it runs still'
	n=25
	while runs && [ $n -gt 0 ]; do
		strike KILL
		n=$((n - 1))
		nap 0.2
	done
	rm -rf "$job"
	;;
esac
