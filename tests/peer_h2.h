/* peer_h2.h - HTTP/2 of the scripted upstream: with alpn=h2 its questions come as DNS over HTTPS (RFC 8484), and the rules answer them
 *
 * Not a program; peer_server.h includes it. The word of a rule is h2=WORD,WORD..., where N is a number:
 *  answers    statusN  type (text/html)  typeless  huffman (all strings of the headers)  ageN  trailers  early (a 103 before)
 *             split (DATA of 100 bytes each, padded, an empty one at the end)  wide (the headers in three frames)
 *             lateN (the end N ms behind the body)  short (half the body)
 *  instead    rst  refusedN (the first N requests of a connection)  silent (nothing)  noheaders (DATA only)
 *  with it    ping  push  unknown (a frame, a setting and flags that nobody knows)  goawayN (behind the Nth request, 0: at once; later ones are not looked at)
 *             nowindow (no room but the first 65,535 bytes)  maxN (requests at a time, for a connection: in rules for "." only)
 *  damage     bigframe  bigblock  flood (a header block that never ends)  empty (the same, in empty pieces)  interleave  badhpack
 *             zero (DATA on HTTP stream 0)  even (headers on 2)  overpad (more padding than frame)  shortreset lone (a CONTINUATION)
 * Each request is a line of the log, `request CONNECTION ms TIME stream N length N "HEADERS"`, as they came, then a query. `over` tells that
 * more requests wait, or bytes came, than were allowed, `overrun` that an answer did not fit the window of the connection, `pong` that a PING came back. */

static void query_take(const uint8_t *p, size_t n, const struct addr *from, struct conn *c);

/* The number behind a word of h2=, 0 when there is none; -1 without the word. */
static int web_word(const struct act *a, const char *w) {
	size_t n = strlen(w);
	for (const char *p = a->h2; *p != '\0'; p += strcspn(p, ","), p += *p == ',')
		if (strncmp(p, w, n) == 0 && strspn(p + n, "0123456789") == strcspn(p + n, ",")) return atoi(p + n);
	return -1;
}

static void web_put(struct buf *b, unsigned type, unsigned flags, uint32_t stream, const void *p, size_t n) {
	put_as(b, "414@", (unsigned)n << 8 | type, flags, stream, p, n);
}

/* The header block, as it is or with its strings in Huffman's code. */
static void web_headers(struct buf *b, const struct act *a, size_t length) {
	int status = web_word(a, "status"), age = web_word(a, "age");
	bool code = web_word(a, "huffman") == 0;
	char text[16];
	put8(b, 0x20);                          /* a dynamic table of nothing */
	if (code) put_as(b, "##", status == 503 ? "08836c0cff" : "08821001", "408921ea496a4ac9f5597f901d75d0620d263d4c495216a4a840e62f");
	if (code && age >= 0) put_hex(b, "0f0682641f");
	uint8_t *p = put_room(b, 200);
	snprintf(text, sizeof text, "%d", status);
	if (!code && status > 0) p = hpack_put(p, 8, text);
	else if (!code) *p++ = 0x88;
	if (!code && web_word(a, "typeless") < 0) p = hpack_put(p, 31, web_word(a, "type") == 0 ? "text/html" : h2_type);
	snprintf(text, sizeof text, "%d", age);
	if (!code && age >= 0) p = hpack_put(p, 21, text);
	snprintf(text, sizeof text, "%zu", length);
	b->n = (size_t)(hpack_put(p, 28, text) - b->p);
	put(b, "\0\6server\4peer", 13);
}

/* What is no answer: damage, and what may come at any time. */
static void web_odd(struct buf *f, const struct act *a, uint32_t stream) {
	enum { OWN = -1 };                      /* the HTTP stream of the request */
	static const struct { const char *word, *bytes; unsigned type, flags; int stream; unsigned n; int times; } odd[] = {
		{ "unknown", "", 0xbe, 0xff, OWN, 77, 1 },
		{ "unknown", "\x0a\x0a\xff\xff\xff\xff", H2_SETTINGS, 0, 0, 6, 1 },
		{ "unknown", "", H2_PRIORITY, 0, OWN, 5, 1 },
		{ "ping", "pingpong", H2_PING, 0, 0, 8, 1 },
		{ "badhpack", "\x0f\x10\x7f\xff\xff\xff\xff", H2_HEADERS, H2_END_HEADERS, OWN, 7, 1 },
		{ "overpad", "\xff.", H2_DATA, H2_PADDED, OWN, 2, 1 },
		{ "bigframe", "", H2_DATA, 0, OWN, 16385, 1 },
		{ "interleave", "", H2_HEADERS, 0, OWN, 3, 1 },
		{ "zero", "", H2_DATA, 0, 0, 5, 1 },
		{ "even", "", H2_HEADERS, H2_END_HEADERS, 2, 0, 1 },
		{ "shortreset", "", H2_RST_STREAM, 0, OWN, 3, 1 },
		{ "lone", "", H2_CONTINUATION, H2_END_HEADERS, OWN, 0, 1 },
		{ "push", "", H2_PUSH_PROMISE, H2_END_HEADERS, OWN, 9, 1 },
		{ "bigblock", "", H2_CONTINUATION, 0, OWN, 4000, 3 },
		{ "flood", "", H2_CONTINUATION, 0, OWN, 100, 100 },
		{ "empty", "", H2_CONTINUATION, 0, OWN, 0, 100 } };
	for (size_t i = 0; i < COUNT(odd); i++) {
		if (web_word(a, odd[i].word) != 0) continue;
		if (odd[i].times > 1) web_put(f, H2_HEADERS, 0, stream, "\x88", 1);
		for (int k = 0; k < odd[i].times; k++) {
			put_as(f, "414", odd[i].n << 8 | odd[i].type, odd[i].flags, odd[i].stream == OWN ? stream : (unsigned)odd[i].stream);
			memset(put_room(f, odd[i].n), 0, odd[i].n);
			memcpy(f->p + f->n - odd[i].n, odd[i].bytes, strlen(odd[i].bytes));
		}
	}
}

/* The frames of a header block or a body, with that flag on the last; split are headers into three, and bodies into padded pieces with
 * nothing behind them. */
static void web_frames(struct buf *f, unsigned type, unsigned last, uint32_t stream, const struct buf *b, bool split) {
	bool padded = split && type == H2_DATA;
	size_t each = padded ? 100 : split ? b->n / 3 + 1 : 16384;
	for (size_t at = 0, k; at < b->n; at += k) {
		k = MIN(b->n - at, each);
		if (padded) put_as(f, "4141@41", (unsigned)(k + 6) << 8 | type, H2_PADDED, stream, 5, b->p + at, k, 0, 0);
		else web_put(f, type, at + k == b->n ? last : 0, stream, b->p + at, k);
		if (type == H2_HEADERS) type = H2_CONTINUATION;
	}
	if (padded) web_put(f, type, last, stream, "", 0);
}

/* The answer b to the request that was read last, as the rules want it. */
static void web_answer(struct buf *f, const struct act *a, const struct buf *b, struct conn *c) {
	struct web *w = &c->web;
	struct buf head = { 0 }, body = *b;
	uint8_t end[9];
	bool refused = w->requests <= web_word(a, "refused"), trailers = web_word(a, "trailers") == 0;
	int late = web_word(a, "late");
	web_odd(f, a, w->stream);
	if (web_word(a, "silent") == 0) return;
	if (refused || web_word(a, "rst") == 0) {
		web_put(f, H2_RST_STREAM, 0, w->stream, refused ? "\0\0\0\7" : "\0\0\0\2", 4);
		return;
	}
	web_headers(&head, a, b->n);
	if (web_word(a, "short") == 0) body.n /= 2;
	if (web_word(a, "early") == 0) web_put(f, H2_HEADERS, H2_END_HEADERS, w->stream, "\x08\x03" "103", 5);
	if (web_word(a, "noheaders") < 0) web_frames(f, H2_HEADERS, H2_END_HEADERS, w->stream, &head, web_word(a, "wide") == 0);
	web_frames(f, H2_DATA, trailers || late > 0 ? 0 : H2_END_STREAM, w->stream, &body, web_word(a, "split") == 0);
	if (trailers) web_put(f, H2_HEADERS, H2_END_STREAM | H2_END_HEADERS, w->stream, "\0\3end\3yes", 9);
	h2_frame(end, H2_DATA, H2_END_STREAM, w->stream, NULL, 0);
	if (late > 0) job_add((struct job){ .due = now + MS(a->delay + late), .kind = J_BYTES, .conn = c }, end, sizeof end);
	if ((w->room -= (long)b->n) < 0) note("overrun", c, "%ld", w->room);
	free(head.p);
}

static void web_frame(struct conn *c, unsigned type, unsigned flags, uint32_t stream, const uint8_t *p, size_t n) {
	struct web *w = &c->web;
	int most = web_word(&up.all, "max"), goaway = web_word(&up.all, "goaway");
	if (type == H2_SETTINGS && !(flags & H2_ACK)) web_put(&c->out, H2_SETTINGS, H2_ACK, 0, "", 0);
	if (type == H2_PING) note(flags & H2_ACK ? "pong" : "ping", c, "%.*s", (int)n, (const char *)p);
	if (type == H2_WINDOW_UPDATE && stream == 0 && n == 4) w->room += get32at(p);
	if (goaway == 0 && type == H2_SETTINGS) put_as(&c->out, "41444", 8u << 8 | H2_GOAWAY, 0, 0, 0, 0);
	if (goaway >= 0 && w->requests >= goaway && stream > w->stream) return;
	if (type == H2_HEADERS) {
		char text[2000];
		struct text t = { .p = text, .size = sizeof text };
		text_string(&t, &(struct msg){ .p = p, .len = n }, n, "\"");
		note("request", c, "stream %u length %zu %s", w->stream = stream, n, text);
		w->requests++;
		if (most >= 0 && c->waiting >= most) note("over", c, "waiting %d", c->waiting + 1);
	}
	if (type == H2_DATA && (w->taken += (long)n) > 65535) note("over", c, "bytes %ld", w->taken);
	if (type == H2_DATA && web_word(&up.all, "nowindow") < 0) {
		put_as(&c->out, "4144", 4u << 8 | H2_WINDOW_UPDATE, 0, 0, (unsigned)n);
		w->taken -= (long)n;
	}
	if (type != H2_DATA || stream != w->stream) return;
	query_take(p, n, &c->from, c);
	if (goaway > 0 && w->requests == goaway) put_as(&c->out, "41444", 8u << 8 | H2_GOAWAY, 0, 0, w->stream, 0);
}

static void web_handle(struct conn *c) {
	struct web *w = &c->web;
	int most = web_word(&up.all, "max");
	if (!w->greeted && c->in.n >= 24) {
		take(&c->in, 24);               /* the preface */
		w->greeted = true;
		w->room = 65535;
		put_as(&c->out, most < 0 ? "414" : "41424", (most < 0 ? 0u : 6u) << 8 | H2_SETTINGS, 0, 0, 3, (unsigned)most);
	}
	for (size_t n; w->greeted && !c->gone && c->closing == STAYS && c->in.n >= 9 && !(up.all.inorder && c->waiting > 0) &&
	    c->in.n >= 9 + (n = get32at(c->in.p) >> 8); take(&c->in, 9 + n))
		web_frame(c, c->in.p[3], c->in.p[4], get32at(c->in.p + 5), c->in.p + 9, n);
}
