/* fakes.h - a small kernel for the unit tests and the fuzz targets: descriptors, time and randomness that only these move, and
 * TLS without cryptography. Included before the program; sequence.h says what the other ends do. */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <bearssl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "bytes.h"
#define PLAIN_POSIX 1                           /* one call a datagram, */
#define HAVE_EPOLL 1                            /* but these */
#define HAVE_TCP 1
#pragma GCC diagnostic ignored "-Wunused-parameter"     /* a fake takes what the call takes */

/* A descriptor of the program: to the program a socket, to the target two queues. A datagram that comes in stands behind its
 * sender and its length. */
enum { FIRST_FD = 1000, FDS = 96, QUEUED = 4096, STREAM_IN = 49152, STREAM_OUT = 70000 };
enum kind { K_FREE, K_UDP, K_TCP, K_LISTEN, K_EPOLL };
struct fake {
	enum kind kind;
	bool connecting, connected, eof, stuck;
	int err;                                /* what the next call gets */
	unsigned due;                           /* of a listener: connections that wait to be accepted */
	const struct fake *of;                  /* of a connection that was accepted: its listener */
	struct sockaddr_in peer;
	struct buf in, out;                     /* what the program has not read; what the target has not looked at */
	size_t held;                            /* of "in", at its end: what has not come yet */
	size_t seen;                            /* frames or datagrams that the target has taken note of */
	bool greeted, ended;                    /* TLS: the handshake is done; the target has sent its end */
	bool odd;                               /* the target has said wild things */
	size_t was, unread;                     /* of "in" a turn ago; turns in which nothing of it was read */
	bool watched;                           /* in the set of epoll, with these events */
	struct epoll_event set;
};
static struct fake fakes[FDS];
static bool tracing;                            /* the program's log is heard */
static int fakes_max = FDS;                     /* descriptors that may be open */
static int fake_wall;                           /* what datagrams to upstreams fail with, and what is new, or 0 */
static int64_t fake_now = 1000000000;
static int64_t sleep_takes;                     /* microseconds, whatever is asked for */
static unsigned slept;                          /* times */
static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t n);
static void fake_closed(struct fake *f);

#define FAKE(fd) (&fakes[(fd) - FIRST_FD])
#define FD(f) ((int)((f) - fakes) + FIRST_FD)
#define IS_FAKE(fd) ((fd) >= FIRST_FD && (fd) < FIRST_FD + FDS)

#define fails(e) (errno = (e), -1)

static int fakes_open(void) {
	int open = 0;
	for (int i = 0; i < FDS; i++) open += fakes[i].kind != K_FREE;
	return open;
}

static int fake_open(enum kind kind) {
	int at = 0;
	if (fakes_open() >= fakes_max) return fails(EMFILE);
	while (fakes[at].kind != K_FREE) at++;
	fakes[at] = (struct fake){ .kind = kind, .in = fakes[at].in, .out = fakes[at].out };
	fakes[at].in.n = fakes[at].out.n = 0;
	return at + FIRST_FD;
}

static bool fake_takes(const struct fake *f, size_t n) { return !f->eof && f->in.n + n < STREAM_IN; }

static int lab_socket(int family, int type, int proto) { return fake_open((type & 15) == SOCK_STREAM ? K_TCP : K_UDP); }
static int lab_bind(int fd, const struct sockaddr *to, socklen_t n) { return 0; }
static int lab_setsockopt(int fd, int level, int what, const void *v, socklen_t n) { return 0; }
static int lab_listen(int fd, int n) { FAKE(fd)->kind = K_LISTEN; return 0; }

static int lab_close(int fd) {
	if (!IS_FAKE(fd)) return close(fd);
	MUST(FAKE(fd)->kind != K_FREE && !FAKE(fd)->watched);
	fake_closed(FAKE(fd));
	FAKE(fd)->kind = K_FREE;
	return 0;
}

static int lab_connect(int fd, const struct sockaddr *to, socklen_t n) {
	struct fake *f = FAKE(fd);
	MUST(IS_FAKE(fd) && f->kind != K_FREE && n >= sizeof f->peer);
	memcpy(&f->peer, to, sizeof f->peer);
	if (fake_wall == ENETUNREACH) return fails(fake_wall);
	f->connected = f->kind == K_UDP;
	f->connecting = !f->connected && fake_wall != ECONNREFUSED;
	f->err = !f->connected && fake_wall == ECONNREFUSED ? fake_wall : 0;
	return f->connected ? 0 : fails(EINPROGRESS);
}

static int lab_getsockopt(int fd, int level, int what, void *v, socklen_t *n) {
	if (*n > sizeof(int)) {                 /* TCP_INFO */
		memset(v, FAKE(fd)->stuck, *n);
		return 0;
	}
	MUST(IS_FAKE(fd) && *n == sizeof(int));
	memcpy(v, &FAKE(fd)->err, sizeof(int));
	FAKE(fd)->err = 0;
	return 0;
}

static struct sockaddr_in client_at(unsigned who, unsigned port) {
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000000 + who), .sin_port = htons((uint16_t)port) };
}

static int lab_accept4(int fd, struct sockaddr *from, socklen_t *n, int flags) {
	struct fake *l = FAKE(fd), *f;
	int k = l->due == 0 ? fails(EAGAIN) : fake_wall == ENOMEM ? fails(fake_wall) : fake_open(K_TCP);

	if (k < 0) return -1;
	l->due--;
	f = FAKE(k);
	f->of = l;
	f->peer = client_at((unsigned)k % 6, 5000);
	if (from != NULL) {
		memcpy(from, &f->peer, sizeof f->peer);
		*n = sizeof f->peer;
	}
	return k;
}

/* Every call on a socket: it must be of this kind; a failure that waits is what the call gets. */
static bool fake_fails(struct fake *f, enum kind kind, size_t n) {
	int e = f->err;
	MUST(f >= fakes && f < fakes + FDS && f->kind == kind && !f->connecting && n > 0);
	f->err = 0;
	if (e != 0) errno = e;
	return e != 0;
}

static ssize_t lab_send(int fd, const void *p, size_t n, int flags) {
	struct fake *f = FAKE(fd);
	if (fake_fails(f, K_TCP, n)) return -1;
	if (f->stuck || f->out.n == STREAM_OUT) return fails(EAGAIN);
	if (n > STREAM_OUT - f->out.n) n = STREAM_OUT - f->out.n;
	put(&f->out, p, n);
	return (ssize_t)n;
}

static ssize_t lab_recv(int fd, void *p, size_t n, int flags) {
	struct fake *f = FAKE(fd);
	if (fake_fails(f, K_TCP, n)) return -1;
	if (f->in.n == f->held) return f->eof ? 0 : fails(EAGAIN);
	if (n > f->in.n - f->held) n = f->in.n - f->held;
	memcpy(p, f->in.p, n);
	take(&f->in, n);
	return (ssize_t)n;
}

static ssize_t lab_recvmsg(int fd, struct msghdr *h, int flags) {
	struct fake *f = FAKE(fd);
	size_t len;

	if (fake_fails(f, K_UDP, 1)) return -1;
	if (f->in.n == 0) return fails(EAGAIN);
	len = (size_t)(f->in.p[sizeof f->peer] << 8 | f->in.p[sizeof f->peer + 1]);
	if (h->msg_name != NULL) memcpy(h->msg_name, f->in.p, h->msg_namelen = sizeof f->peer);
	take(&f->in, sizeof f->peer + 2);
	h->msg_flags = len > h->msg_iov[0].iov_len ? MSG_TRUNC : 0;
	memcpy(h->msg_iov[0].iov_base, f->in.p, len > h->msg_iov[0].iov_len ? h->msg_iov[0].iov_len : len);
	take(&f->in, len);
	return (ssize_t)len;
}

static ssize_t lab_sendmsg(int fd, const struct msghdr *h, int flags) {
	struct fake *f = FAKE(fd);
	if (fake_fails(f, K_UDP, 1)) return -1;
	if (fake_wall != 0 && f->connected) return fails(fake_wall);
	MUST((h->msg_name != NULL) == !f->connected && (h->msg_iovlen == 1 || h->msg_controllen > 0));
	for (size_t k = 0; k < h->msg_iovlen; k++)
		fake_sent(f, h->msg_name ? h->msg_name : &f->peer, h->msg_iov[k].iov_base, h->msg_iov[k].iov_len);
	return 0;
}

static short fake_ready(const struct fake *f, short events) {
	short r = 0;

	MUST(f->kind != K_FREE);
	if (f->kind == K_EPOLL) {
		for (int i = 0; i < FDS && r == 0; i++)
			r = fakes[i].watched && fake_ready(&fakes[i], (short)fakes[i].set.events) ? POLLIN : 0;
	} else if (f->kind == K_LISTEN)
		r = f->due > 0 ? POLLIN : 0;
	else if (!f->connecting)
		r = (short)((f->in.n > f->held || f->eof ? POLLIN : 0) | (f->err ? POLLERR : 0) | (f->err && f->kind == K_TCP ? POLLHUP : 0) |
		    (f->stuck ? 0 : POLLOUT));
	return r & (short)(events | POLLERR | POLLHUP);
}

static int lab_epoll_create1(int flags) { return fake_open(K_EPOLL); }

static int lab_epoll_ctl(int set, int what, int fd, struct epoll_event *e) {
	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && IS_FAKE(fd) && FAKE(fd)->kind != K_FREE);
	MUST(FAKE(fd)->watched == (what != EPOLL_CTL_ADD));
	if (fake_wall == ENOBUFS && what == EPOLL_CTL_ADD) return fails(ENOSPC);
	FAKE(fd)->watched = what != EPOLL_CTL_DEL;
	FAKE(fd)->set = *e;
	return 0;
}

static int lab_epoll_wait(int set, struct epoll_event *e, int n, int timeout) {
	int k = 0;
	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && timeout == 0);
	for (int i = 0; i < FDS && k < n; i++) {
		short r = fakes[i].watched ? fake_ready(&fakes[i], (short)fakes[i].set.events) : 0;
		if (r == 0) continue;
		e[k] = fakes[i].set;
		e[k++].events = (uint32_t)r;
	}
	return k;
}

static int lab_poll(struct pollfd *p, nfds_t n, int timeout) {
	int ready = 0;
	for (nfds_t i = 0; i < n; i++) {
		p[i].revents = IS_FAKE(p[i].fd) ? fake_ready(FAKE(p[i].fd), p[i].events) : tracing ? POLLOUT : 0;
		ready += p[i].revents != 0;
	}
	return ready;
}

static int lab_clock_gettime(clockid_t c, struct timespec *t) {
	fake_now++;                             /* it never stands still */
	*t = (struct timespec){ .tv_sec = fake_now / 1000000, .tv_nsec = fake_now % 1000000 * 1000 };
	return 0;
}

static int lab_nanosleep(const struct timespec *want, struct timespec *left) {
	MUST(want->tv_sec == 0 && want->tv_nsec <= 100000);
	slept++;
	fake_now += sleep_takes;
	return 0;
}

static int lab_getentropy(void *p, size_t n) {
	for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = (uint8_t)chance_next();
	return 0;
}

/* ---- TLS: BearSSL's engine with its buffers and records, but no secrets and a handshake of our own: the client says hello, and
 * the first handshake record of the server ends it, with HTTP/2 if that begins with 'h'. Alert 0 is close_notify. */

enum { R_ALERT = 21, R_HANDSHAKE = 22, R_DATA = 23, RECORD = 5, TLS_OPEN = 1, TLS_ENDING };
void br_ssl_engine_hs_reset(br_ssl_engine_context *e, void (*init)(void *), void (*run)(void *));
void br_ssl_engine_flush_record(br_ssl_engine_context *e);
void br_ssl_engine_fail(br_ssl_engine_context *e, int err);

static void put_record(struct buf *b, unsigned type, const void *bytes, size_t n) { put_as(b, "12(@)", type, 0x303, bytes, n); }

static void tls_says(br_ssl_engine_context *e, unsigned char type, const void *bytes, size_t n) {
	if (e->hbuf_out == NULL) return;        /* something else is on its way */
	e->record_type_out = type;
	e->version_out = 0x303;
	memcpy(e->hbuf_out, bytes, n);
	e->hbuf_out += n;
	br_ssl_engine_flush_record(e);
}

/* The connection ends once this has left. */
static void tls_ends(br_ssl_engine_context *e, int err) {
	tls_says(e, R_ALERT, "\1\0", 2);
	e->application_data = TLS_ENDING;
	e->dp_stack[0] = (uint32_t)err;
}

static void tls_begin(void *cpu) { }

/* What the engine runs at the start, when a record that is no data has come, when all has left, and for br_ssl_engine_close() */
static void tls_run(void *cpu) {
	br_ssl_engine_context *e = (void *)((char *)cpu - offsetof(br_ssl_engine_context, cpu));
	const uint8_t *p = e->hbuf_in;
	size_t n = e->hlen_in;

	e->hlen_in = 0;
	if (e->version_out == 0)
		tls_says(e, R_HANDSHAKE, "hello", 5);
	else if (e->application_data == TLS_ENDING) {
		if (e->hbuf_out != NULL) br_ssl_engine_fail(e, (int)e->dp_stack[0]);
	} else if (e->action == 1)
		tls_ends(e, BR_ERR_OK);
	else if (n > 0 && e->record_type_in == R_HANDSHAKE && p[0] == 0)
		return;                         /* a HelloRequest */
	else if (n > 0 && e->record_type_in == R_HANDSHAKE && e->application_data != TLS_OPEN) {
		e->application_data = TLS_OPEN;
		e->record_type_out = R_DATA;
		e->selected_protocol = p[0] == 'h';
	} else if (n > 0)
		tls_ends(e, e->record_type_in != R_ALERT || n < 2 ? BR_ERR_UNEXPECTED : p[1] > 0 ? BR_ERR_RECV_FATAL_ALERT + p[1] : 0);
}

static int lab_client_reset(br_ssl_client_context *c, const char *name, int resume) {
	br_ssl_engine_hs_reset(&c->eng, tls_begin, tls_run);
	return 1;
}

#define socket lab_socket
#define close lab_close
#define connect lab_connect
#define bind lab_bind
#define listen lab_listen
#define setsockopt lab_setsockopt
#define getsockopt lab_getsockopt
#define accept4 lab_accept4
#define send lab_send
#define recv lab_recv
#define recvmsg lab_recvmsg
#define sendmsg lab_sendmsg
#define poll lab_poll
#define epoll_create1 lab_epoll_create1
#define epoll_ctl lab_epoll_ctl
#define epoll_wait lab_epoll_wait
#define clock_gettime lab_clock_gettime
#define nanosleep lab_nanosleep
#define getentropy lab_getentropy
#define br_ssl_client_reset lab_client_reset
