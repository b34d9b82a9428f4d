#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* browser ADDRESS PORT SECONDS SEED: prints "asked N answered N servfail N empty N retried N median_ms X slowest_ms X" */
enum { MAX = 65536, SITES = 400 };
static struct { double first, last, took; int tries; } q[MAX];
static double took[MAX];
static uint64_t state;
static double rnd(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static uint8_t sent[MAX][96];
static int sent_len[MAX];
static int cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
static int s, n;
static void ask(const char *name, int type) {
    uint8_t *b = sent[n];
    int l = 12;
    if (n == MAX - 1) return;
    memset(b, 0, 96);
    b[0] = (uint8_t)(n >> 8), b[1] = (uint8_t)n, b[2] = 1, b[5] = 1;
    while (*name) {
        int k = (int)strcspn(name, ".");
        b[l++] = (uint8_t)k;
        memcpy(b + l, name, (size_t)k);
        l += k;
        name += k + (name[k] == '.');
    }
    l++;
    b[l + 1] = (uint8_t)type, b[l + 3] = 1;
    sent_len[n] = l + 4;
    q[n].first = q[n].last = now();
    q[n].tries = 1;
    if (send(s, b, (size_t)l + 4, 0) < 0) { /* asked again below */ }
    n++;
}
int main(int argc, char **argv) {
    struct sockaddr_in a = { .sin_family = AF_INET };
    double end, next, t;
    int i, answered = 0, servfail = 0, empty = 0, retried = 0, low = 0;
    char name[64];

    if (argc != 5) return 2;
    inet_pton(AF_INET, argv[1], &a.sin_addr);
    a.sin_port = htons((uint16_t)atoi(argv[2]));
    end = now() + atof(argv[3]);
    state = strtoull(argv[4], NULL, 10);
    s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof a) != 0) return 1;
    for (next = now(); (t = now()) < end + 6; ) {
        struct pollfd p = { s, POLLIN, 0 };
        uint8_t b[1500];
        if (t >= next && t < end) {
            int names = 1 + (int)(rnd() * 8);
            for (i = 0; i < names; i++) {
                double z = rnd();
                int site = (int)((double)SITES * z * z * z);
                if (i == names - 1 && rnd() < 0.2)
                    snprintf(name, sizeof name, "host%d.lan", (int)(rnd() * 5));
                else
                    snprintf(name, sizeof name, "%s%d.example", i == 0 ? "www" : "cdn", site);
                ask(name, 1);
                ask(name, 28);
                if (i == 0) ask(name, 65);
            }
            next = t + 0.02 + 0.2 * rnd() * rnd();
        }
        for (i = low; i < n; i++) {
            if (q[i].took != 0) {
                if (i == low) low++;
            } else if (t - q[i].last > 5 && q[i].tries < 2) {
                q[i].last = t, q[i].tries++, retried++;
                if (send(s, sent[i], (size_t)sent_len[i], 0) < 0) continue;
            }
        }
        if (t >= end && low == n) break;
        poll(&p, 1, t < end ? (int)((next - t) * 1000) + 1 : 50);
        while (recv(s, b, sizeof b, MSG_DONTWAIT) >= 12) {
            i = b[0] << 8 | b[1];
            if (i >= n || q[i].took != 0) continue;
            q[i].took = now() - q[i].first;
            took[answered++] = q[i].took;
            servfail += (b[3] & 15) != 0;
            empty += (b[3] & 15) == 0 && b[7] == 0 && sent[i][sent_len[i] - 3] == 1;
        }
    }
    qsort(took, (size_t)answered, sizeof took[0], cmp);
    printf("asked %d answered %d servfail %d empty %d retried %d median_ms %.1f slowest_ms %.0f\n", n, answered, servfail, empty, retried,
        answered ? took[answered / 2] * 1000 : 0, answered ? took[answered - 1] * 1000 : 0);
    return 0;
}
