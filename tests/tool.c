/* The test tool: a scripted upstream, a client, and other things that a shell cannot do.
 *
 *   freeport                        a port that is free for UDP and TCP on 127.0.0.1 and ::1
 *   serves PID PORT MS [ADDR]       waits until TCP connects there; false at the deadline or when PID has gone
 *   gone PID MS                     waits until the process has ended
 *   line ADDR PORT TEXT             sends one line, prints everything until the end
 *   zero ADDR PORT NAME             a query from UDP port 0
 *   notify PATH                     a supervisor's socket: prints each datagram as a line
 *   up, ask, many, talk, hold, flood: see above each
 *
 * Everything ends by itself: no wait is without a deadline, but for servers, which are killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MSG = 65535 };

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "tool: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(2);
}

static long long us_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}
static long long ms_now(void) { return us_now() / 1000; }
static void ms_sleep(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&t, NULL);
}

static uint64_t rng = 88172645463325252ULL;
static uint32_t rnd(void)
{
    rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17;
    return (uint32_t)(rng >> 16);
}

static void *grow(void *p, size_t n)
{
    p = realloc(p, n);
    if (p == NULL) die("out of memory");
    return p;
}

/* ---- Addresses and sockets */

union sa { struct sockaddr s; struct sockaddr_in v4; struct sockaddr_in6 v6; };

static socklen_t sa_len(const union sa *a) { return a->s.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4; }

static union sa sa_of(const char *host, int port)
{
    union sa a;
    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, host, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons((uint16_t)port);
    } else
        die("%s is not an address", host);
    return a;
}

static int sa_port(const union sa *a) { return ntohs(a->s.sa_family == AF_INET6 ? a->v6.sin6_port : a->v4.sin_port); }

static const char *sa_text(const union sa *a)
{
    static char out[80], host[64];
    if (a->s.sa_family == AF_INET6) inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
    else inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
    snprintf(out, sizeof out, "%s@%d", host, sa_port(a));
    return out;
}

/* A socket bound to src (or not), connected to a (or not). -1 and errno when that fails. */
static int sock(int type, const union sa *src, const union sa *to, int nonblock)
{
    int fd = socket((src ? src : to)->s.sa_family, type, 0), one = 1, big = 4 << 20, e;
    if (fd < 0) return -1;
    if (nonblock) fcntl(fd, F_SETFL, O_NONBLOCK);
    if (type == SOCK_STREAM) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    }
    if (src && src->s.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if ((src && bind(fd, &src->s, sa_len(src)) < 0) || (to && connect(fd, &to->s, sa_len(to)) < 0 && errno != EINPROGRESS)) {
        e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static void more_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max < 20000 ? r.rlim_max : 20000;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* ---- Messages: writing */

struct buf { uint8_t p[MSG + 4096]; size_t n; };

static void put8(struct buf *b, unsigned v) { if (b->n < sizeof b->p) b->p[b->n++] = (uint8_t)v; }
static void put16(struct buf *b, unsigned v) { put8(b, v >> 8 & 255); put8(b, v & 255); }
static void put32(struct buf *b, uint32_t v) { put16(b, v >> 16); put16(b, v & 65535); }
static void putn(struct buf *b, const void *p, size_t n) { for (size_t i = 0; i < n; i++) put8(b, ((const uint8_t *)p)[i]); }
static void set16(uint8_t *p, unsigned v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

/* NAME in presentation form, with \. and \DDD; nothing is checked, so that wrong names can be written too */
static void put_name(struct buf *b, const char *s)
{
    if (strcmp(s, ".") == 0) s = "";
    while (*s) {
        size_t at = b->n;
        put8(b, 0);
        while (*s && *s != '.') {
            if (*s == '\\' && isdigit((unsigned char)s[1]) && isdigit((unsigned char)s[2]) && isdigit((unsigned char)s[3])) {
                put8(b, (unsigned)((s[1] - '0') * 100 + (s[2] - '0') * 10 + s[3] - '0'));
                s += 4;
                continue;
            }
            if (*s == '\\' && s[1]) s++;
            put8(b, (unsigned char)*s++);
        }
        b->p[at] = (uint8_t)(b->n - at - 1);
        if (*s == '.') s++;
    }
    put8(b, 0);
}

static size_t put_hex(struct buf *b, const char *h)
{
    size_t at = b->n;
    unsigned v;
    for (; isxdigit((unsigned char)h[0]) && isxdigit((unsigned char)h[1]); h += 2) {
        sscanf(h, "%2x", &v);
        put8(b, v);
    }
    return b->n - at;
}

static const struct { const char *name; unsigned n; } types[] = {
    { "A", 1 }, { "NS", 2 }, { "CNAME", 5 }, { "SOA", 6 }, { "PTR", 12 }, { "MX", 15 }, { "TXT", 16 }, { "AAAA", 28 }, { "SRV", 33 },
    { "NAPTR", 35 }, { "DNAME", 39 }, { "OPT", 41 }, { "DS", 43 }, { "RRSIG", 46 }, { "NSEC", 47 }, { "DNSKEY", 48 }, { "TLSA", 52 },
    { "SVCB", 64 }, { "HTTPS", 65 }, { "IXFR", 251 }, { "AXFR", 252 }, { "MAILB", 253 }, { "ANY", 255 }, { "CAA", 257 } };
static const char *const rcodes[] = { "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE", "RCODE11", "RCODE12", "RCODE13", "RCODE14", "RCODE15", "BADVERS" };

static int type_of(const char *s)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(types[i].name, s) == 0) return (int)types[i].n;
    return strncasecmp(s, "TYPE", 4) == 0 && isdigit((unsigned char)s[4]) ? atoi(s + 4) : -1;
}
static const char *type_text(unsigned t)
{
    static char out[4][16];
    static int turn;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].n == t) return types[i].name;
    turn = (turn + 1) % 4;
    snprintf(out[turn], sizeof out[turn], "TYPE%u", t);
    return out[turn];
}
static int rcode_of(const char *s)
{
    for (int i = 0; i < 17; i++)
        if (strcasecmp(rcodes[i], s) == 0) return i;
    return isdigit((unsigned char)*s) ? atoi(s) : -1;
}

/* ---- Messages: reading */

/* Prints the name at *at to out (size 1100 is always enough), moves *at behind it; false if it is not a name. */
static int read_name(const uint8_t *p, size_t n, size_t *at, char *out)
{
    size_t i = *at, len = 0;
    int hops = 0, moved = 0;
    char *o = out;
    for (;;) {
        if (i >= n) return 0;
        unsigned c = p[i];
        if (c == 0) {
            if (!moved) *at = i + 1;
            if (o == out) *o++ = '.';
            *o = 0;
            return 1;
        }
        if (c >= 192) {
            if (i + 1 >= n || ++hops > 130) return 0;
            if (!moved) *at = i + 2;
            moved = 1;
            i = (c & 63) << 8 | p[i + 1];
            continue;
        }
        if (c > 63 || i + 1 + c > n || (len += c + 1) > 254) return 0;
        for (i++; c; c--, i++) {
            if (p[i] == '.' || p[i] == '\\') { *o++ = '\\'; *o++ = (char)p[i]; }
            else if (p[i] > 32 && p[i] < 127) *o++ = (char)p[i];
            else o += sprintf(o, "\\%03u", p[i]);
        }
        *o++ = '.';
    }
}

struct question { char name[1100]; unsigned type, class; size_t end; };
struct opt { int there, many; unsigned size, ver, flags, ext; const uint8_t *p; size_t n; };

static int read_question(const uint8_t *p, size_t n, struct question *q)
{
    size_t at = 12;
    q->name[0] = 0;
    if (n < 12 || get16(p + 4) == 0 || !read_name(p, n, &at, q->name) || at + 4 > n) return 0;
    q->type = get16(p + at);
    q->class = get16(p + at + 2);
    q->end = at + 4;
    return 1;
}

/* Walks over all records, calls each(); NULL or what is wrong with the message. */
struct rr { int section; char name[1100]; unsigned type, class, rdlen; uint32_t ttl; size_t rd; };
static const char *walk(const uint8_t *p, size_t n, void (*each)(const uint8_t *, size_t, const struct rr *, void *), void *ctx)
{
    struct question q;
    struct rr r;
    size_t at = 12;
    if (n < 12) return "short";
    for (unsigned i = get16(p + 4); i; i--) {
        if (!read_name(p, n, &at, q.name) || at + 4 > n) return "question";
        at += 4;
    }
    for (r.section = 1; r.section <= 3; r.section++)
        for (unsigned i = get16(p + 4 + 2 * r.section); i; i--) {
            if (!read_name(p, n, &at, r.name)) return "owner";
            if (at + 10 > n) return "cut";
            r.type = get16(p + at);
            r.class = get16(p + at + 2);
            r.ttl = get32(p + at + 4);
            r.rdlen = get16(p + at + 8);
            at += 10;
            if (at + r.rdlen > n) return "rdlength";
            r.rd = at;
            each(p, n, &r, ctx);
            at += r.rdlen;
        }
    return at == n ? NULL : "trailing";
}

static void see_opt(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    struct opt *o = ctx;
    (void)n;
    if (r->type != 41) return;
    o->many += o->there;
    o->there = 1;
    o->size = r->class;
    o->ext = r->ttl >> 24;
    o->ver = r->ttl >> 16 & 255;
    o->flags = r->ttl & 65535;
    o->p = p + r->rd;
    o->n = r->rdlen;
}
static struct opt opt_of(const uint8_t *p, size_t n)
{
    struct opt o;
    memset(&o, 0, sizeof o);
    walk(p, n, see_opt, &o);
    return o;
}

/* " opts=CODE:HEX,..." and EDE in words */
static void print_opt(FILE *f, const struct opt *o)
{
    if (!o->there) return;
    fprintf(f, " edns=%u", o->size);
    if (o->ver) fprintf(f, " ver=%u", o->ver);
    if (o->flags & 0x8000) fprintf(f, " do");
    if (o->flags & 0x7fff) fprintf(f, " zflags=%04x", o->flags & 0x7fff);
    if (o->many) fprintf(f, " opts-too-many=%d", o->many);
    const char *sep = " opts=";
    for (size_t i = 0; i + 4 <= o->n; ) {
        unsigned c = get16(o->p + i), l = get16(o->p + i + 2);
        if (i + 4 + l > o->n) break;
        fprintf(f, "%s%u:", sep, c);
        for (unsigned k = 0; k < l && k < 24; k++) fprintf(f, "%02x", o->p[i + 4 + k]);
        if (l > 24) fprintf(f, "+%u", l - 24);
        sep = ",";
        i += 4 + l;
    }
    for (size_t i = 0; i + 4 <= o->n; ) {
        unsigned c = get16(o->p + i), l = get16(o->p + i + 2);
        if (i + 4 + l > o->n) break;
        if (c == 15 && l >= 2) fprintf(f, " ede=%u", get16(o->p + i + 4));
        i += 4 + l;
    }
}

static void print_rr(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    FILE *f = ctx;
    char text[1100], two[1100];
    size_t at = r->rd, end = r->rd + r->rdlen;
    if (r->type == 41) return;
    fprintf(f, " | %s%s %u %s%s ", r->section == 1 ? "" : r->section == 2 ? "au: " : "ad: ", r->name, r->ttl,
            r->class == 1 ? "" : r->class == 3 ? "CH " : r->class == 4 ? "HS " : "CLASS? ", type_text(r->type));
    if (r->type == 1 && r->rdlen == 4) fprintf(f, "%s", inet_ntop(AF_INET, p + at, text, sizeof text));
    else if (r->type == 28 && r->rdlen == 16) fprintf(f, "%s", inet_ntop(AF_INET6, p + at, text, sizeof text));
    else if ((r->type == 2 || r->type == 5 || r->type == 12 || r->type == 39) && read_name(p, n, &at, text) && at == end) fprintf(f, "%s", text);
    else if (r->type == 15 && r->rdlen > 2 && (at += 2, read_name(p, n, &at, text)) && at == end) fprintf(f, "%u %s", get16(p + r->rd), text);
    else if (r->type == 33 && r->rdlen > 6 && (at += 6, read_name(p, n, &at, text)) && at == end)
        fprintf(f, "%u %u %u %s", get16(p + r->rd), get16(p + r->rd + 2), get16(p + r->rd + 4), text);
    else if (r->type == 6 && read_name(p, n, &at, text) && read_name(p, n, &at, two) && at + 20 == end)
        fprintf(f, "%s %s %u %u %u %u %u", text, two, get32(p + at), get32(p + at + 4), get32(p + at + 8), get32(p + at + 12), get32(p + at + 16));
    else {
        fprintf(f, "\\# %u ", r->rdlen);
        for (at = r->rd; at < end && at < r->rd + 40; at++) fprintf(f, "%02x", p[at]);
        if (r->rdlen > 40) {
            uint32_t h = 2166136261u;
            for (at = r->rd; at < end; at++) h = (h ^ p[at]) * 16777619u;
            fprintf(f, "+%u hash=%08x", r->rdlen - 40, h);
        }
    }
}

static void count_none(const uint8_t *p, size_t n, const struct rr *r, void *ctx) { (void)p; (void)n; (void)r; (void)ctx; }

/* One line: RCODE, flags, sizes, then the records each after " | ". */
static void print_msg(FILE *f, const uint8_t *p, size_t n, const char *more)
{
    struct question q;
    struct opt o = opt_of(p, n);
    const char *bad = walk(p, n, count_none, NULL);
    if (n < 12) { fprintf(f, "SHORT size=%zu%s\n", n, more); return; }
    unsigned fl = get16(p + 2), rc = (fl & 15) | o.ext << 4;
    if (bad) fprintf(f, "MALFORMED %s ", bad);
    if (rc < 17) fprintf(f, "%s", rcodes[rc]);
    else fprintf(f, "RCODE%u", rc);
    static const struct { unsigned bit; const char *name; } bits[] = { { 0x8000, "qr" }, { 0x400, "aa" }, { 0x200, "tc" }, { 0x100, "rd" },
        { 0x80, "ra" }, { 0x40, "z" }, { 0x20, "ad" }, { 0x10, "cd" } };
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (fl & bits[i].bit) fprintf(f, " %s", bits[i].name);
    if (fl >> 11 & 15) fprintf(f, " opcode=%u", fl >> 11 & 15);
    fprintf(f, " id=%u", get16(p));
    if (read_question(p, n, &q)) fprintf(f, " q=%s/%s%s", q.name, type_text(q.type), q.class == 1 ? "" : q.class == 3 ? "/CH" : "/CLASS?");
    fprintf(f, " qd=%u an=%u ns=%u ar=%u size=%zu", get16(p + 4), get16(p + 6), get16(p + 8), get16(p + 10), n);
    print_opt(f, &o);
    fprintf(f, "%s", more);
    walk(p, n, print_rr, f);
    fprintf(f, "\n");
}

/* ---- Queries: what ask, many and talk send */

struct query {
    int tcp, do_, cd, ad, nord, z, qr, opcode, id, timeout, wait, hex, unconn, badver, nameless;
    int edns, class, qd, tc, an, ns, ar, twoopt, keep;
    const char *src, *server, *raw, *trail;
    struct buf opts;
};

static void query_init(struct query *q)
{
    memset(q, 0, offsetof(struct query, opts));
    q->opts.n = 0;
    q->id = -1;
    q->edns = -1;
    q->class = 1;
    q->timeout = 6000;
    q->qd = 1;
}

/* +WORD[=VALUE]; false if there is no such option */
static int query_option(struct query *q, const char *w)
{
    char key[32];
    const char *v = strchr(w, '=');
    size_t n = v ? (size_t)(v - w) : strlen(w);
    if (*w != '+' || n >= sizeof key) return 0;
    memcpy(key, w + 1, n - 1);
    key[n - 1] = 0;
    if (v) v++;
    int num = v ? atoi(v) : 1;
    static const struct { const char *name; size_t at; } ints[] = {
        { "tcp", offsetof(struct query, tcp) }, { "do", offsetof(struct query, do_) }, { "cd", offsetof(struct query, cd) }, { "ad", offsetof(struct query, ad) },
        { "nord", offsetof(struct query, nord) }, { "z", offsetof(struct query, z) }, { "qr", offsetof(struct query, qr) },
        { "opcode", offsetof(struct query, opcode) }, { "id", offsetof(struct query, id) }, { "timeout", offsetof(struct query, timeout) },
        { "wait", offsetof(struct query, wait) }, { "hex", offsetof(struct query, hex) }, { "unconn", offsetof(struct query, unconn) },
        { "ver", offsetof(struct query, badver) }, { "qd", offsetof(struct query, qd) }, { "tc", offsetof(struct query, tc) }, { "an", offsetof(struct query, an) },
        { "ns", offsetof(struct query, ns) }, { "ar", offsetof(struct query, ar) }, { "twoopt", offsetof(struct query, twoopt) } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        if (strcmp(ints[i].name, key) == 0) {
            *(int *)((char *)q + ints[i].at) = num;
            return 1;
        }
    if (strcmp(key, "edns") == 0) q->edns = v ? num : 1232;
    else if (strcmp(key, "src") == 0) q->src = v;
    else if (strcmp(key, "server") == 0) q->server = v;
    else if (strcmp(key, "raw") == 0) q->raw = v;
    else if (strcmp(key, "trail") == 0) q->trail = v;
    else if (strcmp(key, "class") == 0) q->class = strcmp(v, "CH") == 0 ? 3 : strcmp(v, "HS") == 0 ? 4 : num;
    else if (strcmp(key, "opt") == 0) {         /* +opt=CODE:HEX */
        put16(&q->opts, (unsigned)num);
        size_t at = q->opts.n;
        put16(&q->opts, 0);
        if (strchr(v, ':')) set16(q->opts.p + at, (unsigned)put_hex(&q->opts, strchr(v, ':') + 1));
    } else return 0;
    return 1;
}

static void query_write(const struct query *q, struct buf *b, const char *name, int type, int id)
{
    b->n = 0;
    if (q->raw) { put_hex(b, q->raw); return; }
    put16(b, (unsigned)id);
    put16(b, (unsigned)(q->qr << 15 | q->opcode << 11 | q->tc << 9 | (q->nord ? 0 : 0x100) | q->z << 6 | q->ad << 5 | q->cd << 4));
    put16(b, (unsigned)q->qd);
    put16(b, (unsigned)q->an);
    put16(b, (unsigned)q->ns);
    put16(b, (unsigned)q->ar);
    for (int i = 0; i < (q->qd > 1 ? q->qd : 1); i++) {
        put_name(b, name);
        put16(b, (unsigned)type);
        put16(b, (unsigned)q->class);
    }
    if (q->edns >= 0 || q->do_ || q->opts.n || q->badver)
        for (int i = 0; i <= q->twoopt; i++) {
            put8(b, 0);
            put16(b, 41);
            put16(b, q->edns < 0 ? 1232 : (unsigned)q->edns);
            put32(b, (uint32_t)q->badver << 16 | (q->do_ ? 0x8000u : 0));
            put16(b, (unsigned)q->opts.n);
            putn(b, q->opts.p, q->opts.n);
            set16(b->p + 10, get16(b->p + 10) + 1);
        }
    if (q->trail) put_hex(b, q->trail);
}

/* Reads until n bytes, the deadline or the end; how many came. */
static size_t read_full(int fd, uint8_t *p, size_t n, long long end)
{
    size_t got = 0;
    while (got < n) {
        struct pollfd f = { fd, POLLIN, 0 };
        long long left = end - ms_now();
        if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
        ssize_t r = read(fd, p + got, n - got);
        if (r <= 0) break;
        got += (size_t)r;
    }
    return got;
}

/* ask ADDR PORT NAME [TYPE] [+OPTION...]: one query, one line. Without a reply: TIMEOUT, CLOSED or REFUSEDPORT.
 * +wait=MS goes on listening after the first reply and says replies=N. Options: +tcp +edns[=N] +do +cd +ad +nord +z +qr +tc
 * +opcode=N +id=N +class=C +src=ADDR +server=ADDR +opt=CODE:HEX +ver=N +twoopt +qd=N +an=N +ns=N +ar=N +raw=HEX +trail=HEX
 * +timeout=MS +hex */
static int cmd_ask(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static uint8_t in[MSG + 2];
    const char *name = argc > 3 && argv[3][0] != '+' ? argv[3] : ".";
    int type = 1, at = 4, n = 0;
    char more[200];
    query_init(&q);
    if (argc > 3 && argv[3][0] == '+') at = 3;
    if (at == 4 && argc > 4 && argv[4][0] != '+' && (type = type_of(argv[at++])) < 0) die("%s is not a type", argv[at - 1]);
    for (; at < argc; at++)
        if (!query_option(&q, argv[at])) die("ask: what is %s?", argv[at]);
    union sa to = sa_of(q.server ? q.server : argv[1], atoi(argv[2])), src, from;
    if (q.src) src = sa_of(q.src, 0);
    rng ^= (uint64_t)us_now() * 2654435761u ^ (uint64_t)getpid() << 32;
    rnd();
    int id = q.id >= 0 ? q.id : (int)(rnd() & 65535);
    query_write(&q, &b, name, type, id);
    long long t0 = us_now(), end = t0 / 1000 + q.timeout;
    if (q.unconn && !q.src) src = sa_of(to.s.sa_family == AF_INET6 ? "::" : "0.0.0.0", 0);
    int fd = sock(q.tcp ? SOCK_STREAM : SOCK_DGRAM, q.src || q.unconn ? &src : NULL, q.unconn ? NULL : &to, 0);
    if (fd < 0) { printf("%s\n", errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)); return 1; }
    from = to;
    size_t got = 0, first = 0;
    const char *why = "TIMEOUT";
    long long took = 0;
    if (q.tcp) {
        uint8_t len[2];
        memmove(b.p + 2, b.p, b.n);
        set16(b.p, (unsigned)b.n);
        if (write(fd, b.p, b.n + 2) < 0) why = "CLOSED";
        size_t r = read_full(fd, len, 2, end);
        if (r == 2) got = read_full(fd, in, get16(len), end);
        if (r < 2 || got < get16(len)) { if (ms_now() < end) why = "CLOSED"; got = 0; }
        else { n = 1; first = got; }
        took = us_now() - t0;
    } else {
        static uint8_t other[MSG];
        if ((q.unconn ? sendto(fd, b.p, b.n, 0, &to.s, sa_len(&to)) : send(fd, b.p, b.n, 0)) < 0) why = strerror(errno);
        else for (;;) {
            struct pollfd f = { fd, POLLIN, 0 };
            long long left = end - ms_now();
            if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
            socklen_t sl = sizeof from;
            ssize_t r = recvfrom(fd, n ? other : in, MSG, 0, &from.s, &sl);
            if (r < 0) { if (n == 0) why = "REFUSEDPORT"; break; }
            if (n++ == 0) { first = (size_t)r; took = us_now() - t0; end = ms_now() + q.wait; }
            if (!q.wait) break;
        }
    }
    if (n == 0) { printf("%s ms=%lld\n", why, (us_now() - t0) / 1000); return 1; }
    int o = snprintf(more, sizeof more, " ms=%lld", took / 1000);
    if (q.wait) o += snprintf(more + o, sizeof more - (size_t)o, " replies=%d", n);
    if (q.unconn) o += snprintf(more + o, sizeof more - (size_t)o, " from=%s", sa_text(&from));
    if (!q.raw && first >= 12) {
        struct question a, z;
        const uint8_t *sent = b.p + (q.tcp ? 2 : 0);
        if (get16(in) != (unsigned)id) o += snprintf(more + o, sizeof more - (size_t)o, " WRONGID");
        if (read_question(sent, b.n, &a) && get16(in + 4) > 0 && (!read_question(in, first, &z) || z.end != a.end || memcmp(in + 12, sent + 12, a.end - 12)))
            o += snprintf(more + o, sizeof more - (size_t)o, " WRONGQUESTION");
    }
    print_msg(stdout, in, first, more);
    if (q.hex) {
        for (size_t i = 0; i < first; i++) printf("%02x", in[i]);
        printf("\n");
    }
    return 0;
}

/* ---- up: the scripted upstream
 *
 * up [-l LOG] [-r RULES] [-n NUMBER] [-T] [-U] ADDR PORT
 *
 * How it answers is said by words. They come from the lines of RULES, `SUFFIX WORD...`, read again whenever the file changes,
 * and from every label of the QNAME that contains `=`: `ttl=5`, `nodata=`. A word that starts with a number is for the upstream
 * with that number only: `2delay=300`. Later words win. Without any: a record of the asked type, TTL 300, A 192.0.2.NUMBER.
 *
 *  what      a=ADDR  aaaa=ADDR  byname (A from a hash of the name)  count (A says how many answers there were)  n=RECORDS  type=T
 *            ttl=N,N...  rdlen=N  big=BYTES  toobig (not cut over UDP)  cname=LINKS  cnameonly  extra (records of other names)
 *            nodata  soa=TTL,MINIMUM  servfail refused formerr notimp nxdomain  rcode=N  aa ad  ede=N  opt=CODE:HEX  noopt  optmid
 *            noedns=RCODE (that, without OPT, to every query with OPT)  lower upper (the question's letters)  trail=N  mutate=SEED
 *            norec (AD, CD and RD are not copied)
 *  when      delay=MS  silent  drop=N (the first N datagrams of a question)  udpsilent  tcpsilent
 *  over UDP  tc  tcrec (TC=1 with records)  twice
 *  over TCP  close  reset  closeafter  dribble=MS (a byte each)  cut (half the answer, then close)
 *  wrong     first=KIND (and MS=100 later the right one; gap=MS)  bad=KIND (alone)  flood=N (N wrong IDs first)
 *            KIND: id qname qtype qclass qr opcode zero eleven header qd2 cutq noq loop | port addr | rdlen ancount cutrr label40 a3 cname
 *            name256 optan
 *
 * Each query is a line of LOG: ms, proto, from, id, name, type, flags, EDNS; connections are lines too. */

struct act {
    int rcode, nodata, soa, soattl, soamin, byname, count, n, type, rdlen, big, toobig, cname, cnameonly, extra, aa, ad, ede, noopt, optmid, noedns;
    int lower, upper, trail, mutate, norec, delay, silent, drop, udpsilent, tcpsilent, tc, tcrec, twice, close, reset, closeafter, dribble, cut;
    int gap, flood, nttl;
    uint32_t ttl[8];
    char first[16], bad[16], a[64], aaaa[64], opt[256];
};

static const struct { const char *name; size_t at; } up_ints[] = {
#define W(x) { #x, offsetof(struct act, x) }
    W(nodata), W(byname), W(count), W(n), W(rdlen), W(big), W(toobig), W(cname), W(cnameonly), W(extra), W(aa), W(ad), W(ede), W(noopt), W(optmid),
    W(lower), W(upper), W(trail), W(mutate), W(norec), W(delay), W(silent), W(drop), W(udpsilent), W(tcpsilent), W(tc), W(tcrec), W(twice), W(close),
    W(reset), W(closeafter), W(dribble), W(cut), W(gap), W(flood),
#undef W
};

static int up_number = 1;
static const char *up_rules, *up_log;
static char up_text[65536];
static long up_seen;

static void act_word(struct act *a, const char *w)
{
    char key[32] = "";
    char *e;
    long only = strtol(w, &e, 10);
    if (e != w && only != up_number) return;
    w = e;
    size_t n = strcspn(w, "=");
    if (n == 0 || n >= sizeof key) return;
    memcpy(key, w, n);
    const char *v = w[n] ? w + n + 1 : "";
    int num = *v ? atoi(v) : 1, rc = rcode_of(key);
    if (rc >= 0 && isalpha((unsigned char)key[0])) { a->rcode = rc; return; }
    for (size_t i = 0; i < sizeof up_ints / sizeof *up_ints; i++)
        if (strcmp(up_ints[i].name, key) == 0) { *(int *)((char *)a + up_ints[i].at) = num; return; }
    if (strcmp(key, "rcode") == 0) a->rcode = rcode_of(v);
    else if (strcmp(key, "ttl") == 0) {
        for (a->nttl = 0; *v && a->nttl < 8; v += *v == ',') a->ttl[a->nttl++] = (uint32_t)strtoul(v, (char **)&v, 10);
    } else if (strcmp(key, "soa") == 0) { a->soa = 1; a->soattl = num; a->soamin = strchr(v, ',') ? atoi(strchr(v, ',') + 1) : num; }
    else if (strcmp(key, "noedns") == 0) a->noedns = rcode_of(v);
    else if (strcmp(key, "type") == 0) a->type = type_of(v);
    else if (strcmp(key, "first") == 0) snprintf(a->first, sizeof a->first, "%s", v);
    else if (strcmp(key, "bad") == 0) snprintf(a->bad, sizeof a->bad, "%s", v);
    else if (strcmp(key, "a") == 0) snprintf(a->a, sizeof a->a, "%s", v);
    else if (strcmp(key, "aaaa") == 0) snprintf(a->aaaa, sizeof a->aaaa, "%s", v);
    else if (strcmp(key, "opt") == 0) snprintf(a->opt, sizeof a->opt, "%s", v);
}

static int has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    if (strcmp(suffix, ".") == 0) return 1;
    if (s && suffix[s - 1] != '.' && n) n--;
    return n >= s && strncasecmp(name + n - s, suffix, s) == 0 && (n == s || name[n - s - 1] == '.');
}

static void rules_read(void)
{
    static struct stat old;
    struct stat st;
    FILE *f;
    if (up_rules == NULL || stat(up_rules, &st) < 0) return;
    if (st.st_ino == old.st_ino && st.st_mtim.tv_nsec == old.st_mtim.tv_nsec && st.st_mtim.tv_sec == old.st_mtim.tv_sec) return;
    old = st;
    if ((f = fopen(up_rules, "r")) == NULL) return;
    up_text[fread(up_text, 1, sizeof up_text - 1, f)] = 0;
    fclose(f);
}

/* what to do with a question */
static struct act act_for(const char *name)
{
    static char copy[65536], labels[1100];
    struct act a;
    memset(&a, 0, sizeof a);
    a.n = 1;
    a.gap = 100;
    a.nttl = 1;
    a.ttl[0] = 300;
    a.ede = a.noedns = -1;
    rules_read();
    memcpy(copy, up_text, sizeof copy);
    for (char *line, *s = copy; (line = strsep(&s, "\n")) != NULL; ) {
        char *suffix = strtok(line, " ");
        if (suffix == NULL || !has_suffix(name, suffix)) continue;
        for (char *w; (w = strtok(NULL, " ")) != NULL; ) act_word(&a, w);
    }
    snprintf(labels, sizeof labels, "%s", name);
    for (char *l, *s = labels; (l = strsep(&s, ".")) != NULL; )
        if (strchr(l, '=')) act_word(&a, l);
    return a;
}

static uint32_t name_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)tolower((unsigned char)*s)) * 16777619u;
    return h;
}

/* counts the datagrams of a question */
static int drop_count(const char *name, unsigned type)
{
    static struct { uint32_t key; int n; } seen[65536];
    uint32_t h = name_hash(name) ^ type * 2654435761u;
    for (uint32_t i = h & 65535, k = 0; k < 65536; k++, i = (i + 1) & 65535)
        if (seen[i].n == 0 || seen[i].key == h) { seen[i].key = h; return ++seen[i].n; }
    return 1;
}

static void put_rdata(struct buf *b, const struct act *a, unsigned type, int i)
{
    size_t at = b->n;
    uint8_t addr[16];
    char text[64];
    put16(b, 0);
    switch (type) {
    case 1:
        snprintf(text, sizeof text, "192.0.2.%d", (up_number + i) % 256);
        inet_pton(AF_INET, a->a[0] ? a->a : text, addr);
        putn(b, addr, 4);
        break;
    case 28:
        snprintf(text, sizeof text, "2001:db8::%x", up_number + i);
        inet_pton(AF_INET6, a->aaaa[0] ? a->aaaa : text, addr);
        putn(b, addr, 16);
        break;
    case 15: put16(b, 10); put_name(b, "mx"); b->n--; put16(b, 0xc00c); break;      /* a name below the question's, compressed */
    case 2: case 5: case 12: put_name(b, "ns"); b->n--; put16(b, 0xc00c); break;
    case 33: put16(b, 1); put16(b, 2); put16(b, 443); put_name(b, "srv.target.test"); break;
    case 6: put16(b, 0xc00c); put_name(b, "host"); b->n--; put16(b, 0xc00c); put32(b, 1); put32(b, 2); put32(b, 3); put32(b, 4); put32(b, 60); break;
    case 16:
        if (a->rdlen == 0) { put8(b, 5); putn(b, "up-", 3); put8(b, '0' + (unsigned)(up_number % 10)); put8(b, '0' + (unsigned)(i % 10)); break; }
        /* fall through */
    default: {
        int n = a->rdlen ? a->rdlen : 12;
        uint64_t keep = rng;
        rng = 1234567 + type;
        for (int k = 0; k < n; k++) put8(b, type == 16 ? (k % 256 ? 'x' : (unsigned)(n - k > 256 ? 255 : n - k - 1)) : rnd() & 255);
        rng = keep;
    }
    }
    set16(b->p + at, (unsigned)(b->n - at - 2));
}

static void put_rr(struct buf *b, unsigned owner, unsigned type, uint32_t ttl)
{
    put16(b, owner);
    put16(b, type);
    put16(b, 1);
    put32(b, ttl);
}

static void put_optrr(struct buf *b, const struct act *a, unsigned rcode, int do_)
{
    put8(b, 0);
    put16(b, 41);
    put16(b, 1232);
    put32(b, (uint32_t)(rcode >> 4) << 24 | (do_ ? 0x8000u : 0));
    size_t at = b->n;
    put16(b, 0);
    if (a->ede >= 0) { put16(b, 15); put16(b, 2 + 4); put16(b, (unsigned)a->ede); putn(b, "test", 4); }
    if (a->opt[0]) {
        put16(b, (unsigned)atoi(a->opt));
        size_t l = b->n;
        put16(b, 0);
        if (strchr(a->opt, ':')) set16(b->p + l, (unsigned)put_hex(b, strchr(a->opt, ':') + 1));
    }
    set16(b->p + at, (unsigned)(b->n - at - 2));
}

static void count_up(struct buf *b, int section) { set16(b->p + 4 + 2 * section, get16(b->p + 4 + 2 * section) + 1); }

/* the honest answer to the query p */
static void answer(struct buf *b, const struct act *a, const uint8_t *p, size_t n, const struct question *q, int tcp)
{
    struct opt o = opt_of(p, n);
    unsigned owner = 0xc00c, type = a->type ? (unsigned)a->type : q->type, rcode = (unsigned)a->rcode;
    int opt = o.there && !a->noopt, do_ = o.flags >> 15;
    size_t limit = tcp ? MSG : o.there ? (o.size < 512 ? 512 : o.size) : 512;
    (void)n;
    if (a->noedns >= 0 && o.there) { rcode = (unsigned)a->noedns; opt = 0; }
    b->n = 0;
    putn(b, p, 12);
    set16(b->p + 2, 0x8080 | (a->norec ? 0 : get16(p + 2) & 0x0110) | (a->aa ? 0x400u : 0) | (a->ad ? 0x20u : 0) | (rcode & 15));
    set16(b->p + 4, 1);
    memset(b->p + 6, 0, 6);
    putn(b, p + 12, q->end - 12);
    for (size_t i = 12; i < q->end - 4; i++) {
        if (a->lower) b->p[i] = (uint8_t)tolower(b->p[i]);
        if (a->upper) b->p[i] = (uint8_t)toupper(b->p[i]);
    }
    if (a->noedns >= 0 && o.there) return;
    size_t bare = b->n;
    if (a->tc && !tcp) {
        b->p[2] |= 2;
        if (opt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
        return;
    }
    for (int i = 0; i < a->cname; i++) {
        put_rr(b, owner, 5, a->ttl[0]);
        char text[32];
        snprintf(text, sizeof text, "c%d", i);
        put16(b, (unsigned)strlen(text) + 3);
        owner = 0xc000u | (unsigned)b->n;
        put_name(b, text);
        b->n--;
        put16(b, 0xc00c);
        count_up(b, 1);
    }
    if (rcode == 0 && !a->nodata && !a->cnameonly) {
        struct act x = *a;
        if (a->byname) { uint32_t h = name_hash(q->name); snprintf(x.a, sizeof x.a, "10.%u.%u.%u", h >> 16 & 255, h >> 8 & 255, h & 255); }
        if (a->count) { ++up_seen; snprintf(x.a, sizeof x.a, "10.%ld.%ld.%ld", up_seen >> 16 & 255, up_seen >> 8 & 255, up_seen & 255); }
        int k = a->n;
        size_t want = a->big ? (size_t)a->big - (opt ? 11 : 0) : 0;
        if (a->big && type == 1) k = (int)((want - b->n) / 16);
        if (a->big && type != 1 && type != 28) x.rdlen = (int)(want - b->n - 12);
        for (int i = 0; i < k; i++) {
            put_rr(b, owner, type == 255 ? 1 : type, a->ttl[i % a->nttl]);
            put_rdata(b, &x, type == 255 ? 1 : type, i);
            count_up(b, 1);
        }
    }
    if (a->soa) {
        put_rr(b, 0xc00c, 6, (uint32_t)a->soattl);
        put_rdata(b, a, 6, 0);
        b->p[b->n - 4] = (uint8_t)(a->soamin >> 24);
        b->p[b->n - 3] = (uint8_t)(a->soamin >> 16);
        set16(b->p + b->n - 2, (unsigned)a->soamin & 65535);
        count_up(b, 2);
    }
    if (a->extra) {             /* records that nobody asked for */
        put_name(b, "test"); put16(b, 2); put16(b, 1); put32(b, 300); put16(b, 9); put_name(b, "ns.evil"); count_up(b, 2);
        if (opt && a->optmid) { put_optrr(b, a, rcode, do_); count_up(b, 3); opt = 0; }
        put_name(b, "victim.test"); put16(b, 1); put16(b, 1); put32(b, 300); put16(b, 4); put32(b, 0x06060606); count_up(b, 3);
    } else if (opt && a->optmid) {
        put_optrr(b, a, rcode, do_); count_up(b, 3); opt = 0;
        put_name(b, "glue.test"); put16(b, 1); put16(b, 1); put32(b, 300); put16(b, 4); put32(b, 0x01020304); count_up(b, 3);
    }
    if (opt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
    if (a->tcrec && !tcp) b->p[2] |= 2;
    else if (b->n > limit && !a->toobig) {
        b->n = bare;
        memset(b->p + 6, 0, 6);
        b->p[2] |= 2;
        if (o.there && !a->noopt) { put_optrr(b, a, rcode, do_); count_up(b, 3); }
    }
    for (int i = 0; i < a->trail; i++) put8(b, 0xee);
}

/* makes the good message b a bad one */
static void spoil(struct buf *b, const char *kind, const struct question *q)
{
    size_t rr = q->end;
    if (strcmp(kind, "id") == 0) set16(b->p, get16(b->p) ^ 0x0101);
    else if (strcmp(kind, "qname") == 0) b->p[13] = b->p[13] == 'z' ? 'y' : 'z';
    else if (strcmp(kind, "qtype") == 0) set16(b->p + q->end - 4, q->type == 16 ? 1 : 16);
    else if (strcmp(kind, "qclass") == 0) set16(b->p + q->end - 2, 3);
    else if (strcmp(kind, "qr") == 0) b->p[2] &= 0x7f;
    else if (strcmp(kind, "opcode") == 0) b->p[2] |= 4 << 3;
    else if (strcmp(kind, "zero") == 0) b->n = 0;
    else if (strcmp(kind, "eleven") == 0) b->n = 11;
    else if (strcmp(kind, "header") == 0) { b->n = 12; memset(b->p + 4, 0, 8); }
    else if (strcmp(kind, "qd2") == 0) set16(b->p + 4, 2);
    else if (strcmp(kind, "cutq") == 0) { b->n = q->end - 3; memset(b->p + 6, 0, 6); }
    else if (strcmp(kind, "noq") == 0) { memmove(b->p + 12, b->p + q->end, b->n - q->end); b->n -= q->end - 12; set16(b->p + 4, 0); }
    else if (strcmp(kind, "loop") == 0) set16(b->p + rr, 0xc000u | (unsigned)rr);
    else if (strcmp(kind, "rdlen") == 0) set16(b->p + rr + 10, 60000);
    else if (strcmp(kind, "ancount") == 0) set16(b->p + 6, 65535);
    else if (strcmp(kind, "cutrr") == 0) b->n = rr + 13;
    else if (strcmp(kind, "label40") == 0) b->p[rr] = 0x40;
    else if (strcmp(kind, "a3") == 0) { set16(b->p + rr + 10, 3); memmove(b->p + rr + 15, b->p + rr + 16, b->n - rr - 16); b->n--; }
    else if (strcmp(kind, "cname") == 0) {      /* its name runs past its RDLENGTH */
        b->n = rr;
        memset(b->p + 6, 0, 6);
        put_rr(b, 0xc00c, 5, 300);
        put16(b, 4);
        put_name(b, "long.name.test");
        b->n = rr + 12 + 4;
        put_rr(b, 0xc00c, 1, 300);
        put16(b, 4);
        put32(b, 0xc0000201);
        set16(b->p + 6, 2);
    } else if (strcmp(kind, "name256") == 0) {  /* an owner that is too long only with what its pointer points at */
        unsigned n = 256 - (unsigned)(q->end - 4 - 12);
        b->n = rr;
        memset(b->p + 6, 0, 6);
        put_rr(b, 0xc00c, q->type, 300);        /* a good record first */
        put16(b, 4);
        put32(b, 0x06060606);
        put8(b, n - 1);
        for (unsigned i = 1; i < n; i++) put8(b, 'l');
        put_rr(b, 0xc00c, q->type, 300);
        put16(b, 4);
        put32(b, 0x06060606);
        set16(b->p + 6, 2);
    } else if (strcmp(kind, "optan") == 0) {    /* its OPT in the answer section */
        static const struct act plain = { .ede = -1 };
        set16(b->p + 6, 2);
        memset(b->p + 8, 0, 4);
        b->n = rr;
        put_optrr(b, &plain, 0, 0);
        put_rr(b, 0xc00c, q->type, 300);
        put16(b, 4);
        put32(b, 0x06060606);
    } else die("up: what is a wrong %s?", kind);
}

/* things to be sent later, soonest first */
struct job { struct job *next; long long due; int kind, conn, gen; union sa to; size_t n; uint8_t *p; };
enum { J_UDP, J_FLOOD, J_UDP_PORT, J_UDP_ADDR, J_TCP, J_CLOSE, J_RESET };
static struct job *jobs;

static void job_add(long long due, int kind, int conn, int gen, const union sa *to, const uint8_t *p, size_t n)
{
    struct job *j = grow(NULL, sizeof *j), **at = &jobs;
    j->due = due; j->kind = kind; j->conn = conn; j->gen = gen; j->n = n;
    if (to) j->to = *to;
    j->p = grow(NULL, n + 1);
    memcpy(j->p, p, n);
    while (*at && (*at)->due <= due) at = &(*at)->next;
    j->next = *at;
    *at = j;
}

struct conn { int fd, gen; union sa from; uint8_t *in, *out; size_t nin, nout, room; };
enum { CONNS = 1500 };
static struct conn conns[CONNS];
static int up_logfd = -1;

static void up_say(const char *fmt, ...)
{
    char line[3000];
    va_list ap;
    int n = snprintf(line, sizeof line, "%lld ", ms_now());
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 2, fmt, ap);
    va_end(ap);
    line[n++] = '\n';
    if (up_logfd >= 0 && write(up_logfd, line, (size_t)n) < 0) die("log: %s", strerror(errno));
}

static void conn_close(int i, int reset)
{
    struct linger l = { 1, 0 };
    if (conns[i].fd < 0) return;
    if (reset) setsockopt(conns[i].fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    up_say("tcp close conn=%d", i);
    close(conns[i].fd);
    conns[i].fd = -1;
    conns[i].gen++;
    conns[i].nin = conns[i].nout = 0;
}

static void conn_flush(int i)
{
    struct conn *c = &conns[i];
    ssize_t n = send(c->fd, c->out, c->nout, MSG_NOSIGNAL);
    if (n > 0) { memmove(c->out, c->out + n, c->nout - (size_t)n); c->nout -= (size_t)n; }
    else if (n < 0 && errno != EAGAIN) conn_close(i, 0);
}

static void conn_send(int i, const uint8_t *p, size_t n)
{
    struct conn *c = &conns[i];
    if (c->nout + n > c->room) c->out = grow(c->out, c->room = (c->nout + n) * 2);
    memcpy(c->out + c->nout, p, n);
    c->nout += n;
    conn_flush(i);
}

/* One query has come: decides, and puts jobs into the list. conn is -1 for UDP. */
static void up_query(const uint8_t *p, size_t n, const union sa *from, int conn)
{
    static struct buf b, w;
    struct question q;
    long long now = ms_now();
    int gen = conn >= 0 ? conns[conn].gen : 0, tcp = conn >= 0;
    char *text = NULL;
    size_t len;
    if (n < 12 || (p[2] & 0x80) || !read_question(p, n, &q)) { up_say("%s from=%s garbage size=%zu", tcp ? "tcp" : "udp", sa_text(from), n); return; }
    struct opt o = opt_of(p, n);
    FILE *f = open_memstream(&text, &len);
    print_opt(f, &o);
    fclose(f);
    const char *odd = walk(p, n, count_none, NULL);
    unsigned fl = get16(p + 2);
    up_say("%s from=%s id=%u %s %s%s%s%s%s qd=%u an=%u ns=%u ar=%u size=%zu%s%s%s%s", tcp ? "tcp" : "udp", sa_text(from), get16(p), q.name, type_text(q.type),
           q.class == 1 ? "" : " class=other", fl & 0x100 ? " rd" : "", fl & 0x10 ? " cd" : "", fl & 0x20 ? " ad" : "", get16(p + 4), get16(p + 6), get16(p + 8),
           get16(p + 10), n, text, odd ? " odd=" : "", odd ? odd : "", fl & 0x7840 ? " oddflags" : "");
    free(text);
    struct act a = act_for(q.name);
    if (a.silent || (tcp ? a.tcpsilent : a.udpsilent)) return;
    if (!tcp && a.drop && drop_count(q.name, q.type) <= a.drop) return;
    if (tcp && (a.close || a.reset)) { job_add(now + a.delay, a.reset ? J_RESET : J_CLOSE, conn, gen, NULL, p, 0); return; }
    answer(&b, &a, p, n, &q, tcp);
    if (a.bad[0]) spoil(&b, a.bad, &q);
    if (a.mutate) {
        uint64_t keep = rng;
        rng = ((uint64_t)(unsigned)a.mutate << 32 ^ name_hash(q.name)) * 0x9e3779b97f4a7c15ULL | 1;
        rnd(); rnd();
        for (int k = 1 + (int)(rnd() % 4); k; k--) {
            unsigned at = rnd() % (unsigned)b.n, how = rnd() % 4;
            if (at < 2) continue;
            if (how == 0) b.p[at] ^= (uint8_t)(1u << rnd() % 8);
            else if (how == 1) b.p[at] = (uint8_t)rnd();
            else if (how == 2) b.p[at] = (uint8_t)"\0\xff\xc0\x0c\x40\x3f\x29\x01"[rnd() % 8];
            else if (b.n > 20) b.n = 12 + rnd() % (unsigned)(b.n - 12);
        }
        rng = keep;
    }
    long long due = now + a.delay;
    if (!tcp) {
        if (a.flood) job_add(now, J_FLOOD, a.flood, 0, from, b.p, b.n);
        if (a.first[0]) {
            int kind = strcmp(a.first, "port") == 0 ? J_UDP_PORT : strcmp(a.first, "addr") == 0 ? J_UDP_ADDR : J_UDP;
            w = b;
            for (size_t i = q.end; i + 4 <= w.n; i++)           /* the wrong one tells another address */
                if (get32(w.p + i) >> 8 == 0xc00002) { w.p[i] = 6; w.p[i + 1] = 6; w.p[i + 2] = 6; w.p[i + 3] = 6; }
            if (kind == J_UDP) spoil(&w, a.first, &q);
            job_add(due, kind, -1, 0, from, w.p, w.n);
            due += a.gap;
        }
        job_add(due, J_UDP, -1, 0, from, b.p, b.n);
        if (a.twice) job_add(due, J_UDP, -1, 0, from, b.p, b.n);
        return;
    }
    memmove(b.p + 2, b.p, b.n);
    set16(b.p, (unsigned)b.n);
    b.n += 2;
    if (a.first[0] && strcmp(a.first, "port") && strcmp(a.first, "addr")) {
        memcpy(w.p, b.p + 2, b.n - 2);
        w.n = b.n - 2;
        spoil(&w, a.first, &q);
        memmove(w.p + 2, w.p, w.n);
        set16(w.p, (unsigned)w.n);
        job_add(due, J_TCP, conn, gen, NULL, w.p, w.n + 2);
        due += a.gap;
    }
    if (a.dribble)
        for (size_t i = 0; i < b.n; i++) job_add(due + (long long)i * a.dribble, J_TCP, conn, gen, NULL, b.p + i, 1);
    else
        job_add(due, J_TCP, conn, gen, NULL, b.p, a.cut ? b.n / 2 : b.n);
    if (a.closeafter || a.cut) job_add(due, J_CLOSE, conn, gen, NULL, p, 0);
}

static int cmd_up(int argc, char **argv)
{
    static uint8_t in[MSG + 2];
    static struct pollfd pf[CONNS + 4];
    static int who[CONNS + 4];
    int c, no_tcp = 0, no_udp = 0;
    while ((c = getopt(argc, argv, "l:r:n:TU")) != -1) {
        if (c == 'l') up_log = optarg;
        else if (c == 'r') up_rules = optarg;
        else if (c == 'n') up_number = atoi(optarg);
        else if (c == 'T') no_tcp = 1;
        else if (c == 'U') no_udp = 1;
        else return 2;
    }
    argv += optind;
    if (argv[0] == NULL || argv[1] == NULL) die("up: ADDR PORT");
    more_files();
    union sa me = sa_of(argv[0], atoi(argv[1])), any = sa_of(argv[0], 0);
    if (up_log && (up_logfd = open(up_log, O_WRONLY | O_CREAT | O_APPEND, 0644)) < 0) die("%s: %s", up_log, strerror(errno));
    int udp = no_udp ? -1 : sock(SOCK_DGRAM, &me, NULL, 1), tcp = no_tcp ? -1 : sock(SOCK_STREAM, &me, NULL, 1);
    int other = sock(SOCK_DGRAM, &any, NULL, 1), elsewhere = -1;
    if (me.s.sa_family == AF_INET) { union sa x = sa_of("127.0.0.9", sa_port(&me)); elsewhere = sock(SOCK_DGRAM, &x, NULL, 1); }
    if ((udp < 0 && !no_udp) || (tcp < 0 && !no_tcp)) die("bind: %s", strerror(errno));
    if (tcp >= 0) listen(tcp, 1024);
    for (int i = 0; i < CONNS; i++) conns[i].fd = -1;
    signal(SIGPIPE, SIG_IGN);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int n = 0, wait = -1;
        long long now = ms_now();
        while (jobs && jobs->due <= now) {
            struct job *j = jobs;
            jobs = j->next;
            if (j->kind == J_UDP) sendto(udp, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (j->kind == J_FLOOD) {      /* 250 wrong IDs a turn; j->conn is how many are left */
                unsigned right = get16(j->p);
                for (int k = 0; k < 250 && j->conn > 0; k++, j->conn--) {
                    set16(j->p, (right + 1 + (unsigned)j->conn % 65535) & 65535);
                    sendto(udp, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
                }
                set16(j->p, right);
                if (j->conn > 0) job_add(now + 1, J_FLOOD, j->conn, 0, &j->to, j->p, j->n);
            }
            else if (j->kind == J_UDP_PORT) sendto(other, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (j->kind == J_UDP_ADDR) sendto(elsewhere, j->p, j->n, 0, &j->to.s, sa_len(&j->to));
            else if (conns[j->conn].fd >= 0 && conns[j->conn].gen == j->gen) {
                if (j->kind == J_TCP) conn_send(j->conn, j->p, j->n);
                else conn_close(j->conn, j->kind == J_RESET);
            }
            free(j->p);
            free(j);
        }
        if (jobs) wait = (int)(jobs->due - now);
        pf[n].fd = udp; pf[n++].events = POLLIN;
        pf[n].fd = tcp; pf[n++].events = POLLIN;
        for (int i = 0; i < CONNS; i++)
            if (conns[i].fd >= 0) { who[n] = i; pf[n].fd = conns[i].fd; pf[n++].events = (short)(POLLIN | (conns[i].nout ? POLLOUT : 0)); }
        if (poll(pf, (nfds_t)n, wait) < 0) continue;
        if (pf[0].revents)
            for (int k = 0; k < 64; k++) {
                union sa from;
                socklen_t sl = sizeof from;
                ssize_t r = recvfrom(udp, in, sizeof in, 0, &from.s, &sl);
                if (r < 0) break;
                up_query(in, (size_t)r, &from, -1);
            }
        if (pf[1].revents) {
            union sa from;
            socklen_t sl = sizeof from;
            int fd = accept(tcp, &from.s, &sl), i = 0, one = 1;
            while (i < CONNS && conns[i].fd >= 0) i++;
            if (fd >= 0 && i == CONNS) close(fd);
            else if (fd >= 0) {
                fcntl(fd, F_SETFL, O_NONBLOCK);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                conns[i].fd = fd;
                conns[i].from = from;
                if (conns[i].in == NULL) conns[i].in = grow(NULL, MSG + 2);
                up_say("tcp from=%s connect conn=%d", sa_text(&from), i);
                struct act a = act_for(".connect.");
                if (a.close || a.reset) conn_close(i, a.reset);
            }
        }
        for (int k = 2; k < n; k++) {
            int i = who[k];
            struct conn *cn = &conns[i];
            if (!pf[k].revents || cn->fd != pf[k].fd) continue;
            if (pf[k].revents & POLLOUT) conn_flush(i);
            if (cn->fd < 0 || !(pf[k].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            ssize_t r = read(cn->fd, cn->in + cn->nin, MSG + 2 - cn->nin);
            if (r == 0 || (r < 0 && errno != EAGAIN)) { conn_close(i, 0); continue; }
            if (r < 0) continue;
            cn->nin += (size_t)r;
            int gen = cn->gen;
            while (cn->fd >= 0 && cn->gen == gen && cn->nin >= 2 && cn->nin >= 2 + get16(cn->in)) {
                size_t len = get16(cn->in);
                up_query(cn->in + 2, len, &cn->from, i);
                if (cn->gen != gen) break;
                memmove(cn->in, cn->in + 2 + len, cn->nin - 2 - len);
                cn->nin -= 2 + len;
            }
        }
    }
}

/* ---- many: mass queries
 *
 * many ADDR PORT [WORD...]: n=COUNT window=IN FLIGHT rate=A SECOND name=FORMAT (%d is the number) type=T tcp=CONNECTIONS src=ADDR
 * timeout=MS same (one name for all) vary (differing EDNS options and letters) byname (each A record must be that of the name) +OPTION...
 * Says: sent N answered N noerror N ... tc N tcfull N (TC=1 with records) wrong N dup N bad N slowest_ms N p50_us N p99_us N.
 * A query without a reply is not sent again. */

struct waiting { long long t; int used, answered; int number; };

static int by_size(const void *a, const void *b) { long x = *(const long *)a, y = *(const long *)b; return x < y ? -1 : x > y; }

struct found { int n, wrong; uint32_t want; };
static void see_a(const uint8_t *p, size_t n, const struct rr *r, void *ctx)
{
    struct found *f = ctx;
    (void)n;
    if (r->section != 1 || r->type != 1 || r->rdlen != 4) return;
    f->n++;
    if (get32(p + r->rd) != f->want) f->wrong++;
}

static int cmd_many(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static struct waiting w[65536];
    static uint8_t in[MSG + 2];
    int refused = 0, count = 1000, window = 100, type = 1, tcp = 0, timeout = 6000, same = 0, vary = 0, byname = 0, from0 = 0;
    long rate = 0;
    const char *fmt = "n%d.test", *srcs = NULL;
    long *took, nrc[17] = { 0 }, sent = 0, done = 0, wrong = 0, dup = 0, tc = 0, tcfull = 0, bad = 0, open_ = 0;
    struct { int fd; uint8_t *in, *out; size_t nin, nout, room; } ch[256];
    query_init(&q);
    for (int i = 3; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        v = v ? v + 1 : argv[i];
        if (argv[i][0] == '+') { if (!query_option(&q, argv[i])) die("many: what is %s?", argv[i]); }
        else if (strncmp(argv[i], "n=", 2) == 0) count = atoi(v);
        else if (strncmp(argv[i], "window=", 7) == 0) window = atoi(v);
        else if (strncmp(argv[i], "rate=", 5) == 0) rate = atol(v);
        else if (strncmp(argv[i], "name=", 5) == 0) fmt = v;
        else if (strncmp(argv[i], "from=", 5) == 0) from0 = atoi(v);
        else if (strncmp(argv[i], "type=", 5) == 0) type = type_of(v);
        else if (strncmp(argv[i], "tcp=", 4) == 0) tcp = atoi(v);
        else if (strncmp(argv[i], "src=", 4) == 0) srcs = v;
        else if (strncmp(argv[i], "timeout=", 8) == 0) timeout = atoi(v);
        else if (strcmp(argv[i], "same") == 0) same = 1;
        else if (strcmp(argv[i], "vary") == 0) vary = 1;
        else if (strcmp(argv[i], "byname") == 0) byname = 1;
        else die("many: what is %s?", argv[i]);
    }
    if (window > 60000) window = 60000;
    if (tcp > 256) tcp = 256;
    took = grow(NULL, sizeof *took * (size_t)(count + 1));
    union sa to = sa_of(q.server ? q.server : argv[1], atoi(argv[2])), src;
    if (srcs) src = sa_of(srcs, 0);
    int nch = tcp ? tcp : 1;
    memset(ch, 0, sizeof ch);
    for (int i = 0; i < nch; i++) {
        ch[i].fd = sock(tcp ? SOCK_STREAM : SOCK_DGRAM, srcs ? &src : NULL, &to, 0);
        if (ch[i].fd < 0) { printf("%s\n", strerror(errno)); return 1; }
        fcntl(ch[i].fd, F_SETFL, O_NONBLOCK);
        ch[i].in = grow(NULL, MSG + 2);
    }
    signal(SIGPIPE, SIG_IGN);
    rng ^= (uint64_t)us_now() * 2654435761u;
    long long t0 = us_now(), last = t0;
    unsigned next = rnd() & 65535;
    struct pollfd pf[256];
    for (;;) {
        long long now = us_now();
        while (sent < count && open_ < window && (rate == 0 || sent <= (now - t0) * rate / 1000000)) {
            char name[1024];
            int i = (int)(sent % nch), number = same ? from0 : from0 + (int)sent;
            while (w[next & 65535].used) next++;
            unsigned id = next++ & 65535;
            snprintf(name, sizeof name, fmt, number, number, number);
            if (vary) {
                static const char *const opts[] = { "+opt=8:0001180001020%d", "+opt=10:00112233445566%02d", "+opt=12:%04d", "+opt=3:" };
                char o[64];
                q.opts.n = 0;
                q.edns = 512 + (int)(rnd() % 4000);
                snprintf(o, sizeof o, opts[sent % 4], (int)(sent % 10));
                query_option(&q, o);
                for (char *s = name; *s; s++) if (rnd() & 1) *s = (char)toupper((unsigned char)*s);
            }
            query_write(&q, &b, name, type, (int)id);
            w[id].used = 1;
            w[id].answered = 0;
            w[id].number = number;
            w[id].t = us_now();
            if (tcp) {
                if (ch[i].nout + b.n + 2 > ch[i].room) ch[i].out = grow(ch[i].out, ch[i].room = (ch[i].nout + b.n + 2) * 2);
                set16(ch[i].out + ch[i].nout, (unsigned)b.n);
                memcpy(ch[i].out + ch[i].nout + 2, b.p, b.n);
                ch[i].nout += b.n + 2;
            } else if (send(ch[i].fd, b.p, b.n, 0) < 0 && errno == ECONNREFUSED) send(ch[i].fd, b.p, b.n, 0);
            sent++;
            open_++;
            last = us_now();
        }
        if (done >= sent && sent >= count) break;
        if (tcp) {                      /* all connections are closed: nothing more can come */
            int alive = 0;
            for (int i = 0; i < nch; i++) alive += ch[i].fd >= 0;
            if (alive == 0) break;
        }
        now = us_now();
        if (sent >= count && now - last > timeout * 1000LL) break;
        if (open_ >= window && now - last > timeout * 1000LL) {         /* forget what got no reply */
            for (int i = 0; i < 65536; i++) if (w[i].used && now - w[i].t > timeout * 1000LL) { w[i].used = 0; open_--; }
            last = now;
        }
        for (int i = 0; i < nch; i++) {
            if (ch[i].nout) {
                ssize_t r = send(ch[i].fd, ch[i].out, ch[i].nout, MSG_NOSIGNAL);
                if (r > 0) { memmove(ch[i].out, ch[i].out + r, ch[i].nout - (size_t)r); ch[i].nout -= (size_t)r; }
            }
            pf[i].fd = ch[i].fd;
            pf[i].events = (short)(ch[i].fd < 0 ? 0 : POLLIN | (ch[i].nout ? POLLOUT : 0));
            pf[i].revents = 0;
        }
        poll(pf, (nfds_t)nch, rate && sent < count ? 1 : 50);
        for (int i = 0; i < nch; i++) {
            if (!(pf[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            for (int k = 0; k < 256; k++) {
                uint8_t *p = in;
                ssize_t r;
                if (tcp) {
                    r = recv(ch[i].fd, ch[i].in + ch[i].nin, MSG + 2 - ch[i].nin, 0);
                    if (r == 0 || (r < 0 && errno != EAGAIN)) { close(ch[i].fd); ch[i].fd = -1; ch[i].nin = ch[i].nout = 0; break; }
                    if (r < 0) break;
                    ch[i].nin += (size_t)r;
                } else {
                    r = recv(ch[i].fd, in, sizeof in, 0);
                    if (r < 0 && errno == ECONNREFUSED && done == 0 && ++refused == 3) goto end;
                    if (r < 0) break;
                }
                for (;;) {
                    if (tcp) {
                        if (ch[i].nin < 2 || ch[i].nin < 2 + get16(ch[i].in)) break;
                        r = get16(ch[i].in);
                        p = ch[i].in + 2;
                    }
                    struct question qq;
                    char name[1024];
                    if (r < 12) bad++;
                    else {
                        struct waiting *x = &w[get16(p)];
                        if (!x->used && x->answered) dup++;
                        else if (!x->used) wrong++;
                        else {
                            x->used = 0;
                            x->answered = 1;
                            open_--;
                            took[done++] = (long)(us_now() - x->t);
                            unsigned rc = p[3] & 15;
                            nrc[rc]++;
                            if (p[2] & 2) { tc++; tcfull += get16(p + 6) || get16(p + 8); }
                            snprintf(name, sizeof name, fmt, x->number, x->number, x->number);
                            size_t l = strlen(name);
                            if (!read_question(p, (size_t)r, &qq) || (qq.name[strlen(qq.name) - 1] = 0, strncasecmp(qq.name, name, l)) || qq.name[l]) {
                                if (strchr(name, '\\') == NULL) wrong++;
                            } else if (byname && rc == 0) {
                                struct found fo = { 0, 0, 0 };
                                strcat(qq.name, ".");
                                fo.want = 10u << 24 | (name_hash(qq.name) & 0xffffff);
                                if (walk(p, (size_t)r, see_a, &fo) || fo.n == 0 || fo.wrong) wrong++;
                            }
                        }
                    }
                    if (!tcp) break;
                    memmove(ch[i].in, ch[i].in + 2 + r, ch[i].nin - 2 - (size_t)r);
                    ch[i].nin -= 2 + (size_t)r;
                }
            }
        }
    }
    end:
    qsort(took, (size_t)done, sizeof *took, by_size);
    printf("sent %ld answered %ld noerror %ld formerr %ld servfail %ld nxdomain %ld notimp %ld refused %ld tc %ld tcfull %ld wrong %ld dup %ld bad %ld slowest_ms %ld p50_us %ld p99_us %ld ms %lld\n",
           sent, done, nrc[0], nrc[1], nrc[2], nrc[3], nrc[4], nrc[5], tc, tcfull, wrong, dup, bad, done ? took[done - 1] / 1000 : 0,
           done ? took[done / 2] : 0, done ? took[done * 99 / 100] : 0, (us_now() - t0) / 1000);
    return 0;
}

/* ---- talk: a TCP connection by script
 *
 * talk ADDR PORT WORD...: q=NAME[/TYPE[/+OPTION...]] adds a framed query to what will be sent, qs=COUNT:FORMAT many of them (%d is the
 * number), hex=HEX and text=TEXT (\r \n) add bytes, len=N two bytes; send writes it in one piece, bytes=MS byte by byte; pause=MS,
 * fin, rst; replies=N prints N DNS replies, a line each (at most 5 s, or replies=N,MS); count=N only counts them; slurp[=MS] prints text to the end;
 * segment says how many bytes one recv gives; rcvbuf=BYTES (first word); end=MS waits for the other's close and says EOF, RESET or OPEN with ms=. */
static int cmd_talk(int argc, char **argv)
{
    static struct query q;
    static struct buf b;
    static uint8_t in[MSG + 2];
    uint8_t *out = NULL;
    size_t nout = 0, room = 0;
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int at = 3, fd = socket(to.s.sa_family, SOCK_STREAM, 0), one = 1, gone = 0;
    long long t0 = ms_now();
    unsigned id = 1;
    signal(SIGPIPE, SIG_IGN);
    if (at < argc && strncmp(argv[at], "rcvbuf=", 7) == 0) { int v = atoi(argv[at++] + 7); setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, sizeof v); }
    if (at < argc && strncmp(argv[at], "src=", 4) == 0) { union sa src = sa_of(argv[at++] + 4, 0); if (bind(fd, &src.s, sa_len(&src)) < 0) die("bind: %s", strerror(errno)); }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, &to.s, sa_len(&to)) < 0) { printf("%s\n", errno == ECONNREFUSED ? "REFUSEDPORT" : strerror(errno)); return 1; }
#define OUT(p, n) do { if (nout + (n) > room) out = grow(out, room = (nout + (n)) * 2); memcpy(out + nout, (p), (n)); nout += (n); } while (0)
    for (; at < argc; at++) {
        char *w = argv[at], *v = strchr(w, '=');
        v = v ? v + 1 : w + strlen(w);
        int is_send = strcmp(w, "send") == 0, is_bytes = strncmp(w, "bytes", 5) == 0;
        if (strncmp(w, "q=", 2) == 0 || strncmp(w, "qs=", 3) == 0) {
            int many = 1, type = 1;
            char *fmt = v, name[1100];
            if (w[1] == 's') { many = atoi(v); fmt = strchr(v, ':') + 1; }
            query_init(&q);
            char *sl = strchr(fmt, '/');
            if (sl) {
                *sl++ = 0;
                for (char *o; (o = strsep(&sl, "/")) != NULL; )
                    if (*o == '+') { if (!query_option(&q, o)) die("talk: what is %s?", o); }
                    else if ((type = type_of(o)) < 0) die("talk: %s is not a type", o);
            }
            for (int i = 0; i < many; i++) {
                uint8_t len[2];
                snprintf(name, sizeof name, fmt, i, i);
                query_write(&q, &b, name, type, q.id >= 0 ? q.id : (int)(id++ & 65535));
                set16(len, (unsigned)b.n);
                OUT(len, 2);
                OUT(b.p, b.n);
            }
        } else if (strncmp(w, "hex=", 4) == 0) { b.n = 0; put_hex(&b, v); OUT(b.p, b.n); }
        else if (strncmp(w, "len=", 4) == 0) { b.n = 0; put16(&b, (unsigned)atoi(v)); OUT(b.p, b.n); }
        else if (strncmp(w, "text=", 5) == 0) {
            for (; *v; v++) {
                char ch = *v;
                if (ch == '\\' && v[1]) { v++; ch = *v == 'r' ? '\r' : *v == 'n' ? '\n' : *v == 'x' ? 'x' : *v; }
                OUT(&ch, 1);
            }
        } else if (strncmp(w, "fill=", 5) == 0) { for (long k = atol(v); k; k--) OUT("x", 1); }
        else {
            if (nout) {                 /* everything else sends first what is there */
                size_t done = 0;
                long long end = ms_now() + 20000 + (is_bytes ? (long long)nout * atoi(v) : 0);
                fcntl(fd, F_SETFL, O_NONBLOCK);
                while (done < nout && ms_now() < end) {
                    ssize_t r = send(fd, out + done, is_bytes ? 1 : nout - done, MSG_NOSIGNAL);
                    if (r < 0 && errno == EAGAIN) {
                        struct pollfd f = { fd, POLLOUT, 0 };
                        if (poll(&f, 1, 3000) == 0) { printf("STUCK %zu of %zu\n", done, nout); break; }
                        continue;
                    }
                    if (r <= 0) { gone = 1; break; }
                    done += (size_t)r;
                    if (is_bytes && *v) ms_sleep(atoi(v));
                }
                fcntl(fd, F_SETFL, 0);
                nout = 0;
            }
            if (is_send || is_bytes) continue;
            if (strncmp(w, "pause=", 6) == 0) ms_sleep(atoi(v));
            else if (strcmp(w, "fin") == 0) shutdown(fd, SHUT_WR);
            else if (strcmp(w, "rst") == 0) { struct linger l = { 1, 0 }; setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); close(fd); return 0; }
            else if (strncmp(w, "replies=", 8) == 0 || strncmp(w, "count=", 6) == 0) {
                int n = atoi(v), got = 0, counted = w[0] == 'c', rc0 = 0;
                long long end = ms_now() + (strchr(v, ',') ? atoi(strchr(v, ',') + 1) : 6000);
                while (got < n) {
                    uint8_t len[2];
                    char more[40];
                    if (read_full(fd, len, 2, end) < 2 || read_full(fd, in, get16(len), end) < get16(len)) {
                        if (!counted) printf("%s ms=%lld\n", ms_now() >= end ? "TIMEOUT" : "CLOSED", ms_now() - t0);
                        break;
                    }
                    got++;
                    rc0 += (in[3] & 15) == 0;
                    snprintf(more, sizeof more, " ms=%lld", ms_now() - t0);
                    if (!counted) print_msg(stdout, in, get16(len), more);
                }
                if (counted) printf("replies %d noerror %d ms=%lld\n", got, rc0, ms_now() - t0);
            } else if (strcmp(w, "segment") == 0) {
                struct pollfd f = { fd, POLLIN, 0 };
                printf("segment %zd\n", poll(&f, 1, 6000) > 0 ? recv(fd, in, sizeof in, 0) : (ssize_t)-1);
            } else if (strncmp(w, "slurp", 5) == 0 || strncmp(w, "end", 3) == 0) {
                long long end = ms_now() + (*v ? atoi(v) : 6000), bytes = 0;
                const char *how = "OPEN";
                for (;;) {
                    struct pollfd f = { fd, POLLIN, 0 };
                    long long left = end - ms_now();
                    if (left < 0 || poll(&f, 1, (int)left) <= 0) break;
                    ssize_t r = read(fd, in, sizeof in);
                    if (r == 0) { how = "EOF"; break; }
                    if (r < 0) { how = "RESET"; break; }
                    bytes += r;
                    if (w[0] == 's') fwrite(in, 1, (size_t)r, stdout);
                }
                if (w[0] == 'e') printf("%s ms=%lld bytes=%lld%s\n", how, ms_now() - t0, bytes, gone ? " gone" : "");
            } else die("talk: what is %s?", w);
        }
        fflush(stdout);
    }
    close(fd);
    return 0;
}

/* hold ADDR PORT N [hex=HEX] [src=ADDR]: N connections, each sends HEX once and then nothing. Says "holding N", and "open N" whenever that
 * number changes. Runs until killed, 10 minutes at most. */
static int cmd_hold(int argc, char **argv)
{
    int n = atoi(argv[3]), left = 0, told = -1;
    union sa to = sa_of(argv[1], atoi(argv[2])), src;
    struct pollfd *f = grow(NULL, sizeof *f * (size_t)(n + 1));
    static struct buf b;
    const char *srcs = NULL;
    for (int i = 4; i < argc; i++) {
        if (strncmp(argv[i], "hex=", 4) == 0) put_hex(&b, argv[i] + 4);
        if (strncmp(argv[i], "src=", 4) == 0) srcs = argv[i] + 4;
    }
    if (srcs) src = sa_of(srcs, 0);
    more_files();
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < n; i++) {
        int fd = sock(SOCK_STREAM, srcs ? &src : NULL, &to, 0);
        if (fd < 0) continue;
        if (b.n && write(fd, b.p, b.n) < 0) { close(fd); continue; }
        f[left].fd = fd;
        f[left++].events = POLLIN;
    }
    printf("holding %d\n", left);
    fflush(stdout);
    for (long long end = ms_now() + 600000; ms_now() < end; ) {
        int open_ = 0;
        poll(f, (nfds_t)left, 500);
        for (int i = 0; i < left; i++) {
            static char junk[4096];
            if (f[i].fd >= 0 && f[i].revents && read(f[i].fd, junk, sizeof junk) <= 0) { close(f[i].fd); f[i].fd = -1; }
            open_ += f[i].fd >= 0;
        }
        if (open_ != told) { printf("open %d\n", told = open_); fflush(stdout); }
        if (open_ == 0) break;
    }
    return 0;
}

/* flood ADDR PORT [WORD...]: n=COUNT seed=N kind=random|mutate|qr|short src=ADDR tcp gap=US after each 32: datagrams (or one connection each 50 messages).
 * A mutated query is a good one with some bytes changed. Says: sent N got N longest N odd N (FORMERR replies that are more than header,
 * question and OPT). */
static int cmd_flood(int argc, char **argv)
{
    static struct buf b;
    static uint8_t in[MSG];
    static struct query q;
    int count = 10000, tcp = 0, gap = 0;
    long got = 0, longest = 0, odd = 0;
    const char *kind = "random", *srcs = NULL;
    union sa to = sa_of(argv[1], atoi(argv[2])), src;
    rng = 1;
    for (int i = 3; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        v = v ? v + 1 : argv[i];
        if (strncmp(argv[i], "n=", 2) == 0) count = atoi(v);
        else if (strncmp(argv[i], "seed=", 5) == 0) rng = strtoull(v, NULL, 10) * 0x9e3779b97f4a7c15ULL | 1;
        else if (strncmp(argv[i], "kind=", 5) == 0) kind = v;
        else if (strncmp(argv[i], "src=", 4) == 0) srcs = v;
        else if (strncmp(argv[i], "gap=", 4) == 0) gap = atoi(v);
        else if (strcmp(argv[i], "tcp") == 0) tcp = 1;
        else die("flood: what is %s?", argv[i]);
    }
    if (srcs) src = sa_of(srcs, 0);
    signal(SIGPIPE, SIG_IGN);
    int fd = -1;
    for (int i = 0; i < count; i++) {
        if (fd < 0 && (fd = sock(tcp ? SOCK_STREAM : SOCK_DGRAM, srcs ? &src : NULL, &to, 0)) < 0) { ms_sleep(2); continue; }
        b.n = 0;
        if (strcmp(kind, "random") == 0) for (int k = (int)(rnd() % (rnd() % 8 ? 80 : 1400)); k; k--) put8(&b, rnd() & 255);
        else if (strcmp(kind, "short") == 0) for (int k = (int)(rnd() % 12); k; k--) put8(&b, rnd() & 255);
        else {
            char name[64], o[64];
            snprintf(name, sizeof name, "f%u.flood.test", rnd() % 500);
            query_init(&q);
            if (rnd() % 3) q.edns = (int)(rnd() % 5000);
            if (rnd() % 3 == 0) { snprintf(o, sizeof o, "+opt=%u:%08x", rnd() % 16, rnd()); query_option(&q, o); }
            query_write(&q, &b, name, rnd() % 4 ? 1 : (int)(rnd() % 300), (int)(rnd() & 65535));
            if (strcmp(kind, "qr") == 0) b.p[2] |= 0x80;
            else for (int k = 1 + (int)(rnd() % 4); k; k--) {
                unsigned at = rnd() % (unsigned)b.n, how = rnd() % 5;
                if (how == 0) b.p[at] ^= (uint8_t)(1u << rnd() % 8);
                else if (how == 1) b.p[at] = (uint8_t)rnd();
                else if (how == 2) b.p[at] = (uint8_t)"\0\xff\xc0\x0c\x40\x3f\x29\x01"[rnd() % 8];
                else if (how == 3 && b.n > 14) b.n = 12 + rnd() % (unsigned)(b.n - 12);
                else set16(b.p + 4 + 2 * (rnd() % 4), rnd() % 3 ? rnd() % 4 : rnd() & 65535);
            }
        }
        if (tcp) {
            uint8_t len[2];
            set16(len, rnd() % 8 ? (unsigned)b.n : rnd() % 70);
            if (send(fd, len, 2, MSG_NOSIGNAL) < 0 || send(fd, b.p, b.n, MSG_NOSIGNAL) < 0 || i % 50 == 49) { close(fd); fd = -1; }
        } else send(fd, b.p, b.n, 0);
        if (fd >= 0)
            for (ssize_t r; (r = recv(fd, in, sizeof in, MSG_DONTWAIT)) > 0; ) {
                got++;
                if (r > longest) longest = (long)r;
                if (!tcp && r >= 12 && (in[3] & 15) == 1 && (get16(in + 6) || get16(in + 8) || get16(in + 10) > 1)) odd++;
            }
        if (i % 32 == 31) { if (gap) { struct timespec t = { 0, gap * 1000L }; nanosleep(&t, NULL); } else sched_yield(); }
    }
    if (!tcp && fd >= 0) {
        struct pollfd f = { fd, POLLIN, 0 };
        while (poll(&f, 1, 50) > 0) { ssize_t r = recv(fd, in, sizeof in, 0); if (r < 0) continue; got++; if (r > longest) longest = (long)r; }
    }
    printf("sent %d got %ld longest %ld odd %ld\n", count, got, longest, odd);
    return 0;
}

/* ---- The small ones */

/* zero ADDR PORT NAME: a query to an IPv4 address whose UDP source port is 0; false if that is not allowed here */
static int cmd_zero(int argc, char **argv)
{
    static struct buf b, m;
    static struct query q;
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    (void)argc;
    if (fd < 0) return 1;
    query_init(&q);
    query_write(&q, &m, argv[3], 1, 4711);
    put16(&b, 0);
    put16(&b, (unsigned)sa_port(&to));
    put16(&b, (unsigned)m.n + 8);
    put16(&b, 0);                       /* no checksum */
    putn(&b, m.p, m.n);
    to.v4.sin_port = 0;
    return sendto(fd, b.p, b.n, 0, &to.s, sa_len(&to)) < 0;
}

static int cmd_freeport(int argc, char **argv)
{
    int fd[4], n = 0;
    (void)argc; (void)argv;
    rng ^= (uint64_t)us_now() * 2654435761u ^ (uint64_t)getpid() << 32;
    for (int try = 0; try < 200; try++) {
        int port = 10000 + (int)(rnd() % 20000);        /* below the ports that the kernel gives to clients */
        union sa a = sa_of("0.0.0.0", port), z = sa_of("::", port);
        n = 0;
        fd[n++] = sock(SOCK_DGRAM, &a, NULL, 0);
        fd[n++] = sock(SOCK_STREAM, &a, NULL, 0);
        fd[n++] = sock(SOCK_DGRAM, &z, NULL, 0);
        fd[n++] = sock(SOCK_STREAM, &z, NULL, 0);
        int good = fd[0] >= 0 && fd[1] >= 0;
        if (fd[2] < 0 && errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL && errno == EADDRINUSE) good = 0;
        while (n--) if (fd[n] >= 0) close(fd[n]);
        if (good) { printf("%d\n", port); return 0; }
    }
    return 1;
}

/* true if the process has ended; a zombie has */
static int is_gone(int pid)
{
    char path[64], text[512];
    FILE *f;
    if (kill(pid, 0) < 0 && errno == ESRCH) return 1;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if ((f = fopen(path, "r")) == NULL) return access("/proc/self/stat", R_OK) == 0;
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    char *z = strrchr(text, ')');
    return z != NULL && z[1] == ' ' && (z[2] == 'Z' || z[2] == 'X');
}

static int cmd_serves(int argc, char **argv)
{
    union sa to = sa_of(argc > 4 ? argv[4] : "127.0.0.1", atoi(argv[2])), six = sa_of("::1", atoi(argv[2]));
    for (long long end = ms_now() + atoi(argv[3]); ms_now() < end; ms_sleep(3)) {
        int fd = sock(SOCK_STREAM, NULL, &to, 0);
        if (fd < 0) fd = sock(SOCK_STREAM, NULL, &six, 0);
        if (fd >= 0) { close(fd); return 0; }
        if (is_gone(atoi(argv[1]))) return 1;
    }
    return 1;
}

static int cmd_gone(int argc, char **argv)
{
    (void)argc;
    for (long long end = ms_now() + atoi(argv[2]); ms_now() < end; ms_sleep(3))
        if (is_gone(atoi(argv[1]))) return 0;
    return 1;
}

static int cmd_line(int argc, char **argv)
{
    static char in[65536];
    union sa to = sa_of(argv[1], atoi(argv[2]));
    int fd = sock(SOCK_STREAM, NULL, &to, 0);
    (void)argc;
    if (fd < 0) { printf("no connection: %s\n", strerror(errno)); return 1; }
    signal(SIGPIPE, SIG_IGN);
    if (dprintf(fd, "%s\n", argv[3]) < 0) return 1;
    for (long long end = ms_now() + 20000; ms_now() < end; ) {
        struct pollfd f = { fd, POLLIN, 0 };
        if (poll(&f, 1, 1000) <= 0) continue;
        ssize_t n = read(fd, in, sizeof in);
        if (n <= 0) return 0;
        fwrite(in, 1, (size_t)n, stdout);
    }
    printf("the admin port does not close\n");
    return 1;
}

static int cmd_notify(int argc, char **argv)
{
    static char in[65536];
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    (void)argc;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", argv[1]);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) die("%s: %s", argv[1], strerror(errno));
    chmod(argv[1], 0777);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        ssize_t n = recv(fd, in, sizeof in - 1, 0);
        if (n < 0) return 1;
        for (ssize_t i = 0; i < n; i++) if (in[i] == '\n') in[i] = ' ';
        printf("%lld %.*s\n", ms_now(), (int)n, in);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int args; int (*run)(int, char **); } commands[] = {
        { "up", 4, cmd_up }, { "ask", 4, cmd_ask }, { "many", 3, cmd_many }, { "talk", 4, cmd_talk }, { "hold", 4, cmd_hold }, { "flood", 3, cmd_flood },
        { "zero", 4, cmd_zero }, { "freeport", 1, cmd_freeport }, { "serves", 4, cmd_serves }, { "gone", 3, cmd_gone }, { "line", 4, cmd_line }, { "notify", 2, cmd_notify } };
    if (argc > 1)
        for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
            if (strcmp(argv[1], commands[i].name) == 0 && argc > commands[i].args)
                return commands[i].run(argc - 1, argv + 1);
    die("freeport | serves | gone | line | notify | zero | up | ask | many | talk | hold | flood, and its arguments");
}
