/* Cases that print what the C library's socket functions answer, one line per call, so that two runs can be compared.
 *
 *   main.c     runs each case of a group in a process of its own and prints "group/case: ..." lines
 *   tools.c    printing, connections, and the peer: another host that does what it is told (peer.py)
 *   the rest   one file per group
 *
 * A line never holds what may differ between two runs: no descriptor numbers, ports or times.
 */
#ifndef PROBE_H
#define PROBE_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

struct test {
    const char *name;
    void (*run)(void);
};

extern const struct test open_tests[], connect_tests[], ends_tests[], data_tests[], control_tests[], options_tests[],
    ready_tests[], epoll_tests[], wait_tests[], urgent_tests[], process_tests[], kernel_tests[];

/* The addresses of this host and of the peer. */
extern const char *here, *there;

/* A line of its own. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints what a call answered: its number, or -1 and errno. Answers it. */
long report(const char *call, long result);
#define T(call) report(#call, (long)(call))
/* For calls that answer a descriptor: its number does not matter. */
int report_fd(const char *call, int fd);
#define F(call) report_fd(#call, (call))

/* Tells the peer something (see peer.py); its answer. P prints it too. */
const char *peer(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define P(...) say_peer(peer(__VA_ARGS__), #__VA_ARGS__)
void say_peer(const char *answer, const char *command);

struct sockaddr_in at(const char *ip, int port);
#define ADDR(a) ((struct sockaddr *)&(a))

/* A listening socket on this host's address and its port. */
int listener(int *port);
int port_of(int fd);
/* A connection to the peer, opened by us, or by the peer. */
int outgoing(void);
int incoming(void);
/* The peer listens; its port. */
int peer_port(void);

/* Ends the case if the result is an error: without it the rest means nothing. */
void must(const char *what, long result);
void nonblocking(int fd);
/* Waits until the condition holds, 10 s at most. */
#define UNTIL(condition) for (int i_ = 0; i_ < 2000 && !(condition); i_++, usleep(5000))
/* Waits until poll reports all of `want`, and no more comes; what it reports then, or -1. */
int await(int fd, short want);
/* The same, and prints it. */
void bits(const char *what, int fd, short want);
/* Waits until `n` bytes can be received. */
void queued(int fd, int n);
/* Bytes that the other end has not acknowledged. */
int outq(int fd);
/* TCP_ESTABLISHED and so on. */
int state_of(int fd);
/* Waits until all other threads of this process sleep, and go on sleeping. */
void asleep(void);
/* Waits a little, for what should not happen to happen. */
void settle(void);
/* What an edge-triggered instance says again: Linux may wake twice for one segment, for a mark or the end and for what comes with it. */
void echoes(int e);
const char *poll_names(int events);
/* Receives and prints as text: "hello", end or errno. */
void text(const char *what, int fd, int flags);
/* A handler that counts, without SA_RESTART. */
extern volatile sig_atomic_t signals_seen;
void count_signal(int number);
/* Runs `body` on a thread. */
pthread_t thread(void *(*body)(void *), long argument);
/* Sends SIGUSR1 to this thread after a while, again and again, until called off. */
void nag(void);
void nag_off(void);
/* Fills the send buffer of a non-blocking socket; the bytes that went in. */
long fill(int fd);

#endif
