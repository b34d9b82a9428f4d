/* gauge.h - what measures beside the peer: the references of the bench, the time of a start, and a road for the day
 *
 * Not a program; peer.c includes it. Above each cmd_... stands what it takes. */
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

static int served_port(const char *port) {
	int fd = sock(SOCK_DGRAM, (struct addr[]){ addr_of("127.0.0.1", port) }, NULL);
	if (fd < 0) die("port %s: %s", port, strerror(errno));
	return fd;
}

/* echo PORT: every datagram goes back with QR set, as many at a time as have come */
static int cmd_echo(char **arg) {
	static struct mmsghdr m[BATCH];
	static struct iovec v[BATCH];
	static struct sockaddr_in from[BATCH];
	static uint8_t b[BATCH][600];
	for (int fd = served_port(arg[1]), n;;) {
		batch_init(m, v, b[0], sizeof b[0], BATCH);
		for (int i = 0; i < BATCH; i++) {
			m[i].msg_hdr.msg_name = &from[i];
			m[i].msg_hdr.msg_namelen = sizeof from[i];
		}
		n = recvmmsg(fd, m, BATCH, MSG_WAITFORONE, NULL);
		for (int i = 0; i < n; i++) {
			b[i][2] |= 0x80;
			v[i].iov_len = m[i].msg_len;
		}
		for (int at = 0, k; at < n; at += MAX(k, 1)) k = sendmmsg(fd, m + at, (unsigned)(n - at), 0);
	}
	return 0;
}

/* relay PORT UPSTREAM: the least that a forwarder can do, one query at a time */
static int cmd_relay(char **arg) {
	int fd = served_port(arg[1]);
	struct addr from, to = addr_of("127.0.0.1", arg[2]);
	uint8_t p[600];
	for (;;) {
		socklen_t size = sizeof from.u;
		ssize_t n = recvfrom(fd, p, sizeof p, 0, &from.u.sa, &size);
		int over = sock(SOCK_DGRAM, NULL, &to);
		if (n > 0 && send(over, p, (size_t)n, 0) == n && message_wait(over, false, &got, ms_now() + 1000) == NULL)
			sendto(fd, got.p, got.n, 0, &from.u.sa, size);
		close(over);
	}
	return 0;
}

/* start PORT NAME COMMAND...: starts it, and stops it when that name is answered there; prints the microseconds that took, 5 s at most */
static int cmd_start(char **arg) {
	struct addr to = addr_of("127.0.0.1", arg[1]);
	int fd = sock(SOCK_DGRAM, NULL, &to);
	usec began = us_now();
	pid_t pid = fork();
	bool served = false;
	if (pid == 0) _exit(execvp(arg[3], arg + 3));
	query_put(&sent, arg[2], T_A, 1);
	while (!served && us_now() < began + SEC(5)) {
		usleep(50);
		served = send(fd, sent.p, sent.n, 0) >= 0 && message_wait(fd, false, &got, ms_now() + 20) == NULL && got.n >= 12 &&
		    (got.p[3] & 15) == NOERROR;
	}
	printf("%lld\n", (long long)(us_now() - began));
	kill(pid, SIGTERM);
	return waitpid(pid, NULL, 0) != pid;
}

/* The ends of a link: a device each, in the network namespace of a process. */
static struct link_end { int fd, slot; usec last; } ends[2];
static unsigned link_delay, link_jitter, link_loss;

static void link_ready(void *owner, UNUSED short revents) {
	struct link_end *e = owner;
	uint8_t b[1600];
	ssize_t n = read(e->fd, b, sizeof b);
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
	for (;;) jobs_turn();
	return 1;
}
