//! What comes out of IKE_SAs becomes events for the owner.

use ropewalk_ike::exchange::rekey_ike::Successor;
use ropewalk_ike::exchange::sa::SaEvent;
use ropewalk_ike::time::Instant;

use super::{Client, ClientId, Gateway, GatewayEvent, State};

impl Gateway {
    /// Takes out of an IKE_SA what it has for us.
    pub(super) fn drain(&mut self, now: Instant, id: u64) {
        self.follow_stepped_aside(id);
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) else { return };
        up.drain_fading(&mut self.transmits);
        self.transmits.extend(std::iter::from_fn(|| up.sa.poll_transmit()));
        let client = ClientId(id);
        let mut closed = None;
        while let Some(event) = up.sa.poll_event() {
            let event = match event {
                SaEvent::Closed(reason) => {
                    closed = Some(reason);
                    continue;
                }
                SaEvent::Rekeyed(successor) => {
                    let Successor { sa, keys } = *successor;
                    self.by_spi.insert(sa.own_spi(), id);
                    if self.settings.log_keys {
                        let (spis, suite, keys) = (sa.spis(), *sa.suite(), Box::new(keys));
                        self.events.push_back(GatewayEvent::IkeKeys { spis, suite, keys });
                    }
                    let old = std::mem::replace(&mut up.sa, sa);
                    up.fading.push(old);
                    continue;
                }
                SaEvent::Redundant(redundant) => {
                    self.by_spi.insert(redundant.own_spi(), id);
                    up.fading.push(*redundant);
                    continue;
                }
                SaEvent::Kept(kept) => {
                    let mut unused = kept.sa;
                    unused.step_aside();
                    up.fading.push(unused);
                    continue;
                }
                SaEvent::KeepRefused(_) | SaEvent::SwitchAsked(_) | SaEvent::SwitchAnswered { .. } => {
                    continue;
                }
                _ if up.replaced => continue,
                SaEvent::ChildUp { child, replaces: _ } => {
                    GatewayEvent::ChildUp { client, child, path: up.sa.path() }
                }
                SaEvent::ChildCarries { spi_in } => GatewayEvent::ChildCarries { client, spi_in },
                SaEvent::ChildDown { spi_in, spi_out: _ } => GatewayEvent::ChildDown { client, spi_in },
                SaEvent::PathChanged(path) => GatewayEvent::PathChanged { client, path },
                SaEvent::PeerAddresses => {
                    tracing::debug!(name = up.name, addresses = ?up.sa.peer_addresses(), "other addresses");
                    continue;
                }
                SaEvent::Group(_)
                | SaEvent::PathWorks(_)
                | SaEvent::PathFailed(_)
                | SaEvent::MoveRefused(_)
                | SaEvent::Redirected(_) => continue,
                SaEvent::ChildRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a CHILD_SA");
                    continue;
                }
                SaEvent::AuthLifetime(_) => continue,
                SaEvent::RekeyRefused(notify) | SaEvent::IkeRekeyRefused(notify) => {
                    tracing::info!(name = up.name, %notify, "the client refused a renewal");
                    continue;
                }
            };
            self.events.push_back(event);
        }
        up.drain_fading(&mut self.transmits);
        let Some(reason) = closed else {
            let alive = up.own_spis();
            self.by_spi.retain(|spi, client| *client != id || alive.contains(spi));
            return;
        };
        let (name, replaced) = (up.name.clone(), !up.is_current());
        self.clients.remove(&id);
        self.by_spi.retain(|_, client| *client != id);
        self.leases.release(id, now);
        if !replaced {
            tracing::info!(name, ?reason, "client gone");
            self.events.push_back(GatewayEvent::ClientGone { client, name, reason });
        }
    }
}
