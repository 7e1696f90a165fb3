//! What an IKE_SA tells its owner.

use std::time::Duration;

use super::IkeSa;
use crate::exchange::Path;
use crate::exchange::child::ChildSa;
use crate::exchange::group::GroupEvent;
use crate::exchange::initiator::InnerConfig;
use crate::exchange::rekey_ike::Successor;
use crate::wire::{GatewayName, NotifyType, PathReport, SwitchNotice};

/// Why an IKE_SA ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// We deleted it.
    Deleted,
    /// The peer deleted it.
    DeletedByPeer,
    /// The peer stopped answering.
    PeerDead,
    /// The peer lost its memory and has shown so by the token that it gave us (RFC 6290).
    PeerRestarted,
    /// The peer answered with a fatal error, or we told it of one.
    Fatal(NotifyType),
    /// The peer's answer brought another COOKIE2 than was sent (RFC 4555 section 3.7).
    CookieMismatch,
    /// It was not renewed before its end.
    Expired,
}

/// What the owner of an IKE_SA has to know.
#[derive(Debug)]
pub enum SaEvent {
    /// A CHILD_SA to install for receiving; it takes the place of the one with the inbound SPI `replaces`.
    ChildUp {
        /// The new one.
        child: Box<ChildSa>,
        /// The inbound SPI of the one that it replaces.
        replaces: Option<u32>,
    },
    /// Send with this CHILD_SA, by our SPI, from now on.
    ChildCarries {
        /// Our SPI of it.
        spi_in: u32,
    },
    /// A CHILD_SA to remove.
    ChildDown {
        /// Our SPI of it.
        spi_in: u32,
        /// The peer's SPI of it.
        spi_out: u32,
    },
    /// The peer refused a CHILD_SA that we asked for.
    ChildRefused(NotifyType),
    /// The peer refused to renew a CHILD_SA; what is there goes on until its hard limit.
    RekeyRefused(NotifyType),
    /// The peer refused to renew the IKE_SA, which goes on until its hard limit.
    IkeRekeyRefused(NotifyType),
    /// The authentication holds for so long from now on (RFC 4478): the client has to log in anew before.
    AuthLifetime(Duration),
    /// A new IKE_SA takes this one's place and has its CHILD_SAs. This one is only kept until it says [`Self::Closed`].
    Rekeyed(Box<Successor>),
    /// A further IKE_SA stands beside this one, without CHILD_SAs; this one and its CHILD_SAs are as before.
    Kept(Box<Successor>),
    /// There is no further IKE_SA, and this one is as before.
    KeepRefused(NotifyType),
    /// The client says how the path of this IKE_SA is to be used.
    SwitchAsked(SwitchNotice),
    /// The gateway has answered that.
    SwitchAnswered {
        /// The counter of what was said.
        counter: u32,
        /// Whether the gateway knows what it means.
        understood: bool,
    },
    /// Both ends rekeyed the IKE_SA at once: this one is not needed, and only kept until it says [`Self::Closed`].
    Redundant(Box<IkeSa>),
    /// CHILD_SAs send by this path from now on: the peer moved, or we did and the peer has answered.
    PathChanged(Path),
    /// A tested path works.
    PathWorks(Path),
    /// A tested path does not.
    PathFailed(Path),
    /// What was asked with [`IkeSa::probe`] is answered.
    Probed {
        /// Where the answer came by.
        by: Path,
        /// The round trip, when it can be told.
        rtt: Option<Duration>,
        /// When that was sent first: the round trip at most.
        since: Duration,
    },
    /// The gateway has granted inner addresses of its own to this IKE_SA; its CHILD_SA follows.
    InnerGranted(InnerConfig),
    /// The gateway says what has arrived there by a CHILD_SA of ours.
    Reported(PathReport),
    /// What was asked with [`IkeSa::test_size`] is answered.
    SizeTested {
        /// The path that was asked about.
        path: Path,
        /// The octets that were asked for.
        octets: usize,
        /// It carries them; else that is not known.
        carried: bool,
    },
    /// The peer does not let us move to the path that requests go by.
    MoveRefused(NotifyType),
    /// The peer's list of addresses is another one.
    PeerAddresses,
    /// News of the SA of a group.
    Group(GroupEvent),
    /// The gateway sends us to another one (RFC 5685 section 5).
    Redirected(GatewayName),
    /// The IKE_SA is over; all its CHILD_SAs went before.
    Closed(CloseReason),
}
