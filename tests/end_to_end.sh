#!/bin/sh
# The whole of hostctl as its user meets it: the command line alone, real machines, nothing faked.
#
#   tests/end_to_end.sh [CHAPTER]...     all chapters, or these: life files time crash jobs templates shell qga attach serial libvirt
#
# `make e2e` sets up what it needs. It works in a folder of its own, touches none of your machines, stops at the
# first thing that is not as promised and says what, and leaves nothing behind. KEEP=1 leaves the folder.
# shellcheck disable=SC2016 # what stands in single quotes is for the guest's shell
set -u
cd "$(dirname "$0")/.." || exit 2
root=$PWD PATH=$PWD/.venv/bin:$PATH
work=$(mktemp -d /tmp/he-XXXXXX) || exit 2 # short: a socket's path has 107 bytes
export HOSTCTL_STATE_DIR="$work/s" HOSTCTL_RUNTIME_DIR="$work/r" PATH
# For the guest, whose busybox has no pgrep and no pkill
SLEEPS="ps -o args | grep '^/bin/sleep 321'"
KILL_AGENT='for d in /run/hostctl.*; do for f in $d/*.pid; do read -r p x <$f && kill -9 $p; done; kill -9 ${d##*.}; done'
LET_ME_IN='$1$hostctl$BNI8Hy49p0tqdwVZ.lU8d1' # crypt of the password
GETTY="setsid sh -c 'while :; do getty -L 115200 ttyS1 vt100; done' </dev/null >/dev/null 2>&1 &"
number=0 title='' pids='' machines=''

# --- how ---------------------------------------------------------------------------------------------------------

now_ms() { date +%s%3N; }

step() { # TITLE: what follows belongs to it, until the next
	finish_step
	number=$((number + 1)) title=$1 began=$(now_ms)
}
finish_step() {
	[ -z "$title" ] || printf '%3d  %6d ms  %s\n' "$number" $(($(now_ms) - began)) "$title"
	title=
}
chapter() {
	finish_step
	printf '\n%s\n' "$1"
}

fail() {
	printf '\nFAILED at step %d: %s\n%s\n' "$number" "$title" "$*" >&2
	for log in "$work"/s/machines/*/console.log; do
		[ ! -s "$log" ] || { echo "--- end of $log" && tail -n 5 "$log"; } >&2
	done
	exit 1
}

# run STATUS COMMAND…: its stdout is then in $out, its stderr in $err
run() {
	wanted=$1
	shift
	"$@" >"$work/out" 2>"$work/err"
	got=$?
	out=$(cat "$work/out") err=$(cat "$work/err")
	[ "$got" = "$wanted" ] || fail "$*: status $got, not $wanted; it said: $out $err"
}
says() { # TEXT COMMAND…: succeeds, and prints exactly this
	text=$1
	shift
	run 0 "$@"
	[ "$out" = "$text" ] || fail "$*: printed '$out', not '$text'"
}
has() { # TEXT: the last run printed it, on stdout or stderr
	case "$out
$err" in *"$1"*) ;; *) fail "nothing says '$1' in: $out $err" ;; esac
}
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }

# until_ SECONDS COMMAND…
until_() {
	limit=$(($(date +%s) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$limit" ] || fail "not so in time: $*"
		sleep 0.2
	done
}

machine() { # NAME WORDS…: create and start it; it is removed at the end
	machines="$machines $1"
	run 0 hostctl create "$@" --start --timeout 180s
}
gone() { run 0 hostctl delete --force "$1" && machines=$(printf ' %s ' "$machines" | sed "s/ $1 / /"); }

clean_up() {
	trap '' INT TERM HUP
	for name in $machines; do hostctl delete --force "$name" >/dev/null 2>&1; done
	# Only what this script has started, each by its number
	for pid in $pids; do kill "$pid" 2>/dev/null; done
	for pid in $pids; do wait "$pid" 2>/dev/null; done
	if [ "${KEEP-}" ]; then echo "kept: $work" >&2; else rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

random() { head -c "$1" /dev/urandom >"$2"; } # BYTES FILE

# --- chapters ----------------------------------------------------------------------------------------------------

life() {
	chapter 'Life: a machine with no network, and commands in it'
	step 'doctor finds all that the main job needs'
	run 0 hostctl doctor
	step 'create and start, until the agent answers'
	machine life --accel tcg
	step 'it is listed, and its isolation has two witnesses'
	says life hostctl list -q
	run 0 hostctl show life
	has 'no network: proved'
	says lo hostctl exec life -- ls /sys/class/net
	step 'statuses: its own, a signal, a timeout, not found, no such machine'
	run 3 hostctl exec life -- sh -c 'exit 3'
	run 137 hostctl exec life -- sh -c 'kill -9 $$'
	run 124 hostctl exec life --timeout 1s -- sleep 60
	run 127 hostctl exec life -- no-such-command
	run 125 hostctl exec nobody -- true
	step 'several by pattern, tag and list; no match; one that fails'
	run 0 hostctl create spare --tag spare
	machines="$machines spare"
	says 'life: hi' hostctl exec 'lif[e]' -- echo hi
	run 127 hostctl exec @nobody -- true
	run 125 hostctl exec life,@spare -- true
	has "2 machines: 1 ok, 1 failed: spare"
	says life hostctl list -q 'l*'
	gone spare
	step 'both streams apart; stdin, environment, folder, user'
	run 0 hostctl exec life -- sh -c 'echo out; echo err >&2'
	[ "$out/$err" = out/err ] || fail "streams: '$out' and '$err'"
	says HELLO sh -c 'echo hello | hostctl exec -i life -- tr a-z A-Z'
	says "a b'c /tmp user" hostctl exec life -e "X=a b'c" -w /tmp -u user -- sh -c 'echo "$X $PWD $(id -un)"'
	step 'bytes of any kind come back as they were'
	random 300000 "$work/bytes"
	hostctl exec -i life -- cat <"$work/bytes" >"$work/back" || fail 'cat failed'
	same "$work/bytes" "$work/back"
	step 'eight processes of hostctl at once'
	group=
	for n in 1 2 3 4 5 6 7 8; do
		hostctl exec life -- echo "$n" >"$work/at-once.$n" &
		group="$group $!"
	done
	for pid in $group; do wait "$pid" || fail 'one of eight failed'; done
	says '1 2 3 4 5 6 7 8' sh -c "cat $work/at-once.* | sort -n | tr '\n' ' ' | sed 's/ \$//'"
	step 'what a command leaves behind says nothing in the next'
	run 0 hostctl exec life -- sh -c '(while sleep 0.05; do echo noise; done) & echo begun'
	for n in 1 2 3; do says "clean $n" hostctl exec life -- echo "clean $n"; done
	step 'Ctrl-C reaches the guest'
	python3 -c 'import signal, os, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell makes what it starts by & deaf to it
os.execvp(sys.argv[1], sys.argv[1:])' hostctl exec life -- /bin/sleep 321 &
	pid=$!
	until_ 30 hostctl exec life -- sh -c "$SLEEPS"
	kill -INT "$pid"
	wait "$pid"
	code=$?
	[ "$code" = 130 ] || fail "hostctl ended with $code, not 130"
	run 1 hostctl exec life -- sh -c "$SLEEPS"
	step 'stop in order, start again, delete'
	run 0 hostctl stop life
	says stopped python_state life
	run 0 hostctl start life
	says again hostctl exec life -- echo again
	gone life
	run 3 hostctl show life
}

python_state() { hostctl list --json | python3 -c 'import json, sys
print({m["name"]: m["state"] for m in json.load(sys.stdin)}[sys.argv[1]])' "$1"; }

files() {
	chapter 'Files: whole or not at all'
	step 'a machine'
	machine files --accel tcg --memory 512M
	for size in 0 1 300001 67108864; do
		step "$size bytes in and out, digests compared"
		random "$size" "$work/in"
		run 0 hostctl cp -q --verify sha256 "$work/in" files:/dev/shm/file
		run 0 hostctl cp -q --verify sha256 files:/dev/shm/file "$work/out-file"
		same "$work/in" "$work/out-file"
	done
	step 'a name with spaces, quotes and a newline; mode and time kept'
	name="a b'c
-d"
	echo text >"$work/in"
	chmod 750 "$work/in"
	touch -d @1000000000 "$work/in"
	run 0 hostctl cp -q -p "$work/in" "files:/root/$name"
	says '750 1000000000' hostctl exec files -- stat -c '%a %Y' "/root/$name"
	step 'a failed copy leaves the old file, and nothing else'
	run 0 hostctl exec files -- sh -c 'mkdir /root/d; echo old >/root/d/file; mount -t tmpfs -o size=1m small /mnt; echo old >/mnt/file'
	random 4000000 "$work/in"
	run 1 hostctl cp -q "$work/in" files:/mnt/file
	has 'No space left'
	run 3 hostctl cp -q "$work/in" files:/no/such/folder/file
	says 'old file' hostctl exec files -- sh -c 'echo $(cat /mnt/file) $(ls -A /mnt)'
	echo mine >"$work/kept"
	run 3 hostctl cp -q files:/no/such/file "$work/kept"
	says mine cat "$work/kept"
	step 'a folder in and out, then only what changed; a full disk leaves the old one'
	mkdir -p "$work/tree/sub/empty"
	echo one >"$work/tree/sub/one"
	ln -s sub/one "$work/tree/link"
	run 0 hostctl cp -q -r "$work/tree" files:/root/
	run 0 hostctl cp -q -r files:/root/tree "$work/tree-back"
	run 0 diff -r "$work/tree" "$work/tree-back"
	echo two >"$work/tree/two"
	rm "$work/tree/sub/one"
	says 'send two remove sub/one' sh -c 'echo $(hostctl sync -q -n --delete "$1" files:/root/tree)' sh "$work/tree"
	run 0 hostctl sync -q --delete "$work/tree" files:/root/tree
	says 'link sub two' hostctl exec files -- sh -c 'echo $(ls /root/tree)'
	run 0 hostctl cp -q -r "$work/tree" files:/mnt/tree
	cp "$work/in" "$work/tree/large"
	run 1 hostctl cp -q -r --replace "$work/tree" files:/mnt/tree
	has 'No space left'
	says 'file tree link sub two' hostctl exec files -- sh -c 'echo $(ls -A /mnt /mnt/tree | grep -v :)'
	gone files
}

time_() {
	chapter 'Time: pause, snapshots, reset'
	step 'a machine with a disk'
	machine time --accel tcg --disk size=64M
	step 'paused it is not reached, and says what to do; resumed it is'
	run 0 hostctl pause time
	run 125 hostctl exec time -- true
	has 'hostctl resume time'
	run 0 hostctl resume time
	says back hostctl exec time -- echo back
	step 'a snapshot brings memory and disk back'
	run 0 hostctl exec time -- sh -c 'echo before >/root/file; echo before | dd of=/dev/vda conv=fsync 2>/dev/null'
	run 0 hostctl snapshot save time moment
	run 0 hostctl exec time -- sh -c 'rm /root/file; echo after! | dd of=/dev/vda conv=fsync 2>/dev/null'
	run 0 hostctl snapshot restore time moment
	says 'before before' hostctl exec time -- sh -c 'echo $(cat /root/file) $(dd if=/dev/vda bs=6 count=1 2>/dev/null)'
	step 'the clock of a restored guest is right'
	[ $(($(date +%s) - $(hostctl exec time -- date +%s))) -le 2 ] || fail 'the clock is old'
	step 'a stopped machine starts into its snapshot'
	run 0 hostctl stop --force time
	run 0 hostctl snapshot restore time moment
	says before hostctl exec time -- cat /root/file
	step 'reset begins anew; the snapshot can be forgotten'
	run 0 hostctl reset time
	run 1 hostctl exec time -- test -e /root/file
	run 0 hostctl snapshot delete time moment
	run 3 hostctl snapshot restore time moment
	gone time
}

crash() {
	chapter 'Crashes: kill -9 anything'
	step 'a machine'
	machine crash --accel tcg
	step 'hostctl, in the middle of a copy: the target is as it was, and nothing is left'
	run 0 hostctl exec crash -- sh -c 'mkdir /tmp/d; echo old >/tmp/d/file'
	random 150000000 "$work/in"
	hostctl cp -q "$work/in" crash:/tmp/d/file &
	pid=$!
	until_ 30 hostctl exec crash -- sh -c 'ls -A /tmp/d | grep -q hostctl'
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	says old hostctl exec crash -- cat /tmp/d/file
	until_ 30 hostctl exec crash -- sh -c 'test "$(ls -A /tmp/d)" = file'
	step 'the agent in the guest: the next command works'
	old=$(hostctl exec crash -- ls /run)
	run 0 hostctl exec crash -- sh -c "(sleep 0.5; $KILL_AGENT) >/dev/null 2>&1 &"
	sleep 1
	says alive hostctl exec crash -- echo alive
	[ "$old" != "$(hostctl exec crash -- ls /run)" ] || fail 'the agent was not killed'
	step 'QEMU: noticed, told, and started again'
	pid=$(hostctl show --json crash | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
	kill -9 "$pid"
	until_ 10 sh -c '! hostctl exec crash -- true'
	says crashed python_state crash
	run 0 hostctl start crash
	says alive hostctl exec crash -- echo alive
	gone crash
}

jobs() {
	chapter 'Jobs: commands that outlive who started them'
	step 'a machine, and a job in it'
	machine jobs --accel tcg
	hostctl events --heartbeat 1s >"$work/events" &
	watching=$!
	pids="$pids $watching"
	until_ 20 grep -q 'jobs agent-up' "$work/events"
	run 0 hostctl exec -d jobs -- sh -c 'i=0; while [ $i -lt 60 ]; do echo $i; i=$((i + 1)); sleep 0.1; done; exit 7'
	job=$out
	run 0 hostctl jobs
	has "$job"
	has running
	step 'who follows it is killed, and so is the agent; the log stays whole'
	hostctl logs -f "$job" >"$work/followed" 2>/dev/null &
	pid=$!
	until_ 20 grep -q '^5$' "$work/followed"
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	hostctl exec jobs -- sh -c "$KILL_AGENT" >/dev/null 2>&1
	run 7 hostctl wait "$job"
	says "$(seq 0 59)" hostctl logs "$job"
	step 'signals, limits and what is cut are told'
	run 0 hostctl exec -d jobs --timeout 1s -- sleep 60
	run 124 hostctl wait "$out"
	run 0 hostctl exec -d jobs --keep 4K -- sh -c 'head -c 100000 /dev/zero; sleep 321'
	job=$out
	run 0 hostctl signal "$job" KILL
	run 137 hostctl wait "$job"
	run 0 hostctl jobs
	has '4 KiB, cut'
	run 0 hostctl forget "$job"
	run 3 hostctl logs "$job"
	step 'what it uses; and who watched has heard of everything'
	run 0 hostctl stats jobs --json
	has '"resident_bytes": '
	gone jobs
	for event in agent-up job-started job-ended deleted; do
		until_ 10 grep -q "jobs $event" "$work/events"
	done
	kill "$watching"
	wait "$watching"
}

templates() {
	chapter 'Templates: machines that begin in the middle'
	step 'a template, warmed up'
	run 0 hostctl template create warm --accel tcg --warm 'echo warm >/tmp/warm'
	run 0 hostctl template list
	has warm
	step 'three clones at once, each with what the template had, and none with what another has'
	machines="$machines c-1 c-2 c-3"
	run 0 hostctl clone warm c --count 3
	run 0 hostctl exec c-1 -- sh -c 'echo mine >/tmp/warm'
	for n in 2 3; do says warm hostctl exec "c-$n" -- cat /tmp/warm; done
	run 4 hostctl template delete warm
	has 'in use'
	for n in 1 2 3; do gone "c-$n"; done
	step 'a command in a machine of its own'
	random 200000 "$work/in"
	says "$(sha256sum <"$work/in" | cut -c1-64)" hostctl run --put "$work/in:/in" --get /in:"$work/back" warm -- \
		sh -c 'sha256sum </in | cut -c1-64'
	same "$work/in" "$work/back"
	run 9 hostctl run warm -- sh -c 'exit 9'
	run 137 hostctl run warm -- sh -c 'kill -9 $$'
	step 'who runs it is killed: the next hostctl removes the machine'
	hostctl run warm -- /bin/sleep 321 &
	pid=$!
	until_ 30 sh -c 'hostctl list -q | grep -q warm-'
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	says '' hostctl list -q
	run 0 hostctl template delete warm
}

shell() {
	chapter 'A terminal in a guest, and connections into it'
	step 'a machine that serves a page, on its own loopback'
	machine shell --accel tcg
	run 0 hostctl exec shell -- sh -c 'mkdir /www && echo a page >/www/page && httpd -p 127.0.0.1:80 -h /www'
	step 'a shell under a real terminal: a size, keys, a status, and our settings as they were'
	at_home='stty rows 33 cols 99; stty -g >"$HOSTCTL_E2E/before"; hostctl shell shell; s=$?; stty -g >"$HOSTCTL_E2E/after"; exit $s'
	printf 'stty size; tty\nexit 6\n' | HOSTCTL_E2E=$work script -qec "$at_home" /dev/null >"$work/shown" 2>&1
	code=$?
	[ $code = 6 ] || fail "the shell ended with $code: $(cat "$work/shown")"
	same "$work/before" "$work/after"
	grep -q '33 99' "$work/shown" || fail "no size in: $(cat "$work/shown")"
	grep -q /dev/pts/ "$work/shown" || fail "no terminal in: $(cat "$work/shown")"
	step 'a page is fetched through a port and through a path of this host'
	hostctl forward shell 0:80 "$work/page.sock:80" >"$work/ports" 2>"$work/said" &
	pid=$!
	pids="$pids $pid"
	until_ 20 grep -q page.sock "$work/ports"
	IFS=': ' read -r _ port _ <"$work/ports"
	says 'a page' busybox wget -q -O - "http://127.0.0.1:$port/page"
	[ -S "$work/page.sock" ] || fail 'no socket'
	kill "$pid" && wait "$pid" 2>/dev/null
	[ ! -e "$work/page.sock" ] || fail 'the socket is left'
	gone shell
}

qga() {
	chapter "A guest that has only QEMU's guest agent"
	step 'a machine of the image tiny-qga'
	machine qga --accel tcg --image tiny-qga
	step 'commands and files, and which channel it was'
	run 0 hostctl exec -v qga -- echo hello
	has 'channel: QEMU guest agent'
	random 700000 "$work/in"
	run 0 hostctl cp -q --verify sha256 "$work/in" qga:/tmp/file
	run 0 hostctl cp -q --verify sha256 qga:/tmp/file "$work/out-file"
	same "$work/in" "$work/out-file"
	step 'what it cannot do it refuses by name'
	run 0 hostctl caps qga
	has 'no agent:'
	gone qga
}

foreign_qemu() { # FOLDER: a QEMU that hostctl did not start; its number is then in $foreign
	run 0 hostctl image build tiny-qga
	kernel=$(hostctl image list --json | python3 -c 'import json, sys
print(next(i["kernel"] for i in json.load(sys.stdin) if i["name"] == "tiny-qga"))')
	qemu-system-x86_64 -nodefaults -no-user-config -nic none -display none -machine q35 -accel tcg -m 256 \
		-kernel "$kernel" -initrd "${kernel%/*}/initrd" -append 'console=ttyS0 quiet panic=-1 no_timer_check' \
		-chardev "file,id=c,path=$1/console" -serial chardev:c -device virtio-serial-pci,max_ports=31 \
		-chardev "socket,id=g,path=$1/qga,server=on,wait=off" \
		-device virtserialport,chardev=g,name=org.qemu.guest_agent.0 \
		-chardev "socket,id=q,path=$1/qmp,server=on,wait=off" -mon chardev=q,mode=control &
	foreign=$!
	pids="$pids $foreign"
	until_ 20 test -S "$1/qmp"
}

attach() {
	chapter 'Attach: our agent in a machine that somebody else started'
	step 'their QEMU'
	foreign_qemu "$work"
	machines="$machines theirs"
	step 'what would be done'
	set -- "$work/qmp" --name theirs --line "org.qemu.guest_agent.0=$work/qga"
	until_ 60 hostctl attach "$@" --dry-run
	run 3 hostctl show theirs
	step 'attach'
	run 0 hostctl attach "$@"
	run 0 hostctl exec -v theirs -- echo fast
	has 'channel: hostctl agent over virtio-serial'
	random 5000000 "$work/in"
	run 0 hostctl cp -q --verify sha256 "$work/in" theirs:/tmp/file
	run 0 hostctl cp -q theirs:/tmp/file "$work/out-file"
	same "$work/in" "$work/out-file"
	step 'detach: nothing of ours is left'
	run 0 hostctl detach theirs
	says 1 hostctl exec theirs -- sh -c 'ls /sys/class/virtio-ports | wc -l'
	says '' hostctl exec theirs -- sh -c 'ls /run | grep hostctl; true'
	step 'kept as a service it comes back when it dies; and goes'
	run 0 hostctl attach theirs --persist
	old=$(hostctl exec theirs -- ls /run)
	run 0 hostctl exec --channel qga theirs -- sh -c "$KILL_AGENT"
	says back hostctl exec --channel agent theirs -- echo back
	[ "$old" != "$(hostctl exec theirs -- ls /run)" ] || fail 'the agent was not killed'
	run 0 hostctl detach theirs
	step 'forgotten, and not harmed'
	gone theirs
	kill -0 "$foreign" || fail 'their QEMU is gone'
}

serial() {
	chapter 'A serial line, and a login on one'
	step 'a machine whose agent is on ttyS1 too'
	machine serial --accel tcg --append hostctl.serial=ttyS1
	step 'a command and a file by the line alone'
	says slow hostctl exec --channel serial serial -- echo slow
	random 50000 "$work/in"
	run 0 hostctl cp -q --channel serial "$work/in" serial:/tmp/file
	says "$(sha256sum <"$work/in" | cut -c1-64)" hostctl exec serial -- sh -c 'sha256sum </tmp/file | cut -c1-64'
	gone serial
	step 'a machine with a login on ttyS1'
	machine login --accel tcg
	run 0 hostctl exec login -- sed -i "s|^root:x:|root:$LET_ME_IN:|" /etc/passwd
	run 0 hostctl exec login -- sh -c "$GETTY"
	step 'no login said: refused, with the next step'
	line=$work/r/login/serial.1.sock
	run 1 hostctl attach "$line" --name line
	has '--login FILE'
	step "attach by it; the line is the agent's then"
	printf 'user = "root"\npassword = "let me in"\n' >"$work/login"
	chmod 600 "$work/login"
	machines="$machines line"
	run 0 hostctl attach "$line" --name line --login "$work/login"
	says 'by the line' hostctl exec --channel serial line -- echo 'by the line'
	step 'detach, and the login is back'
	run 0 hostctl detach line
	says 'by the login' hostctl exec --channel console line -- echo 'by the login'
	grep -rq 'let me in' "$work/err" "$work/out" && fail 'the password was printed'
	gone line
	gone login
}

libvirt() {
	chapter 'libvirt'
	step 'a libvirtd of our own'
	mkfifo "$work/stop"
	python3 -c 'import sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.libvirt.daemon import Daemon
with tempfile.TemporaryDirectory(prefix="hl-") as root, Daemon(Path(root)) as daemon:
    print(daemon.uri, flush=True)
    sys.stdin.read()' "$root" <"$work/stop" >"$work/uri" &
	daemon=$!
	exec 9>"$work/stop" # closed, it ends
	until_ 30 test -s "$work/uri"
	uri=$(cat "$work/uri")
	step 'create and start a domain on it'
	machine virt --accel tcg --backend libvirt --connect "$uri"
	run 0 hostctl show virt
	has 'no network: proved'
	step 'the same commands'
	says HELLO sh -c 'echo hello | hostctl exec -i virt -- tr a-z A-Z'
	random 3000000 "$work/in"
	run 0 hostctl cp -q --verify sha256 "$work/in" virt:/tmp/file
	run 0 hostctl cp -q --verify sha256 virt:/tmp/file "$work/out-file"
	same "$work/in" "$work/out-file"
	run 0 hostctl pause virt
	run 125 hostctl exec virt -- true
	run 0 hostctl resume virt
	step 'snapshot and restore'
	run 0 hostctl snapshot save virt moment
	run 0 hostctl exec virt -- rm /tmp/file
	run 0 hostctl snapshot restore virt moment
	run 0 hostctl exec virt -- test -e /tmp/file
	gone virt
	step "a domain that has only the guest agent: long input, by libvirt's own way"
	machine vqga --accel tcg --image tiny-qga --backend libvirt --connect "$uri"
	random 400000 "$work/in"
	hostctl exec -i vqga -- cat <"$work/in" >"$work/back" || fail 'cat failed'
	same "$work/in" "$work/back"
	gone vqga
	exec 9>&-
	wait "$daemon" || fail 'libvirtd did not end in order'
}

[ $# -gt 0 ] || set -- life files time crash jobs templates shell qga attach serial libvirt
for name; do
	case $name in
	time) time_ ;;
	life | files | crash | jobs | templates | shell | qga | attach | serial | libvirt) "$name" ;;
	*) echo "there is no chapter '$name'; see the head of $0" >&2 && exit 2 ;;
	esac
done
finish_step
left=$(hostctl list -q)
[ -z "$left" ] || fail "machines are left: $left"
printf '\nall %d steps are as promised; nothing is left behind\n' "$number"
