"""An application that means harm. It speaks toed's protocol itself, without the library.

usage: app.py ATTACK      with TOE_RUN_DIR set; prints "raging" when the attack goes on, "done" when it is over,
                          then waits to be killed. What it is refused it prints as "errno NAME: step".
"""
import array, errno, fcntl, json, mmap, os, random, select, socket, struct, sys, threading, time

PEER = sys.argv[2] if len(sys.argv) > 2 else "10.77.0.1"
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
RUN_DIR = os.environ["TOE_RUN_DIR"]
MAGIC, VERSION = int.from_bytes(b"FTOEAPPS", "little"), 1 << 16
HELLO, OPEN_CONTEXT, POOL, BIND, LISTEN, CONNECT, SUBSCRIBE, UNLISTEN, CLOSE_CONTEXT, BYE, IDENTIFY = range(1, 12)
UPDATE, REBIND, ABORT, CLOSE = 1, 2, 3, 5
FREE, OPEN, LISTENING, CONNECTING, CONNECTED, FAILED = range(6)
# Bytes of a socket slot (toe_abi::region::SOCKET_SLOT_LEN).
SLOT = 448
rng = random.Random(SEED)
# What must stay open although the attack has returned.
KEPT = []


def say(*words):
    print(*words, flush=True)


def mapped(ip):
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(ip)


def raw_socket():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(RUN_DIR + "/toed.sock")
    s.settimeout(30)
    return s


def request(op, slot=0, args=(0, 0, 0, 0), ip=b"", port=0, flags=0):
    args = tuple(args) + (0,) * (4 - len(args))
    return struct.pack("=II4Q16sHHI64s", op, slot, *args, ip, port, flags, 0, b"")


def send(s, message, fds=()):
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return s.sendmsg([message], ancillary)


class Refused(Exception):
    def __init__(self, number):
        self.number = number
        super().__init__(errno.errorcode.get(number, str(number)))


class App:
    """A process's connection to toed, its region and what is in it."""

    def __init__(self, proof=None):
        self.s = raw_socket()
        reply, fds = self.call(HELLO, args=(MAGIC, VERSION, os.getpid()), fds=[proof] if proof is not None else [])
        self.fd = fds[0]
        self.len = os.fstat(self.fd).st_size
        self.mem = mmap.mmap(self.fd, self.len)
        h = struct.unpack_from("=QIIQQQQQQQIIIIII", self.mem, 0)
        (_, _, self.region, _, self.contexts, self.queues, self.sockets, self.accepts, self.payload, self.payload_len,
         self.n_contexts, self.hc_entries, self.ev_entries, self.n_sockets, self.n_listeners, self.accept_entries) = h
        self.ctx, self.tokens, self.tail, self.ev = {}, {}, {}, {}
        KEPT.append(self)

    def call(self, op, slot=0, args=(), fds=(), ip=b"", port=0, flags=0):
        send(self.s, request(op, slot, args, ip, port, flags), fds)
        data, ancillary, _, _ = self.s.recvmsg(256, socket.CMSG_SPACE(64 * 4))
        if not data:
            raise Refused(errno.ECONNRESET)
        got = array.array("i")
        for _, _, d in ancillary:
            got.frombytes(d[: len(d) - len(d) % got.itemsize])
        words = struct.unpack_from("=II4Q16sH6x32H", data)
        if words[0]:
            for fd in got:
                os.close(fd)
            raise Refused(words[0])
        return words, list(got)

    def open_context(self):
        reply, fds = self.call(OPEN_CONTEXT)
        self.ctx[reply[2]] = fds
        self.tail[reply[2]] = self.ev[reply[2]] = 0
        return reply[2]

    def pool(self, wanted=1):
        reply, fds = self.call(POOL, args=(wanted,))
        slots = reply[8 : 8 + reply[1]]
        self.tokens.update(zip(slots, fds))
        return list(slots)

    def word(self, at, value=None):
        if value is None:
            return struct.unpack_from("=I", self.mem, at)[0]
        struct.pack_into("=I", self.mem, at, value & 0xFFFFFFFF)

    def slot(self, i):
        return self.sockets + i * SLOT

    def page(self, c):
        return self.contexts + c * 4096

    def hc(self, c):
        return self.queues + c * (self.hc_entries + self.ev_entries) * 64

    def kick(self, c):
        try:
            os.write(self.ctx[c][0], struct.pack("=Q", 1))
        except BlockingIOError:
            pass

    def post(self, c, kind, flow, flags=0, tx_head=0, rx_tail=0, opaque=0, wait=True):
        """Publishes a descriptor as the library would, whatever it says. Waits for room at most a while."""
        n = self.tail[c]
        deadline = time.monotonic() + 5
        while wait and (n - self.word(self.page(c) + 64)) & 0xFFFFFFFF >= self.hc_entries:
            self.kick(c)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        at = self.hc(c) + (n % self.hc_entries) * 64
        struct.pack_into("=IIIIIII", self.mem, at, kind & 0xFFFFFFFF, flags & 0xFFFFFFFF, flow[0], flow[1], tx_head & 0xFFFFFFFF,
                         rx_tail & 0xFFFFFFFF, opaque & 0xFFFFFFFF)
        self.word(at + 60, n // self.hc_entries + 1)
        self.tail[c] = (n + 1) & 0xFFFFFFFF
        self.word(self.page(c), self.tail[c])
        if self.word(self.page(c) + 72):
            self.kick(c)
        return True

    def events(self, c):
        """Takes the events that are there."""
        found = []
        base = self.hc(c) + self.hc_entries * 64
        while True:
            at = base + (self.ev[c] % self.ev_entries) * 64
            if self.word(at + 60) != self.ev[c] // self.ev_entries + 1:
                break
            found.append(struct.unpack_from("=10I", self.mem, at))
            self.ev[c] += 1
        self.word(self.page(c) + 4, self.ev[c])
        return found

    def wait(self, what, ready, limit=20):
        deadline = time.monotonic() + limit
        while not ready():
            if time.monotonic() > deadline:
                say("timeout:", what)
                sys.exit(3)
            time.sleep(0.002)

    def connect(self, port, ctx, slot=None, wait=True, ip=PEER):
        slot = self.pool(1)[0] if slot is None else slot
        try:
            self.call(CONNECT, slot, (ctx,), ip=mapped(ip), port=port)
        except Refused as e:
            if e.number != errno.EINPROGRESS:
                raise
        if wait:
            self.wait("connect", lambda: self.word(self.slot(slot)) in (CONNECTED, FAILED))
        return slot

    def flow(self, slot):
        return struct.unpack_from("=II", self.mem, self.slot(slot) + 8)

    def listen(self, port, ctx, backlog=64):
        slot = self.pool(1)[0]
        self.call(BIND, slot, port=port, flags=1)
        self.call(LISTEN, slot, (backlog, ctx))
        return slot


def forever(step, *args):
    """Runs a step on and on in a process of its own, which ends with this one."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            import ctypes
            ctypes.CDLL(None).prctl(1, 9)
            # The daemons, and who is attacked, come first.
            os.nice(5)
            while os.getppid() == parent:
                step(*args)
        finally:
            os._exit(0)
    return pid


def refused(step, f, *args, **more):
    """Calls until it is refused and says how; returns how often it was not."""
    n = 0
    while True:
        try:
            f(*args, **more)
            n += 1
        except Refused as e:
            say("errno", f"{e}:", step, "after", n)
            return n


def some_flows():
    return [(i, g) for g in range(6) for i in range(40)]


def prelude():
    """An application with a context, a connection to the peer's port 9 and a listener on 6000."""
    app = App()
    c = app.open_context()
    slot = app.connect(9, c)
    say("connected", app.word(app.slot(slot)) == CONNECTED)
    listener = app.listen(6000, c)
    return app, c, slot, listener


def scribble():
    app, c, slot, listener = prelude()
    app.open_context()
    app.pool(32)
    control = memoryview(app.mem)[: app.payload]

    def anywhere():
        for _ in range(64):
            n = rng.choice([4, 64, SLOT, 4096, 65536])
            at = rng.randrange(0, app.payload - n) & ~3
            control[at : at + n] = os.urandom(n)
        # Not all of the buffers: memory that is written to is taken.
        at = rng.randrange(app.payload, min(app.len, app.payload + (256 << 20)) - (1 << 20))
        app.mem[at : at + (1 << 20)] = os.urandom(1 << 20)

    def where_it_hurts():
        # Descriptors whose phase is right and nothing else; the host's line of the pages; the first slots.
        for k in range(64):
            head = app.word(app.page(c) + 64)
            at = app.hc(c) + ((head + k) % app.hc_entries) * 64
            app.mem[at : at + 60] = struct.pack("=I", rng.choice([0, 1, 2, 3, 4, 99])) + os.urandom(56)
            if rng.random() < 0.7:
                struct.pack_into("=II", app.mem, at + 8, rng.randrange(16), rng.randrange(8))
            app.word(at + 60, (head + k) // app.hc_entries + 1)
        app.mem[app.page(c) : app.page(c) + 192] = os.urandom(192)
        app.mem[app.slot(0) : app.slot(40)] = os.urandom(app.slot(40) - app.slot(0))
        app.kick(c)

    forever(anywhere)
    forever(where_it_hurts)
    say("raging")


def seals():
    app, c, slot, listener = prelude()
    for name, step in [
        ("shrink", lambda: os.ftruncate(app.fd, 4096)),
        ("grow", lambda: os.ftruncate(app.fd, app.len + 4096)),
        ("allocate beyond", lambda: os.posix_fallocate(app.fd, app.len, 4096)),
        ("write beyond", lambda: os.pwrite(app.fd, b"x", app.len)),
        ("seal against writing", lambda: fcntl.fcntl(app.fd, 1033, 8)),
        ("seal against executing", lambda: fcntl.fcntl(app.fd, 1033, 0x20)),
    ]:
        try:
            step()
            say("allowed:", name)
        except OSError as e:
            say("errno", f"{errno.errorcode[e.errno]}:", name)
    # The whole of it again with another descriptor, and holes in it.
    try:
        again = os.open(f"/proc/self/fd/{app.fd}", os.O_RDWR | os.O_TRUNC)
        os.close(again)
        say("allowed: truncate when opened")
    except OSError as e:
        say("errno", f"{errno.errorcode[e.errno]}:", "truncate when opened")
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)

    def holes():
        libc.fallocate(app.fd, 3, ctypes.c_long(0), ctypes.c_long(app.len))
        time.sleep(0.001)

    forever(holes)
    say("raging")


def forge():
    app, c, slot, listener = prelude()
    own = app.flow(slot)
    values = [0, 1, 2, 1 << 18, (1 << 18) + 1, 1 << 31, (1 << 31) + 1, (1 << 32) - 1]

    def all_of_them():
        for flow in some_flows() + [(0xFFFFFFFF, 0), (0xFFFFFFFF, 0xFFFFFFFF), (1 << 20, 1)]:
            for kind in (UPDATE, REBIND, ABORT, CLOSE, 0, 4, 0xFFFFFFFF):
                if flow == own and kind in (ABORT, CLOSE):
                    continue
                app.post(c, kind, flow, rng.getrandbits(32), rng.choice(values), rng.choice(values), rng.getrandbits(32))
        for tx in values:
            for rx in values:
                app.post(c, UPDATE, own, rng.getrandbits(32) & ~1, tx, rx)
        app.events(c)

    all_of_them()
    say("raging")
    while True:
        all_of_them()


def indices():
    app, c, slot, listener = prelude()
    own = app.flow(slot)
    other = app.open_context()

    def fill(ctx, head):
        # A REBIND is answered by an event that nobody takes; those that come at once share one.
        app.word(app.page(ctx) + 4, head)
        deadline = time.monotonic() + 20
        while app.word(app.page(ctx) + 68) < app.ev_entries and not app.word(app.page(ctx) + 76) and time.monotonic() < deadline:
            for _ in range(64):
                app.post(ctx, REBIND, own, opaque=slot)
        for _ in range(64):
            app.post(ctx, REBIND, own, opaque=slot, wait=False)
        app.kick(ctx)

    fill(c, 0x80000000)
    app.wait("the context is given up", lambda: app.word(app.page(c) + 76) == 1)
    say("given up")
    # Another context of the same application still works; one whose queue is simply full waits.
    fill(other, 0)
    app.events(other)
    app.post(other, REBIND, own, opaque=slot)
    app.kick(other)
    app.wait("events go on elsewhere", lambda: len(app.events(other)) > 0)
    app.call(CLOSE_CONTEXT, args=(c,))
    for fd in app.ctx.pop(c):
        os.close(fd)
    again = app.open_context()
    app.post(again, REBIND, own, opaque=slot)
    app.wait("and in a new context", lambda: len(app.events(again)) > 0)
    say("works again")

    def nonsense():
        for ctx in (again, other):
            app.mem[app.page(ctx) : app.page(ctx) + 12] = os.urandom(12)
            app.word(app.page(ctx) + 64, rng.getrandbits(32))
            app.word(app.page(ctx) + 72, rng.getrandbits(32))
            app.kick(ctx)

    forever(nonsense)
    say("raging")


def stats():
    """Every counter by name, as an operator sees them."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(RUN_DIR + "/admin.sock")
        s.sendall(b'{"cmd":"stats"}\n')
        return json.loads(s.makefile().readline())


def slots():
    app, c, slot, listener = prelude()
    own = app.flow(slot)
    at = app.slot(listener)
    say("listening")
    app.wait("connections wait", lambda: app.word(at + 328) >= 8)
    app.call(SUBSCRIBE, listener, (c,))
    for head in (0xFFFFFFFF, 0x80000000, 9999, app.word(at + 328) + 1):
        before = stats()["toed_bad_accept_heads"]
        app.word(at + 324, head)
        # toed looks at the ring when a segment of no known flow comes; the peer sends some.
        app.wait("toed looks", lambda: stats()["toed_bad_accept_heads"] > before)
    app.word(at + 324, 0)
    app.mem[app.accepts : app.payload] = os.urandom(app.payload - app.accepts)
    app.mem[at + 320 : at + 384] = os.urandom(64)
    # Every slot claims a flow, whoever has it, and lets go of it in every way.
    many = [s for _ in range(8) for s in app.pool(32)]
    for s, flow in zip(many, some_flows()):
        app.mem[app.slot(s) : app.slot(s + 1)] = os.urandom(SLOT)
        struct.pack_into("=IIII", app.mem, app.slot(s), CONNECTED, 0, *flow)
        app.word(app.slot(s) + 128 + 20, rng.getrandbits(1))
    for s in many:
        if app.flow(s) != own:
            os.close(app.tokens.pop(s))
    for op in (BIND, LISTEN, CONNECT, SUBSCRIBE, UNLISTEN):
        for s in (0, 1, app.n_sockets - 1, app.n_sockets, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF):
            for a in (0, 1, 63, 64, 255, 1 << 32, (1 << 64) - 1):
                try:
                    app.call(op, s, (a, a), ip=os.urandom(16), port=rng.getrandbits(16), flags=rng.getrandbits(16))
                except Refused:
                    pass
    say("raging")
    while True:
        for _ in range(32):
            s = app.pool(1)[0]
            app.mem[app.slot(s) : app.slot(s + 1)] = os.urandom(SLOT)
            struct.pack_into("=IIII", app.mem, app.slot(s), CONNECTED, 0, *rng.choice(some_flows()))
            os.close(app.tokens.pop(s))
        time.sleep(0.005)


def kicks():
    app, c, slot, listener = prelude()
    one = struct.pack("=Q", 1)
    fd = app.ctx[c][0]
    os.set_blocking(fd, False)

    def flood():
        for _ in range(1000):
            try:
                os.write(fd, one)
            except BlockingIOError:
                os.read(fd, 8)

    forever(flood)
    forever(flood)
    say("raging")


def descriptors():
    app, c, slot, listener = prelude()
    for s in app.pool(16):
        os.set_blocking(app.tokens[s], False)
        try:
            while True:
                os.write(app.tokens[s], b"x" * 4096)
        except BlockingIOError:
            pass
    sock = socket.socket(fileno=os.dup(app.tokens[app.pool(1)[0]]))
    sock.shutdown(socket.SHUT_WR)
    sock = socket.socket(fileno=os.dup(app.tokens[app.pool(1)[0]]))
    sock.shutdown(socket.SHUT_RDWR)
    kick, irq = app.ctx[c]
    for fd in [kick, irq, app.s.fileno(), *app.tokens.values()]:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK | os.O_ASYNC | os.O_APPEND)
    # The counter at its end: another kick would block, if anybody but us wrote there.
    os.set_blocking(kick, False)
    try:
        while True:
            os.write(kick, struct.pack("=Q", 0xFFFFFFFFFFFFFFFE))
    except BlockingIOError:
        pass
    os.set_blocking(kick, True)
    # What it waits on, in as many others as the kernel allows, and things of ours in it.
    ours = []
    try:
        for _ in range(600):
            e = select.epoll()
            e.register(irq, select.EPOLLIN)
            ours.append(e)
    except OSError as e:
        say("errno", f"{errno.errorcode[e.errno]}:", "nested epoll after", len(ours))
    inner = select.epoll.fromfd(os.dup(irq))
    pipe = os.pipe()
    os.write(pipe[1], b"x")
    inner.register(pipe[0], select.EPOLLIN)
    for number in range(3, 64):
        try:
            inner.unregister(number)
        except (OSError, ValueError):
            pass
    own = app.flow(slot)
    app.word(app.page(c) + 8, 1)

    def wake_me():
        for _ in range(64):
            app.post(c, REBIND, own, opaque=slot, wait=False)
        app.word(app.page(c) + 8, 1)
        time.sleep(0.001)

    say("raging")
    while True:
        wake_me()


def exhaust():
    app = App()
    refused("contexts", app.open_context)
    c = next(iter(app.ctx))
    listening = []

    def listener():
        listening.append(app.listen(10000 + len(listening), c))

    refused("listeners", listener)

    def same_port():
        s = app.pool(1)[0]
        app.call(BIND, s, port=10000)

    refused("a port that is taken", same_port)
    opening = []

    def connection():
        opening.append(app.connect(9, c, wait=False))

    states = lambda: [app.word(app.slot(s)) for s in opening]
    n = 0
    # As many as its memory holds: a batch at a time, so that the peer's backlog holds them.
    while n < 4096:
        try:
            for _ in range(64):
                connection()
        except Refused as e:
            say("errno", f"{e}:", "connections after", n)
            break
        app.wait("connections", lambda: all(s in (CONNECTED, FAILED) for s in states()), 30)
        n = states().count(CONNECTED)
        failed = [s for s in opening if app.word(app.slot(s)) == FAILED]
        if failed:
            number = app.word(app.slot(failed[0]) + 4)
            say("errno", f"{errno.errorcode.get(number, number)}:", "memory after", n)
            break
    refused("tokens", app.pool, 32)
    say("held", len(app.tokens), "tokens", n, "connections", len(listening), "listeners", len(app.ctx), "contexts")
    say("raging")


def requests():
    mute, crowd, deaf = [], [], []
    KEPT.extend((mute, crowd, deaf))
    # Short, long, empty, garbage; before and after HELLO.
    for message in (b"", b"x", b"y" * 127, b"z" * 129, os.urandom(128), os.urandom(4096), os.urandom(65536), b"\0" * 128):
        for hello in (False, True):
            if hello:
                app = App()
                s = app.s
            else:
                s = raw_socket()
            try:
                s.send(message)
                if message:
                    s.recv(256)
            except OSError:
                pass
            s.close()
            if hello:
                KEPT.remove(app)
                app.mem.close()
                os.close(app.fd)
    say("strange lengths")
    null = [os.open("/dev/null", os.O_RDWR) for _ in range(253)]
    for count in (1, 32, 33, 64, 253):
        s = raw_socket()
        for _ in range(20):
            try:
                send(s, request(HELLO, args=(MAGIC, VERSION, 1)), null[:count])
            except OSError:
                break
        s.close()
    for fd in null:
        os.close(fd)
    say("many descriptors")
    # A connection to ourselves, closed by toed as the last holder: its close must not take as long as we would like.
    for _ in range(4):
        listener = socket.create_server(("127.0.0.1", 0))
        full = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        full.setblocking(False)
        try:
            while True:
                full.send(b"x" * 65536)
        except BlockingIOError:
            pass
        full.setblocking(True)
        full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
        for op in (HELLO, IDENTIFY):
            s = raw_socket()
            send(s, request(op, args=(MAGIC, VERSION, 1)), [full.fileno()])
            crowd.append(s)
        # toed has it now, and nobody else.
        for s in crowd[-2:]:
            s.recv(256)
        full.close()
        mute += [listener, accepted]
    say("lingering descriptors")
    app = App()
    c = app.open_context()
    garbage = 0
    for _ in range(3000):
        try:
            op = rng.choice([rng.randrange(14), rng.getrandbits(32)])
            if op in (BYE, POOL, HELLO):
                continue
            app.call(op, rng.choice([0, 1, rng.getrandbits(32)]), [rng.choice([0, 1, c, rng.getrandbits(64)]) for _ in range(4)], (),
                     rng.choice([mapped(PEER), os.urandom(16)]), rng.getrandbits(16), rng.getrandbits(16))
        except Refused:
            garbage += 1
    say("garbage refused", garbage)
    # Never reads what it is told: it is told a lot.
    for _ in range(8):
        s = raw_socket()
        s.setblocking(False)
        send(s, request(HELLO, args=(MAGIC, VERSION, 1)), [app.fd])
        try:
            for _ in range(5000):
                send(s, request(POOL, args=(4,)))
        except OSError as e:
            say("errno", f"{errno.errorcode[e.errno]}:", "deaf")
        deaf.append(s)
    for _ in range(500):
        crowd.append(raw_socket())
    say("crowd")

    def come_and_go():
        for _ in range(50):
            s = raw_socket()
            if rng.random() < 0.5:
                send(s, request(HELLO, args=(MAGIC, VERSION, 1)), [app.fd])
            s.close()

    forever(come_and_go)
    forever(come_and_go)
    say("raging")


def addresses():
    """Connections to where nobody is, to everybody, and to itself."""
    app, c, slot, listener = prelude()
    names = {FAILED: "failed", CONNECTED: "connected", CONNECTING: "connecting"}
    for ip in ("0.0.0.0", "127.0.0.1", "10.77.0.2", "10.77.0.0", "10.77.0.255", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1"):
        try:
            s = app.connect(6000, c, ip=ip)
            say(ip, names[app.word(app.slot(s))], app.word(app.slot(s) + 4))
        except Refused as e:
            say("errno", f"{e}:", ip)
    for port in (0, 1, 6000, 65535):
        try:
            s = app.connect(port, c, wait=False)
        except Refused as e:
            say("errno", f"{e}:", "port", port)

    def everywhere():
        tried = []
        for _ in range(64):
            try:
                tried.append(app.connect(rng.randrange(1, 65536), c, wait=False, ip=f"10.77.0.{rng.randrange(3, 255)}"))
            except Refused:
                pass
        time.sleep(0.005)
        for s in tried[: rng.randrange(64)]:
            os.close(app.tokens.pop(s))

    say("raging")
    while len(app.tokens) < 7000:
        everywhere()


def crowd():
    """More connections than toed has descriptors, some with HELLO; they come again when they are turned away."""
    app = App()
    family = []
    KEPT.append(family)

    def join():
        s = raw_socket()
        family.append(s)
        send(s, request(HELLO, args=(MAGIC, VERSION, 1)), [app.fd])
        data = s.recv(256)
        if not data or struct.unpack_from("=I", data)[0]:
            raise Refused(struct.unpack_from("=I", data)[0] if data else errno.ECONNRESET)

    refused("processes", join)

    def many():
        everybody = []
        for _ in range(400):
            try:
                everybody.append(raw_socket())
            except OSError:
                break
        time.sleep(0.2)

    for _ in range(3):
        forever(many)
    time.sleep(1)
    say("raging")


if __name__ == "__main__":
    attack = {f.__name__: f for f in (scribble, seals, forge, indices, slots, kicks, descriptors, exhaust, requests, crowd, addresses)}[sys.argv[1]]
    attack()
    say("done")
    while True:
        time.sleep(1000)
