/* How connections end: half close, reset, SIGPIPE, SO_LINGER. */
#include "probe.h"

static void half_close_by_us(void) {
    int s = outgoing();
    T(write(s, "last", 4));
    T(shutdown(s, SHUT_WR));
    P("recv 10");
    bits("after SHUT_WR", s, POLLOUT);
    T(write(s, "x", 1));
    T(shutdown(s, SHUT_WR));
    P("send still");
    queued(s, 5);
    text("still receives", s, 0);
    P("close");
    bits("both closed", s, POLLHUP);
    text("the end", s, 0);
    T(write(s, "x", 1));
    T(shutdown(s, SHUT_RD));
}

static void half_close_by_the_peer(void) {
    int s = outgoing();
    P("send last");
    P("shutdown wr");
    bits("peer closed", s, POLLRDHUP);
    text("before the end", s, 0);
    text("the end", s, 0);
    text("the end again", s, 0);
    bits("after the end", s, POLLRDHUP);
    T(write(s, "still", 5));
    P("recv 5");
    T(shutdown(s, SHUT_WR));
    P("end");
    bits("both closed", s, POLLHUP);
    T(close(s));
}

static void shutdown_reading(void) {
    int s = outgoing();
    P("send before");
    queued(s, 6);
    T(shutdown(s, SHUT_RD));
    bits("after SHUT_RD", s, POLLRDHUP);
    text("what was there", s, 0);
    text("then", s, 0);
    T(write(s, "still", 5));
    P("recv 5");
    T(shutdown(s, SHUT_RD));
    T(shutdown(s, SHUT_RDWR));
    P("end");
}

static void shutdown_both(void) {
    int s = incoming();
    T(shutdown(s, SHUT_RDWR));
    bits("after SHUT_RDWR", s, POLLHUP);
    text("then", s, 0);
    T(write(s, "x", 1));
    P("end");
    P("close");
    UNTIL(state_of(s) == TCP_CLOSE) {
    }
    bits("later", s, POLLHUP);
    T(shutdown(s, SHUT_RDWR));
    T(close(s));
}

static void shutdown_odd(void) {
    int s = outgoing();
    T(shutdown(s, 3));
    T(shutdown(s, -1));
    T(shutdown(0, SHUT_WR));
    T(shutdown(-1, SHUT_WR));
    T(write(s, "x", 1));
}

static void reset_by_peer(void) {
    int s = outgoing();
    P("send lost");
    queued(s, 4);
    P("reset");
    bits("reset", s, POLLERR | POLLHUP);
    text("read", s, 0);
    text("read again", s, 0);
    bits("error taken", s, POLLHUP);
    T(write(s, "x", 1));
    T(shutdown(s, SHUT_WR));
    int e = -1;
    socklen_t len = sizeof e;
    T(getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &len));
    T(e);
}

static void reset_then_write(void) {
    int s = incoming();
    P("reset");
    bits("reset", s, POLLERR | POLLHUP);
    T(write(s, "x", 1));
    T(write(s, "x", 1));
    text("read", s, 0);
}

static void reset_then_error(void) {
    int s = incoming(), e = -1;
    socklen_t len = sizeof e;
    P("reset");
    bits("reset", s, POLLERR | POLLHUP);
    T(getsockopt(s, SOL_SOCKET, SO_ERROR, &e, &len));
    say("SO_ERROR is %s", strerrorname_np(e));
    bits("error taken", s, POLLHUP);
    text("read", s, 0);
    T(write(s, "x", 1));
}

static void write_to_what_is_closed(void) {
    int s = outgoing();
    P("close");
    bits("peer closed", s, POLLRDHUP);
    T(write(s, "hello", 5));
    /* Its answer is a reset. */
    bits("answered", s, POLLERR | POLLHUP);
    T(write(s, "hello", 5));
    T(write(s, "hello", 5));
    text("read", s, 0);
}

static void sigpipe(void) {
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGPIPE, &action, NULL);
    int s = outgoing();
    shutdown(s, SHUT_WR);
    T(write(s, "x", 1));
    T(signals_seen);
    T(send(s, "x", 1, MSG_NOSIGNAL));
    T(signals_seen);
    T(send(s, "x", 1, 0));
    T(signals_seen);
    struct iovec v = {"abc", 3};
    T(writev(s, &v, 1));
    T(signals_seen);
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    T(sendmsg(s, &m, 0));
    T(signals_seen);
    T(sendmsg(s, &m, MSG_NOSIGNAL));
    T(signals_seen);
    T(sendto(s, "x", 1, 0, NULL, 0));
    T(signals_seen);
    T(write(s, "", 0));
    T(signals_seen);
}

static void sigpipe_kills(void) {
    signal(SIGPIPE, SIG_DFL);
    int s = outgoing();
    shutdown(s, SHUT_WR);
    T(write(s, "x", 1));
}

static void linger_zero_resets(void) {
    struct linger l = {1, 0};
    int s = outgoing();
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    T(write(s, "hello", 5));
    P("recv 5");
    T(close(s));
    P("end");
}

static void linger_waits(void) {
    struct linger l = {1, 5};
    int s = outgoing();
    static char block[100000];
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    T(write(s, block, sizeof block));
    T(close(s));
    P("drain");
}

/* Whether closing takes more than a second. */
static int waits_in_close(int fd) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    close(fd);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 > 1000;
}

static void linger_waits_though_nonblocking(void) {
    struct linger l = {1, 2};
    int s = outgoing();
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    T(fill(s) > 0);
    nonblocking(s);
    T(waits_in_close(s));
}

/* A server that forks for each connection: its own close is not the socket's last. */
static void linger_with_a_copy_elsewhere(void) {
    struct linger l = {1, 2};
    int s = outgoing(), filled[2], closed[2];
    char c;
    T(setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    must("make pipes", pipe(filled) | pipe(closed));
    pid_t child = fork();
    if (child == 0) {
        fill(s);
        write(filled[1], "f", 1);
        read(closed[0], &c, 1);
        say("the last: %d", waits_in_close(s));
        _exit(0);
    }
    read(filled[0], &c, 1);
    T(waits_in_close(s));
    write(closed[1], "c", 1);
    waitpid(child, NULL, 0);
}

static void close_sends_everything(void) {
    static char block[200000];
    int s = outgoing();
    T(write(s, block, sizeof block));
    T(close(s));
    P("drain");
}

static void close_with_unread_bytes(void) {
    int s = outgoing();
    P("send unread");
    queued(s, 6);
    T(close(s));
    P("end");
}

static void bytes_after_close(void) {
    int s = outgoing();
    T(close(s));
    P("end");
    P("send late");
    peer("hup");
    P("end");
    P("send later");
}

static void exit_closes(void) {
    int s = outgoing();
    static char block[100000];
    pid_t child = fork();
    if (child == 0) {
        write(s, block, sizeof block);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(s);
    P("drain");
}

static void quick_exit_closes(void) {
    int port, l = listener(&port);
    pid_t child = fork();
    if (child == 0) {
        int s = accept(l, NULL, NULL);
        write(s, "hello", 5);
        quick_exit(0);
    }
    close(l);
    P("connect %d", port);
    P("recv 5");
    P("end");
    waitpid(child, NULL, 0);
}

static void kill_ends(void) {
    int port, l = listener(&port);
    pid_t child = fork();
    if (child == 0) {
        int s = accept(l, NULL, NULL);
        write(s, "hello", 5);
        pause();
        _exit(0);
    }
    close(l);
    P("connect %d", port);
    P("recv 5");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    P("end");
}

static void simultaneous_close(void) {
    for (int i = 0; i < 10; i++) {
        int s = outgoing();
        peer("later 1 close");
        usleep(1000);
        close(s);
    }
    say("ten closed");
}

const struct test ends_tests[] = {
    {"half_close_by_us", half_close_by_us},
    {"half_close_by_the_peer", half_close_by_the_peer},
    {"shutdown_reading", shutdown_reading},
    {"shutdown_both", shutdown_both},
    {"shutdown_odd", shutdown_odd},
    {"reset_by_peer", reset_by_peer},
    {"reset_then_write", reset_then_write},
    {"reset_then_error", reset_then_error},
    {"write_to_what_is_closed", write_to_what_is_closed},
    {"sigpipe", sigpipe},
    {"sigpipe_kills", sigpipe_kills},
    {"linger_zero_resets", linger_zero_resets},
    {"linger_waits", linger_waits},
    {"linger_waits_though_nonblocking", linger_waits_though_nonblocking},
    {"linger_with_a_copy_elsewhere", linger_with_a_copy_elsewhere},
    {"close_sends_everything", close_sends_everything},
    {"close_with_unread_bytes", close_with_unread_bytes},
    {"bytes_after_close", bytes_after_close},
    {"exit_closes", exit_closes},
    {"quick_exit_closes", quick_exit_closes},
    {"kill_ends", kill_ends},
    {"simultaneous_close", simultaneous_close},
    {0},
};
