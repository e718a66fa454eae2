/* poll and select, alone and mixed with the kernel's descriptors. */
#include "probe.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>

static void poll_times_out(void) {
    int s = outgoing();
    struct pollfd p = {.fd = s, .events = POLLIN};
    T(poll(&p, 1, 0));
    T(poll(&p, 1, 30));
    T(p.revents);
    struct timespec t = {0, 30000000};
    T(ppoll(&p, 1, &t, NULL));
    t.tv_nsec = 2000000000;
    T(ppoll(&p, 1, &t, NULL));
    t = (struct timespec){-1, 0};
    T(ppoll(&p, 1, &t, NULL));
    T(poll(NULL, 0, 10));
    T(poll(NULL, 1, 10));
}

static void poll_wakes(void) {
    int s = outgoing();
    struct pollfd p = {.fd = s, .events = POLLIN};
    P("later 60 send x");
    T(poll(&p, 1, 5000));
    say("%s", poll_names(p.revents));
    p.events = 0;
    T(poll(&p, 1, 0));
    p.events = POLLRDHUP;
    P("later 60 shutdown wr");
    T(poll(&p, 1, 5000));
    say("%s", poll_names(p.revents));
    p.events = 0;
    P("later 60 reset");
    T(poll(&p, 1, 5000));
    say("%s", poll_names(p.revents));
}

static void poll_many(void) {
    int s = outgoing(), t = outgoing(), e = eventfd(0, 0), port, l = listener(&port);
    struct pollfd p[] = {{.fd = s, .events = POLLIN | POLLOUT}, {.fd = t, .events = POLLIN},  {.fd = e, .events = POLLIN | POLLOUT},
                         {.fd = l, .events = POLLIN},           {.fd = -1, .events = POLLIN}, {.fd = 999, .events = POLLIN},
                         {.fd = s, .events = POLLIN}};
    peer("connect %d", port);
    P("use 1");
    P("send x");
    queued(t, 1);
    bits("listener", l, POLLIN);
    T(poll(p, 7, 1000));
    for (int i = 0; i < 7; i++) {
        say("%d: %s", i, poll_names(p[i].revents));
    }
    p[0].events = 0x7fff;
    T(poll(p, 1, 0));
    say("all bits: %#x", p[0].revents);
}

static void poll_mixed_wakes(void) {
    int s = outgoing(), pipes[2];
    T(pipe(pipes));
    struct pollfd p[] = {{.fd = s, .events = POLLIN}, {.fd = pipes[0], .events = POLLIN}};
    P("later 60 send x");
    T(poll(p, 2, 5000));
    say("%s", poll_names(p[0].revents));
    char c;
    T(read(s, &c, 1));
    if (fork() == 0) {
        usleep(60000);
        write(pipes[1], "x", 1);
        _exit(0);
    }
    T(poll(p, 2, 5000));
    say("%s", poll_names(p[0].revents));
    say("%s", poll_names(p[1].revents));
}

static void writable(void) {
    int s = outgoing();
    nonblocking(s);
    struct pollfd p = {.fd = s, .events = POLLOUT};
    T(poll(&p, 1, 0));
    long n = fill(s);
    T(poll(&p, 1, 0));
    P("later 60 skip 1");
    T(poll(&p, 1, 200));
    peer("later 60 skip %ld", n - 1);
    T(poll(&p, 1, 5000));
    say("%s", poll_names(p.revents));
}

static void select_sets(void) {
    int s = outgoing(), t = outgoing();
    P("send x");
    queued(t, 1);
    fd_set r, w, e;
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_ZERO(&e);
    FD_SET(s, &r);
    FD_SET(t, &r);
    FD_SET(s, &w);
    FD_SET(s, &e);
    struct timeval v = {1, 0};
    T(select(t + 1, &r, &w, &e, &v));
    say("%d %d %d %d", FD_ISSET(s, &r) != 0, FD_ISSET(t, &r) != 0, FD_ISSET(s, &w) != 0, FD_ISSET(s, &e) != 0);
    FD_ZERO(&r);
    FD_SET(s, &r);
    v = (struct timeval){0, 30000};
    T(select(s + 1, &r, NULL, NULL, &v));
    T(FD_ISSET(s, &r));
    say("%ld %ld", (long)v.tv_sec, (long)v.tv_usec);
    FD_SET(s, &r);
    v = (struct timeval){-1, 0};
    T(select(s + 1, &r, NULL, NULL, &v));
    v = (struct timeval){0, 1500000};
    FD_SET(t, &r);
    T(select(t + 1, &r, NULL, NULL, &v));
    T(select(-1, &r, NULL, NULL, &v));
    FD_ZERO(&r);
    FD_SET(s, &r);
    int closed = dup(0);
    close(closed);
    FD_SET(closed, &r);
    T(select(closed + 1, &r, NULL, NULL, &v));
    P("use 0");
    P("reset");
    bits("reset", s, POLLHUP);
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_ZERO(&e);
    FD_SET(s, &r);
    FD_SET(s, &w);
    FD_SET(s, &e);
    T(select(s + 1, &r, &w, &e, NULL));
    say("%d %d %d", FD_ISSET(s, &r) != 0, FD_ISSET(s, &w) != 0, FD_ISSET(s, &e) != 0);
}

static void pselects(void) {
    int s = outgoing();
    fd_set r;
    FD_ZERO(&r);
    FD_SET(s, &r);
    struct timespec t = {0, 30000000};
    T(pselect(s + 1, &r, NULL, NULL, &t, NULL));
    T(t.tv_nsec);
    P("later 60 send x");
    FD_SET(s, &r);
    T(pselect(s + 1, &r, NULL, NULL, NULL, NULL));
    t.tv_nsec = -1;
    T(pselect(s + 1, &r, NULL, NULL, &t, NULL));
}

static void masks(void) {
    int s = outgoing();
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR1);
    struct pollfd p = {.fd = s, .events = POLLIN};
    struct timespec t = {0, 100000000}, zero = {0, 0};
    T(poll(&p, 1, 30));
    T(signals_seen);
    T(ppoll(&p, 1, &t, &none));
    T(signals_seen);
    raise(SIGUSR1);
    T(ppoll(&p, 1, &zero, &none));
    T(signals_seen);
    fd_set r;
    FD_ZERO(&r);
    FD_SET(s, &r);
    T(pselect(s + 1, &r, NULL, NULL, &t, &none));
    T(signals_seen);
    int e = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    raise(SIGUSR1);
    T(epoll_pwait(e, &ev, 1, 1000, &none));
    T(signals_seen);
}

/* Programs say getdtablesize(), which may be millions, of sets that end long before. */
static void select_of_more_than_there_is(void) {
    int s = outgoing();
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T(mprotect(page + 4096, 4096, PROT_NONE));
    fd_set *w = (fd_set *)(page + 4096 - 128);
    memset(w, 0, 128);
    FD_SET(s, w);
    T(select(1 << 20, NULL, w, NULL, NULL));
    T(FD_ISSET(s, w) != 0);
    struct timespec t = {1, 0};
    T(pselect(1 << 20, NULL, w, NULL, &t, NULL));
}

static void select_of_one_set_twice(void) {
    int s = outgoing();
    fd_set both;
    FD_ZERO(&both);
    FD_SET(s, &both);
    T(select(s + 1, &both, &both, NULL, NULL));
    T(FD_ISSET(s, &both) != 0);
    T(select(s + 1, &both, NULL, &both, &(struct timeval){0, 1000}));
    T(FD_ISSET(s, &both) != 0);
    P("send x");
    queued(s, 1);
    FD_SET(s, &both);
    T(select(s + 1, &both, NULL, &both, NULL));
    T(FD_ISSET(s, &both) != 0);
}

const struct test ready_tests[] = {
    {"poll_times_out", poll_times_out},
    {"poll_wakes", poll_wakes},
    {"poll_many", poll_many},
    {"poll_mixed_wakes", poll_mixed_wakes},
    {"writable", writable},
    {"select_sets", select_sets},
    {"select_of_more_than_there_is", select_of_more_than_there_is},
    {"select_of_one_set_twice", select_of_one_set_twice},
    {"pselects", pselects},
    {"masks", masks},
    {0},
};
