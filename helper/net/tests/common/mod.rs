//! Network namespaces for tests: each test body runs in a process of its own, in a namespace "here" with two uplinks to
//! a namespace "there" that plays the internet, with an `/etc` it may write to.
//!
//! ```text
//!   here                                    there
//!   wan0 192.0.2.2/24   2001:db8:1::2/64 -- 192.0.2.1   2001:db8:1::1    default route, metric 100
//!   wan1 203.0.113.2/24 2001:db8:3::2/64 -- 203.0.113.1 2001:db8:3::1    (no default route yet)
//!                                           198.51.100.1, 2001:db8:2::1  the gateway, some hops away
//! ```

// Each test binary uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ropewalk_net::{DnsConfig, Network, NetworkSettings, TunDevice, TunRequest, TunnelConfig};

const MARKER: &str = "ROPEWALK_NET_TEST";

pub const RESOLV_CONF: &str = "# the administrator's\nnameserver 192.0.2.53\nsearch home.arpa\n";

/// Runs a test's body in namespaces of its own.
pub fn isolated<F: Future<Output = ()>>(test: &str, body: impl FnOnce(World) -> F) {
    assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
    if std::env::var(MARKER).is_ok_and(|running| running == test) {
        let world = World::enter();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(body(world));
        return;
    }
    let here = Namespace::make(test, "h");
    let there = Namespace::make(test, "t");
    wire(&here.0, &there.0);
    let output = Command::new("ip")
        .args(["netns", "exec", &here.0, "unshare", "--mount", "--propagation", "private"])
        // What daemons leave running ends with the test.
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARKER, test)
        .env("ROPEWALK_NET_THERE", &there.0)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("running 1 test"), "{test} is not the name of the test:\n{said}");
    assert!(output.status.success(), "inside the namespace:\n{said}");
}

/// A named namespace that goes when dropped; those of killed runs are removed by the next.
struct Namespace(String);

impl Namespace {
    fn make(test: &str, side: &str) -> Self {
        let hash = test.bytes().fold(5381_u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
        let name = format!("rwnet-{}-{:x}{side}", std::process::id(), hash);
        for old in sh("ip -br netns list").lines().filter_map(|l| l.split_whitespace().next()) {
            let owner = old.strip_prefix("rwnet-").and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = Command::new("ip").args(["netns", "delete", old]).status();
            }
        }
        sh(&format!("ip netns add {name}"));
        Namespace(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn wire(here: &str, there: &str) {
    for line in [
        format!("ip -n {here} link add wan0 type veth peer name wan0 netns {there}"),
        format!("ip -n {here} link add wan1 type veth peer name wan1 netns {there}"),
    ] {
        sh(&line);
    }
    for (name, own) in [(here, 2), (there, 1)] {
        sh(&format!("ip netns exec {name} sysctl -q -w net.ipv6.conf.default.accept_ra=0"));
        sh(&format!("ip -n {name} link set lo up"));
        for (link, v4, v6) in [("wan0", "192.0.2", "2001:db8:1:"), ("wan1", "203.0.113", "2001:db8:3:")] {
            sh(&format!("ip netns exec {name} sysctl -q -w net.ipv6.conf.{link}.accept_ra=0"));
            sh(&format!("ip -n {name} addr add {v4}.{own}/24 dev {link}"));
            sh(&format!("ip -n {name} addr add {v6}:{own}/64 dev {link} nodad"));
            sh(&format!("ip -n {name} link set {link} addrgenmode none up"));
        }
    }
    for line in [
        format!("ip -n {there} addr add 198.51.100.1/32 dev lo"),
        format!("ip -n {there} addr add 2001:db8:2::1/128 dev lo nodad"),
        format!("ip -n {here} route add default via 192.0.2.1 dev wan0 metric 100"),
        format!("ip -n {here} route add default via 2001:db8:1::1 dev wan0 metric 100"),
    ] {
        sh(&line);
    }
}

/// What a test's body has.
pub struct World {
    there: File,
    scratch: tempfile::TempDir,
}

impl World {
    /// In the child: the namespaces are there; make `/etc` and the run-time folders private.
    fn enter() -> Self {
        let there =
            File::open(format!("/run/netns/{}", std::env::var("ROPEWALK_NET_THERE").unwrap())).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().display();
        sh(&format!("mount -t tmpfs tmpfs {root}"));
        fs::create_dir_all(scratch.path().join("etc/upper")).unwrap();
        fs::create_dir_all(scratch.path().join("etc/work")).unwrap();
        sh(&format!(
            "mount -t overlay overlay -o lowerdir=/etc,upperdir={root}/etc/upper,workdir={root}/etc/work /etc"
        ));
        sh("mount -t tmpfs tmpfs /run");
        sh("mount -t tmpfs tmpfs /var/lib");
        let _ = fs::remove_file("/etc/resolv.conf");
        fs::write("/etc/resolv.conf", RESOLV_CONF).unwrap();
        World { there, scratch }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    pub fn settings(&self) -> NetworkSettings {
        NetworkSettings::new(self.state_dir())
    }

    pub async fn network(&self) -> Network {
        Network::open(self.settings()).await.unwrap()
    }

    /// Runs a command in the namespace that plays the internet.
    pub fn there(&self, command: &str) -> String {
        use std::os::fd::AsRawFd;
        let fd = self.there.as_raw_fd();
        sh(&format!("nsenter --net=/proc/{}/fd/{fd} {command}", std::process::id()))
    }

    /// A UDP socket in the namespace that plays the internet.
    pub fn socket_there(&self, address: &str) -> UdpSocket {
        let there = self.there.try_clone().unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let socket = std::thread::spawn(move || {
            nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind(address).unwrap()
        });
        let socket = socket.join().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }

    /// Everything that must be as it was before.
    pub fn system(&self) -> Vec<String> {
        let resolv_conf = match fs::symlink_metadata("/etc/resolv.conf") {
            Ok(metadata) => format!(
                "{:?} {:o} {} {} {:?}",
                metadata.file_type(),
                metadata.mode(),
                metadata.uid(),
                fs::read_link("/etc/resolv.conf").unwrap_or_default().display(),
                fs::read("/etc/resolv.conf")
            ),
            Err(error) => error.to_string(),
        };
        let leftovers: Vec<_> = fs::read_dir("/etc")
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("ropewalk"))
            .collect();
        let state = fs::read_dir(self.state_dir()).map(|entries| entries.count()).unwrap_or(0);
        let mut all = vec![resolv_conf, format!("{leftovers:?} {state}")];
        for command in [
            "ip -4 -j rule",
            "ip -6 -j rule",
            "ip -4 -j route show table all",
            "ip -6 -j route show table all",
            "ip -j addr",
            "sysctl -a --pattern net.ipv4.conf.*.rp_filter",
        ] {
            all.push(sh(command));
        }
        all
    }
}

/// Runs a command line without quoting; what it prints.
pub fn sh(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output =
        Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A device as a connection has it.
pub fn device(name: &str) -> TunDevice {
    TunDevice::create(&TunRequest { name: name.into(), mtu: 1400, offloads: false }).unwrap()
}

pub fn config(device: &TunDevice, addresses: &[&str], routes: &[&str]) -> TunnelConfig {
    TunnelConfig {
        addresses: nets(addresses),
        routes: nets(routes),
        mtu: 1400,
        ..TunnelConfig::new(device.device_ref())
    }
}

pub fn dns(servers: &[&str], domains: &[&str]) -> DnsConfig {
    DnsConfig {
        servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        search: Vec::new(),
    }
}

pub fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap())))
        .collect()
}

/// Waits until something holds; the kernel and other programs take their time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The next packet an application's traffic would put into the tunnel, without the device's own noise.
pub async fn next_packet(device: &TunDevice, wait: Duration) -> Option<Vec<u8>> {
    let mut file = File::from(device.try_clone_fd().unwrap());
    let start = Instant::now();
    let mut buffer = vec![0; 65536];
    while start.elapsed() < wait {
        match std::io::Read::read(&mut file, &mut buffer) {
            // Not multicast: the kernel's group reports.
            Ok(length) if length > 24 && buffer[0] >> 4 == 6 && buffer[24] == 0xff => {}
            Ok(length) if length > 16 && buffer[0] >> 4 == 4 && buffer[16] >= 224 => {}
            Ok(length) => return Some(buffer[..length].to_vec()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(e) => panic!("reading the tunnel device: {e}"),
        }
    }
    None
}

/// A program that ends when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A system bus of our own at the usual place, on which everybody may do everything.
pub async fn system_bus() -> Running {
    fs::create_dir_all("/run/dbus").unwrap();
    let policy = r#"<busconfig>
        <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
        <policy context="default">
            <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
            <allow send_type="method_call"/>
        </policy></busconfig>"#;
    fs::write("/run/dbus/test.conf", policy).unwrap();
    let child = Command::new("dbus-daemon")
        .args(["--config-file=/run/dbus/test.conf", "--nofork", "--nopidfile"])
        .stdin(Stdio::null())
        .spawn()
        .expect("dbus-daemon is needed: make setup");
    let running = Running(child);
    eventually("the bus listens", || Path::new("/run/dbus/system_bus_socket").exists()).await;
    running
}

/// Asks the bus.
pub fn busctl(command: &str) -> String {
    sh(&format!("busctl --system {command}"))
}

pub fn bus_has(name: &str) -> bool {
    busctl(&format!(
        "call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus NameHasOwner s {name}"
    ))
    .contains("true")
}

/// Where `fetch-dns-managers.sh` unpacks what is not to be installed.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-tools")
}

/// Puts openresolv where it belongs, for this process and those it starts.
pub fn install_openresolv() {
    let openresolv = tools().join("openresolv").canonicalize();
    let openresolv = openresolv.expect("openresolv is missing: run helper/net/tests/fetch-dns-managers.sh");
    sh(&format!("mount -t overlay overlay -o lowerdir={}:/usr /usr", openresolv.join("usr").display()));
    fs::copy(openresolv.join("etc/resolvconf.conf"), "/etc/resolvconf.conf").unwrap();
}

/// A daemon that is unpacked, not installed, by `fetch-dns-managers.sh`; else the system's.
pub fn daemon(path: &str) -> (PathBuf, PathBuf) {
    let tools = tools().join("root");
    let unpacked = tools.join(path);
    if unpacked.exists() {
        let libraries = tools.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        return (unpacked, libraries);
    }
    let installed = Path::new("/").join(path);
    assert!(installed.exists(), "{path} is missing: run helper/net/tests/fetch-dns-managers.sh");
    (installed, PathBuf::new())
}
