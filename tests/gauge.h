/* gauge.h - what measures: the reference of the bench, an upstream, loads and figures; a browser and a road for the day
 *
 * Not a program; peer.c includes it. Above each cmd_... stands what it takes. All is on loopback, but for browse and link.
 * Names are nDDDDDD.sixty-byte.example: an answer with one A record has 60 bytes. Queries and answers are copied, not built, and go in
 * batches, so that the load is not what is measured. */
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum { LOT = 64, QUERY = 44, PACKET = 600, NAMES = 1000000 };

static unsigned num(const char *s) { return (unsigned)strtoul(s, NULL, 10); }
static double part(void) { return (double)rnd() / 4294967296.0; }       /* 0 to 1 */
static bool comes(int fd, int ms) { return poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, ms) > 0; }

/* A socket that serves at PORT, or is connected to it; -1 when nobody is there. */
static int port_sock(int type, const char *port, bool serve) {
	struct addr a = addr_of("127.0.0.1", port);
	int fd = sock(type, serve ? &a : NULL, serve ? NULL : &a);
	if (fd < 0 && serve) die("port %s: %s", port, strerror(errno));
	return fd;
}

static long median(long *v, size_t n) {
	qsort(v, n, sizeof *v, by_size);
	return n ? v[n / 2] : -1;
}

/* ---- Messages, alone and in lots */

/* The query for name number n; always QUERY bytes. */
static void name_query(uint8_t *p, unsigned id, unsigned n) {
	memcpy(p, "II\1\0\0\1\0\0\0\0\0\0\7nDDDDDD\12sixty-byte\7example\0\0\1\0\1", QUERY);
	put16at(p, id & 65535);
	for (int i = 6; i > 0; i--, n /= 10) p[13 + i] = (uint8_t)('0' + n % 10);
}

/* Turns the query into its answer, in place; the new length. */
static size_t name_answer(uint8_t *p, size_t len) {
	size_t at = 12;
	while (at < len && p[at]) at += p[at] + 1u;
	at += 5;                                /* the root label, type and class */
	if (at > len || at > PACKET - 32) return len;
	p[2] |= 0x80, p[3] = 0x80, p[7] = 1;
	memcpy(p + at, "\xc0\x0c\0\1\0\1\0\1\x51\x80\0\4\xc0\0\2\1", 16);       /* TTL 86400 */
	at += 16;
	if (p[11]) {                            /* the query had an OPT record, and so has the answer */
		memcpy(p + at, "\0\0\x29\4\xd0\0\0\0\0\0\0", 11);
		at += 11;
	}
	return at;
}

struct lot {
	struct mmsghdr m[LOT];
	struct iovec v[LOT];
	struct sockaddr_in a[LOT];
	uint8_t b[LOT][PACKET];
};
static struct lot came, goes;

static int lot_recv(int fd, int flags, bool from) {
	for (int i = 0; i < LOT; i++) {
		came.v[i] = (struct iovec){ came.b[i], PACKET };
		came.m[i].msg_hdr = (struct msghdr){ .msg_iov = &came.v[i], .msg_iovlen = 1, .msg_name = from ? &came.a[i] : NULL,
			.msg_namelen = from ? sizeof came.a[i] : 0 };
	}
	return recvmmsg(fd, came.m, LOT, flags, NULL);
}

/* Place i of the outgoing batch will be these bytes to that address (NULL: the connected one). */
static void lot_put(int i, void *bytes, size_t len, struct sockaddr_in *to) {
	goes.v[i] = (struct iovec){ bytes, len };
	goes.m[i].msg_hdr = (struct msghdr){ .msg_iov = &goes.v[i], .msg_iovlen = 1, .msg_name = to, .msg_namelen = to ? sizeof *to : 0 };
}

/* What the network refuses is lost. */
static void lot_send(int fd, int n) {
	for (int at = 0, k; at < n; at += MAX(k, 1)) k = sendmmsg(fd, goes.m + at, (unsigned)(n - at), 0);
}

/* ---- References */

/* echo PORT [poll]: every datagram goes back with QR set; with poll() before it receives, as servers do */
static int cmd_echo(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], true);
	for (;;) {
		if (arg[2]) comes(fd, -1);
		int n = lot_recv(fd, arg[2] ? MSG_DONTWAIT : MSG_WAITFORONE, true);
		for (int i = 0; i < n; i++) {
			came.b[i][2] |= 0x80;
			lot_put(i, came.b[i], came.m[i].msg_len, &came.a[i]);
		}
		lot_send(fd, n);
	}
	return 0;
}

/* relay PORT UPSTREAM: the least that a forwarder can do, one query at a time */
static int cmd_relay(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], true);
	struct addr from, to = addr_of("127.0.0.1", arg[2]);
	uint8_t p[PACKET];
	for (;;) {
		socklen_t size = sizeof from.u;
		ssize_t n = recvfrom(fd, p, sizeof p, 0, &from.u.sa, &size);
		int over = socket(AF_INET, SOCK_DGRAM, 0);
		if (n > 0 && connect(over, &to.u.sa, addr_len(&to)) == 0 && send(over, p, (size_t)n, 0) == n && comes(over, 1000) &&
		    (n = recv(over, p, sizeof p, 0)) > 0)
			sendto(fd, p, (size_t)n, 0, &from.u.sa, size);
		close(over);
	}
	return 0;
}

/* ---- A road with losses, and who goes by it */

/* Messages on their way until they are due, in that order, around. */
static struct parcel { usec due; int fd; struct sockaddr_in to; size_t len; uint8_t b[PACKET]; } parcels[16384];
static unsigned parcel_first, parcel_end;
static struct parcel *parcel_at(unsigned i) { return &parcels[i % COUNT(parcels)]; }

static void parcel_put(const struct parcel *x) {
	unsigned at = parcel_end++;
	for (; at != parcel_first && parcel_at(at - 1)->due > x->due; at--) *parcel_at(at) = *parcel_at(at - 1);
	*parcel_at(at) = *x;
}

static volatile sig_atomic_t road_signal;
static void road_hears(int s) { road_signal = s; }

enum { DOORS = 16, SLOW_NAME = 900000 };
static double road_loss, road_ms, road_jitter;
static struct { int fd; unsigned datagrams, names; uint8_t seen[NAMES / 8]; } door[DOORS];

/* What has come is counted, and on its way, if it is not lost. */
static void road_take(int d) {
	static usec found[NAMES - SLOW_NAME];
	int n = parcel_end - parcel_first + LOT < COUNT(parcels) ? lot_recv(door[d].fd, MSG_DONTWAIT, true) : 0;
	usec t = us_now();
	for (int i = 0; i < n; i++) {
		struct parcel x = { .fd = door[d].fd, .to = came.a[i] };
		unsigned name = came.b[i][13] == 'n' ? num(memcpy((char[8]){ 0 }, came.b[i] + 14, 6)) % NAMES : 0;
		usec *f = name >= SLOW_NAME ? &found[name - SLOW_NAME] : NULL;
		bool gone = part() < road_loss || part() < road_loss;
		door[d].datagrams++;
		door[d].names += !(door[d].seen[name / 8] >> name % 8 & 1);
		door[d].seen[name / 8] |= (uint8_t)(1 << name % 8);
		x.due = t + (usec)(1000 * (2 * road_ms + road_jitter * (2 * part() + 2 * part() - 2)));
		if (f && *f == 0) *f = t + MS(3500);
		if (f && *f > x.due) x.due = *f;
		if (gone || (f && *f - t > MS(1900))) continue;
		x.len = name_answer(memcpy(x.b, came.b[i], came.m[i].msg_len), came.m[i].msg_len);
		parcel_put(&x);
	}
}

/* What is due leaves. Gives when the next is. */
static usec road_give(void) {
	usec t = us_now();
	for (struct parcel *x; parcel_first != parcel_end && (x = parcel_at(parcel_first))->due <= t; parcel_first++)
		sendto(x->fd, x->b, x->len, 0, (struct sockaddr *)&x->to, sizeof x->to);
	return parcel_first != parcel_end ? parcel_at(parcel_first)->due : t + MS(900);
}

/* road LOSS MS JITTER THEN PORT...: name servers at the end of a road on which LOSS percent are lost and each takes MS +- JITTER ms, both
 * ways. SIGUSR1: from now on MS is THEN, and counting begins anew. SIGTERM: prints for each port the datagrams that have come, and
 * how many names they asked for. A name from SLOW_NAME on takes 3.5 s to find, and who asked 1.9 s before that gets no answer. */
static int cmd_road(char **arg) {
	struct pollfd fds[DOORS];
	int doors = 0;
	road_loss = strtod(arg[1], NULL) / 100, road_ms = strtod(arg[2], NULL), road_jitter = strtod(arg[3], NULL);
	for (; doors < DOORS && arg[5 + doors]; doors++)
		fds[doors] = (struct pollfd){ door[doors].fd = port_sock(SOCK_DGRAM, arg[5 + doors], true), POLLIN, 0 };
	signal(SIGUSR1, road_hears);
	signal(SIGTERM, road_hears);
	while (road_signal != SIGTERM) {
		usec left = MAX(road_give() - us_now(), 0);
		ppoll(fds, (nfds_t)doors, &(struct timespec){ 0, (long)left * 1000 }, NULL);
		if (road_signal == SIGUSR1) {
			road_signal = 0;
			road_ms = strtod(arg[4], NULL);
			for (int d = 0; d < doors; d++) memset(&door[d].datagrams, 0, sizeof door[d] - sizeof door[d].fd);
		}
		for (int d = 0; d < doors; d++) road_take(d);
	}
	for (int d = 0; d < doors; d++) printf("%s %u %u\n", arg[5 + d], door[d].datagrams, door[d].names);
	return 0;
}

/* ---- Loads: each prints how many queries were answered, how many not, and when some were: the median, the 99th and 99.9th percentile
 * and the worst in milliseconds */

static struct { usec at; bool open; } slots[65536];         /* by ID */
static struct { unsigned head, tail, open, answered, lost; } flight;    /* the IDs in flight lie between head and tail */
static long took[NAMES];

static void slot_open(uint8_t *p, unsigned name) {
	name_query(p, flight.head, name);
	slots[flight.head++ % 65536].open = true;
	slots[(flight.head - 1) % 65536].at = us_now();
	flight.open++;
}

static void slot_answer(const uint8_t *p) {
	unsigned id = get16at(p);
	if (!slots[id].open || (p[3] & 15) != 0) return;
	slots[id].open = false;
	took[flight.answered++ % NAMES] = (long)(us_now() - slots[id].at);
	flight.open--;
}

/* All that has come is answers. What was not answered in time is given up. */
static void slots_read(int fd, usec patience) {
	int n = lot_recv(fd, MSG_DONTWAIT, false);
	for (int i = 0; i < n; i++) slot_answer(came.b[i]);
	for (; flight.tail != flight.head; flight.tail++) {
		if (!slots[flight.tail % 65536].open) continue;
		if (slots[flight.tail % 65536].at + patience > us_now()) return;
		slots[flight.tail % 65536].open = false;
		flight.open--, flight.lost++;
	}
}

static int flight_say(void) {
	unsigned n = MIN(flight.answered, (unsigned)NAMES);
	qsort(took, n, sizeof *took, by_size);
	printf("%u %u", flight.answered, flight.lost + flight.open);
	for (int i = 0; n && i < 4; i++) printf(" %.1f", (double)took[n - 1 - (unsigned[]){ n - 1 - n / 2, n / 100, n / 1000, 0 }[i]] / 1e3);
	return puts("") < 0;
}

/* load PORT SECONDS COUNT WINDOW FIRST NAMES RATE [BURST]: keeps up to WINDOW queries in flight for so long, or until COUNT were sent; asks
 * for NAMES names from number FIRST on, in turn, each once. At most RATE a second, also after a pause; 0: as fast as answers come.
 * BURST at a time, without a RATE when the burst before is answered. */
static int cmd_load(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], false);
	usec start = us_now(), end = start + (usec)(strtod(arg[2], NULL) * 1e6), t = start;
	unsigned count = num(arg[3]), window = num(arg[4]), first = num(arg[5]), names = num(arg[6]), burst = arg[8] ? num(arg[8]) : 1;
	double rate = strtod(arg[7], NULL), gap = rate > 0 ? 1e6 / rate : 0, due = (double)start;       /* due: the next query */
	while ((t < end && flight.head < count) || flight.open) {
		int n = 0;
		if (gap > 0) due = MAX(due, (double)t - 2000);
		for (; n < LOT && flight.open < window && flight.head < count && t < end && !slots[flight.head % 65536].open; n++, due += gap) {
			if (flight.head % burst == 0 && (gap > 0 ? due > (double)t : burst > 1 && flight.open)) break;
			slot_open(goes.b[n], first + flight.head % names);
			lot_put(n, goes.b[n], QUERY, NULL);
		}
		lot_send(fd, n);
		comes(fd, gap > 0 ? 1 : n == LOT && flight.open < window ? 0 : 100);
		slots_read(fd, SEC(6));
		t = us_now();
	}
	return flight_say();
}

/* stream PORT SECONDS WINDOW NAMES: as load, over one TCP connection; all that may be asked leaves in one write */
static int cmd_stream(char **arg) {
	static uint8_t back[65536], ask[1024 * (QUERY + 2)];
	int fd = port_sock(SOCK_STREAM, arg[1], false);
	usec end = us_now() + (usec)(strtod(arg[2], NULL) * 1e6);
	unsigned window = num(arg[3]), names = num(arg[4]);
	size_t held = 0;
	while (fd >= 0 && (us_now() < end || flight.open)) {
		size_t len = 0, at = 0;
		for (; flight.open < window && us_now() < end && len < sizeof ask; len += QUERY + 2) {
			put16at(ask + len, QUERY);
			slot_open(ask + len + 2, flight.head % names);
		}
		if (len && write(fd, ask, len) != (ssize_t)len) break;
		ssize_t n = comes(fd, 2000) ? read(fd, back + held, sizeof back - held) : 0;
		if (n <= 0) break;
		held += (size_t)n;
		for (; held - at >= 14 && held - at >= 2u + get16at(back + at); at += 2u + get16at(back + at)) slot_answer(back + at + 2);
		memmove(back, back + at, held -= at);
	}
	return flight_say();
}

/* ---- Measures */

/* Asks for the name once; true when a good answer comes within so many ms. */
static bool served(int fd, unsigned name, int ms) {
	uint8_t p[PACKET];
	name_query(p, name, name);
	return fd >= 0 && send(fd, p, QUERY, 0) == QUERY && comes(fd, ms) && recv(fd, p, sizeof p, 0) > 12 && (p[3] & 15) == 0;
}

/* answers PORT SECONDS [COMMAND...]: waits until a query is answered there. Prints the microseconds since it has started the command,
 * and stops that */
static int cmd_answers(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], false);
	usec start = us_now(), end = start + SEC(num(arg[2]));
	pid_t pid = arg[3] ? fork() : 0;
	bool good;
	if (arg[3] && pid == 0) _exit(execvp(arg[3], arg + 3));
	while (!(good = served(fd, SLOW_NAME - 1, 20)) && us_now() < end) usleep(arg[3] ? 50 : 10000);
	if (pid > 0) {
		printf("%lld\n", (long long)(us_now() - start));
		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
	return !good;
}

/* latency DIRECT PORT COUNT FIRST: asks for COUNT new names, one at a time, once the upstream and once the forwarder; prints the
 * medians in microseconds, and that of the differences */
static int cmd_latency(char **arg) {
	int fd[2] = { port_sock(SOCK_DGRAM, arg[1], false), port_sock(SOCK_DGRAM, arg[2], false) };
	unsigned count = num(arg[3]), first = num(arg[4]);
	long *v[3];
	size_t n = 0;
	for (int k = 0; k < 3; k++) v[k] = grow(NULL, count * sizeof **v);
	for (unsigned i = 0; i < count; i++) {
		bool good = true;
		for (int k = 0; k < 2; k++) {
			usec t = us_now();
			good = served(fd[k], first + i, 1000) && good;
			v[k][n] = (long)(us_now() - t);
		}
		v[2][n] = v[1][n] - v[0][n];
		n += good;
	}
	printf("%ld %ld %ld\n", median(v[0], n), median(v[1], n), median(v[2], n));
	return 0;
}

/* ---- The day */

static struct visit { usec first, last, took; int type; bool again; char name[24]; } visits[65536];
static int nvisits;

static void visit_ask(int fd, int id) {
	query_put(&form_plain, &sent, visits[id].name, visits[id].type, id);
	visits[id].last = us_now();
	if (send(fd, sent.p, sent.n, 0) < 0 && errno == EBADF) die("no socket");
}

/* One to eight names at once, those of popular sites more often: A, AAAA, and of the first HTTPS too. */
static void page_open(int fd) {
	static const int types[] = { T_A, T_AAAA, T_HTTPS };
	for (int i = 0, names = 1 + (int)(rnd() % 8); i < names; i++) {
		double z = part();
		bool home = i == names - 1 && rnd() % 5 == 0;
		int site = home ? (int)(rnd() % 5) : (int)(400 * z * z * z);
		for (int k = 0; k < (i == 0 ? 3 : 2) && nvisits < (int)COUNT(visits); k++, nvisits++) {
			visits[nvisits] = (struct visit){ .first = us_now(), .type = types[k] };
			snprintf(visits[nvisits].name, sizeof visits->name, home ? "host%d.lan" : i == 0 ? "www%d.example" : "cdn%d.example", site);
			visit_ask(fd, nvisits);
		}
	}
}

/* browse ADDR PORT SECONDS SEED: a browser, whose pages come at random times. Says: asked N answered N servfail N empty N retried N
 * median_ms X slowest_ms X */
static int cmd_browse(char **arg) {
	struct addr to = addr_of(arg[1], arg[2]);
	usec end = us_now() + SEC(num(arg[3])), next = now, t;
	int fd = sock(SOCK_DGRAM, NULL, &to), answered = 0, servfail = 0, empty = 0, retried = 0;
	uint8_t p[1500];
	rnd_seed(num(arg[4]));
	while ((t = us_now()) < end || (answered < nvisits && t < end + SEC(6))) {
		if (t >= next && t < end) {
			page_open(fd);
			next = t + MS(20) + (usec)(2e5 * part() * part());
		}
		for (int i = 0; i < nvisits; i++)
			if (visits[i].took == 0 && t - visits[i].last > SEC(5) && !visits[i].again) {
				visits[i].again = true;
				visit_ask(fd, i);
				retried++;
			}
		comes(fd, t < end ? (int)(MAX(next - t, 0) / 1000) + 1 : 50);
		while (recv(fd, p, sizeof p, MSG_DONTWAIT) >= 12) {
			int id = (int)get16at(p);
			if (id >= nvisits || visits[id].took != 0) continue;
			visits[id].took = us_now() - visits[id].first;
			took[answered++] = (long)visits[id].took;
			servfail += (p[3] & 15) != 0;
			empty += (p[3] & 15) == 0 && p[7] == 0 && visits[id].type == T_A;
		}
	}
	double middle = (double)median(took, (size_t)answered) / 1e3;
	printf("asked %d answered %d servfail %d empty %d retried %d median_ms %.1f slowest_ms %ld\n", nvisits, answered, servfail, empty, retried,
	    middle, answered ? took[answered - 1] / 1000 : 0);
	return 0;
}

/* The end of a link: a device in that network namespace. */
static int link_end(const char *netns, const char *device) {
	char path[256];
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	snprintf(path, sizeof path, "/var/run/netns/%s", netns);
	int ns = open(path, O_RDONLY), fd = -1;
	if (ns >= 0 && setns(ns, CLONE_NEWNET) == 0) fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%.15s", device);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) != 0) die("%s %s: %s", netns, device, strerror(errno));
	return fd;
}

/* link NETNS DEVICE NETNS DEVICE DELAY JITTER LOSS: carries packets both ways between two network namespaces, late, in order, and loses
 * some: milliseconds each way, packets of 1000. Says "ready". */
static int cmd_link(char **arg) {
	static struct { usec due; int to; ssize_t len; char b[2048]; } packets[4096];
	struct pollfd p[2] = { { link_end(arg[1], arg[2]), POLLIN, 0 }, { link_end(arg[3], arg[4]), POLLIN, 0 } };
	usec last[2] = { 0, 0 };
	puts("ready");
	fflush(stdout);
	for (;;) {
		usec first = us_now() + SEC(1);
		int room = -1;
		for (int i = 0; i < (int)COUNT(packets); i++) {
			if (packets[i].len > 0 && packets[i].due <= now) {
				if (write(p[packets[i].to].fd, packets[i].b, (size_t)packets[i].len) < 0 && errno == EBADF) return 1;
				packets[i].len = 0;
			}
			if (packets[i].len == 0) room = i;
			else first = MIN(first, packets[i].due);
		}
		if (poll(p, 2, (int)((first - now) / 1000) + 1) < 0) return 1;
		int from = p[0].revents & POLLIN ? 0 : 1;
		ssize_t n = room >= 0 && p[from].revents & POLLIN ? read(p[from].fd, packets[room].b, sizeof packets->b) : 0;
		if (n <= 0 || rnd() % 1000 < num(arg[7])) continue;
		packets[room].len = n;
		packets[room].to = !from;
		packets[room].due = last[from] = MAX(last[from], us_now() + MS(num(arg[5]) + rnd() % (num(arg[6]) + 1)));
	}
}
