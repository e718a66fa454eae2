/* Waiting: timeouts, signals, threads. */
#include "probe.h"

#include <setjmp.h>
#include <sys/time.h>
#include <time.h>

static struct timeval milliseconds(int ms) {
    return (struct timeval){ms / 1000, ms % 1000 * 1000};
}

static void receive_timeout(void) {
    int s = outgoing();
    struct timeval soon = milliseconds(50), late = milliseconds(5000);
    char c;
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
    T(read(s, &c, 1));
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late));
    P("later 20 send x");
    T(read(s, &c, 1));
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
    T(recv(s, &c, 1, MSG_PEEK));
}

static void accept_timeout(void) {
    int port, l = listener(&port);
    struct timeval soon = milliseconds(50), late = milliseconds(5000);
    T(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon));
    T(accept(l, NULL, NULL));
    T(setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late));
    P("connect %d", port);
    F(accept(l, NULL, NULL));
}

static void send_timeout(void) {
    int s = outgoing();
    struct timeval t = milliseconds(50);
    T(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    fill(s);
    T(write(s, "x", 1));
    static char block[8000000];
    T(write(s, block, sizeof block));
}

static void send_timeout_after_some(void) {
    int s = outgoing();
    struct timeval t = milliseconds(200);
    static char block[20000000];
    T(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    long n = write(s, block, sizeof block);
    T(n > 0 && n < (long)sizeof block);
}

/* The timeout is one for the call, however often it gets on. */
static void one_timeout_for_a_call(void) {
    int s = outgoing();
    struct timeval t = milliseconds(300);
    char b[10];
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    for (int ms = 200; ms <= 2000; ms += 200) {
        peer("later %d send x", ms);
    }
    T(recv(s, b, sizeof b, MSG_WAITALL) < (long)sizeof b);
    settle();
    s = outgoing();
    /* More than both ends keep, and the peer takes in that time. */
    static char block[200000000];
    T(setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    for (int ms = 100; ms <= 6000; ms += 100) {
        peer("later %d skip 4000000", ms);
    }
    T(write(s, block, sizeof block) < (long)sizeof block);
}

static void interrupted(void) {
    int s = outgoing(), port, l = listener(&port), e = epoll_create1(0);
    char c;
    struct pollfd p = {.fd = s, .events = POLLIN};
    struct epoll_event ev = {.events = EPOLLIN};
    fd_set set;
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    nag();
    T(read(s, &c, 1));
    T(recv(s, &c, 1, MSG_WAITALL));
    T(accept(l, NULL, NULL));
    T(poll(&p, 1, -1));
    T(poll(&p, 1, 3000));
    T(epoll_wait(e, &ev, 1, -1));
    T(epoll_wait(e, &ev, 1, 3000));
    FD_ZERO(&set);
    FD_SET(s, &set);
    T(select(s + 1, &set, NULL, NULL, NULL));
    T(FD_ISSET(s, &set) != 0);
    nag_off();
    P("send abc");
    queued(s, 3);
    nag();
    char b[10];
    T(recv(s, b, 10, MSG_WAITALL));
    nag_off();
    fill(s);
    nag();
    T(write(s, "x", 1));
    nag_off();
}

static void interrupted_write_after_some(void) {
    int s = outgoing();
    static char block[20000000];
    nag();
    usleep(10000);
    long n = write(s, block, sizeof block);
    nag_off();
    T(n > 0 && n < (long)sizeof block);
}

static void *after_two_signals(void *command) {
    int seen = signals_seen;
    UNTIL(signals_seen >= seen + 2) {
    }
    peer("%s", (char *)command);
    return NULL;
}

static void restarted(void) {
    int s = outgoing(), port, l = listener(&port);
    char c, connects[40];
    nag();
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t t = thread(after_two_signals, (long)"send x");
    T(read(s, &c, 1));
    T(signals_seen > 0);
    pthread_join(t, NULL);
    signals_seen = 0;
    snprintf(connects, sizeof connects, "connect %d", port);
    t = thread(after_two_signals, (long)connects);
    F(accept(l, NULL, NULL));
    T(signals_seen > 0);
    pthread_join(t, NULL);
    struct pollfd p = {.fd = s, .events = POLLIN};
    T(poll(&p, 1, 3000));
    nag_off();
    struct timeval late = milliseconds(5000);
    T(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late));
    nag();
    sigaction(SIGUSR1, &action, NULL);
    T(read(s, &c, 1));
    nag_off();
}

static void *echo(void *arg) {
    int l = (int)(long)arg;
    int s = accept(l, NULL, NULL);
    char b[100];
    ssize_t n;
    while ((n = read(s, b, sizeof b)) > 0) {
        write(s, b, n);
    }
    close(s);
    return NULL;
}

static void threads_accept(void) {
    int port, l = listener(&port);
    pthread_t t[8];
    for (int i = 0; i < 8; i++) {
        t[i] = thread(echo, l);
    }
    for (int i = 0; i < 8; i++) {
        peer("connect %d", port);
    }
    for (int i = 7; i >= 0; i--) {
        peer("use %d", i);
        peer("send hello%d", i);
        P("recv 6");
        peer("close");
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], NULL);
    }
    say("all joined");
}

static void *accepts_once(void *arg) {
    int s = accept((int)(long)arg, NULL, NULL);
    return (void *)(long)(s < 0 ? -errno : 1);
}

static void one_listener_per_thread(void) {
    int port[3], l[3];
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        l[i] = listener(&port[i]);
        t[i] = thread(accepts_once, l[i]);
    }
    for (int i = 2; i >= 0; i--) {
        peer("connect %d", port[i]);
        void *r;
        pthread_join(t[i], &r);
        T((long)r);
    }
}

static void *reads_all(void *arg) {
    int s = (int)(long)arg;
    static char b[65536];
    long sum = 0;
    ssize_t n;
    while ((n = read(s, b, sizeof b)) > 0) {
        sum += n;
    }
    return (void *)sum;
}

static void reader_and_writer(void) {
    int s = outgoing();
    static char block[65536];
    P("echo");
    pthread_t t = thread(reads_all, s);
    long sent = 0;
    while (sent < 4000000) {
        ssize_t n = write(s, block, sizeof block);
        if (n < 0) {
            break;
        }
        sent += n;
    }
    shutdown(s, SHUT_WR);
    void *got;
    pthread_join(t, &got);
    T((long)got == sent);
}

static void *writes_letters(void *arg) {
    int s = (int)(long)arg;
    for (int i = 0; i < 1000; i++) {
        write(s, "0123456789", 10);
    }
    return NULL;
}

static void writers_do_not_mix(void) {
    int port, l = listener(&port), t0;
    peer("connect %d", port);
    int s = accept(l, NULL, NULL);
    P("echo");
    pthread_t t[4];
    for (t0 = 0; t0 < 4; t0++) {
        t[t0] = thread(writes_letters, s);
    }
    long at = 0, bad = 0;
    char b[4096];
    while (at < 40000) {
        ssize_t n = read(s, b, sizeof b);
        if (n <= 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            bad += b[i] != '0' + (at + i) % 10;
        }
        at += n;
    }
    T(at);
    T(bad);
    for (t0 = 0; t0 < 4; t0++) {
        pthread_join(t[t0], NULL);
    }
}

static void *reads_once(void *arg) {
    char c;
    ssize_t n = read((int)(long)arg, &c, 1);
    return (void *)(long)(n < 0 ? -errno : n);
}

static void *polls_once(void *arg) {
    struct pollfd p = {.fd = (int)(long)arg, .events = POLLIN};
    int n = poll(&p, 1, 3000);
    return (void *)(long)(n < 0 ? -errno : n == 0 ? 0 : p.revents);
}

static void shutdown_wakes_a_reader(void) {
    int s = outgoing();
    pthread_t t = thread(reads_once, s), p = thread(polls_once, s);
    asleep();
    T(shutdown(s, SHUT_RDWR));
    void *r;
    pthread_join(t, &r);
    say("read = %ld", (long)r);
    pthread_join(p, &r);
    say("poll: %s", poll_names((int)(long)r));
}

static void shutdown_wakes_accept(void) {
    int port, l = listener(&port);
    pthread_t t = thread(accepts_once, l);
    asleep();
    T(shutdown(l, SHUT_RD));
    void *r;
    pthread_join(t, &r);
    T((long)r == -EINVAL);
}

/* On Linux the reader goes on with the open file until it has something to say. */
static void close_while_reading(void) {
    int s = outgoing();
    pthread_t t = thread(reads_once, s);
    asleep();
    T(close(s));
    P("send x");
    void *r;
    pthread_join(t, &r);
    say("read = %ld", (long)r);
}

static void number_reused_while_reading(void) {
    int s = outgoing();
    pthread_t t = thread(reads_once, s);
    asleep();
    int other = outgoing();
    T(dup2(other, s) == s);
    P("use 0");
    P("send x");
    void *r;
    pthread_join(t, &r);
    say("read = %ld", (long)r);
    P("use 1");
    P("send abc");
    text("the other", s, 0);
}

static void *selects_once(void *arg) {
    int s = (int)(long)arg;
    fd_set set;
    struct timeval t = milliseconds(3000);
    FD_ZERO(&set);
    FD_SET(s, &set);
    int n = select(s + 1, &set, NULL, NULL, &t);
    return (void *)(long)(n < 0 ? -errno : n);
}

/* Which of the two a thread sees depends on how soon it looks; that it sees one of them does not. */
static void closed_while_polling(void) {
    int missed = 0;
    for (int i = 0; i < 5; i++) {
        int s = outgoing();
        pthread_t p = thread(polls_once, s), q = thread(selects_once, s);
        asleep();
        shutdown(s, SHUT_RDWR);
        close(s);
        void *r;
        pthread_join(p, &r);
        missed += ((long)r & (POLLHUP | POLLNVAL)) == 0;
        pthread_join(q, &r);
        missed += (long)r != 1;
    }
    T(missed);
}

static void number_reused_while_polling(void) {
    int missed = 0, ends[2];
    must("make a pipe", pipe(ends));
    close(ends[1]);
    for (int i = 0; i < 5; i++) {
        int s = outgoing();
        pthread_t p = thread(polls_once, s);
        asleep();
        shutdown(s, SHUT_RDWR);
        dup2(ends[0], s);
        void *r;
        pthread_join(p, &r);
        missed += ((long)r & POLLHUP) == 0;
        close(s);
    }
    T(missed);
}

static sigjmp_buf out_of_it;

static void jumps(int number) {
    siglongjmp(out_of_it, number);
}

static void alarm_in(int ms) {
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = milliseconds(ms)}, NULL);
}

/* As wget does to limit how long it waits. */
static void left_by_a_jump(void) {
    int s = outgoing();
    char c;
    signal(SIGALRM, jumps);
    for (int i = 0; i < 3; i++) {
        if (sigsetjmp(out_of_it, 1) == 0) {
            alarm_in(50);
            T(read(s, &c, 1));
        }
        alarm(0);
    }
    signal(SIGALRM, SIG_DFL);
    alarm(20);
    P("later 50 send x");
    struct pollfd p = {.fd = s, .events = POLLIN};
    T(poll(&p, 1, -1));
    T(read(s, &c, 1));
    P("later 50 send y");
    int e = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    T(epoll_wait(e, &ev, 1, -1));
}

static int other;

static void waits_meanwhile(int number) {
    struct pollfd p = {.fd = other, .events = POLLIN};
    char c;
    (void)number;
    T(poll(&p, 1, 3000));
    T(read(other, &c, 1));
    P("use 0");
    P("later 100 send y");
}

/* A handler that waits itself, in the middle of a call that does. */
static void waits_in_a_handler(void) {
    int s = outgoing();
    other = outgoing();
    char c;
    struct sigaction action = {.sa_handler = waits_meanwhile, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    P("later 150 send x");
    alarm_in(50);
    T(read(s, &c, 1));
    alarm(20);
}

static void spinning_is_bounded(void) {
    int s = outgoing();
    char c;
    struct timespec before, after;
    P("later 1000 send x");
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    T(read(s, &c, 1));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    long us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    T(us < 200000);
}

static void *sends_to_itself(void *arg) {
    int s = outgoing();
    (void)arg;
    return (void *)(long)s;
}

static void made_on_another_thread(void) {
    pthread_t t = thread(sends_to_itself, 0);
    void *r;
    pthread_join(t, &r);
    int s = (int)(long)r;
    P("send abc");
    text("its maker has gone", s, 0);
    T(write(s, "def", 3));
    P("recv 3");
}

/* A handler without SA_RESTART whose signal is blocked has not run. */
static void interrupted_beside_a_blocked_signal(void) {
    int s = outgoing();
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR2, &action, NULL);
    sigset_t block;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    nag();
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    UNTIL(signals_seen > 0);
    P("later 200 send x");
    char c;
    T(read(s, &c, 1));
    nag_off();
}

const struct test wait_tests[] = {
    {"interrupted_beside_a_blocked_signal", interrupted_beside_a_blocked_signal},
    {"receive_timeout", receive_timeout},
    {"accept_timeout", accept_timeout},
    {"send_timeout", send_timeout},
    {"send_timeout_after_some", send_timeout_after_some},
    {"one_timeout_for_a_call", one_timeout_for_a_call},
    {"interrupted", interrupted},
    {"interrupted_write_after_some", interrupted_write_after_some},
    {"restarted", restarted},
    {"threads_accept", threads_accept},
    {"one_listener_per_thread", one_listener_per_thread},
    {"reader_and_writer", reader_and_writer},
    {"writers_do_not_mix", writers_do_not_mix},
    {"shutdown_wakes_a_reader", shutdown_wakes_a_reader},
    {"shutdown_wakes_accept", shutdown_wakes_accept},
    {"close_while_reading", close_while_reading},
    {"number_reused_while_reading", number_reused_while_reading},
    {"closed_while_polling", closed_while_polling},
    {"number_reused_while_polling", number_reused_while_polling},
    {"left_by_a_jump", left_by_a_jump},
    {"waits_in_a_handler", waits_in_a_handler},
    {"spinning_is_bounded", spinning_is_bounded},
    {"made_on_another_thread", made_on_another_thread},
    {0},
};
