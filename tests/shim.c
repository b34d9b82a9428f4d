/* shim.c - libraries that come before the C library, by LD_PRELOAD, so that a test sees or changes what the program asks of it.
 * `shim NAME` in tests/lib.sh builds one with -DNAME; the file $SHIM is what it shares with the test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* the function of that name that comes after this library */
#define REAL(f) static __typeof__(f) *real; if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, #f)

/* the shared file in memory, or `none` without one */
__attribute__((unused)) static void *shared(void *none)
{
	const char *name = getenv("SHIM");
	int fd = name != NULL ? open(name, O_RDWR) : -1;
	void *p = fd >= 0 ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? none : p;
}

#ifdef NO_IPV6			/* a host without it */
int socket(int domain, int type, int protocol)
{
	REAL(socket);
	if (domain != AF_INET6)
		return real(domain, type, protocol);
	errno = EAFNOSUPPORT;
	return -1;
}
#endif

#ifdef COUNT			/* the file begins with the number of calls that allocate */
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static void count(void)
{
	static uint64_t *calls, none;

	if (calls == NULL)
		calls = shared(&none);
	++*calls;
}
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t s) { count(); return __libc_calloc(n, s); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
#endif

#ifdef CLOCK			/* the file begins with the seconds that the time of day is off; `peer clock` writes them */
int clock_gettime(clockid_t id, struct timespec *t)
{
	static int64_t *offset, none;
	int r;
	REAL(clock_gettime);

	if (offset == NULL)
		offset = shared(&none);
	r = real(id, t);
	if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += (time_t)*offset;
	return r;
}
time_t time(time_t *to)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (to != NULL)
		*to = t.tv_sec;
	return t.tv_sec;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone)
{
	(void)zone;
	to->tv_sec = time(NULL);
	to->tv_usec = 0;
	return 0;
}
#endif

#ifdef BREAK_IN			/* whoever asks for the time starts another program */
time_t time(time_t *to)
{
	(void)to;
	execl("/bin/true", "true", (char *)NULL);
	return 0;
}
#endif

#ifdef SYSLOG			/* the file gets what goes to syslog, each line with its severity */
static void out(int priority, const char *format, va_list args)
{
	static FILE *f;

	if (f == NULL) {
		f = fopen(getenv("SHIM"), "a");
		setvbuf(f, NULL, _IOLBF, 0);
	}
	fprintf(f, "<%d> ", priority & 7);
	vfprintf(f, format, args);
	fputc('\n', f);
}
#define OUT(format) va_list args; va_start(args, format); out(priority, format, args); va_end(args)
void openlog(const char *name, int options, int facility) { (void)name, (void)options, (void)facility; }
void vsyslog(int priority, const char *format, va_list args) { out(priority, format, args); }
void __vsyslog_chk(int priority, int flag, const char *format, va_list args) { (void)flag, out(priority, format, args); }
void syslog(int priority, const char *format, ...) { OUT(format); }
void __syslog_chk(int priority, int flag, const char *format, ...) { (void)flag; OUT(format); }
#endif
