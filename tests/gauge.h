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

/* ---- The reference and an upstream */

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

/* A message on its way until it is due. */
struct parcel { usec due; int fd; struct sockaddr_in to; size_t len; uint8_t b[PACKET]; };
static struct parcel parcels[16384];
static unsigned nparcels;

/* upstream PORT MS: answers every query MS milliseconds after it came */
static int cmd_upstream(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], true);
	usec delay = MS(num(arg[2])), t;
	unsigned first = 0, end = 0;            /* in the order of their coming, around */
	struct parcel *x;
	for (;;) {
		usec left = parcels[first % COUNT(parcels)].due - us_now();
		comes(fd, first == end ? -1 : left > 0 ? (int)(left + 999) / 1000 : 0);
		int n = lot_recv(fd, MSG_DONTWAIT, true);
		t = us_now();
		for (int i = 0; i < n && end - first < COUNT(parcels); i++, end++) {
			x = &parcels[end % COUNT(parcels)];
			x->due = t + delay;
			x->to = came.a[i];
			memcpy(x->b, came.b[i], came.m[i].msg_len);
			x->len = name_answer(x->b, came.m[i].msg_len);
		}
		for (n = 0; n < LOT && first != end && (x = &parcels[first % COUNT(parcels)])->due <= t; n++, first++)
			lot_put(n, x->b, x->len, &x->to);
		lot_send(fd, n);
	}
	return 0;
}

/* ---- A road with losses, and who goes by it */

static volatile sig_atomic_t road_signal;
static void road_hears(int s) { road_signal = s; }

enum { DOORS = 16, SLOW_NAME = 900000 };
static double road_loss, road_ms, road_jitter;
static struct { int fd; unsigned datagrams, names; uint8_t seen[NAMES / 8]; } door[DOORS];

/* What has come is counted, and on its way, if it is not lost. */
static void road_take(int d) {
	static usec found[NAMES - SLOW_NAME];
	struct parcel *x = &parcels[nparcels];
	socklen_t size = sizeof x->to;
	while (nparcels < COUNT(parcels) && (x->len = (size_t)recvfrom(door[d].fd, x->b, PACKET, MSG_DONTWAIT, (struct sockaddr *)&x->to, &size)) + 1 > QUERY) {
		unsigned name = x->b[13] == 'n' ? num(memcpy((char[8]){ 0 }, x->b + 14, 6)) % NAMES : 0;
		usec *f = name >= SLOW_NAME ? &found[name - SLOW_NAME] : NULL, t = us_now();
		bool gone = part() < road_loss || part() < road_loss;
		door[d].datagrams++;
		door[d].names += !(door[d].seen[name / 8] >> name % 8 & 1);
		door[d].seen[name / 8] |= (uint8_t)(1 << name % 8);
		x->due = t + (usec)(1000 * (2 * road_ms + road_jitter * (2 * part() + 2 * part() - 2)));
		if (f && *f == 0) *f = t + MS(3500);
		if (f && *f > x->due) x->due = *f;
		if (gone || (f && *f - t > MS(1900))) continue;
		x->fd = door[d].fd;
		x->len = name_answer(x->b, x->len);
		x = &parcels[++nparcels];
	}
}

/* What is due leaves. Gives when the next is. */
static usec road_give(void) {
	usec next = us_now() + MS(900);
	for (unsigned i = 0; i < nparcels; )
		if (parcels[i].due <= now) {
			sendto(parcels[i].fd, parcels[i].b, parcels[i].len, 0, (struct sockaddr *)&parcels[i].to, sizeof parcels[i].to);
			parcels[i] = parcels[--nparcels];
		} else {
			next = MIN(next, parcels[i].due);
			i++;
		}
	return next;
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

/* pace PORT RATE SECONDS FIRST [BURST]: asks for RATE new names a second, from number FIRST on, BURST at a time, each once, and waits up
 * to 6 s for an answer. Prints median, 99th and 99.9th percentile and worst of the answers in milliseconds, how many came and how many did not. */
static int cmd_pace(char **arg) {
	static usec asked_at[65536];
	static long took[65536];
	int fd = port_sock(SOCK_DGRAM, arg[1], false);
	double gap = 1e6 / strtod(arg[2], NULL);
	unsigned count = (unsigned)(num(arg[3]) * 1e6 / gap), first = num(arg[4]), burst = arg[5] ? num(arg[5]) : 1, n = 0, back = 0;
	usec start = us_now(), last = start + (usec)(count * gap);
	uint8_t p[PACKET];
	if (fd < 0 || count > 65536) die("pace: not there, or too many");
	while (back < count && us_now() < last + SEC(6)) {
		for (; n < count && start + (usec)((n - n % burst) * gap) <= us_now(); n++) {
			name_query(p, n, first + n);
			asked_at[n] = now;
			if (send(fd, p, QUERY, 0) < 0) asked_at[n] = 0;
		}
		comes(fd, n < count ? 1 : 100);
		while (recv(fd, p, sizeof p, MSG_DONTWAIT) >= 12) {
			unsigned id = get16at(p);
			if (id >= n || !asked_at[id] || (p[3] & 15) != 0) continue;
			took[back++] = (long)(us_now() - asked_at[id]);
			asked_at[id] = 0;
		}
	}
	if (back == 0) return 1;
	qsort(took, back, sizeof *took, by_size);
	for (const unsigned *behind = (const unsigned[]){ back - 1 - back / 2, back / 100, back / 1000, 0, back }; *behind < back; behind++)
		printf("%.1f ", (double)took[back - 1 - *behind] / 1e3);
	printf("%u %u\n", back, count - back);
	return 0;
}

/* ---- Loads: each prints how many queries were answered, and how many not */

static struct { usec at; bool open; } slots[65536];         /* by ID */
static struct { unsigned head, tail, open, answered, lost; } flight;    /* the IDs in flight lie between head and tail */

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
	flight.open--, flight.answered++;
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

static int flight_say(void) { return printf("%u %u\n", flight.answered, flight.lost + flight.open) < 0; }

/* load PORT SECONDS COUNT WINDOW FIRST NAMES PACE: keeps up to WINDOW queries in flight for so long, or until COUNT were sent; asks
 * for NAMES names from number FIRST on, in turn, at most PACE a millisecond, also after a pause (0: as fast as answers come). */
static int cmd_load(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], false);
	usec start = us_now(), end = start + (usec)(strtod(arg[2], NULL) * 1e6), t = start, due = start;        /* due: the next query */
	unsigned count = num(arg[3]), window = num(arg[4]), first = num(arg[5]), names = num(arg[6]), pace = num(arg[7]);
	while ((t < end && flight.head < count) || flight.open) {
		int n = 0;
		if (pace) due = MAX(due, t - 2000);
		while (n < LOT && flight.open < window && flight.head < count && t < end && (!pace || due <= t) && !slots[flight.head % 65536].open) {
			slot_open(goes.b[n], first + flight.head % names);
			lot_put(n, goes.b[n], QUERY, NULL);
			n++;
			due += pace ? 1000 / pace : 0;
		}
		lot_send(fd, n);
		comes(fd, n == LOT ? 0 : pace ? 1 : 100);
		slots_read(fd, SEC(2));
		t = us_now();
	}
	return flight_say();
}

/* bursts PORT COUNT SIZE FIRST NAMES: COUNT queries in bursts of SIZE, each when the one before is answered */
static int cmd_bursts(char **arg) {
	int fd = port_sock(SOCK_DGRAM, arg[1], false), size = atoi(arg[3]);
	unsigned count = num(arg[2]), first = num(arg[4]), names = num(arg[5]);
	while (flight.head < count) {
		for (int i = 0; i < size; i++) {
			slot_open(goes.b[i], first + flight.head % names);
			lot_put(i, goes.b[i], QUERY, NULL);
		}
		for (lot_send(fd, size); flight.open; slots_read(fd, SEC(10))) comes(fd, 100);
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
	while (!(good = served(fd, NAMES - 1, 20)) && us_now() < end) usleep(arg[3] ? 50 : 10000);
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
	static long took[COUNT(visits)];
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
