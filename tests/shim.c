/* shim.c - a library that comes before the C library, by LD_PRELOAD, so that a test sees or changes what the program asks of it
 *
 * `shim NAME` in tests/lib.sh builds it for one purpose; the file $SHIM is what it shares with the test, and begins with:
 *   COUNT        the number of calls that allocate
 *   CLOCK        the seconds that the time of day is off, as text
 *   FAST         how many times as fast time goes on, from when it says so
 *   TURNS        the longest processor time between two polls, in microseconds
 *   NO_SEGMENTS  the number of messages refused: here the way out takes one datagram a message
 * or is not used:
 *   NO_IPV6      a host without it
 *   NO_RANDOM    a system without getrandom()
 *   BREAK_IN     whoever asks for the time starts another program
 *   SYSLOG       what goes to /dev/log goes to the socket SHIM.log */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifndef NAME
#define NAME ""
#endif
#define IS(name) (strcmp(NAME, #name) == 0)
#pragma GCC diagnostic ignored "-Wpedantic"     /* glibc declares sendto() with a union of all kinds of addresses */

/* the function of that name that comes after this library */
#define REAL(f) static __typeof__(f) *real; if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #f)

/* what the file begins with, in memory; a word of our own without a file */
static int64_t none, *shared = &none;
__attribute__((constructor)) static void share(void) {
	const char *name = getenv("SHIM");
	int fd = name != NULL ? open(name, O_RDWR) : -1;
	void *p = fd >= 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0) close(fd);
	if (p != MAP_FAILED) shared = p;
}

int socket(int domain, int type, int protocol) {
	REAL(socket);
	if (!IS(NO_IPV6) || domain != AF_INET6) return real(domain, type, protocol);
	errno = EAFNOSUPPORT;
	return -1;
}

int getentropy(void *p, size_t n) {
	REAL(getentropy);
	return IS(NO_RANDOM) ? -1 : real(p, n);
}

int sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags) {
	unsigned ones = 0;
	REAL(sendmmsg);
	while (ones < n && (!IS(NO_SEGMENTS) || v[ones].msg_hdr.msg_iovlen == 1)) ones++;
	if (ones > 0) return real(fd, v, ones, flags);
	++*shared;
	errno = EIO;
	return -1;
}

ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	REAL(sendto);
	if (!IS(SYSLOG) || to == NULL || to->sa_family != AF_UNIX || strcmp(((const struct sockaddr_un *)to)->sun_path, "/dev/log") != 0)
		return real(fd, p, n, flags, to, len);
	snprintf(a.sun_path, sizeof a.sun_path, "%s.log", getenv("SHIM"));
	return real(fd, p, n, flags, (const struct sockaddr *)&a, sizeof a);
}

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { *shared += IS(COUNT); return __libc_malloc(n); }
void *calloc(size_t n, size_t s) { *shared += IS(COUNT); return __libc_calloc(n, s); }
void *realloc(void *p, size_t n) { *shared += IS(COUNT); return __libc_realloc(p, n); }

int clock_gettime(clockid_t id, struct timespec *t) {
	static int64_t from, us;
	REAL(clock_gettime);
	if (real(id, t) != 0) return -1;
	if (IS(CLOCK) && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += atol((const char *)shared);
	us = (int64_t)t->tv_sec * 1000000 + t->tv_nsec / 1000;
	if (!IS(FAST) || id != CLOCK_BOOTTIME || *shared == 0) return 0;
	if (from == 0) from = us;
	us = from + (us - from) * *shared;
	*t = (struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = us % 1000000 * 1000 };
	return 0;
}
time_t time(time_t *to) {
	struct timespec t;
	if (IS(BREAK_IN)) execl("/bin/true", "true", (char *)NULL);
	clock_gettime(CLOCK_REALTIME, &t);
	if (to != NULL) *to = t.tv_sec;
	return t.tv_sec;
}

int poll(struct pollfd *fds, nfds_t n, int timeout) {
	static clock_t last;
	clock_t turn = IS(TURNS) && last != 0 ? clock() - last : 0;
	int r;
	REAL(poll);

	if (turn > *shared) *shared = turn;
	r = real(fds, n, IS(FAST) && timeout > 0 && *shared > 0 ? (int)(timeout / *shared + 1) : timeout);
	if (IS(TURNS)) last = clock();
	return r;
}
