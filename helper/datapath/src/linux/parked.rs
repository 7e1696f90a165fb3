//! ESP that came a moment before its SA.
//!
//! Who answers CREATE_CHILD_SA may send by the new SA at once, and its packets overtake the answer on their way through the
//! owner, who makes the SA. So what comes for an SPI that is not known is kept for a moment, and opened when the SA is
//! added. It is not authenticated: how much is kept is bounded, and a newcomer takes the place of the oldest.

use std::sync::Arc;

use super::receive::Received;
use super::socket::Socket;

/// Packets that are kept.
const SLOTS: usize = 64;
/// Longer ones come from nobody whose path is known.
const LONGEST: usize = 2048;
/// How long they are kept, in nanoseconds: as long as an answer may take through a busy owner.
const KEPT: u64 = 500_000_000;

/// One packet and how it came.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) socket: Arc<Socket>,
    pub(super) message: Received,
    pub(super) bytes: Vec<u8>,
    spi: u32,
    at: u64,
}

/// All that are kept, the oldest first but for those that took a place.
#[derive(Debug, Default)]
pub(super) struct ParkingLot {
    slots: Vec<Parked>,
    oldest: usize,
}

impl ParkingLot {
    /// Keeps a packet for the SA that it may belong to.
    pub(super) fn keep(
        &mut self,
        socket: &Arc<Socket>,
        message: &Received,
        packet: &[u8],
        spi: u32,
        now: u64,
    ) {
        if packet.len() > LONGEST {
            return;
        }
        let message = Received { start: 0, len: packet.len(), segment: packet.len(), ..*message };
        let socket = Arc::clone(socket);
        if self.slots.len() < SLOTS {
            self.slots.push(Parked { socket, message, bytes: packet.to_vec(), spi, at: now });
            return;
        }
        if let Some(slot) = self.slots.get_mut(self.oldest) {
            slot.bytes.clear();
            slot.bytes.extend_from_slice(packet);
            (slot.socket, slot.message, slot.spi, slot.at) = (socket, message, spi, now);
        }
        self.oldest = (self.oldest + 1) % SLOTS;
    }

    /// What came for this SPI a moment ago, in the order in which it came.
    pub(super) fn take(&mut self, spi: u32, now: u64) -> Vec<Parked> {
        let fits = |parked: &mut Parked| parked.spi == spi;
        let mut taken: Vec<Parked> = self.slots.extract_if(.., fits).collect();
        if !taken.is_empty() {
            self.slots.sort_by_key(|parked| parked.at);
            self.oldest = 0;
        }
        taken.retain(|parked| now <= parked.at + KEPT);
        taken.sort_by_key(|parked| parked.at);
        taken
    }
}
