/* peer_server.h - the scripted upstream over UDP, TCP and TLS, and the relay
 *
 * Not a program; peer.c includes it:  peer up ADDRESS PORT [WORD...]   peer relay ADDRESS PORT TO-ADDRESS TO-PORT [WORD...]
 * PORT 0 is a free one. Both say "ready ADDRESS@PORT" and run until they are killed. WORDs:
 *   log=FILE  rules=FILE  number=N  noudp  notcp  cert=FILE (over TLS, with FILE.pem and FILE.key)  key=FILE  tls=10|11|12
 *   suites=HEX,HEX  alpn=NAME
 *
 * What it does is said by words. They come from the lines of the rules, `SUFFIX WORD...`, read again whenever the file
 * changes, and from every label of the QNAME that contains `=`: `ttl=5`, `nodata=`. A word that starts with a number is for
 * the upstream with that number only: `2delay=300`. Later words win. Without any: a record of the asked type, TTL 300, A
 * 192.0.2.NUMBER. Times are milliseconds.
 *
 *  what      a=ADDR  aaaa=ADDR  net=N (A is N. and a hash of the name)  byname (net=10)  count (A says how many answers there were)
 *            n=RECORDS  type=T  ttl=N,N...  rdlen=N  big=BYTES  toobig (not cut over UDP)  cname=LINKS  cnameonly  extra (records of
 *            other names)  nodata  soa=TTL,MINIMUM  servfail refused formerr notimp nxdomain  rcode=N  aa ad  ede=N  opt=CODE:HEX
 *            keepalive=N pad=N (options 11 and 12)  noopt  optmid  noedns=RCODE (that, without OPT, to every query with OPT; drop:
 *            nothing)  lower upper (the question's letters)  trail=N  mutate=SEED  noise=N (so many bytes of chance)
 *            norec (AD, CD and RD are not copied)
 *  when      delay=MS  silent  drop=N (the first N datagrams of a question)  udpsilent  tcpsilent
 *  over UDP  tc  tcrec (TC=1 with records)  twice  once (a port gets one answer: a firewall that ends a session with it)
 *  streams   close  reset  closeafter  dribble=MS (a byte each, or record=N bytes)  cut (half the answer, then close)
 *  wrong     first=KIND,KIND... (and gap=MS later, by default 100, the right one)  bad=KIND (alone)  flood=N (N wrong IDs first)
 *            KIND: id qname qtype qclass qr opcode zero eleven header headeropt qd2 cutq noq loop | port addr | rdlen ancount cutrr
 *            label40 a3 cname name256 optan
 * For a connection as a whole, in rules for "." only:
 *  ends      how=notify|fin|rst|half (half: close_notify, and the socket stays)  idle=MS  life=MS  after=ANSWERS  full=N (when so
 *            many queries wait)  kick=N (a new number: now, all of them)
 *  order     batch=N (answers wait for each other, then leave in as few records as can be)  order=fifo|lifo  inorder (one query at a
 *            time)  skip (of the queries in a record only the first is seen before more bytes come)  muted=N (connections up to
 *            number N answer nothing)
 *  shape     record=N (bytes of a TLS record at most)  wire=N (of a segment)
 *  faults    at=accept|hello|mid|up:stall|deaf|fin|rst|garbage|zeros|plain|alertN  upto=BYTES (of ours, for mid)  times=N (at and
 *            full happen so often)  pause=MS (nothing is done after a ClientHello)  reneg  cache=on|off|zero (sessions; zero: any
 *            is resumed, with a secret of zeros)  epoch=N (a new number: sessions are forgotten)
 *  relays    loss=N (in a thousand datagrams, each way)  delay=MS jitter=MS (each way)  seed=N  silent (nothing passes)
 *
 * Each event is a line of the log: EVENT CONNECTION ms TIME and what belongs to it. EVENT is query, bad (no query), plain (no TLS), open,
 * hello, flight, up, data, strike, reneg, end, rules, and of a relay, when it gets SIGUSR1 and at its end, relayed. */

#define ACT_INTS(X) X(nodata) X(n) X(rdlen) X(big) X(toobig) X(cname) X(cnameonly) X(extra) X(net) X(byname) X(count) X(aa) X(ad) X(ede) \
	X(keepalive) X(pad) X(noopt) X(optmid) X(lower) X(upper) X(trail) X(mutate) X(noise) X(norec) X(delay) X(silent) X(drop) X(udpsilent) \
	X(tcpsilent) X(tc) X(tcrec) X(twice) X(once) X(close) X(reset) X(closeafter) X(dribble) X(cut) X(gap) X(flood) X(idle) X(life) X(after) X(full) \
	X(kick) X(batch) X(inorder) X(skip) X(muted) X(record) X(wire) X(upto) X(times) X(pause) X(reneg) X(epoch) X(loss) X(jitter) X(seed)
#define ACT_TEXTS(X) X(first) X(bad) X(a) X(aaaa) X(opt) X(noedns) X(type) X(soa) X(how) X(order) X(at) X(cache)
#define MEMBER_INT(f) int f;
#define MEMBER_TEXT(f) char f[WORD];
struct act { ACT_INTS(MEMBER_INT) ACT_TEXTS(MEMBER_TEXT) int rcode, nttl; uint32_t ttl[8]; };
#define FIELD_INT(f) FINT(act, f),
#define FIELD_TEXT(f) FTEXT(act, f),
static const struct field act_fields[] = { ACT_INTS(FIELD_INT) ACT_TEXTS(FIELD_TEXT) };

/* What the command line says, and what the rules say to connections. */
struct setup {
	char log[WORD], rules[WORD], cert[WORD], key[WORD], suites[WORD], alpn[WORD];
	int number, notcp, noudp, tls;
	struct act all;
	struct buf text;
	int logfd, udp, tcp, other, elsewhere;
	struct addr at, to;
	bool relay;
};
static struct setup up = { .number = 1, .tls = 12, .logfd = -1, .udp = -1, .tcp = -1, .other = -1, .elsewhere = -1 };

/* A connection. What comes goes through the TLS engine, if there is one, into "in", and "handle" makes of it what it is: DNS, or bytes to hand
 * on. What is put into "out" leaves by way of the engine and "raw". */
enum closing { STAYS, CLOSING, HALF_CLOSED, CLOSES_WHEN_EMPTY };
struct conn {
	struct conn *next, *far;        /* far: the other connection of a relay */
	int fd, id;
	struct addr from;
	void (*handle)(struct conn *);
	struct secure *tls;             /* NULL: plain TCP */
	bool gone, stalled;
	enum closing closing;
	usec born, last, dripped;
	struct buf in, out, raw;
	struct job *held;
	int nheld, waiting, queries, answers, records, dribble;
};

struct secure {
	br_ssl_server_context sc;
	uint8_t io[BR_SSL_BUFSIZE_BIDI];
	struct buf first;               /* what came before the end of the ClientHello */
	bool hello, up, flight, data, reneg;
	size_t sent;
};

static struct conn *conns;
static int conn_count;

static void note(const char *event, const struct conn *c, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note(const char *event, const struct conn *c, const char *fmt, ...)
{
	char line[3000];
	struct text t = { .p = line, .size = sizeof line - 1 };
	va_list ap;
	int n;
	text_add(&t, "%s %d ms %ld ", event, c ? c->id : 0, ms_now());
	va_start(ap, fmt);
	n = vsnprintf(line + t.len, t.size - t.len, fmt, ap);
	va_end(ap);
	t.len = MIN(t.len + (size_t)MAX(n, 0), t.size - 1);
	line[t.len++] = '\n';
	if (up.logfd >= 0 && write(up.logfd, line, t.len) < 0)
		die("log: %s", strerror(errno));
}

/* ---- Rules */

static int rcode_of(const char *s, size_t n)
{
	for (unsigned i = 0; i <= BADVERS; i++)
		if (strlen(rcode_text(i)) == n && strncasecmp(rcode_text(i), s, n) == 0)
			return (int)i;
	return -1;
}

static void act_word(struct act *a, const char *w)
{
	char *e;
	long only = strtol(w, &e, 10);
	const char *v;
	int rcode;
	if (e != w && only != up.number)
		return;
	w = e;
	rcode = rcode_of(w, strcspn(w, "="));
	if (rcode >= 0)
		a->rcode = rcode;
	else if ((v = value_of(w, "rcode")) != NULL)
		a->rcode = isdigit((unsigned char)*v) ? atoi(v) : rcode_of(v, strlen(v));
	else if ((v = value_of(w, "ttl")) != NULL)
		for (a->nttl = 0; *v != '\0' && a->nttl < 8; v = e + (*e == ','))
			a->ttl[a->nttl++] = (uint32_t)strtoul(v, &e, 10);
	else
		field_set(act_fields, COUNT(act_fields), a, w);         /* other labels with a '=' are just labels */
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);
	if (strcmp(suffix, ".") == 0)
		return true;
	if (s > 0 && suffix[s - 1] != '.' && n > 0)
		n--;
	return n >= s && strncasecmp(name + n - s, suffix, s) == 0 && (n == s || name[n - s - 1] == '.');
}

/* What to do with a question. */
static struct act act_for(const char *name)
{
	struct act a = { .n = 1, .gap = 100, .nttl = 1, .ttl = { 300 }, .ede = -1, .keepalive = -1, .times = -1, .upto = 100, .how = "notify" };
	char copy[65536], *line, *w, *save, *save2;
	snprintf(copy, sizeof copy, "%s", up.text.p ? (char *)up.text.p : "");
	for (line = strtok_r(copy, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
		w = strtok_r(line, " ", &save2);
		if (w == NULL || !has_suffix(name, w))
			continue;
		while ((w = strtok_r(NULL, " ", &save2)) != NULL)
			act_word(&a, w);
	}
	snprintf(copy, sizeof copy, "%s", name);
	for (w = strtok_r(copy, ".", &save); w != NULL; w = strtok_r(NULL, ".", &save))
		if (strchr(w, '='))
			act_word(&a, w);
	return a;
}

static br_ssl_session_cache_lru sessions;
static uint8_t sessions_store[100000];

static void conn_close(struct conn *c, const char *how);
static void conn_move(struct conn *c);

/* Reads the rules again if they have changed; what they say for all connections happens now. */
static void rules_read(void)
{
	static struct stat old;
	static unsigned count;
	static int kick, epoch;
	struct stat st;
	if (up.rules[0] == '\0' || stat(up.rules, &st) != 0 || (st.st_ino == old.st_ino && st.st_mtim.tv_sec == old.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == old.st_mtim.tv_nsec))
		return;
	old = st;
	free(up.text.p);
	up.text = file_read(up.rules);
	up.all = act_for("connect.");
	note("rules", NULL, "n %u", ++count);
	if (up.all.seed)
		rnd_seed((uint64_t)up.all.seed);
	if (up.all.epoch && up.all.epoch != epoch)
		br_ssl_session_cache_lru_init(&sessions, sessions_store, sizeof sessions_store);
	if (up.all.kick && up.all.kick != kick)
		for (struct conn *c = conns; c != NULL; c = c->next)
			if (!c->stalled) {
				conn_close(c, up.all.how);
				conn_move(c);
			}
	epoch = up.all.epoch;
	kick = up.all.kick;
}

/* ---- Answers */

static void put_rdata(struct buf *b, const struct act *a, unsigned type, int i)
{
	size_t at = open_length(b), n = a->rdlen ? (size_t)a->rdlen : 12;
	struct in6_addr v;
	char text[WORD];
	uint8_t *p;
	switch (type) {
	case T_A:
		snprintf(text, sizeof text, "192.0.2.%d", (up.number + i) % 256);
		inet_pton(AF_INET, a->a[0] ? a->a : text, &v);
		put(b, &v, 4);
		break;
	case T_AAAA:
		snprintf(text, sizeof text, "2001:db8::%x", (unsigned)(up.number + i));
		inet_pton(AF_INET6, a->aaaa[0] ? a->aaaa : text, &v);
		put(b, &v, 16);
		break;
	case T_MX:
		put16(b, 10);
		put_name_below(b, "mx", 12);
		break;
	case T_NS: case T_CNAME: case 12:
		put_name_below(b, "ns", 12);
		break;
	case T_SRV:
		put(b, "\0\1\0\2\1\273", 6);
		put_name(b, "srv.target.test");
		break;
	case T_SOA:
		put16(b, 0xc00c);
		put_name_below(b, "host", 12);
		for (uint32_t k = 1; k <= 4; k++)
			put32(b, k);
		put32(b, strchr(a->soa, ',') ? (uint32_t)atoi(strchr(a->soa, ',') + 1) : a->soa[0] ? (uint32_t)atoi(a->soa) : 60);
		break;
	case T_TXT:
		if (a->rdlen == 0) {
			snprintf(text, sizeof text, "\5up-%d%d", up.number % 10, i % 10);
			put_text(b, text);
			break;
		}
		p = put_room(b, n);
		for (size_t k = 0; k < n; k++)
			p[k] = k % 256 ? 'x' : (uint8_t)MIN(n - k - 1, 255);
		break;
	default:
		p = put_room(b, n);
		for (size_t k = 0; k < n; k++)
			p[k] = (uint8_t)(k * 197 + k / 256 + type);
	}
	close_length(b, at);
}

/* A whole record that nobody asked for. */
static void put_stray(struct buf *b, int section, const char *owner, uint32_t address)
{
	put_name(b, owner);
	put_head(b, T_A, 300);
	put16(b, 4);
	put32(b, address);
	count_up(b, section);
}

static void put_opt(struct buf *b, const struct act *a, unsigned rcode, bool do_)
{
	size_t at;
	put8(b, 0);
	put16(b, T_OPT);
	put16(b, 1232);
	put32(b, (uint32_t)(rcode >> 4) << 24 | (do_ ? 0x8000u : 0));
	at = open_length(b);
	if (a->ede >= 0) {
		put16(b, EDNS_EDE);
		put16(b, 2 + 4);
		put16(b, (unsigned)a->ede);
		put(b, "test", 4);
	}
	if (a->opt[0])
		put_option(b, a->opt);
	if (a->keepalive >= 0) {
		put32(b, EDNS_KEEPALIVE << 16 | 2);
		put16(b, (unsigned)a->keepalive);
	}
	if (a->pad > 0) {
		put16(b, EDNS_PADDING);
		put16(b, (unsigned)a->pad);
		for (int i = 0; i < a->pad; i++)
			put8(b, 0);
	}
	close_length(b, at);
	count_up(b, 3);
}

/* The records of the answer section. owner: where the last name of the chain stands. */
static void put_answers(struct buf *b, const struct act *a, const struct asked *q, unsigned owner, unsigned type, bool opt)
{
	static unsigned count;
	struct act x = *a;
	size_t want = a->big ? (size_t)a->big - (opt ? 11 : 0) : 0;
	uint32_t h = name_number(q->name);
	if (type == T_ANY)
		type = T_A;
	if (a->count)
		h = ++count;
	if (a->byname || a->net || a->count)
		snprintf(x.a, sizeof x.a, "%d.%u.%u.%u", a->net ? a->net : 10, h >> 16 & 255, h >> 8 & 255, h & 255);
	if (want > b->n && type == T_A)
		x.n = (int)((want - b->n) / 16);
	else if (want > b->n + 12 && type != T_AAAA)
		x.rdlen = (int)(want - b->n - 12);
	for (int i = 0; i < x.n; i++) {
		put16(b, owner);
		put_head(b, type, a->ttl[i % a->nttl]);
		put_rdata(b, &x, type, i);
		count_up(b, 1);
	}
}

static void put_links(struct buf *b, const struct act *a, unsigned *owner)
{
	char text[32];
	size_t at;
	for (int i = 0; i < a->cname; i++) {
		put16(b, *owner);
		put_head(b, T_CNAME, a->ttl[0]);
		at = open_length(b);
		*owner = 0xc000u | (unsigned)b->n;
		snprintf(text, sizeof text, "c%d", i);
		put_name_below(b, text, 12);
		close_length(b, at);
		count_up(b, 1);
	}
}

/* The header and the question, as in the query p. */
static void put_start(struct buf *b, const struct act *a, const uint8_t *p, const struct asked *q, unsigned rcode)
{
	b->n = 0;
	put(b, p, q->end);
	put16at(b->p + 2, F_QR | F_RA | (a->norec ? 0 : get16at(p + 2) & (F_RD | F_CD)) | (a->aa ? F_AA : 0) | (a->ad ? F_AD : 0) | (rcode & 15));
	put16at(b->p + 4, 1);
	memset(b->p + 6, 0, 6);
	for (size_t i = 12; i < q->end - 4; i++)
		b->p[i] = (uint8_t)(a->lower ? tolower(b->p[i]) : a->upper ? toupper(b->p[i]) : b->p[i]);
}

/* The honest answer to the query p. */
static void answer_put(struct buf *b, const struct act *a, const uint8_t *p, size_t n, const struct asked *q, bool udp)
{
	struct opt o = opt_of(p, n);
	bool intolerant = a->noedns[0] && o.seen, opt = o.seen && !a->noopt && !intolerant, do_ = o.flags >> 15, mid = opt && a->optmid;
	unsigned owner = 0xc00c, rcode = (unsigned)(intolerant ? rcode_of(a->noedns, strlen(a->noedns)) : a->rcode);
	size_t limit = !udp ? MSG_MAX : o.seen ? MAX(o.size, 512) : 512, bare;
	if (intolerant && isdigit((unsigned char)a->noedns[0]))
		rcode = (unsigned)atoi(a->noedns);
	put_start(b, a, p, q, rcode);
	if (intolerant)
		return;
	bare = b->n;
	if (!a->tc || !udp) {
		put_links(b, a, &owner);
		if (rcode == NOERROR && !a->nodata && !a->cnameonly)
			put_answers(b, a, q, owner, a->type[0] ? (unsigned)type_of(a->type) : q->type, opt);
		if (a->soa[0]) {
			put16(b, 0xc00c);
			put_head(b, T_SOA, (uint32_t)atoi(a->soa));
			put_rdata(b, a, T_SOA, 0);
			count_up(b, 2);
		}
		if (a->extra) {
			put_name(b, "test");
			put_head(b, T_NS, 300);
			put16(b, 9);
			put_name(b, "ns.evil");
			count_up(b, 2);
		}
		if (mid)
			put_opt(b, a, rcode, do_);
		if (a->extra)
			put_stray(b, 3, "victim.test", 0x06060606);
		else if (mid)
			put_stray(b, 3, "glue.test", 0x01020304);
	} else
		mid = false;
	if (opt && !mid)
		put_opt(b, a, rcode, do_);
	if (udp && (a->tcrec || a->tc))
		b->p[2] |= F_TC >> 8;
	else if (b->n > limit && !a->toobig) {
		b->n = bare;
		memset(b->p + 6, 0, 6);
		b->p[2] |= F_TC >> 8;
		if (opt)
			put_opt(b, a, rcode, do_);
	}
	for (int i = 0; i < a->trail; i++)
		put8(b, 0xee);
}

/* One more record in the answer section, with another address. */
static void put_wrong(struct buf *b, const struct asked *q)
{
	put16(b, 0xc00c);
	put_head(b, q->type, 300);
	put16(b, 4);
	put32(b, 0x06060606);
	put16at(b->p + 6, get16at(b->p + 6) + 1);
}

/* Makes the good message b a bad one. */
static void spoil(struct buf *b, const char *kind, const struct asked *q)
{
	static const struct act none = { .ede = -1, .keepalive = -1 };
	const struct { const char *kind; size_t at; unsigned value; } changes[] = { { "id", 0, get16at(b->p) ^ 0x0101 },
		{ "qtype", q->end - 4, q->type == T_TXT ? T_A : T_TXT }, { "qclass", q->end - 2, 3 }, { "qr", 2, get16at(b->p + 2) & 0x7fff },
		{ "opcode", 2, get16at(b->p + 2) | 4 << 11 }, { "qd2", 4, 2 }, { "loop", q->end, 0xc000u | (unsigned)q->end },
		{ "rdlen", q->end + 10, 60000 }, { "ancount", 6, 65535 } };
	size_t rr = q->end;
	unsigned n;
	for (size_t i = 0; i < COUNT(changes); i++)
		if (strcmp(kind, changes[i].kind) == 0) {
			if (changes[i].at + 2 <= b->n)
				put16at(b->p + changes[i].at, changes[i].value);
			return;
		}
	if (strcmp(kind, "qname") == 0)
		b->p[13] = b->p[13] == 'z' ? 'y' : 'z';
	else if (strcmp(kind, "zero") == 0)
		b->n = 0;
	else if (strcmp(kind, "eleven") == 0)
		b->n = 11;
	else if (strncmp(kind, "header", 6) == 0) {
		b->n = 12;
		memset(b->p + 4, 0, 8);
		if (kind[6] != '\0')
			put_opt(b, &none, 0, false);
	} else if (strcmp(kind, "cutq") == 0) {
		b->n = rr - 3;
		memset(b->p + 6, 0, 6);
	} else if (strcmp(kind, "noq") == 0) {
		memmove(b->p + 12, b->p + rr, b->n - rr);
		b->n -= rr - 12;
		put16at(b->p + 4, 0);
	} else if (strcmp(kind, "cutrr") == 0)
		b->n = MIN(b->n, rr + 13);
	else if (strcmp(kind, "label40") == 0)
		b->p[rr] = 0x40;
	else if (strcmp(kind, "a3") == 0 && b->n >= rr + 16) {
		put16at(b->p + rr + 10, 3);
		memmove(b->p + rr + 15, b->p + rr + 16, b->n - rr - 16);
		b->n--;
	} else if (strcmp(kind, "cname") == 0) {        /* its name runs past its RDLENGTH */
		b->n = rr;
		memset(b->p + 6, 0, 6);
		put16(b, 0xc00c);
		put_head(b, T_CNAME, 300);
		put16(b, 4);
		put(b, "\4long", 4);
		put16at(b->p + 6, 1);
		put_wrong(b, q);
	} else if (strcmp(kind, "name256") == 0) {      /* an owner that is too long only with what its pointer points at */
		b->n = rr;
		memset(b->p + 6, 0, 6);
		put_wrong(b, q);                        /* a good record first */
		n = 256 - (unsigned)(rr - 4 - 12);
		put8(b, n - 1);
		for (unsigned i = 1; i < n; i++)
			put8(b, 'l');
		put_wrong(b, q);
	} else if (strcmp(kind, "optan") == 0) {        /* its OPT in the answer section */
		b->n = rr;
		memset(b->p + 6, 0, 6);
		put_opt(b, &none, 0, false);
		put16at(b->p + 6, 1);
		put16at(b->p + 10, 0);
		put_wrong(b, q);
	} else
		die("what is a wrong %s?", kind);
}

/* Some bytes behind the ID are changed, or the end is cut off: in a way that seed and name decide, and in the same way for each. */
static void mutate(struct buf *b, int seed, const char *name)
{
	uint64_t keep = chance;
	rnd_seed((uint64_t)(unsigned)seed << 32 ^ name_number(name));
	for (unsigned k = 1 + rnd() % 4; k > 0; k--) {
		size_t at = rnd() % b->n;
		unsigned how = rnd() % 4;
		if (at < 2)
			continue;
		if (how == 0)
			b->p[at] ^= (uint8_t)(1u << rnd() % 8);
		else if (how == 1)
			b->p[at] = (uint8_t)rnd();
		else if (how == 2)
			b->p[at] = (uint8_t)"\0\xff\xc0\x0c\x40\x3f\x29\x01"[rnd() % 8];
		else if (b->n > 20)
			b->n = 12 + rnd() % (b->n - 12);
	}
	chance = keep;
}

/* ---- Things to be done later, soonest first */

enum kind { J_DATAGRAM, J_FLOOD, J_ANSWER, J_BYTES, J_CLOSE, J_RESET };
struct job { struct job *next; usec due; enum kind kind; int fd, left; struct conn *conn; struct addr to; struct buf b; };
static struct job *jobs;

static struct job *job_new(usec due, enum kind kind, struct conn *c, const void *p, size_t n)
{
	struct job *j = grow(NULL, sizeof *j), **at = &jobs;
	*j = (struct job){ .due = due, .kind = kind, .conn = c };
	put(&j->b, p, n);
	while (*at != NULL && (*at)->due <= due)
		at = &(*at)->next;
	j->next = *at;
	*at = j;
	return j;
}

static void job_free(struct job *j)
{
	free(j->b.p);
	free(j);
}

static void send_later(usec due, int fd, const struct addr *to, const void *p, size_t n)
{
	struct job *j = job_new(due, J_DATAGRAM, NULL, p, n);
	j->fd = fd;
	j->to = *to;
}

static void datagram_send(const struct job *j)
{
	if (sendto(j->fd, j->b.p, j->b.n, 0, j->to.u.sa.sa_family ? &j->to.u.sa : NULL, j->to.u.sa.sa_family ? addr_len(&j->to) : 0) < 0 && errno == EBADF)
		die("sendto: %s", strerror(errno));
}

/* 250 wrong IDs a turn */
static void flood_send(struct job *j)
{
	unsigned right = get16at(j->b.p);
	for (int k = 0; k < 250 && j->left > 0; k++, j->left--) {
		put16at(j->b.p, (right + 1 + (unsigned)j->left % 65535) & 65535);
		datagram_send(j);
	}
	put16at(j->b.p, right);
	if (j->left > 0) {
		struct job *more = job_new(now + MS(1), J_FLOOD, NULL, j->b.p, j->b.n);
		more->fd = j->fd;
		more->to = j->to;
		more->left = j->left;
	}
}

static void answer_out(struct conn *c, const struct job *j)
{
	put(&c->out, j->b.p, j->b.n);
	c->waiting--;
	c->answers++;
	if (up.all.after > 0 && c->answers >= up.all.after)
		c->closing = CLOSES_WHEN_EMPTY;
}

/* batch=: answers that wait for each other. True when the connection takes it so. */
static bool answer_hold(struct conn *c, struct job *j)
{
	struct job **at = &c->held;
	if (up.all.batch == 0)
		return false;
	while (*at != NULL && strcmp(up.all.order, "lifo") != 0)
		at = &(*at)->next;
	j->next = *at;
	*at = j;
	c->nheld++;
	return true;
}

static void answers_release(struct conn *c)
{
	struct job *j;
	if (c->nheld == 0 || c->nheld < up.all.batch)
		return;
	while ((j = c->held) != NULL) {
		c->held = j->next;
		answer_out(c, j);
		job_free(j);
	}
	c->nheld = 0;
	conn_move(c);
}

/* Gives true when j is done and may be freed. */
static bool job_run(struct job *j)
{
	struct conn *c = j->conn;
	if (j->kind == J_DATAGRAM)
		datagram_send(j);
	else if (j->kind == J_FLOOD)
		flood_send(j);
	else if (c->gone || c->stalled)
		;
	else if (j->kind == J_ANSWER) {
		if (answer_hold(c, j)) {
			answers_release(c);
			return false;
		}
		answer_out(c, j);
		conn_move(c);
		if (up.all.inorder && !c->gone)
			c->handle(c);
	} else if (j->kind == J_BYTES) {
		put(&c->out, j->b.p, j->b.n);
		conn_move(c);
	} else if (j->kind == J_CLOSE && c->out.n + c->raw.n > 0)
		c->closing = CLOSES_WHEN_EMPTY;
	else {
		conn_close(c, j->kind == J_RESET ? "rst" : up.all.how);
		conn_move(c);
	}
	return true;
}

static void jobs_run(void)
{
	while (jobs != NULL && jobs->due <= now) {
		struct job *j = jobs;
		jobs = j->next;
		if (job_run(j))
			job_free(j);
	}
}

/* ---- Queries */

/* How many datagrams of a question there have been. */
static int drop_count(const struct asked *q)
{
	static struct { uint32_t key; int n; } seen[65536];
	uint32_t h = (name_number(q->name) + 1) ^ q->type * 2654435761u;
	for (uint32_t i = h & 65535, k = 0; k < 65536; k++, i = (i + 1) & 65535)
		if (seen[i].n == 0 || seen[i].key == h) {
			seen[i].key = h;
			return ++seen[i].n;
		}
	return 1;
}

static const char *transport(const struct conn *c) { return c == NULL ? "udp" : c->tls ? "tls" : "tcp"; }

static void query_note(const struct conn *c, const uint8_t *p, size_t n, const struct addr *from, const struct asked *q, const struct opt *o)
{
	static char opts[2000];
	struct text t = { .p = opts, .size = sizeof opts };
	const char *odd = walk(p, n, NULL, NULL);
	unsigned flags = get16at(p + 2);
	opts[0] = '\0';
	if (c != NULL && c->tls != NULL)
		text_add(&t, " record=%d", c->records);
	print_opt(&t, o);
	note("query", c, "%s from=%s id=%u %s %s%s%s%s%s qd=%u an=%u ns=%u ar=%u size=%zu%s%s%s%s", transport(c), addr_text(from), get16at(p), q->name,
	    type_text(q->type), q->class == 1 ? "" : " class=other", flags & F_RD ? " rd" : "", flags & F_CD ? " cd" : "", flags & F_AD ? " ad" : "",
	    get16at(p + 4), get16at(p + 6), get16at(p + 8), get16at(p + 10), n, opts, odd ? " odd=" : "", odd ? odd : "",
	    flags & 0x7840 ? " oddflags" : "");
}

/* first=: what comes before the right answer. Gives when that is due. */
static usec wrong_first(const struct act *a, const struct buf *b, const struct asked *q, const struct addr *from, struct conn *c, usec due)
{
	char kinds[WORD], *save;
	struct buf w = { 0 }, f = { 0 };
	snprintf(kinds, sizeof kinds, "%s", a->first);
	for (char *kind = strtok_r(kinds, ",", &save); kind != NULL; kind = strtok_r(NULL, ",", &save)) {
		int fd = strcmp(kind, "port") == 0 ? up.other : strcmp(kind, "addr") == 0 ? up.elsewhere : up.udp;
		w.n = f.n = 0;
		put(&w, b->p, b->n);
		for (size_t i = q->end; i + 4 <= w.n; i++)      /* it tells another address */
			if (get32at(w.p + i) >> 8 == 0xc00002)
				put32at(w.p + i, 0x06060606);
		if (fd == up.udp)
			spoil(&w, kind, q);
		put_framed(&f, &w);
		if (c == NULL)
			send_later(due, fd, from, w.p, w.n);
		else if (fd == up.udp)
			job_new(due, J_BYTES, c, f.p, f.n);
		due += MS(a->gap);
	}
	free(w.p);
	free(f.p);
	return due;
}

static void answer_datagram(const struct act *a, const struct buf *b, const struct addr *from, usec due)
{
	for (int i = 0; i <= (a->twice != 0); i++)
		send_later(due, up.udp, from, b->p, b->n);
}

static void answer_stream(const struct act *a, const struct buf *b, struct conn *c, usec due)
{
	static struct buf f;
	f.n = 0;
	put_framed(&f, b);
	c->dribble = a->dribble;
	job_new(due, J_ANSWER, c, f.p, a->cut ? f.n / 2 : f.n);
	if (a->closeafter || a->cut)
		job_new(due, J_CLOSE, c, NULL, 0);
}

/* True when this query gets no answer. */
static bool query_lost(const struct act *a, const struct asked *q, const struct addr *from, struct conn *c, bool edns)
{
	static bool served[65536];
	if (a->silent || (c ? a->tcpsilent : a->udpsilent) || (edns && strcmp(a->noedns, "drop") == 0))
		return true;
	if (c == NULL && a->once && served[addr_port(from)])
		return true;
	if (c == NULL)
		return !(served[addr_port(from)] = !(a->drop && drop_count(q) <= a->drop));
	if (up.all.full > 0 && up.all.times != 0 && c->waiting >= up.all.full) {
		up.all.times -= up.all.times > 0;
		conn_close(c, up.all.how);
		return true;
	}
	if (a->close || a->reset)
		job_new(now + MS(a->delay), a->reset ? J_RESET : J_CLOSE, c, NULL, 0);
	return a->close || a->reset || c->id <= up.all.muted;
}

static void query_take(const uint8_t *p, size_t n, const struct addr *from, struct conn *c)
{
	static struct buf b;
	struct asked q;
	struct act a;
	struct opt o;
	usec due;
	rules_read();
	if (n < 12 || (p[2] & 0x80) || !read_asked(p, n, &q)) {
		note("bad", c, "%s from=%s garbage size=%zu", transport(c), addr_text(from), n);
		return;
	}
	o = opt_of(p, n);
	query_note(c, p, n, from, &q, &o);
	if (c != NULL) {
		c->last = now;
		c->queries++;
		c->waiting++;
	}
	a = act_for(q.name);
	if (query_lost(&a, &q, from, c, o.seen))
		return;
	answer_put(&b, &a, p, n, &q, c == NULL);
	if (a.bad[0])
		spoil(&b, a.bad, &q);
	if (a.mutate)
		mutate(&b, a.mutate, q.name);
	for (int i = 0; i < a.noise; i++)
		b.p[rnd() % b.n] = (uint8_t)rnd();
	due = now + MS(a.delay);
	if (c == NULL && a.flood) {
		struct job *j = job_new(now, J_FLOOD, NULL, b.p, b.n);
		j->fd = up.udp;
		j->to = *from;
		j->left = a.flood;
	}
	due = wrong_first(&a, &b, &q, from, c, due);
	if (c == NULL)
		answer_datagram(&a, &b, from, due);
	else
		answer_stream(&a, &b, c, due);
}

/* DNS over a stream: each message behind its length. */
static void dns_handle(struct conn *c)
{
	long n;
	while (!c->gone && c->closing == STAYS && (n = framed(&c->in)) >= 0 && !(up.all.inorder && c->waiting > 0)) {
		query_take(c->in.p + 2, (size_t)n, &c->from, c);
		take(&c->in, 2 + (size_t)n);
		if (up.all.skip)
			break;
	}
}

/* ---- Connections: how they end */

static void conn_die(struct conn *c, const char *who, const char *why)
{
	if (c->gone)
		return;
	c->gone = true;
	note("end", c, "by %s why %s queries %d answers %d", who, why, c->queries, c->answers);
	close(c->fd);
	if (c->far != NULL) {
		c->far->far = NULL;
		job_new(now + MS(up.all.delay), J_CLOSE, c->far, NULL, 0);
	}
}

static void conn_close(struct conn *c, const char *how)
{
	if (c->gone || c->closing == CLOSING || c->closing == HALF_CLOSED)
		return;
	if (c->tls != NULL && c->tls->up && !c->stalled && (strcmp(how, "notify") == 0 || strcmp(how, "half") == 0)) {
		c->closing = strcmp(how, "half") == 0 ? HALF_CLOSED : CLOSING;
		br_ssl_engine_close(&c->tls->sc.eng);
		return;
	}
	if (strcmp(how, "rst") == 0)
		reset_on_close(c->fd);
	conn_die(c, "server", how);
}

/* ---- Faults at a stage of a connection */

static bool fault(const char *stage)
{
	size_t n = strlen(stage);
	return up.all.times != 0 && strncmp(up.all.at, stage, n) == 0 && up.all.at[n] == ':';
}

static void send_now(struct conn *c, const void *p, size_t n)
{
	if (send(c->fd, p, n, MSG_NOSIGNAL) < 0)
		conn_die(c, "client", "write");
}

/* Does to this connection what the rule says, and nothing else any more. */
static void strike(struct conn *c)
{
	const char *what = strchr(up.all.at, ':') ? strchr(up.all.at, ':') + 1 : "";
	uint8_t junk[600] = { 0 };
	up.all.times -= up.all.times > 0;
	note("strike", c, "at %s", up.all.at);
	if (strcmp(what, "fin") == 0 || strcmp(what, "rst") == 0) {
		if (*what == 'r')
			reset_on_close(c->fd);
		conn_die(c, "server", "fault");
		return;
	}
	c->stalled = true;
	if (strcmp(what, "garbage") == 0) {
		random_bytes(junk, 200);
		junk[0] = 0x80 | (junk[0] & 0x3f);
	}
	if (strcmp(what, "garbage") == 0 || strcmp(what, "zeros") == 0)
		send_now(c, junk, sizeof junk);
	else if (strcmp(what, "plain") == 0)
		send_now(c, "220 mail.test ESMTP ready\r\n", 27);
	else if (strncmp(what, "alert", 5) == 0)
		send_now(c, (uint8_t[]){ 21, 3, 3, 0, 2, 2, (uint8_t)atoi(what + 5) }, 7);
}

/* ---- TLS */

static br_x509_certificate chain[80];
static size_t chain_len;
static struct keypair server_key;
static unsigned issuer_type;
static uint16_t suites[48];
static size_t nsuites;

static int zero_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, br_ssl_session_parameters *pp)
{
	(void)ctx;
	pp->version = BR_TLS12;
	pp->cipher_suite = sc->client_suites[0][0];
	memset(pp->master_secret, 0, sizeof pp->master_secret);
	return 1;
}
static void zero_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, const br_ssl_session_parameters *pp)
{
	(void)ctx, (void)sc, (void)pp;
}
static const br_ssl_session_cache_class zero_class = { sizeof(void *), zero_save, zero_load };
static const br_ssl_session_cache_class *zero_sessions = &zero_class;

static void tls_setup(void)
{
	static struct buf certs[80];
	char path[WORD + 8];
	snprintf(path, sizeof path, "%s.pem", up.cert);
	chain_len = pem_read(path, certs, COUNT(certs));
	for (size_t i = 0; i < chain_len; i++)
		chain[i] = (br_x509_certificate){ certs[i].p, certs[i].n };
	if (chain_len == 0)
		die("%s: no certificate", path);
	snprintf(path, sizeof path, "%s.key", up.key[0] ? up.key : up.cert);
	key_load(&server_key, path);
	issuer_type = memmem(certs[0].p, MIN(certs[0].n, 60), "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", 9) ? BR_KEYTYPE_RSA : BR_KEYTYPE_EC;
	for (char *s = up.suites; *s != '\0' && nsuites < COUNT(suites); s += *s == ',')
		suites[nsuites++] = (uint16_t)strtoul(s, &s, 16);
	br_ssl_session_cache_lru_init(&sessions, sessions_store, sizeof sessions_store);
}

static struct secure *tls_new(void)
{
	static const char *alpn[1];
	struct secure *t = grow(NULL, sizeof *t);
	br_ssl_engine_context *e = &t->sc.eng;
	unsigned version = BR_TLS10 + (unsigned)(up.tls - 10);
	memset(t, 0, sizeof *t);
	if (server_key.kind == RSA)
		br_ssl_server_init_full_rsa(&t->sc, chain, chain_len, &server_key.rsa);
	else
		br_ssl_server_init_full_ec(&t->sc, chain, chain_len, issuer_type, &server_key.ec);
	br_ssl_engine_set_versions(e, version, version);
	if (nsuites > 0)
		br_ssl_engine_set_suites(e, suites, nsuites);
	if (up.alpn[0]) {
		alpn[0] = up.alpn;
		br_ssl_engine_set_protocol_names(e, alpn, 1);
	}
	br_ssl_engine_set_buffer(e, t->io, sizeof t->io, 1);
	if (strcmp(up.all.cache, "zero") == 0)
		br_ssl_server_set_cache(&t->sc, &zero_sessions);
	else if (strcmp(up.all.cache, "off") != 0)
		br_ssl_server_set_cache(&t->sc, &sessions.vtable);
	if (!br_ssl_server_reset(&t->sc))
		die("TLS: error %d", br_ssl_engine_last_error(e));
	return t;
}

/* The handshake messages in the records that came, put together. */
static struct buf hello_message(const struct buf *first)
{
	struct buf m = { 0 };
	for (size_t at = 0, n; at + 5 <= first->n && first->p[at] == 22; at += 5 + n) {
		n = get16at(first->p + at + 3);
		if (at + 5 + n > first->n)
			break;
		put(&m, first->p + at + 5, n);
	}
	return m;
}

/* The ClientHello in words; false when it is not whole yet. */
static bool hello_note(const struct conn *c)
{
	struct buf m = hello_message(&c->tls->first);
	char sni[256] = "-", alpn[256] = "-", ids[512] = "", exts[256] = "";
	struct text list = { .p = ids, .size = sizeof ids }, ext = { .p = exts, .size = sizeof exts };
	const uint8_t *p = m.p + 4, *end = m.p + m.n;
	bool whole = m.n >= 44 && m.n >= 4 + (size_t)get16at(m.p + 2);
	unsigned version, sid;
	size_t n;
	if (whole) {
		version = get16at(p);
		sid = p[34];
		p += 35 + sid;
		n = get16at(p);
		for (p += 2; n >= 2 && p + 2 <= end; n -= 2, p += 2)
			text_add(&list, "%s%04x", list.len > 0 ? "," : "", get16at(p));
		for (p += 1 + p[0] + 2; p + 4 <= end; p += n) {
			unsigned type = get16at(p);
			n = get16at(p + 2);
			p += 4;
			text_add(&ext, "%s%u", ext.len > 0 ? "," : "", type);
			if (type == 0 && n > 5)
				snprintf(sni, sizeof sni, "%.*s", (int)(n - 5), (const char *)p + 5);
			if (type == 16 && n > 3)
				snprintf(alpn, sizeof alpn, "%.*s", (int)p[2], (const char *)p + 3);
		}
		note("hello", c, "sni %s alpn %s sid %u version %04x suites %s exts %s", sni, alpn, sid, version, ids, exts);
	}
	free(m.p);
	return whole;
}

/* How much of "out" may leave now: all of it, or what record= and dribble= allow. */
static size_t out_portion(struct conn *c)
{
	int drip = c->dribble ? c->dribble : up.all.dribble;
	size_t record = up.all.record > 0 ? (size_t)up.all.record : drip ? 1 : c->out.n;
	if (c->out.n == 0 || (drip && now - c->dripped < MS(drip)))
		return 0;
	c->dripped = now;
	return MIN(c->out.n, record);
}

/* A record of the engine's on its way out; false when the rules stop it. */
static bool tls_record_out(struct conn *c)
{
	br_ssl_engine_context *e = &c->tls->sc.eng;
	size_t n, upto = (size_t)up.all.upto, sent = c->tls->sent;
	uint8_t *b = br_ssl_engine_sendrec_buf(e, &n);
	if (!c->tls->up && sent + n > upto && fault("mid")) {
		put(&c->raw, b, upto > sent ? upto - sent : 0);
		return false;
	}
	put(&c->raw, b, n);
	c->tls->sent += n;
	br_ssl_engine_sendrec_ack(e, n);
	return true;
}

static void tls_app_in(struct conn *c)
{
	br_ssl_engine_context *e = &c->tls->sc.eng;
	size_t n;
	uint8_t *b = br_ssl_engine_recvapp_buf(e, &n);
	if (!c->tls->data)
		note("data", c, "bytes %zu", n);
	c->tls->data = true;
	c->records++;
	put(&c->in, b, n);
	br_ssl_engine_recvapp_ack(e, n);
	c->handle(c);
}

static bool tls_app_out(struct conn *c)
{
	br_ssl_engine_context *e = &c->tls->sc.eng;
	size_t n, room;
	uint8_t *b = br_ssl_engine_sendapp_buf(e, &room);
	n = b != NULL ? out_portion(c) : 0;
	n = MIN(n, room);
	if (n > 0) {
		memcpy(b, c->out.p, n);
		br_ssl_engine_sendapp_ack(e, n);
		br_ssl_engine_flush(e, 0);
		take(&c->out, n);
	} else if (up.all.reneg && c->answers > 0 && !c->tls->reneg) {
		c->tls->reneg = true;
		note("reneg", c, "asked %d", br_ssl_engine_renegotiate(e));
		n = 1;
	}
	return n > 0;
}

static void conn_flush(struct conn *c)
{
	while (c->raw.n > 0 && !c->gone) {
		ssize_t n = send(c->fd, c->raw.p, up.all.wire > 0 ? MIN((size_t)up.all.wire, c->raw.n) : c->raw.n, MSG_NOSIGNAL);
		if (n < 0 && later(errno))
			return;
		if (n <= 0)
			conn_die(c, "client", "write");
		else
			take(&c->raw, (size_t)n);
	}
}

/* Moves bytes between engine and queues until nothing moves. */
static void tls_move(struct conn *c)
{
	struct secure *t = c->tls;
	br_ssl_engine_context *e = &t->sc.eng;
	br_ssl_session_parameters sp;
	while (!c->gone && !c->stalled) {
		unsigned s = br_ssl_engine_current_state(e);
		if (s & BR_SSL_SENDREC) {
			if (tls_record_out(c))
				continue;
			conn_flush(c);
			strike(c);
		} else if (!t->up && (s & BR_SSL_SENDAPP)) {
			br_ssl_engine_get_session_parameters(e, &sp);
			t->up = true;
			note("up", c, "version %04x suite %04x resumed %d alpn %s", sp.version, sp.cipher_suite, t->sent < 400,
			    br_ssl_engine_get_selected_protocol(e) ? br_ssl_engine_get_selected_protocol(e) : "-");
			conn_flush(c);
			if (!c->gone && fault("up"))
				strike(c);
		} else if (s & BR_SSL_RECVAPP)
			tls_app_in(c);
		else if (s == BR_SSL_CLOSED && c->closing != HALF_CLOSED) {
			conn_flush(c);
			conn_die(c, c->closing ? "server" : "client", br_ssl_engine_last_error(e) ? "error" : "notify");
		} else if (!(s & BR_SSL_SENDAPP) || !tls_app_out(c))
			break;
	}
}

/* ---- Connections: what comes and goes */

/* Sends what can be sent, and ends the connection when it is to end. */
static void conn_move(struct conn *c)
{
	size_t n;
	if (c->gone || c->stalled)
		return;
	if (c->tls != NULL)
		tls_move(c);
	else
		while ((n = out_portion(c)) > 0) {
			put(&c->raw, c->out.p, n);
			take(&c->out, n);
		}
	conn_flush(c);
	if (c->gone || c->stalled)
		return;
	if (c->tls != NULL && !c->tls->flight && c->tls->sent > 1000 && c->raw.n == 0) {
		c->tls->flight = true;
		note("flight", c, "bytes %zu", c->tls->sent);
	}
	if (c->closing == CLOSES_WHEN_EMPTY && c->out.n == 0 && c->raw.n == 0) {
		conn_close(c, up.all.how);
		if (!c->gone)
			conn_move(c);
	}
}

static void tls_bytes(struct conn *c, const uint8_t *p, size_t n)
{
	br_ssl_engine_context *e = &c->tls->sc.eng;
	if (c->tls->first.n == 0 && (p[0] < 20 || p[0] > 23))
		note("plain", c, "byte %u size %zu", p[0], n);
	if (!c->tls->hello) {
		put(&c->tls->first, p, n);
		c->tls->hello = hello_note(c);
		if (c->tls->hello && up.all.pause > 0)
			ms_sleep(up.all.pause);
		if (c->tls->hello && fault("hello")) {
			strike(c);
			return;
		}
	}
	while (n > 0 && !c->gone && !c->stalled && (br_ssl_engine_current_state(e) & BR_SSL_RECVREC)) {
		size_t k;
		uint8_t *b = br_ssl_engine_recvrec_buf(e, &k);
		k = MIN(k, n);
		memcpy(b, p, k);
		br_ssl_engine_recvrec_ack(e, k);
		p += k;
		n -= k;
		tls_move(c);
	}
}

/* What a stalled connection still does: it reads, unless it is deaf, and sees the end. */
static void conn_ignore(struct conn *c, short revents)
{
	uint8_t junk[4096];
	ssize_t n = revents & POLLIN && strstr(up.all.at, "deaf") == NULL ? recv(c->fd, junk, sizeof junk, 0) : 1;
	if (n <= 0 || (revents & (POLLERR | POLLHUP | POLLRDHUP)))
		conn_die(c, "client", "fault");
}

static void conn_read(struct conn *c)
{
	static uint8_t block[65536];
	ssize_t n = recv(c->fd, block, sizeof block, 0);
	if (n < 0 && later(errno))
		return;
	if (n <= 0)
		conn_die(c, "client", n == 0 ? "fin" : "rst");
	else if (c->tls != NULL)
		tls_bytes(c, block, (size_t)n);
	else {
		put(&c->in, block, (size_t)n);
		c->handle(c);
	}
}

static void conn_clock(struct conn *c)
{
	bool ready = c->tls == NULL || c->tls->up;
	if (c->gone || c->stalled)
		return;
	if (ready && ((up.all.idle > 0 && now - c->last >= MS(up.all.idle) && c->waiting == 0 && c->raw.n == 0) ||
	    (up.all.life > 0 && now - c->born >= MS(up.all.life))))
		conn_close(c, up.all.how);
	answers_release(c);
	conn_move(c);
}

static struct conn *conn_new(int fd, const struct addr *from, void (*handle)(struct conn *))
{
	struct conn *c = grow(NULL, sizeof *c);
	*c = (struct conn){ .fd = fd, .id = ++conn_count, .from = *from, .handle = handle, .born = now, .last = now, .next = conns };
	conns = c;
	nonblocking(fd);
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	return c;
}

static void relay_start(struct conn *c);

static void conn_accept(void)
{
	struct addr from = { 0 };
	socklen_t len = sizeof from.u;
	int fd = accept(up.tcp, &from.u.sa, &len);
	struct conn *c;
	if (fd < 0)
		return;
	c = conn_new(fd, &from, dns_handle);
	note("open", c, "%s from=%s", up.cert[0] ? "tls" : "tcp", addr_text(&from));
	if (up.cert[0])
		c->tls = tls_new();
	if (up.relay)
		relay_start(c);
	else if (up.all.close || up.all.reset)
		conn_close(c, up.all.reset ? "rst" : "fin");
	else if (fault("accept"))
		strike(c);
}

static void conns_sweep(void)
{
	for (struct conn **p = &conns, *c; (c = *p) != NULL; ) {
		if (!c->gone) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		for (struct job **at = &jobs, *j; (j = *at) != NULL; )
			if (j->conn == c) {
				*at = j->next;
				job_free(j);
			} else
				at = &j->next;
		for (struct job *j; (j = c->held) != NULL; job_free(j))
			c->held = j->next;
		if (c->tls != NULL)
			free(c->tls->first.p);
		free(c->tls);
		free(c->in.p);
		free(c->out.p);
		free(c->raw.p);
		free(c);
	}
}

/* ---- The relay
 *
 * Each client has a socket of its own towards the upstream, so that answers find back. Streams are handed on with the same delay, and lose
 * nothing. */

enum { FLOWS = 4096 };
static struct flow { int fd; struct addr client; } flows[FLOWS];
static unsigned nflows, flow_next;
static volatile sig_atomic_t tell, over;
static unsigned long passed[2], lost[2];        /* queries, answers */

static struct flow *flow_for(const struct addr *client)
{
	struct flow *f;
	for (unsigned i = 0; i < nflows; i++)
		if (addr_same_host(client, &flows[i].client) && addr_port(client) == addr_port(&flows[i].client))
			return &flows[i];
	f = &flows[flow_next++ % FLOWS];
	if (nflows < FLOWS)
		nflows++;
	else
		close(f->fd);
	f->client = *client;
	f->fd = sock(SOCK_DGRAM, NULL, &up.to);
	if (f->fd < 0)
		die("socket: %s", strerror(errno));
	nonblocking(f->fd);
	return f;
}

static usec relay_due(void)
{
	usec jitter = up.all.jitter ? (usec)(rnd() % (2000u * (unsigned)up.all.jitter + 1)) - MS(up.all.jitter) : 0;
	return now + MAX(MS(up.all.delay) + jitter, 0);
}

static void relay_datagram(int way, int fd, const struct addr *to, const uint8_t *p, size_t n)
{
	bool gone = (up.all.loss && (int)(rnd() % 1000) < up.all.loss) || up.all.silent || up.all.udpsilent;
	(gone ? lost : passed)[way]++;
	if (!gone)
		send_later(relay_due(), fd, to, p, n);
}

static void relay_handle(struct conn *c)
{
	if (c->far != NULL && !up.all.silent && !up.all.tcpsilent)
		job_new(now + MS(up.all.delay), J_BYTES, c->far, c->in.p, c->in.n);
	c->in.n = 0;
}

static void relay_start(struct conn *c)
{
	int fd = socket(up.to.u.sa.sa_family, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	c->far = conn_new(fd, &up.to, relay_handle);
	c->far->far = c;
	c->handle = relay_handle;
	if (connect(fd, &up.to.u.sa, addr_len(&up.to)) != 0 && errno != EINPROGRESS)
		conn_die(c->far, "server", "connect");
}

static void relay_told(int sig)
{
	if (sig == SIGUSR1)
		tell = 1;
	else
		over = 1;
}

/* Says what passed and what was lost since the last time. */
static void relay_tell(void)
{
	note("relayed", NULL, "queries %lu answers %lu lost %lu %lu", passed[0], passed[1], lost[0], lost[1]);
	memset(passed, 0, sizeof passed);
	memset(lost, 0, sizeof lost);
	tell = 0;
	if (over)
		exit(0);
}

/* ---- The loop */

static void udp_ready(void)
{
	static uint8_t in[MSG_MAX];
	struct addr from = { 0 };
	socklen_t len = sizeof from.u;
	ssize_t n;
	for (int k = 0; k < 64 && (n = recvfrom(up.udp, in, sizeof in, 0, &from.u.sa, &len)) >= 0; k++, len = sizeof from.u) {
		if (up.relay)
			relay_datagram(0, flow_for(&from)->fd, &(struct addr){ 0 }, in, (size_t)n);
		else if (up.cert[0])
			note("plain", NULL, "datagram size %zd", n);
		else
			query_take(in, (size_t)n, &from, NULL);
	}
}

static void flow_ready(struct flow *f)
{
	static uint8_t in[MSG_MAX];
	ssize_t n;
	while ((n = recv(f->fd, in, sizeof in, 0)) >= 0)
		relay_datagram(1, up.udp, &f->client, in, (size_t)n);
}

/* Until when to wait: the next job, or the next look at connections and at the rules. */
static void wait_for(struct pollfd *fds, size_t n)
{
	usec wait = conns != NULL || up.cert[0] || up.relay ? MS(20) : SEC(3600);
	struct timespec t;
	for (const struct conn *c = conns; c != NULL; c = c->next)
		if (c->dribble > 0 && c->out.n > 0)
			wait = MIN(wait, MS(c->dribble));
	clock_read();
	if (jobs != NULL)
		wait = MIN(wait, MAX(jobs->due - now, 0));
	t = (struct timespec){ (time_t)(wait / SEC(1)), (long)(wait % SEC(1)) * 1000 };
	ppoll(fds, (nfds_t)n, &t, NULL);
	clock_read();
}

static void turn(void)
{
	static struct pollfd *fds;
	static struct conn **who;
	static size_t room;
	size_t n = 2 + nflows;
	for (const struct conn *c = conns; c != NULL; c = c->next)
		n++;
	if (n > room) {
		room = 2 * n;
		fds = grow(fds, room * sizeof *fds);
		who = grow(who, room * sizeof *who);
	}
	fds[0] = (struct pollfd){ up.udp, POLLIN, 0 };
	fds[1] = (struct pollfd){ up.tcp, POLLIN, 0 };
	n = 2;
	for (unsigned i = 0; i < nflows; i++)
		who[n] = NULL, fds[n++] = (struct pollfd){ flows[i].fd, POLLIN, 0 };
	for (struct conn *c = conns; c != NULL; c = c->next) {
		short in = c->stalled && strstr(up.all.at, "deaf") ? 0 : POLLIN;
		who[n] = c;
		fds[n++] = (struct pollfd){ c->fd, (short)(POLLRDHUP | in | (c->raw.n > 0 ? POLLOUT : 0)), 0 };
	}
	wait_for(fds, n);
	rules_read();
	jobs_run();
	if (fds[0].revents)
		udp_ready();
	if (fds[1].revents)
		conn_accept();
	for (unsigned i = 0; i < nflows && 2 + i < n; i++)
		if (fds[2 + i].revents && fds[2 + i].fd == flows[i].fd)
			flow_ready(&flows[i]);
	for (size_t i = 2; i < n; i++) {
		struct conn *c = who[i];
		if (c == NULL)
			continue;
		if (!c->gone && fds[i].revents && c->stalled)
			conn_ignore(c, fds[i].revents);
		else if (!c->gone && (fds[i].revents & (POLLIN | POLLERR | POLLHUP | POLLRDHUP)))
			conn_read(c);
		conn_clock(c);
	}
	conns_sweep();
}

/* ---- Starting */

/* A port that is free for UDP and TCP, IPv4 and IPv6, below those that the kernel gives to clients. */
static unsigned free_port(void)
{
	static const char *const any[] = { "0.0.0.0", "::" };
	rnd_stir();
	for (int try = 0; try < 200; try++) {
		unsigned port = 10000 + rnd() % 20000, good = 0;
		for (int i = 0; i < 4; i++) {
			struct addr a = addr_at(any[i / 2], port);
			int fd = sock(i % 2 ? SOCK_STREAM : SOCK_DGRAM, &a, NULL);
			good += fd >= 0 || (i >= 2 && errno != EADDRINUSE);
			if (fd >= 0)
				close(fd);
		}
		if (good == 4)
			return port;
	}
	die("no port is free");
}

static const struct field setup_fields[] = { FTEXT(setup, log), FTEXT(setup, rules), FTEXT(setup, cert), FTEXT(setup, key), FTEXT(setup, suites),
	FTEXT(setup, alpn), FINT(setup, number), FINT(setup, notcp), FINT(setup, noudp), FINT(setup, tls) };

static int up_socket(int type, const char *host)
{
	struct addr a = addr_at(host, addr_port(&up.at));
	int fd = sock(type, &a, NULL);
	if (fd < 0)
		die("%s: %s", addr_text(&a), strerror(errno));
	nonblocking(fd);
	return fd;
}

static int cmd_up(int argc, char **argv)
{
	struct addr any;
	up.relay = strcmp(argv[0], "relay") == 0;
	up.at = addr_of(argv[1], argv[2]);
	if (up.relay)
		up.to = addr_of(argv[3], argv[4]);
	for (int i = up.relay ? 5 : 3; i < argc; i++)
		if (!field_set(setup_fields, COUNT(setup_fields), &up, argv[i]))
			die("%s: what is %s?", argv[0], argv[i]);
	if (addr_port(&up.at) == 0)
		addr_set_port(&up.at, free_port());
	more_files();
	if (up.log[0] && (up.logfd = open(up.log, O_WRONLY | O_CREAT | O_APPEND, 0644)) < 0)
		die("%s: %s", up.log, strerror(errno));
	if (up.cert[0])
		tls_setup();
	if (!up.notcp && listen(up.tcp = up_socket(SOCK_STREAM, argv[1]), 1024) < 0)
		die("listen: %s", strerror(errno));
	if (!up.noudp)
		up.udp = up_socket(SOCK_DGRAM, argv[1]);
	any = addr_at(argv[1], 0);
	up.other = sock(SOCK_DGRAM, &any, NULL);
	any = addr_at("127.0.0.9", addr_port(&up.at));
	if (!addr_is6(&up.at))
		up.elsewhere = sock(SOCK_DGRAM, &any, NULL);
	signal(SIGUSR1, relay_told);
	if (up.relay)
		signal(SIGTERM, relay_told);
	rnd_stir();
	up.all = act_for("connect.");
	clock_read();
	rules_read();
	printf("ready %s\n", addr_text(&up.at));
	fflush(stdout);
	for (;;) {
		turn();
		if (tell || over)
			relay_tell();
	}
}
