/* What stays with the kernel: UDP, UNIX sockets, loopback, IPv6. */
#include "probe.h"

#include <netdb.h>
#include <sys/un.h>

static void udp(void) {
    struct sockaddr_in a = at("127.0.0.1", 0);
    socklen_t len = sizeof a;
    int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0);
    T(bind(s, ADDR(a), sizeof a));
    T(getsockname(s, ADDR(a), &len));
    T(sendto(t, "hello", 5, 0, ADDR(a), sizeof a));
    text("datagram", s, 0);
    T(connect(t, ADDR(a), sizeof a));
    T(write(t, "again", 5));
    text("datagram", s, 0);
    int n = -1;
    T(ioctl(s, FIONREAD, &n));
}

static void unix_stream(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path + 1, 50, "probe-%d", (int)getpid());
    int l = socket(AF_UNIX, SOCK_STREAM, 0), s = socket(AF_UNIX, SOCK_STREAM, 0);
    T(bind(l, ADDR(a), sizeof a));
    T(listen(l, 5));
    T(connect(s, ADDR(a), sizeof a));
    int c = F(accept(l, NULL, NULL));
    T(write(s, "hello", 5));
    text("arrives", c, 0);
    T(close(s));
    text("ends", c, 0);
}

/* Opens a connection to ourselves by way of `listen_ip` and `connect_ip`; the accepted end in `other`. */
static int loop(const char *listen_ip, const char *connect_ip, int *other) {
    struct sockaddr_in a = at(listen_ip, 0);
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    T(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    T(bind(l, ADDR(a), sizeof a));
    T(listen(l, 5));
    T(getsockname(l, ADDR(a), &len));
    struct sockaddr_in b = at(connect_ip, ntohs(a.sin_port));
    T(connect(s, ADDR(b), sizeof b));
    *other = F(accept(l, NULL, NULL));
    close(l);
    return s;
}

static void loopback(void) {
    int c, s = loop("127.0.0.1", "127.0.0.1", &c), v = 0;
    socklen_t len = sizeof v;
    T(write(s, "hello", 5));
    text("arrives", c, 0);
    T(getsockopt(s, IPPROTO_TCP, TCP_NODELAY, &v, &len));
    T(v);
    T(shutdown(s, SHUT_WR));
    text("ends", c, 0);
    T(write(c, "back", 4));
    text("arrives", s, 0);
    T(close(c));
    bits("closed", s, POLLHUP);
}

static void loopback_refused(void) {
    struct sockaddr_in a = at("127.0.0.1", 1);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    T(connect(s, ADDR(a), sizeof a));
    int e = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLOUT};
    s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    T(connect(s, ADDR(a), sizeof a));
    T(epoll_wait(e, &ev, 1, 1000));
    say("%s", poll_names(ev.events));
}

static void loopback_nonblocking(void) {
    struct sockaddr_in a = at("127.0.0.1", 0);
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    T(bind(l, ADDR(a), sizeof a));
    T(fcntl(l, F_GETFL));
    T(fcntl(l, F_GETFD));
    T(listen(l, 5));
    T(accept(l, NULL, NULL));
    T(getsockname(l, ADDR(a), &len));
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), d = dup(s);
    T(connect(s, ADDR(a), sizeof a));
    bits("connected", s, POLLOUT);
    bits("its copy", d, POLLOUT);
    T(fcntl(d, F_GETFL));
    await(l, POLLIN);
    F(accept(l, NULL, NULL));
}

static void a_listener_on_all_addresses(void) {
    struct sockaddr_in a = at("0.0.0.0", 0);
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0), s = socket(AF_INET, SOCK_STREAM, 0);
    T(bind(l, ADDR(a), sizeof a));
    T(listen(l, 5));
    T(getsockname(l, ADDR(a), &len));
    P("connect %d", ntohs(a.sin_port));
    int c = F(accept(l, NULL, NULL));
    P("send hello");
    text("over the wire", c, 0);
    a = at("127.0.0.1", ntohs(a.sin_port));
    T(connect(s, ADDR(a), sizeof a));
}

static void ipv6(void) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t len = sizeof a;
    int l = socket(AF_INET6, SOCK_STREAM, 0), s = socket(AF_INET6, SOCK_STREAM, 0);
    T(bind(l, ADDR(a), sizeof a));
    T(listen(l, 5));
    T(getsockname(l, ADDR(a), &len));
    T(connect(s, ADDR(a), sizeof a));
    int c = F(accept(l, NULL, NULL));
    T(write(s, "hello", 5));
    text("arrives", c, 0);
}

static void all_in_one_epoll(void) {
    int e = epoll_create1(0), pair[2], c, seen = 0;
    int loop_end = loop("127.0.0.1", "127.0.0.1", &c), card = outgoing();
    int u = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = at("127.0.0.1", 0);
    socklen_t len = sizeof a;
    T(bind(u, ADDR(a), sizeof a));
    T(getsockname(u, ADDR(a), &len));
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    int all[] = {c, card, pair[0], u};
    for (int i = 0; i < 4; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = i};
        T(epoll_ctl(e, EPOLL_CTL_ADD, all[i], &ev));
    }
    struct epoll_event ev[4];
    T(epoll_wait(e, ev, 4, 0));
    T(write(loop_end, "x", 1));
    P("send x");
    T(write(pair[1], "x", 1));
    T(sendto(u, "x", 1, 0, ADDR(a), sizeof a));
    for (int i = 0; i < 100 && seen != 15; i++) {
        int n = epoll_wait(e, ev, 4, 1000);
        for (int j = 0; j < n; j++) {
            char b[4];
            seen |= 1 << ev[j].data.u32;
            read(all[ev[j].data.u32], b, sizeof b);
        }
    }
    T(seen);
    T(epoll_wait(e, ev, 4, 0));
}

static void copy_between(void) {
    int pipes[2], s = outgoing();
    T(pipe(pipes));
    T(write(pipes[1], "hello", 5));
    char b[10];
    ssize_t n = read(pipes[0], b, sizeof b);
    T(write(s, b, n));
    P("recv 5");
}

static void stdio_on_a_socket(void) {
    int s = outgoing();
    FILE *f = fdopen(s, "r+");
    char line[20] = {0};
    P("send hello\\n");
    T(fgets(line, sizeof line, f) != NULL);
    say("%.5s", line);
    T(fputs("back", f) >= 0);
    T(fflush(f));
    peer("patience 2");
    P("recv 4");
}

static void names_are_resolved(void) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    T(getaddrinfo("127.0.0.1", "80", &hints, &found));
    T(found && found->ai_family == AF_INET);
}

const struct test kernel_tests[] = {
    {"udp", udp},
    {"unix_stream", unix_stream},
    {"loopback", loopback},
    {"loopback_refused", loopback_refused},
    {"loopback_nonblocking", loopback_nonblocking},
    {"a_listener_on_all_addresses", a_listener_on_all_addresses},
    {"ipv6", ipv6},
    {"all_in_one_epoll", all_in_one_epoll},
    {"copy_between", copy_between},
    {"stdio_on_a_socket", stdio_on_a_socket},
    {"names_are_resolved", names_are_resolved},
    {0},
};
