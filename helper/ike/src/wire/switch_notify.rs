//! The data of the switch notify: how the client wants its paths used (docs/switch-notify.md; not from any standard).
//!
//! ```text
//! +---------------------------------------------------------------+
//! |                         SWITCH COUNTER                        |
//! +-+-+-----------+---------------+-------------------------------+
//! |M|D| RESERVED  |   RESERVED    |            WEIGHT             |
//! +-+-+-----------+---------------+-------------------------------+
//! ```

use crate::error::WireError;
use crate::wire::notify::{Notify, NotifyType};
use crate::wire::reader::Reader;

const MAIN: u8 = 0x80;
const COPIES: u8 = 0x40;

/// How the path that this comes by is to be used from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SwitchNotice {
    /// Counts the notices of one connection, over all its IKE_SAs; it may wrap around.
    pub counter: u32,
    /// This path carries what no other rule sends elsewhere.
    pub main: bool,
    /// Small and marked packets go by this path as well.
    pub copies: bool,
    /// The share of flows that goes by this path; 0 for none.
    pub weight: u16,
}

impl SwitchNotice {
    /// This path carries everything.
    #[must_use]
    pub fn main(counter: u32) -> Self {
        Self { counter, main: true, copies: false, weight: 0 }
    }

    /// Reads the notify's data; reserved bits are ignored.
    ///
    /// # Errors
    /// The data is not eight octets long.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        if data.len() != 8 {
            return Err(WireError::BadLength { what: "the switch notify", length: data.len() });
        }
        let mut reader = Reader::new(data, "the switch notify");
        let counter = reader.u32()?;
        let flags = reader.u8()?;
        reader.u8()?;
        let weight = reader.u16()?;
        Ok(Self { counter, main: flags & MAIN != 0, copies: flags & COPIES != 0, weight })
    }

    /// The notify's data.
    #[must_use]
    pub fn emit(&self) -> [u8; 8] {
        let mut flags = if self.main { MAIN } else { 0 };
        flags |= if self.copies { COPIES } else { 0 };
        let ([c0, c1, c2, c3], [w0, w1]) = (self.counter.to_be_bytes(), self.weight.to_be_bytes());
        [c0, c1, c2, c3, flags, 0, w0, w1]
    }

    /// The notify of this number.
    #[must_use]
    pub fn notify(&self, number: u16) -> Notify {
        Notify::new(NotifyType::from(number), self.emit().to_vec())
    }

    /// Whether this is newer than `other` by its counter: serial numbers, as in RFC 1982.
    #[must_use]
    pub fn is_newer_than(&self, other: u32) -> bool {
        let ahead = self.counter.wrapping_sub(other);
        ahead != 0 && ahead < 1 << 31
    }
}

/// The number of the switch notify: the one after that of KEEP_OLD_IKE_SA, before it when there is none after.
#[must_use]
pub fn switch_notify_type(keep_old: u16) -> u16 {
    keep_old.checked_add(1).unwrap_or(keep_old - 1)
}
