/* dnsproxy - ask every upstream at once, answer with the best
 *
 * MIT License. Copyright (c) 2026 the dnsproxy authors.
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
 * documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
 * rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
 * persons to whom the Software is furnished to do so, subject to the following conditions: the above copyright notice and
 * this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
 * "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
 * MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
 * HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
 * ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 *
 * Contents
 *  1 Numbers      every limit that is not in the configuration
 *  2 Tools        time, randomness, text
 *  3 Log          one line an event, never blocking
 *  4 Addresses    of clients, upstreams and listeners
 *  5 Messages     reading and changing DNS wire format
 *  6 Config       lines into settings, and back
 *  7 Cache        a ring of whole answers behind a fixed index
 *  8 Loop         what is polled, and who is told
 *  9 Local names  of hosts and block lists, answered here
 * 10 Clients      UDP and TCP: being asked, and answering
 * 11 Queries      one question in flight, and how its answer is chosen
 * 12 Datagrams    upstreams over UDP
 * 13 Streams      upstreams over TCP and TLS
 * 14 HTTP/2       requests over a stream with TLS
 * 15 TLS          certificates, handshakes, records
 * 16 Admin        status, clear, query, metrics
 * 17 Process      signals, privileges, supervisor, main
 *
 * A query travels down the file: client_ask() asks local_answer() and the cache, else hands it to query_ask(), which asks
 * the upstreams through sections 12 to 15; every answer leads to query_choose(). One thread, one poll(), no allocation after the
 * start but for a reload and for lists that have changed. "now" is read once a turn of the loop.
 */
#define _GNU_SOURCE 1           /* recvmmsg, sendmmsg, struct in6_pktinfo */
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64           /* on 32-bit machines too: 2038 is near */
#ifndef PLAIN_POSIX             /* a build without what only Linux has */
#define HAVE_MMSG 1
#define HAVE_EPOLL 1            /* for clients that are idle */
#define HAVE_TCP 1              /* TCP_INFO, TCP_QUICKACK */
#define HAVE_PHDR 1             /* to find the pages of shared libraries */
#include <link.h>
#include <sys/epoll.h>
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include <bearssl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>

/* ---- 1 Numbers ------------------------------------------------------- */

#define VERSION "1.0"
#define MS(n) ((usec)(n) * 1000)
#define SEC(n) ((usec)(n) * 1000000)

enum {
	MAX_UPSTREAMS = 32,
	MAX_LISTEN = 16, MAX_ALLOW = 64, MAX_PINS = 4, MAX_LISTS = 8,
	MAX_ADMIN = 64,                 /* admin connections; the oldest makes room */
	NAME_MAX_WIRE = 255,            /* RFC 1035 3.1 */
	UDP_SIZE = 1232,                /* what we advertise and send at most over UDP (RFC 9715) */
	QUERY_MAX = 2046,               /* the longest query taken from a client, over TCP too */
	ANSWER_UDP_MAX = 4096,          /* the longest datagram taken from an upstream */
	MSG_MAX = 65535,
	BATCH = 64,                     /* datagrams a system call */
	SEGMENT = 103,                  /* UDP_SEGMENT of Linux 4.18, which not every C library has */
	PORT_LIFE = 32,                 /* queries that may leave from one upstream port */
	RESENDS = 6,                    /* times that a question is sent again, the last when two thirds of its life are over */
	CROWD = 16,                     /* queries in flight for which the loop waits a little, that more come in a turn */
	DOWN_AFTER = 3,                 /* queries in a row left unanswered */
	HELD_BIG = 16,                  /* answers over UDP_SIZE that may wait for a better one */
	OUT_BLOCKS = 256,               /* 16 KiB each: replies to TCP clients on their way out */
	EDE_MAX = 128,                  /* bytes of Extended DNS Error options kept with an answer */
	MARKED_TTL = 30, STALE_TTL = 30,
	RATE_SLOTS = 4096, TOP_SLOTS = 256, ORIGINS = 256,
};

/* ---- 2 Tools --------------------------------------------------------- */

typedef int64_t usec;                   /* microseconds of the clock below */

static usec now;                        /* of this turn of the loop */
static usec started;

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define COUNT(a) (sizeof(a) / sizeof(a)[0])
#define UNUSED __attribute__((unused))

static void clock_read(void) {
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);      /* goes on while the machine sleeps, as TTLs do */
	now = SEC(t.tv_sec) + t.tv_nsec / 1000;
}

/* The cache counts in ticks of 1,024 microseconds: no division of 64 bits, which small machines lack. */
#define TICKS(seconds) ((uint64_t)(seconds) * 15625 / 16)
static uint64_t ticks(void) { return (uint64_t)now >> 10; }
static uint32_t ticks_seconds(uint32_t t) { return (t + 1) / 15625 * 16 + (t + 1) % 15625 * 16 / 15625; }

/* The end of a start that lacks what the program cannot be without. */
static _Noreturn void die(const char *why) {
	fprintf(stderr, "dnsproxy: %s\n", why);
	exit(1);
}

/* The system's randomness, drawn 256 bytes at a time. There is no going on without it. */
static void random_bytes(void *to, size_t n) {
	static uint8_t pool[256];
	static size_t left;
	if (n > left) {
		if (getentropy(pool, sizeof pool) != 0) die("the system gives no randomness (getrandom(2), Linux 3.17)");
		left = sizeof pool;
	}
	left -= n;
	memcpy(to, pool + left, n);
	memset(pool + left, 0, n);
}

static uint16_t random16(void) {
	uint16_t v;
	random_bytes(&v, sizeof v);
	return v;
}

static unsigned get16at(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static uint32_t get32at(const uint8_t *p) { return (uint32_t)get16at(p) << 16 | get16at(p + 2); }
static void put16at(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static void put32at(uint8_t *p, uint32_t v) { put16at(p, v >> 16); put16at(p + 2, v & 0xffff); }

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? c | 0x20 : c; }

/* Zeroed memory straight from the system, or NULL: a page that is never needed is never provided. */
static void *table_try(size_t n, size_t size) {
	void *p = mmap(NULL, MAX(n * size, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
	return p == MAP_FAILED || (n > 0 && n * size / n != size) ? NULL : p;
}

/* The same at the start, for good. */
static void *table_new(size_t n, size_t size) {
	void *p = table_try(n, size);
	if (p == NULL) die("not enough memory for the configured tables");
	return p;
}

/* n equal pieces of memory, to be taken and given back; the first bytes of a free one lead to the next. Memory that was never
 * needed is never written, so that the system need not provide it. */
struct pool { uint8_t *base; size_t size; unsigned n, used, ever; void *free; };

static void pool_init(struct pool *p, size_t n, size_t size) {
	*p = (struct pool){ .base = table_new(n, size), .size = size, .n = (unsigned)n };
}

static bool pool_empty(const struct pool *p) { return p->used == p->n; }
static void *pool_at(const struct pool *p, size_t i) { return p->base + i * p->size; }
static unsigned pool_slot(const struct pool *p, const void *x) { return (unsigned)((size_t)((const uint8_t *)x - p->base) / p->size); }
static bool pool_has(const struct pool *p, const void *x) {
	return (const uint8_t *)x >= p->base && (const uint8_t *)x < p->base + p->n * p->size;
}

/* A piece of any content; NULL when all are taken. */
static void *pool_take(struct pool *p) {
	void *x = p->free;
	if (pool_empty(p)) return NULL;
	p->used++;
	if (x == NULL) return pool_at(p, p->ever++);
	memcpy(&p->free, x, sizeof(void *));
	return x;
}

static void pool_give(struct pool *p, void *x) {
	memcpy(x, &p->free, sizeof(void *));
	p->free = x;
	p->used--;
}

/* Is it no failure of a socket, but only not the time for it? */
static bool later(int e) { return e == EAGAIN || e == EWOULDBLOCK || e == EINTR; }

/* Text that is built up in a buffer. What does not fit is cut, unless it grows: then it moves to memory of its own, to be freed. */
struct text { char *p; size_t size, len; bool grows, own; };

static bool text_grow(struct text *t, size_t n) {
	size_t size = MAX(t->size * 2, t->len + n + 1);
	char *p = t->grows ? realloc(t->own ? t->p : NULL, size) : NULL;
	if (p == NULL) return false;
	if (!t->own && t->len > 0) memcpy(p, t->p, t->len);
	p[t->len] = '\0';
	*t = (struct text){ p, size, t->len, true, true };
	return true;
}

static void text_free(struct text *t) {
	if (t->own) free(t->p);
	*t = (struct text){ .grows = true };
}

__attribute__((format(printf, 2, 3))) static void text_add(struct text *t, const char *fmt, ...) {
	va_list ap;
	int n;
	do {
		if (t->len + 1 >= t->size && !text_grow(t, 255)) return;
		va_start(ap, fmt);
		n = vsnprintf(t->p + t->len, t->size - t->len, fmt, ap);
		va_end(ap);
		if (n < 0) return;
	} while (t->len + (size_t)n >= t->size && text_grow(t, (size_t)n));
	t->len = MIN(t->len + (size_t)n, t->size - 1);
}

/* Bytes that are not printable ASCII become '?'. */
static void text_clean(char *s) {
	for (; *s != '\0'; s++)
		if (*s < ' ' || *s > '~') *s = '?';
}

/* A number that is the whole string and within the bounds, else -1. */
static int64_t number(const char *s, int64_t lo, int64_t hi) {
	size_t n = strspn(s, "0123456789");
	int64_t v = n > 0 && n <= 15 && s[n] == '\0' ? 0 : -1;
	for (; v >= 0 && *s != '\0'; s++) v = v * 10 + (*s - '0');
	return v >= lo && v <= hi ? v : -1;
}

/* Opens a file to be read, or gives NULL and in *why the reason, with errno 0 where there is something that may never end, as a pipe
 * or device may (/dev/null does); only a start waits for one: "endless". */
static FILE *file_open(const char *path, bool endless, const char **why) {
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (endless ? 0 : O_NONBLOCK));
	struct stat st;
	bool good = fd >= 0 && (endless || (fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) ? st.st_size <= 256 << 20 :
	    S_ISCHR(st.st_mode) && read(fd, &(char){ 0 }, 1) == 0)));
	FILE *f = good ? fdopen(fd, "r") : NULL;
	*why = fd < 0 || good ? strerror(errno) : "not a file of at most 256 MB";
	if (fd >= 0 && f == NULL) errno = close(fd);
	return f;
}

#define LINE_MOST 4095

/* The next line of a file, *n of them until then. False when there is none; it is empty, and *good false, when it is too long or
 * holds a NUL. */
static bool line_next(FILE *f, char *line, unsigned *n, bool *good) {
	size_t len = 0;
	int c;
	*good = true;
	while ((c = getc_unlocked(f)) != EOF && c != '\n') {
		*good &= c != '\0' && len < LINE_MOST;
		line[len] = (char)c;
		len += len < LINE_MOST;
	}
	line[*good ? len : 0] = '\0';
	if ((*n)++ == 0 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
		memmove(line, line + 3, len - 2);       /* the mark that some editors put first */
	return c != EOF || len > 0;
}

/* A doubly linked list with the node first in its owner. A node that is on no list has next == NULL. */
struct node { struct node *next, *prev; };

static void list_init(struct node *l) { l->next = l->prev = l; }
static bool list_empty(const struct node *l) { return l->next == l; }
static bool list_on(const struct node *n) { return n->next != NULL; }

static void list_append(struct node *l, struct node *n) {
	n->prev = l->prev;
	n->next = l;
	l->prev->next = n;
	l->prev = n;
}

static void list_remove(struct node *n) {
	if (n->next == NULL) return;
	n->prev->next = n->next;
	n->next->prev = n->prev;
	n->next = n->prev = NULL;
}

#define OWNER(node, type, member) ((type *)(void *)((char *)(node) - offsetof(type, member)))

/* ---- 3 Log ----------------------------------------------------------- */

enum level { L_ERROR, L_INFO, L_DEBUG };

static const char *const level_names[] = { "error", "info", "debug" };
static enum level log_level = L_INFO;
static bool log_syslog, log_journal;    /* journal: standard error is that of systemd, which wants levels (sd-daemon(3)) */
static int log_fd = 2;

/* To whoever listens at /dev/log now, as syslog(3) writes it, but never waiting. */
static void log_to_syslog(enum level level, const char *line) {
	static const int priority[] = { 3 << 3 | 3, 3 << 3 | 6, 3 << 3 | 7 };   /* daemon: err, info, debug */
	static const struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	static int fd = -1;
	char msg[1100];
	int n = snprintf(msg, sizeof msg, "<%d>dnsproxy[%ld]: %s", priority[level], (long)getpid(), line);
	if (fd < 0) fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && n > 0) sendto(fd, msg, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&to, sizeof to);
}

/* One line to standard error or syslog. A standard error that takes nothing loses the line, it never blocks us: a pipe
 * that poll() calls writable has room for PIPE_BUF bytes. */
__attribute__((format(printf, 2, 3))) static void log_line(enum level level, const char *fmt, ...) {
	struct pollfd out = { .fd = log_fd, .events = POLLOUT };
	char line[1024];
	size_t n;
	va_list ap;
	int r, keep = errno;

	if (level > log_level) return;
	n = log_journal && !log_syslog ? (size_t)snprintf(line, sizeof line, "<%d>", level == L_ERROR ? 3 : 5 + (int)level) : 0;
	va_start(ap, fmt);
	r = vsnprintf(line + n, sizeof line - 1 - n, fmt, ap);
	va_end(ap);
	if (r < 0) return;
	n = MIN(n + (size_t)r, sizeof line - 2);
	line[n] = '\0';
	text_clean(line);
	if (log_syslog)
		log_to_syslog(level, line);
	else if (poll(&out, 1, 0) == 1 && (out.revents & POLLOUT)) {
		line[n] = '\n';
		if (write(log_fd, line, n + 1) < 0) line[0] = '\0';
	}
	errno = keep;
}

/* Each line of a text by itself. */
static void log_lines(enum level level, const char *text) {
	for (size_t n; text != NULL && *text != '\0'; text += n + (text[n] != '\0')) {
		n = strcspn(text, "\n");
		log_line(level, "%.*s", (int)n, text);
	}
}

#define log_error(...) log_line(L_ERROR, __VA_ARGS__)
#define log_info(...) log_line(L_INFO, __VA_ARGS__)
#define log_debug(...) do { if (log_level == L_DEBUG) log_line(L_DEBUG, __VA_ARGS__); } while (0)

/* True at most once in ten seconds for each limiter: the same warning never floods the log. */
static bool log_now(usec *last) {
	if (*last != 0 && now - *last < SEC(10)) return false;
	*last = now;
	return true;
}

/* ---- 4 Addresses ----------------------------------------------------- */

union sockaddrs { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; };

/* An address and port; scope is the name behind '%', looked up whenever it is used, for the interface may come later. */
struct addr {
	union sockaddrs u;
	char scope[IF_NAMESIZE];
};

static bool addr_is6(const struct addr *a) { return a->u.sa.sa_family == AF_INET6; }
static socklen_t addr_len(const struct addr *a) {
	return addr_is6(a) ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}
static bool addr_unscoped(const struct addr *a) { return addr_is6(a) && !a->scope[0] && IN6_IS_ADDR_LINKLOCAL(&a->u.in6.sin6_addr); }
static bool addr_is_any(const struct addr *a) {
	return addr_is6(a) ? IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr) : a->u.in.sin_addr.s_addr == 0;
}
static unsigned addr_port(const struct addr *a) { return ntohs(addr_is6(a) ? a->u.in6.sin6_port : a->u.in.sin_port); }

static void addr_set_port(struct addr *a, unsigned port) {
	*(addr_is6(a) ? &a->u.in6.sin6_port : &a->u.in.sin_port) = htons((uint16_t)port);
}

/* The 4 or 16 bytes of the address. */
static const uint8_t *addr_bytes(const struct addr *a, size_t *n) {
	*n = addr_is6(a) ? 16 : 4;
	return addr_is6(a) ? (const uint8_t *)&a->u.in6.sin6_addr : (const uint8_t *)&a->u.in.sin_addr;
}

static bool addr_same_host(const struct addr *a, const struct addr *b) {
	size_t n, m;
	const uint8_t *p = addr_bytes(a, &n), *q = addr_bytes(b, &m);
	return n == m && memcmp(p, q, n) == 0 && strcmp(a->scope, b->scope) == 0;
}

/* "192.0.2.1" or "fe80::1%br-lan" into *a, port 0. False when it is no numeric address. */
static bool addr_parse(struct addr *a, const char *s) {
	const char *pct = strchr(s, '%');
	char host[INET6_ADDRSTRLEN];
	size_t n = pct ? (size_t)(pct - s) : strlen(s), scope = pct ? strlen(pct + 1) : 0;

	memset(a, 0, sizeof *a);
	if (n >= sizeof host || (pct && scope == 0) || scope >= sizeof a->scope) return false;
	memcpy(host, s, n);
	host[n] = '\0';
	memcpy(a->scope, pct ? pct + 1 : "", scope);
	a->u.sa.sa_family = strchr(host, ':') ? AF_INET6 : AF_INET;
	return addr_is6(a) ? inet_pton(AF_INET6, host, &a->u.in6.sin6_addr) == 1
	    : pct == NULL && inet_pton(AF_INET, host, &a->u.in.sin_addr) == 1;
}

/* Fills in the number of the scope; false while there is no such interface. */
static bool addr_resolve_scope(struct addr *a) {
	if (a->scope[0] == '\0') return true;
	a->u.in6.sin6_scope_id = if_nametoindex(a->scope);
	if (a->u.in6.sin6_scope_id == 0)
		a->u.in6.sin6_scope_id = (uint32_t)MAX(number(a->scope, 1, UINT32_MAX), 0);
	return a->u.in6.sin6_scope_id != 0;
}

#define ADDR_TEXT (INET6_ADDRSTRLEN + IF_NAMESIZE + 8)

/* "ADDRESS@PORT", or "ADDRESS" for port 0; in one of four buffers that are used in turn. */
static const char *addr_text(const struct addr *a) {
	static char bufs[4][ADDR_TEXT];
	static unsigned turn;
	char host[INET6_ADDRSTRLEN], *buf = bufs[turn++ % 4];
	struct text t = { .p = buf, .size = ADDR_TEXT };
	size_t n;
	inet_ntop(a->u.sa.sa_family, addr_bytes(a, &n), host, sizeof host);
	text_add(&t, "%s%s%s", host, a->scope[0] ? "%" : "", a->scope);
	if (addr_port(a) != 0) text_add(&t, "@%u", addr_port(a));
	return buf;
}

struct cidr { struct addr net; unsigned bits; };

/* True when its first bits equal those of one of n nets. An IPv4 address mapped into IPv6 never gets here: sockets are V6ONLY. */
static bool addr_in(const struct addr *a, const struct cidr *c, unsigned n) {
	size_t len, m;
	const uint8_t *p = addr_bytes(a, &len), *q;
	for (; n > 0; n--, c++) {
		q = addr_bytes(&c->net, &m);
		if (len == m && memcmp(p, q, c->bits / 8) == 0 &&
		    (c->bits % 8 == 0 || ((p[c->bits / 8] ^ q[c->bits / 8]) >> (8 - c->bits % 8)) == 0))
			return true;
	}
	return false;
}

/* Loopback first, then private and link-local: the default of "allow", and what rule 12 of the choice calls private. */
static const char *const local_nets[] = { "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
	"169.254.0.0/16", "fc00::/7", "fe80::/10" };

static bool cidr_parse(struct cidr *c, const char *s) {
	const char *slash = strchr(s, '/');
	char host[INET6_ADDRSTRLEN];
	size_t n = slash ? (size_t)(slash - s) : strlen(s);
	int64_t most, bits;
	snprintf(host, sizeof host, "%.*s", (int)MIN(n, sizeof host), s);
	if (n >= sizeof host || strchr(host, '%') || !addr_parse(&c->net, host)) return false;
	most = addr_is6(&c->net) ? 128 : 32;
	bits = slash ? number(slash + 1, 0, most) : most;
	c->bits = (unsigned)bits;
	return bits >= 0;
}

/* In one of the first n of them? */
static bool addr_in_local(const struct addr *a, unsigned n) {
	static struct cidr nets[COUNT(local_nets)];
	for (size_t i = 0; i < COUNT(nets) && nets[i].bits == 0; i++)
		cidr_parse(&nets[i], local_nets[i]);
	return addr_in(a, nets, n);
}

static bool addr_is_loopback(const struct addr *a) { return addr_in_local(a, 2); }
static bool addr_is_private(const struct addr *a) { return addr_in_local(a, COUNT(local_nets)); }

/* Who a client is to limits: its IPv4 address or its IPv6 /64, in eight bytes. */
static uint64_t addr_client(const struct addr *a) {
	uint64_t v = 0;
	size_t n;
	const uint8_t *p = addr_bytes(a, &n);
	memcpy(&v, p, n == 4 ? 4 : 8);
	return n == 4 ? v ^ UINT64_C(0x0a0b0c0d00000000) : v;
}

static uint64_t client_secret;

/* A place for a client in a table of n: its multiple's topmost bits, so that nobody outside can find clients that share one. */
static size_t client_place(uint64_t client, size_t n) { return (size_t)((client * (client_secret | 1) >> 32) * n >> 32); }

/* ---- 5 Messages ------------------------------------------------------ */

enum { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, BADVERS = 16, BADCOOKIE = 23 };
enum { T_A = 1, T_NS = 2, T_CNAME = 5, T_SOA = 6, T_PTR = 12, T_MX = 15, T_TXT = 16, T_AAAA = 28, T_SRV = 33, T_OPT = 41, T_DS = 43, T_DNSKEY = 48, T_SVCB = 64, T_HTTPS = 65,
	T_IXFR = 251, T_AXFR = 252, T_ANY = 255, T_CAA = 257 };
enum { F_QR = 0x8000, F_OPCODE = 0x7800, F_AA = 0x400, F_TC = 0x200, F_RD = 0x100, F_RA = 0x80, F_AD = 0x20, F_CD = 0x10 };
enum { EDNS_KEEPALIVE = 11, EDNS_PADDING = 12, EDNS_EDE = 15 };
enum { EDE_NONE = -1, EDE_STALE = 3, EDE_BOGUS = 6, EDE_NSEC_MISSING = 12, EDE_BLOCKED = 15, EDE_FILTERED = 17, EDE_UNREACHABLE = 22,
	EDE_NETWORK = 23 };

/* A type by name. "layout" tells where its RDATA holds names that senders compress (RFC 1035, 3597 4): digits are bytes to
 * skip, 'n' is a name, '*' any rest, and a layout without '*' says the whole length. NULL: opaque. */
static const struct rrtype { unsigned type; const char *name, *layout; } rrtypes[] = {
	{ 1, "A", "4" }, { 2, "NS", "n" }, { 3, "MD", "n" }, { 4, "MF", "n" }, { 5, "CNAME", "n" }, { 6, "SOA", "nn992" },
	{ 7, "MB", "n" }, { 8, "MG", "n" }, { 9, "MR", "n" }, { 11, "WKS", NULL }, { 12, "PTR", "n" }, { 13, "HINFO", NULL },
	{ 14, "MINFO", "nn" }, { 15, "MX", "2n" }, { 16, "TXT", NULL }, { 17, "RP", "nn" }, { 18, "AFSDB", "2n" },
	{ 21, "RT", "2n" }, { 24, "SIG", "99n*" }, { 25, "KEY", NULL }, { 26, "PX", "2nn" }, { 28, "AAAA", "97" },
	{ 29, "LOC", NULL }, { 30, "NXT", "n*" }, { 33, "SRV", "6n" }, { 35, "NAPTR", NULL }, { 36, "KX", "2n" },
	{ 37, "CERT", NULL }, { 39, "DNAME", "n" }, { 43, "DS", NULL }, { 44, "SSHFP", NULL }, { 46, "RRSIG", NULL },
	{ 47, "NSEC", NULL }, { 48, "DNSKEY", NULL }, { 49, "DHCID", NULL }, { 50, "NSEC3", NULL }, { 51, "NSEC3PARAM", NULL },
	{ 52, "TLSA", NULL }, { 53, "SMIMEA", NULL }, { 59, "CDS", NULL }, { 60, "CDNSKEY", NULL }, { 61, "OPENPGPKEY", NULL },
	{ 62, "CSYNC", NULL }, { 63, "ZONEMD", NULL }, { 64, "SVCB", NULL }, { 65, "HTTPS", NULL }, { 99, "SPF", NULL },
	{ 251, "IXFR", NULL }, { 252, "AXFR", NULL }, { 255, "ANY", NULL }, { 256, "URI", NULL }, { 257, "CAA", NULL },
};

static const struct rrtype *type_find(unsigned type) {
	for (size_t i = 0; i < COUNT(rrtypes); i++)
		if (rrtypes[i].type == type)
			return &rrtypes[i];
	return NULL;
}

static const char *type_text(unsigned type) {
	static char buf[16];
	const struct rrtype *t = type_find(type);
	snprintf(buf, sizeof buf, "TYPE%u", type);
	return t ? t->name : buf;
}

static int type_parse(const char *s) {
	for (size_t i = 0; i < COUNT(rrtypes); i++)
		if (strcasecmp(rrtypes[i].name, s) == 0)
			return (int)rrtypes[i].type;
	return strncasecmp(s, "TYPE", 4) == 0 ? (int)number(s + 4, 1, 65535) : -1;
}

static const char *class_text(unsigned class) {
	static char buf[16];
	snprintf(buf, sizeof buf, "CLASS%u", class);
	return class == 1 ? "IN" : class == 3 ? "CH" : class == 4 ? "HS" : class == 255 ? "ANY" : buf;
}

static const char *rcode_text(unsigned rcode) {
	static const char *const names[] = { "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN",
		"YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE" };
	static char buf[16];
	snprintf(buf, sizeof buf, "RCODE%u", rcode);
	if (rcode == BADVERS) return "BADVERS";
	return rcode < COUNT(names) ? names[rcode] : buf;
}

#define NAME_TEXT (NAME_MAX_WIRE * 4 + 2)

/* A label, or the one that a pointer leads to; names are known to be good. */
static const uint8_t *label_at(const uint8_t *msg, const uint8_t *label) {
	while (*label >= 192) label = msg + (get16at(label) & 0x3fff);
	return label;
}

/* A wire name of a message as absolute text with \. and \DDD escapes (RFC 4343 2.1); static buffer. */
static const char *name_text_in(const uint8_t *msg, const uint8_t *name) {
	static char buf[NAME_TEXT];
	size_t at = 0;

	for (name = label_at(msg, name); *name != 0; name = label_at(msg, name + 1 + *name)) {
		for (unsigned i = 1; i <= *name; i++) {
			uint8_t c = name[i];
			if (c <= ' ' || c > '~')
				at += (size_t)snprintf(buf + at, sizeof buf - at, "\\%03d", c);
			else {
				if (strchr(".\\\"();@$", c)) buf[at++] = '\\';
				buf[at++] = (char)c;
			}
		}
		buf[at++] = '.';
	}
	strcpy(buf + at, at == 0 ? "." : "");
	return buf;
}

static const char *name_text(const uint8_t *name) { return name_text_in(name, name); }

/* Text into a lower-case wire name; the final dot may be missing. Gives its length, or 0 when it is no name. */
static size_t name_parse(uint8_t *name, const char *s) {
	size_t at = 1, start = 0;

	if (strcmp(s, ".") == 0)
		s++;
	else if (*s == '\0')
		return 0;
	while (*s != '\0') {
		unsigned c = (uint8_t)*s++;
		if (c == '.') {
			if (at == start + 1 || at - start > 64 || at >= NAME_MAX_WIRE) return 0;
			name[start] = (uint8_t)(at - start - 1);
			start = at++;
			continue;
		}
		if (c == '\\') {
			if (*s >= '0' && *s <= '9') {
				if (strspn(s, "0123456789") < 3) return 0;
				c = (unsigned)((s[0] - '0') * 100 + (s[1] - '0') * 10 + (s[2] - '0'));
				s += 3;
			} else if (*s == '\0')
				return 0;
			else
				c = (uint8_t)*s++;
		}
		if (c > 255 || at >= NAME_MAX_WIRE) return 0;
		name[at++] = lower((uint8_t)c);
	}
	if (at - start > 64 || (at > start + 1 && at >= NAME_MAX_WIRE)) return 0;
	name[start] = (uint8_t)(at - start - 1);
	if (at > start + 1) name[at++] = 0;
	return at;
}

/* The same for a host name. */
static size_t host_parse(uint8_t *name, const char *s) {
	const char *p = s;
	while (((*p | 32) >= 'a' && (*p | 32) <= 'z') || (*p >= '-' && *p <= '9' && *p != '/') || *p == '_')
		p++;
	return *p == '\0' ? name_parse(name, s) : 0;
}

/* The length of a wire name that is known to be good and holds no pointer. */
static size_t name_len(const uint8_t *name) {
	size_t n = 0;
	while (name[n] != 0) n += 1 + (size_t)name[n];
	return n + 1;
}

/* True when name is suffix or lies below it; both lower case. */
static bool name_below(const uint8_t *name, size_t len, const uint8_t *suffix, size_t suffix_len) {
	if (len < suffix_len || (suffix_len > 1 && name[len - 2] != suffix[suffix_len - 2]))
		return false;                   /* most end in another letter */
	while (len > suffix_len) {
		len -= 1 + (size_t)*name;
		name += 1 + *name;
	}
	return len == suffix_len && memcmp(name, suffix, len) == 0;
}

/* The one way in for bytes from the network: each read checks the room, and after the first error reads give 0. */
struct msg { const uint8_t *p; size_t len, at; const char *err; };

static bool msg_has(struct msg *m, size_t n) {
	if (m->err == NULL && n > m->len - m->at) m->err = "message cut short";
	return m->err == NULL;
}

static void msg_skip(struct msg *m, size_t n) {
	if (msg_has(m, n)) m->at += n;
}

static unsigned msg_get8(struct msg *m) {
	if (!msg_has(m, 1)) return 0;
	return m->p[m->at++];
}

static unsigned msg_get16(struct msg *m) {
	if (!msg_has(m, 2)) return 0;
	m->at += 2;
	return get16at(m->p + m->at - 2);
}

static uint32_t msg_get32(struct msg *m) {
	uint32_t high = msg_get16(m);
	return high << 16 | msg_get16(m);
}

/* Steps over a name and checks it whole: labels, length, and that pointers go backwards only, at most 127 of them. */
static void msg_name(struct msg *m) {
	size_t at = m->at, low = m->at, end = 0, total = 1, limit = m->len;
	unsigned hops = 0;

	if (at > 12 && m->len - at >= 2 && get16at(m->p + at) == (0xc000 | 12)) {
		m->at += m->err == NULL ? 2 : 0;        /* nearly all lead to the question, which has been checked */
		return;
	}
	while (m->err == NULL) {
		unsigned c;
		if (at >= limit) {
			m->err = "name cut short";
			break;
		}
		c = m->p[at];
		if (c == 0) {
			m->at = end ? end : at + 1;
			break;
		}
		if (c < 64) {
			total += 1 + c;
			at += 1 + c;
			if (total > NAME_MAX_WIRE) m->err = "name too long";
		} else if (c >= 192 && at + 1 < m->len) {
			size_t to = get16at(m->p + at) & 0x3fff;
			if (end == 0) end = at + 2;
			if (to >= low || to < 12 || ++hops > 127)
				m->err = "bad compression pointer";
			limit = at;             /* what stands earlier must end before the pointer that leads there */
			low = at = to;
		} else
			m->err = c >= 192 ? "name cut short" : "unknown label type";
	}
}

/* Steps over RDATA of n bytes, checking the names of the types that may compress them. */
static void msg_rdata(struct msg *m, unsigned type, size_t n) {
	const struct rrtype *t = type < 40 ? type_find(type) : NULL;
	const char *l = t ? t->layout : NULL;
	size_t end;

	if (!msg_has(m, n)) return;
	end = m->at + n;
	for (; l != NULL && *l != '\0' && *l != '*' && m->err == NULL; l++) {
		if (*l == 'n')
			msg_name(m);
		else
			msg_skip(m, (size_t)(*l - '0'));
		if (m->at > end) m->err = "name beyond its RDATA";
	}
	if (m->err == NULL && l != NULL && *l == '\0' && m->at != end)
		m->err = "RDATA of a wrong length";
	if (m->err == NULL) m->at = end;
}

struct rr { size_t at, ttl_at, rdata_at, rdlen; unsigned type, class; uint32_t ttl; };

static void msg_rr_head(struct msg *m, struct rr *r) {
	static const uint8_t none[10];
	const uint8_t *p = msg_has(m, 10) ? m->p + m->at : none;
	r->type = get16at(p);
	r->class = get16at(p + 2);
	r->ttl_at = m->at + 4;
	r->ttl = get32at(p + 4);
	r->rdlen = get16at(p + 8);
	msg_skip(m, 10);
	r->rdata_at = m->at;
}

/* EDNS options as they lie in an OPT record; false when one runs past the end. The first call has *at == 0. */
static bool edns_next(const uint8_t *p, size_t n, size_t *at, unsigned *code, const uint8_t **data, size_t *len) {
	if (n - *at < 4) return false;
	*code = get16at(p + *at);
	*len = get16at(p + *at + 2);
	if (n - *at - 4 < *len) return false;
	*data = p + *at + 4;
	*at += 4 + *len;
	return true;
}

static bool edns_well_formed(const uint8_t *p, size_t n) {
	const uint8_t *d;
	unsigned code;
	size_t at = 0, len;
	while (edns_next(p, n, &at, &code, &d, &len))
		;
	return at == n;
}

/* What asks the same as what: name in lower case, type, class, DO and CD, in one run of bytes for hashing and comparing. */
struct key { unsigned len, name_len; uint8_t b[NAME_MAX_WIRE + 1 + 8]; };      /* with room for a word behind the name */
enum { KEY_DO = 1, KEY_CD = 2 };

static unsigned key_type(const struct key *k) { return get16at(k->b + k->name_len); }
static unsigned key_flags(const struct key *k) { return k->b[k->name_len + 4]; }

static void key_set(struct key *k, size_t name_len, unsigned type, unsigned class, unsigned flags) {
	k->name_len = (unsigned)name_len;
	k->len = k->name_len + 5;
	put16at(k->b + name_len, type);
	put16at(k->b + name_len + 2, class);
	k->b[name_len + 4] = (uint8_t)flags;
}

/* SipHash (Aumasson and Bernstein, 2012) in the machine's own words: HalfSipHash where they have 32 bits. */
#if UINTPTR_MAX > UINT32_MAX
typedef uint64_t word;
static const word sip_start[4] = { 0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261, 0x7465646279746573 };
enum { SIP_A = 13, SIP_B = 16, SIP_C = 17, SIP_D = 21, SIP_HALF = 32, WORD_BITS = 64 };
#else
typedef uint32_t word;
static const word sip_start[4] = { 0, 0, 0x6c796765, 0x74656462 };
enum { SIP_A = 5, SIP_B = 8, SIP_C = 13, SIP_D = 7, SIP_HALF = 16, WORD_BITS = 32 };
#endif

static word rotate(word x, int n) { return x << n | x >> (WORD_BITS - n); }

static void sip_rounds(word v[4], int n) {
	for (; n > 0; n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], SIP_A) ^ v[0];
		v[3] = rotate(v[3], SIP_B) ^ v[2];
		v[0] = rotate(v[0], SIP_HALF) + v[3];
		v[2] += v[1];
		v[1] = rotate(v[1], SIP_C) ^ v[2];
		v[3] = rotate(v[3], SIP_D) ^ v[0];
		v[2] = rotate(v[2], SIP_HALF);
	}
}

/* each, last: rounds a word and at the end. Whole words are read in the machine's byte order: what comes out stays here. */
static word sip_hash(const word secret[2], const uint8_t *p, size_t n, int each, int last) {
	word v[4], w = (word)n << (WORD_BITS - 8), next;

	for (int i = 0; i < 4; i++) v[i] = sip_start[i] ^ secret[i % 2];
	for (; n >= sizeof next; n -= sizeof next, p += sizeof next) {
		memcpy(&next, p, sizeof next);
		v[3] ^= next;
		sip_rounds(v, each);
		v[0] ^= next;
	}
	while (n-- > 0) w |= (word)p[n] << 8 * n;
	v[3] ^= w;
	sip_rounds(v, each);
	v[0] ^= w;
	v[2] ^= 0xff;
	sip_rounds(v, last);
	return WORD_BITS == 64 ? v[0] ^ v[1] ^ v[2] ^ v[3] : v[1] ^ v[3];
}

static word hash_secret[4];

static void hash_init(void) {
	random_bytes(hash_secret, sizeof hash_secret);
	random_bytes(&client_secret, sizeof client_secret);
}

/* Under a secret of this run: nobody outside can find names that collide. */
static uint32_t hash_bytes(const uint8_t *p, size_t n) { return (uint32_t)sip_hash(hash_secret, p, n, 1, 3); }

static uint64_t hash_long(const uint8_t *p, size_t n) {
	uint64_t v = sip_hash(hash_secret, p, n, 1, 3);
	return WORD_BITS == 64 ? v : v << 32 | sip_hash(hash_secret + 2, p, n, 1, 3);
}

/* A client's question, read. name is as the client spelled it, in the client's message. */
struct question {
	unsigned id, flags, edns_size;  /* edns_size: 0 without OPT */
	bool edns, dnssec_ok, want_ad;
	const uint8_t *name;
	struct key key;
};

/* The letters among the bytes of a word in lower case. */
static word lower_word(word x) {
	const word each = (word)-1 / 255, low = x & each * 0x7f;
	const word from_a = low + each * (0x80 - 'A'), beyond_z = low + each * (0x7f - 'Z');    /* told by the top bits */
	return x | ((from_a ^ beyond_z) & ~x & each * 0x80) >> 2;
}

/* Checks a name and copies it in lower case; "room" bytes are there. Gives its length, 0 when it is no whole name. */
static size_t question_name(struct question *q, const uint8_t *name, size_t room) {
	size_t n = 0, label;
	word w = 0;

	q->name = name;
	do {
		label = n < room ? name[n] : 64;
		n += 1 + label;
		if (label > 63 || n + (label > 0) > NAME_MAX_WIRE || n > room) return 0;
	} while (label != 0);
	memcpy(q->key.b + n, &w, sizeof w);
	memcpy(q->key.b, name, n);
	for (size_t i = 0; i < n; i += sizeof w) {      /* the lengths of labels are below all letters */
		memcpy(&w, q->key.b + i, sizeof w);
		w = lower_word(w);
		memcpy(q->key.b + i, &w, sizeof w);
	}
	return n;
}

/* The OPT of a query, if it is one as it should be. */
static bool question_read_opt(struct question *q, const uint8_t *p, const struct rr *r, unsigned *version) {
	if (q->edns || p[r->at] != 0 || !edns_well_formed(p + r->rdata_at, r->rdlen)) return false;
	q->edns = true;
	q->edns_size = r->class;
	q->dnssec_ok = r->ttl & 0x8000;
	*version = r->ttl >> 16 & 0xff;
	return true;
}

/* Reads a client's message. Gives -1 for one that deserves silence, NOERROR for one to answer, else the RCODE to refuse it
 * with; q->key.name_len is 0 where not even a question could be read. The OPT is looked for in any, for the reply needs one
 * too (RFC 6891 6.1.1). */
static int question_read(struct question *q, const uint8_t *p, size_t len) {
	struct msg m = { p, len, 12, NULL };
	unsigned type = 0, n, version = 0;
	bool good = true;
	struct rr r;

	memset(q, 0, offsetof(struct question, key.b));
	if (len < 12 || (get16at(p + 2) & F_QR)) return -1;
	q->id = get16at(p);
	q->flags = get16at(p + 2);
	if (get16at(p + 4) == 1) {
		n = (unsigned)question_name(q, p + 12, len - 12);
		msg_skip(&m, n + 4);
		if (n == 0 || m.err)
			m.err = "no question";
		else
			key_set(&q->key, n, type = get16at(p + m.at - 4), get16at(p + m.at - 2), 0);
	} else {
		good = false;
		for (n = get16at(p + 4); n > 0 && m.err == NULL; n--) {
			msg_name(&m);
			msg_skip(&m, 4);
		}
	}
	for (n = get16at(p + 6) + get16at(p + 8) + get16at(p + 10); n > 0 && m.err == NULL; n--) {
		r.at = m.at;
		msg_name(&m);
		msg_rr_head(&m, &r);
		msg_skip(&m, r.rdlen);
		if (m.err == NULL && r.type == T_OPT) good &= question_read_opt(q, p, &r, &version);
	}
	q->want_ad = q->dnssec_ok || (q->flags & F_AD);
	if (q->key.name_len > 0)
		q->key.b[q->key.name_len + 4] = (uint8_t)((q->dnssec_ok ? KEY_DO : 0) | (q->flags & F_CD ? KEY_CD : 0));
	if (q->flags & F_OPCODE) return NOTIMP;
	if (!good || m.err || m.at != len || (q->flags & F_TC) || get16at(p + 6) || get16at(p + 8) || type == T_OPT)
		return FORMERR;
	if (version > 0) return BADVERS;
	if (type == T_AXFR || type == T_IXFR) return NOTIMP;
	return q->flags & F_RD ? NOERROR : REFUSED;
}

/* An upstream's answer, read: msg holds header, question and records without OPT. */
enum verdict { V_NONE, V_OTHER, V_NXDOMAIN, V_NODATA, V_SUCCESS };      /* in rising order of worth */

struct answer {
	const uint8_t *msg;             /* as received, of which len bytes count: nothing from the OPT on */
	size_t len;
	unsigned rcode, ancount, records, keepalive;       /* keepalive: 100 ms units, or NO_KEEPALIVE */
	bool truncated, ad, opt, blocked, bogus, positive;
	enum verdict verdict;
	uint32_t ttl, soa_ttl;          /* lowest of all; the negative one (RFC 2308 5) or NO_TTL */
	size_t ede_len;
	uint8_t ede[EDE_MAX];           /* whole options */
};
#define NO_TTL UINT32_MAX
#define NO_KEEPALIVE UINT32_MAX

static void answer_read_opt(struct answer *a, const uint8_t *p, size_t n, unsigned ext) {
	const uint8_t *d;
	unsigned code, info;
	size_t at = 0, len, keep;

	a->opt = true;
	a->rcode |= ext << 4;
	while (edns_next(p, n, &at, &code, &d, &len)) {
		if (code == EDNS_KEEPALIVE && len == 2) a->keepalive = get16at(d);
		if (code != EDNS_EDE || len < 2) continue;
		info = get16at(d);
		a->blocked |= info >= EDE_BLOCKED && info <= EDE_FILTERED;
		a->bogus |= info >= EDE_BOGUS && info <= EDE_NSEC_MISSING;
		keep = a->ede_len + 4 + len <= EDE_MAX ? len : 2;       /* too long a text stays behind */
		if (a->ede_len + 4 + keep > EDE_MAX) continue;
		put16at(a->ede + a->ede_len, EDNS_EDE);
		put16at(a->ede + a->ede_len + 2, (unsigned)keep);
		memcpy(a->ede + a->ede_len + 4, d, keep);
		a->ede_len += 4 + keep;
	}
}

/* Reads and checks a whole answer to the question in key. Gives NULL, or what is wrong with it. The header, ID and question
 * have been matched by answer_matches() before. TTLs with the top bit set are capped (RFC 8767 4), in place. */
static const char *answer_read(struct answer *a, uint8_t *p, size_t len, const struct key *key) {
	struct msg m = { p, len, 12 + key->name_len + 4, NULL };
	unsigned qtype = key_type(key), section, count;
	bool wanted = qtype == T_ANY, soa = false, referral = false;
	struct rr r;

	memset(a, 0, offsetof(struct answer, ede));
	a->msg = p;
	a->rcode = get16at(p + 2) & 15;
	a->truncated = get16at(p + 2) & F_TC;
	a->ad = get16at(p + 2) & F_AD;
	a->ancount = get16at(p + 6);
	a->ttl = a->soa_ttl = NO_TTL;
	a->keepalive = NO_KEEPALIVE;
	a->positive = a->ancount > 0 && wanted;
	for (section = 0; section < 3; section++) {
		for (count = get16at(p + 6 + 2 * section); count > 0 && m.err == NULL; count--) {
			r.at = m.at;
			msg_name(&m);
			msg_rr_head(&m, &r);
			if (r.type == T_OPT) {
				if (section != 2 || a->opt || p[r.at] != 0) return "misplaced OPT";
				msg_skip(&m, r.rdlen);
				if (m.err || !edns_well_formed(p + r.rdata_at, r.rdlen))
					return "bad EDNS options";
				a->len = r.at;
				put16at(p + 10, get16at(p + 10) - count);
				answer_read_opt(a, p + r.rdata_at, r.rdlen, r.ttl >> 24);
				continue;
			}
			msg_rdata(&m, r.type, r.rdlen);
			if (m.err) break;
			if (r.ttl > INT32_MAX) {
				r.ttl = INT32_MAX;
				put32at(p + r.ttl_at, r.ttl);
			}
			if (a->opt)
				continue;               /* what lies behind the OPT is extra of the extra: it stays behind too */
			a->records++;
			a->ttl = MIN(a->ttl, r.ttl);
			a->positive |= section == 0 && r.type == qtype;
			referral |= section == 1 && r.type == T_NS;
			if (section == 1 && r.type == T_SOA && !soa) {
				soa = true;
				a->soa_ttl = MIN(r.ttl, get32at(p + m.at - 4));
			}
		}
	}
	if (m.err) return m.err;
	if (!a->opt) a->len = m.at;
	if (a->truncated) return NULL;
	a->positive &= a->rcode == NOERROR;
	referral &= !soa && a->ancount == 0 && !(get16at(p + 2) & F_AA);
	a->verdict = a->positive || a->blocked ? V_SUCCESS : a->rcode == NOERROR && !referral ? V_NODATA :
	    a->rcode == NXDOMAIN ? V_NXDOMAIN : V_OTHER;
	return NULL;
}

/* Steps over a record that is known to be good. Gives where its type stands: its TTL is 4 bytes further, its RDATA 10. */
static size_t record_next(const uint8_t *p, size_t *at) {
	size_t end = *at;
	while (p[end] != 0 && p[end] < 192) end += 1 + (size_t)p[end];
	end += p[end] == 0 ? 1 : 2;
	*at = end + 10 + get16at(p + end + 8);
	return end;
}

/* Does a good message, whose records begin at "at", answer with a record of the type? */
static bool answers_type(const uint8_t *p, size_t at, unsigned type) {
	for (unsigned n = get16at(p + 6); n > 0; n--)
		if (get16at(p + record_next(p, &at)) == type || type == T_ANY)
			return true;
	return false;
}

/* Takes the seconds that the answer has spent in HTTP's caches off its TTLs (RFC 8484 5.1), in a message that answer_read() has
 * seen. */
static void answer_age(struct answer *a, uint8_t *p, uint32_t age) {
	for (size_t at = 12 + name_len(p + 12) + 4; age > 0 && at < a->len; ) {
		uint8_t *ttl = p + record_next(p, &at) + 4;
		put32at(ttl, get32at(ttl) - MIN(get32at(ttl), age));
	}
	a->ttl -= MIN(a->ttl, age);
	a->soa_ttl -= a->soa_ttl == NO_TTL ? 0 : MIN(a->soa_ttl, age);
}

/* Is it a private, loopback, link-local or unspecified address, perhaps an IPv4 one mapped into IPv6? */
static bool bytes_inside(const uint8_t *p, size_t n) {
	static const uint8_t none[16], mapped[12] = { [10] = 255, [11] = 255 };
	struct addr a = { .u.in.sin_family = AF_INET };
	if (n == 16 && memcmp(p, mapped, sizeof mapped) == 0)
		return bytes_inside(p + sizeof mapped, 4);
	if (n == 16) a.u.in6.sin6_family = AF_INET6;
	memcpy(n == 16 ? (void *)&a.u.in6.sin6_addr : &a.u.in.sin_addr, p, n);
	return memcmp(p, none, n) == 0 || addr_is_private(&a);
}

/* Does the answer section lead to such an address, by A or AAAA records or hints of SVCB and HTTPS (RFC 9460 7.3)? */
static bool answer_leads_inside(const struct answer *a, const struct key *k) {
	struct msg m = { .p = a->msg, .len = a->len, .at = 12 + k->name_len + 4 };
	bool inside = false;
	struct rr r;

	for (unsigned i = 0; i < a->ancount && m.err == NULL; i++) {
		msg_name(&m);
		msg_rr_head(&m, &r);
		struct msg v = { .p = a->msg, .len = r.rdata_at + r.rdlen, .at = r.rdata_at };
		m.at = v.len;
		if (r.type == T_A || r.type == T_AAAA) inside |= bytes_inside(v.p + v.at, r.rdlen);
		if (r.type != T_SVCB && r.type != T_HTTPS) continue;
		msg_skip(&v, 2);
		msg_name(&v);
		while (v.at < v.len && msg_has(&v, 4)) {
			unsigned key = get16at(v.p + v.at), left = get16at(v.p + v.at + 2), size = key == 4 ? 4 : 16;
			v.at += 4;
			for (; (key == 4 || key == 6) && left >= size && msg_has(&v, left); left -= size, v.at += size)
				inside |= bytes_inside(v.p + v.at, size);
			msg_skip(&v, left);
		}
	}
	return inside;
}

/* Is this datagram or frame an answer to key, in the shape of its header and question? One doubt a line. */
static bool answer_matches(const uint8_t *p, size_t len, const struct key *key) {
	if (len < 12 + key->name_len + 4) return false;
	if ((get16at(p + 2) & (F_QR | F_OPCODE)) != F_QR || get16at(p + 4) != 1) return false;
	for (size_t i = memcmp(p + 12, key->b, key->name_len) ? 0 : key->name_len; i < key->name_len; i++)
		if (lower(p[12 + i]) != key->b[i])
			return false;
	return memcmp(p + 12 + key->name_len, key->b + key->name_len, 4) == 0;
}

/* Some servers refuse what they do not understand with a bare header (RFC 6891 7), or one and an OPT: no question to compare.
 * Gives the RCODE, NOERROR when it is none of these. */
static unsigned answer_bare_error(const uint8_t *p, size_t len) {
	bool opt = len >= 23 && get16at(p + 10) == 1 && p[12] == 0 && get16at(p + 13) == T_OPT && get16at(p + 21) == len - 23;
	if ((len != 12 && !opt) || (get16at(p + 2) & (F_QR | F_OPCODE)) != F_QR || get16at(p + 4) != 0)
		return NOERROR;
	return (get16at(p + 2) & 15) | (opt ? (unsigned)p[17] << 4 : 0);
}

/* Does an answer say that its server cannot do EDNS (rule 16)? */
static bool answer_refuses_edns(unsigned rcode, bool opt) {
	return rcode == FORMERR || rcode == BADVERS || rcode == BADCOOKIE || (!opt && (rcode == NOTIMP || rcode == SERVFAIL));
}

/* Writes our own OPT. Gives its length. */
static size_t opt_write(uint8_t *p, unsigned rcode, bool dnssec_ok, const uint8_t *options, size_t n) {
	p[0] = 0;
	put16at(p + 1, T_OPT);
	put16at(p + 3, UDP_SIZE);
	put32at(p + 5, (uint32_t)(rcode >> 4) << 24 | (dnssec_ok ? 0x8000 : 0));
	put16at(p + 9, (unsigned)n);
	if (n > 0) memcpy(p + 11, options, n);
	return 11 + n;
}

/* Writes the question of key for an upstream. pad: to a multiple of 128 bytes (RFC 8467), over TLS with the keepalive option (RFC
 * 7828). edns: with an OPT. Gives the length; at most 12 + 259 + 11 + 4 + 4 + 127 bytes. */
enum padding { PAD_NONE, PAD_KEEPALIVE, PAD_ONLY };
#define UPSTREAM_QUERY_MAX 432
static size_t query_write(uint8_t *p, unsigned id, const struct key *k, bool edns, enum padding pad) {
	static uint8_t options[8 + 127] = { 0, EDNS_KEEPALIVE, 0, 0, 0, EDNS_PADDING };
	size_t n = 12 + k->name_len + 4, skip = pad == PAD_KEEPALIVE ? 0 : 4, fill = (128 - (n + 11 + 8 - skip) % 128) % 128;
	put16at(p, id);
	put16at(p + 2, F_RD | F_AD | (key_flags(k) & KEY_CD ? F_CD : 0));        /* AD: tell what you know (RFC 6840 5.7) */
	put16at(p + 4, 1);
	memset(p + 6, 0, 6);
	memcpy(p + 12, k->b, k->name_len + 4);
	if (!edns) return n;
	p[11] = 1;
	options[7] = (uint8_t)fill;
	return n + opt_write(p + n, NOERROR, key_flags(k) & KEY_DO, options + skip, pad ? 8 - skip + fill : 0);
}

/* ---- 6 Config -------------------------------------------------------- */

enum proto { P_UDP, P_TCP, P_TLS, P_HTTPS };     /* from P_TLS on with TLS */
static const char *const proto_names[] = { "udp", "tcp", "tls", "https" };

/* An upstream line, read. domains: wire names one behind the other. */
struct spec {
	struct addr addr;
	enum proto proto;
	unsigned priority, npins;
	bool noverify, final;
	char name[NAME_MAX_WIRE + 1];           /* tls=NAME, https=NAME; empty for bare tls */
	char path[128];                         /* https=NAME/PATH, with its '/' */
	uint8_t pins[MAX_PINS][32];
	uint8_t domains[512];
	size_t domains_len;
	char place[80];                         /* FILE:LINE */
};

struct listen_at { struct addr addr; bool any; };

/* The files of "hosts" or "block". */
struct list_file { char path[256]; uint8_t suffix[NAME_MAX_WIRE]; size_t suffix_len; };
struct list_files { unsigned n; struct list_file of[MAX_LISTS + 1]; };

/* All settings. A new one is read whole before it replaces the old (reload). */
struct config {
	struct listen_at listens[MAX_LISTEN];
	unsigned nlistens;
	struct addr admin;
	bool admin_off;
	int64_t cache_size, queries, tcp_clients;
	char user[64], user_place[80];
	struct cidr allows[MAX_ALLOW];          /* from here on: what a reload changes */
	struct spec specs[MAX_UPSTREAMS + 1];   /* the last is for one too many */
	unsigned nallows, nspecs;
	bool syslog, allow_seen;
	int64_t rate, cache_min_ttl, cache_max_ttl, cache_negative, serve_stale, timeout, patience, level,
	    rebind_protect;
	char ca_file[256], ca_place[80];
	struct list_files hosts, blocks;
	unsigned default_port;
};

static struct config cfg;

/* Where errors go while a configuration is read: all of them, each with its place. */
struct reader { struct config *c; struct text *errors; unsigned nerrors; char place[80]; };

__attribute__((format(printf, 3, 4))) static void config_error(struct reader *r, const char *place, const char *fmt, ...) {
	char what[600];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	text_clean(what);
	r->nerrors++;
	text_add(r->errors, "%s: %s\n", place, what);
}

struct directive {
	const char *name, *arg, *initial, *help;
	const char *(*set)(struct config *, const struct directive *, char **args);     /* NULL, or what was expected */
	void (*print)(struct text *, const struct config *, const struct directive *);
	size_t field;
	int64_t lo, hi;
	const char *expected;
};

static int64_t *config_number(const struct config *c, const struct directive *d) {
	return (int64_t *)(void *)((char *)(uintptr_t)c + d->field);
}

static const char *set_number(struct config *c, const struct directive *d, char **args) {
	int64_t v = d->hi > 0 ? number(args[0], d->lo, d->hi) : strcmp(args[0], "on") == 0 ? 1 : strcmp(args[0], "off") == 0 ? 0 : -1;
	if (v < 0) return d->expected;
	*config_number(c, d) = v;
	return NULL;
}

static void print_number(struct text *t, const struct config *c, const struct directive *d) {
	int64_t v = *config_number(c, d);
	if (d->hi == 0)
		text_add(t, "%s %s\n", d->name, v ? "on" : "off");
	else
		text_add(t, "%s %lld\n", d->name, (long long)v);
}

static const char *set_size(struct config *c, const struct directive *d, char **args) {
	char digits[17];
	size_t n = strspn(args[0], "0123456789");
	const char *unit = args[0] + n;
	int shift = strcasecmp(unit, "k") == 0 ? 10 : strcasecmp(unit, "m") == 0 ? 20 : 0;
	int64_t v;
	snprintf(digits, sizeof digits, "%.*s", (int)MIN(n, 16), args[0]);
	v = *unit == '\0' || shift > 0 ? number(digits, d->lo, d->hi >> shift) : -1;
	if (v < 0 || (v > 0 && v << shift < 4096)) return d->expected;
	*config_number(c, d) = v << shift;
	return NULL;
}

/* "HOST", "HOST@PORT"; port is what stands without one, 0 for none needed. */
static const char *address_parse(struct addr *a, const char *s, unsigned port) {
	char host[128];
	const char *at = strrchr(s, '@');
	size_t n = at ? (size_t)(at - s) : strlen(s);
	int64_t v = at ? number(at + 1, 1, 65535) : (int64_t)port;
	if (v < 0) return "a port from 1 to 65535 behind '@'";
	if (n >= sizeof host) return "an IP address";
	memcpy(host, s, n);
	host[n] = '\0';
	if (!addr_parse(a, host)) return "an IP address";
	addr_set_port(a, (unsigned)v);
	return NULL;
}

/* What was meant in the place of an address, by a part of the word; else "expected". */
static const char *address_hint(const char *s, const char *expected) {
	static const struct { const char *part, *expected; } hints[] = {
		{ "://", "ADDRESS PRIORITY tls=NAME or https=NAME and no scheme, such as \"9.9.9.9 1 tls=dns.quad9.net\"" },
		{ "server", "ADDRESS PRIORITY, such as \"1.1.1.1 1\"" }, { "forward-", "ADDRESS PRIORITY, such as \"1.1.1.1 1\"" },
		{ "#", "a port behind '@' and a name behind tls=, such as \"1.1.1.1@853 1 tls=one.one.one.one\"" },
		{ "[", "an IPv6 address without brackets, and a port behind '@', such as ::1@53" },
		{ "interface", "listen ADDRESS, such as \"listen 192.168.1.1\"" }, { "@", NULL },
		{ "||", "block PATH, of a file with such lines" }, { "=", "a blank and no '=' behind a directive (dnsproxy --help)" },
		{ ":", "an IP address, and a port behind '@', such as 192.0.2.1@53" } };
	for (size_t i = 0; i < COUNT(hints); i++)
		if (strstr(s, hints[i].part) != NULL)
			return hints[i].expected ? hints[i].expected : expected;
	return expected;
}

/* Two sockets that cannot be bound side by side. */
static bool listen_clash(const struct listen_at *a, const struct listen_at *b) {
	return addr_port(&a->addr) == addr_port(&b->addr) && (a->any || b->any || (addr_is6(&a->addr) == addr_is6(&b->addr) &&
	    (addr_same_host(&a->addr, &b->addr) || addr_is_any(&a->addr) || addr_is_any(&b->addr))));
}

static const char *set_listen(struct config *c, const struct directive *d, char **args) {
	struct listen_at *l = &c->listens[c->nlistens];
	char any[32];

	if (c->nlistens == MAX_LISTEN) return "at most 16 listen addresses";
	memset(l, 0, sizeof *l);
	l->any = args[0][0] == '*' && (args[0][1] == '@' || args[0][1] == '\0');
	snprintf(any, sizeof any, "0.0.0.0%.20s", args[0] + 1);
	if (address_parse(&l->addr, l->any ? any : args[0], c->default_port) != NULL || addr_unscoped(&l->addr))
		return d->expected;
	for (unsigned i = 0; i < c->nlistens; i++)
		if (listen_clash(l, &c->listens[i]))
			return "an address and port that no other line has";
	c->nlistens++;
	return NULL;
}

static void print_listen(struct text *t, const struct config *c, const struct directive *d) {
	for (unsigned i = 0; i < c->nlistens; i++) {
		const char *at = addr_text(&c->listens[i].addr);
		text_add(t, "%s %s%s\n", d->name, c->listens[i].any ? "*" : "", c->listens[i].any ? strchr(at, '@') : at);
	}
}

static const char *set_admin(struct config *c, const struct directive *d, char **args) {
	struct addr a = { .scope = "" };
	c->admin_off = strcmp(args[0], "off") == 0;
	if (!c->admin_off && (address_parse(&a, args[0], 0) != NULL || addr_port(&a) == 0 || !addr_is_loopback(&a)))
		return d->expected;
	c->admin = a;
	return NULL;
}

static void print_admin(struct text *t, const struct config *c, const struct directive *d) {
	text_add(t, "%s %s\n", d->name, c->admin_off ? "off" : addr_text(&c->admin));
}

static const char *set_allow(struct config *c, const struct directive *d, char **args) {
	if (!c->allow_seen) c->nallows = 0;
	c->allow_seen = true;
	for (; *args != NULL; args++) {
		if (c->nallows == MAX_ALLOW) return "at most 64 networks";
		if (!cidr_parse(&c->allows[c->nallows], *args)) return d->expected;
		c->nallows++;
	}
	return NULL;
}

static void print_allow(struct text *t, const struct config *c, const struct directive *d) {
	text_add(t, "%s", d->name);
	for (unsigned i = 0; i < c->nallows; i++)
		text_add(t, " %s/%u", addr_text(&c->allows[i].net), c->allows[i].bits);
	text_add(t, "\n");
}

static const char *set_text(struct config *c, const struct directive *d, char **args) {
	if (strlen(args[0]) >= (size_t)d->hi) return d->expected;
	strcpy((char *)c + d->field, args[0]);
	return NULL;
}

static void print_text(struct text *t, const struct config *c, const struct directive *d) {
	const char *s = (const char *)c + d->field;
	if (*s != '\0') text_add(t, "%s %s\n", d->name, s);
}

/* A file, which must be there if the directive takes no more than that; else perhaps a suffix. What is no file is always wrong. */
static const char *set_list(struct config *c, const struct directive *d, char **args) {
	static char why[128];
	struct list_files *l = (struct list_files *)(void *)((char *)c + d->field);
	struct list_file *f = &l->of[l->n];
	const char *reason;
	FILE *in;
	if (strlen(args[0]) >= sizeof f->path || (args[1] != NULL && args[2] != NULL)) return d->expected;
	f->suffix_len = args[1] ? host_parse(f->suffix, args[1] + (args[1][0] == '.')) : 0;
	if (args[1] != NULL && f->suffix_len < 2) return d->expected;
	in = file_open(args[0], false, &reason);
	if (in != NULL)
		fclose(in);
	else if (d->hi == 1 || errno == 0)
		return snprintf(why, sizeof why, "a list that can be read (%s)", reason), why;
	strcpy(f->path, args[0]);
	return l->n == MAX_LISTS ? "at most 8 of them" : (l->n++, NULL);
}

static void print_list(struct text *t, const struct config *c, const struct directive *d) {
	const struct list_files *l = (const struct list_files *)(const void *)((const char *)c + d->field);
	for (unsigned i = 0; i < l->n; i++)
		text_add(t, "%s %s%s%s\n", d->name, l->of[i].path, l->of[i].suffix_len ? " " : "",
		    l->of[i].suffix_len ? name_text(l->of[i].suffix) : "");
}

static int level_parse(const char *s) {
	for (int i = 0; i < 3; i++)
		if (strcmp(s, level_names[i]) == 0)
			return i;
	return -1;
}

static const char *set_log(struct config *c, const struct directive *d, char **args) {
	int level = level_parse(args[0]);
	if (level < 0 || (args[1] && (strcmp(args[1], "syslog") != 0 || args[2]))) return d->expected;
	c->level = level;
	c->syslog = args[1] != NULL;
	return NULL;
}

static void print_log(struct text *t, const struct config *c, const struct directive *d) {
	text_add(t, "%s %s%s\n", d->name, level_names[c->level], c->syslog ? " syslog" : "");
}

#define NUMBER(f, lo, hi, what) set_number, print_number, offsetof(struct config, f), lo, hi, what
#define TEXT(f, what) set_text, print_text, offsetof(struct config, f), 0, sizeof ((struct config *)0)->f, what

/* Everything about a directive stands in its row: parser, help, -t and the tests of the manual read it here. */
static const struct directive directives[] = {
	{ "listen", "ADDRESS[@PORT]", "*", "where to serve UDP and TCP; repeatable; * is every address",
	  set_listen, print_listen, 0, 0, 0,
	  "an address of this host (fe80::1%eth0), or * with \"allow\" to serve one interface; a port stands behind '@', such as *@5300" },
	{ "admin", "ADDRESS@PORT", "127.0.0.1@5353", "the admin port, on loopback; or off",
	  set_admin, print_admin, 0, 0, 0, "a loopback ADDRESS@PORT, or off" },
	{ "allow", "CIDR ...", "127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10",
	  "who may ask; repeatable; replaces the default", set_allow, print_allow, 0, 0, 0, "networks such as 192.168.0.0/16" },
	{ "rate", "N", "0", "UDP answers per second and client; 0 is no limit", NUMBER(rate, 0, 1000000, "a number, 0 to 1000000") },
	{ "cache-size", "BYTES", "1m", "memory of the cache; 0 is off; k and m are understood", set_size, print_number,
	  offsetof(struct config, cache_size), 0, SIZE_MAX > UINT32_MAX ? INT64_C(4) << 30 : INT64_C(1) << 30, "0 or 4k to 4096m" },
	{ "cache-min-ttl", "S", "0", "the cache keeps answers at least so long",
	  NUMBER(cache_min_ttl, 0, 604800, "seconds, 0 to 604800") },
	{ "cache-max-ttl", "S", "86400", "the cache keeps answers at most so long",
	  NUMBER(cache_max_ttl, 1, 604800, "seconds, 1 to 604800") },
	{ "cache-negative", "S", "0", "cap for caching NXDOMAIN and NODATA; 0 is off; 60 with serve-stale",
	  NUMBER(cache_negative, 0, 86400, "seconds, 0 to 86400") },
	{ "serve-stale", "S", "0", "how long past its expiry an answer may serve; 0 is off",
	  NUMBER(serve_stale, 0, 604800, "seconds, 0 to 604800") },
	{ "timeout", "MS", "5000", "the life of a query", NUMBER(timeout, 50, 60000, "milliseconds, 50 to 60000") },
	{ "patience", "MS", "1000", "how long a success in hand waits for a better upstream",
	  NUMBER(patience, 1, 60000, "milliseconds, 1 to 60000") },
	{ "queries", "N", "1024", "queries in flight", NUMBER(queries, 1, 65536, "a number, 1 to 65536") },
	{ "tcp-clients", "N", "256", "TCP connections from clients", NUMBER(tcp_clients, 1, 65536, "a number, 1 to 65536") },
	{ "user", "NAME", "nobody", "identity after the ports are bound", TEXT(user, "a user's name or number") },
	{ "ca-file", "PATH", "", "PEM trust anchors for tls; default the system's bundle", TEXT(ca_file, "the path of a PEM file") },
	{ "log", "LEVEL [syslog]", "info", "how much (error, info or debug), and where to",
	  set_log, print_log, 0, 0, 0, "error, info or debug, and perhaps syslog" },
	{ "hosts", "PATH [SUFFIX]", "", "names and addresses to answer: hosts(5) or leases of dnsmasq; repeatable; default none", set_list,
	  print_list, offsetof(struct config, hosts), 0, 2, "a path, and perhaps a suffix such as lan" },
	{ "block", "PATH", "", "names to answer with 0.0.0.0 and ::; repeatable; default none", set_list, print_list,
	  offsetof(struct config, blocks), 0, 1, "the path of a list of names" },
	{ "rebind-protect", "on|off", "off", "no addresses of this side of the network from public upstreams",
	  NUMBER(rebind_protect, 0, 0, "on or off") },
};

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Exactly 32 bytes in base64. */
static bool pin_parse(uint8_t *pin, const char *s) {
	uint32_t acc = 0;
	size_t n = 0;
	if (strlen(s) != 44 || s[43] != '=') return false;
	for (int i = 0; i < 43; i++) {
		const char *d = strchr(base64_digits, s[i]);
		if (d == NULL) return false;
		acc = acc << 6 | (uint32_t)(d - base64_digits);
		if (i % 4 != 0 && n < 32) pin[n++] = (uint8_t)(acc >> (6 - 2 * (i % 4)));
	}
	return n == 32;
}

static const char *pin_text(const uint8_t *pin) {
	static char bufs[2][45];
	static unsigned turn;
	char *out = bufs[turn++ % 2];
	for (int i = 0, at = 0; i < 33; i += 3) {
		uint32_t v = (uint32_t)pin[i] << 16 | (uint32_t)pin[i + 1] << 8 | (i + 2 < 32 ? pin[i + 2] : 0u);
		for (int k = 18; k >= 0; k -= 6) out[at++] = base64_digits[v >> k & 63];
	}
	out[43] = '=';
	out[44] = '\0';
	return out;
}

/* What stands behind tls= or https=: the name that the certificate must carry, for https also the path. */
static const char *spec_server(struct spec *s, const char *w) {
	static const char path_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@%/?";
	size_t n = s->proto == P_HTTPS ? strcspn(w, "/") : strlen(w);
	const char *path = w[n] == '\0' ? "/dns-query" : w + n;
	uint8_t name[NAME_MAX_WIRE];
	struct addr host;

	if (strlen(path) >= sizeof s->path || path[strspn(path, path_letters)] != '\0')
		return "a path of at most 127 letters behind https=NAME";
	strcpy(s->path, path);
	n -= n > 0 && w[n - 1] == '.';
	snprintf(s->name, sizeof s->name, "%.*s", (int)MIN(n, NAME_MAX_WIRE), w);
	for (char *c = s->name; *c != '\0'; c++) *c = (char)lower((uint8_t)*c);
	if (addr_parse(&host, s->name))
		return "tls alone for a certificate of the address, or a host name behind tls= or https=";
	return n <= 253 && host_parse(name, s->name) > 0 && w[n - 1] != '.' ? NULL : "a host name behind tls= or https=";
}

/* One option of an upstream line. NULL, or what was expected. */
static const char *spec_option(struct spec *s, const char *w, bool *transport) {
	uint8_t name[NAME_MAX_WIRE];
	size_t n;

	if (strcmp(w, "tcp") == 0 || strcmp(w, "tls") == 0 || strncmp(w, "tls=", 4) == 0 || strncmp(w, "https=", 6) == 0) {
		if (*transport) return "only one of tcp, tls, tls=NAME and https=NAME";
		*transport = true;
		s->proto = w[0] == 'h' ? P_HTTPS : w[1] == 'c' ? P_TCP : P_TLS;
		return strchr(w, '=') != NULL ? spec_server(s, strchr(w, '=') + 1) : NULL;
	}
	if (strncmp(w, "pin=", 4) == 0) {
		if (s->npins == MAX_PINS) return "at most 4 pins";
		return pin_parse(s->pins[s->npins], w + 4) ? (s->npins++, NULL) : "the base64 of a SHA-256 (32 bytes) behind pin=";
	}
	if (strncmp(w, "domain=", 7) == 0) {
		w += w[7] == '.' && w[8] != '\0' ? 8 : 7;
		if (host_parse(name, w) == 0 || (strcmp(w, ".") != 0 && w[strspn(w, "0123456789.")] == '\0'))
			return "a host name behind domain=, which stands for itself and all below it: no *, ~, /, comma, quote, address or URL";
		n = name_len(name);
		if (s->domains_len + n > sizeof s->domains) return "fewer domains in one line";
		memcpy(s->domains + s->domains_len, name, n);
		s->domains_len += n;
		return NULL;
	}
	if (strcmp(w, "noverify") == 0) return s->noverify = true, NULL;
	if (strcmp(w, "final") == 0) return s->final = true, NULL;
	return "tcp, tls, tls=NAME, https=NAME, pin=BASE64, noverify, final or domain=SUFFIX";
}

/* The normal form of an upstream line; two lines with the same one are the same upstream to a reload. */
static void spec_print(struct text *t, const struct spec *s) {
	text_add(t, "%s %u%s%s%s%s%s", addr_text(&s->addr), s->priority, s->proto != P_UDP ? " " : "",
	    s->proto != P_UDP ? proto_names[s->proto] : "", s->name[0] ? "=" : "", s->name,
	    s->proto == P_HTTPS && strcmp(s->path, "/dns-query") != 0 ? s->path : "");
	for (unsigned i = 0; i < s->npins; i++) text_add(t, " pin=%s", pin_text(s->pins[i]));
	text_add(t, "%s%s", s->noverify ? " noverify" : "", s->final ? " final" : "");
	for (size_t at = 0; at < s->domains_len; at += name_len(s->domains + at))
		text_add(t, " domain=%s", name_text(s->domains + at));
}

static bool spec_same(const struct spec *a, const struct spec *b) {
	char x[4096] = "", y[4096] = "";
	struct text tx = { .p = x, .size = sizeof x }, ty = { .p = y, .size = sizeof y };
	spec_print(&tx, a);
	spec_print(&ty, b);
	return strcmp(x, y) == 0;
}

static void config_upstream(struct reader *r, char **w) {
	struct spec *s = &r->c->specs[r->c->nspecs];
	const char *expected;
	bool transport = false;
	unsigned before = r->nerrors;
	int64_t priority;

	if (r->c->nspecs == MAX_UPSTREAMS) config_error(r, r->place, "too many upstreams, expected at most %d", MAX_UPSTREAMS);
	memset(s, 0, sizeof *s);
	snprintf(s->place, sizeof s->place, "%s", r->place);
	if ((expected = address_parse(&s->addr, w[0], 0)) != NULL) {
		config_error(r, r->place, "\"%s\" is not an upstream, expected %s", w[0], address_hint(w[0], expected));
		return;
	}
	if (w[1] == NULL) {
		config_error(r, r->place, "\"%s\" has no priority, expected \"%s 1\", say", w[0], w[0]);
		return;
	}
	priority = number(w[1], 1, 65535);
	if (priority < 0)
		config_error(r, r->place, "\"%s\" is not a priority, expected a number, 1 to 65535 (addresses and their names go into a file of hosts)", w[1]);
	s->priority = (unsigned)priority;
	for (w += 2; *w != NULL; w++)
		if ((expected = spec_option(s, *w, &transport)) != NULL)
			config_error(r, r->place, "\"%s\" is wrong here, expected %s", *w, expected);
	if (s->proto < P_TLS && (s->npins > 0 || s->noverify))
		config_error(r, r->place, "pin= and noverify without tls, expected tls or tls=NAME too");
	if (s->noverify && s->npins > 0)
		config_error(r, r->place, "both noverify and pin=, expected only one of them");
	if (r->nerrors != before) return;
	if (addr_port(&s->addr) == 0)
		addr_set_port(&s->addr, s->proto == P_HTTPS ? 443 : s->proto == P_TLS ? 853 : 53);
	r->c->nspecs++;
}

#define MAX_WORDS 128

/* Cuts a line into words up to a comment; NULL ends them. False when there are too many. */
static bool words_split(char *line, char **w) {
	unsigned n = 0;
	for (;;) {
		line += strspn(line, " \t\r\f\v");
		if (*line == '\0' || *line == '#' || (line[0] == '/' && line[1] == '/')) break;
		if (n == MAX_WORDS) return false;
		w[n++] = line;
		line += strcspn(line, " \t\r\f\v");
		if (*line != '\0') *line++ = '\0';
	}
	w[n] = NULL;
	return true;
}

static void config_line(struct reader *r, char *line) {
	char *w[MAX_WORDS + 1], args[256];
	struct text t = { .p = args, .size = sizeof args };
	const char *expected;
	size_t i;

	if (!words_split(line, w)) {
		config_error(r, r->place, "too many words, expected at most %d", MAX_WORDS);
		return;
	}
	if (w[0] == NULL) return;
	if ((w[0][0] >= '0' && w[0][0] <= '9') || strchr(w[0], ':')) {
		config_upstream(r, w);
		return;
	}
	for (i = 0; i < COUNT(directives) && strcmp(directives[i].name, w[0]) != 0; i++)
		;
	if (i == COUNT(directives)) {
		config_error(r, r->place, "\"%s\" is unknown, expected %s", w[0], address_hint(w[0], strchr(w[0], '.') ?
		    "an IP address, for nobody could resolve a name yet" : "an IP address or a directive, a blank, its value (dnsproxy --help)"));
		return;
	}
	expected = directives[i].expected;      /* a blank in what help says of its values: there may be several */
	if (w[1] != NULL && (w[2] == NULL || strchr(directives[i].arg, ' ') != NULL))
		expected = directives[i].set(r->c, &directives[i], w + 1);
	for (size_t k = 1; expected != NULL && w[k] != NULL; k++)
		text_add(&t, "%s%s", k > 1 ? " " : "", w[k]);
	if (expected != NULL)
		config_error(r, r->place, "%s: \"%s\" is not valid, expected %s", w[0], t.len ? args : "", expected);
	else if (strcmp(w[0], "ca-file") == 0 || strcmp(w[0], "user") == 0)
		memcpy(w[0][0] == 'c' ? r->c->ca_place : r->c->user_place, r->place, sizeof r->place);
}

static void config_init(struct config *c, unsigned default_port) {
	if (c->default_port != 0) memset(c, 0, sizeof *c);      /* else it is new, and most of its pages need never be provided */
	c->default_port = default_port;
	for (size_t i = 0; i < COUNT(directives); i++) {
		const struct directive *d = &directives[i];
		char initial[160], *w[MAX_WORDS + 1];
		snprintf(initial, sizeof initial, "%s", d->initial);
		words_split(initial, w);
		if (w[0] != NULL && d->set != set_listen) d->set(c, d, w);
	}
	c->allow_seen = false;
	c->cache_negative = -1;                 /* not given */
}

/* Where the configuration comes from: kept for reloads. */
struct source { const char *file, *command; char **lines; unsigned port; bool debug, test, unread; };

static struct source source;

static void config_file(struct reader *r, const char *path) {
	char line[LINE_MOST + 1];
	unsigned n = 0;
	bool good;
	const char *why;
	FILE *f = file_open(path, r->c == &cfg, &why);

	snprintf(r->place, sizeof r->place, "%.60s", path);
	while (f != NULL && line_next(f, line, &n, &good)) {
		snprintf(r->place, sizeof r->place, "%.60s:%u", path, n);
		if (good)
			config_line(r, line);
		else
			config_error(r, r->place, "a line too long or with a NUL byte, expected text of at most %d bytes", LINE_MOST);
	}
	if (f == NULL || ferror(f)) config_error(r, path, "cannot be read: %s", f == NULL ? why : strerror(errno));
	source.unread = f == NULL || ferror(f);
	if (f != NULL) fclose(f);
}

/* Would a packet to a reach this machine? Then it would leave from that very address. (To bind a socket to it proves nothing:
 * there is net.ipv4.ip_nonlocal_bind.) */
static bool addr_is_own(const struct addr *a) {
	struct addr to = *a, from = *a;
	socklen_t n = sizeof from.u;
	int fd = socket(a->u.sa.sa_family, SOCK_DGRAM, 0);
	bool own;
	own = fd >= 0 && addr_resolve_scope(&to) && connect(fd, &to.u.sa, addr_len(&to)) == 0 &&
	    getsockname(fd, &from.u.sa, &n) == 0 && addr_same_host(&from, a);
	if (fd >= 0) close(fd);
	return own || addr_is_loopback(a);
}

/* What only the whole configuration shows: no upstream, doubles, loops. */
static void config_check(struct reader *r) {
	struct config *c = r->c;
	unsigned i, k;
	size_t n;

	if (c->nlistens == 0)
		set_listen(c, &directives[0], (char *[]){ (char []){ "*" }, NULL });
	if (c->nspecs == 0 && r->nerrors == 0)
		config_error(r, r->place, "no upstream, expected at least one line such as \"9.9.9.9 1 tls=dns.quad9.net\"");
	for (i = 0; i < c->nspecs; i++) {
		const struct spec *s = &c->specs[i];
		const uint8_t *p = addr_bytes(&s->addr, &n);
		if (addr_is_any(&s->addr) || (n == 4 ? p[0] >= 224 : p[0] == 0xff) || addr_unscoped(&s->addr))
			config_error(r, s->place, "%s is no upstream, expected a unicast address, with %%interface if it is link-local", addr_text(&s->addr));
		for (k = 0; k < i; k++) {
			struct spec x = *s;
			x.priority = c->specs[k].priority;
			if (spec_same(&x, &c->specs[k]))
				config_error(r, s->place, "the upstream of %s again, expected each only once", c->specs[k].place);
		}
		for (k = 0; k < c->nlistens; k++) {
			const struct listen_at *l = &c->listens[k];
			if (s->proto < P_TLS && listen_clash(l, &(struct listen_at){ .addr = s->addr }) &&
			    (addr_same_host(&l->addr, &s->addr) || addr_is_own(&s->addr)))
				config_error(r, s->place, "%s is our own listen address, expected another server", addr_text(&s->addr));
		}
	}
	if (c->cache_negative < 0) c->cache_negative = c->serve_stale > 0 ? 60 : 0;
	for (i = 0; !c->admin_off && i < c->nlistens; i++)
		if (listen_clash(&c->listens[i], &(struct listen_at){ .addr = c->admin }))
			config_error(r, r->place, "admin %s is a listen address too, expected another port", addr_text(&c->admin));
	if (c->cache_min_ttl > c->cache_max_ttl)
		config_error(r, r->place, "cache-min-ttl above cache-max-ttl, expected it not above");
}

/* What a start and -t warn of. */
static void spec_warn(const struct spec *s) {
	const char *what = s->noverify ? "encrypted but not authenticated (noverify)" :
	    s->proto < P_TLS && addr_port(&s->addr) == 853 ? "asked in plain DNS at the port of DNS over TLS: is \"tls\" missing?" : NULL;
	if (what != NULL) log_info("warning: upstream %s is %s", addr_text(&s->addr), what);
}

static int config_print(FILE *out, const struct config *c) {
	char buf[8192];
	for (size_t i = 0; i < COUNT(directives) + c->nspecs; i++) {
		struct text t = { .p = buf, .size = sizeof buf };
		buf[0] = '\0';
		if (i < COUNT(directives))
			directives[i].print(&t, c, &directives[i]);
		else {
			spec_print(&t, &c->specs[i - COUNT(directives)]);
			text_add(&t, "\n");
			spec_warn(&c->specs[i - COUNT(directives)]);
		}
		fputs(buf, out);
	}
	return fflush(out) != 0;
}

/* Reads it all. What was chosen goes into "from" (80 bytes). False when errors were added. */
static bool config_read(struct config *c, struct text *errors, char *from) {
	struct reader r = { c, errors, 0, "configuration" };
	const char *ip = getenv("TLS_DNS_IP"), *port = getenv("TLS_DNS_PORT"), *own = getenv("PROXY_PORT");
	const char *file = source.file;
	char line[4096];

	ip = ip && *ip ? ip : NULL;             /* set to nothing is as good as not set */
	port = port && *port ? port : NULL;
	own = own && *own ? own : NULL;
	config_init(c, source.port ? source.port : 53);
	if (file == NULL && source.lines[0] == NULL && access("/etc/dns.config", F_OK) == 0)
		file = "/etc/dns.config";
	snprintf(from, 80, "%.70s", file ? file : "arguments");
	if (file != NULL) config_file(&r, file);
	for (unsigned i = 0; source.lines[i] != NULL; i++) {
		snprintf(r.place, sizeof r.place, "argument:%u", i + 1);
		snprintf(line, sizeof line, "%s", source.lines[i]);
		if (strlen(source.lines[i]) >= sizeof line || strchr(line, '\n'))
			config_error(&r, r.place, "not one line, expected at most 4095 bytes");
		else if (*line != '\0' && *line != '#' && strpbrk(line, " \t") == NULL && address_hint(line, NULL) == NULL) {
			config_error(&r, r.place, "\"%s\" is one word, expected each line or command whole, in quotes, a command behind -a, a file behind -c", line);
			break;
		} else
			config_line(&r, line);
	}
	if (file == NULL && source.lines[0] == NULL) {
		if (own != NULL && source.port == 0) {
			strcpy(r.place, "environment:PROXY_PORT");
			snprintf(line, sizeof line, "listen *@%.20s", own);
			config_line(&r, line);
		}
		strcpy(r.place, ip != NULL ? "environment:TLS_DNS_IP" : "built-in default");
		snprintf(from, 80, ip != NULL ? "environment (TLS_DNS_IP)" : "built-in default");
		snprintf(line, sizeof line, "%.100s@%.20s 1 tls%s", ip ? ip : "1.1.1.1", ip && port ? port : "853", ip ? "" : "=one.one.one.one");
		config_line(&r, line);
		strcpy(line, ip != NULL ? "" : "1.0.0.1 2 tls=one.one.one.one");
		config_line(&r, line);
	}
	config_check(&r);
	if (source.debug) c->level = L_DEBUG;
	return r.nerrors == 0;
}

/* ---- 7 Cache --------------------------------------------------------- */

/* An answer in the ring, behind which lie, in this order: for a marked one which better upstreams had said nothing (32 bits) and
 * the number of answers seen by then (64), the length and bytes of its Extended DNS Errors, and the message with the question in
 * lower case. Lies at a multiple of 4. */
struct entry {
	uint32_t hash, stored, life;            /* ticks: when it came, the low bits; how long it lives */
	uint16_t len;                           /* of the message; 0 where the ring goes on at its beginning */
	uint8_t stored_high, bits, hits, origin;
};
/* The two lowest bits are KEY_DO and KEY_CD. E_ROTATE: several addresses of one name. */
enum { E_AD = 4, E_MARKED = 8, E_EDE = 16, E_USED = 32, E_REFRESH = 64, E_ROTATE = 128 };
enum { MARK_SIZE = 12 };

/* The cache is one block: first the index, then the ring.
 *  - a slot holds the hash and the place (in words, plus one; 0 is empty) of an entry
 *  - an entry's slot is one of the PROBE slots from its hash on: look-ups read those and no more
 *  - entries lie from tail to head in order of arrival; making room takes them from the tail, and those used since they came
 *    are moved to the head once more
 *  - what was replaced, cleared or found useless is in no slot; its bytes lie there until the tail passes */
enum { PROBE = 16, MAX_MOVES = 24, MAX_MOVE_SIZE = 4096 };
struct slot { uint32_t hash, at; };

static struct cache {
	struct slot *slots;
	uint8_t *ring;
	size_t nslots, size, head, tail, used;
	unsigned nring, entries;
	uint64_t inserted, evicted;
	size_t memory;                          /* as configured */
} cache;

struct upstream;
static bool upstream_answered_since(uint32_t mask, uint64_t number);
static uint64_t answers_seen;                   /* counts every valid answer of any upstream */

static void cache_init(size_t memory) {
	uint8_t *block;
	cache.memory = memory;
	if (memory == 0) return;
	block = table_new(1, memory);
	cache.nslots = memory / 64;
	cache.slots = (struct slot *)(void *)block;
	cache.ring = block + cache.nslots * sizeof(struct slot);
	cache.size = (memory - cache.nslots * sizeof(struct slot)) & ~(size_t)3;
}

static struct entry *entry_at(size_t at) { return (struct entry *)(void *)(cache.ring + at); }
static struct entry *slot_entry(const struct slot *s) { return entry_at((size_t)(s->at - 1) * 4); }

static const uint8_t *entry_ede(const struct entry *e, size_t *n) {
	const uint8_t *p = (const uint8_t *)(e + 1) + (e->bits & E_MARKED ? MARK_SIZE : 0);
	*n = e->bits & E_EDE ? get16at(p) : 0;
	return p + (e->bits & E_EDE ? 2 : 0);
}

static uint8_t *entry_msg(const struct entry *e) {
	size_t n;
	const uint8_t *p = entry_ede(e, &n);
	return (uint8_t *)(uintptr_t)p + n;
}

static size_t entry_size(const struct entry *e) {
	return ((size_t)(entry_msg(e) - (const uint8_t *)e) + e->len + 3) & ~(size_t)3;
}

/* Ticks since it came. */
static uint64_t entry_age(const struct entry *e) { return ticks() - ((uint64_t)e->stored_high << 32 | e->stored); }

static bool entry_expired(const struct entry *e) { return entry_age(e) >= e->life; }

/* Is it past any use: expired beyond serve-stale, or marked and its better upstream is back? */
static bool entry_useless(const struct entry *e) {
	uint32_t mask;
	uint64_t number;
	if (entry_age(e) >= e->life + TICKS(cfg.serve_stale)) return true;
	if (!(e->bits & E_MARKED)) return false;
	memcpy(&mask, e + 1, sizeof mask);
	memcpy(&number, (const uint8_t *)(e + 1) + sizeof mask, sizeof number);
	return upstream_answered_since(mask, number);
}

static struct slot *slot_first(uint32_t hash) {
	return &cache.slots[(uint64_t)hash * (cache.nslots - PROBE + 1) >> 32];
}

static struct slot *slot_of(size_t at, uint32_t hash) {
	struct slot *s = slot_first(hash);
	for (unsigned i = 0; i < PROBE; i++)
		if (s[i].at == at / 4 + 1)
			return &s[i];
	return NULL;
}

/* Takes an entry out of the index; its bytes stay until the tail passes. */
static void slot_kill(struct slot *s) {
	cache.entries--;
	cache.used -= entry_size(slot_entry(s));
	s->at = 0;
}

/* Frees the entry at the tail, or moves it to the head; *moves bounds the second. */
static void cache_drop_tail(unsigned *moves) {
	static uint8_t copy[MAX_MOVE_SIZE];
	struct entry *e = entry_at(cache.tail);
	struct slot *s;
	size_t n;

	if (cache.size - cache.tail < sizeof *e || e->len == 0) {
		cache.tail = 0;
		return;
	}
	n = entry_size(e);
	s = slot_of(cache.tail, e->hash);
	cache.tail += n;
	cache.nring--;
	if (s == NULL) return;
	if (entry_useless(e) || *moves == 0 || n > MAX_MOVE_SIZE || !(e->bits & E_USED)) {
		cache.evicted += !entry_useless(e);
		slot_kill(s);
		return;
	}
	--*moves;
	e->bits &= (uint8_t)~E_USED;
	memcpy(copy, e, n);
	if (cache.nring == 0) cache.head = cache.tail = 0;
	memcpy(cache.ring + cache.head, copy, n);
	s->at = (uint32_t)(cache.head / 4 + 1);
	cache.head += n;
	cache.nring++;
}

/* Makes n bytes free at the head, without wrapping. */
static void cache_make_room(size_t n) {
	unsigned moves = MAX_MOVES;

	for (;;) {
		if (cache.nring == 0) cache.head = cache.tail = 0;
		if (cache.nring == 0 || cache.head > cache.tail) {
			if (cache.size - cache.head >= n) return;
			if (cache.size - cache.head >= sizeof(struct entry))
				entry_at(cache.head)->len = 0;
			cache.head = 0;
		} else if (cache.tail - cache.head >= n)
			return;
		else
			cache_drop_tail(&moves);
	}
}

/* The slot of the live entry for key, or NULL. */
static struct slot *cache_find(const struct key *k, uint32_t hash) {
	struct slot *s;

	if (cache.memory == 0) return NULL;
	s = slot_first(hash);
	for (const struct slot *end = s + PROBE; s < end; s++) {
		const struct entry *e;
		const uint8_t *m;
		if (s->hash != hash || s->at == 0) continue;
		e = slot_entry(s);
		m = entry_msg(e) + 12;
		if ((e->bits & (KEY_DO | KEY_CD)) != key_flags(k) || memcmp(m, k->b, k->name_len + 4) != 0)
			continue;
		if (!entry_useless(e)) return s;
		slot_kill(s);
	}
	return NULL;
}

/* A place in the index for hash: an empty slot, else that of a useless or unused entry among the PROBE. */
static struct slot *slot_take(uint32_t hash) {
	struct slot *first = slot_first(hash), *worst = first;

	for (unsigned i = 0; i < PROBE; i++)
		if (first[i].at == 0)
			return &first[i];
	for (unsigned i = 0; i < PROBE; i++) {
		const struct entry *e = slot_entry(&first[i]);
		if (entry_useless(e)) {
			worst = &first[i];
			break;
		}
		if (!(e->bits & E_USED)) worst = &first[i];
	}
	cache.evicted++;
	slot_kill(worst);
	return worst;
}

/* What the cache is told about an answer. */
struct keep { const struct key *key; struct slot *old; uint32_t hash, ttl, silent; uint8_t bits, origin; };

/* Clamps the TTLs of the message of a new entry to "cap", and notes whether it answers with addresses to rotate: several, and of
 * one name. */
static void entry_write_ttls(struct entry *e, const struct key *k, uint32_t cap) {
	uint8_t *m = entry_msg(e);
	unsigned type = key_type(k), answers = get16at(m + 6), n = 0;
	size_t at = 12 + k->name_len + 4, owner, r, first = 0, first_len = 0;
	bool same = type == T_A || type == T_AAAA;

	while (at < e->len) {
		owner = at;
		r = record_next(m, &at);
		put32at(m + r + 4, MIN(MAX(get32at(m + r + 4), (uint32_t)cfg.cache_min_ttl), cap));
		if (answers == 0 || (answers--, get16at(m + r) != type)) continue;
		if (n++ == 0) {
			first = owner;
			first_len = r - owner;
		}
		same &= r - owner == first_len && memcmp(m + owner, m + first, first_len) == 0;
	}
	e->bits |= same && n > 1 ? E_ROTATE : 0;
}

/* Keeps an answer for k->ttl seconds (already clamped, not 0), in place of the old one, if it is still there. silent: the better
 * upstreams that had said nothing, for a marked one. */
static void cache_put(const struct keep *k, const struct answer *a) {
	size_t extra = (k->silent ? MARK_SIZE : 0) + (a->ede_len ? 2 + a->ede_len : 0);
	size_t n = (sizeof(struct entry) + extra + a->len + 3) & ~(size_t)3;
	struct slot *s;
	struct entry *e;
	uint8_t *p;

	if (k->old != NULL && k->old->at != 0) slot_kill(k->old);
	if (cache.memory == 0 || n > cache.size / 8) return;
	cache_make_room(n);
	e = entry_at(cache.head);
	*e = (struct entry){ .hash = k->hash, .stored = (uint32_t)ticks(), .stored_high = (uint8_t)(ticks() >> 32),
		.life = (uint32_t)TICKS(k->ttl), .len = (uint16_t)a->len, .origin = k->origin };
	e->bits = (uint8_t)(key_flags(k->key) | k->bits | (k->silent ? E_MARKED : 0) | (a->ede_len ? E_EDE : 0));
	if (k->silent) {
		memcpy(e + 1, &k->silent, sizeof k->silent);
		memcpy((uint8_t *)(e + 1) + sizeof k->silent, &answers_seen, sizeof answers_seen);
	}
	if (a->ede_len > 0) {
		p = (uint8_t *)(e + 1) + (k->silent ? MARK_SIZE : 0);
		put16at(p, (unsigned)a->ede_len);
		memcpy(p + 2, a->ede, a->ede_len);
	}
	memcpy(entry_msg(e), a->msg, a->len);
	memcpy(entry_msg(e) + 12, k->key->b, k->key->name_len);
	entry_write_ttls(e, k->key, a->positive ? (uint32_t)(k->silent ? MARKED_TTL : cfg.cache_max_ttl) : k->ttl);
	s = slot_take(k->hash);
	s->hash = k->hash;
	s->at = (uint32_t)(cache.head / 4 + 1);
	cache.head += n;
	cache.nring++;
	cache.entries++;
	cache.used += n;
	cache.inserted++;
}

/* Drops what is useless and, with "all" or those of one name or origin (else NULL and -1), what is not. Gives the number of the
 * latter. */
static unsigned cache_sweep(bool all, const uint8_t *name, int origin) {
	unsigned n = 0;

	for (size_t i = 0; cache.memory > 0 && i < cache.nslots; i++) {
		struct slot *s = &cache.slots[i];
		const struct entry *e = s->at != 0 ? slot_entry(s) : NULL;
		if (e == NULL) continue;
		if (entry_useless(e))
			slot_kill(s);
		else if (all || e->origin == origin || (name != NULL && memcmp(entry_msg(e) + 12, name, name_len(name)) == 0)) {
			slot_kill(s);
			n++;
		}
	}
	return n;
}

/* ---- 8 Loop ---------------------------------------------------------- */

/* Everything that is waited for, in two runs: the hot (listeners, upstreams) and behind them the cold (connections of clients,
 * nearly all of them idle). Where the system has epoll the cold are in such a set, and poll() sees one descriptor for all of
 * them: a thousand idle clients cost nothing. *slot is where the owner keeps its place, -1 for none. */
struct watch { void (*ready)(void *owner, short revents); void *owner; int *slot; };

static struct pollfd *polls;
static struct watch *watches;
static int nhot, npolls, max_polls, cold_fd = -1;
static usec wake;                               /* when the loop must turn next; 0 is never */

static void wake_by(usec t) {
	if (wake == 0 || t < wake) wake = MAX(t, 1);
}

/* Is it time for that? If not, the loop turns when it is. */
static bool is_due(usec t) {
	if (t > now) wake_by(t);
	return t <= now;
}

static void watch_move(int from, int to) {
	polls[to] = polls[from];
	watches[to] = watches[from];
	*watches[to].slot = to;
}

/* Tells the set of the cold what becomes of a watch: EPOLL_CTL_ADD, MOD or DEL. False when it has no room for it. */
#ifdef HAVE_EPOLL
static bool cold_set(int *slot, int fd, short events, int what) {
	struct epoll_event e = { .events = (uint32_t)events, .data.ptr = slot };
	return cold_fd < 0 || epoll_ctl(cold_fd, what, fd, &e) == 0;
}

/* Some of the cold are ready. One whose owner has closed it meanwhile has no slot any more. */
static void cold_ready(UNUSED void *owner, UNUSED short revents) {
	struct epoll_event e[BATCH];
	int n = epoll_wait(cold_fd, e, BATCH, 0);
	for (int i = 0; i < n; i++) {
		int slot = *(int *)e[i].data.ptr;
		if (slot >= 0) watches[slot].ready(watches[slot].owner, (short)e[i].events);
	}
}
#else
#define cold_set(slot, fd, events, what) true
#endif

static void watch_add(int *slot, int fd, short events, void (*ready)(void *, short), void *owner, bool cold) {
	bool hot = !cold || !cold_set(slot, fd, events, EPOLL_CTL_ADD);
	int at = hot ? nhot : npolls;
	if (npolls == max_polls)
		abort();                        /* sized for every table at the start */
	if (hot) {
		if (nhot < npolls) watch_move(nhot, npolls);
		nhot++;
	}
	npolls++;
	polls[at] = (struct pollfd){ .fd = fd, .events = events };
	watches[at] = (struct watch){ ready, owner, slot };
	*slot = at;
}

static void watch_events(int slot, short events) {
	if (slot < 0 || polls[slot].events == events) return;
	polls[slot].events = events;
	if (slot >= nhot) (void)cold_set(watches[slot].slot, polls[slot].fd, events, EPOLL_CTL_MOD);
}

static void watch_remove(int *slot) {
	int at = *slot;
	if (at < 0) return;
	if (at >= nhot) (void)cold_set(slot, polls[at].fd, 0, EPOLL_CTL_DEL);
	*slot = -1;
	if (at < nhot) {
		nhot--;
		if (at != nhot) watch_move(nhot, at);
		at = nhot;
	}
	npolls--;
	if (at != npolls) watch_move(npolls, at);
}

static void watch_init(int most) {
	max_polls = most;
	polls = table_new((size_t)most, sizeof *polls);
	watches = table_new((size_t)most, sizeof *watches);
#ifdef HAVE_EPOLL
	static int slot;
	cold_fd = epoll_create1(EPOLL_CLOEXEC);
	if (cold_fd >= 0) watch_add(&slot, cold_fd, POLLIN, cold_ready, NULL, false);
#endif
}

/* One turn: wait, tell each owner. An owner may add and remove watches: a slot that changed hands is looked at again, a new
 * watch has no revents yet, and one that moved to a place already passed is ready in the next turn too. */
static void loop_turn(void) {
	int timeout = wake == 0 ? -1 : wake <= now ? 0 : (int)MIN(wake - now + 999, SEC(2000)) / 1000;
	int n = poll(polls, (nfds_t)(cold_fd >= 0 ? nhot : npolls), timeout);

	clock_read();
	for (int i = 0; n > 0 && i < npolls; ) {
		short r = polls[i].revents;
		polls[i].revents = 0;
		if (r == 0) {
			i++;
			continue;
		}
		n--;
		watches[i].ready(watches[i].owner, r);
	}
}

static int socket_new(int family, int type) {
	return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* ---- 9 Local names --------------------------------------------------- */

/* Names that are answered here, before the cache. */
enum { OWN_MAX = 4096, OWN_TTL = 60 };

/* A message to send, from the cache, fresh or of our own: an entry knows the places of its TTLs, in others they are walked to. */
struct source_msg {
	const uint8_t *msg, *ede;
	size_t len, ede_len;
	const struct entry *entry;              /* NULL when it is not from the cache */
	uint32_t age, cap;                      /* seconds to take off each TTL; what no TTL may exceed */
	unsigned rcode, flags;                  /* flags: those of AA, TC and AD that it has */
};

/* A message of our own, without records so far: the question, or a header alone where there is none. ede: an info code or EDE_NONE.
 * Good until the next one. */
static struct source_msg source_error(const struct key *k, unsigned rcode, int ede) {
	static uint8_t msg[OWN_MAX], option[6] = { 0, EDNS_EDE, 0, 2 };
	size_t n = k->name_len > 0 ? k->name_len + 4 : 0;
	memset(msg, 0, 12);
	msg[5] = n > 0;
	memcpy(msg + 12, k->b, n);
	option[5] = (uint8_t)ede;
	return (struct source_msg){ .msg = msg, .len = 12 + n, .ede = option, .ede_len = ede == EDE_NONE ? 0 : sizeof option,
		.cap = NO_TTL, .rcode = rcode };
}

/* Adds a record of the name, if its type is asked, to a message of our own. What has no room, or is there, is left out. */
static void source_add(struct source_msg *s, const struct key *k, unsigned type, const uint8_t *data, size_t n) {
	const uint8_t head[12] = { 0xc0, 12, 0, (uint8_t)type, 0, 1, 0, 0, 0, OWN_TTL, 0, (uint8_t)n };
	uint8_t *msg = (uint8_t *)(uintptr_t)s->msg;
	if ((key_type(k) != type && key_type(k) != T_ANY) || s->len + sizeof head + n > OWN_MAX)
		return;
	for (size_t at = 12 + k->name_len + 4; at < s->len; at += sizeof head + msg[at + 11])
		if (memcmp(msg + at, head, sizeof head) == 0 && memcmp(msg + at + sizeof head, data, n) == 0) return;
	memcpy(msg + s->len, head, sizeof head);
	memcpy(msg + s->len + sizeof head, data, n);
	s->len += sizeof head + n;
	put16at(msg + 6, get16at(msg + 6) + 1);
}

/* What was read of files. Slots hold keyed hashes in rising order, each at hash * nslots >> 32 or, with no empty slot between,
 * behind that: a look-up ends at the first that is larger, so five of six may be taken. The lowest bit is no part of a hash. */
struct table { uint64_t *slots, depths; uint8_t *records; size_t nslots, size, taken, used, names; };

static size_t table_place(const struct table *t, uint64_t hash) {
	size_t i = (size_t)((hash >> 32) * t->nslots >> 32);
	while (t->slots[i] != 0 && t->slots[i] >> 1 < hash >> 1) i++;
	return i;
}

static void table_put(struct table *t, uint64_t hash) {
	t->taken++;
	for (size_t i = table_place(t, hash); hash != 0; i++) {
		uint64_t next = t->slots[i];
		t->slots[i] = hash;
		hash = next;
	}
}

/* A table and its files. They are read twice, a piece at a time: the first pass counts, so that the second finds the next table
 * in the right size. The present one serves until that is whole. */
static struct list {
	const char *word, *expected;
	const struct list_files *files;
	bool (*line)(struct list *, char **w);  /* false for a broken one */
	bool changes, reading;                  /* changes: files may come, go and change at any time */
	unsigned pass, file, nbad;
	size_t nslots, bytes;                   /* that the first pass found needed */
	struct table table, next;
	uint64_t seen, read;                    /* what tells that the files have changed: when last seen; of those in the table */
	usec seen_at, look_at;                  /* since when they are as seen; when to look again */
	bool asked;                             /* a query has come since */
	char bad[400];                          /* the place of the first broken line */
	unsigned lineno;
	FILE *in;
} hosts, block;

/* True when the files are still as they were when last seen. */
static bool list_still(struct list *l) {
	uint64_t before = l->seen;
	struct stat st;
	l->seen = 0;
	for (unsigned i = 0; i < l->files->n; i++)
		if (stat(l->files->of[i].path, &st) == 0)
			l->seen = (l->seen + i + ((uint64_t)st.st_size << 34) + (uint64_t)st.st_ino + (uint64_t)st.st_ctim.tv_sec * 1000000007 +
			    (uint64_t)st.st_ctim.tv_nsec) * UINT64_C(0x9e3779b97f4a7c15);
	if (l->seen != before) l->seen_at = now;
	return l->seen == before;
}

static void list_end(struct list *l, bool good) {
	struct table old = l->table;
	bool still = list_still(l) || !l->changes || old.slots == NULL; /* else it was written to meanwhile: once more */

	l->in = l->in != NULL ? (fclose(l->in), NULL) : NULL;
	l->reading = false;
	if (still) l->read = l->seen;
	if (good && still) {
		l->table = l->next;
		l->next = old;
		if (l->files->n > 0) log_info("%s: %zu names", l->word, l->table.names);
		if (l->nbad > 0)
			log_error("%s: not a line of \"%s\", expected %s; %u such lines passed over", l->bad, l->word, l->expected, l->nbad);
	}
	if (l->next.slots != NULL) munmap(l->next.slots, l->next.size);
	l->next.slots = NULL;
}

static void list_start(struct list *l) {
	if (l->reading) list_end(l, false);
	list_still(l);
	l->reading = true;
	l->pass = l->file = l->nbad = 0;
	l->nslots = l->bytes = 0;
}

/* Between the passes. The last run of slots may go on behind the end. */
static bool list_size(struct list *l) {
	size_t n = l->nslots + l->nslots / 5 + 1, all = n + l->nslots + 1;
	l->next = (struct table){ .nslots = n, .size = all * sizeof *l->next.slots + l->bytes + 2 * NAME_MAX_WIRE };
	l->next.slots = table_try(1, l->next.size);
	if (l->next.slots == NULL) return log_error("%s: not enough memory; what was known before stays", l->word), false;
	l->next.records = (uint8_t *)(l->next.slots + all);
	return true;
}

/* Some lines, in well under a millisecond, or what comes next. */
static void list_step(struct list *l) {
	const struct list_file *f = &l->files->of[l->file];
	char line[LINE_MOST + 1], *w[MAX_WORDS + 1];
	bool good, more = true;
	const char *why = NULL;

	if (!l->reading) return;
	wake_by(now);
	if (l->file == l->files->n) {
		l->file = 0;
		if (l->pass++ > 0 || !list_size(l)) list_end(l, l->next.slots != NULL);
		return;
	}
	if (l->in == NULL && (l->in = file_open(f->path, false, &why)) != NULL) l->lineno = 0;
	for (int i = 0; l->in != NULL && i < 256 && (more = line_next(l->in, line, &l->lineno, &good)); i++) {
		good = good && words_split(line, w) && (w[0] == NULL || l->line(l, w));
		if (!good && l->pass == 1 && l->nbad++ == 0)
			snprintf(l->bad, sizeof l->bad, "%s:%u", f->path, l->lineno);
	}
	if (l->in == NULL ? errno != ENOENT || !l->changes : ferror(l->in)) {
		log_error("%s %s: cannot be read: %s; what was known before stays", l->word, f->path, why ? why : strerror(errno));
		list_end(l, false);
	} else if (l->in == NULL || !more) {
		l->in = l->in != NULL ? (fclose(l->in), NULL) : NULL;
		l->file++;
	}
}

/* A record of the house: when the lease is over (Unix seconds, 0 is never), the length of the address, whether the reverse name
 * leads here, the address, the name. A slot holds 32 bits of the hash of the name or reverse name, and the place of the record. */
enum { HOST_ALEN = 4, HOST_REVERSE = 5, HOST_ADDR = 6, HOST_MOST = 64 /* addresses of a name */ };

static uint64_t host_hash(const uint8_t *name, size_t n) { return hash_long(name, n) >> 32 << 32 | UINT64_C(1) << 32; }
static const uint8_t *host_at(const struct table *t, size_t slot) { return t->records + (uint32_t)t->slots[slot] / 2 - 1; }
static const uint8_t *host_owner(const uint8_t *h) { return h + HOST_ADDR + h[HOST_ALEN]; }

/* RFC 1035 3.5, RFC 3596 2.5. */
static size_t reverse_name(uint8_t *name, const uint8_t *a, size_t n) {
	char buf[80] = "";
	struct text t = { .p = buf, .size = sizeof buf };
	while (n == 16 && t.len < 64)
		text_add(&t, "%x.%x.", a[15 - t.len / 4] & 15u, a[15 - t.len / 4] >> 4u);
	if (n == 4)
		text_add(&t, "%u.%u.%u.%u.in-addr.arpa", a[3], a[2], a[1], a[0]);
	else
		text_add(&t, "ip6.arpa");
	return name_parse(name, buf);
}

/* The first record of an address has its reverse name; what is there already is not put in again. */
static void host_index(struct table *t, const uint8_t *h, size_t bytes, const uint8_t *name, size_t n, bool reverse) {
	uint64_t hash = host_hash(name, n);
	size_t first = table_place(t, hash);
	for (size_t i = first; t->slots[i] >> 32 == hash >> 32; i++) {
		const uint8_t *x = host_at(t, i);
		if (i == first + HOST_MOST || memcmp(x, h, bytes) == 0 ||
		    (reverse && x[HOST_REVERSE] && memcmp(x + HOST_ALEN, h + HOST_ALEN, 2u + h[HOST_ALEN]) == 0))
			return;
	}
	table_put(t, hash | ((uint64_t)(h - t->records) + 1) * 2);
}

static void host_add(struct list *l, uint32_t until, const uint8_t *addr, size_t alen, const uint8_t *name, size_t n, bool reverse) {
	struct table *t = &l->next;
	uint8_t *h = l->pass == 0 ? NULL : t->records + t->used, back[NAME_MAX_WIRE];
	size_t bytes = HOST_ADDR + alen + n;

	l->nslots += l->pass == 0 ? 1 + reverse : 0;
	l->bytes += l->pass == 0 ? bytes : 0;
	if (l->pass == 0 || t->used + bytes > l->bytes || t->taken + 2 > l->nslots + !reverse)
		return;                         /* the last two: it has grown meanwhile */
	memcpy(h, &until, sizeof until);
	h[HOST_ALEN] = (uint8_t)alen;
	h[HOST_REVERSE] = reverse;
	memcpy(h + HOST_ADDR, addr, alen);
	memcpy(h + HOST_ADDR + alen, name, n);
	t->used += bytes;
	t->names++;
	host_index(t, h, bytes, name, n, false);
	if (reverse && (n = reverse_name(back, addr, alen)) > 0) host_index(t, h, bytes, back, n, true);
}

/* "ADDRESS NAME ...", or of dnsmasq's leases "EXPIRY MAC ADDRESS NAME ID", where "*" is no name and "duid" begins those of IPv6. */
static bool host_line(struct list *l, char **w) {
	const struct list_file *f = &l->files->of[l->file];
	int64_t until = w[1] && w[2] && w[3] ? number(w[0], 0, UINT32_MAX) : -1;
	char *text = until < 0 ? w[0] : w[2], **first = until < 0 ? w + 1 : w + 3;
	size_t alen = strchr(text, ':') ? 16 : 4, n;
	uint8_t addr[16], name[2 * NAME_MAX_WIRE];
	bool good = w[1] != NULL;

	text[strcspn(text, "%")] = '\0';
	if (inet_pton(alen == 16 ? AF_INET6 : AF_INET, text, addr) != 1) return strcmp(w[0], "duid") == 0;
	if (until >= 0) w[4] = NULL;
	if (until >= 0 && strcmp(*first, "*") == 0) return true;
	for (w = first; *w != NULL; w++) {
		char *remark = strchr(*w, '#');         /* it may begin in a word */
		if (remark != NULL) *remark = '\0', w[1] = NULL;
		good &= (n = name_parse(name, *w)) > 1;
		if (n < 2) continue;
		bool longer = f->suffix_len > 0 && n == 2u + name[0] && n - 1 + f->suffix_len <= NAME_MAX_WIRE;
		host_add(l, (uint32_t)MAX(until, 0), addr, alen, name, n, w == first && !longer);
		memcpy(name + n - 1, f->suffix, f->suffix_len);
		if (longer)
			host_add(l, (uint32_t)MAX(until, 0), addr, alen, name, n - 1 + f->suffix_len, w == first);
	}
	return good;
}

/* After a query: have the files changed, and been still for a second? Then they are read. */
static void host_look(struct list *l) {
	if (!l->asked || l->files->n == 0 || l->reading || !is_due(l->look_at)) return;
	l->look_at = now + SEC(1);
	l->asked = !list_still(l) || l->seen != l->read;
	if (l->asked && now - l->seen_at >= SEC(1)) list_start(l);
	if (l->asked) wake_by(l->look_at);
}

static bool host_answer(struct source_msg *s, const struct key *k) {
	static const uint8_t arpa[] = "\4arpa";
	const struct table *t = &hosts.table;
	uint8_t back[NAME_MAX_WIRE];
	size_t n = k->name_len;
	uint64_t hash = t->names ? host_hash(k->b, n) : 0;
	bool found = false, reverse = n > sizeof arpa && memcmp(k->b + n - sizeof arpa, arpa, sizeof arpa) == 0;
	uint32_t until;

	for (size_t i = t->names ? table_place(t, hash) : 0; t->names && t->slots[i] >> 32 == hash >> 32; i++) {
		const uint8_t *h = host_at(t, i), *name = host_owner(h), *addr = h + HOST_ADDR;
		bool own = name_len(name) == n && memcmp(name, k->b, n) == 0;
		memcpy(&until, h, sizeof until);
		if (until != 0 && (int64_t)time(NULL) >= until) continue;
		if (!own && !(reverse && h[HOST_REVERSE] && reverse_name(back, addr, h[HOST_ALEN]) == n && memcmp(back, k->b, n) == 0))
			continue;
		if (!found) *s = source_error(k, NOERROR, EDE_NONE);
		found = true;
		if (own)
			source_add(s, k, h[HOST_ALEN] == 4 ? T_A : T_AAAA, addr, h[HOST_ALEN]);
		else
			source_add(s, k, T_PTR, name, name_len(name));
	}
	return found;
}

/* A slot holds 62 bits of the hash of a name, and whether it is an exception. */
static uint64_t block_hash(const uint8_t *name, size_t n) { return (hash_long(name, n) | 3) ^ 1; }
static uint64_t block_hits;

/* A bit for a number of labels: suffixes of a question with so many as no name of the list has are not looked up. */
static uint64_t depth_bit(unsigned labels) { return UINT64_C(1) << MIN(labels, 63); }

static unsigned name_labels(const uint8_t *name) {
	unsigned n = 0;
	for (; *name != 0; name += 1 + *name) n++;
	return n;
}

static void block_add(struct list *l, const uint8_t *name, size_t n, bool except) {
	struct table *t = &l->next;
	uint64_t hash, *slot;
	l->nslots += l->pass == 0;
	if (l->pass == 0) return;
	hash = block_hash(name, n);
	slot = &t->slots[table_place(t, hash)];
	if (*slot >> 1 == hash >> 1)
		*slot |= except;
	else if (t->taken < l->nslots)          /* else it has grown meanwhile */
		table_put(t, hash | except);
	t->names = t->taken;
	t->depths |= depth_bit(name_labels(name));
}

/* "NAME", "ADDRESS NAME ..." with an address that leads nowhere, "||NAME^", "@@||NAME^"; "!" and "[" begin remarks. */
static bool block_line(struct list *l, char **w) {
	bool except = strncmp(w[0], "@@||", 4) == 0, rule = except || strncmp(w[0], "||", 2) == 0, good = true;
	bool pairs = strcmp(w[0], "0.0.0.0") == 0 || strcmp(w[0], "127.0.0.1") == 0 || strcmp(w[0], "::") == 0 || strcmp(w[0], "::1") == 0;
	size_t n = strlen(w[0]);
	uint8_t name[NAME_MAX_WIRE];

	if (*w[0] == '!' || *w[0] == '[') return true;
	if (rule && w[0][n - 1] == '^') {
		w[0][n - 1] = '\0';
		w[0] += except ? 4 : 2;
	}
	if (!pairs && w[1] != NULL) return false;
	for (w += pairs; *w != NULL; w++) {
		n = host_parse(name, *w);
		if (n < 2)
			good = false;
		else if (!pairs || n > 2u + name[0])    /* localhost and the like stand in such files */
			block_add(l, name, n, except);
	}
	return good;
}

/* Of the names listed the one closest to the question decides. */
static bool block_answer(struct source_msg *s, const struct key *k) {
	static const uint8_t none[16];
	const struct table *t = &block.table;
	const uint8_t *name = k->b;

	for (unsigned labels = t->names > 0 ? name_labels(name) : 0; labels > 0; labels--, name += 1 + *name) {
		if (!(t->depths & depth_bit(labels))) continue;
		uint64_t hash = block_hash(name, k->name_len - (size_t)(name - k->b)), slot = t->slots[table_place(t, hash)];
		if (slot >> 1 != hash >> 1) continue;
		if (slot & 1) return false;
		block_hits++;
		*s = source_error(k, NOERROR, EDE_BLOCKED);
		source_add(s, k, T_A, none, 4);
		source_add(s, k, T_AAAA, none, 16);
		return true;
	}
	return false;
}

static struct list hosts = { .word = "hosts", .expected = "an address and its names", .files = &cfg.hosts, .line = host_line, .changes = true };
static struct list block = { .word = "block", .expected = "a name, an address and names, or ||name^", .files = &cfg.blocks, .line = block_line };

static uint32_t route_domain(const struct key *k);

/* Names that no upstream is to see (rule 14), unless a domain= says otherwise. */
static bool special_answer(struct source_msg *s, const struct key *k) {
	static const struct { const char *name; size_t len; unsigned rcode; } special[] = { { "\011localhost", 11, NOERROR },
		{ "\007invalid", 9, NXDOMAIN }, { "\005onion", 7, NXDOMAIN }, { "\010resolver\004arpa", 15, NOERROR } };
	static const uint8_t four[4] = { 127, 0, 0, 1 }, six[16] = { [15] = 1 };
	size_t i = 0;

	while (i < COUNT(special) && !name_below(k->b, k->name_len, (const uint8_t *)special[i].name, special[i].len))
		i++;
	if (i == COUNT(special) || get16at(k->b + k->name_len + 2) != 1 || route_domain(k) != 0)
		return false;
	*s = source_error(k, special[i].rcode, EDE_NONE);
	if (i == 0) {
		source_add(s, k, T_A, four, 4);
		source_add(s, k, T_AAAA, six, 16);
	}
	return true;
}

/* What answers a question before the cache does, in this order: for the log. NULL: nothing. */
static const char *local_answer(struct source_msg *s, const struct key *k) {
	hosts.asked = true;
	if (get16at(k->b + k->name_len + 2) != 1) return NULL;
	return host_answer(s, k) ? "hosts" : block_answer(s, k) ? "block" : NULL;
}

/* ---- 10 Clients ------------------------------------------------------- */

/* What status counts. One row each, in the order of the first status line; metrics walk the same rows. */
static struct counters { uint64_t queries, hits, misses, stale, refused, limited, failed, dropped, malformed, full; } stats;

/* Latency of answers to clients and of upstreams, in buckets up to these milliseconds and one for the rest. */
static const unsigned bucket_ms[] = { 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000 };
struct histogram { uint64_t bucket[COUNT(bucket_ms) + 1], count; usec sum; };
static struct histogram client_latency;

static void histogram_add(struct histogram *h, usec t) {
	unsigned i = 0;
	while (i < COUNT(bucket_ms) && t > MS(bucket_ms[i])) i++;
	h->bucket[i]++;
	h->count++;
	h->sum += t;
}

/* Where an answer goes. UDP: a listener, the client's address and ours; TCP: a slot of its table and its generation, for
 * the client may be gone by then. */
enum peer_kind { PEER_NONE, PEER_UDP, PEER_TCP };
struct peer {
	enum peer_kind kind;
	unsigned slot, generation;
	union sockaddrs from;
	uint8_t local[16];                      /* the address asked, on a wildcard socket */
	unsigned local_if;
};

static void peer_addr(struct addr *a, const struct peer *p) {
	memset(a, 0, sizeof *a);
	memcpy(&a->u, &p->from, sizeof p->from);
}

struct listener {
	struct addr addr;
	bool wild;                              /* needs IP_PKTINFO to answer from the address asked */
	bool optional, given_up;                /* optional: the IPv6 half of "*" */
	int udp, tcp, udp_slot, tcp_slot;
};
static struct listener listeners[2 * MAX_LISTEN];
static unsigned nlisteners;
static usec listen_retry;                       /* when an address that was not there is tried again; 0 for none */

/* Receives up to n datagrams, or sends n: the number done, or -1 with errno. */
#ifdef HAVE_MMSG
#define batch_receive(fd, v, n) recvmmsg(fd, v, n, MSG_DONTWAIT, NULL)
#define batch_send(fd, v, n) sendmmsg(fd, v, n, MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define batch_receive(fd, v, n) batch_do(fd, v, n, false)
#define batch_send(fd, v, n) batch_do(fd, v, n, true)
static int batch_do(int fd, struct mmsghdr *v, unsigned n, bool out) {
	unsigned i;
	ssize_t r = 0;
	for (i = 0; i < n && (r = out ? sendmsg(fd, &v[i].msg_hdr, MSG_NOSIGNAL) : recvmsg(fd, &v[i].msg_hdr, 0)) >= 0; i++)
		v[i].msg_len = (unsigned)r;
	return i > 0 ? (int)i : (int)r;
}
#endif

/* Headers for n datagrams of up to "size" bytes, which lie that far apart. */
static void batch_init(struct mmsghdr *v, struct iovec *iov, uint8_t *bytes, size_t size, int n) {
	for (int i = 0; i < n; i++, bytes += size) {
		iov[i] = (struct iovec){ bytes, size };
		v[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
}

static bool segments;                           /* the kernel takes apart what leaves as one; not on every way out */

/* Another datagram leaves with those of h, all of one length. */
static void datagram_join(struct msghdr *h, void *control) {
	uint16_t len = (uint16_t)h->msg_iov->iov_len;
	struct cmsghdr *c = (void *)((uint8_t *)control + h->msg_controllen);
	if (h->msg_iovlen++ > 1) return;
	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof len), .cmsg_level = IPPROTO_UDP, .cmsg_type = SEGMENT };
	memcpy(CMSG_DATA(c), &len, sizeof len);
	h->msg_control = control;
	h->msg_controllen += (socklen_t)CMSG_SPACE(sizeof len);
}

/* Sends messages; where the way out does not take several datagrams as one, they leave one by one, from then on. Gives how many are
 * done; if not all, errno is of the next. */
static unsigned datagrams_send(int fd, struct mmsghdr *v, unsigned n) {
	unsigned done = 0;
	while (done < n) {
		struct msghdr *h = &v[done].msg_hdr;
		int r = batch_send(fd, v + done, n - done);
		if (r < 0 && (h->msg_iovlen == 1 || (errno != EIO && errno != EINVAL && errno != EMSGSIZE))) break;
		done += (unsigned)MAX(r, 1);
		if (r >= 0) continue;
		segments = false;
		h->msg_controllen -= (socklen_t)CMSG_SPACE(sizeof(uint16_t));
		for (size_t k = h->msg_iovlen; k > 0; k--, h->msg_iov++) {
			h->msg_iovlen = 1;
			batch_send(fd, v + done - 1, 1);
		}
	}
	return done;
}

#define CONTROL_SIZE (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)))

/* The address a datagram was sent to, out of its control data: one message, the one that listener_open() asks for. */
static void peer_read_local(struct peer *p, struct msghdr *h) {
	const struct cmsghdr *c = CMSG_FIRSTHDR(h);
	const uint8_t *data = c != NULL ? CMSG_DATA(c) : NULL;
	if (c == NULL) return;
	if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
		memcpy(p->local, data + offsetof(struct in6_pktinfo, ipi6_addr), 16);
		memcpy(&p->local_if, data + offsetof(struct in6_pktinfo, ipi6_ifindex), sizeof p->local_if);
	} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
		memcpy(p->local, data + offsetof(struct in_pktinfo, ipi_addr), 4);
}

/* The control data that makes a reply leave from there. */
static void peer_write_local(const struct peer *p, struct msghdr *h, void *control) {
	struct in6_pktinfo six = { .ipi6_ifindex = 0 };
	struct in_pktinfo four = { .ipi_ifindex = 0 };
	bool is6 = p->from.sa.sa_family == AF_INET6;
	size_t n = is6 ? sizeof six : sizeof four;
	struct cmsghdr *c = h->msg_control = control;

	memcpy(&six.ipi6_addr, p->local, 16);
	memcpy(&four.ipi_spec_dst, p->local, 4);
	if (IN6_IS_ADDR_LINKLOCAL(&six.ipi6_addr)) six.ipi6_ifindex = (__typeof__(six.ipi6_ifindex))p->local_if;
	c->cmsg_level = is6 ? IPPROTO_IPV6 : IPPROTO_IP;
	c->cmsg_type = is6 ? IPV6_PKTINFO : IP_PKTINFO;
	c->cmsg_len = (socklen_t)CMSG_LEN(n);
	memcpy(CMSG_DATA(c), is6 ? (const void *)&six : &four, n);
	h->msg_controllen = (socklen_t)CMSG_SPACE(n);
}

/* Replies over UDP on their way out; they leave together, at the latest when the turn ends. Neighbours of one length that go to
 * one socket share a message. */
static struct outbox {
	unsigned n, messages, listener;
	struct mmsghdr v[BATCH];
	struct iovec iov[BATCH];
	struct peer to[BATCH];
	union { size_t align; uint8_t b[CONTROL_SIZE]; } control[BATCH];
	uint8_t buf[BATCH][UDP_SIZE];
} outbox;

static void outbox_flush(void) {
	unsigned done = 0, n = outbox.messages;
	int fd = listeners[outbox.listener].udp;
	while ((done += datagrams_send(fd, outbox.v + done, n - done)) < n && !later(errno) && errno != ENOBUFS)
		stats.dropped += outbox.v[done++].msg_hdr.msg_iovlen;   /* this one cannot be sent; the others can */
	while (done < n) stats.dropped += outbox.v[done++].msg_hdr.msg_iovlen;
	outbox.n = outbox.messages = 0;
}

/* Room for a reply to p; outbox_commit() makes it part of the batch. */
static uint8_t *outbox_room(const struct peer *p) {
	if (outbox.n == BATCH || (outbox.n > 0 && outbox.listener != p->slot)) outbox_flush();
	outbox.listener = p->slot;
	return outbox.buf[outbox.n];
}

static void outbox_commit(const struct peer *p, size_t len) {
	unsigned m = outbox.messages;
	struct iovec *iov = &outbox.iov[outbox.n++];
	struct msghdr *h = &outbox.v[m].msg_hdr, *before = m > 0 ? &outbox.v[m - 1].msg_hdr : NULL;

	iov->iov_len = len;
	if (segments && m > 0 && iov[-1].iov_len == len && before->msg_iovlen < BATCH / 2 &&
	    memcmp(&p->from, &outbox.to[m - 1].from, sizeof *p - offsetof(struct peer, from)) == 0) {
		datagram_join(before, &outbox.control[m - 1]);
		return;
	}
	outbox.messages++;
	outbox.to[m] = *p;
	*h = (struct msghdr){ .msg_name = &outbox.to[m].from, .msg_iov = iov, .msg_iovlen = 1,
		.msg_namelen = p->from.sa.sa_family == AF_INET6 ? sizeof p->from.in6 : sizeof p->from.in };
	if (listeners[p->slot].wild) peer_write_local(p, h, &outbox.control[m]);
}

/* The rest of what a reply depends on, beside the message: who asked and how. */
struct reply_to {
	unsigned id, flags;                     /* as they came */
	bool edns, dnssec_ok, want_ad;
	size_t limit;                           /* bytes the client takes */
	const uint8_t *name;                    /* as the client spelled it */
	size_t name_len;                        /* 0 where no question could be read */
};

/* Lowers every TTL in out, of which n bytes are there. Nothing here is checked: answer_read() has seen the message. */
static void reply_age(uint8_t *out, size_t n, const struct source_msg *s, size_t at) {
	while (at < n) {
		uint8_t *p = out + record_next(out, &at) + 4;
		uint32_t ttl = get32at(p);
		put32at(p, MIN(ttl > s->age ? ttl - s->age : 0, s->cap));
	}
}

/* Turns the addresses of an entry by its number of hits (RFC 1794). Of out n bytes are there. */
static void reply_rotate(uint8_t *out, size_t n, const struct entry *e, size_t at) {
	const uint8_t *m = entry_msg(e);
	unsigned type = get16at(m + at - 4), found = 0;
	size_t from[256], r;
	for (unsigned i = get16at(m + 6); i > 0 && found < COUNT(from); i--)
		if (get16at(m + (r = record_next(m, &at))) == type)
			from[found++] = r + 10;
	for (unsigned i = 0; i < found && from[i] < n; i++)
		memcpy(out + from[i], m + from[(i + e->hits) % found], type == T_A ? 4 : 16);
}

/* Copies what fits of a message into "room" bytes (rule 15): additional records go first, then, of a success and for a client
 * that does not validate, those of the authority; else it is TC=1 with the whole records that do. Gives the length. */
static size_t reply_fit(uint8_t *out, const struct source_msg *s, const struct reply_to *r, size_t room, unsigned *flags) {
	size_t at = 12 + r->name_len + 4, end[3], n = at;
	bool success = answers_type(s->msg, at, get16at(s->msg + at - 4));
	unsigned kept[3] = { 0 }, sections;

	for (unsigned section = 0; section < 3; section++) {
		for (unsigned count = get16at(s->msg + 6 + 2 * section); count > 0; count--) {
			record_next(s->msg, &at);
			if (at > room) continue;
			kept[section]++;
			n = at;
		}
		end[section] = at;
	}
	sections = end[1] <= room ? 2 : success && !r->dnssec_ok && end[0] <= room ? 1 : 3;
	if (sections < 3)
		n = end[sections - 1];
	else
		*flags |= F_TC;
	memcpy(out, s->msg, n);
	for (unsigned section = 0; section < 3; section++)
		put16at(out + 6 + 2 * section, section < sections ? kept[section] : 0);
	return n;
}

/* Writes the reply into out, which has r->limit bytes: the one writer of all. Gives its length. */
static size_t reply_write(uint8_t *out, const struct source_msg *s, const struct reply_to *r) {
	size_t opt = r->edns ? 11 : 0, ede = r->edns ? s->ede_len : 0, n = s->len;
	unsigned rcode = s->rcode > 15 && !r->edns ? SERVFAIL : s->rcode & 15;   /* the rest of it is in the OPT */
	unsigned flags = F_QR | F_RA | (r->flags & (F_OPCODE | F_RD | F_CD)) | s->flags | rcode;

	if (n + opt <= r->limit)
		memcpy(out, s->msg, n);
	else if ((n = reply_fit(out, s, r, r->limit - opt, &flags)) > 0 && (flags & F_TC) && r->limit == MSG_MAX) {
		flags &= ~(unsigned)F_TC;       /* 65,525 bytes and more leave no room for an OPT */
		opt = ede = 0;
		n = s->len;
		memcpy(out, s->msg, n);
	}
	if (n + opt + ede > r->limit) ede = 0;
	if (!r->want_ad || (flags & F_TC)) flags &= ~(unsigned)F_AD;
	if (s->age > 0 || s->cap < NO_TTL) reply_age(out, n, s, 12 + r->name_len + 4);
	if (s->entry != NULL && (s->entry->bits & E_ROTATE))
		reply_rotate(out, n, s->entry, 12 + r->name_len + 4);
	put16at(out, r->id);
	put16at(out + 2, flags);
	memcpy(out + 12, r->name, r->name_len);
	if (opt > 0) {
		put16at(out + 10, get16at(out + 10) + 1);
		n += opt_write(out + n, s->rcode, r->dnssec_ok, s->ede, ede);
	}
	return n;
}

static void reply_to_question(struct reply_to *r, const struct question *q, bool tcp) {
	*r = (struct reply_to){ .id = q->id, .flags = q->flags, .edns = q->edns, .dnssec_ok = q->dnssec_ok, .want_ad = q->want_ad,
		.limit = tcp ? MSG_MAX : !q->edns ? 512 : MIN(MAX(q->edns_size, 512u), (unsigned)UDP_SIZE),
		.name = q->key.name_len > 0 ? q->name : q->key.b, .name_len = q->key.name_len };
}

/* The fixed tables behind "top": sets of four rows, in which a newcomer takes over the row with the fewest. */
struct top { uint64_t who[TOP_SLOTS], count[TOP_SLOTS]; uint8_t what[TOP_SLOTS][NAME_MAX_WIRE + 1]; };
static struct top top_names, top_clients;

static void top_count(struct top *t, uint64_t who, const void *what, size_t n) {
	unsigned set = (unsigned)client_place(who, TOP_SLOTS / 4) * 4, low = set;
	bool known = false;
	for (unsigned i = set; i < set + 4 && !known; i++) {
		known = t->who[i] == who && t->count[i] > 0;
		if (known || t->count[i] < t->count[low]) low = i;
	}
	t->who[low] = who;
	t->count[low]++;
	if (!known) memcpy(t->what[low], what, n);
}

/* "rate": a bucket of tokens a client, in millionths. A client new to a full row of eight shares the first of them. */
struct bucket { uint64_t client; usec at; int64_t tokens; bool odd; };
static struct bucket *buckets;

enum rate_verdict { RATE_OK, RATE_DROP, RATE_TRUNCATE };
static enum rate_verdict rate_check(uint64_t client) {
	struct bucket *b = NULL, *row = &buckets[client_place(client, RATE_SLOTS / 8) * 8];
	int64_t full = cfg.rate * 1000000;

	for (struct bucket *x = row; x < row + 8 && (b == NULL || b->client != client); x++)
		if (x->client == client || (b == NULL && now - x->at > SEC(1)))
			b = x;
	if (b == NULL)
		b = row;
	else if (b->client != client)
		*b = (struct bucket){ .client = client, .at = now, .tokens = full };
	b->tokens = MIN(full, b->tokens + MIN(now - b->at, SEC(1)) * cfg.rate);
	b->at = now;
	if (b->tokens >= 1000000) {
		b->tokens -= 1000000;
		return RATE_OK;
	}
	stats.limited++;
	b->odd = !b->odd;
	return b->odd ? RATE_DROP : RATE_TRUNCATE;
}

static bool query_ask(const struct peer *p, const struct question *q, uint32_t hash, bool *stale_now);
static bool query_refresh(const struct key *k, uint32_t hash);

/* The message of an entry as it goes out now: aged, or, past its life, as stale (RFC 8767 4). */
static struct source_msg entry_source(const struct entry *e, bool stale) {
	static const uint8_t stale_option[6] = { 0, EDNS_EDE, 0, 2, 0, EDE_STALE };
	struct source_msg s = { .msg = entry_msg(e), .len = e->len, .entry = e, .cap = stale ? STALE_TTL : NO_TTL,
		.age = stale ? 0 : ticks_seconds((uint32_t)entry_age(e)), .rcode = get16at(entry_msg(e) + 2) & 15,
		.flags = e->bits & E_AD ? F_AD : 0, .ede = stale_option, .ede_len = sizeof stale_option };
	if (!stale) s.ede = entry_ede(e, &s.ede_len);
	return s;
}

/* Where a reply is written to; reply_commit() sends it off with the rest of the turn. NULL when a TCP client is gone. */
static uint8_t *reply_room(const struct peer *p);
static void reply_commit(const struct peer *p, size_t n);

static void client_reply(const struct peer *p, const struct source_msg *s, const struct reply_to *r) {
	uint8_t *out = reply_room(p);
	if (out != NULL) reply_commit(p, reply_write(out, s, r));
}

/* An RCODE of our own; F_TC may be in it. */
static void client_error(const struct peer *p, const struct question *q, unsigned rcode, int ede) {
	struct source_msg s = source_error(&q->key, rcode & ~(unsigned)F_TC, ede);
	struct reply_to r;
	s.flags = rcode & F_TC;
	reply_to_question(&r, q, p->kind == PEER_TCP);
	client_reply(p, &s, &r);
}

/* A hit: the reply, and where the entry is popular and nearly over, a query of our own to renew it. */
static void client_hit(const struct peer *p, struct slot *slot, const struct question *q, uint32_t hash, const struct reply_to *r) {
	struct entry *e = slot_entry(slot);
	struct source_msg s = entry_source(e, false);
	e->bits |= E_USED;
	e->hits = e->hits < 255 ? e->hits + 1 : 128;    /* a power of two: most rotations do not notice */
	client_reply(p, &s, r);
	stats.hits++;
	client_latency.bucket[0]++;
	client_latency.count++;
	if (e->hits > 2 && !(e->bits & E_REFRESH) && entry_age(e) + MAX(e->life / 10, TICKS(1)) >= e->life && query_refresh(&q->key, hash))
		e->bits |= E_REFRESH;
}

static void client_log(const struct peer *p, const struct question *q, const char *what) {
	struct addr a;
	if (log_level < L_DEBUG) return;
	peer_addr(&a, p);
	log_debug("query from %s id %u %s %s: %s", addr_text(&a), q->id, q->key.name_len ? name_text(q->key.b) : "-",
	    q->key.name_len ? type_text(key_type(&q->key)) : "-", what);
}

/* May the question be answered, as far as that is not for upstreams to say? What may not has had its reply, if it deserves one. */
static bool client_admit(const struct peer *p, const struct question *q, const struct addr *a, int rcode) {
	enum rate_verdict rate = RATE_OK;

	if (!addr_in(a, cfg.allows, cfg.nallows)) {
		stats.refused++;
		client_log(p, q, "refused, the client is not allowed");
		client_error(p, q, REFUSED, EDE_NONE);   /* no longer than what was asked */
		return false;
	}
	stats.queries++;
	if (cfg.rate > 0 && p->kind == PEER_UDP) rate = rate_check(addr_client(a));
	if (rate == RATE_TRUNCATE) client_error(p, q, NOERROR | F_TC, EDE_NONE);
	if (rate != RATE_OK) return false;
	if (rcode != NOERROR) {
		stats.malformed += rcode == FORMERR;
		stats.refused += rcode == REFUSED;
		client_log(p, q, rcode_text((unsigned)rcode));
		client_error(p, q, (unsigned)rcode, EDE_NONE);
	}
	return rcode == NOERROR;
}

/* Everything a client sends comes through here: it is answered now, or by a query later, or dropped. */
static void client_ask(const struct peer *p, const uint8_t *msg, size_t len) {
	struct source_msg s;
	struct question q;
	int rcode = question_read(&q, msg, len);
	struct reply_to r;
	struct addr a;
	struct slot *slot;
	const char *here;
	uint32_t hash;
	bool stale_now;

	stats.dropped += rcode < 0;
	if (rcode < 0) return;
	peer_addr(&a, p);
	if (!client_admit(p, &q, &a, rcode)) return;
	hash = hash_bytes(q.key.b, q.key.len);
	top_count(&top_names, hash, q.key.b, q.key.name_len);
	top_count(&top_clients, addr_client(&a), &a, sizeof a);
	reply_to_question(&r, &q, p->kind == PEER_TCP);
	here = local_answer(&s, &q.key);
	slot = here == NULL ? cache_find(&q.key, hash) : NULL;
	if (slot != NULL && !entry_expired(slot_entry(slot))) {
		client_log(p, &q, "hit");
		client_hit(p, slot, &q, hash, &r);
		return;
	}
	if (here == NULL && special_answer(&s, &q.key))  /* they are in no cache, so its hits need not wait for this */
		here = "a special name";
	client_log(p, &q, here ? here : "miss");
	if (here != NULL) {
		s.flags = F_AA;
		client_reply(p, &s, &r);
		histogram_add(&client_latency, 0);
		return;
	}
	stats.misses++;
	stale_now = slot != NULL;
	if (!query_ask(p, &q, hash, &stale_now)) {
		stats.failed++;
		client_error(p, &q, SERVFAIL, EDE_NETWORK);
	} else if (stale_now && (slot = cache_find(&q.key, hash)) != NULL) {
		s = entry_source(slot_entry(slot), true);
		stats.stale++;
		client_reply(p, &s, &r);
	}
}

static uint8_t inbox[BATCH][2048];              /* what came in this system call; upstreams' datagrams use it too */

static void listener_udp_ready(void *owner, UNUSED short revents) {
	static struct mmsghdr v[BATCH];
	static struct iovec iov[BATCH];
	static struct peer peers[BATCH];
	static union { size_t align; uint8_t b[CONTROL_SIZE]; } control[BATCH];
	static unsigned last = MAX_LISTEN * 2;  /* the listener of the last call, */
	static int used;                        /* and how many headers it has written to */
	struct listener *l = owner;
	int n;

	if (last != (unsigned)(l - listeners)) used = BATCH;
	last = (unsigned)(l - listeners);
	batch_init(v, iov, inbox[0], sizeof inbox[0], used);
	for (int i = 0; i < used; i++) {
		struct msghdr *h = &v[i].msg_hdr;
		h->msg_name = &peers[i].from;
		h->msg_namelen = sizeof peers[i].from;
		h->msg_control = l->wild ? &control[i] : NULL;
		h->msg_controllen = l->wild ? CONTROL_SIZE : 0;
	}
	n = batch_receive(l->udp, v, BATCH);
	used = n > 0 ? n : 0;
	for (int i = 0; i < n; i++) {
		struct peer *p = &peers[i];
		size_t len = MIN(v[i].msg_len, QUERY_MAX);
		p->kind = PEER_UDP;
		p->slot = last;
		if (v[i].msg_hdr.msg_namelen == 0 || (p->from.sa.sa_family == AF_INET6 ? p->from.in6.sin6_port : p->from.in.sin_port) == 0) {
			stats.dropped++;        /* port 0 cannot be answered */
			continue;
		}
		if (l->wild) peer_read_local(p, &v[i].msg_hdr);
		client_ask(p, inbox[i], len);
	}
}

/* Replies to TCP clients on their way out lie in chains of these. */
struct out_block { struct out_block *next; unsigned at, len; uint8_t b[16384 - sizeof(void *) - 8]; };

/* A client's TCP connection. "in" holds what has come of the next queries; replies gather in blocks of the pool and leave when the
 * turn ends. Two lists in order of last activity: of clients that nobody owes anything, who go first when all places are taken,
 * and of the others. */
struct tcp_client {
	struct node lru, sending, dirty;        /* sending: in order of when they began to hold blocks */
	int fd, slot;
	unsigned generation, waiting, nout;     /* waiting: answers owed; nout: blocks */
	bool eof, stopped;                      /* stopped: not read until less is owed and queued */
	usec active;
	struct peer peer;
	size_t in_len, skip;                    /* skip: bytes left of a message too long to keep */
	struct out_block *out, *out_last;
	uint8_t in[2 + QUERY_MAX];
};
#define TCP_IDLE SEC(15)

static struct tcp_client *tcp_clients;           /* the pool as an array */
static struct node tcp_idle = { &tcp_idle, &tcp_idle }, tcp_owed = { &tcp_owed, &tcp_owed }, tcp_sending = { &tcp_sending, &tcp_sending },
	tcp_dirty = { &tcp_dirty, &tcp_dirty };
static struct pool tcp_pool, out_blocks;
static size_t tcp_most;                         /* tcp-clients, or what descriptors allow */

static void out_block_free(struct tcp_client *c) {
	struct out_block *b = c->out;
	c->out = b->next;
	pool_give(&out_blocks, b);
	if (--c->nout == 0) list_remove(&c->sending);
}

static void tcp_client_close(struct tcp_client *c) {
	if (c->fd < 0) return;
	watch_remove(&c->slot);
	close(c->fd);
	c->fd = -1;
	c->generation++;
	while (c->out != NULL) out_block_free(c);
	list_remove(&c->lru);
	pool_give(&tcp_pool, c);
}

/* Somebody must go: who waits for us only when there is nobody else. False when there is nobody. */
static bool tcp_evict(void) {
	struct node *list = !list_empty(&tcp_idle) ? &tcp_idle : &tcp_owed;
	if (list_empty(list)) return false;
	tcp_client_close(OWNER(list->next, struct tcp_client, lru));
	return true;
}

static void tcp_client_touch(struct tcp_client *c) {
	c->active = now;
	list_remove(&c->lru);
	list_append(c->waiting > 0 ? &tcp_owed : &tcp_idle, &c->lru);
}

static void tcp_client_events(struct tcp_client *c) {
	watch_events(c->slot, (short)((c->eof || c->stopped ? 0 : POLLIN) | (c->out != NULL ? POLLOUT : 0)));
}

/* Is so much owed to it, and on its way, that it must wait before it may ask again? An answer counts as 4 kB until it is there. */
static bool tcp_client_choked(const struct tcp_client *c) { return c->waiting + 4 * c->nout > 64; }

/* Its turn comes when this one of the loop ends: see tcp_flush_dirty(). */
static void tcp_client_mark(struct tcp_client *c) {
	if (!list_on(&c->dirty)) list_append(&tcp_dirty, &c->dirty);
}

/* Sends what it can. A client that is done is closed, and one that may ask again will. */
static void tcp_client_flush(struct tcp_client *c) {
	bool had = c->out != NULL;

	while (c->out != NULL) {
		struct out_block *b = c->out;
		ssize_t r = send(c->fd, b->b + b->at, b->len - b->at, MSG_NOSIGNAL | (b->next != NULL ? MSG_MORE : 0));
		if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
		if (r < 0 && errno != EINTR) {
			tcp_client_close(c);
			return;
		}
		b->at += (unsigned)MAX(r, 0);
		if (b->at == b->len) out_block_free(c);
	}
	if (had && c->out == NULL) tcp_client_touch(c);
	if (c->stopped && !tcp_client_choked(c)) {
		c->stopped = false;
		tcp_client_mark(c);
	}
	if (c->eof && c->waiting == 0 && c->out == NULL)
		tcp_client_close(c);
	else
		tcp_client_events(c);
}

/* A block for a client. When all are taken, what can be sent is; if that frees none, who has kept one longest goes. */
static bool out_block_new(struct tcp_client *c) {
	struct out_block *b;

	for (struct node *x = tcp_sending.next, *next; pool_empty(&out_blocks) && x != &tcp_sending; x = next) {
		next = x->next;
		if (OWNER(x, struct tcp_client, sending) != c)
			tcp_client_flush(OWNER(x, struct tcp_client, sending));
	}
	if (pool_empty(&out_blocks)) {
		stats.full++;
		tcp_client_close(OWNER(tcp_sending.next, struct tcp_client, sending));
	}
	if (c->fd < 0) return false;
	b = pool_take(&out_blocks);
	b->next = NULL;
	b->at = b->len = 0;
	if (c->nout++ == 0) {
		c->out = b;
		list_append(&tcp_sending, &c->sending);
	} else
		c->out_last->next = b;
	c->out_last = b;
	return true;
}

static uint8_t tcp_reply[2 + MSG_MAX];          /* the one that is being written, behind its length */

static void tcp_client_commit(struct tcp_client *c, size_t n) {
	put16at(tcp_reply, (unsigned)n);
	for (size_t at = 0, k; at < 2 + n; at += k) {
		if ((c->out == NULL || c->out_last->len == sizeof c->out->b) && !out_block_new(c))
			return;
		k = MIN(2 + n - at, sizeof c->out->b - c->out_last->len);
		memcpy(c->out_last->b + c->out_last->len, tcp_reply + at, k);
		c->out_last->len += (unsigned)k;
	}
	tcp_client_mark(c);
}

static uint8_t *reply_room(const struct peer *p) {
	if (p->kind == PEER_UDP) return outbox_room(p);
	return tcp_clients[p->slot].generation == p->generation ? tcp_reply + 2 : NULL;
}

static void reply_commit(const struct peer *p, size_t n) {
	if (p->kind == PEER_UDP)
		outbox_commit(p, n);
	else
		tcp_client_commit(&tcp_clients[p->slot], n);
}

/* Takes the whole messages out of "in". */
static void tcp_client_take(struct tcp_client *c) {
	size_t at = 0, len;

	while (c->fd >= 0 && !c->stopped && c->in_len - at >= 2) {
		len = get16at(c->in + at);
		if (len < 12) {                 /* no message is so short: the framing is lost */
			stats.dropped++;
			tcp_client_close(c);
			return;
		}
		if (len > QUERY_MAX ? c->in_len - at < 2 + 12 : c->in_len - at < 2 + len) break;
		if (tcp_client_choked(c)) tcp_client_flush(c);
		if (c->fd < 0) return;
		c->stopped = tcp_client_choked(c);
		if (c->stopped) break;
		at += 2;
		if (len > QUERY_MAX) c->skip = len - (c->in_len - at);
		client_ask(&c->peer, c->in + at, len > QUERY_MAX ? 12 : len);   /* what is too long is refused by its header */
		at = len > QUERY_MAX ? c->in_len : at + len;
		if (c->fd >= 0) tcp_client_touch(c);
	}
	if (c->fd < 0) return;
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
}

static void tcp_client_ready(void *owner, short revents) {
	struct tcp_client *c = owner;
	ssize_t r;

	tcp_client_mark(c);
	if (c->eof || c->stopped) {
		if (revents & (POLLHUP | POLLERR)) tcp_client_close(c);
		return;
	}
	r = c->skip > 0 ? recv(c->fd, inbox, MIN(c->skip, sizeof inbox), 0) :
	    recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, 0);
	if (r < 0) {
		if (!later(errno)) tcp_client_close(c);
	} else if (r == 0)
		c->eof = true;
	else if (c->skip > 0)
		c->skip -= (size_t)r;
	else {
		c->in_len += (size_t)r;
		tcp_client_take(c);
	}
}

/* When a turn ends: what gathered leaves. What a stopped client had sent before is taken up again. */
static void tcp_flush_dirty(void) {
	while (!list_empty(&tcp_dirty)) {
		struct tcp_client *c = OWNER(tcp_dirty.next, struct tcp_client, dirty);
		list_remove(&c->dirty);
		if (c->fd >= 0) tcp_client_flush(c);
		if (c->fd >= 0 && !c->stopped && c->in_len > 2) tcp_client_take(c);
		if (c->fd >= 0) tcp_client_events(c);
	}
}

/* Who waits at a door cannot come in, and it is for want of no descriptor that somebody else had: it stays shut for a moment. */
static usec accept_rest;
static void accept_pause(int *slot) {
	static usec warned;
	if (log_now(&warned)) log_error("TCP clients wait: %s", strerror(errno));
	watch_events(*slot, 0);
	if (errno == EINVAL) watch_remove(slot);        /* it does not listen any more: somebody ended it, as ss -K does */
	accept_rest = now + MS(100);
}

static bool accept_impossible(void) { return !later(errno) && errno != ECONNABORTED; }

static void listener_tcp_ready(void *owner, UNUSED short revents) {
	struct listener *l = owner;
	struct tcp_client *c;
	struct peer p = { .kind = PEER_TCP };
	int fd, on = 1;

	for (socklen_t i = 0, n = sizeof p.from; i < 16; i++, n = sizeof p.from) {
		fd = accept4(l->tcp, &p.from.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && accept_impossible() && (errno != EMFILE || !tcp_evict())) accept_pause(&l->tcp_slot);
		if (fd < 0) return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		if (pool_empty(&tcp_pool)) {
			stats.full++;
			tcp_evict();
		}
		c = pool_take(&tcp_pool);
		c->fd = fd;
		c->lru.next = NULL;
		c->in_len = c->skip = 0;
		c->waiting = 0;
		c->eof = c->stopped = false;
		c->peer = p;
		c->peer.slot = (unsigned)(c - tcp_clients);
		c->peer.generation = c->generation;
		tcp_client_touch(c);
		watch_add(&c->slot, fd, POLLIN, tcp_client_ready, c, true);
	}
}

static void clients_init(void) {
	pool_init(&tcp_pool, tcp_most, sizeof *tcp_clients);
	tcp_clients = pool_at(&tcp_pool, 0);
	pool_init(&out_blocks, OUT_BLOCKS, sizeof(struct out_block));
	buckets = table_new(RATE_SLOTS, sizeof *buckets);
	batch_init(outbox.v, outbox.iov, outbox.buf[0], UDP_SIZE, BATCH);
}

/* Closes who has been silent, half-way or not reading for too long, and waits for nothing. */
static void tcp_sweep(struct node *list) {
	while (!list_empty(list)) {
		struct tcp_client *c = OWNER(list->next, struct tcp_client, lru);
		if (!is_due(c->active + TCP_IDLE)) break;
		if (c->waiting > 0 && c->out == NULL)
			tcp_client_touch(c);    /* it is we who are silent; a query's life has an end */
		else
			tcp_client_close(c);
	}
}

/* ---- 11 Queries ------------------------------------------------------ */

enum { LATE_MALFORMED = RESENDS - 1, LATE_LISTS };       /* the last list: of asks whose answer is malformed */

/* Whether an upstream answers, by kind of question (rule 6): all of them, and each kind by itself. */
enum question_kind { K_ALL, K_A, K_AAAA, K_HTTPS, K_REST, KINDS };
static const char *const kind_words[KINDS] = { "", " for A", " for AAAA", " for HTTPS and SVCB", " for types beside A, AAAA and HTTPS" };

static enum question_kind key_kind(const struct key *k) {
	unsigned type = key_type(k);
	return type == T_A ? K_A : type == T_AAAA ? K_AAAA : type == T_HTTPS || type == T_SVCB ? K_HTTPS : K_REST;
}

struct liveness {
	unsigned unanswered;                    /* queries in a row */
	bool down, told;                        /* told: in the log */
	usec asked, fell;                       /* when last; asked: for the one question a second of what is down */
};

/* An upstream in use. Its slot stays the same over reloads while its line does. */
struct upstream {
	bool used;
	struct spec spec;
	struct liveness lives[KINDS];
	uint64_t seq;                           /* answers_seen at its last NOERROR or NXDOMAIN */
	bool private_net, ad_believed;          /* rules 12 and 11 */
	bool knows_edns;                        /* it has answered with an OPT */
	usec no_edns_until;                     /* it cannot do EDNS (rule 16); 0 when it can */
	uint8_t origin;
	uint64_t sent, answered, won, failed, strays, connects, resumed;
	usec rtt, rttvar;                       /* smoothed, and its deviation; 0 before the first answer */
	unsigned patience;                      /* how many 32nds of the deviation an answer may be late */
	unsigned backoff;                       /* doublings of all that for new questions, until one sent once is answered */
	struct node late[LATE_LISTS];           /* asks that wait for the next resend, by how many they have had */
	struct histogram latency;
	struct port *port;                      /* the one that new queries may join */
	struct node streams, line;              /* connections; asks that wait for one */
	unsigned nstreams, bodies;              /* bodies: answers over HTTP/2 that have come in part */
	bool alone;                             /* a question is asked alone, or is to be */
	unsigned fails, idle_ends;              /* tries in a row that brought no answer; idle connections that ended */
	unsigned quota, window, requests;       /* most questions a connection, in its life and at a time; as HTTP/2 said last, or 0 */
	usec open_after, warm_at, pace;         /* no connection before; one though nobody asks, 0 for none; usual wait for an answer */
	usec heard;                             /* its last answer */
	char trouble[320], reason[320];         /* the last failure of a connection that was logged; the last one */
	const char *broken;                     /* what was wrong in a connection that had stood, as last logged */
	br_ssl_session_parameters session;      /* of the last good handshake, under this very line */
	bool has_session;
	bool all_suites;                        /* it has said that it has none of those for machines with AES instructions */
	int64_t session_from, session_until;    /* Unix seconds: when its certificates are valid */
};

static struct upstream upstreams[MAX_UPSTREAMS];
static uint8_t order[MAX_UPSTREAMS];            /* the used ones, best priority first */
static unsigned norder;
static struct addr origins[ORIGINS];            /* by the number that entries of the cache carry */
static unsigned norigins;

static bool upstream_down(const struct upstream *u, enum question_kind kind) { return u->lives[K_ALL].down || u->lives[kind].down; }

/* One that is down is asked at most once a second. */
static bool upstream_due(const struct upstream *u, enum question_kind kind) {
	return !(u->lives[K_ALL].down && now - u->lives[K_ALL].asked < SEC(1)) &&
	    !(u->lives[kind].down && now - u->lives[kind].asked < SEC(1));
}

#define RTO_FIRST MS(350)                       /* before the first answer */
#define RTO_MIN MS(20)

/* When an answer is late (RFC 6298 2). */
static usec upstream_rto(const struct upstream *u) {
	return u->rtt == 0 ? RTO_FIRST : MAX(u->rtt + MAX(u->rttvar * u->patience / 32, MS(5)), RTO_MIN);
}

/* Learns from the answer to a question that was sent once. One that only a back-off has waited for begins anew: the way is
 * another. */
static void upstream_learn(struct upstream *u, usec took) {
	usec off = took - u->rtt;
	if (u->rtt == 0 || took > 2 * upstream_rto(u)) {
		u->rttvar = took / 2;
		u->rtt = MAX(took, 1);
	} else {
		u->rttvar += ((off < 0 ? -off : off) - u->rttvar) / 16;
		u->rtt = MAX(u->rtt + off / 8, 1);
	}
	u->backoff = 0;
}

/* A question that was sent again is answered; vain: the first datagram was not lost, only late. Where much is lost nearly as many
 * resends may be in vain as are needed, where nothing is nearly none. */
static void upstream_weigh(struct upstream *u, usec took, bool vain) {
	u->patience = vain ? MIN(u->patience + 5, 128u) : MAX(u->patience - 4, 48u);
	while (vain && upstream_rto(u) << u->backoff <= took) u->backoff++;
}

static bool upstream_answered_since(uint32_t mask, uint64_t number) {
	for (unsigned i = 0; mask != 0; i++, mask >>= 1)
		if ((mask & 1) && upstreams[i].seq > number)
			return true;
	return false;
}

enum ask_state { ASK_DONE, ASK_WAIT, ASK_SKIPPED /* its upstream is down and not due */ };
enum { BARE_SILENCE = 254, BARE_KNOWN = 255 };
enum { SILENT_RESENDS = 3 };                    /* from this one on it may be EDNS that keeps an upstream silent */

/* A query at one upstream. It may be open in several datagrams and on a stream at once: the first answer counts. */
struct ask {
	struct node on;                         /* of the stream that carries it */
	struct node late;                       /* of its upstream's lists of those that are to be sent again */
	struct query *q;
	struct ask *next;                       /* of the query, by priority */
	struct ask *next_id;                    /* in the table of IDs of streams */
	struct sending *sendings;               /* the latest first */
	struct stream *stream;
	const char *why;                        /* what went wrong */
	usec sent, took, since;                 /* since: when it came on the list "late" */
	usec written;                           /* to its stream; in the line: when it may leave it */
	uint16_t id, rcode, ancount;            /* id: on streams */
	uint32_t request, age;                  /* its HTTP stream; of its answer, in HTTP's caches: seconds */
	uint8_t up, state, verdict;
	uint8_t resends, backoff;               /* how often it was sent again; its upstream's at the first time */
	uint8_t bare;                           /* the RCODE for which it is asked without EDNS, or one of these; 0: with it */
	uint8_t ends;                           /* connections and ports that refused this, or ended with it as their oldest question */
	bool charged;
	bool alone;                             /* it may hold up others: it gets a connection for itself */
	bool doubted;                           /* somebody guessed IDs: TCP was asked too */
};

/* A client that waits for a query. Kept also by client, in order of birth: see struct holder. */
struct waiter {
	struct node of_query, of_holder;
	struct query *q;
	struct holder *holder;
	struct peer peer;
	usec born;
	struct reply_to to;                     /* without the name */
	bool mixed;
	uint8_t upper[32];                      /* which letters of the name the client wrote in upper case */
};

/* A client with queries in flight. holders_by[n] lists those that hold n. */
struct holder { struct node of_count; uint64_t client; unsigned count; struct node waiters; struct holder *next; };

/* One question in flight. Lives from query_new() to query_free(). It is in the table of questions by hash, and on one of
 * the lists "stages" until its life is over; every list is in order of birth and has one delay, so heads are deadlines. */
struct query {
	struct node staged, patient, lingering;
	struct query *next;                     /* same place in the table, or free */
	struct key key;
	uint32_t hash;
	usec born, patient_since;
	struct node waiters;
	bool active, starting, replied, probe, stale_ok;
	bool cached;                            /* the cache may have something for it; what comes there is its own answers */
	unsigned admin, admin_generation;       /* who asked, for a probe */
	enum verdict best_verdict;
	struct ask *asks, *best;                /* best: the one with the best answer so far, or NULL */
	struct answer *held;                    /* that answer, its message behind it, while somebody waits */
};

enum { STAGE_STALE, STAGE_RESEND, STAGE_END, STAGES };
static struct node stages[STAGES], patient = { &patient, &patient }, lingering = { &lingering, &lingering };

static struct pool queries, asks, waiters, holders;
static struct query **query_table;
static unsigned query_table_mask;
static struct holder **holder_table;
static struct node *holders_by;
static unsigned holders_most;
static struct pool held_small, held_big;
static struct query *held_big_of[HELD_BIG];
static bool rechoose;                           /* an upstream went down: look at every query again */

static void query_choose(struct query *q);
static void ask_send(struct ask *a, unsigned n);
static void ask_stop(struct ask *a);
static void ask_over_stream(struct ask *a);
static void stream_doubt(struct stream *s, usec written);
static void stream_keepalive(struct stream *s, unsigned timeout);
static void probe_hear(const struct ask *k, const struct answer *ans);
static void probe_done(struct query *q);

static void query_init(void) {
	size_t n = (size_t)cfg.queries;

	pool_init(&queries, n, sizeof(struct query));
	pool_init(&asks, n * MAX_UPSTREAMS, sizeof(struct ask));
	pool_init(&waiters, n, sizeof(struct waiter));
	pool_init(&holders, n, sizeof(struct holder));
	holders_by = table_new(n + 1, sizeof *holders_by);
	pool_init(&held_small, n, sizeof(struct answer) + UDP_SIZE);
	pool_init(&held_big, HELD_BIG, sizeof(struct answer) + MSG_MAX + 1);
	for (query_table_mask = 1; query_table_mask < 2 * n; query_table_mask *= 2)
		;
	query_table = table_new(query_table_mask, sizeof *query_table);
	holder_table = table_new(query_table_mask, sizeof *holder_table);
	query_table_mask--;
	for (size_t i = 0; i <= n; i++) list_init(&holders_by[i]);
	for (unsigned i = 0; i < STAGES; i++) list_init(&stages[i]);
}

static struct holder **holder_place(uint64_t client) {
	struct holder **h = &holder_table[client_place(client, query_table_mask + 1)];
	while (*h != NULL && (*h)->client != client) h = &(*h)->next;
	return h;
}

/* Moves a holder to the list of its new count; the most anyone holds is kept up to date. */
static void holder_recount(struct holder *h, int by) {
	list_remove(&h->of_count);
	h->count = (unsigned)((int)h->count + by);
	if (h->count > 0) list_append(&holders_by[h->count], &h->of_count);
	holders_most = MAX(holders_most, h->count);
	while (holders_most > 0 && list_empty(&holders_by[holders_most])) holders_most--;
}

static void waiter_free(struct waiter *w) {
	struct holder *h = w->holder, **place;
	list_remove(&w->of_query);
	list_remove(&w->of_holder);
	holder_recount(h, -1);
	if (h->count == 0) {
		place = holder_place(h->client);
		*place = h->next;
		pool_give(&holders, h);
	}
	pool_give(&waiters, w);
}

static struct waiter *waiter_new(struct query *q, const struct peer *p, const struct question *ask) {
	struct waiter *w = pool_take(&waiters);
	struct holder **place, *h;
	struct addr a;
	uint64_t client;

	peer_addr(&a, p);
	client = addr_client(&a);
	place = holder_place(client);
	if (*place == NULL) {
		*place = pool_take(&holders);
		**place = (struct holder){ .client = client };
		list_init(&(*place)->waiters);
	}
	h = *place;
	holder_recount(h, 1);
	w->holder = h;
	w->q = q;
	w->peer = *p;
	w->born = now;
	w->mixed = memcmp(ask->name, ask->key.b, ask->key.name_len) != 0;
	reply_to_question(&w->to, ask, p->kind == PEER_TCP);
	memset(w->upper, 0, sizeof w->upper);
	for (size_t i = 0; w->mixed && i < ask->key.name_len; i++)
		if (ask->name[i] != ask->key.b[i])
			w->upper[i / 8] |= (uint8_t)(1u << i % 8);
	list_append(&h->waiters, &w->of_holder);
	list_append(&q->waiters, &w->of_query);
	if (p->kind == PEER_TCP) tcp_clients[p->slot].waiting++;
	return w;
}

/* Sends a message to a waiter, who is then done. */
static void waiter_answer(struct waiter *w, const struct source_msg *s) {
	uint8_t name[NAME_MAX_WIRE];
	const struct key *k = &w->q->key;
	struct reply_to r = w->to;
	struct tcp_client *c = w->peer.kind == PEER_TCP ? &tcp_clients[w->peer.slot] : NULL;
	r.name = w->mixed ? memcpy(name, k->b, k->name_len) : k->b;
	for (size_t i = 0; w->mixed && i < k->name_len; i++)
		if (w->upper[i / 8] >> i % 8 & 1)
			name[i] &= 0xdf;
	histogram_add(&client_latency, now - w->born);
	client_reply(&w->peer, s, &r);
	if (c != NULL && c->generation == w->peer.generation) c->waiting--;
	waiter_free(w);
}

/* Answers a waiter with an RCODE of our own. */
static void waiter_fail(struct waiter *w, unsigned rcode, int info) {
	struct source_msg s = source_error(&w->q->key, rcode, info);
	stats.failed += rcode == SERVFAIL;
	waiter_answer(w, &s);
}

/* Lets go of the answer in hand. */
static void held_free(struct query *q) {
	if (pool_has(&held_small, q->held))
		pool_give(&held_small, q->held);
	else if (pool_has(&held_big, q->held)) {
		held_big_of[pool_slot(&held_big, q->held)] = NULL;
		pool_give(&held_big, q->held);
	}
	q->held = NULL;
}

/* Takes an ask out of its query, of whose chain *a is a link. */
static void ask_free(struct ask **a) {
	struct ask *gone = *a;
	ask_stop(gone);
	*a = gone->next;
	pool_give(&asks, gone);
}

/* The only way out of a query: whoever still waits is told, and everything it holds is given back. */
static void query_free(struct query *q) {
	struct query **place = &query_table[q->hash & query_table_mask];
	while (!list_empty(&q->waiters))
		waiter_fail(OWNER(q->waiters.next, struct waiter, of_query), SERVFAIL, EDE_UNREACHABLE);
	while (q->asks != NULL) ask_free(&q->asks);
	held_free(q);
	list_remove(&q->staged);
	list_remove(&q->patient);
	list_remove(&q->lingering);
	while (*place != NULL && *place != q) place = &(*place)->next;
	if (*place == q) *place = q->next;
	q->active = false;
	pool_give(&queries, q);
}

/* Makes sure that a waiter and, unless it is for "keep", a query are free: what nobody waits for goes first, then the oldest
 * query of the client that holds the most. */
static void query_make_room(bool need_waiter, const struct query *keep) {
	while ((keep == NULL && pool_empty(&queries)) || (need_waiter && pool_empty(&waiters))) {
		struct waiter *w;
		struct query *q;
		stats.full++;
		if (keep == NULL && pool_empty(&queries) && !list_empty(&lingering)) {
			query_free(OWNER(lingering.next, struct query, lingering));
			continue;
		}
		if (holders_most == 0) return;
		w = OWNER(OWNER(holders_by[holders_most].next, struct holder, of_count)->waiters.next, struct waiter, of_holder);
		q = w->q;
		waiter_fail(w, SERVFAIL, EDE_UNREACHABLE);
		if (list_empty(&q->waiters) && q != keep) query_free(q);
	}
}

static struct query *query_find(const struct key *k, uint32_t hash) {
	struct query *q = query_table[hash & query_table_mask];
	while (q != NULL && (q->hash != hash || q->key.len != k->len || memcmp(q->key.b, k->b, k->len) != 0))
		q = q->next;
	return q;
}

/* Names that are asked of private upstreams only (rule 12): these suffixes, and names of one label. */
static const char *const private_zones[] = { "local", "internal", "lan", "test", "home.arpa", "0.in-addr.arpa", "10.in-addr.arpa",
	"127.in-addr.arpa", "254.169.in-addr.arpa", "2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa",
	"255.255.255.255.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa",
	"a.e.f.ip6.arpa", "b.e.f.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa",
	"0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
	"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa" };

/* Validators need DS, DNSKEY, NS and SOA of a name of one label, and DS of a private zone, from where all other names come from. */
static bool name_is_private(const struct key *k) {
	static uint8_t zones[COUNT(private_zones) + 16 + 64][80];       /* those, 16 to 31.172 and 64 to 127.100 (RFC 7793) */
	static size_t lens[COUNT(zones)];
	unsigned type = key_type(k);
	char range[32];

	for (unsigned i = 0; i < COUNT(zones) && lens[COUNT(zones) - 1] == 0; i++) {
		unsigned n = i - (unsigned)COUNT(private_zones);
		snprintf(range, sizeof range, "%u.%u.in-addr.arpa", n < 16 ? 16 + n : 48 + n, n < 16 ? 172u : 100u);
		lens[i] = name_parse(zones[i], i < COUNT(private_zones) ? private_zones[i] : range);
	}
	if (k->name_len > 1 && k->b[0] + 2u == k->name_len)
		return type != T_DS && type != T_DNSKEY && type != T_NS && type != T_SOA;
	for (size_t i = 0; i < COUNT(zones); i++)
		if (name_below(k->b, k->name_len, zones[i], lens[i]))
			return type != T_DS || k->name_len != lens[i];
	return false;
}

/* The upstreams with the longest suffix that matches a name, as a mask. */
static uint32_t route_domain(const struct key *k) {
	uint32_t match = 0;
	size_t longest = 0, n;

	for (unsigned i = 0; i < norder; i++) {
		const struct spec *s = &upstreams[order[i]].spec;
		for (size_t at = 0; at < s->domains_len; at += n) {
			n = name_len(s->domains + at);
			if (n < longest || !name_below(k->b, k->name_len, s->domains + at, n))
				continue;
			if (n > longest) match = 0;
			longest = n;
			match |= UINT32_C(1) << order[i];
		}
	}
	return match;
}

/* Which upstreams apply to a question, as a mask: those with the longest matching suffix, else those without suffix, of which
 * a private name goes to the private ones, if there are any. */
static uint32_t route(const struct key *k) {
	uint32_t match = route_domain(k), any = 0, private = 0;
	if (match != 0) return match;
	for (unsigned i = 0; i < norder; i++) {
		const struct upstream *u = &upstreams[order[i]];
		if (u->spec.domains_len == 0) {
			any |= UINT32_C(1) << order[i];
			private |= u->private_net ? UINT32_C(1) << order[i] : 0;
		}
	}
	return private != 0 && private != any && name_is_private(k) ? private : any;
}

static bool ask_down(const struct ask *a) { return upstream_down(&upstreams[a->up], key_kind(&a->q->key)); }

/* Do all the upstreams that this query was meant for count as down? Then all are asked, and waited for. */
static bool query_all_down(const struct query *q) {
	for (const struct ask *a = q->asks; a != NULL; a = a->next)
		if (!ask_down(a))
			return false;
	return true;
}

static bool all_down(uint32_t mask, enum question_kind kind) {
	for (unsigned i = 0; i < norder; i++)
		if ((mask >> order[i] & 1) && !upstream_down(&upstreams[order[i]], kind))
			return false;
	return true;
}

static void ask_count(const struct ask *a) {
	struct upstream *u = &upstreams[a->up];
	u->lives[K_ALL].asked = u->lives[key_kind(&a->q->key)].asked = now;
	u->sent++;
}

static void ask_start(struct ask *a) {
	ask_stop(a);
	a->why = NULL;
	a->state = ASK_WAIT;
	a->sent = now;
	a->bare = now < upstreams[a->up].no_edns_until ? BARE_KNOWN : 0;
	ask_count(a);
	ask_send(a, 0);
}

static void upstream_log_state(struct upstream *u, enum question_kind kind, const char *why) {
	bool down = u->lives[kind].down;
	u->lives[kind].told = down;
	log_info("upstream %s %s is %s%s%s%s", addr_text(&u->spec.addr), proto_names[u->spec.proto], down ? "down" : "up again",
	    kind_words[kind], why ? ": " : "", why ? why : "");
}

/* A query was left without a valid answer. The third in a row makes the upstream down, and nobody waits for it any more. */
static void ask_charge(struct ask *a, const char *why) {
	struct upstream *u = &upstreams[a->up];
	const enum question_kind kinds[] = { K_ALL, key_kind(&a->q->key) };
	for (int i = 0; i < 2 && !a->charged; i++) {
		struct liveness *l = &u->lives[kinds[i]];
		if (++l->unanswered < DOWN_AFTER || l->down) continue;
		l->down = rechoose = true;
		l->fell = now;
		if (!l->told && (i == 0 || !u->lives[K_ALL].down)) upstream_log_state(u, kinds[i], why);
	}
	a->charged = true;
}

/* Asks, or asks once more in a new life of the query; not due: its upstream is down, and was asked less than a second ago. */
static void ask_again(struct ask *a, bool due) {
	if (a->state == ASK_WAIT && now - a->sent < MS(cfg.timeout)) {
		if (!due) return;
		a->charged = upstreams[a->up].spec.proto == P_UDP && a->sendings == NULL;       /* for rule 6 it is a query of its own */
		ask_count(a);
		if (a->sendings != NULL && a->resends < RESENDS)
			ask_send(a, a->resends + 1u);   /* the open question once more */
		return;
	}
	if (a->state == ASK_WAIT) {
		upstreams[a->up].failed++;
		ask_charge(a, "no answer");
	}
	if (a->state != ASK_SKIPPED) {
		ask_stop(a);                    /* an ID and a port that are too old are left to nobody's guesses */
		*a = (struct ask){ .q = a->q, .next = a->next, .up = a->up, .state = ASK_SKIPPED, .why = "down" };
	}
	if (due) ask_start(a);
}

/* Asks the upstreams in mask. There is never more than one ask of an upstream; the chain is in the order of "order". */
static void query_send(struct query *q, uint32_t mask) {
	enum question_kind kind = key_kind(&q->key);
	bool none_up = all_down(mask, kind);
	struct ask **at = &q->asks;

	q->starting = true;
	for (unsigned i = 0; i < norder; i++) {
		if ((mask >> order[i] & 1) && (*at == NULL || (*at)->up != order[i])) {
			struct ask *a = pool_take(&asks);       /* there is one for each upstream of each query */
			*a = (struct ask){ .q = q, .next = *at, .up = order[i], .state = ASK_SKIPPED, .why = "down" };
			*at = a;
		}
		if (mask >> order[i] & 1)
			ask_again(*at, none_up || q->probe || upstream_due(&upstreams[order[i]], kind));
		if (*at != NULL && (*at)->up == order[i]) at = &(*at)->next;
	}
	q->starting = false;
}

/* The life of a query begins: of a new one, or of one whose reply was sent while some upstream was silent, when a client asks
 * the same again: those that have answered are asked anew, the silent one keeps its open question. */
static void query_begin(struct query *q) {
	q->born = now;
	q->replied = false;
	q->best = NULL;
	q->best_verdict = V_NONE;
	list_remove(&q->lingering);
	list_remove(&q->patient);
	list_remove(&q->staged);
	list_append(&stages[0], &q->staged);
}

static struct query *query_new(const struct key *k, uint32_t hash, bool cached) {
	struct query *q = pool_take(&queries);

	q->staged.next = q->patient.next = q->lingering.next = NULL;
	memcpy(&q->key, k, offsetof(struct key, b) + k->len);
	q->hash = hash;
	q->asks = NULL;
	q->active = true;
	q->starting = q->probe = q->stale_ok = false;
	q->cached = cached;
	q->held = NULL;
	list_init(&q->waiters);
	q->next = query_table[hash & query_table_mask];
	query_table[hash & query_table_mask] = q;
	query_begin(q);
	return q;
}

/* A client's question that the cache could not answer. False when there is no room or no upstream for it. *stale_now says that there
 * is a stale entry, and then, that the caller is to answer with it at once, since every upstream is down. */
static bool query_ask(const struct peer *p, const struct question *ask, uint32_t hash, bool *stale_now) {
	struct query *q = query_find(&ask->key, hash);
	uint32_t mask = route(&ask->key);
	bool stale = *stale_now, fresh = q == NULL || q->replied;

	*stale_now = false;
	if (mask == 0) return false;
	if (stale && all_down(mask, key_kind(&ask->key))) {     /* nobody to wait for */
		*stale_now = true;
		query_refresh(&ask->key, hash);
		return true;
	}
	if (q != NULL) list_remove(&q->lingering);      /* it may have been one of our own */
	if (q != NULL && q->replied) query_begin(q);
	if (q == NULL || pool_empty(&waiters)) query_make_room(true, q);
	if (q == NULL && pool_empty(&queries)) return false;
	if (q == NULL) q = query_new(&ask->key, hash, stale);
	q->stale_ok = stale;
	if (fresh) query_send(q, mask);
	waiter_new(q, p, ask);
	if (fresh) query_choose(q);
	return true;
}

/* A query of our own for an entry that is nearly over. It follows the rules as any does, but is the first to make room. */
static bool query_refresh(const struct key *k, uint32_t hash) {
	struct query *q;
	uint32_t mask = route(k);
	if (mask == 0 || query_find(k, hash) != NULL || pool_empty(&queries)) return false;
	q = query_new(k, hash, true);
	list_append(&lingering, &q->lingering);
	query_send(q, mask);
	query_choose(q);
	return true;
}

/* Better upstreams than one of this priority that gave neither NOERROR nor NXDOMAIN, as a mask (rule 10). */
static uint32_t query_unheard(const struct query *q, unsigned priority) {
	uint32_t mask = 0;
	for (const struct ask *a = q->asks; a != NULL; a = a->next)
		if (a->verdict <= V_OTHER && upstreams[a->up].spec.priority < priority)
			mask |= UINT32_C(1) << a->up;
	return mask;
}

/* Is what the cache has still valid, and worth more than the best of a query: a success, not marked, of a better upstream? */
static bool entry_beats(const struct entry *e, const struct query *q, bool marked) {
	unsigned priority = UINT_MAX;
	bool success = answers_type(entry_msg(e), 12 + q->key.name_len + 4, key_type(&q->key)), was_marked = e->bits & E_MARKED;
	if (entry_expired(e)) return false;
	if (success != (q->best_verdict == V_SUCCESS)) return success;
	if (marked != was_marked) return marked;
	for (unsigned i = norder; i > 0; i--)
		if (upstreams[order[i - 1]].origin == e->origin)
			priority = upstreams[order[i - 1]].spec.priority;
	return priority < upstreams[q->best->up].spec.priority;
}

/* Puts the best answer so far into the cache, if it is one to keep. */
static void query_cache(struct query *q, const struct answer *a) {
	const struct upstream *u = &upstreams[q->best->up];
	struct keep k = { .key = &q->key, .hash = q->hash, .silent = query_unheard(q, u->spec.priority), .origin = u->origin,
		.bits = a->ad ? E_AD : 0, .old = q->cached ? cache_find(&q->key, q->hash) : NULL };
	int64_t ttl = a->ttl;

	q->cached = true;
	if (cache.memory == 0 || key_type(&q->key) == T_ANY || q->best_verdict == V_OTHER || (a->rcode != NOERROR && a->rcode != NXDOMAIN))
		return;
	for (const struct ask *x = q->asks; x != NULL && q->best_verdict != V_SUCCESS; x = x->next) {
		if (x->verdict == V_NONE && !ask_down(x))
			return;                 /* an upstream that said nothing may know better */
		k.silent |= x->verdict != V_NONE ? 0 : UINT32_C(1) << x->up;
	}
	if (k.old != NULL && entry_beats(slot_entry(k.old), q, k.silent != 0)) return;
	if (!a->positive) {
		if (k.old != NULL)
			slot_kill(k.old);       /* it is not even stale any more (RFC 8767 5) */
		if (cfg.cache_negative == 0 || a->soa_ttl == NO_TTL) return;
		ttl = MIN(MIN((int64_t)a->soa_ttl, ttl), cfg.cache_negative);
	} else if (ttl > 0)
		ttl = MAX(ttl, cfg.cache_min_ttl);
	if (ttl == 0 || a->records == 0) return;
	k.ttl = (uint32_t)MIN(ttl, k.silent ? MARKED_TTL : cfg.cache_max_ttl);
	cache_put(&k, a);
}

/* The answer in hand as it goes to clients: stubs take some RCODEs for a fault of their own, and never ask again (rule 3). */
static struct source_msg query_source(const struct query *q, bool marked) {
	const struct answer *a = q->held;
	struct source_msg s = { .msg = a->msg, .len = a->len, .ede = a->ede, .ede_len = a->ede_len, .cap = marked ? MARKED_TTL : NO_TTL,
		.rcode = a->rcode, .flags = (get16at(a->msg + 2) & F_AA) | (a->ad ? F_AD : 0) };
	if (a->rcode == FORMERR || a->rcode == NOTIMP || a->rcode > YXDOMAIN) {
		s = source_error(&q->key, SERVFAIL, EDE_UNREACHABLE);
		s.ede = a->ede_len ? a->ede : s.ede;
		s.ede_len = a->ede_len ? a->ede_len : s.ede_len;
	}
	return s;
}

static const char rebind_words[] = "a private address for a public name (rebind-protect)";

/* Ends the waiting: everyone gets the answer in hand, or, where that is no more than a failure, a stale one, else SERVFAIL. The
 * query goes on without waiters while some upstream may still answer. */
static void query_reply(struct query *q) {
	struct slot *slot = q->stale_ok && q->best_verdict <= V_OTHER ? cache_find(&q->key, q->hash) : NULL;
	struct source_msg s;
	bool network = true, inside = false;

	q->replied = true;
	list_remove(&q->patient);
	if (!list_on(&q->lingering)) list_append(&lingering, &q->lingering);
	for (const struct ask *a = q->asks; a != NULL; a = a->next) {
		network &= a->state == ASK_DONE;
		inside |= a->why == rebind_words;
	}
	if (slot != NULL) {
		s = entry_source(slot_entry(slot), true);
		log_debug("answer %s %s: a stale one", name_text(q->key.b), type_text(key_type(&q->key)));
	} else if (q->best != NULL) {
		struct upstream *u = &upstreams[q->best->up];
		uint32_t unheard = query_unheard(q, u->spec.priority);
		s = query_source(q, unheard != 0);
		u->won++;
		log_debug("answer %s %s: %s from %s won%s", name_text(q->key.b), type_text(key_type(&q->key)),
		    rcode_text(q->held->rcode), addr_text(&u->spec.addr), unheard ? ", a better upstream has said nothing" : "");
		query_cache(q, q->held);
	} else
		log_debug("answer %s %s: no upstream answered", name_text(q->key.b), type_text(key_type(&q->key)));
	while (!list_empty(&q->waiters)) {
		struct waiter *w = OWNER(q->waiters.next, struct waiter, of_query);
		stats.stale += slot != NULL;
		if (slot != NULL || q->best != NULL)
			waiter_answer(w, &s);
		else
			waiter_fail(w, SERVFAIL, inside ? EDE_FILTERED : network ? EDE_NETWORK : EDE_UNREACHABLE);
	}
	held_free(q);
}

/* Keeps the answer in hand for later, if it is still the caller's. Small ones have a place each; of the big there are HELD_BIG,
 * and when they are taken the query that has held one longest is answered with it now. */
static void held_keep(struct query *q) {
	const struct answer *a = q->held;

	if (a == NULL || pool_has(&held_small, a) || pool_has(&held_big, a)) return;
	if (a->len <= UDP_SIZE)
		q->held = pool_take(&held_small);
	else {
		if (pool_empty(&held_big)) {
			struct query *oldest = held_big_of[0];
			for (unsigned i = 1; i < HELD_BIG; i++)
				if (held_big_of[i]->born < oldest->born)
					oldest = held_big_of[i];
			stats.full++;
			query_reply(oldest);
		}
		q->held = pool_take(&held_big);
		held_big_of[pool_slot(&held_big, q->held)] = q;
	}
	memcpy(q->held, a, offsetof(struct answer, ede) + a->ede_len);
	q->held->msg = memcpy(q->held + 1, a->msg, a->len);
}

/* Do connections fail this ask? Then nobody with an answer in hand waits for it. */
static bool ask_hampered(const struct ask *a) {
	unsigned fails = upstreams[a->up].fails;
	return list_on(&a->on) && a->sendings == NULL && (a->ends > 1 || fails > 1 || (fails == 1 && a->stream == NULL));
}

/* Must the clients of a query wait on? "open" says whether some upstream may still answer. */
static bool query_waits(struct query *q, bool *open) {
	bool none_up = query_all_down(q), better = false, any = false;
	unsigned priority = q->best != NULL ? upstreams[q->best->up].spec.priority : 0;

	*open = false;
	for (const struct ask *a = q->asks; a != NULL; a = a->next) {
		if (a->state != ASK_WAIT) continue;
		*open = true;
		if ((ask_down(a) && !none_up && !q->probe) || (q->best_verdict > V_OTHER && ask_hampered(a)))
			continue;
		any = true;
		better |= upstreams[a->up].spec.priority < priority;
	}
	if (q->replied) return false;
	if (q->probe || q->best_verdict != V_SUCCESS) return q->probe ? *open : any;
	if (better && !list_on(&q->patient)) {
		q->patient_since = now;
		list_append(&patient, &q->patient);
	}
	return better;
}

/* Nobody has the answer: asks who was down when the question came and is back. Does the query wait now? */
static bool query_recall(struct query *q, bool *open) {
	uint32_t mask = 0;
	if (q->replied || q->probe || q->best_verdict == V_SUCCESS || now - q->born >= MS(cfg.timeout)) return false;
	for (const struct ask *a = q->asks; a != NULL; a = a->next)
		if (a->state == ASK_SKIPPED && !ask_down(a)) mask |= UINT32_C(1) << a->up;
	if (mask != 0) query_send(q, mask);
	return mask != 0 && query_waits(q, open);
}

/* The rules: is it time to answer, and with what? Called after everything that happens to a query. May free it. */
static void query_choose(struct query *q) {
	bool open;
	if (q->starting || query_waits(q, &open) || query_recall(q, &open)) {
		held_keep(q);
		return;
	}
	if (q->probe)
		probe_done(q);
	else if (!q->replied)
		query_reply(q);
	if (!open) query_free(q);
}

static void upstream_answers(struct upstream *u, enum question_kind kind) {
	const enum question_kind kinds[] = { K_ALL, kind };
	u->heard = now;
	for (int i = 0; i < 2; i++) {
		struct liveness *l = &u->lives[kinds[i]];
		l->unanswered = l->down = false;
		if (l->told && now - l->fell > SEC(1)) upstream_log_state(u, kinds[i], NULL);   /* one that comes and goes floods no log */
	}
}

/* An upstream that cannot answer this query now: refused, unreachable, no handshake. */
static void ask_fail(struct ask *a, const char *why) {
	struct upstream *u = &upstreams[a->up];
	struct query *q = a->q;
	ask_stop(a);
	a->state = ASK_DONE;
	a->why = why;
	a->took = now - a->sent;
	u->failed++;
	log_debug("upstream %s %s %s: %s", addr_text(&u->spec.addr), name_text(q->key.b), type_text(key_type(&q->key)), why);
	ask_charge(a, why);
	query_choose(q);
}

/* A whole valid answer has come. The message lies in a buffer of the caller, and is kept only if it is the best so far. */
static void ask_answer(struct ask *a, struct answer *ans) {
	struct upstream *u = &upstreams[a->up];
	struct query *q = a->q;
	const struct upstream *held = q->best != NULL ? &upstreams[q->best->up] : NULL;
	enum verdict v = ans->verdict;
	bool better, once = a->resends == 0 && !a->doubted && (a->sendings != NULL || u->spec.proto != P_UDP);

	ask_stop(a);
	a->state = ASK_DONE;
	a->took = now - a->sent;
	a->rcode = (uint16_t)ans->rcode;
	a->ancount = (uint16_t)ans->ancount;
	u->answered++;
	if (once) upstream_learn(u, a->took);
	histogram_add(&u->latency, a->took);
	upstream_answers(u, key_kind(&q->key));
	u->knows_edns |= ans->opt;
	if (a->bare && !ans->opt && a->bare != BARE_KNOWN && a->bare != ans->rcode)
		u->no_edns_until = now + SEC(600);
	if (v == V_OTHER && ans->rcode == SERVFAIL && ans->bogus && u->ad_believed)
		v = V_SUCCESS;                  /* it has proved a forgery: who does not validate shall not undo that */
	if (u->spec.final && (v == V_NXDOMAIN || v == V_NODATA)) v = V_SUCCESS;
	a->verdict = (uint8_t)v;
	if (v > V_OTHER && (ans->rcode == NOERROR || ans->rcode == NXDOMAIN)) u->seq = ++answers_seen;
	ans->ad &= u->ad_believed;
	ans->verdict = v;
	log_debug("upstream %s id %u %s %s: %s %u answers in %lld ms", addr_text(&u->spec.addr), get16at(ans->msg), name_text(q->key.b),
	    type_text(key_type(&q->key)), rcode_text(ans->rcode), ans->ancount, (long long)(a->took / 1000));
	better = held == NULL || v > q->best_verdict || (v == q->best_verdict && u->spec.priority < held->spec.priority);
	if (better) {
		held_free(q);
		q->best = a;
		q->best_verdict = v;
		if (q->replied)                 /* late, but better than what the cache has */
			query_cache(q, ans);
		else if (!q->probe)
			q->held = ans;
	}
	if (q->probe) probe_hear(a, ans);
	query_choose(q);
}

/* An answer that is believed of nobody on the outside: no success, though the upstream lives. */
static void ask_rebinds(struct ask *a) {
	static usec warned;
	struct upstream *u = &upstreams[a->up];
	if (log_now(&warned))
		log_info("upstream %s: %s has a private address: refused (rebind-protect)", addr_text(&u->spec.addr), name_text(a->q->key.b));
	upstream_answers(u, key_kind(&a->q->key));
	a->charged = true;
	ask_fail(a, rebind_words);
}

/* Puts an ask behind the others on one of its upstream's lists. */
static void ask_wait(struct ask *a, unsigned list) {
	struct upstream *u = &upstreams[a->up];
	list_remove(&a->late);
	list_append(&u->late[list], &a->late);
	a->since = now;
	if (list == 0) a->backoff = (uint8_t)u->backoff;
}

/* A message with the ID and the question of an ask, or an error without one (bare), over a stream or, NULL, in a datagram;
 * cut: which did not fit. */
static void ask_message(struct ask *a, uint8_t *msg, size_t len, struct stream *stream, bool cut) {
	struct upstream *u = &upstreams[a->up];
	struct answer ans;
	unsigned error = answer_bare_error(msg, len);
	bool bare = error != NOERROR;
	const char *err = "an error without a question";

	if (bare) {
		ans.rcode = error;
		ans.opt = len > 12;
	} else if (!stream && (cut || (get16at(msg + 2) & F_TC))) {
		ask_stop(a);
		upstream_answers(u, key_kind(&a->q->key));
		a->charged = true;              /* it lives, whatever becomes of TCP */
		ask_over_stream(a);
		query_choose(a->q);             /* others may have answered */
		return;
	} else if ((err = answer_read(&ans, msg, len, &a->q->key)) == NULL && ans.truncated)
		err = "truncated over TCP";
	if (!a->bare && answer_refuses_edns(ans.rcode, ans.opt)) {
		ask_stop(a);
		a->bare = (uint8_t)ans.rcode;
		if (stream)
			ask_over_stream(a);
		else
			ask_send(a, a->resends + 1u);
		return;
	}
	if (err == NULL) {
		answer_age(&ans, msg, a->age);
		if (stream && ans.keepalive != NO_KEEPALIVE)
			stream_keepalive(stream, ans.keepalive);
		if (cfg.rebind_protect && !u->private_net && u->spec.domains_len == 0 && answer_leads_inside(&ans, &a->q->key))
			ask_rebinds(a);
		else
			ask_answer(a, &ans);
		return;
	}
	stats.malformed += !bare;
	log_debug("upstream %s: %s: %s", addr_text(&u->spec.addr), bare ? "answer" : "malformed answer", err);
	if (stream || bare)
		ask_fail(a, err);
	else
		ask_wait(a, LATE_MALFORMED);    /* perhaps forged: the true one may still come */
}

/* Nobody waits any longer for the upstreams better than the answer in hand: they are charged with it. */
static void query_impatient(struct query *q, const char *why) {
	unsigned priority = q->best != NULL ? upstreams[q->best->up].spec.priority : UINT_MAX;
	list_remove(&q->patient);
	for (struct ask *a = q->asks; a != NULL; a = a->next)
		if (a->state == ASK_WAIT && upstreams[a->up].spec.priority < priority)
			ask_charge(a, why);
	query_reply(q);
	query_choose(q);
}

/* The life of a query is over. */
static void query_expire(struct query *q) {
	for (struct ask *a = q->asks; a != NULL; a = a->next) {
		if (a->state != ASK_WAIT) continue;
		a->why = a->why != NULL ? a->why : "timeout";
		upstreams[a->up].failed++;
		if (a->ends == 0 || upstreams[a->up].heard < a->sent)
			ask_charge(a, "no answer");     /* else others were answered: its connections ended for this one */
		if (a->stream != NULL) stream_doubt(a->stream, a->written);
	}
	if (q->probe)
		probe_done(q);
	else if (!q->replied)
		query_reply(q);
	query_free(q);
}

/* An answer is late: the n-th resend. Nobody waits for an upstream that is down, or when the client has its reply. */
static void ask_resend(struct ask *a, unsigned n) {
	if (a->sendings == NULL || a->resends >= RESENDS || a->q->replied || (ask_down(a) && !query_all_down(a->q)))
		return;
	if (n >= SILENT_RESENDS && !a->bare && !upstreams[a->up].knows_edns)
		a->bare = BARE_SILENCE;
	ask_send(a, n);
}

/* Sends again what is late at an upstream. All on a list wait as long, but for a back-off, which is for those sent under it; the
 * whole wait doubles from list to list. */
static void upstream_sweep(struct upstream *u) {
	for (unsigned i = 0; i < LATE_LISTS; i++)
		while (!list_empty(&u->late[i])) {
			struct ask *a = OWNER(u->late[i].next, struct ask, late);
			usec wait = upstream_rto(u) << MIN(a->backoff, u->backoff) << MAX(i, 1u) >> 1;
			if (!is_due(a->since + (i == LATE_MALFORMED ? RTO_FIRST : wait))) break;
			list_remove(&a->late);
			if (i != LATE_MALFORMED) {
				u->backoff = MAX(u->backoff, i + 1);
				ask_resend(a, i + 1);
			} else if (!list_on(&a->on))
				ask_fail(a, "malformed answer");
		}
}

/* Moves every query whose time has come on to its next stage. */
static void query_sweep(void) {
	usec life = MS(cfg.timeout), ends[STAGES] = { MIN(MS(1800), life * 2 / 3), life * 2 / 3, life };

	for (unsigned i = 0; i < norder; i++) upstream_sweep(&upstreams[order[i]]);
	for (unsigned s = 0; s < STAGES; s++) {
		while (!list_empty(&stages[s])) {
			struct query *q = OWNER(stages[s].next, struct query, staged);
			if (!is_due(q->born + ends[s])) break;
			if (s == STAGE_END) {
				query_expire(q);
				continue;
			}
			list_remove(&q->staged);
			list_append(&stages[s + 1], &q->staged);
			for (struct ask *a = q->asks; s == STAGE_RESEND && a != NULL; a = a->next)
				ask_resend(a, RESENDS); /* who drops what took too long may have it in a cache by now */
			if (s == STAGE_STALE && q->stale_ok && !q->replied && q->best_verdict <= V_OTHER)
				query_impatient(q, "no answer within 1.8 s");
		}
	}
	while (!list_empty(&patient)) {
		struct query *q = OWNER(patient.next, struct query, patient);
		if (!is_due(q->patient_since + MS(cfg.patience))) break;
		query_impatient(q, "no answer within patience");
	}
	if (rechoose) {
		rechoose = false;
		for (unsigned i = 0; i < queries.ever; i++) {
			struct query *q = pool_at(&queries, i);
			if (q->active && !q->replied) query_choose(q);
		}
	}
}

/* ---- 12 Datagrams ---------------------------------------------------- */

/* One datagram of an ask: its place at the port that it left from, and its ID. */
struct sending {
	struct ask *ask;                        /* NULL once that is done: who answers twice or late is no stranger */
	struct port *port;
	struct sending *next;                   /* of the ask: the one before */
	uint16_t id;
	bool due;                               /* leaves when the turn ends */
};

/* A connected UDP socket to an upstream, with a port of its own: strangers and ICMP are sorted out by the kernel. Shared by
 * queries in flight together, PORT_LIFE in its life; closed at the end of the turn in which the last of them ended. */
struct port {
	int fd, slot;
	struct upstream *u;
	unsigned life, open, mask;              /* mask: hides from strangers which place an ID tells */
	struct node dirty;                      /* something is to leave here, or nothing is open any more */
	struct sending sendings[PORT_LIFE];     /* those up to "life" are in use, or were */
};
static struct pool ports;
static struct node ports_dirty = { &ports_dirty, &ports_dirty };

static void port_mark(struct port *p) {
	if (!list_on(&p->dirty)) list_append(&ports_dirty, &p->dirty);
}

static struct sending *port_end(struct port *p) { return p->sendings + MIN(p->life, (unsigned)PORT_LIFE); }

static struct sending *port_find(struct port *p, unsigned id) {
	struct sending *s = &p->sendings[(id ^ p->mask) % PORT_LIFE];
	return s < port_end(p) && s->id == id ? s : NULL;
}

static const char *error_words(int e) {
	return e == ECONNREFUSED ? "connection refused" : e == ECONNRESET || e == EPIPE ? "connection reset" :
	    e == ETIMEDOUT ? "connection timed out" : e == EHOSTUNREACH ? "host unreachable" : e == EMFILE ? "out of descriptors" :
	    e == ENETUNREACH || e == EADDRNOTAVAIL || e == ENETDOWN || e == EAFNOSUPPORT || e == ENODEV || e == ENXIO ?
	    "network unreachable" : "network error";
}

/* Its asks fail, but for those that a server which answers others is said to have refused at once: the refusal may be meant for
 * what was sent before its restart, so these are asked once more, from another port. */
static void port_fail(struct port *p, int e) {
	bool answers = e == ECONNREFUSED && now - p->u->heard < SEC(1);
	if (p->u->port == p) p->u->port = NULL;
	for (struct sending *s = p->sendings; s < port_end(p); s++) {
		struct ask *a = s->ask;
		if (a != NULL && answers && a->ends++ == 0) ask_start(a);
		else if (a != NULL) ask_fail(a, error_words(e));
	}
}

/* What is due at a port, as messages. Neighbours of one length, such as A and AAAA of a name, share one. */
static unsigned port_gather(struct port *p, struct mmsghdr *v) {
	static uint8_t buf[PORT_LIFE][UPSTREAM_QUERY_MAX];
	static struct iovec iov[PORT_LIFE];
	static union { size_t align; uint8_t b[CMSG_SPACE(sizeof(uint16_t))]; } control[PORT_LIFE];
	unsigned n = 0, m = 0;

	for (struct sending *s = p->sendings, *end = port_end(p); s < end; s++) {
		if (!s->due || s->ask == NULL) continue;
		s->due = false;
		iov[n] = (struct iovec){ buf[n], query_write(buf[n], s->id, &s->ask->q->key, !s->ask->bare, PAD_NONE) };
		if (segments && n > 0 && iov[n - 1].iov_len == iov[n].iov_len)
			datagram_join(&v[m - 1].msg_hdr, &control[m - 1]);
		else
			v[m++].msg_hdr = (struct msghdr){ .msg_iov = &iov[n], .msg_iovlen = 1 };
		n++;
	}
	return m;
}

/* What the buffers do not take counts as lost, and is sent again. */
static void port_flush(struct port *p) {
	static struct mmsghdr v[PORT_LIFE];
	unsigned n = port_gather(p, v);
	if (datagrams_send(p->fd, v, n) < n && errno != ENOBUFS && !later(errno)) port_fail(p, errno);
}

static void ports_flush(void) {
	while (!list_empty(&ports_dirty)) {
		struct port *p = OWNER(ports_dirty.next, struct port, dirty);
		list_remove(&p->dirty);
		port_flush(p);
		if (p->open > 0 || list_on(&p->dirty)) continue;
		if (p->u->port == p) p->u->port = NULL;
		watch_remove(&p->slot);
		close(p->fd);
		pool_give(&ports, p);
	}
}

/* One datagram from an upstream. */
static void port_datagram(struct port *p, uint8_t *msg, size_t len, bool cut) {
	struct upstream *u = p->u;
	struct sending *s = len >= 2 ? port_find(p, get16at(msg)) : NULL;
	struct ask *a = s != NULL ? s->ask : NULL;

	if (a == NULL) {
		u->strays++;
		for (unsigned i = 0; s == NULL && len >= 12 && &p->sendings[i] < port_end(p); i++)
			if ((a = p->sendings[i].ask) != NULL && !a->doubted) {
				a->doubted = true;      /* somebody guesses IDs: TCP is asked too */
				ask_over_stream(a);
			}
		return;
	}
	if (!answer_matches(msg, len, &a->q->key) && !answer_bare_error(msg, len)) {
		u->strays++;
		return;
	}
	if (a->resends > 0) upstream_weigh(u, now - a->sent, s->next == NULL);
	ask_message(a, msg, len, NULL, cut);
}

static void port_ready(void *owner, UNUSED short revents) {
	static struct mmsghdr v[BATCH / 2];
	static struct iovec iov[BATCH / 2];
	struct port *p = owner;
	int want = (int)MIN(MAX(p->open, 1u), (unsigned)BATCH / 2);
	int n;

	batch_init(v, iov, inbox[0], ANSWER_UDP_MAX, want);
	n = batch_receive(p->fd, v, (unsigned)want);
	if (n < 0 && !later(errno)) {
		port_fail(p, errno);
		return;
	}
	for (int i = 0; i < n; i++)
		port_datagram(p, inbox[2 * i], v[i].msg_len, v[i].msg_hdr.msg_flags & MSG_TRUNC);
}

/* The port for the next query at u: the one in use, else a new one; always a new one for a query that is sent again, which
 * must not take the last ones. Without descriptors, the one in use beyond its life. NULL with errno set. */
static struct port *port_for(struct upstream *u, bool again) {
	static usec warned;
	struct port *p = u->port;
	struct addr to = u->spec.addr;
	int fd;

	if (!again && p != NULL && p->open > 0 && p->life < PORT_LIFE) return p;
	if (!addr_resolve_scope(&to)) return NULL;
	errno = EMFILE;
	fd = ports.used < (again ? ports.n / 2 : ports.n) ? socket_new(to.u.sa.sa_family, SOCK_DGRAM) : -1;
	if (fd < 0 && errno == EAFNOSUPPORT) return NULL;
	if (fd < 0) {
		if (!again && log_now(&warned))
			log_error("out of descriptors for upstream ports: queries share them");
		stats.full++;
		errno = EMFILE;
		return !again && p != NULL && p->open > 0 && p->open < PORT_LIFE ? p : NULL;
	}
	if (connect(fd, &to.u.sa, addr_len(&to)) != 0) {
		close(fd);
		return NULL;
	}
	p = pool_take(&ports);                  /* "used" told that there is one */
	p->fd = fd;
	p->u = u;
	p->life = p->open = 0;
	watch_add(&p->slot, fd, POLLIN, port_ready, p, false);
	if (!again) u->port = p;
	return p;
}

/* Another datagram of an ask: the next place at a port that is free, and an ID that is new there, for it tells the place. It leaves
 * when the turn ends, together with what else leaves there. */
static void sending_new(struct ask *a, struct port *p) {
	struct sending *s;
	unsigned id;
	do
		s = &p->sendings[p->life++ % PORT_LIFE];
	while (p->life > PORT_LIFE && s->ask != NULL);
	id = random16();
	if (p->life == 1) p->mask = id;
	id = id / PORT_LIFE * PORT_LIFE + ((unsigned)(s - p->sendings) ^ p->mask) % PORT_LIFE;
	*s = (struct sending){ .ask = a, .port = p, .next = a->sendings, .id = (uint16_t)id, .due = true };
	a->sendings = s;
	p->open++;
	port_mark(p);
}

/* Sends a query, n: how often it was sent before. The first datagram shares a port; those that follow have one of their own and
 * another ID, for a firewall may close a port after the first reply there. All stay open. */
static void ask_send(struct ask *a, unsigned n) {
	struct upstream *u = &upstreams[a->up];
	bool again = a->sendings != NULL;
	struct port *p;

	if (u->spec.proto != P_UDP) {
		ask_over_stream(a);
		return;
	}
	a->resends = (uint8_t)n;
	list_remove(&a->late);
	if (n < LATE_MALFORMED) ask_wait(a, n);
	p = port_for(u, again);
	if (p != NULL)
		sending_new(a, p);
	else if (!again)
		ask_fail(a, error_words(errno));
}

/* ---- 13 Streams ------------------------------------------------------ */

/* Connections to an upstream, over TCP with TLS or without: nearly always one, at most CONNECTIONS.
 *
 *   a question:    the line -> written to a connection that is OPEN -> answered, by whichever connection
 *                     ^------------'   when that went silent, or ended
 *   a connection:  CONNECTING -> HANDSHAKE -> OPEN <-> SILENT -> DRAINING -> closed
 *
 * OPEN takes questions. One that brings nothing for 8 times what is usual (2, when known to answer one at a time) while several
 * wait is SILENT: it takes none until it answers. Once another is open it is DRAINING: all but its oldest question are asked
 * there, and it is listened to until that is answered, for 800 ms when there are eight. A server that wants no more questions
 * may order that too. Only one connection is being opened at a time.
 *
 * What an end says: before the handshake is done, that the upstream failed. The next try comes 50, 100, 200 ms later and so on;
 * with the HOPELESS one all fail who wait. Afterwards it says nothing of the upstream. The questions go back to the line; the
 * oldest, the likely culprit, is asked alone 200 ms later, then not on the last one of others. The next one is given no more than
 * this one answered (quota). A server that answers one at a time is known by its silence: it gets a few at a time (window) on
 * several connections, until answers come close together or out of order. */
enum stream_state { S_CLOSED, S_CONNECTING, S_HANDSHAKE, S_OPEN, S_SILENT, S_DRAINING };
struct tls;
struct stream {
	struct node of;                         /* of its upstream */
	struct upstream *u;
	int fd, slot;
	enum stream_state state;
	usec opened, heard, answered, used;
	usec idle_limit;                        /* from keepalive (RFC 7828); 0 for none */
	struct node asks;                       /* as they were written */
	unsigned open, written, got;            /* asks on the list; questions and answers in its life */
	bool deaf, slow, came;                  /* nothing is acknowledged; others waited for the first; it was read in this turn */
	struct tls *tls;                        /* NULL for plain TCP */
	struct h2 *h2;                          /* NULL but for HTTPS */
	const char *broken;                     /* why it must end, when the turn does */
	size_t in_len, out_at, out_len;
	uint8_t in[2 + MSG_MAX], out[65536];
};
enum { CONNECTIONS = 8, HOPELESS = 5, UNLIMITED = 1 << 30 };
#define HANDSHAKE_LIMIT SEC(4)
#define SILENT_LIMIT MS(400)                    /* at least; */
#define SLOW_LIMIT MS(1500)                     /* at most, and when a question that waits alone is asked elsewhere too */
#define AGAIN_AFTER MS(200)                     /* between connections that end without an answer */
#define CROWD_AFTER MS(50)                      /* that a question waits before another connection helps */
#define STREAM_WRITE_MAX (512 + UPSTREAM_QUERY_MAX)     /* a question as a request of HTTP */
#define SPARE_LIMIT SEC(2)                      /* an idle connection beside others */

static struct pool streams;
static struct ask **stream_ids;
static bool streams_due;                        /* something waits for streams_turn() */
static struct stream *next_step;                /* whose handshake had to wait in the turn before, or NULL */

static void tls_start(struct stream *s);
static void tls_release(struct stream *s);
static size_t tls_wants(struct stream *s);
static void tls_feed(struct stream *s, const uint8_t *p, size_t len);
static uint8_t *tls_room(struct stream *s);
static void tls_put(struct stream *s, size_t n);
static void tls_goodbye(struct stream *s);
static void h2_start(struct stream *s);
static void h2_close(struct stream *s);
static bool h2_takes(const struct stream *s);
static size_t h2_write(struct stream *s, struct ask *a, uint8_t *to);
static void h2_cancel(struct stream *s, uint32_t stream);
static size_t h2_input(struct stream *s, uint8_t *p, size_t n);

#define STREAM(node) OWNER(node, struct stream, of)
#define LINED(node) OWNER(node, struct ask, on)

static struct ask **stream_id_place(const struct upstream *u, unsigned id) {
	return &stream_ids[(id * 31u + (unsigned)(u - upstreams) * 2654435761u) & query_table_mask];
}

static struct ask *stream_id_find(const struct upstream *u, unsigned id) {
	struct ask *a = *stream_id_place(u, id);
	while (a != NULL && (a->id != id || &upstreams[a->up] != u)) a = a->next_id;
	return a;
}

/* Takes an ask out of the line or off its stream. */
static void ask_leave(struct ask *a) {
	struct ask **place;
	if (!list_on(&a->on)) return;
	for (place = stream_id_place(&upstreams[a->up], a->id); *place != a; ) place = &(*place)->next_id;
	*place = a->next_id;
	if (a->stream != NULL) a->stream->open--;
	if (a->stream != NULL && a->stream->h2 != NULL) h2_cancel(a->stream, a->request);
	a->stream = NULL;
	list_remove(&a->on);
}

/* Takes an ask off its ports and its stream: it waits for nothing any more. */
static void ask_stop(struct ask *a) {
	ask_leave(a);
	list_remove(&a->late);
	for (struct sending *s = a->sendings; s != NULL; s = s->next) {
		s->ask = NULL;
		if (--s->port->open == 0) port_mark(s->port);
	}
	a->sendings = NULL;
}

/* What went wrong with a connection is logged when it changes, not every time; what stands in brackets may change. */
static void upstream_trouble(struct upstream *u, const char *why) {
	if (u->trouble[0] == '\0' || strncmp(u->trouble, why, strcspn(why, "(")) != 0)
		log_info("upstream %s %s: %s", addr_text(&u->spec.addr), proto_names[u->spec.proto], why);
	if (why != u->trouble) snprintf(u->trouble, sizeof u->trouble, "%s", why);
}

/* Asks over a connection, as soon as one takes it; while they fail, with the next try. */
static void ask_over_stream(struct ask *a) {
	struct upstream *u = &upstreams[a->up];
	ask_leave(a);
	do
		a->id = random16();
	while (stream_id_find(u, a->id) != NULL);
	a->next_id = *stream_id_place(u, a->id);
	*stream_id_place(u, a->id) = a;
	a->written = now;
	list_append(&u->line, &a->on);
	u->idle_ends = 0;
	streams_due = true;
}

/* No connection came of a try. */
static void upstream_fails(struct upstream *u, const char *why) {
	struct node all;

	upstream_trouble(u, why);
	u->fails++;
	u->open_after = now + MIN(MS(25) << MIN(u->fails, 6u), SEC(1));
	rechoose = streams_due = true;
	if (u->fails < HOPELESS || u->nstreams > 0 || list_empty(&u->line)) return;
	all = u->line;                          /* first all, for the end of one may bring others */
	all.next->prev = all.prev->next = &all;
	list_init(&u->line);
	while (!list_empty(&all)) {
		struct ask *a = LINED(all.next);
		ask_leave(a);
		if (a->sendings == NULL) ask_fail(a, why);
	}
}

/* Puts the questions of a connection back into the line, all but "keep" of the oldest. */
static void stream_spill(struct stream *s, unsigned keep) {
	while (s->open > keep) {
		struct ask *a = LINED(s->asks.prev);
		list_remove(&a->on);
		list_append(s->u->line.next, &a->on);
		a->stream = NULL;
		a->written = MAX(now, a->written);
		s->open--;
		streams_due = true;
	}
}

/* The end of a connection that had stood, with questions on it. */
static void stream_ended(struct stream *s, bool orderly) {
	struct upstream *u = s->u;
	struct ask *first = LINED(s->asks.next);

	if (s->got == 0 && !first->alone && u->fails < HOPELESS - 1) u->fails++;
	if (orderly && s->open > 1 && s->answered >= first->written) u->quota = s->got;
	if (s->broken != NULL) {
		if (u->broken != s->broken) log_info("upstream %s %s: %s", addr_text(&u->spec.addr), proto_names[u->spec.proto], s->broken);
		u->broken = first->why = s->broken;
	}
	first->alone = true;
	first->written = s->open > 1 || first->ends > 0 ? now + (AGAIN_AFTER << MIN(first->ends, 4u)) : now;
	first->ends++;
	stream_spill(s, 0);
	rechoose = true;
}

/* Ends a connection. why: NULL when one side closed it in good order. */
static void stream_close(struct stream *s, const char *why) {
	struct upstream *u = s->u;
	bool stood = s->state >= S_OPEN;

	log_debug("upstream %s: connection closed%s%s", addr_text(&u->spec.addr), why ? ": " : "", why ? why : "");
	watch_remove(&s->slot);
	close(s->fd);
	list_remove(&s->of);
	u->nstreams--;
	if (next_step == s) next_step = NULL;
	s->state = S_CLOSED;
	tls_release(s);
	if (s->h2 != NULL) h2_close(s);
	if (!stood)
		upstream_fails(u, why ? why : u->spec.proto < P_TLS ? "cut short" : strncmp(u->trouble, "closed", 6) != 0 ?
		    "closed in the handshake" : "closed in the handshake (TLS 1.3 only?)");     /* again: not by chance */
	else if (s->open > 0)
		stream_ended(s, why == NULL);
	else if (u->spec.proto >= P_TLS && u->nstreams == 0 && ++u->idle_ends < 2)
		u->warm_at = MAX(now, s->opened + SEC(1));
	pool_give(&streams, s);
}

/* Ends a connection from our side, which is no failure of its server; its questions are asked again. */
static void stream_end(struct stream *s) {
	stream_spill(s, 0);
	tls_goodbye(s);
	s->state = S_DRAINING;
	stream_close(s, NULL);
}

static void upstream_disconnect(struct upstream *u) {
	while (!list_empty(&u->streams)) stream_end(STREAM(u->streams.next));
}

/* The connection stands, and its server is who it should be. */
static void stream_opened(struct stream *s) {
	struct upstream *u = s->u;
	s->state = S_OPEN;
	s->heard = s->used = now;
	u->connects++;
	if (u->pace == 0) u->pace = (now - s->opened) / 2;
	if (u->trouble[0])
		log_info("upstream %s %s: connected", addr_text(&u->spec.addr), proto_names[u->spec.proto]);
	u->trouble[0] = '\0';
	watch_events(s->slot, POLLIN);
	streams_due = true;
	if (u->spec.proto == P_HTTPS) h2_start(s);
}

/* timeout: in units of 100 ms. */
static void stream_keepalive(struct stream *s, unsigned timeout) { s->idle_limit = MAX(MS(timeout * 100), 1); }

/* A question was not answered in its whole life. When it was the same with all since: whatever bytes it brings, the connection
 * is of no use. */
static void stream_doubt(struct stream *s, usec written) {
	if (s->state == S_OPEN && s->answered < written) s->state = S_SILENT;
}

/* The answer to a has come over s. We learn how long it takes, and whether the server works on several at once. */
static void stream_answer(struct stream *s, struct ask *a, uint8_t *msg, size_t len) {
	struct upstream *u = s->u;
	usec took = now - a->written;
	u->fails = 0;
	if (a->stream == s) {
		s->slow = s->asks.next == &a->on && s->open > 1 && now - MAX(s->answered, a->written) >= SILENT_LIMIT;
		if (s->asks.next != &a->on || now - s->answered < took / 4)
			u->window = MIN(u->window + (u->window < 16 ? 1 : u->window), UNLIMITED);
		u->pace = s->got == 1 ? took : u->pace + (MIN(took, 2 * u->pace) - u->pace) / 8;
	}
	s->answered = now;
	ask_message(a, msg, len, s, false);
	if (s->state == S_SILENT && s->written == s->got + s->open)
		s->state = S_OPEN;              /* it owes nothing but what is asked there alone */
}

/* Reads a message behind its length. Gives the bytes that both take, 0 when they are not all there. */
static size_t stream_message(struct stream *s, uint8_t *p, size_t n) {
	size_t len = n >= 2 ? get16at(p) : 0;
	struct ask *a;
	if (n < 2 || n - 2 < len) return 0;
	a = len >= 2 ? stream_id_find(s->u, get16at(p + 2)) : NULL;
	s->got++;
	if (a != NULL && (answer_matches(p + 2, len, &a->q->key) || answer_bare_error(p + 2, len)))
		stream_answer(s, a, p + 2, len);
	else
		s->u->strays++;
	return 2 + len;
}

/* Bytes that came over the connection, decrypted. */
static void stream_input(struct stream *s, const uint8_t *p, size_t n) {
	s->heard = s->used = now;
	while (n > 0 && s->broken == NULL) {
		size_t k = MIN(n, sizeof s->in - s->in_len), at = 0, used;
		memcpy(s->in + s->in_len, p, k);
		s->in_len += k;
		p += k;
		n -= k;
		do {
			used = (s->h2 != NULL ? h2_input : stream_message)(s, s->in + at, s->in_len - at);
			at += used;
		} while (used > 0);
		memmove(s->in, s->in + at, s->in_len - at);
		s->in_len -= at;
	}
}

/* Sends what has gathered, as far as the socket takes it. What it has died of is told by the next read. */
static void stream_flush(struct stream *s) {
	ssize_t r = 0;
	while (s->out_at < s->out_len && (r = send(s->fd, s->out + s->out_at, s->out_len - s->out_at, MSG_NOSIGNAL)) > 0)
		s->out_at += (size_t)r;
	if (s->out_at == s->out_len) s->out_at = s->out_len = 0;
	watch_events(s->slot, (short)(POLLIN | (s->out_len > 0 && later(errno) ? POLLOUT : 0)));
}

static void stream_read(struct stream *s) {
	ssize_t r = recv(s->fd, inbox, s->state == S_HANDSHAKE ? tls_wants(s) : sizeof inbox, 0);
	s->came = true;
	if (r > 0)
		(s->tls != NULL ? tls_feed : stream_input)(s, &inbox[0][0], (size_t)r);
	else if (r == 0 || !later(errno))
		stream_close(s, r == 0 ? NULL : error_words(errno));
}

/* A step of a handshake may take long, in public-key arithmetic: at most one a turn of the loop, of each in its turn. */
static void stream_ready(void *owner, short revents) {
	static usec stepped;
	struct stream *s = owner;
	int e = 0;

	if (s->state == S_CONNECTING) {
		getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &e, &(socklen_t){ sizeof e });
		if (e != 0)
			stream_close(s, error_words(e));
		else if (s->u->spec.proto < P_TLS)
			stream_opened(s);
		else
			tls_start(s);
		return;
	}
	if (revents & POLLOUT) stream_flush(s);
	if (!(revents & (POLLIN | POLLHUP | POLLERR))) return;
	if (s->state == S_HANDSHAKE) {
		if (next_step == NULL) next_step = s;
		if (next_step != s || stepped == now) return;
		stepped = now;
		next_step = NULL;
	}
	stream_read(s);
}

/* Where what is to be sent next goes; NULL when there is no room for STREAM_WRITE_MAX bytes. */
static uint8_t *stream_room(struct stream *s) {
	return s->out_len > sizeof s->out / 2 ? NULL : s->tls != NULL ? tls_room(s) : s->out + s->out_len;
}

/* Over TLS in a record of its own: some servers overlook all but the first question in one. */
static void stream_put(struct stream *s, size_t n) {
	if (s->tls != NULL)
		tls_put(s, n);
	else
		s->out_len += n;
}

/* Writes a question into what will be sent over s. */
static void stream_ask(struct stream *s, struct ask *a) {
	uint8_t *p = stream_room(s);
	size_t n;

	if (s->h2 == NULL) {
		n = query_write(p + 2, a->id, &a->q->key, !a->bare, s->tls != NULL ? PAD_KEEPALIVE : PAD_NONE);
		put16at(p, (unsigned)n);
		stream_put(s, 2 + n);
	} else
		stream_put(s, h2_write(s, a, p));
	list_remove(&a->on);
	list_append(&s->asks, &a->on);
	a->stream = s;
	a->written = s->used = now;
	s->open++;
	s->written++;
}

/* Does s carry a question that is to be alone there? */
static bool stream_alone(const struct stream *s) { return s->open > 0 && LINED(s->asks.next)->alone; }

/* The connection to ask next: that with the fewest questions open; alone: one without. */
static struct stream *upstream_stream(const struct upstream *u, bool alone) {
	struct stream *best = NULL;
	for (struct node *x = u->streams.next; x != &u->streams; x = x->next) {
		struct stream *s = STREAM(x);
		if (s->state == S_OPEN && !stream_alone(s) && s->open < (alone ? 1 : u->window) && s->written < u->quota &&
		    (best == NULL || s->open < best->open) && (s->h2 == NULL || h2_takes(s)) && stream_room(s) != NULL)
			best = s;
	}
	return best;
}

/* Asks what waits, as far as connections take it. True when another connection is to be opened: one at a time. */
static bool upstream_serve(struct upstream *u) {
	bool want = u->warm_at != 0 && now >= u->warm_at, opening = false, full = false, alone = false;
	unsigned crowd = 0;                     /* connections that take questions */

	for (struct node *x = u->streams.next; x != &u->streams; x = x->next) {
		struct stream *s = STREAM(x);
		opening |= s->state < S_OPEN;
		alone |= stream_alone(s);
		crowd += s->state == S_OPEN && s->written < u->quota && !stream_alone(s);
		if (s->state != S_SILENT || s->open <= !s->deaf) continue;
		if (upstream_stream(u, false) == NULL && (!s->deaf || u->fails < HOPELESS)) {
			want = true;
			continue;
		}
		if (!s->deaf) u->window = 2;
		stream_spill(s, !s->deaf);
		s->state = S_DRAINING;
	}
	u->alone = alone;
	for (unsigned pass = 0; pass < 2; pass++)       /* those that are to be alone come last */
		for (struct node *x = u->line.next, *next; x != &u->line && !full; x = next) {
			struct ask *a = LINED(x);
			next = x->next;
			if (a->alone != pass || (pass == 1 && alone)) continue;
			struct stream *s = a->written <= now ? upstream_stream(u, a->alone) : NULL;
			if (s != NULL && pass == 1 && a->ends > 1 && crowd == 1 && s->written > 0) s = NULL;    /* others have no other */
			usec due = a->written + (crowd && pass == 0 ? CROWD_AFTER : 0);
			u->alone |= pass;
			if (s != NULL) stream_ask(s, a);
			want |= s == NULL && is_due(due);
			full = s == NULL && pass == 0;
			alone |= pass == 1 && s != NULL;
		}
	return want && !opening && u->nstreams < CONNECTIONS;
}

/* Starts to connect. NULL, or why that failed at once. */
static const char *stream_open(struct upstream *u) {
	struct addr to = u->spec.addr;

	u->warm_at = 0;
	u->open_after = u->fails > 1 ? now + AGAIN_AFTER : now;
	if (!addr_resolve_scope(&to)) return "no such interface yet";
	int fd = socket_new(to.u.sa.sa_family, SOCK_STREAM);
	if (fd < 0) return error_words(errno == EAFNOSUPPORT ? errno : EMFILE);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	if (connect(fd, &to.u.sa, addr_len(&to)) != 0 && errno != EINPROGRESS) {
		const char *why = error_words(errno);
		close(fd);
		return why;
	}
	struct stream *s = pool_take(&streams); /* there are CONNECTIONS for each upstream */
	memset(s, 0, offsetof(struct stream, in));
	s->u = u;
	s->fd = fd;
	s->state = S_CONNECTING;
	s->opened = s->heard = s->used = now;
	list_init(&s->asks);
	list_append(&u->streams, &s->of);
	u->nstreams++;
	watch_add(&s->slot, fd, POLLOUT, stream_ready, s, false);
	return NULL;
}

/* Has the other side acknowledged nothing since then, of what was sent or found no route? The way is broken, and no question slow. */
static bool stream_deaf(const struct stream *s, usec since) {
#ifdef HAVE_TCP
	struct tcp_info i = { 0 };
	return getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &i, &(socklen_t){ sizeof i }) == 0 &&
	    (i.tcpi_unacked > 0 || i.tcpi_last_ack_recv > i.tcpi_last_data_sent) &&
	    now - MS(i.tcpi_last_ack_recv) < since + MS(10);        /* it is told in ticks; 40 ms late is usual */
#else
	return s->fd < 0 && since < 0;
#endif
}

/* Questions wait on s: for too long? */
static void stream_wait(struct stream *s) {
	struct ask *first = LINED(s->asks.next), *second = s->open > 1 ? LINED(first->on.next) : NULL;
	bool known = s->u->window < UNLIMITED;  /* to answer one at a time: what is usual is with a wait for others */
	usec limit = s->slow && !known ? SILENT_LIMIT : MIN(MAX((known ? 2 : 8) * s->u->pace, SILENT_LIMIT), SLOW_LIMIT);
	usec due = MAX(s->heard, second ? second->written : first->written) + limit;
	usec late = MAX(s->heard, first->written) + (s->state == S_DRAINING && s->u->nstreams == CONNECTIONS ? MS(800) : SLOW_LIMIT);

	if (s->state == S_OPEN && is_due(due) && ((s->deaf = stream_deaf(s, due - limit)) || second != NULL)) {
		s->state = S_SILENT;
		streams_due = true;
	}
	if (is_due(late) && !first->alone && (s->open == 1 || s->state == S_DRAINING)) {
		s->state = MAX(s->state, S_SILENT);
		first->alone = true;            /* asked elsewhere too; s is listened to */
		stream_spill(s, 0);
	}
}

/* Nothing is open on s: is it still wanted? */
static void stream_idle(struct stream *s) {
	struct upstream *u = s->u;
	usec idle = s->idle_limit ? s->idle_limit : u->spec.proto == P_UDP ? SEC(5) : SEC(3600 * 24), due;
	if (s->written >= u->quota && is_due(s->answered + CROWD_AFTER))
		u->quota = MIN(u->quota * 2, UNLIMITED);        /* it takes more after all */
	due = s->used + (u->nstreams > 1 && s->state == S_OPEN ? MIN(idle, SPARE_LIMIT) : idle);
	if (s->state != S_OPEN)                 /* what is asked alone too may still be answered here */
		due = s->state == S_SILENT && u->alone && u->nstreams < CONNECTIONS ? s->used + MS(cfg.timeout) : now;
	if (!is_due(due)) return;
	if (u->nstreams == 1) u->idle_ends = 2; /* as the server wishes, until somebody asks again */
	stream_end(s);
}

/* What time does to a connection. */
static void stream_time(struct stream *s) {
	struct upstream *u = s->u;
	if (s->broken != NULL)
		stream_close(s, s->broken);
	else if (s->state >= S_OPEN)
		(s->open > 0 ? stream_wait : stream_idle)(s);
	else if (is_due(s->opened + (u->spec.proto == P_UDP ? SEC(2) : HANDSHAKE_LIMIT))) {
		u->fails = MAX(u->fails, HOPELESS - 1);
		stream_close(s, s->state == S_CONNECTING ? "no TCP connection in time" : "no TLS handshake within 4 s");
		u->open_after = now;
	}
}

/* When a turn of the loop ends: what has gathered leaves in as few pieces as will do. */
static void streams_turn(void) {
	streams_due = false;
	for (unsigned i = 0; i < norder; i++) {
		struct upstream *u = &upstreams[order[i]];
		bool idle = u->nstreams == 0 && u->warm_at == 0 && list_empty(&u->line), want = !idle && upstream_serve(u);
		const char *why;
		if (u->warm_at > now) wake_by(u->warm_at);
		if (want && now < u->open_after)
			wake_by(u->open_after);
		else if (want && (why = stream_open(u)) != NULL)
			upstream_fails(u, why);
		for (struct node *x = u->streams.next, *next; x != &u->streams; x = next) {
			struct stream *s = STREAM(x);
			next = x->next;
			if (s->out_len > 0 && s->state > S_CONNECTING)
				stream_flush(s);        /* which acknowledges too */
#ifdef HAVE_TCP
			else if (s->came && (s->open > 0 || s->state == S_HANDSHAKE))   /* servers with Nagle's algorithm wait for it */
				setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &(int){ 1 }, sizeof(int));
#endif
			s->came = false;
			stream_time(s);
		}
	}
}

/* ---- 14 HTTP/2 ------------------------------------------------------- */

/* DNS over HTTPS (RFC 8484) on a stream with TLS: one HTTP stream a question (RFC 9113), and of HPACK (RFC 7541) what needs no
 * state: what is spelled out; we allow no dynamic table (h2o refers to it all the same). A message of 65,535 bytes fits the window
 * of its HTTP stream, so only that of the connection is ever widened. An answer that comes in several frames gathers in a piece of
 * "bodies". */
enum { H2_DATA, H2_HEADERS, H2_PRIORITY, H2_RST_STREAM, H2_SETTINGS, H2_PUSH_PROMISE, H2_PING, H2_GOAWAY, H2_WINDOW_UPDATE,
	H2_CONTINUATION };
enum { H2_END_STREAM = 1, H2_ACK = 1, H2_END_HEADERS = 4, H2_PADDED = 8, H2_WEIGHTED = 32, H2_REFUSED_STREAM = 7 };
enum { H2_FRAME_MAX = 16384, H2_BLOCK_MAX = 8192, H2_WINDOW = 65535 + (15 << 16), H2_REQUESTS = 512, H2_BODIES = 256 };

struct h2_request {
	uint32_t stream, age, len;              /* stream: 0 when it has ended; len: of the body so far */
	uint16_t id, status;                    /* id: of its ask */
	bool mistyped;
	uint8_t *body;
};
struct h2 {
	uint32_t next;                          /* number of the next HTTP stream */
	uint32_t most, window_each;             /* the server's settings: requests at a time; what it takes of one */
	int64_t window;                         /* what it takes of all */
	uint32_t freed;                         /* bytes read for which the server has no new room yet */
	uint32_t block_of;                      /* the HTTP stream whose header block goes on in the next frame; 0 for none */
	bool block_last;
	size_t block_len;
	struct h2_request requests[H2_REQUESTS];        /* those that are open, by number */
	uint8_t block[H2_BLOCK_MAX];
};
static struct h2 *h2s;                          /* by the slot of the stream */
static struct pool bodies;
static const char *h2_alpn[] = { "h2" };
static const char h2_type[] = "application/dns-message";

/* Writes a frame of n bytes; p: the bytes, or NULL when they stand there. Gives what follows. */
static uint8_t *h2_frame(uint8_t *to, unsigned type, unsigned flags, uint32_t stream, const void *p, size_t n) {
	put32at(to, (uint32_t)n << 8 | type);
	to[4] = (uint8_t)flags;
	put32at(to + 5, stream);
	if (p != NULL) memcpy(to + 9, p, n);
	return to + 9 + n;
}

/* Sends a short frame. What is about one request may be lost. */
static void h2_send(struct stream *s, unsigned type, unsigned flags, uint32_t stream, const void *p, size_t n) {
	uint8_t *to = stream_room(s);
	if (to != NULL)
		stream_put(s, (size_t)(h2_frame(to, type, flags, stream, p, n) - to));
	else if (stream == 0)
		s->broken = "HTTP/2: the server does not read";
}

/* The connection begins: preface, settings (no dynamic table, no push, header lists of 8 kB), a window of H2_WINDOW. */
static void h2_start(struct stream *s) {
	static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" "\0\0\22\4\0\0\0\0\0" "\0\1\0\0\0\0" "\0\2\0\0\0\0"
	    "\0\6\0\0\40\0" "\0\0\4\10\0\0\0\0\0" "\0\17\0\0";
	struct h2 *h = s->h2 = &h2s[pool_slot(&streams, s)];
	memset(h, 0, offsetof(struct h2, block));
	h->next = 1;
	h->most = s->u->requests ? s->u->requests : 100;        /* until the server says so */
	h->window = h->window_each = 65535;
	memcpy(stream_room(s), hello, sizeof hello - 1);
	stream_put(s, sizeof hello - 1);
}

/* May another request be sent? */
static bool h2_takes(const struct stream *s) {
	const struct h2 *h = s->h2;
	return s->written - s->got < h->most && h->window >= UPSTREAM_QUERY_MAX && h->window_each >= UPSTREAM_QUERY_MAX;
}

/* Gives back the piece in which an answer gathers. */
static void h2_forget(struct stream *s, struct h2_request *r) {
	if (r->body != NULL) pool_give(&bodies, r->body);
	s->u->bodies -= r->body != NULL;
	*r = (struct h2_request){ 0 };
}

static void h2_close(struct stream *s) {
	for (unsigned i = 0; i < H2_REQUESTS; i++) h2_forget(s, &s->h2->requests[i]);
}

/* The request on an HTTP stream that is still open, or NULL. */
static struct h2_request *h2_request(struct h2 *h, uint32_t stream) {
	struct h2_request *r = &h->requests[stream / 2 % H2_REQUESTS];
	return r->stream == stream ? r : NULL;
}

/* Nobody wants the answer to a request any more. */
static void h2_cancel(struct stream *s, uint32_t stream) {
	struct h2_request *r = h2_request(s->h2, stream);
	if (r == NULL) return;
	s->got++;
	h2_forget(s, r);
	h2_send(s, H2_RST_STREAM, 0, stream, "\0\0\0\10", 4);
	streams_due = true;
}

/* A header that stays out of tables, its name by the number in the static one. Lengths above 126 take two bytes. */
static uint8_t *hpack_put(uint8_t *to, unsigned name, const char *value) {
	size_t n = strlen(value);
	*to++ = (uint8_t)MIN(name, 15);
	if (name >= 15) *to++ = (uint8_t)(name - 15);
	*to++ = (uint8_t)MIN(n, 127);
	if (n >= 127) {
		*to++ = (uint8_t)((n - 127) | 128);
		*to++ = (uint8_t)((n - 127) >> 7);
	}
	memcpy(to, value, n);
	return to + n;
}

/* Writes the request of an ask: POST, with ID 0 (RFC 8484 4.1). Gives the length, at most STREAM_WRITE_MAX. */
static size_t h2_write(struct stream *s, struct ask *a, uint8_t *to) {
	const struct spec *spec = &s->u->spec;
	struct h2 *h = s->h2;
	uint8_t *p = to + 9, query[UPSTREAM_QUERY_MAX];
	size_t n = query_write(query, 0, &a->q->key, !a->bare, PAD_ONLY);
	char length[8];

	while (h->requests[h->next / 2 % H2_REQUESTS].stream != 0) h->next += 2;        /* old ones that still wait keep their place */
	h->requests[h->next / 2 % H2_REQUESTS] = (struct h2_request){ .stream = a->request = h->next, .id = a->id };
	snprintf(length, sizeof length, "%u", (unsigned)n);
	*p++ = 0x83;                            /* :method POST */
	*p++ = 0x87;                            /* :scheme https */
	p = hpack_put(p, 1, spec->name);        /* :authority */
	p = hpack_put(p, 4, spec->path);        /* :path */
	p = hpack_put(p, 19, h2_type);          /* accept */
	p = hpack_put(p, 31, h2_type);          /* content-type */
	p = hpack_put(p, 28, length);           /* content-length */
	h2_frame(to, H2_HEADERS, H2_END_HEADERS, h->next, NULL, (size_t)(p - to) - 9);
	p = h2_frame(p, H2_DATA, H2_END_STREAM, h->next, query, n);
	h->next += 2;
	h->window -= (int64_t)n;
	return (size_t)(p - to);
}

/* An integer of HPACK (RFC 7541 5.1), whose first byte has been read. */
static uint32_t hpack_int(struct msg *m, unsigned first, unsigned mask) {
	uint32_t v = first & mask;
	for (unsigned more = v == mask ? 128 : 0, shift = 0; more >= 128; shift += 7) {
		more = shift > 14 ? 0 : msg_get8(m);
		v += (more & 127) << shift;
	}
	return v;
}

enum { HPACK_TEXT = 40 };

/* A string of HPACK into text[HPACK_TEXT]; nothing for one that is longer, or has a letter with a code of more than eight bits, for
 * nothing of that kind is read here. Huffman's code is canonical: "low" is the first code of so many bits (RFC 7541 B). */
static void hpack_string(struct msg *m, char *text) {
	static const char letters[] = "012aceiost %-./3456789=A_bdfghlmnpru:BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz&*,;XZ";
	static const uint8_t counts[9] = { 0, 0, 0, 0, 0, 10, 26, 32, 6 };
	unsigned first = msg_get8(m), bits = 0, code = 0, low = 0, index = 0;
	size_t n = hpack_int(m, first, 127), at = m->at, len = 0;

	msg_skip(m, n);
	for (size_t i = 0; m->err == NULL && i < 8 * n && len < HPACK_TEXT; i++) {
		if (first < 128) {
			text[len++] = (char)m->p[at + i / 8];
			i += 7;
			continue;
		}
		code = code << 1 | (m->p[at + i / 8] >> (7 - i % 8) & 1);
		low <<= 1;
		if (++bits > 8)
			len = HPACK_TEXT;
		else if (code - low < counts[bits]) {
			text[len++] = letters[index + code - low];
			bits = code = low = index = 0;
		} else {
			index += counts[bits];
			low += counts[bits];
		}
	}
	text[len < HPACK_TEXT ? len : 0] = '\0';
}

/* Reads a header block: status, age, and whether the type is a wrong one. NULL, or what is wrong with the block. */
static const char *h2_headers(struct msg *m, struct h2_request *r) {
	static const char *const names[] = { ":status", "age", "content-type" };
	static const uint16_t statuses[] = { 200, 204, 206, 304, 400, 404, 500 };
	char name[HPACK_TEXT], value[HPACK_TEXT];

	while (m->at < m->len && m->err == NULL) {
		unsigned first = msg_get8(m), mask = first & 128 ? 127 : first & 64 ? 63 : first & 32 ? 31 : 15;
		uint32_t index = hpack_int(m, first, mask);
		if (mask == 127 && index >= 8 && index <= 14) r->status = statuses[index - 8];
		if (mask == 127 || mask == 31) continue;
		strcpy(name, index >= 8 && index <= 14 ? names[0] : index == 21 ? names[1] : index == 31 ? names[2] : "");
		if (index == 0) hpack_string(m, name);
		hpack_string(m, value);
		if (strcmp(name, names[0]) == 0)
			r->status = (uint16_t)MAX(number(value, 0, 999), 0);
		else if (strcmp(name, names[1]) == 0)
			r->age = (uint32_t)MAX(number(value, 0, INT32_MAX), 0);
		else if (strcmp(name, names[2]) == 0)
			r->mistyped = strncasecmp(value, h2_type, sizeof h2_type - 1) != 0;
	}
	return m->err != NULL ? "HTTP/2: a damaged header block" : NULL;
}

/* What is wrong with a response, into t. */
static void h2_judge(struct text *t, const struct h2_request *r, const struct ask *a, const uint8_t *p, size_t n, int64_t error) {
	if (error >= 0)
		text_add(t, "the server has reset the request (HTTP/2 error %u)", (unsigned)error);
	else if (r->status != 200)
		text_add(t, "HTTP status %u", r->status);
	else if (r->mistyped)
		text_add(t, "the answer is no %s", h2_type);
	else if (!answer_matches(p, n, &a->q->key) && !answer_bare_error(p, n))
		text_add(t, "the answer is to another question");
}

/* An HTTP stream has ended: with an answer of n bytes, or with an error of HTTP/2; -1 for none. */
static void h2_end(struct stream *s, struct h2_request *r, uint8_t *p, size_t n, int64_t error) {
	struct ask *a = stream_id_find(s->u, r->id);
	struct text t = { .p = s->u->reason, .size = sizeof s->u->reason };

	s->got++;
	r->stream = 0;
	if (error == H2_REFUSED_STREAM)         /* nothing was done for it (RFC 9113 8.7) */
		s->h2->most = MAX(s->open, 2u) - 1;
	if (a != NULL && a->stream == s && error == H2_REFUSED_STREAM && a->ends < 3) {
		ask_over_stream(a);
		a->ends++;                      /* it comes again, perhaps to another connection that refuses */
	} else if (a != NULL) {
		h2_judge(&t, r, a, p, n, error);
		a->age = r->age;
		if (t.len == 0)
			stream_answer(s, a, p, n);
		else if (a->stream == s) {      /* else it is asked elsewhere by now */
			upstream_trouble(s->u, t.p);
			ask_fail(a, t.p);
		}
	}
	h2_forget(s, r);
}

/* A piece of a body: nearly always the whole of it. */
static void h2_data(struct stream *s, struct h2_request *r, bool last, uint8_t *p, size_t n) {
	bool whole = last && r->len == 0;
	if (!whole && r->body == NULL && s->u->bodies < bodies.n - bodies.used && (r->body = pool_take(&bodies)) != NULL)
		s->u->bodies++;
	if (!whole && (r->body == NULL || n > MSG_MAX - r->len)) {
		h2_end(s, r, p, 0, r->body == NULL ? H2_REFUSED_STREAM : 11);   /* fewer at a time, or ENHANCE_YOUR_CALM */
		return;
	}
	if (!whole) memcpy(r->body + r->len, p, n);
	r->len += (uint32_t)n;
	if (last) h2_end(s, r, whole ? p : r->body, r->len, -1);
}

/* The server wants no more requests, and has not looked at those above the last. */
static void h2_goaway(struct stream *s, uint32_t last) {
	unsigned above = 0;
	for (struct node *x = s->asks.next; x != &s->asks; x = x->next) above += LINED(x)->request > last;
	s->state = S_DRAINING;
	if (s->got == 0 && s->u->fails < HOPELESS - 1) s->u->fails++;   /* not as fast as it can be connected */
	stream_spill(s, s->open - above);
}

/* A piece of a header block. With the last of them it is read: of a response, of trailers, or of what comes before (1xx). */
static const char *h2_block(struct stream *s, struct h2_request *r, unsigned flags, const uint8_t *p, size_t n) {
	struct h2 *h = s->h2;
	struct h2_request nobody;
	struct msg m = { h->block, h->block_len + n, 0, NULL };
	const char *err;

	if (n > H2_BLOCK_MAX - h->block_len || (n == 0 && !(flags & H2_END_HEADERS)))
		return "HTTP/2: a header block of more than 8 kB, or in empty pieces";
	memcpy(h->block + h->block_len, p, n);
	h->block_len += n;
	if (!(flags & H2_END_HEADERS)) return NULL;
	h->block_of = 0;
	err = h2_headers(&m, r != NULL && r->status < 200 ? r : &nobody);
	if (err == NULL && h->block_last && r != NULL) h2_data(s, r, true, h->block, 0);
	return err;
}

/* One frame, its content in m. NULL, or why the connection must end. */
static const char *h2_read(struct stream *s, unsigned type, unsigned flags, uint32_t stream, struct msg *m) {
	static const uint8_t of_connection = 1 << H2_SETTINGS | 1 << H2_PING;
	struct h2 *h = s->h2;
	struct h2_request *r = h2_request(h, stream);
	bool padded = (type == H2_DATA || type == H2_HEADERS) && (flags & H2_PADDED);
	size_t padding = padded ? msg_get8(m) : 0, n;
	uint32_t other;                         /* settings that do not matter here */
	uint8_t *p;

	if (type == H2_HEADERS && (flags & H2_WEIGHTED)) msg_skip(m, 5);
	if (h->block_of != 0 ? type != H2_CONTINUATION || stream != h->block_of : type == H2_CONTINUATION)
		return "HTTP/2: a header block is interrupted";
	if (m->err != NULL || padding > m->len - m->at || (type <= H2_PING && (stream == 0) != (of_connection >> type & 1)) ||
	    (type <= H2_RST_STREAM && (stream % 2 == 0 || stream >= h->next)))
		return "HTTP/2: a damaged frame";
	p = (uint8_t *)(uintptr_t)m->p + m->at;
	n = m->len - m->at - padding;
	switch (type) {
	case H2_DATA:
		h->freed += (uint32_t)m->len;
		if (r != NULL) h2_data(s, r, flags & H2_END_STREAM, p, n);
		break;
	case H2_HEADERS:
		h->block_of = stream;
		h->block_last = flags & H2_END_STREAM;
		h->block_len = 0;       /* fall through */
	case H2_CONTINUATION:
		return h2_block(s, r, flags, p, n);
	case H2_RST_STREAM:
		if (r != NULL) h2_end(s, r, p, 0, msg_get32(m));
		break;
	case H2_SETTINGS:
		for (unsigned what; !(flags & H2_ACK) && m->at < m->len && m->err == NULL; ) {
			what = msg_get16(m);
			*(what == 3 ? &h->most : what == 4 ? &h->window_each : &other) = msg_get32(m);
		}
		h->most = s->u->requests = MIN(h->most, H2_REQUESTS);
		if (!(flags & H2_ACK)) h2_send(s, H2_SETTINGS, H2_ACK, 0, NULL, 0);
		break;
	case H2_PUSH_PROMISE:
		return "HTTP/2: a push that we have forbidden";
	case H2_PING:
		if (!(flags & H2_ACK) && n == 8) h2_send(s, H2_PING, H2_ACK, 0, p, 8);
		break;
	case H2_GOAWAY:
		h2_goaway(s, msg_get32(m) & INT32_MAX);
		break;
	case H2_WINDOW_UPDATE:
		h->window += stream == 0 ? msg_get32(m) & INT32_MAX : 0;
	}
	return m->err != NULL ? "HTTP/2: a damaged frame" : NULL;       /* what we do not know is left alone */
}

/* Reads the frame at p, of which n bytes are there. Gives its length; 0 when it is not whole or, with s->broken, must not be. */
static size_t h2_input(struct stream *s, uint8_t *p, size_t n) {
	size_t len = n >= 9 ? get32at(p) >> 8 : 0;
	struct msg m = { p + 9, len, 0, NULL };
	uint8_t freed[4];
	if (len > H2_FRAME_MAX) s->broken = "HTTP/2: a frame of more than 16,384 bytes";
	if (n < 9 || n - 9 < len || s->broken != NULL) return 0;
	s->broken = h2_read(s, p[3], p[4], get32at(p + 5) & INT32_MAX, &m);
	if (s->broken == NULL && s->h2->freed >= H2_WINDOW / 4) {
		put32at(freed, s->h2->freed);
		s->h2->freed = 0;
		h2_send(s, H2_WINDOW_UPDATE, 0, 0, freed, 4);
	}
	return 9 + len;
}

/* ---- 15 TLS ---------------------------------------------------------- */

/* A certificate authority of the bundle: what its subject hashes to, and where in the file it stands. */
struct ca { uint32_t subject, at, len; };
static struct ca *cas;
static unsigned ncas;
static int ca_fd = -1;
static bool ca_moved;                           /* somebody wrote over it where it lies */

static const char *const ca_places[] = { "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem",
	"/etc/pki/tls/certs/ca-bundle.crt", "/usr/local/share/certs/ca-root-nss.crt" };

/* One certificate that is being decoded: its subject, and the parts of a trust anchor. */
struct ca_reader { br_x509_decoder_context x; uint8_t dn[512]; size_t dn_len; };

static void ca_take_dn(void *ctx, const void *p, size_t n) {
	struct ca_reader *r = ctx;
	if (r->dn_len + n <= sizeof r->dn) memcpy(r->dn + r->dn_len, p, n);
	r->dn_len += n;
}

static void ca_take_der(void *ctx, const void *p, size_t n) { br_x509_decoder_push(&((struct ca_reader *)ctx)->x, p, n); }

/* Decodes the first certificate of a PEM text. True when it is a usable CA. */
static bool ca_decode(struct ca_reader *r, const uint8_t *p, size_t n) {
	br_pem_decoder_context pem;
	int event = 0;

	br_pem_decoder_init(&pem);
	br_x509_decoder_init(&r->x, ca_take_dn, r);
	r->dn_len = 0;
	for (size_t k; n > 0 && event != BR_PEM_END_OBJ && event != BR_PEM_ERROR; p += k, n -= k) {
		k = br_pem_decoder_push(&pem, p, n);
		event = br_pem_decoder_event(&pem);
		if (event == BR_PEM_BEGIN_OBJ) br_pem_decoder_setdest(&pem, ca_take_der, r);
	}
	if (event == 0 && br_pem_decoder_push(&pem, "\n", 1) == 1)      /* the last line may lack its end */
		event = br_pem_decoder_event(&pem);
	return event == BR_PEM_END_OBJ && br_x509_decoder_get_pkey(&r->x) && br_x509_decoder_isCA(&r->x) && r->dn_len <= sizeof r->dn;
}

static uint32_t ca_hash(const uint8_t *dn, size_t n) {
	br_sha256_context sha;
	uint8_t out[32];
	br_sha256_init(&sha);
	br_sha256_update(&sha, dn, n);
	br_sha256_out(&sha, out);
	return get32at(out);
}

static bool auth_needs_chain(const struct spec *s) { return !s->noverify && (s->name[0] != '\0' || s->npins == 0); }

/* Reads the bundle, unless it is as it was read before, and keeps an index of it, twelve bytes a CA, and the file open. NULL, or what
 * is wrong. */
static const char *ca_load(const char *path) {
	static const char begin[] = "-----BEGIN CERTIFICATE-----";
	static struct ca_reader r;
	static struct stat known;
	struct stat st;
	uint8_t *text, *p, *next;
	struct ca *list = NULL;
	unsigned n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t size;

	if (fd < 0) return strerror(errno);
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > 16 << 20) {
		close(fd);
		return "not a file of at most 16 MB";
	}
	if (st.st_dev == known.st_dev && st.st_ino == known.st_ino && st.st_size == known.st_size &&
	    memcmp(&st.st_ctim, &known.st_ctim, sizeof st.st_ctim) == 0)
		return close(fd), NULL;         /* to decode a hundred authorities takes a small machine a second */
	size = (size_t)st.st_size;
	text = table_try(1, size + 1);          /* gone again without a trace */
	if (text != NULL && read(fd, text, size) == (ssize_t)size)
		list = calloc(size / 128 + 1, sizeof *list);    /* no CA is so short */
	for (p = list != NULL ? (uint8_t *)strstr((char *)text, begin) : NULL; p != NULL; p = next) {
		next = (uint8_t *)strstr((char *)p + sizeof begin - 1, begin);
		size = (size_t)((next ? next : text + st.st_size) - p);
		if (ca_decode(&r, p, size))
			list[n++] = (struct ca){ ca_hash(r.dn, r.dn_len), (uint32_t)(p - text), (uint32_t)size };
	}
	if (text != NULL) munmap(text, (size_t)st.st_size + 1);
	if (n == 0) {
		const char *why = list != NULL ? "it holds no CA certificate" : "it cannot be read";
		free(list);
		close(fd);
		return why;
	}
	free(cas);
	if (ca_fd >= 0) close(ca_fd);
	cas = list;
	ncas = n;
	ca_fd = fd;
	known = st;
	for (unsigned i = 0; i < norder; i++)
		if (auth_needs_chain(&upstreams[order[i]].spec)) {      /* what the old one vouched for ends */
			upstreams[order[i]].has_session = false;
			upstream_disconnect(&upstreams[order[i]]);
		}
	return NULL;
}

/* What a server must show, and what it has shown, while a handshake lasts. BearSSL's validator does the chain; what it does not
 * look at (addresses, extended key usage, pins) is done here on the certificate's bytes. */
enum { MAX_ANCHORS = 4, CERT_MAX = 16384 };
struct auth {
	const br_x509_class *vtable;            /* first: BearSSL hands us a pointer to it */
	br_x509_minimal_context minimal;
	br_x509_decoder_context decoder;
	const struct spec *spec;
	unsigned index, bad;
	uint32_t issuer;                        /* of the last certificate of the path so far: what its name hashes to */
	size_t len, total, judged;              /* of "cert": what has come, what is to come in all, what the validator has seen */
	uint8_t cert[CERT_MAX];
	uint8_t pin[32];
	bool pin_ok, name_ok, key_use_ok;
	char seen[128];                         /* the first names of the certificate, for the log */
	int64_t now, floor, not_before, not_after, wrong_from, wrong_to;    /* Unix seconds; wrong_*: dates that do not hold */
	unsigned nanchors;
	br_x509_trust_anchor anchors[MAX_ANCHORS];
	struct ca_reader readers[MAX_ANCHORS];  /* what they point into */
};

struct tls {
	br_ssl_client_context client;
	struct auth *auth;                      /* while the handshake lasts */
	bool tried_resume, heard, spoke;        /* heard anything yet; and was it a TLS record? */
	uint8_t session_id[32];
	uint8_t in[BR_SSL_BUFSIZE_INPUT], out[4096 + 85];
};
static struct pool auths;
static struct tls *tlses;                       /* one for each place in "streams" */

struct der { const uint8_t *p, *end; };

/* The next element of a DER sequence: its tag, its content, itself whole. False at the end or when it is cut off. */
static bool der_next(struct der *d, unsigned *tag, struct der *val, struct der *all) {
	const uint8_t *s = d->p;
	size_t n, k;

	if (d->end - s < 2) return false;
	*tag = s[0];
	n = s[1];
	d->p += 2;
	if (n & 0x80) {
		k = n & 0x7f;
		if (k < 1 || k > 3 || (size_t)(d->end - d->p) < k) return false;
		for (n = 0; k > 0; k--) n = n << 8 | *d->p++;
	}
	if ((size_t)(d->end - d->p) < n) return false;
	val->p = d->p;
	val->end = d->p += n;
	if (all != NULL)
		*all = (struct der){ s, d->p };
	return true;
}

enum { CERT_ISSUER = 2, CERT_VALIDITY = 3, CERT_SUBJECT = 4, CERT_KEY = 5, CERT_EXTENSIONS = 6 };

/* A field of the certificate that is in a->cert, as soon as it has come. */
static bool cert_field(const struct auth *a, int want, struct der *val, struct der *all) {
	struct der d = { a->cert, a->cert + a->total }, x;
	unsigned tag;
	if (!der_next(&d, &tag, &x, NULL) || tag != 0x30 || !der_next(&x, &tag, &d, NULL) || tag != 0x30)
		return false;
	d.end = MIN(d.end, a->cert + a->len);
	for (int i = 0; der_next(&d, &tag, val, all); i++) {
		if (i == 0 && tag == 0xa0)
			i = -1;                 /* the version stands before field 0 */
		else if (want == CERT_EXTENSIONS ? tag == 0xa3 : i == want)
			return true;
	}
	return false;
}

/* The content of the extension 2.5.29.n: what is inside its OCTET STRING. */
static bool cert_extension(const struct auth *a, unsigned n, struct der *val) {
	struct der list, ext, oid, v;
	unsigned tag;
	if (!cert_field(a, CERT_EXTENSIONS, &v, NULL) || !der_next(&v, &tag, &list, NULL))
		return false;
	while (der_next(&list, &tag, &ext, NULL)) {
		if (!der_next(&ext, &tag, &oid, NULL) || !der_next(&ext, &tag, &v, NULL))
			return false;
		if (tag == 0x01 && !der_next(&ext, &tag, &v, NULL)) return false;
		if (oid.end - oid.p == 3 && oid.p[0] == 0x55 && oid.p[1] == 0x1d && oid.p[2] == n)
			return der_next(&v, &tag, val, NULL);
	}
	return false;
}

/* RFC 6125: the whole name, or one wildcard label before at least two more. Both are bytes, not C strings. */
static bool cert_name_matches(const char *want, const uint8_t *p, size_t n) {
	const char *dot = strchr(want, '.');
	if (n == strlen(want) && strncasecmp(want, (const char *)p, n) == 0) return true;
	return n > 2 && p[0] == '*' && p[1] == '.' && dot != NULL && strchr(dot + 1, '.') != NULL &&
	    n - 1 == strlen(dot) && strncasecmp(dot, (const char *)p + 1, n - 1) == 0;
}

/* Walks the names of the leaf: is ours among them? Keeps some for the log. */
static void cert_names(struct auth *a) {
	struct text t = { .p = a->seen, .size = sizeof a->seen };
	struct der list, v = { NULL, NULL };
	unsigned tag;
	size_t n, m;
	const uint8_t *ip = addr_bytes(&a->spec->addr, &m);

	if (!cert_extension(a, 17, &list)) return;
	while (der_next(&list, &tag, &v, NULL)) {
		n = (size_t)(v.end - v.p);
		if (tag == 0x82) {
			text_add(&t, "%s%.*s", t.len ? " " : "", (int)MIN(n, 100u), (const char *)v.p);
			a->name_ok |= a->spec->name[0] != '\0' && cert_name_matches(a->spec->name, v.p, n);
		} else if (tag == 0x87 && (n == 4 || n == 16)) {
			char ip_text[INET6_ADDRSTRLEN];
			text_add(&t, "%s%s", t.len ? " " : "", inet_ntop(n == 4 ? AF_INET : AF_INET6, v.p, ip_text, sizeof ip_text));
			a->name_ok |= a->spec->name[0] == '\0' && n == m && memcmp(v.p, ip, n) == 0;
		}
	}
	text_clean(a->seen);
}

/* Where extended key usage is present it must allow serverAuth (1.3.6.1.5.5.7.3.1) or anything (2.5.29.37.0). */
static bool cert_key_use_ok(const struct auth *a) {
	static const uint8_t server[] = { 0x2b, 6, 1, 5, 5, 7, 3, 1 }, any[] = { 0x55, 0x1d, 37, 0 };
	struct der list, v;
	unsigned tag;
	if (!cert_extension(a, 37, &list)) return true;
	while (der_next(&list, &tag, &v, NULL)) {
		size_t n = (size_t)(v.end - v.p);
		if ((n == sizeof server && memcmp(v.p, server, n) == 0) || (n == sizeof any && memcmp(v.p, any, n) == 0))
			return true;
	}
	return false;
}

/* Days since 1970 of a date in the Gregorian calendar. */
static int64_t days_of(int64_t y, int64_t m, int64_t d) {
	y -= m <= 2;
	m += m <= 2 ? 9 : -3;
	return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + d - 1 - 719468;
}

/* A UTCTime or GeneralizedTime as Unix seconds; 0 when it is none. */
static int64_t der_time(struct der v, unsigned tag) {
	int f[7] = { 0 }, digits = tag == 0x18 ? 4 : 2;
	for (int i = 0; i < 6; i++, digits = 2)
		for (; digits > 0; digits--) {
			if (v.p == v.end || *v.p < '0' || *v.p > '9') return 0;
			f[i] = f[i] * 10 + (*v.p++ - '0');
		}
	if (tag == 0x17) f[0] += f[0] < 50 ? 2000 : 1900;
	return days_of(f[0], f[1], f[2]) * 86400 + f[3] * 3600 + f[4] * 60 + f[5];
}

/* Loads the CAs that may have issued the certificate at hand, for the validator to look at. */
static void auth_load_anchors(struct auth *a) {
	static uint8_t pem[16384];
	for (unsigned i = 0; i < ncas && a->nanchors < MAX_ANCHORS; i++) {
		struct ca_reader *r = &a->readers[a->nanchors];
		size_t n = MIN(cas[i].len, sizeof pem);
		if (cas[i].subject != a->issuer) continue;
		ca_moved |= pread(ca_fd, pem, n, (off_t)cas[i].at) != (ssize_t)n || !ca_decode(r, pem, n) || ca_hash(r->dn, r->dn_len) != a->issuer;
		if (ca_moved) break;
		a->anchors[a->nanchors++] = (br_x509_trust_anchor){ .dn = { r->dn, r->dn_len }, .flags = BR_X509_TA_CA,
			.pkey = *br_x509_decoder_get_pkey(&r->x) };
	}
	a->minimal.trust_anchors = a->anchors;
	a->minimal.trust_anchors_num = a->nanchors;
}

/* Tells the validator the time to judge this certificate at. While the clock is behind the floor, the build, it cannot be
 * right, and the certificate is judged at the later of floor and its own start. */
static void auth_set_time(struct auth *a) {
	struct der v, t;
	unsigned tag;
	int64_t at = a->now, from = 0, to = INT64_MAX;

	if (cert_field(a, CERT_VALIDITY, &v, NULL)) {
		if (der_next(&v, &tag, &t, NULL)) from = der_time(t, tag);
		if (der_next(&v, &tag, &t, NULL)) to = der_time(t, tag);
	}
	if (at < a->floor) at = MAX(a->floor, from);
	if ((at < from || at > to) && a->wrong_from == 0) {
		a->wrong_from = from;
		a->wrong_to = to;
	}
	a->not_before = MAX(a->not_before, from);
	a->not_after = MIN(a->not_after, to);
	br_x509_minimal_set_time(&a->minimal, (uint32_t)(at / 86400 + 719528), (uint32_t)(at % 86400));
}

static void auth_pin(struct auth *a) {
	struct der v, all;
	br_sha256_context sha;
	memset(a->pin, 0, sizeof a->pin);
	if (!cert_field(a, CERT_KEY, &v, &all)) return;
	br_sha256_init(&sha);
	br_sha256_update(&sha, all.p, (size_t)(all.end - all.p));
	br_sha256_out(&sha, a->pin);
	for (unsigned i = 0; i < a->spec->npins; i++)
		a->pin_ok |= memcmp(a->pin, a->spec->pins[i], 32) == 0;
}

#define AUTH(c) ((struct auth *)(void *)(uintptr_t)(const void *)(c))

static void auth_start_chain(const br_x509_class **c, const char *name) {
	struct auth *a = AUTH(c);
	a->index = a->bad = a->nanchors = 0;
	a->pin_ok = a->name_ok = a->key_use_ok = false;
	a->wrong_from = a->wrong_to = a->not_before = 0;
	a->not_after = INT64_MAX;
	a->seen[0] = '\0';
	a->minimal.vtable->start_chain(&a->minimal.vtable, name);
}

static void auth_start_cert(const br_x509_class **c, uint32_t n) {
	struct auth *a = AUTH(c);
	a->len = a->judged = 0;
	a->total = MIN(n, CERT_MAX);
}

/* What the subject or issuer of the certificate at hand hashes to; 0 when there is none. */
static uint32_t cert_name_hash(const struct auth *a, int field) {
	struct der v, name;
	return cert_field(a, field, &v, &name) ? ca_hash(name.p, (size_t)(name.end - name.p)) : 0;
}

/* Servers send certificates too that are not of the path: the leaf again, a root, what once was cross-signed. */
static bool auth_on_path(const struct auth *a) {
	return auth_needs_chain(a->spec) && (a->index == 0 || (a->minimal.err == 0 && cert_name_hash(a, CERT_SUBJECT) == a->issuer));
}

/* Hands the certificate to the validator, up to its byte n. */
static void auth_judge(struct auth *a, size_t n) {
	const br_x509_class **m = &a->minimal.vtable;
	if (a->judged == 0) {
		a->issuer = cert_name_hash(a, CERT_ISSUER);
		auth_load_anchors(a);
		auth_set_time(a);
		(*m)->start_cert(m, (uint32_t)a->total);
	}
	(*m)->append(m, a->cert + a->judged, n - a->judged);
	a->judged = n;
}

/* The key is judged at once, which checks the signature of the certificate before; that of this one takes as long again, at its end:
 * clients are served in between. */
static void auth_append(const br_x509_class **c, const unsigned char *p, size_t n) {
	struct auth *a = AUTH(c);
	struct der v, key;
	if (a->bad == 0 && n > a->total - a->len) a->bad = BR_ERR_X509_LIMIT_EXCEEDED;
	if (a->bad != 0) return;
	memcpy(a->cert + a->len, p, n);
	a->len += n;
	if (a->index > 0 && a->judged == 0 && cert_field(a, CERT_KEY, &v, &key) && auth_on_path(a))
		auth_judge(a, (size_t)(key.end - a->cert));
}

static void auth_end_cert(const br_x509_class **c) {
	struct auth *a = AUTH(c);
	if (a->bad != 0) return;
	if (a->index == 0) {
		cert_names(a);
		a->key_use_ok = cert_key_use_ok(a);
		auth_pin(a);
		br_x509_decoder_init(&a->decoder, NULL, NULL);
		br_x509_decoder_push(&a->decoder, a->cert, a->len);
		if (!auth_needs_chain(a->spec))
			a->bad = (unsigned)br_x509_decoder_last_error(&a->decoder);
	}
	if (a->judged > 0 || auth_on_path(a)) {
		auth_judge(a, a->len);
		a->minimal.vtable->end_cert(&a->minimal.vtable);
	}
	a->index++;
}

enum { ERR_KEY_USE = 1000, ERR_PIN, ERR_NAME };

static unsigned auth_end_chain(const br_x509_class **c) {
	struct auth *a = AUTH(c);
	if (a->bad == 0 && a->index == 0) a->bad = BR_ERR_X509_EMPTY_CHAIN;
	if (a->bad == 0 && auth_needs_chain(a->spec)) {
		a->bad = a->minimal.vtable->end_chain(&a->minimal.vtable);
		if (a->bad == 0 && !a->name_ok) a->bad = ERR_NAME;
		if (a->bad == 0 && !a->key_use_ok) a->bad = ERR_KEY_USE;
	}
	if (a->bad == 0 && a->spec->npins > 0 && !a->pin_ok) a->bad = ERR_PIN;
	return a->bad >= ERR_KEY_USE ? (unsigned)BR_ERR_X509_NOT_TRUSTED : a->bad;
}

static const br_x509_pkey *auth_get_key(const br_x509_class *const *c, unsigned *usages) {
	struct auth *a = AUTH(c);
	if (auth_needs_chain(a->spec))
		return a->minimal.vtable->get_pkey(&a->minimal.vtable, usages);
	if (usages != NULL) *usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
	return br_x509_decoder_get_pkey(&a->decoder);
}

static const br_x509_class auth_class = { sizeof(struct auth), auth_start_chain, auth_start_cert, auth_append, auth_end_cert,
	auth_end_chain, auth_get_key };

static const struct { int code; const char *words; } tls_errors[] = {
	{ BR_ERR_UNSUPPORTED_VERSION, "the server does not speak TLS 1.2" }, { BR_ERR_BAD_VERSION, "the server does not speak TLS" },
	{ BR_ERR_TOO_LARGE, "a TLS record is too large" }, { BR_ERR_BAD_MAC, "a TLS record is damaged" },
	{ BR_ERR_NO_RANDOM, "no randomness" }, { BR_ERR_BAD_SIGNATURE, "bad handshake signature" },
	{ BR_ERR_WRONG_KEY_USAGE, "the certificate's key is not for this cipher" },
	{ BR_ERR_X509_BAD_SIGNATURE, "bad signature in the certificate chain" },
	{ BR_ERR_X509_UNSUPPORTED, "the certificate uses an unsupported algorithm" },
	{ BR_ERR_X509_DN_MISMATCH, "certificate chain out of order" },
	{ BR_ERR_X509_CRITICAL_EXTENSION, "the certificate has a critical extension that is not understood" },
	{ BR_ERR_X509_NOT_CA, "the chain goes through a certificate that is no CA" },
	{ BR_ERR_X509_FORBIDDEN_KEY_USAGE, "the certificate's key is not for signing" },
	{ BR_ERR_X509_WEAK_PUBLIC_KEY, "the certificate's key is too weak" },
	{ BR_ERR_X509_LIMIT_EXCEEDED, "a certificate is too large" },
	{ BR_ERR_X509_NOT_TRUSTED, "unknown CA: no trusted CA for this certificate" },
	{ BR_ERR_RECV_FATAL_ALERT + 40, "server: no common TLS version, cipher or key type" },
	{ BR_ERR_RECV_FATAL_ALERT + 70, "server: no TLS 1.2, wrong protocol version (1.3 only?)" },
	{ BR_ERR_RECV_FATAL_ALERT + 120, "server: no HTTP/2 (no ALPN h2)" },
	{ BR_ERR_RECV_FATAL_ALERT + 80, "server: internal error" },
};

static const char *time_text(int64_t t) {
	static char bufs[2][80];
	static unsigned turn;
	char *out = bufs[turn++ % 2];
	int64_t day = t / 86400 + 719468 - (t % 86400 < 0), s = (t % 86400 + 86400) % 86400;    /* days since 0000-03-01 */
	int64_t era = day / 146097, d = day % 146097, y = (d - d / 1460 + d / 36524 - d / 146096) / 365, m;
	d -= 365 * y + y / 4 - y / 100;
	m = (5 * d + 2) / 153;                  /* months since March */
	snprintf(out, sizeof bufs[0], "%04lld-%02d-%02dT%02d:%02d:%02dZ", (long long)(y + era * 400 + (m > 9)),
	    (int)(m < 10 ? m + 3 : m - 9), (int)(d - (153 * m + 2) / 5 + 1), (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
	return out;
}

/* Why a connection failed, in words that a router's owner can act on. They stay until the upstream's next failure. */
static const char *tls_reason(const struct stream *s, int err) {
	const struct auth *a = s->tls->auth;
	const struct spec *spec = &s->u->spec;
	struct addr host = spec->addr;
	struct text t = { .p = s->u->reason, .size = sizeof s->u->reason };

	addr_set_port(&host, 0);
	if (!s->tls->spoke)
		text_add(&t, "the server does not speak TLS");
	else if (a != NULL && (a->bad == ERR_NAME || err == BR_ERR_X509_BAD_SERVER_NAME))
		text_add(&t, "certificate for a wrong name: wanted %s, seen %s", spec->name[0] ? spec->name : addr_text(&host),
		    a->seen[0] ? a->seen : "none");
	else if (a != NULL && a->bad == ERR_PIN)
		text_add(&t, "wrong pin: the server's is %s", pin_text(a->pin));
	else if (a != NULL && a->bad == ERR_KEY_USE)
		text_add(&t, "the certificate is not for servers (extended key usage)");
	else if (a != NULL && err == BR_ERR_X509_EXPIRED && a->wrong_to < MAX(a->now, a->floor))
		text_add(&t, "certificate expired on %s (the clock says %s)", time_text(a->wrong_to), time_text(a->now));
	else if (a != NULL && err == BR_ERR_X509_EXPIRED)
		text_add(&t, "certificate not yet valid before %s (the clock says %s)", time_text(a->wrong_from), time_text(a->now));
	else {
		for (size_t i = 0; i < COUNT(tls_errors); i++)
			if (tls_errors[i].code == err)
				return tls_errors[i].words;
		if (err >= BR_ERR_RECV_FATAL_ALERT && err < BR_ERR_RECV_FATAL_ALERT + 256)
			text_add(&t, "server alert %d", err - BR_ERR_RECV_FATAL_ALERT);
		else
			text_add(&t, "TLS error %d", err);
	}
	return t.p;
}

static int64_t build_time(void) {
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec", date[] = __DATE__;
	int64_t m = 1;
	while (m < 12 && strncmp(months + 3 * (m - 1), date, 3) != 0) m++;
	return days_of(number(date + 7, 1970, 9999), m, (date[4] & 15) * 10 + (date[5] & 15)) * 86400;    /* " 7" or "27" */
}

/* Sets up the engine for one upstream, once; resets keep it. TLS 1.2 with forward secrecy and AEAD only. */
static void tls_init(struct tls *t, const struct upstream *u) {
	/* A machine with instructions for AES offers no ChaCha20: many servers would prefer it, and it costs several times as
	 * much there. A server that has nothing else is asked again with all. */
	static const uint16_t suites[] = {
		BR_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		BR_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, BR_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 };
	static const br_hash_class *const hashes[] = { &br_sha256_vtable, &br_sha384_vtable, &br_sha512_vtable };
	br_ssl_engine_context *e = &t->client.eng;
	br_x509_minimal_context *x = &t->auth->minimal;
	size_t skip = !u->all_suites && br_aes_x86ni_ctr_get_vtable() && br_ghash_pclmul_get() ? 2 : 0;

	t->auth->spec = &u->spec;
	t->auth->vtable = &auth_class;
	br_ssl_client_zero(&t->client);
	br_ssl_engine_set_versions(e, BR_TLS12, BR_TLS12);
	br_ssl_engine_set_suites(e, suites + skip, COUNT(suites) - skip);
	br_ssl_engine_add_flags(e, BR_OPT_NO_RENEGOTIATION);
	br_x509_minimal_init(x, &br_sha256_vtable, NULL, 0);
	for (int i = 0; i < 3; i++) {
		br_ssl_engine_set_hash(e, br_sha256_ID + i, hashes[i]);
		br_x509_minimal_set_hash(x, br_sha256_ID + i, hashes[i]);
	}
	br_ssl_engine_set_ec(e, &br_ec_all_m31);
	br_ssl_engine_set_ecdsa(e, &br_ecdsa_i31_vrfy_asn1);
	br_ssl_engine_set_rsavrfy(e, &br_rsa_i31_pkcs1_vrfy);
	br_x509_minimal_set_ecdsa(x, &br_ec_all_m31, &br_ecdsa_i31_vrfy_asn1);
	br_x509_minimal_set_rsa(x, &br_rsa_i31_pkcs1_vrfy);
	br_ssl_engine_set_prf_sha256(e, &br_tls12_sha256_prf);
	br_ssl_engine_set_prf_sha384(e, &br_tls12_sha384_prf);
	br_ssl_engine_set_default_chapol(e);
	br_ssl_engine_set_default_aes_gcm(e);
	br_ssl_engine_set_x509(e, &t->auth->vtable);
	br_ssl_engine_set_buffers_bidi(e, t->in, sizeof t->in, t->out, sizeof t->out);
	if (u->spec.proto == P_HTTPS) br_ssl_engine_set_protocol_names(e, h2_alpn, 1);
}

/* Takes the records that are ready over into what is to be sent. */
static void tls_collect(struct stream *s) {
	br_ssl_engine_context *e = &s->tls->client.eng;
	size_t n;
	while (br_ssl_engine_current_state(e) & BR_SSL_SENDREC && s->out_len < sizeof s->out) {
		const uint8_t *p = br_ssl_engine_sendrec_buf(e, &n);
		n = MIN(n, sizeof s->out - s->out_len);
		memcpy(s->out + s->out_len, p, n);
		s->out_len += n;
		br_ssl_engine_sendrec_ack(e, n);
	}
}

/* Begins a handshake, from a session of this very upstream line if there is one whose certificates still hold. */
static void tls_start(struct stream *s) {
	static bool told;
	struct tls *t = s->tls = &tlses[pool_slot(&streams, s)];
	struct auth *a = t->auth = pool_take(&auths);
	struct upstream *u = s->u;
	uint8_t seed[32];

	if (a == NULL) abort();                 /* there is one for each stream */
	a->now = (int64_t)time(NULL);
	a->floor = build_time();
	if (a->now < a->floor && !told)
		log_info("the clock is wrong: it says %s, which is before %s; certificates are judged at that time until it is set",
		    time_text(a->now), time_text(a->floor));
	told = a->now < a->floor;
	tls_init(t, u);
	random_bytes(seed, sizeof seed);
	br_ssl_engine_inject_entropy(&t->client.eng, seed, sizeof seed);
	t->tried_resume = u->has_session && MAX(a->now, a->floor) < u->session_until && (told || a->now >= u->session_from);
	u->has_session = false;                 /* until this handshake has succeeded too */
	if (t->tried_resume) {
		br_ssl_engine_set_session_parameters(&t->client.eng, &u->session);
		memcpy(t->session_id, u->session.session_id, sizeof t->session_id);
	}
	t->heard = t->spoke = false;
	a->bad = 0;
	s->state = S_HANDSHAKE;
	br_ssl_client_reset(&t->client, u->spec.name[0] ? u->spec.name : NULL, t->tried_resume);
	tls_collect(s);
	stream_flush(s);
}

/* Gives back what only the handshake needs. */
static void tls_release(struct stream *s) {
	if (s->tls == NULL || s->tls->auth == NULL) return;
	pool_give(&auths, s->tls->auth);
	s->tls->auth = NULL;
}

static void tls_established(struct stream *s) {
	struct tls *t = s->tls;
	const struct auth *a = t->auth;
	struct upstream *u = s->u;
	bool resumed;

	br_ssl_engine_get_session_parameters(&t->client.eng, &u->session);
	resumed = t->tried_resume && u->session.session_id_len == 32 && memcmp(t->session_id, u->session.session_id, 32) == 0;
	u->has_session = u->session.session_id_len == 32;
	if (!resumed) {
		u->session_from = a->not_before;
		u->session_until = a->not_after;
	}
	u->resumed += resumed;
	log_debug("upstream %s: TLS 1.2 suite %04x, certificate %s, pin %s, %s handshake in %lld ms", addr_text(&u->spec.addr),
	    u->session.cipher_suite, resumed ? "as before" : a->seen[0] ? a->seen : "-", resumed ? "as before" : pin_text(a->pin),
	    resumed ? "resumed" : "full", (long long)((now - s->opened) / 1000));
	tls_release(s);
	if (u->spec.proto == P_HTTPS && br_ssl_engine_get_selected_protocol(&t->client.eng) == NULL) {
		u->has_session = false;
		u->fails = MAX(u->fails, HOPELESS - 1);
		stream_close(s, "the server does not speak HTTP/2 (no ALPN h2)");
	} else
		stream_opened(s);
}

/* Where the next record's content goes; NULL when there is no room for a question. */
static uint8_t *tls_room(struct stream *s) {
	size_t room;
	uint8_t *p = br_ssl_engine_sendapp_buf(&s->tls->client.eng, &room);
	return p != NULL && room >= STREAM_WRITE_MAX ? p : NULL;
}

static void tls_put(struct stream *s, size_t n) {
	br_ssl_engine_sendapp_ack(&s->tls->client.eng, n);
	br_ssl_engine_flush(&s->tls->client.eng, 0);
	tls_collect(s);
}

/* How many bytes a handshake takes now: fewer than lie between two things that cost time, which may all come in one record. */
static size_t tls_wants(struct stream *s) {
	size_t n = 1;
	br_ssl_engine_recvrec_buf(&s->tls->client.eng, &n);
	return MAX(MIN(n, 96), 1);
}

/* The engine has ended: by the server's close_notify, or with an error. */
static void tls_ended(struct stream *s) {
	int err = br_ssl_engine_last_error(&s->tls->client.eng);
	struct upstream *u = s->u;
	bool again = s->state == S_HANDSHAKE && err == BR_ERR_RECV_FATAL_ALERT + 40 && !u->all_suites;
	if (again) {                            /* no failure yet, and no idle end */
		s->state = S_OPEN;
		u->all_suites = true;
		u->idle_ends--;
	} else if (s->state == S_HANDSHAKE)
		u->fails = MAX(u->fails, HOPELESS - 1);         /* a second try would bring the same */
	stream_close(s, err ? tls_reason(s, err) : NULL);
	if (again) u->warm_at = now;
}

/* Hands received bytes to the engine, and decrypted ones on. */
static void tls_feed(struct stream *s, const uint8_t *p, size_t len) {
	br_ssl_engine_context *e = &s->tls->client.eng;
	unsigned state;
	size_t n;

	if (!s->tls->heard)
		s->tls->spoke = (p[0] == 0x15 || p[0] == 0x16) && (len == 1 || p[1] == 3);
	s->tls->heard = true;
	while ((state = br_ssl_engine_current_state(e)) != BR_SSL_CLOSED) {
		if (state & BR_SSL_RECVAPP) {
			const unsigned char *got = br_ssl_engine_recvapp_buf(e, &n);
			stream_input(s, got, n);
			br_ssl_engine_recvapp_ack(e, n);
		} else if (len > 0 && (state & BR_SSL_RECVREC)) {
			unsigned char *buf = br_ssl_engine_recvrec_buf(e, &n);
			n = MIN(n, len);
			memcpy(buf, p, n);
			br_ssl_engine_recvrec_ack(e, n);
			p += n;
			len -= n;
		} else
			break;
	}
	tls_collect(s);
	stream_flush(s);
	state = br_ssl_engine_current_state(e);
	if (state == BR_SSL_CLOSED)
		tls_ended(s);
	else if (s->state == S_HANDSHAKE && (state & BR_SSL_SENDAPP))
		tls_established(s);
	else if (s->state != S_HANDSHAKE && (len > 0 || !(state & (BR_SSL_SENDAPP | BR_SSL_SENDREC))))
		stream_close(s, len > 0 ? "TLS renegotiation is refused" : NULL);       /* else close_notify has come and ours gone */
}

/* close_notify, as far as it can be sent without waiting. */
static void tls_goodbye(struct stream *s) {
	if (s->tls == NULL || s->state < S_OPEN) return;
	br_ssl_engine_close(&s->tls->client.eng);
	tls_collect(s);
	stream_flush(s);
}

/* ---- 16 Admin -------------------------------------------------------- */

/* An admin connection: one line in, one reply out. */
struct admin {
	struct node on;                         /* oldest first */
	int fd, slot;
	unsigned generation, hosts;             /* hosts: headers so named, of which there may be one (RFC 9112 3.2) */
	usec opened;
	bool asked, http, host_ok;
	size_t in_len, out_at;
	bool entries;                           /* those of the cache come behind the reply, as there is room for them */
	size_t cursor;
	struct text reply, records[MAX_UPSTREAMS];      /* records: what each upstream gave to "query" */
	char in[514], out[65536], record_bufs[MAX_UPSTREAMS][2048];     /* pages that are never needed are never provided */
};
#define ADMIN_LINE_LIMIT SEC(5)
#define ADMIN_LIMIT SEC(40)

static struct pool admins;
static struct node admins_open = { &admins_open, &admins_open };
static int admin_fd = -1, admin_slot = -1;

static bool config_reload(struct text *errors);

/* The counters of the first status line, one row each: the word, its metric, its help. */
static const struct { const char *word, *help; size_t field; } counter_rows[] = {
	{ "queries", "Queries from clients.", offsetof(struct counters, queries) },
	{ "hits", "Queries answered from the cache.", offsetof(struct counters, hits) },
	{ "misses", "Queries that the cache could not answer.", offsetof(struct counters, misses) },
	{ "stale", "Stale answers sent.", offsetof(struct counters, stale) },
	{ "refused", "Queries refused.", offsetof(struct counters, refused) },
	{ "limited", "Queries over the rate limit.", offsetof(struct counters, limited) },
	{ "failed", "SERVFAIL answers of our own.", offsetof(struct counters, failed) },
	{ "dropped", "Packets dropped without an answer.", offsetof(struct counters, dropped) },
	{ "malformed", "Malformed messages from clients and upstreams.", offsetof(struct counters, malformed) },
	{ "full", "Times that a full table made room.", offsetof(struct counters, full) },
};
enum { STATUS_COUNTERS = 7 };

static uint64_t count_at(const void *of, size_t field) {
	uint64_t v;
	memcpy(&v, (const char *)of + field, sizeof v);
	return v;
}

static void status_head(struct text *t) {
	cache_sweep(false, NULL, -1);
	text_add(t, "dnsproxy %s uptime %lld", VERSION, (long long)((now - started) / SEC(1)));
	for (size_t k = 0; k < STATUS_COUNTERS; k++)
		text_add(t, " %s %llu", counter_rows[k].word, (unsigned long long)count_at(&stats, counter_rows[k].field));
	text_add(t, " inflight %u tcp %u\n", waiters.used, tcp_pool.used);
	for (unsigned i = 0; i < norder; i++) {
		const struct upstream *u = &upstreams[order[i]];
		text_add(t, "upstream %s %s priority %u state %s rtt_ms ", addr_text(&u->spec.addr), proto_names[u->spec.proto],
		    u->spec.priority, u->lives[K_ALL].down ? "down" : "up");
		if (u->rtt == 0)
			text_add(t, "-");
		else
			text_add(t, "%lld.%lld", (long long)(u->rtt / 1000), (long long)(u->rtt % 1000 / 100));
		text_add(t, " sent %llu answered %llu won %llu failed %llu", (unsigned long long)u->sent,
		    (unsigned long long)u->answered, (unsigned long long)u->won, (unsigned long long)u->failed);
		if (u->spec.proto != P_UDP)
			text_add(t, " connects %llu resumed %llu", (unsigned long long)u->connects, (unsigned long long)u->resumed);
		text_add(t, "\n");
	}
	text_add(t, "cache entries %u bytes %zu size %zu inserted %llu evicted %llu\n", cache.entries, cache.used,
	    cache.memory, (unsigned long long)cache.inserted, (unsigned long long)cache.evicted);
	if (cfg.hosts.n > 0) text_add(t, "hosts names %zu\n", hosts.table.names);
	if (cfg.blocks.n > 0)
		text_add(t, "block names %zu hits %llu\n", block.table.names, (unsigned long long)block_hits);
}

/* The line of the entry at or behind a place of the index. False when there is none. */
static bool status_entry(struct text *t, size_t *at) {
	while (*at < cache.nslots && cache.slots[*at].at == 0) ++*at;
	if (*at == cache.nslots) return false;
	const struct entry *e = slot_entry(&cache.slots[(*at)++]);
	const uint8_t *q = entry_msg(e) + 12;
	size_t n = name_len(q);
	int64_t ticks_left = e->life - (int64_t)entry_age(e), left = (ticks_left * 16 + (ticks_left > 0 ? 15624 : 0)) / 15625;
	text_add(t, "entry %s %s ", name_text(q), type_text(get16at(q + n)));
	text_add(t, "%s expires %s remaining %lld upstream %s\n", class_text(get16at(q + n + 2)),
	    time_text((int64_t)time(NULL) + left), (long long)MAX(left, 0), addr_text(&origins[e->origin]));
	return true;
}

static void metric_head(struct text *t, const char *name, const char *type, const char *help) {
	text_add(t, "# HELP dnsproxy_%s %s\n# TYPE dnsproxy_%s %s\n", name, help, name, type);
}

static void metric_histogram(struct text *t, const char *name, const char *label, const struct histogram *h) {
	const char *comma = label[0] ? "," : "";
	uint64_t n = 0;
	for (size_t i = 0; i < COUNT(bucket_ms); i++) {
		n += h->bucket[i];
		text_add(t, "dnsproxy_%s_bucket{%s%sle=\"%g\"} %llu\n", name, label, comma, bucket_ms[i] / 1000.0, (unsigned long long)n);
	}
	text_add(t, "dnsproxy_%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, label, comma, (unsigned long long)h->count);
	text_add(t, "dnsproxy_%s_sum%s%s%s %.6f\n", name, label[0] ? "{" : "", label, label[0] ? "}" : "", (double)h->sum / 1e6);
	text_add(t, "dnsproxy_%s_count%s%s%s %llu\n", name, label[0] ? "{" : "", label, label[0] ? "}" : "", (unsigned long long)h->count);
}

static const struct { const char *name, *help; size_t field; } upstream_rows[] = {
	{ "upstream_sent_total", "Queries sent to an upstream.", offsetof(struct upstream, sent) },
	{ "upstream_answered_total", "Valid answers of an upstream.", offsetof(struct upstream, answered) },
	{ "upstream_won_total", "Answers of an upstream that went to clients.", offsetof(struct upstream, won) },
	{ "upstream_failed_total", "Queries that an upstream left unanswered.", offsetof(struct upstream, failed) },
	{ "upstream_strays_total", "Replies that matched no query.", offsetof(struct upstream, strays) },
	{ "upstream_connects_total", "Connections made.", offsetof(struct upstream, connects) },
	{ "upstream_resumed_total", "TLS sessions resumed.", offsetof(struct upstream, resumed) },
};

static const char *upstream_label(unsigned i) {
	static char buf[160];
	const struct upstream *u = &upstreams[order[i]];
	snprintf(buf, sizeof buf, "upstream=\"%s\",proto=\"%s\",priority=\"%u\",line=\"%u\"", addr_text(&u->spec.addr),
	    proto_names[u->spec.proto], u->spec.priority, i + 1);
	return buf;
}

static void metric_plain(struct text *t, const char *name, const char *type, const char *help, uint64_t value) {
	metric_head(t, name, type, help);
	text_add(t, "dnsproxy_%s %llu\n", name, (unsigned long long)value);
}

static void metrics_reply(struct text *t) {
	char name[64];

	for (size_t i = 0; i < COUNT(counter_rows); i++) {
		snprintf(name, sizeof name, "%s_total", counter_rows[i].word);
		metric_plain(t, name, "counter", counter_rows[i].help, count_at(&stats, counter_rows[i].field));
	}
	metric_plain(t, "uptime_seconds", "gauge", "Seconds since the start.", (uint64_t)((now - started) / SEC(1)));
	metric_plain(t, "inflight", "gauge", "Queries of clients that wait for an answer.", waiters.used);
	metric_plain(t, "tcp_clients", "gauge", "TCP connections of clients.", tcp_pool.used);
	metric_plain(t, "cache_entries", "gauge", "Answers in the cache.", cache.entries);
	metric_plain(t, "cache_bytes", "gauge", "Bytes of the answers in the cache.", cache.used);
	metric_plain(t, "cache_size_bytes", "gauge", "Memory of the cache.", cache.memory);
	metric_plain(t, "cache_inserted_total", "counter", "Answers put into the cache.", cache.inserted);
	metric_plain(t, "cache_evicted_total", "counter", "Answers that made room.", cache.evicted);
	metric_plain(t, "hosts_names", "gauge", "Names in the hosts files.", hosts.table.names);
	metric_plain(t, "block_names", "gauge", "Names in the block lists.", block.table.names);
	metric_plain(t, "block_hits_total", "counter", "Queries for names that are blocked.", block_hits);
	metric_head(t, "query_seconds", "histogram", "Time from a query to its answer.");
	metric_histogram(t, "query_seconds", "", &client_latency);
	metric_head(t, "upstream_up", "gauge", "Whether an upstream answers.");
	for (unsigned i = 0; i < norder; i++)
		text_add(t, "dnsproxy_upstream_up{%s} %d\n", upstream_label(i), !upstreams[order[i]].lives[K_ALL].down);
	for (size_t row = 0; row < COUNT(upstream_rows); row++) {
		metric_head(t, upstream_rows[row].name, "counter", upstream_rows[row].help);
		for (unsigned i = 0; i < norder; i++)
			text_add(t, "dnsproxy_%s{%s} %llu\n", upstream_rows[row].name, upstream_label(i),
			    (unsigned long long)count_at(&upstreams[order[i]], upstream_rows[row].field));
	}
	metric_head(t, "upstream_seconds", "histogram", "Time from a query to the answer of an upstream.");
	for (unsigned i = 0; i < norder; i++)
		metric_histogram(t, "upstream_seconds", upstream_label(i), &upstreams[order[i]].latency);
}

static void admin_error(struct admin *a, const char *what) { text_add(&a->reply, "error: %s\n", what); }

struct command { const char *name, *args, *help; void (*run)(struct admin *, char **); };

static void run_help(struct admin *a, char **w);

static void run_status(struct admin *a, UNUSED char **w) {
	status_head(&a->reply);
	a->entries = true;
}

static void run_clear(struct admin *a, char **w) {
	uint8_t name[NAME_MAX_WIRE];
	if (w[0] != NULL && name_parse(name, w[0]) == 0)
		admin_error(a, "not a domain name");
	else
		text_add(&a->reply, "Cache cleared (%u entries)\n", cache_sweep(w[0] == NULL, w[0] ? name : NULL, -1));
}

static void run_reload(struct admin *a, UNUSED char **w) {
	struct text t = { .grows = true };
	bool good = config_reload(&t);
	text_add(&a->reply, "%s%s%s", good ? "Reloaded" : "error: ", t.len ? t.p : "", good ? "\n" : "");
	text_free(&t);
}

static void run_log(struct admin *a, char **w) {
	int level = w[0] ? level_parse(w[0]) : -1;
	if (level < 0)
		admin_error(a, "expected error, info or debug");
	else
		text_add(&a->reply, "Log level %s\n", level_names[log_level = (enum level)level]);
}

static void run_query(struct admin *a, char **w) {
	struct key k;
	size_t n = w[0] ? name_parse(k.b, w[0]) : 0;
	int type = w[0] && w[1] ? type_parse(w[1]) : T_A;
	struct query *q;
	uint32_t mask;

	if (n == 0 || type < 0 || type == T_OPT || type == T_AXFR || type == T_IXFR) {
		admin_error(a, n == 0 ? "expected a domain name" : "expected a type such as AAAA or TYPE65");
		return;
	}
	key_set(&k, n, (unsigned)type, 1, 0);
	mask = route(&k);
	query_make_room(false, NULL);
	if (mask == 0 || pool_empty(&queries)) {
		admin_error(a, "no upstream for this name");
		return;
	}
	q = query_new(&k, hash_bytes(k.b, k.len) ^ (random16() | 1u), true);         /* a place of its own: clients do not join */
	q->probe = true;
	q->admin = pool_slot(&admins, a);
	q->admin_generation = a->generation;
	query_send(q, mask);
	query_choose(q);
}

/* The ten biggest rows of a table, largest first; what is equal (the types of a name) counts together. */
static void top_reply(struct text *t, const struct top *top, bool names) {
	uint64_t sum[TOP_SLOTS] = { 0 };
	unsigned k;

	for (unsigned i = 0; i < TOP_SLOTS; i++) {
		size_t n = names ? name_len(top->what[i]) : sizeof(struct addr);
		for (k = 0; top->count[i] > 0 && k < i; k++)
			if (sum[k] > 0 && memcmp(top->what[k], top->what[i], n) == 0)
				break;
		sum[top->count[i] > 0 ? k : i] += top->count[i];
	}
	for (int rows = 0; rows < 10; rows++) {
		unsigned best = 0;
		struct addr a;
		for (k = 1; k < TOP_SLOTS; k++)
			if (sum[k] > sum[best])
				best = k;
		if (sum[best] == 0) break;
		memcpy(&a, top->what[best], sizeof a);
		if (!names) addr_set_port(&a, 0);
		text_add(t, "%s %s queries %llu\n", names ? "name" : "client", names ? name_text(top->what[best]) : addr_text(&a),
		    (unsigned long long)sum[best]);
		sum[best] = 0;
	}
}

static void run_top(struct admin *a, UNUSED char **w) {
	top_reply(&a->reply, &top_names, true);
	top_reply(&a->reply, &top_clients, false);
	if (a->reply.len == 0) text_add(&a->reply, "no queries yet\n");
}

static const struct command commands[] = {
	{ "help", "", "this list", run_help },
	{ "status", "", "counters, upstreams and the cache", run_status },
	{ "clear", "[NAME]", "empty the cache, or drop every type of NAME", run_clear },
	{ "reload", "", "read the configuration again", run_reload },
	{ "log", "error|info|debug", "set the log level", run_log },
	{ "query", "NAME [TYPE]", "ask every upstream now, past the cache", run_query },
	{ "top", "", "the most asked names and the clients that ask most", run_top },
};

static void run_help(struct admin *a, UNUSED char **w) {
	for (const struct command *c = commands; c < commands + COUNT(commands); c++)
		text_add(&a->reply, "%s%s%s - %s\n", c->name, c->args[0] ? " " : "", c->args, c->help);
}

static void admin_close(struct admin *a) {
	if (a->fd < 0) return;
	watch_remove(&a->slot);
	close(a->fd);
	a->fd = -1;
	a->generation++;
	list_remove(&a->on);
	text_free(&a->reply);
	for (unsigned i = 0; i < MAX_UPSTREAMS; i++) text_free(&a->records[i]);
	pool_give(&admins, a);
}

/* Sends the reply as far as the reader takes it, making more of it as room comes. */
static void admin_write(struct admin *a) {
	char rest[512];

	for (;;) {
		ssize_t r;
		if (a->out_at == a->reply.len) {
			a->out_at = a->reply.len = 0;
			while (a->entries && a->reply.size - a->reply.len > 4096)
				a->entries = status_entry(&a->reply, &a->cursor);
		}
		if (a->reply.len == 0) break;
		r = send(a->fd, a->reply.p + a->out_at, a->reply.len - a->out_at, MSG_NOSIGNAL);
		if (r < 0 && later(errno)) {
			watch_events(a->slot, POLLOUT);
			return;
		}
		if (r < 0) break;
		a->out_at += (size_t)r;
	}
	for (int i = 0; i < 1024 && recv(a->fd, rest, sizeof rest, 0) > 0; i++)
		;                               /* what is left unread would make the close reset the reply away */
	admin_close(a);
}

/* The fields of RDATA as dig prints them: 1, 2, 4 bytes for a number, a an address, n a name, t a bare string; and up to the end s
 * strings, q one string, x hexadecimal digits. */
static const struct { unsigned type; const char *fields; } shown[] = { { T_A, "a" }, { T_NS, "n" }, { T_CNAME, "n" }, { T_SOA, "nn44444" },
	{ T_PTR, "n" }, { T_MX, "2n" }, { T_TXT, "s" }, { T_AAAA, "a" }, { T_SRV, "222n" }, { T_DS, "211x" }, { T_CAA, "1tq" } };

/* The next n bytes, or as many as there are, as a string. */
static void text_string(struct text *t, struct msg *m, size_t n, const char *quote) {
	size_t end = MIN(m->at + n, m->len);
	text_add(t, "%s", quote);
	for (; m->at < end; m->at++) {
		uint8_t c = m->p[m->at];
		if (c < ' ' || c > '~')
			text_add(t, "\\%03u", c);
		else
			text_add(t, "%s%c", c == '"' || c == '\\' ? "\\" : "", c);
	}
	text_add(t, "%s", quote);
}

static void text_field(struct text *t, struct msg *m, char field) {
	size_t left = m->len - m->at, i;
	char host[INET6_ADDRSTRLEN];
	uint32_t v = 0;

	if (field == 'n') {
		text_add(t, "%s", name_text_in(m->p, m->p + m->at));
		msg_name(m);
	} else if (field == 'a') {
		text_add(t, "%s", inet_ntop(left == 4 ? AF_INET : AF_INET6, m->p + m->at, host, sizeof host));
		m->at = m->len;
	} else if (field == 'q')
		text_string(t, m, left, "\"");
	else if (field == 's' || field == 't')
		for (i = 0; m->at < m->len && (i == 0 || field == 's'); i++) {
			text_add(t, "%s", i > 0 ? " " : "");
			m->at++;
			text_string(t, m, m->p[m->at - 1], field == 's' ? "\"" : "");
		}
	else if (field == 'x')
		for (i = 1; m->at < m->len; i++, m->at++)
			text_add(t, "%02X%s", m->p[m->at], i % 28 == 0 && i < left ? " " : "");
	else
		for (i = (size_t)(field - '0'); i > 0 && msg_has(m, 1); i--)
			v = v << 8 | m->p[m->at++];
	if (field >= '1' && field <= '4') text_add(t, "%u", v);
}

/* A record as a line; types that we have no words for in the form of RFC 3597 5. */
static void text_record(struct text *t, struct msg *m) {
	const uint8_t *name = m->p + m->at;
	const char *f = NULL;
	struct msg data;
	struct rr r;

	msg_name(m);
	msg_rr_head(m, &r);
	msg_skip(m, r.rdlen);
	data = (struct msg){ .p = m->p, .len = m->at, .at = r.rdata_at };
	text_add(t, "  %s\t%u\t%s\t%s\t", name_text_in(m->p, name), r.ttl, class_text(r.class), type_text(r.type));
	for (size_t i = 0; i < COUNT(shown); i++)
		if (shown[i].type == r.type)
			f = shown[i].fields;
	if (f == NULL) text_add(t, "\\# %zu%s", r.rdlen, r.rdlen > 0 ? " " : "");
	for (f = f ? f : "x"; *f != '\0'; f++) {
		text_add(t, "%s", data.at > r.rdata_at ? " " : "");
		text_field(t, &data, *f);
	}
	text_add(t, "\n");
}

static struct admin *probe_admin(const struct query *q) {
	struct admin *a = pool_at(&admins, q->admin);
	return a->fd >= 0 && a->generation == q->admin_generation ? a : NULL;
}

/* The answer of one upstream. */
static void probe_hear(const struct ask *k, const struct answer *ans) {
	struct admin *a = probe_admin(k->q);
	struct msg m = { .p = ans->msg, .len = ans->len, .at = 12 + k->q->key.name_len + 4 };
	for (unsigned i = 0; a != NULL && i < ans->ancount; i++) text_record(&a->records[k->up], &m);
}

/* All have answered. One line an upstream says how, and which of them the rules chose; below are its records. */
static void probe_done(struct query *q) {
	struct admin *a = probe_admin(q);
	if (a == NULL) return;
	for (const struct ask *k = q->asks; k != NULL; k = k->next) {
		const struct upstream *u = &upstreams[k->up];
		text_add(&a->reply, "upstream %s %s priority %u ", addr_text(&u->spec.addr), proto_names[u->spec.proto], u->spec.priority);
		if (k->verdict != V_NONE)
			text_add(&a->reply, "%s answers %u ms %lld%s\n%s", rcode_text(k->rcode), k->ancount, (long long)(k->took / 1000),
			    q->best == k ? " won" : "", a->records[k->up].len ? a->records[k->up].p : "");
		else
			text_add(&a->reply, "no answer %s\n", k->why ? k->why : "timeout");
	}
	admin_write(a);
}

static void admin_http_refuse(struct admin *a, const char *status) {
	text_add(&a->reply, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status);
}

/* A header line of GET /metrics; the empty one ends the request. True when the reply is due. */
static bool admin_http_line(struct admin *a, char *line) {
	struct in6_addr host;
	char *v = line + 5;

	if (*line == '\0') {
		if (a->host_ok) {
			text_add(&a->reply, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n");
			metrics_reply(&a->reply);
		} else
			admin_http_refuse(a, "403 Forbidden");
		return true;
	}
	if (strncasecmp(line, "Host:", 5) != 0) return false;
	v += a->hosts++ > 0 ? strlen(v) : strspn(v, " \t");
	const char *end = *v == '[' ? "] \t" : ": \t";
	v += *v == '[';
	v[strcspn(v, end)] = '\0';
	a->host_ok = strcasecmp(v, "localhost") == 0 || inet_pton(AF_INET, v, &host) == 1 || inet_pton(AF_INET6, v, &host) == 1;
	return false;
}

/* The first line of a connection. True when the reply is due now or later. */
static bool admin_line(struct admin *a, char *line, size_t len) {
	char *w[MAX_WORDS + 1], *version = strstr(line, " HTTP/");
	unsigned n = 0, most;

	if (version != NULL) {
		*version = '\0';
		if (strcmp(line, "GET /metrics") != 0 || (strcmp(version + 6, "1.0") != 0 && strcmp(version + 6, "1.1") != 0)) {
			admin_http_refuse(a, "405 Method Not Allowed");
			return true;
		}
		a->http = true;
		return false;
	}
	if (strlen(line) != len || strpbrk(line, "#\t\v\f") != NULL || !words_split(line, w))
		w[0] = NULL;
	while (w[0] != NULL && w[n] != NULL) n++;
	for (size_t i = 0; n > 0 && i < COUNT(commands); i++) {
		const struct command *c = &commands[i];
		if (strcmp(c->name, w[0]) != 0) continue;
		most = c->args[0] == '\0' ? 0 : strchr(c->args, ' ') ? 2 : 1;
		if (n - 1 > most)
			admin_error(a, "too many words, see help");
		else
			c->run(a, w + 1);
		return true;
	}
	admin_error(a, "unknown command, see help");
	return true;
}

static void admin_ready(void *owner, short revents) {
	struct admin *a = owner;
	char *nl;
	ssize_t r;
	size_t len;

	if (a->asked) {
		if (revents & POLLOUT)
			admin_write(a);
		else if (revents & (POLLHUP | POLLERR))
			admin_close(a);
		return;
	}
	r = recv(a->fd, a->in + a->in_len, sizeof a->in - 1 - a->in_len, 0);
	if (r < 0 && later(errno)) return;
	if (r <= 0 && (r < 0 || a->in_len == 0 || a->http)) {
		admin_close(a);
		return;
	}
	a->in_len += (size_t)r;
	a->in[a->in_len] = '\0';
	if (r == 0)
		a->in[a->in_len++] = '\n';      /* the end of the connection ends the line */
	while (!a->asked && (nl = memchr(a->in, '\n', a->in_len)) != NULL) {
		len = (size_t)(nl - a->in);
		*nl = '\0';
		if (len > 0 && nl[-1] == '\r') a->in[--len] = '\0';
		a->asked = a->http ? admin_http_line(a, a->in) : admin_line(a, a->in, len);
		if (a->fd < 0)
			return;                 /* answered and closed already, by a query that could not be sent */
		len = (size_t)(nl + 1 - a->in);
		memmove(a->in, a->in + len, a->in_len - len);
		a->in_len -= len;
	}
	if (a->asked) {
		watch_events(a->slot, 0);
		if (a->reply.len > 0) admin_write(a);
	} else if (a->in_len >= sizeof a->in - 1)
		admin_close(a);                 /* a line of over 512 bytes */
}

static void admin_accept(UNUSED void *owner, UNUSED short revents) {
	struct admin *a;
	int fd;

	fd = accept4(admin_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && accept_impossible()) accept_pause(&admin_slot);
	if (fd < 0) return;
	if (pool_empty(&admins)) {
		stats.full++;
		admin_close(OWNER(admins_open.next, struct admin, on));
	}
	a = pool_take(&admins);
	list_append(&admins_open, &a->on);
	a->fd = fd;
	a->opened = now;
	a->asked = a->http = a->host_ok = a->entries = false;
	a->in_len = a->out_at = a->cursor = a->hosts = 0;
	a->reply = (struct text){ .p = a->out, .size = sizeof a->out, .grows = true };
	for (int i = 0; i < MAX_UPSTREAMS; i++)
		a->records[i] = (struct text){ .p = a->record_bufs[i], .size = sizeof a->record_bufs[i], .grows = true };
	watch_add(&a->slot, fd, POLLIN, admin_ready, a, true);
}

static void admin_sweep(void) {
	for (struct node *x = admins_open.next, *next; x != &admins_open; x = next) {
		struct admin *a = OWNER(x, struct admin, on);
		next = x->next;
		if (is_due(a->opened + (a->asked ? ADMIN_LIMIT : ADMIN_LINE_LIMIT))) admin_close(a);
	}
}

/* "-a COMMAND": the client of all this. Gives the exit status. */
static int admin_client(const char *line) {
	struct timeval limit = { .tv_sec = 30 };
	char buf[4096];
	bool bad = false, first = true;
	ssize_t r;
	int fd = cfg.admin_off ? -1 : socket(cfg.admin.u.sa.sa_family, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, &cfg.admin.u.sa, addr_len(&cfg.admin)) != 0) {
		fprintf(stderr, "dnsproxy: no connection to admin %s: %s\n", cfg.admin_off ? "off" : addr_text(&cfg.admin),
		    cfg.admin_off ? "it is off" : strerror(errno));
		return 1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	snprintf(buf, sizeof buf, "%.600s\n", line);
	send(fd, buf, strlen(buf), MSG_NOSIGNAL);
	for (; (r = recv(fd, buf, sizeof buf, 0)) > 0; first = false) {
		bad |= first && r >= 6 && memcmp(buf, "error:", 6) == 0;
		fwrite(buf, 1, (size_t)r, stdout);
	}
	if (first || r < 0) fprintf(stderr, "dnsproxy: no whole reply from admin %s\n", addr_text(&cfg.admin));
	return bad || first || r < 0 || fflush(stdout) != 0;
}

/* ---- 17 Process ------------------------------------------------------ */

static int signal_pipe[2];

static void on_signal(int sig) {
	char c = (char)sig;
	int keep = errno;
	if (write(signal_pipe[1], &c, 1) < 0) errno = keep;
	errno = keep;
}

/* sd_notify(3) by hand: one datagram to the supervisor's socket. */
static void notify(const char *state) {
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n < 2 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) return;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@') to.sun_path[0] = '\0';
	fd = socket_new(AF_UNIX, SOCK_DGRAM);
	if (fd < 0) return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_debug("no supervisor at NOTIFY_SOCKET: %s", strerror(errno));
	close(fd);
}

static void watchdog_sweep(void) {
	static usec every = -1, next;
	if (every < 0) {
		const char *s = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
		bool ours = s && getenv("NOTIFY_SOCKET") && (pid == NULL || number(pid, 1, INT32_MAX) == getpid());
		every = ours ? MAX(number(s, 0, INT64_C(100000000000000)) / 2, 0) : 0;
	}
	if (every == 0 || !is_due(next)) return;
	notify("WATCHDOG=1");
	wake_by(next = now + every);
}

/* Prepares what TLS upstreams need: the bundle, if one of them is authenticated by its chain. */
static bool tls_prepare(const struct config *c, struct text *errors) {
	const char *path = c->ca_file[0] ? c->ca_file : NULL, *err;

	for (unsigned i = 0; i < c->nspecs; i++) {
		if (c->specs[i].proto < P_TLS || !auth_needs_chain(&c->specs[i])) continue;
		for (size_t k = 0; path == NULL && k < COUNT(ca_places); k++)
			if (access(ca_places[k], R_OK) == 0) path = ca_places[k];
		err = path != NULL ? ca_load(path) : "there is none";
		if (err != NULL)
			text_add(errors, "%s: ca-file %s: %s, expected PEM certificates (such as those of the package ca-certificates)\n",
			    c->ca_file[0] ? c->ca_place : c->specs[i].place, path ? path : ca_places[0], err);
		return err == NULL;
	}
	return true;
}

/* The number that stands for an address in entries of the cache. When all are taken, one that no upstream has any more is given
 * anew, and what it still stands for is dropped. */
static uint8_t origin_number(const struct addr *a) {
	static uint8_t turn;
	bool in_use;

	for (unsigned i = 0; i < norigins; i++)
		if (addr_same_host(&origins[i], a) && addr_port(&origins[i]) == addr_port(a))
			return (uint8_t)i;
	if (norigins < ORIGINS) {
		origins[norigins] = *a;
		return (uint8_t)norigins++;
	}
	do {
		turn++;
		in_use = false;
		for (unsigned i = 0; i < MAX_UPSTREAMS; i++)
			in_use |= upstreams[i].used && upstreams[i].origin == turn;
	} while (in_use);
	cache_sweep(false, NULL, turn);
	origins[turn] = *a;
	return turn;
}

static void upstream_start(struct upstream *u, const struct spec *s) {
	memset(u, 0, sizeof *u);
	u->used = true;
	u->spec = *s;
	u->private_net = addr_is_private(&s->addr);
	u->ad_believed = addr_is_loopback(&s->addr) || (s->proto >= P_TLS && !s->noverify);
	u->origin = origin_number(&s->addr);
	u->patience = 96;
	for (int i = 0; i < LATE_LISTS; i++) list_init(&u->late[i]);
	u->seq = ++answers_seen;                /* what was marked for an earlier holder of the slot is void */
	list_init(&u->streams);
	list_init(&u->line);
	u->quota = u->window = UNLIMITED;
	u->idle_ends = 2;
	u->warm_at = s->proto >= P_TLS ? now : 0;       /* warm for the first query */
	log_info("asking %s %s, priority %u", addr_text(&s->addr), proto_names[s->proto], s->priority);
	spec_warn(s);
}

/* The line is gone: nothing it still says counts. */
static void upstream_stop(struct upstream *u) {
	for (unsigned i = 0; i < queries.ever; i++) {
		struct query *q = pool_at(&queries, i);
		if (!q->active) continue;
		for (struct ask **a = &q->asks; *a != NULL; ) {
			if (&upstreams[(*a)->up] != u) {
				a = &(*a)->next;
				continue;
			}
			if (*a == q->best) {
				held_free(q);
				list_remove(&q->patient);
				q->best = NULL;
				q->best_verdict = V_NONE;
			}
			ask_free(a);
		}
	}
	upstream_disconnect(u);
	u->used = false;
}

static void upstreams_order(void) {
	norder = 0;
	for (unsigned i = 0; i < MAX_UPSTREAMS; i++) {
		if (!upstreams[i].used) continue;
		unsigned k = norder++;
		for (; k > 0 && upstreams[order[k - 1]].spec.priority > upstreams[i].spec.priority; k--)
			order[k] = order[k - 1];
		order[k] = (uint8_t)i;
	}
}

/* Makes the upstreams those of the configuration. Lines that did not change keep all they have. */
static void upstreams_apply(const struct config *c) {
	bool kept[MAX_UPSTREAMS] = { false };
	unsigned i, k;

	for (k = 0; k < MAX_UPSTREAMS; k++) {
		if (!upstreams[k].used) continue;
		for (i = 0; i < c->nspecs && (kept[i] || !spec_same(&c->specs[i], &upstreams[k].spec)); i++)
			;
		if (i < c->nspecs)
			kept[i] = true;
		else
			upstream_stop(&upstreams[k]);
	}
	for (i = 0; i < c->nspecs; i++) {
		if (kept[i]) continue;
		for (k = 0; upstreams[k].used; k++)
			;
		upstream_start(&upstreams[k], &c->specs[i]);
	}
	upstreams_order();
}

/* What only a restart changes stays as it runs; the directives that differ are named. */
static void config_keep(struct config *fresh, struct text *named) {
	static struct config wished;
	wished = *fresh;
	memcpy(fresh, &cfg, offsetof(struct config, allows));
	for (size_t i = 0; i < COUNT(directives); i++) {
		char runs[2048] = "", will[2048] = "";
		struct text a = { .p = runs, .size = sizeof runs }, b = { .p = will, .size = sizeof will };
		directives[i].print(&a, fresh, &directives[i]);
		directives[i].print(&b, &wished, &directives[i]);
		if (strcmp(runs, will) != 0)
			text_add(named, "%s%s", named->len ? " " : ", but with a restart only: ", directives[i].name);
	}
}

/* A query goes on under new upstreams: those that came are asked, and where the answer in hand went with its upstream, those that
 * had answered too. */
static void query_reroute(struct query *q) {
	uint32_t mask = route(&q->key);
	for (const struct ask *a = q->asks; a != NULL; a = a->next)
		mask &= q->best == NULL && a->verdict != V_NONE ? UINT32_MAX : ~(UINT32_C(1) << a->up);
	query_send(q, mask);
	query_choose(q);
}

/* What only a start or a reload needs of shared libraries need not stay in memory: what is called again comes back by itself. Our own
 * code stays, where a debugger may have put something. */
#ifdef HAVE_PHDR
static int library_shrink(struct dl_phdr_info *l, UNUSED size_t size, void *seen) {
	if ((*(unsigned *)seen)++ == 0) return 0;       /* the first is ourselves */
	for (unsigned i = 0; i < l->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &l->dlpi_phdr[i];
		uintptr_t at = l->dlpi_addr + h->p_vaddr, page = at & -(uintptr_t)getpagesize();
		if (h->p_type == PT_LOAD && !(h->p_flags & PF_W)) madvise((void *)page, at + h->p_memsz - page, MADV_DONTNEED);
	}
	return 0;
}

static void libraries_shrink(void) { dl_iterate_phdr(library_shrink, &(unsigned){ 0 }); }
#else
static void libraries_shrink(void) { }
#endif

/* SIGHUP and "reload". All or nothing: with an error the old configuration stays. "out" gets the errors, or what needs a restart. */
static bool config_reload(struct text *out) {
	static struct config fresh;
	char from[80], reloading[64];
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(reloading, sizeof reloading, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(SEC(t.tv_sec) + t.tv_nsec / 1000));
	notify(reloading);
	if (!config_read(&fresh, out, from) || !tls_prepare(&fresh, out)) {
		log_lines(L_ERROR, out->p);
		log_error("the configuration has errors: the old one stays");
		notify("READY=1");
		return false;
	}
	config_keep(&fresh, out);
	cfg = fresh;
	list_start(&hosts);
	list_start(&block);
	log_level = (enum level)cfg.level;
	log_syslog = cfg.syslog;
	upstreams_apply(&cfg);
	for (unsigned i = 0; i < queries.ever; i++) {
		struct query *q = pool_at(&queries, i);
		if (q->active && !q->replied) query_reroute(q);
	}
	log_info("reloaded from %s%s", from, out->len ? out->p : "");
	notify("READY=1");
	libraries_shrink();
	return true;
}

static bool stopping;

static void status_log(void) {
	struct text t = { .grows = true };
	size_t at = 0;
	status_head(&t);
	do {
		log_lines(L_INFO, t.p);
		t.len = 0;
	} while (status_entry(&t, &at));
	text_free(&t);
}

static void signal_ready(UNUSED void *owner, UNUSED short revents) {
	struct text t = { .grows = true };
	bool came[NSIG] = { false };
	char sig;

	while (read(signal_pipe[0], &sig, 1) == 1) came[(int)sig] = true;       /* however often, it is done once */
	if (came[SIGHUP]) config_reload(&t);
	if (came[SIGUSR1]) status_log();
	stopping = came[SIGTERM] || came[SIGINT];
	text_free(&t);
}

static void signals_init(void) {
	static const int sigs[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
	static int slot;
	struct sigaction sa = { .sa_handler = on_signal };
	if (pipe2(signal_pipe, O_NONBLOCK | O_CLOEXEC) != 0) die("too few descriptors (ulimit -n)");
	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < COUNT(sigs); i++) sigaction(sigs[i], &sa, NULL);
	sigprocmask(SIG_SETMASK, &sa.sa_mask, NULL);
	watch_add(&slot, signal_pipe[0], POLLIN, signal_ready, NULL, false);
}

static int socket_bound(const struct addr *a, int type) {
	struct addr to = *a;
	int fd, on = 1, e;

	if (!addr_resolve_scope(&to)) return errno = EADDRNOTAVAIL, -1;
	fd = socket_new(to.u.sa.sa_family, type);
	if (fd < 0) return -1;
	if (addr_is6(a)) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
	if (bind(fd, &to.u.sa, addr_len(&to)) != 0 || (type == SOCK_STREAM && listen(fd, 511) != 0)) {
		e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

/* Binds what is not bound yet. */
static bool listener_open(struct listener *l) {
	int on = 1, size = 1 << 20;

	if (l->udp < 0) {
		l->udp = socket_bound(&l->addr, SOCK_DGRAM);
		if (l->udp < 0) return false;
		setsockopt(l->udp, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
		setsockopt(l->udp, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		if (l->wild)
			setsockopt(l->udp, addr_is6(&l->addr) ? IPPROTO_IPV6 : IPPROTO_IP, addr_is6(&l->addr) ? IPV6_RECVPKTINFO : IP_PKTINFO,
			    &on, sizeof on);
		segments = getsockopt(l->udp, IPPROTO_UDP, SEGMENT, &(int){ 0 }, &(socklen_t){ sizeof(int) }) == 0;     /* else all would leave as one */
		watch_add(&l->udp_slot, l->udp, POLLIN, listener_udp_ready, l, false);
	}
	l->tcp = socket_bound(&l->addr, SOCK_STREAM);
	if (l->tcp >= 0) watch_add(&l->tcp_slot, l->tcp, POLLIN, listener_tcp_ready, l, false);
	return l->tcp >= 0;
}

/* Is it open? An interface that was made anew has another number, and who is bound to the old one hears nothing: he is closed. */
static bool listener_follows(struct listener *l) {
	uint32_t *id = &l->addr.u.in6.sin6_scope_id, was = *id;
	if (l->addr.scope[0] == '\0') return l->tcp >= 0;
	wake_by(listen_retry = now + SEC(1));
	if (addr_resolve_scope(&l->addr) ? *id == was : errno != ENODEV) return *id = was, l->tcp >= 0;
	if (l->tcp >= 0) log_info("listen %s: the interface is gone, trying every second", addr_text(&l->addr));
	watch_remove(&l->udp_slot);
	watch_remove(&l->tcp_slot);
	if (l->udp >= 0) close(l->udp);
	if (l->tcp >= 0) close(l->tcp);
	l->udp = l->tcp = -1;
	return false;
}

/* What to do about a port that cannot be had. */
static const char *bind_hint(int e) {
	return e == EADDRINUSE ? " (\"ss -lnp\" tells by whom: systemd-resolved lets go with DNSStubListener=no, dnsmasq with port=0)" :
	    e == EACCES || e == EPERM ? " (ports below 1024 are for root, CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start)" : "";
}

/* Opens what is not open: at the start, and every second while an address is not there yet or where an interface may go. Any other
 * error is the end at the start, and later that of the one port. */
static bool listeners_try(bool start) {
	listen_retry = 0;
	for (struct listener *l = listeners; l < listeners + nlisteners; l++) {
		bool open = listener_follows(l) || l->given_up;
		if (!open && listener_open(l))
			log_info("serving on %s%s", addr_text(&l->addr), l->wild || addr_is_own(&l->addr) ? "" :
			    ": this host does not have that address yet");
		else if (!open && l->optional && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT))
			l->given_up = true;     /* a host without IPv6 */
		else if (!open && (errno == EADDRNOTAVAIL || errno == ENODEV)) {
			wake_by(listen_retry = now + SEC(1));
			if (start) log_info("listen %s: not there yet, trying every second", addr_text(&l->addr));
		} else if (!open) {
			log_error("listen %s: %s%s%s", addr_text(&l->addr), strerror(errno), bind_hint(errno), start ? "" : ", given up");
			l->given_up = true;
			if (start) return false;
		}
	}
	return true;
}

static bool listeners_open(void) {
	static const struct addr any6 = { .u.in6 = { .sin6_family = AF_INET6 } };

	for (unsigned i = 0; i < cfg.nlistens; i++)
		for (int k = 0; k < (cfg.listens[i].any ? 2 : 1); k++) {
			struct listener *l = &listeners[nlisteners++];
			*l = (struct listener){ .addr = k == 0 ? cfg.listens[i].addr : any6, .optional = k == 1, .udp = -1, .tcp = -1,
				.udp_slot = -1, .tcp_slot = -1 };
			addr_set_port(&l->addr, addr_port(&cfg.listens[i].addr));
			l->wild = addr_is_any(&l->addr);
		}
	if (!listeners_try(true)) return false;
	if (cfg.admin_off) return true;
	admin_fd = socket_bound(&cfg.admin, SOCK_STREAM);
	if (admin_fd < 0) {
		log_error("admin %s: %s%s", addr_text(&cfg.admin), strerror(errno), errno != EADDRINUSE ? bind_hint(errno) :
		    " (\"ss -lntp\" tells by whom; a second dnsproxy needs an admin line of its own, such as \"admin 127.0.0.1@5354\")");
		return false;
	}
	watch_add(&admin_slot, admin_fd, POLLIN, admin_accept, NULL, true);
	return true;
}

static bool rights_keep(uint32_t bits) {        /* capset(2), its third version */
	return syscall(__NR_capset, (uint32_t []){ 0x20080522, 0 }, (uint32_t []){ bits, bits, 0, 0, 0, 0 }) == 0;
}

/* From root to somebody with no rights, for good; to stay root takes none. But where an interface may come and go, the right to bind
 * a port below 1024 stays. */
static bool privileges_drop(void) {
	bool again = false;
	const struct passwd *pw;
	int64_t id = number(cfg.user, 0, UINT32_MAX - 1);
	uid_t uid = (uid_t)id;
	gid_t gid = (gid_t)id;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (geteuid() != 0) return true;
	pw = id < 0 ? getpwnam(cfg.user) : getpwuid(uid);
	if (pw != NULL || id < 0) {             /* without a user database it is nobody, see config_usable() */
		uid = pw != NULL ? pw->pw_uid : 65534;
		gid = pw != NULL ? pw->pw_gid : 65534;
	}
	for (unsigned i = 0; i < nlisteners; i++) again |= listeners[i].addr.scope[0] != '\0' && addr_port(&listeners[i].addr) < 1024;
	prctl(PR_SET_KEEPCAPS, again, 0, 0, 0);
	if (uid != 0 && (setgroups(0, NULL) != 0 || setgid(gid) != 0 || setuid(uid) != 0 ||
	    (again && !rights_keep(1 << 10 /* CAP_NET_BIND_SERVICE */) && !rights_keep(0)) || setuid(0) == 0)) {
		log_error("user %s: cannot become it: %s", cfg.user, strerror(errno));
		return false;
	}
	return true;
}

/* A filter that ends the process at any system call the loop has no use for: a hijacked one starts no program, looks
 * at no other process and becomes nobody else. Build with -DNO_SECCOMP to leave it out; sanitizers need more calls than it
 * allows. The numbers of the kernel's interface stand here because not every musl toolchain brings the kernel's headers. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NO_SECCOMP 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define NO_SECCOMP 1
#endif
#endif
#if defined(NO_SECCOMP)
#define AUDIT_ARCH 0
#elif defined(__x86_64__) && !defined(__ILP32__)
#define AUDIT_ARCH 0xc000003e
#elif defined(__AARCH64EL__)
#define AUDIT_ARCH 0xc00000b7
#elif defined(__i386__)
#define AUDIT_ARCH 0x40000003
#elif defined(__ARMEL__)
#define AUDIT_ARCH 0x40000028
#elif defined(__MIPSEL__) && _MIPS_SIM == _ABIO32
#define AUDIT_ARCH 0x40000008
#elif defined(__MIPSEB__) && _MIPS_SIM == _ABIO32
#define AUDIT_ARCH 8
#elif defined(__riscv) && __riscv_xlen == 64
#define AUDIT_ARCH 0xc00000f3
#elif defined(__s390x__)
#define AUDIT_ARCH 0x80000016
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define AUDIT_ARCH 0xc0000015
#else
#define AUDIT_ARCH 0
#endif

#if AUDIT_ARCH
static const uint32_t system_calls[] = {        /* those of every query first: older kernels try them one by one */
#ifdef __NR_poll
	__NR_poll,
#endif
#ifdef __NR_ppoll_time64
	__NR_ppoll_time64, __NR_recvmmsg_time64, __NR_clock_gettime64, __NR_clock_nanosleep_time64,
#endif
#ifdef __NR_socketcall
	__NR_socketcall,
#endif
#ifdef __NR_recv
	__NR_recv, __NR_send,
#endif
	__NR_recvmmsg, __NR_sendmmsg, __NR_recvfrom, __NR_sendto, __NR_socket, __NR_connect, __NR_close, __NR_ppoll,
	__NR_clock_gettime, __NR_getrandom, __NR_setsockopt, __NR_getsockopt, __NR_recvmsg, __NR_sendmsg, __NR_read, __NR_write,
	__NR_accept4, __NR_epoll_pwait, __NR_epoll_ctl, __NR_nanosleep, __NR_clock_nanosleep,
#ifdef __NR_accept
	__NR_accept,
#endif
	__NR_fcntl, __NR_bind, __NR_listen, __NR_getsockname, __NR_ioctl, __NR_readv, __NR_writev, __NR_pread64, __NR_openat,
	__NR_fstat, __NR_statx, __NR_faccessat, __NR_lseek, __NR_brk, __NR_munmap, __NR_mremap, __NR_mprotect, __NR_madvise,
	__NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn, __NR_restart_syscall, __NR_futex, __NR_getpid, __NR_gettid,
	__NR_tgkill, __NR_gettimeofday, __NR_exit, __NR_exit_group,
#ifdef __NR_open
	__NR_open, __NR_stat, __NR_lstat, __NR_access, __NR_epoll_wait,
#endif
#ifdef __NR_mmap
	__NR_mmap,
#endif
#ifdef __NR_fcntl64
	__NR_fcntl64, __NR_fstat64, __NR_stat64, __NR_lstat64, __NR_fstatat64, __NR__llseek, __NR_mmap2, __NR_sigreturn,
#endif
#ifdef __NR_newfstatat
	__NR_newfstatat,
#endif
#ifdef __NR_faccessat2
	__NR_faccessat2,
#endif
#ifdef __NR_time
	__NR_time,
#endif
};

static void sandbox(void) {
	enum { LOAD = 0x20, EQUAL = 0x15, ABOVE = 0x35, RETURN = 0x06, NUMBER_AT = 0, ARCH_AT = 4 };
	static const uint32_t allow = 0x7fff0000, kill = 0x80000000;
	struct { uint16_t code; uint8_t yes, no; uint32_t k; } f[COUNT(system_calls) + 6];
	struct { unsigned short len; void *filter; } program = { COUNT(f), f };
	const size_t n = COUNT(system_calls);
	const char *preload = getenv("LD_PRELOAD");
	size_t at = 0;

	if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
		log_info("no filter of system calls under valgrind");
		return;
	}
	f[at++] = (__typeof__(f[0])){ LOAD, 0, 0, ARCH_AT };
	f[at++] = (__typeof__(f[0])){ EQUAL, 0, (uint8_t)(n + 2), AUDIT_ARCH };
	f[at++] = (__typeof__(f[0])){ LOAD, 0, 0, NUMBER_AT };
	f[at++] = (__typeof__(f[0])){ ABOVE, (uint8_t)n, 0, 0x40000000 };       /* x32 */
	for (size_t i = 0; i < n; i++)
		f[at++] = (__typeof__(f[0])){ EQUAL, (uint8_t)(n - i), 0, system_calls[i] };
	f[at++] = (__typeof__(f[0])){ RETURN, 0, 0, kill };
	f[at++] = (__typeof__(f[0])){ RETURN, 0, 0, allow };
	if (prctl(PR_SET_SECCOMP, 2, &program, 0, 0) != 0)
		log_info("no filter of system calls: %s", strerror(errno));
}
#else
static void sandbox(void) { log_info("no filter of system calls in this build"); }
#endif

/* Sizes the tables of descriptors by what the system gives. */
static void descriptors_init(void) {
	struct rlimit r = { .rlim_cur = 256 };
	int64_t total, ours, tcp, admin, want;
	unsigned nports;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &r) != 0) getrlimit(RLIMIT_NOFILE, &r);
	}
	total = r.rlim_cur > 1000000 ? 1000000 : (int64_t)r.rlim_cur;
	ours = 12 + 4 * (int64_t)cfg.nlistens + 2 * (int64_t)cfg.nspecs;
	want = cfg.queries * MAX((int64_t)cfg.nspecs, 2);
	tcp = MIN(cfg.tcp_clients, MAX((total - ours) / 3, 1));
	admin = MAX(MIN(MAX_ADMIN, total / 8), 1);
	nports = (unsigned)MAX(MIN(want, total - ours - tcp - admin), 2);
	log_info("%lld descriptors: %u for upstream ports, %lld for TCP clients", (long long)total, nports, (long long)tcp);
	tcp_most = (size_t)tcp;
	pool_init(&ports, nports, sizeof(struct port));
	pool_init(&admins, (size_t)admin, sizeof(struct admin));
	watch_init((int)(nports + (unsigned)tcp + MAX_ADMIN + 4 * MAX_LISTEN + CONNECTIONS * MAX_UPSTREAMS + 4));
	pool_init(&streams, MAX_UPSTREAMS * CONNECTIONS, sizeof(struct stream));
	pool_init(&auths, MAX_UPSTREAMS * CONNECTIONS, sizeof(struct auth));
	tlses = table_new(MAX_UPSTREAMS * CONNECTIONS, sizeof(struct tls));
	h2s = table_new(MAX_UPSTREAMS * CONNECTIONS, sizeof(struct h2));
	pool_init(&bodies, H2_BODIES, MSG_MAX);
	stream_ids = table_new(query_table_mask + 1, sizeof(struct ask *));
}

/* Opens the doors again that were shut for want of descriptors. */
static void accept_sweep(void) {
	if (accept_rest == 0 || !is_due(accept_rest)) return;
	accept_rest = 0;
	watch_events(admin_slot, POLLIN);
	for (unsigned i = 0; i < nlisteners; i++) watch_events(listeners[i].tcp_slot, POLLIN);
}

/* Where many are in flight a turn starts after a short sleep, some 60 us and one for each of the first hundred: what comes meanwhile
 * costs one turn, not one each. Not where that takes long, for want of fine timers or of a processor. */
static void gather(void) {
	static usec again;
	if (queries.used < CROWD || now < again) return;
	clock_read();                           /* what the turn itself has taken is no sleep */
	again = now + MS(2);
	nanosleep(&(struct timespec){ .tv_nsec = (long)MIN(queries.used, 100u) * 1000 }, NULL);
	clock_read();
	again = now > again ? now + MS(100) : 0;
}

/* What happens between two polls: all that has gathered leaves, all that is due is done. */
static void turn_end(void) {
	wake = 0;
	ports_flush();
	streams_turn();
	if (ca_moved) (void)tls_prepare(&cfg, &(struct text){ .p = NULL });
	ca_moved = false;
	query_sweep();
	tcp_sweep(&tcp_idle);
	tcp_sweep(&tcp_owed);
	admin_sweep();
	if (listen_retry != 0 && is_due(listen_retry)) listeners_try(false);
	host_look(&hosts);
	list_step(&hosts);
	list_step(&block);
	accept_sweep();
	watchdog_sweep();
	tcp_flush_dirty();
	outbox_flush();
	if (!list_empty(&ports_dirty) || streams_due || rechoose)
		wake_by(now);                   /* what these steps have caused themselves */
	gather();
}

/* Is standard error the one that the supervisor reads for its journal? It wants the level before each line (sd-daemon(3)). A
 * terminal, which poll() calls writable when it takes one byte, is opened once more, so as not to wait for the others. */
static void log_find(void) {
	const char *s = getenv("JOURNAL_STREAM");
	char own[48];
	struct stat st;
	if (fstat(2, &st) != 0) return;
	if (S_ISCHR(st.st_mode)) log_fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (log_fd < 0) log_fd = 2;
	snprintf(own, sizeof own, "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	log_journal = s != NULL && strcmp(s, own) == 0;
}

static void usage(FILE *out) {
	fputs("usage: dnsproxy [-dhtV] [-a command] [-c file] [-p port] [line ...]\n"
	    "  -a, --admin COMMAND  send one admin line to the running program\n"
	    "  -c, --config FILE    configuration file, default /etc/dns.config\n"
	    "  -d, --debug          log every query, cache hit and upstream answer\n"
	    "  -p, --port PORT      port of listen lines that name none, default 53\n"
	    "  -t, --test           check the configuration, print it in normal form\n"
	    "  -V, --version        print the version\n"
	    "  -h, --help           print this\n"
	    "Each line is one of the configuration, in quotes, read after the file of -c; without -c no other file is read then.\n\n"
	    "upstream: ADDRESS[@PORT] PRIORITY [tcp | tls[=NAME] | https=NAME[/PATH]] [pin=BASE64 ...] [noverify] [final] [domain=SUFFIX ...]\n"
	    "directives:\n", out);
	for (size_t i = 0; i < COUNT(directives); i++)
		fprintf(out, "  %s %s\n      %s%s%s%s\n", directives[i].name, directives[i].arg, directives[i].help,
		    directives[i].initial[0] ? " (default " : "", directives[i].initial, directives[i].initial[0] ? ")" : "");
}

static void start_descriptors(void) {
	int fd;
	do {                                    /* 0, 1 and 2 must lead nowhere, also where there is no /dev/null */
		fd = open("/dev/null", O_RDWR);
		if (fd < 0) fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2) close(fd);
}

static void serve(void) {
	notify("READY=1");
	turn_end();
	libraries_shrink();
	for (; !stopping; turn_end()) loop_turn();
	notify("STOPPING=1");
	for (unsigned i = 0; i < norder; i++) upstream_disconnect(&upstreams[order[i]]);
	log_info("stopped");
}

/* Reads the command line. Gives the exit status where that is all, else -1. */
static int options_read(int argc, char **argv) {
	static const struct option options[] = { { "admin", 1, NULL, 'a' }, { "config", 1, NULL, 'c' }, { "debug", 0, NULL, 'd' },
		{ "port", 1, NULL, 'p' }, { "test", 0, NULL, 't' }, { "version", 0, NULL, 'V' }, { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 } };
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "a:c:dp:tVh", options, NULL)) != -1) {
		const char letter[] = { '-', (char)optopt, '\0' };
		switch (c) {
		case 'a': source.command = optarg; break;
		case 'c': source.file = optarg; break;
		case 'd': source.debug = true; break;
		case 'p':
			source.port = (unsigned)MAX(number(optarg, 1, 65535), 0);
			if (source.port > 0) break;
			fprintf(stderr, "dnsproxy: \"%s\" is not a port, expected 1 to 65535\n", optarg);
			return 2;
		case 't': source.test = true; break;
		case 'V': puts("dnsproxy " VERSION); return 0;
		case 'h': usage(stdout); return 0;
		default:
			fprintf(stderr, "dnsproxy: %s is unknown or lacks its argument, see dnsproxy --help\n",
			    optopt > 0 && optopt < 128 ? letter : argv[optind - 1]);
			return 2;
		}
	}
	source.lines = argv + optind;
	return -1;
}

/* What the start alone looks at, for a reload changes none of it. */
static bool config_usable(struct text *errors) {
	if (number(cfg.user, 0, UINT32_MAX - 1) >= 0 || strcmp(cfg.user, "nobody") == 0 || getpwnam(cfg.user) != NULL)
		return tls_prepare(&cfg, errors);
	text_add(errors, "%s: user %s: there is no such user, expected a name or a number\n", cfg.user_place, cfg.user);
	return false;
}

int main(int argc, char **argv) {
	static char errors[256];
	static struct text t = { .p = errors, .size = sizeof errors, .grows = true };
	char from[80];
	sigset_t wait;
	bool good;
	int status = options_read(argc, argv);

	if (status >= 0) return status;
	signal(SIGPIPE, SIG_IGN);               /* before the first line for a log that nobody reads any more */
	sigemptyset(&wait);
	sigaddset(&wait, SIGHUP);               /* a reload that is asked for meanwhile ends no start, it follows it */
	sigprocmask(SIG_BLOCK, &wait, NULL);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);  /* of most tables little is ever touched: not two megabytes for a byte */
	start_descriptors();
	clock_read();
	started = now;
	log_find();
	good = config_read(&cfg, &t, from);
	if (source.command != NULL && (good || (!source.unread && strstr(t.p, "in quotes") == NULL)))
		return admin_client(source.command);    /* the running program may be well though the file is broken by now */
	if (!good || !config_usable(&t)) {
		for (char *save, *line = strtok_r(t.p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
			fprintf(stderr, "%s%s\n", log_journal ? "<3>" : "", line);
		return source.test || source.command != NULL ? 1 : EX_CONFIG;
	}
	if (source.test) return config_print(stdout, &cfg);
	log_level = (enum level)cfg.level;
	log_syslog = cfg.syslog;
	log_info("dnsproxy %s, configuration from %s", VERSION, from);
	hash_init();
	query_init();
	descriptors_init();
	cache_init((size_t)cfg.cache_size);
	clients_init();
	signals_init();
	upstreams_apply(&cfg);
	list_start(&hosts);
	list_start(&block);
	while (hosts.reading || block.reading) {        /* all of it before the ports answer */
		list_step(&hosts);
		list_step(&block);
	}
	if ((cfg.blocks.n > 0 && block.table.slots == NULL) || !listeners_open() || !privileges_drop())
		return 1;
	sandbox();
	serve();
	return 0;
}
