# make                    builds dnsproxy
# make test               builds it and runs test.sh
# make install            binary, man page, example configuration, systemd unit (UNITDIR= for none)
# make static             dnsproxy-static: musl, one file that needs nothing else
# make BEARSSL=DIR        with a BearSSL tree of your own, built in DIR/build
# make CC=arm-linux-gnueabihf-gcc BEARSSL=DIR     for another machine
# make static STATIC_CC=arm-linux-gnueabihf-gcc    the same in one file
.POSIX:

CC = cc
CFLAGS = -O2
CPPFLAGS =
LDFLAGS = -Wl,-z,now
LDLIBS =
BEARSSL =
STATIC_CC = musl-gcc
STATIC_CFLAGS = -Os -ffunction-sections -fdata-sections -fno-inline-functions-called-once \
	-fno-pie -fno-asynchronous-unwind-tables
DESTDIR =
PREFIX = /usr/local
UNITDIR = $(PREFIX)/lib/systemd/system

# With BEARSSL its header and archive, else the system's; its archive rather than its shared object, so that the binary can be copied.
# The compiler is asked for the header first, so that its absence is told in one line.
need_bearssl = \
	set -e; inc=; lib=$$($(CC) -print-file-name=libbearssl.a); test "$${lib\#/}" != "$$lib" || lib=-lbearssl; \
	test -z '$(BEARSSL)' || { inc='-I$(BEARSSL)/inc'; lib='$(BEARSSL)/build/libbearssl.a'; }; \
	have() { echo '\#include <bearssl.h>' | "$$@" $(CPPFLAGS) $$inc -E - >/dev/null 2>&1; }; \
	missing='bearssl.h not found: install libbearssl-dev (Debian), or set BEARSSL to the tree of a built BearSSL'

all: dnsproxy

dnsproxy: dnsproxy.c
	@$(need_bearssl); $(CC) --version >/dev/null; have $(CC) || { echo "$$missing" >&2; exit 1; }; set -x; \
	$(CC) -std=c11 $(CPPFLAGS) $$inc $(CFLAGS) $(LDFLAGS) -o $@ dnsproxy.c $$lib $(LDLIBS)

# musl's compiler sees no header of the system but its own: bearssl.h and the kernel's are looked for after those.
# Debian's archive is built with _FORTIFY_SOURCE, whose checked functions musl lacks.  With glibc nothing is missing.
# Tables for unwinding stay out: nothing unwinds.
static: dnsproxy-static

dnsproxy-static: dnsproxy.c
	@$(need_bearssl); \
	$(STATIC_CC) --version >/dev/null 2>&1 || { echo '$(STATIC_CC) not found: install musl-tools (Debian), or set STATIC_CC' >&2; exit 1; }; \
	musl=; \
	test -n "$$inc" || lib=$$($(STATIC_CC) -print-file-name=libbearssl.a); \
	echo '#include <features.h>' | $(STATIC_CC) -E -dM - | grep -q __GLIBC__ || { musl='-Wl,-z,norelro,-z,common-page-size=64 -Wl,-T,/dev/stdin'; \
	for f in memcpy memmove memset; do musl="$$musl -Wl,--defsym=__$${f}_chk=$$f"; done; \
	test -n "$$inc" || inc="-idirafter /usr/include -idirafter /usr/include/$$(cc -print-multiarch)"; }; \
	have $(STATIC_CC) || { echo "$$missing" >&2; exit 1; }; set -x; \
	echo 'SECTIONS { /DISCARD/ : { *(.eh_frame) *(.comment) } } INSERT BEFORE .text;' | \
	$(STATIC_CC) -std=c11 $(CPPFLAGS) $$inc $(STATIC_CFLAGS) -static -s -Wl,--gc-sections -Wl,-z,noseparate-code \
	$$musl $(LDFLAGS) -o $@ dnsproxy.c "$$lib" $(LDLIBS)

test: dnsproxy
	CC='$(CC)' CFLAGS='$(CFLAGS)' BEARSSL='$(BEARSSL)' ./test.sh

install: dnsproxy
	mkdir -p '$(DESTDIR)$(PREFIX)/sbin' '$(DESTDIR)$(PREFIX)/share/man/man8' '$(DESTDIR)/etc'
	cp -f dnsproxy '$(DESTDIR)$(PREFIX)/sbin/dnsproxy'
	chmod 755 '$(DESTDIR)$(PREFIX)/sbin/dnsproxy'
	cp -f dnsproxy.8 '$(DESTDIR)$(PREFIX)/share/man/man8/dnsproxy.8'
	chmod 644 '$(DESTDIR)$(PREFIX)/share/man/man8/dnsproxy.8'
	test -e '$(DESTDIR)/etc/dns.config' || \
	{ cp dns.config.example '$(DESTDIR)/etc/dns.config' && chmod 644 '$(DESTDIR)/etc/dns.config'; }
	test -z '$(UNITDIR)' || { mkdir -p '$(DESTDIR)$(UNITDIR)' && \
	$(MAKE) -s unit >'$(DESTDIR)$(UNITDIR)/dnsproxy.service' && \
	chmod 644 '$(DESTDIR)$(UNITDIR)/dnsproxy.service'; }

# The configuration stays: it is the user's.
uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/sbin/dnsproxy' '$(DESTDIR)$(PREFIX)/share/man/man8/dnsproxy.8'
	test -z '$(UNITDIR)' || rm -f '$(DESTDIR)$(UNITDIR)/dnsproxy.service'

# Prints the systemd unit.  The program never is root there: it may bind port 53, and nothing else.
unit:
	@printf '%s\n' \
	'[Unit]' \
	'Description=DNS forwarder that asks every upstream at once' \
	'Documentation=man:dnsproxy(8)' \
	'After=network.target' \
	'Before=nss-lookup.target' \
	'Wants=nss-lookup.target' \
	'StartLimitIntervalSec=0' \
	'' \
	'[Service]' \
	'Type=notify' \
	'NotifyAccess=main' \
	'WatchdogSec=30' \
	'Restart=on-failure' \
	'RestartSec=2' \
	'RestartPreventExitStatus=2 78' \
	'ExecStart=$(PREFIX)/sbin/dnsproxy' \
	'ExecReload=/bin/sh -c "exec $(PREFIX)/sbin/dnsproxy -t >/dev/null"' \
	'ExecReload=/bin/kill -HUP $$MAINPID' \
	'DynamicUser=yes' \
	'AmbientCapabilities=CAP_NET_BIND_SERVICE' \
	'CapabilityBoundingSet=CAP_NET_BIND_SERVICE' \
	'LimitNOFILE=16384' \
	'UMask=0077' \
	'LockPersonality=yes' \
	'MemoryDenyWriteExecute=yes' \
	'NoNewPrivileges=yes' \
	'PrivateDevices=yes' \
	'PrivateMounts=yes' \
	'PrivateTmp=yes' \
	'ProcSubset=pid' \
	'ProtectClock=yes' \
	'ProtectControlGroups=yes' \
	'ProtectHome=yes' \
	'ProtectHostname=yes' \
	'ProtectKernelLogs=yes' \
	'ProtectKernelModules=yes' \
	'ProtectKernelTunables=yes' \
	'ProtectProc=invisible' \
	'ProtectSystem=strict' \
	'RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX' \
	'RestrictNamespaces=yes' \
	'RestrictRealtime=yes' \
	'RestrictSUIDSGID=yes' \
	'SystemCallArchitectures=native' \
	'SystemCallFilter=@system-service' \
	'SystemCallFilter=~@privileged' \
	'SystemCallErrorNumber=EPERM' \
	'' \
	'[Install]' \
	'WantedBy=multi-user.target'

clean:
	rm -f dnsproxy dnsproxy-static
