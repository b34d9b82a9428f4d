/* gai.c - asks the C library it is built with for the addresses of a name: for `works` and the legs with real resolvers */
#define _POSIX_C_SOURCE 200809L
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
	struct addrinfo *a, hints = { .ai_socktype = SOCK_STREAM };
	int e = argc == 2 ? getaddrinfo(argv[1], "80", &hints, &a) : EAI_NONAME;
	char s[64];

	if (e != 0) puts(gai_strerror(e));
	for (; e == 0 && a != NULL; a = a->ai_next)
		if (getnameinfo(a->ai_addr, a->ai_addrlen, s, sizeof s, NULL, 0, NI_NUMERICHOST) == 0) puts(s);
	return e != 0;
}
