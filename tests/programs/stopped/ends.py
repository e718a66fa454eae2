"""Both ends of the connections of e2e_stopped.rs.

    ends.py serve PORT SECONDS COUNT     takes COUNT connections, plays its part in each, and ends
    ends.py open  PORT SECONDS IP...     opens one of each kind to each address

The first byte says which kind a connection is:
  s  a stream both ways for SECONDS, each ended by the SHA-256 of what it carried, and by FIN
  i  silence for half of SECONDS, then a question and its answer; who opened it closes
  j  the same, but who serves it closes
"""

import hashlib
import os
import socket
import sys
import threading
import time

KINDS = b"sij"
SECONDS = float(sys.argv[3])
START = time.monotonic()
FAILED = []


def send(c):
    """Never the same twice, whatever the card may confuse."""
    digest, block = hashlib.sha256(), bytearray(os.urandom(16 * 1024))
    n = 0
    while time.monotonic() < START + SECONDS:
        n += 1
        block[:8] = n.to_bytes(8, "big")
        c.sendall(block)
        digest.update(block)
    c.sendall(digest.digest())
    c.shutdown(socket.SHUT_WR)


def receive(c):
    digest, last, total = hashlib.sha256(), b"", 0
    while got := c.recv(64 * 1024):
        total += len(got)
        last += got
        digest.update(last[:-32])
        last = last[-32:]
    assert last == digest.digest(), f"{total} bytes came, and not those that were sent"
    return total


def stream(c, _):
    sender = threading.Thread(target=guarded, args=(send, c))
    sender.start()
    total = receive(c)
    sender.join()
    print(f"stream: {total} bytes", flush=True)


def silence(c, opener, opener_closes):
    if opener:
        time.sleep(max(0, START + SECONDS / 2 - time.monotonic()))
        c.sendall(b"are you there?")
        assert c.recv(3, socket.MSG_WAITALL) == b"yes"
        print("silence: answered", flush=True)
    else:
        assert c.recv(14, socket.MSG_WAITALL) == b"are you there?"
        c.sendall(b"yes")
    if opener != opener_closes:
        assert c.recv(1) == b""


def play(c, kind, opener):
    with c:
        if kind == b"s":
            stream(c, opener)
        else:
            silence(c, opener, kind == b"i")


def guarded(part, *args):
    try:
        part(*args)
    except BaseException as e:
        FAILED.append(repr(e))
        print("failed:", repr(e), flush=True)


def begin(c, kind, opener):
    thread = threading.Thread(target=guarded, args=(play, c, kind, opener))
    thread.start()
    return thread


def serve(port, count):
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(64)
        print("listening", flush=True)
        for _ in range(count):
            c = listener.accept()[0]
            yield c, c.recv(1), False


def connect(port, ips):
    for ip in ips:
        for kind in KINDS:
            c = socket.create_connection((ip, port), 30)
            c.settimeout(None)
            c.sendall(bytes([kind]))
            yield c, bytes([kind]), True


port = int(sys.argv[2])
ends = serve(port, int(sys.argv[4])) if sys.argv[1] == "serve" else connect(port, sys.argv[4:])
ends = list(ends)
START = time.monotonic()
threads = [begin(*end) for end in ends]
print("under way", flush=True)
for thread in threads:
    thread.join()
sys.exit(1 if FAILED else 0)
