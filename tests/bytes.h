/* bytes.h - what every test program needs, the peer as the unit tests and the fuzz targets: bytes that grow, messages written
 * without a check so that wrong ones can be made, chance that repeats itself. Stands on its own; not a program. */
#pragma once
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(c) do { if (!(c)) { fprintf(stderr, "broken: %s (%s:%d)\n", #c, __FILE__, __LINE__); abort(); } } while (0)

/* The same seed, the same numbers. */
static uint64_t chance = UINT64_C(88172645463325252);
static inline uint32_t chance_next(void) {
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return (uint32_t)(chance >> 16);
}

static inline void *grow(void *p, size_t n) {
	p = realloc(p, n > 0 ? n : 1);
	MUST(p != NULL);
	return p;
}

struct buf { uint8_t *p; size_t n, room; };

/* n bytes more, to be written. */
static inline uint8_t *put_room(struct buf *b, size_t n) {
	MUST(b->p != NULL || b->n == 0);
	if (b->p == NULL || b->n + n > b->room) b->p = grow(b->p, b->room = 2 * (b->n + n) + 512);
	b->n += n;
	return b->p + b->n - n;
}
static inline void put(struct buf *b, const void *p, size_t n) {
	uint8_t *to = put_room(b, n);
	if (n > 0) memcpy(to, p, n);
}
static inline void put_number(struct buf *b, unsigned v, int bytes) {
	while (bytes-- > 0) *put_room(b, 1) = (uint8_t)(v >> 8 * bytes);
}
static inline void put8(struct buf *b, unsigned v) { put_number(b, v, 1); }
static inline void put16(struct buf *b, unsigned v) { put_number(b, v, 2); }
static inline void put_buf(struct buf *b, const struct buf *from) { put(b, from->p, from->n); }

static inline void put_hex(struct buf *b, const char *h) {
	for (; isxdigit((unsigned char)h[0]) && isxdigit((unsigned char)h[1]); h += 2)
		put8(b, (unsigned)strtoul((char[]){ h[0], h[1], '\0' }, NULL, 16));
}

/* Takes n bytes off the front. */
static inline void take(struct buf *b, size_t n) {
	b->n -= n;
	if (b->n > 0) memmove(b->p, b->p + n, b->n);
}

/* A name in presentation form with \. and \DDD. */
static inline void put_name(struct buf *b, const char *s) {
	for (s += strcmp(s, ".") == 0; *s != '\0'; s += *s == '.') {
		size_t at = b->n;
		for (put8(b, 0); *s != '\0' && *s != '.'; s++) {
			bool number = *s == '\\' && strspn(s + 1, "0123456789") >= 3;
			if (*s == '\\' && s[1] != '\0') s++;
			put8(b, number ? (unsigned)((s[0] - '0') * 100 + (s[1] - '0') * 10 + s[2] - '0') : (unsigned char)*s);
			if (number) s += 2;
		}
		b->p[at] = (uint8_t)(b->n - at - 1);
	}
	put8(b, 0);
}

/* Appends by a pattern: "1", "2" and "4" are a number of so many bytes, "n" is a name, "l" one without its end, "p" a pointer to
 * an offset, "@" bytes (a pointer and a size_t), "#" hex digits, "(...)" stands behind its length of two bytes. */
static inline void put_as(struct buf *b, const char *f, ...) {
	size_t open[4] = { 0 }, depth = 0;
	va_list ap;
	va_start(ap, f);
	for (; *f != '\0'; f++) {
		if (isdigit((unsigned char)*f)) put_number(b, va_arg(ap, unsigned), *f - '0');
		else if (*f == 'p') put16(b, 0xc000 | va_arg(ap, unsigned));
		else if (*f == 'n' || *f == 'l') put_name(b, va_arg(ap, const char *));
		else if (*f == '#') put_hex(b, va_arg(ap, const char *));
		else if (*f == '@') {
			const void *p = va_arg(ap, const void *);
			put(b, p, va_arg(ap, size_t));
		} else if (*f == '(') {
			put16(b, 0);
			open[depth++] = b->n;
		} else if (*f == ')' && depth > 0) {
			size_t at = open[--depth];
			b->p[at - 2] = (uint8_t)((b->n - at) >> 8);
			b->p[at - 1] = (uint8_t)(b->n - at);
		}
		b->n -= *f == 'l';
	}
	va_end(ap);
}
static inline void put_framed(struct buf *b, const struct buf *m) { put_as(b, "(@)", m->p, m->n); }
