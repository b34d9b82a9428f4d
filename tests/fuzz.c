#ifdef TARGET_SEQUENCE
#define LAB_FAKES "fakes.h"
#endif
#include "lab.h"

#ifndef MUST
#define MUST(c) do { if (!(c)) { fprintf(stderr, "broken: %s (line %d)\n", #c, __LINE__); abort(); } } while (0)
#endif

/* The program as after its start, with the given configuration. */
static void fuzz_start(const char *config)
{
	static char text[4096], *lines[64];
	struct text e = { errors, sizeof errors, 0 };
	char from[80], *save;
	unsigned k = 0;

	snprintf(text, sizeof text, "%s", config);
	for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	source = (struct source){ .lines = lines };
	log_level = L_ERROR;
	clock_read();
	started = now;
	errors[0] = '\0';
	if (!config_read(&cfg, &e, from)) {
		fputs(errors, stderr);
		abort();
	}
	lab_tables();
}

/* A copy whose end is the end of its memory; good until the third call after this. */
static uint8_t *exactly(const uint8_t *p, size_t k)
{
	static uint8_t *copies[3];
	static unsigned turn;
	uint8_t *copy = calloc(1, k ? k : 1);

	free(copies[++turn % 3]);
	copies[turn % 3] = copy;
	if (k > 0)
		memcpy(copy, p, k);
	return copy;
}

/* Asks for key and looks hard at the reply from the cache. Gives its lowest TTL, or NO_TTL when the cache has nothing. */
static uint32_t cached(const struct key *k, unsigned size, bool tcp)
{
	static uint8_t out[MSG_MAX], query[600];
	struct question q;
	struct reply_to r;
	struct slot *slot;
	struct answer a;
	uint32_t hash = hash_bytes(k->b, k->len);
	size_t len = query_write(query, 99, k, size > 0, false), limit = tcp ? MSG_MAX : size == 0 ? 512 : size;
	struct source_msg s;
	bool cut;

	if (size > 0)
		put16at(query + 12 + k->name_len + 4 + 3, size);
	if (question_read(&q, query, len) != NOERROR)
		return NO_TTL;
	q.key.b[q.key.name_len + 4] = k->b[k->name_len + 4];    /* without OPT no DO is sent */
	reply_to_question(&r, &q, tcp);
	slot = cache_find(&q.key, hash);
	if (slot == NULL || entry_expired(entry_at((size_t)(slot->at - 1) * 4)))
		return NO_TTL;
	s = entry_source(entry_at((size_t)(slot->at - 1) * 4), false);
	len = reply_write(out, &s, &r);
	MUST(len <= limit && len >= 12 + k->name_len + 4);
	MUST(get16at(out) == 99 && (get16at(out + 2) & F_QR) && answer_matches(out, len, k));
	cut = get16at(out + 2) & F_TC;
	MUST(answer_read(&a, exactly(out, len), len, k) == NULL && a.len == len);
	return cut ? 0 : a.ttl;
}

#ifdef TARGET_CLIENT
/* A client's message: what is read, the error that refuses it, and the question that would go to upstreams. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static uint8_t out[ERROR_REPLY_MAX], back[UPSTREAM_QUERY_MAX];
	const uint8_t *p = exactly(data, size);
	struct question q, again;
	uint8_t name[NAME_MAX_WIRE];
	size_t len;
	int rcode = question_read(&q, p, size);

	if (rcode < 0) {
		MUST(size < 12 || (p[2] & 0x80));
		return;
	}
	MUST(rcode == NOERROR || rcode == FORMERR || rcode == NOTIMP || rcode == REFUSED || rcode == BADVERS);
	len = error_write(out, &q, (unsigned)rcode, size & 1 ? EDE_PROHIBITED : EDE_NONE);
	MUST(len <= sizeof out && len <= size + 11 + 6 && get16at(out) == get16at(p) && (out[2] & 0x80));
	if (rcode != NOERROR)
		return;
	MUST(q.key.name_len >= 1 && q.key.name_len <= NAME_MAX_WIRE && q.key.len == q.key.name_len + 5);
	MUST(name_parse(name, name_text(q.key.b)) == q.key.name_len && memcmp(name, q.key.b, q.key.name_len) == 0);
	MUST(name_len(q.key.b) == q.key.name_len);
	name_is_private(q.key.b, q.key.name_len);
	for (int i = 0; i < 4; i++) {
		len = query_write(back, 7, &q.key, i & 1, i & 2);
		MUST(len <= sizeof back && question_read(&again, back, len) == NOERROR && again.key.len == q.key.len);
		MUST(memcmp(again.key.b, q.key.b, q.key.len - (i & 1 ? 0 : 1)) == 0);
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300"); }
#endif

#ifdef TARGET_ANSWER
/* An upstream's answer: read, stripped, into the cache, and out to clients of every kind, now and later. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static uint8_t out[MSG_MAX];
	static struct answer a, again;
	static const unsigned sizes[] = { 0, 512, 1232 };
	static uint8_t *kept;
	uint8_t *p, *twin;
	struct key k;
	struct keep keep = { .key = &k, .ttl = 100 };
	struct source_msg s = { .cap = NO_TTL };
	struct reply_to r = { .id = 7, .edns = true };
	const char *broken;
	size_t at = 12;
	uint32_t ttl;
	bool middle;

	if (size < 17)
		return;
	free(kept);
	p = kept = calloc(1, size);
	memcpy(p, data, size);
	for (size_t i = 0; ; i++) {                     /* the question that the message itself tells */
		if (at >= size || p[at] > 63 || i + p[at] + 2 > NAME_MAX_WIRE || at + p[at] + 5 > size)
			return;
		k.b[i] = p[at];
		if (p[at++] == 0) {
			key_set(&k, i + 1, get16at(p + at), get16at(p + at + 2), p[1] & (KEY_DO | KEY_CD));
			break;
		}
		for (unsigned left = k.b[i]; left > 0; left--)
			k.b[++i] = lower(p[at++]);
	}
	if (!answer_matches(p, size, &k))
		return;
	memcpy(p + 12, k.b, k.name_len);                /* a pointer into a label of it may change with its letters: no promise there */
	if (answer_read(&a, p, size, &k) != NULL)
		return;
	MUST(a.len <= size);
	if (a.truncated)
		return;
	middle = a.opt && a.opt_at + a.opt_len < a.len;
	answer_strip(&a, p);
	twin = calloc(1, a.len);
	memcpy(twin, p, a.len);
	if (middle && answer_read(&again, twin, a.len, &k) != NULL) {
		free(twin);                     /* names ran through the OPT: the program looks, and finds it malformed */
		return;
	}
	MUST(answer_read(&again, twin, a.len, &k) == NULL && !again.opt && again.nttl == a.nttl && again.ttl == a.ttl && again.len == a.len);
	ttl = true;
	for (int fill = 0; fill <= 0x40 && ttl; fill += 0x40) {
		memcpy(twin, p, a.len);         /* a name that runs through a TTL changes with it: no promise there */
		at = 12 + k.name_len + 4;
		for (unsigned i = 0; i < a.nttl; i++) {
			at = name_end(twin, at);
			memset(twin + at + 4, fill, 4);
			at += 10 + get16at(twin + at + 8);
		}
		ttl = answer_read(&again, twin, a.len, &k) == NULL;
	}
	free(twin);
	if (!ttl)
		return;
	r.name = k.b;
	r.name_len = k.name_len;
	s.msg = p;
	s.len = a.len;
	s.ede = a.ede;
	s.ede_len = a.ede_len;
	s.rcode = a.rcode;
	for (unsigned i = 0; i < 8; i++) {
		r.limit = i & 1 ? MSG_MAX : 512;
		s.cap = i & 2 ? MARKED_TTL : NO_TTL;
		s.age = i & 4 ? 10 : 0;
		at = reply_write(out, &s, &r);
		MUST(at <= r.limit && at >= 12 + k.name_len + 4);
		MUST(answer_read(&again, exactly(out, at), at, &k) == NULL && again.len == at);
		MUST(!(i & 2) || again.nttl == 0 || again.ttl <= MARKED_TTL);
	}
	if (a.ttl == 0 || a.nttl == 0 || key_type(&k) == 0 || key_type(&k) == T_OPT || key_type(&k) == T_AXFR || key_type(&k) == T_IXFR)
		return;
	keep.ttl = MIN(a.ttl, 86400u);
	keep.hash = hash_bytes(k.b, k.len);
	cache_put(&keep, &a);
	broken = cache_broken();
	if (broken != NULL)
		fprintf(stderr, "%s\n", broken);
	MUST(broken == NULL);
	for (unsigned i = 0; i < 4; i++) {
		ttl = cached(&k, sizes[i % 3], i == 3);
		MUST(ttl == NO_TTL || ttl <= 86400);
	}
	now += SEC(keep.ttl - 1);
	ttl = cached(&k, 0, true);
	MUST(ttl == NO_TTL || ttl <= 1);
	now += SEC(1);
	MUST(cached(&k, 0, true) == NO_TTL);
	if (now > SEC(1000000000))
		now = started;
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300\ncache-size 16k"); }
#endif

#ifdef TARGET_CONFIG
static void fuzz_one(const uint8_t *data, size_t size)
{
	static char text[8192], once[65536];

	if (size >= sizeof text || memchr(data, 0, size) != NULL)
		return;
	memcpy(text, data, size);
	text[size] = '\0';
	if (config_of(text) == NULL) {
		MUST(errors[0] != '\0');
		for (const char *p = errors; *p != '\0'; p++)
			MUST(*p == '\n' || (*p >= ' ' && *p <= '~'));
		return;
	}
	snprintf(once, sizeof once, "%s", normal);
	if (config_of(once) == NULL || strcmp(once, normal) != 0) {
		fprintf(stderr, "first:\n%s\nsecond:\n%s\n%s\n", once, normal, errors);
		abort();
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300"); }
#endif

#ifdef TARGET_ADMIN
/* Admin lines, as the program reads them: the first is the command, those behind it are headers. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static struct admin a;
	const char *reply;
	char line[513];

	if (size > 512 || memchr(data, '\n', size) == data)
		return;
	memcpy(line, data, size);
	line[size] = '\0';
	if (strstr(line, "query") || strstr(line, "reload"))
		return;                         /* the sequence target does those */
	line[strcspn(line, "\n")] = '\0';
	reply = admin_of(line);
	MUST(reply[0] != '\0');
	for (; *reply != '\0'; reply++)
		MUST(*reply == '\n' || *reply == '\r' || (*reply >= ' ' && *reply <= '~'));
	memset(&a, 0, sizeof a);
	a.reply = (struct text){ a.out, sizeof a.out, 0 };
	for (const uint8_t *p = data, *end = data + size, *nl; p < end; p = nl + 1) {
		if ((nl = memchr(p, '\n', (size_t)(end - p))) == NULL)
			break;
		memcpy(line, p, (size_t)(nl - p));
		line[nl - p] = '\0';
		if (admin_http_line(&a, line))
			break;
	}
	if (cache.entries < 20) {
		struct keep keep = { .key = &put_key, .ttl = 100 };
		static struct answer got;
		char name[16];
		snprintf(name, sizeof name, "n%u.test", cache.entries);
		wanswer(name, T_A, 100, 60);
		lab_key(&put_key, name, T_A, 0);
		if (answer_read(&got, m, n, &put_key) == NULL) {
			keep.hash = hash_bytes(put_key.b, put_key.len);
			cache_put(&keep, &got);
		}
	}
}

static void fuzz_init(void) { fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300\ncache-size 16k"); }
#endif

#ifdef TARGET_CERT
/* A server's certificate chain: two bytes of length and a certificate, again and again. The first byte says how the upstream
 * is to be authenticated. */
static void fuzz_one(const uint8_t *data, size_t size)
{
	static struct tls tls;
	struct spec *spec = &upstreams[0].spec;
	struct auth *a = &tls.auth;
	const br_x509_class **c = &a->vtable;
	unsigned how, usages, err;
	size_t k, piece;

	if (size < 3)
		return;
	how = *data++;
	size--;
	memset(spec, 0, sizeof *spec);
	addr_parse(&spec->addr, how & 8 ? "::1" : "127.0.0.1");
	strcpy(spec->name, how & 1 ? "dns.test" : "");
	spec->npins = how >> 1 & 1;
	spec->noverify = how & 4;
	tls_init(&tls, &upstreams[0]);
	a->now = a->floor = INT64_C(1790000000);
	(*c)->start_chain(c, how & 1 ? "dns.test" : NULL);
	for (unsigned i = 0; size >= 2 && i < 6; i++) {
		k = get16at(data);
		data += 2;
		size -= 2;
		k = MIN(k, size);
		(*c)->start_cert(c, (uint32_t)k);
		for (size_t at = 0; at < k; at += piece) {
			piece = MIN(k - at, (size_t)1 + how * 7);
			(*c)->append(c, exactly(data + at, piece), piece);
		}
		(*c)->end_cert(c);
		data += k;
		size -= k;
	}
	err = (*c)->end_chain(c);
	for (const char *p = a->seen; *p != '\0'; p++)
		MUST(p < a->seen + sizeof a->seen);
	MUST(spec->noverify || err != 0 || !spec->npins || a->pin_ok);
	MUST(err != 0 || !auth_needs_chain(spec) || (a->name_ok && a->key_use_ok && a->nanchors > 0));
	if (err == 0)
		MUST((*c)->get_pkey(c, &usages) != NULL);
}

static void fuzz_init(void)
{
	const char *ca = getenv("CA");

	fuzz_start("192.0.2.77 1\nlisten 127.0.0.1@5300");
	if (ca != NULL)
		MUST(ca_load(ca) == NULL);
}
#endif

#include "sequence.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool up;

	if (!up) {
		fuzz_init();
		up = true;
	}
	fuzz_one(data, size);
	return 0;
}
