/* libtoe: sockets on the card, non-blocking and in batches. See host-lib/toe/src/capi.rs. */
#ifndef TOE_H
#define TOE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct toe_context;

/* A socket whose readiness changed; `ready` has poll(2)'s bits: POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLRDHUP. */
struct toe_event {
    uint32_t socket;
    uint32_t ready;
};

/* Opens a context at toed's socket; NULL for the one in the run folder. NULL: failed, the reason is on stderr. */
struct toe_context *toe_open(const char *path);
/* Closes all its sockets, as toe_close. (A program that ends without this resets its connections.) */
void toe_close_context(struct toe_context *);

/* `ip` in network order (as in struct in_addr), `port` in host order. A socket (>= 0) or a negative errno. */
int64_t toe_listen(struct toe_context *, uint32_t ip, uint16_t port, uint32_t backlog);
int64_t toe_connect(struct toe_context *, uint32_t ip, uint16_t port);
/* The same at a struct sockaddr_in or sockaddr_in6, as bind and connect have it. */
int64_t toe_listen_at(struct toe_context *, const struct sockaddr *addr, socklen_t len, uint32_t backlog);
int64_t toe_connect_to(struct toe_context *, const struct sockaddr *addr, socklen_t len);
int64_t toe_accept(struct toe_context *, uint32_t listener);

/* Bytes, 0 for the end, or a negative errno (-EAGAIN: not now). */
ssize_t toe_recv(struct toe_context *, uint32_t socket, void *buf, size_t len);
ssize_t toe_send(struct toe_context *, uint32_t socket, const void *buf, size_t len);

/* Urgent data, as on Linux: all up to the end of what toe_send_urgent sends is urgent. The last byte of the peer's is taken by toe_recv_urgent,
 * which answers it (or -EINVAL: none; -EAGAIN: not here yet; -ENODATA: the peer has sent everything), or by toe_recv in its place, if the
 * socket is inline. toe_at_mark: 1 if it comes next. */
ssize_t toe_send_urgent(struct toe_context *, uint32_t socket, const void *buf, size_t len);
int toe_recv_urgent(struct toe_context *, uint32_t socket);
int toe_at_mark(struct toe_context *, uint32_t socket);
int toe_set_oob_inline(struct toe_context *, uint32_t socket, int on);

/* Nothing more will be sent; done with the socket. */
int toe_shutdown(struct toe_context *, uint32_t socket);
void toe_close(struct toe_context *, uint32_t socket);

/* Tells the card what has changed and takes up to `max` events; then sleep with toe_wait (milliseconds, < 0: for ever; -ENETDOWN:
 * card or daemon have gone, and every socket was reported). */
size_t toe_poll(struct toe_context *, struct toe_event *events, size_t max);
int toe_wait(struct toe_context *, int timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
