//! Programs of the distribution on the card: what else they do to sockets than web servers and redis do.

use std::time::Duration;

use toe_lab::instance::Place;
use toe_lab::job::Job;
use toe_lab::{CARD_IP, PEER_IP, Pair, servers};

const LIMIT: Duration = Duration::from_secs(60);

/// An asyncio server that echoes, and with arguments `client ADDRESS` a client that sends 40 times 100 kB over 10 connections.
const ASYNCIO: &str = r#"
import asyncio, sys

async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()

async def one(address, n):
    reader, writer = await asyncio.open_connection(address, 7007)
    for i in range(4):
        block = bytes((n + i + k) % 256 for k in range(100_000))
        async def send():
            writer.write(block)
            await writer.drain()
        _, got = await asyncio.gather(send(), reader.readexactly(len(block)))
        assert got == block, 'garbled'
    writer.write_eof()
    assert await reader.read() == b'', 'no end'
    writer.close()
    await writer.wait_closed()

async def main():
    if sys.argv[1] == 'client':
        await asyncio.gather(*(one(sys.argv[2], n) for n in range(10)))
        # A program beside it: its end is told by a signal, a pipe or a pidfd in the same loop.
        child = await asyncio.create_subprocess_exec('echo', 'all echoed', stdout=asyncio.subprocess.PIPE)
        print((await child.communicate())[0].decode().strip())
    else:
        server = await asyncio.start_server(serve, sys.argv[2], 7007)
        print('listening')
        await server.serve_forever()

asyncio.run(main())
"#;

fn asyncio(server: &Place, client: &Place, pair: &Pair) {
    let mut echo = server.start(&pair.lab, "echo", "python3", &["-u", "-c", ASYNCIO, "server", &server.ip]).expect("starts");
    let log = pair.lab.log_path("echo");
    echo.wait_ready(LIMIT, || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("listening"))).expect("listens");
    let said = client.run("python3", &["-c", ASYNCIO, "client", &server.ip], LIMIT).expect("echoes").stdout();
    assert_eq!(said, "all echoed\n");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn asyncio_serves_on_the_card() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    asyncio(&card.place(), &pair.peer_place(), &pair);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn asyncio_connects_from_the_card() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    asyncio(&pair.peer_place(), &card.place(), &pair);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn a_python_server_forks_for_each_connection() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    // Each request is answered by a child; the parent closes its copy first.
    let script = "import socketserver, sys\n\
        class H(socketserver.StreamRequestHandler):\n\
        \x20   def handle(self):\n\
        \x20       for line in self.rfile: self.wfile.write(line.upper())\n\
        class S(socketserver.ForkingTCPServer):\n\
        \x20   allow_reuse_address = True\n\
        S((sys.argv[1], 7008), H).serve_forever()\n";
    let mut server = card.place().start(&pair.lab, "forking", "python3", &["-u", "-c", script, CARD_IP]).expect("starts");
    servers::wait_listening(&mut server, pair.peer(), CARD_IP, 7008).expect("listens");
    let client = "import socket, sys\n\
        for n in range(20):\n\
        \x20   s = socket.create_connection((sys.argv[1], 7008), 10); s.sendall(b'hello %d\\n' % n); s.shutdown(socket.SHUT_WR)\n\
        \x20   got = b''.join(iter(lambda: s.recv(100), b'')); assert got == b'HELLO %d\\n' % n, got\n\
        print('twenty')\n";
    let said = pair.peer_place().run("python3", &["-c", client, CARD_IP], LIMIT).expect("answers").stdout();
    assert_eq!(said, "twenty\n");
}

/// nginx at `place` serving a small and a large file.
fn nginx(pair: &Pair, place: &Place) -> (Job, String) {
    servers::make_file(&pair.lab.path("/run/www/small"), 1000, 3).expect("file");
    let hash = servers::make_file(&pair.lab.path("/run/www/large"), 8 << 20, 4).expect("file");
    let mut nginx = servers::nginx(&pair.lab, place, "nginx", 80).expect("starts");
    servers::wait_listening(&mut nginx, pair.peer(), &place.ip, 80).expect("listens");
    (nginx, hash)
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn wrk_keeps_connections_to_nginx_alive() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let (_nginx, _) = nginx(&pair, &card.place());
    let args = ["-t2", "-c32", "-d2s", "--timeout", "20s", "http://10.77.0.2/small"];
    let said = pair.peer_place().run("wrk", &args, LIMIT).expect("runs").stdout();
    println!("{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    assert!(!said.contains(" 0 requests in"), "{said}");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn wget_and_curl_reuse_connections_from_the_card() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let (_nginx, hash) = nginx(&pair, &pair.peer_place());
    let url = |name: &str| format!("http://{PEER_IP}/{name}");
    let args = ["-nv", "-O", "/run/by-wget", &url("small"), &url("large")];
    card.place().run("wget", &args, LIMIT).expect("wget");
    let both = std::fs::metadata(pair.lab.path("/run/by-wget")).expect("there").len();
    assert_eq!(both, 1000 + (8 << 20));
    let args = ["-sSv", "-o", "/dev/null", "-o", "/run/by-curl", &url("small"), &url("large")];
    let said = card.place().run("curl", &args, LIMIT).expect("curl").stderr();
    assert!(said.contains("Re-using existing"), "{said}");
    assert_eq!(servers::sha256(&pair.lab.path("/run/by-curl")).expect("read"), hash);
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn redis_answers_pipelines() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    let mut redis = servers::redis(&pair.lab, &card.place(), "redis", 6379).expect("starts");
    servers::wait_redis(&mut redis, &pair.peer_place(), CARD_IP, 6379).expect("answers");
    let more = ["-t", "set,get,lrange_100", "-P", "16", "-c", "20"];
    let rates = servers::redis_benchmark(&pair.peer_place(), CARD_IP, 6379, 20_000, &more).expect("rates");
    assert!(rates.len() >= 3 && rates.iter().all(|(_, rate)| *rate > 0.0), "{rates:?}");
}

/// iperf3 with `more` words from `client` to a server at `server`.
fn iperf3(pair: &Pair, server: &Place, client: &Place, more: &[&str]) {
    let mut job = server.start(&pair.lab, "iperf3", "iperf3", &["-s", "-1", "--forceflush", "-B", &server.ip]).expect("starts");
    job.wait_ready(LIMIT, {
        let log = pair.lab.log_path("iperf3");
        move || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("Server listening"))
    })
    .expect("listens");
    let mut args = vec!["-c", &server.ip, "-t", "1", "-J"];
    args.extend(more);
    let said = client.run("iperf3", &args, LIMIT).expect("transfers").stdout();
    let received = said.rsplit("\"sum_received\"").next().and_then(|rest| rest.split("\"bytes\":").nth(1)).unwrap_or("");
    let bytes: u64 = received.trim().split(',').next().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    assert!(bytes > 1 << 20, "{said}");
    job.wait(LIMIT).expect("the server ends");
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn iperf3_serves_on_the_card_in_both_directions() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    for more in [&["-P", "3"][..], &["-R", "-P", "3"], &["--bidir"]] {
        iperf3(&pair, &card.place(), &pair.peer_place(), more);
        std::fs::remove_file(pair.lab.log_path("iperf3")).expect("log");
    }
}

#[test]
#[ignore = "end to end: cargo xtask test"]
fn iperf3_connects_from_the_card_in_both_directions() {
    let pair = Pair::new().expect("two hosts");
    let card = pair.card_up().expect("card");
    for more in [&["-P", "3"][..], &["-R"]] {
        iperf3(&pair, &pair.peer_place(), &card.place(), more);
        std::fs::remove_file(pair.lab.log_path("iperf3")).expect("log");
    }
}
