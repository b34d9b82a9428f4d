/* gauge.h - what measures: the reference of the bench, an upstream, loads and figures; a road for the day
 *
 * Not a program; peer.c includes it. Above each cmd_... stands what it takes. All is on loopback, but for link.
 * Names are nDDDDDD.sixty-byte.example: an answer with one A record has 60 bytes. Queries and answers are copied, not built,
 * and go in batches, so that the load is not what is measured. */
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

/* echo PORT: every datagram goes back with QR set */
static int cmd_echo(char **arg) {
	for (int fd = port_sock(SOCK_DGRAM, arg[1], true);;) {
		int n = lot_recv(fd, MSG_WAITFORONE, true);
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

/* A message on its way until it is due, in that order, around. One to nobody goes into a device. */
struct parcel { usec due; int fd; struct sockaddr_in to; size_t len; uint8_t b[1600]; };
static struct parcel parcels[16384];
static unsigned parcels_first, parcels_end;

static struct parcel *parcel(unsigned i) { return &parcels[i % COUNT(parcels)]; }

static void parcel_put(usec due, int fd, const struct sockaddr_in *to, const void *p, size_t len) {
	unsigned i = parcels_end;
	if (i - parcels_first == COUNT(parcels) || len > sizeof parcels->b) return;
	for (parcels_end++; i != parcels_first && parcel(i - 1)->due > due; i--) *parcel(i) = *parcel(i - 1);
	struct parcel *x = parcel(i);
	x->due = due;
	x->fd = fd;
	x->to = *to;
	x->len = len;
	memcpy(x->b, p, len);
}

/* What is due leaves; then waits until something has come, or is due: whole ticks, after which more is due and leaves together. */
static int parcels_wait(struct pollfd *fds, int n, usec tick) {
	int fd = -1, k = 0;
	for (us_now(); parcels_first != parcels_end && parcel(parcels_first)->due <= now; parcels_first++) {
		struct parcel *x = parcel(parcels_first);
		if (k == LOT || x->fd != fd) {
			lot_send(fd, k);
			k = 0;
		}
		fd = x->fd;
		if (x->to.sin_family) lot_put(k++, x->b, x->len, &x->to);
		else if (write(fd, x->b, x->len) < 0 && errno == EBADF) die("no device");
	}
	lot_send(fd, k);
	usec left = parcels_first == parcels_end ? MS(900) : MIN(parcel(parcels_first)->due - now, MS(900));
	return ppoll(fds, (nfds_t)n, &(struct timespec){ 0, (long)((left + tick - 1) / tick * tick) * 1000 }, NULL);
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
	int n = lot_recv(door[d].fd, MSG_DONTWAIT, true);
	us_now();
	for (int i = 0; i < n; i++) {
		uint8_t *p = came.b[i];
		unsigned name = p[13] == 'n' ? num(memcpy((char[8]){ 0 }, p + 14, 6)) % NAMES : 0;
		usec *f = name >= SLOW_NAME ? &found[name - SLOW_NAME] : NULL;
		usec due = now + (usec)(1000 * (2 * road_ms + road_jitter * (2 * part() + 2 * part() - 2)));
		bool gone = part() < road_loss || part() < road_loss;
		door[d].datagrams++;
		door[d].names += !(door[d].seen[name / 8] >> name % 8 & 1);
		door[d].seen[name / 8] |= (uint8_t)(1 << name % 8);
		if (f && *f == 0) *f = now + MS(3500);
		if (gone || (f && *f - now > MS(1900))) continue;
		parcel_put(f ? MAX(due, *f) : due, door[d].fd, &came.a[i], p, name_answer(p, came.m[i].msg_len));
	}
}

/* road LOSS MS JITTER THEN PORT...: name servers at the end of a road on which LOSS percent are lost and each takes MS +- JITTER
 * ms, both ways. SIGUSR1: from now on MS is THEN, and counting begins anew. SIGTERM: prints for each port the datagrams that have
 * come, and how many names they asked for. A name from SLOW_NAME on takes 3.5 s to find, and who asked 1.9 s before that gets no
 * answer. */
static int cmd_road(char **arg) {
	struct pollfd fds[DOORS];
	int doors = 0;
	road_loss = strtod(arg[1], NULL) / 100, road_ms = strtod(arg[2], NULL), road_jitter = strtod(arg[3], NULL);
	for (; doors < DOORS && arg[5 + doors]; doors++)
		fds[doors] = (struct pollfd){ door[doors].fd = port_sock(SOCK_DGRAM, arg[5 + doors], true), POLLIN, 0 };
	signal(SIGUSR1, road_hears);
	signal(SIGTERM, road_hears);
	while (road_signal != SIGTERM) {
		parcels_wait(fds, doors, road_jitter > 0 ? 1 : MS(1));
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

/* ---- Loads */

#define GAUGE_WORDS(I) I(gauge, ms) I(gauge, count) I(gauge, window) I(gauge, first) I(gauge, names) I(gauge, every) \
	I(gauge, burst) I(gauge, tcp)
static struct gauge { GAUGE_WORDS(INT_MEMBER) } gauge = { NAMES, .count = NAMES, .window = 60000, .names = NAMES, .burst = 1 };
static const struct field gauge_fields[] = { GAUGE_WORDS(INT_FIELD) };

static struct { usec at; bool open; int records; } slots[65536];        /* by ID; so many records must be in its answer */
static struct { int head, tail, open, answered, lost; } flight;         /* the IDs in flight lie between head and tail */
static long took[2 * NAMES];

static void slot_open(int records) {
	slots[flight.head++ % 65536].open = true;
	slots[(flight.head - 1) % 65536].records = records;
	slots[(flight.head - 1) % 65536].at = us_now();
	flight.open++;
}

static void slot_answer(const uint8_t *p) {
	unsigned id = get16at(p);
	if (!slots[id].open || (p[3] & 15) != 0 || p[7] < slots[id].records) return;
	slots[id].open = false;
	flight.open--;
	if (flight.answered < (int)COUNT(took)) took[flight.answered] = (long)(now - slots[id].at);
	flight.answered++;
}

/* All that has come is answers; false when a connection ends. What was not answered within 6 s is given up. */
static bool slots_read(int fd) {
	static struct buf in;
	ssize_t n = gauge.tcp ? recv(fd, came.b, sizeof came.b, MSG_DONTWAIT) : lot_recv(fd, MSG_DONTWAIT, false);
	bool ended = gauge.tcp && (n == 0 || (n < 0 && !later(errno)));
	us_now();
	for (int i = 0; i < n && !gauge.tcp; i++) slot_answer(came.b[i]);
	for (put(&in, came.b, gauge.tcp ? (size_t)MAX(n, 0) : 0); framed(&in) >= 12; take(&in, 2 + (size_t)framed(&in)))
		slot_answer(in.p + 2);
	for (; flight.tail != flight.head; flight.tail++) {
		if (!slots[flight.tail % 65536].open) continue;
		if (slots[flight.tail % 65536].at + SEC(6) > now) break;
		slots[flight.tail % 65536].open = false;
		flight.open--, flight.lost++;
	}
	return !ended;
}

/* Prints how many queries were answered, how many not, and of the answers median, 99 %, 99.9 % and worst in milliseconds. */
static int flight_say(void) {
	size_t n = MIN((size_t)flight.answered, COUNT(took));
	qsort(took, n, sizeof *took, by_size);
	printf("%d %d", flight.answered, flight.lost + flight.open);
	for (const size_t *part_of = (const size_t[]){ 2, 100, 1000, SIZE_MAX, 0 }; n > 0 && *part_of != 0; part_of++)
		printf(" %.1f", (double)took[n - 1 - n / *part_of] / 1e3);
	return puts("") < 0;
}

/* May another query leave, when the next burst is due then? */
static bool load_may(usec end, usec due) {
	if (flight.head >= gauge.count || slots[flight.head % 65536].open) return false;
	return flight.head % gauge.burst != 0 || (flight.open + gauge.burst <= gauge.window && due <= now && now < end);
}

/* load PORT [WORD=N...]: asks for names names from number first on, in turn, until count were sent or ms milliseconds have gone. At
 * most window are in flight, and burst of them leave at a time, each every microseconds after the one before if there is room for
 * all of it, also after a pause (0: as fast as answers come); a burst of two is A and AAAA of a name; with tcp over one connection,
 * all that may leave in one write. */
static int cmd_load(char **arg) {
	uint8_t *const out = (uint8_t *)goes.b, *p;
	for (char **w = arg + 2; *w; w++)
		if (!field_set(gauge_fields, COUNT(gauge_fields), &gauge, *w)) die("load: what is %s?", *w);
	int fd = port_sock(gauge.tcp ? SOCK_STREAM : SOCK_DGRAM, arg[1], false);
	int types = gauge.burst == 2 ? 2 : 1, most = gauge.tcp ? (int)sizeof goes.b / (QUERY + 2) : LOT;
	usec end = us_now() + MS(gauge.ms), due = now;
	while (fd >= 0 && ((us_now() < end && flight.head < gauge.count) || flight.open)) {
		int n = 0;
		due = MAX(due, now - MS(2));
		for (; n < most && load_may(end, due); n++) {
			p = out + n * (QUERY + 2);
			if (flight.head % gauge.burst == 0) due += gauge.every;
			put16at(p, QUERY);
			name_query(p + 2, (unsigned)flight.head, (unsigned)(gauge.first + flight.head / types % gauge.names));
			if (flight.head % types > 0) put16at(p + QUERY - 2, T_AAAA);
			slot_open(0);
			if (!gauge.tcp) lot_put(n, p + 2, QUERY, NULL);
		}
		if (!gauge.tcp) lot_send(fd, n);
		else if (n > 0 && write(fd, out, (size_t)n * (QUERY + 2)) < 0) break;
		comes(fd, n == LOT ? 0 : gauge.every ? 1 : 100);
		if (!slots_read(fd)) break;
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

/* answers PORT SECONDS [COMMAND...]: waits until a query is answered there. Prints the microseconds since it has started the
 * command, and stops that */
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

/* ---- The day */

/* The ends of a link: a device each, in the network namespace of a process. */
static struct link_end { int fd, slot; usec last; } ends[2];
static unsigned link_delay, link_jitter, link_loss;

static void link_ready(void *owner, short revents) {
	struct link_end *e = owner;
	uint8_t b[1600];
	ssize_t n = read(e->fd, b, sizeof b);
	(void)revents;
	if (n <= 0 || rnd() % 1000 < link_loss) return;
	e->last = MAX(e->last, now + MS(link_delay + rnd() % (link_jitter + 1)));
	send_later(e->last, ends[e == ends].fd, &(struct addr){ 0 }, b, (size_t)n);
}

static void link_open(struct link_end *e, const char *pid, const char *device) {
	char path[256];
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
	int ns = open(path, O_RDONLY), fd = -1;
	if (ns >= 0 && setns(ns, CLONE_NEWNET) == 0) fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%.15s", device);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) != 0) die("%s %s: %s", pid, device, strerror(errno));
	e->fd = fd;
	watch_add(&e->slot, fd, POLLIN, link_ready, e, false);
}

/* link PID DEVICE PID DEVICE DELAY JITTER LOSS: carries packets both ways between the network namespaces of two processes, late, in
 * order, and loses some: milliseconds each way, packets of 1000. Says "ready". */
static int cmd_link(char **arg) {
	watch_init(3);
	link_open(&ends[0], arg[1], arg[2]);
	link_open(&ends[1], arg[3], arg[4]);
	link_delay = (unsigned)atoi(arg[5]), link_jitter = (unsigned)atoi(arg[6]), link_loss = (unsigned)atoi(arg[7]);
	puts("ready");
	for (fflush(stdout);;) jobs_turn();
	return 1;
}
