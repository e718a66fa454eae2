/* epoll: triggers, errors, kernel descriptors beside sockets, instances in instances. */
#include "probe.h"

#include <sys/syscall.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static void add(int e, int fd, unsigned events) {
    struct epoll_event ev = {.events = events, .data.u64 = 100 + fd};
    if (epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev) < 0) {
        say("cannot add: %s", strerrorname_np(errno));
    }
}

static void mod(int e, int fd, unsigned events) {
    struct epoll_event ev = {.events = events, .data.u64 = 100 + fd};
    if (epoll_ctl(e, EPOLL_CTL_MOD, fd, &ev) < 0) {
        say("cannot modify: %s", strerrorname_np(errno));
    }
}

static const char *names_of(unsigned events) {
    return poll_names(events & 0xffff);
}

/* Waits, and prints the events of `fds`, in their order. */
static void show(const char *what, int e, int ms, const int *fds, int n) {
    struct epoll_event ev[20];
    int got = epoll_wait(e, ev, 20, ms);
    if (got < 0) {
        say("%s: -1 %s", what, strerrorname_np(errno));
        return;
    }
    char line[300];
    int at = snprintf(line, sizeof line, "%s: %d", what, got);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < got; j++) {
            if (ev[j].data.u64 == 100 + (unsigned)fds[i]) {
                at += snprintf(line + at, sizeof line - at, ", %d %s", i, names_of(ev[j].events));
            }
        }
    }
    say("%s", line);
}
#define SHOW(what, e, ms, ...) show(what, e, ms, (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int))

static void errors(void) {
    struct epoll_event ev = {.events = EPOLLIN};
    int e = F(epoll_create1(EPOLL_CLOEXEC)), s = outgoing();
    T(epoll_create1(0x1234));
    T(epoll_create(0));
    F(epoll_create(5));
    T(epoll_ctl(e, EPOLL_CTL_MOD, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_DEL, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(e, 17, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_ADD, 999, &ev));
    T(epoll_ctl(e, EPOLL_CTL_ADD, e, &ev));
    T(epoll_ctl(s, EPOLL_CTL_ADD, e, &ev));
    T(epoll_ctl(s, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(-1, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(0, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_MOD, s, NULL));
    T(epoll_ctl(e, EPOLL_CTL_DEL, s, NULL));
    T(epoll_ctl(e, EPOLL_CTL_DEL, s, NULL));
    FILE *f = tmpfile();
    T(epoll_ctl(e, EPOLL_CTL_ADD, fileno(f), &ev));
    T(epoll_wait(e, &ev, 0, 0));
    T(epoll_wait(e, &ev, -1, 0));
    T(epoll_wait(s, &ev, 1, 0));
    T(epoll_wait(999, &ev, 1, 0));
    T(epoll_wait(e, &ev, 1, 0));
    T(epoll_wait(e, &ev, 1, 30));
    T(fcntl(e, F_GETFD));
    ev.events = EPOLLEXCLUSIVE | EPOLLONESHOT;
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    ev.events = EPOLLEXCLUSIVE | EPOLLIN;
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_MOD, s, &ev));
}

static void level(void) {
    int e = epoll_create1(0), s = outgoing();
    add(e, s, EPOLLIN);
    SHOW("nothing", e, 0, s);
    P("send ab");
    SHOW("bytes", e, 5000, s);
    SHOW("still", e, 0, s);
    text("take", s, 0);
    SHOW("taken", e, 0, s);
    mod(e, s, EPOLLIN | EPOLLOUT);
    SHOW("writable", e, 0, s);
    SHOW("still writable", e, 0, s);
    mod(e, s, 0);
    SHOW("asked for nothing", e, 0, s);
    P("shutdown wr");
    await(s, POLLRDHUP);
    SHOW("asked for nothing", e, 0, s);
    mod(e, s, EPOLLIN | EPOLLRDHUP);
    SHOW("the end", e, 0, s);
    P("reset");
    bits("reset", s, POLLHUP);
    mod(e, s, 0);
    SHOW("reset", e, 0, s);
}

static void edge(void) {
    int e = epoll_create1(0), s = outgoing();
    add(e, s, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    SHOW("added", e, 0, s);
    SHOW("once", e, 0, s);
    P("send ab");
    SHOW("bytes", e, 5000, s);
    SHOW("once", e, 30, s);
    P("send cd");
    SHOW("more bytes", e, 5000, s);
    SHOW("once", e, 30, s);
    char c[2];
    T(read(s, c, 2));
    SHOW("some taken", e, 30, s);
    mod(e, s, EPOLLIN | EPOLLRDHUP | EPOLLET);
    SHOW("modified", e, 0, s);
    SHOW("once", e, 0, s);
    text("take", s, 0);
    P("shutdown wr");
    SHOW("the end", e, 5000, s);
    echoes(e);
    SHOW("once", e, 0, s);
}

static void edge_writable(void) {
    int e = epoll_create1(0), s = outgoing();
    nonblocking(s);
    add(e, s, EPOLLOUT | EPOLLET);
    SHOW("added", e, 0, s);
    T(write(s, "x", 1));
    SHOW("after a little write", e, 30, s);
    long n = fill(s);
    SHOW("full", e, 30, s);
    peer("skip %ld", n + 1);
    SHOW("drained", e, 5000, s);
    SHOW("once", e, 30, s);
}

static void one_shot(void) {
    int e = epoll_create1(0), s = outgoing();
    add(e, s, EPOLLIN | EPOLLONESHOT);
    P("send a");
    SHOW("bytes", e, 5000, s);
    SHOW("once", e, 0, s);
    P("send b");
    queued(s, 2);
    SHOW("more, disabled", e, 0, s);
    mod(e, s, EPOLLIN | EPOLLONESHOT);
    SHOW("armed again", e, 0, s);
    SHOW("once", e, 0, s);
    P("reset");
    bits("reset", s, POLLHUP);
    SHOW("disabled for errors as well", e, 0, s);
    mod(e, s, EPOLLIN | EPOLLONESHOT);
    SHOW("armed again", e, 0, s);
}

static void accepting(void) {
    int port, e = epoll_create1(0), l = listener(&port);
    add(e, l, EPOLLIN | EPOLLET);
    SHOW("nothing", e, 0, l);
    peer("connect %d", port);
    SHOW("one", e, 5000, l);
    SHOW("once", e, 30, l);
    peer("connect %d", port);
    SHOW("two", e, 5000, l);
    accept(l, NULL, NULL);
    SHOW("one left", e, 30, l);
    mod(e, l, EPOLLIN);
    SHOW("level", e, 0, l);
    accept(l, NULL, NULL);
    SHOW("none left", e, 0, l);
}

static void connecting(void) {
    int e = epoll_create1(0), s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = at(there, peer_port());
    add(e, s, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    SHOW("fresh", e, 0, s);
    SHOW("once", e, 0, s);
    T(connect(s, ADDR(a), sizeof a));
    SHOW("connected", e, 5000, s);
    SHOW("once", e, 30, s);
    int port = peer_port();
    peer("unlisten");
    a = at(there, port);
    s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    T(connect(s, ADDR(a), sizeof a));
    add(e, s, EPOLLOUT);
    await(s, POLLHUP);
    SHOW("refused", e, 0, s);
}

static void mixed(void) {
    int e = epoll_create1(0), s = outgoing(), pipes[2], unix_pair[2], event = eventfd(0, 0);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int sig = signalfd(-1, &set, 0);
    T(pipe(pipes));
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair));
    add(e, s, EPOLLIN);
    add(e, pipes[0], EPOLLIN);
    add(e, event, EPOLLIN);
    add(e, timer, EPOLLIN);
    add(e, sig, EPOLLIN);
    add(e, unix_pair[0], EPOLLIN | EPOLLET);
    add(e, udp, EPOLLIN);
#define ALL s, pipes[0], event, timer, sig, unix_pair[0]
    SHOW("nothing", e, 0, ALL);
    struct itimerspec when = {.it_value.tv_nsec = 50000000};
    timerfd_settime(timer, 0, &when, NULL);
    SHOW("timer", e, 5000, ALL);
    unsigned long long n;
    T(read(timer, &n, 8));
    n = 1;
    T(write(event, &n, 8));
    SHOW("event", e, 5000, ALL);
    raise(SIGUSR2);
    SHOW("event, signal", e, 5000, ALL);
    P("send x");
    queued(s, 1);
    T(write(pipes[1], "x", 1));
    T(write(unix_pair[1], "x", 1));
    /* Not all need come in one answer, but all come. */
    int seen = 0;
    for (int i = 0; i < 50; i++) {
        struct epoll_event ev[20];
        int got = epoll_wait(e, ev, 20, 0), fds[] = {ALL};
        for (int j = 0; j < got; j++) {
            for (int k = 0; k < 6; k++) {
                seen |= (ev[j].data.u64 == 100 + (unsigned)fds[k]) << k;
            }
        }
    }
    T(seen);
    struct epoll_event one;
    seen = 0;
    for (int i = 0; i < 100; i++) {
        int fds[] = {ALL};
        if (epoll_wait(e, &one, 1, 0) == 1) {
            for (int k = 0; k < 6; k++) {
                seen |= (one.data.u64 == 100 + (unsigned)fds[k]) << k;
            }
        }
    }
    say("one at a time: %d", seen);
}

static void mixed_wakes(void) {
    int e = epoll_create1(0), s = outgoing(), pipes[2];
    char c;
    T(pipe(pipes));
    add(e, s, EPOLLIN);
    add(e, pipes[0], EPOLLIN);
    P("later 60 send x");
    SHOW("socket", e, 5000, s, pipes[0]);
    T(read(s, &c, 1));
    if (fork() == 0) {
        usleep(60000);
        write(pipes[1], "x", 1);
        _exit(0);
    }
    SHOW("pipe", e, 5000, s, pipes[0]);
}

static void nested(void) {
    int outer = epoll_create1(0), inner = epoll_create1(0), s = outgoing();
    struct epoll_event ev = {.events = EPOLLIN};
    add(inner, s, EPOLLIN);
    add(outer, inner, EPOLLIN);
    T(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &ev));
    SHOW("nothing", outer, 0, inner);
    bits("inner", inner, 0);
    P("later 60 send x");
    SHOW("outer wakes", outer, 5000, inner);
    SHOW("outer still", outer, 0, inner);
    SHOW("inner", inner, 0, s);
    bits("inner polled", inner, POLLIN);
    bits("outer polled", outer, POLLIN);
    text("take", s, 0);
    SHOW("outer", outer, 0, inner);
    bits("outer polled", outer, 0);
    int pipes[2];
    T(pipe(pipes));
    add(inner, pipes[0], EPOLLIN);
    T(write(pipes[1], "x", 1));
    SHOW("pipe in inner", outer, 5000, inner);
    P("send y");
    queued(s, 1);
    SHOW("both in inner", outer, 5000, inner);
    T(epoll_ctl(outer, EPOLL_CTL_DEL, inner, NULL));
    SHOW("removed", outer, 0, inner);
}

static void nested_edge(void) {
    int outer = epoll_create1(0), inner = epoll_create1(0), s = outgoing();
    add(inner, s, EPOLLIN);
    add(outer, inner, EPOLLIN | EPOLLET);
    P("send x");
    SHOW("outer", outer, 5000, inner);
    SHOW("outer once", outer, 0, inner);
    P("send y");
    SHOW("more", outer, 5000, inner);
    SHOW("inner", inner, 0, s);
    T(close(inner));
    SHOW("inner closed", outer, 0, inner);
}

static void poll_an_instance(void) {
    int e = epoll_create1(0), s = outgoing();
    struct pollfd p = {.fd = e, .events = POLLIN | POLLOUT};
    add(e, s, EPOLLIN);
    T(poll(&p, 1, 0));
    P("later 60 send x");
    T(poll(&p, 1, 5000));
    say("%s", poll_names(p.revents));
    text("take", s, 0);
    T(poll(&p, 1, 0));
    T(read(e, &p, 8));
    T(write(e, &p, 8));
}

static void closed_sockets(void) {
    int e = epoll_create1(0), s = outgoing(), t = outgoing();
    add(e, s, EPOLLIN | EPOLLOUT);
    add(e, t, EPOLLIN | EPOLLOUT);
    SHOW("both", e, 0, s, t);
    T(close(s));
    SHOW("one closed", e, 0, s, t);
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(e, EPOLL_CTL_MOD, s, &ev));
    T(epoll_ctl(e, EPOLL_CTL_DEL, s, &ev));
    int again = outgoing();
    T(again == s);
    SHOW("its number again", e, 0, again, t);
    add(e, again, EPOLLOUT);
    SHOW("added", e, 0, again, t);
}

static void closed_with_a_copy(void) {
    int e = epoll_create1(0), s = outgoing(), d = dup(s);
    add(e, s, EPOLLIN);
    T(close(s));
    P("send x");
    queued(d, 1);
    SHOW("the copy is open", e, 0, s);
    T(close(d));
    SHOW("closed", e, 0, s);
}

static void copies(void) {
    int e = epoll_create1(0), s = outgoing(), d = dup(s);
    add(e, s, EPOLLIN);
    add(e, d, EPOLLOUT);
    P("send x");
    queued(s, 1);
    SHOW("both numbers", e, 0, s, d);
    int e2 = dup(e);
    SHOW("a copy of the instance", e2, 0, s, d);
    T(close(e));
    SHOW("the copy alone", e2, 0, s, d);
}

static void two_instances(void) {
    int e = epoll_create1(0), f = epoll_create1(0), s = outgoing();
    add(e, s, EPOLLIN);
    add(f, s, EPOLLIN | EPOLLET);
    P("send x");
    queued(s, 1);
    SHOW("first", e, 0, s);
    SHOW("second", f, 0, s);
    SHOW("second once", f, 0, s);
    SHOW("first", e, 0, s);
}

static void fairness(void) {
    int e = epoll_create1(0), s[5], seen = 0;
    for (int i = 0; i < 5; i++) {
        s[i] = outgoing();
        add(e, s[i], EPOLLOUT);
    }
    struct epoll_event ev[2];
    for (int i = 0; i < 5; i++) {
        int n = epoll_wait(e, ev, 2, 0);
        for (int j = 0; j < n; j++) {
            for (int k = 0; k < 5; k++) {
                seen |= (ev[j].data.u64 == 100 + (unsigned)s[k]) << k;
            }
        }
    }
    T(seen);
}

static void closed_instance(void) {
    int e = epoll_create1(0), s = outgoing();
    struct epoll_event ev;
    add(e, s, EPOLLIN);
    T(close(e));
    T(epoll_wait(e, &ev, 1, 0));
    T(epoll_ctl(e, EPOLL_CTL_DEL, s, &ev));
    P("send x");
    text("goes on", s, 0);
    e = epoll_create1(0);
    SHOW("a new one is empty", e, 0, s);
}

static void *waits(void *arg) {
    struct epoll_event ev;
    return (void *)(long)epoll_wait((int)(long)arg, &ev, 1, 2000);
}

static void exclusive_wakes_one(void) {
    int port, l = listener(&port), woken = 0;
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        int e = epoll_create1(0);
        add(e, l, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET);
        t[i] = thread(waits, e);
    }
    asleep();
    peer("connect %d", port);
    for (int i = 0; i < 3; i++) {
        void *n;
        pthread_join(t[i], &n);
        woken += (long)n == 1;
    }
    T(woken >= 1);
}

static void add_while_another_waits(void) {
    int e = epoll_create1(0), s = outgoing();
    P("send x");
    queued(s, 1);
    pthread_t t = thread(waits, e);
    asleep();
    add(e, s, EPOLLIN);
    void *n;
    pthread_join(t, &n);
    T((long)n);
}

/* As ivykis and others do, whose libc had no name for these calls once. */
static void by_number(void) {
    int port, l = listener(&port), e = syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = 7};
    T(syscall(SYS_epoll_ctl, e, EPOLL_CTL_ADD, l, &ev));
    peer("connect %d", port);
    memset(&ev, 0, sizeof ev);
    T(syscall(SYS_epoll_pwait, e, &ev, 1, 5000, NULL, 8));
    T(ev.data.u32);
    int s = syscall(SYS_accept4, l, NULL, NULL, SOCK_NONBLOCK);
    T(fcntl(s, F_GETFL) & O_NONBLOCK);
    text("nothing yet", s, 0);
    int copy = syscall(SYS_dup, s);
    T(syscall(SYS_close, s));
    T(write(copy, "hello", 5));
    P("recv 5");
    T(syscall(SYS_close_range, copy, copy, 0));
    P("end");
    T(write(copy, "x", 1));
}

const struct test epoll_tests[] = {
    {"by_number", by_number},
    {"errors", errors},
    {"level", level},
    {"edge", edge},
    {"edge_writable", edge_writable},
    {"one_shot", one_shot},
    {"accepting", accepting},
    {"connecting", connecting},
    {"mixed", mixed},
    {"mixed_wakes", mixed_wakes},
    {"nested", nested},
    {"nested_edge", nested_edge},
    {"poll_an_instance", poll_an_instance},
    {"closed_sockets", closed_sockets},
    {"closed_with_a_copy", closed_with_a_copy},
    {"copies", copies},
    {"two_instances", two_instances},
    {"fairness", fairness},
    {"closed_instance", closed_instance},
    {"exclusive_wakes_one", exclusive_wakes_one},
    {"add_while_another_waits", add_while_another_waits},
    {0},
};
