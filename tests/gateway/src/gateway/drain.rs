//! What comes out of IKE_SAs becomes events for the owner.

use std::sync::Arc;

use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::{CloseReason, SaEvent};
use ropewalk_ike::time::Instant;

use crate::inner::OwnAddresses;

use super::{Client, ClientId, Gateway, GatewayEvent, State};

impl Gateway {
    /// Takes out of a client's IKE_SAs what they have for us.
    pub(super) fn drain(&mut self, now: Instant, id: u64) {
        self.follow_stepped_aside(id);
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) else { return };
        up.drain_fading(&mut self.transmits);
        let mut downs = Vec::new();
        let mut last = None;
        let mut at = 0;
        // Strands come in behind while this goes on.
        while let Some(strand) = up.strands.get_mut(at) {
            let (number, path) = (strand.id, strand.sa.path());
            self.transmits.extend(std::iter::from_fn(|| strand.sa.poll_transmit()));
            let Some(event) = strand.sa.poll_event() else {
                at += 1;
                continue;
            };
            let client = ClientId(id);
            match event {
                SaEvent::Closed(reason) => {
                    for holder in up.remove(number, id, reason == CloseReason::DeletedByPeer) {
                        self.leases.get().release(holder, now);
                    }
                    up.steering.forget(number);
                    last = Some(reason);
                    if !up.strands.is_empty() {
                        tracing::info!(name = up.name, ?reason, paths = up.strands.len(), "a path is gone");
                        at = 0;
                    }
                }
                SaEvent::Rekeyed(successor) => {
                    let Successor { sa, keys } = *successor;
                    self.by_spi.insert(sa.own_spi(), id);
                    if self.settings.log_keys {
                        let (spis, suite, keys) = (sa.spis(), *sa.suite(), Box::new(keys));
                        self.events.push_back(GatewayEvent::IkeKeys { spis, suite, keys });
                    }
                    up.succeed(number, sa);
                }
                SaEvent::Kept(kept) => {
                    let Successor { mut sa, keys } = *kept;
                    let holder = sa.own_spi();
                    if self.settings.address_per_path {
                        let own = OwnAddresses::new(&self.leases, &self.settings, &up.name, holder);
                        sa.set_inner_source(Arc::new(own));
                    }
                    self.by_spi.insert(sa.own_spi(), id);
                    if self.settings.log_keys {
                        let (spis, suite, keys) = (sa.spis(), *sa.suite(), Box::new(keys));
                        self.events.push_back(GatewayEvent::IkeKeys { spis, suite, keys });
                    }
                    tracing::info!(name = up.name, paths = up.strands.len() + 1, "a further path");
                    up.add(sa, holder);
                }
                SaEvent::Redundant(redundant) => {
                    self.by_spi.insert(redundant.own_spi(), id);
                    up.add_redundant(number, *redundant);
                }
                _ if up.replaced => {}
                SaEvent::ChildUp { child, replaces: _ } => {
                    strand.own =
                        strand.holder.map(|holder| self.leases.get().held(holder)).unwrap_or_default();
                    self.events.push_back(GatewayEvent::ChildUp { client, child, path });
                }
                SaEvent::ChildDown { spi_in, spi_out: _ } => {
                    up.steering.forget_child(spi_in);
                    downs.push(spi_in);
                }
                SaEvent::PathChanged(path) => {
                    // Transport mode is bound to its addresses, not to ports: for others the client makes a CHILD_SA.
                    let follow = strand.sa.children().iter().filter(|child| child.fits(path));
                    let children = follow.map(|child| child.spi_in).collect();
                    self.events.push_back(GatewayEvent::PathChanged { client, children, path });
                }
                SaEvent::SwitchAsked(notice) => up.switch(number, notice),
                SaEvent::PeerAddresses => {
                    let addresses = strand.sa.peer_addresses();
                    tracing::debug!(name = up.name, ?addresses, "other addresses");
                }
                // Which of them carries is read off when all is done.
                SaEvent::ChildCarries { .. }
                | SaEvent::SwitchAnswered { .. }
                | SaEvent::Group(_)
                | SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::Probed { .. }
                | SaEvent::Reported(_)
                | SaEvent::InnerGranted(_)
                | SaEvent::SizeTested { .. }
                | SaEvent::MoveRefused(_)
                | SaEvent::Redirected(_)
                | SaEvent::AuthLifetime(_) => {}
                SaEvent::ChildRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a CHILD_SA");
                }
                SaEvent::RekeyRefused(notify) | SaEvent::IkeRekeyRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a renewal");
                }
                SaEvent::KeepRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a further path");
                }
            }
        }
        up.drain_fading(&mut self.transmits);
        let client = ClientId(id);
        // What carries from now on is known before what carried goes.
        self.tell_carriage(id);
        self.events.extend(downs.into_iter().map(|spi_in| GatewayEvent::ChildDown { client, spi_in }));
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) else { return };
        let Some(reason) = last.filter(|_| up.strands.is_empty()) else {
            let alive = up.own_spis();
            self.by_spi.retain(|spi, client| *client != id || alive.contains(spi));
            return;
        };
        let (name, replaced) = (up.name.clone(), !up.is_current());
        self.clients.remove(&id);
        self.by_spi.retain(|_, client| *client != id);
        self.leases.get().release(id, now);
        self.relay.iter_mut().for_each(|relay| relay.forget(client));
        if !replaced {
            tracing::info!(name, ?reason, "client gone");
            self.events.push_back(GatewayEvent::ClientGone { client, name, reason });
        }
    }
}
