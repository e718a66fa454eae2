"""A host on the wire that means harm: frames made by hand, from the kernel side's interface.

usage: wire.py ATTACK INTERFACE CARD_MAC CARD OWN     prints "sent N" at the end.
"""
import os, random, select, socket, struct, sys, threading, time

attack, interface, card_mac, card, own = sys.argv[1:6]
CARD_MAC = bytes.fromhex(card_mac.replace(":", ""))
rng = random.Random(20261)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((interface, 3))
OWN_MAC = wire.getsockname()[4]
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
sent = 0


def send(frame):
    global sent
    while True:
        try:
            wire.send(frame)
            sent += 1
            return
        except (BlockingIOError, OSError) as e:
            if e.errno not in (11, 105):
                raise
            time.sleep(0.0005)


def total(data):
    if len(data) % 2:
        data += b"\0"
    t = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while t >> 16:
        t = (t >> 16) + (t & 0xFFFF)
    return ~t & 0xFFFF


def ethernet(payload, kind=0x0800, dst=CARD_MAC, src=OWN_MAC):
    return dst + src + struct.pack("!H", kind) + payload


def ipv4(payload, proto, src=own, dst=card, version=4, options=b"", fragment=0x4000, length=None, csum=None, ihl=None, ident=1):
    ihl = 5 + len(options) // 4 if ihl is None else ihl
    length = 20 + len(options) + len(payload) if length is None else length
    make = lambda c: struct.pack("!BBHHHBBH4s4s", version << 4 | ihl, 0, length, ident, fragment, 64, proto, c, socket.inet_aton(src),
                                 socket.inet_aton(dst)) + options
    return make(total(make(0)) if csum is None else csum) + payload


def tcp(sport, dport, seq=0, ack=0, flags=ACK, window=65535, options=b"", data=b"", src=own, dst=card, doff=None, csum=None, urgent=0):
    doff = 5 + len(options) // 4 if doff is None else doff
    make = lambda c: struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, doff << 4, flags, window, c, urgent) + options + data
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 6, 20 + len(options) + len(data))
    return ipv4(make(total(pseudo + make(0)) if csum is None else csum), 6, src, dst)


def icmp(kind, code, rest, data):
    make = lambda c: struct.pack("!BBHI", kind, code, c, rest) + data
    return make(total(make(0)))


def arp(op, sender_mac, sender, target_mac, target, dst=b"\xff" * 6, tail=b""):
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, op, sender_mac, socket.inet_aton(sender), target_mac, socket.inet_aton(target))
    return ethernet(body + tail, 0x0806, dst)


def barrier():
    """Until the card has seen all that was sent: it takes frames in order, and answers this one."""
    while select.select([wire], [], [], 0)[0]:
        wire.recv(65536)
    for _ in range(20):
        send(arp(1, OWN_MAC, own, bytes(6), card))
        until = time.monotonic() + 1
        while select.select([wire], [], [], max(until - time.monotonic(), 0))[0]:
            f = wire.recv(65536)
            if f[6:14] == CARD_MAC + b"\x08\x06" and f[20:22] == b"\0\2":
                return
    sys.exit("the card does not answer")


def malformed():
    """Frames of each kind that the card drops on sight, and of each kind that is an exception."""
    good = tcp(1000, 80, flags=SYN)
    for _ in range(20):
        # One after the other: what the port's ring has no room for is not seen by the card.
        barrier()
        # drop_truncated
        send(ethernet(good[:10]))
        send(ethernet(ipv4(b"", 6, length=400)))
        send(ethernet(good[:36]))
        send(ethernet(b"\0\1\x08\0", 0x0806))
        # drop_other_mac
        send(ethernet(good, dst=b"\x02\x99\x99\x99\x99\x99"))
        send(ethernet(b"", 0x0800, dst=b"\x02\x99\x99\x99\x99\x99"))
        # drop_bad_ip_header
        for version, ihl, length in ((5, 5, None), (0, 5, None), (4, 4, None), (4, 0, None), (4, 5, 19), (4, 5, 0), (4, 15, 40)):
            send(ethernet(ipv4(b"x" * 40, 6, version=version, ihl=ihl, length=length)))
        # drop_bad_ip_checksum, drop_bad_tcp_checksum
        send(ethernet(ipv4(good[20:], 6, csum=1)))
        send(ethernet(tcp(1000, 80, flags=SYN, csum=1)))
        # drop_bad_tcp_header
        for doff in (0, 4, 6, 15):
            send(ethernet(tcp(1000, 80, doff=doff)))
        send(ethernet(ipv4(good[20:32], 6)))
        # drop_bad_tcp_options: no length, length 0, length past the end, wrong length
        for options in (b"\2\4\5\0\1\1\1\2", b"\2\0\0\0", b"\x08\x0b\0\0", b"\2\3\5\xb4", b"\3\x04\7\0", b"\xfd\xff\0\0"):
            send(ethernet(tcp(1000, 80, flags=SYN, options=options)))
        # exceptions
        send(ethernet(ipv4(good[20:], 6, fragment=0x2000)))
        send(ethernet(ipv4(b"y" * 24, 17, fragment=0x00B9)))
        send(ethernet(ipv4(b"y" * 24, 17, options=b"\1\1\1\0")))
        send(ethernet(ipv4(b"z" * 8, 17)))
        send(ethernet(os.urandom(40), 0x86DD))
        send(ethernet(os.urandom(46), 0x88CC))
        send(ethernet(ipv4(icmp(8, 0, 77, b"ping"), 1)))
        send(ethernet(tcp(1000, 81, 5, 6, ACK)))
        send(ethernet(good))
        send(arp(1, OWN_MAC, own, bytes(6), "10.77.0.77"))
        send(ethernet(struct.pack("!HH", 0x0123, 0x0800) + good, 0x8100))


def noise():
    """Random bytes, more and more of which look right."""
    for n in range(6000):
        body = os.urandom(rng.choice([0, 1, 19, 20, 39, 40, 60, 200, 1400]))
        kind = rng.choice([0x0800, 0x0800, 0x0806, 0x8100, 0x86DD, rng.getrandbits(16)])
        if n % 3 == 0:
            send(ethernet(body, kind, rng.choice([CARD_MAC, b"\xff" * 6, b"\1\0\x5e\0\0\1"])))
        elif n % 3 == 1:
            send(ethernet(ipv4(body, rng.choice([1, 6, 6, 6, 17]), options=rng.choice([b"", b"\1\1\1\1"]))))
        else:
            options = os.urandom(rng.choice([0, 4, 12, 40]))
            send(ethernet(tcp(rng.getrandbits(16), rng.choice([80, rng.getrandbits(16)]), rng.getrandbits(32), rng.getrandbits(32), rng.getrandbits(8),
                              rng.getrandbits(16), options, body[:600])))


def flood():
    """SYNs from everywhere, at a port that listens; most senders do not exist."""
    for n in range(10000):
        src = f"10.77.0.{rng.randrange(3, 255)}" if n % 2 else f"{rng.randrange(11, 200)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        send(ethernet(tcp(rng.randrange(1024, 65536), 80, rng.getrandbits(32), flags=SYN, src=src, options=b"\2\4\5\xb4")))


def siege():
    """SYNs that never end, and beside them connections of the kernel's own, which must have all of their options."""
    over = threading.Event()

    def besiege():
        while not over.is_set():
            for _ in range(50):
                src = f"10.77.0.{rng.randrange(3, 255)}"
                send(ethernet(tcp(rng.randrange(1024, 65536), 80, rng.getrandbits(32), flags=SYN, src=src, options=b"\2\4\5\xb4")))
            time.sleep(0.01)

    besieger = threading.Thread(target=besiege)
    besieger.start()
    try:
        time.sleep(0.5)
        for _ in range(20):
            with socket.create_connection((card, 80), 20) as s:
                info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
                # tcpi_options: timestamps, SACK, window scaling.
                print(f"options {info[5] & 7}")
                s.sendall(b"GET /small HTTP/1.0\r\n\r\n")
                s.settimeout(20)
                got = b""
                while part := s.recv(65536):
                    got += part
                print("bytes", len(got.split(b"\r\n\r\n", 1)[1]))
    finally:
        over.set()
        besieger.join()


def storms():
    """ARP in masses, for us and for others; ICMP of every size and kind; errors about connections that may exist."""
    for n in range(3000):
        send(arp(1, OWN_MAC, own, bytes(6), card))
        stranger = f"10.77.0.{rng.randrange(3, 255)}"
        send(arp(rng.choice([1, 2, 2]), os.urandom(6), stranger, CARD_MAC, card, rng.choice([CARD_MAC, b"\xff" * 6])))
    # Answers in the card's own name, and for addresses that nobody can have.
    for sender in (card, "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "10.77.0.255"):
        for op in (0, 1, 2, 3, 65535):
            send(arp(op, os.urandom(6), sender, CARD_MAC, card))
            send(arp(op, b"\xff" * 6, sender, CARD_MAC, sender))
    for size in (0, 1, 8, 56, 1000, 1472):
        for _ in range(20):
            send(ethernet(ipv4(icmp(8, 0, rng.getrandbits(32), os.urandom(size)), 1)))
    # 64 KiB of ping in pieces; pieces that overlap; pieces that never end.
    giant = icmp(8, 0, 99, os.urandom(65507 - 8))
    for at in range(0, len(giant), 1480):
        more = 0x2000 if at + 1480 < len(giant) else 0
        send(ethernet(ipv4(giant[at : at + 1480], 1, fragment=more | at // 8, ident=4)))
        send(ethernet(ipv4(os.urandom(1480), 1, fragment=0x2000 | 0x1FFF, ident=5)))
        send(ethernet(ipv4(os.urandom(8), 6, fragment=0x2000, ident=at & 0xFFFF)))
    for _ in range(2000):
        quoted = tcp(80, rng.randrange(32768, 61000), rng.getrandbits(32), src=card, dst=own)[: rng.choice([8, 19, 20, 24, 28, 40])]
        kind, code = rng.choice([(3, 4), (3, 4), (3, 3), (3, 1), (4, 0), (5, 1), (11, 0), (12, 0), (rng.getrandbits(8), rng.getrandbits(8))])
        send(ethernet(ipv4(icmp(kind, code, rng.choice([0, 1, 67, 68, 552, 1499, 65535, rng.getrandbits(32)]), quoted), 1)))
    # A slow machine may have lost all of a kind: one of each when the storm is over.
    for _ in range(10):
        barrier()
        send(arp(2, os.urandom(6), "10.77.0.200", CARD_MAC, card))
        send(ethernet(ipv4(icmp(8, 0, 7, bytes(56)), 1)))
        send(ethernet(ipv4(os.urandom(8), 6, fragment=0x2000, ident=6)))
        ping = icmp(8, 0, 8, bytes(1400))
        send(ethernet(ipv4(ping[:800], 1, fragment=0x2000, ident=7)))
        send(ethernet(ipv4(ping[800:], 1, fragment=100, ident=7)))


def answers(port):
    """The last segment of the card to a port of ours, as (seq, ack, window, options, payload length)."""
    last = None
    # However long the first one takes; then until the card is quiet.
    while select.select([wire], [], [], 0.3 if last else 20)[0]:
        f = wire.recv(65536)
        if f[6:12] == CARD_MAC and f[12:14] == b"\x08\0" and f[23] == 6:
            ip_len = struct.unpack("!H", f[16:18])[0]
            sport, dport, seq, ack, off, flags, window = struct.unpack("!HHIIBBH", f[34:50])
            if dport == port and not flags & SYN:
                end = 34 + (off >> 4) * 4
                last = (seq, ack, window, f[54:end], 14 + ip_len - end)
    return last


def injection():
    """Segments into a connection of the kernel's, by somebody who knows its ports and, in the end, almost everything."""
    s = socket.create_connection((card, 80), 10)
    port = s.getsockname()[1]
    s.sendall(b"GET /file HTTP/1.1\r\n")
    seen = answers(port)
    assert seen, "the card has acknowledged"
    seq, ack, window, options, length = seen
    snd_nxt, stamps = seq + length, b""
    if len(options) == 12 and options[2:4] == b"\x08\x0a":
        theirs, ours = struct.unpack("!II", options[4:12])
        stamps = b"\1\1\x08\x0a" + struct.pack("!II", ours, theirs)
        old = b"\1\1\x08\x0a" + struct.pack("!II", ours - 100000 & 0xFFFFFFFF, theirs)
    evil = b"X" * 100
    make = lambda **k: send(ethernet(tcp(port, 80, **{"seq": ack, "ack": snd_nxt, "options": stamps, **k})))
    for n in range(20):
        make(seq=ack + 1 + n, flags=RST)  # in the window, not exact: challenged
        make(seq=ack - 1000 - n, flags=RST)
        make(seq=ack + n, flags=SYN)
        make(seq=ack + (1 << 31) - n, flags=SYN | ACK)
        make(seq=ack + (1 << 30) + n, data=evil)
        make(seq=ack - 5000 - n, data=evil)
        make(flags=PSH, data=evil)  # no ACK
        make(flags=0)
        make(ack=snd_nxt + 100000 + n, data=evil)
        make(ack=snd_nxt - (1 << 31) - n, data=evil)
        make(seq=ack - 20, data=b"G" * 20)  # nothing new in it
        make(seq=ack + (1 << 30) + n, flags=FIN | ACK)
        make(flags=FIN | SYN | RST | URG | ACK, seq=ack + 7)
        if stamps:
            make(options=old, data=evil)
    for _ in range(2000):
        make(seq=ack + (1 << 28) + rng.getrandbits(30), ack=rng.getrandbits(32), flags=rng.choice([RST, RST | ACK, SYN, ACK, FIN | ACK]), data=evil[: rng.choice([0, 100])])
    s.sendall(b"Host: card\r\nConnection: close\r\n\r\n")
    s.settimeout(30)
    got = b""
    while part := s.recv(1 << 20):
        got += part
    import hashlib
    head, _, body = got.partition(b"\r\n\r\n")
    print("hash", hashlib.sha256(body).hexdigest(), flush=True)


{f.__name__: f for f in (malformed, noise, flood, siege, storms, injection)}[attack]()
print("sent", sent, flush=True)
