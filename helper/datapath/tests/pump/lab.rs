//! Two namespaces joined by a veth pair, each with a TUN device; and a tunnel between two pumps in them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ropewalk_datapath::esp::{EspSuite, InboundSa, OutboundSa};
use ropewalk_datapath::{
    Config, DataPath, DeviceId, Egress, EventReceiver, Framing, InboundHandle, InboundSpec, OutboundHandle,
    Selector, SocketId, TunFd,
};

pub const TUN: &str = "rw0";

/// Runs a program; its failure is the test's.
pub fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().expect(command);
    assert!(
        output.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace, removed with the value.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(letter: char) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: geteuid cannot fail and touches no memory.
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root, for namespaces and TUN devices");
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rwdp-{}-{number}{letter}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` in this namespace.
    pub fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name));
    }

    /// Runs a program in this namespace.
    pub fn exec(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name))
    }

    /// Runs `work` on a thread that is in this namespace.
    pub fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::spawn(move || {
            // SAFETY: setns changes the namespace of this thread only.
            assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            work()
        })
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.enter(move || UdpSocket::bind(address).unwrap()).join().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// Opens the TUN device, without giving it addresses.
    pub fn open_tun(&self, vnet_hdr: bool) -> std::io::Result<TunFd> {
        self.enter(move || open_tun(TUN, vnet_hdr)).join().unwrap()
    }

    /// Opens another TUN device, of this name.
    pub fn open_other(&self, name: &'static str, vnet_hdr: bool) -> TunFd {
        self.enter(move || open_tun(name, vnet_hdr).unwrap()).join().unwrap()
    }

    /// Opens the TUN device with the inner addresses of side `side` (1 or 2).
    pub fn tun(&self, vnet_hdr: bool, mtu: u16, side: u8) -> TunFd {
        let tun = self.open_tun(vnet_hdr).unwrap();
        self.ip(&format!("link set {TUN} mtu {mtu} up"));
        self.ip(&format!("addr add 10.99.0.{side}/24 dev {TUN}"));
        self.ip(&format!("addr add fd99::{side}/64 dev {TUN} nodad"));
        self.wait_for_local(&format!("fd99::{side}"));
        tun
    }

    /// The system makes an IPv6 address's route a moment after the address; until then its packets go astray.
    fn wait_for_local(&self, address: &str) {
        let wanted = format!("local {address} dev");
        wait_until("the address is routed", || {
            run(&format!("ip -6 -n {} route show table local", self.name)).contains(&wanted)
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Removes the namespaces of killed runs.
fn sweep() {
    for line in run("ip netns list").lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let pid = name.strip_prefix("rwdp-").and_then(|rest| rest.split('-').next());
        if let Some(pid) = pid
            && !std::path::Path::new("/proc").join(pid).exists()
        {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn open_tun(name: &str, vnet_hdr: bool) -> std::io::Result<TunFd> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    // SAFETY: open takes a C string and returns a new descriptor.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    assert!(fd >= 0, "cannot open /dev/net/tun");
    // SAFETY: it was just opened, nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let vnet = if vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | vnet) as libc::c_short;
    // SAFETY: TUNSETIFF reads an ifreq.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &raw const request) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(TunFd { fd, vnet_hdr }) }
}

pub fn suite(encr: u16, bits: u16, integ: u16) -> EspSuite {
    EspSuite::from_iana(encr, bits, Some(integ)).unwrap()
}

pub fn aes_gcm() -> EspSuite {
    suite(20, 128, 0)
}

fn key(len: usize, spi: u32) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ spi as u8).collect()
}

pub fn outbound(spi: u32, suite: EspSuite) -> OutboundSa {
    let (encr, integ) = (key(suite.encr_key_len(), spi), key(suite.integ_key_len(), spi));
    OutboundSa::new(spi, suite, &encr, &integ, false).unwrap()
}

pub fn inbound(spi: u32, suite: EspSuite) -> InboundSa {
    let (encr, integ) = (key(suite.encr_key_len(), spi), key(suite.integ_key_len(), spi));
    InboundSa::new(spi, suite, &encr, &integ, false).unwrap()
}

/// An inbound SA that takes whatever comes.
pub fn any_inbound(spi: u32, suite: EspSuite) -> InboundSpec {
    InboundSpec {
        sa: inbound(spi, suite),
        sources: Selector::everything(),
        destinations: Selector::everything(),
        outer: None,
        device: DeviceId::MAIN,
        peer: None,
        divert: None,
    }
}

/// How a tunnel is to be.
#[derive(Clone)]
pub struct Plan {
    pub suite: EspSuite,
    pub offloads: bool,
    pub vnet_hdr: bool,
    pub outer_ipv6: bool,
    pub tun_mtu: u16,
    pub inner_mtu: u16,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            suite: aes_gcm(),
            offloads: true,
            vnet_hdr: true,
            outer_ipv6: false,
            tun_mtu: 1400,
            inner_mtu: 1400,
        }
    }
}

impl Plan {
    pub fn config(&self) -> Config {
        Config { offloads: self.offloads, inner_mtu: self.inner_mtu, ..Config::default() }
    }
}

/// One end of a tunnel.
pub struct End {
    pub namespace: Namespace,
    pub path: DataPath,
    pub events: EventReceiver,
    pub socket: SocketId,
    pub address: SocketAddr,
    pub inbound: InboundHandle,
    pub outbound: OutboundHandle,
}

/// Two pumps that carry each other's packets. Side 1 has SPI 0x2001 outbound, side 2 SPI 0x1001.
pub struct Tunnel {
    pub a: End,
    pub b: End,
}

impl Tunnel {
    pub fn new(plan: &Plan) -> Self {
        let (a, b) = namespaces();
        let config = plan.config();
        Self::with(plan, a, b, [config.clone(), config])
    }

    pub fn with(plan: &Plan, a: Namespace, b: Namespace, configs: [Config; 2]) -> Self {
        let [config_a, config_b] = configs;
        let start = |namespace: &Namespace, side: u8, config: Config| {
            let tun = namespace.tun(plan.vnet_hdr, plan.tun_mtu, side);
            let (path, events) = DataPath::start(tun, config).unwrap();
            let bind =
                if plan.outer_ipv6 { format!("[2001:db8::{side}]:0") } else { format!("192.0.2.{side}:0") };
            let udp = namespace.udp(&bind);
            let address = udp.local_addr().unwrap();
            let socket = path.add_socket(udp, Framing::ByRemotePort).unwrap();
            let (spi_in, spi_out) = if side == 1 { (0x1001, 0x2001) } else { (0x2001, 0x1001) };
            let inbound = path.add_inbound(any_inbound(spi_in, plan.suite)).unwrap();
            (path, events, socket, address, inbound, OutboundHandle::new(outbound(spi_out, plan.suite)))
        };
        let (path, events, socket, address, inbound, outbound) = start(&a, 1, config_a);
        let a = End { namespace: a, path, events, socket, address, inbound, outbound };
        let (path, events, socket, address, inbound, outbound) = start(&b, 2, config_b);
        let b = End { namespace: b, path, events, socket, address, inbound, outbound };
        for (end, peer) in [(&a, &b), (&b, &a)] {
            end.path.set_default(Some(end.egress(peer.address).into())).unwrap();
        }
        Self { a, b }
    }
}

impl End {
    pub fn egress(&self, peer: SocketAddr) -> Egress {
        Egress { sa: self.outbound.clone(), socket: self.socket, peer }
    }
}

/// Two namespaces joined by a veth pair with the outer addresses.
pub fn namespaces() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new('a'), Namespace::new('b'));
    a.ip(&format!("link add out0 type veth peer name out0 netns {}", b.name));
    for (side, namespace) in [(1, &a), (2, &b)] {
        namespace.ip(&format!("addr add 192.0.2.{side}/24 dev out0"));
        namespace.ip(&format!("addr add 2001:db8::{side}/64 dev out0 nodad"));
        namespace.ip("link set out0 up");
    }
    for (side, namespace) in [(1, &a), (2, &b)] {
        namespace.wait_for_local(&format!("2001:db8::{side}"));
    }
    // A link is ready a moment after its other end came up; until then it drops what is sent.
    for namespace in [&a, &b] {
        wait_until("the link is up", || {
            run(&format!("ip -n {} link show out0", namespace.name)).contains("state UP")
        });
    }
    (a, b)
}

/// Octets that differ everywhere, from a small generator.
struct Stream(u64);

impl Stream {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Sends `len` octets over TCP from one namespace to another and checks every one of them.
pub fn transfer(from: &Namespace, to: &Namespace, destination: IpAddr, len: usize) {
    const CHUNK: usize = 1 << 16;
    let (ready, listening) = std::sync::mpsc::channel();
    let receiver = to.enter(move || {
        let listener = TcpListener::bind((destination, 0)).unwrap();
        ready.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut expected = Stream(42);
        let (mut got, mut want) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut left = len;
        while left > 0 {
            let now = left.min(CHUNK);
            stream.read_exact(&mut got[..now]).unwrap();
            expected.fill(&mut want[..now]);
            assert!(got[..now] == want[..now], "the octets differ near {}", len - left);
            left -= now;
        }
        assert_eq!(stream.read(&mut got).unwrap(), 0, "more octets than were sent");
        stream.write_all(b"thanks").unwrap();
    });
    let address = listening.recv_timeout(Duration::from_secs(10)).unwrap();
    let sender = from.enter(move || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut source = Stream(42);
        let mut buffer = vec![0; CHUNK];
        let mut left = len;
        while left > 0 {
            let now = left.min(CHUNK);
            source.fill(&mut buffer[..now]);
            stream.write_all(&buffer[..now]).unwrap();
            left -= now;
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"thanks");
    });
    sender.join().unwrap();
    receiver.join().unwrap();
}

pub fn inner(side: u8, ipv6: bool) -> IpAddr {
    let text = if ipv6 { format!("fd99::{side}") } else { format!("10.99.0.{side}") };
    text.parse().unwrap()
}

/// Waits until `done`, at most ten seconds.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether all that one pump sent was delivered by the other, but for what the receiver's kernel had no room for: the
/// machine may be too busy to let the receiving thread run in time, which is no fault of the pump.
pub fn arrived(from: &End, to: &End) -> bool {
    from.path.counters().tx_packets == to.path.counters().rx_packets || buffer_errors(&to.namespace) > 0
}

fn buffer_errors(namespace: &Namespace) -> u64 {
    // Two lines that begin with "Udp:": names, then values.
    let snmp = namespace.exec("cat /proc/net/snmp");
    let lines: Vec<Vec<&str>> =
        snmp.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split(' ').collect()).collect();
    let at = lines[0].iter().position(|name| *name == "RcvbufErrors").unwrap();
    let v4: u64 = lines[1][at].parse().unwrap();
    let snmp6 = namespace.exec("cat /proc/net/snmp6");
    let v6 = snmp6.lines().find(|line| line.starts_with("Udp6RcvbufErrors")).unwrap();
    v4 + v6.split_whitespace().last().unwrap().parse::<u64>().unwrap()
}
