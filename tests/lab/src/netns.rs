//! A network namespace: its links, addresses and routes, and what runs or opens sockets inside it.
//!
//! Programs are started with `ip netns exec`, which also gives them the namespace's own `/etc/resolv.conf`. Sockets of the
//! test itself are opened by a short-lived thread that enters the namespace; a socket stays where it was made.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::{
    error::{Context, LabError, Result},
    lab::{ADMIN_LIMIT, Lab, remove_namespace},
    process::{Finished, Process, run},
};

/// A network namespace. Clones share it; the last one to go removes it.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    lab: Lab,
}

impl Namespace {
    pub(crate) fn create(lab: &Lab, name: String) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]), &[], ADMIN_LIMIT)?.success()?;
        let namespace = Self { inner: Arc::new(Inner { name, lab: lab.clone() }) };
        // Router advertisements and duplicate address detection only cost time here.
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        // Whatever writes name servers inside must not reach the machine's own file.
        namespace.resolv_conf("# no name servers here\n")?;
        Ok(namespace)
    }

    /// The namespace's name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The laboratory it belongs to.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.inner.lab
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.inner.name]).arg(program);
        command
    }

    /// Runs a program inside to its end.
    ///
    /// # Errors
    /// When it cannot be started or takes more than `limit`; a status other than zero is not an error.
    pub fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Finished> {
        run(self.command(program).args(arguments), &[], limit)
    }

    /// Starts a program inside in the background. Its output goes to `<role>-<log>.log` in the laboratory's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, program: &str, arguments: &[&str], log: &str) -> Result<Process> {
        Process::start(self.command(program).args(arguments), &self.log_path(log))
    }

    /// Where the log of that name is.
    #[must_use]
    pub fn log_path(&self, log: &str) -> PathBuf {
        let name = &self.inner.name;
        let role = name.split_once('-').map_or(name.as_str(), |(_, role)| role);
        self.inner.lab.dir().join(format!("{role}-{log}.log"))
    }

    /// Runs `ip` inside with one or more lines of arguments, as `ip -batch` does.
    ///
    /// # Errors
    /// When `ip` refuses a line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.inner.name, "-batch", "-"]);
        run(&mut command, format!("{lines}\n").as_bytes(), ADMIN_LIMIT)?.success().map(|_| ())
    }

    /// What an `ip` command prints inside, such as `["-o", "addr"]`.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip_show(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.inner.name]).args(arguments);
        Ok(run(&mut command, &[], ADMIN_LIMIT)?.success()?.stdout)
    }

    /// Sets a kernel parameter inside.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let value = value.to_owned();
        // The kernel shows the parameters of the namespace that the opening thread is in.
        self.enter(move || fs::write(path, value))?.context(|| format!("set {key}"))
    }

    /// Lets what comes in by its interfaces be handled by one processor, as a network card with one queue does.
    ///
    /// A veth hands a packet to the processor that its sender runs on. A sender that has changed its processor may so see its
    /// packets overtake each other, which no cable does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn one_queue(&self) -> Result<()> {
        let each = "for queue in /sys/class/net/*/queues/rx-*/rps_cpus; do echo 1 > $queue || exit; done";
        self.run("sh", &["-c", each], ADMIN_LIMIT)?.success().map(|_| ())
    }

    /// Lets it forward packets of both families.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Loads nftables rules inside.
    ///
    /// # Errors
    /// When `nft` refuses them.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut command = self.command("nft");
        run(command.args(["-f", "-"]), rules.as_bytes(), ADMIN_LIMIT)?.success().map(|_| ())
    }

    /// Hides everything that leaves by `interface` behind that interface's own addresses, both families.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn masquerade(&self, interface: &str) -> Result<()> {
        self.nft(&format!(
            "table inet lab_nat {{\n chain post {{\n type nat hook postrouting priority srcnat;\n \
             oifname \"{interface}\" masquerade\n }}\n}}\n"
        ))
    }

    /// Joins two namespaces by a cable: a veth pair, both ends up.
    ///
    /// Each end has a number of its own: where both have one number, the kernel takes them for one device and tells a lost
    /// carrier up to a second late.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn link(&self, interface: &str, other: &Self, other_interface: &str) -> Result<()> {
        static NEXT: AtomicU32 = AtomicU32::new(10);
        let number = NEXT.fetch_add(2, Ordering::Relaxed);
        self.ip(&format!(
            "link add {interface} index {number} type veth peer name {other_interface} index {} netns {}",
            number + 1,
            other.inner.name
        ))?;
        self.ip(&format!("link set {interface} up"))?;
        other.ip(&format!("link set {other_interface} up"))
    }

    /// Makes a bridge of some of its interfaces.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn bridge(&self, name: &str, interfaces: &[&str]) -> Result<()> {
        self.ip(&format!("link add {name} type bridge\nlink set {name} up"))?;
        for interface in interfaces {
            self.ip(&format!("link set {interface} master {name}"))?;
        }
        Ok(())
    }

    /// Gives an interface addresses (with their prefix length).
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn address(&self, interface: &str, addresses: &[&str]) -> Result<()> {
        let lines: Vec<_> =
            addresses.iter().map(|address| format!("addr add {address} dev {interface}")).collect();
        self.ip(&lines.join("\n"))
    }

    /// Writes the namespace's own `/etc/resolv.conf`, seen by everything that starts inside from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn resolv_conf(&self, content: &str) -> Result<()> {
        let path = self.resolv_conf_path();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).context(|| format!("make {}", dir.display()))?;
        }
        fs::write(&path, content).context(|| format!("write {}", path.display()))
    }

    /// The file behind the namespace's `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf_path(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.inner.name).join("resolv.conf")
    }

    /// Whether `address` answers one of `count` echo requests sent from here.
    ///
    /// # Errors
    /// When `ping` cannot be started.
    pub fn ping(&self, address: &str, count: u32) -> Result<bool> {
        let count_text = count.to_string();
        let limit = Duration::from_secs(u64::from(count) + 10);
        let finished =
            self.run("ping", &["-n", "-c", &count_text, "-i", "0.2", "-W", "2", address], limit)?;
        Ok(finished.code == 0)
    }

    /// Runs a closure on a thread that is inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send + 'static>(&self, action: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.inner.name);
        let file = File::open(&path).context(|| format!("open {}", path.display()))?;
        let worker = thread::spawn(move || -> std::io::Result<T> {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(action())
        });
        let result = worker.join().map_err(|_| LabError::Io {
            what: "a thread inside a namespace panicked".to_owned(),
            source: std::io::Error::from(ErrorKind::Other),
        })?;
        result.context(|| format!("enter {}", self.inner.name))
    }

    /// A listening TCP socket inside.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn listen_tcp(&self, address: SocketAddr) -> Result<TcpListener> {
        self.enter(move || TcpListener::bind(address))?.context(|| format!("listen on {address}"))
    }

    /// A TCP connection from inside.
    ///
    /// # Errors
    /// When the other end does not answer in time.
    pub fn connect_tcp(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
        self.enter(move || TcpStream::connect_timeout(&address, limit))?
            .context(|| format!("connect to {address}"))
    }

    /// A UDP socket inside.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.enter(move || UdpSocket::bind(address))?.context(|| format!("bind {address}"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}
