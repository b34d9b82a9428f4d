/* lab.h - what the unit tests and the fuzz targets share: the program itself without its main(), a way to tell messages in words,
 * the invariants of the cache, and readers of configurations and admin lines. Defines nothing that runs by itself. */
#define main dnsproxy_main
#include "../dnsproxy.c"
#undef main
#include "bytes.h"

static inline uint32_t rnd(uint32_t below) { return chance_next() % below; }

/* ---- Writing messages: into m */

static struct buf m;

/* One word of a message, see say(). */
static inline void put_word(char *s) {
	static size_t rdata;
	unsigned f[5];
	char *type = strchr(s, '/'), *ttl = type ? strchr(type + 1, '/') : NULL;

	if (sscanf(strcmp(s, "Q") == 0 ? "!100:1,0,0,0" : strcmp(s, "R") == 0 ? "!8000:1,1,0,0" : s,
	    "!%x:%u,%u,%u,%u", &f[0], &f[1], &f[2], &f[3], &f[4]) == 5) {
		m.n = 0;
		put_as(&m, "222222", 0x1234, f[0], f[1], f[2], f[3], f[4]);
	} else if (*s == '[') {
		put16(&m, 0);
		rdata = m.n;
	} else if (*s == ']') put16at(m.p + rdata - 2, (unsigned)(m.n - rdata));
	else if (*s == '*') memset(put_room(&m, (size_t)atoi(s + 1)), 0, (size_t)atoi(s + 1));
	else if (*s == '=') put_hex(&m, s + 1);
	else if (sscanf(s, "opt/%u/%x", &f[0], &f[1]) == 2) put_as(&m, "1224", 0, T_OPT, f[0], f[1]);
	else {
		if (type != NULL) *type = '\0';
		if (*s == '@') put_as(&m, "p", s[1] ? (unsigned)atoi(s + 1) : 12);
		else put_name(&m, s);
		if (type == NULL) return;
		if (ttl != NULL) *ttl = '\0';
		put_as(&m, "22", (unsigned)type_parse(type + 1), 1);
		if (ttl != NULL) put32(&m, (uint32_t)strtoul(ttl + 1, NULL, 10));
	}
}

/* Appends what the words say, or starts anew with a header:
 *   !8180:1,2,0,1      header with these flags and counts, ID 1234 (hex); Q is !100:1,0,0,0 and R is !8000:1,1,0,0
 *   www.test/A         a question
 *   @/A/60 [ ... ]     a record: name, type, TTL; its RDATA behind its length
 *   opt/1232/8000 [ ]  an OPT: size, TTL (hex), options
 *   ns.test            a name by itself
 *   =c0000201 *16      these bytes; 16 zero bytes */
static inline __attribute__((format(printf, 1, 2))) void say(const char *fmt, ...) {
	char text[2000], *save;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (char *s = strtok_r(text, " ", &save); s != NULL; s = strtok_r(NULL, " ", &save))
		put_word(s);
}

static inline const char *numbered(const char *name, unsigned i) {
	static char text[64];
	snprintf(text, sizeof text, "%s%u.test", name, i);
	return text;
}

static inline void name_key(struct key *k, const char *name, unsigned type, unsigned flags) {
	key_set(k, name_parse(k->b, name), type, 1, flags);
}

/* The key of the question in a message, or of that for another type; false when it is not whole. */
static inline bool lab_key(struct key *k, const uint8_t *p, size_t size, unsigned type) {
	size_t n = 0;
	while (12 + n < size && n < NAME_MAX_WIRE && p[12 + n] > 0 && p[12 + n] < 64)
		n += 1u + p[12 + n];
	if (n >= NAME_MAX_WIRE || n + 17 > size || p[12 + n] != 0) return false;
	for (size_t i = 0; i <= n; i++) k->b[i] = lower(p[12 + i]);
	key_set(k, n + 1, type ? type : get16at(p + 13 + n), get16at(p + 15 + n), p[1] & (KEY_DO | KEY_CD));
	return true;
}

/* A copy that ends where its memory ends, so that a sanitizer sees what reads beyond; good until the 32nd call after this. */
static inline uint8_t *exactly(const uint8_t *p, size_t k) {
	static uint8_t *copies[32];
	static unsigned turn;
	uint8_t **copy = &copies[++turn % COUNT(copies)];
	*copy = grow(*copy, k);
	if (k > 0) memcpy(*copy, p, k);
	return *copy;
}

/* ---- The cache */

/* Its invariants, as its comment tells them. Gives NULL or the first that is broken. */
static inline const char *cache_broken(void) {
	size_t live = 0, used = 0, at = cache.tail, inring = 0;

	if (cache.memory == 0) return cache.entries || cache.used ? "entries without memory" : NULL;
	if ((uint8_t *)cache.slots + cache.memory < cache.ring + cache.size)
		return "the ring ends beyond the block";
	for (size_t i = 0; i < cache.nslots; i++) {
		const struct slot *s = &cache.slots[i];
		size_t place = (size_t)(s->at - 1) * 4;
		const struct entry *e = entry_at(place);
		if (s->at == 0) continue;
		if (place >= cache.size || cache.size - place < sizeof *e || entry_size(e) > cache.size - place)
			return "a slot points beyond the ring";
		if (e->len == 0 || e->hash != s->hash)
			return "a slot points to no entry or another one";
		if (s < slot_first(s->hash) || s >= slot_first(s->hash) + PROBE)
			return "an entry is not within the probes of its hash";
		live++;
		used += entry_size(e);
	}
	for (unsigned left = cache.nring; left > 0; ) {
		const struct entry *e = entry_at(at);
		if (cache.size - at < sizeof *e || e->len == 0) {
			at = 0;
			continue;
		}
		if (entry_size(e) > cache.size - at) return "an entry reaches beyond the ring";
		inring += slot_of(at, e->hash) != NULL;
		at += entry_size(e);
		left--;
	}
	if (cache.nring > 0 && at != cache.head)
		return "the entries from the tail on do not end at the head";
	if (live != cache.entries || inring != live || used != cache.used)
		return "the number of entries or their bytes are wrong";
	return NULL;
}

/* Puts the message m into the cache, as the answer to its own question; false when it is none. */
static inline bool cache_message(uint32_t ttl) {
	static struct answer a;
	static struct key k;
	struct keep keep = { .key = &k, .ttl = ttl };
	if (!lab_key(&k, m.p, m.n, 0)) return false;
	keep.hash = hash_bytes(k.b, k.len);
	if (answer_read(&a, m.p, m.n, &k) != NULL) return false;
	keep.old = cache_find(keep.key, keep.hash);
	cache_put(&keep, &a);
	return true;
}

/* ---- Reading configurations and admin lines */

static char errors[65536], normal[65536];

/* The lines of text become the program's arguments. */
static inline void lab_source(const char *text) {
	static char copy[65536], *lines[300], *save;
	unsigned k = 0;
	snprintf(copy, sizeof copy, "%s", text);
	for (char *l = strtok_r(copy, "\n", &save); l != NULL && k < COUNT(lines) - 1; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	lines[k] = NULL;
	source = (struct source){ .lines = lines };
	errors[0] = '\0';
}

/* Reads text as arguments. Its normal form, or NULL with the errors in "errors". */
static inline const char *config_of(const char *text) {
	static struct config c;
	struct text e = { .p = errors, .size = sizeof errors };
	char from[80];
	FILE *f;

	normal[0] = '\0';
	lab_source(text);
	if (!config_read(&c, &e, from)) return NULL;
	f = fmemopen(normal, sizeof normal, "w");
	MUST(f != NULL);
	config_print(f, &c);
	fclose(f);
	return normal;
}

/* The program as after its start, with this configuration. */
static inline void lab_start(const char *text) {
	struct text e = { .p = errors, .size = sizeof errors };
	char from[80];

	lab_source(text);
	log_level = L_ERROR;
	clock_read();
	started = now;
	MUST(config_read(&cfg, &e, from));
	random_bytes(hash_secret, sizeof hash_secret);
	query_init();
	descriptors_init();
	cache_init((size_t)cfg.cache_size);
	clients_init();
	pool_init(&admins, MAX_ADMIN, sizeof(struct admin));
	origin_number(&cfg.specs[0].addr);
}

/* What the program replies to these lines; "(more)" when it waits for another. */
static inline const char *admin_of(const char *text) {
	static struct admin a;
	static char reply[200000], copy[600];
	bool due = false, more = true;
	size_t at = 0;

	memset(&a, 0, sizeof a);
	a.fd = -1;
	a.reply = (struct text){ .p = a.out, .size = sizeof a.out };
	snprintf(copy, sizeof copy, "%s", text);
	for (char *line = copy, *next; line != NULL && !due; line = next) {
		if ((next = strchr(line, '\n')) != NULL) *next++ = '\0';
		due = a.http ? admin_http_line(&a, line) : admin_line(&a, line, strlen(line));
	}
	if (!due) return "(more)";
	while (more && at <= sizeof reply - sizeof a.out) {
		more = a.entries && (a.entries = status_entry(&a.reply, &a.cursor));
		memcpy(reply + at, a.reply.p, a.reply.len);
		at += a.reply.len;
		a.reply.len = 0;
	}
	reply[at] = '\0';
	return reply;
}
