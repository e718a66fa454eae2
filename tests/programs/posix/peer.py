"""The other host of the probe: does what it is told over a UNIX socket, one line per command and answer.

peer.py SOCKET OWN_ADDRESS CARD_ADDRESS

listen [backlog] -> port         accept / connect PORT -> ok, the new connection is the present one
use N -> ok (0: the first)       port -> the present connection's remote port
send TEXT / fill N -> ok         recv N -> text    count N -> how many came and whether they are right    end -> how it ends
drain -> count and end           shutdown wr|rd    close    reset    echo (until the end, on a thread)    avail -> bytes queued
window -> what the other end offers, bytes    hup: until the connection has ended both ways, or by a reset    patience S: for what waits
urgent TEXT    oob -> the urgent byte    no_oob -> the same, where none comes    mark -> whether it is next    later MS COMMAND...: the same after a while
"""
import errno, fcntl, os, select, socket, struct, sys, termios, threading, time

CONTROL, OWN, CARD = sys.argv[1:4]


def name(error):
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) and error.errno else type(error).__name__


def pattern(start, n):
    return bytes((start + i) * 7 % 251 for i in range(n))


BLOCK = 251 * 261
PATTERN = pattern(0, BLOCK)


class Peer:
    def __init__(self):
        self.listener = None
        self.conns = []
        self.s = None

    def take(self, s):
        s.settimeout(4)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.conns.append(s)
        self.s = s

    def listen(self, backlog=16):
        self.listener = socket.socket()
        self.listener.bind((OWN, 0))
        self.listener.listen(int(backlog))
        self.listener.settimeout(4)
        return str(self.listener.getsockname()[1])

    def unlisten(self):
        self.listener.close()

    def accept(self):
        self.take(self.listener.accept()[0])

    def connect(self, port):
        self.take(socket.create_connection((CARD, int(port)), 4))

    def use(self, n):
        self.s = self.conns[int(n)]

    def port(self):
        return str(self.s.getpeername()[1])

    def send(self, *words):
        self.s.sendall(" ".join(words).replace("\\n", "\n").encode())

    def urgent(self, *words):
        self.s.send(" ".join(words).encode(), socket.MSG_OOB)

    def oob(self, seconds=4):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                return self.s.recv(1, socket.MSG_OOB).decode()
            except BlockingIOError:
                pass
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise
            time.sleep(0.001)
        return "none"

    def no_oob(self):
        return self.oob(0.2)

    def mark(self):
        return str(struct.unpack("i", fcntl.ioctl(self.s, 0x8905, b"    "))[0])

    def fill(self, n):
        left = int(n)
        while left:
            part = PATTERN[: min(left, BLOCK)]
            self.s.sendall(part)
            left -= len(part)

    def recv(self, n):
        got = b""
        while len(got) < int(n):
            part = self.s.recv(int(n) - len(got))
            if not part:
                return f'"{got.decode()}" and the end'
            got += part
        return f'"{got.decode()}"'

    def count(self, n):
        at, left, good = 0, int(n), True
        while left:
            part = self.s.recv(min(left, BLOCK - at))
            if not part:
                return f"{int(n) - left} and the end"
            good = good and part == PATTERN[at : at + len(part)]
            at = (at + len(part)) % BLOCK
            left -= len(part)
        return f"{n} {'right' if good else 'WRONG'}"

    def skip(self, n):
        left = int(n)
        while left:
            part = self.s.recv(min(left, 65536))
            if not part:
                return f"{int(n) - left} and the end"
            left -= len(part)

    def end(self):
        got = self.s.recv(100)
        return "end of file" if not got else f"{len(got)} more bytes"

    def drain(self):
        n = 0
        while True:
            try:
                part = self.s.recv(65536)
            except OSError as e:
                return f"{n} {name(e)}"
            if not part:
                return f"{n} end of file"
            n += len(part)

    def shutdown(self, how):
        self.s.shutdown({"wr": socket.SHUT_WR, "rd": socket.SHUT_RD}[how])

    def close(self):
        self.s.close()

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def avail(self):
        return str(struct.unpack("i", fcntl.ioctl(self.s, termios.FIONREAD, b"    "))[0])

    def window(self):
        # tcpi_snd_wnd
        return str(struct.unpack_from("I", self.s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), 228)[0])

    def hup(self):
        poll = select.poll()
        # Those two are told unasked.
        poll.register(self.s, 0)
        if not poll.poll(10000):
            raise TimeoutError

    def patience(self, seconds):
        self.s.settimeout(float(seconds))

    def echo(self):
        def run(s):
            try:
                while part := s.recv(65536):
                    s.sendall(part)
                s.close()
            except OSError:
                pass

        threading.Thread(target=run, args=(self.s,), daemon=True).start()

    def later(self, ms, *command):
        threading.Timer(int(ms) / 1000, lambda: self.do(list(command))).start()

    def do(self, words):
        try:
            return getattr(self, words[0])(*words[1:]) or "ok"
        except Exception as e:
            return name(e)

    def finish(self):
        for s in [self.listener, *self.conns]:
            if s:
                s.close()


def serve(control):
    peer = Peer()
    lines = control.makefile("rw")
    try:
        for line in lines:
            lines.write(peer.do(line.split()) + "\n")
            lines.flush()
    except OSError:
        pass
    peer.finish()


server = socket.socket(socket.AF_UNIX)
server.bind(CONTROL)
server.listen(8)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
