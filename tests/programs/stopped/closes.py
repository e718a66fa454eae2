"""Both ends of connections that end in every way, for e2e_stopped.rs.

    closes.py serve PORT COUNT        the kernel's end: says of COUNT connections what it hears of their ends
    closes.py close IP PORT WAY...    the card's end: opens one for each way, and ends them on SIGUSR1

The first line on a connection is the way in which it will end.
"""

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import threading

LIBC = ctypes.CDLL(None)


def read(c):
    assert c.recv(4, socket.MSG_WAITALL) == b"data"


def plain(c):
    read(c)
    c.close()


def unread(c):
    c.recv(4, socket.MSG_WAITALL | socket.MSG_PEEK)
    c.close()


def linger_0(c):
    read(c)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


def half_closed(c):
    c.shutdown(socket.SHUT_WR)
    unread(c)


def dup2(c):
    read(c)
    with open("/dev/null") as other:
        os.dup2(other.fileno(), c.fileno())


def close_range(c):
    read(c)
    assert LIBC.close_range(c.fileno(), c.fileno(), 0) == 0


def exit(c):
    read(c)
    LIBC.exit(0)


def exit_at_once(c):
    read(c)
    os._exit(0)


def hear(c):
    way = c.makefile("r").readline().strip()
    c.sendall(b"data")
    try:
        said = "bytes" if c.recv(1) else "end"
        if way == "late":
            c.sendall(b"for nobody")
        if way in ("late", "half_closed"):
            # FIN first, and what follows is for who looks again.
            look = select.poll()
            look.register(c, select.POLLERR)
            said = "reset" if any(what & select.POLLERR for _, what in look.poll(60_000)) else said
    except OSError:
        said = "reset"
    sys.stdout.write(f"{way}: {said}.\n")
    sys.stdout.flush()


def serve(port, count):
    with socket.create_server(("", port)) as listener:
        print("listening", flush=True)
        threads = [threading.Thread(target=hear, args=(listener.accept()[0],)) for _ in range(count)]
        [thread.start() for thread in threads]
        print("under way", flush=True)
        [thread.join() for thread in threads]


def close(ip, port, ways):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    all = []
    for way in ways:
        c = socket.create_connection((ip, port), 30)
        c.settimeout(None)
        c.sendall(way.encode() + b"\n")
        all.append((way, c))
    print("under way", flush=True)
    signal.sigwait([signal.SIGUSR1])
    for way, c in all:
        {"late": plain}.get(way, globals().get(way))(c)
    print("done", flush=True)
    # What is at the numbers of others now is not for the garbage collector to close.
    os._exit(0)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]), int(sys.argv[3]))
else:
    close(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
