//! The group as a part of the tunnel: what of the tunnel it needs to know, and when.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ropewalk_datapath::{Selector, SocketId};
use ropewalk_ike::exchange::child::ChildSa;
use ropewalk_ike::multi_point::rollover::Action;
use ropewalk_ike::time::Instant;
use ropewalk_ike::wire::TrafficSelectors;
use ropewalk_net::NextHop;

use super::Surroundings;
use crate::connection::tunnel::{Tunnel, selectors};

impl Tunnel {
    /// Installs, uses or forgets an SA of the group.
    pub fn group(&mut self, action: Action) {
        let around = self.surroundings();
        let Some(pump) = &self.pump else { return };
        self.group.perform(pump, action, &around);
        self.fit_mtu();
    }

    /// The CHILD_SA with the gateway or the way to it may be another one.
    pub fn group_surrounded(&mut self) {
        let around = self.surroundings();
        if let Some(pump) = &self.pump {
            self.group.surrounded(pump, &around);
        }
    }

    /// The routes on the device are these now.
    pub fn group_found(&mut self, found: Arc<Vec<NextHop>>) {
        let around = self.surroundings();
        if let Some(pump) = &self.pump {
            self.group.found(pump, found, &around);
            // Members may be at addresses of the other family now.
            self.fit_mtu();
        }
    }

    /// An authentic packet of the group came from here.
    pub fn group_heard(&mut self, now: Instant, remote: SocketAddr) {
        if let Some(pump) = &self.pump {
            self.group.heard(pump, now, remote);
        }
    }

    /// A socket reports an error; whether it is one of the group's.
    pub fn group_refused(&mut self, now: Instant, socket: SocketId, remote: Option<SocketAddr>) -> bool {
        let ours = self.group.owns(socket);
        if let (true, Some(pump), Some(remote)) = (ours, &self.pump, remote) {
            self.group.refused(pump, now, remote.ip());
        }
        ours
    }

    /// The way to a member carries no packets above `mtu` octets; whether the socket is one of the group's. A member that
    /// cannot be sent what the tunnel carries is reached through the gateway: the tunnel's size is that of the other paths.
    pub fn group_path_mtu(&mut self, now: Instant, socket: SocketId, remote: SocketAddr, mtu: u16) -> bool {
        let ours = self.group.owns(socket);
        let (inner, ipv6) = (usize::from(self.inner_mtu()), remote.ip().to_canonical().is_ipv6());
        if ours
            && let Some(pump) = &self.pump
            && self.group.suites().any(|suite| suite.inner_mtu(mtu.into(), ipv6) < inner)
        {
            self.group.refused(pump, now, remote.ip());
        }
        ours
    }

    /// Looks at what the group's endpoints were sent, and at the clock.
    pub fn group_tick(&mut self, now: Instant) {
        if let Some(pump) = &self.pump {
            self.group.tick(pump, now);
        }
    }

    fn surroundings(&self) -> Surroundings {
        // Several paths may have inner addresses of their own.
        let of = |side: fn(&ChildSa) -> &TrafficSelectors| {
            let mut all: Vec<Selector> = Vec::new();
            for selector in self.children.iter().flat_map(|child| selectors(side(&child.sa))) {
                if !all.contains(&selector) {
                    all.push(selector);
                }
            }
            all
        };
        let paths = || self.links.all().map(|link| link.path);
        let addresses = |all: &mut dyn Iterator<Item = IpAddr>| all.map(|ip| ip.to_canonical()).collect();
        Surroundings {
            ours: of(|sa| &sa.ts_local),
            theirs: of(|sa| &sa.ts_remote),
            gateway: addresses(&mut paths().map(|path| path.remote.ip())),
            own: addresses(&mut paths().map(|path| path.local.ip())),
        }
    }
}
