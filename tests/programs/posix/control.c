/* ioctl, fcntl, dup and close. */
#include "probe.h"

#include <linux/close_range.h>
#include <linux/sockios.h>
#include <sys/stat.h>

static void bytes_queued(void) {
    int s = outgoing(), n = -1;
    T(ioctl(s, FIONREAD, &n));
    T(n);
    P("send abcde");
    queued(s, 5);
    T(ioctl(s, FIONREAD, &n));
    T(n);
    char c[2];
    T(read(s, c, 2));
    T(ioctl(s, FIONREAD, &n));
    T(n);
    T(ioctl(s, SIOCINQ, &n));
    T(n);
    T(write(s, "x", 1));
    P("recv 1");
    UNTIL(outq(s) == 0) {
    }
    T(ioctl(s, SIOCOUTQ, &n));
    T(n);
    T(ioctl(s, SIOCOUTQNSD, &n));
    T(n);
    nonblocking(s);
    long full = fill(s);
    T(ioctl(s, SIOCOUTQ, &n));
    T(n > 0 && n <= full);
    int queued = n;
    T(ioctl(s, SIOCOUTQNSD, &n));
    T(n > 0 && n <= queued);
    int port, l = listener(&port);
    T(ioctl(l, FIONREAD, &n));
    T(ioctl(l, SIOCOUTQ, &n));
    T(ioctl(l, SIOCOUTQNSD, &n));
    T(ioctl(-1, FIONREAD, &n));
    T(ioctl(s, 0x12345, &n));
    P("shutdown wr");
    bits("the end", s, POLLRDHUP);
    T(ioctl(s, FIONREAD, &n));
}

static void nonblocking_by_ioctl(void) {
    int s = outgoing(), on = 1;
    char c;
    T(ioctl(s, FIONBIO, &on));
    T(fcntl(s, F_GETFL) == (O_RDWR | O_NONBLOCK));
    T(read(s, &c, 1));
    on = 0;
    T(ioctl(s, FIONBIO, &on));
    T(fcntl(s, F_GETFL) == O_RDWR);
    T(ioctl(s, FIONBIO, NULL));
}

static void status_flags(void) {
    int s = outgoing();
    T(fcntl(s, F_GETFL));
    T(fcntl(s, F_SETFL, O_NONBLOCK | O_RDONLY));
    T(fcntl(s, F_GETFL));
    T(fcntl(s, F_SETFL, O_APPEND));
    T(fcntl(s, F_GETFL));
    T(fcntl(s, F_SETFL, 0));
    T(fcntl(s, F_GETFL));
    T(fcntl(s, F_GETFD));
    T(fcntl(s, F_SETFD, FD_CLOEXEC));
    T(fcntl(s, F_GETFD));
    T(fcntl(s, 12345, 0));
    int d = dup(s);
    T(fcntl(d, F_GETFD));
    T(fcntl(d, F_SETFL, O_NONBLOCK));
    T(fcntl(s, F_GETFL));
}

static void status_of_file(void) {
    int s = outgoing();
    struct stat st;
    T(fstat(s, &st));
    T(S_ISSOCK(st.st_mode));
    T(lseek(s, 0, SEEK_CUR));
    T(isatty(s));
    T(ftruncate(s, 5));
    T(fsync(s));
    char c;
    T(pread(s, &c, 1, 0));
    T(pwrite(s, &c, 1, 0));
    struct iovec v = {&c, 1};
    T(preadv(s, &v, 1, 0));
}

static void duplicates(void) {
    int s = outgoing(), d = F(dup(s));
    T(write(d, "abc", 3));
    P("recv 3");
    T(close(s));
    T(write(s, "x", 1));
    T(write(d, "def", 3));
    P("recv 3");
    T(close(d));
    P("end");
    T(close(d));
    T(dup(-1));
    T(dup(s));
}

static void duplicates_with_numbers(void) {
    int s = outgoing();
    T(dup2(s, 77));
    T(fcntl(77, F_GETFD));
    T(dup3(s, 78, O_CLOEXEC));
    T(fcntl(78, F_GETFD));
    T(dup3(s, s, 0));
    T(dup3(s, 79, 0x1234));
    T(dup2(s, s) == s);
    T(dup2(s, -1));
    T(dup2(-1, s));
    T(dup2(999, 78));
    T(fcntl(s, F_DUPFD, 90));
    T(fcntl(s, F_DUPFD_CLOEXEC, 90));
    T(fcntl(91, F_GETFD));
    T(fcntl(s, F_DUPFD, -1));
    T(fcntl(s, F_DUPFD, 1 << 30));
    T(write(91, "abc", 3));
    P("recv 3");
    close(s);
    close(77);
    close(78);
    close(90);
    T(write(91, "d", 1));
    P("recv 1");
    T(close(91));
    P("end");
}

static void over_another_socket(void) {
    int s = outgoing(), t = outgoing();
    T(dup2(s, t) == t);
    P("use 1");
    P("end");
    T(write(t, "abc", 3));
    P("use 0");
    P("recv 3");
    close(s);
    int f = open("/dev/null", O_RDWR);
    T(dup2(f, t) == t);
    P("end");
    T(write(t, "abc", 3));
    s = outgoing();
    T(dup2(s, f) == f);
    T(write(f, "abc", 3));
    P("recv 3");
    T(close(s));
    T(close(f));
    P("end");
}

static void standard_numbers(void) {
    int s = outgoing(), saved = dup(0);
    T(dup2(s, 0));
    T(write(0, "abc", 3));
    P("recv 3");
    P("send xyz");
    char b[4] = {0};
    T(read(0, b, 3));
    say("%s", b);
    T(close(s));
    T(dup2(saved, 0));
    P("end");
}

static void closed_numbers(void) {
    int s = outgoing();
    char c;
    T(close(s));
    T(close(s));
    T(read(s, &c, 1));
    T(write(s, &c, 1));
    T(recv(s, &c, 1, 0));
    T(send(s, &c, 1, 0));
    T(shutdown(s, SHUT_WR));
    T(fcntl(s, F_GETFL));
    T(listen(s, 1));
    T(accept(s, NULL, NULL));
    int n;
    T(ioctl(s, FIONREAD, &n));
    socklen_t len = sizeof n;
    T(getsockopt(s, SOL_SOCKET, SO_ERROR, &n, &len));
    T(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &n, sizeof n));
    bits("closed", s, 0);
    T(open("/dev/null", O_RDONLY) == s);
    T(read(s, &c, 1));
    T(send(s, &c, 1, 0));
}

static void close_order(void) {
    int s = outgoing(), d = dup(s);
    T(shutdown(s, SHUT_WR));
    P("end");
    T(close(s));
    P("send abc");
    text("through the copy", d, 0);
    T(close(d));
}

static void close_range_keeps_the_rest(void) {
    int s = outgoing(), t = outgoing();
    T(close_range(t, t, 0));
    P("use 1");
    P("end");
    T(write(s, "abc", 3));
    P("use 0");
    P("recv 3");
    T(close_range(3, ~0u, CLOSE_RANGE_CLOEXEC));
    T(fcntl(s, F_GETFD));
    T(write(s, "abc", 3));
    P("recv 3");
    T(close_range(5, 4, 0));
}

static void many_sockets(void) {
    int all[300], made = 0;
    for (int i = 0; i < 300; i++) {
        all[i] = socket(AF_INET, SOCK_STREAM, 0);
        made += all[i] >= 0;
    }
    T(made);
    for (int i = 0; i < 300; i++) {
        close(all[i]);
    }
    for (int i = 0; i < 3000; i++) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        made += s >= 0;
        close(s);
    }
    T(made);
}

static void lowest_number(void) {
    int a = dup(0), b = dup(0);
    close(a);
    int s = outgoing();
    T(s == a);
    close(b);
    int port, l = listener(&port);
    T(l == b);
    int c = dup(0);
    close(c);
    peer("connect %d", port);
    T(accept(l, NULL, NULL) == c);
}

const struct test control_tests[] = {
    {"bytes_queued", bytes_queued},
    {"nonblocking_by_ioctl", nonblocking_by_ioctl},
    {"status_flags", status_flags},
    {"status_of_file", status_of_file},
    {"duplicates", duplicates},
    {"duplicates_with_numbers", duplicates_with_numbers},
    {"over_another_socket", over_another_socket},
    {"standard_numbers", standard_numbers},
    {"closed_numbers", closed_numbers},
    {"close_order", close_order},
    {"close_range_keeps_the_rest", close_range_keeps_the_rest},
    {"many_sockets", many_sockets},
    {"lowest_number", lowest_number},
    {0},
};
