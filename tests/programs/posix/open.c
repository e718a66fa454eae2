/* socket, bind, listen, accept and names. */
#include "probe.h"

static int fresh(void) {
    return socket(AF_INET, SOCK_STREAM, 0);
}

static void kinds(void) {
    F(socket(AF_INET, SOCK_STREAM, 0));
    F(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
    F(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    F(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    F(socket(AF_INET, SOCK_SEQPACKET, 0));
    F(socket(AF_INET, 99, 0));
    F(socket(99, SOCK_STREAM, 0));
    F(socket(AF_INET, SOCK_STREAM | 0x100000, 0));
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    T(fcntl(s, F_GETFD));
    T(fcntl(s, F_GETFL));
    s = fresh();
    T(fcntl(s, F_GETFD));
    T(fcntl(s, F_GETFL));
    int low = dup(0);
    close(low);
    T(fresh() == low);
}

static void bind_errors(void) {
    int port, l = listener(&port), s = fresh();
    struct sockaddr_in a = at(here, port);
    T(bind(s, ADDR(a), sizeof a));
    a = at("0.0.0.0", port);
    T(bind(s, ADDR(a), sizeof a));
    a = at(here, 0);
    T(bind(s, ADDR(a), 8));
    T(bind(s, ADDR(a), 0));
    T(bind(s, NULL, 16));
    a = at("203.0.113.9", 0);
    T(bind(s, ADDR(a), sizeof a));
    a.sin_family = AF_INET6;
    T(bind(s, ADDR(a), sizeof a));
    a = at("0.0.0.0", 0);
    a.sin_family = AF_UNSPEC;
    T(bind(s, ADDR(a), sizeof a));
    a = at(here, 0);
    T(bind(s, ADDR(a), sizeof a));
    T(bind(l, ADDR(a), sizeof a));
    int pipes[2];
    T(pipe(pipes));
    T(bind(pipes[0], ADDR(a), sizeof a));
    T(bind(-1, ADDR(a), sizeof a));
    T(bind(999, ADDR(a), sizeof a));
}

static void bound_and_again(void) {
    int s = fresh();
    struct sockaddr_in a = at(here, 0);
    T(bind(s, ADDR(a), sizeof a));
    T(port_of(s) > 0);
    T(bind(s, ADDR(a), sizeof a));
    int out = outgoing();
    T(bind(out, ADDR(a), sizeof a));
}

static void reuse(int option, const char *name) {
    int one = 1, s = fresh(), t = fresh();
    struct sockaddr_in a = at(here, 0);
    say("%s", name);
    T(setsockopt(s, SOL_SOCKET, option, &one, sizeof one));
    T(bind(s, ADDR(a), sizeof a));
    a = at(here, port_of(s));
    T(bind(t, ADDR(a), sizeof a));
    T(setsockopt(t, SOL_SOCKET, option, &one, sizeof one));
    T(bind(t, ADDR(a), sizeof a));
    T(listen(s, 5));
    T(listen(t, 5));
    int u = fresh();
    T(setsockopt(u, SOL_SOCKET, option, &one, sizeof one));
    T(bind(u, ADDR(a), sizeof a));
}

static void reuse_addr(void) {
    reuse(SO_REUSEADDR, "SO_REUSEADDR");
}

static void reuse_port(void) {
    reuse(SO_REUSEPORT, "SO_REUSEPORT");
}

static void port_after_close(void) {
    int port, l = listener(&port);
    struct sockaddr_in a = at(here, port);
    close(l);
    int s = fresh();
    T(bind(s, ADDR(a), sizeof a));
    close(s);
    s = fresh();
    T(bind(s, ADDR(a), sizeof a));
    T(listen(s, 1));
    /* A connection that we close first leaves TIME-WAIT behind. */
    P("connect %d", port);
    int c = accept(s, NULL, NULL);
    close(c);
    P("end");
    P("close");
    close(s);
    settle();
    s = fresh();
    T(bind(s, ADDR(a), sizeof a));
}

static void server_starts_again(void) {
    int one = 1, s = fresh();
    struct sockaddr_in a = at(here, 0);
    for (int i = 0; i < 3; i++) {
        T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
        T(bind(s, ADDR(a), sizeof a));
        a = at(here, port_of(s));
        T(listen(s, 1));
        P("connect %d", ntohs(a.sin_port));
        int c = accept(s, NULL, NULL);
        close(c);
        P("end");
        P("close");
        close(s);
        settle();
        s = fresh();
    }
}

static void port_of_a_live_connection(void) {
    int port, one = 1, l = listener(&port);
    struct sockaddr_in a = at(here, port);
    peer("connect %d", port);
    int c = accept(l, NULL, NULL);
    close(l);
    int s = fresh();
    T(bind(s, ADDR(a), sizeof a));
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(setsockopt(c, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(bind(s, ADDR(a), sizeof a));
    T(listen(s, 1));
}

static void listen_errors(void) {
    int s = fresh();
    T(listen(s, 5));
    T(port_of(s) > 0);
    T(listen(s, 7));
    T(listen(s, -1));
    T(listen(s, 0));
    T(listen(outgoing(), 5));
    int u = socket(AF_INET, SOCK_DGRAM, 0);
    T(listen(u, 5));
    T(listen(0, 5));
    T(listen(-1, 5));
    bits("a listener", s, 0);
    char c;
    T(read(s, &c, 1));
    T(write(s, &c, 1));
    T(recv(s, &c, 1, MSG_DONTWAIT));
    T(send(s, &c, 1, MSG_NOSIGNAL));
}

static void accept_errors(void) {
    int s = fresh(), port;
    T(accept(s, NULL, NULL));
    T(accept(outgoing(), NULL, NULL));
    T(accept(0, NULL, NULL));
    T(accept(-1, NULL, NULL));
    int l = listener(&port);
    nonblocking(l);
    T(accept(l, NULL, NULL));
    T(accept4(l, NULL, NULL, 0x1234));
    P("connect %d", port);
    bits("a connection waits", l, POLLIN);
    T(accept4(l, NULL, NULL, 0x1234));
    F(accept(l, NULL, NULL));
    T(accept(l, NULL, NULL));
}

static void accept_flags(void) {
    static const int all[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};
    int port, l = listener(&port);
    nonblocking(l);
    for (int i = 0; i < 4; i++) {
        peer("connect %d", port);
        bits("waiting", l, POLLIN);
        int s = accept4(l, NULL, NULL, all[i]);
        T(fcntl(s, F_GETFL));
        T(fcntl(s, F_GETFD));
    }
    peer("connect %d", port);
    bits("waiting", l, POLLIN);
    int s = accept(l, NULL, NULL);
    T(fcntl(s, F_GETFL));
    T(fcntl(s, F_GETFD));
}

static void accept_names(void) {
    int port, l = listener(&port);
    struct sockaddr_in a, b = at(there, 0);
    socklen_t len = sizeof a;
    P("connect %d", port);
    F(accept(l, ADDR(a), &len));
    T(len);
    T(a.sin_family);
    T(a.sin_addr.s_addr == b.sin_addr.s_addr);
    T(a.sin_port != 0);
    P("connect %d", port);
    memset(&a, 0x55, sizeof a);
    len = 4;
    F(accept(l, ADDR(a), &len));
    T(len);
    T(a.sin_family);
    T(a.sin_addr.s_addr == 0x55555555);
    P("connect %d", port);
    len = 0;
    F(accept(l, ADDR(a), &len));
    T(len);
    P("connect %d", port);
    len = 100;
    F(accept(l, NULL, &len));
    T(len);
    P("connect %d", port);
    len = -1;
    F(accept(l, ADDR(a), &len));
    P("connect %d", port);
    F(accept(l, ADDR(a), NULL));
}

static void accept_what_has_ended(void) {
    int port, l = listener(&port);
    P("connect %d", port);
    P("send hello");
    P("close");
    settle();
    int s = accept(l, NULL, NULL);
    text("sent and closed", s, 0);
    text("then", s, 0);
    P("connect %d", port);
    P("reset");
    await(l, POLLIN);
    settle();
    nonblocking(l);
    s = F(accept(l, NULL, NULL));
    text("reset", s, 0);
    text("then", s, 0);
}

static void backlog_order(void) {
    int port, l = listener(&port);
    struct sockaddr_in a;
    for (int i = 0; i < 5; i++) {
        peer("connect %d", port);
        peer("send conn%d", i);
    }
    for (int i = 0; i < 5; i++) {
        socklen_t len = sizeof a;
        int s = accept(l, ADDR(a), &len);
        text("accepted", s, 0);
        peer("use %d", i);
        T(atoi(peer("port")) == port);
    }
}

static void backlog_and_one_more(void) {
    for (int backlog = 0; backlog < 3; backlog++) {
        int s = fresh();
        struct sockaddr_in a = at(here, 0);
        T(bind(s, ADDR(a), sizeof a));
        T(listen(s, backlog));
        nonblocking(s);
        for (int i = 0; i <= backlog; i++)
            P("connect %d", port_of(s));
        for (int i = 0; i <= backlog; i++) {
            await(s, POLLIN);
            T(accept(s, NULL, NULL) >= 0);
        }
        T(accept(s, NULL, NULL));
        close(s);
    }
}

static void shutdown_a_listener(void) {
    int port, l = listener(&port);
    T(shutdown(l, SHUT_WR));
    P("connect %d", port);
    F(accept(l, NULL, NULL));
    T(shutdown(l, SHUT_RD));
    nonblocking(l);
    T(accept(l, NULL, NULL));
    bits("after shutdown", l, 0);
    P("connect %d", port);
    /* The port was any, so it may be another now. */
    T(listen(l, 5));
    P("connect %d", port_of(l));
    bits("listening again", l, POLLIN);
    F(accept(l, NULL, NULL));
}

/* HAProxy pauses a listener so. */
static void pause_a_listener(void) {
    int l = socket(AF_INET, SOCK_STREAM, 0), port = 7077;
    struct sockaddr_in a = at(here, port);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    int yes = 1;
    T(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes));
    T(bind(l, ADDR(a), sizeof a));
    T(listen(l, 5));
    P("connect %d", port);
    F(accept(l, NULL, NULL));
    T(connect(l, &none, sizeof none));
    int on = -1;
    socklen_t len = sizeof on;
    T(getsockopt(l, SOL_SOCKET, SO_ACCEPTCONN, &on, &len));
    T(on);
    T(accept(l, NULL, NULL));
    P("connect %d", port);
    T(listen(l, 5));
    P("connect %d", port);
    F(accept(l, NULL, NULL));
}

static void close_with_connections_waiting(void) {
    int port, l = listener(&port);
    P("connect %d", port);
    await(l, POLLIN);
    close(l);
    P("end");
    P("connect %d", port);
}

static void show(const char *what, int (*names)(int, struct sockaddr *, socklen_t *), int fd) {
    struct sockaddr_in a, mine = at(here, 0), other = at(there, 0);
    socklen_t len = sizeof a;
    memset(&a, 0x55, sizeof a);
    if (names(fd, ADDR(a), &len) < 0) {
        say("%s: %s", what, strerrorname_np(errno));
        return;
    }
    const char *ip = a.sin_addr.s_addr == 0                         ? "any"
                     : a.sin_addr.s_addr == mine.sin_addr.s_addr  ? "here"
                     : a.sin_addr.s_addr == other.sin_addr.s_addr ? "there"
                                                                  : "elsewhere";
    say("%s: family %d, %s, port %s, length %d", what, a.sin_family, ip, a.sin_port ? "some" : "none", (int)len);
}

static void names(void) {
    int s = fresh();
    show("fresh, own", getsockname, s);
    show("fresh, peer", getpeername, s);
    struct sockaddr_in a = at("0.0.0.0", 0);
    T(bind(s, ADDR(a), sizeof a));
    show("bound to any, own", getsockname, s);
    T(listen(s, 4));
    show("listening, own", getsockname, s);
    show("listening, peer", getpeername, s);
    peer("connect %d", port_of(s));
    int c = accept(s, NULL, NULL);
    show("accepted, own", getsockname, c);
    show("accepted, peer", getpeername, c);
    T(port_of(c) == port_of(s));
    c = outgoing();
    show("connected, own", getsockname, c);
    show("connected, peer", getpeername, c);
    T(shutdown(c, SHUT_WR));
    show("half closed, peer", getpeername, c);
    /* Else the two FINs could cross, and the connection would be CLOSING. */
    P("end");
    P("close");
    bits("closed", c, POLLHUP);
    show("closed, own", getsockname, c);
    show("closed, peer", getpeername, c);
    c = outgoing();
    P("reset");
    bits("reset", c, POLLHUP);
    show("reset, own", getsockname, c);
    show("reset, peer", getpeername, c);
    T(close(c));
    show("not open", getsockname, c);
    show("a file", getsockname, 0);
}

static void port_chosen_late(void) {
    int one = 1, s = fresh();
    struct sockaddr_in a = at(here, 0);
    T(setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one));
    T(bind(s, ADDR(a), sizeof a));
    show("bound", getsockname, s);
    a = at(there, atoi(peer("listen")));
    T(connect(s, ADDR(a), sizeof a));
    show("connected", getsockname, s);
    s = fresh();
    T(setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one));
    a = at(here, 0);
    T(bind(s, ADDR(a), sizeof a));
    T(listen(s, 5));
    show("listens", getsockname, s);
    P("connect %d", port_of(s));
    bits("waiting", s, POLLIN);
    s = fresh();
    T(setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one));
    T(listen(s, 5));
    T(port_of(s) > 0);
}

static void names_bound_before_connect(void) {
    int s = fresh();
    struct sockaddr_in a = at("0.0.0.0", 0);
    T(bind(s, ADDR(a), sizeof a));
    int port = port_of(s);
    a = at(there, peer_port());
    T(connect(s, ADDR(a), sizeof a));
    peer("accept");
    T(port_of(s) == port);
    show("own", getsockname, s);
    T(atoi(peer("port")) == port);
}

static void names_odd_arguments(void) {
    int c = outgoing();
    struct sockaddr_in a;
    socklen_t len = 2;
    memset(&a, 0x55, sizeof a);
    T(getpeername(c, ADDR(a), &len));
    T(len);
    T(a.sin_family);
    T(a.sin_port == 0x5555);
    len = 0;
    T(getsockname(c, ADDR(a), &len));
    T(len);
    len = -5;
    T(getsockname(c, ADDR(a), &len));
    len = 200;
    T(getsockname(c, ADDR(a), &len));
    T(len);
    len = sizeof a;
    T(getsockname(c, NULL, &len));
    T(getsockname(c, ADDR(a), NULL));
    len = 0;
    T(getsockname(c, NULL, &len));
}

const struct test open_tests[] = {
    {"kinds", kinds},
    {"bind_errors", bind_errors},
    {"bound_and_again", bound_and_again},
    {"reuse_addr", reuse_addr},
    {"reuse_port", reuse_port},
    {"port_after_close", port_after_close},
    {"server_starts_again", server_starts_again},
    {"port_of_a_live_connection", port_of_a_live_connection},
    {"listen_errors", listen_errors},
    {"accept_errors", accept_errors},
    {"accept_flags", accept_flags},
    {"accept_names", accept_names},
    {"accept_what_has_ended", accept_what_has_ended},
    {"backlog_order", backlog_order},
    {"backlog_and_one_more", backlog_and_one_more},
    {"shutdown_a_listener", shutdown_a_listener},
    {"pause_a_listener", pause_a_listener},
    {"close_with_connections_waiting", close_with_connections_waiting},
    {"names", names},
    {"port_chosen_late", port_chosen_late},
    {"names_bound_before_connect", names_bound_before_connect},
    {"names_odd_arguments", names_odd_arguments},
    {0},
};
