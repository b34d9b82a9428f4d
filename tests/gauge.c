/* The tools of the bench: the reference, an upstream, loads and measures. The functions cmd_... say what they take.
 * Names are nDDDDDD.sixty-byte.example: an answer with one A record has 60 bytes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, QUERY = 44, PACKET = 600, NAMES = 1000000 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void)                        /* microseconds */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static unsigned number(const char *s) { return (unsigned)strtoul(s, NULL, 10); }

/* A socket of TYPE on loopback: bound to PORT when it serves, else connected to it; -1 when nobody is there. */
static int sock(int type, const char *port, bool serve) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)number(port)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), on = 1, big = 4 << 20;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if ((serve ? bind(fd, (struct sockaddr *)&a, sizeof a) : connect(fd, (struct sockaddr *)&a, sizeof a)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool readable(int fd, int ms) {
    struct pollfd p = { fd, POLLIN, 0 };
    return poll(&p, 1, ms) > 0;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t median(int64_t *v, size_t n) {
    qsort(v, n, sizeof *v, by_value);
    return n ? v[n / 2] : -1;
}

/* ---- messages, alone and in batches ---- */

/* The query for name number N; always QUERY bytes. */
static void query(uint8_t *p, unsigned id, unsigned n) {
    memcpy(p, "II\1\0\0\1\0\0\0\0\0\0\7nDDDDDD\12sixty-byte\7example\0\0\1\0\1", QUERY);
    p[0] = (uint8_t)(id >> 8), p[1] = (uint8_t)id;
    for (int i = 6; i > 0; i--, n /= 10) p[13 + i] = (uint8_t)('0' + n % 10);
}

/* Turns the query of LEN bytes into its answer, in place; the new length. */
static size_t answer(uint8_t *p, size_t len, unsigned ttl) {
    const uint8_t rr[16] = { 0xc0, 12, 0, 1, 0, 1, (uint8_t)(ttl >> 24), (uint8_t)(ttl >> 16), (uint8_t)(ttl >> 8),
                             (uint8_t)ttl, 0, 4, 192, 0, 2, 1 };
    const uint8_t opt[11] = { 0, 0, 41, 4, 208 };
    size_t at = 12;
    while (at < len && p[at]) at += p[at] + 1u;
    at += 5;                                    /* the root label, type and class */
    if (at > len || at > PACKET - 32) return len;
    p[2] |= 0x80, p[3] = 0x80, p[7] = 1;
    memcpy(p + at, rr, sizeof rr);
    at += sizeof rr;
    if (p[11]) {                                /* the query had an OPT record, and so has the answer */
        memcpy(p + at, opt, sizeof opt);
        at += sizeof opt;
    }
    return at;
}

struct batch {
    struct mmsghdr m[BATCH];
    struct iovec v[BATCH];
    struct sockaddr_in a[BATCH];
    uint8_t b[BATCH][PACKET];
};

static struct batch in, out;

static int batch_recv(int fd, int flags, bool from) {
    for (int i = 0; i < BATCH; i++) {
        in.v[i] = (struct iovec){ in.b[i], PACKET };
        in.m[i].msg_hdr = (struct msghdr){ .msg_iov = &in.v[i], .msg_iovlen = 1, .msg_name = from ? &in.a[i] : NULL,
                                           .msg_namelen = from ? sizeof in.a[i] : 0 };
    }
    return recvmmsg(fd, in.m, BATCH, flags, NULL);
}

/* Slot I of the outgoing batch will be these bytes to that address (NULL: the connected one). */
static void batch_put(int i, void *bytes, size_t len, struct sockaddr_in *to) {
    out.v[i] = (struct iovec){ bytes, len };
    out.m[i].msg_hdr = (struct msghdr){ .msg_iov = &out.v[i], .msg_iovlen = 1, .msg_name = to, .msg_namelen = to ? sizeof *to : 0 };
}

/* What the network refuses is lost. */
static void batch_send(int fd, int n) {
    for (int at = 0, k; at < n; at += k > 0 ? k : 1) k = sendmmsg(fd, out.m + at, (unsigned)(n - at), 0);
}

/* ---- the reference and an upstream ---- */

/* echo PORT [poll]: every datagram goes back with QR set; with poll() before it receives, as servers do */
static int cmd_echo(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], true);
    if (fd < 0) die("echo");
    for (;;) {
        if (arg[1]) readable(fd, -1);
        int n = batch_recv(fd, arg[1] ? MSG_DONTWAIT : MSG_WAITFORONE, true);
        for (int i = 0; i < n; i++) {
            in.b[i][2] |= 0x80;
            batch_put(i, in.b[i], in.m[i].msg_len, &in.a[i]);
        }
        batch_send(fd, n);
    }
    return 0;
}

/* relay PORT UPSTREAM: the least that a forwarder can do, one query at a time */
static int cmd_relay(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], true);
    struct sockaddr_in from;
    uint8_t p[PACKET];
    if (fd < 0) die("relay");
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, p, sizeof p, 0, (struct sockaddr *)&from, &size);
        int up = sock(SOCK_DGRAM, arg[1], false);
        if (up >= 0 && n > 0 && send(up, p, (size_t)n, 0) == n && readable(up, 1000) && (n = recv(up, p, sizeof p, 0)) > 0)
            sendto(fd, p, (size_t)n, 0, (struct sockaddr *)&from, size);
        if (up >= 0) close(up);
    }
    return 0;
}

/* upstream PORT MS: answers every query MS milliseconds after it came */
static int cmd_upstream(char **arg) {
    enum { RING = 16384 };
    static struct { int64_t due; struct sockaddr_in from; size_t len; uint8_t b[PACKET]; } ring[RING], *r;
    int fd = sock(SOCK_DGRAM, arg[0], true);
    int64_t delay = number(arg[1]) * 1000;
    unsigned head = 0, tail = 0;
    if (fd < 0) die("upstream");
    for (;;) {
        int64_t left = ring[tail % RING].due - now();
        readable(fd, head == tail ? -1 : left > 0 ? (int)(left + 999) / 1000 : 0);
        int n = batch_recv(fd, MSG_DONTWAIT, true);
        int64_t t = now();
        for (int i = 0; i < n && head - tail < RING; i++, head++) {
            r = &ring[head % RING];
            r->due = t + delay;
            r->from = in.a[i];
            memcpy(r->b, in.b[i], in.m[i].msg_len);
            r->len = answer(r->b, in.m[i].msg_len, 86400);
        }
        for (n = 0; n < BATCH && tail != head && (r = &ring[tail % RING])->due <= t; n++, tail++)
            batch_put(n, r->b, r->len, &r->from);
        batch_send(fd, n);
    }
    return 0;
}

/* ---- a road with losses, and who goes by it ---- */

static volatile sig_atomic_t road_signal;
static void on_signal(int s) { road_signal = s; }

static double chance(void)                      /* 0 to 1 */
{
    static uint64_t x = 7;
    x = x * 6364136223846793005u + 1442695040888963407u;
    return (double)(x >> 33) / 2147483648.0;
}

enum { DOORS = 16, SLOW_NAME = 900000 };
static double road_loss, road_ms, road_jitter;
static struct { int fd; unsigned datagrams, names; uint8_t seen[NAMES / 8]; } door[DOORS];
static struct parcel { int64_t due; int fd; struct sockaddr_in to; size_t len; uint8_t b[PACKET]; } parcel[8192];
static unsigned parcels;

/* What has come is counted, and on its way, if it is not lost. */
static void road_take(int d) {
    static int64_t found[NAMES - SLOW_NAME];
    struct parcel *x = &parcel[parcels];
    socklen_t size = sizeof x->to;
    while (parcels < sizeof parcel / sizeof *parcel && (x->len = (size_t)recvfrom(door[d].fd, x->b, PACKET, MSG_DONTWAIT,
                                                                                (struct sockaddr *)&x->to, &size)) + 1 > QUERY) {
        unsigned name = x->b[13] == 'n' ? number((char *)memcpy((char[8]){ 0 }, x->b + 14, 6)) % NAMES : 0;
        int64_t *f = name >= SLOW_NAME ? &found[name - SLOW_NAME] : NULL, t = now();
        bool lost = chance() < road_loss || chance() < road_loss;
        door[d].datagrams++;
        door[d].names += !(door[d].seen[name / 8] >> name % 8 & 1);
        door[d].seen[name / 8] |= (uint8_t)(1 << name % 8);
        x->due = t + (int64_t)(1000 * (2 * road_ms + road_jitter * (2 * chance() + 2 * chance() - 2)));
        if (f && *f == 0) *f = t + 3500000;
        if (f && *f > x->due) x->due = *f;
        if (lost || (f && *f - t > 1900000)) continue;
        x->fd = door[d].fd;
        x->len = answer(x->b, x->len, 86400);
        x = &parcel[++parcels];
    }
}

/* road LOSS MS JITTER THEN PORT...: name servers at the end of a road on which LOSS percent are lost and each takes MS +- JITTER ms, both
 * ways. SIGUSR1: from now on MS is THEN, and counting begins anew. SIGTERM: prints for each port the datagrams that have come, and
 * how many names they asked for. A name from SLOW_NAME on takes 3.5 s to find, and who asked 1.9 s before that gets no answer. */
static int cmd_road(char **arg) {
    struct pollfd fds[DOORS];
    int doors = 0;
    road_loss = strtod(arg[0], NULL) / 100, road_ms = strtod(arg[1], NULL), road_jitter = strtod(arg[2], NULL);
    for (; doors < DOORS && arg[4 + doors]; doors++)
        if ((fds[doors] = (struct pollfd){ door[doors].fd = sock(SOCK_DGRAM, arg[4 + doors], true), POLLIN, 0 }).fd < 0)
            die("road");
    signal(SIGUSR1, on_signal);
    signal(SIGTERM, on_signal);
    while (road_signal != SIGTERM) {
        int64_t next = now() + 900000, t;
        for (unsigned i = 0; i < parcels; i++) next = parcel[i].due < next ? parcel[i].due : next;
        t = next - now();
        ppoll(fds, (nfds_t)doors, &(struct timespec){ 0, t > 0 ? (long)t * 1000 : 0 }, NULL);
        if (road_signal == SIGUSR1) {
            road_signal = 0;
            road_ms = strtod(arg[3], NULL);
            for (int d = 0; d < doors; d++) door[d].datagrams = door[d].names = 0;
            for (int d = 0; d < doors; d++) memset(door[d].seen, 0, sizeof door[d].seen);
        }
        for (int d = 0; d < doors; d++) road_take(d);
        for (unsigned i = 0; i < parcels; )
            if (parcel[i].due <= now()) {
                sendto(parcel[i].fd, parcel[i].b, parcel[i].len, 0, (struct sockaddr *)&parcel[i].to, sizeof parcel[i].to);
                parcel[i] = parcel[--parcels];
            } else
                i++;
    }
    for (int d = 0; d < doors; d++) printf("%s %u %u\n", arg[4 + d], door[d].datagrams, door[d].names);
    return 0;
}

/* pace PORT RATE SECONDS FIRST: asks for RATE new names a second, from number FIRST on, each once, and waits up to 6 s for an answer.
 * Prints median, 99th and 99.9th percentile and worst of the answers in milliseconds, how many came and how many did not. */
static int cmd_pace(char **arg) {
    static int64_t sent[65536], took[65536];
    int fd = sock(SOCK_DGRAM, arg[0], false);
    unsigned rate = number(arg[1]), count = rate * number(arg[2]), first = number(arg[3]), n = 0, got = 0;
    int64_t start = now(), last = start + (int64_t)count * 1000000 / rate;
    uint8_t p[PACKET];
    if (fd < 0 || count > 65536) die("pace");
    while (got < count && now() < last + 6000000) {
        for (; n < count && start + (int64_t)n * 1000000 / rate <= now(); n++) {
            query(p, n, first + n);
            sent[n] = now();
            if (send(fd, p, QUERY, 0) < 0) sent[n] = 0;
        }
        readable(fd, n < count ? 1 : 100);
        while (recv(fd, p, sizeof p, MSG_DONTWAIT) >= 12) {
            unsigned id = (unsigned)p[0] << 8 | p[1];
            if (id < n && sent[id] && (p[3] & 15) == 0) {
                took[got++] = now() - sent[id];
                sent[id] = 0;
            }
        }
    }
    qsort(took, got, sizeof *took, by_value);
    if (got == 0) return 1;
    printf("%.1f %.1f %.1f %.1f %u %u\n", (double)took[got / 2] / 1e3, (double)took[got - 1 - got / 100] / 1e3,
           (double)took[got - 1 - got / 1000] / 1e3, (double)took[got - 1] / 1e3, got, count - got);
    return 0;
}

/* ---- loads: each prints how many queries were answered, and how many not ---- */

static struct { int64_t sent; bool open; } slot[65536];     /* by ID */
static unsigned head, tail;                                 /* the IDs in flight lie between */
static unsigned in_flight, answered, lost;

static void slot_open(unsigned id) {
    slot[id % 65536].sent = now();
    slot[id % 65536].open = true;
    in_flight++;
}

static void slot_answer(const uint8_t *p) {
    unsigned id = (unsigned)p[0] << 8 | p[1];
    if (slot[id].open && (p[3] & 15) == 0) {
        slot[id].open = false;
        in_flight--, answered++;
    }
}

/* Gives up what was not answered in time. */
static void slot_sweep(int64_t patience) {
    for (; tail != head; tail++) {
        if (slot[tail % 65536].open) {
            if (slot[tail % 65536].sent + patience > now()) return;
            slot[tail % 65536].open = false;
            in_flight--, lost++;
        }
    }
}

/* load PORT SECONDS COUNT WINDOW FIRST NAMES PACE: keeps up to WINDOW queries in flight for so long, or until COUNT were sent; asks
 * for NAMES names from number FIRST on, in turn, at most PACE a millisecond, also after a pause (0: as fast as answers come). */
static int cmd_load(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t start = now(), end = start + (int64_t)(strtod(arg[1], NULL) * 1e6), t = start, due = start;     /* due: the next query */
    unsigned count = number(arg[2]), window = number(arg[3]), first = number(arg[4]), names = number(arg[5]), pace = number(arg[6]);
    while ((t < end && head < count) || in_flight) {
        int n = 0;
        if (pace && due < t - 2000) due = t - 2000;
        while (n < BATCH && in_flight < window && head < count && t < end && (!pace || due <= t) && !slot[head % 65536].open) {
            query(out.b[n], head, first + head % names);
            batch_put(n, out.b[n], QUERY, NULL);
            slot_open(head++), n++;
            due += pace ? 1000 / pace : 0;
        }
        batch_send(fd, n);
        readable(fd, n == BATCH ? 0 : pace ? 1 : 100);
        n = batch_recv(fd, MSG_DONTWAIT, false);
        for (int i = 0; i < n; i++) slot_answer(in.b[i]);
        slot_sweep(2000000);
        t = now();
    }
    printf("%u %u\n", answered, lost);
    return 0;
}

/* bursts PORT COUNT SIZE FIRST NAMES: COUNT queries in bursts of SIZE, each when the one before is answered */
static int cmd_bursts(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], false);
    unsigned count = number(arg[1]), size = number(arg[2]), first = number(arg[3]), names = number(arg[4]);
    while (head < count) {
        for (unsigned i = 0; i < size; i++, head++) {
            query(out.b[i], head, first + head % names);
            batch_put((int)i, out.b[i], QUERY, NULL);
            slot_open(head);
        }
        batch_send(fd, (int)size);
        while (in_flight) {
            readable(fd, 100);
            int n = batch_recv(fd, MSG_DONTWAIT, false);
            for (int i = 0; i < n; i++) slot_answer(in.b[i]);
            slot_sweep(10000000);
        }
    }
    printf("%u %u\n", answered, lost);
    return 0;
}

/* stream PORT SECONDS WINDOW NAMES: as load, over one TCP connection; all that may be asked leaves in one write */
static int cmd_stream(char **arg) {
    static uint8_t buf[65536], ask[1024 * (QUERY + 2)];
    int fd = sock(SOCK_STREAM, arg[0], false);
    int64_t end = now() + (int64_t)(strtod(arg[1], NULL) * 1e6);
    unsigned window = number(arg[2]), names = number(arg[3]);
    size_t have = 0;
    while (fd >= 0 && (now() < end || in_flight)) {
        size_t len = 0;
        for (; in_flight < window && now() < end && len < sizeof ask; len += QUERY + 2) {
            ask[len] = 0, ask[len + 1] = QUERY;
            query(ask + len + 2, head, head % names);
            slot_open(head++);
        }
        if (len && write(fd, ask, len) != (ssize_t)len) break;
        ssize_t n = readable(fd, 2000) ? read(fd, buf + have, sizeof buf - have) : 0;
        if (n <= 0) break;
        have += (size_t)n;
        size_t at = 0, size;
        while (have - at >= 14 && have - at >= 2 + (size = (size_t)buf[at] << 8 | buf[at + 1])) {
            slot_answer(buf + at + 2);
            at += 2 + size;
        }
        memmove(buf, buf + at, have -= at);
    }
    printf("%u %u\n", answered, in_flight);
    return 0;
}

/* hold PORT N: keeps N idle TCP connections open, until killed */
static int cmd_hold(char **arg) {
    enum { MOST = 4096 };
    static struct pollfd p[MOST];
    struct rlimit files = { MOST + 16, MOST + 16 };
    unsigned n = number(arg[1]);
    setrlimit(RLIMIT_NOFILE, &files);
    for (unsigned i = 0; i < n && i < MOST; i++)
        p[i] = (struct pollfd){ sock(SOCK_STREAM, arg[0], false), POLLIN, 0 };
    puts("held");
    fflush(stdout);
    while (poll(p, n, -1) > 0)
        for (unsigned i = 0; i < n; i++)
            if (p[i].revents) {                 /* closed for being idle: another one */
                close(p[i].fd);
                p[i].fd = sock(SOCK_STREAM, arg[0], false);
            }
    return 1;
}

/* ---- measures ---- */

/* The number after FIELD fields of a /proc file, counted behind the last ')'. */
static unsigned long long field(const char *path, int count) {
    char buf[2048] = "", *s;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, buf, sizeof buf - 1) < 0) buf[0] = 0;
    if (fd >= 0) close(fd);
    s = strrchr(buf, ')') ? strrchr(buf, ')') + 2 : buf;
    for (; count > 0 && (s = strchr(s, ' ')) != NULL; count--) s++;
    return s ? strtoull(s, NULL, 10) : 0;
}

/* Microseconds of user and system time of a process, its threads and its children: by the scheduler's account where the
 * kernel shows it (it is the one that utime and stime are made from), else in ticks. */
static unsigned long long cpu(unsigned pid) {
    char path[300];
    unsigned long long ns = 0, ticks, tick = 1000000ull / (unsigned long long)sysconf(_SC_CLK_TCK);
    struct dirent *e;
    DIR *d;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    ticks = (field(path, 11) + field(path, 12)) * tick;
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    for (d = opendir(path); d && (e = readdir(d)) != NULL; )
        if (e->d_name[0] != '.') {
            snprintf(path, sizeof path, "/proc/%u/task/%s/schedstat", pid, e->d_name);
            ns += field(path, 0);
        }
    if (d) closedir(d);
    ticks = ns ? ns / 1000 : ticks;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    ticks += (field(path, 13) + field(path, 14)) * tick;        /* children that have ended */
    for (d = opendir("/proc"); d && (e = readdir(d)) != NULL; )
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9') {
            snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
            if (field(path, 1) == pid) ticks += cpu(number(e->d_name));
        }
    if (d) closedir(d);
    return ticks;
}

/* cpu PID */
static int cmd_cpu(char **arg) {
    printf("%llu\n", cpu(number(arg[0])));
    return 0;
}

/* Asks for NAME once; true when a good answer comes within MS. */
static bool served(int fd, unsigned name, int ms) {
    uint8_t p[PACKET];
    query(p, name & 65535, name);
    return fd >= 0 && send(fd, p, QUERY, 0) == QUERY && readable(fd, ms) && recv(fd, p, sizeof p, 0) > 12 && (p[3] & 15) == 0;
}

/* serves PORT SECONDS: waits until a query for NAME is answered there */
static int cmd_serves(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t end = now() + number(arg[1]) * 1000000ll;
    while (now() < end) {
        if (served(fd, NAMES - 1, 300)) return 0;
        usleep(10000);
    }
    return 1;
}

/* first PORT COMMAND...: microseconds from the start of the command to its first answer; then stops it */
static int cmd_first(char **arg) {
    int fd = sock(SOCK_DGRAM, arg[0], false);
    int64_t start = now(), t = start;
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) && freopen("/dev/null", "w", stderr)) execvp(arg[1], arg + 1);
        _exit(127);
    }
    while (t < start + 5000000 && !served(fd, (unsigned)t % NAMES, 20)) {
        usleep(50);
        t = now();
    }
    t = now();
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    printf("%lld\n", (long long)(t - start));
    return t > start + 5000000;
}

/* latency DIRECT PORT COUNT FIRST: asks for COUNT new names, one at a time, once the upstream and once the forwarder; prints the
 * medians in microseconds, and that of the differences */
static int cmd_latency(char **arg) {
    int fd[2] = { sock(SOCK_DGRAM, arg[0], false), sock(SOCK_DGRAM, arg[1], false) };
    unsigned count = number(arg[2]), first = number(arg[3]);
    int64_t *v[3];
    size_t n = 0;
    for (int k = 0; k < 3; k++)
        if ((v[k] = calloc(count, sizeof **v)) == NULL) die("calloc");
    for (unsigned i = 0; i < count; i++) {
        bool good = true;
        for (int k = 0; k < 2; k++) {
            int64_t t = now();
            good = served(fd[k], first + i, 1000) && good;
            v[k][n] = now() - t;
        }
        if (good) {
            v[2][n] = v[1][n] - v[0][n];
            n++;
        }
    }
    printf("%lld %lld %lld\n", (long long)median(v[0], n), (long long)median(v[1], n), (long long)median(v[2], n));
    return 0;
}

/* A Zipf(1.0) stream over NAMES names, the same for the same seed: rank K comes with probability proportional to 1/K. */
static double *sum_to;
static uint64_t zipf_state;

static void zipf_seed(unsigned seed) {
    double sum = 0;
    zipf_state = seed * 2654435761u + 88172645463325252ull;
    if ((sum_to = calloc(NAMES, sizeof *sum_to)) == NULL) die("calloc");
    for (int k = 0; k < NAMES; k++) sum_to[k] = sum += 1.0 / (k + 1);
}

static unsigned zipf_next(void) {
    unsigned low = 0, high = NAMES - 1;
    zipf_state ^= zipf_state << 13, zipf_state ^= zipf_state >> 7, zipf_state ^= zipf_state << 17;
    double want = (double)(zipf_state >> 11) / 9007199254740992.0 * sum_to[NAMES - 1];
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (sum_to[mid] < want)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* zipf PORT UPSTREAM COUNT SEED: is the load and, at the port UPSTREAM, the upstream that counts misses; prints the hits among
 * the second half of COUNT queries */
static int cmd_zipf(char **arg) {
    enum { WINDOW = 32 };
    int client = sock(SOCK_DGRAM, arg[0], false), up = sock(SOCK_DGRAM, arg[1], true);
    unsigned count = number(arg[2]), misses = 0, before = 0;
    struct pollfd p[2] = { { client, POLLIN, 0 }, { up, POLLIN, 0 } };
    if (client < 0 || up < 0) die("zipf");
    zipf_seed(number(arg[3]));
    while (head < count || in_flight) {
        int n = 0;
        for (; in_flight < WINDOW && head < count && !slot[head % 65536].open; n++) {
            if (head == count / 2) before = misses;
            query(out.b[n], head, zipf_next());
            batch_put(n, out.b[n], QUERY, NULL);
            slot_open(head++);
        }
        batch_send(client, n);
        poll(p, 2, 100);
        n = batch_recv(up, MSG_DONTWAIT, true);
        for (int i = 0; i < n; i++, misses++)
            batch_put(i, in.b[i], answer(in.b[i], in.m[i].msg_len, 86400), &in.a[i]);
        batch_send(up, n);
        n = batch_recv(client, MSG_DONTWAIT, false);
        for (int i = 0; i < n; i++) slot_answer(in.b[i]);
        slot_sweep(5000000);
    }
    printf("%lld %u\n", (long long)(count - count / 2) - (misses - before), lost);
    return 0;
}

/* lru ENTRIES COUNT SEED: the hits of an exact LRU among the second half of the same stream */
static int cmd_lru(char **arg) {
    static struct { unsigned newer, older; bool in; } e[NAMES + 1];     /* a ring through e[NAMES] */
    unsigned entries = number(arg[0]), count = number(arg[1]), hits = 0, held = 0;
    e[NAMES].newer = e[NAMES].older = NAMES;
    zipf_seed(number(arg[2]));
    for (unsigned i = 0; i < count; i++) {
        unsigned k = zipf_next();
        if (e[k].in)
            hits += i >= count / 2;
        else if (held++ == entries) {
            unsigned last = e[NAMES].newer;
            e[NAMES].newer = e[last].newer;
            e[e[last].newer].older = NAMES;
            e[last].in = false;
            held--;
        }
        if (e[k].in) {
            e[e[k].newer].older = e[k].older;
            e[e[k].older].newer = e[k].newer;
        }
        e[k].in = true;
        e[k].newer = NAMES, e[k].older = e[NAMES].older;
        e[e[k].older].newer = k;
        e[NAMES].older = k;
    }
    printf("%u\n", hits);
    return 0;
}

/* names FIRST COUNT STEP MOD: lines for dnsperf, the names with the numbers (FIRST + I * STEP) % MOD */
static int cmd_names(char **arg) {
    unsigned long first = number(arg[0]), count = number(arg[1]), step = number(arg[2]), mod = number(arg[3]);
    for (unsigned long i = 0; i < count; i++)
        printf("n%06lu.sixty-byte.example A\n", (first + i * step) % mod);
    return 0;
}

int main(int argc, char **argv) {
    static const struct { const char *name; int args; int (*run)(char **arg); } cmds[] = {
        { "echo", 1, cmd_echo }, { "relay", 2, cmd_relay }, { "upstream", 2, cmd_upstream }, { "road", 5, cmd_road }, { "pace", 4, cmd_pace }, { "load", 7, cmd_load }, { "bursts", 5, cmd_bursts },
        { "stream", 4, cmd_stream }, { "hold", 2, cmd_hold }, { "cpu", 1, cmd_cpu }, { "serves", 2, cmd_serves },
        { "first", 2, cmd_first }, { "latency", 4, cmd_latency }, { "zipf", 4, cmd_zipf }, { "lru", 3, cmd_lru }, { "names", 4, cmd_names } };
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; argc > 1 && i < sizeof cmds / sizeof *cmds; i++)
        if (!strcmp(argv[1], cmds[i].name) && argc - 2 >= cmds[i].args) return cmds[i].run(argv + 2);
    fprintf(stderr, "gauge: no such use\n");
    return 2;
}
