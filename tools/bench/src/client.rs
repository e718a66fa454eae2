//! The clients. Each prints one line of JSON, which the demo and the benchmarks read.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::Serialize;

use crate::wire::{BULK_BLOCK, Mode};
use crate::{Direction, Options};

/// Nothing takes this long unless it hangs.
const STALL_LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Debug)]
struct Requests {
    kind: &'static str,
    connections: u16,
    outstanding: u16,
    size: u32,
    requests: u64,
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

#[derive(Serialize, Debug)]
struct Bulk {
    kind: &'static str,
    direction: &'static str,
    bytes: u64,
    seconds: f64,
    gbit_per_s: f64,
    mbit_per_s_each: Vec<f64>,
}

fn connect(server: SocketAddrV4, mode: Mode) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server.into(), STALL_LIMIT).with_context(|| format!("cannot connect to {server}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    stream.set_write_timeout(Some(STALL_LIMIT))?;
    stream.write_all(&mode.hello())?;
    Ok(stream)
}

/// One connection of a request client.
struct Lane {
    stream: TcpStream,
    /// When each outstanding request was written, oldest first.
    sent: VecDeque<Instant>,
    /// Bytes of the oldest answer that have arrived.
    arrived: usize,
}

/// The measurement of a request client.
struct Tally {
    from: Instant,
    until: Instant,
    requests: u64,
    latency_ns: Histogram<u64>,
}

/// Echo requests on `connections` connections with `outstanding` requests each.
pub fn requests(kind: &'static str, options: &Options, connections: u16, outstanding: u16) -> Result<()> {
    let tally = if connections == 1 && outstanding == 1 { one_at_a_time(options)? } else { many(options, connections, outstanding)? };
    ensure!(tally.requests > 0, "no request was answered within {} s", options.seconds);
    let us = |quantile: f64| tally.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
    print(&Requests {
        kind,
        connections,
        outstanding,
        size: options.size,
        requests: tally.requests,
        per_s: tally.requests as f64 / options.seconds,
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        max_us: tally.latency_ns.max() as f64 / 1000.0,
    })
}

impl Tally {
    /// The time begins, with all connections open.
    fn start(seconds: f64) -> Result<Self> {
        let from = Instant::now() + Duration::from_secs_f64(seconds * 0.1);
        let until = from + Duration::from_secs_f64(seconds);
        Ok(Self { from, until, requests: 0, latency_ns: Histogram::new_with_max(60_000_000_000, 3)? })
    }

    fn count(&mut self, sent: Instant, now: Instant) {
        if now >= self.from && now < self.until {
            self.requests += 1;
            let ns = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
            self.latency_ns.saturating_record(ns);
        }
    }
}

/// Blocking calls, as the simplest client has them.
fn one_at_a_time(options: &Options) -> Result<Tally> {
    let mut stream = connect(options.server, Mode::Echo)?;
    let size = usize::try_from(options.size)?;
    let mut tally = Tally::start(options.seconds)?;
    let (mut question, mut answer) = (vec![0; size], vec![0; size]);
    for number in 0_u64.. {
        let sent = Instant::now();
        if sent >= tally.until {
            break;
        }
        stamp(&mut question, number);
        stream.write_all(&question).context("request")?;
        stream.read_exact(&mut answer).context("answer")?;
        ensure!(question == answer, "request {number}: the answer differs from it");
        tally.count(sent, Instant::now());
    }
    Ok(tally)
}

fn stamp(question: &mut [u8], number: u64) {
    for (byte, value) in question.iter_mut().zip(number.to_be_bytes()) {
        *byte = value;
    }
}

/// epoll over all connections; every answered request is replaced at once.
fn many(options: &Options, connections: u16, outstanding: u16) -> Result<Tally> {
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut lanes = Vec::new();
    for index in 0..u64::from(connections) {
        let stream = connect(options.server, Mode::Echo)?;
        poll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index))?;
        lanes.push(Lane { stream, sent: VecDeque::new(), arrived: 0 });
    }
    let size = usize::try_from(options.size)?;
    let batch = vec![0x5a; size * usize::from(outstanding)];
    let mut tally = Tally::start(options.seconds)?;
    for lane in &mut lanes {
        lane.ask(usize::from(outstanding), size, &batch)?;
        lane.stream.set_nonblocking(true)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; BULK_BLOCK];
    let limit = EpollTimeout::try_from(STALL_LIMIT)?;
    while Instant::now() < tally.until {
        let ready = match poll.wait(&mut events, limit) {
            Err(Errno::EINTR) => continue,
            Ok(0) => bail!("no answer for {} s", STALL_LIMIT.as_secs()),
            other => other?,
        };
        for event in &events[..ready] {
            let lane = lanes.get_mut(usize::try_from(event.data())?).context("no such connection")?;
            let answered = lane.collect(size, &mut buffer, &mut tally)?;
            lane.ask(answered, size, &batch)?;
        }
    }
    Ok(tally)
}

impl Lane {
    /// Writes `count` requests. They fit into any socket buffer, as so many have just been answered.
    fn ask(&mut self, count: usize, size: usize, batch: &[u8]) -> Result<()> {
        let now = Instant::now();
        self.sent.extend(std::iter::repeat_n(now, count));
        self.stream.write_all(&batch[..count * size]).context("request")
    }

    /// Reads what is there and returns how many requests it answers.
    fn collect(&mut self, size: usize, buffer: &mut [u8], tally: &mut Tally) -> Result<usize> {
        let n = match self.stream.read(buffer) {
            Ok(0) => bail!("the server has closed the connection"),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(0),
            Err(e) => return Err(e).context("answer"),
        };
        ensure!(buffer[..n].iter().all(|byte| *byte == 0x5a), "an answer differs from its request");
        self.arrived += n;
        let answered = self.arrived / size;
        self.arrived %= size;
        let now = Instant::now();
        for _ in 0..answered {
            tally.count(self.sent.pop_front().context("an answer that nobody asked for")?, now);
        }
        Ok(answered)
    }
}

/// One direction, on each connection by itself.
pub fn bulk(options: &Options, connections: u16, direction: Direction) -> Result<()> {
    let warm_up = Duration::from_secs_f64(options.seconds * 0.1);
    let length = Duration::from_secs_f64(options.seconds);
    let (name, carry): (_, fn(_, _, _) -> _) = match direction {
        Direction::ToServer => ("to_server", to_server),
        Direction::FromServer => ("from_server", from_server),
    };
    let server = options.server;
    let threads: Vec<_> = (0..connections).map(|_| thread::spawn(move || carry(server, warm_up, length))).collect();
    let (mut bytes, mut took, mut each) = (0, Duration::ZERO, Vec::new());
    for thread in threads {
        let (of_one, its_time): (u64, Duration) = thread.join().map_err(|_| anyhow!("a connection's thread has panicked"))??;
        each.push(of_one as f64 * 8.0 / its_time.as_secs_f64() / 1e6);
        (bytes, took) = (bytes + of_one, took.max(its_time));
    }
    let seconds = took.as_secs_f64();
    ensure!(bytes > 0, "not a byte in {seconds} s");
    print(&Bulk { kind: "bulk", direction: name, bytes, seconds, gbit_per_s: bytes as f64 * 8.0 / seconds / 1e9, mbit_per_s_each: each })
}

/// Counts what was written until the server has confirmed all of it.
fn to_server(server: SocketAddrV4, warm_up: Duration, length: Duration) -> Result<(u64, Duration)> {
    let mut stream = connect(server, Mode::Sink)?;
    let block = vec![0x5a; BULK_BLOCK];
    let start = Instant::now();
    let (mut written, mut warm) = (0_u64, None);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= warm_up + length {
            break;
        }
        if warm.is_none() && elapsed >= warm_up {
            warm = Some((written, Instant::now()));
        }
        written += stream.write(&block).context("write")? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut confirmed = [0; 8];
    stream.read_exact(&mut confirmed).context("the server's count")?;
    let confirmed = u64::from_be_bytes(confirmed);
    ensure!(confirmed == written, "{written} bytes were written, {confirmed} arrived");
    let (before, since) = warm.unwrap_or((0, start));
    Ok((written - before, since.elapsed()))
}

fn from_server(server: SocketAddrV4, warm_up: Duration, length: Duration) -> Result<(u64, Duration)> {
    let mut stream = connect(server, Mode::Source)?;
    let mut block = vec![0; BULK_BLOCK];
    let start = Instant::now();
    let mut read = 0_u64;
    loop {
        let n = stream.read(&mut block).context("read")?;
        ensure!(n > 0, "the server has closed the connection");
        let elapsed = start.elapsed();
        if elapsed < warm_up {
            continue;
        }
        read += n as u64;
        if elapsed >= warm_up + length {
            // From the end of the warm-up and not from the first bytes after it: a connection may get none for long.
            return Ok((read, elapsed - warm_up));
        }
    }
}

fn print(result: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}
