#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    struct addrinfo *a, *i, hints;
    int e = argc;

    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if ((e = getaddrinfo(argv[1], "80", &hints, &a)) != 0) {
        printf("%s\n", gai_strerror(e));
        return 1;
    }
    for (i = a; i != NULL; i = i->ai_next) {
        char s[64];
        if (getnameinfo(i->ai_addr, i->ai_addrlen, s, sizeof s, NULL, 0, NI_NUMERICHOST) == 0)
            printf("%s\n", s);
    }
    return 0;
}
