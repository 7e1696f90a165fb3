//! The inner address by DHCP (RFC 3456 in terms of IKEv2, RFC 2131).
//!
//! ```text
//! IKE_AUTH with the CHILD_SA for DHCP -> DISCOVER .. ACK, or REQUEST for the last lease -> is it this machine's already?
//!                                           ^                                                   | no
//!                     DECLINE, ten seconds  |                                                   v
//!                          in use here, or refused by the gateway <---------------- CHILD_SA for the address
//!                                           ^                                                   | there
//!         NAK, the end of the lease --------+--------- [renewals by that CHILD_SA] <- the device is configured
//! ```
//!
//! The lease belongs to the connection: an IKE_SA that is renewed, moved or doubled does not touch it. One that is set up anew
//! asks for the same address again. The CHILD_SA for DHCP is deleted once it is not needed, and opened again on demand.
//! While there is no address, nobody is told that the connection stands.
//!
//! Nobody can be pinged for a conflict: the only address that the tunnel lets us ask from is the one in question, and whoever
//! had it, too, would answer to itself. So a conflict is what shows without that: the address is this machine's
//! already, or the gateway does not let us have it.

mod settings;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use rand_core::CryptoRng;
use ropewalk_dhcp::packet::Datagram;
use ropewalk_dhcp::policy::Refused;
use ropewalk_dhcp::{CLIENT_PORT, Carrier, Client, ClientConfig, Event, Lease, SERVER_PORT, Transmit, Why};
use ropewalk_ike::exchange::config::{AddressRequest, InitiatorConfig};
use ropewalk_ike::exchange::dhcp_sa;
use ropewalk_ike::exchange::initiator::HandshakeError;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::{Instant, UnixTime};
use ropewalk_ike::wire::{NotifyType, TrafficSelector, TrafficSelectors};

use super::{Session, State};
use crate::command::Command;
use crate::config::DhcpConfig;
use crate::explain::{Cause, Circumstances, Explanation};

/// Addresses that are declined until a first connection is given up.
const DECLINES: u32 = 2;
/// A gateway that is busy is asked again after this.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The lease of the inner address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// As the server granted it.
    pub lease: Lease,
    /// When it ends; `None`: never.
    pub ends: Option<Instant>,
    /// Routes that the server wanted and that are not followed.
    pub refused: Vec<(Ipv4Net, Refused)>,
}

/// Until when a lease is worth asking for again.
#[derive(Clone, Copy, Debug)]
enum Until {
    Clock(UnixTime),
    Time(Instant),
    Ever,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is no IKE_SA to ask by.
    Off,
    /// No address yet, or not any more.
    Asking,
    /// The machine is asked whether it has this address.
    Checking(Ipv4Addr),
    /// Its CHILD_SA is asked for; not again before.
    Joining(Ipv4Addr, Instant),
    /// It is configured.
    Held(Ipv4Addr),
}

/// What a session knows of its lease.
#[derive(Debug)]
pub(super) struct Dhcp {
    identity: ClientConfig,
    allowed: Vec<Ipv4Net>,
    client: Client,
    stage: Stage,
    remembered: Option<(Lease, Until)>,
    /// Goes by the CHILD_SA for DHCP once that is open.
    waiting: Option<Transmit>,
    declined: u32,
    refused: Vec<(Ipv4Net, Refused)>,
}

impl Dhcp {
    pub(super) fn new(config: DhcpConfig) -> Self {
        let DhcpConfig { client: identity, remembered, allowed } = config;
        Self {
            client: Client::new(identity.clone()),
            identity,
            allowed,
            stage: Stage::Off,
            remembered: remembered.map(|(lease, until)| (lease, Until::Clock(until))),
            waiting: None,
            declined: 0,
            refused: Vec::new(),
        }
    }

    fn address(&self) -> Option<Ipv4Addr> {
        if let Stage::Held(address) = self.stage { Some(address) } else { None }
    }
}

impl Session {
    /// An inner packet came out of a CHILD_SA that is for us and not for the device: what DHCP servers say to port 68.
    pub fn inner_packet(&mut self, now: Instant, packet: &[u8], rng: &mut dyn CryptoRng) {
        let Some(dhcp) = &mut self.dhcp else { return };
        let datagram = Datagram::read(packet).filter(|datagram| {
            (datagram.source.port(), datagram.destination.port()) == (SERVER_PORT, CLIENT_PORT)
        });
        let Some(datagram) = datagram else {
            tracing::debug!(octets = packet.len(), "an inner packet that is no DHCP answer");
            return;
        };
        if let Err(error) = dhcp.client.handle_message(now, datagram.payload, rng) {
            tracing::debug!(from = %datagram.source, %error, "a DHCP message is dropped");
        }
        self.drive_dhcp(now, None, rng);
    }

    /// The answer to [`Command::CheckAddress`].
    pub fn address_checked(
        &mut self,
        now: Instant,
        address: Ipv4Addr,
        in_use: bool,
        rng: &mut dyn CryptoRng,
    ) {
        let Some(dhcp) = self.dhcp.as_mut().filter(|dhcp| dhcp.stage == Stage::Checking(address)) else {
            return;
        };
        if in_use {
            tracing::warn!(%address, "this machine has the leased address already");
            self.decline(now, rng);
        } else {
            dhcp.stage = Stage::Joining(address, now);
        }
        self.drive_dhcp(now, None, rng);
    }

    /// Whether the address comes by DHCP and there is none at the moment.
    pub(super) fn is_without_address(&self) -> bool {
        self.dhcp.as_ref().is_some_and(|dhcp| dhcp.address().is_none())
    }

    /// What another login beside the one that stands asks for: the CHILD_SA of the leased address. Whether there is one.
    pub(super) fn ask_for_leased(&self, config: &mut InitiatorConfig) -> bool {
        let Some(dhcp) = &self.dhcp else { return true };
        let Some(address) = dhcp.address() else { return false };
        config.request = AddressRequest::default();
        (config.ts_i, config.ts_r) = (host(address), self.leased_reach());
        true
    }

    /// Begins to look for an address by the IKE_SA that has just come up: for the last one first.
    pub(super) fn look_for_address(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let wall_clock = self.wall_clock;
        let Some(dhcp) = &mut self.dhcp else { return };
        let holds = |until: Until| match until {
            Until::Clock(until) => wall_clock < until,
            Until::Time(until) => now < until,
            Until::Ever => true,
        };
        let remembered = dhcp.remembered.clone().filter(|(_, until)| holds(*until)).map(|(lease, _)| lease);
        dhcp.client = Client::new(ClientConfig { remembered, ..dhcp.identity.clone() });
        (dhcp.stage, dhcp.waiting) = (Stage::Asking, None);
        dhcp.client.start(now, rng);
    }

    /// The IKE_SA is gone: the server keeps the lease, and so do we.
    pub(super) fn suspend_dhcp(&mut self) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.client.suspend();
            (dhcp.stage, dhcp.waiting) = (Stage::Off, None);
        }
    }

    /// The user disconnects: the server gets the address back, by the CHILD_SA that this address has. Whether there was one.
    pub(super) fn give_lease_back(&mut self, now: Instant, sa: &IkeSa, rng: &mut dyn CryptoRng) -> bool {
        let Some(dhcp) = self.dhcp.as_mut().filter(|dhcp| dhcp.address().is_some()) else { return false };
        dhcp.client.release(now, rng);
        (dhcp.stage, dhcp.remembered, dhcp.waiting) = (Stage::Off, None, None);
        while let Some(transmit) = dhcp.client.poll_transmit() {
            self.commands.extend(sa.carrying().and_then(|spi_in| in_packet(sa, spi_in, &transmit)));
        }
        self.commands.push_back(Command::KeepLease(None));
        true
    }

    /// When something is due.
    pub(super) fn dhcp_poll(&self) -> Option<Instant> {
        let dhcp = self.dhcp.as_ref().filter(|_| matches!(self.state, State::Connected(_)))?;
        let again =
            if let Stage::Joining(_, at) = dhcp.stage { self.wants_child().then_some(at) } else { None };
        dhcp.client.poll_timeout().into_iter().chain(again).min()
    }

    /// Acts on the clock.
    pub(super) fn dhcp_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if !matches!(self.state, State::Connected(_)) || self.dhcp_poll().is_none_or(|at| now < at) {
            return;
        }
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.client.handle_timeout(now, rng);
        }
        self.drive_dhcp(now, None, rng);
    }

    /// Whether the CHILD_SA of a granted address is not there and not asked for.
    fn wants_child(&self) -> bool {
        let (Some(dhcp), State::Connected(sa)) = (&self.dhcp, &self.state) else { return false };
        let Stage::Joining(address, _) = dhcp.stage else { return false };
        sa.child_of(address.into()).is_none() && !sa.is_asking_for(false)
    }

    /// Moves on what concerns the address: messages, what the client's state machine says, and the CHILD_SAs. `refused` is why the
    /// gateway refused one just now.
    pub(super) fn drive_dhcp(&mut self, now: Instant, refused: Option<NotifyType>, rng: &mut dyn CryptoRng) {
        if self.dhcp.is_none() || !matches!(self.state, State::Connected(_)) {
            return;
        }
        if let Some(notify) = refused {
            self.dhcp_refused(now, notify, rng);
        }
        loop {
            self.send_dhcp(now, rng);
            let event = self.dhcp.as_mut().and_then(|dhcp| dhcp.client.poll_event());
            let Some(event) = event else { break };
            self.dhcp_event(now, event, rng);
        }
        self.use_address(now, rng);
        self.close_dhcp_sa(now, rng);
    }

    fn dhcp_event(&mut self, now: Instant, event: Event, rng: &mut dyn CryptoRng) {
        let Some(dhcp) = &mut self.dhcp else { return };
        match event {
            Event::Probe(address) => {
                dhcp.stage = Stage::Checking(address);
                self.commands.push_back(Command::CheckAddress(address));
            }
            Event::Bound(lease) | Event::Renewed(lease) => self.bound(now, *lease),
            Event::Lost { address, why } => self.lost_lease(now, address, why, rng),
            Event::Silence => self.dhcp_silence(now, rng),
            Event::Informed(_) => {}
        }
    }

    /// Asks for the CHILD_SA of the address that was granted, and takes it into use when it is there.
    fn use_address(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (Some(dhcp), State::Connected(sa)) = (&mut self.dhcp, &mut self.state) else { return };
        let Stage::Joining(address, not_before) = dhcp.stage else { return };
        if sa.child_of(address.into()).is_some() {
            dhcp.client.probed(now, false, rng);
            if let Some(Event::Bound(lease)) = dhcp.client.poll_event() {
                dhcp.declined = 0;
                self.bound(now, *lease);
            }
        } else if !sa.is_asking_for(false) && now >= not_before {
            let reach = only_v4(&self.config.initiator.ts_r);
            sa.allow(host(address), reach);
            sa.create_child_alike(now, rng);
            self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        }
    }

    /// The address is held, or goes on to be: the device looks as the lease says.
    fn bound(&mut self, now: Instant, lease: Lease) {
        let (Some(dhcp), State::Connected(sa)) = (&mut self.dhcp, &mut self.state) else { return };
        let until = dhcp.client.lease_ends().map_or(Until::Ever, Until::Time);
        dhcp.remembered = Some((lease.clone(), until));
        self.commands.push_back(Command::KeepLease(Some(Box::new(lease.clone()))));
        let newly = dhcp.stage != Stage::Held(lease.address);
        dhcp.stage = Stage::Held(lease.address);
        let Some(child) = sa.child_of(lease.address.into()).cloned() else { return };
        // What the gateway has narrowed it to is what further ones are asked for.
        sa.allow(child.ts_local.clone(), child.ts_remote.clone());
        if newly {
            tracing::info!(address = %lease.address, server = %lease.server, seconds = lease.duration.as_secs(), "leased");
            self.stands(now);
        }
        if let Some(settings) = self.leased_settings(&child)
            && self.inner.as_ref() != Some(&settings)
        {
            self.commands.push_back(Command::ConfigureTunnel(Box::new(settings.clone())));
            self.inner = Some(settings);
        }
    }

    /// The address must not be used any more: nothing is sent from it from now on. The device keeps it, so that what was to go
    /// into the tunnel does not go past it, until there is another one.
    fn lost_lease(&mut self, now: Instant, address: Ipv4Addr, why: Why, rng: &mut dyn CryptoRng) {
        let Some(dhcp) = &mut self.dhcp else { return };
        (dhcp.stage, dhcp.remembered) = (Stage::Asking, None);
        let message = match why {
            Why::Refused => format!("The DHCP server took the address {address} back."),
            Why::Expired => {
                format!("The lease of the address {address} ran out, and no DHCP server extended it.")
            }
        };
        tracing::warn!(message, "the inner address is lost");
        self.error = Some(Explanation::new(Cause::Failed, message, "Ropewalk asks for another one."));
        self.inner = None;
        self.commands.push_back(Command::KeepLease(None));
        self.drop_reauth(now, rng);
        self.end_strands(now, rng);
        let State::Connected(sa) = &mut self.state else { return };
        let gone: Vec<u32> =
            sa.children().iter().filter(|child| !child.is_for_dhcp()).map(|child| child.spi_in).collect();
        for spi_in in gone {
            self.commands.push_back(Command::RemoveChild(spi_in));
            sa.delete_child(now, spi_in, rng);
        }
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
    }

    fn dhcp_silence(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let explanation = Explanation::new(
            Cause::Failed,
            "No DHCP server behind the gateway gives this client an address: none answers, or none has an address left.",
            "Ask the administrator to look into the DHCP server's log and the gateway's DHCP relay.",
        );
        self.no_address(now, explanation, rng);
    }

    /// There is no address, for this reason. Before the connection stood for the first time that is its end.
    fn no_address(&mut self, now: Instant, explanation: Explanation, rng: &mut dyn CryptoRng) {
        tracing::warn!(reason = explanation.message, "there is no inner address");
        if self.was_up {
            self.error = Some(explanation);
            return;
        }
        self.end_strands(now, rng);
        let State::Connected(mut sa) = std::mem::replace(&mut self.state, State::Idle) else { return };
        self.forget(&sa);
        sa.close(now, rng);
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
        self.leave_all();
        self.close_path();
        self.fail(explanation);
    }

    /// The address that was granted is not to be used.
    fn decline(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let Some(dhcp) = &mut self.dhcp else { return };
        dhcp.client.probed(now, true, rng);
        dhcp.declined += 1;
        dhcp.stage = Stage::Asking;
        let often = dhcp.declined >= DECLINES;
        self.send_dhcp(now, rng);
        if often {
            let explanation = Explanation::new(
                Cause::Failed,
                "The addresses that the DHCP server gives are in use: by this computer, or by others at the gateway.",
                "Ask the administrator whether the DHCP server's range overlaps with other addresses, and which \
                 addresses the gateway lets clients have.",
            );
            self.no_address(now, explanation, rng);
        }
    }

    /// The gateway refused a CHILD_SA.
    fn dhcp_refused(&mut self, now: Instant, notify: NotifyType, rng: &mut dyn CryptoRng) {
        let Some(dhcp) = &mut self.dhcp else { return };
        match (dhcp.stage, notify) {
            (Stage::Joining(address, _), NotifyType::TemporaryFailure) => {
                dhcp.stage = Stage::Joining(address, now + BUSY_WAIT);
            }
            (Stage::Joining(address, _), NotifyType::TsUnacceptable) => {
                tracing::warn!(%address, "the gateway does not let us have the leased address");
                self.decline(now, rng);
            }
            (Stage::Joining(address, _), _) => {
                dhcp.stage = Stage::Joining(address, now + 10 * BUSY_WAIT);
                let gateway = self.config.gateways.first().map_or("", |endpoint| endpoint.host.as_str());
                let known = Circumstances { gateway, ..Circumstances::default() };
                let explanation = self.explain(&HandshakeError::ChildRefused(notify), known);
                self.no_address(now, explanation, rng);
            }
            // The client's state machine asks again in its time.
            (Stage::Off | Stage::Asking | Stage::Checking(_) | Stage::Held(_), _) => dhcp.waiting = None,
        }
    }

    /// Sends what the client's state machine wants sent, each message by the CHILD_SA that it belongs to.
    fn send_dhcp(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (Some(dhcp), State::Connected(sa)) = (&mut self.dhcp, &mut self.state) else { return };
        while let Some(transmit) = dhcp.client.poll_transmit() {
            match transmit.carrier {
                // Of several the newest is worth sending.
                Carrier::DhcpSa => dhcp.waiting = Some(transmit),
                Carrier::VpnSa => {
                    self.commands.extend(sa.carrying().and_then(|spi_in| in_packet(sa, spi_in, &transmit)));
                }
            }
        }
        match (&dhcp.waiting, sa.dhcp_child()) {
            (None, _) => {}
            (Some(transmit), Some(child)) => {
                self.commands.extend(in_packet(sa, child.spi_in, transmit));
                dhcp.waiting = None;
            }
            (Some(_), None) if sa.is_asking_for(true) => {}
            (Some(_), None) => {
                sa.open_dhcp_sa(now, rng);
                self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
            }
        }
    }

    /// The CHILD_SA for DHCP goes when nothing more is to be said by it.
    fn close_dhcp_sa(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let (Some(dhcp), State::Connected(sa)) = (&self.dhcp, &mut self.state) else { return };
        if dhcp.address().is_none() || dhcp.waiting.is_some() || dhcp.client.needs_dhcp_sa() {
            return;
        }
        while let Some(spi_in) = sa.dhcp_child().map(|child| child.spi_in) {
            sa.delete_child(now, spi_in, rng);
        }
        self.transmits.extend(std::iter::from_fn(|| sa.poll_transmit()));
    }

    fn leased_reach(&self) -> TrafficSelectors {
        only_v4(&self.config.initiator.ts_r)
    }
}

/// What IKE_AUTH asks for when the address comes by DHCP: the CHILD_SA for that, and no configuration.
pub(super) fn ask_for_dhcp_sa(config: &mut InitiatorConfig) {
    config.request = AddressRequest::default();
    (config.ts_i, config.ts_r) = (dhcp_sa::client_side(), dhcp_sa::server_side());
}

/// The message in its packet, for the CHILD_SA with our SPI `spi_in`.
fn in_packet(sa: &IkeSa, spi_in: u32, transmit: &Transmit) -> Option<Command> {
    let Transmit { source, destination, message, .. } = transmit;
    let datagram = Datagram { source: *source, destination: *destination, payload: message };
    let packet = datagram.packet()?;
    Some(Command::SendInner { spi_in, path: sa.path(), packet })
}

fn host(address: Ipv4Addr) -> TrafficSelectors {
    TrafficSelectors::new(vec![TrafficSelector::host(address.into())])
}

fn only_v4(selectors: &TrafficSelectors) -> TrafficSelectors {
    let v4 = selectors.selectors.iter().filter(|selector| matches!(selector.start(), IpAddr::V4(_)));
    TrafficSelectors::new(v4.copied().collect())
}
