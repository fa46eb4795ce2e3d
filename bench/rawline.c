/* The raw line: the least a program in the guest can do on a virtio-serial port. See bench/README.md.
 *
 *   rawline echo PORT            send back what comes
 *   rawline bulk PORT FILE       serve requests of 17 bytes: a letter and 16 hex digits, a size
 *       P   read that many bytes into FILE, made anew; answer with one byte
 *       S   read that many bytes and drop them; answer with one byte
 *       G   write the first `size` bytes of FILE, 64 KiB at a time
 *   rawline spawn COUNT PROGRAM  vfork and exec it so often, one after the other; print the nanoseconds each took
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static void fill(int port, char *at, size_t size)
{
	while (size) {
		ssize_t got = read(port, at, size);
		if (got <= 0) { /* no host: the port reads as ended until one connects */
			usleep(20000);
			continue;
		}
		at += got;
		size -= got;
	}
}

static void spill(int fd, const char *at, size_t size)
{
	while (size) {
		ssize_t put = write(fd, at, size);
		if (put < 0)
			_exit(1);
		at += put;
		size -= put;
	}
}

static void echo(int port)
{
	for (;;) {
		ssize_t got = read(port, buffer, sizeof buffer);
		if (got > 0)
			spill(port, buffer, got);
		else
			usleep(20000);
	}
}

static void take(int port, int file, unsigned long size)
{
	while (size) {
		size_t want = size < sizeof buffer ? size : sizeof buffer;
		ssize_t got = read(port, buffer, want); /* one 4 KiB unit of the driver at most */
		if (got <= 0)
			_exit(2);
		if (file >= 0)
			spill(file, buffer, got);
		size -= got;
	}
	spill(port, "K", 1);
}

static void give(int port, int file, unsigned long size)
{
	while (size) {
		ssize_t got = read(file, buffer, size < sizeof buffer ? size : sizeof buffer);
		if (got <= 0)
			_exit(3);
		spill(port, buffer, got);
		size -= got;
	}
}

static void bulk(int port, const char *path)
{
	char request[18] = {0};
	for (;;) {
		fill(port, request, 17);
		unsigned long size = strtoul(request + 1, 0, 16);
		int file = -1;
		if (request[0] == 'P')
			file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (request[0] == 'G')
			file = open(path, O_RDONLY);
		if (file < 0 && request[0] != 'S')
			_exit(4);
		if (request[0] == 'G')
			give(port, file, size);
		else
			take(port, file, size);
		close(file);
	}
}

static void run(char **program)
{
	pid_t child = vfork();
	if (!child) {
		execv(*program, program);
		_exit(127);
	}
	waitpid(child, 0, 0);
}

static void spawn(long count, char **program)
{
	struct timespec begin, end;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long done = 0; done < count; done++)
		run(program);
	clock_gettime(CLOCK_MONOTONIC, &end);
	long long took = (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec;
	printf("%lld\n", took / count);
}

int main(int count, char **word)
{
	if (count > 3 && !strcmp(word[1], "spawn")) {
		spawn(atol(word[2]), word + 3);
		return 0;
	}
	int port = count > 2 ? open(word[2], O_RDWR) : -1;
	if (port < 0)
		return 5;
	if (!strcmp(word[1], "echo"))
		echo(port);
	if (!strcmp(word[1], "bulk") && count > 3)
		bulk(port, word[3]);
	return 6;
}
