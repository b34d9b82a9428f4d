#include "lab.h"

/* Each promise is one call of is() or of all(); all() sums up what each() saw since the last of them. */
static unsigned nbad;
static char bad[400];

static void is(bool good, const char *text)
{
	printf("%s %s\n", good ? "ok" : "not ok", text);
	fflush(stdout);
}

static void each(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void each(bool good, const char *fmt, ...)
{
	va_list ap;

	if (good || nbad++ > 0)
		return;
	va_start(ap, fmt);
	vsnprintf(bad, sizeof bad, fmt, ap);
	va_end(ap);
	for (char *c = bad; *c != '\0'; c++)
		if (*c == '\n')
			*c = '|';
}

static void all(const char *text)
{
	if (nbad > 0)
		printf("# %u wrong, the first: %s\n", nbad, bad);
	is(nbad == 0, text);
	nbad = 0;
}

/* ---- Tools */

static void test_tools(void)
{
	static const struct { const char *s; int64_t lo, hi, want; } numbers[] = {
		{ "0", 0, 9, 0 }, { "9", 0, 9, 9 }, { "10", 0, 9, -1 }, { "", 0, 9, -1 }, { "-1", -5, 9, -1 }, { "+1", 0, 9, -1 }, { " 1", 0, 9, -1 },
		{ "1 ", 0, 9, -1 }, { "0x1", 0, 9, -1 }, { "1k", 0, 9, -1 }, { "007", 0, 9, 7 }, { "99999999999999999999", 0, INT64_MAX, -1 },
		{ "18446744073709551617", 0, INT64_MAX, -1 }, { "65535", 1, 65535, 65535 }, { "65536", 1, 65535, -1 } };
	static const struct { const char *s, *want; } addrs[] = {
		{ "127.0.0.1", "127.0.0.1" }, { "::1", "::1" }, { "2001:DB8:0:0:0:0:0:1", "2001:db8::1" }, { "fe80::1%br-lan", "fe80::1%br-lan" },
		{ "255.255.255.255", "255.255.255.255" }, { "::ffff:192.0.2.1", "::ffff:192.0.2.1" },
		{ "", NULL }, { "10.1", NULL }, { "1", NULL }, { "0x7f000001", NULL }, { "127.0.0.01", NULL }, { "1.2.3.4.5", NULL }, { "256.1.1.1", NULL },
		{ "localhost", NULL }, { "fe80::1%", NULL }, { "::g", NULL }, { "1.2.3.4%eth0", NULL }, { "fe80::1%anamethatistoolongforaninterface", NULL },
		{ "1:2:3:4:5:6:7:8:9", NULL }, { "[::1]", NULL } };
	static const struct { const char *net, *in, *out; } nets[] = {
		{ "10.0.0.0/8", "10.255.255.255", "11.0.0.0" }, { "172.16.0.0/12", "172.31.255.255", "172.32.0.0" }, { "192.0.2.7", "192.0.2.7", "192.0.2.6" },
		{ "192.0.2.128/25", "192.0.2.255", "192.0.2.127" }, { "0.0.0.0/0", "203.0.113.9", "::1" }, { "::/0", "2001:db8::1", "127.0.0.1" },
		{ "fc00::/7", "fdff::1", "fe00::1" }, { "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1" }, { "::1/128", "::1", "::2" } };
	static const char *const bad_nets[] = { "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/a", "10.0.0.0/-1", "10.0.0.0/8/8", "/8", "10/8", "fe80::1%lo/64", "10.0.0.0/ 8" };
	char buf[8];
	struct text t = { buf, sizeof buf, 0 };
	struct addr a, b;
	struct cidr c;

	for (size_t i = 0; i < COUNT(numbers); i++)
		each(number(numbers[i].s, numbers[i].lo, numbers[i].hi) == numbers[i].want, "\"%s\"", numbers[i].s);
	all("a number is the whole word and within its bounds");
	for (size_t i = 0; i < COUNT(addrs); i++)
		each(addrs[i].want ? addr_parse(&a, addrs[i].s) && strcmp(addr_text(&a), addrs[i].want) == 0 : !addr_parse(&a, addrs[i].s), "\"%s\"", addrs[i].s);
	all("an address is numeric, whole, and written in its normal form");
	for (size_t i = 0; i < COUNT(nets); i++)
		each(cidr_parse(&c, nets[i].net) && addr_parse(&a, nets[i].in) && addr_parse(&b, nets[i].out) && addr_in(&a, &c.net, c.bits) &&
		    !addr_in(&b, &c.net, c.bits), "%s", nets[i].net);
	all("a network holds its first and last address and not those beside it");
	for (size_t i = 0; i < COUNT(bad_nets); i++)
		each(!cidr_parse(&c, bad_nets[i]), "%s", bad_nets[i]);
	all("what is no network is refused");
	text_add(&t, "%s", "abc");
	text_add(&t, "%s", "defghijk");
	text_add(&t, "%s", "lmn");
	is(strcmp(buf, "abcdefg") == 0 && t.len == 7, "text that does not fit is cut, and ends with NUL");
	addr_parse(&a, "2001:db8:1:2:3::4");
	addr_parse(&b, "2001:db8:1:2:ffff::5");
	is(addr_client(&a) == addr_client(&b), "an IPv6 client is its /64");
	addr_parse(&a, "192.0.2.1");
	addr_parse(&b, "192.0.2.2");
	is(addr_client(&a) != addr_client(&b), "an IPv4 client is its /32");
}

/* ---- Round trips */

/* count answers within "spread" of "mean", all in microseconds: in how many of 1,000 of the second half a resend was in vain */
static unsigned learn(struct upstream *u, unsigned count, usec mean, usec spread)
{
	unsigned early = 0;

	for (unsigned i = 0; i < count; i++) {
		usec way[2] = { 0, 0 };
		for (unsigned k = 0; k < 2 && spread > 0; k++)
			way[k] = (usec)(lab_rnd() % (unsigned)(spread + 1)) - spread / 2;
		if (mean + way[0] + way[1] > upstream_rto(u) && u->backoff == 0)
			early += i >= count / 2;            /* sent again: nothing is learnt */
		else
			upstream_learn(u, mean + way[0] + way[1]);
	}
	return early * 2000 / count;
}

static void test_round_trips(void)
{
	static struct upstream u;
	unsigned early;

	each(upstream_rto(&u) == MS(350), "first %lld", (long long)upstream_rto(&u));
	learn(&u, 1, MS(40), 0);
	each(u.rtt == MS(40) && u.rttvar == MS(20) && upstream_rto(&u) == MS(95), "after one %lld", (long long)upstream_rto(&u));
	learn(&u, 200, MS(40), 0);
	each(u.rtt == MS(40) && upstream_rto(&u) == MS(45), "steady %lld", (long long)upstream_rto(&u));
	all("the wait is 350 ms before the first answer, then twice the first round trip and more, and little more than a steady one");
	early = learn(&u, 20000, MS(40), MS(10));
	each(early <= 20 && upstream_rto(&u) < MS(58), "40 +- 10 ms: %u early, %lld", early, (long long)upstream_rto(&u));
	early = learn(&u, 20000, MS(40), MS(40));
	each(early <= 20 && upstream_rto(&u) < MS(120), "40 +- 40 ms: %u early, %lld", early, (long long)upstream_rto(&u));
	all("of a round trip that varies by a quarter or by all of itself fewer than one in fifty is taken for lost");
	u = (struct upstream){ 0 };
	learn(&u, 100, MS(10), MS(1));
	each(upstream_rto(&u) == MS(20), "near %lld", (long long)upstream_rto(&u));
	u.backoff = 4;
	learn(&u, 1, MS(150), 0);
	each(u.rtt == MS(150) && u.backoff == 0 && upstream_rto(&u) > MS(300), "jump %lld", (long long)upstream_rto(&u));
	early = learn(&u, 100, MS(150), MS(5));
	each(early == 0 && upstream_rto(&u) < MS(170), "after it %u early, %lld", early, (long long)upstream_rto(&u));
	learn(&u, 400, MS(10), MS(1));
	each(u.rtt < MS(11) && upstream_rto(&u) < MS(21), "back %lld", (long long)upstream_rto(&u));
	all("a jump from 10 to 150 ms that a back-off has waited for is learnt at once; the way back by and by");
	u = (struct upstream){ 0 };
	learn(&u, 100, 0, 0);
	each(u.rtt == 1 && u.rttvar == 0 && upstream_rto(&u) == MS(20), "0 us: %lld", (long long)upstream_rto(&u));
	u.backoff = 9;
	learn(&u, 30, SEC(5), 0);
	each(upstream_rto(&u) > SEC(5) && upstream_rto(&u) < SEC(8), "5 s: %lld", (long long)upstream_rto(&u));
	for (unsigned i = 0; i < 100000; i++) {
		upstream_learn(&u, (usec)(lab_rnd() % 60000001u) >> lab_rnd() % 26);
		each(u.rtt > 0 && u.rttvar >= 0 && upstream_rto(&u) >= MS(20) && upstream_rto(&u) < SEC(240), "after any: %lld", (long long)upstream_rto(&u));
	}
	all("0 us on loopback, 5 s by way of a satellite and 100,000 round trips up to a minute leave it between 20 ms and four minutes");
}

/* ---- Names */

static void test_names(void)
{
	static const struct { const char *s, *want; } names[] = {
		{ ".", "." }, { "com", "com." }, { "WWW.Example.COM.", "www.example.com." }, { "a\\.b.c", "a\\.b.c." }, { "\\097.\\065", "a.a." },
		{ "\\000\\255.x", "\\000\\255.x." }, { "a\\\\b", "a\\\\b." }, { "sp ace", "sp\\032ace." }, { "_25._tcp.x", "_25._tcp.x." }, { "\\..\\.", "\\..\\.." },
		{ "*.x", "*.x." }, { "semi;colon", "semi\\;colon." }, { "", NULL }, { "..", NULL }, { ".a", NULL }, { "a..b", NULL }, { "a..", NULL },
		{ "a\\", NULL }, { "\\256", NULL }, { "\\299.x", NULL } };
	uint8_t name[NAME_MAX_WIRE], other[NAME_MAX_WIRE];
	char text[NAME_TEXT + 8], *at;
	size_t k;

	for (size_t i = 0; i < COUNT(names); i++) {
		k = name_parse(name, names[i].s);
		each(names[i].want ? k > 0 && strcmp(name_text(name), names[i].want) == 0 && k == name_len(name) : k == 0, "\"%s\" gives \"%s\"", names[i].s,
		    k ? name_text(name) : "nothing");
	}
	all("names in text form become wire names and back, in lower case, escaped; what is no name is refused");
	for (unsigned c = 0; c < 256; c++) {
		uint8_t wire[] = { 3, 'x', (uint8_t)c, 'y', 0 };
		k = name_parse(name, name_text(wire));
		wire[2] = lower(wire[2]);
		each(k == 5 && memcmp(name, wire, 5) == 0, "byte %u", c);
	}
	all("every byte value of a label survives the way to text and back");
	memset(text, 'a', sizeof text);
	text[63] = text[127] = text[191] = '.';
	text[253] = '\0';
	each(name_parse(name, text) == 255, "253 characters");
	text[253] = '.';
	text[254] = '\0';
	each(name_parse(name, text) == 255, "253 characters and a dot");
	text[253] = 'a';
	each(name_parse(name, text) == 0, "254 characters");
	text[63] = 'a';
	text[64] = '\0';
	each(name_parse(name, text) == 0, "a label of 64");
	text[63] = '\0';
	each(name_parse(name, text) == 65, "a label of 63");
	all("a label of 63 and a name of 255 bytes are the longest");
	for (at = text, k = 0; k < 63 + 63 + 63 + 61; k++) {
		at += sprintf(at, "\\000");
		if (k == 62 || k == 125 || k == 188)
			*at++ = '.';
	}
	each(name_parse(name, text) == 255, "the longest text");
	each(strlen(name_text(name)) < NAME_TEXT, "room for it");
	all("the longest name of escapes has room in text form");

#define BELOW(a, b) name_below(name, name_parse(name, a), other, name_parse(other, b))
	each(BELOW("www.example.com", "example.com"), "below");
	each(BELOW("example.com", "example.com"), "itself");
	each(BELOW("example.com", "."), "the root");
	each(!BELOW("notexample.com", "example.com"), "not at a label");
	each(!BELOW("com", "example.com"), "above");
	each(!BELOW("example.org", "example.com"), "beside");
	each(!BELOW("a\\007example.com", "example.com"), "a length inside a label");
	all("a suffix matches at whole labels only");

	for (unsigned t = 1; t < 65536; t++) {
		const char *s = type_text(t);
		each(type_parse(s) == (int)t, "%u is %s", t, s);
		if (strncmp(s, "TYPE", 4) == 0)
			continue;
		snprintf(text, sizeof text, "type%u", t);
		each(type_parse(text) == (int)t, "%s", text);
	}
	each(type_parse("TYPE0") < 0 && type_parse("TYPE65536") < 0 && type_parse("TYPE") < 0 && type_parse("AA") < 0 && type_parse("") < 0, "no types");
	each(type_parse("aaaa") == 28 && type_parse("https") == 65, "lower case");
	all("every type has a mnemonic or TYPE form that is read back");
}

/* ---- Questions */

/* Reads the n bytes of m in a piece of memory that ends with them. */
static int read_question(struct question *q)
{
	static uint8_t *exact;
	int r;

	free(exact);
	exact = calloc(1, n);
	memcpy(exact, m, n);
	r = question_read(q, exact, n);
	seed("client", m, n);
	return r;
}

static void wquery(const char *name, unsigned type) { head(0x1234, F_RD, 1, 0, 0, 0); wquestion(name, type); }
static void wquery_opt(const char *name, unsigned type, uint32_t ttl, const void *o, size_t k)
{
	head(0x1234, F_RD, 1, 0, 0, 1);
	wquestion(name, type);
	wopt(1232, ttl, o, k);
}

static void test_questions(void)
{
	static uint8_t copy[512];
	static const uint8_t cookie[] = { 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct question q;
	char name[256];
	size_t whole;

	wquery("www.Example.com", T_AAAA);
	is(read_question(&q) == NOERROR && q.id == 0x1234 && !q.edns && key_type(&q.key) == T_AAAA && q.key.name_len == 17 &&
	    memcmp(q.key.b + 1, "www\7example", 11) == 0 && memcmp(q.name + 1, "www\7Example", 11) == 0, "a plain question is read: ID, type, name in both spellings");
	wquery_opt("example.com", T_A, 0x8000, cookie, sizeof cookie);
	is(read_question(&q) == NOERROR && q.edns && q.edns_size == 1232 && (key_flags(&q.key) & KEY_DO) && q.want_ad, "a question with OPT is read: size and DO, and an option is no matter");
	whole = n;
	memcpy(copy, m, n);
	for (n = 0; n < whole; n++)
		each(n < 12 ? read_question(&q) == -1 : read_question(&q) == FORMERR, "%zu bytes", n);
	all("every beginning of a question is FORMERR, and silence below 12 bytes");
	memcpy(m, copy, whole);
	n = whole;
	m[n++] = 0;
	is(read_question(&q) == FORMERR, "a byte after the last record is FORMERR");
	head(1, F_RD | F_CD | F_AD, 1, 0, 0, 0);
	wquestion("x.test", T_A);
	is(read_question(&q) == NOERROR && key_flags(&q.key) == KEY_CD && q.want_ad, "CD is part of the key, AD is wanted");
	wquery("x.test", T_A);
	put16at(m + 2, F_QR | F_RD);
	is(read_question(&q) == -1, "a response is met with silence");
	for (unsigned op = 1; op < 16; op++) {
		wquery("x.test", T_A);
		put16at(m + 2, op << 11 | F_RD);
		each(read_question(&q) == NOTIMP, "opcode %u", op);
	}
	all("every opcode but QUERY is NOTIMP");
	wquery("x.test", T_A);
	put16at(m + 2, 0);
	is(read_question(&q) == REFUSED, "RD=0 is REFUSED");
	wquery("x.test", T_AXFR);
	each(read_question(&q) == NOTIMP, "AXFR");
	wquery("x.test", T_IXFR);
	each(read_question(&q) == NOTIMP, "IXFR");
	all("AXFR and IXFR are NOTIMP");
	for (unsigned i = 0; i < 4; i++)
		for (unsigned v = 0; v < 3; v++) {
			wquery("x.test", T_A);
			put16at(m + 4 + 2 * i, v == 2 ? 65535 : v);
			if (v != (i == 0))
				each(read_question(&q) == FORMERR, "count %u is %u", i, v);
		}
	all("QDCOUNT not 1, records in answer or authority, and missing records are FORMERR");
	wquery_opt("x.test", T_A, 1 << 16, NULL, 0);
	is(read_question(&q) == BADVERS && q.edns, "EDNS version 1 is BADVERS");
	wquery_opt("x.test", T_A, 0, NULL, 0);
	put16at(m + 10, 2);
	wopt(512, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "two OPT records are FORMERR");
	head(1, F_RD, 1, 0, 0, 1);
	wquestion("x.test", T_A);
	wrr("x.test", T_OPT, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "an OPT with a name is FORMERR");
	wquery_opt("x.test", T_A, 0, "\0\12\0\11........", 12);
	is(read_question(&q) == FORMERR, "an EDNS option that runs past its OPT is FORMERR");
	wquery_opt("x.test", T_A, 0, "\0\12\0", 3);
	is(read_question(&q) == FORMERR, "a cut EDNS option is FORMERR");
	head(1, F_RD, 1, 0, 0, 2);
	wquestion("x.test", T_A);
	wrr(NULL, 250, 0, "signature", 9);
	wopt(4096, 0, NULL, 0);
	is(read_question(&q) == NOERROR && q.edns_size == 4096, "other additional records are stepped over");
	head(1, F_RD, 1, 0, 0, 0);
	m[n++] = 1; m[n++] = 'a'; w16(0xc00c); w16(T_A); w16(1);
	is(read_question(&q) == FORMERR, "a compression pointer in the question is FORMERR");
	for (unsigned c = 64; c < 256; c += 8) {
		wquery("x.test", T_A);
		m[12] = (uint8_t)c;
		each(read_question(&q) == FORMERR, "length byte %u", c);
	}
	all("a label of another kind in the question is FORMERR");
	memset(name, 'a', sizeof name);
	name[63] = name[127] = name[191] = '.';
	name[253] = '\0';
	wquery(name, T_A);
	each(read_question(&q) == NOERROR && q.key.name_len == 255, "255");
	name[253] = 'a';
	name[254] = '\0';
	wquery(name, T_A);
	each(read_question(&q) == FORMERR, "256");
	all("a name of 255 bytes is read, one of 256 is FORMERR");
	wquery("", T_NS);
	is(read_question(&q) == NOERROR && q.key.name_len == 1, "the root is a name");
	wquery("x.test", T_OPT);
	is(read_question(&q) == FORMERR, "a question for OPT is FORMERR");
	head(0, F_RD, 1, 0, 0, 65535);
	wquestion("x.test", T_A);
	for (unsigned i = 0; i < 5000; i++)
		wrr("", 99, 0, NULL, 0);
	is(read_question(&q) == FORMERR, "65,535 records announced and 5,000 there are FORMERR");
}

/* ---- Answers */

static struct answer ans;
static uint8_t *exact;

static const char *read_answer(const char *name, unsigned type)
{
	struct key k;
	uint8_t head2[600];

	lab_key(&k, name, type, 0);
	free(exact);
	exact = calloc(1, n ? n : 1);
	memcpy(exact, m, n);
	head2[0] = (uint8_t)(k.len);
	memcpy(head2 + 1, k.b, k.len);
	seed("answer", m, n);
	if (!answer_matches(exact, n, &k))
		return "no match";
	return answer_read(&ans, exact, n, &k);
}

static void test_answers(void)
{
	static const uint8_t ip[16] = { 192, 0, 2, 1 };
	static const struct { unsigned type; size_t len; } wrong[] = { { T_A, 3 }, { T_A, 5 }, { T_A, 0 }, { T_AAAA, 4 }, { T_AAAA, 15 }, { T_NS, 0 }, { T_MX, 2 },
		{ T_MX, 1 }, { T_SRV, 6 }, { T_SOA, 20 }, { T_CNAME, 0 } };
	struct key k;
	char deep[8];
	size_t whole, at;

	head(9, F_QR | F_RD | F_RA, 1, 2, 0, 1);
	wquestion("www.test", T_A);
	wrr_name(NULL, T_CNAME, 300, 0, "web.test");
	wrr("web.test", T_A, 60, ip, 4);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) == NULL && ans.verdict == V_SUCCESS && ans.ttl == 60 && ans.ancount == 2 && ans.nttl == 2 && ans.opt,
	    "an answer with an alias is a success, its TTL the lowest");
	whole = n;
	for (n = 0; n < whole; n++)
		each(read_answer("www.test", T_A) != NULL, "%zu bytes", n);
	all("no beginning of an answer is an answer");
	n = whole;
	m[n++] = 1;
	each(read_answer("www.test", T_A) == NULL && ans.len == whole, "len %zu", ans.len);
	all("bytes after the last record are cut off");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_A);
	wrr_name(NULL, T_CNAME, 300, 0, "web.test");
	is(read_answer("www.test", T_A) == NULL && ans.verdict == V_NODATA, "an alias without the asked type is no success");
	is(read_answer("www.test", T_CNAME) != NULL, "an answer to another type is none");
	put16at(m + 12 + 10, T_ANY);
	is(read_answer("www.test", T_ANY) == NULL && ans.verdict == V_SUCCESS, "any record is a success for ANY");
	head(9, F_QR | NXDOMAIN, 1, 0, 1, 0);
	wquestion("no.test", T_A);
	wsoa("test", 900, 300);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_NXDOMAIN && ans.soa_ttl == 300, "NXDOMAIN: its life is the SOA's minimum");
	head(9, F_QR, 1, 0, 1, 0);
	wquestion("no.test", T_A);
	wsoa("test", 200, 300);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_NODATA && ans.soa_ttl == 200, "NODATA: its life is the SOA's TTL if lower");
	head(9, F_QR | SERVFAIL, 1, 1, 0, 0);
	wquestion("no.test", T_A);
	wrr(NULL, T_A, 60, ip, 4);
	is(read_answer("no.test", T_A) == NULL && ans.verdict == V_OTHER, "SERVFAIL with a record is no success");
	for (unsigned code = 0; code < 30; code++) {
		uint8_t o[6] = { 0, EDNS_EDE, 0, 2, 0, (uint8_t)code };
		head(9, F_QR | NXDOMAIN, 1, 0, 0, 1);
		wquestion("ad.test", T_A);
		wopt(1232, 0, o, 6);
		each(read_answer("ad.test", T_A) == NULL && (ans.verdict == V_SUCCESS) == (code >= 15 && code <= 17), "code %u", code);
	}
	all("an Extended DNS Error of 15 to 17, and no other, makes an answer final");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_A);
	wrr(NULL, T_A, 0x80000001, ip, 4);
	is(read_answer("www.test", T_A) == NULL && ans.ttl == 0 && get32at(exact + n - 10) == 0, "a TTL with the top bit set is 0");
	for (size_t i = 0; i < COUNT(wrong); i++) {
		static const uint8_t zero[32] = { 1, 1, 1, 1 };
		head(9, F_QR, 1, 1, 0, 0);
		wquestion("www.test", wrong[i].type);
		wrr(NULL, wrong[i].type, 60, zero, wrong[i].len);
		each(read_answer("www.test", wrong[i].type) != NULL, "%s of %zu bytes", type_text(wrong[i].type), wrong[i].len);
	}
	all("RDATA of a wrong length for its type is malformed");
	head(9, F_QR, 1, 2, 0, 0);
	wquestion("www.test", T_MX);
	wrr_name(NULL, T_MX, 60, 2, "mail.test");
	put16at(m + n - 13, 5);
	wrr(NULL, T_MX, 60, ip, 4);
	is(read_answer("www.test", T_MX) != NULL, "a name that runs beyond its RDATA is malformed");
	head(9, F_QR, 1, 1, 0, 0);
	wquestion("www.test", T_NS);
	wname(NULL); w16(T_NS); w16(1); w32(60); w16(2);
	at = n;
	w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_NS) != NULL, "a name that points at itself is malformed, not followed");
	n = at;
	w16(0xc000 | (unsigned)(at + 2));
	w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_NS) != NULL, "a name that points forward is malformed");
	n = at;
	w16(0xc00c - 1);
	is(read_answer("www.test", T_NS) != NULL, "a name that points into the header is malformed");
	for (unsigned c = 0x40; c < 0xc0; c += 0x10) {
		n = at;
		m[n++] = (uint8_t)c;
		m[n++] = 0;
		each(read_answer("www.test", T_NS) != NULL, "%02x", c);
	}
	all("label types that do not exist are malformed");
	head(9, F_QR, 1, 400, 0, 0);
	wquestion("www.test", 16);
	for (unsigned i = 0; i < 400; i++) {
		wname(i == 0 ? "www.test" : NULL);
		if (i > 0) {
			n -= 2;
			w16(0xc000 | (unsigned)(at = i == 1 ? 12 + 14 : at));
		}
		w16(16); w16(1); w32(60); w16(2); w16(0x0161);
		at = n - 14;
	}
	each(read_answer("www.test", 16) != NULL || ans.nttl == 400, "pointers to pointers");
	all("400 records whose names are pointers to pointers end");
	head(9, F_QR, 1, 2, 0, 0);
	wquestion("www.test", T_A);
	wrr(NULL, T_A, 60, ip, 4);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) != NULL, "an OPT among the answers is malformed");
	head(9, F_QR, 1, 0, 0, 2);
	wquestion("www.test", T_A);
	wopt(1232, 0, NULL, 0);
	wopt(1232, 0, NULL, 0);
	is(read_answer("www.test", T_A) != NULL, "two OPT records are malformed");

	head(9, F_QR, 1, 1, 0, 3);                      /* the OPT first, names behind it that point behind it */
	wquestion("www.test", T_SRV);
	wrr_name(NULL, T_SRV, 60, 6, "host.test");
	wopt(1232, 0, "\0\12\0\10cccccccc", 12);
	at = n;
	wrr("host.test", T_A, 50, ip, 4);
	wname("x"); n--; w16(0xc000 | (unsigned)at); w16(T_MX); w16(1); w32(40); w16(4); w16(5); w16(0xc000 | (unsigned)at);
	is(read_answer("www.test", T_SRV) == NULL && ans.opt, "an OPT before other records is found");
	whole = ans.len;
	answer_strip(&ans, exact);
	lab_key(&k, "www.test", T_SRV, 0);
	n = ans.len;
	memcpy(m, exact, n);
	is(n == whole - 23 && read_answer("www.test", T_SRV) == NULL && !ans.opt && ans.nttl == 3 && ans.ttl == 40 && get16at(exact + n - 2) == (0xc000u | (unsigned)(at - 23)),
	    "and taken out: the pointers that lead behind it are moved");

	lab_key(&k, "www.test", T_A, 0);
	for (int i = 0; i < 100000; i++) {
		unsigned type = (const unsigned[]){ T_A, T_SRV, T_MX, T_SOA, T_TXT }[i % 5], changes = lab_rnd() % 4;
		head(9, F_QR, 1, 2, 1, 2);
		wquestion("www.test", type);
		wrr_name(NULL, T_CNAME, 60, 0, "web.test");
		if (type == T_A)
			wrr("web.test", T_A, 60, ip, 4);
		else
			wrr_name("web.test", type == T_SRV ? T_SRV : T_MX, 60, type == T_SRV ? 6 : 2, "mail.test");
		wsoa("test", 100, 50);
		wopt(1232, 0, "\0\17\0\2\0\20", 6);
		wrr_name(NULL, T_NS, 30, 0, "ns.test");
		whole = n;
		for (; changes > 0; changes--)
			m[26 + lab_rnd() % (n - 26)] = (uint8_t)(lab_rnd() % 3 ? lab_rnd() : 0xc0 + lab_rnd() % 2);
		if (read_answer("www.test", type) != NULL)
			continue;
		each(ans.len <= n && ans.nttl < 100, "round %d: longer than it was", i);
		answer_strip(&ans, exact);
		{
			struct answer first = ans, second;
			uint8_t *again = calloc(1, ans.len);
			memcpy(again, exact, ans.len);
			lab_key(&k, "www.test", type, 0);
			each(answer_read(&second, again, ans.len, &k) == NULL && !second.opt && second.len == first.len && second.nttl == first.nttl &&
			    second.ttl == first.ttl, "round %d: the stripped answer is not read again", i);
			free(again);
		}
		if (getenv("SEEDS") != NULL && i > 300)
			break;
	}
	all("100,000 mutated answers: each is malformed, or still whole after its OPT has been taken out");
}

/* ---- Writing */

static void test_writing(void)
{
	uint8_t out[MSG_MAX];
	struct question q;
	struct key k;
	size_t len;

	for (unsigned i = 0; i < 16; i++) {
		lab_key(&k, i & 1 ? "a.rather.long.name.for.a.test.example" : ".", T_AAAA, (i & 2 ? KEY_DO : 0) | (i & 4 ? KEY_CD : 0));
		len = query_write(out, 77, &k, true, i & 8);
		each(len <= UPSTREAM_QUERY_MAX && question_read(&q, out, len) == NOERROR && q.edns && q.edns_size == 1232 && q.id == 77 && q.key.len == k.len &&
		    memcmp(q.key.b, k.b, k.len) == 0, "case %u", i);
		each(!(i & 8) || len % 128 == 0, "case %u: padded to %zu", i, len);
		len = query_write(out, 77, &k, false, false);
		each(question_read(&q, out, len) == NOERROR && !q.edns && !(key_flags(&q.key) & KEY_DO), "case %u without EDNS", i);
	}
	all("a question to an upstream is what its key says, with OPT, size 1232 and DO, padded for TLS");
	wquery("Some.Name.test", T_A);
	question_read(&q, m, n);
	len = error_write(out, &q, REFUSED, EDE_PROHIBITED);
	is(len == n && (get16at(out + 2) & 15) == REFUSED && memcmp(out + 12, m + 12, n - 12) == 0 && get16at(out + 10) == 0,
	    "an error without OPT is header and question, as the client spelled it");
	wquery_opt("Some.Name.test", T_A, 0x8000, NULL, 0);
	question_read(&q, m, n);
	len = error_write(out, &q, BADVERS, EDE_NONE);
	is(len == n && get16at(out + 10) == 1 && (get16at(out + 2) & 15) == 0 && out[len - 6] == 1, "BADVERS is written in header and OPT");
	len = error_write(out, &q, SERVFAIL, EDE_NETWORK);
	is(len == n + 6 && get16at(out + len - 2) == EDE_NETWORK && get16at(out + len - 6) == EDNS_EDE, "an Extended DNS Error stands in the OPT");
}

/* ---- Cache */



/* Puts an answer into the cache. */
static void put(const char *name, unsigned type, uint32_t ttl, size_t size)
{
	struct keep keep = { .key = &put_key, .ttl = ttl };
	static struct answer a;

	wanswer(name, type, ttl, size);
	lab_key(&put_key, name, type, 0);
	if (answer_read(&a, m, n, &put_key) != NULL) {
		each(false, "the test's own answer for %s is wrong", name);
		return;
	}
	keep.hash = hash_bytes(put_key.b, put_key.len);
	cache_put(&keep, &a);
}

static struct slot *get(const char *name, unsigned type, unsigned flags)
{
	struct key k;

	lab_key(&k, name, type, flags);
	return cache_find(&k, hash_bytes(k.b, k.len));
}

static bool live(const char *name, unsigned type, unsigned flags)
{
	struct slot *s = get(name, type, flags);

	return s != NULL && !entry_expired(entry_at((size_t)(s->at - 1) * 4));
}

/* The TTL of the first record of a reply from the cache. */
static uint32_t reply_ttl(const char *name, unsigned type, const char *spelled)
{
	struct peer p = { .kind = PEER_UDP };
	static uint8_t out[UDP_SIZE];
	struct answer a;
	struct key k;
	size_t len;

	p.from.in.sin_family = AF_INET;
	p.from.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	wquery(spelled, type);
	outbox.n = 0;
	client_ask(&p, m, n);
	len = outbox.n > 0 ? outbox.iov[0].iov_len : 0;
	outbox.n = 0;
	memcpy(out, outbox.buf[0], len);
	lab_key(&k, name, type, 0);
	if (len < n || get16at(out) != 0x1234 || (out[3] & 15) != 0 || memcmp(out + 12, m + 12, n - 12) != 0 || !answer_matches(out, len, &k) || answer_read(&a, out, len, &k) != NULL)
		return NO_TTL;
	return a.ttl;
}

static void test_cache(void)
{
	static const size_t sizes[] = { 4096, 4097, 4100, 5000, 8191, 65536, 1 << 20 };
	const char *broken = NULL;
	char name[64];
	unsigned kept = 0, lost = 0;

	cfg.cache_max_ttl = 86400;
	cache_again(65536);
	put("www.test", T_A, 100, 60);
	is(live("www.test", T_A, 0), "what was put into the cache is found");
	is(!live("www.test", T_AAAA, 0) && !live("www.test", T_A, KEY_DO) && !live("www.test", T_A, KEY_CD) && !live("ww.test", T_A, 0),
	    "another name, type, DO or CD is another answer");
	each(reply_ttl("www.test", T_A, "www.test") == 100, "at once");
	now += SEC(40);
	each(reply_ttl("www.test", T_A, "WwW.tEsT") == 60, "after 40 s: %u", reply_ttl("www.test", T_A, "WwW.tEsT"));
	now += SEC(59);
	each(reply_ttl("www.test", T_A, "www.test") == 1, "after 99 s");
	all("a reply from the cache has the client's ID and spelling, and TTLs lowered by the time spent there");
	now += SEC(1);
	is(!live("www.test", T_A, 0), "at the end of its TTL it is gone");
	cfg.serve_stale = 100;
	put("stale.test", T_A, 10, 60);
	now += SEC(11);
	each(get("stale.test", T_A, 0) != NULL && !live("stale.test", T_A, 0), "stale");
	now += SEC(98);
	each(get("stale.test", T_A, 0) != NULL, "the last second of it");
	now += SEC(1);
	each(get("stale.test", T_A, 0) == NULL, "over");
	cfg.serve_stale = 0;
	all("with serve-stale an expired answer stays for so long, as expired");
	put("twice.test", T_A, 100, 60);
	put("twice.test", T_A, 50, 60);
	is(reply_ttl("twice.test", T_A, "twice.test") == 50 && cache.entries == 1, "a newer answer takes the place of the older");
	put("twice.test", T_AAAA, 100, 60);
	put("other.test", T_A, 100, 60);
	{
		uint8_t wire[NAME_MAX_WIRE];
		size_t k = name_parse(wire, "twice.test");
		is(cache_clear(wire, k) == 2 && !live("twice.test", T_A, 0) && !live("twice.test", T_AAAA, 0) && live("other.test", T_A, 0), "clear NAME drops every type of it and nothing else");
	}
	is(cache_clear(NULL, 0) == 1 && cache.entries == 0 && cache.used == 0, "clear drops everything");
	cfg.cache_min_ttl = 60;
	put("short.test", T_A, 5, 60);
	is(reply_ttl("short.test", T_A, "short.test") == 60 || get("short.test", T_A, 0) != NULL, "cache-min-ttl lifts the TTLs");
	cfg.cache_min_ttl = 0;
	put("none.test", T_A, 100, 60);
	cache_again(0);
	put("none.test", T_A, 100, 60);
	is(!live("none.test", T_A, 0) && cache_clear(NULL, 0) == 0, "a cache of 0 bytes keeps nothing");

	for (size_t i = 0; i < COUNT(sizes); i++) {
		cache_again(sizes[i]);
		for (int k = 0; k < 6000 && broken == NULL; k++) {
			static const size_t lens[] = { 60, 60, 100, 500, 1232, 4096, 8192, 65535 };
			snprintf(name, sizeof name, "n%u.test", lab_rnd() % 3000);
			put(name, k % 3 ? T_A : T_TXT, 1 + lab_rnd() % 300, lens[lab_rnd() % (sizes[i] < 65536 ? 4 : 8)]);
			if (lab_rnd() % 4 == 0)
				live(name, T_A, 0);
			if (lab_rnd() % 50 == 0)
				now += SEC(lab_rnd() % 40);
			if (lab_rnd() % 1000 == 0)
				cache_clear(NULL, 0);
			if (k % (sizes[i] > 100000 ? 16 : 1) == 0)
				broken = cache_broken();
			each(broken == NULL, "size %zu, step %d: %s", sizes[i], k, broken);
		}
		broken = NULL;
	}
	all("in caches of 4,096 bytes to 1 MiB every invariant holds after each of 6,000 random changes");
	cache_again(65536);
	put("big.test", T_TXT, 100, 65535);
	each(!live("big.test", T_TXT, 0), "65,535 bytes in 64 KiB");
	put("eighth.test", T_TXT, 100, cache.size / 8 + 1);
	each(!live("eighth.test", T_TXT, 0), "over an eighth");
	put("fits.test", T_TXT, 100, cache.size / 8 - 200);
	each(live("fits.test", T_TXT, 0), "under an eighth");
	each(cache_broken() == NULL, "%s", cache_broken());
	all("an answer of over an eighth of the cache is not kept");
	for (unsigned secret = 0; secret < 40; secret++) {
		random_bytes(hash_secret, sizeof hash_secret);
		cache_again(1 << 20);
		for (unsigned i = 0; i < 9000; i++) {
			snprintf(name, sizeof name, secret & 1 ? "n%u.x.test" : "host-%07x.test", i);
			put(name, T_A, 300, 60);
		}
		kept = 0;
		for (unsigned i = 0; i < 9000; i++) {
			snprintf(name, sizeof name, secret & 1 ? "n%u.x.test" : "host-%07x.test", i);
			kept += live(name, T_A, 0);
		}
		each(kept > 8950, "%u of 9,000 kept", kept);
	}
	all("whatever the secret, 9,000 names in sequence find room in 1 MiB");
	cache_again(65536);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		put(name, T_A, 3000, 60);
	}
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof name, "cold%u.test", i);
		put(name, T_A, 3000, 60);
		snprintf(name, sizeof name, "hot%u.test", i % 20);
		if (reply_ttl(name, T_A, name) == NO_TTL) {
			lost++;
			put(name, T_A, 3000, 60);
		}
	}
	each(lost <= 25, "%u of 5,000 questions for them miss", lost);
	all("answers that are used stay while 5,000 others pass through a full cache: at most 1 of 200 questions for them misses");
	each(cache.evicted > 3000 && cache_broken() == NULL, "evicted %llu", (unsigned long long)cache.evicted);
	all("evictions are counted");
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "old%u.test", i);
		put(name, T_A, 5, 60);
	}
	now += SEC(10);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		reply_ttl(name, T_A, name);
	}
	for (unsigned i = 0; i < 250; i++) {
		snprintf(name, sizeof name, "new%u.test", i);
		put(name, T_A, 3000, 60);
	}
	for (unsigned i = 0, k = 0; i < 20; i++) {
		snprintf(name, sizeof name, "hot%u.test", i);
		k += live(name, T_A, 0);
		if (i == 19)
			is(k >= 18, "expired answers make room before those in use");
	}
	cache_again(65536);
	{
		struct key k;
		unsigned same = 0;
		uint32_t first = 0;
		for (unsigned i = 0; i < 2000; i++) {
			snprintf(name, sizeof name, "h%u.test", i);
			lab_key(&k, name, T_A, 0);
			if (i == 0)
				first = hash_bytes(k.b, k.len) % 1024;
			else
				same += hash_bytes(k.b, k.len) % 1024 == first;
		}
		is(same < 20, "the hash spreads names");
		lab_key(&k, "h.test", T_A, 0);
		first = hash_bytes(k.b, k.len);
		random_bytes(hash_secret, sizeof hash_secret);
		is(first != hash_bytes(k.b, k.len), "the hash has a secret of its own in each run");
	}
	cache_again(65536);
}

/* The published vectors of SipHash-2-4 and HalfSipHash-2-4: the key is the bytes from 0 on, and so is the message. */
static void test_hash(void)
{
	static const struct { unsigned n; uint64_t wide; uint32_t narrow; } vectors[] = {
		{ 0, 0x726fdb47dd0e0e31, 0x5b9f35a9 }, { 1, 0x74f839c593dc67fd, 0xb85a4727 }, { 4, 0xcf2794e0277187b7, 0x89466e2a },
		{ 7, 0xab0200f58b01d137, 0xc563cf8b }, { 8, 0x93f5f5799a932462, 0x8f84b8d0 }, { 15, 0xa129ca6149be45e5, 0x972bfe74 } };
	static const uint16_t one = 1;
	const word key[2] = { (word)(WORD_BITS == 64 ? 0x0706050403020100 : 0x03020100), (word)(WORD_BITS == 64 ? 0x0f0e0d0c0b0a0908 : 0x07060504) };
	bool big = *(const uint8_t *)&one == 0;
	uint8_t p[17];

	for (size_t i = 0; i < COUNT(vectors); i++) {
		size_t whole = vectors[i].n / (WORD_BITS / 8) * (WORD_BITS / 8);
		for (size_t k = 0; k < vectors[i].n; k++)       /* the words of a big-endian machine stand the other way round */
			p[1 + k] = (uint8_t)(big && k < whole ? k ^ (WORD_BITS / 8 - 1) : k);
		each(sip_hash(key, p + 1, vectors[i].n, 2, 4) == (word)(WORD_BITS == 64 ? vectors[i].wide : vectors[i].narrow), "%u bytes", vectors[i].n);
	}
	all("the hash is SipHash, or HalfSipHash on 32 bits: with 2 and 4 rounds it gives the published values");
	for (unsigned c = 0; c < 256 * sizeof(word); c++) {
		word w = (word)-1 ^ (word)(c % 256 ^ 255) << 8 * (c / 256);
		each(lower_word(w) == ((word)-1 ^ (word)(lower((uint8_t)c) ^ 255) << 8 * (c / 256)), "%02x", c);
		w = (word)(c % 256) << 8 * (c / 256);
		each(lower_word(w) == (word)lower((uint8_t)c) << 8 * (c / 256), "%02x", c);
	}
	all("a word of any bytes becomes lower case as they do one by one");
}

/* ---- Limits */

static void test_limits(void)
{
	unsigned sent[3] = { 0 };

	is(sizeof(struct query) + 2 * sizeof(struct ask) + sizeof(struct waiter) + sizeof(struct holder) <= 1000,
	    "a query in flight, its client and two upstreams take at most 1,000 bytes");
	cfg.rate = 10;
	now += SEC(100);
	for (int i = 0; i < 30; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 10 && sent[RATE_DROP] == 10 && sent[RATE_TRUNCATE] == 10, "rate 10: a burst of 10, then half dropped and half truncated");
	now += SEC(1) / 2;
	memset(sent, 0, sizeof sent);
	for (int i = 0; i < 20; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 5, "after half a second 5 more");
	now += SEC(3600);
	memset(sent, 0, sizeof sent);
	for (int i = 0; i < 20; i++)
		sent[rate_check(1)]++;
	is(sent[RATE_OK] == 10, "after an hour no more than a burst");
	is(rate_check(2) == RATE_OK, "another client has its own");
	for (unsigned i = 0; i < 100000; i++)
		rate_check(i);
	is(true, "100,000 clients fit the fixed table");
	cfg.rate = 0;
}

/* ---- Config */

/* Does the normal form of text have this line? */
static bool config_says(const char *text, const char *line)
{
	char all[70000], want[4200];
	const char *got = config_of(text);

	snprintf(all, sizeof all, "\n%s", got ? got : errors);
	snprintf(want, sizeof want, "\n%s\n", line);
	return strstr(all, want) != NULL;
}

static void test_config(void)
{
#define PIN "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	static const struct { const char *line, *normal; } good[] = {
		{ "198.18.2.1 1", "198.18.2.1@53 1" }, { "198.18.2.1@5353 65535", "198.18.2.1@5353 65535" }, { "2001:db8::1 2 tcp", "2001:db8::1@53 2 tcp" },
		{ "fe80::1%br-lan@54 3", "fe80::1%br-lan@54 3" }, { "198.18.2.1 1 tls", "198.18.2.1@853 1 tls" }, { "198.18.2.1 1 tls=DNS.Test", "198.18.2.1@853 1 tls=dns.test" },
		{ "198.18.2.1 1 tls=dns.test.", "198.18.2.1@853 1 tls=dns.test" }, { "198.18.2.1 1 tls pin=" PIN, "198.18.2.1@853 1 tls pin=" PIN },
		{ "198.18.2.1 1 final noverify tls", "198.18.2.1@853 1 tls noverify final" }, { "198.18.2.1 1 domain=Corp.Test domain=10.in-addr.arpa", "198.18.2.1@53 1 domain=corp.test. domain=10.in-addr.arpa." },
		{ "198.18.2.1 1 domain=.", "198.18.2.1@53 1 domain=." }, { "\t198.18.2.1\t 1   # comment", "198.18.2.1@53 1" }, { "198.18.2.1 1 // comment", "198.18.2.1@53 1" },
		{ "198.18.2.1 1\r", "198.18.2.1@53 1" } };
	static const struct { const char *line, *normal; } directive[] = {
		{ "listen 127.0.0.1", "listen 127.0.0.1@53" }, { "listen ::1@5300", "listen ::1@5300" }, { "listen *", "listen *@53" }, { "listen *@5300", "listen *@5300" }, { "# none", "listen *@53" },
		{ "admin 127.0.0.2@99", "admin 127.0.0.2@99" }, { "admin ::1@99", "admin ::1@99" }, { "admin off", "admin off" }, { "# none", "admin 127.0.0.1@5353" },
		{ "allow 198.18.2.0/24", "allow 198.18.2.0/24" }, { "allow 10.0.0.1\nallow ::/0 fe80::1", "allow 10.0.0.1/32 ::/0 fe80::1/128" },
		{ "# none", "allow 127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fc00::/7 fe80::/10" },
		{ "rate 100", "rate 100" }, { "# none", "rate 0" }, { "cache-size 64k", "cache-size 65536" }, { "cache-size 2M", "cache-size 2097152" }, { "cache-size 0", "cache-size 0" },
		{ "# none", "cache-size 1048576" }, { "cache-min-ttl 60", "cache-min-ttl 60" }, { "# none", "cache-min-ttl 0" }, { "cache-max-ttl 60", "cache-max-ttl 60" },
		{ "# none", "cache-max-ttl 86400" }, { "cache-negative 60", "cache-negative 60" }, { "# none", "cache-negative 0" }, { "serve-stale 60", "serve-stale 60" },
		{ "# none", "serve-stale 0" }, { "timeout 100", "timeout 100" }, { "# none", "timeout 5000" }, { "patience 1", "patience 1" }, { "# none", "patience 1000" },
		{ "queries 16", "queries 16" }, { "# none", "queries 1024" }, { "tcp-clients 7", "tcp-clients 7" }, { "# none", "tcp-clients 256" }, { "user root", "user root" },
		{ "# none", "user nobody" }, { "ca-file /x/y.pem", "ca-file /x/y.pem" }, { "log error", "log error" }, { "log debug syslog", "log debug syslog" }, { "# none", "log info" } };
	static const char *const wrong[] = { "198.18.2.1", "198.18.2.1 0", "198.18.2.1 65536", "198.18.2.1 x", "198.18.2.1 1 udp", "198.18.2.1@0 1", "198.18.2.1@65536 1", "198.18.2.1@ 1",
		"198.18.2.256 1", "10.1 1", "::1::2 1", "198.18.2.1 1 tcp tls", "198.18.2.1 1 tls=", "198.18.2.1 1 tls=a..b", "198.18.2.1 1 tls=a/b", "198.18.2.1 1 pin=" PIN,
		"198.18.2.1 1 noverify", "198.18.2.1 1 tls noverify pin=" PIN, "198.18.2.1 1 tls pin=AAAA", "198.18.2.1 1 tls pin=" PIN "=", "198.18.2.1 1 tls pin=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8!",
		"198.18.2.1 1 domain=", "198.18.2.1 1 domain=a..b", "198.18.2.1 1 final=1", "0.0.0.0 1", "224.0.0.1 1", "255.255.255.255 1", ":: 1", "ff02::1 1", "nonsense", "listen", "listen a", "listen 127.0.0.1 53",
		"listen 127.0.0.1@0", "admin", "admin 198.18.2.1@53", "admin 127.0.0.1", "admin *@53", "admin on", "allow", "allow 10.0.0.0/33", "allow x", "rate", "rate -1", "rate 1 2", "rate 1000001",
		"cache-size", "cache-size 5g", "cache-size -1", "cache-size 100", "cache-size 4097m", "cache-size k", "cache-min-ttl x", "cache-min-ttl 604801", "cache-max-ttl 0", "cache-min-ttl 100000", "cache-negative 86401",
		"serve-stale x", "timeout 0", "timeout 60001", "timeout 5s", "patience 0", "patience 60001", "queries 0", "queries 65537", "tcp-clients 0", "tcp-clients 65537", "user", "user a b",
		"ca-file", "log", "log loud", "log info file", "log info syslog x", "Listen 127.0.0.1", "127.0.0.1 1" };
	static const char *const fixed[] = { "198.18.2.1 1", "198.18.2.1 1 tls=dns.test pin=" PIN " final domain=a.test domain=b\\.c.test\nlog debug syslog\nallow ::/0\nlisten *@99\nca-file /a\nadmin off",
		"fe80::1%eth0@99 7 tcp\n2001:db8::1 1 tls noverify\nlisten 127.0.0.1@5300\nlisten ::1@5300\ncache-size 0\nuser 65534", "198.18.2.1 1 domain=\\000\\255\\032\\..test" };
	char line[4200], once[65536], path[] = "/tmp/dnsproxy-unit.XXXXXX";
	static struct config c;
	struct text e = { errors, sizeof errors, 0 };
	char from[80];
	FILE *f;
	int fd;

	for (size_t i = 0; i < COUNT(good); i++)
		each(config_says(good[i].line, good[i].normal), "%s: %s", good[i].line, normal[0] ? normal : errors);
	all("every form of an upstream line is read, and printed in its normal form");
	for (size_t i = 0; i < COUNT(directive); i++) {
		snprintf(line, sizeof line, "%s\n198.18.2.1 1", directive[i].line);
		each(config_says(line, directive[i].normal), "%s: %s", directive[i].line, normal[0] ? normal : errors);
	}
	all("every directive is read, and printed in its normal form; each has its default");
	for (size_t i = 0; i < COUNT(directives); i++) {
		unsigned k = 0;
		for (size_t j = 0; j < COUNT(directive); j++)
			k += strncmp(directive[j].line, directives[i].name, strlen(directives[i].name)) == 0 && directive[j].line[strlen(directives[i].name)] == ' ';
		each(k > 0, "%s", directives[i].name);
	}
	all("no directive is left out of these tests");
	for (size_t i = 0; i < COUNT(wrong); i++) {
		bool up = wrong[i][0] != ':' && (wrong[i][0] < '0' || wrong[i][0] > '9');
		snprintf(line, sizeof line, "%s\n%s", up ? "198.18.2.9 1" : wrong[i], up ? wrong[i] : "198.18.2.9 1");
		each(config_of(line) == NULL, "%s is accepted", wrong[i]);
		for (const char *l = errors; *l != '\0'; l = strchr(l, '\n') + 1)
			each(strncmp(l, up ? "argument:2: " : "argument:1: ", 12) == 0 && strstr(l, "expected") != NULL, "%s: %s", wrong[i], l);
		each(errors[0] != '\0', "%s: refused without a word", wrong[i]);
	}
	all("every wrong line is an error, with its place and what was expected");
	for (size_t i = 0; i < COUNT(fixed); i++) {
		const char *p = config_of(fixed[i]);
		each(p != NULL, "%s: %s", fixed[i], errors);
		snprintf(once, sizeof once, "%s", normal);
		p = config_of(once);
		each(p != NULL && strcmp(p, once) == 0, "%s: %s", fixed[i], p ? p : errors);
	}
	all("the normal form of a normal form is itself");
	each(config_of("198.18.2.1 1\n198.18.2.1 2") == NULL && strstr(errors, "argument:2:"), "the same twice");
	each(config_of("127.0.0.1@5300 1\nlisten 127.0.0.1@5300") == NULL, "our own address");
	each(config_of("127.0.0.1@5300 1\nlisten *@5300") == NULL, "our own address behind *");
	each(config_of("127.0.0.1@5301 1\nlisten 127.0.0.1@5300") != NULL, "another port: %s", errors);
	each(config_of("listen 127.0.0.1@5300") == NULL, "no upstream");
	all("no upstream, the same upstream twice, and one that is our own listen address are errors");
	snprintf(once, sizeof once, "%s", "");
	for (unsigned i = 0; i < MAX_UPSTREAMS; i++)
		snprintf(once + strlen(once), sizeof once - strlen(once), "198.18.2.%u 1\n", i + 1);
	each(config_of(once) != NULL, "32: %s", errors);
	strcat(once, "198.18.2.200 1\n");
	each(config_of(once) == NULL && strncmp(errors, "argument:33: ", 13) == 0, "33: %s", errors);
	all("32 upstreams are read, the 33rd is an error");
	fd = mkstemp(path);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (f != NULL) {
		fputs("# comment\n\n198.18.2.1 x\r\nrate y\n198.18.2.2 1 # fine\n", f);
		fputc('a', f);
		fputc('\0', f);
		fputs("b\n", f);
		for (int i = 0; i < 5000; i++)
			fputc('z', f);
		fputs("\nlast 1", f);
		fclose(f);
		source = (struct source){ .file = path, .lines = (char *[]){ NULL } };
		each(!config_read(&c, &e, from), "read");
		for (unsigned l = 1; l < 10; l++) {
			snprintf(line, sizeof line, "%s:%u: ", path, l);
			each((strstr(errors, line) != NULL) == (l == 3 || l == 4 || l == 6 || l == 7 || l == 8), "line %u: %s", l, errors);
		}
		unlink(path);
	} else
		each(false, "no temporary file");
	all("all errors of a file are told with FILE:LINE: words, NUL bytes, long lines, a last line without its end");
	for (int i = 0; i < 20000; i++) {
		static const char *const words[] = { "198.18.2.1", "::1", "1", "tls", "tls=", "tls=a.b", "pin=", "domain=", "listen", "allow", "log", "cache-size", "#", "//", "*", "@", "10.0.0.0/8", "%", "\\", "4096m", "\377", "-1", "noverify" };
		line[0] = '\0';
		for (unsigned k = lab_rnd() % 6; k > 0; k--) {
			strcat(line, words[lab_rnd() % COUNT(words)]);
			strcat(line, lab_rnd() % 4 ? " " : lab_rnd() % 2 ? "\n" : "");
		}
		if (config_of(line) != NULL) {
			snprintf(once, sizeof once, "%s", normal);
			each(config_of(once) != NULL && strcmp(once, normal) == 0, "%s: %s", line, errors);
		} else
			each(errors[0] != '\0', "%s: refused without a word", line);
		if (getenv("SEEDS") != NULL && i > 200)
			break;
	}
	all("20,000 random configurations: refused with words, or their normal form is a fixed point");
}

/* ---- Admin */

static void test_admin(void)
{
	static const char *const wrong[] = { "", " ", "statu", "STATUS", "status x", "status;clear", "clear a b", "clear a..b", "log", "log loud", "log info debug", "query", "query a b c",
		"query a..b", "query x OPT", "query x AXFR", "query x NOTYPE", "help me", "reload now", "top 10", "\001", "status\tx", "#", "clear #" };
	static const char *const http[] = { "GET / HTTP/1.1", "GET /status HTTP/1.1", "POST /metrics HTTP/1.1", "clear HTTP/1.0", "GET /metrics HTTP/2", "get /metrics HTTP/1.1", "GET  /metrics HTTP/1.1", " HTTP/1.1", "status HTTP/" };
	char name[300], *p;

	cache_again(65536);
	put("other.test", T_A, 100, 60);
	put("plain.test", T_A, 100, 60);
	each(strncmp(admin_of("help"), "help", 4) == 0, "help");
	for (size_t i = 0; i < COUNT(commands); i++)
		each(strstr(admin_of("help"), commands[i].name) != NULL, "help lacks %s", commands[i].name);
	all("help names every command");
	each(strncmp(admin_of("status"), "dnsproxy " VERSION " uptime ", 17 + strlen(VERSION)) == 0, "%s", admin_of("status"));
	each(strstr(admin_of("status"), "\ncache entries 2 bytes ") != NULL && strstr(admin_of("status"), "\nentry plain.test. A IN expires 20") != NULL, "%s", admin_of("status"));
	all("status says what the cache holds");
	each(strcmp(admin_of("clear PLAIN.test"), "Cache cleared (1 entries)\n") == 0, "by name");
	each(strcmp(admin_of("clear"), "Cache cleared (1 entries)\n") == 0, "all");
	each(strcmp(admin_of("clear"), "Cache cleared (0 entries)\n") == 0, "none");
	all("clear says how many");
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "log %s", level_names[i]);
		each(strncmp(admin_of(name), "Log level ", 10) == 0 && (int)log_level == i, "%s", name);
	}
	log_level = L_ERROR;
	all("log sets the level");
	for (size_t i = 0; i < COUNT(wrong); i++)
		each(strncmp(admin_of(wrong[i]), "error: ", 7) == 0, "\"%s\": %s", wrong[i], admin_of(wrong[i]));
	all("what is no command, or has wrong arguments, is an error");
	for (size_t i = 0; i < COUNT(http); i++)
		each(strncmp(admin_of(http[i]), "HTTP/1.1 4", 10) == 0 || strncmp(admin_of(http[i]), "error: ", 7) == 0, "%s: %s", http[i], admin_of(http[i]));
	all("an HTTP request other than GET /metrics is refused");
	each(strcmp(admin_of("GET /metrics HTTP/1.1"), "(more)") == 0 && strcmp(admin_of("GET /metrics HTTP/1.0"), "(more)") == 0, "metrics");
	all("GET /metrics waits for its headers");
	cache_again(1 << 20);
	for (unsigned i = 0; i < 256; i++) {
		struct keep keep = { .key = &put_key, .ttl = 100 };
		head(7, F_QR, 1, 1, 0, 0);
		m[n++] = 2; m[n++] = 'q'; m[n++] = (uint8_t)i; m[n++] = 0; w16(T_A); w16(1);
		wrr(NULL, T_A, 100, "abcd", 4);
		memcpy(put_key.b, m + 12, 4);
		put_key.b[2] = lower(put_key.b[2]);
		key_set(&put_key, 4, T_A, 1, 0);
		keep.hash = hash_bytes(put_key.b, put_key.len);
		each(answer_read(&ans, m, n, &put_key) == NULL, "byte %u", i);
		cache_put(&keep, &ans);
	}
	for (p = (char *)(uintptr_t)admin_of("status"); *p != '\0'; p++)
		each(*p == '\n' || (*p >= ' ' && *p <= '~'), "byte %d", *p);
	all("whatever bytes names have, status is printable ASCII");
	admin_of("top");
}

/* ---- TLS */

static void test_tls(void)
{
	static const struct { const char *want, *cert; bool match; } names[] = {
		{ "dns.test", "dns.test", true }, { "dns.test", "DNS.Test", true }, { "dns.test", "dns.tes", false }, { "dns.test", "dns.test.", false }, { "a.dns.test", "*.dns.test", true },
		{ "A.dns.test", "*.DNS.test", true }, { "dns.test", "*.dns.test", false }, { "a.b.dns.test", "*.dns.test", false }, { "dns.test", "*.test", false }, { "test", "*", false },
		{ "a.test", "*", false }, { "a.dns.test", "*", false }, { "a.dns.test", "*.", false }, { "a.dns.test", "a.*.test", false }, { "ab.dns.test", "a*.dns.test", false },
		{ "ab.dns.test", "*b.dns.test", false }, { "a.dns.test", "*.*.test", false }, { "dns.test", "", false }, { "a.dns.test", "**.dns.test", false }, { "a.dns.test", "*dns.test", false } };
	static const struct { unsigned tag; const char *s; int64_t want; } times[] = { { 0x17, "700101000000Z", 0 }, { 0x17, "000101000000Z", 946684800 }, { 0x17, "491231235959Z", 2524607999 },
		{ 0x17, "500101000000Z", -631152000 }, { 0x18, "20500101000000Z", 2524608000 }, { 0x18, "20240229120000Z", 1709208000 }, { 0x18, "21060207062815Z", 4294967295 },
		{ 0x17, "7001010000", 0 }, { 0x17, "x00101000000Z", 0 }, { 0x18, "", 0 } };
	uint8_t pin[32], other[32], wire[300];
	struct der d, v, whole;
	unsigned tag;
	char text[64];

	for (size_t i = 0; i < COUNT(names); i++)
		each(cert_name_matches(names[i].want, (const uint8_t *)names[i].cert, strlen(names[i].cert)) == names[i].match, "%s, certificate for %s", names[i].want, names[i].cert);
	each(!cert_name_matches("dns.test", (const uint8_t *)"dns.test\0.evil", 14), "a NUL");
	all("a certificate's name matches as RFC 6125 says: whole, or one wildcard label in front of two more");
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 32; k++)
			pin[k] = (uint8_t)lab_rnd();
		each(pin_parse(other, pin_text(pin)) && memcmp(pin, other, 32) == 0, "%s", pin_text(pin));
	}
	all("pins survive the way to base64 and back");
	for (int i = 0; i < 44; i++) {
		snprintf(text, sizeof text, "%s", pin_text(pin));
		text[i] = i == 43 ? 'A' : '*';
		each(!pin_parse(other, text), "place %d", i);
	}
	snprintf(text, sizeof text, "%.43s", pin_text(pin));
	each(!pin_parse(other, text), "without its =");
	all("a pin with a wrong letter or length is refused");
	for (size_t i = 0; i < COUNT(times); i++) {
		struct der t = { (const uint8_t *)times[i].s, (const uint8_t *)times[i].s + strlen(times[i].s) };
		each(der_time(t, times[i].tag) == times[i].want, "%s is %lld", times[i].s, (long long)der_time(t, times[i].tag));
	}
	all("dates of certificates become seconds, leap years and both centuries right");
	for (unsigned a = 0; a < 256; a++)
		for (unsigned len = 0; len < 12; len++) {
			uint8_t *p = calloc(1, len + 1);
			for (unsigned i = 0; i < len; i++)
				p[i] = (uint8_t)(i == 1 ? a : i == 0 ? 0x30 : lab_rnd() % 2 ? 0xff : lab_rnd() % 4);
			d = (struct der){ p, p + len };
			for (int turns = 0; der_next(&d, &tag, &v, &whole); turns++)
				each(v.p <= v.end && v.end <= p + len && d.p <= p + len && turns < 12, "length byte %02x in %u bytes", a, len);
			free(p);
		}
	all("a DER element never reaches beyond the bytes that are there");
	for (int i = 0; i < 20000; i++) {
		static struct auth a;
		static struct spec s;
		size_t k = lab_rnd() % sizeof wire;
		static const uint8_t shape[] = { 0x30, 0x82, 1, 0, 0x30, 0x81, 0xf0, 0xa0, 3, 2, 1, 2, 2, 1, 1, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0, 0xa3, 0x20, 0x30, 0x1e, 0x30, 0x1c, 6, 3, 0x55, 0x1d, 0x11,
			4, 0x15, 0x30, 0x13, 0x82, 8, 'd', 'n', 's', '.', 't', 'e', 's', 't', 0x87, 4, 127, 0, 0, 1 };
		for (size_t at = 0; at < k; at++)
			wire[at] = at < sizeof shape && lab_rnd() % 16 ? shape[at] : (uint8_t)lab_rnd();
		memcpy(a.cert, wire, k);
		a.len = k;
		a.spec = &s;
		s.addr.u.in.sin_family = AF_INET;
		strcpy(s.name, "dns.test");
		cert_names(&a);
		cert_key_use_ok(&a);
		auth_pin(&a);
		each(strlen(a.seen) < sizeof a.seen, "round %d", i);
	}
	all("20,000 random certificates are looked at without harm");
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	log_level = L_ERROR;
	clock_read();
	started = now;
	config_of("192.0.2.1 1");
	{
		struct text e = { errors, sizeof errors, 0 };
		char from[80];
		config_read(&cfg, &e, from);
	}
	lab_tables();
	test_tools();
	test_round_trips();
	test_names();
	test_questions();
	test_answers();
	test_writing();
	test_cache();
	test_hash();
	test_limits();
	test_config();
	test_admin();
	test_tls();
	puts("end");
	return 0;
}
