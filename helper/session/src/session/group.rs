//! The SAs of a group, as the gateway hands them out (draft-yamaya-ipsecme-mpsa). They belong to the connection, not to the
//! IKE_SA that brought them: they are bound to no address, so a move does not touch them, and after a rekey of the IKE_SA or
//! another login the gateway's next one follows the last.

use ropewalk_ike::exchange::group::GroupEvent;
use ropewalk_ike::multi_point::group_sa::Refusal;
use ropewalk_ike::multi_point::rollover::{Action, Rollover};
use ropewalk_ike::time::Instant;

use super::Session;
use crate::command::Command;

/// What is known of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupInfo {
    /// The SPI that packets are sent with; `None` while there is no SA.
    pub sending: Option<u32>,
    /// The SPIs that packets are taken with.
    pub receiving: Vec<u32>,
    /// Why the last SA that the gateway handed out is not used.
    pub refused: Option<Refusal>,
}

/// The group's SAs and what was wrong with the last one.
#[derive(Debug, Default)]
pub(super) struct Group {
    rollover: Rollover,
    refused: Option<Refusal>,
}

impl Group {
    pub(super) fn info(&self) -> GroupInfo {
        GroupInfo {
            sending: self.rollover.outbound(),
            receiving: self.rollover.inbound(),
            refused: self.refused,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.rollover.poll_timeout()
    }
}

impl Session {
    /// What the gateway has to say.
    pub(super) fn group_event(&mut self, now: Instant, event: GroupEvent) {
        let refused = match event {
            GroupEvent::HandedOut(sa) => {
                let spi = sa.spi;
                self.group.rollover.put(now, *sa).map(|actions| {
                    tracing::info!(
                        spi = format_args!("{spi:08x}"),
                        "the gateway handed out an SA of the group"
                    );
                    self.group.refused = None;
                    self.act(actions);
                })
            }
            GroupEvent::Refused(refusal) => Err(refusal),
            GroupEvent::Deleted { spi } => {
                let actions = self.group.rollover.delete(now, spi);
                self.act(actions);
                Ok(())
            }
        };
        if let Err(refusal) = refused {
            tracing::warn!(%refusal, "an SA of the group is not used");
            self.group.refused = Some(refusal);
        }
    }

    pub(super) fn group_timeout(&mut self, now: Instant) {
        let actions = self.group.rollover.handle_timeout(now);
        self.act(actions);
    }

    /// The connection is over, and with it the membership.
    pub(super) fn leave_group(&mut self) {
        let actions = self.group.rollover.clear();
        self.act(actions);
        self.group.refused = None;
    }

    fn act(&mut self, actions: Vec<Action>) {
        self.commands.extend(actions.into_iter().map(Command::Group));
    }
}
