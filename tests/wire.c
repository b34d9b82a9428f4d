#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* wire NETNS DEVICE NETNS DEVICE DELAY JITTER LOSS: a link between two network namespaces; milliseconds each way, packets lost of 1000 */
enum { SLOTS = 4096, SIZE = 2048 };
static struct { double due; int to, len; char b[SIZE]; } q[SLOTS];
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
static int end(const char *ns, const char *device) {
    char path[256];
    struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int fd;
    snprintf(path, sizeof path, "/var/run/netns/%s", ns);
    if ((fd = open(path, O_RDONLY)) < 0 || setns(fd, CLONE_NEWNET) != 0 || (fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0)
        return -1;
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", device);
    return ioctl(fd, TUNSETIFF, &r) == 0 ? fd : -1;
}
int main(int argc, char **argv) {
    struct pollfd p[2];
    double last[2] = { 0, 0 }, first, t;
    int i, k, free_slot;

    if (argc != 8) return 2;
    for (i = 0; i < 2; i++) {
        p[i].fd = end(argv[1 + 2 * i], argv[2 + 2 * i]);
        p[i].events = POLLIN;
        if (p[i].fd < 0) {
            perror("wire");
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    srand(1);
    for (;;) {
        for (t = now(), first = t + 1000, free_slot = -1, i = 0; i < SLOTS; i++) {
            if (q[i].len > 0 && q[i].due <= t) {
                if (write(p[q[i].to].fd, q[i].b, (size_t)q[i].len) < 0) { /* lost */ }
                q[i].len = 0;
            }
            if (q[i].len == 0)
                free_slot = i;
            else if (q[i].due < first)
                first = q[i].due;
        }
        if (poll(p, 2, (int)(first - t) + 1) < 0) return 1;
        for (k = 0; k < 2; k++) {
            if (free_slot < 0 || !(p[k].revents & POLLIN) || (q[free_slot].len = (int)read(p[k].fd, q[free_slot].b, SIZE)) <= 0)
                continue;
            if (rand() % 1000 < atoi(argv[7])) {
                q[free_slot].len = 0;
                continue;
            }
            q[free_slot].to = !k;
            q[free_slot].due = now() + atoi(argv[5]) + rand() % (atoi(argv[6]) + 1);
            if (q[free_slot].due < last[k])     /* in order, as on a line */
                q[free_slot].due = last[k];
            last[k] = q[free_slot].due;
            break;
        }
    }
}
