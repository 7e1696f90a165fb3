//! Roaming in transport mode (RFC 3884): UPDATE_SA_ADDRESSES moves the IKE_SA only (RFC 4555 section 1.2). The IKE_SA asks
//! for a CHILD_SA between the new addresses; until that is there, what is sent and received goes on by the old one, as far
//! as its path still carries.

use ropewalk_ike::exchange::child::Mode;
use ropewalk_ike::wire::NotifyType;

use super::down::explain;
use crate::command::Command;
use crate::session::{Session, State};

impl Session {
    /// The path in use is another one from now on. Its socket is kept while a CHILD_SA is bound to its addresses.
    pub(in crate::session::roaming) fn leave_path(&mut self) {
        if let State::Connected(sa) = &self.state
            && sa.mode() == Mode::Transport
        {
            self.roaming.left.extend(self.link.take());
        } else {
            self.close_path();
        }
    }

    /// A CHILD_SA is gone. With the last one that was bound to other addresses, their sockets go.
    pub(in crate::session) fn close_left_paths(&mut self) {
        let State::Connected(sa) = &self.state else { return };
        if sa.children().iter().all(|child| child.fits(sa.path())) {
            self.commands.extend(self.roaming.left.drain(..).map(Command::ClosePath));
        }
    }

    /// Whether this socket was one of those; it is closed then.
    pub(in crate::session) fn left_path_lost(&mut self, link: u32) -> bool {
        let Some(at) = self.roaming.left.iter().position(|left| *left == link) else { return false };
        self.roaming.left.remove(at);
        self.commands.push_back(Command::ClosePath(link));
        true
    }

    /// The gateway does not make a CHILD_SA for where we are now.
    pub(in crate::session) fn child_refused(&mut self, notify: NotifyType) {
        tracing::warn!(%notify, "the gateway refused a CHILD_SA");
        if matches!(&self.state, State::Connected(sa) if sa.mode() == Mode::Transport) {
            self.set_up_anew(explain(
                "The gateway does not move the tunnel to this network.",
                "The connection is set up again from here.",
            ));
        }
    }
}
