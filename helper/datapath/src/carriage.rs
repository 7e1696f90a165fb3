//! What packets leave by when there is more than one way: the ways of several paths, and how packets choose among them.

use std::net::IpAddr;
use std::time::Duration;

use crate::sa::{Egress, SocketId};

/// A flow that has paused for so long may take another way, when nothing is known of how long the ways are: longer than most
/// queues.
const USUAL_PAUSE: Duration = Duration::from_millis(500);

/// What packets leave by. Replaced as a whole.
#[derive(Debug, Clone)]
pub struct Carriage {
    /// What everything leaves by that is not spread.
    pub main: Egress,
    /// Its name, as a share has one.
    pub name: u32,
    /// How flows are spread; empty unless they are. All packets of a flow, and with them whole super-packets, leave by one
    /// of these.
    pub shares: Vec<Share>,
    /// A flow goes on by the way that it went, as long as that is there, until it has paused for so long: what was sent by the
    /// old way has then arrived before what is sent by a new one. So it is to be longer than the ways differ.
    pub pause: Duration,
    /// What small and marked packets leave by *too*, sealed with this egress' own SA. The receiver tells the copies.
    pub copies: Option<Egress>,
    /// What packets from one of these addresses leave by, whatever else is said: ways that are for one address each.
    pub by_source: Vec<(IpAddr, Egress)>,
}

/// One way among those that flows are spread over.
#[derive(Debug, Clone)]
pub struct Share {
    /// The way's name. A flow stays with the name, whatever else comes or goes, so it should survive a rekey.
    pub name: u32,
    /// How much of the flows it takes, compared with the others'.
    pub weight: u32,
    /// The way.
    pub egress: Egress,
}

impl From<Egress> for Carriage {
    fn from(main: Egress) -> Self {
        Self::new(main, 0)
    }
}

impl Carriage {
    /// Everything leaves by this way of this name.
    #[must_use]
    pub fn new(main: Egress, name: u32) -> Self {
        let (shares, by_source) = (Vec::new(), Vec::new());
        Self { main, name, shares, pause: USUAL_PAUSE, copies: None, by_source }
    }

    /// The sockets it names.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        let shares = self.shares.iter().map(|share| share.egress.socket);
        std::iter::once(self.main.socket)
            .chain(shares)
            .chain(self.copies.as_ref().map(|copies| copies.socket))
            .chain(self.by_source.iter().map(|(_, egress)| egress.socket))
    }
}
