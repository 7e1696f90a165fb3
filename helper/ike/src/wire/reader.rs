//! A cursor over received octets: every read is checked, nothing is allocated by a length the peer wrote.

use crate::error::WireError;

/// Reads big-endian fields from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// What is being read, for the error.
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of `octets`, which are a `what`.
    pub(crate) fn new(octets: &'a [u8], what: &'static str) -> Self {
        Reader { rest: octets, what }
    }

    /// The next `count` octets.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else {
            return Err(WireError::Truncated { what: self.what });
        };
        self.rest = tail;
        Ok(head)
    }

    /// The next octets as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated { what: self.what });
        };
        self.rest = tail;
        Ok(*head)
    }

    /// One octet.
    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        let [octet] = self.array()?;
        Ok(octet)
    }

    /// Two octets.
    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four octets.
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight octets.
    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// How much is left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// A length or count for a field of 16 bits.
///
/// What we emit comes from our own configuration and stays far below; a value that does not fit saturates, and the
/// peer then answers INVALID_SYNTAX.
pub(crate) fn len16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// A length or count for a field of 8 bits; see [`len16`].
pub(crate) fn len8(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
