//! The program around [`ropewalk_gateway::Gateway`]: one thread that waits for the pump's events, signals and the control
//! socket, and makes the gateway's wishes true.
//!
//! - [`config`]: the TOML file.
//! - [`plane`]: sockets and CHILD_SAs in the packet pump.
//! - [`dhcp`]: the relay's socket towards the servers on the LAN.
//! - [`host`]: the TUN device's addresses, and forwarding.
//! - [`control`]: questions and orders for tests.

mod config;
mod control;
mod dhcp;
mod group;
mod host;
mod plane;

use std::os::fd::AsFd;
use std::path::{Path as FsPath, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use ropewalk_datapath::{Event, EventReceiver};
use ropewalk_gateway::{Gateway, GatewayEvent};
use ropewalk_ike::time::{Instant, UnixTime};

pub use self::config::Config;
use self::control::{Control, Order};
use self::dhcp::Lan;
use self::host::Host;
use self::plane::{Plane, Traffic};

/// How long clients may take to confirm the farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running gateway.
pub struct Program {
    gateway: Gateway,
    plane: Plane,
    events: EventReceiver,
    control: Option<Control>,
    dhcp: Option<Lan>,
    signals: SignalFd,
    key_log: Option<PathBuf>,
    rng: ChaCha20Rng,
    /// Goes last: the device with it.
    _host: Host,
}

impl Program {
    /// Makes device, sockets and pump.
    ///
    /// # Errors
    /// The configuration cannot be used, or the system refuses.
    pub fn start(config: &Config, control: Option<&FsPath>) -> anyhow::Result<Self> {
        // Before any thread exists, so that all inherit it.
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
            wanted.add(signal);
        }
        wanted.thread_block().context("block signals")?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("wait for signals")?;
        let settings = config.settings()?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("the system's random numbers")?;
        let host = Host::set_up(config)?;
        let (plane, events) = Plane::start(config, &host)?;
        let dhcp = Lan::open(config, settings.dhcp)?;
        let control = control.map(Control::listen).transpose()?;
        let gateway = Gateway::new(settings, wall());
        tracing::info!(identity = %gateway.settings().identity, addresses = ?plane.addresses(), "listening");
        println!("ready");
        let (rng, key_log) = (ChaCha20Rng::from_seed(seed), config.key_log.clone());
        Ok(Self { gateway, plane, events, control, dhcp, signals, key_log, rng, _host: host })
    }

    /// Serves until told to end by SIGTERM or SIGINT; then the clients are told and the device goes.
    ///
    /// # Errors
    /// The pump cannot go on.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut end: Option<Instant> = None;
        loop {
            let now = now();
            if end.is_some_and(|end| now >= end || self.gateway.clients().is_empty()) {
                return Ok(());
            }
            self.wait(now, end)?;
            let now = self::now();
            self.gateway.set_wall_clock(wall());
            while let Some(event) = self.events.try_recv() {
                self.handle_pump(now, event)?;
                self.drain(now);
            }
            // Who sends ESP is alive and need not be asked; who receives by a new CHILD_SA has it.
            for traffic in self.plane.traffic() {
                let Traffic { spi_in, last, received, sent, arrived: (packets, newest) } = traffic;
                if let Some(at) = last {
                    self.gateway.note_inbound(spi_in, at);
                }
                self.gateway.note_arrivals(spi_in, packets, newest);
                self.gateway.note_traffic(now, spi_in, received, sent);
            }
            if self.gateway.poll_timeout().is_some_and(|at| at <= now) {
                self.gateway.handle_timeout(now, &mut self.rng);
            }
            while let Ok(Some(info)) = self.signals.read_signal() {
                let clients = self.gateway.disconnect_all(now, &mut self.rng);
                if i32::try_from(info.ssi_signo) != Ok(Signal::SIGUSR1 as i32) {
                    tracing::info!(clients, "ending");
                    end = Some(now + FAREWELL);
                }
            }
            while let Some(message) = self.dhcp.as_ref().and_then(Lan::receive) {
                self.gateway.from_dhcp_server(now, &message);
            }
            self.serve_control(now);
            self.drain(now);
        }
    }

    fn wait(&self, now: Instant, end: Option<Instant>) -> anyhow::Result<()> {
        let next = [self.gateway.poll_timeout(), end].into_iter().flatten().min();
        let timeout = match next {
            None => PollTimeout::NONE,
            // A millisecond more, since poll's are cut off.
            Some(next) => {
                let left = next.saturating_since(now) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut wanted = vec![
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        wanted.extend(self.control.as_ref().map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)));
        wanted.extend(self.dhcp.as_ref().map(|dhcp| PollFd::new(dhcp.as_fd(), PollFlags::POLLIN)));
        match poll(&mut wanted, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("wait for events"),
        }
    }

    fn handle_pump(&mut self, now: Instant, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Ike(datagram) => {
                let Some(path) = self.plane.path(datagram.socket, datagram.local, datagram.remote) else {
                    return Ok(());
                };
                let handled = self.gateway.handle_datagram(now, path, &datagram.bytes, &mut self.rng);
                if let Err(misbehaved) = handled {
                    tracing::debug!(remote = %path.remote, %misbehaved, "a message is not in order");
                }
            }
            Event::PeerMoved { spi, socket, local, remote } => {
                if let Some(path) = self.plane.path(socket, local, remote) {
                    tracing::debug!(spi = format_args!("{spi:08x}"), %remote, "a client moved");
                    self.gateway.peer_moved(now, spi, path);
                }
            }
            Event::Inner { spi, packet } => self.gateway.inner_packet(now, spi, &packet),
            Event::PathMtu { remote, mtu, .. } => self.plane.path_mtu(remote, mtu),
            Event::Failed { reason } => anyhow::bail!("the packet pump ended: {reason}"),
            Event::SequenceLow { spi, remaining } => {
                tracing::info!(spi = format_args!("{spi:08x}"), remaining, "sequence numbers run low");
                self.gateway.sequence_low(now, spi, &mut self.rng);
            }
            Event::UnknownSpi { spi, socket, remote } => {
                tracing::debug!(spi = format_args!("{spi:08x}"), %remote, "ESP for no CHILD_SA");
                if let Some(path) = self.plane.way_back(socket, remote) {
                    self.gateway.unknown_esp(now, spi, path);
                }
            }
            Event::NoEgress { destination } => tracing::debug!(%destination, "no client has this address"),
            other => tracing::debug!(event = ?other, "pump"),
        }
        Ok(())
    }

    /// Makes what the gateway wants true.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.gateway.poll_event() {
            match event {
                GatewayEvent::IkeKeys { spis, suite, keys } => {
                    if let Some(folder) = &self.key_log {
                        ropewalk_keylog::ike(folder, spis, &suite, &keys);
                    }
                }
                GatewayEvent::ChildUp { client, child, path } => {
                    if let Some(folder) = &self.key_log {
                        ropewalk_keylog::child(folder, &child, path);
                    }
                    let spi_in = child.spi_in;
                    if let Err(error) = self.plane.install(client, &child, path) {
                        tracing::error!(%error, "a CHILD_SA cannot be installed");
                        self.gateway.delete_child(now, client, spi_in, &mut self.rng);
                    }
                }
                GatewayEvent::Carriage { client, carriage } => self.plane.carry(client, carriage),
                GatewayEvent::ChildDown { client: _, spi_in } => self.plane.remove(spi_in),
                GatewayEvent::PathChanged { client: _, children, path } => self.plane.follow(&children, path),
                GatewayEvent::ClientUp { client, name, .. } => self.plane.enter(client, &name),
                GatewayEvent::ClientGone { client, .. } => self.plane.leave(client),
                GatewayEvent::ToDhcpServer { message } => {
                    self.dhcp.iter().for_each(|dhcp| dhcp.send(&message));
                }
                GatewayEvent::SendInner { spi_in, packet } => self.plane.send_inner(spi_in, &packet),
            }
        }
        while let Some(transmit) = self.gateway.poll_transmit() {
            self.plane.send_ike(&transmit);
        }
    }

    fn serve_control(&mut self, now: Instant) {
        let Some(control) = &self.control else { return };
        while let Some(mut question) = control.accept() {
            let answer = match question.order() {
                Order::List => control::list(&self.gateway, &self.plane),
                Order::Stats => control::stats(&self.gateway, &self.plane),
                Order::Disconnect(name) => {
                    let count = self.gateway.disconnect(now, name, &mut self.rng);
                    serde_json::json!({ "disconnected": count })
                }
                Order::Rekey { ike } => {
                    serde_json::json!({ "rekeying": self.gateway.rekey_all(now, ike, &mut self.rng) })
                }
                Order::AddPath => {
                    serde_json::json!({ "asked": self.gateway.add_paths(now, &mut self.rng) })
                }
                Order::RenewGroup => {
                    serde_json::json!({ "endpoints": self.gateway.renew_group(now, &mut self.rng) })
                }
                Order::EndGroup => {
                    serde_json::json!({ "endpoints": self.gateway.end_group(now, &mut self.rng) })
                }
                Order::Redirect(to) => {
                    let to = config::gateway_name(to);
                    serde_json::json!({ "redirected": self.gateway.redirect_all(now, &to, &mut self.rng) })
                }
                Order::Addresses(own) => {
                    let way = |path| self.plane.other_way(path, &own);
                    let count = self.gateway.change_addresses(now, &own, way, &mut self.rng);
                    serde_json::json!({ "told": count })
                }
                Order::Unknown => {
                    let known = "known: list, stats, disconnect NAME, rekey child, rekey ike, add path, group renew, group end, redirect GATEWAY";
                    serde_json::json!({ "error": known })
                }
            };
            question.answer(&answer);
        }
    }
}

/// Now on `CLOCK_BOOTTIME`, the pump's clock.
fn now() -> Instant {
    // The clock exists on every Linux since 2.6.39.
    Instant::from_start(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
}

fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
