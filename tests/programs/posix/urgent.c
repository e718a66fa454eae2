/* Urgent data: MSG_OOB, the mark in the stream, POLLPRI, SIGURG. */
#include "probe.h"

#include <linux/sockios.h>
#include <sys/select.h>

static volatile sig_atomic_t caught;
static int socket_of_handler;

/* What the socket says of the mark, and of what can be read. */
static void where(const char *what, int s) {
    int mark = -1, n = -1;
    ioctl(s, SIOCATMARK, &mark);
    ioctl(s, FIONREAD, &n);
    say("%s: %d queued, at the mark: %d %d", what, n, mark, sockatmark(s));
}

static void oob(const char *what, int s, int flags) {
    char c = '-';
    long n = recv(s, &c, 1, MSG_OOB | flags);
    if (n < 0) {
        say("%s: %s", what, strerrorname_np(errno));
    } else {
        say("%s: %ld %c", what, n, c);
    }
}

/* A connection on which "ab", an urgent "c" and "de" have come. */
static int marked(void) {
    int s = outgoing();
    P("send ab");
    P("urgent c");
    P("send de");
    bits("urgent", s, POLLPRI | POLLIN);
    return s;
}

static void inline_on(int s, int on) {
    T(setsockopt(s, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
}

static void out_of_band(void) {
    int s = marked();
    where("before", s);
    oob("peek", s, MSG_PEEK);
    oob("read", s, 0);
    oob("again", s, 0);
    bits("read", s, POLLIN);
    text("up to the mark", s, 0);
    where("at the mark", s);
    oob("at the mark", s, 0);
    text("behind it", s, 0);
    where("behind it", s);
    oob("behind it", s, 0);
}

static void in_line(void) {
    int s = outgoing();
    inline_on(s, 1);
    P("send ab");
    P("urgent c");
    P("send de");
    bits("urgent", s, POLLPRI);
    queued(s, 5);
    where("before", s);
    oob("inline", s, 0);
    text("up to the mark", s, 0);
    where("at the mark", s);
    bits("at the mark", s, POLLIN);
    text("from there", s, 0);
    where("behind it", s);
    bits("behind it", s, POLLOUT);
}

static void switched(void) {
    int s = marked();
    text("up to the mark", s, 0);
    inline_on(s, 1);
    queued(s, 3);
    oob("inline", s, 0);
    where("inline", s);
    text("peek", s, MSG_PEEK);
    inline_on(s, 0);
    where("not any more", s);
    text("peek", s, MSG_PEEK);
    oob("out of band", s, 0);
}

static void read_past(void) {
    int s = marked();
    char buf[10];
    T(recv(s, buf, 1, 0));
    where("before", s);
    text("peek", s, MSG_PEEK);
    T(recv(s, buf, 10, MSG_WAITALL));
    text("peek at the mark", s, MSG_PEEK);
    where("at the mark", s);
    T(recv(s, buf, 1, 0));
    where("past it", s);
    bits("past it", s, POLLIN);
    oob("past it", s, 0);
    text("the rest", s, 0);
}

/* Nothing but an urgent byte. */
static void alone(void) {
    int s = outgoing();
    P("urgent x");
    bits("urgent", s, POLLPRI);
    where("it is here", s);
    nonblocking(s);
    text("the stream", s, 0);
    where("skipped", s);
    oob("skipped", s, 0);
    P("send y");
    bits("more", s, POLLIN);
    text("the stream", s, 0);
}

static void one_after_the_other(void) {
    int s = outgoing();
    P("urgent x");
    bits("urgent", s, POLLPRI);
    oob("first", s, 0);
    where("first", s);
    P("urgent y");
    bits("urgent", s, POLLPRI);
    oob("second", s, 0);
    where("second", s);
    P("send z");
    bits("more", s, POLLIN);
    text("the stream", s, 0);
}

static void not_read_in_time(void) {
    int s = outgoing();
    char c = '-';
    P("send ab");
    P("urgent c");
    bits("urgent", s, POLLPRI);
    P("send de");
    P("urgent f");
    UNTIL(recv(s, &c, 1, MSG_OOB | MSG_PEEK) == 1 && c == 'f') {
    }
    oob("the last", s, 0);
    text("up to the last mark", s, 0);
    where("at the last mark", s);
}

static void several_bytes(void) {
    int s = outgoing();
    P("urgent abc");
    bits("urgent", s, POLLPRI | POLLIN);
    where("before", s);
    oob("the last", s, 0);
    text("the others", s, 0);
    where("at the mark", s);
}

static void none(void) {
    int port, l = listener(&port), s = socket(AF_INET, SOCK_STREAM, 0), at = -1;
    char c;
    T(recv(l, &c, 1, MSG_OOB));
    T(recv(s, &c, 1, MSG_OOB));
    T(ioctl(s, SIOCATMARK, &at));
    T(at);
    s = outgoing();
    oob("no urgent data", s, 0);
    oob("nor waiting for it", s, MSG_WAITALL);
    T(ioctl(s, SIOCATMARK, NULL));
}

static void how_received(void) {
    int s = marked();
    char c = '-';
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    T(recvmsg(s, &m, MSG_OOB | MSG_PEEK));
    T(m.msg_flags == MSG_OOB && c == 'c');
    T(recv(s, &c, 1, MSG_OOB | MSG_PEEK | MSG_TRUNC));
    T(recv(s, NULL, 0, MSG_OOB));
    oob("once", s, 0);
}

static void ends(void) {
    int s = outgoing();
    P("urgent x");
    P("shutdown wr");
    bits("urgent", s, POLLPRI | POLLIN);
    oob("after the end", s, 0);
    text("the stream", s, 0);
    oob("after all", s, 0);
}

static void only(int s, fd_set *set) {
    FD_ZERO(set);
    FD_SET(s, set);
}

static void selects(void) {
    int s = outgoing();
    fd_set in, except;
    struct timeval seconds = {5, 0}, now = {0, 0};
    only(s, &in);
    only(s, &except);
    T(select(s + 1, &in, NULL, &except, &now));
    P("later 100 urgent x");
    only(s, &in);
    only(s, &except);
    T(select(s + 1, &in, NULL, &except, &seconds));
    T(!!FD_ISSET(s, &in));
    T(!!FD_ISSET(s, &except));
}

static void epolls(void) {
    int s = outgoing(), e = epoll_create1(0);
    struct epoll_event want = {.events = EPOLLPRI | EPOLLET}, got = {0};
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &want));
    T(epoll_wait(e, &got, 1, 0));
    P("later 100 urgent x");
    T(epoll_wait(e, &got, 1, 5000));
    T(got.events == EPOLLPRI);
    echoes(e);
    T(epoll_wait(e, &got, 1, 0));
    P("later 100 urgent y");
    T(epoll_wait(e, &got, 1, 5000));
    oob("the second", s, 0);
    want.events = EPOLLPRI;
    T(epoll_ctl(e, EPOLL_CTL_MOD, s, &want));
    T(epoll_wait(e, &got, 1, 0));
    P("later 100 urgent z");
    T(epoll_wait(e, &got, 1, 5000));
    T(epoll_wait(e, &got, 1, 0));
}

/* The program calls nothing of the library's meanwhile. */
static void await_signals(const char *what, int n) {
    for (int i = 0; i < 2000 && signals_seen < n; i++) {
        usleep(1000);
    }
    usleep(20000);
    say("%s: %d signals", what, (int)signals_seen);
}

static void signalled(void) {
    int s = outgoing();
    signal(SIGURG, count_signal);
    P("urgent x");
    bits("urgent", s, POLLPRI);
    await_signals("nobody asked", 0);
    T(fcntl(s, F_SETOWN, getpid()));
    T(fcntl(s, F_GETOWN) == getpid());
    P("send y");
    P("later 100 urgent z");
    await_signals("asked", 1);
    oob("the byte", s, 0);
    T(fcntl(s, F_SETOWN, 0));
    P("urgent z");
    bits("urgent", s, POLLPRI);
    settle();
    await_signals("called off", 1);
}

static void take(int number) {
    char c = '-';
    int at = -1, saved = errno;
    if (recv(socket_of_handler, &c, 1, MSG_OOB) == 1 && ioctl(socket_of_handler, SIOCATMARK, &at) == 0) {
        caught = c;
    }
    signals_seen++;
    errno = saved;
}

/* While the first thread waits: an urgent byte, and once the signal has come, what was waited for. */
static void *urgent_then(void *bytes) {
    sigset_t urg;
    sigemptyset(&urg);
    sigaddset(&urg, SIGURG);
    pthread_sigmask(SIG_BLOCK, &urg, NULL);
    asleep();
    peer("urgent q");
    if (bytes) {
        UNTIL(signals_seen == 1) {
        }
        peer("send %s", (char *)bytes);
    }
    return NULL;
}

/* As telnet and ftp do: the handler looks for itself, while the program reads. */
static void handler_reads(void) {
    int s = outgoing();
    char c;
    socket_of_handler = s;
    signal(SIGURG, take);
    T(fcntl(s, F_SETOWN, getpid()));
    thread(urgent_then, (long)"ab");
    T(recv(s, &c, 1, 0));
    say("in the handler: %c, %d signals; then %c", caught, (int)signals_seen, c);
}

static void interrupts(void) {
    int s = outgoing();
    char c;
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGURG, &action, NULL);
    T(fcntl(s, F_SETOWN, getpid()));
    thread(urgent_then, 0);
    T(recv(s, &c, 1, 0));
    say("%d signals", (int)signals_seen);
}

static void owners(void) {
    int s = outgoing(), owner = -getpgrp();
    struct f_owner_ex mine = {F_OWNER_TID, gettid()}, got = {0};
    signal(SIGURG, count_signal);
    T(fcntl(s, F_SETOWN_EX, &mine));
    T(fcntl(s, F_GETOWN_EX, &got));
    T(got.type == F_OWNER_TID && got.pid == gettid());
    P("urgent x");
    await_signals("this thread", 1);
    setpgid(0, 0);
    owner = -getpgrp();
    T(ioctl(s, FIOSETOWN, &owner));
    P("urgent y");
    await_signals("the group", 2);
    owner = 0;
    T(ioctl(s, SIOCGPGRP, &owner));
    T(owner == -getpgrp());
}

/* A child that has the socket, and is its owner. */
static void of_a_child(void) {
    int s = outgoing();
    if (fork() == 0) {
        signal(SIGURG, count_signal);
        T(fcntl(s, F_SETOWN, getpid()));
        P("later 100 urgent x");
        await_signals("the child", 1);
        oob("the child", s, 0);
        _exit(0);
    }
    wait(NULL);
    where("the parent", s);
}

static void inherited(void) {
    int port, l = listener(&port), on = 0;
    socklen_t len = sizeof on;
    inline_on(l, 1);
    peer("connect %d", port);
    int s = accept(l, NULL, NULL);
    T(getsockopt(s, SOL_SOCKET, SO_OOBINLINE, &on, &len));
    T(on);
    P("urgent x");
    bits("urgent", s, POLLPRI | POLLIN);
    text("in line", s, 0);
}

static void sends(void) {
    int s = outgoing();
    T(send(s, "abc", 3, MSG_OOB));
    P("oob");
    P("recv 2");
    P("mark");
    T(write(s, "de", 2));
    P("recv 2");
    P("mark");
    struct iovec v[2] = {{"f", 1}, {"g", 1}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    T(sendmsg(s, &m, MSG_OOB | MSG_MORE));
    P("oob");
    T(send(s, "", 0, MSG_OOB));
    P("no_oob");
    T(write(s, "hi", 2));
    P("recv 1");
    P("recv 2");
}

/* No room in the buffer: an urgent byte has to wait like others. */
static void no_room(void) {
    int s = outgoing();
    nonblocking(s);
    fill(s);
    T(send(s, "u", 1, MSG_OOB));
    T(send(s, "u", 1, MSG_OOB | MSG_DONTWAIT));
}

const struct test urgent_tests[] = {
    {"out_of_band", out_of_band},
    {"in_line", in_line},
    {"switched", switched},
    {"read_past", read_past},
    {"alone", alone},
    {"one_after_the_other", one_after_the_other},
    {"not_read_in_time", not_read_in_time},
    {"several_bytes", several_bytes},
    {"none", none},
    {"how_received", how_received},
    {"ends", ends},
    {"selects", selects},
    {"epolls", epolls},
    {"signalled", signalled},
    {"handler_reads", handler_reads},
    {"interrupts", interrupts},
    {"owners", owners},
    {"of_a_child", of_a_child},
    {"inherited", inherited},
    {"sends", sends},
    {"no_room", no_room},
    {0},
};
