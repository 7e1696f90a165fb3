//! The data of the path report: what a gateway has received by a client's CHILD_SA (docs/switch-notify.md; not from any
//! standard).
//!
//! ```text
//! +---------------------------------------------------------------+
//! |                              SPI                              |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                       PACKETS RECEIVED                        +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                    NEWEST SEQUENCE NUMBER                     +
//! |                                                               |
//! +---------------------------------------------------------------+
//! ```

use super::switch_notify::switch_notify_type;
use crate::error::WireError;
use crate::wire::notify::{Notify, NotifyType};
use crate::wire::reader::Reader;

/// What has arrived by a CHILD_SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathReport {
    /// The SPI that it is sent to with.
    pub spi: u32,
    /// Authentic packets so far.
    pub packets: u64,
    /// The highest sequence number that one had.
    pub newest: u64,
}

impl PathReport {
    /// Reads the notify's data.
    ///
    /// # Errors
    /// The data is not twenty octets long.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        if data.len() != 20 {
            return Err(WireError::BadLength { what: "the path report", length: data.len() });
        }
        let mut reader = Reader::new(data, "the path report");
        Ok(Self { spi: reader.u32()?, packets: reader.u64()?, newest: reader.u64()? })
    }

    /// The notify of this number.
    #[must_use]
    pub fn notify(&self, number: u16) -> Notify {
        let mut data = self.spi.to_be_bytes().to_vec();
        data.extend(self.packets.to_be_bytes());
        data.extend(self.newest.to_be_bytes());
        Notify::new(NotifyType::from(number), data)
    }
}

/// The number of the path report: the one after that of the switch notify, before both when there is none after.
#[must_use]
pub fn path_report_type(keep_old: u16) -> u16 {
    keep_old.checked_add(2).unwrap_or_else(|| keep_old.min(switch_notify_type(keep_old)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_twenty_octets() {
        let report = PathReport { spi: 0x0102_0304, packets: 5, newest: 0x0607 };
        let notify = report.notify(50215);
        assert_eq!(
            notify.data,
            [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 6, 7],
            "as docs/switch-notify.md draws it"
        );
        assert_eq!(PathReport::parse(&notify.data), Ok(report));
        assert!(PathReport::parse(&[]).is_err() && PathReport::parse(&[0; 21]).is_err());
    }

    #[test]
    fn its_number_is_none_of_the_others() {
        for keep in [40960, 50213, 65533, 65534, 65535] {
            let (switch, report) = (switch_notify_type(keep), path_report_type(keep));
            assert!(switch != keep && report != keep && report != switch, "{keep} {switch} {report}");
        }
        assert_eq!(path_report_type(50213), 50215);
    }
}
