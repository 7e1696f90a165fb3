//! The state machine of RFC 2131 figure 5, with the SAs of RFC 3456.
//!
//! ```text
//! start -> [lease from before? REBOOTING] -> INIT -> SELECTING -> REQUESTING -> (probe) -> BOUND
//!               NAK, silence -------------->                                          | T1
//!                  INIT <------------------ NAK, end of the lease ---- REBINDING <- RENEWING
//!                                                                            T2
//! ```
//!
//! Messages from 0.0.0.0 or to 255.255.255.255 go by the DHCP SA, what the leased address says to its server by the VPN's
//! own. An address counts as held only after the caller has probed it, so a tunnel is never up without one.

mod answers;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::MessageType;
use rand_core::CryptoRng;
use ropewalk_ike::time::Instant;

use crate::hardware::{ClientIdentifier, HardwareAddress};
use crate::lease::{Lease, Settings};
use crate::message::{self, Sender, Wanted};

/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;

/// The first wait for an answer. RFC 2131 section 4.1 has 4 s for a shared Ethernet and leaves it to the network: here the
/// first hop is a tunnel that is known to work, and somebody waits for the connection.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// Requests without an answer after which another way is tried.
const TRIES: u32 = 4;
/// DHCPDISCOVERs without an answer after which the caller is told.
const DISCOVERS_BEFORE_COMPLAINT: u32 = 4;
/// RFC 2131 section 3.1: after a DHCPDECLINE.
const AFTER_DECLINE: Duration = Duration::from_secs(10);
/// RFC 2131 section 4.4.5: renewals are not repeated more often.
const LEAST_RENEWAL_WAIT: Duration = Duration::from_secs(60);

/// What the client is to be.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `chaddr`.
    pub hardware: HardwareAddress,
    /// Option 61.
    pub identifier: ClientIdentifier,
    /// Option 12.
    pub host_name: Option<String>,
    /// A lease from before that has not run out: asked for first.
    pub remembered: Option<Lease>,
}

/// The CHILD_SA that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The one for DHCP only.
    DhcpSa,
    /// The one of the leased address.
    VpnSa,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// By which SA.
    pub carrier: Carrier,
    /// The inner source.
    pub source: SocketAddrV4,
    /// The inner destination.
    pub destination: SocketAddrV4,
    /// The UDP payload.
    pub message: Vec<u8>,
}

/// Why an address is no longer held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The server took it back.
    Refused,
    /// Its time ran out and no server would extend it.
    Expired,
}

/// What the caller has to know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Find out whether somebody uses this address, then call [`Client::probed`].
    Probe(Ipv4Addr),
    /// An address is held: configure it.
    Bound(Box<Lease>),
    /// The lease goes on, perhaps with other settings.
    Renewed(Box<Lease>),
    /// The address must not be used any more. The client looks for another one.
    Lost {
        /// Which.
        address: Ipv4Addr,
        /// Why.
        why: Why,
    },
    /// No server answers. The client goes on asking.
    Silence,
    /// A server's answer to [`Client::inform`].
    Informed(Box<Settings>),
}

/// When to send again, and how often it was sent.
#[derive(Clone, Copy, Debug)]
struct Retry {
    sent: u32,
    at: Instant,
}

/// A lease, on the clock.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    /// When the request was sent that the server granted: the server's count may only be later.
    since: Instant,
}

impl Held {
    fn end(&self) -> Option<Instant> {
        (!self.lease.is_forever()).then(|| self.since + self.lease.duration)
    }

    fn rebinding(&self) -> Option<Instant> {
        (!self.lease.is_forever()).then(|| self.since + self.lease.rebind_after)
    }

    fn renewal(&self) -> Option<Instant> {
        (!self.lease.is_forever()).then(|| self.since + self.lease.renew_after)
    }
}

#[derive(Debug)]
enum State {
    Stopped,
    /// Waiting to begin anew.
    Init {
        at: Instant,
    },
    Selecting(Retry),
    Requesting {
        offer: Lease,
        retry: Retry,
        asked: Instant,
    },
    Rebooting {
        lease: Lease,
        retry: Retry,
        asked: Instant,
    },
    /// The caller finds out whether the address is in use.
    Probing(Held),
    Bound(Held),
    Renewing {
        held: Held,
        next: Instant,
        asked: Instant,
    },
    Rebinding {
        held: Held,
        next: Instant,
        asked: Instant,
    },
    Informing {
        address: Ipv4Addr,
        retry: Retry,
    },
    Informed,
}

/// A DHCP client of one tunnel.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    xid: u32,
    began: Instant,
    /// Refusals in a row: the next round waits longer.
    setbacks: u32,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Client {
    /// A client that does nothing yet.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            state: State::Stopped,
            xid: 0,
            began: Instant::ZERO,
            setbacks: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Looks for an address: for the remembered one first (INIT-REBOOT).
    pub fn start(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.setbacks = 0;
        self.new_exchange(now, rng);
        match self.config.remembered.take() {
            Some(lease) => {
                let retry = Retry { sent: 0, at: now };
                self.state = State::Rebooting { lease, retry, asked: now };
            }
            None => self.state = State::Selecting(Retry { sent: 0, at: now }),
        }
        self.handle_timeout(now, rng);
    }

    /// Asks for the configuration that goes with an address which did not come from DHCP (DHCPINFORM).
    pub fn inform(&mut self, now: Instant, address: Ipv4Addr, rng: &mut dyn CryptoRng) {
        self.new_exchange(now, rng);
        self.state = State::Informing { address, retry: Retry { sent: 0, at: now } };
        self.handle_timeout(now, rng);
    }

    /// Gives the address back, if one is held, and stops.
    pub fn release(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(Lease { address, server, .. }) = self.suspend() else { return };
        self.new_exchange(now, rng);
        let wanted = Wanted { ciaddr: address, ..self.wanted(now, MessageType::Release) };
        let wanted = Wanted { server: Some(server), ..wanted };
        self.send(Carrier::VpnSa, address, server, wanted);
    }

    /// Stops without a word, as when the gateway is lost: the lease is kept by the server and is returned here, to be
    /// remembered.
    pub fn suspend(&mut self) -> Option<Lease> {
        let lease = self.lease().cloned();
        self.state = State::Stopped;
        lease
    }

    /// The answer to [`Event::Probe`].
    pub fn probed(&mut self, now: Instant, in_use: bool, rng: &mut dyn CryptoRng) {
        let State::Probing(held) = std::mem::replace(&mut self.state, State::Stopped) else { return };
        if in_use {
            let Lease { address, server, .. } = held.lease;
            tracing::warn!(%address, %server, "the leased address is in use by somebody else: declined");
            self.new_exchange(now, rng);
            let wanted = Wanted { requested: Some(address), ..self.wanted(now, MessageType::Decline) };
            let wanted = Wanted { server: Some(server), ..wanted };
            self.send(Carrier::DhcpSa, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, wanted);
            self.state = State::Init { at: now + AFTER_DECLINE };
        } else {
            self.setbacks = 0;
            self.events.push_back(Event::Bound(Box::new(held.lease.clone())));
            self.state = State::Bound(held);
        }
    }

    /// The lease that is held.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.held().map(|held| &held.lease)
    }

    /// When the lease that is held ends; `None` without one, and when it never does.
    #[must_use]
    pub fn lease_ends(&self) -> Option<Instant> {
        self.held().and_then(Held::end)
    }

    fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Bound(held) | State::Renewing { held, .. } | State::Rebinding { held, .. } => Some(held),
            State::Stopped
            | State::Init { .. }
            | State::Selecting(_)
            | State::Requesting { .. }
            | State::Rebooting { .. }
            | State::Probing(_)
            | State::Informing { .. }
            | State::Informed => None,
        }
    }

    /// Whether what is said next, or was said last, goes by the DHCP SA: while there is no lease, and once its own server
    /// has not extended it.
    #[must_use]
    pub fn needs_dhcp_sa(&self) -> bool {
        match &self.state {
            State::Stopped | State::Bound(_) | State::Renewing { .. } | State::Informed => false,
            State::Init { .. }
            | State::Selecting(_)
            | State::Requesting { .. }
            | State::Rebooting { .. }
            | State::Probing(_)
            | State::Rebinding { .. }
            | State::Informing { .. } => true,
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know or do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Stopped | State::Probing(_) | State::Informed => None,
            State::Init { at } => Some(*at),
            State::Selecting(retry)
            | State::Requesting { retry, .. }
            | State::Rebooting { retry, .. }
            | State::Informing { retry, .. } => Some(retry.at),
            State::Bound(held) => held.renewal(),
            State::Renewing { held, next, .. } => Some(held.rebinding().map_or(*next, |at| at.min(*next))),
            State::Rebinding { held, next, .. } => Some(held.end().map_or(*next, |at| at.min(*next))),
        }
    }

    /// Acts on the clock.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Stopped) {
            State::Init { .. } => {
                self.new_exchange(now, rng);
                self.select(now, Retry { sent: 0, at: now }, rng)
            }
            State::Selecting(retry) => self.select(now, retry, rng),
            State::Requesting { retry, .. } if retry.sent >= TRIES => State::Init { at: now },
            State::Requesting { offer, retry, .. } => {
                let (address, server) = (Some(offer.address), Some(offer.server));
                let wanted = Wanted { requested: address, server, ..self.wanted(now, MessageType::Request) };
                self.send(Carrier::DhcpSa, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, wanted);
                State::Requesting { offer, retry: retry.again(now, rng), asked: now }
            }
            State::Rebooting { retry, .. } if retry.sent >= TRIES => State::Init { at: now },
            State::Rebooting { lease, retry, .. } => {
                let wanted =
                    Wanted { requested: Some(lease.address), ..self.wanted(now, MessageType::Request) };
                self.send(Carrier::DhcpSa, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, wanted);
                State::Rebooting { lease, retry: retry.again(now, rng), asked: now }
            }
            State::Bound(held) => {
                self.new_exchange(now, rng);
                self.renew(now, held)
            }
            State::Renewing { held, .. } if held.rebinding().is_some_and(|at| now >= at) => {
                self.new_exchange(now, rng);
                self.rebind(now, held)
            }
            State::Renewing { held, .. } => self.renew(now, held),
            State::Rebinding { held, .. } if held.end().is_some_and(|at| now >= at) => {
                let (address, why) = (held.lease.address, Why::Expired);
                self.events.push_back(Event::Lost { address, why });
                State::Init { at: now }
            }
            State::Rebinding { held, .. } => self.rebind(now, held),
            State::Informing { address, retry } => {
                if retry.sent == TRIES {
                    self.events.push_back(Event::Silence);
                }
                let wanted = Wanted { ciaddr: address, ..self.wanted(now, MessageType::Inform) };
                self.send(Carrier::DhcpSa, address, Ipv4Addr::BROADCAST, wanted);
                State::Informing { address, retry: retry.again(now, rng) }
            }
            same @ (State::Stopped | State::Probing(_) | State::Informed) => same,
        };
        // A state that begins at once.
        if let State::Init { at } = self.state
            && at <= now
        {
            self.handle_timeout(now, rng);
        }
    }

    fn select(&mut self, now: Instant, retry: Retry, rng: &mut dyn CryptoRng) -> State {
        if retry.sent == DISCOVERS_BEFORE_COMPLAINT {
            self.events.push_back(Event::Silence);
        }
        let wanted = self.wanted(now, MessageType::Discover);
        self.send(Carrier::DhcpSa, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, wanted);
        State::Selecting(retry.again(now, rng))
    }

    /// Asks the server that lent the address; again after half of what is left until T2.
    fn renew(&mut self, now: Instant, held: Held) -> State {
        let Lease { address, server, .. } = held.lease;
        let wanted = Wanted { ciaddr: address, ..self.wanted(now, MessageType::Request) };
        self.send(Carrier::VpnSa, address, server, wanted);
        let next = halfway(now, held.rebinding());
        State::Renewing { held, next, asked: now }
    }

    /// Asks any server; again after half of what is left of the lease.
    fn rebind(&mut self, now: Instant, held: Held) -> State {
        let address = held.lease.address;
        let wanted = Wanted { ciaddr: address, ..self.wanted(now, MessageType::Request) };
        self.send(Carrier::DhcpSa, address, Ipv4Addr::BROADCAST, wanted);
        let next = halfway(now, held.end());
        State::Rebinding { held, next, asked: now }
    }

    fn new_exchange(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        self.xid = rng.next_u32();
        self.began = now;
    }

    fn wanted(&self, now: Instant, kind: MessageType) -> Wanted {
        let secs = u16::try_from((now - self.began).as_secs()).unwrap_or(u16::MAX);
        let ciaddr = Ipv4Addr::UNSPECIFIED;
        Wanted { kind, xid: self.xid, secs, ciaddr, requested: None, server: None }
    }

    fn send(&mut self, carrier: Carrier, source: Ipv4Addr, destination: Ipv4Addr, wanted: Wanted) {
        let identifier = self.config.identifier.octets(&self.config.hardware);
        let host_name = self.config.host_name.as_deref();
        let sender = Sender { hardware: &self.config.hardware, identifier: &identifier, host_name };
        match message::build(sender, wanted) {
            Ok(message) => self.transmits.push_back(Transmit {
                carrier,
                source: SocketAddrV4::new(source, CLIENT_PORT),
                destination: SocketAddrV4::new(destination, SERVER_PORT),
                message,
            }),
            Err(error) => tracing::error!(%error, kind = ?wanted.kind, "a DHCP message cannot be built"),
        }
    }
}

impl Retry {
    /// Sent once more: the wait doubles, up to a bound, and varies by a tenth.
    fn again(self, now: Instant, rng: &mut dyn CryptoRng) -> Self {
        let base = FIRST_WAIT.saturating_mul(1 << self.sent.min(8)).min(LONGEST_WAIT);
        let vary = f64::from(rng.next_u32()) / f64::from(u32::MAX) * 0.2 + 0.9;
        Self { sent: self.sent + 1, at: now + base.mul_f64(vary) }
    }
}

fn halfway(now: Instant, end: Option<Instant>) -> Instant {
    match end {
        Some(end) => now + ((end - now) / 2).max(LEAST_RENEWAL_WAIT),
        None => now + LEAST_RENEWAL_WAIT,
    }
}

#[cfg(test)]
mod tests;
