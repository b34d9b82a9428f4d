/* fakes.h - a small kernel for sequence.c: descriptors, time and randomness that only the target moves, and TLS without
 * cryptography. Included before the program (by lab.h, with LAB_FAKES); the target says what the other ends do. */
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
#pragma GCC diagnostic ignored "-Wunused-parameter"     /* a fake takes what the call takes */

/* A descriptor of the program: to the program a socket, to the target two queues. */
enum { FIRST_FD = 1000, FDS = 96, QUEUE = 12, QUEUED = 4096, STREAM_IN = 49152, STREAM_OUT = 70000 };
enum kind { K_FREE, K_UDP, K_TCP, K_LISTEN, K_EPOLL };
struct fake {
	enum kind kind;
	bool connecting, connected, eof, stuck;
	int err;                                /* what the next call gets */
	unsigned serial, queued;
	struct sockaddr_in peer;
	struct buf in, out;                     /* of a stream: what the program has not read, and what the target has not looked at */
	size_t seen;                            /* of out, what the target has taken note of */
	bool greeted, ended, odd;               /* TLS: the handshake is done; the target has sent its end; it has said wild things */
	bool watched;                           /* in the set of epoll, with these events */
	struct epoll_event set;
};
static struct fake fakes[FDS];
static struct datagram { struct sockaddr_in from; size_t len; uint8_t b[QUEUED]; } datagrams[FDS][QUEUE];
static bool tracing;                            /* the program's log is heard */
static int fakes_max = FDS;                     /* descriptors that may be open */
static int64_t fake_now = 1000000000;
static uint64_t fake_random = 1;
static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t n);
static struct fake *fake_accept(struct fake *listener);
static bool fake_waiting(const struct fake *listener);

#define FAKE(fd) (&fakes[(fd) - FIRST_FD])
#define FD(f) ((int)((f) - fakes) + FIRST_FD)
#define IS_FAKE(fd) ((fd) >= FIRST_FD && (fd) < FIRST_FD + FDS)

static int fails(int e) {
	errno = e;
	return -1;
}

static int fake_open(enum kind kind) {
	static unsigned serial;
	int open = 0, at = -1;

	for (int i = 0; i < FDS; i++) {
		open += fakes[i].kind != K_FREE;
		if (fakes[i].kind == K_FREE && at < 0) at = i;
	}
	if (open >= fakes_max || at < 0) return fails(EMFILE);
	fakes[at] = (struct fake){ .kind = kind, .serial = ++serial, .in = fakes[at].in, .out = fakes[at].out };
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
	FAKE(fd)->kind = K_FREE;
	return 0;
}

static int lab_connect(int fd, const struct sockaddr *to, socklen_t n) {
	struct fake *f = FAKE(fd);
	MUST(IS_FAKE(fd) && f->kind != K_FREE && n >= sizeof f->peer);
	memcpy(&f->peer, to, sizeof f->peer);
	f->connected = f->kind == K_UDP;
	f->connecting = !f->connected;
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

static int lab_accept4(int fd, struct sockaddr *from, socklen_t *n, int flags) {
	(void)flags;
	struct fake *f = fake_waiting(FAKE(fd)) ? fake_accept(FAKE(fd)) : (errno = EAGAIN, NULL);
	if (f != NULL && from != NULL) {
		memcpy(from, &f->peer, sizeof f->peer);
		*n = sizeof f->peer;
	}
	return f != NULL ? FD(f) : -1;
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
	if (f->in.n == 0) return f->eof ? 0 : fails(EAGAIN);
	if (n > f->in.n) n = f->in.n;
	memcpy(p, f->in.p, n);
	take(&f->in, n);
	return (ssize_t)n;
}

static int lab_recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *t) {
	struct fake *f = FAKE(fd);
	struct datagram *q = datagrams[fd - FIRST_FD];
	unsigned done = 0;

	if (fake_fails(f, K_UDP, n)) return -1;
	for (; done < n && done < f->queued; done++) {
		struct msghdr *h = &v[done].msg_hdr;
		size_t k = q[done].len, room = h->msg_iov[0].iov_len;
		h->msg_flags = k > room ? MSG_TRUNC : 0;
		k = k > room ? room : k;
		memcpy(h->msg_iov[0].iov_base, q[done].b, k);
		v[done].msg_len = (unsigned)k;
		if (h->msg_name != NULL) {
			memcpy(h->msg_name, &q[done].from, sizeof q->from);
			h->msg_namelen = sizeof q->from;
		}
	}
	f->queued -= done;
	memmove(q, q + done, f->queued * sizeof *q);
	return done > 0 ? (int)done : fails(EAGAIN);
}

static int lab_sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags) {
	struct fake *f = FAKE(fd);
	if (fake_fails(f, K_UDP, n)) return -1;
	for (unsigned i = 0; i < n; i++) {
		const struct msghdr *h = &v[i].msg_hdr;
		MUST((h->msg_name != NULL) == !f->connected && (h->msg_iovlen == 1 || h->msg_controllen > 0));
		for (size_t k = 0; k < h->msg_iovlen; k++)
			fake_sent(f, h->msg_name ? h->msg_name : &f->peer, h->msg_iov[k].iov_base, h->msg_iov[k].iov_len);
	}
	return (int)n;
}

static short fake_ready(const struct fake *f, short events) {
	short r = 0;

	MUST(f->kind != K_FREE);
	if (f->kind == K_EPOLL) {
		for (int i = 0; i < FDS && r == 0; i++)
			r = fakes[i].watched && fake_ready(&fakes[i], (short)fakes[i].set.events) ? POLLIN : 0;
	} else if (f->kind == K_LISTEN)
		r = fake_waiting(f) ? POLLIN : 0;
	else if (f->kind == K_UDP)
		r = (short)((f->queued > 0 ? POLLIN : 0) | (f->err ? POLLERR : 0) | POLLOUT);
	else if (!f->connecting)
		r = (short)((f->in.n > 0 || f->eof ? POLLIN : 0) | (f->err ? POLLERR | POLLHUP : 0) | (f->stuck ? 0 : POLLOUT));
	return r & (short)(events | POLLERR | POLLHUP);
}

static int lab_epoll_create1(int flags) { return fake_open(K_EPOLL); }

static int lab_epoll_ctl(int set, int what, int fd, struct epoll_event *e) {
	MUST(IS_FAKE(set) && FAKE(set)->kind == K_EPOLL && IS_FAKE(fd) && FAKE(fd)->kind != K_FREE);
	MUST(FAKE(fd)->watched == (what != EPOLL_CTL_ADD));
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
	t->tv_sec = fake_now / 1000000;
	t->tv_nsec = fake_now % 1000000 * 1000;
	return 0;
}

static int lab_getentropy(void *p, size_t n) {
	for (size_t i = 0; i < n; i++) {
		fake_random = fake_random * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)p)[i] = (uint8_t)(fake_random >> 56);
	}
	return 0;
}

/* ---- TLS: BearSSL's engine with records of TLS and no secrets. The client says hello in a handshake record, the first
 * handshake record of the server ends the handshake; alert 0 is close_notify. */

enum { R_ALERT = 21, R_HANDSHAKE = 22, R_DATA = 23, RECORD = 5, ENGINES = 200, APP_ROOM = 4096 };
struct engine {
	const br_ssl_engine_context *of;
	bool open, closing, alpn;               /* closing: closed once what is in out has gone; alpn: the server speaks h2 */
	int err;
	struct buf out;                         /* records that have not left */
	size_t in_len, app_at, app_len, put;    /* put: bytes in app that are in no record yet */
	uint8_t in[RECORD + 16384], app[APP_ROOM];
};
static struct engine *engines[ENGINES];

static struct engine *engine_of(const br_ssl_engine_context *e) {
	unsigned i = 0;
	while (i < ENGINES && engines[i] != NULL && engines[i]->of != e) i++;
	MUST(i < ENGINES);
	if (engines[i] == NULL) {
		engines[i] = calloc(1, sizeof *engines[i]);
		MUST(engines[i] != NULL);
		engines[i]->of = e;
	}
	return engines[i];
}

static void put_record(struct buf *b, unsigned type, const void *bytes, size_t n) { put_as(b, "12(@)", type, 0x303, bytes, n); }

static int lab_client_reset(br_ssl_client_context *c, const char *name, int resume) {
	struct engine *e = engine_of(&c->eng);
	struct buf out = { e->out.p, 0, e->out.room };
	memset(e, 0, offsetof(struct engine, in));
	e->of = &c->eng;
	e->out = out;
	put_record(&e->out, R_HANDSHAKE, "hello", 5);
	return 1;
}

static unsigned lab_state(const br_ssl_engine_context *of) {
	const struct engine *e = engine_of(of);
	if (e->out.n > 0) return BR_SSL_SENDREC | (e->closing ? 0u : BR_SSL_RECVREC);
	if (e->closing) return BR_SSL_CLOSED;
	return (e->app_len > 0 ? BR_SSL_RECVAPP : BR_SSL_RECVREC) | (e->open ? BR_SSL_SENDAPP : 0u);
}

static const char *lab_protocol(const br_ssl_engine_context *of) { return engine_of(of)->alpn ? "h2" : NULL; }
static int lab_last_error(const br_ssl_engine_context *of) { return engine_of(of)->err; }

/* What BearSSL gives of a buffer: NULL when there is no room in it, or nothing. */
static unsigned char *room_of(uint8_t *p, size_t room, size_t *n) { return (*n = room) > 0 ? p : NULL; }

static unsigned char *lab_sendrec_buf(const br_ssl_engine_context *of, size_t *n) { return room_of(engine_of(of)->out.p, engine_of(of)->out.n, n); }
static void lab_sendrec_ack(br_ssl_engine_context *of, size_t n) {
	MUST(n > 0 && n <= engine_of(of)->out.n);
	take(&engine_of(of)->out, n);
}

static unsigned char *lab_sendapp_buf(const br_ssl_engine_context *of, size_t *n) {
	struct engine *e = engine_of(of);
	return room_of(e->app + e->put, e->open && !e->closing && e->out.n == 0 ? APP_ROOM - e->put : 0, n);
}
static void lab_flush(br_ssl_engine_context *of, int force) {
	struct engine *e = engine_of(of);
	if (e->put > 0) put_record(&e->out, R_DATA, e->app, e->put);
	e->put = 0;
}
static void lab_sendapp_ack(br_ssl_engine_context *of, size_t n) {
	struct engine *e = engine_of(of);
	MUST(n > 0 && n <= APP_ROOM - e->put && e->out.n == 0);
	e->put += n;
	if (e->put == APP_ROOM) lab_flush(of, 0);
}

static unsigned char *lab_recvapp_buf(const br_ssl_engine_context *of, size_t *n) {
	struct engine *e = engine_of(of);
	return room_of(e->in + e->app_at, e->app_len, n);
}
static void lab_recvapp_ack(br_ssl_engine_context *of, size_t n) {
	MUST(n > 0 && n <= engine_of(of)->app_len);
	engine_of(of)->app_at += n;
	engine_of(of)->app_len -= n;
}

static size_t record_len(const struct engine *e) { return e->in_len < RECORD ? RECORD : RECORD + (size_t)(e->in[3] << 8 | e->in[4]); }
static unsigned char *lab_recvrec_buf(const br_ssl_engine_context *of, size_t *n) {
	struct engine *e = engine_of(of);
	return room_of(e->in + e->in_len, e->app_len > 0 || e->closing ? 0 : record_len(e) - e->in_len, n);
}

/* The connection ends; the server is told, if it is not told anything now. */
static void engine_end(struct engine *e, int err) {
	if (e->out.n == 0 && !e->closing) put_record(&e->out, R_ALERT, "\1\0", (size_t)2);
	e->closing = true;
	e->err = err;
}
static void lab_ssl_close(br_ssl_engine_context *of) { engine_end(engine_of(of), engine_of(of)->err); }

static void engine_record(struct engine *e, unsigned type, const uint8_t *p, size_t n) {
	if (type == R_HANDSHAKE && !e->open) {
		e->open = true;
		e->alpn = n > 0 && p[0] == 'h';
	} else if (type == R_DATA && e->open) {
		e->app_at = RECORD;
		e->app_len = n;
	} else
		engine_end(e, type != R_ALERT || n < 2 ? BR_ERR_UNEXPECTED : p[1] == 0 ? BR_ERR_OK : BR_ERR_RECV_FATAL_ALERT + p[1]);
}
static void lab_recvrec_ack(br_ssl_engine_context *of, size_t n) {
	struct engine *e = engine_of(of);
	e->in_len += n;
	MUST(n > 0 && e->in_len <= record_len(e));
	if (record_len(e) > sizeof e->in) {
		e->closing = true;
		e->err = BR_ERR_TOO_LARGE;
	} else if (e->in_len == record_len(e)) {
		n = e->in_len - RECORD;
		e->in_len = 0;
		engine_record(e, e->in[0], e->in + RECORD, n);
	}
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
#define recvmmsg lab_recvmmsg
#define sendmmsg lab_sendmmsg
#define poll lab_poll
#define epoll_create1 lab_epoll_create1
#define epoll_ctl lab_epoll_ctl
#define epoll_wait lab_epoll_wait
#define clock_gettime lab_clock_gettime
#define getentropy lab_getentropy
#define br_ssl_client_reset lab_client_reset
#define br_ssl_engine_current_state lab_state
#define br_ssl_engine_last_error lab_last_error
#define br_ssl_engine_get_selected_protocol lab_protocol
#define br_ssl_engine_sendrec_buf lab_sendrec_buf
#define br_ssl_engine_sendrec_ack lab_sendrec_ack
#define br_ssl_engine_sendapp_buf lab_sendapp_buf
#define br_ssl_engine_sendapp_ack lab_sendapp_ack
#define br_ssl_engine_recvapp_buf lab_recvapp_buf
#define br_ssl_engine_recvapp_ack lab_recvapp_ack
#define br_ssl_engine_recvrec_buf lab_recvrec_buf
#define br_ssl_engine_recvrec_ack lab_recvrec_ack
#define br_ssl_engine_flush lab_flush
#define br_ssl_engine_close lab_ssl_close
