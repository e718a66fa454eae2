"""The kernel's side: takes every connection on port 9, makes some to port 6000 of the card, and says how each of them ends.

usage: peer.py CARD CONNECTIONS
"""
import resource, selectors, socket, sys, time

card, wanted = sys.argv[1], int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sink = socket.create_server(("0.0.0.0", 9), backlog=4096)
sink.setblocking(False)
watch = selectors.DefaultSelector()
watch.register(sink, selectors.EVENT_READ)
print("ready", flush=True)
made, knock = 0, 0
while True:
    for key, _ in watch.select(0.05):
        if key.fileobj is sink:
            try:
                s = sink.accept()[0]
            except OSError:
                continue
            s.setblocking(False)
            watch.register(s, selectors.EVENT_READ, "accepted")
            continue
        try:
            if key.fileobj.recv(65536):
                continue
            how = "closed"
        except ConnectionResetError:
            how = "reset"
        except OSError as e:
            how = str(e)
        watch.unregister(key.fileobj)
        key.fileobj.close()
        print(how, key.data, flush=True)
    now = time.monotonic()
    if wanted and now > knock:
        knock = now + 0.05
        # The second is refused: a segment of no known flow, at which toed looks around.
        for port in (6000, 5999):
            if port == 6000 and made >= wanted:
                continue
            s = socket.socket()
            s.settimeout(2)
            try:
                s.connect((card, port))
                s.setblocking(False)
                watch.register(s, selectors.EVENT_READ, "made")
                made += 1
                print("made", made, flush=True)
            except OSError:
                s.close()
