//! Who of the clients belongs to the group, and what they are told.

use rand_core::CryptoRng;
use ropewalk_ike::exchange::sa::IkeSa;
use ropewalk_ike::time::Instant;

use super::{Client, Gateway, State};
use crate::group::Group;

impl Gateway {
    /// A client that came in is handed the group's SA, if it knows multi-point SA.
    pub(super) fn admit_to_group(&mut self, now: Instant, id: u64, rng: &mut dyn CryptoRng) {
        let Some(settings) = self.settings.group else { return };
        let Some(Client { state: State::Up(up), .. }) = self.clients.get_mut(&id) else { return };
        let Some(main) = up.main_mut().filter(|main| main.sa.features().multi_point) else { return };
        let group = self.group.get_or_insert_with(|| Group::new(now, settings, rng));
        for put in group.for_newcomer(now) {
            main.sa.hand_out(now, &put, rng);
        }
    }

    /// Makes the group's next SA and hands it out to all endpoints; how many there are.
    pub fn renew_group(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> usize {
        let Some(group) = &mut self.group else { return 0 };
        let put = group.renew(now, rng);
        tracing::info!(spi = format_args!("{:08x}", put.spi), "the group has a new SA");
        self.tell_group(now, |main| main.hand_out(now, &put, rng))
    }

    /// Takes the group's SAs back; how many endpoints there are. Who comes later is handed a new one.
    pub fn end_group(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> usize {
        let Some(group) = self.group.take() else { return 0 };
        let spis = group.spis();
        self.tell_group(now, |main| spis.iter().for_each(|spi| main.take_back(now, *spi, rng)))
    }

    pub(super) fn group_timeout(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.group.as_ref().is_some_and(|group| now >= group.due()) {
            self.renew_group(now, rng);
        }
    }

    fn tell_group(&mut self, now: Instant, mut tell: impl FnMut(&mut IkeSa)) -> usize {
        let mut told = Vec::new();
        for (id, client) in &mut self.clients {
            if let State::Up(up) = &mut client.state
                && up.is_current()
                && let Some(main) = up.main_mut().filter(|main| main.sa.features().multi_point)
            {
                tell(&mut main.sa);
                told.push(*id);
            }
        }
        told.iter().for_each(|id| self.drain(now, *id));
        told.len()
    }
}
