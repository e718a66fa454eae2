//! Programs that the tests and the demo serve files and data with, and the data itself.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::instance::Place;
use crate::job::{self, Job};
use crate::namespaces::{Host, Lab};

/// Servers start in well under a second; a busy machine may need more.
pub const START_LIMIT: Duration = Duration::from_secs(15);

/// The folder of a lab that servers serve.
pub const WWW: &str = "/run/www";

/// Writes `len` bytes that depend on `seed` to `path` and returns their SHA-256.
pub fn make_file(path: &Path, len: u64, seed: u64) -> Result<String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut state = seed | 1;
    let mut block = vec![0; 256 * 1024];
    let mut left = len;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            // xorshift64: fast, and no two blocks are alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = &block[..block.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        file.write_all(part)?;
        hash.update(part);
        left -= part.len() as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of a file, as sha256sum prints it.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 256 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&block[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// nginx with sendfile and two workers, serving [`WWW`].
pub fn nginx(lab: &Lab, place: &Place, name: &str, port: u16) -> Result<Job> {
    nginx_with(lab, place, name, port, "")
}

/// The same with further words behind `listen`, such as `reuseport`. `/pid` says which worker answers.
pub fn nginx_with(lab: &Lab, place: &Place, name: &str, port: u16, listen: &str) -> Result<Job> {
    let dir = format!("/run/{name}");
    fs::create_dir_all(lab.path(&dir))?;
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n")).collect();
    // `user root`: in a user namespace there is no other.
    let config = format!(
        "daemon off;\nuser root root;\nworker_processes 2;\npid {dir}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{temporary}    access_log off;\n    sendfile on;\n    tcp_nopush on;\n    keepalive_timeout 65;\n\
         \x20   server {{ listen {}:{port} {listen}; root {WWW}; location = /pid {{ return 200 \"$pid\\n\"; }} }}\n}}\n",
        if place.ip.contains(':') { format!("[{}]", place.ip) } else { place.ip.clone() }
    );
    fs::write(lab.path(&format!("{dir}/nginx.conf")), config)?;
    place.start(lab, name, "nginx", &["-p", &dir, "-e", "stderr", "-c", &format!("{dir}/nginx.conf")])
}

/// `python3 -m http.server`, serving [`WWW`].
pub fn python_http(lab: &Lab, place: &Place, name: &str, port: u16) -> Result<Job> {
    let port = port.to_string();
    place.start(lab, name, "python3", &["-u", "-m", "http.server", "--bind", &place.ip, "--directory", WWW, &port])
}

/// redis-server that keeps nothing unless told to.
pub fn redis(lab: &Lab, place: &Place, name: &str, port: u16) -> Result<Job> {
    let dir = format!("/run/{name}");
    fs::create_dir_all(lab.path(&dir))?;
    let port = port.to_string();
    let args = ["--bind", &place.ip, "--port", &port, "--dir", &dir, "--save", "", "--protected-mode", "no", "--daemonize", "no"];
    place.start(lab, name, "redis-server", &args)
}

/// Waits until a TCP connection from `from` to the server succeeds.
pub fn wait_listening(server: &mut Job, from: &Host, ip: &str, port: u16) -> Result<()> {
    server.wait_ready(START_LIMIT, || accepts(from, ip, port))
}

/// Whether something accepts connections there.
pub fn accepts(from: &Host, ip: &str, port: u16) -> bool {
    from.run("bash", &["-c", &format!("exec 3<>/dev/tcp/{ip}/{port}")], Duration::from_secs(5)).is_ok()
}

/// What a download took.
#[derive(Clone, Copy, Debug)]
pub struct Download {
    pub seconds: f64,
    pub gbit_per_s: f64,
}

/// Fetches `url` with curl from `place` and compares the SHA-256 of what came.
pub fn fetch(lab: &Lab, place: &Place, url: &str, expected: &str, limit: Duration) -> Result<Download> {
    // Two downloads at a time do not share a file.
    let name = format!("/run/fetched-{}", url.bytes().fold(17_u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into())));
    let seconds = limit.as_secs().to_string();
    let args = ["-sS", "--fail", "--max-time", &seconds, "-o", &name, "-w", "%{size_download} %{time_total}", url];
    let said = place.run("curl", &args, limit + Duration::from_secs(2))?.stdout();
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let [bytes, seconds] = numbers[..] else { bail!("curl printed {said:?}") };
    let found = sha256(&lab.path(&name))?;
    fs::remove_file(lab.path(&name))?;
    if found != expected {
        bail!("{url}: SHA-256 is {found}, not {expected} ({bytes} bytes arrived)");
    }
    Ok(Download { seconds, gbit_per_s: bytes * 8.0 / seconds / 1e9 })
}

/// Waits until `place` is answered by a redis PING.
pub fn wait_redis(server: &mut Job, from: &Place, ip: &str, port: u16) -> Result<()> {
    let port = port.to_string();
    server.wait_ready(START_LIMIT, || {
        let answer = from.run("redis-cli", &["-h", ip, "-p", &port, "ping"], Duration::from_secs(5));
        answer.is_ok_and(|done| done.stdout().contains("PONG"))
    })
}

/// Requests per second of redis-benchmark, by test name.
pub fn redis_benchmark(from: &Place, ip: &str, port: u16, requests: u32, more: &[&str]) -> Result<Vec<(String, f64)>> {
    let (port, requests) = (port.to_string(), requests.to_string());
    let mut args = vec!["-h", ip, "-p", &port, "-n", &requests, "--csv"];
    args.extend(more);
    let said = from.run("redis-benchmark", &args, Duration::from_secs(60))?.stdout();
    let rates = parse_benchmark(&said);
    if rates.is_empty() {
        bail!("redis-benchmark printed no rates:\n{}", job::tail(&said, 10));
    }
    Ok(rates)
}

fn parse_benchmark(csv: &str) -> Vec<(String, f64)> {
    csv.lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(|f| f.trim_matches('"'));
            Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{PEER_IP, Pair};
    use crate::{namespaces, programs};

    #[test]
    fn a_made_file_has_the_hash_that_sha256sum_finds() {
        let path = std::env::temp_dir().join(format!("toe-lab-file-{}", std::process::id()));
        let expected = make_file(&path, 300_001, 7).expect("written");
        assert_eq!(path.metadata().expect("there").len(), 300_001);
        assert_eq!(sha256(&path).expect("read"), expected);
        let mut sum = std::process::Command::new("sha256sum");
        sum.arg(&path);
        let said = job::run(sum, START_LIMIT).expect("sha256sum").stdout();
        let other = make_file(&path, 300_001, 9).expect("written");
        fs::remove_file(&path).expect("removed");
        assert!(said.starts_with(&expected));
        assert_ne!(other, expected);
    }

    #[test]
    fn rates_are_read_from_csv_and_the_head_line_is_not() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"57142.86\",\"0.4\"\n\"GET\",\"60000.00\",\"0.4\"\n";
        assert_eq!(parse_benchmark(text), [("SET".to_owned(), 57142.86), ("GET".to_owned(), 60000.0)]);
    }

    /// The servers as such, both ends on the kernel: what the tests with a card build on.
    #[test]
    fn servers_serve_on_the_kernel() {
        if let Some(why) = namespaces::refused() {
            eprintln!("skipped: {why}");
            return;
        }
        let missing: Vec<_> = ["nginx", "python3", "redis-server", "curl"].into_iter().filter(|p| programs::find(p).is_none()).collect();
        if !missing.is_empty() {
            eprintln!("skipped: not installed: {missing:?}");
            return;
        }
        let pair = Pair::new().expect("a pair");
        pair.near().ip("addr add 10.77.0.2/24 dev toe0").expect("address");
        let (server, client) = (pair.peer_place(), Place::kernel(pair.near(), "10.77.0.2"));
        let hash = make_file(&pair.lab.path("/run/www/file"), 3_000_000, 1).expect("file");

        let mut web = nginx(&pair.lab, &server, "nginx", 8080).expect("nginx");
        wait_listening(&mut web, pair.near(), PEER_IP, 8080).expect("nginx listens");
        fetch(&pair.lab, &client, "http://10.77.0.1:8080/file", &hash, START_LIMIT).expect("same bytes");
        let wrong = fetch(&pair.lab, &client, "http://10.77.0.1:8080/file", "00", START_LIMIT).unwrap_err();
        assert!(wrong.to_string().contains(&hash), "{wrong}");
        let absent = fetch(&pair.lab, &client, "http://10.77.0.1:8080/absent", &hash, START_LIMIT).unwrap_err();
        assert!(absent.to_string().contains("404"), "{absent}");

        let mut python = python_http(&pair.lab, &server, "python", 8081).expect("python");
        wait_listening(&mut python, pair.near(), PEER_IP, 8081).expect("python listens");
        fetch(&pair.lab, &client, "http://10.77.0.1:8081/file", &hash, START_LIMIT).expect("same bytes");

        let mut store = redis(&pair.lab, &server, "redis", 6379).expect("redis");
        wait_redis(&mut store, &client, PEER_IP, 6379).expect("redis answers");
        let rates = redis_benchmark(&client, PEER_IP, 6379, 2000, &["-t", "get,set"]).expect("rates");
        assert_eq!(rates.len(), 2, "{rates:?}");
    }
}
