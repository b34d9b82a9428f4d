/* sequence.h - what must hold whatever happens: the fuzz target for the whole machinery, with faked time and packets
 *
 * Its input is the number of a configuration and a sequence of events: what clients and upstreams send, over datagrams, TCP, TLS
 * and HTTP/2, time that passes, connections that open, end and break, descriptors that run out, reloads. After each event the
 * program runs until it would wait. Then every table must be in order, and
 *  - every client's question is answered once, well-formed and within its life, or waits
 *  - none fails while an upstream that has been up all its life has an open connection and has not said anything to it
 * At the end nothing may be left but what listens.
 *
 * Not a program; fuzz.c includes it. With TRACE=1 it tells each event and what the program logs. */
#include "lab.h"

enum { TRACKED = 256, WILD_PORT = 999, LONGEST = 5000, NAMES = 8, PLAIN = 4, TYPES = 5, TOLD = 200 };

/* A question of a client. */
static struct asked {
	bool open;
	const struct fake *conn;                /* NULL over UDP */
	unsigned limit, subject, full;          /* subject: which name and type; full: how often the table had been full */
	uint16_t id;
	struct sockaddr_in from;
	int64_t born, life_from;                /* life_from: when the question that it joined began */
	size_t len;
	uint8_t query[300];
} asked[TRACKED];
static unsigned next_id = 1;
static bool mutated;                            /* an upstream has sent something odd */
static int64_t reloaded, heard[NAMES * TYPES][32];      /* when; when each upstream said something about each subject */
static int64_t was_down[MAX_UPSTREAMS][KINDS];
static struct buf admin_said;                   /* the last that an admin connection was told, a text */

/* What the program has asked an upstream on a descriptor. raw: not yet whole. */
static struct told {
	unsigned n;
	struct { uint32_t stream; size_t len; uint8_t b[UPSTREAM_QUERY_MAX]; } q[TOLD];
	struct buf raw;
} told[FDS];

static const char *const names[NAMES] = { "a.test", "c.test", "d.test", "e.test", "b.test", "x.b.test", "one", "f.lan" };
static const unsigned types[TYPES] = { T_A, T_AAAA, T_TXT, 65280, T_ANY };

static const char *const sets[] = {
	BASE "192.0.2.11 1\n192.0.2.12 2\n192.0.2.13 3 tcp\n",
	BASE "192.0.2.11 1\n192.0.2.12 1 final\n192.0.2.14 2 tls noverify\nserve-stale 100\ncache-negative 60\npatience 200\nlog debug\n",
	BASE "192.0.2.13 1 tcp\n192.0.2.11 2 tcp\n192.0.2.15 2 domain=b.test\n127.0.0.9 5\ncache-min-ttl 10\n",
	BASE "192.0.2.12 1\ncache-max-ttl 20\nserve-stale 10\n",
	BASE "192.0.2.11 1\n192.0.2.11@54 1\n192.0.2.11@55 1 final\n192.0.2.12 2\n192.0.2.13 2 tcp\n192.0.2.14 3\nlog debug\n",
	BASE "192.0.2.14 1 tls noverify\n",
	BASE "192.0.2.14 1 tls noverify\n192.0.2.13 2 tcp\n192.0.2.17 2 tls noverify final\n",
	BASE "192.0.2.18 1 https=dns.test noverify\n",
	BASE "192.0.2.18 1 https=dns.test noverify\n192.0.2.14 1 tls noverify\n192.0.2.11 2\n",
	BASE "192.0.2.16 1\n",
};

static bool is_listener(const struct fake *f) { return nlisteners > 0 && f == FAKE(listeners[0].udp); }
static bool is_port(const struct fake *f) { return f->kind == K_UDP && f->connected; }
static bool is_stream(const struct fake *f) { return f->kind == K_TCP && f->of == NULL; }
static bool is_client(const struct fake *f) { return f->kind == K_TCP && f->of != NULL; }
static bool is_admin(const struct fake *f) { return f->of == FAKE(admin_fd); }
static unsigned upstream_bit(const struct sockaddr_in *a) { return ntohl(a->sin_addr.s_addr) % 32; }
static bool is_http(const struct fake *f) { return f->kind == K_TCP && ntohs(f->peer.sin_port) == 443; }
static bool is_tls(const struct fake *f) { return is_http(f) || (f->kind == K_TCP && ntohs(f->peer.sin_port) == 853); }

/* Could this upstream be asked at once over a connection that stands? */
static bool is_ready(const struct upstream *u) {
	for (const struct fake *f = fakes; f < fakes + FDS; f++)
		if (f->kind == K_TCP && memcmp(&f->peer, &u->spec.addr.u.in, sizeof f->peer) == 0 && !f->connecting && !f->eof && !f->err &&
		    !f->stuck && !f->ended && !f->odd && (f->greeted || !is_tls(f)))
			return true;
	return false;
}

/* The question has failed before its life was over: was there somebody to ask? Private names and suffixes are other rules. */
static void failure_seen(const struct asked *q, const struct key *k) {
	if (q->subject % NAMES >= PLAIN || q->full != stats.full || fake_now - MS(LONGEST - 10) >= MIN(q->life_from, q->born))
		return;
	for (unsigned i = 0; i < norder && reloaded + MS(LONGEST) < q->born; i++) {
		const struct upstream *u = &upstreams[order[i]];
		if (u->spec.proto != P_UDP && was_down[order[i]][key_kind(k)] + MS(LONGEST) < fake_now)
			MUST(heard[q->subject][upstream_bit(&u->spec.addr.u.in)] + MS(LONGEST) > fake_now || !is_ready(u));
	}
}

/* A reply to a client, over a connection or as a datagram to there: it must be the first to something that was asked, and be
 * well-formed. */
static void reply_seen(const struct fake *conn, const struct sockaddr_in *to, const uint8_t *p, size_t len) {
	struct question question;
	struct answer a;
	struct asked *q = asked;

	MUST(len >= 12);
	while (!q->open || q->conn != conn || q->id != get16at(p) || (conn == NULL && memcmp(&q->from, to, sizeof *to) != 0))
		MUST(++q < asked + TRACKED);    /* else nobody waits for it */
	q->open = false;
	MUST(question_read(&question, q->query, q->len) == NOERROR);
	MUST(len >= q->len - (question.edns ? 11 : 0) && len <= q->limit);
	MUST((p[2] & 0x80) && get16at(p + 4) == 1);
	MUST(memcmp(p + 12, q->query + 12, question.key.name_len + 4) == 0);
	if ((p[3] & 15) == SERVFAIL) failure_seen(q, &question.key);
	if (mutated)                            /* a name of it may run through a TTL, and change with that */
		return;
	MUST(answer_read(&a, exactly(p, len), len, &question.key) == NULL && (a.opt ? a.len < len : a.len == len));
	MUST(a.opt == question.edns || len > MSG_MAX - 11);
}

static void told_add(struct fake *f, uint32_t stream, const uint8_t *p, size_t n) {
	struct told *t = &told[f - fakes];
	MUST(n >= 17 && n <= UPSTREAM_QUERY_MAX);
	if (t->n == TOLD) t->n = 0;             /* what is forgotten is never answered */
	t->q[t->n].stream = stream;
	t->q[t->n].len = n;
	memcpy(t->q[t->n++].b, p, n);
}

/* Takes whole frames out of what the program has sent, and shows each. Their heads have 2 bytes over TCP, 5 in TLS, 9 in HTTP/2. */
static void frames(struct fake *f, struct buf *b, size_t head, void (*seen)(struct fake *f, const uint8_t *p, size_t n)) {
	size_t at = 0, len;

	for (; b->n - at >= head; at += len) {
		const uint8_t *p = b->p + at;
		len = head + (head == 2 ? get16at(p) : head == RECORD ? get16at(p + 3) : *p == 'P' ? 24 - 9 : get32at(p) >> 8);
		if (b->n - at < len) break;
		seen(f, p, len);
	}
	take(b, at);
}

static void question_frame(struct fake *f, const uint8_t *p, size_t n) {
	f->seen++;
	if (!is_http(f))
		told_add(f, 0, p + 2, n - 2);
	else if (p[3] == H2_DATA)
		told_add(f, get32at(p + 5), p + 9, n - 9);
}

static void record_frame(struct fake *f, const uint8_t *p, size_t n) {
	struct told *t = &told[f - fakes];
	f->seen++;
	if (*p != R_DATA) return;
	put(&t->raw, p + RECORD, n - RECORD);
	frames(f, &t->raw, is_http(f) ? 9 : 2, question_frame);
}

static void reply_frame(struct fake *f, const uint8_t *p, size_t n) {
	if (!f->odd) reply_seen(f, NULL, p + 2, n - 2);
}

static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t len) {
	if (is_listener(f) && ntohs(to->sin_port) != WILD_PORT) reply_seen(NULL, to, p, len);
	if (is_listener(f)) return;
	MUST(f->connected);
	if (f->seen++ == 0) told[f - fakes].n = 0;
	told_add(f, 0, p, len);
}

/* What was asked there waits no more. */
static void client_forget(const struct fake *f) {
	for (unsigned i = 0; i < TRACKED; i++)
		if (asked[i].conn == f) asked[i].open = false;
}

/* Takes note of what the program has sent on a connection. */
static void fake_look(struct fake *f) {
	if (is_stream(f) && f->seen == 0) told[f - fakes].raw.n = told[f - fakes].n = 0;
	f->unread = f->in.n > 0 && f->in.n == f->was ? f->unread + 1 : 0;
	f->was = f->in.n;
	MUST(f->unread < 10 || !is_stream(f));  /* whoever else has much to say */
	if (is_stream(f))
		frames(f, &f->out, is_tls(f) ? RECORD : 2, is_tls(f) ? record_frame : question_frame);
	else if (is_client(f) && is_admin(f) && f->out.n > 0) {
		admin_said.n = 0;
		put_as(&admin_said, "@1", f->out.p, f->out.n, 0);
		check_printable((const char *)admin_said.p);
		f->out.n = 0;
	} else if (is_client(f))
		frames(f, &f->out, 2, reply_frame);
}

static void fake_closed(struct fake *f) {
	if (!is_client(f)) return;
	fake_look(f);
	client_forget(f);
}

/* ---- Every table in order? */

static struct sum { unsigned queries, asks, waiters, udp, held, holders, ports; } sum;

static void check_query(const struct query *q) {
	bool best = q->best == NULL;

	sum.queries++;
	MUST((q->probe || query_find(&q->key, q->hash) == q) && list_on(&q->staged) && !q->starting);
	MUST(now < q->born + MS(LONGEST) + SEC(1));
	sum.held += q->held != NULL;
	MUST(q->held == NULL || q->best != NULL);
	for (const struct ask *a = q->asks; a != NULL; a = a->next) {
		unsigned nsendings = 0;
		sum.asks++;
		best |= a == q->best;
		MUST(a->q == q);
		for (const struct sending *s = a->sendings; s != NULL; s = s->next, nsendings++)
			MUST(s->ask == a && !s->due && s->port->u == &upstreams[a->up] && s->port->open > 0);
		MUST(nsendings <= RESENDS + 1 && a->resends <= RESENDS + 1 && (a->stream == NULL || list_on(&a->on)));
		MUST((a->state == ASK_WAIT) == (nsendings > 0 || list_on(&a->on)) && (nsendings > 0 || !list_on(&a->late)));
		for (const struct ask *k = a->next; k != NULL; k = k->next)
			MUST(k->up != a->up && upstreams[k->up].spec.priority >= upstreams[a->up].spec.priority);
	}
	MUST(best);
	for (const struct node *x = q->waiters.next; x != &q->waiters; x = x->next) {
		const struct waiter *w = OWNER(x, struct waiter, of_query);
		MUST(w->q == q && x->next->prev == x && !q->replied && w->holder->count > 0);
		sum.waiters++;
		sum.udp += w->peer.kind == PEER_UDP && ntohs(w->peer.from.in.sin_port) != WILD_PORT;
		for (unsigned i = 0; i < TRACKED; i++)
			if (asked[i].open && asked[i].id == w->to.id)
				asked[i].life_from = q->born;
	}
}

static void check_port(const struct port *p, int fd) {
	unsigned k = 0;
	for (const struct sending *s = p->sendings; s < p->sendings + PORT_LIFE; s++)
		k += s->ask != NULL;
	MUST(p->fd == fd && k == p->open && k > 0 && !list_on(&p->dirty));
	sum.ports++;
}

/* A client that has read everything and sent everything: the program waits for as many answers for it as it does. */
static void check_tcp(const struct tcp_client *t, const struct fake *f) {
	unsigned open = 0;
	for (unsigned i = 0; i < TRACKED; i++) open += asked[i].open && asked[i].conn == f;
	MUST(f->odd || f->stuck || f->out.n > 0 || f->in.n > f->held || t->stopped || open == t->waiting + (f->held > 0));
}

/* Connections, the questions that are on them or in the line, and those that are late. */
static void check_upstream(const struct upstream *u) {
	unsigned n = 0, opening = 0;

	for (const struct node *x = u->streams.next; x != &u->streams; x = x->next, n++) {
		const struct stream *s = STREAM(x);
		unsigned open = 0;
		for (const struct node *k = s->asks.next; k != &s->asks; k = k->next, open++)
			MUST(LINED(k)->stream == s && &upstreams[LINED(k)->up] == u && stream_id_find(u, LINED(k)->id) == LINED(k));
		MUST(s->u == u && s->fd >= 0 && s->state != S_CLOSED && open == s->open && s->open <= s->written && (open == 0 || s->state >= S_OPEN));
		opening += s->state < S_OPEN;
		MUST(s->h2 == NULL || s->state != S_OPEN || s->written == s->got + s->open);    /* what nobody waits for is cancelled */
		MUST(s->out_len <= sizeof s->out && s->in_len < sizeof s->in && (s->h2 == NULL || s->h2->block_len <= H2_BLOCK_MAX));
		MUST(s->tls == NULL || s->out_len > 0 || !(br_ssl_engine_current_state(&s->tls->client.eng) & BR_SSL_SENDREC));
	}
	MUST(n == u->nstreams && n <= CONNECTIONS && opening <= 1);
	for (const struct node *k = u->line.next; k != &u->line; k = k->next)
		MUST(LINED(k)->stream == NULL && &upstreams[LINED(k)->up] == u && stream_id_find(u, LINED(k)->id) == LINED(k));
	for (const struct node *l = u->late; l < u->late + LATE_LISTS; l++) {
		MUST(list_empty(l) || (wake != 0 && wake <= now + MS(LONGEST)));        /* of all a list is looked at the head alone, */
		for (const struct node *x = l->next; x != l; x = x->next)               /* so they must be in order */
			MUST(x->next == l || OWNER(x, struct ask, late)->since <= OWNER(x->next, struct ask, late)->since);
	}
	for (unsigned k = 0; k < KINDS; k++)
		if (upstream_down(u, (enum question_kind)k)) was_down[u - upstreams][k] = fake_now;
}

static void check_all(bool thorough) {
	unsigned waiting = 0;

	sum = (struct sum){ 0 };
	if (thorough) check_cache();
	for (unsigned i = 0; i < queries.ever; i++)
		if (((const struct query *)pool_at(&queries, i))->active)
			check_query(pool_at(&queries, i));
	MUST(sum.queries == queries.used && sum.asks == asks.used && sum.waiters == waiters.used && sum.held == held_small.used + held_big.used);
	for (unsigned i = 0; i <= query_table_mask; i++)
		for (const struct holder *h = holder_table[i]; h != NULL; h = h->next) {
			MUST(h->count > 0 && list_on(&h->of_count) && h->count <= holders_most);
			sum.holders += h->count;
		}
	MUST(sum.holders == sum.waiters);
	for (unsigned i = 0; i < TRACKED; i++) {
		MUST(!asked[i].open || asked[i].conn != NULL || now < asked[i].born + MS(LONGEST + 1));
		waiting += asked[i].open && asked[i].conn == NULL;
	}
	MUST(waiting == sum.udp);
	for (int i = 0; i < npolls; i++) {
		MUST(*watches[i].slot == i && IS_FAKE(polls[i].fd) && FAKE(polls[i].fd)->kind != K_FREE);
		for (int k = 0; k < i; k++) MUST(polls[k].fd != polls[i].fd);
		if (watches[i].ready == port_ready) check_port(watches[i].owner, polls[i].fd);
		if (watches[i].ready == tcp_client_ready) check_tcp(watches[i].owner, FAKE(polls[i].fd));
	}
	MUST(sum.ports == ports.used);
	MUST(fakes_open() == npolls);
	for (unsigned i = 0; i < norder; i++) check_upstream(&upstreams[order[i]]);
}

/* Lets the program run until it would wait, and looks at it then; thorough: into the cache too. Before it waits, all that it has to send must have gone. */
static void run(bool thorough) {
	for (int turns = 0; ; turns++) {
		MUST(turns < 2000);             /* else it spins */
		turn_end();
		for (int i = 0; i < FDS; i++) fake_look(&fakes[i]);
		MUST(((list_empty(&ports_dirty) && !streams_due) || (wake != 0 && wake <= now)) && list_empty(&tcp_dirty) && outbox.n == 0);
		if (lab_poll(polls, (nfds_t)npolls, 0) == 0 && (wake == 0 || wake > now)) break;
		for (int i = 0; i < npolls; i++) polls[i].revents = 0;
		loop_turn();
	}
	check_all(thorough);
}

/* ---- The events */

static const uint8_t *feed, *feed_end;
static unsigned byte(void) { return feed < feed_end ? *feed++ : 0; }
static unsigned below(unsigned n) { return byte() % n; }

static void wild_bytes(struct fake *f, unsigned n) {
	for (uint8_t b; n > 0 && fake_takes(f, 1); n--) {
		b = (uint8_t)byte();
		put(&f->in, &b, 1);
	}
}

static void datagram(struct fake *f, const struct sockaddr_in *from, const uint8_t *p, size_t n) {
	put_as(&f->in, "@(@)", from, sizeof *from, p, n);
}

/* A client's good question, over UDP (f is NULL) or TCP. */
static void client_query(struct fake *f) {
	unsigned who = byte(), subject = below(NAMES * TYPES), how = byte(), i = 0;
	struct asked *q;

	while (i < TRACKED && asked[i].open) i++;
	if (i == TRACKED) return;
	q = &asked[i];
	say("!%x:1,0,0,%u %s/%s", F_RD | (how & 4 ? F_CD : 0) | (how & 8 ? F_AD : 0), how & 1, names[subject % NAMES],
	    type_text(types[subject / NAMES]));
	put16at(m.p, next_id);
	if (how & 16) m.p[13] &= 0xdf;
	if (how & 1) say("opt/%u/%x [ ]", how & 32 ? 4096 : 700, how & 2 ? 0x8000 : 0);
	*q = (struct asked){ .open = true, .conn = f, .id = (uint16_t)next_id, .born = fake_now, .life_from = fake_now, .len = m.n,
		.subject = subject, .full = (unsigned)stats.full, .limit = f != NULL ? MSG_MAX : how & 1 ? how & 32 ? 1232 : 700 : 512 };
	next_id = next_id % 65535 + 1;
	memcpy(q->query, m.p, m.n);
	if (f == NULL) {
		q->from = client_at(1 + who % 4, 2000 + q->id % 30000u);
		datagram(FAKE(listeners[0].udp), &q->from, m.p, m.n);
		return;
	}
	put_framed(&f->in, &m);
	f->held = who % 4 == 0 ? m.n + 2 - who % (m.n + 2) : 0;
}

enum { WITH_RCODE = 7, WRONG_ID = 9, WRONG_NAME, MUTATED = 14, CUT, BARE };
/* The kinds of answers: flags and RCODE, and a letter for each record: A of the asked type, T of text, S of a zone, O the OPT. */
static const struct { unsigned flags; const char *records; } kinds[] = {
	{ 0x8180, "A" }, { 0x8180, "A" }, { 0x81a0, "A" }, { 0x8180, "AO" }, { 0x8180, "" }, { 0x8180, "S" }, { 0x8183, "S" },
	{ 0x8180, "" }, { 0x8380, "" }, { 0x8180, "A" }, { 0x8180, "A" }, { 0x0180, "A" }, { 0x8183, "SO" }, { 0x8180, "T" },
	{ 0x8180, "A" }, { 0x8180, "" }, { 0x8181, "" }, { 0x8181, "" } };

/* An answer of some kind to a query, into m. */
static void answer_build(const struct question *q, bool stream) {
	static const uint32_t ttls[] = { 300, 0, 1, 5, 30, 0x80000005 };
	unsigned kind = below(COUNT(kinds)), ttl = ttls[below(COUNT(ttls))], type = key_type(&q->key);

	say("!%x:%u,0,0,0", kinds[kind].flags | (kind == WITH_RCODE ? below(16) : 0), kind != BARE);
	put16at(m.p, q->id ^ (unsigned)(kind == WRONG_ID));
	if (kind != BARE) put_as(&m, "@22", q->name, (size_t)q->key.name_len, type, 1);
	if (kind == WRONG_NAME) m.p[13] ^= 1;
	for (const char *r = kinds[kind].records; *r != '\0'; r++) {
		if (*r == 'A') say("@/TYPE%u/%u [ *%d ]", type == T_ANY ? T_A : type, ttl, type == T_AAAA ? 16 : 4);
		if (*r == 'T') say("@/TXT/%u [ *%u ]", ttl, 100 + byte() * (stream ? 150 : 14));
		if (*r == 'S') say("test/SOA/%u [ ns.test @ *19 =3c ]", ttl);
		if (*r == 'O') say("opt/1232/0 [ =000f0002%04x ]", 12 + below(8));
		m.p[*r == 'S' ? 9 : *r == 'O' ? 11 : 7] = 1;
	}
	mutated |= kind == MUTATED;
	for (unsigned k = kind == MUTATED ? below(4) : 0; k > 0; k--) {
		unsigned at = byte();
		m.p[at % m.n] = (uint8_t)byte();
	}
	if (kind == CUT) m.n = below((unsigned)m.n + 1);
}

/* One of the program's descriptors that are so, or NULL. */
static struct fake *fake_pick(bool (*is)(const struct fake *f)) {
	struct fake *list[FDS];
	unsigned count = 0, k = byte();
	for (struct fake *f = fakes; f < fakes + FDS; f++)
		if (is(f)) list[count++] = f;
	return count > 0 ? list[k % count] : NULL;
}

/* Bytes for the program over a connection; over TLS in records, of which there may be two. */
static void upstream_says(struct fake *f, unsigned type, const uint8_t *p, size_t n) {
	bool whole = true;

	if (!fake_takes(f, n + 8 * (size_t)RECORD) || f->ended || (is_tls(f) && !f->greeted && type == R_DATA))
		return;
	while (is_tls(f) && n > 0) {
		size_t k = type == R_DATA && whole && n > 2 && below(4) == 0 ? 1 + below((unsigned)n - 1) : n;
		whole = false;
		k = MIN(k, (size_t)16384);
		put_record(&f->in, type, p, k);
		p += k;
		n -= k;
	}
	put(&f->in, p, n);
}

/* A frame of HTTP/2; padded now and then. */
static void h2_says(struct fake *f, unsigned type, unsigned flags, uint32_t stream, const uint8_t *p, size_t n) {
	static uint8_t frame[9 + 1 + H2_FRAME_MAX + 116 + 255];
	unsigned pad = type <= H2_HEADERS && below(8) == 0 ? below(255) : 0;
	uint8_t *at = frame + 9;
	if (pad > 0) *at++ = (uint8_t)pad;
	if (n > 0) memcpy(at, p, n);
	memset(at + n, 0, pad);
	n += pad + (pad > 0);
	h2_frame(frame, type, flags | (pad ? H2_PADDED : 0u), stream, NULL, n);
	upstream_says(f, R_DATA, frame, 9 + n);
}

/* The message m as the answer to an HTTP request: with a good header nearly always, in one piece or several; or it is refused. */
static void h2_answer(struct fake *f, uint32_t stream) {
	static const uint8_t head[] = "\x88\x0f\x10\x17" "application/dns-message" "\x0f\x06\x02" "10", other[] = "\x8e\x0f\x10\x04text";
	unsigned how = below(16);
	size_t n = how == 1 ? sizeof other - 1 : how == 2 ? below(sizeof head) : sizeof head - 1, cut = how == 3 ? below(40) % (n + 1) : 0, at = 0;

	if (how == 0) {
		h2_says(f, H2_RST_STREAM, 0, stream, (const uint8_t *)"\0\0\0\7", 4);
		return;
	}
	h2_says(f, H2_HEADERS, cut ? 0 : H2_END_HEADERS, stream, how == 1 ? other : head, n - cut);
	if (cut > 0) h2_says(f, H2_CONTINUATION, H2_END_HEADERS, stream, head + n - cut, cut);
	do {
		n = MIN(m.n - at, (size_t)(how == 4 ? 1 + below(200) : H2_FRAME_MAX));
		h2_says(f, H2_DATA, at + n == m.n ? H2_END_STREAM : 0, stream, m.p + at, n);
		at += n;
	} while (at < m.n);
}

/* Frames that are not about one answer: settings, pings, windows, the end, and those that nobody should send, some long. */
static void h2_event(struct fake *f) {
	static uint8_t p[H2_FRAME_MAX + 116];
	unsigned type = below(12), flags = byte(), stream = below(2) ? 0 : 1 + 2 * below(8), n = type == H2_PING ? 8 : byte();
	for (unsigned i = 0; i < MIN(n, 100u); i++) p[i] = (uint8_t)byte();
	h2_says(f, type, flags, stream, p, n > 200 ? (n - 200) * 300 : n);
	f->odd = true;
}

/* An upstream answers one of the queries that it has seen. */
static void upstream_answer(struct fake *f) {
	const struct told *t = f ? &told[f - fakes] : NULL;
	static struct buf framed;
	struct question q;
	unsigned k;

	if (f == NULL || f->seen == 0 || t->n == 0) return;
	k = below(t->n);
	MUST(question_read(&q, t->q[k].b, t->q[k].len) == NOERROR);
	for (unsigned i = 0; i < NAMES * TYPES; i++)
		if (key_type(&q.key) == types[i / NAMES] && strncmp(name_text(q.key.b), names[i % NAMES], strlen(names[i % NAMES])) == 0)
			heard[i][upstream_bit(&f->peer)] = fake_now;
	answer_build(&q, is_stream(f));
	if (is_port(f))
		datagram(f, &f->peer, m.p, MIN(m.n, (size_t)QUEUED));
	else if (is_http(f))
		h2_answer(f, t->q[k].stream);
	else {
		framed.n = 0;
		put_framed(&framed, &m);
		upstream_says(f, R_DATA, framed.p, framed.n);
	}
}

/* What may befall any connection: it breaks, ends, is stuck or goes on. */
static bool befalls(struct fake *f, unsigned what) {
	if (what == 0) f->err = ECONNRESET;
	if (what == 1) f->eof = true;
	if (what == 2) f->stuck = !f->stuck;
	return what <= 2;
}

/* What becomes of a connection to an upstream: it opens or not, says hello, breaks, ends in good order, is stuck, talks wild. */
static void upstream_event(struct fake *f) {
	static const uint8_t alerts[][2] = { { 1, 0 }, { 1, 0 }, { 2, 40 }, { 2, 70 }, { 2, 80 } };
	unsigned what = below(8), k;

	if (f->connecting) {
		f->connecting = false;
		f->err = what == 0 ? ECONNREFUSED : what == 1 ? ETIMEDOUT : 0;
		return;
	}
	if (befalls(f, what)) return;
	if (what == 3) {
		wild_bytes(f, below(40));
		f->ended |= is_tls(f);
	} else if (what == 4) {
		k = below(COUNT(alerts));
		if (!is_tls(f) || (!f->greeted && k < 2)) return;
		upstream_says(f, R_ALERT, alerts[k], 2);
		f->ended = true;
		f->eof = below(2);
	} else if (what == 6 && is_tls(f) && !f->greeted && f->seen > 0) {      /* all that shake hands are flooded */
		for (k = 0; k < 100 * FDS; k++)
			if (is_stream(f = &fakes[k % FDS]) && is_tls(f) && !f->greeted && f->seen > 0) upstream_says(f, R_HANDSHAKE, (const uint8_t *)"", 1);
	} else if (is_tls(f) && !f->greeted && f->seen > 0) {
		upstream_says(f, R_HANDSHAKE, (const uint8_t *)(what == 7 && is_http(f) ? "x" : "h"), 1);
		f->greeted = true;
		f->odd = what == 7;             /* no HTTP/2 */
		if (is_http(f)) h2_says(f, H2_SETTINGS, 0, 0, NULL, 0);
	} else if (is_http(f))
		h2_event(f);
}

static void reload(unsigned k) {
	struct text e = lab_source(sets[k]);
	MUST(config_reload(&e));
	log_level = tracing ? L_DEBUG : log_level;
	reloaded = fake_now;
}

static void client_event(unsigned what) {
	static const char *const lines[] = { "status\n", "clear\r\n", "query a.test\n", "query b.test AAAA\n", "top\n",
		"GET /metrics HTTP/1.1\nHost: localhost\n\n", "nonsense\n", "log error\n", "clear a.test\n", "help\n" };
	struct fake *f = fake_pick(is_client);
	bool room;

	if (f == NULL || befalls(f, what - 1)) return;
	if (!f->eof) f->held = 0;
	room = !f->eof && f->in.n <= 2000;
	if (what == 0 && room && is_admin(f)) {
		const char *s = lines[below(COUNT(lines))];
		put(&f->in, s, strlen(s));
	} else if (what == 0 && room && !f->odd)
		client_query(f);
	else if (what == 4 && room) {
		f->odd = true;
		client_forget(f);
		wild_bytes(f, below(64));
	}
}

static void time_passes(int64_t by) {
	fake_now += by;
	clock_read();
}

static void event(void) {
	static const int64_t steps[] = { 1000, 5000, 20000, 100000, 350000, 700000, 1000000, 1800000, 4000000, 5000000, 20000000 };
	static const int errs[] = { ECONNREFUSED, EHOSTUNREACH, ENOBUFS, EPERM, EIO };
	static const int walls[] = { 0, EPERM, ECONNREFUSED, ENETUNREACH, ENOBUFS, ENOMEM };
	struct sockaddr_in wild = client_at(8, WILD_PORT);
	struct fake *f;
	unsigned what = below(21), k;

	if (tracing)
		fprintf(stderr, "at %lld ms: event %u, %d bytes are left\n", (long long)(fake_now - 1000000000) / 1000, what, (int)(feed_end - feed));
	if (what <= 2)
		client_query(NULL);
	else if (what <= 7)
		upstream_answer(fake_pick(what <= 5 ? is_port : is_stream));
	else if (what <= 9) {
		k = byte();
		time_passes(k & 128 && wake > fake_now ? wake - fake_now : steps[k % COUNT(steps)]);
	} else if (what == 10) {
		if ((f = fake_pick(is_port)) != NULL) f->err = errs[below(COUNT(errs))];
	} else if (what <= 12) {
		if ((f = fake_pick(is_stream)) != NULL) upstream_event(f);
	} else if (what == 13) {
		f = FAKE(below(4) == 0 ? admin_fd : listeners[0].tcp);
		f->due = MIN(f->due + 1, 3u);
	} else if (what <= 16)
		client_event(what < 16 ? 0 : below(5));
	else if (what == 17)
		reload(below(COUNT(sets)));
	else if (what == 18) {
		k = byte();
		fakes_max = k % 3 ? FDS : 3 + (int)k % 12;
	} else if (what == 19)
		fake_wall = walls[below(COUNT(walls))];
	else {
		for (k = below(80), m.n = 0; k > 0; k--) put8(&m, byte());
		datagram(FAKE(listeners[0].udp), &wild, m.p, m.n);
	}
}

/* All ends, all waits: nothing may be left but what listens. */
static void wind_down(void) {
	fakes_max = FDS;
	fake_wall = 0;
	for (struct fake *f = fakes; f < fakes + FDS; f++) {
		f->due = 0;
		f->stuck &= !is_client(f);
		if (is_client(f)) f->err = ECONNRESET;
	}
	run(true);
	for (int i = 0; i < 7; i++) {
		if (i == 3) reload((unsigned)COUNT(sets) - 1);
		time_passes(SEC(20));
		run(true);
	}
	cache_sweep(true, NULL, -1);
	MUST(queries.used == 0 && waiters.used == 0 && ports.used == 0 && holders.used == 0 && held_small.used == 0 && held_big.used == 0 &&
	    bodies.used == 0 && tcp_pool.used == 0 && admins.used == 0 && out_blocks.used == 0);
	for (unsigned i = 0; i < TRACKED; i++) MUST(!asked[i].open);
	MUST(fakes_open() == npolls && npolls <= 4 && wake == 0);       /* idle means idle */
}

/* The program in one of the configurations, up for a while; then what the bytes say happens. */
static void sequence(const uint8_t *data, size_t size) {
	tracing = getenv("TRACE") != NULL;
	log_level = tracing ? L_DEBUG : L_ERROR;
	feed = data;
	feed_end = data + size;
	chance = 88172645463325252;
	mutated = false;
	reload(below(COUNT(sets)));
	time_passes(SEC(20));
	run(true);
	for (int i = 0; i < 400 && feed < feed_end; i++) {
		event();
		run(i % 16 == 0);
	}
}

static void check_sequence(const uint8_t *data, size_t size) {
	sequence(data, size);
	wind_down();
}

/* What a server of DNS over HTTPS sends to eight questions: frames of all kinds. */
static void check_http2(const uint8_t *data, size_t size) {
	static const uint8_t opening[] = { 7, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 2, 1, 0, 0, 3, 1, 0, 0, 4, 1, 0, 0, 5, 1, 0, 0, 6, 1, 0, 0, 8, 1,
		11, 0, 5, 11, 0, 5 };           /* asked, connected, said hello */
	struct fake *f;

	sequence(opening, sizeof opening);
	f = fake_pick(is_http);
	MUST(f != NULL && f->greeted && told[f - fakes].n == 8);
	mutated = true;
	feed = data;
	feed_end = data + size;
	while (feed < feed_end && f->greeted) {
		h2_event(f);
		run(false);
	}
	wind_down();
}
