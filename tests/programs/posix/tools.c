#include "probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/un.h>

extern const char *current_group, *current_case;
volatile sig_atomic_t signals_seen;

void say(const char *format, ...) {
    char line[2000];
    int n = snprintf(line, sizeof line, "%s/%s: ", current_group, current_case);
    va_list list;
    va_start(list, format);
    n += vsnprintf(line + n, sizeof line - n - 1, format, list);
    va_end(list);
    if (n > (int)sizeof line - 2) {
        n = sizeof line - 2;
    }
    line[n++] = '\n';
    if (write(1, line, n) != n) {
        _exit(9);
    }
}

long report(const char *call, long result) {
    if (result == -1) {
        say("%s = -1 %s", call, strerrorname_np(errno));
    } else {
        say("%s = %ld", call, result);
    }
    return result;
}

int report_fd(const char *call, int fd) {
    if (fd < 0) {
        say("%s = -1 %s", call, strerrorname_np(errno));
    } else {
        say("%s = a descriptor", call);
    }
    return fd;
}

const char *peer(const char *format, ...) {
    static int control = -1;
    static char answer[400];
    if (control < 0) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        snprintf(name.sun_path, sizeof name.sun_path, "%s", getenv("PROBE_PEER"));
        control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* Out of the way: some cases count descriptors. */
        int high = fcntl(control, F_DUPFD_CLOEXEC, 500);
        close(control);
        control = high;
        if (connect(control, ADDR(name), sizeof name) < 0) {
            say("no peer: %s", strerrorname_np(errno));
            exit(9);
        }
    }
    char command[400];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(command, sizeof command - 1, format, list);
    va_end(list);
    command[n++] = '\n';
    if (write(control, command, n) != n) {
        exit(9);
    }
    size_t got = 0;
    while (got < sizeof answer - 1) {
        ssize_t m = read(control, answer + got, 1);
        if (m < 0 && errno == EINTR) {
            continue;
        }
        if (m <= 0) {
            exit(9);
        }
        if (answer[got] == '\n') {
            break;
        }
        got++;
    }
    answer[got] = 0;
    return answer;
}

void say_peer(const char *answer, const char *command) {
    say("peer %s: %s", command, answer);
}

struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    return a;
}

void must(const char *what, long result) {
    if (result < 0) {
        say("cannot %s: %s", what, strerrorname_np(errno));
        exit(9);
    }
}

int port_of(int fd) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    must("getsockname", getsockname(fd, ADDR(a), &len));
    return ntohs(a.sin_port);
}

int listener(int *port) {
    struct sockaddr_in a = at(here, 0);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    must("make a socket", s);
    must("bind", bind(s, ADDR(a), sizeof a));
    must("listen", listen(s, 64));
    *port = port_of(s);
    return s;
}

int peer_port(void) {
    return atoi(peer("listen"));
}

int outgoing(void) {
    struct sockaddr_in a = at(there, peer_port());
    int s = socket(AF_INET, SOCK_STREAM, 0);
    must("make a socket", s);
    must("connect", connect(s, ADDR(a), sizeof a));
    peer("accept");
    return s;
}

int incoming(void) {
    int port, l = listener(&port);
    peer("connect %d", port);
    int s = accept(l, NULL, NULL);
    must("accept", s);
    close(l);
    return s;
}

void nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

const char *poll_names(int events) {
    static const struct {
        int bit;
        const char *name;
    } names[] = {{POLLIN, "IN"},   {POLLPRI, "PRI"}, {POLLOUT, "OUT"},     {POLLRDHUP, "RDHUP"},
                 {POLLERR, "ERR"}, {POLLHUP, "HUP"}, {POLLNVAL, "NVAL"}};
    static char out[100];
    out[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (events & names[i].bit) {
            strcat(out, out[0] ? "|" : "");
            strcat(out, names[i].name);
        }
    }
    return out[0] ? out : "none";
}

/* What poll reports now, or -1. */
static int look(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    int n;
    while ((n = poll(&p, 1, 0)) < 0 && errno == EINTR) {
    }
    return n < 0 ? -1 : p.revents;
}

int await(int fd, short want) {
    int now, before = -1;
    UNTIL((now = look(fd)) < 0 || !want || ((now & want) == want && now == before)) {
        before = now;
    }
    return now;
}

void bits(const char *what, int fd, short want) {
    int now = await(fd, want);
    if (now < 0) {
        say("%s: poll = -1 %s", what, strerrorname_np(errno));
    } else {
        say("%s: %s", what, poll_names(now));
    }
}

void queued(int fd, int n) {
    int have = 0;
    UNTIL(ioctl(fd, FIONREAD, &have) == 0 && have >= n) {
    }
    if (have < n) {
        say("%d bytes did not come", n);
    }
}

int outq(int fd) {
    int n = -1;
    ioctl(fd, SIOCOUTQ, &n);
    return n;
}

int state_of(int fd) {
    struct tcp_info i = {0};
    socklen_t len = sizeof i;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len);
    return i.tcpi_state;
}

/* How often a thread has gone to sleep; -1: it does not sleep. */
static long sleeps_of(const char *tid) {
    char path[300], line[200], state = '?';
    long sleeps = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
    FILE *f = fopen(path, "r");
    if (!f) {
        return 0;
    }
    while (fgets(line, sizeof line, f)) {
        sscanf(line, "State: %c", &state);
        sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
    }
    fclose(f);
    return state == 'S' ? sleeps : -1;
}

/* The same of all threads but this one, together. */
static long sleeps_of_others(void) {
    DIR *tasks = opendir("/proc/self/task");
    long sum = 0, n = 0;
    for (struct dirent *task; n >= 0 && (task = readdir(tasks)) != NULL;) {
        if (atoi(task->d_name) && atoi(task->d_name) != gettid()) {
            n = sleeps_of(task->d_name);
            sum += n;
        }
    }
    closedir(tasks);
    return n < 0 ? -1 : sum;
}

void asleep(void) {
    long before = -1;
    int same = 0;
    UNTIL(same == 5) {
        long now = sleeps_of_others();
        same = now >= 0 && now == before ? same + 1 : 0;
        before = now;
    }
}

void settle(void) {
    usleep(150000);
}

void echoes(int e) {
    struct epoll_event event;
    for (int again = 1, n = 0; again > 0 && n < 3; n++) {
        again = epoll_wait(e, &event, 1, 150);
    }
}

void text(const char *what, int fd, int flags) {
    char buf[200];
    ssize_t n = recv(fd, buf, sizeof buf - 1, flags);
    if (n < 0) {
        say("%s: -1 %s", what, strerrorname_np(errno));
        return;
    }
    buf[n] = 0;
    say("%s: \"%s\"", what, buf);
}

void count_signal(int number) {
    (void)number;
    signals_seen++;
}

pthread_t thread(void *(*body)(void *), long argument) {
    pthread_t t;
    if (pthread_create(&t, NULL, body, (void *)argument) != 0) {
        say("no thread");
        exit(9);
    }
    return t;
}

static volatile int nagging;
static pthread_t nagged, nagger;

static void *nag_body(void *unused) {
    while (nagging) {
        usleep(50000);
        if (nagging) {
            pthread_kill(nagged, SIGUSR1);
        }
    }
    return unused;
}

void nag(void) {
    struct sigaction action = {.sa_handler = count_signal};
    sigaction(SIGUSR1, &action, NULL);
    nagging = 1;
    nagged = pthread_self();
    nagger = thread(nag_body, 0);
}

void nag_off(void) {
    nagging = 0;
    pthread_join(nagger, NULL);
}

long fill(int fd) {
    static char block[65536];
    long sum = 0;
    memset(block, 'x', sizeof block);
    /* Until it stays full, and the other end takes no more: what is sent makes room again. */
    for (int quiet = 0, left = -1; quiet < 30;) {
        ssize_t n = send(fd, block, sizeof block, MSG_DONTWAIT);
        if (n > 0) {
            sum += n;
            quiet = 0;
        } else {
            quiet = outq(fd) == left ? quiet + 1 : 0;
            left = outq(fd);
            usleep(10000);
        }
    }
    return sum;
}
