/* lab.h - what the unit tests and the fuzz targets share: the program itself without its main(), in a world of fakes; a way to
 * tell messages in words, the invariants of the cache, a reader of configurations. Defines nothing that runs by itself. */
#include "fakes.h"
#define main dnsproxy_main
#include "../dnsproxy.c"
#undef main

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
		if (ttl != NULL) *ttl = '\0';
		if (type != NULL) put_as(&m, "22", (unsigned)type_parse(type + 1), 1);
		if (ttl != NULL) put_number(&m, (unsigned)strtoul(ttl + 1, NULL, 10), 4);
	}
}

/* Appends what the words say, or starts anew with a header:
 *   !8180:1,2,0,1      header with these flags and counts, ID 1234 (hex); Q is !100:1,0,0,0 and R is !8000:1,1,0,0
 *   www.test/A         a question
 *   @/A/60 [ ... ]     a record: name, type, TTL; its RDATA behind its length
 *   opt/1232/8000 [ ]  an OPT: size, TTL (hex), options
 *   ns.test            a name by itself
 *   =c0000201 *16      these bytes; 16 zero bytes */
static char said[2000];
#define say(...) (snprintf(said, sizeof said, __VA_ARGS__), put_words(said))
static inline void put_words(char *text) {
	for (char *w; (w = strsep(&text, " ")) != NULL; )
		if (*w != '\0') put_word(w);
}

/* The key of the question in a message, or of that for another type; false when it is not whole. */
static inline bool lab_key(struct key *k, const uint8_t *p, size_t size, unsigned type) {
	struct question q;
	size_t n = size > 12 ? question_name(&q, p + 12, size - 12) : 0;
	if (n == 0 || n + 16 > size) return false;
	*k = q.key;
	key_set(k, n, type ? type : get16at(p + 12 + n), get16at(p + 14 + n), p[1] & (KEY_DO | KEY_CD));
	return true;
}

/* A copy that ends where its memory ends, so that a sanitizer sees what reads beyond; good until the 512th call after this. */
static inline uint8_t *exactly(const uint8_t *p, size_t k) {
	static uint8_t *copies[512];
	static unsigned turn;
	uint8_t **copy = &copies[++turn % COUNT(copies)];
	*copy = grow(*copy, k);
	if (k > 0) memcpy(*copy, p, k);
	return *copy;
}

/* ---- The cache */

/* Its invariants, as its comment tells them. */
static inline void check_cache(void) {
	size_t live = 0, used = 0, at = cache.tail, inring = 0;

	MUST(cache.memory > 0 || (cache.entries == 0 && cache.used == 0));
	MUST(cache.memory == 0 || cache.ring + cache.size <= (uint8_t *)cache.slots + cache.memory);
	for (size_t i = 0; i < cache.nslots; i++) {
		const struct slot *s = &cache.slots[i];
		size_t place = (size_t)(s->at - 1) * 4;
		const struct entry *e = entry_at(place);
		if (s->at == 0) continue;
		MUST(place < cache.size && sizeof *e <= cache.size - place && entry_size(e) <= cache.size - place);
		MUST(e->len > 0 && e->hash == s->hash);
		MUST(s >= slot_first(s->hash) && s < slot_first(s->hash) + PROBE);      /* where it is looked for */
		live++;
		used += entry_size(e);
	}
	for (unsigned left = cache.nring; left > 0; ) {
		const struct entry *e = entry_at(at);
		if (cache.size - at < sizeof *e || e->len == 0) {
			at = 0;
			continue;
		}
		MUST(entry_size(e) <= cache.size - at);
		inring += slot_of(at, e->hash) != NULL;
		at += entry_size(e);
		left--;
	}
	MUST(cache.nring == 0 || at == cache.head);
	MUST(live == cache.entries && inring == live && used == cache.used);
}

static inline void keep_answer(const struct answer *a, const struct key *k, uint32_t ttl) {
	struct keep keep = { .key = k, .ttl = ttl, .hash = hash_bytes(k->b, k->len) };
	keep.old = cache_find(k, keep.hash);
	cache_put(&keep, a);
}

/* Puts the message m into the cache, as the answer to its own question. */
static inline void keep_message(uint32_t ttl) {
	static struct answer a;
	struct key k;
	MUST(lab_key(&k, m.p, m.n, 0) && answer_read(&a, m.p, m.n, &k) == NULL);
	keep_answer(&a, &k, ttl);
}

/* ---- Configurations */

static char errors[65536], normal[65536];

static inline void check_printable(const char *p) {
	for (; *p != '\0'; p++) MUST(*p == '\t' || *p == '\n' || *p == '\r' || (*p >= ' ' && *p <= '~'));
}

/* The lines of text become the program's arguments. Gives where what is wrong with them goes: into "errors". */
static inline struct text lab_source(const char *text) {
	static char copy[65536], *lines[300], *save;
	unsigned k = 0;
	snprintf(copy, sizeof copy, "%s", text);
	for (char *l = strtok_r(copy, "\n", &save); l != NULL && k < COUNT(lines) - 1; l = strtok_r(NULL, "\n", &save))
		lines[k++] = l;
	lines[k] = NULL;
	source = (struct source){ .lines = lines };
	errors[0] = '\0';
	return (struct text){ .p = errors, .size = sizeof errors };
}

/* The normal form of a configuration, which is its own; NULL for a bad one, which is refused with words. */
static inline const char *config_of(const char *text) {
	static struct config c;
	static char again[sizeof normal];
	char from[80];

	for (int i = 0; i < 2; i++) {
		struct text e = lab_source(i == 0 ? text : normal);
		FILE *f = fmemopen(i == 0 ? normal : again, sizeof normal, "w");
		bool good = config_read(&c, &e, from);
		MUST(f != NULL && (good || (i == 0 && errors[0] != '\0')));
		if (good) config_print(f, &c);
		fclose(f);
		if (!good) check_printable(errors);
		if (!good) return NULL;
	}
	if (strcmp(normal, again) != 0) fprintf(stderr, "first:\n%s\nsecond:\n%s\n", normal, again);
	MUST(strcmp(normal, again) == 0);
	return normal;
}

/* The program as after its start, with all that a test may need. */
#define BASE "listen 127.0.0.1@5300\nadmin 127.0.0.1@5301\nqueries 8\ntcp-clients 4\ncache-size 8k\n"
static inline void lab_start(void) {
	struct text e = lab_source(BASE "192.0.2.11 1");
	char from[80];

	log_level = L_ERROR;
	clock_read();
	started = now;
	MUST(config_read(&cfg, &e, from));
	hash_init();
	query_init();
	descriptors_init();
	cache_init((size_t)cfg.cache_size);
	clients_init();
	upstreams_apply(&cfg);
	MUST(listeners_open());
}
