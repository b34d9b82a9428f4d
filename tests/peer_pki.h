/* peer_pki.h - keys and certificates, good ones and odd ones, made by BearSSL alone
 *
 * Not a program; peer.c includes it:  peer cert OUT WORD...  makes OUT.key, OUT.crt (the certificate alone), OUT.pem (with its
 * chain but the root), OUT.pin, and OUT.up and OUT.dn for certificates that it signs; prints the pin. Words (other certificates
 * are names of files beside OUT):
 *   key=p256|p384|rsa|rsa4096  keyof=OTHER (its key)  by=OTHER (its issuer, else self-signed)  cn=TEXT
 *   san=dns:NAME,ip:ADDRESS,nul:NAME (a NUL byte in it)  names=N (so many more)  from=S to=S (relative to now)  ca[=PATHLEN]
 *   eku=server|client|both  critical (an unknown critical extension)  badsig  noint (its chain lacks the intermediates)
 *   withroot  chain=OTHER,... (what is sent behind it, instead) */

enum { P256, P384, RSA };

struct keypair {
	int kind;
	br_ec_private_key ec;
	br_rsa_private_key rsa;
	br_rsa_public_key rsapub;
	uint8_t store[BR_RSA_KBUF_PRIV_SIZE(4096)], pub[BR_RSA_KBUF_PUB_SIZE(4096)];
};

/* A file beside the one called base: its directory, name and suffix. */
static const char *beside(const char *base, const char *name, const char *suffix) {
	static char path[1024];
	const char *slash = strrchr(base, '/');
	snprintf(path, sizeof path, "%.*s%s%s", slash ? (int)(slash - base + 1) : 0, base, name, suffix);
	return path;
}

static void file_write(const char *base, const char *suffix, const struct buf *b) {
	char path[1024];
	snprintf(path, sizeof path, "%s%s", base, suffix);
	FILE *f = fopen(path, "w");
	if (f == NULL || fwrite(b->p, 1, b->n, f) != b->n || fclose(f) != 0) die("%s: %s", path, strerror(errno));
}

/* ---- DER */

/* Appends DER by a pattern: "TT(" opens a tag, ")" closes it and fills in its length, other pairs of digits are bytes, "@" is
 * bytes and "#" a number, each of two arguments, pointer and size_t. */
static void put_der(struct buf *b, const char *f, ...) {
	size_t open[12] = { 0 }, depth = 0;
	va_list ap;
	va_start(ap, f);
	for (; *f != '\0'; f++)
		if (*f == '@' || *f == '#') {
			const uint8_t *p = va_arg(ap, const uint8_t *);
			size_t n = va_arg(ap, size_t);
			for (; *f == '#' && n > 1 && *p == 0; n--) p++;
			if (*f == '#' && (*p & 0x80)) put8(b, 0);
			put(b, p, n);
		} else if (*f == '(') {
			put8(b, 0);
			open[depth++] = b->n;
		} else if (*f == ')') {
			size_t at = open[--depth], n = b->n - at, extra = n < 128 ? 0 : n < 256 ? 1 : 2;
			put(b, "\0\0", extra);
			memmove(b->p + at + extra, b->p + at, n);
			b->p[at - 1] = (uint8_t)(extra ? 0x80 + extra : n);
			if (extra == 2) b->p[at++] = (uint8_t)(n >> 8);
			if (extra > 0) b->p[at] = (uint8_t)n;
		} else {
			put8(b, (unsigned)(hex_digit(f[0]) << 4 | hex_digit(f[1])));
			f++;
		}
	va_end(ap);
}

static void put_date(struct buf *b, int from_now) {
	time_t t = time(NULL) + from_now;
	struct tm tm;
	char s[32];
	gmtime_r(&t, &tm);
	strftime(s, sizeof s, tm.tm_year < 150 ? "%y%m%d%H%M%SZ" : "%Y%m%d%H%M%SZ", &tm);
	put_der(b, tm.tm_year < 150 ? "17(@)" : "18(@)", s, strlen(s));
}

static void put_spki(struct buf *b, const struct keypair *k) {
	static const char *const ec[] = { "30(30(06(2a8648ce3d0201)06(2a8648ce3d030107))03(00@))", "30(30(06(2a8648ce3d0201)06(2b81040022))03(00@))" };
	const br_rsa_public_key *r = &k->rsapub;
	uint8_t pub[BR_EC_KBUF_PUB_MAX_SIZE];
	br_ec_public_key pk;
	if (k->kind == RSA) {
		put_der(b, "30(30(06(2a864886f70d010101)05())03(0030(02(#)02(#))))", r->n, r->nlen, r->e, r->elen);
		return;
	}
	br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
	put_der(b, ec[k->kind], pk.q, pk.qlen);
}

static const char *const algorithms[] = { "30(06(2a8648ce3d040302))", "30(06(2a8648ce3d040303))", "30(06(2a864886f70d01010b)05())" };

/* Appends the certificate whose inner part is m, signed by k. */
static void put_signed(struct buf *b, const struct buf *m, const struct keypair *k, bool spoilt) {
	const br_hash_class *hash = k->kind == P384 ? &br_sha384_vtable : &br_sha256_vtable;
	br_hash_compat_context c;
	uint8_t h[64], sig[1024];
	size_t n = 0;
	hash->init(&c.vtable);
	hash->update(&c.vtable, m->p, m->n);
	hash->out(&c.vtable, h);
	if (k->kind != RSA) n = br_ecdsa_i31_sign_asn1(&br_ec_all_m31, hash, h, &k->ec, sig);
	else if (br_rsa_i31_pkcs1_sign(BR_HASH_OID_SHA256, h, 32, &k->rsa, sig)) n = k->rsapub.nlen;
	if (n == 0) die("cannot sign");
	sig[n - 1] ^= spoilt;
	struct buf in = { 0 };
	put_buf(&in, m);
	put_der(&in, algorithms[k->kind]);
	put_der(&in, "03(00@)", sig, n);
	put_der(b, "30(@)", in.p, in.n);
	free(in.p);
}

/* ---- PEM and keys */

static void put_pem(struct buf *to, const char *banner, const void *p, size_t n) {
	size_t len = br_pem_encode(NULL, p, n, banner, BR_PEM_LINE64);
	br_pem_encode(put_room(to, len + 1), p, n, banner, BR_PEM_LINE64);
	to->n--;                        /* its NUL */
}

static void pem_take(void *b, const void *p, size_t n) { put(b, p, n); }

/* The objects of a PEM file, each as DER; how many. */
static size_t pem_read(const char *path, struct buf *out, size_t max) {
	struct buf f = file_read(path);
	br_pem_decoder_context pc;
	size_t at = 0, n = 0;
	put8(&f, '\n');
	br_pem_decoder_init(&pc);
	while (at < f.n) {
		at += br_pem_decoder_push(&pc, f.p + at, f.n - at);
		int event = br_pem_decoder_event(&pc);
		if (event == BR_PEM_ERROR || (event == BR_PEM_BEGIN_OBJ && n == max)) die("%s: no PEM, or too much of it", path);
		if (event == BR_PEM_BEGIN_OBJ) {
			out[n] = (struct buf){ 0 };
			br_pem_decoder_setdest(&pc, pem_take, &out[n]);
		}
		n += event == BR_PEM_END_OBJ;
	}
	free(f.p);
	return n;
}

static void key_make(struct keypair *k, const char *kind) {
	br_hmac_drbg_context drbg;
	uint8_t seed[32];
	bool made;
	random_bytes(seed, sizeof seed);
	br_hmac_drbg_init(&drbg, &br_sha256_vtable, seed, sizeof seed);
	k->kind = strncmp(kind, "rsa", 3) == 0 ? RSA : strcmp(kind, "p384") == 0 ? P384 : P256;
	if (k->kind == RSA)
		made = br_rsa_keygen_get_default()(&drbg.vtable, &k->rsa, k->store, &k->rsapub, k->pub, kind[3] ? (unsigned)atoi(kind + 3) : 2048, 65537);
	else
		made = br_ec_keygen(&drbg.vtable, &br_ec_all_m31, &k->ec, k->store, k->kind == P384 ? BR_EC_secp384r1 : BR_EC_secp256r1) != 0;
	if (!made) die("cannot make a key");
}

static void key_save(const struct keypair *k, const char *base) {
	uint8_t d[512], out[4096], pub[BR_EC_KBUF_PUB_MAX_SIZE];
	struct buf b = { 0 };
	br_ec_public_key pk;
	if (k->kind == RSA) {
		size_t n = br_rsa_compute_privexp_get_default()(d, &k->rsa, 65537);
		put_pem(&b, "RSA PRIVATE KEY", out, br_encode_rsa_raw_der(out, &k->rsa, &k->rsapub, d, n));
	} else {
		br_ec_compute_pub(&br_ec_all_m31, &pk, pub, &k->ec);
		put_pem(&b, "EC PRIVATE KEY", out, br_encode_ec_raw_der(out, &k->ec, &pk));
	}
	file_write(base, ".key", &b);
	free(b.p);
}

static void key_load(struct keypair *k, const char *path) {
	static br_skey_decoder_context decoders[2];     /* keys point into them and into what was read: those stay */
	static struct buf read[2];
	static unsigned used;
	br_skey_decoder_context *dc = &decoders[used % 2];
	struct buf *b = &read[used++ % 2];
	if (pem_read(path, b, 1) != 1 || b->n < 12) die("%s: no key", path);
	br_skey_decoder_init(dc);
	br_skey_decoder_push(dc, b->p, b->n);
	if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_RSA) {
		k->kind = RSA;
		k->rsa = *br_skey_decoder_get_rsa(dc);
		/* SEQUENCE { 0, the modulus, ...: BearSSL computes none of 4096 bits */
		k->rsapub = (br_rsa_public_key){ b->p + 11 + (b->p[11] == 0), get16at(b->p + 9) - (b->p[11] == 0), k->pub, 3 };
		memcpy(k->pub, "\1\0\1", 3);
	} else if (br_skey_decoder_key_type(dc) == BR_KEYTYPE_EC) {
		k->ec = *br_skey_decoder_get_ec(dc);
		k->kind = k->ec.curve == BR_EC_secp384r1 ? P384 : P256;
	} else die("%s: no key", path);
}

/* ---- Certificates */

#define CRT_WORDS(I, T) I(crt, from) I(crt, to) I(crt, ca) I(crt, badsig) I(crt, noint) I(crt, withroot) I(crt, critical) I(crt, names) \
	T(crt, key) T(crt, keyof) T(crt, by) T(crt, cn) T(crt, eku) T(crt, chain)
struct crt { CRT_WORDS(INT_MEMBER, TEXT_MEMBER) const char *san; };
static const struct field crt_fields[] = { CRT_WORDS(INT_FIELD, TEXT_FIELD) };

static void put_san(struct buf *b, const char *list, int names) {
	char s[WORD];
	uint8_t ip[16];
	for (int i = 0; i < names; i++) {
		snprintf(s, sizeof s, "name%d.filler.test", i);
		put_der(b, "82(@)", s, strlen(s));
	}
	for (size_t n; *list != '\0'; list += n + (list[n] == ',')) {
		n = strcspn(list, ",");
		snprintf(s, sizeof s, "%.*s", (int)n, list);
		int six = strchr(s + MIN(n, 3), ':') != NULL;
		if (strncmp(s, "ip:", 3) == 0 && inet_pton(six ? AF_INET6 : AF_INET, s + 3, ip) == 1)
			put_der(b, "87(@)", ip, (size_t)(six ? 16 : 4));
		else if (strncmp(s, "dns:", 4) == 0 || strncmp(s, "nul:", 4) == 0)
			put_der(b, *s == 'd' ? "82(@)" : "82(@002e6576696c2e74657374)", s + 4, strlen(s + 4));  /* NUL .evil.test */
		else die("san: what is %s?", s);
	}
}

static void put_extensions(struct buf *b, const struct crt *w) {
	struct buf san = { 0 };
	const uint8_t path_length = (uint8_t)w->ca;
	put_der(b, w->ca >= 0 ? "30(06(551d13)01(ff)04(30(01(ff)02(@))))" : w->ca == -1 ? "30(06(551d13)01(ff)04(30(01(ff))))" :
	    "30(06(551d13)01(ff)04(30()))", &path_length, (size_t)1);
	put_der(b, w->ca >= -1 ? "30(06(551d0f)01(ff)04(03(0106)))" : "30(06(551d0f)01(ff)04(03(05a0)))");
	if (w->eku[0] != '\0')
		put_der(b, w->eku[0] == 's' ? "30(06(551d25)04(30(06(2b06010505070301))))" : w->eku[0] == 'c' ?
		    "30(06(551d25)04(30(06(2b06010505070302))))" : "30(06(551d25)04(30(06(2b06010505070301)06(2b06010505070302))))");
	put_san(&san, w->san, w->names);
	if (san.n > 0) put_der(b, "30(06(551d11)04(30(@)))", san.p, san.n);
	if (w->critical) put_der(b, "30(06(2a0304)01(ff)04(05()))");
	free(san.p);
}

/* The certificate of own, signed by signer. */
static void put_crt(struct buf *b, const struct crt *w, const struct keypair *own, const struct keypair *signer, const struct buf *issuer,
    const struct buf *subject) {
	struct buf m = { 0 }, dates = { 0 }, ext = { 0 };
	uint8_t serial[9];
	random_bytes(serial, sizeof serial);
	serial[0] |= 1;
	put_der(&m, "a0(02(02))02(#)", serial, sizeof serial);
	put_der(&m, algorithms[signer->kind]);
	put_date(&dates, w->from);
	put_date(&dates, w->to);
	put_der(&m, "@30(@)@", issuer->p, issuer->n, dates.p, dates.n, subject->p, subject->n);
	put_spki(&m, own);
	put_extensions(&ext, w);
	put_der(&m, "a3(30(@))", ext.p, ext.n);
	ext.n = 0;
	put_der(&ext, "30(@)", m.p, m.n);
	put_signed(b, &ext, signer, w->badsig);
	free(m.p);
	free(dates.p);
	free(ext.p);
}

static void put_file(struct buf *b, const char *path) {
	struct buf f = file_read(path);
	put_buf(b, &f);
	free(f.p);
}

/* The files that others need: OUT.pem, what is sent, and OUT.up, what those send that are signed with it. */
static void crt_chain(const char *out, struct crt *w, const struct buf *alone) {
	struct buf sent = { 0 }, up = { 0 };
	put_buf(&sent, alone);
	if (w->by[0] != '\0') {
		put_buf(&up, alone);
		put_file(&up, beside(out, w->by, ".up"));
		if (!w->noint && w->chain[0] == '\0') put(&sent, up.p + alone->n, up.n - alone->n);
		if (w->withroot) put_file(&sent, beside(out, w->by, ".crt"));
	}
	for (char *s = strtok(w->chain, ","); s != NULL; s = strtok(NULL, ",")) put_file(&sent, beside(out, s, ".crt"));
	file_write(out, ".pem", &sent);
	file_write(out, ".up", &up);
	free(sent.p);
	free(up.p);
}

static int cmd_cert(char **argv) {
	static struct keypair own, other;
	struct crt w = { .from = -86400, .to = 30 * 86400, .ca = -2, .key = "p256", .san = "" };
	static struct buf subject, issuer, der, file, pin;
	const char *out = argv[1];
	uint8_t h[32];
	for (argv += 2; *argv != NULL; argv++)
		if (strcmp(*argv, "ca") == 0) w.ca = -1;
		else if (value_of(*argv, "san")) w.san = value_of(*argv, "san");
		else if (!field_set(crt_fields, COUNT(crt_fields), &w, *argv)) die("cert: what is %s?", *argv);
	if (w.keyof[0] != '\0') {
		key_load(&own, beside(out, w.keyof, ".key"));
		put_file(&file, beside(out, w.keyof, ".key"));
		file_write(out, ".key", &file);
		file.n = 0;
	} else {
		key_make(&own, w.key);
		key_save(&own, out);
	}
	put_der(&subject, w.cn[0] != '\0' ? "30(31(30(06(550403)0c(@))))" : "30()", w.cn, strlen(w.cn));
	file_write(out, ".dn", &subject);
	if (w.by[0] != '\0') {
		key_load(&other, beside(out, w.by, ".key"));
		put_file(&issuer, beside(out, w.by, ".dn"));
	}
	put_crt(&der, &w, &own, w.by[0] != '\0' ? &other : &own, w.by[0] != '\0' ? &issuer : &subject, &subject);
	put_pem(&file, "CERTIFICATE", der.p, der.n);
	file_write(out, ".crt", &file);
	crt_chain(out, &w, &file);
	der.n = 0;
	put_spki(&der, &own);
	br_sha256_context sh;
	br_sha256_init(&sh);
	br_sha256_update(&sh, der.p, der.n);
	br_sha256_out(&sh, h);
	put_text(&pin, pin_text(h));
	file_write(out, ".pin", &pin);
	return puts(pin_text(h)) < 0;
}
