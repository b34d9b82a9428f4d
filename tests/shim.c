/* shim.c - libraries that come before the C library, by LD_PRELOAD, so that a test sees or changes what the program asks of it.
 * `shim NAME` in tests/lib.sh builds one with -DNAME; the file $SHIM is what it shares with the test. */
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

#ifdef NO_IPV6			/* a host without it */
int socket(int domain, int type, int protocol) {
	REAL(socket);
	if (domain != AF_INET6) return real(domain, type, protocol);
	errno = EAFNOSUPPORT;
	return -1;
}
#endif

#ifdef NO_SEGMENTS		/* a way out that takes one datagram a message; the file begins with the number of messages refused */
int sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags) {
	unsigned ones = 0;
	REAL(sendmmsg);
	while (ones < n && v[ones].msg_hdr.msg_iovlen == 1) ones++;
	if (ones > 0) return real(fd, v, ones, flags);
	++*shared;
	errno = EIO;
	return -1;
}
#endif

#ifdef COUNT			/* the file begins with the number of calls that allocate */
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t n) { ++*shared; return __libc_malloc(n); }
void *calloc(size_t n, size_t s) { ++*shared; return __libc_calloc(n, s); }
void *realloc(void *p, size_t n) { ++*shared; return __libc_realloc(p, n); }
#endif

#ifdef CLOCK			/* the file begins with the seconds that the time of day is off, as text */
int clock_gettime(clockid_t id, struct timespec *t) {
	REAL(clock_gettime);
	if (real(id, t) != 0) return -1;
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += atol((const char *)shared);
	return 0;
}
time_t time(time_t *to) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (to != NULL) *to = t.tv_sec;
	return t.tv_sec;
}
#endif

#ifdef BREAK_IN			/* whoever asks for the time starts another program */
time_t time(time_t *to) {
	(void)to;
	execl("/bin/true", "true", (char *)NULL);
	return 0;
}
#endif

#ifdef SYSLOG			/* what goes to /dev/log goes to the socket SHIM.log */
ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len) {
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	REAL(sendto);
	if (to == NULL || to->sa_family != AF_UNIX || strcmp(((const struct sockaddr_un *)to)->sun_path, "/dev/log") != 0)
		return real(fd, p, n, flags, to, len);
	snprintf(a.sun_path, sizeof a.sun_path, "%s.log", getenv("SHIM"));
	return real(fd, p, n, flags, (const struct sockaddr *)&a, sizeof a);
}
#endif

#ifdef FAST			/* time goes on so many times as fast as the file begins with, from when it says so */
int clock_gettime(clockid_t id, struct timespec *t) {
	static int64_t from, us;
	REAL(clock_gettime);
	if (real(id, t) != 0) return -1;
	us = (int64_t)t->tv_sec * 1000000 + t->tv_nsec / 1000;
	if (id != CLOCK_BOOTTIME || *shared == 0) return 0;
	if (from == 0) from = us;
	us = from + (us - from) * *shared;
	*t = (struct timespec){ .tv_sec = (time_t)(us / 1000000), .tv_nsec = us % 1000000 * 1000 };
	return 0;
}
int poll(struct pollfd *fds, nfds_t n, int timeout) {
	REAL(poll);
	return real(fds, n, timeout > 0 && *shared > 0 ? (int)(timeout / *shared + 1) : timeout);
}
#endif

#ifdef TURNS			/* the file begins with the longest processor time between two polls, in microseconds */
int poll(struct pollfd *fds, nfds_t n, int timeout) {
	static clock_t last;
	clock_t turn = last != 0 ? clock() - last : 0;
	int r;
	REAL(poll);

	if (turn > *shared) *shared = turn;
	r = real(fds, n, timeout);
	last = clock();
	return r;
}
#endif
