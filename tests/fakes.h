#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A descriptor of the program: to the program a socket, to the target two queues. */
enum { FIRST_FD = 1000, FDS = 96, QUEUE = 12, QUEUED = 4096 };
enum kind { K_FREE, K_UDP, K_TCP, K_LISTEN, K_EPOLL };
struct fake {
	enum kind kind;
	bool connecting, connected, eof, stuck, listening;
	int err;                                /* what the next call gets */
	unsigned serial;
	struct sockaddr_in peer;
	uint8_t in[QUEUE][QUEUED];              /* a stream uses the first only */
	struct sockaddr_in from[QUEUE];
	size_t in_len[QUEUE];
	unsigned queued;
	uint8_t out[70000];                    /* of streams, what was sent and not yet looked at */
	size_t out_len;
};
static struct fake fakes[FDS];
static unsigned fake_serial;
static int fakes_max = FDS;                     /* descriptors that may be open */
static int64_t fake_now = 1000000000;
static int last_timeout;
static uint64_t fake_random = 1;
static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t n);
static struct fake *fake_accept(struct fake *listener);
static bool fake_waiting(const struct fake *listener);

#define FAKE(fd) (&fakes[(fd) - FIRST_FD])
#define STREAM(f) ((uint8_t *)(f)->in)
#define IS_FAKE(fd) ((fd) >= FIRST_FD && (fd) < FIRST_FD + FDS)
#define MUST(c) do { if (!(c)) { fprintf(stderr, "broken: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)

static int fake_open(enum kind kind)
{
	int open = 0, at = -1;

	for (int i = 0; i < FDS; i++) {
		open += fakes[i].kind != K_FREE;
		if (fakes[i].kind == K_FREE && at < 0)
			at = i;
	}
	if (open >= fakes_max || at < 0) {
		errno = EMFILE;
		return -1;
	}
	fakes[at].kind = kind;
	fakes[at].connecting = fakes[at].connected = fakes[at].eof = fakes[at].stuck = fakes[at].listening = false;
	fakes[at].err = 0;
	fakes[at].queued = 0;
	fakes[at].in_len[0] = fakes[at].out_len = 0;
	fakes[at].serial = ++fake_serial;
	return at + FIRST_FD;
}

static int lab_socket(int family, int type, int proto)
{
	(void)family;
	(void)proto;
	return fake_open((type & 15) == SOCK_STREAM ? K_TCP : K_UDP);
}

static bool epoll_has[FDS];
static int lab_close(int fd)
{
	if (!IS_FAKE(fd))
		return close(fd);
	MUST(FAKE(fd)->kind != K_FREE && !epoll_has[fd - FIRST_FD]);
	FAKE(fd)->kind = K_FREE;
	return 0;
}

static int lab_connect(int fd, const struct sockaddr *to, socklen_t n)
{
	struct fake *f = FAKE(fd);

	MUST(IS_FAKE(fd) && f->kind != K_FREE && n >= sizeof f->peer);
	memcpy(&f->peer, to, sizeof f->peer);
	if (f->kind == K_UDP) {
		f->connected = true;
		return 0;
	}
	f->connecting = true;
	errno = EINPROGRESS;
	return -1;
}

static int lab_bind(int fd, const struct sockaddr *to, socklen_t n) { (void)fd; (void)to; (void)n; return 0; }
static int lab_listen(int fd, int n) { (void)n; FAKE(fd)->kind = K_LISTEN; FAKE(fd)->listening = true; return 0; }
static int lab_setsockopt(int fd, int level, int what, const void *v, socklen_t n)
{
	(void)fd; (void)level; (void)what; (void)v; (void)n;
	return 0;
}

static int lab_getsockopt(int fd, int level, int what, void *v, socklen_t *n)
{
	struct fake *f = FAKE(fd);

	(void)level; (void)what;
	MUST(IS_FAKE(fd) && *n == sizeof(int));
	memcpy(v, &f->err, sizeof(int));
	f->err = 0;
	return 0;
}

static int lab_accept(int fd, struct sockaddr *from, socklen_t *n)
{
	struct fake *f = fake_waiting(FAKE(fd)) ? fake_accept(FAKE(fd)) : (errno = EAGAIN, NULL);

	if (f == NULL)
		return -1;
	if (from != NULL) {
		memcpy(from, &f->peer, sizeof f->peer);
		*n = sizeof f->peer;
	}
	return (int)(f - fakes) + FIRST_FD;
}

static int lab_fcntl(int fd, int what, ...) { (void)fd; (void)what; return 0; }

static bool fake_fails(struct fake *f)
{
	if (f->err == 0)
		return false;
	errno = f->err;
	f->err = 0;
	return true;
}

static ssize_t lab_send(int fd, const void *p, size_t n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_TCP && n > 0);
	if (fake_fails(f))
		return -1;
	if (f->stuck || f->out_len == sizeof f->out) {
		errno = EAGAIN;
		return -1;
	}
	if (n > sizeof f->out - f->out_len)
		n = sizeof f->out - f->out_len;
	memcpy(f->out + f->out_len, p, n);
	f->out_len += n;
	return (ssize_t)n;
}

static ssize_t lab_recv(int fd, void *p, size_t n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_TCP && !f->connecting);
	MUST(n > 0);
	if (fake_fails(f))
		return -1;
	if (f->in_len[0] == 0) {
		errno = EAGAIN;
		return f->eof ? 0 : -1;
	}
	if (n > f->in_len[0])
		n = f->in_len[0];
	memcpy(p, STREAM(f), n);
	memmove(STREAM(f), STREAM(f) + n, f->in_len[0] - n);
	f->in_len[0] -= n;
	return (ssize_t)n;
}

static int lab_recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *t)
{
	struct fake *f = FAKE(fd);
	unsigned done = 0;

	(void)flags; (void)t;
	MUST(IS_FAKE(fd) && f->kind == K_UDP && n > 0);
	if (fake_fails(f))
		return -1;
	for (; done < n && done < f->queued; done++) {
		struct msghdr *h = &v[done].msg_hdr;
		size_t k = f->in_len[done], room = h->msg_iov[0].iov_len;
		h->msg_flags = k > room ? MSG_TRUNC : 0;
		if (k > room)
			k = room;
		memcpy(h->msg_iov[0].iov_base, f->in[done], k);
		v[done].msg_len = (unsigned)k;
		if (h->msg_name != NULL) {
			memcpy(h->msg_name, &f->from[done], sizeof f->from[0]);
			h->msg_namelen = sizeof f->from[0];
		}
	}
	for (unsigned i = done; i < f->queued; i++) {
		memcpy(f->in[i - done], f->in[i], f->in_len[i]);
		f->in_len[i - done] = f->in_len[i];
		f->from[i - done] = f->from[i];
	}
	f->queued -= done;
	if (done == 0)
		errno = EAGAIN;
	return done > 0 ? (int)done : -1;
}

static int lab_sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	struct fake *f = FAKE(fd);

	(void)flags;
	MUST(IS_FAKE(fd) && f->kind == K_UDP && n > 0);
	if (fake_fails(f))
		return -1;
	for (unsigned i = 0; i < n; i++) {
		const struct msghdr *h = &v[i].msg_hdr;
		struct sockaddr_in to = f->peer;
		MUST((h->msg_name != NULL) == !f->connected && h->msg_iovlen == 1);
		if (h->msg_name != NULL)
			memcpy(&to, h->msg_name, sizeof to);
		fake_sent(f, &to, h->msg_iov[0].iov_base, h->msg_iov[0].iov_len);
	}
	return (int)n;
}

static struct epoll_event epoll_set[FDS];       /* by descriptor; epoll_has says which are in the set */

static short fake_ready(const struct fake *f, short events)
{
	short r = 0;

	MUST(f->kind != K_FREE);
	if (f->kind == K_EPOLL) {
		for (int i = 0; i < FDS && r == 0; i++)
			r = epoll_has[i] && fake_ready(&fakes[i], (short)epoll_set[i].events) ? POLLIN : 0;
	} else if (f->kind == K_LISTEN)
		r = fake_waiting(f) ? POLLIN : 0;
	else if (f->kind == K_UDP)
		r = (short)((f->queued > 0 ? POLLIN : 0) | (f->err ? POLLERR : 0) | POLLOUT);
	else if (!f->connecting)
		r = (short)((f->in_len[0] > 0 || f->eof ? POLLIN : 0) | (f->err ? POLLERR | POLLHUP : 0) | (f->stuck ? 0 : POLLOUT));
	return r & (short)(events | POLLERR | POLLHUP);
}

static int lab_epoll_create1(int flags) { (void)flags; return fake_open(K_EPOLL); }

static int lab_epoll_ctl(int set, int what, int fd, struct epoll_event *e)
{
	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && IS_FAKE(fd) && FAKE(fd)->kind != K_FREE);
	MUST(epoll_has[fd - FIRST_FD] == (what != EPOLL_CTL_ADD));
	epoll_has[fd - FIRST_FD] = what != EPOLL_CTL_DEL;
	epoll_set[fd - FIRST_FD] = *e;
	return 0;
}

static int lab_epoll_wait(int set, struct epoll_event *e, int n, int timeout)
{
	int k = 0;

	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && timeout == 0);
	for (int i = 0; i < FDS && k < n; i++) {
		short r = epoll_has[i] ? fake_ready(&fakes[i], (short)epoll_set[i].events) : 0;
		if (r == 0)
			continue;
		e[k] = epoll_set[i];
		e[k++].events = (uint32_t)r;
	}
	return k;
}

static int lab_poll(struct pollfd *p, nfds_t n, int timeout)
{
	int ready = 0;

	last_timeout = timeout;
	for (nfds_t i = 0; i < n; i++) {
		p[i].revents = 0;
		if (!IS_FAKE(p[i].fd))
			continue;               /* standard error: takes nothing */
		p[i].revents = fake_ready(FAKE(p[i].fd), p[i].events);
		ready += p[i].revents != 0;
	}
	return ready;
}

static int lab_clock_gettime(clockid_t c, struct timespec *t)
{
	(void)c;
	fake_now++;                             /* it never stands still */
	t->tv_sec = fake_now / 1000000;
	t->tv_nsec = fake_now % 1000000 * 1000;
	return 0;
}

static int lab_getentropy(void *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		fake_random = fake_random * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)p)[i] = (uint8_t)(fake_random >> 56);
	}
	return 0;
}

#define socket lab_socket
#define close lab_close
#define connect lab_connect
#define bind lab_bind
#define listen lab_listen
#define setsockopt lab_setsockopt
#define getsockopt lab_getsockopt
#define accept lab_accept
#define fcntl lab_fcntl
#define send lab_send
#define recv lab_recv
#define recvmmsg lab_recvmmsg
#define sendmmsg lab_sendmmsg
#define poll lab_poll
#define epoll_create1 lab_epoll_create1
#define epoll_ctl lab_epoll_ctl
#define epoll_wait lab_epoll_wait
#define clock_gettime lab_clock_gettime
#define getentropy lab_getentropy
