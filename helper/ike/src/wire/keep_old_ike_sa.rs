//! The data of the KEEP_OLD_IKE_SA notify (draft-mglt-ipsecme-keep-old-ike-sa, section 5).
//!
//! ```text
//! +-+-------------+---------------+-------------------------------+
//! |Q|  RESERVED   |     CODE      |           RESERVED            |
//! +-+-------------+---------------+-------------------------------+
//! ```

use crate::error::WireError;
use crate::wire::notify::{Notify, NotifyType};
use crate::wire::reader::Reader;

/// The notify number used unless the profile says another: the draft has none yet, and this is of the private range.
pub const DEFAULT_NOTIFY_TYPE: u16 = 50213;

const QUESTION: u8 = 0x80;

/// What the code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeepOldCode {
    /// 0: the old IKE_SA is to be kept, or was kept.
    Keep,
    /// 1: the old IKE_SA is not used, so this was an ordinary rekey.
    OldUnused,
    /// Any other number.
    Other(u8),
}

/// The four octets of the notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepOldIkeSa {
    /// The Q bit: set in a request, clear in a response.
    pub request: bool,
    /// The code.
    pub code: KeepOldCode,
}

impl KeepOldIkeSa {
    /// What a request carries.
    pub fn request() -> Self {
        KeepOldIkeSa { request: true, code: KeepOldCode::Keep }
    }

    /// What a response carries when the old IKE_SA is kept.
    pub fn kept() -> Self {
        KeepOldIkeSa { request: false, code: KeepOldCode::Keep }
    }

    /// What a response carries when the old IKE_SA is not kept.
    pub fn old_unused() -> Self {
        KeepOldIkeSa { request: false, code: KeepOldCode::OldUnused }
    }

    /// Reads the notify's data; reserved bits are ignored.
    ///
    /// # Errors
    /// The data is not four octets long.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        if data.len() != 4 {
            return Err(WireError::BadLength { what: "KEEP_OLD_IKE_SA", length: data.len() });
        }
        let mut reader = Reader::new(data, "KEEP_OLD_IKE_SA");
        let request = reader.u8()? & QUESTION != 0;
        let code = match reader.u8()? {
            0 => KeepOldCode::Keep,
            1 => KeepOldCode::OldUnused,
            other => KeepOldCode::Other(other),
        };
        Ok(KeepOldIkeSa { request, code })
    }

    /// The notify's data.
    pub fn emit(&self) -> [u8; 4] {
        let question = if self.request { QUESTION } else { 0 };
        let code = match self.code {
            KeepOldCode::Keep => 0,
            KeepOldCode::OldUnused => 1,
            KeepOldCode::Other(number) => number,
        };
        [question, code, 0, 0]
    }

    /// The notify, of the number the profile gives.
    pub fn notify(&self, number: u16) -> Notify {
        Notify::new(NotifyType::from(number), self.emit().to_vec())
    }
}
