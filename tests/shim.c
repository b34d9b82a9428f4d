/* shim.c - libraries that come before the C library, by LD_PRELOAD, so that a test sees or changes what the program asks of it.
 * `shim NAME` in tests/lib.sh builds one with -DNAME; the file $SHIM is what it shares with the test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* the function of that name that comes after this library */
#define REAL(f) static __typeof__(f) *real; if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #f)

/* the shared file in memory, or `none` without one */
__attribute__((unused)) static void *shared(void *none) {
	const char *name = getenv("SHIM");
	int fd = name != NULL ? open(name, O_RDWR) : -1;
	void *p = fd >= 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0) close(fd);
	return p == MAP_FAILED ? none : p;
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
	static uint64_t *refused, none;
	unsigned ones = 0;
	REAL(sendmmsg);
	if (refused == NULL) refused = shared(&none);
	while (ones < n && v[ones].msg_hdr.msg_iovlen == 1) ones++;
	if (ones > 0) return real(fd, v, ones, flags);
	++*refused;
	errno = EIO;
	return -1;
}
#endif

#ifdef COUNT			/* the file begins with the number of calls that allocate */
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static void count(void) {
	static uint64_t *calls, none;
	if (calls == NULL) calls = shared(&none);
	++*calls;
}
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t s) { count(); return __libc_calloc(n, s); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
#endif

#ifdef CLOCK			/* the file begins with the seconds that the time of day is off; `peer clock` writes them */
int clock_gettime(clockid_t id, struct timespec *t) {
	static int64_t *offset, none;
	int r;
	REAL(clock_gettime);
	if (offset == NULL) offset = shared(&none);
	r = real(id, t);
	if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += (time_t)*offset;
	return r;
}
time_t time(time_t *to) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (to != NULL) *to = t.tv_sec;
	return t.tv_sec;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
	(void)zone;
	to->tv_sec = time(NULL);
	to->tv_usec = 0;
	return 0;
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

#ifdef TURNS			/* the file begins with the longest processor time between two polls, in microseconds */
int poll(struct pollfd *fds, nfds_t n, int timeout) {
	static uint64_t *longest, none, last;
	struct timespec t;
	int r;
	REAL(poll);

	if (longest == NULL) longest = shared(&none);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	if (last != 0 && (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000 - last > *longest)
		*longest = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000 - last;
	r = real(fds, n, timeout);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	last = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	return r;
}
#endif
