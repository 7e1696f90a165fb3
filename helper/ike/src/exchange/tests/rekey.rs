//! Two ends that renew: each with the IKE_SA in use, those on their way out, and what its data path would hold.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::exchange::initiator::InnerConfig;
use crate::exchange::sa::CloseReason;
use crate::wire::{PathReport, SwitchNotice};

/// What the owner of one end keeps.
pub(super) struct End {
    pub(super) sa: IkeSa,
    /// Replaced or redundant, not closed yet.
    pub(super) fading: Vec<IkeSa>,
    pub(super) outbox: Vec<Vec<u8>>,
    /// What receives.
    pub(super) receiving: BTreeMap<u32, ChildSa>,
    pub(super) sending: Option<u32>,
    pub(super) closed: Option<CloseReason>,
    pub(super) refused: Vec<SaEvent>,
    /// How often the IKE_SA was rekeyed.
    pub(super) rekeyed: usize,
    /// IKE_SAs that were added beside it.
    pub(super) kept: Vec<End>,
    /// What the client said of the path.
    pub(super) asked: Vec<SwitchNotice>,
    /// What the gateway answered to that.
    pub(super) answered: Vec<(u32, bool)>,
    /// What the gateway said that has arrived.
    pub(super) reports: Vec<PathReport>,
    /// Inner addresses that the gateway granted for it.
    pub(super) inner: Option<InnerConfig>,
}

/// Two ends.
pub(super) struct Ends {
    pub(super) now: Instant,
    pub(super) rng: ChaCha20Rng,
    pub(super) client: End,
    pub(super) gateway: End,
}

/// A datagram and who is to get it.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) to: Role,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn other(role: Role) -> Role {
    match role {
        Role::Initiator => Role::Responder,
        Role::Responder => Role::Initiator,
    }
}

impl End {
    pub(super) fn new(sa: IkeSa) -> Self {
        let receiving = sa.children().iter().map(|child| (child.spi_in, child.clone())).collect();
        let sending = sa.carrying();
        let (fading, outbox, refused) = (Vec::new(), Vec::new(), Vec::new());
        let (kept, asked, answered) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            sa,
            fading,
            outbox,
            receiving,
            sending,
            closed: None,
            refused,
            rekeyed: 0,
            kept,
            asked,
            answered,
            reports: Vec::new(),
            inner: None,
        }
    }

    pub(super) fn drain(&mut self) {
        let mut events: VecDeque<SaEvent> = std::iter::from_fn(|| self.sa.poll_event()).collect();
        for old in &mut self.fading {
            while let Some(event) = old.poll_event() {
                assert!(matches!(event, SaEvent::Closed(_)), "one that fades says {event:?}");
            }
        }
        let sas = std::iter::once(&mut self.sa).chain(&mut self.fading);
        let letters = sas.flat_map(|sa| std::iter::from_fn(|| sa.poll_transmit()));
        self.outbox.extend(letters.map(|transmit| transmit.message));
        self.fading.retain(|old| !old.is_closed());
        while let Some(event) = events.pop_front() {
            match event {
                SaEvent::ChildUp { child, .. } => {
                    self.receiving.insert(child.spi_in, *child);
                }
                SaEvent::ChildCarries { spi_in } => {
                    assert!(self.receiving.contains_key(&spi_in), "sends with what is not installed");
                    self.sending = Some(spi_in);
                }
                SaEvent::ChildDown { spi_in, .. } => {
                    self.receiving.remove(&spi_in).unwrap();
                    self.sending = self.sending.filter(|sending| *sending != spi_in);
                }
                SaEvent::Rekeyed(successor) => {
                    self.rekeyed += 1;
                    let old = std::mem::replace(&mut self.sa, successor.sa);
                    self.fading.push(old);
                    // What the old one says after this is about itself.
                    events.retain(|event| !matches!(event, SaEvent::Closed(_)));
                    events.extend(std::iter::from_fn(|| self.sa.poll_event()));
                    self.fading.retain(|old| !old.is_closed());
                }
                SaEvent::Kept(kept) => self.kept.push(End::new(kept.sa)),
                SaEvent::Redundant(sa) => self.fading.push(*sa),
                SaEvent::Closed(reason) => self.closed = Some(reason),
                refused @ (SaEvent::RekeyRefused(_)
                | SaEvent::IkeRekeyRefused(_)
                | SaEvent::KeepRefused(_)
                | SaEvent::ChildRefused(_)) => self.refused.push(refused),
                SaEvent::SwitchAsked(notice) => self.asked.push(notice),
                SaEvent::InnerGranted(inner) => self.inner = Some(inner),
                SaEvent::Reported(report) => self.reports.push(report),
                SaEvent::SwitchAnswered { counter, understood } => self.answered.push((counter, understood)),
                SaEvent::AuthLifetime(_)
                | SaEvent::PathChanged(_)
                | SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::Probed { .. }
                | SaEvent::SizeTested { .. }
                | SaEvent::MoveRefused(_)
                | SaEvent::PeerAddresses
                | SaEvent::Group(_)
                | SaEvent::Redirected(_) => {}
            }
        }
    }
}

impl Ends {
    pub(super) fn new(seed: u64, esp: [&str; 2], lifetimes: Lifetimes) -> Self {
        let now = Instant::from_start(Duration::from_secs(1000));
        let end = |role, esp| {
            let mut sa = one_end(now, role, esp);
            sa.renewal = crate::exchange::renewal::Renewal::new(
                now,
                sa.own_spi(),
                lifetimes,
                sa.renewal.ike_proposals.clone(),
                sa.children.first(),
            );
            End::new(sa)
        };
        let (client, gateway) = (end(Role::Initiator, esp[0]), end(Role::Responder, esp[1]));
        Self { now, rng: ChaCha20Rng::seed_from_u64(seed), client, gateway }
    }

    pub(super) fn plain(seed: u64) -> Self {
        Self::new(seed, ["aes256gcm16"; 2], Lifetimes::default())
    }

    pub(super) fn end(&mut self, role: Role) -> &mut End {
        match role {
            Role::Initiator => &mut self.client,
            Role::Responder => &mut self.gateway,
        }
    }

    /// What this end wants sent.
    pub(super) fn sent_by(&mut self, role: Role) -> Vec<Letter> {
        let end = self.end(role);
        end.drain();
        // What a new IKE_SA wants to send comes with the next look.
        end.drain();
        end.outbox.drain(..).map(|bytes| Letter { to: other(role), bytes }).collect()
    }

    /// Delivers to the IKE_SA that the SPIs name; one that is gone is nobody.
    pub(super) fn deliver(&mut self, letter: &Letter) {
        let header = Header::parse(&letter.bytes).unwrap();
        let spis = IkeSpis { initiator: header.spi_i, responder: header.spi_r };
        let (now, path) = (self.now, path(letter.to));
        let Self { client, gateway, rng, .. } = self;
        let end = if letter.to == Role::Initiator { client } else { gateway };
        let mut sas = std::iter::once(&mut end.sa).chain(&mut end.fading);
        if let Some(sa) = sas.find(|sa| sa.spis() == spis) {
            // A late answer to a request that was given up is told, and harms nothing.
            let _ = sa.handle_datagram(now, path, &letter.bytes, rng);
        }
        end.drain();
    }

    /// Delivers all letters, then what is answered, until both ends are silent.
    pub(super) fn settle(&mut self) {
        for _ in 0..60 {
            let mut letters = self.sent_by(Role::Initiator);
            letters.extend(self.sent_by(Role::Responder));
            if letters.is_empty() {
                return;
            }
            letters.iter().for_each(|letter| self.deliver(letter));
        }
        panic!("the two ends do not come to rest");
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let now = self.now;
        let Self { client, gateway, rng, .. } = self;
        for end in [client, gateway] {
            for sa in std::iter::once(&mut end.sa).chain(&mut end.fading) {
                sa.handle_timeout(now, rng);
            }
            end.drain();
        }
    }

    /// Lets time pass in steps, with everything delivered at once.
    pub(super) fn live(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.pass(Duration::from_millis(250));
            self.settle();
        }
    }

    pub(super) fn rekey_child(&mut self, role: Role) {
        let now = self.now;
        let Self { client, gateway, rng, .. } = self;
        let end = if role == Role::Initiator { client } else { gateway };
        let spi_in = end.sa.carrying().unwrap();
        end.sa.rekey_child(now, spi_in, rng);
    }

    pub(super) fn rekey_ike(&mut self, role: Role) {
        let now = self.now;
        let Self { client, gateway, rng, .. } = self;
        let end = if role == Role::Initiator { client } else { gateway };
        end.sa.rekey_ike(now, rng);
    }

    pub(super) fn delete_child(&mut self, role: Role) {
        let now = self.now;
        let Self { client, gateway, rng, .. } = self;
        let end = if role == Role::Initiator { client } else { gateway };
        let spi_in = end.sa.carrying().unwrap();
        end.sa.delete_child(now, spi_in, rng);
    }

    /// What one end sends with, the other end receives, with the same keys.
    pub(super) fn check_carries(&mut self) {
        for role in [Role::Initiator, Role::Responder] {
            let sending = self.end(role).sending.expect("something to send with");
            let ours = self.end(role).receiving.get(&sending).unwrap().clone();
            let theirs = self.end(other(role)).receiving.get(&ours.spi_out);
            let theirs = theirs.expect("the other end does not receive what is sent");
            assert_eq!(theirs.spi_out, ours.spi_in);
            assert_eq!(theirs.keys_in.encr, ours.keys_out.encr);
            assert_eq!(theirs.keys_in.integ, ours.keys_out.integ);
        }
    }

    /// Both ends have exactly one CHILD_SA, the same, and one IKE_SA, the same.
    pub(super) fn check_at_rest(&mut self) {
        self.check_carries();
        for role in [Role::Initiator, Role::Responder] {
            let end = self.end(role);
            assert_eq!(end.sa.children().len(), 1, "{role:?}");
            assert_eq!(end.receiving.len(), 1, "{role:?}");
            assert!(end.fading.is_empty(), "{role:?}");
            assert_eq!(end.closed, None, "{role:?}");
        }
        assert_eq!(self.client.sa.spis(), self.gateway.sa.spis());
    }
}
