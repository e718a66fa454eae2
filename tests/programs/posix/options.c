/* getsockopt and setsockopt. */
#include "probe.h"

static const struct {
    int level, name;
    const char *text;
    int value;
} ints[] = {
#define O(level, name, value) {level, name, #name, value}
    O(SOL_SOCKET, SO_REUSEADDR, 1),    O(SOL_SOCKET, SO_REUSEPORT, 1),   O(SOL_SOCKET, SO_KEEPALIVE, 1),
    O(SOL_SOCKET, SO_RCVLOWAT, 5),     O(SOL_SOCKET, SO_OOBINLINE, 1),   O(SOL_SOCKET, SO_BROADCAST, 1),
    O(SOL_SOCKET, SO_DONTROUTE, 1),    O(SOL_SOCKET, SO_PRIORITY, 3),    O(SOL_SOCKET, SO_TIMESTAMP, 1),
    O(SOL_SOCKET, SO_NO_CHECK, 1),     O(SOL_SOCKET, SO_PASSCRED, 1),    O(IPPROTO_TCP, TCP_NODELAY, 1),
    O(IPPROTO_TCP, TCP_CORK, 1),       O(IPPROTO_TCP, TCP_KEEPIDLE, 30), O(IPPROTO_TCP, TCP_KEEPINTVL, 7),
    O(IPPROTO_TCP, TCP_KEEPCNT, 4),    O(IPPROTO_TCP, TCP_SYNCNT, 3),    O(IPPROTO_TCP, TCP_USER_TIMEOUT, 9000),
    O(IPPROTO_TCP, TCP_DEFER_ACCEPT, 1), O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384), O(IPPROTO_TCP, TCP_LINGER2, 20),
    O(IPPROTO_TCP, TCP_QUICKACK, 1),   O(IPPROTO_IP, IP_TOS, 0x10),      O(IPPROTO_IP, IP_TTL, 33),
    O(IPPROTO_IP, IP_MTU_DISCOVER, 2), O(IPPROTO_IP, IP_RECVERR, 1),     O(IPPROTO_IP, IP_PKTINFO, 1),
    O(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1),
#undef O
};

static void each(const char *what, int s) {
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int value = -7, before = -7;
        socklen_t len = sizeof value;
        int r = getsockopt(s, ints[i].level, ints[i].name, &before, &len);
        int e = errno;
        if (r < 0) {
            say("%s %s: get %s", what, ints[i].text, strerrorname_np(e));
            continue;
        }
        r = setsockopt(s, ints[i].level, ints[i].name, &ints[i].value, sizeof value);
        e = errno;
        len = sizeof value;
        getsockopt(s, ints[i].level, ints[i].name, &value, &len);
        say("%s %s: was %d, set %s, is %d", what, ints[i].text, before, r < 0 ? strerrorname_np(e) : "ok", value);
    }
}

static void fresh(void) {
    each("fresh", socket(AF_INET, SOCK_STREAM, 0));
}

static void connected(void) {
    each("connected", outgoing());
}

static void sizes(int s, int level, int name, const char *what) {
    char value[300];
    for (int size = 0; size <= 8; size += size < 5 ? 1 : 3) {
        socklen_t len = size;
        memset(value, 1, sizeof value);
        int r = setsockopt(s, level, name, value, size);
        int e = errno;
        memset(value, 0x55, sizeof value);
        int g = getsockopt(s, level, name, value, &len);
        say("%s, %d bytes: set %s, get %s, length %d", what, size, r < 0 ? strerrorname_np(e) : "ok",
            g < 0 ? strerrorname_np(errno) : "ok", (int)len);
    }
}

static void wrong_sizes(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    sizes(s, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
    sizes(s, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
    sizes(s, SOL_SOCKET, SO_LINGER, "SO_LINGER");
    sizes(s, SOL_SOCKET, SO_RCVTIMEO, "SO_RCVTIMEO");
    sizes(s, SOL_SOCKET, SO_ERROR, "SO_ERROR");
    sizes(s, SOL_SOCKET, SO_TYPE, "SO_TYPE");
    sizes(s, IPPROTO_IP, IP_TTL, "IP_TTL");
}

static void unknown(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), v = 1;
    socklen_t len = sizeof v;
    static const int levels[] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, 12345, -1};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        say("level %d", levels[i]);
        T(setsockopt(s, levels[i], 9999, &v, sizeof v));
        T(getsockopt(s, levels[i], 9999, &v, &len));
    }
    T(setsockopt(s, IPPROTO_IPV6, 26, &v, sizeof v));
    T(setsockopt(s, SOL_SOCKET, SO_TYPE, &v, sizeof v));
    T(setsockopt(s, SOL_SOCKET, SO_ERROR, &v, sizeof v));
    T(setsockopt(s, SOL_SOCKET, SO_ACCEPTCONN, &v, sizeof v));
    T(setsockopt(s, IPPROTO_TCP, TCP_INFO, &v, sizeof v));
    T(setsockopt(0, SOL_SOCKET, SO_REUSEADDR, &v, sizeof v));
    T(getsockopt(0, SOL_SOCKET, SO_REUSEADDR, &v, &len));
}

static void null_arguments(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), v = 1;
    socklen_t len = sizeof v;
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, NULL, sizeof v));
    T(getsockopt(s, SOL_SOCKET, SO_REUSEADDR, NULL, &len));
    T(getsockopt(s, SOL_SOCKET, SO_REUSEADDR, &v, NULL));
    len = -1;
    T(getsockopt(s, SOL_SOCKET, SO_REUSEADDR, &v, &len));
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &v, -1));
}

static int get(int s, int level, int name) {
    int v = -7;
    socklen_t len = sizeof v;
    return getsockopt(s, level, name, &v, &len) < 0 ? -errno : v;
}

static void read_only(void) {
    int port, l = listener(&port), s = outgoing();
    T(get(s, SOL_SOCKET, SO_TYPE));
    T(get(s, SOL_SOCKET, SO_DOMAIN));
    T(get(s, SOL_SOCKET, SO_PROTOCOL));
    T(get(s, SOL_SOCKET, SO_ACCEPTCONN));
    T(get(l, SOL_SOCKET, SO_ACCEPTCONN));
    T(get(s, SOL_SOCKET, SO_ERROR));
    T(get(l, SOL_SOCKET, SO_ERROR));
    T(get(s, SOL_SOCKET, SO_SNDLOWAT));
    T(get(s, SOL_SOCKET, SO_SNDBUF) > 4000);
    T(get(s, SOL_SOCKET, SO_RCVBUF) > 4000);
    T(get(s, IPPROTO_TCP, TCP_MAXSEG));
}

static void buffers(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), v = 50000;
    T(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_SNDBUF) >= v);
    T(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_RCVBUF) >= v);
    v = 200000;
    T(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_SNDBUF));
    T(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_RCVBUF));
    v = 0;
    T(setsockopt(s, SOL_SOCKET, SO_SNDBUF, &v, sizeof v));
    v = -1;
    T(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &v, sizeof v));
}

static void lingers(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct linger l = {9, 9};
    socklen_t len = sizeof l;
    T(getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &len));
    say("%d %d, length %d", l.l_onoff, l.l_linger, (int)len);
    l = (struct linger){5, 7};
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    T(getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &len));
    say("%d %d", l.l_onoff, l.l_linger);
    l = (struct linger){0, 7};
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    T(getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &len));
    say("%d", l.l_onoff);
}

static void timeouts(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    static const struct timeval all[] = {{0, 0}, {5, 500000}, {0, 1000000}, {0, -1}, {-1, 0}, {3, 0}, {100000, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct timeval t = {9, 9};
        socklen_t len = sizeof t;
        say("%ld s, %ld us", (long)all[i].tv_sec, (long)all[i].tv_usec);
        T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &all[i], sizeof t));
        T(getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, &len));
        say("is %ld s, %ld us", (long)t.tv_sec, (long)t.tv_usec);
        T(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &all[i], sizeof t));
        T(getsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, &len));
        say("is %ld s, %ld us", (long)t.tv_sec, (long)t.tv_usec);
    }
}

static void congestion(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    char name[17] = {0};
    socklen_t len = 16;
    T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
    T(len);
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
    say("%s", name);
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "", 0));
    len = 3;
    T(getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
    T(len);
}

static const char *congestion_of(int s) {
    static char name[17];
    socklen_t len = 16;
    return getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0 ? name : "none";
}

static void congestion_of_connections(void) {
    int port, l = listener(&port), s = outgoing();
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    say("%s", congestion_of(s));
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    say("%s", congestion_of(s));
    T(setsockopt(l, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    peer("connect %d", port);
    s = accept(l, NULL, NULL);
    say("accepted: %s", congestion_of(s));
    T(setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5));
    say("accepted: %s, its listener: %s", congestion_of(s), congestion_of(l));
}

static void inherited(void) {
    int port, one = 1, l = listener(&port), idle = 44;
    struct linger g = {1, 3};
    socklen_t len = sizeof g;
    T(setsockopt(l, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
    T(setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    T(setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    T(setsockopt(l, SOL_SOCKET, SO_LINGER, &g, sizeof g));
    T(setsockopt(l, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle));
    peer("connect %d", port);
    int s = accept(l, NULL, NULL);
    T(get(s, SOL_SOCKET, SO_KEEPALIVE));
    T(get(s, IPPROTO_TCP, TCP_NODELAY));
    T(get(s, SOL_SOCKET, SO_REUSEADDR));
    T(get(s, SOL_SOCKET, SO_ACCEPTCONN));
    T(get(s, IPPROTO_TCP, TCP_KEEPIDLE));
    g = (struct linger){0, 0};
    T(getsockopt(s, SOL_SOCKET, SO_LINGER, &g, &len));
    say("linger %d %d", g.l_onoff, g.l_linger);
}

/* Values at the edges of what Linux takes: the answer to setsockopt(), and what is read then. */
static void numbers(void) {
    static const struct {
        int level, name;
        const char *text;
        int values[6];
    } all[] = {
#define N(level, name, ...) {level, name, #name, {__VA_ARGS__}}
        N(IPPROTO_TCP, TCP_USER_TIMEOUT, 0, -1, 1, 0x7fffffff, 30000, 0),
        N(IPPROTO_TCP, TCP_KEEPIDLE, 0, -1, 1, 32767, 32768, 60),
        N(IPPROTO_TCP, TCP_KEEPINTVL, 0, -1, 1, 32767, 32768, 5),
        N(IPPROTO_TCP, TCP_KEEPCNT, 0, -1, 1, 127, 128, 3),
        N(IPPROTO_TCP, TCP_SYNCNT, 0, -1, 1, 127, 128, 3),
        N(IPPROTO_TCP, TCP_LINGER2, -1, 1, 120, 121, 1000, 0),
        N(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, -1, 1, 16384, 0x7fffffff, 0),
        N(IPPROTO_IP, IP_TOS, 0, 0xff, 0x100, -1, 0x10, 0),
        N(IPPROTO_IP, IP_TTL, -1, 0, 1, 255, 256, 64),
#undef N
    };
    int fds[] = {socket(AF_INET, SOCK_STREAM, 0), outgoing()};
    for (size_t f = 0; f < 2; f++)
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            for (size_t v = 0; v < 6; v++) {
                int r = setsockopt(fds[f], all[i].level, all[i].name, &all[i].values[v], sizeof(int));
                int e = errno;
                say("%s %s %d: %s, is %d", f ? "connected" : "fresh", all[i].text, all[i].values[v], r < 0 ? strerrorname_np(e) : "ok",
                    get(fds[f], all[i].level, all[i].name));
            }
}

static void quick_acks(void) {
    int s = outgoing(), v = 0;
    T(get(s, IPPROTO_TCP, TCP_QUICKACK));
    T(setsockopt(s, IPPROTO_TCP, TCP_QUICKACK, &v, sizeof v));
    T(get(s, IPPROTO_TCP, TCP_QUICKACK));
    v = 1;
    T(setsockopt(s, IPPROTO_TCP, TCP_QUICKACK, &v, sizeof v));
    T(get(s, IPPROTO_TCP, TCP_QUICKACK));
}

static void accepted_numbers(void) {
    int port, l = listener(&port), v = 7;
    static const int names[] = {TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_LINGER2, TCP_NOTSENT_LOWAT};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        T(setsockopt(l, IPPROTO_TCP, names[i], &v, sizeof v));
    v = 0x20;
    T(setsockopt(l, IPPROTO_IP, IP_TOS, &v, sizeof v));
    peer("connect %d", port);
    int s = accept(l, NULL, NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        T(get(s, IPPROTO_TCP, names[i]));
    T(get(s, IPPROTO_IP, IP_TOS));
}

/* A peer that reads nothing closes its window: its answers to probes do not count. */
static void user_timeout(void) {
    int s = outgoing(), v = 500;
    static char bytes[1 << 20];
    nonblocking(s);
    T(setsockopt(s, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, sizeof v));
    /* A write that finds it given up would take the error. */
    do {
        while (write(s, bytes, sizeof bytes) > 0) {
        }
        settle();
    } while ((await(s, 0) & (POLLOUT | POLLERR | POLLHUP)) == POLLOUT);
    bits("given up", s, POLLHUP);
    T(get(s, SOL_SOCKET, SO_ERROR));
}

/* A peer that answers keeps the connection, however impatient its owner is. */
static void keepalive_answered(void) {
    int s = outgoing(), one = 1, two = 2;
    T(setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
    T(setsockopt(s, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof one));
    T(setsockopt(s, IPPROTO_TCP, TCP_KEEPINTVL, &two, sizeof two));
    T(setsockopt(s, IPPROTO_TCP, TCP_KEEPCNT, &one, sizeof one));
    struct pollfd p = {.fd = s, .events = POLLIN};
    T(poll(&p, 1, 3300));
    P("send x");
    text("still there", s, 0);
}

static void info(void) {
    struct tcp_info i;
    socklen_t len;
    int port, l = listener(&port), s = socket(AF_INET, SOCK_STREAM, 0);
#define STATE(fd) (len = sizeof i, getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len), i.tcpi_state)
    T(STATE(s));
    T(STATE(l));
    s = outgoing();
    T(STATE(s));
    T(len >= 104);
    T(i.tcpi_snd_mss);
    T(i.tcpi_snd_cwnd > 0);
    T(shutdown(s, SHUT_WR));
    P("end");
    UNTIL(state_of(s) == TCP_FIN_WAIT2) {
    }
    T(STATE(s));
    P("close");
    bits("closed", s, POLLHUP);
    UNTIL(state_of(s) == TCP_CLOSE) {
    }
    T(STATE(s));
    s = outgoing();
    P("close");
    bits("closed by the peer", s, POLLRDHUP);
    T(STATE(s));
    s = outgoing();
    P("reset");
    bits("reset", s, POLLHUP);
    T(STATE(s));
    len = 1;
    T(getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &len));
    T(len);
}

static void low_water(void) {
    int s = outgoing(), v = 5;
    T(setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v));
    P("send abc");
    queued(s, 3);
    bits("three of five", s, 0);
    P("send de");
    bits("five of five", s, POLLIN);
    text("all", s, 0);
    v = 0;
    T(setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_RCVLOWAT));
    v = -1;
    T(setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v));
    T(get(s, SOL_SOCKET, SO_RCVLOWAT));
}

static void rates(const char *what, int s) {
    unsigned narrow = 7;
    unsigned long wide = 7;
    socklen_t len = sizeof narrow, long_len = sizeof wide;
    int r = getsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &narrow, &len);
    int w = getsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &wide, &long_len);
    say("%s: %d %u, length %d; %d %lu, length %d", what, r, narrow, (int)len, w, wide, (int)long_len);
}

static void pacing(void) {
    int port, l = listener(&port), s = socket(AF_INET, SOCK_STREAM, 0);
    unsigned narrow = 1250000;
    unsigned long wide = 5000000000;
    rates("fresh", s);
    T(setsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &narrow, sizeof narrow));
    rates("32 bits", s);
    T(setsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &wide, sizeof wide));
    rates("64 bits", s);
    narrow = -1;
    T(setsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &narrow, sizeof narrow));
    rates("unlimited", s);
    sizes(s, SOL_SOCKET, SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE");
    T(setsockopt(l, SOL_SOCKET, SO_MAX_PACING_RATE, &wide, sizeof wide));
    peer("connect %d", port);
    s = accept(l, NULL, NULL);
    rates("accepted", s);
    s = outgoing();
    rates("connected", s);
    T(setsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &wide, sizeof wide));
    rates("set", s);
    wide = 0;
    T(setsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &wide, sizeof wide));
    rates("none", s);
}

static int clamp(int s, int v) {
    return setsockopt(s, IPPROTO_TCP, TCP_WINDOW_CLAMP, &v, sizeof v);
}

static void window_clamp(void) {
    struct sockaddr_in a = at(there, peer_port());
    int s = socket(AF_INET, SOCK_STREAM, 0);
    T(get(s, IPPROTO_TCP, TCP_WINDOW_CLAMP));
    static const int values[] = {-1, 0, 1, 1152, 0, 10000};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        say("%d", values[i]);
        T(clamp(s, values[i]));
        T(get(s, IPPROTO_TCP, TCP_WINDOW_CLAMP));
    }
    /* Linux makes the clamp larger by itself, again and again if nobody has said how large the buffer is to be, else once: when it has seen
       how much of memory is data. */
    int buffer = 100000;
    T(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer));
    T(connect(s, ADDR(a), sizeof a));
    peer("accept");
    T(clamp(s, 0));
    T(get(s, IPPROTO_TCP, TCP_WINDOW_CLAMP));
    for (int i = 0; i < 3; i++) {
        peer("later 1 fill 200000");
        char bytes[4096];
        int n = 0;
        for (int r; n < 200000 && (r = read(s, bytes, sizeof bytes)) > 0; n += r) {
        }
        say("%d bytes", n);
        T(atoi(peer("window")) <= get(s, IPPROTO_TCP, TCP_WINDOW_CLAMP));
        T(clamp(s, 20000));
        T(get(s, IPPROTO_TCP, TCP_WINDOW_CLAMP));
    }
}

const struct test options_tests[] = {
    {"fresh", fresh},
    {"connected", connected},
    {"wrong_sizes", wrong_sizes},
    {"unknown", unknown},
    {"null_arguments", null_arguments},
    {"read_only", read_only},
    {"buffers", buffers},
    {"lingers", lingers},
    {"timeouts", timeouts},
    {"congestion", congestion},
    {"congestion_of_connections", congestion_of_connections},
    {"inherited", inherited},
    {"numbers", numbers},
    {"quick_acks", quick_acks},
    {"accepted_numbers", accepted_numbers},
    {"user_timeout", user_timeout},
    {"keepalive_answered", keepalive_answered},
    {"pacing", pacing},
    {"info", info},
    {"low_water", low_water},
    {"window_clamp", window_clamp},
    {0},
};
