/* tls: certificates, a scripted DNS-over-TLS server, and a client that asks in bulk. BearSSL only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <bearssl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("tls: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    exit(1);
}

static void *grown(void *p, size_t n)
{
    if ((p = realloc(p, n ? n : 1)) == NULL)
        die("no memory");
    return p;
}

static long clock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long)(ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

struct buf { unsigned char *p; size_t n, room; };

static void put(struct buf *b, const void *p, size_t n)
{
    if (b->n + n > b->room)
        b->p = grown(b->p, b->room = 2 * (b->n + n) + 256);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}
static void put8(struct buf *b, unsigned v) { unsigned char c = (unsigned char)v; put(b, &c, 1); }
static void put16(struct buf *b, unsigned v) { put8(b, v >> 8); put8(b, v & 255); }
static void put32(struct buf *b, uint32_t v) { put16(b, v >> 16); put16(b, v & 65535); }
static void puts_(struct buf *b, const char *s) { put(b, s, strlen(s)); }

static void take(struct buf *b, size_t n)
{
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

static struct buf slurp(const char *path)
{
    struct buf b = { 0 };
    unsigned char block[4096];
    size_t n;
    FILE *f = fopen(path, "r");
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        put(&b, block, n);
    fclose(f);
    return b;
}

static void spit(const char *base, const char *suffix, const struct buf *b)
{
    char path[1024];
    FILE *f;
    snprintf(path, sizeof path, "%s%s", base, suffix);
    if ((f = fopen(path, "w")) == NULL || fwrite(b->p, 1, b->n, f) != b->n || fclose(f))
        die("%s: %s", path, strerror(errno));
}

static br_hmac_drbg_context rng;

static void rng_init(void)
{
    unsigned char seed[32];
    FILE *f = fopen("/dev/urandom", "r");
    if (f == NULL || fread(seed, 1, sizeof seed, f) != sizeof seed)
        die("/dev/urandom: %s", strerror(errno));
    fclose(f);
    br_hmac_drbg_init(&rng, &br_sha256_vtable, seed, sizeof seed);
}

/* ---- Certificates ------------------------------------------------------ */

enum { P256, P384, RSA };

struct key {
    int kind;
    br_ec_private_key ec;
    br_rsa_private_key rsa;
    unsigned char store[BR_RSA_KBUF_PRIV_SIZE(4096)], store2[BR_RSA_KBUF_PUB_SIZE(4096)];
    br_rsa_public_key rsapub;
};

static size_t der_open(struct buf *b, unsigned tag)
{
    put8(b, tag);
    put8(b, 0);
    return b->n;
}

static void der_close(struct buf *b, size_t at)
{
    size_t n = b->n - at, extra = n < 128 ? 0 : n < 256 ? 1 : 2;
    put(b, "\0\0", extra);
    memmove(b->p + at + extra, b->p + at, n);
    if (extra == 0)
        b->p[at - 1] = (unsigned char)n;
    else {
        b->p[at - 1] = (unsigned char)(0x80 + extra);
        if (extra == 2)
            b->p[at++] = (unsigned char)(n >> 8);
        b->p[at] = (unsigned char)n;
    }
}

static void der(struct buf *b, unsigned tag, const void *p, size_t n)
{
    size_t at = der_open(b, tag);
    put(b, p, n);
    der_close(b, at);
}

static void der_uint(struct buf *b, const unsigned char *p, size_t n)
{
    size_t at = der_open(b, 2);
    while (n > 1 && *p == 0)
        p++, n--;
    if (*p & 0x80)
        put8(b, 0);
    put(b, p, n);
    der_close(b, at);
}

#define OID(b, bytes) der(b, 6, bytes, sizeof(bytes) - 1)

static void der_time(struct buf *b, time_t t)
{
    struct tm tm;
    char s[32];
    gmtime_r(&t, &tm);
    strftime(s, sizeof s, tm.tm_year < 150 ? "%y%m%d%H%M%SZ" : "%Y%m%d%H%M%SZ", &tm);
    der(b, tm.tm_year < 150 ? 0x17 : 0x18, s, strlen(s));
}

static void der_name(struct buf *b, const char *cn)
{
    size_t seq = der_open(b, 0x30), set, atv;
    if (*cn) {
        set = der_open(b, 0x31);
        atv = der_open(b, 0x30);
        OID(b, "\x55\x04\x03");
        der(b, 0x0C, cn, strlen(cn));
        der_close(b, atv);
        der_close(b, set);
    }
    der_close(b, seq);
}

static void der_spki(struct buf *b, const struct key *k)
{
    size_t seq = der_open(b, 0x30), alg = der_open(b, 0x30), bits, in;
    if (k->kind == RSA) {
        OID(b, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x01");
        der(b, 5, NULL, 0);
        der_close(b, alg);
        bits = der_open(b, 3);
        put8(b, 0);
        in = der_open(b, 0x30);
        der_uint(b, k->rsapub.n, k->rsapub.nlen);
        der_uint(b, k->rsapub.e, k->rsapub.elen);
        der_close(b, in);
    } else {
        unsigned char pub[BR_EC_KBUF_PUB_MAX_SIZE];
        br_ec_public_key pk;
        OID(b, "\x2A\x86\x48\xCE\x3D\x02\x01");
        if (k->kind == P256)
            OID(b, "\x2A\x86\x48\xCE\x3D\x03\x01\x07");
        else
            OID(b, "\x2B\x81\x04\x00\x22");
        der_close(b, alg);
        br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
        bits = der_open(b, 3);
        put8(b, 0);
        put(b, pk.q, pk.qlen);
    }
    der_close(b, bits);
    der_close(b, seq);
}

static void der_algorithm(struct buf *b, int kind)
{
    size_t seq = der_open(b, 0x30);
    if (kind == P256)
        OID(b, "\x2A\x86\x48\xCE\x3D\x04\x03\x02");
    else if (kind == P384)
        OID(b, "\x2A\x86\x48\xCE\x3D\x04\x03\x03");
    else {
        OID(b, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B");
        der(b, 5, NULL, 0);
    }
    der_close(b, seq);
}

/* appends the signature of the bytes from `at` on, with its algorithm */
static void der_signature(struct buf *b, size_t at, const struct key *k, int spoil)
{
    unsigned char h[64], sig[1024];
    size_t n = 0, bits;
    if (k->kind == P384) {
        br_sha384_context c;
        br_sha384_init(&c);
        br_sha384_update(&c, b->p + at, b->n - at);
        br_sha384_out(&c, h);
        n = br_ecdsa_i31_sign_asn1(&br_ec_all_m31, &br_sha384_vtable, h, &k->ec, sig);
    } else {
        br_sha256_context c;
        br_sha256_init(&c);
        br_sha256_update(&c, b->p + at, b->n - at);
        br_sha256_out(&c, h);
        if (k->kind == P256)
            n = br_ecdsa_i31_sign_asn1(&br_ec_all_m31, &br_sha256_vtable, h, &k->ec, sig);
        else if (br_rsa_i31_pkcs1_sign(BR_HASH_OID_SHA256, h, 32, &k->rsa, sig))
            n = k->rsapub.nlen;
    }
    if (n == 0)
        die("cannot sign");
    if (spoil)
        sig[n - 1] ^= 1;
    der_algorithm(b, k->kind);
    bits = der_open(b, 3);
    put8(b, 0);
    put(b, sig, n);
    der_close(b, bits);
}

static void pem(struct buf *out, const char *banner, const void *p, size_t n)
{
    size_t len = br_pem_encode(NULL, p, n, banner, BR_PEM_LINE64);
    char *s = grown(NULL, len + 1);
    br_pem_encode(s, p, n, banner, BR_PEM_LINE64);
    put(out, s, len);
    free(s);
}

static void key_make(struct key *k, const char *kind)
{
    if (strncmp(kind, "rsa", 3) == 0) {
        unsigned bits = kind[3] ? (unsigned)atoi(kind + 3) : 2048;
        k->kind = RSA;
        if (!br_rsa_keygen_get_default()(&rng.vtable, &k->rsa, k->store, &k->rsapub, k->store2, bits, 65537))
            die("cannot make an RSA key");
    } else {
        k->kind = strcmp(kind, "p384") == 0 ? P384 : P256;
        if (br_ec_keygen(&rng.vtable, &br_ec_all_m31, &k->ec, k->store, k->kind == P384 ? BR_EC_secp384r1 : BR_EC_secp256r1) == 0)
            die("cannot make an EC key");
    }
}

static void key_save(const struct key *k, const char *base)
{
    unsigned char d[512], out[4096];
    struct buf b = { 0 };
    if (k->kind == RSA) {
        size_t dlen = br_rsa_compute_privexp_get_default()(d, &k->rsa, 65537);
        pem(&b, "RSA PRIVATE KEY", out, br_encode_rsa_raw_der(out, &k->rsa, &k->rsapub, d, dlen));
    } else {
        unsigned char pub[BR_EC_KBUF_PUB_MAX_SIZE];
        br_ec_public_key pk;
        br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
        pem(&b, "EC PRIVATE KEY", out, br_encode_ec_raw_der(out, &k->ec, &pk));
    }
    spit(base, ".key", &b);
}

/* the objects of a PEM file, each as DER; the number of them */
static void into_buf(void *b, const void *p, size_t n) { put(b, p, n); }

static size_t pem_read(const char *path, struct buf *out, size_t max)
{
    struct buf f = slurp(path);
    br_pem_decoder_context pc;
    size_t at = 0, n = 0;
    int inside = 0;
    put8(&f, '\n');
    br_pem_decoder_init(&pc);
    while (at < f.n) {
        at += br_pem_decoder_push(&pc, f.p + at, f.n - at);
        switch (br_pem_decoder_event(&pc)) {
        case BR_PEM_BEGIN_OBJ:
            if (n == max)
                die("%s: too many objects", path);
            memset(&out[n], 0, sizeof out[n]);
            br_pem_decoder_setdest(&pc, into_buf, &out[n]);
            inside = 1;
            break;
        case BR_PEM_END_OBJ:
            n += (size_t)inside;
            inside = 0;
            break;
        case BR_PEM_ERROR:
            die("%s: no PEM", path);
        }
    }
    free(f.p);
    return n;
}

static void key_load(struct key *k, const char *path)
{
    br_skey_decoder_context *dc = grown(NULL, sizeof *dc);     /* the key points into it: it stays */
    struct buf b;
    if (pem_read(path, &b, 1) != 1)
        die("%s: no key", path);
    br_skey_decoder_init(dc);
    br_skey_decoder_push(dc, b.p, b.n);
    if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_RSA) {
        k->kind = RSA;
        k->rsa = *br_skey_decoder_get_rsa(dc);
        /* SEQUENCE { 0, the modulus, ...: BearSSL computes none of 4096 bits */
        k->rsapub.n = b.p + 11 + (b.p[11] == 0);
        k->rsapub.nlen = (size_t)(b.p[9] << 8 | b.p[10]) - (b.p[11] == 0);
        memcpy(k->store2, "\1\0\1", 3);
        k->rsapub.e = k->store2;
        k->rsapub.elen = 3;
    } else if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_EC) {
        k->ec = *br_skey_decoder_get_ec(dc);
        k->kind = k->ec.curve == BR_EC_secp384r1 ? P384 : P256;
    } else
        die("%s: no key", path);
}

static void base64(const unsigned char *p, size_t n, char *out)
{
    static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (; n > 0; p += 3, n = n > 3 ? n - 3 : 0) {
        uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
        *out++ = abc[v >> 18];
        *out++ = abc[v >> 12 & 63];
        *out++ = n > 1 ? abc[v >> 6 & 63] : '=';
        *out++ = n > 2 ? abc[v & 63] : '=';
    }
    *out = 0;
}

static void extension(struct buf *b, const char *oid, int critical, const struct buf *value)
{
    size_t seq = der_open(b, 0x30);
    der(b, 6, oid, 3);
    if (critical)
        der(b, 1, "\xFF", 1);
    der(b, 4, value->p, value->n);
    der_close(b, seq);
}

/* the SAN list: dns:NAME, ip:ADDRESS, nul:NAME (with a NUL byte after NAME, then .evil.test), a comma between */
static void san_put(struct buf *b, char *list)
{
    size_t seq = der_open(b, 0x30);
    for (char *s = strtok(list, ","); s; s = strtok(NULL, ",")) {
        unsigned char ip[16];
        if (strncmp(s, "dns:", 4) == 0)
            der(b, 0x82, s + 4, strlen(s + 4));
        else if (strncmp(s, "nul:", 4) == 0) {
            size_t at = der_open(b, 0x82);
            puts_(b, s + 4);
            put(b, "\0.evil.test", 11);
            der_close(b, at);
        } else if (strncmp(s, "ip:", 3) == 0 && inet_pton(AF_INET, s + 3, ip) == 1)
            der(b, 0x87, ip, 4);
        else if (strncmp(s, "ip:", 3) == 0 && inet_pton(AF_INET6, s + 3, ip) == 1)
            der(b, 0x87, ip, 16);
        else
            die("san: %s?", s);
    }
    der_close(b, seq);
}

/* cert OUT WORD...: a certificate and a key. Writes OUT.key, OUT.crt (it alone), OUT.pem (with its chain but the root) and
 * OUT.up (what certificates that it signs send after theirs); prints the pin.
 *   key=p256|p384|rsa|rsa4096|FILE  cn=TEXT  san=dns:NAME,ip:ADDRESS  by=OTHER (else self-signed)  from=S to=S (relative to now)
 *   ca[=PATHLEN]  eku=server|client|both  badsig  noint (sends no intermediate)  withroot  critical (an unknown critical extension) */
static int cert(int argc, char **argv)
{
    static struct key own, other;
    const struct key *signer = &own;
    const char *out = argv[0], *cn = "", *by = NULL, *keykind = "p256", *eku = NULL;
    char *san = NULL, pin[64], path[1024];
    long from = -86400, to = 30 * 86400L;
    int ca = -2, badsig = 0, noint = 0, withroot = 0, critical = 0;
    unsigned char serial[9], h[32];
    struct buf b = { 0 }, v = { 0 }, file = { 0 }, up = { 0 }, spki = { 0 }, issuer = { 0 };
    size_t all, tbs, at, in;
    br_sha256_context sh;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i], *val = strchr(a, '=');
        if (val)
            *val++ = 0;
        if (strcmp(a, "key") == 0) keykind = val;
        else if (strcmp(a, "cn") == 0) cn = val;
        else if (strcmp(a, "san") == 0) san = val;
        else if (strcmp(a, "by") == 0) by = val;
        else if (strcmp(a, "from") == 0) from = atol(val);
        else if (strcmp(a, "to") == 0) to = atol(val);
        else if (strcmp(a, "ca") == 0) ca = val ? atoi(val) : -1;
        else if (strcmp(a, "eku") == 0) eku = val;
        else if (strcmp(a, "badsig") == 0) badsig = 1;
        else if (strcmp(a, "noint") == 0) noint = 1;
        else if (strcmp(a, "withroot") == 0) withroot = 1;
        else if (strcmp(a, "critical") == 0) critical = 1;
        else die("cert: %s?", a);
    }
    if (strchr(keykind, '/')) {
        key_load(&own, keykind);
        file = slurp(keykind);
        spit(out, ".key", &file);
        file.n = 0;
    } else {
        key_make(&own, keykind);
        key_save(&own, out);
    }
    if (by) {
        snprintf(path, sizeof path, "%s.key", by);
        key_load(&other, path);
        signer = &other;
        snprintf(path, sizeof path, "%s.dn", by);
        issuer = slurp(path);
    }
    der_spki(&spki, &own);
    all = der_open(&b, 0x30);
    tbs = der_open(&b, 0x30) - 2;
    at = der_open(&b, 0xA0);
    der(&b, 2, "\2", 1);
    der_close(&b, at);
    br_hmac_drbg_generate(&rng, serial, sizeof serial);
    serial[0] |= 1;
    der_uint(&b, serial, sizeof serial);
    der_algorithm(&b, signer->kind);
    der_name(&v, cn);
    spit(out, ".dn", &v);
    put(&b, by ? issuer.p : v.p, by ? issuer.n : v.n);
    at = der_open(&b, 0x30);
    der_time(&b, time(NULL) + from);
    der_time(&b, time(NULL) + to);
    der_close(&b, at);
    put(&b, v.p, v.n);
    put(&b, spki.p, spki.n);
    at = der_open(&b, 0xA3);
    in = der_open(&b, 0x30);
    v.n = 0;
    all = der_open(&v, 0x30);
    if (ca >= -1)
        der(&v, 1, "\xFF", 1);
    if (ca >= 0) {
        unsigned char len = (unsigned char)ca;
        der(&v, 2, &len, 1);
    }
    der_close(&v, all);
    extension(&b, "\x55\x1D\x13", 1, &v);
    v.n = 0;
    der(&v, 3, ca >= -1 ? "\1\6" : "\5\xA0", 2);
    extension(&b, "\x55\x1D\x0F", 1, &v);
    if (eku) {
        v.n = 0;
        all = der_open(&v, 0x30);
        if (*eku != 'c')
            OID(&v, "\x2B\x06\x01\x05\x05\x07\x03\x01");
        if (*eku != 's')
            OID(&v, "\x2B\x06\x01\x05\x05\x07\x03\x02");
        der_close(&v, all);
        extension(&b, "\x55\x1D\x25", 0, &v);
    }
    if (san) {
        v.n = 0;
        san_put(&v, san);
        extension(&b, "\x55\x1D\x11", 0, &v);
    }
    if (critical) {
        v.n = 0;
        der(&v, 5, NULL, 0);
        extension(&b, "\x2A\x03\x04", 1, &v);
    }
    der_close(&b, in);
    der_close(&b, at);
    der_close(&b, tbs + 2);
    der_signature(&b, tbs, signer, badsig);
    der_close(&b, 2);
    pem(&file, "CERTIFICATE", b.p, b.n);
    spit(out, ".crt", &file);
    if (by) {
        put(&up, file.p, file.n);
        snprintf(path, sizeof path, "%s.up", by);
        v = slurp(path);
        put(&up, v.p, v.n);
        if (!noint)
            put(&file, v.p, v.n);
        if (withroot) {
            snprintf(path, sizeof path, "%s.crt", by);
            v = slurp(path);
            put(&file, v.p, v.n);
        }
    }
    spit(out, ".pem", &file);
    spit(out, ".up", &up);
    br_sha256_init(&sh);
    br_sha256_update(&sh, spki.p, spki.n);
    br_sha256_out(&sh, h);
    base64(h, 32, pin);
    puts(pin);
    v.n = 0;
    puts_(&v, pin);
    spit(out, ".pin", &v);
    return 0;
}

/* ---- Rules ------------------------------------------------------------- */

/* Read from a file of words KEY[=VALUE], again whenever it changes. Times are milliseconds. */
static struct rules {
    char at[16], what[16];      /* a fault: at=accept|hello|mid|up:stall|deaf|fin|rst|garbage|plain|alertN */
    char how[8];                /* how connections are closed: notify fin rst half */
    long cut;                   /* mid: after so many bytes of ours */
    long times;                 /* at and drop happen so often, then no more (-1 always) */
    long idle, life;            /* close after so long without a query, since the accept */
    long after, drop;           /* close after so many answers; when so many queries wait */
    long batch; char order[8];  /* hold answers until so many wait: fifo lifo; then in as few records as possible */
    long record, wire;          /* at most so many bytes in a record; in a segment */
    long delay, keepalive, pad, ttl, net;
    long trickle;               /* a byte of the answers every so often; with record=, so many */
    long pause;                 /* so long the server does nothing after a ClientHello */
    long mutate;                /* so many random bytes of each answer are changed */
    int mute, wrong, half, reneg, ad;
    int formerr;                /* to queries with EDNS, as old servers do */
    long kick;                  /* a new value closes every open connection */
    long muted;                 /* connections up to this number answer nothing */
    long epoch;                 /* a new value forgets the sessions */
    char cache[8];              /* on off zero: zero takes any session with a secret of zeros */
} rules;
static struct rules rules_start;
static const char *rules_file;
static struct stat rules_stat;
static unsigned rules_seen;

static void rule(struct rules *r, char *w)
{
    static const struct { const char *name; size_t at; } longs[] = {
#define L(f) { #f, offsetof(struct rules, f) }
        L(cut), L(times), L(idle), L(life), L(after), L(drop), L(record), L(wire), L(delay), L(keepalive), L(pad), L(ttl), L(net),
        L(kick), L(epoch), L(batch), L(muted), L(trickle), L(mutate),
        L(pause),
#undef L
    };
    char *v = strchr(w, '=');
    if (v)
        *v++ = 0;
    for (size_t i = 0; i < sizeof longs / sizeof longs[0]; i++)
        if (strcmp(w, longs[i].name) == 0 && v) {
            *(long *)(void *)((char *)r + longs[i].at) = atol(v);
            return;
        }
    if (strcmp(w, "at") == 0 && v && strchr(v, ':')) {
        snprintf(r->what, sizeof r->what, "%s", strchr(v, ':') + 1);
        *strchr(v, ':') = 0;
        snprintf(r->at, sizeof r->at, "%s", v);
    } else if (strcmp(w, "how") == 0 && v)
        snprintf(r->how, sizeof r->how, "%s", v);
    else if (strcmp(w, "order") == 0 && v)
        snprintf(r->order, sizeof r->order, "%s", v);
    else if (strcmp(w, "cache") == 0 && v)
        snprintf(r->cache, sizeof r->cache, "%s", v);
    else if (strcmp(w, "mute") == 0) r->mute = 1;
    else if (strcmp(w, "wrong") == 0) r->wrong = 1;
    else if (strcmp(w, "half") == 0) r->half = 1;
    else if (strcmp(w, "reneg") == 0) r->reneg = 1;
    else if (strcmp(w, "ad") == 0) r->ad = 1;
    else if (strcmp(w, "formerr") == 0) r->formerr = 1;
    else die("rule %s?", w);
}

/* ---- Server ------------------------------------------------------------ */

struct answer { long due; struct buf b; };

struct conn {
    struct conn *next;
    int fd, id;
    br_ssl_server_context sc;
    unsigned char iobuf[BR_SSL_BUFSIZE_BIDI];
    int gone;                   /* the sweep frees it */
    int up, flight, hello, stalled, closing, sawdata, reneg, cutting;
    long t0, last, dripped, sent, app, wire, records, queries, answers, handshake, inrecord;
    struct buf first;           /* what came before the end of the ClientHello */
    unsigned char head[5];      /* of the record that is coming in */
    size_t headn;
    size_t recordleft;
    struct buf in, out, raw;    /* queries as they come; answers to encrypt; bytes to send as they are */
    struct answer held[4096];
    int nheld, waiting;         /* answers not due yet; queries without answer */
};

static struct conn *conns;
static FILE *logf_;
static long started_at, now;
static int conn_count, kick_seen;
static br_x509_certificate chain[80];
static size_t chain_len;
static struct key server_key;
static unsigned issuer_type;
static unsigned version = BR_TLS12;
static uint16_t suites[48];
static size_t nsuites;
static unsigned char cache_store[100000];
static br_ssl_session_cache_lru cache_lru;

static void note(const struct conn *c, const char *event, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(logf_, "%s %d ms %ld ", event, c ? c->id : 0, clock_ms() - started_at);
    vfprintf(logf_, fmt, ap);
    fputc('\n', logf_);
    fflush(logf_);
    va_end(ap);
}

static int zero_load(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, br_ssl_session_parameters *pp)
{
    (void)ctx;
    pp->version = BR_TLS12;
    pp->cipher_suite = sc->client_suites[0][0];
    memset(pp->master_secret, 0, sizeof pp->master_secret);
    return 1;
}
static void zero_save(const br_ssl_session_cache_class **ctx, br_ssl_server_context *sc, const br_ssl_session_parameters *pp)
{
    (void)ctx;
    (void)sc;
    (void)pp;
}
static const br_ssl_session_cache_class zero_class = { sizeof(void *), zero_save, zero_load };
static const br_ssl_session_cache_class *zero_cache = &zero_class;

static void conn_die(struct conn *c, const char *who, const char *why)
{
    if (c->gone)
        return;
    c->gone = 1;
    note(c, "end", "by %s why %s app %ld records %ld wire %ld queries %ld answers %ld", who, why, c->app, c->records, c->wire,
        c->queries, c->answers);
    close(c->fd);
}

static void conn_rst(struct conn *c)
{
    struct linger l = { 1, 0 };
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}

static void rules_read(void)
{
    struct stat st;
    struct buf b;
    static long epoch, kick;
    if (stat(rules_file, &st) || (st.st_ino == rules_stat.st_ino && st.st_mtim.tv_nsec == rules_stat.st_mtim.tv_nsec && st.st_mtim.tv_sec == rules_stat.st_mtim.tv_sec))
        return;
    rules_stat = st;
    b = slurp(rules_file);
    put8(&b, 0);
    rules = rules_start;
    for (char *w = strtok((char *)b.p, " \n"); w; w = strtok(NULL, " \n"))
        rule(&rules, w);
    free(b.p);
    if (rules.epoch && rules.epoch != epoch) {
        epoch = rules.epoch;
        br_ssl_session_cache_lru_init(&cache_lru, cache_store, sizeof cache_store);
    }
    if (rules.kick && rules.kick != kick) {
        kick = rules.kick;
        kick_seen = 1;
    }
    note(NULL, "rules", "n %u", ++rules_seen);
}

static int fault(const struct conn *c, const char *at)
{
    (void)c;
    return strcmp(rules.at, at) == 0 && rules.times != 0;
}

static void send_now(struct conn *c, const void *p, size_t n) { if (send(c->fd, p, n, MSG_NOSIGNAL) < 0) c->cutting = 1; }

/* does what the rule says to this connection */
static void strike(struct conn *c)
{
    unsigned char junk[600];
    if (rules.times > 0)
        rules.times--;
    note(c, "strike", "at %s what %s", rules.at, rules.what);
    if (strcmp(rules.what, "fin") == 0) {
        conn_die(c, "server", "fault");
        return;
    }
    if (strcmp(rules.what, "rst") == 0) {
        conn_rst(c);
        conn_die(c, "server", "fault");
        return;
    }
    if (strcmp(rules.what, "garbage") == 0) {
        br_hmac_drbg_generate(&rng, junk, sizeof junk);
        junk[0] = 0x80 | (junk[0] & 0x3f);
        send_now(c, junk, sizeof junk);
    } else if (strcmp(rules.what, "plain") == 0)
        send_now(c, "220 mail.test ESMTP ready\r\n", 27);
    else if (strcmp(rules.what, "zeros") == 0) {
        memset(junk, 0, sizeof junk);
        send_now(c, junk, sizeof junk);
    } else if (strncmp(rules.what, "alert", 5) == 0) {
        memcpy(junk, "\x15\x03\x03\0\2\2", 6);
        junk[6] = (unsigned char)atoi(rules.what + 5);
        send_now(c, junk, 7);
    }
    c->stalled = 1;
}

/* the ClientHello, in words. Its bytes are what came so far; false when it is not whole yet */
static int hello_note(struct conn *c)
{
    struct buf m = { 0 };
    const unsigned char *p, *e, *end;
    char sni[256] = "-", alpn[256] = "-", list[512] = "", exts[256] = "";
    size_t at = 0, n, used = 0;
    unsigned hello_version, sid;
    while (at + 5 <= c->first.n && c->first.p[at] == 22) {
        n = (size_t)(c->first.p[at + 3] << 8 | c->first.p[at + 4]);
        if (at + 5 + n > c->first.n)
            break;
        put(&m, c->first.p + at + 5, n);
        at += 5 + n;
    }
    if (m.n < 4 || m.n < 4 + (size_t)(m.p[2] << 8 | m.p[3]) || m.n < 44) {
        free(m.p);
        return 0;
    }
    p = m.p + 4;
    end = m.p + m.n;
    hello_version = (unsigned)(p[0] << 8 | p[1]);
    sid = p[34];
    p += 35 + sid;
    n = (size_t)(p[0] << 8 | p[1]);
    for (p += 2; n >= 2; n -= 2, p += 2)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%02x%02x", used ? "," : "", p[0], p[1]);
    p += 1 + p[0];
    used = 0;
    if (p + 2 <= end)
        for (p += 2; p + 4 <= end; p = e) {
            unsigned type = (unsigned)(p[0] << 8 | p[1]);
            n = (size_t)(p[2] << 8 | p[3]);
            p += 4;
            e = p + n;
            used += (size_t)snprintf(exts + used, sizeof exts - used, "%s%u", used ? "," : "", type);
            if (type == 0 && n > 5)
                snprintf(sni, sizeof sni, "%.*s", (int)(n - 5), (const char *)p + 5);
            if (type == 16 && n > 3)
                snprintf(alpn, sizeof alpn, "%.*s", (int)p[2], (const char *)p + 3);
        }
    note(c, "hello", "sni %s alpn %s sid %u version %04x suites %s exts %s", sni, alpn, sid, hello_version, list, exts);
    free(m.p);
    return 1;
}

/* counts the records that come in, by their headers */
static void records_count(struct conn *c, const unsigned char *p, size_t n)
{
    while (n > 0) {
        if (c->recordleft > 0) {
            size_t k = n < c->recordleft ? n : c->recordleft;
            c->recordleft -= k;
            p += k;
            n -= k;
            continue;
        }
        c->head[c->headn++] = *p++;
        n--;
        if (c->headn == 5) {
            c->headn = 0;
            c->recordleft = (size_t)(c->head[3] << 8 | c->head[4]);
            if (c->head[0] == 23)
                c->records++;
        }
    }
}

static void engine_setup(struct conn *c)
{
    br_ssl_engine_context *e = &c->sc.eng;
    if (server_key.kind == RSA)
        br_ssl_server_init_full_rsa(&c->sc, chain, chain_len, &server_key.rsa);
    else
        br_ssl_server_init_full_ec(&c->sc, chain, chain_len, issuer_type, &server_key.ec);
    br_ssl_engine_set_versions(e, version, version);
    if (nsuites)
        br_ssl_engine_set_suites(e, suites, nsuites);
    br_ssl_engine_set_buffer(e, c->iobuf, sizeof c->iobuf, 1);
    if (strcmp(rules.cache, "zero") == 0)
        br_ssl_server_set_cache(&c->sc, &zero_cache);
    else if (strcmp(rules.cache, "off") != 0)
        br_ssl_server_set_cache(&c->sc, &cache_lru.vtable);
    if (!br_ssl_server_reset(&c->sc))
        die("server reset: %d", br_ssl_engine_last_error(e));
}

static void conn_new(int lfd)
{
    struct conn *c;
    int one = 1, fd = accept(lfd, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c = grown(NULL, sizeof *c);
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->id = ++conn_count;
    c->t0 = c->last = now;
    c->next = conns;
    conns = c;
    note(c, "open", "-");
    engine_setup(c);
    if (fault(c, "accept"))
        strike(c);
}

/* a 24-bit number made from a name, letter case aside: the host part of its address */
static uint32_t name_number(const unsigned char *name, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i])) * 16777619u;
    return (h >> 8 ^ h) & 0xFFFFFF;
}

struct asked { size_t qend, namelen; unsigned type; int opt, dflag; char opts[256]; char text[300]; };

static int query_read(const unsigned char *q, size_t n, struct asked *a)
{
    size_t at = 12, used = 0;
    memset(a, 0, sizeof *a);
    if (n < 17 || q[2] & 0x80 || q[5] != 1)
        return 0;
    while (at < n && q[at] && q[at] < 64) {
        for (size_t i = 1; i <= q[at] && at + i < n; i++)
            if (used < sizeof a->text - 2)
                a->text[used++] = q[at + i] > 32 && q[at + i] < 127 ? (char)q[at + i] : '?';
        a->text[used++] = '.';
        at += 1u + q[at];
    }
    if (at + 5 > n)
        return 0;
    a->namelen = at + 1 - 12;
    a->qend = at + 5;
    a->type = (unsigned)(q[at + 1] << 8 | q[at + 2]);
    at = a->qend;
    if (q[11] == 1 && at + 11 <= n && q[at] == 0 && q[at + 2] == 41) {
        size_t end = at + 11 + (size_t)(q[at + 9] << 8 | q[at + 10]);
        a->opt = 1;
        a->dflag = q[at + 7] >> 7;
        used = 0;
        for (at += 11; at + 4 <= end && end <= n; at += 4 + (size_t)(q[at + 2] << 8 | q[at + 3]))
            used += (size_t)snprintf(a->opts + used, sizeof a->opts - used, "%s%u:%u", used ? "," : "",
                (unsigned)(q[at] << 8 | q[at + 1]), (unsigned)(q[at + 2] << 8 | q[at + 3]));
    }
    return 1;
}

/* an answer; kind: 0 right, 1 other ID, 2 other question, 3 other type, 4 the query itself */
static void answer_make(struct buf *b, const unsigned char *q, size_t n, const struct asked *a, long big, unsigned rcode, int kind)
{
    size_t start = b->n, left;
    uint32_t host = name_number(q + 12, a->namelen);
    int empty = rcode != 0 || (a->type != 1 && a->type != 28 && !big);
    put16(b, 0);
    if (kind == 4) {
        put(b, q, n);
    } else {
        put(b, q, a->qend);
        b->p[start + 4] = (unsigned char)(0x80 | (q[2] & 1));
        b->p[start + 5] = (unsigned char)(0x80 | (rules.ad ? 0x20 : 0) | (q[3] & 0x10) | rcode);
        memset(b->p + start + 8, 0, 6);
        if (kind == 1) b->p[start + 2] ^= 0x55;
        if (kind == 2) b->p[start + 2 + 13] ^= 1;
        if (kind == 3) b->p[start + 2 + a->qend - 3] ^= 16;
        if (big) {
            for (left = (size_t)big > b->n - start ? (size_t)big - (b->n - start) : 0; left > 300; left = (size_t)big + 2 > b->n - start ? (size_t)big + 2 - (b->n - start) : 0) {
                size_t k = left > 4000 ? 4000 : left;
                put16(b, 0xC00C);
                put16(b, a->type);
                put16(b, 1);
                put32(b, (uint32_t)rules.ttl);
                put16(b, (unsigned)(k - 12 - 40));
                for (size_t i = 0; i < k - 12 - 40; i++)
                    put8(b, (unsigned)(i % 251));
                b->p[start + 9]++;
            }
        } else if (!empty) {
            b->p[start + 9] = 1;
            put16(b, 0xC00C);
            put16(b, kind == 3 ? a->type ^ 16 : a->type);
            put16(b, 1);
            put32(b, (uint32_t)rules.ttl);
            put16(b, a->type == 1 ? 4 : 16);
            if (a->type != 1)
                put(b, "\xFD\0\0\0\0\0\0\0\0\0\0\0", 12);
            put32(b, kind ? 0xC6336401 : (uint32_t)rules.net << 24 | host);
        }
        if (a->opt) {
            size_t optlen = (rules.keepalive >= 0 ? 6u : 0) + (rules.pad > 0 ? 4u + (unsigned)rules.pad : 0);
            b->p[start + 13] = 1;
            put(b, "\0\0\x29\x04\xD0\0\0", 7);
            put16(b, (unsigned)a->dflag << 15);
            put16(b, (unsigned)optlen);
            if (rules.keepalive >= 0) {
                put(b, "\0\x0B\0\2", 4);
                put16(b, (unsigned)rules.keepalive);
            }
            if (rules.pad > 0) {
                put16(b, 12);
                put16(b, (unsigned)rules.pad);
                for (long i = 0; i < rules.pad; i++)
                    put8(b, 0);
            }
        }
    }
    b->p[start] = (unsigned char)((b->n - start - 2) >> 8);
    b->p[start + 1] = (unsigned char)(b->n - start - 2);
}

static void conn_close(struct conn *c, const char *how)
{
    if (c->closing || c->gone)
        return;
    c->closing = 1;
    if (c->up && (strcmp(how, "notify") == 0 || strcmp(how, "half") == 0)) {
        br_ssl_engine_close(&c->sc.eng);
        if (strcmp(how, "half") == 0)
            c->closing = 2;
        return;
    }
    if (strcmp(how, "rst") == 0)
        conn_rst(c);
    conn_die(c, "server", how);
}

/* one query: makes its answer, or does what the rules or the words of its first label say */
static void query_take(struct conn *c, const unsigned char *q, size_t n)
{
    struct asked a;
    struct answer *h;
    char words[sizeof a.text];
    long delay = rules.delay, big = 0;
    int mute = rules.mute, wrong = rules.wrong, half = rules.half, drop = 0;
    unsigned rcode = 0;
    rules_read();
    c->last = now;
    c->queries++;
    if (!query_read(q, n, &a)) {
        note(c, "bad", "size %zu", n);
        return;
    }
    note(c, "query", "name %s type %u size %zu id %u opts %s rd %d cd %d do %d record %ld", a.text, a.type, n, (unsigned)(q[0] << 8 | q[1]),
        a.opts[0] ? a.opts : "-", q[2] & 1, q[3] >> 4 & 1, a.dflag, c->records);
    snprintf(words, sizeof words, "%.*s", (int)strcspn(a.text, "."), a.text);
    for (char *w = strtok(words, "-"); w; w = strtok(NULL, "-")) {
        if (strncmp(w, "wait", 4) == 0) delay = atol(w + 4);
        else if (strncmp(w, "big", 3) == 0) big = atol(w + 3);
        else if (strcmp(w, "mute") == 0) mute = 1;
        else if (strcmp(w, "wrong") == 0) wrong = 1;
        else if (strcmp(w, "half") == 0) half = 1;
        else if (strcmp(w, "nx") == 0) rcode = 3;
        else if (strcmp(w, "drop") == 0) drop = 1;
    }
    c->waiting++;
    if (drop || (rules.drop > 0 && rules.times != 0 && c->waiting >= rules.drop)) {
        if (rules.times > 0)
            rules.times--;
        conn_close(c, rules.how);
        return;
    }
    if (mute || c->id <= rules.muted || c->nheld == (int)(sizeof c->held / sizeof c->held[0]))
        return;
    h = &c->held[c->nheld++];
    memset(h, 0, sizeof *h);
    h->due = now + delay;
    if (wrong) {
        answer_make(&h->b, q, n, &a, 0, 0, 1);
        answer_make(&h->b, q, n, &a, 0, 0, 2);
        answer_make(&h->b, q, n, &a, 0, 0, 3);
        answer_make(&h->b, q, n, &a, 0, 0, 4);
    }
    if (rules.formerr && a.opt) {
        a.opt = 0;
        rcode = 1;
    }
    answer_make(&h->b, q, n, &a, big, rcode, 0);
    for (long i = 0; i < rules.mutate; i++) {
        unsigned char r[3];
        br_hmac_drbg_generate(&rng, r, sizeof r);
        h->b.p[2 + (unsigned)(r[0] << 8 | r[1]) % (h->b.n - 2)] = r[2];
    }
    if (half) {
        put(&c->out, h->b.p, h->b.n / 2);
        free(h->b.p);
        c->nheld--;
        c->closing = 3;
    }
}

static void answers_due(struct conn *c)
{
    struct answer keep[4096];
    int n = 0, all = c->nheld;
    if (rules.batch > 0 && all < rules.batch)
        return;
    for (int i = 0; i < all; i++) {
        struct answer *h = &c->held[rules.batch > 0 && strcmp(rules.order, "lifo") == 0 ? all - 1 - i : i];
        if (h->due > now || c->closing) {
            keep[n++] = *h;
            continue;
        }
        put(&c->out, h->b.p, h->b.n);
        free(h->b.p);
        c->waiting--;
        c->answers++;
        if (rules.after > 0 && c->answers >= rules.after)
            c->closing = 3;             /* once all is out */
    }
    memcpy(c->held, keep, (size_t)n * sizeof keep[0]);
    c->nheld = n;
}

static void conn_flush(struct conn *c)
{
    while (c->raw.n > 0) {
        size_t n = rules.wire > 0 && (size_t)rules.wire < c->raw.n ? (size_t)rules.wire : c->raw.n;
        ssize_t r = send(c->fd, c->raw.p, n, MSG_NOSIGNAL);
        if (r < 0 && errno == EAGAIN)
            return;
        if (r <= 0) {
            conn_die(c, "client", strerror(errno) ? "write" : "");
            return;
        }
        take(&c->raw, (size_t)r);
    }
}

/* moves bytes between engine, queues and socket until nothing moves */
static void conn_move(struct conn *c)
{
    br_ssl_engine_context *e = &c->sc.eng;
    for (int moved = 1; moved && !c->gone && !c->stalled;) {
        unsigned s = br_ssl_engine_current_state(e);
        size_t n;
        unsigned char *b;
        moved = 0;
        if (s & BR_SSL_SENDREC) {
            b = br_ssl_engine_sendrec_buf(e, &n);
            if (fault(c, "mid") && c->sent + (long)n > rules.cut && !c->up) {
                size_t k = (size_t)(rules.cut > c->sent ? rules.cut - c->sent : 0);
                put(&c->raw, b, k);
                conn_flush(c);
                if (!c->gone)
                    strike(c);
                return;
            }
            put(&c->raw, b, n);
            c->sent += (long)n;
            br_ssl_engine_sendrec_ack(e, n);
            moved = 1;
            continue;
        }
        if (!c->up && s & BR_SSL_SENDAPP) {
            br_ssl_session_parameters sp;
            br_ssl_engine_get_session_parameters(e, &sp);
            c->up = 1;
            c->handshake = now - c->t0;
            note(c, "up", "version %04x suite %04x resumed %d", sp.version, sp.cipher_suite, c->sent < 400);
            if (fault(c, "up")) {
                conn_flush(c);
                strike(c);
                return;
            }
        }
        if (s & BR_SSL_RECVAPP) {
            b = br_ssl_engine_recvapp_buf(e, &n);
            if (!c->sawdata++)
                note(c, "data", "bytes %zu", n);
            c->app += (long)n;
            put(&c->in, b, n);
            br_ssl_engine_recvapp_ack(e, n);
            while (!c->gone && c->in.n >= 2 && c->in.n >= 2u + (size_t)(c->in.p[0] << 8 | c->in.p[1])) {
                size_t len = (size_t)(c->in.p[0] << 8 | c->in.p[1]);
                query_take(c, c->in.p + 2, len);
                take(&c->in, 2 + len);
            }
            moved = 1;
        }
        if (c->gone)
            return;
        answers_due(c);
        if (c->out.n > 0 && s & BR_SSL_SENDAPP && now - c->dripped >= rules.trickle) {
            b = br_ssl_engine_sendapp_buf(e, &n);
            if (b) {
                if (n > c->out.n)
                    n = c->out.n;
                if (rules.trickle > 0)
                    n = rules.record > 0 ? n : 1, c->dripped = now;
                if (rules.record > 0 && n > (size_t)rules.record)
                    n = (size_t)rules.record;
                memcpy(b, c->out.p, n);
                br_ssl_engine_sendapp_ack(e, n);
                br_ssl_engine_flush(e, 0);
                take(&c->out, n);
                moved = 1;
            }
        } else if (rules.reneg && c->answers > 0 && !c->reneg && s & BR_SSL_SENDAPP) {
            c->reneg = 1;
            note(c, "reneg", "asked %d", br_ssl_engine_renegotiate(e));
            moved = 1;
        }
        if (br_ssl_engine_current_state(e) == BR_SSL_CLOSED && !(c->closing == 2)) {
            conn_flush(c);
            if (!c->gone)
                conn_die(c, c->closing ? "server" : "client", br_ssl_engine_last_error(e) ? "error" : "notify");
            return;
        }
    }
    if (c->gone)
        return;
    conn_flush(c);
    if (!c->flight && c->sent > 1000 && c->raw.n == 0) {
        c->flight = 1;
        note(c, "flight", "bytes %ld", c->sent);
    }
    if (!c->gone && c->closing == 3 && c->out.n == 0 && c->raw.n == 0) {
        c->closing = 0;
        conn_close(c, rules.half ? "fin" : rules.how);
        if (!c->gone)
            conn_move(c);
    }
}

static void conn_read(struct conn *c)
{
    static unsigned char block[65536];
    br_ssl_engine_context *e = &c->sc.eng;
    size_t at = 0, n;
    ssize_t r = recv(c->fd, block, sizeof block, 0);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r <= 0) {
        conn_die(c, "client", r == 0 ? "fin" : "rst");
        return;
    }
    if (c->wire == 0 && (block[0] < 0x14 || block[0] > 0x17))
        note(c, "plain", "byte %u size %zd", block[0], r);
    c->wire += (long)r;
    records_count(c, block, (size_t)r);
    if (!c->hello) {
        put(&c->first, block, (size_t)r);
        c->hello = hello_note(c);
        if (c->hello && rules.pause > 0)
            poll(NULL, 0, (int)rules.pause);
        if (c->hello && fault(c, "hello")) {
            strike(c);
            return;
        }
    }
    while (at < (size_t)r && !c->gone && !c->stalled) {
        if (br_ssl_engine_current_state(e) & BR_SSL_RECVREC) {
            unsigned char *b = br_ssl_engine_recvrec_buf(e, &n);
            if (n > (size_t)r - at)
                n = (size_t)r - at;
            memcpy(b, block + at, n);
            br_ssl_engine_recvrec_ack(e, n);
            at += n;
        } else {
            size_t before = c->raw.n + c->in.n;
            conn_move(c);
            if (c->gone || c->stalled || (!(br_ssl_engine_current_state(e) & BR_SSL_RECVREC) && before == c->raw.n + c->in.n))
                break;
        }
        if (!(br_ssl_engine_current_state(e) & BR_SSL_RECVREC))
            conn_move(c);
    }
}

static void conn_clock(struct conn *c)
{
    if (c->gone || c->stalled)
        return;
    if (c->up && ((rules.idle > 0 && now - c->last >= rules.idle && c->waiting == 0 && c->raw.n == 0) || (rules.life > 0 && now - c->t0 >= rules.life)))
        conn_close(c, rules.how);
    if (!c->gone)
        conn_move(c);
}

/* serve WORD...: cert=FILE (.pem and .key) key=FILE log=FILE rules=FILE port=FILE (written when it listens)
 * addr=ADDRESS on=PORT tls=10|11|12 suites=HEX,HEX */
static int serve(int argc, char **argv)
{
    const char *certfile = NULL, *keyfile = NULL, *logname = NULL, *portname = NULL, *addr = "127.0.0.1";
    struct sockaddr_storage sa = { 0 };
    socklen_t salen;
    struct buf der_[80];
    char path[1024];
    int lfd, ufd, on = 0, one = 1, v6;
    static struct pollfd fds[4096];
    static struct conn *who[4096];
    for (int i = 0; i < argc; i++) {
        char *a = argv[i], *v = strchr(a, '=');
        if (v == NULL)
            die("serve: %s?", a);
        *v++ = 0;
        if (strcmp(a, "cert") == 0) certfile = v;
        else if (strcmp(a, "key") == 0) keyfile = v;
        else if (strcmp(a, "log") == 0) logname = v;
        else if (strcmp(a, "rules") == 0) rules_file = v;
        else if (strcmp(a, "port") == 0) portname = v;
        else if (strcmp(a, "addr") == 0) addr = v;
        else if (strcmp(a, "on") == 0) on = atoi(v);
        else if (strcmp(a, "tls") == 0) version = BR_TLS10 + (unsigned)(v[1] - '0');
        else if (strcmp(a, "suites") == 0)
            for (char *s = v; *s; s += *s == ',')
                suites[nsuites++] = (uint16_t)strtoul(s, &s, 16);
        else die("serve: %s?", a);
    }
    snprintf(path, sizeof path, "%s.pem", certfile);
    chain_len = pem_read(path, der_, 80);
    for (size_t i = 0; i < chain_len; i++)
        chain[i].data = der_[i].p, chain[i].data_len = der_[i].n;
    snprintf(path, sizeof path, "%s.key", keyfile ? keyfile : certfile);
    key_load(&server_key, path);
    issuer_type = memmem(der_[0].p, der_[0].n < 60 ? der_[0].n : 60, "\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B", 9) ? BR_KEYTYPE_RSA : BR_KEYTYPE_EC;
    br_ssl_session_cache_lru_init(&cache_lru, cache_store, sizeof cache_store);
    rules_start = (struct rules){ .how = "notify", .cut = 100, .times = -1, .keepalive = -1, .ttl = 300, .net = 10, .cache = "on" };
    rules = rules_start;
    if ((logf_ = fopen(logname, "a")) == NULL)
        die("%s: %s", logname, strerror(errno));
    started_at = now = clock_ms();
    v6 = strchr(addr, ':') != NULL;
    if (v6) {
        struct sockaddr_in6 *s = (void *)&sa;
        s->sin6_family = AF_INET6;
        s->sin6_port = htons((uint16_t)on);
        inet_pton(AF_INET6, addr, &s->sin6_addr);
        salen = sizeof *s;
    } else {
        struct sockaddr_in *s = (void *)&sa;
        s->sin_family = AF_INET;
        s->sin_port = htons((uint16_t)on);
        inet_pton(AF_INET, addr, &s->sin_addr);
        salen = sizeof *s;
    }
    lfd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(lfd, (void *)&sa, salen) || listen(lfd, 256))
        die("%s@%d: %s", addr, on, strerror(errno));
    getsockname(lfd, (void *)&sa, &salen);
    ufd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
    if (bind(ufd, (void *)&sa, salen))
        close(ufd), ufd = -1;
    fcntl(lfd, F_SETFL, O_NONBLOCK);
    rules_read();
    if (portname) {
        struct buf b = { 0 };
        snprintf(path, sizeof path, "%d\n", ntohs(((struct sockaddr_in *)(void *)&sa)->sin_port));
        puts_(&b, path);
        snprintf(path, sizeof path, "%s.new", portname);
        spit(path, "", &b);
        rename(path, portname);
    }
    for (;;) {
        int n = 2, wait = 20;
        struct conn **p;
        for (struct conn *c = conns; c && n < 4096; c = c->next) {
            unsigned s = c->stalled ? 0 : br_ssl_engine_current_state(&c->sc.eng);
            for (int i = 0; i < c->nheld; i++)
                if (!rules.batch && c->held[i].due - now < wait)
                    wait = c->held[i].due > now ? (int)(c->held[i].due - now) : 0;
            fds[n].fd = c->fd;
            fds[n].events = (short)(POLLRDHUP | (s & BR_SSL_RECVREC && !c->stalled ? POLLIN : 0) | (c->raw.n ? POLLOUT : 0));
            if (c->stalled && strcmp(rules.what, "deaf") != 0)
                fds[n].events |= POLLIN;        /* reads what comes, says nothing */
            who[n++] = c;
        }
        fds[0].fd = lfd, fds[0].events = POLLIN;
        fds[1].fd = ufd, fds[1].events = POLLIN;
        poll(fds, (nfds_t)n, wait);
        now = clock_ms();
        rules_read();
        if (fds[0].revents)
            conn_new(lfd);
        if (fds[1].revents & POLLIN) {
            unsigned char d[65536];
            note(NULL, "plain", "datagram size %zd", recv(ufd, d, sizeof d, 0));
        }
        for (int i = 2; i < n; i++) {
            struct conn *c = who[i];
            if (c->gone)
                continue;
            if (c->stalled) {
                unsigned char d[4096];
                ssize_t r = fds[i].revents & POLLIN && strcmp(rules.what, "deaf") != 0 ? recv(c->fd, d, sizeof d, 0) : 1;
                if (r > 1 || (r == 1 && fds[i].revents & POLLIN))
                    c->wire += (long)r;
                if (r <= 0 || fds[i].revents & (POLLERR | POLLHUP | POLLRDHUP))
                    conn_die(c, "client", "fault");
                continue;
            }
            if (kick_seen) {
                conn_close(c, rules.how);
                if (!c->gone)
                    conn_move(c);
                continue;
            }
            if (fds[i].revents & (POLLIN | POLLERR | POLLHUP | POLLRDHUP))
                conn_read(c);
            if (!c->gone)
                conn_clock(c);
        }
        kick_seen = 0;
        for (p = &conns; *p;) {
            struct conn *c = *p;
            if (!c->gone) {
                p = &c->next;
                continue;
            }
            *p = c->next;
            for (int i = 0; i < c->nheld; i++)
                free(c->held[i].b.p);
            free(c->first.p), free(c->in.p), free(c->out.p), free(c->raw.p), free(c);
        }
    }
    return 0;
}

/* ---- Client ------------------------------------------------------------ */

/* load PORT COUNT WORD...: asks COUNT fresh names for A over UDP and checks the addresses (the last three bytes come from
 * the name). name=PATTERN (% becomes number and chance) window=N in flight, or rate=N a second; timeout=MS. Prints what became of them:
 * sent right wrong failed (any other RCODE) lost worst (ms) from (first byte of the address:count ...)
 * With cpu=PID also cpu, the most CPU time of that process between a query and its answer, and used, all it had meanwhile (us) */
static clockid_t cpu_clock;
static long cpu_us(void)
{
    struct timespec ts;
    return cpu_clock && clock_gettime(cpu_clock, &ts) == 0 ? (long)(ts.tv_sec * 1000000 + ts.tv_nsec / 1000) : 0;
}

struct sent { long at, cpu; uint16_t id; uint32_t number; int done; char name[200]; };

static size_t name_wire(unsigned char *w, const char *s)
{
    size_t n = 0;
    while (*s) {
        size_t k = strcspn(s, ".");
        w[n++] = (unsigned char)k;
        memcpy(w + n, s, k);
        n += k;
        s += k + (s[k] == '.');
    }
    w[n++] = 0;
    return n;
}

static int load(int argc, char **argv)
{
    int port = atoi(argv[0]), count = atoi(argv[1]), window = 1, rate = 0, timeout = 6000, next = 0, done = 0, open_ = 0, first = 0;
    int right = 0, wrong = 0, failed = 0, from[256] = { 0 }, fd = socket(AF_INET, SOCK_DGRAM, 0), room = 1 << 22;
    long worst = 0, start = clock_ms(), cpu_start, cpu_worst = 0;
    const char *pattern = "n%.load.test";
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sent *all = grown(NULL, (size_t)count * sizeof *all);
    static int byid[65536];
    unsigned char m[65536], base[5];
    br_hmac_drbg_generate(&rng, base, sizeof base);
    for (int i = 2; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        if (v == NULL)
            die("load: %s?", argv[i]);
        *v++ = 0;
        if (strcmp(argv[i], "name") == 0) pattern = v;
        else if (strcmp(argv[i], "window") == 0) window = atoi(v);
        else if (strcmp(argv[i], "rate") == 0) rate = atoi(v);
        else if (strcmp(argv[i], "timeout") == 0) timeout = atoi(v);
        else if (strcmp(argv[i], "cpu") == 0) {
            if (clock_getcpuclockid(atoi(v), &cpu_clock))
                cpu_clock = 0;
        } else die("load: %s?", argv[i]);
    }
    cpu_start = cpu_us();
    memset(byid, -1, sizeof byid);
    memset(all, 0, (size_t)count * sizeof *all);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(fd, (void *)&sa, sizeof sa))
        die("connect: %s", strerror(errno));
    while (done < count) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        long t = clock_ms(), wait;
        while (next < count && (rate ? (long)next * 1000 / rate <= t - start : open_ < window)) {
            struct sent *s = &all[next];
            size_t n;
            const char *star = strchr(pattern, '%');
            if (star)
                snprintf(s->name, sizeof s->name, "%.*s%dx%02x%02x%02x%s", (int)(star - pattern), pattern, next, base[2], base[3], base[4], star + 1);
            else
                snprintf(s->name, sizeof s->name, "%s", pattern);
            s->id = (uint16_t)((base[0] << 8 | base[1]) + next * 7);
            byid[s->id] = next;
            memset(m, 0, 12);
            m[0] = (unsigned char)(s->id >> 8);
            m[1] = (unsigned char)s->id;
            m[2] = 1;
            m[5] = 1;
            n = 12 + name_wire(m + 12, s->name);
            s->number = name_number(m + 12, n - 12);
            memcpy(m + n, "\0\1\0\1", 4);
            s->at = t;
            s->cpu = cpu_us();
            if (send(fd, m, n + 4, 0) < 0 && errno == ECONNREFUSED)
                send(fd, m, n + 4, 0);
            next++;
            open_++;
        }
        wait = rate && next < count ? start + (long)next * 1000 / rate + 1 - t : 20;
        poll(&p, 1, wait > 0 ? (int)wait : 0);
        t = clock_ms();
        for (ssize_t r; (r = recv(fd, m, sizeof m, MSG_DONTWAIT)) >= 12;) {
            int i = byid[m[0] << 8 | m[1]];
            struct sent *s = i >= 0 ? &all[i] : NULL;
            if (s == NULL || s->done) {
                wrong++;                        /* nobody asked, or answered twice */
                continue;
            }
            s->done = 1;
            done++;
            open_--;
            if (t - s->at > worst)
                worst = t - s->at;
            if (cpu_us() - s->cpu > cpu_worst)
                cpu_worst = cpu_us() - s->cpu;
            if ((m[3] & 15) != 0 || m[7] == 0)
                failed++;
            else {
                size_t at = 12 + strlen(s->name) + 2 + 4 + 12;
                uint32_t a = at + 4 <= (size_t)r ? (uint32_t)m[at] << 24 | (uint32_t)m[at + 1] << 16 | (uint32_t)m[at + 2] << 8 | m[at + 3] : 0;
                if ((a & 0xFFFFFF) == s->number)
                    right++, from[a >> 24]++;
                else
                    wrong++;
            }
        }
        for (; first < next && (all[first].done || t - all[first].at > timeout); first++)
            if (!all[first].done)
                all[first].done = 1, byid[all[first].id] = -1, done++, open_--, from[0]++;
    }
    printf("sent %d right %d wrong %d failed %d lost %d worst %ld ", next, right, wrong, failed, from[0], worst);
    if (cpu_clock)
        printf("cpu %ld used %ld ", cpu_worst, cpu_us() - cpu_start);
    printf("from ");
    for (int i = 1, k = 0; i < 256; i++)
        if (from[i])
            printf("%s%d:%d", k++ ? "," : "", i, from[i]);
    puts("");
    return 0;
}

/* addr NET NAME: the address that a server with net=NET gives NAME */
static int addr(char **argv)
{
    unsigned char w[300];
    uint32_t h = name_number(w, name_wire(w, argv[1]));
    printf("%s.%u.%u.%u\n", argv[0], h >> 16, h >> 8 & 255, h & 255);
    return 0;
}

/* clock FILE SECONDS|real: what a program with clock.so takes the time for, from now on */
static int clock_set(char **argv)
{
    int64_t offset = strcmp(argv[1], "real") == 0 ? 0 : atol(argv[1]) - (int64_t)time(NULL);
    int fd = open(argv[0], O_WRONLY | O_CREAT, 0644);
    return fd < 0 || write(fd, &offset, sizeof offset) != sizeof offset;
}

int main(int argc, char **argv)
{
    rng_init();
    signal(SIGPIPE, SIG_IGN);
    if (argc > 2 && strcmp(argv[1], "cert") == 0)
        return cert(argc - 2, argv + 2);
    if (argc > 2 && strcmp(argv[1], "serve") == 0)
        return serve(argc - 2, argv + 2);
    if (argc > 3 && strcmp(argv[1], "load") == 0)
        return load(argc - 2, argv + 2);
    if (argc == 4 && strcmp(argv[1], "addr") == 0)
        return addr(argv + 2);
    if (argc == 4 && strcmp(argv[1], "clock") == 0)
        return clock_set(argv + 2);
    if (argc == 2 && strcmp(argv[1], "now") == 0)
        return printf("%ld\n", (long)time(NULL)) < 0;
    die("usage: tls cert|serve|load|addr|clock|now ...");
    return 2;
}
