#ifdef TARGET_SEQUENCE
/* A sequence of events: what clients and upstreams send, time that passes, connections that end, descriptors that run out.
 * After each event the program runs until it would wait, and then every table must be in order, and every client's query
 * answered once or waiting. */

enum { TRACKED = 256, WILD_PORT = 999, LONGEST = 5000 };
static struct asked {
	bool open, tcp;
	unsigned conn, limit;
	uint16_t id;
	struct sockaddr_in from;
	int64_t born;
	size_t len;
	uint8_t query[300];
} asked[TRACKED];
static unsigned next_id = 1;
static bool mutated;                            /* an upstream has sent something odd */

enum { CONNS = 6 };
static struct conn { bool open, admin, wild; unsigned serial, fake; size_t nrest; uint8_t rest[300]; } conns[CONNS];
static unsigned due_tcp, due_admin;             /* connections that wait to be accepted */

static const char *const sets[] = {
	"192.0.2.11 1\n192.0.2.12 2\n192.0.2.13 3 tcp\n",
	"192.0.2.11 1\n192.0.2.12 1 final\n192.0.2.14 2 tls noverify\nserve-stale 100\ncache-negative 60\npatience 200\nlog debug\n",
	"192.0.2.13 1 tcp\n192.0.2.11 2 tcp\n192.0.2.15 2 domain=b.test\n127.0.0.9 5\ncache-min-ttl 10\n",
	"192.0.2.12 1\ncache-max-ttl 20\nserve-stale 10\n",
	"192.0.2.11 1\n192.0.2.11@54 1\n192.0.2.11@55 1 final\n192.0.2.12 2\n192.0.2.13 2 tcp\n192.0.2.14 3\nlog debug\n",
	"192.0.2.16 1\n",
};
#define BASE "listen 127.0.0.1@5300\nadmin 127.0.0.1@5301\nqueries 8\ntcp-clients 4\ncache-size 8k\n"

static bool is_listener(const struct fake *f) { return nlisteners > 0 && f == FAKE(listeners[0].udp); }

/* A reply to a client: it must be the first to something that was asked, and be well-formed. */
static void reply_seen(struct asked *q, const uint8_t *p, size_t len)
{
	static uint8_t copy[MSG_MAX];
	static struct answer a;
	struct question question;
	int rcode = question_read(&question, q->query, q->len);

	MUST(q->open && rcode == NOERROR);
	q->open = false;
	MUST(len >= q->len - (question.edns ? 11 : 0) && len <= q->limit);
	MUST((p[2] & 0x80) && get16at(p + 4) == 1);
	MUST(memcmp(p + 12, q->query + 12, question.key.name_len + 4) == 0);
	if (mutated)                            /* a name of it may run through a TTL, and change with that */
		return;
	memcpy(copy, p, len);
	MUST(answer_read(&a, copy, len, &question.key) == NULL && a.len == len);
	MUST(a.opt == question.edns || len > MSG_MAX - 11);
}

static void fake_sent(struct fake *f, const struct sockaddr_in *to, const uint8_t *p, size_t len)
{
	if (is_listener(f)) {
		if (ntohs(to->sin_port) == WILD_PORT)
			return;
		MUST(len >= 12);
		for (unsigned i = 0; i < TRACKED; i++)
			if (!asked[i].tcp && asked[i].open && asked[i].id == get16at(p) && memcmp(&asked[i].from, to, sizeof *to) == 0) {
				reply_seen(&asked[i], p, len);
				return;
			}
		MUST(!"a reply that nobody waits for");
	}
	MUST(f->connected && len <= UPSTREAM_QUERY_MAX);
	if (f->out_len + 2 + len > 8192)
		f->out_len = 0;
	put16at(f->out + f->out_len, (unsigned)len);
	memcpy(f->out + f->out_len + 2, p, len);
	f->out_len += 2 + len;
}

/* Takes whole replies out of what the program has sent to a TCP client. */
static void conn_drain(struct conn *c)
{
	struct fake *f = &fakes[c->fake];
	size_t at = 0, len;

	while (f->out_len - at >= 2 && f->out_len - at - 2 >= (len = get16at(f->out + at))) {
		unsigned i = 0;
		while (i < TRACKED && !(asked[i].tcp && asked[i].open && asked[i].conn == c->serial && asked[i].id == get16at(f->out + at + 2)))
			i++;
		MUST(c->wild || i < TRACKED);
		if (!c->wild)
			reply_seen(&asked[i], f->out + at + 2, len);
		at += 2 + len;
	}
	if (at > 0) {
		memmove(f->out, f->out + at, f->out_len - at);
		f->out_len -= at;
	}
}

/* The program has closed it: what was asked there waits no more. */
static void conn_end(struct conn *c)
{
	if (!c->admin && fakes[c->fake].serial == c->serial)
		conn_drain(c);
	for (unsigned i = 0; i < TRACKED; i++)
		if (asked[i].tcp && asked[i].conn == c->serial)
			asked[i].open = false;
	c->open = false;
}

static void conns_look(void)
{
	for (unsigned i = 0; i < CONNS; i++) {
		struct conn *c = &conns[i];
		if (!c->open)
			continue;
		if (fakes[c->fake].kind == K_FREE || fakes[c->fake].serial != c->serial)
			conn_end(c);
		else if (c->admin)
			fakes[c->fake].out_len = 0;
		else
			conn_drain(c);
	}
}

static bool fake_waiting(const struct fake *l) { return l == FAKE(admin_fd) ? due_admin > 0 : due_tcp > 0; }

static struct fake *fake_accept(struct fake *l)
{
	bool admin = l == FAKE(admin_fd);
	unsigned i;
	int fd;

	conns_look();
	for (i = 0; i < CONNS && conns[i].open; i++)
		;
	fd = fake_open(K_TCP);
	if (fd < 0)
		return NULL;
	if (admin)
		due_admin--;
	else
		due_tcp--;
	FAKE(fd)->peer.sin_family = AF_INET;
	FAKE(fd)->peer.sin_addr.s_addr = htonl(0x0a000000 + i);
	FAKE(fd)->peer.sin_port = htons(5000);
	if (i < CONNS)
		conns[i] = (struct conn){ .open = true, .admin = admin, .serial = FAKE(fd)->serial, .fake = (unsigned)(fd - FIRST_FD) };
	else
		FAKE(fd)->eof = true;
	return FAKE(fd);
}

/* ---- Every table in order? */

static void check_query(const struct query *q, unsigned *nasks, unsigned *nwaiters, unsigned *nudp, unsigned *nheld)
{
	unsigned found = 0;
	bool best = q->best == NULL;

	for (const struct query *x = query_table[q->hash & query_table_mask]; x != NULL; x = x->next)
		found += x == q;
	MUST(found == 1 && list_on(&q->staged) && !q->starting);
	MUST(now < q->born + MS(LONGEST) + SEC(1));
	*nheld += q->held != NULL;
	MUST(q->held == NULL || q->best != NULL);
	for (const struct ask *a = q->asks; a != NULL; a = a->next) {
		++*nasks;
		best |= a == q->best;
		MUST(a->q == q);
		unsigned nsendings = 0;
		for (const struct sending *s = a->sendings; s != NULL; s = s->next, nsendings++)
			MUST(s->ask == a && !s->due && s->port->u == &upstreams[a->up] && s->port->open > 0);
		MUST(nsendings <= RESENDS + 1 && a->resends <= RESENDS + 1 && (a->stream != NULL) == list_on(&a->on));
		MUST((a->state == ASK_WAIT) == (nsendings > 0 || a->stream != NULL) && (nsendings > 0 || !list_on(&a->late)));
		for (const struct ask *k = a->next; k != NULL; k = k->next)
			MUST(k->up != a->up && upstreams[k->up].spec.priority >= upstreams[a->up].spec.priority);
	}
	MUST(best);
	for (const struct node *x = q->waiters.next; x != &q->waiters; x = x->next) {
		const struct waiter *w = OWNER(x, struct waiter, of_query);
		MUST(w->q == q && x->next->prev == x && !q->replied && w->holder->count > 0);
		++*nwaiters;
		*nudp += w->peer.kind == PEER_UDP && ntohs(w->peer.from.in.sin_port) != WILD_PORT;
	}
}

static void check(void)
{
	unsigned nqueries = 0, nasks = 0, nwaiters = 0, nudp = 0, nheld = 0, nports = 0, nopen = 0, held = 0, waiting = 0;
	const char *broken = cache_broken();

	if (broken != NULL)
		fprintf(stderr, "cache: %s\n", broken);
	MUST(broken == NULL);
	for (unsigned i = 0; i < queries.ever; i++) {
		const struct query *q = pool_at(&queries, i);
		if (!q->active)
			continue;
		nqueries++;
		check_query(q, &nasks, &nwaiters, &nudp, &nheld);
	}
	MUST(nqueries == queries.used && nasks == asks.used && nwaiters == waiters.used && nheld == held_small.used + held_big.used);
	for (unsigned i = 0; i <= query_table_mask; i++)
		for (const struct holder *h = holder_table[i]; h != NULL; h = h->next) {
			MUST(h->count > 0 && list_on(&h->of_count) && h->count <= holders_most);
			held += h->count;
		}
	MUST(held == nwaiters);
	for (unsigned i = 0; i < TRACKED; i++) {
		if (!asked[i].open)
			continue;
		MUST(asked[i].tcp || now < asked[i].born + MS(LONGEST + 1));
		waiting += !asked[i].tcp;
	}
	MUST(waiting == nudp);
	for (int i = 0; i < npolls; i++) {
		MUST(*watches[i].slot == i && IS_FAKE(polls[i].fd) && FAKE(polls[i].fd)->kind != K_FREE);
		for (int k = 0; k < i; k++)
			MUST(polls[k].fd != polls[i].fd);
		if (watches[i].ready == port_ready) {
			const struct port *p = watches[i].owner;
			unsigned k = 0;
			for (const struct sending *s = p->sendings; s < p->sendings + PORT_LIFE; s++)
				k += s->ask != NULL;
			MUST(p->fd == polls[i].fd && k == p->open && k > 0 && !p->dirty);
			nports++;
		}
	}
	MUST(nports == ports.used);
	for (int i = 0; i < FDS; i++)
		nopen += fakes[i].kind != K_FREE;
	MUST(nopen == (unsigned)npolls);
	for (unsigned i = 0; i < norder; i++)
		for (int k = 0; k < 2; k++) {
			const struct stream *s = upstreams[order[i]].streams[k];
			MUST((s->state == S_CLOSED) == (s->fd < 0) && !s->dirty);
			MUST(s->state != S_CLOSED || (list_empty(&s->pending) && list_empty(&s->sent)));
		}
	for (unsigned i = 0; i < norder * LATE_LISTS; i++) {
		const struct node *l = &upstreams[order[i / LATE_LISTS]].late[i % LATE_LISTS];
		MUST(list_empty(l) || (wake != 0 && wake <= now + MS(LONGEST)));        /* of all a list is looked at the head alone, */
		for (const struct node *x = l->next; x != l; x = x->next)               /* so they must be in order */
			MUST(x->next == l || OWNER(x, struct ask, late)->since <= OWNER(x->next, struct ask, late)->since);
	}
	for (unsigned i = 0; i < CONNS; i++) {
		const struct conn *c = &conns[i];
		const struct fake *f = &fakes[c->fake];
		if (!c->open || c->admin || c->wild || f->stuck || f->out_len > 0 || f->in_len[0] > 0)
			continue;
		for (int k = 0; k < npolls; k++)
			if (polls[k].fd == (int)c->fake + FIRST_FD) {
				const struct tcp_client *t = watches[k].owner;
				unsigned open = 0;
				for (unsigned j = 0; j < TRACKED; j++)
					open += asked[j].open && asked[j].tcp && asked[j].conn == c->serial;
				MUST(t->stopped || open == t->waiting + (c->nrest > 0));
			}
	}
}

/* Lets the program run until it would wait. Before it waits, all that it has to send must have gone. */
static void run(void)
{
	for (int turns = 0; ; turns++) {
		MUST(turns < 2000);             /* else it spins */
		turn_end();
		conns_look();
		MUST(ports_dirty == NULL && streams_dirty == NULL && tcp_dirty == NULL && outbox.n == 0);
		if (lab_poll(polls, (nfds_t)npolls, 0) == 0 && (wake == 0 || wake > now))
			break;
		for (int i = 0; i < npolls; i++)
			polls[i].revents = 0;
		loop_turn();
		conns_look();
	}
	check();
}

/* ---- The events */

static const uint8_t *in, *in_end;
static unsigned byte(void) { return in < in_end ? *in++ : 0; }

/* A client's good question; "how" says whether over UDP (connection NULL) or TCP. */
static void client_query(struct conn *c)
{
	static const char *const names[] = { "a.test", "b.test", "x.b.test", "one", "c.test", "d.test", "e.test", "f.lan" };
	static const unsigned types[] = { T_A, T_A, T_AAAA, 16, 65280, T_ANY };
	unsigned who = byte(), what = byte(), how = byte(), i = 0;
	struct asked *q;
	uint8_t framed[302];
	struct fake *f;

	while (i < TRACKED && asked[i].open)
		i++;
	if (i == TRACKED)
		return;
	q = &asked[i];
	head(next_id, (unsigned)(F_RD | (how & 4 ? F_CD : 0) | (how & 8 ? F_AD : 0)), 1, 0, 0, how & 1);
	wquestion(names[what % 8], types[what / 8 % 6]);
	if (how & 16)
		m[13] &= 0xdf;
	if (how & 1)
		wopt(how & 32 ? 4096 : 700, how & 2 ? 0x8000 : 0, NULL, 0);
	*q = (struct asked){ .open = true, .tcp = c != NULL, .id = (uint16_t)next_id, .born = fake_now, .len = n };
	next_id = next_id % 65535 + 1;
	memcpy(q->query, m, n);
	q->limit = c != NULL ? MSG_MAX : how & 1 ? how & 32 ? 1232 : 700 : 512;
	if (c == NULL) {
		f = FAKE(listeners[0].udp);
		q->from.sin_family = AF_INET;
		q->from.sin_addr.s_addr = htonl(0x0a000001 + who % 4);
		q->from.sin_port = htons((uint16_t)(2000 + q->id % 30000));
		MUST(f->queued < QUEUE);
		memcpy(f->in[f->queued], m, n);
		f->in_len[f->queued] = n;
		f->from[f->queued++] = q->from;
		return;
	}
	q->conn = c->serial;
	f = &fakes[c->fake];
	put16at(framed, (unsigned)n);
	memcpy(framed + 2, m, n);
	i = who % 4 == 0 ? who % (unsigned)(n + 2) : (unsigned)n + 2;
	memcpy(STREAM(f) + f->in_len[0], framed, i);
	f->in_len[0] += i;
	c->nrest = n + 2 - i;
	memcpy(c->rest, framed + i, c->nrest);
}

/* An answer of some kind to the query at p; gives its length in m. */
static void answer_build(const uint8_t *p, size_t len, bool stream)
{
	static const uint32_t ttls[] = { 300, 0, 1, 5, 30, 0x80000005 };
	static uint8_t text[40000];
	unsigned kind = byte() % 18, ttl = ttls[byte() % 6], type;
	size_t qlen = 12;

	while (qlen < len && p[qlen] != 0)
		qlen += 1 + (size_t)p[qlen];
	qlen += 5;
	type = get16at(p + qlen - 4);
	memcpy(m, p, qlen);
	n = qlen;
	put16at(m + 2, F_QR | F_RD | F_RA);
	memset(m + 6, 0, 6);
	if (kind <= 3 || kind == 9 || kind == 10 || kind == 11 || kind == 14) {
		m[7] = 1;
		wrr(NULL, type == T_ANY ? T_A : type, ttl, text, type == T_AAAA ? 16 : 4);
	}
	if (kind == 2)
		put16at(m + 2, F_QR | F_RD | F_RA | F_AD);
	if (kind == 5 || kind == 6 || kind == 12) {
		m[9] = 1;
		wsoa("test", ttl, 60);
	}
	if (kind == 6 || kind == 12)
		m[3] |= NXDOMAIN;
	if (kind == 7)
		m[3] |= byte() % 16;
	if (kind == 8)
		m[2] |= F_TC >> 8;
	if (kind == 9)
		m[1] ^= 1;
	if (kind == 10)
		m[13] ^= 1;
	if (kind == 11)
		m[2] &= 0x7f;
	if (kind == 12 || kind == 3) {
		uint8_t o[6] = { 0, EDNS_EDE, 0, 2, 0, (uint8_t)(12 + byte() % 8) };
		m[11] = 1;
		wopt(1232, 0, o, 6);
	}
	if (kind == 13) {
		m[7] = 1;
		wrr(NULL, 16, ttl, text, stream ? 100 + byte() * 150 : 100 + byte() * 14);
	}
	mutated |= kind == 14;
	if (kind == 14)
		for (unsigned k = byte() % 4; k > 0; k--) {
			unsigned at = byte();
			m[at % n] = (uint8_t)byte();
		}
	if (kind == 15)
		n = byte() % (n + 1);
	if (kind == 16) {
		n = 12;
		m[3] |= FORMERR;
		m[5] = 0;
	}
	if (kind == 17)
		m[3] |= FORMERR;
}

/* One of the program's descriptors towards upstreams, or NULL. */
static struct fake *upstream_pick(enum kind kind)
{
	struct fake *list[FDS];
	unsigned count = 0, k = byte();

	for (int i = 0; i < FDS; i++) {
		struct fake *f = &fakes[i];
		bool ours = f->kind == kind && !is_listener(f) && (kind != K_UDP || f->connected);
		for (unsigned c = 0; c < CONNS && ours; c++)
			ours = !(conns[c].open && conns[c].serial == f->serial);
		if (ours)
			list[count++] = f;
	}
	return count > 0 ? list[k % count] : NULL;
}

/* An upstream answers one of the queries that it has seen. */
static void upstream_answer(enum kind kind)
{
	struct fake *f = upstream_pick(kind);
	size_t at = 0, k = 0, pick;
	uint8_t query[UPSTREAM_QUERY_MAX + 2], *to;

	if (f == NULL || (kind == K_UDP && f->queued == QUEUE) || f->connecting)
		return;
	while (at + 2 <= f->out_len && at + 2 + get16at(f->out + at) <= f->out_len) {
		at += 2 + get16at(f->out + at);
		k++;
	}
	if (k == 0)
		return;
	pick = byte() % k;
	for (at = 0; pick > 0; pick--)
		at += 2 + get16at(f->out + at);
	k = get16at(f->out + at);
	if (k < 17 || k > UPSTREAM_QUERY_MAX)
		return;                         /* a TLS record, perhaps */
	memcpy(query, f->out + at + 2, k);
	answer_build(query, k, kind == K_TCP);
	if (kind == K_UDP) {
		if (n > QUEUED)
			n = QUEUED;
		memcpy(f->in[f->queued], m, n);
		f->in_len[f->queued++] = n;
		return;
	}
	if (f->in_len[0] + 2 + n > QUEUE * QUEUED)
		return;
	to = STREAM(f) + f->in_len[0];
	put16at(to, (unsigned)n);
	memcpy(to + 2, m, n);
	f->in_len[0] += 2 + n;
}

static void reload(unsigned k)
{
	static char texts[8][4096], *lines[8][64];
	char *save, *text = texts[k];
	struct text e = { errors, sizeof errors, 0 };
	unsigned i = 0;

	snprintf(text, sizeof texts[0], "%s%s", BASE, sets[k]);
	for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
		lines[k][i++] = l;
	lines[k][i] = NULL;
	source = (struct source){ .lines = lines[k] };
	errors[0] = '\0';
	MUST(config_reload(&e));
}

static void conn_event(unsigned what)
{
	static const char *const commands_[] = { "status\n", "clear\r\n", "query a.test\n", "query b.test AAAA\n", "top\n", "GET /metrics HTTP/1.1\nHost: localhost\n\n", "nonsense\n", "log error\n", "clear a.test\n", "help\n" };
	struct conn *c = &conns[byte() % CONNS];
	struct fake *f = &fakes[c->fake];

	if (!c->open || f->kind == K_FREE || f->serial != c->serial)
		return;
	if (c->nrest > 0 && f->in_len[0] + c->nrest < QUEUED && !f->eof) {
		memcpy(STREAM(f) + f->in_len[0], c->rest, c->nrest);
		f->in_len[0] += c->nrest;
		c->nrest = 0;
	}
	switch (what) {
	case 0:
		if (f->eof || f->in_len[0] > 2000)
			break;
		if (c->admin) {
			const char *s = commands_[byte() % COUNT(commands_)];
			memcpy(STREAM(f) + f->in_len[0], s, strlen(s));
			f->in_len[0] += strlen(s);
		} else if (!c->wild)
			client_query(c);
		break;
	case 1:
		f->eof = true;
		break;
	case 2:
		f->err = ECONNRESET;
		break;
	case 3:
		f->stuck = !f->stuck;
		break;
	case 4:
		if (f->eof || f->in_len[0] > 2000)
			break;
		c->wild = true;
		for (unsigned i = 0; i < TRACKED; i++)
			if (asked[i].tcp && asked[i].conn == c->serial)
				asked[i].open = false;
		for (unsigned k = byte() % 64; k > 0; k--)
			STREAM(f)[f->in_len[0]++] = (uint8_t)byte();
		break;
	}
}

static void event(void)
{
	static const int64_t steps[] = { 1000, 5000, 20000, 100000, 350000, 700000, 1000000, 1800000, 4000000, 5000000, 20000000 };
	struct fake *f;
	unsigned op = byte() % 20, k;

	switch (op) {
	case 0: case 1: case 2:
		client_query(NULL);
		break;
	case 3: case 4: case 5:
		upstream_answer(K_UDP);
		break;
	case 6: case 7:
		upstream_answer(K_TCP);
		break;
	case 8: case 9:
		k = byte();
		if (k & 128 && wake > fake_now)
			fake_now = wake;
		else
			fake_now += steps[k % COUNT(steps)];
		clock_read();
		break;
	case 10:
		if ((f = upstream_pick(K_UDP)) != NULL)
			f->err = (const int[]){ ECONNREFUSED, EHOSTUNREACH, ENOBUFS, EPERM }[byte() % 4];
		break;
	case 11: case 12:
		if ((f = upstream_pick(K_TCP)) == NULL)
			break;
		k = byte() % 8;
		if (f->connecting) {
			f->connecting = false;
			f->err = k == 0 ? ECONNREFUSED : k == 1 ? ETIMEDOUT : 0;
		} else if (k == 0)
			f->err = ECONNRESET;
		else if (k == 1)
			f->eof = true;
		else if (k == 2)
			f->stuck = !f->stuck;
		else if (k == 3 && f->in_len[0] < QUEUED)
			for (k = byte() % 40; k > 0; k--)
				STREAM(f)[f->in_len[0]++] = (uint8_t)byte();
		break;
	case 13:
		k = byte();
		if (k % 4 == 0)
			due_admin += due_admin < 3;
		else
			due_tcp += due_tcp < 3;
		break;
	case 14: case 15:
		conn_event(0);
		break;
	case 16:
		conn_event(byte() % 5);
		break;
	case 17:
		reload(byte() % (unsigned)COUNT(sets));
		break;
	case 18:
		k = byte();
		fakes_max = k % 3 ? FDS : 3 + (int)k % 12;
		break;
	case 19:
		f = FAKE(listeners[0].udp);
		f->from[f->queued].sin_family = AF_INET;
		f->from[f->queued].sin_addr.s_addr = htonl(0x0a000009);
		f->from[f->queued].sin_port = htons(WILD_PORT);
		f->in_len[f->queued] = 0;
		for (k = byte() % 80; k > 0; k--)
			f->in[f->queued][f->in_len[f->queued]++] = (uint8_t)byte();
		f->queued++;
		break;
	}
}

/* All ends, all waits: nothing may be left but what listens. */
static void wind_down(void)
{
	unsigned open = 0;

	fakes_max = FDS;
	due_tcp = due_admin = 0;
	for (unsigned i = 0; i < CONNS; i++) {
		struct fake *f = &fakes[conns[i].fake];
		if (conns[i].open && f->kind != K_FREE && f->serial == conns[i].serial) {
			f->stuck = false;
			f->err = ECONNRESET;
		}
	}
	run();
	for (int i = 0; i < 3; i++) {
		fake_now += SEC(20);
		clock_read();
		run();
	}
	reload((unsigned)COUNT(sets) - 1);
	for (int i = 0; i < 4; i++) {
		fake_now += SEC(20);
		clock_read();
		run();
	}
	cache_clear(NULL, 0);
	MUST(queries.used == 0 && waiters.used == 0 && ports.used == 0 && holders.used == 0 && held_small.used == 0 && held_big.used == 0 && tcp_pool.used == 0 && admins.used == 0);
	MUST(out_blocks.used == 0);
	for (unsigned i = 0; i < TRACKED; i++)
		MUST(!asked[i].open);
	for (int i = 0; i < FDS; i++)
		open += fakes[i].kind != K_FREE;
	MUST(open == (unsigned)npolls && npolls <= 4);
	MUST(wake == 0);                        /* idle means idle */
	reload(0);
}

static void fuzz_one(const uint8_t *data, size_t size)
{
	in = data;
	in_end = data + size;
	fake_random = 1;
	mutated = false;
	run();
	for (int i = 0; i < 400 && in < in_end; i++) {
		event();
		run();
	}
	wind_down();
	run();
}

static void fuzz_init(void)
{
	fuzz_start(BASE "192.0.2.11 1");
	upstreams_apply(&cfg);
	MUST(listeners_open());
	reload(0);
}
#endif
