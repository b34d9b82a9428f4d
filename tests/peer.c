/* peer.c - the other side of dnsproxy in its tests: a scripted upstream over UDP, TCP and TLS, and a client
 *
 * Alone: cc -std=c11 -O1 -o peer tests/peer.c -lbearssl && ./peer up 127.0.0.1 5300 'log=/dev/stdout'
 *
 *   up                              peer_server.h tells its words, and what an upstream can do
 *   ask, many, talk                 see above each
 *   freeport                        a port that is free for UDP and TCP
 *   notify PATH                     a supervisor's socket: prints each datagram as a line
 *   echo, relay, start, link        gauge.h tells what they are for
 *
 * Everything ends by itself: no wait is without a deadline, but for servers, which are killed. */
#include "peer_wire.h"
#include "peer_server.h"

/* ---- Queries: what ask, many and talk send */

#define FORM_INTS tcp, cd, ad, nord, z, opcode, id, timeout, wait, ver, qd, tc, twoopt, edns, zero, qr, class, n, ms, \
	window, rate, every, burst, from, names, popular, pairs, vary, byname, full, seed, hold, again
#define FORM_TEXTS src, server, kind, name, type
struct form { int FORM_INTS; text_word FORM_TEXTS; int dnssec; const char *raw, *trail; struct buf opts; };
static struct form form = { .id = -1, .edns = -1, .timeout = 6000, .qd = 1, .class = 1, .n = 1000, .window = 100, .burst = 1,
	.name = "n%d.test", .type = "A" };

/* WORD[=VALUE], with a + before it or not */
static void form_word(const char *w) {
	w += *w == '+';
	if (strcmp(w, "do") == 0) form.dnssec = 1;
	else if (value_of(w, "raw")) form.raw = value_of(w, "raw");
	else if (value_of(w, "trail")) form.trail = value_of(w, "trail");
	else if (value_of(w, "opt")) put_option(&form.opts, value_of(w, "opt"));
	else if (!field_set(&form, NAMES(FORM_INTS, FORM_TEXTS), offsetof(struct form, src), w)) die("what is %s?", w);
}

static void query_put(struct buf *b, const char *name, int type, int id) {
	b->n = 0;
	if (form.raw) {
		put_hex(b, form.raw);
		return;
	}
	int flags = form.qr << 15 | form.opcode << 11 | form.tc << 9 | (form.nord ? 0 : F_RD) | form.z << 6 | form.ad << 5 | form.cd << 4;
	put_as(b, "222222", (unsigned)id, flags, form.qd, 0, 0, 0);
	for (int i = 0; i < MAX(form.qd, 1); i++) put_as(b, "n22", name, type, form.class);
	for (int i = 0; i <= form.twoopt && (form.edns >= 0 || form.dnssec || form.opts.n > 0 || form.ver); i++)
		PUT_RECORD(b, 3, "1224(@)", 0, T_OPT, form.edns > 1 ? form.edns : UDP_SIZE, form.ver << 16 | (form.dnssec ? 0x8000 : 0),
		    form.opts.p, form.opts.n);
	if (form.trail) put_hex(b, form.trail);
}

static int form_socket(const struct addr *to) {
	const struct addr *from = form.src[0] ? (struct addr[]){ addr_at(form.src, 0) } : NULL;
	return sock(form.tcp ? SOCK_STREAM : form.zero ? SOCK_RAW : SOCK_DGRAM, from, to);
}

/* ---- ask ADDR PORT NAME [TYPE] [+OPTION...]: one query, one line, with WRONG before it if it does not belong to the query. Without a
 * reply: TIMEOUT, CLOSED or REFUSEDPORT. +wait=MS goes on listening after the first reply and says replies=N. Options: +tcp +edns[=N] +do
 * +cd +ad +nord +z +tc +opcode=N +id=N +class=N +src=ADDR +server=ADDR +opt=CODE:HEX +ver=N +twoopt +qd=N +raw=HEX +trail=HEX
 * +timeout=MS +zero (from UDP port 0, where that is allowed) +qr (it says that it is a reply) */

static struct buf sent, got;

static int cmd_ask(char **argv) {
	char more[200] = "";
	struct text t = { .p = more, .size = sizeof more };
	static struct buf out;
	struct message q;
	const char *name = ".", *why;
	int type = T_A, at = 3, replies = 1;
	if (argv[at][0] != '+') name = argv[at++];
	if (argv[at] != NULL && at == 4 && argv[at][0] != '+' && (type = type_of(argv[at++])) < 0)
		die("%s is not a type", argv[at - 1]);
	for (; argv[at] != NULL; at++) form_word(argv[at]);
	struct addr to = addr_of(form.server[0] ? form.server : argv[1], argv[2]);
	int id = form.id >= 0 ? form.id : random16();
	query_put(&sent, name, type, id);
	if (form.tcp) put16(&out, (unsigned)sent.n);
	if (form.zero) put_as(&out, "2222", 0, addr_port(&to), (unsigned)sent.n + 8, 0);
	put_buf(&out, &sent);
	int fd = form_socket(&to);
	if (fd < 0) return puts(errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)) >= 0;
	long began = ms_now();
	if (send(fd, out.p, out.n, MSG_NOSIGNAL) < 0) why = form.tcp ? "CLOSED" : strerror(errno);
	else why = message_wait(fd, form.tcp, &got, began + form.timeout);
	text_add(&t, " ms=%ld", ms_now() - began);
	if (why != NULL) return printf("%s%s\n", why, more) > 0;
	for (long end = ms_now() + form.wait; form.wait && message_wait(fd, form.tcp, &out, end) == NULL; ) replies++;
	if (form.wait) text_add(&t, " replies=%d", replies);
	/* another ID, or another question, letter case and all */
	bool wrong = got.n >= 12 && (get16at(got.p) != (unsigned)id || (get16at(got.p + 4) > 0 && message_read(&q, sent.p, sent.n, NULL, NULL) &&
	    (got.n < q.end || memcmp(got.p + 12, sent.p + 12, q.end - 12) != 0)));
	if (!form.raw && wrong) printf("WRONG ");
	print_msg(got.p, got.n, more);
	return 0;
}

/* ---- many ADDR PORT [WORD...]: mass queries. n=COUNT ms=MS (whichever ends first) window=IN FLIGHT (60,000 at most) rate=A SECOND
 * burst=QUERIES (that leave together) every=US (from burst to burst, instead of a rate: after a pause nothing is made up for)
 * name=FORMAT (%d is the number, from from= on; %x the number and chance, so that it is new) names=N (so many, in turn, or with
 * popular the first more often) pairs (A and AAAA of each) type=T tcp=CONNECTIONS src=ADDR timeout=MS vary (differing EDNS sizes and
 * letters) byname (each address must be that of the name, first byte aside) full (no answer may be without records) seed=N +OPTION...
 * kind=random|mutate sends messages of chance instead, or these with some bytes changed, which wait for nothing but the timeout.
 * hold sends nothing but +raw=HEX, once on each connection, says "holding N", and "open N" whenever that changes; with again one that
 * is closed is opened anew. Ends with the last, or after 10 minutes.
 * Says: sent N answered N noerror N ... tc N wrong N (or TC=1 with records) dup N bad N right N failed N (another RCODE) lost N
 * slowest_ms N p50_us N p99_us N p999_us N worst_us N ms N got N (messages) odd N (FORMERR with more than header, question and OPT)
 * from FIRST BYTE OF THE ADDRESS:COUNT,... A query without a reply is not sent again. */

enum { MOST_CHANNELS = 2000 };
static struct load {
	struct addr to;
	struct conn *tcp[MOST_CHANNELS];
	int udp, slot, qtype, nchannels;
	char stamp[8];                  /* makes names fresh */
	int net;                        /* of the addresses in the last answer; -1 when one of them is not that of the name */
	usec began, last, due;
	long sent, done, open, wrong, dup, bad, tc, right, got, odd, rcodes[16], nets[256], *took;
} load = { .slot = -1 };
static struct waiting { usec at; uint32_t number; bool used, answered; } waiting[65536];

static int load_place(void) {
	uint64_t z = rnd() % 1000;
	if (form.popular) return (int)(z * z * z * (unsigned)form.names / 1000000000);
	return (int)(form.names ? (load.sent >> form.pairs) % form.names : load.sent >> form.pairs);
}

/* May another query leave? A burst does when its time has come and there is room for all of it. */
static bool may_send(void) {
	if (load.sent >= form.n || load.sent % form.burst != 0) return load.sent < form.n;
	if (load.open + form.burst > form.window || load.due > us_now()) return false;
	load.due = (form.rate ? load.due : MAX(load.due, now - MS(2))) + form.every;
	return true;
}

static void see_address(UNUSED void *ctx, struct msg at, const struct rr *r, int section) {
	if (section != 1 || r->type != T_A || r->rdlen != 4) return;
	uint32_t a = get32at(at.p + r->rdata_at);
	if (load.net >= 0) load.net = ((a ^ name_number(at.p)) & 0xffffff) == 0 ? (int)(a >> 24) : -1;
}

/* Is this the answer to the question whose name has that number? */
static bool load_right(const uint8_t *p, size_t n, uint32_t number) {
	struct message q;
	load.net = 0;
	if (!message_read(&q, p, n, see_address, NULL) || q.odd != NULL || name_number(p) != number) return false;
	if ((p[2] & F_TC >> 8) && get32at(p + 6) != 0) return false;
	if (form.full && (p[3] & 15) == NOERROR && get16at(p + 6) == 0) return false;
	if (!form.byname || (p[3] & 15) != NOERROR) return true;
	if (load.net <= 0) return false;
	load.nets[load.net]++;
	return true;
}

static void load_reply(const uint8_t *p, size_t n) {
	load.got++;
	if (n < 12) {
		load.bad++;
		return;
	}
	load.odd += (p[3] & 15) == FORMERR && (get32at(p + 6) != 0 || get16at(p + 10) > 1);
	struct waiting *w = &waiting[get16at(p)];
	if (!w->used) {
		*(w->answered ? &load.dup : &load.wrong) += 1;
		return;
	}
	w->used = false;
	w->answered = true;
	load.open--;
	load.took[load.done++] = (long)(us_now() - w->at);
	load.rcodes[p[3] & 15]++;
	load.tc += (p[2] & F_TC >> 8) != 0;
	if (!load_right(p, n, w->number)) load.wrong++;
	else load.right += (p[3] & 15) == NOERROR;
}

/* What has come: over TCP, over UDP. */
static void load_handle(struct conn *c) {
	for (long n; (n = framed(&c->in)) >= 0; take(&c->in, 2 + (size_t)n)) load_reply(c->in.p + 2, (size_t)n);
}
static void load_ready(UNUSED void *owner, UNUSED short revents) {
	static uint8_t in[MSG_MAX];
	ssize_t n = 0;
	for (int k = 0; k < 256 && (n = recv(load.udp, in, sizeof in, 0)) >= 0; k++) load_reply(in, (size_t)n);
	if (n < 0 && errno == ECONNREFUSED && load.done == 0) watch_remove(&load.slot);
}

/* A new socket; a connection in the place of the one that is there. */
static bool channel_open(int i) {
	int fd = form_socket(&load.to);
	struct conn **place = &load.tcp[i];
	if (fd < 0) return false;
	nonblocking(fd);
	if (*place != NULL) {
		conn_move(*place);
		conn_die(*place, "client", "done");
		(*place)->place = NULL;
	}
	if (form.tcp) *place = conn_new(fd, &load.to, load_handle, place);
	else watch_add(&load.slot, load.udp = fd, POLLIN, load_ready, NULL, false);
	return true;
}

/* The next message. Those of chance have over TCP a length that is mostly right, and each 50 a new connection. */
static void load_send(void) {
	static unsigned next;
	int i = (int)(load.sent % load.nchannels);
	bool junk = form.kind[0] != '\0';
	char name[WORD * 4];
	while (waiting[next & 65535].used) next++;
	unsigned id = next++ & 65535;
	numbered(name, sizeof name, form.name, form.from + load_place(), load.stamp);
	if (form.vary) form.edns = 512 + (int)(rnd() % 4000);
	for (char *c = name; form.vary && *c != '\0'; c++)
		if (rnd() & 1) *c = (char)toupper((unsigned char)*c);
	query_put(&sent, name, form.pairs && load.sent % 2 ? T_AAAA : load.qtype, (int)id);
	waiting[id] = (struct waiting){ us_now(), name_number(sent.p), true, false };
	if (strcmp(form.kind, "mutate") == 0) mutate(&sent, 0);
	if (strcmp(form.kind, "random") == 0) {
		size_t n = rnd() % (rnd() % 8 ? 80 : 1400);
		for (sent.n = 0; sent.n < n; ) put8(&sent, rnd() & 255);
	}
	if (junk && form.tcp && (load.tcp[i] == NULL || load.sent % 50 == 0)) channel_open(i);
	if (load.tcp[i] != NULL) {
		put16(&load.tcp[i]->out, junk && rnd() % 8 == 0 ? rnd() % 70 : (unsigned)sent.n);
		put_buf(&load.tcp[i]->out, &sent);
	} else if (send(load.udp, sent.p, sent.n, 0) < 0 && errno == ECONNREFUSED) send(load.udp, sent.p, sent.n, 0);
	load.sent++;
	load.open++;
	load.last = now;
}

/* Sends what may be sent, and reads what comes within so many ms. Gives how many channels are open. */
static int channels_turn(int ms) {
	int open = load.slot >= 0;
	struct conn *c;
	for EACH_CONN(c) conn_clock(c);
	wake_by(us_now() + MS(ms));
	turn();
	for (int i = 0; i < load.nchannels; i++) open += load.tcp[i] != NULL;
	return open;
}

/* False when there is nothing to wait for any more. */
static bool load_turn(void) {
	if (form.ms && us_now() - load.began > MS(form.ms)) form.n = (int)load.sent;
	bool more = load.sent < form.n;
	int open = channels_turn(form.every && more ? 1 : 50);
	if (form.kind[0] == '\0' && (open == 0 || (load.done >= load.sent && !more))) return false;
	if (us_now() - load.last > MS(form.timeout)) {
		if (!more) return false;
		for (int i = 0; i < 65536; i++) waiting[i].used = false;        /* forget all that got no reply */
		load.open = 0;
		load.last = now;
	}
	return true;
}

static int load_hold(void) {
	printf("holding %d\n", load.nchannels);
	for (int told = load.nchannels, open; told > 0 && us_now() - load.began < SEC(600); told = open) {
		open = channels_turn(500);
		for (int i = 0; i < load.nchannels && form.again; i++) open += load.tcp[i] == NULL && channel_open(i);
		if (open != told) printf("open %d\n", open);
	}
	return 0;
}

static int by_size(const void *a, const void *b) { return *(const long *)a < *(const long *)b ? -1 : *(const long *)a > *(const long *)b; }

/* The time that so many thousandths of the answers took at most. */
static long load_took(long part) { return load.done ? load.took[MIN(load.done * part / 1000, load.done - 1)] : 0; }

static int load_say(void) {
	static const char *const names[] = { "noerror", "formerr", "servfail", "nxdomain", "notimp", "refused" };
	const char *sep = " from ";
	qsort(load.took, (size_t)load.done, sizeof *load.took, by_size);
	printf("sent %ld answered %ld", load.sent, load.done);
	for (size_t i = 0; i < COUNT(names); i++) printf(" %s %ld", names[i], load.rcodes[i]);
	printf(" tc %ld wrong %ld dup %ld bad %ld right %ld failed %ld lost %ld slowest_ms %ld", load.tc, load.wrong,
	    load.dup, load.bad, load.right, load.done - load.rcodes[NOERROR], form.n - load.done, load_took(1000) / 1000);
	printf(" p50_us %ld p99_us %ld p999_us %ld worst_us %ld ms %ld got %ld odd %ld", load_took(500), load_took(990), load_took(999),
	    load_took(1000), (long)((us_now() - load.began) / MS(1)), load.got, load.odd);
	for (int i = 0; i < 256; i++)
		if (load.nets[i] > 0) {
			printf("%s%d:%ld", sep, i, load.nets[i]);
			sep = ",";
		}
	return puts("") < 0;
}

static int cmd_many(char **argv) {
	for (int i = 3; argv[i] != NULL; i++) form_word(argv[i]);
	load.qtype = type_of(form.type);
	load.nchannels = MIN(MAX(form.tcp, 1), MOST_CHANNELS);
	load.took = grow(NULL, sizeof *load.took * ((size_t)form.n + 1));
	if (form.seed) rnd_seed((uint64_t)form.seed);
	if (form.rate) form.every = (int)(SEC(form.burst) / form.rate);
	snprintf(load.stamp, sizeof load.stamp, "x%06x", rnd() & 0xffffff);
	load.to = addr_of(form.server[0] ? form.server : argv[1], argv[2]);
	watch_init(MOST_CONNS);
	for (int i = 0; i < load.nchannels; i++) {
		if (!channel_open(i)) return puts(strerror(errno)) >= 0;
		if (form.raw) put_hex(&load.tcp[i]->out, form.raw);
	}
	load.began = load.last = load.due = us_now();
	if (form.hold) return load_hold();
	do {
		while (may_send()) load_send();
	} while (load_turn());
	return load_say();
}

/* ---- talk ADDR PORT [rcvbuf=BYTES] WORD...: a TCP connection by script. q=[COUNT:]NAME[/TYPE] adds a framed query to what
 * will be sent, or so many (%d is the number), hex=HEX and text=TEXT (\r \n) add bytes, fill=N so many x.
 * send writes it in one piece, bytes=MS byte by byte, every other word too; pause=MS, fin; replies=N prints N DNS replies, a line each
 * (at most 6 s, or replies=N,MS); count=N only counts them; slurp[=MS] prints text to the end; end=MS waits for the other's close and says
 * EOF, RESET or OPEN with ms=, bytes= and segments=. */

static struct talk { int fd; unsigned id; long began; struct buf out; } talk = { .id = 1 };

static void talk_queries(char *format) {
	char *slash = strchr(format, '/'), *name, text[WORD * 4];
	long count = strtol(format, &name, 10);
	if (*name != ':') count = 1;
	name = *name == ':' ? name + 1 : format;
	int type = slash ? type_of(slash + 1) : T_A;
	if (type < 0) die("talk: %s is not a type", slash + 1);
	if (slash) *slash = '\0';
	for (int i = 0; i < count; i++) {
		numbered(text, sizeof text, name, i, "");
		query_put(&sent, text, type, (int)(talk.id++ & 65535));
		put_framed(&talk.out, &sent);
	}
}

/* Words that add to what will be sent; false for the others. */
static bool talk_add(char *w, char *v) {
	if (value_of(w, "q")) talk_queries(v);
	else if (value_of(w, "hex")) put_hex(&talk.out, v);
	else if (value_of(w, "fill"))
		for (long k = atol(v); k > 0; k--) put8(&talk.out, 'x');
	else if (value_of(w, "text"))
		for (; *v != '\0'; v++)
			if (*v == '\\' && (v[1] == 'r' || v[1] == 'n')) put8(&talk.out, *++v == 'r' ? '\r' : '\n');
			else put8(&talk.out, (unsigned char)*v);
	else return false;
	return true;
}

/* Sends what is there, one by one with so many ms between if gap >= 0. */
static void talk_send(int gap) {
	for (size_t done = 0; done < talk.out.n; ) {
		ssize_t n = send(talk.fd, talk.out.p + done, gap >= 0 ? 1 : talk.out.n - done, MSG_NOSIGNAL);
		if (n <= 0) break;
		done += (size_t)n;
		if (gap > 0) poll(NULL, 0, gap);
	}
	talk.out.n = 0;
}

static void talk_replies(const char *v, bool counted) {
	long end = ms_now() + (strchr(v, ',') ? atoi(strchr(v, ',') + 1) : 6000);
	const char *why = NULL;
	int n = 0, good = 0;
	for (char more[40]; n < atoi(v) && (why = message_wait(talk.fd, true, &got, end)) == NULL; n++) {
		good += got.n > 3 && (got.p[3] & 15) == NOERROR;
		snprintf(more, sizeof more, " ms=%ld", ms_now() - talk.began);
		if (!counted) print_msg(got.p, got.n, more);
	}
	if (counted) printf("replies %d noerror %d ms=%ld\n", n, good, ms_now() - talk.began);
	else if (why != NULL) printf("%s ms=%ld\n", why, ms_now() - talk.began);
}

static void talk_end(const char *v, bool quiet) {
	static char in[65536];
	long end = ms_now() + (*v != '\0' ? atoi(v) : 6000), bytes = 0;
	uint32_t info[48] = { 0 };      /* struct tcp_info, of which C libraries know less than the kernel */
	const char *how = "OPEN";
	for (ssize_t n = 1; n > 0 && readable(talk.fd, end); ) {
		n = read(talk.fd, in, sizeof in);
		how = n == 0 ? "EOF" : n < 0 ? "RESET" : how;
		bytes += MAX(n, 0);
		if (!quiet && n > 0) fwrite(in, 1, (size_t)n, stdout);
	}
	getsockopt(talk.fd, IPPROTO_TCP, TCP_INFO, info, &(socklen_t){ sizeof info });
	if (quiet) printf("%s ms=%ld bytes=%ld segments=%u\n", how, ms_now() - talk.began, bytes, info[38]);
}

static int cmd_talk(char **argv) {
	struct addr to = addr_of(argv[1], argv[2]);
	argv += 3;
	if (*argv != NULL && value_of(*argv, "rcvbuf")) tcp_rcvbuf = atoi(value_of(*argv++, "rcvbuf"));
	talk.fd = sock(SOCK_STREAM, NULL, &to);
	if (talk.fd < 0) return puts(errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)) >= 0;
	talk.began = ms_now();
	setsockopt(talk.fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ 3, 0 }, sizeof(struct timeval));
	for (; *argv != NULL; argv++) {
		char *w = *argv, *v = w + strcspn(w, "=");
		v += *v == '=';
		if (talk_add(w, v)) continue;
		talk_send(strncmp(w, "bytes", 5) == 0 ? atoi(v) : -1);
		if (strcmp(w, "send") == 0 || strncmp(w, "bytes", 5) == 0) continue;
		if (value_of(w, "pause")) poll(NULL, 0, atoi(v));
		else if (strcmp(w, "fin") == 0) shutdown(talk.fd, SHUT_WR);
		else if (value_of(w, "replies") || value_of(w, "count")) talk_replies(v, *w == 'c');
		else if (strncmp(w, "slurp", 5) == 0 || strncmp(w, "end", 3) == 0) talk_end(v, *w == 'e');
		else die("talk: what is %s?", w);
	}
	return 0;
}

#include "gauge.h"

static int cmd_notify(char **argv) {
	static char in[65536];
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[1]);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0) die("%s: %s", argv[1], strerror(errno));
	chmod(argv[1], 0777);
	puts("ready");
	for (ssize_t n; (n = recv(fd, in, sizeof in - 1, 0)) >= 0; ) {
		in[n] = '\0';
		text_clean(in);
		puts(in);
	}
	return 1;
}

static int cmd_freeport(UNUSED char **argv) { return printf("%u\n", free_port()) < 0; }

#define USE(name, words) { #name, words, cmd_##name }
int main(int argc, char **argv) {
	static const struct { const char *name; int words; int (*run)(char **); } uses[] = { USE(up, 3), USE(ask, 4), USE(many, 3),
		USE(talk, 3), USE(freeport, 1), USE(notify, 2), USE(echo, 2), USE(relay, 3), USE(start, 4), USE(link, 8) };
	struct rlimit files;
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	random_bytes(&chance, sizeof chance);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = MIN(files.rlim_max, 20000);
	setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; argc > 1 && i < COUNT(uses); i++)
		if (strcmp(argv[1], uses[i].name) == 0 && argc > uses[i].words) return uses[i].run(argv + 1);
	die("usage: peer COMMAND WORD..., as tests/peer.c tells");
}
