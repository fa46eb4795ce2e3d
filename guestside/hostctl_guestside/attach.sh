#!/bin/sh
# The guest's half of `hostctl attach`: brings the agent to life where its file lies, and takes it away again.
#
#   attach.sh kind             what starts services here: systemd, openrc, sysvinit, inittab or none
#   attach.sh start AGENT [TTY]    run the agent now, until it is stopped or the guest goes down; on all
#                              virtio-serial ports, or on the tty
#   attach.sh stop AGENT       end it, and wait until it is gone
#   attach.sh install AGENT [TTY]  as a service of whatever `kind` says; it runs now and at each boot
#   attach.sh remove AGENT     undo install; fine when there is nothing to undo
#
# Prints what it did; on failure a line on stderr, and status 1. ROOT goes before each path, for tests.
# shellcheck disable=SC2015,SC2086
set -u
ROOT=${ROOT-}
service=hostctl-agent

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

kind() {
	if [ -d "$ROOT/run/systemd/system" ]; then
		echo systemd
	elif [ -x "$ROOT/sbin/openrc-run" ]; then
		echo openrc
	elif [ -x "$ROOT/usr/sbin/update-rc.d" ]; then
		echo sysvinit
	elif [ -f "$ROOT/etc/inittab" ]; then
		echo inittab
	else
		echo none
	fi
}

# The agent names its folder after its process. `read` drops the NULs between the words.
pids() {
	for folder in /run/hostctl.* /dev/shm/hostctl.* "${TMPDIR:-/tmp}"/hostctl.*; do
		pid=${folder##*.}
		[ -d "$folder" ] && read -r line <"/proc/$pid/cmdline" || [ "${line-}" ] || continue
		case $line in *"$agent"*) printf '%s\n' "$pid" ;; esac
		line=
	done 2>/dev/null
}

# until_ TEST…: for five seconds
until_() {
	tries=0
	until "$@"; do
		[ $((tries += 1)) -le 50 ] || return 1
		sleep 0.1 2>/dev/null || sleep 1
	done
}
runs() { [ "$(pids)" ]; }
is_gone() { ! runs; }

start() {
	! runs || return 0
	setsid=
	! command -v setsid >/dev/null || setsid=setsid
	# What a shell starts by & ignores SIGINT, and all its children: no Ctrl-C would reach a command. So the
	# agent is left alone another way: the end of a pipeline kills the shell that would wait for both.
	# shellcheck disable=SC2016 # for the other shell
	{ sh -c "$setsid"' sh "$@" </dev/null >/dev/null 2>&1 | kill -9 $$' sh $run; } 2>/dev/null
	until_ runs || die "the agent did not start; run it by hand to see why: sh $run"
}

stop() {
	ended=$(pids)
	for pid in $ended; do kill "$pid"; done
	until_ is_gone || die "the agent does not end: $(pids)"
	for pid in $ended; do
		for folder in /run/hostctl."$pid" /dev/shm/hostctl."$pid" "${TMPDIR:-/tmp}/hostctl.$pid"; do
			! read -r nap <"$folder/nap" || kill -s KILL "$nap" # its supervisor sees that all is over
			rm -rf "$folder"
		done 2>/dev/null
	done
}

put() { # PATH MODE, text on stdin
	cat >"$ROOT$1.new" && chmod "$2" "$ROOT$1.new" && mv -f "$ROOT$1.new" "$ROOT$1" || die "cannot write $1"
}

# sysvinit's own script runs others with SIGINT ignored, which a shell cannot undo: no Ctrl-C would reach a command
rc_script() {
	cat <<-END
		start() {
			set -- /bin/sh $run
			! env --default-signal=INT true 2>/dev/null || set -- /usr/bin/env --default-signal=INT,QUIT "\$@"
			program=\$1
			shift
			start-stop-daemon --start --background --make-pidfile --pidfile /run/$service.pid --startas "\$program" -- "\$@"
		}
		stop() { start-stop-daemon --stop --retry 5 --remove-pidfile --pidfile /run/$service.pid; }
	END
}

unit() {
	cat <<-END
		[Unit]
		Description=hostctl guest agent: commands and files through the hypervisor's own ports

		[Service]
		ExecStart=/bin/sh $run
		# Killed with all it runs, it cannot remove its own folder, which is named after its process
		ExecStopPost=-/bin/sh -c 'for d in /run/hostctl.*; do [ -d /proc/\$\${d##*.} ] || rm -rf "\$\$d"; done'
		Restart=always
		RestartSec=1
		KillMode=mixed
		OOMScoreAdjust=-500

		[Install]
		WantedBy=multi-user.target
	END
}

openrc_script() {
	cat <<-END
		#!/sbin/openrc-run
		description="hostctl guest agent"
		command=/bin/sh
		command_args="$run"
		command_background=true
		pidfile=/run/$service.pid
	END
}

sysv_script() {
	cat <<-END
		#!/bin/sh
		### BEGIN INIT INFO
		# Provides:          $service
		# Required-Start:    \$local_fs
		# Required-Stop:
		# Default-Start:     2 3 4 5
		# Default-Stop:      0 1 6
		# Short-Description: hostctl guest agent
		### END INIT INFO
	END
	rc_script
	cat <<-'END'
		case ${1-} in
		start | stop) "$1" ;;
		restart | force-reload) stop; start ;;
		status) start-stop-daemon --status --pidfile /run/hostctl-agent.pid ;;
		*) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
		esac
	END
}

# busybox takes `::respawn:`; sysvinit wants an id and run levels
inittab_line() {
	case $(readlink -f "$ROOT/sbin/init" 2>/dev/null) in
	*busybox*) printf '::respawn:/bin/sh %s </dev/null\n' "$run" ;;
	*) printf 'hctl:12345:respawn:/bin/sh %s\n' "$run" ;;
	esac
}
without_line() { grep -v "respawn:/bin/sh $agent" "$ROOT/etc/inittab"; }
reread() { [ "$ROOT" ] || kill -HUP 1; }

install() {
	case $(kind) in
	systemd)
		unit | put /etc/systemd/system/$service.service 644
		systemctl daemon-reload && systemctl enable --quiet --now $service || die 'systemd refuses'
		;;
	openrc)
		openrc_script | put /etc/init.d/$service 755
		rc-update add $service default && rc-service $service start || die 'openrc refuses'
		;;
	sysvinit)
		sysv_script | put /etc/init.d/$service 755
		update-rc.d $service defaults && "$ROOT/etc/init.d/$service" start || die 'sysvinit refuses'
		;;
	inittab)
		{ without_line && inittab_line; } | put /etc/inittab 644
		reread
		;;
	*) die 'no kind of service is known here; attach without --persist' ;;
	esac
	[ "$ROOT" ] || until_ runs || die "the service is there, but the agent does not run"
}

remove() {
	case $(kind) in
	systemd)
		# Who asked may be a command of the agent itself, and goes down with it: that comes last
		[ ! -e "$ROOT/etc/systemd/system/$service.service" ] || systemctl disable --quiet $service
		rm -f "$ROOT/etc/systemd/system/$service.service"
		# No daemon-reload before: systemd would forget how to tidy up
		systemctl --quiet stop --no-block $service
		;;
	openrc)
		[ ! -e "$ROOT/etc/init.d/$service" ] || { rc-service $service stop && rc-update del $service default; }
		rm -f "$ROOT/etc/init.d/$service" /run/$service.pid
		;;
	sysvinit)
		[ ! -e "$ROOT/etc/init.d/$service" ] || "$ROOT/etc/init.d/$service" stop
		rm -f "$ROOT/etc/init.d/$service" /run/$service.pid
		update-rc.d $service remove
		;;
	inittab)
		! grep -q "respawn:/bin/sh $agent" "$ROOT/etc/inittab" || { without_line | put /etc/inittab 644 && reread; }
		;;
	esac
	stop
}

agent=${2-} tty=${3-}
run=$agent${tty:+ $tty}
case ${1-} in
kind) kind ;;
start | stop | install | remove)
	case $agent in /*[!A-Za-z0-9_./-]* | [!/]* | '') die "not a plain path: $agent" ;; esac
	case $tty in *[!A-Za-z0-9_./-]*) die "not a plain path: $tty" ;; esac
	"$1"
	;;
*) die 'usage: attach.sh kind | start AGENT [TTY] | stop AGENT | install AGENT [TTY] | remove AGENT' ;;
esac
