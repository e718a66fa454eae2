//! An independent stack as the peer, over both versions: both opens end in a flow state whose numbers, windows and options that stack accepts.

mod common;
use common::{Bench, OUR_IP, OUR_IP6, OUR_MAC, PEER_IP, PEER_IP6, PEER_MAC};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant,
    wire::{EthernetAddress, IpAddress, IpCidr, IpListenEndpoint},
};
use std::collections::VecDeque;
use toe_abi::flow::{FlowState, flow_flags, v4_mapped};
use toe_engine::{Action, BufferLog2, Endpoint};
use toe_wire::{Checksum, SeqNum, Sum, TcpFlags, TcpOptions, Timestamps, TxHeader};

const OURS: [[u8; 16]; 2] = [v4_mapped(OUR_IP), OUR_IP6];
const PEERS: [[u8; 16]; 2] = [v4_mapped(PEER_IP), PEER_IP6];

/// As smoltcp has it.
fn address(ip: [u8; 16]) -> IpAddress {
    std::net::IpAddr::from(std::net::Ipv6Addr::from(ip)).to_canonical().into()
}

#[derive(Default)]
struct Wire {
    to_peer: VecDeque<Vec<u8>>,
    from_peer: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.to_peer.pop_front()?), Tx(&mut self.from_peer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from_peer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        (c.medium, c.max_transmission_unit) = (Medium::Ethernet, 1514);
        c
    }
}

struct Net {
    bench: Bench,
    wire: Wire,
    iface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Net {
    fn new() -> Self {
        let bench = Bench::dual(|_| {});
        let mut wire = Wire::default();
        let now = Instant::from_micros(bench.now as i64);
        let mut config = Config::new(EthernetAddress(PEER_MAC).into());
        config.random_seed = 42;
        let mut iface = Interface::new(config, &mut wire, now);
        iface.update_ip_addrs(|a| PEERS.iter().for_each(|ip| a.push(IpCidr::new(address(*ip), 24)).expect("room for two")));
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || SocketBuffer::new(vec![0; 200_000]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_tsval_generator(Some(|| 12_345));
        let socket = sockets.add(socket);
        Self { bench, wire, iface, sockets, socket }
    }

    /// Lets frames go to and fro until both are quiet; what is not a frame comes back.
    fn run(&mut self) -> Vec<Action> {
        let mut rest = Vec::new();
        for _ in 0..50 {
            for action in self.bench.actions() {
                match action {
                    Action::Transmit { frame } => self.wire.to_peer.push_back(frame),
                    other => rest.push(other),
                }
            }
            let now = Instant::from_micros(self.bench.now as i64);
            self.iface.poll(now, &mut self.wire, &mut self.sockets);
            while let Some(frame) = self.wire.from_peer.pop_front() {
                self.bench.engine.frame(&frame, common::ON_WIRE, self.bench.now);
            }
            self.bench.now += 1000;
        }
        rest
    }

    fn tcp(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// What the card would send first on this flow.
    fn flow_sends(&mut self, s: &FlowState, payload: &[u8]) {
        let ms = (self.bench.now / 1000) as u32;
        let timestamps = Timestamps { val: ms.wrapping_add(s.rx.ts_offset), ecr: s.rx.ts_recent };
        let header = TxHeader {
            dst_mac: PEER_MAC,
            src_mac: OUR_MAC,
            vlan: None,
            src_ip: s.id.key.local_ip,
            dst_ip: s.id.key.remote_ip,
            tos: s.id.tos,
            ttl: s.id.ttl,
            ident: 0,
            src_port: s.id.key.local_port,
            dst_port: s.id.key.remote_port,
            seq: SeqNum(s.tx.snd_nxt),
            ack: SeqNum(s.rx.rcv_nxt),
            flags: TcpFlags::ACK | TcpFlags::PSH,
            window: (s.rx.rcv_adv.wrapping_sub(s.rx.rcv_nxt) >> s.rx.wscale) as u16,
            urgent: 0,
            options: TcpOptions { timestamps: Some(timestamps), ..TcpOptions::default() },
        };
        let mut frame = vec![0; 128];
        let sum = Sum::new().bytes(payload);
        let len = header.write(&mut frame, payload.len() as u32, Checksum::Full(sum)).expect("fits").len;
        frame.truncate(usize::from(len));
        frame.extend_from_slice(payload);
        self.wire.to_peer.push_back(frame);
        let now = Instant::from_micros(self.bench.now as i64);
        self.iface.poll(now, &mut self.wire, &mut self.sockets);
    }

    fn received(&mut self) -> Vec<u8> {
        self.tcp().recv(|data| (data.len(), data.to_vec())).unwrap_or_default()
    }
}

fn install(actions: Vec<Action>) -> (toe_engine::ConnId, Box<FlowState>) {
    common::only_install(actions)
}

#[test]
fn smoltcp_connects_to_us() {
    OURS.into_iter().for_each(smoltcp_connects_to);
}

fn smoltcp_connects_to(ours: [u8; 16]) {
    let mut net = Net::new();
    net.bench.listen(80, 5);
    let Net { iface, sockets, socket, .. } = &mut net;
    let remote = (address(ours), 80);
    sockets.get_mut::<Socket<'_>>(*socket).connect(iface.context(), remote, 49_000).expect("a fresh socket");
    let (conn, state) = install(net.run());
    assert_eq!(net.tcp().state(), State::Established);
    assert_eq!(state.tx.snd_wnd, 200_000 >> state.tx.wscale << state.tx.wscale, "smoltcp's whole buffer");
    assert_eq!(state.rx.ts_recent, 12_345);

    // Its first data comes before the flow is there, and is kept for it.
    net.tcp().send_slice(b"request").expect("established");
    assert!(net.run().is_empty());
    let (_, actions) = net.bench.installed(conn);
    let kept: Vec<_> = actions.iter().filter(|a| matches!(a, Action::Inject { .. })).collect();
    assert!(kept.len() >= 2, "the final ACK and the request: {actions:?}");

    net.flow_sends(&state, b"answer");
    assert_eq!(net.received(), b"answer");
}

#[test]
fn we_connect_to_smoltcp() {
    PEERS.into_iter().for_each(we_connect_to);
}

fn we_connect_to(peer: [u8; 16]) {
    let mut net = Net::new();
    net.tcp().listen(IpListenEndpoint { addr: None, port: 80 }).expect("a fresh socket");
    let buffers = BufferLog2 { tx: 18, rx: 18 };
    let now = net.bench.now;
    net.bench.engine.connect(1, None, Endpoint { ip: peer, port: 80 }, buffers, now).expect("on-link");
    let actions = net.run();
    assert!(matches!(actions[0], Action::NextHop { mac: Some(PEER_MAC), .. }), "{actions:?}");
    let (conn, state) = install(actions);
    assert_eq!(net.tcp().state(), State::SynReceived, "nothing is acknowledged before the flow is there");
    assert_eq!(state.rx.flags & flow_flags::ACK_NOW, flow_flags::ACK_NOW);
    assert!(matches!(net.bench.installed(conn).1[..], [Action::Connected { .. }]));
    net.flow_sends(&state, b"hello");
    assert_eq!(net.tcp().state(), State::Established);
    assert_eq!(net.received(), b"hello");
}

#[test]
fn smoltcp_refuses_us() {
    PEERS.into_iter().for_each(is_refused_by);
}

fn is_refused_by(peer: [u8; 16]) {
    let mut net = Net::new();
    let now = net.bench.now;
    net.bench.engine.connect(1, None, Endpoint { ip: peer, port: 80 }, common::BUF, now).expect("on-link");
    let actions = net.run();
    assert_eq!(common::failed(&actions).map(|f| f.1), Some(111));
}

#[test]
fn we_refuse_smoltcp() {
    OURS.into_iter().for_each(refuses);
}

fn refuses(ours: [u8; 16]) {
    let mut net = Net::new();
    let Net { iface, sockets, socket, .. } = &mut net;
    let remote = (address(ours), 81);
    sockets.get_mut::<Socket<'_>>(*socket).connect(iface.context(), remote, 49_000).expect("a fresh socket");
    net.run();
    assert_eq!(net.tcp().state(), State::Closed);
}
