//! What packets leave by when there is more than one way: the ways of several paths, and how packets choose among them.

use crate::sa::{Egress, SocketId};

/// What packets leave by. Replaced as a whole.
#[derive(Debug, Clone)]
pub struct Carriage {
    /// What everything leaves by that is not spread.
    pub main: Egress,
    /// How flows are spread; empty unless they are. All packets of a flow, and with them whole super-packets, leave by one
    /// of these.
    pub shares: Vec<Share>,
    /// What small and marked packets leave by *too*, sealed with this egress' own SA. The receiver tells the copies.
    pub copies: Option<Egress>,
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
        Self { main, shares: Vec::new(), copies: None }
    }
}

impl Carriage {
    /// The sockets it names.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        let shares = self.shares.iter().map(|share| share.egress.socket);
        std::iter::once(self.main.socket)
            .chain(shares)
            .chain(self.copies.as_ref().map(|copies| copies.socket))
    }
}
