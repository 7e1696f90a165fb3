//! Numbers that are read without locks while the threads run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One SA's counters. Times are durations since the boot of the machine, time asleep included (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaCounters {
    /// Inner packets.
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
    /// When the last one was authenticated (inbound) or sent (outbound).
    pub last: Option<Duration>,
    /// Inbound only: packets dropped as replays or too old.
    pub replayed: u64,
    /// Inbound only: packets that failed the integrity check or were malformed.
    pub failed: u64,
    /// Inbound only: authentic packets whose inner addresses the policy does not allow, and packets from or to other outer
    /// addresses than those that the SA is bound to.
    pub refused: u64,
    /// Inbound only: packets that another SA had delivered already.
    pub copies: u64,
    /// Inbound only: authentic packets of all kinds, and the newest sequence number that one had. What was sent and did not
    /// arrive is between the two.
    pub authentic: u64,
    /// See [`Self::authentic`]; 0 with many senders.
    pub newest: u64,
}

#[derive(Debug, Default)]
pub(crate) struct AtomicSaCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    last_nanos: AtomicU64,
    pub(crate) replayed: Counter,
    pub(crate) failed: Counter,
    pub(crate) refused: Counter,
    pub(crate) copies: Counter,
    pub(crate) authentic: Counter,
    newest: AtomicU64,
}

impl AtomicSaCounters {
    pub(crate) fn add(&self, packets: u64, bytes: u64) {
        add_owned(&self.packets, packets);
        add_owned(&self.bytes, bytes);
    }

    pub(crate) fn touch(&self, now_nanos: u64) {
        self.last_nanos.store(now_nanos, Ordering::Relaxed);
    }

    /// An authentic packet had the highest sequence number so far.
    pub(crate) fn set_newest(&self, newest: u64) {
        self.newest.store(newest, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> SaCounters {
        let last = self.last_nanos.load(Ordering::Relaxed);
        SaCounters {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            last: (last != 0).then(|| Duration::from_nanos(last)),
            replayed: self.replayed.get(),
            failed: self.failed.get(),
            refused: self.refused.get(),
            copies: self.copies.get(),
            authentic: self.authentic.get(),
            newest: self.newest.load(Ordering::Relaxed),
        }
    }
}

/// A counter that one thread writes and any reads: a load and a store instead of a locked addition.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        add_owned(&self.0, count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn add_owned(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The pump's counters since it started. `tx` is TUN to UDP, `rx` is UDP to TUN.
        ///
        /// Packets by system calls, `tx_packets / tx_syscalls` and the same for `rx`, tell how well batches work:
        /// every read, write, send, receive and poll of the threads counts.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct AtomicCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl AtomicCounters {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Packets sealed and sent, copies included.
    tx_packets,
    /// Octets of inner packets sealed and sent.
    tx_bytes,
    /// System calls of the sending thread.
    tx_syscalls,
    /// Super-packets (more than one segment) read from the device.
    tx_super_packets,
    /// Packets dropped because no egress took them.
    tx_no_egress,
    /// Packets answered with ICMP "too big".
    tx_too_big,
    /// Packets from the device that were not IP, or not as their vnet header says.
    tx_malformed,
    /// Packets dropped because the system refused to send them or the sequence numbers were used up.
    tx_dropped,
    /// Packets written to the device.
    rx_packets,
    /// Octets of packets written to the device.
    rx_bytes,
    /// System calls of the receiving thread.
    rx_syscalls,
    /// Super-packets written to the device.
    rx_super_packets,
    /// UDP datagrams received, of all kinds.
    rx_datagrams,
    /// ESP packets with an unknown SPI.
    rx_unknown_spi,
    /// ESP packets that failed the integrity check.
    rx_failed,
    /// ESP packets dropped as replays or too old.
    rx_replayed,
    /// Authentic packets whose inner addresses the policy does not allow, or that hold no IP packet; packets whose outer
    /// addresses are not those that their SA is bound to.
    rx_refused,
    /// Packets that another SA had delivered already.
    rx_copies,
    /// Dummy packets (next header 59).
    rx_dummies,
    /// NAT keepalives.
    rx_keepalives,
    /// Datagrams that are neither ESP, IKE nor keepalives.
    rx_malformed,
    /// IKE datagrams handed to the owner.
    rx_ike,
    /// IKE datagrams dropped because the owner's queue was full.
    rx_ike_dropped,
    /// Packets the device refused.
    rx_dropped,
}
