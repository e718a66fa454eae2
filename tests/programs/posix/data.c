/* Moving bytes: flags, vectors, sendfile, bad pointers, full buffers. */
#include "probe.h"

#include <sys/mman.h>
#include <sys/sendfile.h>

static void peek(void) {
    int s = outgoing();
    P("send abcdef");
    queued(s, 6);
    char b[10] = {0};
    T(recv(s, b, 3, MSG_PEEK));
    say("%s", b);
    T(recv(s, b, 10, MSG_PEEK));
    say("%s", b);
    T(recv(s, b, 2, 0));
    text("peek", s, MSG_PEEK);
    text("take", s, 0);
    T(recv(s, b, 2, MSG_PEEK | MSG_DONTWAIT));
}

static void wait_all(void) {
    int s = outgoing();
    char b[20] = {0};
    P("send abc");
    P("later 60 send defgh");
    T(recv(s, b, 8, MSG_WAITALL));
    say("%s", b);
    P("send xy");
    P("later 60 shutdown wr");
    T(recv(s, b, 8, MSG_WAITALL));
    T(recv(s, b, 8, MSG_WAITALL));
}

static void wait_all_and_peek(void) {
    int s = outgoing();
    char b[20] = {0};
    P("send abc");
    P("later 60 send defgh");
    T(recv(s, b, 8, MSG_WAITALL | MSG_PEEK));
    say("%s", b);
    T(recv(s, b, 8, MSG_WAITALL));
    P("send xy");
    queued(s, 2);
    T(recv(s, b, 8, MSG_WAITALL | MSG_DONTWAIT));
    nonblocking(s);
    P("send xy");
    queued(s, 2);
    T(recv(s, b, 8, MSG_WAITALL));
}

static void wait_all_and_reset(void) {
    int s = outgoing();
    char b[20] = {0};
    P("send abc");
    queued(s, 3);
    P("later 60 reset");
    T(recv(s, b, 8, MSG_WAITALL));
    T(recv(s, b, 8, MSG_WAITALL));
    T(recv(s, b, 8, MSG_WAITALL));
}

static void wait_all_times_out(void) {
    int s = outgoing();
    char b[20] = {0};
    struct timeval t = {0, 100000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    P("send abc");
    queued(s, 3);
    T(recv(s, b, 8, MSG_WAITALL));
    T(recv(s, b, 8, MSG_WAITALL));
}

static void dont_wait(void) {
    int s = outgoing();
    char b[4];
    T(recv(s, b, 4, MSG_DONTWAIT));
    T(read(s, b, 0));
    T(recv(s, b, 0, MSG_DONTWAIT));
    nonblocking(s);
    T(read(s, b, 4));
    T(send(s, "abc", 3, MSG_DONTWAIT));
    P("recv 3");
}

static void truncate_flag(void) {
    int s = outgoing();
    char b[10] = "zzzzzzzzz";
    P("send abcdef");
    queued(s, 6);
    T(recv(s, b, 4, MSG_TRUNC));
    say("%s", b);
    T(recv(s, NULL, 1, MSG_TRUNC));
    T(recv(s, NULL, 9, MSG_PEEK | MSG_TRUNC));
    strcpy(b, "zzzz");
    T(recv(s, b, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT));
    say("%s", b);
    text("rest", s, 0);
    T(recv(s, NULL, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT));
    P("shutdown wr");
    bits("the end", s, POLLRDHUP);
    T(recv(s, NULL, 1, MSG_PEEK | MSG_TRUNC));
    T(recv(s, NULL, 1, MSG_TRUNC));
}

static void more(void) {
    int s = outgoing();
    T(send(s, "ab", 2, MSG_MORE));
    T(send(s, "cd", 2, MSG_MORE));
    T(send(s, "ef", 2, 0));
    P("recv 6");
    T(send(s, "gh", 2, MSG_MORE));
    T(close(s));
    P("recv 2");
    P("end");
}

static void more_goes_in_the_end(void) {
    int s = outgoing();
    T(send(s, "gh", 2, MSG_MORE));
    P("recv 2");
}

static void cork(void) {
    int s = outgoing(), one = 1, zero = 0;
    T(setsockopt(s, IPPROTO_TCP, TCP_CORK, &one, sizeof one));
    T(write(s, "ab", 2));
    T(write(s, "cd", 2));
    T(setsockopt(s, IPPROTO_TCP, TCP_CORK, &zero, sizeof zero));
    P("recv 4");
    T(setsockopt(s, IPPROTO_TCP, TCP_CORK, &one, sizeof one));
    T(write(s, "ef", 2));
    T(shutdown(s, SHUT_WR));
    P("recv 9");
}

static void vectors(void) {
    int s = outgoing();
    char a[3] = {0}, b[5] = {0}, c[9] = {0};
    struct iovec out[] = {{"abc", 3}, {NULL, 0}, {"defgh", 5}, {"", 0}};
    T(writev(s, out, 4));
    P("recv 8");
    P("send 0123456789");
    queued(s, 10);
    struct iovec in[] = {{a, 2}, {NULL, 0}, {b, 4}, {c, 8}};
    T(readv(s, in, 4));
    say("%.3s %.5s %.9s", a, b, c);
    T(writev(s, out, 0));
    T(readv(s, in, 0));
    T(writev(s, out, -1));
    T(readv(s, in, -1));
    T(writev(s, out, 1025));
    T(readv(s, in, 1025));
    struct iovec zero[] = {{a, 0}, {b, 0}};
    T(writev(s, zero, 2));
    T(readv(s, zero, 2));
    struct iovec huge[] = {{a, 1}, {b, (size_t)-1}};
    T(writev(s, huge, 2));
    T(readv(s, huge, 2));
    T(writev(s, NULL, 2));
}

static void many_vectors(void) {
    int s = outgoing();
    static char bytes[1024 * 3];
    static struct iovec v[1024];
    for (int i = 0; i < 1024; i++) {
        v[i].iov_base = bytes + i * 3;
        v[i].iov_len = i % 4;
    }
    T(writev(s, v, 1024));
    P("skip 1536");
    peer("fill 1536");
    queued(s, 1536);
    T(readv(s, v, 1024));
}

static void messages(void) {
    int s = outgoing();
    char a[4] = {0}, b[20] = {0}, control[64];
    struct sockaddr_in name = at("1.2.3.4", 5);
    struct iovec v[] = {{"abc", 3}, {"de", 2}};
    struct msghdr m = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = v, .msg_iovlen = 2};
    T(sendmsg(s, &m, 0));
    m.msg_iovlen = 0;
    T(sendmsg(s, &m, 0));
    m.msg_iovlen = 2000;
    T(sendmsg(s, &m, 0));
    P("recv 5");
    P("send 0123456");
    queued(s, 7);
    struct iovec w[] = {{a, 3}, {b, 10}};
    struct msghdr r = {.msg_name = &name,   .msg_namelen = sizeof name, .msg_iov = w,        .msg_iovlen = 2,
                       .msg_control = control, .msg_controllen = 64,       .msg_flags = 0x7777};
    T(recvmsg(s, &r, 0));
    T(r.msg_namelen);
    T(r.msg_controllen);
    T(r.msg_flags);
    say("%.4s %.20s", a, b);
    r.msg_iovlen = 2000;
    T(recvmsg(s, &r, MSG_DONTWAIT));
    T(sendmsg(s, NULL, 0));
    T(recvmsg(s, NULL, 0));
    struct msghdr nowhere = {.msg_iovlen = 1};
    T(sendmsg(s, &nowhere, 0));
    T(recvmsg(s, &nowhere, MSG_DONTWAIT));
}

static void many_messages(void) {
    int s = outgoing();
    char a[3] = {0}, b[3] = {0};
    struct iovec v[] = {{"ab", 2}, {"cde", 3}}, w[] = {{a, 2}, {b, 2}};
    struct mmsghdr m[2] = {{{.msg_iov = &v[0], .msg_iovlen = 1}, 0}, {{.msg_iov = &v[1], .msg_iovlen = 1}, 0}};
    T(sendmmsg(s, m, 2, 0));
    T(m[0].msg_len);
    T(m[1].msg_len);
    P("recv 5");
    P("send wxyz");
    queued(s, 4);
    struct mmsghdr r[3] = {{{.msg_iov = &w[0], .msg_iovlen = 1}, 0}, {{.msg_iov = &w[1], .msg_iovlen = 1}, 0}};
    T(recvmmsg(s, r, 2, MSG_WAITFORONE, NULL));
    say("%s %s", a, b);
    T(recvmmsg(s, r, 2, MSG_DONTWAIT, NULL));
    P("send w");
    queued(s, 1);
    T(recvmmsg(s, r, 2, MSG_WAITFORONE, NULL));
}

static void names_of_senders(void) {
    int s = outgoing();
    char b[8] = {0};
    struct sockaddr_in a = at("1.2.3.4", 5);
    socklen_t len = sizeof a;
    T(recvfrom(s, b, 8, MSG_DONTWAIT, ADDR(a), &len));
    T(len);
    P("send abc");
    queued(s, 3);
    T(recvfrom(s, b, 8, MSG_PEEK, NULL, &len));
    T(len);
    T(recvfrom(s, b, 8, 0, ADDR(a), &len));
    T(len);
    a = at("1.2.3.4", 5);
    T(sendto(s, "xyz", 3, 0, ADDR(a), sizeof a));
    P("recv 3");
}

static void null_pointers(void) {
    int s = outgoing();
    P("send abcdef");
    queued(s, 6);
    T(read(s, NULL, 3));
    T(recv(s, NULL, 3, MSG_PEEK));
    T(write(s, NULL, 3));
    T(write(s, NULL, 0));
    struct iovec v = {NULL, 3};
    T(writev(s, &v, 1));
    T(readv(s, &v, 1));
    T(ioctl(s, FIONREAD, NULL));
    text("all is there", s, 0);
}

static void bad_pointers(void) {
    int s = outgoing();
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(page, 'p', 8192);
    mprotect(page + 4096, 4096, PROT_NONE);
    T(write(s, page + 4096, 10));
}

static void kernel_pointers(void) {
    int s = outgoing();
    P("send abcdef");
    queued(s, 6);
    T(write(s, (void *)0xffff800000000000ul, 10));
    T(read(s, (void *)0xffff800000000000ul, 10));
    text("all is there", s, 0);
}

static void flags_of_old(void) {
    int s = outgoing();
    char c;
    T(recv(s, &c, 1, MSG_OOB));
    T(recv(s, &c, 1, MSG_ERRQUEUE));
    T(recv(s, &c, 1, MSG_DONTWAIT | 0x4000000));
    T(send(s, "a", 1, MSG_DONTROUTE));
    T(send(s, "b", 1, MSG_CONFIRM));
    T(send(s, "c", 1, MSG_EOR));
    P("recv 3");
}

static int a_file(off_t bytes) {
    FILE *f = tmpfile();
    for (off_t i = 0; i < bytes; i++) {
        fputc('a' + (int)(i % 26), f);
    }
    fflush(f);
    int fd = dup(fileno(f));
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static void send_file(void) {
    int s = outgoing(), f = a_file(30);
    off_t at = 3;
    T(sendfile(s, f, &at, 5));
    T(at);
    T(lseek(f, 0, SEEK_CUR));
    P("recv 5");
    T(sendfile(s, f, NULL, 4));
    T(lseek(f, 0, SEEK_CUR));
    P("recv 4");
    at = 28;
    T(sendfile(s, f, &at, 100));
    T(at);
    P("recv 2");
    T(sendfile(s, f, &at, 100));
    at = 50;
    T(sendfile(s, f, &at, 100));
    at = -1;
    T(sendfile(s, f, &at, 1));
    T(sendfile(s, f, NULL, 0));
    T(sendfile(s, -1, NULL, 1));
    T(sendfile(f, s, NULL, 1));
    T(sendfile(s, s, NULL, 1));
    int pipes[2];
    T(pipe(pipes));
    T(write(pipes[1], "x", 1));
    T(sendfile(s, pipes[0], NULL, 1));
    int w = open("/dev/null", O_WRONLY);
    T(sendfile(s, w, NULL, 1));
    shutdown(s, SHUT_WR);
    at = 0;
    T(sendfile(s, f, &at, 3));
    T(at);
    T(sendfile(s, f, &at, 0));
}

static void send_file_large(void) {
    int s = outgoing(), f = a_file(3000000);
    off_t at = 0;
    peer("later 0 skip 3000000");
    while (at < 3000000 && sendfile(s, f, &at, 3000000 - at) > 0) {
    }
    T(at);
    T(close(s));
}

static void full_and_drained(void) {
    int s = outgoing();
    nonblocking(s);
    long n = fill(s);
    T(n > 1000);
    T(write(s, "x", 1));
    T(send(s, "x", 1, 0));
    bits("full", s, 0);
    struct iovec v = {"abc", 3};
    T(writev(s, &v, 1));
    peer("skip %ld", n);
    bits("drained", s, POLLOUT);
    T(write(s, "x", 1));
    P("recv 1");
}

static void *drain_later(void *bytes) {
    settle();
    peer("skip %ld", (long)bytes);
    return NULL;
}

static void blocking_write_waits_for_room(void) {
    int s = outgoing();
    static char block[6000000];
    long n = fill(s);
    pthread_t t = thread(drain_later, n + (long)sizeof block);
    T(write(s, block, sizeof block));
    pthread_join(t, NULL);
    T(write(s, "x", 1));
    P("recv 1");
}

static void large_both_ways(void) {
    int s = outgoing();
    static unsigned char block[1 << 20];
    long left = 8 << 20, bad = 0, at = 0;
    peer("later 0 fill %ld", left);
    while (left > 0) {
        ssize_t n = read(s, block, sizeof block);
        if (n <= 0) {
            break;
        }
        for (ssize_t i = 0; i < n; i++) {
            bad += block[i] != (unsigned char)((at + i) % (251 * 261) * 7 % 251);
        }
        at += n;
        left -= n;
    }
    T(left);
    T(bad);
}

static void splices(void) {
    int s = outgoing(), pipes[2];
    T(pipe(pipes));
    T(write(pipes[1], "abc", 3));
    T(splice(pipes[0], NULL, s, NULL, 3, 0));
    P("recv 3");
    T(splice(pipes[0], NULL, s, NULL, 3, SPLICE_F_NONBLOCK));
    T(write(pipes[1], "def", 3));
    T(splice(pipes[0], NULL, s, NULL, 100, SPLICE_F_MORE));
    T(splice(pipes[1], NULL, s, NULL, 3, 0));
    loff_t at = 0;
    T(splice(pipes[0], &at, s, NULL, 3, 0));
    T(splice(pipes[0], NULL, s, &at, 3, 0));
    T(splice(pipes[0], NULL, s, NULL, 0, 0));
    T(splice(open("/dev/null", O_RDONLY), NULL, s, NULL, 3, 0));
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    T(splice(pipes[0], NULL, s, NULL, 3, 0));
    T(close(pipes[1]));
    T(splice(pipes[0], NULL, s, NULL, 3, 0));
    T(write(s, "g", 1));
    P("recv 4");
    signal(SIGPIPE, count_signal);
    T(pipe(pipes));
    T(write(pipes[1], "abc", 3));
    T(shutdown(s, SHUT_WR));
    T(splice(pipes[0], NULL, s, NULL, 3, 0));
    T(signals_seen);
}

/* More than there is room for, while more comes. */
static void splices_large(void) {
    int s = outgoing(), pipes[2];
    static char block[50000];
    T(pipe(pipes));
    pid_t child = fork();
    if (child == 0) {
        close(pipes[0]);
        for (int i = 0; i < 40; i++) {
            write(pipes[1], block, sizeof block);
        }
        _exit(0);
    }
    close(pipes[1]);
    peer("later 10 drain");
    long n, sum = 0;
    while ((n = splice(pipes[0], NULL, s, NULL, 1 << 20, 0)) > 0) {
        sum += n;
    }
    T(n);
    T(sum);
    T(close(s));
    waitpid(child, NULL, 0);
}

const struct test data_tests[] = {
    {"peek", peek},
    {"wait_all", wait_all},
    {"wait_all_and_peek", wait_all_and_peek},
    {"wait_all_and_reset", wait_all_and_reset},
    {"wait_all_times_out", wait_all_times_out},
    {"dont_wait", dont_wait},
    {"truncate_flag", truncate_flag},
    {"more", more},
    {"more_goes_in_the_end", more_goes_in_the_end},
    {"cork", cork},
    {"vectors", vectors},
    {"many_vectors", many_vectors},
    {"messages", messages},
    {"many_messages", many_messages},
    {"names_of_senders", names_of_senders},
    {"null_pointers", null_pointers},
    {"kernel_pointers", kernel_pointers},
    {"bad_pointers", bad_pointers},
    {"flags_of_old", flags_of_old},
    {"send_file", send_file},
    {"send_file_large", send_file_large},
    {"full_and_drained", full_and_drained},
    {"blocking_write_waits_for_room", blocking_write_waits_for_room},
    {"large_both_ways", large_both_ways},
    {"splices", splices},
    {"splices_large", splices_large},
    {0},
};
