/* unit.c - tests of the program's parts from inside: messages, cache, configuration, admin lines, certificates
 *
 * Each line of output is a promise: "ok TEXT", or "not ok TEXT" with "# what was seen" in front of it; "end" at the end.
 * Alone:  ./test.sh unit
 * or:     cc -g -fsanitize=address,undefined -o unit tests/unit.c -lbearssl && ./unit
 * A case is a word in a table wherever that can say it, see rows(); messages are written as say() in lab.h tells. With
 * SEEDS=DIR the inputs are kept there, for the fuzz targets. */
#include "fuzz.c"

static unsigned nbad;
static char bad[600];

/* One of the things that make a promise, and what is said where it is wrong; all() sums up those since the last of them. */
#define each(good, ...) do { if (!(good) && nbad++ == 0) snprintf(bad, sizeof bad, __VA_ARGS__); } while (0)

static void all(const char *promise) {
	text_clean(bad);
	if (nbad > 0) printf("# %u wrong, the first: %s\n", nbad, bad);
	printf("%s %s\n", nbad == 0 ? "ok" : "not ok", promise);
	fflush(stdout);
	nbad = 0;
}

static void is(bool good, const char *promise) {
	each(good, "it");
	all(promise);
}

/* A promise and its cases, lines of "WANT<-INPUT|INPUT...": of(INPUT) must give WANT, what begins with WANT when that ends in
 * "~", or the input itself in a line without "<-". What stands behind a ">" of the input is its argument, and the numbers that
 * it begins with are in num. */
struct row { const char *promise, *(*of)(char *in, char *arg), *cases; };
static int64_t num[8];

static void rows(const struct row *r, size_t n) {
	static char text[8000], was[8000];

	for (; n > 0; n--, r++) {
		snprintf(text, sizeof text, "%s", r->cases);
		for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL; ) {
			char *in = strstr(line, "<-"), *want = in ? line : was, *next = in ? in + 2 : line, *arg;
			if (in != NULL) *in = '\0';
			while ((arg = strsep(&next, "|")) != NULL) {
				char *digits = strcpy(was, arg);
				size_t k = strcspn(want, "~");
				const char *got;
				for (size_t i = 0; i < COUNT(num); i++) num[i] = strtoll(digits, &digits, 10);
				in = strsep(&arg, ">");
				got = r->of(in, arg);
				each(want[k] ? strncmp(got, want, k) == 0 : strcmp(got, want) == 0, "\"%.250s\" gives %.300s", was, got);
			}
		}
		all(r->promise);
	}
}

/* Text for a result; good until the next. */
static char formed[2000];
#define form(...) (snprintf(formed, sizeof formed, __VA_ARGS__), (const char *)formed)

/* An input of a kind that fuzz.c has a target for: what is promised there holds for it, also when some of its bytes behind the
 * first "from" are changed, again and again. It is kept as a seed, if the environment says where. */
static void input(const char *kind, const void *p, size_t n, size_t from) {
	static uint8_t copy[70000];
	static unsigned number_;
	const char *dir = getenv("SEEDS");
	unsigned rounds = dir != NULL || n <= from || n > 500 ? 0 : 10 * (unsigned)n;
	FILE *f;

	snprintf(said, sizeof said, "%s/%s/%u", dir ? dir : "", kind, ++number_);
	if (dir != NULL && (f = fopen(said, "w")) != NULL) {
		fwrite(p, 1, n, f);
		fclose(f);
	}
	for (target(kind)(p, n); rounds > 0; rounds--) {
		memcpy(copy, p, n);
		for (unsigned changes = 1 + rnd(3); changes > 0; changes--)
			copy[from + rnd((uint32_t)(n - from))] = (uint8_t)(rnd(2) ? rnd(256) : rnd(2) ? copy[rnd((uint32_t)n)] : 0xc0);
		target(kind)(copy, n);
	}
}

/* ---- Tools and names */

/* "LO HI>TEXT" */
static const char *number_of(char *in, char *arg) { return form("%lld", (long long)number(arg, num[0], num[1])); }

static const char *address_of(char *in, char *arg) {
	struct addr a;
	return addr_parse(&a, in) ? addr_text(&a) : "none";
}

/* "NETWORK>ADDRESS" */
static const char *net_of(char *in, char *arg) {
	struct cidr c;
	struct addr a;
	return cidr_parse(&c, in) && addr_parse(&a, arg) && addr_in(&a, &c, 1) ? "in" : "out";
}

/* "ADDRESS>ADDRESS": one client or two? */
static const char *client_of(char *in, char *arg) {
	struct addr a, b;
	return addr_parse(&a, in) && addr_parse(&b, arg) && addr_client(&a) == addr_client(&b) ? "one" : "two";
}

/* Pieces of text into eight bytes of room. */
static const char *cut_of(char *in, char *arg) {
	static char buf[8];
	struct text t = { .p = buf, .size = sizeof buf };
	for (char *s; (s = strsep(&in, " ")) != NULL; ) text_add(&t, "%s", s);
	return t.len == strlen(buf) ? buf : "another length";
}

static const char *name_of(char *in, char *arg) {
	uint8_t name[NAME_MAX_WIRE] = { 0 };
	size_t n = name_parse(name, in);
	return n == 0 ? "none" : n == name_len(name) ? name_text(name) : "another length";
}

/* "NAME>SUFFIX" */
static const char *below_of(char *in, char *arg) {
	uint8_t name[NAME_MAX_WIRE], other[NAME_MAX_WIRE];
	return name_below(name, name_parse(name, in), other, name_parse(other, arg)) ? "below" : "not";
}

/* ---- Time and limits */

/* "COUNT MS SPREAD LOST VAIN FROM TO BACKOFF": with so many answers in MS +- SPREAD milliseconds, of 50 so many lost, at most VAIN
 * of 1,000 resends are in vain in the end, and then the wait is within FROM and TO. A BACKOFF of -1 begins anew. */
static const char *round_trips_of(char *in, char *arg) {
	static struct upstream u;
	int64_t count = num[0], round = MS(num[1]), spread = MS(num[2]), lost = num[3], early = 0;
	unsigned patience;

	if (num[7] < 0) u = (struct upstream){ .patience = 96 };
	u.backoff = (unsigned)MAX(num[7], 0);
	patience = u.patience;
	for (int64_t i = 0; i < count; i++) {
		usec took = round - spread + rnd((unsigned)spread + 1) + rnd((unsigned)spread + 1);
		if (took > upstream_rto(&u) && u.backoff == 0) {
			upstream_weigh(&u, took, true);
			u.backoff = 0;
			early += i >= count / 2;            /* sent again: nothing is learnt */
		} else if (i % 50 < lost)
			upstream_weigh(&u, 2 * round, false);
		else
			upstream_learn(&u, took);
		each(u.rtt >= 0 && u.rttvar >= 0 && upstream_rto(&u) >= MS(20) && upstream_rto(&u) < SEC(240), "round trip %d", (int)i);
	}
	early = count > 0 ? early * 2000 / count : 0;
	if (early <= num[4] && early >= 7 * lost && u.backoff == 0 && llabs(u.rtt - round) <= spread + 1 &&
	    upstream_rto(&u) >= MS(num[5]) && upstream_rto(&u) <= MS(num[6]) && (lost == 0 || u.patience < patience))
		return "right";
	return form("%d early, round trip %lld us, wait %lld us, patience %u", (int)early, (long long)u.rtt, (long long)upstream_rto(&u), u.patience);
}

/* "CLIENT MS N MORE": so long after what was before a client asks N times, and MORE others: how many are answered, dropped, truncated */
static const char *rate_of(char *in, char *arg) {
	unsigned got[3] = { 0 };
	cfg.rate = 10;
	time_passes(MS(num[1]));
	for (int64_t n = 0; n < num[2] + num[3]; n++) got[rate_check((uint64_t)(num[0] + MAX(n - num[2] + 1, 0)))]++;
	cfg.rate = 0;
	return form("%u %u %u", got[RATE_OK], got[RATE_DROP], got[RATE_TRUNCATE]);
}

/* "LATER IN_FLIGHT MS": how many of ten turns, so much later and with so many queries in flight, wait for more if it takes MS */
static const char *turns_of(char *in, char *arg) {
	unsigned before = slept;

	time_passes(MS(num[0]));
	queries.used = (unsigned)num[1];
	sleep_takes = MS(num[2]);
	for (int i = 0; i < 10; i++) {
		now -= MS(3);                   /* the turn itself has taken so long */
		gather();
	}
	queries.used = 0;
	return form("%u", slept - before);
}

/* ---- Questions and answers */

/* What the program makes of a client's message: "silence", an RCODE, or what was asked and how. */
static const char *question_of(char *in, char *arg) {
	struct question q;
	const uint8_t *p;
	int rcode;
	char size[20];
	say("%s", in);
	input("client", m.p, m.n, 2);
	rcode = question_read(&q, p = exactly(m.p, m.n), m.n);
	if (rcode != NOERROR) return rcode < 0 ? "silence" : rcode_text((unsigned)rcode);
	each(q.id == 0x1234 && q.name == p + 12, "ID %x", q.id);
	snprintf(size, sizeof size, " edns=%u", q.edns_size);
	return form("%s %s%s%s%s%s%s", name_text(q.key.b), type_text(key_type(&q.key)), memcmp(q.name, q.key.b, q.key.name_len) ? " mixed" : "", q.edns ? size : "",
	    key_flags(&q.key) & KEY_DO ? " do" : "", key_flags(&q.key) & KEY_CD ? " cd" : "", q.want_ad ? " ad" : "");
}

static struct answer ans;

/* What the program makes of the message m, as the answer to its own question or to one for another type. If it is one, what fuzz.c
 * promises must hold: it stands without its OPT, goes out and is kept. */
static const char *answer_read_of(unsigned type) {
	static const char *const verdicts[] = { "none", "other", "nxdomain", "nodata", "success" };
	char ttl[20] = "", soa[20] = "", less[30] = "";
	uint8_t *p;
	struct key k;
	input("answer", m.p, m.n, 12);
	p = exactly(m.p, m.n);
	if (!lab_key(&k, p, m.n, type) || !answer_matches(p, m.n, &k)) return "no match";
	if (answer_read(&ans, p, m.n, &k) != NULL) return "malformed";
	if (ans.ttl != NO_TTL) snprintf(ttl, sizeof ttl, " ttl %u", ans.ttl);
	if (ans.soa_ttl != NO_TTL) snprintf(soa, sizeof soa, " soa %u", ans.soa_ttl);
	if (ans.len < m.n) snprintf(less, sizeof less, " less %zu", m.n - ans.len);
	return form("%s %u of %u%s%s%s%s", verdicts[ans.verdict], ans.ancount, ans.records, ttl, soa, ans.opt ? " opt" : "", less);
}

/* A message as the answer to its own question, "MESSAGE>TYPE" to one for that type. */
static const char *answer_of(char *in, char *arg) {
	say("%s", in);
	return answer_read_of(arg ? (unsigned)type_parse(arg) : 0);
}

/* "RECORDS": so many, each with a name that is a pointer to the name of the one before */
static const char *pointers_of(char *in, char *arg) {
	say("!8000:1,%s,0,0 www.test/TXT www.test/TXT/60 [ =0161 ]", in);
	for (int64_t i = 1; i < num[0]; i++) say("@%zu/TXT/60 [ =0161 ]", i == 1 ? 26 : m.n - 14);
	return answer_read_of(0);
}

/* Does the answer lead to an address of this side of the network? */
static const char *inside_of(char *in, char *arg) {
	struct key k;
	if (strcmp(answer_of(in, arg), "malformed") == 0 || !lab_key(&k, m.p, m.n, 0)) return "malformed";
	return answer_leads_inside(&ans, &k) ? "inside" : "outside";
}

/* ---- Config and admin: '!' ends a line */

static const char *lines_of(char *in) {
	for (char *s = in; (s = strchr(s, '!')) != NULL; ) *s = '\n';
	return in;
}

/* The normal form of these lines behind a good one, or ">alone". */
static char *config_in(char *in, const char *alone) {
	const char *text = form("%s%s", alone ? "" : "198.18.2.9 1\n", lines_of(in));
	input("config", text, strlen(text), 0);
	return config_of(text) != NULL ? normal : NULL;
}

/* The lines of it that begin with the word that the input begins with, or else the last, an upstream's. */
static const char *normal_of(char *in, char *arg) {
	static char out[400];
	struct text t = { .p = out, .size = sizeof out };
	size_t n = strcspn(in, " ");
	const char *last = "";
	char *rest = config_in(in, arg);

	if (rest == NULL) return errors;
	for (const char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; last = line)
		if (strncmp(line, in, n) == 0 && line[n] == ' ')
			text_add(&t, "%s%s", t.len > 0 ? "!" : "", line);
	return t.len > 0 ? out : last;
}

/* "refused" when each error has its place and what was expected. */
static const char *wrong_of(char *in, char *arg) {
	if (config_in(in, arg) != NULL) return "accepted";
	for (const char *l = errors; *l != '\0'; l = strchr(l, '\n') + 1)
		if (strncmp(l, "argument:2: ", 12) != 0 || strstr(l, "expected") == NULL)
			return l;
	return "refused";
}

static const char *admin_line_of(char *in, char *arg) {
	input("admin", lines_of(in), strlen(in), 0);
	return *admin_of(in) != '\0' ? (const char *)admin_said.p : "(more)";
}

/* ---- TLS */

/* "WANTED>CERTIFICATE'S" */
static const char *cert_name_of(char *in, char *arg) {
	return cert_name_matches(in, (const uint8_t *)arg, strlen(arg)) ? "match" : "none";
}

/* "TAG>DATE" */
static const char *cert_time_of(char *in, char *arg) {
	const uint8_t *p = (const uint8_t *)arg;
	return form("%lld", (long long)der_time((struct der){ p, p + strlen(arg) }, (unsigned)num[0]));
}

/* ---- The cases, a row each */

#define COOKIE "=000a00080102030405060708"
#define IP "[ =c0000201 ]"
#define ASKED "!100:1,0,0,1 example.com/A opt/1232/8000 [ " COOKIE " ]"
#define ONE(type) "!8180:1,1,0,0 x.test/" type " @/" type "/60 "
#define MANY(type, rdata) "!8000:1,2,1,2 www.test/" type " @/CNAME/60 [ web.test ] web.test/" type "/60 [ " rdata " ] " \
	"test/SOA/100 [ ns.test @ *16 =00000032 ] opt/1232/0 [ =000f00020010 ] @/NS/30 [ ns.test ]"
#define ALIAS "!8180:1,2,0,1 www.test/A @/CNAME/300 [ web.test ] web.test/A/60 " IP " opt/1232/0 [ ]"
#define L61 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define L63 L61 "aa"
#define PIN "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define UP "198.18.2.1 1"
static const struct row table[] = {
	{ "a number is the whole word and within its bounds", number_of, "0<-0 9>0\n9<-0 9>9\n7<-0 9>007\n65535<-1 65535>65535\n"
	    "-1<-0 9>10|0 9>|-5 9>-1|0 9>+1|0 9> 1|0 9>1 |0 9>0x1|0 9>1k|0 9223372036854775807>99999999999999999999|"
	    "0 9223372036854775807>18446744073709551617|1 65535>65536" },
	{ "an address is numeric, whole, and written in its normal form", address_of,
	    "127.0.0.1|::1|fe80::1%br-lan|255.255.255.255|::ffff:192.0.2.1\n2001:db8::1<-2001:DB8:0:0:0:0:0:1\n"
	    "none<-|10.1|1|0x7f000001|127.0.0.01|1.2.3.4.5|256.1.1.1|localhost|fe80::1%|::g|1.2.3.4%eth0|"
	    "fe80::1%anamethatistoolongforaninterface|1:2:3:4:5:6:7:8:9|[::1]" },
	{ "a network holds its first and last address and not those beside it", net_of,
	    "in<-10.0.0.0/8>10.255.255.255|172.16.0.0/12>172.31.255.255|192.0.2.7>192.0.2.7|192.0.2.128/25>192.0.2.255|"
	    "0.0.0.0/0>203.0.113.9|::/0>2001:db8::1|fc00::/7>fdff::1|2001:db8::/33>2001:db8:7fff::1|::1/128>::1\n"
	    "out<-10.0.0.0/8>11.0.0.0|172.16.0.0/12>172.32.0.0|192.0.2.7>192.0.2.6|192.0.2.128/25>192.0.2.127|"
	    "0.0.0.0/0>::1|::/0>127.0.0.1|fc00::/7>fe00::1|2001:db8::/33>2001:db8:8000::1|::1/128>::2" },
	{ "text that does not fit is cut, and ends with NUL", cut_of, "abcdefg<-abc defghijk lmn" },
	{ "an IPv6 client is its /64, an IPv4 client its address", client_of, "one<-2001:db8:1:2:3::4>2001:db8:1:2:ffff::5\n"
	    "two<-192.0.2.1>192.0.2.2|2001:db8:1:2::1>2001:db8:1:3::1" },
	{ "names in text form become wire names and back, in lower case, escaped; what is no name is refused", name_of,
	    ".\ncom.<-com\nwww.example.com.<-WWW.Example.COM.\na\\.b.c.<-a\\.b.c\na.a.<-\\097.\\065\n\\000\\255.x.<-\\000\\255.x\n"
	    "a\\\\b.<-a\\\\b\nsp\\032ace.<-sp ace\n_25._tcp.x.<-_25._tcp.x\n\\..\\..<-\\..\\.\n*.x.<-*.x\nsemi\\;colon.<-semi;colon\n"
	    "none<-|..|.a|a..b|a..|a\\|\\256|\\299.x" },
	{ "a label of 63 and a name of 255 bytes are the longest", name_of, L63 ".<-" L63 "|" L63 ".\n"
	    L63 "." L63 "." L63 "." L61 ".<-" L63 "." L63 "." L63 "." L61 "\nnone<-" L63 "a|" L63 "a.|" L63 "." L63 "." L63 "." L61 "a" },
	{ "a suffix matches at whole labels only", below_of, "below<-www.example.com>example.com|example.com>example.com|example.com>.\n"
	    "not<-notexample.com>example.com|com>example.com|example.org>example.com|a\\007example.com>example.com" },

	{ "an address of this side is found as A, AAAA, mapped, behind an alias, and as a hint of HTTPS and SVCB", inside_of,
	    "inside<-" ONE("A") "[ =0a000001 ]|" ONE("A") "[ =7f000001 ]|" ONE("A") "[ =ac1fffff ]|" ONE("A") "[ =c0a80101 ]|"
	    ONE("A") "[ =a9fe0101 ]|" ONE("A") "[ *4 ]|" ONE("AAAA") "[ *16 ]|" ONE("AAAA") "[ *15 =01 ]|" ONE("AAAA") "[ =fc00 *14 ]|"
	    ONE("AAAA") "[ =fdff *14 ]|" ONE("AAAA") "[ =febf *14 ]|" ONE("AAAA") "[ *10 =ffff0a000001 ]|"
	    "!8180:1,2,0,0 x.test/A @/CNAME/60 [ y.test ] y.test/A/60 [ =0a000001 ]|" ONE("HTTPS") "[ =000100 =00040004 =0a000001 ]|"
	    ONE("HTTPS") "[ =000100 =00010003026832 =00040008 =08080808 =c0a80101 ]|" ONE("SVCB") "[ =0001 dns.test =00060010 =fd00 *14 ]|"
	    ONE("SVCB") "[ =000100 =00040004 =08080808 =00060010 *10 =ffff7f000001 ]\n"
	    "outside<-" ONE("A") "[ =0b000001 ]|" ONE("A") "[ =ac200001 ]|" ONE("A") "[ =64400001 ]|" ONE("AAAA") "[ =2001 *14 ]|"
	    ONE("AAAA") "[ *10 =ffff08080808 ]|" ONE("HTTPS") "[ =000100 =00040004 =08080808 ]|" ONE("HTTPS") "[ =000100 =00050004 =0a000001 ]|"
	    ONE("HTTPS") "[ =000100 =0004ffff =0a000001 ]|" ONE("HTTPS") "[ =000100 =00060004 =0a000001 ]|" ONE("TXT") "[ =0a000001 ]|"
	    "!8180:1,0,0,1 x.test/A @/A/60 [ =0a000001 ]" },
	{ "a question is read: type, name in both spellings, CD as part of the key, AD, OPT; an option or another record is no matter",
	    question_of, "www.example.com. AAAA mixed<-Q www.Example.com/AAAA\n" L63 ".test. A<-Q " L63 ".test/A\n. NS<-Q ./NS\n"
	    "x.test. A cd ad<-!130:1,0,0,0 x.test/A\nexample.com. A edns=1232 do ad<-" ASKED "\n"
	    "x.test. A edns=4096<-!100:1,0,0,2 x.test/A @/TYPE250/0 [ *9 ] opt/4096/0 [ ]" },
	{ "QDCOUNT not 1, records in answer or authority, missing records and a byte after the last are FORMERR", question_of,
	    "FORMERR<-!100:0,0,0,0 x.test/A|!100:2,0,0,0 x.test/A|!100:65535,0,0,0 x.test/A|!100:1,1,0,0 x.test/A|!100:1,65535,0,0 x.test/A|"
	    "!100:1,0,1,0 x.test/A|!100:1,0,65535,0 x.test/A|!100:1,0,0,1 x.test/A|!100:1,0,0,65535 x.test/A|"
	    "!100:1,0,0,65535 x.test/A *55000|" ASKED " =00" },
	{ "a label of another kind, a pointer, type OPT, an OPT with a name, and an option that is cut or too long are FORMERR", question_of,
	    "FORMERR<-Q =40 *99|Q =50 *99|Q =7f *199|Q =80 *199|Q =b0 *199|Q =bf *199|Q =c0 *199|Q =f0 *300|Q =ff *300|"
	    "Q =0161c00c00010001|Q x.test/TYPE41|!100:1,0,0,1 x.test/A x.test/TYPE41/0 [ ]|"
	    "!100:1,0,0,1 x.test/A opt/1232/0 [ =000a00 ]|!100:1,0,0,1 x.test/A opt/1232/0 [ =000a0009 *8 ]" },

	{ "an alias without the asked type, an answer to another type and SERVFAIL with a record are no success; any is one for ANY", answer_of,
	    "nodata 1 of 1 ttl 300<-R www.test/A @/CNAME/300 [ web.test ]\nno match<-R www.test/A @/CNAME/300 [ web.test ]>CNAME\n"
	    "success 1 of 1 ttl 300<-R www.test/ANY @/CNAME/300 [ web.test ]\nother 1 of 1 ttl 60<-!8002:1,1,0,0 no.test/A @/A/60 " IP },
	{ "RDATA of a wrong length for its type is malformed", answer_of, "malformed<-" ONE("A") "[ *3 ]|" ONE("A") "[ *5 ]|" ONE("A") "[ ]|"
	    ONE("AAAA") "[ *4 ]|" ONE("AAAA") "[ *15 ]|" ONE("NS") "[ ]|" ONE("CNAME") "[ ]|" ONE("MX") "[ *1 ]|" ONE("MX") "[ *2 ]|"
	    ONE("SRV") "[ *6 ]|" ONE("SOA") "[ *20 ]|" ONE("SOA") "[ *21 ]|" ONE("SOA") "[ *23 ]" },
	{ "a name that points at itself, forward or into the header, or has labels of a kind that does not exist, is malformed", answer_of,
	    "malformed<-" ONE("NS") "[ @36 ]|" ONE("NS") "[ @38 @36 ]|" ONE("NS") "[ @11 ]|" ONE("NS") "[ =4000 ]|" ONE("NS") "[ =5000 ]|"
	    ONE("NS") "[ =6000 ]|" ONE("NS") "[ =7000 ]|" ONE("NS") "[ =8000 ]|" ONE("NS") "[ =9000 ]|" ONE("NS") "[ =a000 ]|"
	    ONE("NS") "[ =b000 ]" },
	{ "a name that runs beyond its RDATA or through the pointer to it, or has 256 bytes by way of a pointer, is malformed", answer_of,
	    "malformed<-!8000:1,2,0,0 www.test/MX @/MX/60 =00050000 mail.test @/MX/60 " IP "|!8000:1,2,0,0 www.test/TXT @/TXT/60 [ =010a ] "
	    "@39/TXT/60 [ =0161 ]|R " L63 "." L63 "." L61 "." L61 "a/A =0161c00c00010001 *4 " IP },
	{ "an OPT among the answers and a second one are malformed", answer_of, "malformed<-!8000:1,2,0,0 www.test/A @/A/60 " IP
	    " opt/1232/0 [ ]|!8000:1,0,0,2 www.test/A opt/1232/0 [ ] opt/1232/0 [ ]" },
	{ "records of several types, a zone, and names behind an OPT are read", answer_of,
	    "success 2 of 3 ttl 60 soa 50 opt less 38<-" MANY("A", "*4") "|" MANY("SRV", "*6 mail.test") "|" MANY("MX", "*2 mail.test") },
	{ "an answer with an alias is a success, its TTL the lowest", answer_of, "success 2 of 2 ttl 60 opt less 11<-" ALIAS },
	{ "bytes after the last record are cut off, and the OPT", answer_of, "success 2 of 2 ttl 60 opt less 12<-" ALIAS " =01" },
	{ "an OPT before other records is found, and they stay behind with it, whose names may point behind it", answer_of,
	    "success 1 of 1 ttl 60 opt less 66<-!8000:1,1,0,3 www.test/SRV @/SRV/60 [ *6 host.test ] opt/1232/0 [ " COOKIE " ] "
	    "host.test/A/50 " IP " =0178 @78/MX/40 [ =0005 @78 ]" },
	{ "records whose names are pointers to pointers end", pointers_of, "success 100 of 100 ttl 60<-100\nmalformed<-400" },

	{ "the wait is 350 ms before the first answer, then twice the first round trip and more, and little more than a steady one",
	    round_trips_of, "right<-0 0 0 0 0 350 350 -1|1 40 0 0 0 100 100 0|200 40 0 0 0 45 45 0" },
	{ "of a round trip that varies by a quarter or by all of itself fewer than one in fifty is taken for lost", round_trips_of,
	    "right<-20000 40 10 0 20 45 65 0|20000 40 40 0 20 45 120 0" },
	{ "where six in a hundred are lost it waits less, and fewer than six are taken for lost that are not", round_trips_of,
	    "right<-20000 40 40 3 60 45 120 0" },
	{ "a jump from 10 to 150 ms that a back-off has waited for is learnt at once; the way back by and by", round_trips_of,
	    "right<-100 10 1 0 0 20 20 -1|1 150 0 0 0 300 400 4|100 150 5 0 0 150 170 0|400 10 1 0 0 20 20 0" },
	{ "0 us on loopback and then 5 s by way of a satellite are learnt", round_trips_of,
	    "right<-100 0 0 0 0 20 20 -1|30 5000 0 0 0 5000 8000 9" },
	{ "100,000 round trips up to a minute leave the wait between 20 ms and four minutes", round_trips_of,
	    "right<-100000 30000 30000 0 1000 20 240000 -1" },

	{ "rate 10: a burst of 10, then half dropped and half truncated; after half a second 5 more, after an hour no more than a burst",
	    rate_of, "10 10 10<-1 100000 30\n5 ~<-1 500 20\n10 ~<-1 3600000 20" },
	{ "rate 10: another client has its own, and 100,000 fit the fixed table", rate_of, "1 0 0<-2 0 1\n~<-3 0 1 100000" },

	{ "with 16 queries in flight a turn waits for more, but not for 100 ms after that took more than 2 ms", turns_of,
	    "0<-0 15 0\n10<-0 16 1\n1<-0 16 3\n10<-110 16 1" },

	{ "every form of an upstream line is read, and printed in its normal form, which is its own", normal_of,
	    "198.18.2.1@53 1<-" UP "|\t198.18.2.1\t 1   # comment|" UP " // comment|" UP "\r\n2001:db8::1@53 2 tcp<-2001:db8::1 2 tcp\n"
	    "198.18.2.1@5353 65535|fe80::1%br-lan@54 3\n198.18.2.1@853 1 tls<-" UP " tls\n"
	    "198.18.2.1@853 1 tls=dns.test<-" UP " tls=DNS.Test|" UP " tls=dns.test.\n198.18.2.1@853 1 tls pin=" PIN "<-" UP " tls pin=" PIN "\n"
	    "198.18.2.1@853 1 tls noverify final<-" UP " final noverify tls\n198.18.2.1@53 1 domain=.<-" UP " domain=.\n"
	    "198.18.2.1@53 1 domain=corp.test. domain=10.in-addr.arpa.<-" UP " domain=Corp.Test domain=10.in-addr.arpa\n"
	    "198.18.2.1@853 1 tls=dns.test pin=" PIN " final domain=a.test. domain=b-c.test.|198.18.2.1@53 1 domain=x_y.test.|"
	    "198.18.2.1@853 1 tls pin=" PIN " pin=JKNPSTVWZbefijlmnpqrstuvyz12345679+/JKNPSTs=" },
	{ "every directive is read, and printed in its normal form, which is its own", normal_of,
	    "listen 127.0.0.1@53<-listen 127.0.0.1\nlisten ::1@5300|listen *@5300\nlisten *@53<-listen *\nadmin 127.0.0.2@99|admin ::1@99|"
	    "admin off\nallow 198.18.2.0/24\nallow 10.0.0.1/32 ::/0 fe80::1/128<-allow 10.0.0.1!allow ::/0 fe80::1\nrate 100\n"
	    "cache-size 65536<-cache-size 64k\ncache-size 2097152<-cache-size 2M\ncache-size 0|cache-min-ttl 60|cache-max-ttl 60|"
	    "cache-negative 60|serve-stale 60|timeout 100|patience 1|queries 16|tcp-clients 7|user root|ca-file /x/y.pem|log error|"
	    "log debug syslog\nhosts /x lan.<-hosts /x LAN\nhosts /x|block /dev/null|rebind-protect on" },
	{ "every wrong line is an error, with its place and what was expected", wrong_of, "refused<-198.18.2.1|198.18.2.1 0|198.18.2.1 65536|"
	    "198.18.2.1 x|" UP " udp|198.18.2.1@0 1|198.18.2.1@65536 1|198.18.2.1@ 1|198.18.2.256 1|10.1 1|::1::2 1|" UP " tls=|"
	    UP " tls=a..b|" UP " tls=a..|" UP " tls=a/b|" UP " pin=" PIN "|" UP " tls noverify pin=" PIN "|" UP " tls pin=AAAA|"
	    UP " tls pin=" PIN "=|" UP " tls pin=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8?|" UP " tls pin=AAEC?wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=|"
	    UP " domain=|" UP " domain=a..b|" UP " final=1|"
	    "198.18.2.1 -1|198.18.2.1 4294967297|198.18.2.1 0x1|198.18.2.1 1.5|01.2.3.4 1|1.2.3.4.5 1|198.18.2.1%lo 1|::1%nosuch@x 1|::1 :: 1|"
	    "0.0.0.0 1|224.0.0.1 1|255.255.255.255 1|:: 1|127.0.0.1 1|ff02::1 1\n"
	    "refused<-nonsense|listen|listen a|listen 127.0.0.1 53|listen 127.0.0.1@0|admin|admin 198.18.2.1@53|admin 127.0.0.1|"
	    "admin *@53|admin on|allow|allow 10.0.0.0/33|allow x|rate|rate -1|rate 1 2|cache-size|cache-size 5g|cache-size -1|"
	    "cache-size 100|cache-size 4097m|cache-size k|cache-min-ttl x|cache-min-ttl 100000|serve-stale x|timeout 5s|hosts|"
	    "hosts /x lan more|hosts /x .|hosts /x *.lan|block|block /none/of/it|block /dev/null x|rebind-protect|rebind-protect on off|"
	    "user|user a b|ca-file|log|log info file|log info syslog x|Listen 127.0.0.1|listen 1.2.3|allow ::/129|allow 10.0.0.0/|allow 10.0.0.0/a|"
	    "allow 10.0.0.0/-1|allow 10.0.0.0/8/8|allow /8|allow 10/8|allow fe80::1%lo/64|allow 10.0.0.0/ 8|cache-size 99999999999999m|"
	    "cache-max-ttl -5|timeout 1 2|timeout 99999999999999999999|include x|listen 1.2.3.4@x|fe80:: 1::1 1|timeout 500ms|"
	    "198.18.2.1 1 final final x|block /" },
	{ "no upstream, the same upstream twice, and one that is our own listen address are errors", normal_of,
	    "argument:3:~<-" UP "!198.18.2.1 2\nargument:~<-127.0.0.1@5300 1!listen 127.0.0.1@5300|127.0.0.1@5300 1!listen *@5300|"
	    "listen 127.0.0.1@5300>alone\n127.0.0.1@5301 1<-127.0.0.1@5301 1!listen 127.0.0.1@5300" },

	{ "what is no command, or has wrong arguments, is an error", admin_line_of, "error: ~<-!| |statu|STATUS|status x|status;clear|clear a b|"
	    "clear a..b|log|log loud|log info debug|query|query a b c|query a..b|query x OPT|query x AXFR|query x NOTYPE|help me|reload now|"
	    "top 10|\001|status\tx|#|clear #" },
	{ "an HTTP request other than GET /metrics is refused", admin_line_of, "HTTP/1.1 4~<-GET / HTTP/1.1|GET /status HTTP/1.1|"
	    "POST /metrics HTTP/1.1|clear HTTP/1.0|GET /metrics HTTP/2|get /metrics HTTP/1.1|GET  /metrics HTTP/1.1| HTTP/1.1|status HTTP/" },
	{ "GET /metrics waits for its headers, which must name this host", admin_line_of, "(more)<-GET /metrics HTTP/1.1|"
	    "GET /metrics HTTP/1.0!Host: ::1\nHTTP/1.1 200 ~<-GET /metrics HTTP/1.1!Host: localhost!Accept: */*!!\n"
	    "HTTP/1.1 403 ~<-GET /metrics HTTP/1.1!!|GET /metrics HTTP/1.1!Host: a.test!!" },

	{ "a certificate's name matches as RFC 6125 says: whole, or one wildcard label in front of two more", cert_name_of,
	    "match<-dns.test>dns.test|dns.test>DNS.Test|a.dns.test>*.dns.test|A.dns.test>*.DNS.test\n"
	    "none<-dns.test>dns.tes|dns.test>dns.test.|dns.test>*.dns.test|a.b.dns.test>*.dns.test|dns.test>*.test|test>*|a.test>*|a.dns.test>*|"
	    "a.dns.test>*.|a.dns.test>a.*.test|ab.dns.test>a*.dns.test|ab.dns.test>*b.dns.test|a.dns.test>*.*.test|dns.test>|"
	    "a.dns.test>**.dns.test|a.dns.test>*dns.test" },
	{ "dates of certificates become seconds, leap years and both centuries right", cert_time_of, "0<-23>700101000000Z\n"
	    "946684800<-23>000101000000Z\n2524607999<-23>491231235959Z\n-631152000<-23>500101000000Z\n2524608000<-24>20500101000000Z\n"
	    "1709208000<-24>20240229120000Z\n4294967295<-24>21060207062815Z\n0<-23>7001010000|23>x00101000000Z|24>" } };

/* ---- What takes a loop */

static void test_names(void) {
	for (unsigned at = 0; at < 512; at++) {
		say("Q =3f *63 =3f *63 =3f *63 =3d *61 =0000010001");
		m.p[13 + at / 64] = (uint8_t)at;
		check_client(m.p, m.n);
	}
	all("every byte value, and the longest name of escapes, survive the way to text and back, in lower case");
	for (unsigned t = 1; t < 65536; t++) {
		each(type_parse(type_text(t)) == (int)t, "%u is %s", t, type_text(t));
		each(type_parse(form("type%u", t)) == (int)t, "type%u", t);
	}
	for (const char *s = "TYPE0\0TYPE65536\0TYPE\0AA\0\0end"; strcmp(s, "end") != 0; s += strlen(s) + 1)
		each(type_parse(s) < 0, "\"%s\" is no type", s);
	each(type_parse("aaaa") == 28 && type_parse("https") == 65, "lower case");
	all("every type has a mnemonic or TYPE form that is read back");
}

static void test_certificates(void) {
	each(!cert_name_matches("dns.test", (const uint8_t *)"dns.test\0.evil", 14), "a NUL");
	m.n = 0;
	say("=0000008f3082008b3081f0a003020102020101300030003000300030003000a320301e301c0603551d1104153013");
	say("=8208646e732e7465737487047f000001 *100");
	for (m.p[0] = 0; m.p[0] < 16; m.p[0]++) input("cert", m.p, m.n, 3);
	all("a DER element never reaches beyond the bytes that are there, a name not beyond a NUL");
}

/* ---- Cache */

/* A cache of another size; the old one's memory is not given back. */
static void cache_again(size_t memory) {
	memset(&cache, 0, sizeof cache);
	cache_init(memory);
}

/* Puts an answer of so many bytes, at least 50, into the cache. */
static void store(const char *name, uint32_t ttl, size_t size) {
	say("R %s/TXT @/TXT/%u [ *%zu ]", name, ttl, size - 30 - strlen(name));
	MUST(m.n == size);
	keep_message(ttl);
}

/* -1: not there; 0: expired; 1: there */
static int found(const char *name) {
	struct slot *s;
	struct key k;
	key_set(&k, name_parse(k.b, name), T_TXT, 1, 0);
	s = cache_find(&k, hash_bytes(k.b, k.len));
	return s == NULL ? -1 : !entry_expired(slot_entry(s));
}

/* Puts answers for NAMEfrom up to NAMEto, and counts those of them that the cache has. */
static void put_many(const char *name, unsigned from, unsigned to, uint32_t ttl) {
	for (unsigned i = from; i < to; i++) store(form("%s%u.test", name, i), ttl, 60);
}
static unsigned found_many(const char *name, unsigned to) {
	unsigned count = 0;
	for (unsigned i = 0; i < to; i++) count += found(form("%s%u.test", name, i)) == 1;
	return count;
}

/* A client asks: is it answered from the cache? */
static bool hit(const char *name) {
	struct sockaddr_in from = client_at(0, WILD_PORT);
	uint64_t before = stats.hits;
	say("Q %.1990s/TXT", name);
	datagram(FAKE(listeners[0].udp), &from, m.p, m.n);
	loop_turn();
	turn_end();
	return stats.hits > before;
}

/* 6,000 random changes to a cache of this size, and a look at all of it after each (at each 16th of a big one). */
static void cache_churn(size_t size) {
	static const size_t lens[] = { 60, 60, 100, 500, 1232, 4096, 8192, 65535 };
	cache_again(size);
	for (unsigned k = 0; k < 6000; k++) {
		const char *name = form("n%u.test", rnd(3000));
		store(name, 1 + rnd(300), lens[rnd(size < 65536 ? 4 : 8)]);
		if (rnd(4) == 0) found(name);
		if (rnd(50) == 0) time_passes(SEC(rnd(40)));
		if (rnd(1000) == 0) cache_sweep(true, NULL, -1);
		if (k % (size > 100000 ? 16 : 1) == 0) check_cache();
	}
}

static void test_cache_room(void) {
	unsigned lost = 0;

	for (const size_t *size = (const size_t[]){ 4096, 4097, 4100, 5000, 8191, 65536, 1 << 20, 0 }; *size > 0; size++)
		cache_churn(*size);
	all("in caches of 4,096 bytes to 1 MiB every invariant holds after each of 6,000 random changes");
	cache_again(65536);
	store("big.test", 100, 65535);
	store("eighth.test", 100, cache.size / 8 + 1);
	store("fits.test", 100, cache.size / 8 - 200);
	is(found("big.test") < 0 && found("eighth.test") < 0 && found("fits.test") == 1,
	    "an answer of over an eighth of the cache is not kept");
	for (unsigned secret = 0; secret < 40; secret++) {
		const char *name = secret & 1 ? "n" : "host-000";
		random_bytes(hash_secret, sizeof hash_secret);
		cache_again(1 << 20);
		put_many(name, 0, 9000, 300);
		each(found_many(name, 9000) > 8950, "%u of 9,000 kept", found_many(name, 9000));
	}
	all("whatever the secret, 9,000 names in sequence find room in 1 MiB");
	cache_again(65536);
	put_many("hot", 0, 20, 3000);
	for (unsigned i = 0; i < 5000; i++) {
		store(form("cold%u.test", i), 3000, 60);
		if (!hit(form("hot%u.test", i % 20))) {
			lost++;
			store(form("hot%u.test", i % 20), 3000, 60);
		}
	}
	each(lost <= 25, "%u of 5,000 questions for them miss", lost);
	all("answers that are used stay while 5,000 others pass through a full cache: at most 1 of 200 questions for them misses");
	put_many("old", 0, 300, 5);
	time_passes(SEC(10));
	for (unsigned i = 0; i < 20; i++) hit(form("hot%u.test", i));
	put_many("new", 0, 250, 3000);
	is(found_many("hot", 20) >= 18, "expired answers make room before those in use");
	cfg.serve_stale = 100;
	store("stale.test", 10, 60);
	for (const char *at = "\x0b\x62\x01"; *at; at++) {           /* seconds, each after the one before */
		time_passes(SEC(*at));
		each(found("stale.test") == (at[1] ? 0 : -1), "after %d s more: %d", *at, found("stale.test"));
	}
	cfg.serve_stale = 0;
	all("with serve-stale an expired answer stays for so long to the second, as expired");
}

/* The published vectors of SipHash-2-4 and HalfSipHash-2-4: the key is the bytes from 0 on, and so is the message. */
static void test_hash(void) {
	static const struct { unsigned n; uint64_t wide; uint32_t narrow; } vectors[] = {
		{ 0, 0x726fdb47dd0e0e31, 0x5b9f35a9 }, { 1, 0x74f839c593dc67fd, 0xb85a4727 }, { 4, 0xcf2794e0277187b7, 0x89466e2a },
		{ 7, 0xab0200f58b01d137, 0xc563cf8b }, { 8, 0x93f5f5799a932462, 0x8f84b8d0 }, { 15, 0xa129ca6149be45e5, 0x972bfe74 } };
	const word key[2] = { (word)(WORD_BITS == 64 ? 0x0706050403020100 : 0x03020100), (word)(WORD_BITS == 64 ? 0x0f0e0d0c0b0a0908 : 0x07060504) };
	uint8_t p[17];

	for (size_t i = 0; i < COUNT(vectors); i++) {
		word w = key[0];
		for (uint8_t k = 0; k < vectors[i].n; k++) p[1 + k] = k;
		for (size_t k = 0; k + sizeof w <= vectors[i].n; k += sizeof w, w += (word)-1 / 255 * sizeof w)
			memcpy(p + 1 + k, &w, sizeof w);        /* as the machine has its words */
		each(sip_hash(key, p + 1, vectors[i].n, 2, 4) == (word)(WORD_BITS == 64 ? vectors[i].wide : vectors[i].narrow), "%u bytes", vectors[i].n);
	}
	all("the hash is SipHash, or HalfSipHash on 32 bits: with 2 and 4 rounds it gives the published values");
}

static void test_many(void) {
	is(sizeof(struct query) + 2 * sizeof(struct ask) + sizeof(struct waiter) + sizeof(struct holder) <= 1000,
	    "a query in flight, its client and two upstreams take at most 1,000 bytes");
	for (size_t i = 0; i < COUNT(directives); i++) {
		const struct row *r = table;
		while (r < table + COUNT(table) && (r->of != normal_of || strstr(r->cases, directives[i].name) == NULL)) r++;
		each(r < table + COUNT(table), "%s", directives[i].name);
	}
	all("no directive is left out of these tests");
	cache_again(1 << 20);
	for (unsigned i = 0; i <= 256; i++) check_admin((const uint8_t *)"status", 6);
	is(strstr(admin_of("status"), "\\255") != NULL, "whatever bytes names have, status is printable ASCII");
}

int main(void) {
	lab_start();
	rows(table, COUNT(table));
	cfg.cache_max_ttl = 86400;
	test_names();
	test_certificates();
	test_hash();
	test_cache_room();
	test_many();
	all("each input of all these, with a few bytes changed ten times for each that it has, keeps the promises of fuzz.c");
	puts("end");
	return 0;
}
