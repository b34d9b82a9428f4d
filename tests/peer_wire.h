/* peer_wire.h - what test programs need on the wire: sockets, words, messages read and printed
 *
 * Includes dnsproxy.c for addresses, the clock, randomness and the names of types and RCODEs. Messages are read by its
 * cursor, and written by bytes.h.
 * Not a program; peer.c includes it. */
#define main dnsproxy_main
#include "../dnsproxy.c"
#undef main
#include <err.h>
#include <regex.h>
#include <sched.h>
#include "bytes.h"

#define die(...) errx(2, __VA_ARGS__)

/* ---- Time, chance */

static usec us_now(void) { clock_read(); return now; }
static long ms_now(void) { return (long)(us_now() / MS(1)); }

static uint32_t rnd(void) { return chance_next(); }
static void rnd_seed(uint64_t seed) { chance = seed * UINT64_C(0x9e3779b97f4a7c15) | 1; }

/* ---- Bytes */

/* The length of the message framed at the front, or -1 when it is not whole. */
static long framed(const struct buf *b) { return b->n < 2 || b->n < 2 + (size_t)get16at(b->p) ? -1 : (long)get16at(b->p); }

static struct buf file_read(const char *path, const char *ending) {
	struct buf b = { 0 };
	char name[1000];
	snprintf(name, sizeof name, "%s%s", path, ending);
	FILE *f = fopen(name, "r");
	if (f == NULL) die("%s: %s", name, strerror(errno));
	b.n = fread(put_room(&b, 100000), 1, 100000, f);
	b.p[b.n] = 0;                   /* a text too */
	fclose(f);
	return b;
}

/* ---- Words: KEY=VALUE */

/* The value of a word that starts with key and '=', else NULL. */
static const char *value_of(const char *w, const char *key) {
	size_t n = strlen(key);
	return strncmp(w, key, n) == 0 && w[n] == '=' ? w + n + 1 : NULL;
}

/* A struct that words set starts with ints, and then come texts, named by lists. NAMES makes a string of those. */
enum { WORD = 256 };
typedef char text_word[WORD];
#define NAMES(...) NAMES_OF(__VA_ARGS__)
#define NAMES_OF(...) #__VA_ARGS__

/* texts: the offset of the first text. */
static bool field_set(void *to, const char *names, size_t texts, const char *w) {
	size_t len = strcspn(w, "="), at = 0;
	const char *v = w[len] != '\0' ? w + len + 1 : "";
	int number = *v != '\0' ? atoi(v) : 1;
	for (; strncmp(names, w, len) != 0 || strcspn(names, ",") != len; at += at < texts ? sizeof number : WORD) {
		names += strcspn(names, ",");
		if (*names == '\0') return false;
		names += 2;
	}
	if (at < texts) memcpy((char *)to + at, &number, sizeof number);
	else snprintf((char *)to + at, WORD, "%s", v);
	return true;
}

/* A format whose first %d is the number, or whose %x is that with "fresh" behind it. */
static void numbered(char *out, size_t size, const char *format, int number, const char *fresh) {
	const char *p = strstr(format, "%x") ? strstr(format, "%x") : strstr(format, "%d");
	if (p == NULL) snprintf(out, size, "%s", format);
	else snprintf(out, size, "%.*s%d%s%s", (int)(p - format), format, number, p[1] == 'x' ? fresh : "", p + 2);
}

/* ---- Sockets */

static struct addr addr_at(const char *host, unsigned port) {
	struct addr a;
	if (!addr_parse(&a, host) || !addr_resolve_scope(&a)) die("%s is not an address", host);
	addr_set_port(&a, port);
	return a;
}
static struct addr addr_of(const char *host, const char *port) { return addr_at(host, (unsigned)atoi(port)); }

static void set_option(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }
static void nonblocking(int fd) { fcntl(fd, F_SETFL, O_NONBLOCK); }
/* The next close() of it is a reset. */
static void reset_on_close(int fd) { setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger)); }

/* A socket bound to from (or not), connecting to to (or not). -1 and errno when that fails. */
static int tcp_rcvbuf;                          /* 0: as the system likes */
static int sock(int type, const struct addr *from, const struct addr *to) {
	int fd = socket((from ? from : to)->u.sa.sa_family, type, type == SOCK_RAW ? IPPROTO_UDP : 0);
	if (fd < 0) return -1;
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (type == SOCK_STREAM) set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	else set_option(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20);
	if (type != SOCK_STREAM || tcp_rcvbuf > 0) set_option(fd, SOL_SOCKET, SO_RCVBUF, tcp_rcvbuf > 0 ? tcp_rcvbuf : 4 << 20);
	if (from && addr_is6(from)) set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if ((!from || bind(fd, &from->u.sa, addr_len(from)) == 0) &&
	    (!to || connect(fd, &to->u.sa, addr_len(to)) == 0 || errno == EINPROGRESS))
		return fd;
	close(fd);
	return -1;
}

/* True when there is something to read before the time end (in ms). */
static bool readable(int fd, long end) {
	long left = end - ms_now();
	return left >= 0 && poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, (int)left) > 0;
}

/* The next message into b, framed over TCP. NULL, or why none comes before end. */
static const char *message_wait(int fd, bool tcp, struct buf *b, long end) {
	for (b->n = 0; framed(b) < 0; ) {
		size_t most = !tcp ? MSG_MAX : b->n < 2 ? 2 - b->n : 2 + (size_t)get16at(b->p) - b->n;
		if (!readable(fd, end)) return "TIMEOUT";
		ssize_t n = recv(fd, put_room(b, most), most, 0);
		b->n -= most - (size_t)MAX(n, 0);
		if (!tcp) return n < 0 ? "REFUSEDPORT" : NULL;
		if (n <= 0) return "CLOSED";
	}
	take(b, 2);
	return NULL;
}

/* ---- Messages: writing */

/* One more record, in section 1, 2 or 3. */
#define PUT_RECORD(b, section, ...) \
	(put_as(b, __VA_ARGS__), put16at((b)->p + 4 + 2 * (section), get16at((b)->p + 4 + 2 * (section)) + 1))

/* An EDNS option CODE:HEX */
static void put_option(struct buf *b, const char *s) { put_as(b, "2(#)", (unsigned)atoi(s), strchr(s, ':') ? strchr(s, ':') + 1 : ""); }

/* A type by name; TYPE0 too, which the program does not take. */
static int type_of(const char *s) { return strcasecmp(s, "TYPE0") == 0 ? 0 : type_parse(s); }

/* A 24-bit number made from the name of the question, letter case aside: the host part of the address that servers with net= give it. */
static uint32_t name_number(const uint8_t *message) {
	uint32_t h = 2166136261u;
	for (const uint8_t *p = message + 12; *p != 0; p++) h = (h ^ lower(*p)) * 16777619u;
	return (h >> 8 ^ h) & 0xffffff;
}

/* Some bytes of it, from the offset "from" on, are changed by chance, or its end is cut off. */
static void mutate(struct buf *b, size_t from) {
	static const uint8_t odd[] = { 0, 0xff, 0xc0, 0x0c, 0x40, 0x3f, 0x29, 1 };
	for (unsigned k = 1 + rnd() % 4; k > 0 && b->n > 12; k--)
		if (rnd() % 5 == 0) b->n = 12 + rnd() % (b->n - 12);
		else b->p[from + rnd() % (b->n - from)] = rnd() % 2 ? (uint8_t)rnd() : odd[rnd() % 8];
}

/* ---- Messages: reading */

/* A message that was read: its question, its OPT, and what is wrong with the whole of it. */
struct message {
	char name[NAME_TEXT];
	unsigned type, class;
	size_t end;                     /* of the question; 0 without one */
	unsigned opts, size, flags, ext;
	struct msg options;
	const char *odd;
};

typedef void each_record(void *ctx, struct msg at, const struct rr *r, int section);

/* Reads it, and gives each record but the OPT to "each", if there is one, up to what is wrong. False without a question. */
static bool message_read(struct message *q, const uint8_t *p, size_t n, each_record *each, void *ctx) {
	struct msg m = { .p = p, .len = n, .at = 12 };
	struct rr r;
	*q = (struct message){ .odd = "short" };
	if (n < 12) return false;
	for (int section = 0; section <= 3; section++)
		for (unsigned i = get16at(p + 4 + 2 * section); i > 0 && m.err == NULL; i--) {
			r.at = m.at;
			msg_name(&m);
			if (section == 0) msg_skip(&m, 4);
			else msg_rr_head(&m, &r);
			if (section > 0) msg_rdata(&m, r.type, r.rdlen);
			if (m.err != NULL) break;
			if (section == 0 && q->end == 0) {
				snprintf(q->name, sizeof q->name, "%s", name_text_in(p, p + r.at));
				q->type = get16at(p + m.at - 4);
				q->class = get16at(p + m.at - 2);
				q->end = m.at;
			} else if (section > 0 && r.type == T_OPT) {
				q->opts++;
				q->size = r.class;
				q->ext = r.ttl >> 24;
				q->flags = r.ttl & 0xffff;
				q->options = (struct msg){ .p = p + r.rdata_at, .len = r.rdlen };
			} else if (section > 0 && each != NULL) each(ctx, (struct msg){ .p = p, .len = n, .at = r.at }, &r, section);
		}
	q->odd = m.err == NULL && m.at != n ? "bytes behind it" : m.err;
	return q->end > 0;
}

/* ---- Messages: printing */

/* " edns=SIZE ... opts=CODE:HEX,..." and " ede=N" behind that option */
static void print_opt(struct text *t, const struct message *q) {
	const char *sep = " opts=";
	const uint8_t *data;
	unsigned code;
	size_t at = 0, len;
	if (q->opts == 0) return;
	text_add(t, " edns=%u", q->size);
	if (q->flags & 0x8000) text_add(t, " do");
	if (q->opts > 1) text_add(t, " opts-too-many=%u", q->opts - 1);
	for (; edns_next(q->options.p, q->options.len, &at, &code, &data, &len); sep = code == EDNS_EDE ? " opts=" : ",") {
		text_add(t, "%s%u:", sep, code);
		for (size_t i = 0; i < len && i < 24; i++) text_add(t, "%02x", data[i]);
		if (len > 24) text_add(t, "+%zu", len - 24);
		if (code == EDNS_EDE && len >= 2) text_add(t, " ede=%u", get16at(data));
	}
}

/* A record in the words of the program, but on this line, without the usual class, and cut when it is long. */
static void print_record(void *ctx, struct msg at, const struct rr *r, int section) {
	static const char *const sections[] = { "", "", "au: ", "ad: " };
	char line[3000], *in;
	struct text t = { .p = line, .size = sizeof line };
	text_record(&t, &at);
	line[strcspn(line, "\n")] = '\0';
	for (char *c = line; *c != '\0'; c++) *c = *c == '\t' ? ' ' : *c;
	if (r->class == 1 && (in = strstr(line, " IN ")) != NULL) memmove(in, in + 3, strlen(in + 3) + 1);
	text_add(ctx, " | %s%s", sections[section], line + 2);
}

/* One line: RCODE, flags, sizes, what "more" says, then the records each after " | ". */
static void print_msg(const uint8_t *p, size_t n, const char *more) {
	static const struct { unsigned bit; const char *name; } bits[] = { { F_QR, "qr" }, { F_AA, "aa" }, { F_TC, "tc" }, { F_RD, "rd" },
		{ F_RA, "ra" }, { 0x40, "z" }, { F_AD, "ad" }, { F_CD, "cd" } };
	static char head[4000], list[400000];
	struct text t = { .p = head, .size = sizeof head }, records = { .p = list, .size = sizeof list };
	struct message q;
	bool whole = message_read(&q, p, n, print_record, &records);
	unsigned flags = n < 12 ? 0 : get16at(p + 2);
	if (q.odd) text_add(&t, "MALFORMED %s ", q.odd);
	text_add(&t, "%s", rcode_text((flags & 15) | q.ext << 4));
	for (size_t i = 0; i < COUNT(bits); i++)
		if (flags & bits[i].bit) text_add(&t, " %s", bits[i].name);
	if (flags & F_OPCODE) text_add(&t, " opcode=%u", flags >> 11 & 15);
	if (n >= 12) text_add(&t, " id=%u", get16at(p));
	if (whole) text_add(&t, " q=%s/%s%s", q.name, type_text(q.type), q.class == 1 ? "" : q.class == 3 ? "/CH" : "/CLASS?");
	for (size_t i = 0; i < 4 && n >= 12; i++) text_add(&t, " %.2s=%u", &"qdannsar"[2 * i], get16at(p + 4 + 2 * i));
	text_add(&t, " size=%zu", n);
	print_opt(&t, &q);
	printf("%s%s%.*s\n", head, more, (int)records.len, list);
}
