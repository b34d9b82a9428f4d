#ifdef LAB_FAKES
#include LAB_FAKES
#endif
#define main dnsproxy_main
#include "dnsproxy.c"
#undef main

static struct key put_key;

/* ---- Writing messages: into m, n bytes so far */

static uint8_t m[80000];
static size_t n;

static void w16(unsigned v) { put16at(m + n, v); n += 2; }
static void w32(uint32_t v) { put32at(m + n, v); n += 4; }
static void wbytes(const void *p, size_t k) { if (k > 0) memcpy(m + n, p, k); n += k; }

static void head(unsigned id, unsigned flags, unsigned qd, unsigned an, unsigned ns, unsigned ar)
{
	n = 0;
	w16(id); w16(flags); w16(qd); w16(an); w16(ns); w16(ar);
}

/* "www.example.com" as it stands; NULL: a pointer to the question. */
static void wname(const char *s)
{
	if (s == NULL) {
		w16(0xc00c);
		return;
	}
	while (*s != '\0') {
		size_t k = strcspn(s, ".");
		m[n++] = (uint8_t)k;
		wbytes(s, k);
		s += k + (s[k] == '.');
	}
	m[n++] = 0;
}

static void wquestion(const char *name, unsigned type) { wname(name); w16(type); w16(1); }

static void wrr(const char *name, unsigned type, uint32_t ttl, const void *rdata, size_t k)
{
	wname(name); w16(type); w16(1); w32(ttl); w16((unsigned)k);
	wbytes(rdata, k);
}

static void wopt(unsigned size, uint32_t ttl, const void *options, size_t k)
{
	m[n++] = 0; w16(T_OPT); w16(size); w32(ttl); w16((unsigned)k);
	wbytes(options, k);
}

/* A record whose RDATA is "skip" zero bytes and a name. */
static void wrr_name(const char *name, unsigned type, uint32_t ttl, size_t skip, const char *target)
{
	size_t at;

	wname(name); w16(type); w16(1); w32(ttl);
	at = n;
	w16(0);
	memset(m + n, 0, skip);
	n += skip;
	wname(target);
	put16at(m + at, (unsigned)(n - at - 2));
}

static void wsoa(const char *name, uint32_t ttl, uint32_t minimum)
{
	size_t at;

	wname(name); w16(T_SOA); w16(1); w32(ttl);
	at = n;
	w16(0);
	wname("ns.test"); wname(NULL);
	w32(1); w32(2); w32(3); w32(4); w32(minimum);
	put16at(m + at, (unsigned)(n - at - 2));
}

static void lab_key(struct key *k, const char *name, unsigned type, unsigned flags)
{
	key_set(k, name_parse(k->b, name), type, 1, flags);
}

/* A positive answer of about "size" bytes for name. */
static void wanswer(const char *name, unsigned type, uint32_t ttl, size_t size)
{
	static uint8_t zero[66000];

	head(7, F_QR | F_RD | F_RA, 1, 1, 0, 0);
	wquestion(name, type);
	wrr(NULL, type, ttl, zero, type == T_A ? 4 : type == T_AAAA ? 16 : size > n + 12 ? size - n - 12 : 0);
}

/* ---- The cache's invariants, as its comment tells them. Gives NULL or the first that is broken. */

static const char *cache_broken(void)
{
	size_t live = 0, used = 0, at = cache.tail, inring = 0;

	if (cache.memory == 0)
		return cache.entries || cache.used ? "entries without memory" : NULL;
	if ((uint8_t *)cache.slots + cache.memory < cache.ring + cache.size)
		return "the ring ends beyond the block";
	for (size_t i = 0; i < cache.nslots; i++) {
		const struct slot *s = &cache.slots[i];
		const struct entry *e;
		size_t place;
		if (s->at == 0)
			continue;
		place = (size_t)(s->at - 1) * 4;
		if (place >= cache.size || cache.size - place < sizeof *e)
			return "a slot points beyond the ring";
		e = entry_at(place);
		if (e->len == 0)
			return "a slot points to no entry";
		if (e->hash != s->hash)
			return "slot and entry differ in their hash";
		if (s < slot_first(s->hash) || s >= slot_first(s->hash) + PROBE)
			return "an entry is not within the probes of its hash";
		if (entry_size(e) > cache.size - place)
			return "an entry reaches beyond the ring";
		live++;
		used += entry_size(e);
	}
	for (unsigned left = cache.nring; left > 0; ) {
		const struct entry *e = entry_at(at);
		if (cache.size - at < sizeof *e || e->len == 0) {
			at = 0;
			continue;
		}
		if (entry_size(e) > cache.size - at)
			return "an entry reaches beyond the ring";
		inring += slot_of(at, e->hash) != NULL;
		at += entry_size(e);
		left--;
	}
	if (cache.nring > 0 && at != cache.head)
		return "the entries from the tail on do not end at the head";
	if (live != cache.entries || inring != live)
		return "the number of entries is wrong";
	if (used != cache.used)
		return "the bytes of live entries are wrong";
	return NULL;
}

/* A cache of another size; the old one's memory is not given back. */
static void cache_again(size_t memory)
{
	memset(&cache, 0, sizeof cache);
	cache_init(memory);
}

static unsigned cache_clear(const uint8_t *name, size_t len)
{
	(void)len;
	return cache_sweep(name == NULL, name, -1);
}

/* The reply of our own to a question. */
#define ERROR_REPLY_MAX (12 + NAME_MAX_WIRE + 4 + 11 + 6)
static size_t error_write(uint8_t *out, const struct question *q, unsigned rcode, int ede)
{
	struct source_msg s = source_error(&q->key, rcode, ede);
	struct reply_to r;

	reply_to_question(&r, q, false);
	return reply_write(out, &s, &r);
}

/* The tables of the program, as main() makes them. */
static void lab_tables(void)
{
	random_bytes(hash_secret, sizeof hash_secret);
	query_init();
	descriptors_init();
	cache_init((size_t)cfg.cache_size);
	clients_init();
	pool_init(&admins, MAX_ADMIN, sizeof(struct admin));
	origin_number(&cfg.specs[0].addr);
}

static uint64_t lab_random = 88172645463325252u;
static uint32_t lab_rnd(void)
{
	lab_random ^= lab_random << 13;
	lab_random ^= lab_random >> 7;
	lab_random ^= lab_random << 17;
	return (uint32_t)(lab_random >> 16);
}

/* ---- Reading configurations and admin lines */

/* Keeps p as a seed for the fuzz target "kind", if the environment says where. */
static void seed(const char *kind, const void *p, size_t k)
{
	static unsigned number;
	const char *dir = getenv("SEEDS");
	char path[512];
	FILE *f;

	if (dir == NULL)
		return;
	snprintf(path, sizeof path, "%s/%s/%u", dir, kind, ++number);
	if ((f = fopen(path, "w")) != NULL) {
		fwrite(p, 1, k, f);
		fclose(f);
	}
}

static char errors[65536], normal[65536];

/* Reads text as arguments. Its normal form, or NULL with the errors in "errors". */
static const char *config_of(const char *text)
{
	static char copy[65536], *lines[300];
	static struct config c;
	struct text e = { errors, sizeof errors, 0 };
	char from[80], *save;
	unsigned k = 0;
	FILE *f;

	snprintf(copy, sizeof copy, "%s", text);
	for (char *l = strtok_r(copy, "\n", &save); l != NULL && k < COUNT(lines) - 1; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	lines[k] = NULL;
	errors[0] = normal[0] = '\0';
	source = (struct source){ .lines = lines };
	seed("config", text, strlen(text));
	if (!config_read(&c, &e, from))
		return NULL;
	f = fmemopen(normal, sizeof normal, "w");
	config_print(f, &c);
	fclose(f);
	return normal;
}

/* What the program replies to one line. */
static const char *admin_of(const char *line)
{
	static struct admin a;
	static char reply[200000], copy[600];
	size_t at = 0;

	memset(&a, 0, sizeof a);
	a.fd = -1;
	a.reply = (struct text){ a.out, sizeof a.out, 0 };
	snprintf(copy, sizeof copy, "%s", line);
	seed("admin", line, strlen(line));
	if (!admin_line(&a, copy, strlen(copy)))
		return "(more)";
	reply[0] = '\0';
	for (;;) {
		memcpy(reply + at, a.reply.p, a.reply.len);
		at += a.reply.len;
		reply[at] = '\0';
		a.reply.len = 0;
		a.out[0] = '\0';
		if (a.next == NULL || at > sizeof reply - sizeof a.out || !a.next(&a, &a.reply))
			return reply;
	}
}
