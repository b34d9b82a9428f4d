/* peer_server.h - the scripted upstream over UDP, TCP and TLS
 *
 * Not a program; peer.c includes it:  peer up ADDRESS PORT [WORD...]
 * PORT 0 is a free one. Says "ready ADDRESS@PORT" and runs until it is killed. WORDs:
 *   log=FILE  rules=FILE  number=N  noudp  notcp  cert=FILE (over TLS, with FILE.pem.der and FILE.key.der)  tls=10|11|12
 *   suites=HEX,HEX  alpn=NAME (h2: DNS over HTTPS, by the words of peer_h2.h)
 *
 * Its words come from the lines of the rules, `SUFFIX WORD...`, read again when they change (an unknown word ends it), and from
 * labels of the QNAME with a `=`: `ttl=5`, `nodata=`. With a number before it a word is for the upstream of that number only:
 * `2delay=300`. Later words win. Without any: a record of the asked type, TTL 300, A 192.0.2.NUMBER. Times are milliseconds.
 *
 *  what      a=ADDR  net=N (A is N. and a hash of the name)  count (A says how many answers there were)  n=RECORDS  type=T
 *            ttl=N,N...  rdlen=N  big=BYTES  cname=LINKS  extra (records of other names)  nodata  soa=TTL,MINIMUM
 *            servfail refused formerr notimp nxdomain  rcode=N  aa ad  ede=N  opt=CODE:HEX
 *            noedns=RCODE (that, without OPT, to every query with OPT; drop: nothing)
 *  when      delay=MS  jitter=MS (up to so much later, each way)  silent
 *  over UDP  tc  tcrec (TC=1 with records; 2: over TCP too)  lose=PERCENT (each way)  drop (the first with a name)  twice
 *            once (a port gets one answer: a firewall that ends a session with it)
 *  streams   close  reset  dribble=MS (a byte each, or record=N bytes)  cut (half the answer, then close)
 *  wrong     first=KIND (and gap=MS later, by default 100, the right one)  bad=KIND (alone)  flood=N (N wrong IDs first)
 *            KIND: id qname qtype qclass qr opcode zero eleven header qd2 cutq noq loop | port addr | rdlen ancount
 *            cutrr label40 letters (in the question, two are of the other case) SEED (bytes of chance)
 * For a connection as a whole, in rules for "." only:
 *  ends      how=notify|fin|rst|half (half: close_notify, and the socket stays)  idle=MS  life=MS  after=ANSWERS  full=N (when
 *            so many queries wait)  kick=N (a new number: now, all of them)
 *  order     batch=N (answers wait for each other, then leave in as few records as can be, the last first)  inorder (one query
 *            at a time)  skip (of the queries in a record only the first is seen before more bytes come)  muted=N (connections
 *            up to number N answer nothing)
 *  shape     record=N (bytes of a TLS record at most)  wire=N (of a segment)
 *  faults    at=accept|hello|mid|up:stall|fin|rst|garbage|zeros|plain|alertN (mid: after 200 bytes of ours, in a record; what
 *            is sent is plain, so an alert is read as one at accept and hello only)  times=N (at and full happen so often)
 *            pause=MS (nothing is done after a ClientHello)  reneg  cache=NAME (of sessions, which are forgotten with a new name;
 *            off: none are kept; zero: any is resumed, with a secret of zeros)
 *
 * Each event is a line of the log: EVENT CONNECTION ms TIME and what belongs to it. EVENT is query, bad (no query), plain (no
 * TLS), open, hello, flight (the certificates have left), up (the handshake is over), data (the first of it), strike (a fault
 * is done), reneg, end (by whom, and why) and rules (read, by connection 0). */

#define ACT_INTS nodata, n, rdlen, big, cname, extra, net, count, aa, ad, ede, delay, jitter, lose, silent, drop, tc, tcrec, \
	twice, once, close, reset, dribble, cut, gap, flood, idle, life, after, full, kick, batch, inorder, skip, muted, \
	record, wire, times, pause, reneg, number, notcp, noudp, tls
#define ACT_TEXTS ttl, first, bad, a, opt, noedns, type, soa, how, at, cache, h2, log, rules, cert, suites, alpn
struct act { int ACT_INTS; text_word ACT_TEXTS; int rcode; };

static bool act_set(struct act *a, const char *w) { return field_set(a, NAMES(ACT_INTS, ACT_TEXTS), offsetof(struct act, ttl), w); }

/* base: what the command line says; all: what the rules say to connections. */
struct setup {
	struct act base, all;
	struct buf text;                /* of the rules */
	int logfd, udp, tcp, other, elsewhere;
	struct addr at;
	bool secure;                    /* over TLS */
	usec kicked;                    /* connections from before end */
};
static struct setup up = { .base = { .number = 1, .tls = 12, .n = 1, .gap = 100, .ttl = "300", .ede = -1, .times = -1,
	.how = "notify" }, .logfd = -1, .udp = -1, .tcp = -1, .other = -1, .elsewhere = -1 };

/* A connection, or one of many. What comes goes through the TLS engine, if there is one, into "in", and "handle" makes of it what
 * it is: DNS or HTTP/2. What is put into "out" leaves by way of the engine and "raw". */
struct web { bool greeted; uint32_t stream; int requests; long room, taken; };     /* of HTTP/2 */
enum closing { STAYS, CLOSING, HALF_CLOSED, CLOSES_WHEN_EMPTY };
struct conn {
	struct node node;
	int fd, slot, id;
	struct addr from;
	struct conn **place;            /* where many keeps one of its own */
	void (*handle)(struct conn *);
	bool hello, up, flight, reneg, gone, stalled;
	enum closing closing;
	usec born, last, dripped;
	struct buf came, in, out, raw;  /* came: what the engine has not taken */
	size_t sent;
	int held, waiting, answers, records, dribble;
	struct web web;
	br_ssl_server_context sc;
	uint8_t io[BR_SSL_BUFSIZE_BIDI];
};

static struct node conns = { &conns, &conns };
static int conn_count;
enum { MOST_CONNS = 20000 };
#define EACH_CONN(c) (struct node *n_ = conns.next, *next_; next_ = n_->next, c = (struct conn *)(void *)n_, n_ != &conns; n_ = next_)

static __attribute__((format(printf, 3, 4))) void note(const char *event, const struct conn *c, const char *fmt, ...) {
	char line[3000];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	if (up.logfd >= 0 && dprintf(up.logfd, "%s %d ms %ld %s\n", event, c ? c->id : 0, ms_now(), line) < 0)
		die("log: %s", strerror(errno));
}

/* ---- Rules */

/* An RCODE by name or number, at the beginning of a word; -1 for none. */
static int rcode_of(const char *w) {
	size_t n = strcspn(w, "=");
	for (unsigned i = 0; i <= BADVERS; i++)
		if (strlen(rcode_text(i)) == n && strncasecmp(rcode_text(i), w, n) == 0) return (int)i;
	return isdigit((unsigned char)*w) ? atoi(w) : -1;
}

static bool act_word(struct act *a, const char *w) {
	char *e;
	long only = strtol(w, &e, 10);
	if (e != w && only != up.base.number) return true;
	int rcode = rcode_of(value_of(e, "rcode") ? value_of(e, "rcode") : e);
	if (rcode >= 0) a->rcode = rcode;
	return rcode >= 0 || act_set(a, e);
}

static struct act act_for(const char *name) {
	struct act a = up.base;
	uint8_t n[NAME_MAX_WIRE], suffix[NAME_MAX_WIRE];
	size_t len = name_parse(n, name);
	char copy[65536], *save, *save2, *w;
	snprintf(copy, sizeof copy, "%s", up.text.p ? (char *)up.text.p : "");
	for (char *line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
		if ((w = strtok_r(line, " ", &save2)) != NULL && name_below(n, len, suffix, name_parse(suffix, w)))
			while ((w = strtok_r(NULL, " ", &save2)) != NULL)
				if (!act_word(&a, w)) die("rules: what is %s?", w);
	snprintf(copy, sizeof copy, "%s", name);
	for (w = strtok_r(copy, ".", &save); w != NULL; w = strtok_r(NULL, ".", &save))
		if (strchr(w, '=')) act_word(&a, w);    /* other labels with a '=' are just labels */
	return a;
}

static br_ssl_session_cache_lru sessions;
static uint8_t sessions_store[100000];

/* Reads the rules again if they have changed; what they say for all connections happens now. */
static void rules_read(void) {
	static struct stat old;
	struct act was = up.all;
	struct stat st;
	regex_t faults;
	if (up.base.rules[0] == '\0' || stat(up.base.rules, &st) != 0 || (st.st_ino == old.st_ino && memcmp(&st.st_mtim, &old.st_mtim, sizeof st.st_mtim) == 0))
		return;
	old = st;
	free(up.text.p);
	up.text = file_read(up.base.rules, "");
	up.all = act_for("connect.");
	regcomp(&faults, "^(accept|hello|mid|up):(stall|fin|rst|garbage|zeros|plain|alert[0-9]+)$|^$", REG_EXTENDED | REG_NOSUB);
	if (regexec(&faults, up.all.at, 0, NULL, 0) != 0) die("rules: what is at=%s?", up.all.at);
	regfree(&faults);
	note("rules", NULL, "read");
	if (strcmp(up.all.cache, was.cache) != 0) br_ssl_session_cache_lru_init(&sessions, sessions_store, sizeof sessions_store);
	if (up.all.kick != 0 && up.all.kick != was.kick) up.kicked = now;
}

/* ---- Answers */

/* The RDATA by the layout that the program knows, or bytes of no meaning. */
static void put_rdata(struct buf *b, const struct act *a, unsigned type, int i) {
	const struct rrtype *known = type_find(type);
	const char *f = known ? known->layout : NULL, *minimum = strchr(a->soa, ',') ? strchr(a->soa, ',') + 1 : a->soa;
	size_t n = a->rdlen ? (size_t)a->rdlen : 12, at = b->n;
	char text[WORD];
	put16(b, 0);
	if (type == T_A || type == T_AAAA) {
		snprintf(text, sizeof text, type == T_A ? "192.0.2.%d" : "2001:db8::%x", (up.base.number + i) & 255);
		inet_pton(type == T_A ? AF_INET : AF_INET6, type == T_A && a->a[0] ? a->a : text, put_room(b, type == T_A ? 4 : 16));
	} else if (f != NULL)
		for (; *f != '\0'; f++)
			if (*f == 'n') put_as(b, "lp", "ns", 12);
			else for (int k = '0'; k < *f; k++) put8(b, 0);
	else for (size_t k = 0; k < n; k++)
		put8(b, (unsigned)(type != T_TXT ? k * 197 + k / 256 + type : k % 256 ? 'x' : MIN(n - k - 1, 255)));
	if (type == T_SOA) put32at(b->p + b->n - 4, (unsigned)atoi(minimum));
	put16at(b->p + at, (unsigned)(b->n - at - 2));
}

static void put_opt(struct buf *b, const struct act *a, unsigned rcode, bool do_) {
	struct buf o = { 0 };
	if (a->ede >= 0) put_as(&o, "2(2@)", EDNS_EDE, (unsigned)a->ede, "test", (size_t)4);
	if (a->opt[0]) put_option(&o, a->opt);
	PUT_RECORD(b, 3, "1224(@)", 0, T_OPT, 1232, (rcode >> 4) << 24 | (do_ ? 0x8000u : 0), o.p, o.n);
	free(o.p);
}

/* All records, as the rules say. */
static void put_sections(struct buf *b, const struct act *as, const struct message *q, unsigned rcode, bool opt, bool do_) {
	static unsigned count;
	struct act a = *as;
	unsigned type = a.type[0] ? (unsigned)type_of(a.type) : q->type == T_ANY ? T_A : q->type, owner = 12;
	char text[32], *ttl = a.ttl, *next;
	for (int i = 0; i < a.cname; i++) {
		snprintf(text, sizeof text, "c%d", i);
		PUT_RECORD(b, 1, "p224(lp)", owner, T_CNAME, 1, (unsigned)strtoul(a.ttl, NULL, 10), text, 12);
		owner = (unsigned)(b->n - strlen(text) - 3);
	}
	uint32_t h = a.count ? ++count : name_number(b->p);
	if (a.net || a.count) snprintf(a.a, sizeof a.a, "%d.%u.%u.%u", a.net ? a.net : 10, h >> 16 & 255, h >> 8 & 255, h & 255);
	size_t want = a.big ? (size_t)a.big - (opt ? 11 : 0) : 0;
	if (want > b->n && type == T_A) a.n = (int)((want - b->n) / 16);
	else if (want > b->n + 12 && type != T_AAAA) a.rdlen = (int)(want - b->n - 12);
	for (int i = 0; i < a.n && rcode == NOERROR && !a.nodata; i++) {
		PUT_RECORD(b, 1, "p224", owner, type, 1, (unsigned)strtoul(ttl, &next, 10));
		put_rdata(b, &a, type, i);
		if (*next == ',') ttl = next + 1;
	}
	if (a.soa[0]) {
		PUT_RECORD(b, 2, "p224", 12, T_SOA, 1, (unsigned)atoi(a.soa));
		put_rdata(b, &a, T_SOA, 0);
	}
	if (a.extra) PUT_RECORD(b, 2, "n224(n)", "test", T_NS, 1, 300, "ns.evil");
	if (a.extra) PUT_RECORD(b, 3, "n224(4)", "victim.test", T_A, 1, 300, 0x06060606);
	if (opt) put_opt(b, &a, rcode, do_);
}

/* The honest answer to the query p. */
static void answer_put(struct buf *b, const struct act *a, const uint8_t *p, const struct message *q, bool udp) {
	bool intolerant = a->noedns[0] && q->opts, opt = q->opts && !intolerant, do_ = q->flags >> 15;
	unsigned rcode = (unsigned)(intolerant ? rcode_of(a->noedns) : a->rcode);
	size_t limit = !udp ? MSG_MAX : q->opts ? MAX(q->size, 512) : 512;
	b->n = 0;
	put(b, p, q->end);
	put16at(b->p + 2, F_QR | F_RA | (get16at(p + 2) & (F_RD | F_CD)) | (a->aa ? F_AA : 0) | (a->ad ? F_AD : 0) | (rcode & 15));
	put16at(b->p + 4, 1);
	memset(b->p + 6, 0, 6);
	if (intolerant && rcode != NOERROR) return;
	put_sections(b, a, q, rcode, opt, do_);
	bool cut = (udp && a->tc) || b->n > limit;
	if (cut) {
		b->n = q->end;
		memset(b->p + 6, 0, 6);
		if (opt) put_opt(b, a, rcode, do_);
	}
	if (cut || a->tcrec > !udp) b->p[2] |= F_TC >> 8;
}

static void spoil(struct buf *b, const char *kind, const struct message *q) {
	enum { WHOLE = MSG_MAX };
	size_t rr = q->end, i = 0;
	const struct { const char *kind; size_t length, at; unsigned value; } ways[] = { { "id", WHOLE, 0, get16at(b->p) ^ 0x0101 },
		{ "qname", WHOLE, 13, get16at(b->p + 13) ^ 0x0100 }, { "letters", WHOLE, 13, get16at(b->p + 13) ^ 0x2020 },
		{ "qtype", WHOLE, rr - 4, q->type == T_TXT ? T_A : T_TXT }, { "qclass", WHOLE, rr - 2, 3 },
		{ "qr", WHOLE, 2, get16at(b->p + 2) & 0x7fff }, { "opcode", WHOLE, 2, get16at(b->p + 2) | 4 << 11 }, { "qd2", WHOLE, 4, 2 },
		{ "noq", WHOLE, 4, 0 }, { "loop", WHOLE, rr, 0xc000u | (unsigned)rr }, { "label40", WHOLE, rr, 0x400c },
		{ "rdlen", WHOLE, rr + 10, 60000 }, { "ancount", WHOLE, 6, 65535 }, { "header", 12, 4, 0 }, { "zero", 0, 6, 0 },
		{ "eleven", 11, 6, 0 }, { "cutq", rr - 3, 6, 0 }, { "cutrr", rr + 13, WHOLE, 0 } };
	if (isdigit((unsigned char)*kind)) {    /* in a way that seed and name decide */
		rnd_seed((uint64_t)atoi(kind) << 32 ^ name_number(b->p));
		mutate(b, 2);
		return;
	}
	while (strcmp(kind, ways[i].kind) != 0)
		if (++i == COUNT(ways)) die("what is a wrong %s?", kind);
	if (ways[i].at + 2 <= b->n) put16at(b->p + ways[i].at, ways[i].value);
	b->n = MIN(b->n, ways[i].length);
	if (ways[i].length <= rr) memset(b->p + 6, 0, 6);
}

/* ---- Connections: how they end */

static void conn_die(struct conn *c, const char *who, const char *why) {
	if (c->gone) return;
	c->gone = true;
	note("end", c, "by %s why %s answers %d", who, why, c->answers);
	watch_remove(&c->slot);
	close(c->fd);
}

static void conn_close(struct conn *c, const char *how) {
	if (c->gone || c->closing == CLOSING || c->closing == HALF_CLOSED) return;
	if (c->up && !c->stalled && (strcmp(how, "notify") == 0 || strcmp(how, "half") == 0)) {
		c->closing = strcmp(how, "half") == 0 ? HALF_CLOSED : CLOSING;
		br_ssl_engine_close(&c->sc.eng);
		return;
	}
	if (strcmp(how, "rst") == 0) reset_on_close(c->fd);
	conn_die(c, "server", how);
}

/* ---- Things to be done later, soonest first */

enum kind { J_ANSWER, J_MESSAGE, J_BYTES, J_END, J_RESET };  /* those without a connection are datagrams */
struct job { struct node node; usec due; enum kind kind; int fd, flood; struct conn *conn; struct addr to; struct buf b; };
static struct node jobs = { &jobs, &jobs };

static struct job *job_of(struct node *n) { return (struct job *)(void *)n; }

static void job_add(struct job as, const void *p, size_t n) {
	struct job *j = grow(NULL, sizeof *j);
	struct node *at = &jobs;
	*j = as;
	put(&j->b, p, n);
	while (at->prev != &jobs && job_of(at->prev)->due > j->due) at = at->prev;
	list_append(at, &j->node);
}

static void send_later(usec due, int fd, const struct addr *to, const void *p, size_t n) {
	job_add((struct job){ .due = due, .fd = fd, .to = *to }, p, n);
}

static void job_free(struct job *j) {
	list_remove(&j->node);
	free(j->b.p);
	free(j);
}

static void datagram_send(struct job *j) {
	bool device = j->to.u.sa.sa_family == AF_UNSPEC;
	if ((device ? write(j->fd, j->b.p, j->b.n) : sendto(j->fd, j->b.p, j->b.n, 0, &j->to.u.sa, addr_len(&j->to))) < 0 && errno == EBADF)
		die("sendto: %s", strerror(errno));
}

/* 250 of a flood of wrong IDs; the others not before a millisecond has passed, so that what is due meanwhile leaves too. */
static void flood_send(struct job *j) {
	for (int k = 0; k < 250 && j->flood > 0; k++, j->flood--) {
		put16at(j->b.p, (get16at(j->b.p) + 1) & 65535);
		datagram_send(j);
	}
	if (j->flood > 0) job_add((struct job){ .due = now + MS(1), .fd = j->fd, .flood = j->flood, .to = j->to }, j->b.p, j->b.n);
}

/* An answer leaves; with batch= it waits until they are so many, and goes before the others. */
static void answer_leaves(struct conn *c, const struct buf *b) {
	put_buf(&c->out, b);
	c->waiting--;
	c->answers++;
	if (up.all.batch > 0) {
		memmove(c->out.p + b->n, c->out.p, c->out.n - b->n);
		memcpy(c->out.p, b->p, b->n);
		c->held = (c->held + 1) % up.all.batch;
	}
	if (up.all.after > 0 && c->answers >= up.all.after) c->closing = CLOSES_WHEN_EMPTY;
}

static void conn_move(struct conn *c);

static void job_run(struct job *j) {
	struct conn *c = j->conn;
	if (c == NULL) (j->flood ? flood_send : datagram_send)(j);
	if (c == NULL || c->gone || c->stalled) return;
	if (j->kind == J_ANSWER) answer_leaves(c, &j->b);
	else if (j->kind == J_MESSAGE) put_framed(&c->out, &j->b);
	else if (j->kind == J_BYTES) put_buf(&c->out, &j->b);
	else if (j->kind == J_RESET) conn_close(c, "rst");
	else c->closing = CLOSES_WHEN_EMPTY;
	conn_move(c);
	if (up.all.inorder && !c->gone) c->handle(c);
}

/* Waits until something has come, or the next is due, and does what is due. */
static void jobs_turn(void) {
	clock_read();
	if (!list_empty(&jobs)) wake_by(job_of(jobs.next)->due);
	loop_turn();
	wake = 0;
	while (!list_empty(&jobs) && job_of(jobs.next)->due <= now) {
		struct job *j = job_of(jobs.next);
		job_run(j);
		job_free(j);
	}
}

/* ---- Queries */

static const char *transport(const struct conn *c) { return c == NULL ? "udp" : up.secure ? "tls" : "tcp"; }

static void query_note(const struct conn *c, const uint8_t *p, size_t n, const struct addr *from, const struct message *q) {
	char more[2000] = "";
	struct text t = { .p = more, .size = sizeof more };
	unsigned flags = get16at(p + 2);
	if (c != NULL && up.secure) text_add(&t, " record=%d", c->records);
	print_opt(&t, q);
	if (q->odd) text_add(&t, " odd=%s", q->odd);
	note("query", c, "%s from=%s id=%u %s %s%s%s%s size=%zu%s", transport(c), addr_text(from), get16at(p), q->name, type_text(q->type),
	    flags & F_RD ? " rd" : "", flags & F_CD ? " cd" : "", flags & F_AD ? " ad" : "", n, more);
}

/* first=: what comes before the right answer. Gives when that is due. */
static usec wrong_first(const struct act *a, const struct buf *b, const struct message *q, const struct addr *from, struct conn *c, usec due) {
	struct buf w = { 0 };
	int fd = strcmp(a->first, "port") == 0 ? up.other : strcmp(a->first, "addr") == 0 ? up.elsewhere : up.udp;
	if (a->first[0] == '\0') return due;
	put_buf(&w, b);
	for (size_t i = q->end + 12, k = get16at(w.p + 6); q->type == T_A && k > 0 && i + 4 <= w.n; i += 16, k--)
		put32at(w.p + i, 0x06060606);           /* it tells another address */
	if (fd == up.udp) spoil(&w, a->first, q);
	job_add((struct job){ .due = due, .kind = J_MESSAGE, .conn = c, .fd = fd, .to = *from }, w.p, w.n);
	free(w.p);
	return due + MS(a->gap);
}

#include "peer_h2.h"

static void answer_stream(const struct act *a, const struct buf *b, struct conn *c, usec due) {
	static struct buf f;
	f.n = 0;
	if (c->handle == web_handle) web_answer(&f, a, b, c);
	else put_framed(&f, b);
	c->dribble = a->dribble;
	job_add((struct job){ .due = due, .kind = J_ANSWER, .conn = c }, f.p, a->cut ? f.n / 2 : f.n);
	if (a->cut) job_add((struct job){ .due = due, .kind = J_END, .conn = c }, NULL, 0);
}

/* True when this query gets no answer. */
static bool query_lost(const struct act *a, const uint8_t *p, const struct message *q, const struct addr *from, struct conn *c) {
	static bool served[65536], dropped[1 << 24];
	if (a->silent || (q->opts && strcmp(a->noedns, "drop") == 0)) return true;
	if (c == NULL && a->once && served[addr_port(from)]) return true;
	if (c == NULL && ((int)(rnd() % 100) < a->lose || (int)(rnd() % 100) < a->lose)) return true;
	if (c == NULL && a->drop && !dropped[name_number(p)]) return dropped[name_number(p)] = true;
	if (c == NULL) return !(served[addr_port(from)] = true);
	if (up.all.full > 0 && up.all.times != 0 && c->waiting >= up.all.full) {
		up.all.times -= up.all.times > 0;
		conn_close(c, up.all.how);
		return true;
	}
	if (a->close || a->reset) job_add((struct job){ .due = now + MS(a->delay), .kind = a->reset ? J_RESET : J_END, .conn = c }, NULL, 0);
	return a->close || a->reset || c->id <= a->muted;
}

static void query_take(const uint8_t *p, size_t n, const struct addr *from, struct conn *c) {
	static struct buf b;
	struct message q;
	rules_read();
	bool good = n >= 12 && !(p[2] & 0x80) && message_read(&q, p, n, NULL, NULL);
	if (!good) note("bad", c, "%s from=%s garbage size=%zu", transport(c), addr_text(from), n);
	if (!good) return;
	query_note(c, p, n, from, &q);
	if (c != NULL) c->waiting++;
	struct act a = act_for(q.name);
	if (query_lost(&a, p, &q, from, c)) return;
	answer_put(&b, &a, p, &q, c == NULL);
	if (a.bad[0]) spoil(&b, a.bad, &q);
	if (c == NULL && a.flood) job_add((struct job){ .due = now, .fd = up.udp, .flood = a.flood, .to = *from }, b.p, b.n);
	usec late = MS(a.delay) + rnd() % (MS(a.jitter) + 1) + rnd() % (MS(a.jitter) + 1);
	usec due = wrong_first(&a, &b, &q, from, c, now + late);
	if (c != NULL) answer_stream(&a, &b, c, due);
	else for (int i = 0; i < (a.twice ? 2 : 1); i++) send_later(due, up.udp, from, b.p, b.n);
}

/* DNS over a stream: each message behind its length. */
static void dns_handle(struct conn *c) {
	for (long n; !c->gone && c->closing == STAYS && (n = framed(&c->in)) >= 0 && !(up.all.inorder && c->waiting > 0); ) {
		query_take(c->in.p + 2, (size_t)n, &c->from, c);
		take(&c->in, 2 + (size_t)n);
		if (up.all.skip) break;
	}
}

/* ---- Faults at a stage of a connection */

static bool fault(const char *stage) {
	size_t n = strlen(stage);
	return up.all.times != 0 && strncmp(up.all.at, stage, n) == 0 && up.all.at[n] == ':';
}

/* Does to this connection what the rule says, and nothing else any more. */
static void strike(struct conn *c) {
	const char *what = strchr(up.all.at, ':') ? strchr(up.all.at, ':') + 1 : "";
	uint8_t bytes[600] = { 0 };
	size_t n = 0;
	up.all.times -= up.all.times > 0;
	c->stalled = true;
	c->raw.n = 0;
	note("strike", c, "at %s", up.all.at);
	if (strcmp(what, "garbage") == 0) memset(bytes, 0x9b, n = 200);
	else if (strcmp(what, "zeros") == 0) n = sizeof bytes;
	else if (strcmp(what, "plain") == 0) n = (size_t)sprintf((char *)bytes, "220 mail.test ESMTP ready\r\n");
	else if (strncmp(what, "alert", 5) == 0) memcpy(bytes, (uint8_t[]){ 21, 3, 3, 0, 2, 2, (uint8_t)atoi(what + 5) }, n = 7);
	else if (strcmp(what, "rst") == 0) reset_on_close(c->fd);
	if (send(c->fd, bytes, n, MSG_NOSIGNAL) < 0 || strcmp(what, "fin") == 0 || strcmp(what, "rst") == 0) conn_die(c, "server", "fault");
}

/* ---- TLS */

static br_x509_certificate chain[80];
static size_t chain_len;
static br_skey_decoder_context server_key;

static int zero_load(UNUSED const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, br_ssl_session_parameters *pp) {
	*pp = (br_ssl_session_parameters){ .version = BR_TLS12, .cipher_suite = sc->client_suites[0][0] };
	return 1;
}
static void zero_save(UNUSED const br_ssl_session_cache_class **ctx, UNUSED br_ssl_server_context *sc, UNUSED const br_ssl_session_parameters *pp) { }
static const br_ssl_session_cache_class zero_class = { sizeof(void *), zero_save, zero_load };
static const br_ssl_session_cache_class *zero_sessions = &zero_class;

/* cert=: the chain and the key, each as DER. */
static void tls_setup(void) {
	struct buf certs = file_read(up.base.cert, ".pem.der"), key = file_read(up.base.cert, ".key.der");
	struct der rest = { certs.p, certs.p + certs.n }, content, all;
	unsigned tag;
	for (; chain_len < COUNT(chain) && der_next(&rest, &tag, &content, &all); chain_len++)
		chain[chain_len] = (br_x509_certificate){ certs.p + (all.p - certs.p), (size_t)(all.end - all.p) };
	br_skey_decoder_init(&server_key);
	br_skey_decoder_push(&server_key, key.p, key.n);
	if (chain_len == 0 || br_skey_decoder_last_error(&server_key) != 0) die("%s: no certificate and key", up.base.cert);
	br_ssl_session_cache_lru_init(&sessions, sessions_store, sizeof sessions_store);
}

static void tls_begin(struct conn *c) {
	static const char *alpn[1] = { up.base.alpn };
	br_ssl_engine_context *e = &c->sc.eng;
	unsigned version = BR_TLS10 + (unsigned)(up.base.tls - 10);
	uint16_t suites[48];
	size_t n = 0;
	const br_rsa_private_key *rsa = br_skey_decoder_get_rsa(&server_key);
	if (rsa != NULL) br_ssl_server_init_full_rsa(&c->sc, chain, chain_len, rsa);
	else br_ssl_server_init_full_ec(&c->sc, chain, chain_len, BR_KEYTYPE_EC, br_skey_decoder_get_ec(&server_key));
	br_ssl_engine_set_versions(e, version, version);
	for (char *s = up.base.suites; *s != '\0' && n < COUNT(suites); s += *s == ',') suites[n++] = (uint16_t)strtoul(s, &s, 16);
	if (n > 0) br_ssl_engine_set_suites(e, suites, n);
	if (up.base.alpn[0]) br_ssl_engine_set_protocol_names(e, alpn, 1);
	br_ssl_engine_set_buffer(e, c->io, sizeof c->io, 1);
	if (strcmp(up.all.cache, "off") != 0) br_ssl_server_set_cache(&c->sc, strcmp(up.all.cache, "zero") == 0 ? &zero_sessions : &sessions.vtable);
	if (!br_ssl_server_reset(&c->sc)) die("TLS: error %d", br_ssl_engine_last_error(e));
}

/* The ClientHello in words; false when it is not whole yet. It is one record. */
static bool hello_note(const struct conn *c) {
	const struct buf *b = &c->came;
	char sni[256] = "-", alpn[256] = "-", ids[512] = "";
	struct text list = { .p = ids, .size = sizeof ids };
	if (b->p[0] != 22 || b->n < 5 || b->n < 5 + get16at(b->p + 3)) return false;
	struct msg m = { .p = b->p, .len = 5 + get16at(b->p + 3), .at = 43 };
	unsigned sid = msg_get8(&m), type, n;
	msg_skip(&m, sid);
	for (n = msg_get16(&m); n >= 2 && m.err == NULL; n -= 2) text_add(&list, "%s%04x", list.len > 0 ? "," : "", msg_get16(&m));
	msg_skip(&m, msg_get8(&m));             /* compression */
	for (msg_skip(&m, 2); m.at < m.len && m.err == NULL; msg_skip(&m, n)) {
		type = msg_get16(&m), n = msg_get16(&m);
		if (type == 0 && n > 5 && msg_has(&m, n)) snprintf(sni, sizeof sni, "%.*s", (int)n - 5, (const char *)m.p + m.at + 5);
		if (type == 16 && n > 3 && msg_has(&m, n)) snprintf(alpn, sizeof alpn, "%.*s", (int)m.p[m.at + 2], (const char *)m.p + m.at + 3);
	}
	note("hello", c, "sni %s alpn %s sid %u version %04x suites %s ", sni, alpn, sid, get16at(b->p + 9), ids);
	return true;
}

/* How much of "out" may leave now: all of it, or what record= and dribble= allow. */
static size_t out_portion(struct conn *c) {
	size_t record = up.all.record > 0 ? (size_t)up.all.record : c->dribble ? 1 : c->out.n;
	if (c->out.n == 0 || (up.all.batch > 0 && c->held > 0) || (c->dribble && now - c->dripped < MS(c->dribble))) return 0;
	c->dripped = now;
	return MIN(c->out.n, record);
}

/* Sends what can be sent, of a handshake that is to stop no more than so much. */
static void conn_flush(struct conn *c) {
	enum { MID = 200 };
	bool stops = up.secure && !c->up && fault("mid");
	while (c->raw.n > 0 && !c->gone && !c->stalled) {
		size_t most = up.all.wire > 0 ? MIN((size_t)up.all.wire, c->raw.n) : c->raw.n;
		ssize_t n = send(c->fd, c->raw.p, stops ? MIN(most, MID - c->sent) : most, MSG_NOSIGNAL);
		if (n < 0 && later(errno)) return;
		if (n <= 0) {
			conn_die(c, "client", "write");
			return;
		}
		take(&c->raw, (size_t)n);
		c->sent += (size_t)n;
		if (stops && c->sent >= MID) strike(c);
	}
}

static void tls_up(struct conn *c) {
	br_ssl_session_parameters sp;
	const char *alpn = br_ssl_engine_get_selected_protocol(&c->sc.eng);
	br_ssl_engine_get_session_parameters(&c->sc.eng, &sp);
	c->up = true;
	note("up", c, "version %04x suite %04x resumed %d alpn %s", sp.version, sp.cipher_suite, c->sent < 400, alpn ? alpn : "-");
	conn_flush(c);
	if (!c->gone && fault("up")) strike(c);
}

/* Moves bytes between engine and queues until nothing moves. */
static void tls_move(struct conn *c) {
	br_ssl_engine_context *e = &c->sc.eng;
	uint8_t *b;
	size_t n, room;
	while (!c->gone && !c->stalled) {
		unsigned s = br_ssl_engine_current_state(e);
		if (s & BR_SSL_SENDREC) {
			b = br_ssl_engine_sendrec_buf(e, &n);
			put(&c->raw, b, n);
			br_ssl_engine_sendrec_ack(e, n);
		} else if (!c->up && (s & BR_SSL_SENDAPP)) tls_up(c);
		else if (s & BR_SSL_RECVAPP) {
			b = br_ssl_engine_recvapp_buf(e, &n);
			if (c->records++ == 0) note("data", c, "bytes %zu", n);
			put(&c->in, b, n);
			br_ssl_engine_recvapp_ack(e, n);
			c->handle(c);
		} else if (s == BR_SSL_CLOSED && c->closing != HALF_CLOSED) {
			conn_flush(c);
			conn_die(c, c->closing ? "server" : "client", br_ssl_engine_last_error(e) ? "error" : "notify");
		} else if ((s & BR_SSL_RECVREC) && c->came.n > 0 && c->hello) {
			b = br_ssl_engine_recvrec_buf(e, &room);
			n = MIN(c->came.n, room);
			memcpy(b, c->came.p, n);
			br_ssl_engine_recvrec_ack(e, n);
			take(&c->came, n);
		} else if ((s & BR_SSL_SENDAPP) && (n = out_portion(c)) > 0) {
			b = br_ssl_engine_sendapp_buf(e, &room);
			n = MIN(n, room);
			memcpy(b, c->out.p, n);
			br_ssl_engine_sendapp_ack(e, n);
			br_ssl_engine_flush(e, 0);
			take(&c->out, n);
		} else if ((s & BR_SSL_SENDAPP) && up.all.reneg && c->answers > 0 && !c->reneg) {
			c->reneg = true;
			note("reneg", c, "asked %d", br_ssl_engine_renegotiate(e));
		} else break;
	}
}

/* ---- Connections: what comes and goes */

/* Sends what can be sent, and ends the connection when it is to end. */
static void conn_move(struct conn *c) {
	if (c->gone || c->stalled) return;
	if (up.secure) tls_move(c);
	else
		for (size_t n; (n = out_portion(c)) > 0; take(&c->out, n)) put(&c->raw, c->out.p, n);
	conn_flush(c);
	if (c->gone || c->stalled) return;
	if (up.secure && !c->flight && c->sent > 1000 && c->raw.n == 0) {
		c->flight = true;
		note("flight", c, "bytes %zu", c->sent);
	}
	if (c->closing == CLOSES_WHEN_EMPTY && c->out.n == 0 && c->raw.n == 0) {
		conn_close(c, up.all.how);
		conn_move(c);
	}
}

/* Looks at the ClientHello before the engine does. */
static void tls_hello(struct conn *c) {
	uint8_t first = c->came.p[0];
	if (first < 20 || first > 23) note("plain", c, "byte %u size %zu", first, c->came.n);
	c->hello = first != 22 || hello_note(c);
	if (c->hello && up.all.pause > 0) poll(NULL, 0, up.all.pause);
	if (c->hello && fault("hello")) strike(c);
}

/* What has come, in the way of this connection. One that is stalled reads nothing more, and only sees the end. */
static void conn_read(void *owner, short revents) {
	static uint8_t piece[65536];
	struct conn *c = owner;
	if (c->stalled && (revents & (POLLERR | POLLHUP | POLLRDHUP))) conn_die(c, "client", "fault");
	if (c->stalled) return;
	ssize_t n = recv(c->fd, piece, sizeof piece, 0);
	if (n == 0 || (n < 0 && !later(errno))) conn_die(c, "client", n == 0 ? "fin" : "rst");
	if (n <= 0) return;
	c->last = now;
	put(up.secure ? &c->came : &c->in, piece, (size_t)n);
	if (up.secure && !c->hello) tls_hello(c);
	if (up.secure) tls_move(c);
	else c->handle(c);
}

/* What the time brings, and what is waited for until the next turn. */
static void conn_clock(struct conn *c) {
	bool idle = up.all.idle > 0 && now - c->last >= MS(up.all.idle) && c->waiting == 0 && c->raw.n == 0;
	bool over = idle || c->born < up.kicked || (up.all.life > 0 && now - c->born >= MS(up.all.life));
	if (!c->gone && !c->stalled) {
		if (over && (!up.secure || c->up)) conn_close(c, up.all.how);
		conn_move(c);
	}
	if (c->dribble > 0 && c->out.n > 0) wake_by(now + MS(c->dribble));
	if (!c->gone) watch_events(c->slot, (short)(POLLRDHUP | (c->stalled ? 0 : POLLIN) | (c->raw.n > 0 ? POLLOUT : 0)));
}

static struct conn *conn_new(int fd, const struct addr *from, void (*handle)(struct conn *), struct conn **place) {
	struct conn *c = grow(NULL, sizeof *c);
	*c = (struct conn){ .fd = fd, .id = ++conn_count, .from = *from, .handle = handle, .place = place, .born = now, .last = now };
	list_append(conns.next, &c->node);
	watch_add(&c->slot, fd, POLLIN, conn_read, c, false);
	return c;
}

static void conn_accept(UNUSED void *owner, UNUSED short revents) {
	struct addr from = { 0 };
	socklen_t len = sizeof from.u;
	int fd = accept4(up.tcp, &from.u.sa, &len, SOCK_NONBLOCK);
	rules_read();
	if (fd < 0) return;
	struct conn *c = conn_new(fd, &from, strcmp(up.base.alpn, "h2") == 0 ? web_handle : dns_handle, NULL);
	note("open", c, "%s from=%s", transport(c), addr_text(&from));
	if (up.secure) tls_begin(c);
	if (fault("accept")) strike(c);
}

static void conn_free(struct conn *c) {
	struct node *next;
	for (struct node *n = jobs.next; next = n->next, n != &jobs; n = next)
		if (job_of(n)->conn == c) job_free(job_of(n));
	list_remove(&c->node);
	if (c->place != NULL) *c->place = NULL;
	free(c->came.p);
	free(c->in.p);
	free(c->out.p);
	free(c->raw.p);
	free(c);
}

static void udp_ready(UNUSED void *owner, UNUSED short revents) {
	static uint8_t in[MSG_MAX];
	struct addr from = { 0 };
	socklen_t len = sizeof from.u;
	ssize_t n;
	for (int k = 0; k < 64 && (n = recvfrom(up.udp, in, sizeof in, 0, &from.u.sa, &len)) >= 0; k++, len = sizeof from.u)
		if (up.secure) note("plain", NULL, "datagram size %zd", n);
		else query_take(in, (size_t)n, &from, NULL);
}

static void turn(void) {
	struct conn *c;
	if (!list_empty(&conns) || up.secure) wake_by(now + MS(20));
	jobs_turn();
	rules_read();
	for EACH_CONN(c) {
		conn_clock(c);
		if (c->gone) conn_free(c);
	}
}

/* ---- Starting */

/* A port that is free for UDP and TCP, IPv4 and IPv6, below those that the kernel gives to clients. */
static unsigned free_port(void) {
	for (int try = 0, i; try < 200; try++) {
		unsigned port = 10000 + rnd() % 20000;
		for (i = 0; i < 4; i++) {
			int fd = sock(i % 2 ? SOCK_STREAM : SOCK_DGRAM, (struct addr[]){ addr_at(i < 2 ? "0.0.0.0" : "::", port) }, NULL);
			if (fd < 0 && (i < 2 || errno == EADDRINUSE)) break;
			close(fd);
		}
		if (i == 4) return port;
	}
	die("no port is free");
}

static int up_socket(int type, void (*ready)(void *, short)) {
	static int slots[2];
	int fd = sock(type, &up.at, NULL);
	if (fd < 0 || (type == SOCK_STREAM && listen(fd, 1024) < 0)) die("%s: %s", addr_text(&up.at), strerror(errno));
	nonblocking(fd);
	watch_add(&slots[type == SOCK_STREAM], fd, POLLIN, ready, NULL, false);
	return fd;
}

static int cmd_up(char **argv) {
	up.at = addr_of(argv[1], argv[2]);
	for (int i = 3; argv[i] != NULL; i++)
		if (!act_set(&up.base, argv[i])) die("%s: what is %s?", argv[0], argv[i]);
	if (addr_port(&up.at) == 0) addr_set_port(&up.at, free_port());
	watch_init(MOST_CONNS);
	if (up.base.log[0] && (up.logfd = open(up.base.log, O_WRONLY | O_CREAT | O_APPEND, 0644)) < 0) die("%s: %s", up.base.log, strerror(errno));
	up.secure = up.base.cert[0] != '\0';
	if (up.secure) tls_setup();
	if (!up.base.notcp) up.tcp = up_socket(SOCK_STREAM, conn_accept);
	if (!up.base.noudp) up.udp = up_socket(SOCK_DGRAM, udp_ready);
	up.other = sock(SOCK_DGRAM, (struct addr[]){ addr_at(argv[1], 0) }, NULL);
	if (!addr_is6(&up.at)) up.elsewhere = sock(SOCK_DGRAM, (struct addr[]){ addr_at("127.0.0.9", addr_port(&up.at)) }, NULL);
	up.all = up.base;
	rules_read();
	printf("ready %s\n", addr_text(&up.at));
	for (;;) turn();
}
