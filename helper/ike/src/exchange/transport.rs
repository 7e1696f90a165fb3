//! Transport mode for IP in IP: what IIPtran (RFC 3884) negotiates, also through a NAT (RFC 7296 section 2.23.1).
//!
//! The selectors are the two outer addresses, each alone, and the protocols of IP in IP. Each end proposes the addresses
//! that it sees itself; who receives them puts in their place those that it sees, wherever a NAT is in between. So each end
//! has a CHILD_SA between the addresses of its own IKE_SA. Two clients behind one NAT then have equal selectors, and are
//! told apart by SPI and port.
//!
//! UPDATE_SA_ADDRESSES moves tunnel mode only (RFC 4555 section 1.2): after a move the end that decides asks for a
//! CHILD_SA between the new addresses and deletes what was there.

use std::net::IpAddr;

use rand_core::CryptoRng;

use super::Path;
use super::child::{ChildSa, Mode};
use super::create_child_sa::{PendingChild, Purpose};
use super::nat::NatSituation;
use super::sa::{IkeSa, Task};
use crate::time::Instant;
use crate::wire::{TrafficSelector, TrafficSelectors};

/// The protocols that stand in the outer header: IPv4 in IP (RFC 2003) and IPv6 in IP (RFC 4213).
pub const IP_IN_IP: [u8; 2] = [4, 41];

/// A refusal that is to pass is tried again after this.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// IP in IP from or to one address.
#[must_use]
pub fn selectors(address: IpAddr) -> TrafficSelectors {
    let host = TrafficSelector::host(address.to_canonical());
    let of = |protocol| host.with_protocol(protocol, 0, u16::MAX);
    TrafficSelectors::new(IP_IN_IP.into_iter().filter_map(of).collect())
}

/// The one address that these selectors are of; `None` when there is none, or another besides.
#[must_use]
pub fn only_address(selectors: &TrafficSelectors) -> Option<IpAddr> {
    let first = selectors.selectors.first()?.start();
    let alone = |selector: &TrafficSelector| selector.start() == first && selector.end() == first;
    selectors.selectors.iter().all(alone).then_some(first)
}

/// The peer's selectors as they are seen from here: our side's, the peer's. `local` and `remote` are the addresses of the
/// IKE_SA; each takes the place of what the peer wrote when a NAT stands before it. `None` when a side does not name one
/// address.
#[must_use]
pub fn seen_from_here(
    ours: &TrafficSelectors,
    theirs: &TrafficSelectors,
    nat: NatSituation,
    (local, remote): (IpAddr, IpAddr),
) -> Option<(TrafficSelectors, TrafficSelectors)> {
    let side = |selectors: &TrafficSelectors, translated: bool, address: IpAddr| {
        only_address(selectors)?;
        if !translated {
            return Some(selectors.clone());
        }
        let host = TrafficSelector::host(address.to_canonical());
        let moved = selectors
            .selectors
            .iter()
            .map(|was| host.with_protocol(was.protocol(), was.start_port(), was.end_port()));
        moved.collect::<Option<_>>().map(TrafficSelectors::new)
    };
    Some((side(ours, nat.ours, local)?, side(theirs, nat.theirs, remote)?))
}

/// What is agreed to of a peer's wish: our side's selectors, the peer's. `None` when it does not fit the IKE_SA's addresses.
#[must_use]
pub fn agreed(
    ours: &TrafficSelectors,
    theirs: &TrafficSelectors,
    nat: NatSituation,
    path: Path,
) -> Option<(TrafficSelectors, TrafficSelectors)> {
    let (local, remote) = (path.local.ip(), path.remote.ip());
    let (ours, theirs) = seen_from_here(ours, theirs, nat, (local, remote))?;
    let (ours, theirs) = (ours.narrow(&selectors(local)), theirs.narrow(&selectors(remote)));
    let empty = ours.selectors.is_empty() || theirs.selectors.is_empty();
    (!empty).then_some((ours, theirs))
}

impl ChildSa {
    /// The outer addresses that a CHILD_SA in transport mode is bound to: ours, the peer's. `None` in tunnel mode.
    #[must_use]
    pub fn outer(&self) -> Option<(IpAddr, IpAddr)> {
        match self.mode {
            Mode::Tunnel => None,
            Mode::Transport => Some((only_address(&self.ts_local)?, only_address(&self.ts_remote)?)),
        }
    }

    /// Whether it can be used between the ends of this path.
    #[must_use]
    pub fn fits(&self, path: Path) -> bool {
        let ends = (path.local.ip().to_canonical(), path.remote.ip().to_canonical());
        self.outer().is_none_or(|outer| outer == ends)
    }
}

impl IkeSa {
    /// What mode its CHILD_SAs have.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.policy.mode
    }

    /// Whether the CHILD_SA that we send with can be used by the path in use.
    #[must_use]
    pub fn carrying_fits(&self) -> bool {
        let carrying = self.carrying();
        let carrying = self.children.iter().find(|child| Some(child.spi_in) == carrying);
        carrying.is_none_or(|child| child.fits(self.path))
    }

    /// The peer uses new addresses: CHILD_SAs in transport mode are made anew between them, unless another IKE_SA has them now.
    pub(super) fn renew_after_move(&mut self, rng: &mut dyn CryptoRng) {
        let waits =
            |task: &Task| matches!(task, Task::CreateChild(pending) if pending.purpose == Purpose::AfterMove);
        if self.policy.mode == Mode::Transport && !self.renewal.succeeded && !self.tasks.iter().any(waits) {
            let pending = PendingChild::new(&self.policy, rng).with_purpose(Purpose::AfterMove);
            self.tasks.push_back(Task::CreateChild(Box::new(pending)));
        }
    }

    /// `new` is between the addresses in use: all others go.
    pub(super) fn replace_all(&mut self, now: Instant, new: u32) {
        let others: Vec<u32> =
            self.children.iter().map(|child| child.spi_in).filter(|spi| *spi != new).collect();
        for old in &others {
            self.succeed_child(now, *old, new);
        }
        self.carry(new);
        let others: Vec<u32> = others.into_iter().filter(|spi| !self.is_closing_child(*spi)).collect();
        if !others.is_empty() {
            self.tasks.push_back(Task::DeleteChildren(others));
        }
    }

    /// The peer cannot make it at the moment.
    pub(super) fn renew_after_move_again(&mut self, now: Instant) {
        self.renewal.after_move = Some(now + AGAIN);
    }

    /// The peer made `new`. What we sent with so far goes to where it is no longer, so `new` carries at once.
    pub(super) fn carry_if_moved(&mut self, new: u32) {
        let fits = self.children.iter().any(|child| child.spi_in == new && child.fits(self.path));
        if self.policy.mode == Mode::Transport && fits && !self.carrying_fits() {
            self.carry(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "192.0.2.1";
    const REMOTE: &str = "198.51.100.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn path() -> Path {
        Path { link: 1, local: (ip(LOCAL), 4500).into(), remote: (ip(REMOTE), 40_000).into() }
    }

    fn nat(ours: bool, theirs: bool) -> NatSituation {
        NatSituation { ours, theirs }
    }

    #[test]
    fn each_end_is_one_address_and_the_protocols_of_ip_in_ip() {
        for text in [LOCAL, "2001:db8::1"] {
            let both = selectors(ip(text)).selectors;
            assert_eq!(both.iter().map(TrafficSelector::protocol).collect::<Vec<_>>(), [4, 41]);
            assert_eq!(only_address(&TrafficSelectors::new(both)), Some(ip(text)));
        }
        let two = [selectors(ip(LOCAL)).selectors, selectors(ip(REMOTE)).selectors].concat();
        assert_eq!(only_address(&TrafficSelectors::new(two)), None);
        assert_eq!(only_address(&TrafficSelectors::default()), None);
        assert_eq!(only_address(&TrafficSelectors::new(vec![TrafficSelector::any_v4()])), None);
    }

    #[test]
    fn what_a_nat_changed_is_replaced_by_the_address_of_the_ike_sa_and_nothing_else_is() {
        // The peer wrote its own address behind a NAT, and ours as it sees it.
        let (private, seen) = (selectors(ip("10.0.0.7")), selectors(ip("203.0.113.9")));
        let wanted = Some((selectors(ip(LOCAL)), selectors(ip(REMOTE))));
        assert_eq!(agreed(&seen, &private, nat(true, true), path()), wanted);
        assert_eq!(agreed(&selectors(ip(LOCAL)), &private, nat(false, true), path()), wanted);
        assert_eq!(agreed(&selectors(ip(LOCAL)), &selectors(ip(REMOTE)), nat(false, false), path()), wanted);
        assert_eq!(agreed(&seen, &private, nat(false, true), path()), None, "ours is not translated");
        assert_eq!(agreed(&selectors(ip(LOCAL)), &private, nat(true, false), path()), None);
    }

    #[test]
    fn wider_wishes_are_cut_to_ip_in_ip_and_others_refused() {
        let any = |text: &str| TrafficSelectors::new(vec![TrafficSelector::host(ip(text))]);
        let cut = agreed(&any(LOCAL), &any(REMOTE), nat(false, false), path()).unwrap();
        assert_eq!(cut, (selectors(ip(LOCAL)), selectors(ip(REMOTE))));
        let udp = TrafficSelector::host(ip(LOCAL)).with_protocol(17, 0, u16::MAX).unwrap();
        let udp = TrafficSelectors::new(vec![udp]);
        assert_eq!(agreed(&udp, &any(REMOTE), nat(true, true), path()), None);
        let network = TrafficSelectors::new(vec![TrafficSelector::any_v4()]);
        assert_eq!(agreed(&network, &any(REMOTE), nat(true, true), path()), None, "not one address");
    }
}
