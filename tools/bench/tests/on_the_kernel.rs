//! The program against itself on the loopback interface.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_toe-rpc"))
            .args(["server", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("server starts");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Server { child, address }
    }

    fn ask(&self, words: &[&str]) -> serde_json::Value {
        let out = Command::new(env!("CARGO_BIN_EXE_toe-rpc"))
            .args(words)
            .args([&self.address, "--seconds", "0.5"])
            .output()
            .expect("client runs");
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_measurement_measures_something() {
    let server = Server::start();
    for words in
        [&["latency"][..], &["latency", "--size", "20000"], &["throughput"], &["throughput", "--connections", "3", "--size", "9000"]]
    {
        let result = server.ask(words);
        assert!(result["per_s"].as_f64().is_some_and(|n| n > 0.0), "{result}");
        assert!(result["p50_us"].as_f64() <= result["p99_us"].as_f64(), "{result}");
    }
    for direction in ["to-server", "from-server"] {
        let result = server.ask(&["bulk", "--direction", direction]);
        assert!(result["gbit_per_s"].as_f64().is_some_and(|n| n > 0.0), "{result}");
    }
}

#[test]
fn the_server_survives_clients_that_vanish_or_talk_nonsense() {
    use std::io::{Read, Write};
    let server = Server::start();
    for greeting in [&b""[..], b"toe", b"GET / HTTP/1.0\r\n\r\n", b"toe-rpcS", b"toe-rpce"] {
        let mut stream = TcpStream::connect(&server.address).expect("accepted");
        stream.write_all(greeting).expect("written");
        if greeting.starts_with(b"GET") {
            // Ended by the server, cleanly or with a reset as we sent more than it reads.
            let _ = stream.read(&mut [0; 16]);
        }
    }
    server.ask(&["latency"]);
}

#[test]
fn nobody_there_is_an_error() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string();
    let out = Command::new(env!("CARGO_BIN_EXE_toe-rpc")).args(["latency", &free]).output().expect("runs");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains(&format!("cannot connect to {free}")));
}
