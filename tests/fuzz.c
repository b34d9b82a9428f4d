/* fuzz.c - what must hold for any input: clients' messages, upstreams' answers, configurations, admin lines, certificates, HTTP/2
 *
 * Alone:  ./test.sh fuzz SECONDS client (or another of the targets at the end of this file)
 * or:     clang -g -fsanitize=fuzzer,address,undefined -o fuzz tests/fuzz.c -lbearssl && TARGET=client ./fuzz [FILE]
 * A promise is a MUST; one that is broken ends the program. The unit tests include this file, for some inputs of each kind.
 * The targets for the whole machinery and HTTP/2 are in sequence.h. */
#include "sequence.h"

/* A client's message: what is read, the error that refuses it, and the question that would go to upstreams. */
static void check_client(const uint8_t *data, size_t size) {
	static uint8_t out[12 + NAME_MAX_WIRE + 4 + 11 + 6], back[UPSTREAM_QUERY_MAX];
	const uint8_t *p = exactly(data, size);
	struct question q, again;
	struct source_msg s;
	struct reply_to r;
	uint8_t name[NAME_MAX_WIRE];
	size_t len;
	int rcode = question_read(&q, p, size);

	if (rcode < 0) {
		MUST(size < 12 || (p[2] & 0x80));
		return;
	}
	MUST(size >= 12 && (rcode == NOERROR || rcode == FORMERR || rcode == NOTIMP || rcode == REFUSED || rcode == BADVERS));
	s = source_error(&q.key, (unsigned)rcode, size & 1 ? EDE_UNREACHABLE : EDE_NONE);
	reply_to_question(&r, &q, false);
	len = reply_write(out, &s, &r);
	MUST(len <= sizeof out && len <= size + 11 + 6 && get16at(out) == get16at(p) && (out[2] & 0x80));
	if (rcode != NOERROR) return;
	for (size_t n = 0; n < size && size < 200; n++) MUST(question_read(&again, exactly(p, n), n) == (n < 12 ? -1 : FORMERR));
	MUST(q.key.name_len >= 1 && q.key.name_len <= NAME_MAX_WIRE && q.key.len == q.key.name_len + 5);
	MUST(name_parse(name, name_text(q.key.b)) == q.key.name_len && memcmp(name, q.key.b, q.key.name_len) == 0);
	for (unsigned i = 0; i < q.key.name_len; i++) MUST(q.key.b[i] == lower(q.name[i]));
	MUST(name_len(q.key.b) == q.key.name_len);
	name_is_private(&q.key);
	for (int i = 0; i < 6; i++) {
		bool edns = i % 2;
		len = query_write(back, 7, &q.key, edns, (enum padding)(i / 2));
		MUST(len <= sizeof back && question_read(&again, back, len) == NOERROR && again.id == 7 && again.key.len == q.key.len);
		MUST(memcmp(again.key.b, q.key.b, q.key.len - !edns) == 0 && again.edns == edns);
		MUST(!edns || (again.edns_size == 1232 && (i / 2 == PAD_NONE || len % 128 == 0)));
	}
}

/* The replies made of s to clients that take more or less, with an OPT or without; a hard look at each. Gives the highest TTL of
 * those that are whole: others may lack the record whose TTL is the lowest. */
static uint32_t replies_ttl(const struct source_msg *s, const struct key *k) {
	static const size_t limits[] = { MSG_MAX, UDP_SIZE, 512, 512 };
	static uint8_t out[MSG_MAX];
	uint32_t most = 0;
	unsigned all = 0;
	struct answer a;

	for (unsigned i = 0; i < COUNT(limits); i++) {
		struct reply_to r = { .id = 99, .edns = i < 3, .limit = limits[i], .name = k->b, .name_len = k->name_len };
		size_t n = reply_write(out, s, &r);
		MUST(n <= r.limit && n >= 12 + k->name_len + 4 && get16at(out) == 99 && (out[2] & 0x80) && answer_matches(out, n, k));
		MUST(answer_read(&a, exactly(out, n), n, k) == NULL && (a.opt ? a.len < n : a.len == n));
		if (i == 0) all = a.records;
		if (a.records == all && a.ttl != NO_TTL) most = MAX(most, a.ttl);
	}
	return most;
}

/* Has the cache an answer? Then with no TTL above "most". */
static bool cached(const struct key *k, uint32_t most) {
	struct slot *slot = cache_find(k, hash_bytes(k->b, k->len));
	struct source_msg s;
	if (slot == NULL || entry_expired(slot_entry(slot))) return false;
	s = entry_source(slot_entry(slot), false);
	MUST(replies_ttl(&s, k) <= most);
	return true;
}

/* Is the answer without its OPT still one, whatever its TTLs are? A name that runs through a TTL changes with it: no promise there. */
static bool answer_stands(const struct answer *a, const struct key *k) {
	uint8_t *twin = exactly(a->msg, a->len);
	struct answer again;
	bool good = answer_read(&again, twin, a->len, k) == NULL;
	MUST(good && !again.opt && again.records == a->records && again.ttl == a->ttl && again.len == a->len);
	for (int fill = 0; fill <= 0x40 && good; fill += 0x40) {
		size_t at = 12 + k->name_len + 4;
		memcpy(twin, a->msg, a->len);
		while (at < a->len) memset(twin + record_next(a->msg, &at) + 4, fill, 4);
		good = answer_read(&again, twin, a->len, k) == NULL;
	}
	return good;
}

/* A beginning of an answer is none, but where only bytes behind its last record are missing. */
static void answer_is_whole(const struct answer *a, const uint8_t *data, size_t size, const struct key *k) {
	static struct answer part;
	for (size_t n = 12 + k->name_len + 4; n < size && size < 200; n++)
		if (answer_read(&part, exactly(data, n), n, k) == NULL) MUST(part.len == a->len && part.opt == a->opt);
}

/* The stripped answer as it goes out fresh. */
static void answer_goes_out(const struct answer *a, const struct key *k) {
	struct source_msg s = { .msg = a->msg, .len = a->len, .ede = a->ede, .ede_len = a->ede_len, .rcode = a->rcode };

	for (unsigned i = 0; i < 4; i++) {
		s.cap = i & 1 ? MARKED_TTL : NO_TTL;
		s.age = i & 2 ? 10 : 0;
		MUST(replies_ttl(&s, k) <= s.cap);
	}
}

/* And out of the cache, now and at the end of its life. */
static void answer_is_kept(const struct answer *a, const struct key *k) {
	uint32_t ttl = MIN(a->ttl, 86400u);

	keep_answer(a, k, ttl);
	check_cache();
	cached(k, ttl);
	now += SEC(ttl - 1);
	cached(k, 1);
	now += SEC(1);
	MUST(!cached(k, 0));
	if (now > SEC(1000000000)) now = started;
}

/* An upstream's answer to the question that it tells itself. */
static void check_answer(const uint8_t *data, size_t size) {
	static struct answer a;
	uint8_t *p = exactly(data, size);
	struct key k;

	if (!lab_key(&k, p, size, 0)) return;
	memcpy(p + 12, k.b, k.name_len);                /* in lower case: a pointer into a label of it may change with its letters */
	if (!answer_matches(p, size, &k) || answer_read(&a, p, size, &k) != NULL) return;
	MUST(a.len <= size);
	if (a.truncated) return;
	answer_is_whole(&a, data, size, &k);
	if (!answer_stands(&a, &k)) return;
	answer_goes_out(&a, &k);
	if (a.ttl != 0 && a.records != 0 && key_type(&k) != 0 && key_type(&k) != T_OPT && key_type(&k) != T_AXFR && key_type(&k) != T_IXFR)
		answer_is_kept(&a, &k);
}

/* The input as a text, NULL where it is none. */
static const char *text_of(const uint8_t *data, size_t size) {
	static char text[8192];
	if (size >= sizeof text || memchr(data, 0, size) != NULL) return NULL;
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

static void check_config(const uint8_t *data, size_t size) {
	const char *text = text_of(data, size);
	if (text != NULL) config_of(text);
}

/* What the program replies over a connection for this; "" when it waits for more. */
static const char *admin_of(const char *text) {
	const struct fake *admin = FAKE(admin_fd);
	struct fake *f = fakes;

	FAKE(admin_fd)->due = 1;
	loop_turn();
	while (f->kind != K_TCP || f->of != admin) MUST(++f < fakes + FDS);
	put(&f->in, text, strlen(text));
	f->eof = true;
	admin_said.n = 0;
	put8(&admin_said, 0);
	for (int turns = 0; f->kind == K_TCP; turns++) {
		MUST(turns < 9);
		loop_turn();
	}
	return (const char *)admin_said.p;
}

/* A command, or a request and its headers; meanwhile the cache gets names of all bytes. */
static void check_admin(const uint8_t *data, size_t size) {
	const char *text = text_of(data, MIN(size, (size_t)600));
	static unsigned next;

	if (text == NULL || strstr(text, "query") || strstr(text, "reload")) return;    /* sequence.h does those */
	admin_of(text);
	say("R =0271%02x00 =00100001 @/TXT/100 [ ]", next++ % 256);
	keep_message(100);
}

/* A server's certificate chain: two bytes of length and a certificate, again and again. The first byte says how the upstream
 * is to be authenticated. */
static void check_cert(const uint8_t *data, size_t size) {
	static struct tls tls;
	static struct auth auth;
	struct spec *spec = &upstreams[0].spec;
	struct auth *a = tls.auth = &auth;
	const br_x509_class **c = &a->vtable;
	unsigned how = size > 0 ? *data : 0, usages, err;
	const uint8_t *end = data + size;
	size_t k, piece;
	struct der d, v, all;
	unsigned tag;

	if (size < 4) return;
	*spec = (struct spec){ .npins = how >> 1 & 1, .noverify = how & 4 };
	addr_parse(&spec->addr, how & 8 ? "::1" : "127.0.0.1");
	strcpy(spec->name, how & 1 ? "dns.test" : "");
	tls_init(&tls, &upstreams[0]);
	a->now = a->floor = INT64_C(1790000000);
	(*c)->start_chain(c, how & 1 ? "dns.test" : NULL);
	data++;
	for (unsigned i = 0; end - data >= 2 && i < 6; i++, data += k) {
		k = MIN(get16at(data), (size_t)(end - data - 2));
		data += 2;
		for (size_t at = 0; at < k; at++) {     /* no element reaches beyond the bytes that are there */
			d = (struct der){ data + at, data + k };
			MUST(!der_next(&d, &tag, &v, &all) || (v.p <= v.end && v.end <= data + k && d.p == v.end && all.p < v.p));
		}
		(*c)->start_cert(c, (uint32_t)k);
		for (size_t at = 0; at < k; at += piece) {
			piece = MIN(k - at, (size_t)1 + how * 7);
			(*c)->append(c, exactly(data + at, piece), piece);
		}
		(*c)->end_cert(c);
	}
	err = (*c)->end_chain(c);
	MUST(memchr(a->seen, 0, sizeof a->seen) != NULL);
	MUST(spec->noverify || err != 0 || !spec->npins || a->pin_ok);
	MUST(err != 0 || !auth_needs_chain(spec) || (a->name_ok && a->key_use_ok && a->nanchors > 0));
	MUST(err != 0 || (*c)->get_pkey(c, &usages) != NULL);
}

typedef void check_fn(const uint8_t *data, size_t size);
static check_fn *target(const char *name) {
	static const struct { const char *name; check_fn *check; } targets[] = { { "client", check_client }, { "answer", check_answer },
		{ "config", check_config }, { "admin", check_admin }, { "cert", check_cert }, { "http2", check_http2 },
		{ "sequence", check_sequence } };
	size_t at = 0;
	while (name == NULL || strcmp(targets[at].name, name) != 0) MUST(++at < COUNT(targets));
	return targets[at].check;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static check_fn *check;
	if (check == NULL) {
		lab_start();
		MUST(getenv("CA") == NULL || ca_load(getenv("CA")) == NULL);
		check = target(getenv("TARGET"));
	}
	check(data, size);
	return 0;
}
