#!/bin/sh
# Whole folders in and out. The host sends this text with each request, over any channel:
#   sh -c 'eval "$1"' tree TEXT VERB [ARGUMENT]...
# stage TARGET HOW NAME TAR → FOLDER      begin TARGET. HOW: empty: it must not be there; replace; into: the plan changes
#                                         it. TAR: it will come as FOLDER/tar, else the host fills FOLDER/tree itself
# unpack FOLDER OWNERS                    take FOLDER/tar in; a tree may come in many
# settle TARGET PARTIAL FOLDER OWNERS     the last one is there: run the plan in it, and give TARGET what came
# abandon TARGET PARTIAL FOLDER           it will never be complete
# drop FILE                               remove it
# pack DIR [NAME...]                      a tar stream of DIR, without what has one of these names (patterns of find)
# pick DIR                                a tar stream of what our input, lines of this script, asks for
# save TAR pack|pick ...                  the same into a file
# lines DIR                               what our input, lines of this script, says, in a folder
# list DIR                                a line for each thing in it: mode, mtime, size, path; none with a newline in its name
# sums DIR                                the same with SHA-256 and path, of files
# links DIR                               a tar stream of its symbolic links
# walk DIR                                kind, mode, mtime, size, NUL, path, NUL, target, NUL; by the shell alone
# glob PATTERN                            what it matches, each with a NUL
# kind PATH                               d, f or -
# size DIR                                its KiB
# held FILE [BYTES]                       its size, and SHA-256 of it, or of its first blocks of 64 KiB; 0 without one
# append PART FILE AT                     add FILE to PART, which has so many bytes, or is extended by a hole
# complete PART PATH SIZE MODE MTIME OWNER   let PART, with all holes at its end, take the place of PATH
# facts FILE                              mode, mtime and size
# piece FILE AT COUNT                     blocks of 64 KiB of it
# data FILE                               offset and size of what is no hole, a line each, if it can be told
# What comes in has tree/, pieces/, now: lines for this script to run at once, and at last plan: lines to end with,
# which also tell that it is whole.
# Status 100 + errno: it failed; the last line of stderr tells why. 99: there is no tar; 98: another tool is missing.
# shellcheck disable=SC1007,SC1091,SC2181,SC2015,SC2016,SC2034,SC2086,SC2317
set -u
LC_ALL=C
export LC_ALL
verb=$2
shift 2
umask 022
stage= N='
'

fail() { # ERRNO TEXT. Below 128: what is above may be taken for a signal
	printf '%s\n' "$2" >&2
	exit $((100 + $1))
}
has() { command -v "$1" >/dev/null 2>&1; }
need() { for s in "$@"; do has "$s" || fail -2 "this guest has no $s"; done; }
enter() { cd -- "$1" 2>/dev/null || { [ -d "$1" ] && fail 13 "$1: cannot be entered"; } || { [ -e "$1" ] && fail 20 "$1: not a folder"; } || fail 2 "$1: no such folder"; }

# What a killed one left an hour ago: each tar that comes changes the time of its folder
sweep() { ! has find || find "$parent" -maxdepth 1 -name '.hostctl-tree.*' -mmin +60 -exec rm -rf {} + 2>/dev/null; }

aim() { # TARGET → $target, absolute
	case $1 in /*) target=$1 ;; *) target=$(pwd)/$1 ;; esac
}

stage() { # TARGET HOW NAME TAR
	[ -z "$4" ] || has tar || fail -1 'this guest has no tar'
	aim "$1"
	parent=${target%/*}/
	[ "$2" != into ] || [ ! -d "$target" ] || parent=$target/
	[ -d "$parent" ] || fail 2 "$parent: no such folder"
	[ "$2" ] || { [ ! -e "$1" ] && [ ! -L "$1" ]; } || fail 17 "$1: is there already"
	sweep
	stage=$parent.hostctl-tree.$3
	mkdir -m 700 "$stage" && mkdir "$stage/tree" || fail 5 "$parent: a folder cannot be made there"
	printf %s "$stage"
}

abandon() { # TARGET PARTIAL FOLDER: all that came, under a name that tells
	if [ "$2" ] && [ -d "$3/tree" ]; then
		s=$1.partial
		[ ! -e "$s" ] || s=$s.$$
		mv "$3/tree" "$s"
	fi
	rm -rf "$3"
}

conclude() { # the plan may move things itself. Not to be called in a condition: set -e would mean nothing
	cd "$stage" && [ -f plan ] || fail 5 'it did not come whole'
	placed=
	set -e
	. ./plan
	[ "$placed" ] || place
}

place() {
	[ ! -e "$target" ] && [ ! -L "$target" ] || mv "$target" "$stage/old" || return
	mv "$stage/tree" "$target" && return
	[ ! -e "$stage/old" ] || mv "$stage/old" "$target"
	return 1
}

# Lines of plans
hole() { : >"$2" && dd if=/dev/null of="$2" bs=1 seek="$1" count=0 2>/dev/null; }
fill() { dd if="pieces/$1" of="$4" bs="$2" seek="$3" conv=notrunc 2>/dev/null && rm "pieces/$1"; }
look() { # MODE MTIME FILE...
	s=$1 t=$2
	shift 2
	chmod "$s" "$@"
	touch -d "@$t" "$@"
}
into() { # the rest of the plan is about the target itself
	placed=1
	mkdir -p "$target"
	cd "$target"
}
bring() { # FOLDER NAME...: what has come, over what was there; few forks for many files
	d=$1
	shift
	for s in "$@"; do
		shift
		set -- "$@" "$stage/tree/$d/$s"
	done
	mv -f "$@" "./$d/"
}

unpack() { # FOLDER OWNERS
	cd "$1" || exit 105
	if [ "$2" ]; then o='-p --numeric-owner'; else o='-p -o'; fi
	tar x $o -f tar && rm tar || return 1
	[ -f now ] || return 0
	set -e
	. ./now
	rm now
}

settle() { # TARGET PARTIAL FOLDER OWNERS
	aim "$1"
	stage=$3
	s=0
	if [ -f "$stage/tar" ]; then
		(unpack "$stage" "$4")
		s=$?
	fi
	if [ $s = 0 ]; then
		(conclude)
		s=$?
	fi
	[ $s = 0 ] || { abandon "$1" "$2" "$3" && exit 105; }
	s=
	case $stage in "$target"/*) s=$(stat -c %Y "$target") ;; esac
	rm -rf "$stage"
	[ -z "$s" ] || touch -d "@$s" "$target"
}

# wc reads it all
bytes() { stat -c %s "$1" 2>/dev/null || wc -c <"$1"; }

held() { # FILE [BLOCKS]
	[ -f "$1" ] || { echo 0 && return; }
	need sha256sum
	bytes "$1"
	if [ $# = 1 ]; then sha256sum; else dd bs=65536 count="$2" 2>/dev/null | sha256sum; fi <"$1"
}

append() { # PART FILE AT
	[ -e "$1" ] || : >"$1"
	s=$(bytes "$1")
	[ "$s" -le "$3" ] || fail 5 "$1: it has grown"
	[ "$s" -eq "$3" ] || dd if=/dev/null of="$1" bs=1 seek="$3" count=0 2>/dev/null
	cat <"$2" >>"$1" && rm -f "$2" || fail 5 "$1: it cannot be written"
}

complete() { # PART PATH SIZE MODE MTIME OWNER
	[ ! -d "$2" ] || fail 21 "$2: is a directory"
	[ -e "$1" ] || : >"$1"
	[ "$(bytes "$1")" -eq "$3" ] || dd if=/dev/null of="$1" bs=1 seek="$3" count=0 2>/dev/null
	[ -z "$6" ] || chown "$6" "$1" || exit 105
	chmod "${4:-644}" "$1" && { [ -z "$5" ] || touch -d "@$5" "$1"; } && mv -f "$1" "$2" || exit 105
}

# What a hole is, only lseek tells
data() {
	perl -e 'open F,"<",$ARGV[0] or exit 1; $p=0; while(defined($d=sysseek(F,$p,3))){$h=sysseek(F,$d,4)//last; printf "%d %d\n",$d,$h-$d; $p=$h} print "end\n"' "$1" 2>/dev/null || :
}

# How tar is run. GNU's status 1 is a file that changed meanwhile, and its "-" must not be a terminal.
packer() { # → $o $f
	has tar || fail -1 'this guest has no tar'
	o= f=-
	case $(tar --version 2>/dev/null) in *GNU*) o='--format=gnu -S --numeric-owner --warning=no-file-changed' ;; esac
	[ ! -t 1 ] || f=/dev/stdout
	export o f
}
run='tar c $o -f "$f" "$@"; s=$?; case $s$o in 1-*) s=0 ;; esac; exit $s'
t() { (eval "$run") || late=1; }

pack() { # DIR [NAME...]
	enter "$1"
	shift
	packer
	late=
	if [ $# = 0 ]; then t .; else
		need find
		for s in "$@"; do
			shift
			set -- "$@" -o -name "$s"
		done
		shift
		o="$o --no-recursion"
		find . ! -name . \( "$@" \) -prune -o -exec sh -c "$run" tar {} + || late=1
	fi
	[ -z "$late" ] || exit 105
}

pick() { # DIR
	enter "$1"
	packer
	o="$o --no-recursion" late=
	eval "$(cat)"
	[ -z "$late" ] || exit 105
}

each() { # what find and a tool say of all that has no newline in its name
	need find "$1"
	find . -name "*$N*" -prune -o $kind -exec "$@" {} +
}

visit() {
	for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		if [ -L "$f" ]; then k=l; elif [ -d "$f" ]; then k=d; elif [ -f "$f" ]; then k=f; elif [ -e "$f" ]; then k=o; else continue; fi
		s='- - -'
		! has stat || s=$(stat -c '%f %Y %s' "$f") || continue
		if [ $k = l ]; then s=$(readlink "$f" && echo .) && s="l - - -" && t=$(readlink "$f" && echo .); else s="$k $s" t=$N.; fi
		printf '%s\0%s\0%s\0' "$s" "$f" "${t%"$N".}"
		[ $k != d ] || visit "$f"
	done
}

case $verb in
stage | settle | abandon | pack | pick | held | append | complete | data) "$verb" "$@" ;;
facts)
	need stat
	[ ! -d "$1" ] || fail 21 "$1: is a directory"
	stat -L -c '%f %Y %s' "$1" || fail 2 "$1: no such file or directory"
	;;
piece) dd if="$1" bs=65536 skip="$2" count="$3" 2>/dev/null || exit 105 ;;
unpack)
	(unpack "$@")
	[ $? = 0 ] || exit 105
	;;
drop) rm -f "$1" ;;
save)
	exec >"$1" || fail 5 "$1: cannot be written"
	verb=$2
	shift 2
	case $verb in pack | pick) "$verb" "$@" ;; esac
	;;
lines)
	enter "$1"
	set -e
	eval "$(cat)"
	;;
list)
	kind=
	enter "$1"
	each stat -c '%f %Y %s %n'
	;;
sums)
	kind='-type f'
	enter "$1"
	each sha256sum
	;;
links)
	enter "$1"
	need find
	packer
	o="$o --no-recursion"
	find . -type l -exec sh -c "$run" tar {} +
	;;
walk)
	enter "$1"
	visit .
	;;
glob)
	IFS=
	for s in $1; do
		[ ! -e "$s" ] && [ ! -L "$s" ] || printf '%s\0' "$s"
	done
	;;
kind)
	if [ -d "$1" ]; then echo d; elif [ -e "$1" ] || [ -L "$1" ]; then echo f; else echo -; fi
	;;
size)
	enter "$1"
	du -sk .
	;;
*) fail 5 "unknown verb $verb" ;;
esac
