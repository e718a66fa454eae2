/* fork and exec with sockets open. */
#include "probe.h"

#include <sys/syscall.h>
#include <dirent.h>
#include <spawn.h>

extern char **environ;

/* Echoes one connection until its end. */
static void serve(int s) {
    char b[1000];
    ssize_t n;
    while ((n = read(s, b, sizeof b)) > 0) {
        if (write(s, b, n) != n) {
            break;
        }
    }
}

static void reap(int n) {
    for (int i = 0; i < n; i++) {
        int status = -1;
        wait(&status);
        if (status != 0) {
            say("a child ended with %#x", status);
        }
    }
}

static void fork_per_connection(void) {
    int port, l = listener(&port);
    for (int i = 0; i < 4; i++) {
        peer("connect %d", port);
        int s = accept(l, NULL, NULL);
        if (fork() == 0) {
            close(l);
            serve(s);
            close(s);
            _exit(0);
        }
        close(s);
        peer("send hello%d", i);
        P("recv 6");
    }
    for (int i = 0; i < 4; i++) {
        peer("use %d", i);
        peer("send again%d", i);
        P("recv 6");
        P("shutdown wr");
        P("end");
    }
    reap(4);
}

static void child_exits_without_closing(void) {
    int port, l = listener(&port);
    for (int i = 0; i < 3; i++) {
        peer("connect %d", port);
        int s = accept(l, NULL, NULL);
        if (fork() == 0) {
            write(s, "from the child", 14);
            exit(0);
        }
        close(s);
        P("recv 14");
        P("end");
        reap(1);
    }
}

static void preforked(void) {
    int port, l = listener(&port);
    pid_t all[4];
    for (int i = 0; i < 4; i++) {
        all[i] = fork();
        if (all[i] == 0) {
            for (;;) {
                int s = accept(l, NULL, NULL);
                if (s < 0) {
                    _exit(3);
                }
                serve(s);
                close(s);
            }
        }
    }
    settle();
    for (int i = 0; i < 12; i++) {
        peer("connect %d", port);
        peer("send hello");
        P("recv 5");
        P("shutdown wr");
        P("end");
        P("close");
    }
    for (int i = 0; i < 4; i++) {
        kill(all[i], SIGKILL);
        waitpid(all[i], NULL, 0);
    }
    P("connect %d", port);
    F(accept(l, NULL, NULL));
}

static void preforked_with_epoll(void) {
    int port, l = listener(&port);
    nonblocking(l);
    pid_t all[3];
    for (int i = 0; i < 3; i++) {
        all[i] = fork();
        if (all[i] == 0) {
            int e = epoll_create1(0);
            struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE};
            epoll_ctl(e, EPOLL_CTL_ADD, l, &ev);
            while (epoll_wait(e, &ev, 1, -1) >= 0) {
                int s = accept(l, NULL, NULL);
                if (s >= 0) {
                    serve(s);
                    close(s);
                }
            }
            _exit(3);
        }
    }
    close(l);
    settle();
    for (int i = 0; i < 8; i++) {
        peer("connect %d", port);
        peer("send hello");
        P("recv 5");
        P("shutdown wr");
        P("end");
        P("close");
    }
    for (int i = 0; i < 3; i++) {
        kill(all[i], SIGKILL);
        waitpid(all[i], NULL, 0);
    }
    const char *answer;
    UNTIL(strcmp(answer = peer("connect %d", port), "ECONNREFUSED") == 0) {
    }
    say_peer(answer, "connect");
}

/* As HAProxy's: root opens the listener, the worker shuts itself in. */
static void worker_in_a_chroot(void) {
    int port, l = listener(&port), go[2];
    char folder[] = "/tmp/probe-XXXXXX", c;
    T(mkdtemp(folder) != NULL);
    T(pipe(go));
    if (fork() == 0) {
        T(chroot(folder));
        T(chdir("/"));
        write(go[1], "x", 1);
        int s = accept(l, NULL, NULL);
        serve(s);
        _exit(s < 0);
    }
    T(read(go[0], &c, 1));
    P("connect %d", port);
    P("send hello");
    P("recv 5");
    P("shutdown wr");
    P("end");
    reap(1);
    T(rmdir(folder));
}

static void connects_from_a_chroot(void) {
    int port = peer_port();
    char folder[] = "/tmp/probe-XXXXXX";
    T(mkdtemp(folder) != NULL);
    if (fork() == 0) {
        struct sockaddr_in a = at(there, port);
        T(chroot(folder));
        int s = socket(AF_INET, SOCK_STREAM, 0);
        T(connect(s, ADDR(a), sizeof a));
        T(write(s, "hello", 5));
        _exit(0);
    }
    reap(1);
    P("accept");
    P("recv 5");
    T(rmdir(folder));
}

static void child_does_nothing(void) {
    int s = outgoing();
    P("send before");
    queued(s, 6);
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            _exit(0);
        }
        reap(1);
        if (fork() == 0) {
            exit(0);
        }
        reap(1);
    }
    text("parent reads", s, 0);
    T(write(s, "abc", 3));
    P("recv 3");
    pid_t child = fork();
    if (child == 0) {
        pause();
    }
    T(close(s));
    settle();
    T(kill(child, SIGKILL));
    waitpid(child, NULL, 0);
    P("end");
}

static void parent_closes_first(void) {
    int s = outgoing(), pipes[2];
    char c;
    T(pipe(pipes));
    if (fork() == 0) {
        read(pipes[0], &c, 1);
        write(s, "from the child", 14);
        _exit(0);
    }
    T(close(s));
    P("send abc");
    T(write(pipes[1], "x", 1));
    P("recv 14");
    reap(1);
    P("end");
}

static void both_use_it(void) {
    int s = outgoing();
    char b[10] = {0};
    T(write(s, "a", 1));
    if (fork() == 0) {
        for (int i = 0; i < 3; i++) {
            char c;
            if (read(s, &c, 1) != 1) {
                _exit(1);
            }
        }
        _exit(write(s, "b", 1) != 1);
    }
    P("send xyz");
    reap(1);
    P("recv 2");
    P("send 123");
    T(recv(s, b, 3, MSG_WAITALL));
    say("%s", b);
    T(write(s, "c", 1));
    P("recv 1");
    T(close(s));
    P("end");
}

static void child_shuts_down(void) {
    int s = outgoing();
    if (fork() == 0) {
        shutdown(s, SHUT_WR);
        _exit(0);
    }
    reap(1);
    P("end");
    T(write(s, "x", 1));
    P("send abc");
    text("still receives", s, 0);
}

static void child_connects(void) {
    int s = outgoing(), port = peer_port();
    if (fork() == 0) {
        struct sockaddr_in a = at(there, port);
        int t = socket(AF_INET, SOCK_STREAM, 0);
        _exit(connect(t, ADDR(a), sizeof a) < 0 || write(t, "child", 5) != 5);
    }
    reap(1);
    P("accept");
    P("recv 5");
    P("end");
    P("use 0");
    T(write(s, "parent", 6));
    P("recv 6");
}

static void grandchild(void) {
    int s = outgoing();
    if (fork() == 0) {
        if (fork() == 0) {
            usleep(50000);
            _exit(write(s, "grandchild", 10) != 10);
        }
        _exit(0);
    }
    reap(1);
    T(close(s));
    P("recv 10");
    P("end");
}

static void fork_while_connecting(void) {
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = at(there, peer_port());
    T(connect(s, ADDR(a), sizeof a));
    if (fork() == 0) {
        struct pollfd p = {.fd = s, .events = POLLOUT};
        _exit(poll(&p, 1, 5000) != 1 || write(s, "child", 5) != 5);
    }
    reap(1);
    P("accept");
    P("recv 5");
    bits("parent", s, POLLOUT);
    T(write(s, "parent", 6));
    P("recv 6");
}

static void threads_go_on_in_the_parent(void) {
    int s = outgoing();
    P("echo");
    for (int i = 0; i < 20; i++) {
        if (fork() == 0) {
            _exit(0);
        }
        char c = 0;
        if (write(s, "x", 1) != 1 || read(s, &c, 1) != 1 || c != 'x') {
            say("broken at %d", i);
        }
    }
    reap(20);
}

static pid_t run(int in, int out, char *const argv[]) {
    pid_t child = fork();
    if (child == 0) {
        dup2(in, 0);
        dup2(out, 1);
        execvp(argv[0], argv);
        _exit(127);
    }
    return child;
}

static void inetd(void) {
    int port, l = listener(&port);
    for (int i = 0; i < 2; i++) {
        P("connect %d", port);
        int s = accept(l, NULL, NULL);
        run(s, s, (char *[]){"cat", NULL});
        close(s);
        P("send hello");
        P("recv 5");
        P("shutdown wr");
        P("end");
        reap(1);
    }
}

static void inetd_with_close_on_exec(void) {
    int port, l = listener(&port);
    P("connect %d", port);
    int s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
    run(s, s, (char *[]){"sh", "-c", "read line; echo got $line", NULL});
    close(s);
    P("send hello\\n");
    P("shutdown wr");
    P("recv 10");
    P("end");
    reap(1);
}

static void inherited_at_a_high_number(void) {
    int s = outgoing();
    must("make a copy", dup2(s, 100));
    if (fork() == 0) {
        execlp("python3", "python3", "-c", "import os; os.write(100, os.read(100, 5))", NULL);
        _exit(127);
    }
    close(100);
    P("send hello");
    P("recv 5");
    reap(1);
}

static void exec_keeps_unread_bytes(void) {
    int s = outgoing(), pipes[2];
    char b[10] = {0};
    T(pipe(pipes));
    P("send abcdef");
    queued(s, 6);
    T(read(s, b, 2));
    run(s, pipes[1], (char *[]){"head", "-c", "4", NULL});
    T(read(pipes[0], b, 4));
    say("%s", b);
    reap(1);
    T(write(s, "still", 5));
    P("recv 5");
}

static void spawned(void) {
    int s = outgoing();
    pid_t child;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, s, 1);
    T(posix_spawnp(&child, "echo", &actions, NULL, (char *[]){"echo", "hello", NULL}, environ));
    waitpid(child, NULL, 0);
    peer("patience 2");
    P("recv 5");
    T(write(s, "x", 1));
}

static void system_and_popen(void) {
    int s = outgoing();
    char line[20] = {0};
    T(system("exit 3"));
    T(write(s, "abc", 3));
    P("recv 3");
    FILE *f = popen("echo hello", "r");
    T(fgets(line, sizeof line, f) != NULL);
    T(pclose(f));
    say("%.5s", line);
    P("send xyz");
    text("still", s, 0);
    f = popen("cat >/dev/null", "w");
    T(fputs("hello", f) >= 0);
    T(pclose(f));
    T(close(s));
    P("end");
}

static void vfork_and_exec(void) {
    int s = outgoing();
    pid_t child = vfork();
    if (child == 0) {
        close(s);
        close(500);
        execlp("true", "true", NULL);
        _exit(127);
    }
    reap(1);
    T(write(s, "abc", 3));
    P("recv 3");
    P("send xyz");
    text("still", s, 0);
}

static void vfork_and_exec_with_it(void) {
    int s = outgoing();
    P("send abcdef");
    queued(s, 6);
    pid_t child = vfork();
    if (child == 0) {
        dup2(s, 0);
        execl("/usr/bin/head", "head", "-c3", NULL);
        _exit(127);
    }
    reap(1);
    P("send xyz");
    queued(s, 6);
    text("still", s, 0);
}

static void exec_itself_closes(void) {
    int port, l = listener(&port);
    pid_t child = fork();
    if (child == 0) {
        int s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
        write(s, "hello", 5);
        execl("/bin/true", "true", NULL);
        _exit(127);
    }
    close(l);
    P("connect %d", port);
    P("recv 5");
    P("end");
    reap(1);
}

static void exec_closes(void) {
    int s = outgoing();
    fcntl(s, F_SETFD, FD_CLOEXEC);
    pid_t child = fork();
    if (child == 0) {
        write(s, "x", 1);
        execlp("sleep", "sleep", "5", NULL);
        _exit(127);
    }
    P("recv 1");
    T(close(s));
    P("end");
    kill(child, SIGKILL);
}

static void killed_after_sending(void) {
    int s = outgoing();
    pid_t child = fork();
    if (child == 0) {
        write(s, "abc", 3);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    P("recv 3");
    P("send xyz");
    text("still", s, 0);
    T(write(s, "d", 1));
    P("recv 1");
}

static void daemon_closes_all(int how) {
    if (how == 0) {
        close_range(3, ~0u, 0);
    } else if (how == 1) {
        for (int fd = 3; fd < 5000; fd++) {
            close(fd);
        }
    } else {
        DIR *d = opendir("/proc/self/fd");
        for (struct dirent *e; (e = readdir(d));) {
            int fd = atoi(e->d_name);
            if (fd > 2 && fd != dirfd(d)) {
                close(fd);
            }
        }
        closedir(d);
    }
}

static void daemons(void) {
    for (int how = 0; how < 3; how++) {
        for (int late = 0; late < 2; late++) {
            int port = peer_port();
            say("%s, %s", how == 0 ? "close_range" : how == 1 ? "a loop" : "/proc/self/fd", late ? "late" : "early");
            pid_t child = fork();
            if (child == 0) {
                if (late) {
                    close(socket(AF_INET, SOCK_STREAM, 0));
                }
                setsid();
                if (fork() > 0) {
                    _exit(0);
                }
                daemon_closes_all(how);
                struct sockaddr_in a = at(there, port);
                int s = socket(AF_INET, SOCK_STREAM, 0);
                if (connect(s, ADDR(a), sizeof a) == 0) {
                    write(s, "daemon", 6);
                }
                _exit(0);
            }
            reap(1);
            P("accept");
            P("recv 6");
            P("end");
        }
    }
}

static void closes_all_with_a_connection(void) {
    int s = outgoing();
    pid_t child = fork();
    if (child == 0) {
        daemon_closes_all(0);
        pause();
    }
    T(write(s, "abc", 3));
    P("recv 3");
    T(close(s));
    P("end");
    kill(child, SIGKILL);
}

static void passed_over_a_unix_socket(void) {
    int s = outgoing(), pair[2];
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } c = {0};
    char byte = 'x';
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    pid_t child = fork();
    if (child == 0) {
        close(s);
        if (recvmsg(pair[1], &m, 0) != 1 || m.msg_controllen == 0) {
            _exit(1);
        }
        int fd;
        memcpy(&fd, CMSG_DATA(&c.head), sizeof fd);
        _exit(write(fd, "passed", 6) != 6);
    }
    c.head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&c.head), &s, sizeof s);
    T(sendmsg(pair[0], &m, 0));
    T(close(s));
    reap(1);
    P("recv 6");
    P("end");
}

static void passed_to_a_program_with_sockets(void) {
    int s = outgoing(), pair[2], err[2];
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    T(pipe(err));
    if (fork() == 0) {
        dup2(pair[1], 0);
        dup2(err[1], 2);
        close_range(3, ~0u, 0);
        execlp("python3", "python3", "-c",
               "import os, socket\n"
               "own = socket.socket()\n"
               "fds = socket.recv_fds(socket.socket(fileno=0), 1, 2)[1]\n"
               "os.write(fds[0], b'passed')\n",
               NULL);
        _exit(127);
    }
    close(err[1]);
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } c = {.head = {.cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&c.head), (int[]){s, s}, 2 * sizeof(int));
    struct iovec v = {"x", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
    T(sendmsg(pair[0], &m, 0));
    int lines = 0;
    for (char b; read(err[0], &b, 1) == 1;) {
        lines += b == '\n';
    }
    say("%d lines of errors", lines);
    reap(1);
    peer("patience 2");
    P("recv 6");
}

static void epoll_over_fork(void) {
    int e = epoll_create1(0), s = outgoing();
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    if (fork() == 0) {
        P("later 60 send x");
        int n = epoll_wait(e, &ev, 1, 3000);
        char c;
        _exit(n != 1 || read(s, &c, 1) != 1);
    }
    reap(1);
    P("send y");
    T(epoll_wait(e, &ev, 1, 3000));
    text("parent", s, 0);
}

/* As vsftpd and NGINX Unit make their processes: no handler of pthread_atfork() runs. */
static void cloned(void) {
    int port, l = listener(&port);
    peer("connect %d", port);
    int s = accept(l, NULL, NULL), said[2];
    char c;
    T(pipe(said));
    if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) == 0) {
        char b[8];
        close(l);
        int file = open("/dev/zero", O_RDONLY);
        say("the listener's number: %d", file == l);
        T(read(file, b, sizeof b));
        write(said[1], "x", 1);
        serve(s);
        _exit(0);
    }
    close(s);
    T(read(said[0], &c, 1));
    for (int i = 0; i < 3; i++) {
        peer("use 0");
        P("send hello");
        P("recv 5");
        peer("connect %d", port);
        s = accept(l, NULL, NULL);
        P("send to the parent");
        text("parent", s, 0);
        close(s);
    }
    peer("use 0");
    P("shutdown wr");
    P("end");
    reap(1);
}

/* As Python's asyncio starts its subprocesses. */
static void vfork_before_any_socket(void) {
    int e = epoll_create1(0);
    pid_t child = vfork();
    if (child == 0) {
        close(e);
        execlp("true", "true", NULL);
        _exit(1);
    }
    reap(1);
    int s = outgoing();
    struct epoll_event ev = {.events = EPOLLIN};
    T(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
    P("send x");
    T(epoll_wait(e, &ev, 1, 5000));
}

const struct test process_tests[] = {
    {"vfork_before_any_socket", vfork_before_any_socket},
    {"cloned", cloned},
    {"fork_per_connection", fork_per_connection},
    {"child_exits_without_closing", child_exits_without_closing},
    {"preforked", preforked},
    {"preforked_with_epoll", preforked_with_epoll},
    {"worker_in_a_chroot", worker_in_a_chroot},
    {"connects_from_a_chroot", connects_from_a_chroot},
    {"child_does_nothing", child_does_nothing},
    {"parent_closes_first", parent_closes_first},
    {"both_use_it", both_use_it},
    {"child_shuts_down", child_shuts_down},
    {"child_connects", child_connects},
    {"grandchild", grandchild},
    {"fork_while_connecting", fork_while_connecting},
    {"threads_go_on_in_the_parent", threads_go_on_in_the_parent},
    {"inetd", inetd},
    {"inetd_with_close_on_exec", inetd_with_close_on_exec},
    {"inherited_at_a_high_number", inherited_at_a_high_number},
    {"exec_keeps_unread_bytes", exec_keeps_unread_bytes},
    {"spawned", spawned},
    {"system_and_popen", system_and_popen},
    {"vfork_and_exec", vfork_and_exec},
    {"vfork_and_exec_with_it", vfork_and_exec_with_it},
    {"exec_itself_closes", exec_itself_closes},
    {"exec_closes", exec_closes},
    {"killed_after_sending", killed_after_sending},
    {"daemons", daemons},
    {"closes_all_with_a_connection", closes_all_with_a_connection},
    {"passed_over_a_unix_socket", passed_over_a_unix_socket},
    {"passed_to_a_program_with_sockets", passed_to_a_program_with_sockets},
    {"epoll_over_fork", epoll_over_fork},
    {0},
};
