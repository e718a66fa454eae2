/* connect in all its ways. */
#include "probe.h"

/* On the link, and nobody answers for it. */
#define NOBODY "10.77.0.99"

static int fresh(int flags) {
    return socket(AF_INET, SOCK_STREAM | flags, 0);
}

static int error_of(int s) {
    int e = -1;
    socklen_t len = sizeof e;
    if (getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &len) < 0) {
        e = errno;
    }
    return e;
}

static void say_error(int s) {
    int e = error_of(s);
    say("SO_ERROR is %s", e ? strerrorname_np(e) : "0");
}

/* A port where nothing listens. */
static int dead_port(void) {
    int port = peer_port();
    peer("unlisten");
    return port;
}

static void blocking(void) {
    struct sockaddr_in a = at(there, peer_port());
    int s = fresh(0);
    bits("before", s, 0);
    T(connect(s, ADDR(a), sizeof a));
    P("accept");
    bits("after", s, POLLOUT);
    say_error(s);
    T(connect(s, ADDR(a), sizeof a));
    T(write(s, "hello", 5));
    P("recv 5");
}

static void refused(void) {
    struct sockaddr_in a = at(there, dead_port());
    int s = fresh(0);
    T(connect(s, ADDR(a), sizeof a));
    bits("after", s, 0);
    say_error(s);
    T(connect(s, ADDR(a), sizeof a));
    char c;
    T(read(s, &c, 1));
    T(write(s, &c, 1));
    a = at(there, peer_port());
    T(connect(s, ADDR(a), sizeof a));
    P("accept");
    T(write(s, "hello", 5));
    P("recv 5");
}

static void refused_later(void) {
    struct sockaddr_in a = at(there, dead_port());
    int s = fresh(SOCK_NONBLOCK);
    T(connect(s, ADDR(a), sizeof a));
    bits("refused", s, POLLHUP);
    say_error(s);
    say_error(s);
    bits("error taken", s, 0);
    T(connect(s, ADDR(a), sizeof a));
    bits("as new", s, 0);
    T(connect(s, ADDR(a), sizeof a));
    bits("again", s, POLLERR | POLLHUP);
    T(connect(s, ADDR(a), sizeof a));
    bits("as new", s, 0);
    char c;
    T(read(s, &c, 1));
    T(read(s, &c, 1));
    T(write(s, &c, 1));
}

static void later(void) {
    struct sockaddr_in a = at(there, peer_port());
    int s = fresh(SOCK_NONBLOCK);
    T(connect(s, ADDR(a), sizeof a));
    bits("connected", s, POLLOUT);
    say_error(s);
    T(connect(s, ADDR(a), sizeof a));
    T(connect(s, ADDR(a), sizeof a));
    P("accept");
    T(write(s, "hello", 5));
    P("recv 5");
}

static void while_connecting(void) {
    struct sockaddr_in a = at(NOBODY, 80);
    char c;
    int s = fresh(SOCK_NONBLOCK);
    T(connect(s, ADDR(a), sizeof a));
    T(connect(s, ADDR(a), sizeof a));
    bits("connecting", s, 0);
    T(read(s, &c, 1));
    T(write(s, "x", 1));
    say_error(s);
    T(bind(s, ADDR(a), sizeof a));
    T(listen(s, 3));
    T(accept(s, NULL, NULL));
    socklen_t len = sizeof a;
    T(getpeername(s, ADDR(a), &len));
    len = sizeof a;
    T(getsockname(s, ADDR(a), &len));
    T(a.sin_addr.s_addr == at(here, 0).sin_addr.s_addr);
    T(shutdown(s, SHUT_WR));
    T(close(s));
}

static int connecting;

static void *connect_to_nobody(void *unused) {
    (void)unused;
    struct sockaddr_in a = at(NOBODY, 80);
    return (void *)(long)(connect(connecting, ADDR(a), sizeof a) < 0 ? errno : 0);
}

static void shut_while_connecting(void) {
    static const int ways[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
    struct sockaddr_in a = at(NOBODY, 80);
    for (int i = 0; i < 3; i++) {
        void *error;
        connecting = fresh(0);
        pthread_t t = thread(connect_to_nobody, 0);
        asleep();
        T(shutdown(connecting, ways[i]));
        pthread_join(t, &error);
        say("connect fails with %s", strerrorname_np((long)error));
        bits("as new", connecting, 0);
        say_error(connecting);
        T(shutdown(connecting, ways[i]));

        char c;
        int s = fresh(SOCK_NONBLOCK);
        T(connect(s, ADDR(a), sizeof a));
        T(shutdown(s, ways[i]));
        bits("called off", s, 0);
        say_error(s);
        say_error(s);
        bits("error taken", s, 0);
        T(connect(s, ADDR(a), sizeof a));
        bits("again", s, 0);
        T(shutdown(s, ways[i]));
        T(read(s, &c, 1));
        T(read(s, &c, 1));
        T(connect(s, ADDR(a), sizeof a));
        T(shutdown(s, ways[i]));
        T(write(s, "x", 1));
        T(write(s, "x", 1));
        a = at(there, peer_port());
        T(connect(s, ADDR(a), sizeof a));
        bits("connected", s, POLLOUT);
        P("accept");
        T(write(s, "hello", 5));
        P("recv 5");
        a = at(NOBODY, 80);
    }
}

static void nobody_there(void) {
    struct sockaddr_in a = at(NOBODY, 80);
    int s = fresh(0);
    T(connect(s, ADDR(a), sizeof a));
    bits("after", s, 0);
    say_error(s);
}

static void no_route(void) {
    struct sockaddr_in a = at("8.8.8.8", 80);
    int s = fresh(0);
    T(connect(s, ADDR(a), sizeof a));
    s = fresh(SOCK_NONBLOCK);
    T(connect(s, ADDR(a), sizeof a));
    a = at("255.255.255.255", 80);
    T(connect(s, ADDR(a), sizeof a));
    a = at("224.0.0.1", 80);
    T(connect(s, ADDR(a), sizeof a));
}

static void odd_addresses(void) {
    struct sockaddr_in a = at(there, 80);
    int s = fresh(0);
    T(connect(s, ADDR(a), 8));
    T(connect(s, ADDR(a), 1));
    T(connect(s, ADDR(a), 0));
    T(connect(s, NULL, sizeof a));
    T(connect(s, ADDR(a), 5000));
    a.sin_family = AF_INET6;
    T(connect(s, ADDR(a), sizeof a));
    a.sin_family = AF_UNIX;
    T(connect(s, ADDR(a), sizeof a));
    a = at(there, 0);
    T(connect(s, ADDR(a), sizeof a));
    T(connect(0, ADDR(a), sizeof a));
    T(connect(-1, ADDR(a), sizeof a));
}

static void unspecified(void) {
    struct sockaddr_in a = {.sin_family = AF_UNSPEC}, b;
    socklen_t len = sizeof b;
    int s = fresh(0);
    T(connect(s, ADDR(a), sizeof a));
    s = outgoing();
    T(connect(s, ADDR(a), sizeof a));
    T(getpeername(s, ADDR(b), &len));
    peer("patience 2");
    P("end");
}

static void signal_while_connecting(void) {
    struct sockaddr_in a = at(NOBODY, 80);
    int s = fresh(0);
    nag();
    T(connect(s, ADDR(a), sizeof a));
    T(signals_seen > 0);
    nag_off();
    nonblocking(s);
    T(connect(s, ADDR(a), sizeof a));
}

static void timeout(void) {
    struct sockaddr_in a = at(NOBODY, 80);
    struct timeval t = {0, 100000};
    int s = fresh(0);
    T(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    T(connect(s, ADDR(a), sizeof a));
    T(connect(s, ADDR(a), sizeof a));
}

static void close_while_connecting(void) {
    struct sockaddr_in a = at(there, atoi(peer("listen 64")));
    for (int i = 0; i < 20; i++) {
        int s = fresh(SOCK_NONBLOCK);
        connect(s, ADDR(a), sizeof a);
        close(s);
    }
    int s = fresh(0);
    T(connect(s, ADDR(a), sizeof a));
    T(write(s, "hello", 5));
}

static void listener_connects(void) {
    int port, l = listener(&port);
    struct sockaddr_in a = at(there, peer_port());
    T(connect(l, ADDR(a), sizeof a));
}

static void fresh_sockets(void) {
    char c;
    int s = fresh(0);
    bits("fresh", s, 0);
    T(read(s, &c, 1));
    T(write(s, &c, 1));
    T(read(s, &c, 0));
    T(write(s, &c, 0));
    T(shutdown(s, SHUT_RD));
    T(shutdown(s, SHUT_WR));
    T(shutdown(s, SHUT_RDWR));
    T(shutdown(s, 7));
    s = fresh(SOCK_NONBLOCK);
    T(recv(s, &c, 1, 0));
    T(recv(s, &c, 1, MSG_PEEK));
    T(send(s, &c, 1, 0));
    int n = -1;
    T(ioctl(s, FIONREAD, &n));
    T(n);
    T(ioctl(s, TIOCOUTQ, &n));
    T(n);
}

static void bound_twice_and_connected(void) {
    int one = 1, s = fresh(0), t = fresh(0);
    struct sockaddr_in a = at(here, 0), b = at(there, peer_port());
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(setsockopt(t, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(bind(s, ADDR(a), sizeof a));
    a = at(here, port_of(s));
    T(bind(t, ADDR(a), sizeof a));
    T(connect(s, ADDR(b), sizeof b));
    T(connect(t, ADDR(b), sizeof b));
    b = at(there, peer_port());
    T(connect(t, ADDR(b), sizeof b));
}

static void to_ourselves(void) {
    int port, l = listener(&port);
    struct sockaddr_in a = at(here, port);
    int s = fresh(0);
    if (T(connect(s, ADDR(a), sizeof a)) < 0) {
        return;
    }
    int c = F(accept(l, NULL, NULL));
    T(write(s, "hello", 5));
    text("arrives", c, 0);
    T(close(s));
    text("ends", c, 0);
}

const struct test connect_tests[] = {
    {"blocking", blocking},
    {"refused", refused},
    {"refused_later", refused_later},
    {"later", later},
    {"while_connecting", while_connecting},
    {"shut_while_connecting", shut_while_connecting},
    {"nobody_there", nobody_there},
    {"no_route", no_route},
    {"odd_addresses", odd_addresses},
    {"unspecified", unspecified},
    {"signal_while_connecting", signal_while_connecting},
    {"timeout", timeout},
    {"close_while_connecting", close_while_connecting},
    {"listener_connects", listener_connects},
    {"fresh_sockets", fresh_sockets},
    {"bound_twice_and_connected", bound_twice_and_connected},
    {"to_ourselves", to_ourselves},
    {0},
};
