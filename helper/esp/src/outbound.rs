//! Sealing: one inner packet becomes one ESP packet, and the counter that numbers them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cipher::{Cipher, copy_prefix};
use crate::error::{KeyError, SealError};
use crate::suite::EspSuite;

/// The keys and parameters of one outbound SA. Immutable: share it freely.
///
/// The sequence number is an argument. Whoever calls [`Self::seal`] must never use one twice, for it is also the AEAD's
/// nonce: take numbers from the one [`SequenceCounter`] of this SPI.
pub struct OutboundSa {
    spi: u32,
    suite: EspSuite,
    cipher: Cipher,
    esn: bool,
    iv_salt: u64,
}

impl OutboundSa {
    /// An SA from KEYMAT: `encr_key` with the salt of an AEAD at its end, `integ_key` empty for an AEAD.
    ///
    /// # Errors
    /// [`KeyError`] for SPI 0 or a key of the wrong length.
    pub fn new(
        spi: u32,
        suite: EspSuite,
        encr_key: &[u8],
        integ_key: &[u8],
        esn: bool,
    ) -> Result<Self, KeyError> {
        if spi == 0 {
            return Err(KeyError::ZeroSpi);
        }
        let cipher = Cipher::new(suite, encr_key, integ_key)?;
        Ok(Self { spi, suite, cipher, esn, iv_salt: u64::from(spi) })
    }

    /// Replaces what the IVs of AES-CBC are derived from beside the sequence number: needed only where several senders
    /// share one key, each with a random value of its own.
    #[must_use]
    pub fn with_iv_salt(mut self, salt: u64) -> Self {
        self.iv_salt = salt;
        self
    }

    /// The SPI, chosen by the receiver.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// The algorithms.
    #[must_use]
    pub const fn suite(&self) -> EspSuite {
        self.suite
    }

    /// Whether sequence numbers have 64 bits.
    #[must_use]
    pub const fn esn(&self) -> bool {
        self.esn
    }

    /// Seals the concatenation of `parts` into the beginning of `out`; returns the octets written, which are
    /// [`EspSuite::sealed_len`] of the parts' length.
    ///
    /// # Errors
    /// [`SealError`]: a sequence number this SA cannot carry, or `out` too small.
    pub fn seal(
        &self,
        seq: u64,
        parts: &[&[u8]],
        next_header: u8,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let inner_len = parts.iter().map(|part| part.len()).sum();
        let too_small = self.too_small(inner_len, out.len());
        let mut at = self.suite.payload_offset();
        for part in parts {
            out.get_mut(at..at + part.len()).ok_or(too_small)?.copy_from_slice(part);
            at += part.len();
        }
        self.seal_in_place(seq, inner_len, next_header, out)
    }

    /// As [`Self::seal`], for an inner packet that already stands in `out` at [`EspSuite::payload_offset`].
    ///
    /// # Errors
    /// As for [`Self::seal`].
    pub fn seal_in_place(
        &self,
        seq: u64,
        inner_len: usize,
        next_header: u8,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if seq == 0 || (!self.esn && seq > u64::from(u32::MAX)) {
            return Err(SealError::SequenceExhausted);
        }
        let suite = self.suite;
        let too_small = self.too_small(inner_len, out.len());
        let packet = out.get_mut(..suite.sealed_len(inner_len)).ok_or(too_small)?;

        let (header, rest) = packet.split_first_chunk_mut::<8>().ok_or(too_small)?;
        *header = ((u64::from(self.spi) << 32) | (seq & 0xffff_ffff)).to_be_bytes();
        let (iv, rest) = rest.split_at_mut_checked(suite.iv_len()).ok_or(too_small)?;
        self.cipher.write_iv(((u128::from(seq) << 64) | u128::from(self.iv_salt)).to_be_bytes(), iv);

        let trailer_end = rest.len().saturating_sub(suite.icv_len());
        let trailer = rest.get_mut(inner_len..trailer_end).ok_or(too_small)?;
        write_trailer(trailer, next_header);

        let high = self.esn.then_some((seq >> 32) as u32);
        self.cipher.seal(suite, high, packet).map_err(|_| SealError::Cipher)?;
        Ok(packet.len())
    }

    fn too_small(&self, inner_len: usize, available: usize) -> SealError {
        SealError::BufferTooSmall { needed: self.suite.sealed_len(inner_len), available }
    }
}

impl fmt::Debug for OutboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundSa")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("suite", &self.suite)
            .field("esn", &self.esn)
            .finish_non_exhaustive()
    }
}

/// Padding 1, 2, 3, ..., its length and the next header (RFC 4303 2.4).
fn write_trailer(trailer: &mut [u8], next_header: u8) {
    let pad_len = trailer.len().saturating_sub(2) as u8;
    let (padding, end) = trailer.split_at_mut(usize::from(pad_len));
    for (octet, value) in padding.iter_mut().zip(1u8..) {
        *octet = value;
    }
    copy_prefix(end, &[pad_len, next_header]);
}

/// Hands out the sequence numbers of one outbound SPI: 1 first, each once, never past the end.
#[derive(Debug)]
pub struct SequenceCounter {
    last: AtomicU64,
    limit: u64,
}

impl SequenceCounter {
    /// A counter for a new SA.
    #[must_use]
    pub const fn new(esn: bool) -> Self {
        Self::starting_after(0, esn)
    }

    /// A counter that goes on after `last`.
    #[must_use]
    pub const fn starting_after(last: u64, esn: bool) -> Self {
        Self { last: AtomicU64::new(last), limit: if esn { u64::MAX } else { u32::MAX as u64 } }
    }

    /// Takes `count` consecutive numbers and returns the first.
    ///
    /// # Errors
    /// [`SealError::SequenceExhausted`] when fewer are left; none is taken then.
    pub fn take(&self, count: u64) -> Result<u64, SealError> {
        self.last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                last.checked_add(count).filter(|new| *new <= self.limit)
            })
            .map(|last| last.saturating_add(1))
            .map_err(|_| SealError::SequenceExhausted)
    }

    /// The last number handed out; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// How many numbers are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_never_wraps() {
        let counter = SequenceCounter::starting_after(u64::from(u32::MAX) - 3, false);
        assert_eq!(counter.take(2), Ok(u64::from(u32::MAX) - 2));
        assert_eq!(counter.remaining(), 1);
        assert_eq!(counter.take(2), Err(SealError::SequenceExhausted));
        assert_eq!(counter.take(1), Ok(u64::from(u32::MAX)));
        assert_eq!(counter.take(1), Err(SealError::SequenceExhausted));
        let esn = SequenceCounter::starting_after(u64::from(u32::MAX), true);
        assert_eq!(esn.take(1), Ok(1 << 32));
        assert_eq!(
            SequenceCounter::starting_after(u64::MAX, true).take(1),
            Err(SealError::SequenceExhausted)
        );
    }

    #[test]
    fn sequence_numbers_an_sa_cannot_carry_are_refused() {
        let sa = OutboundSa::new(1, EspSuite::ChaCha20Poly1305, &[7; 36], &[], false).unwrap();
        let mut out = [0; 128];
        assert_eq!(sa.seal(0, &[b"x"], 4, &mut out), Err(SealError::SequenceExhausted));
        assert_eq!(sa.seal(1 << 32, &[b"x"], 4, &mut out), Err(SealError::SequenceExhausted));
        let esn = OutboundSa::new(1, EspSuite::ChaCha20Poly1305, &[7; 36], &[], true).unwrap();
        assert!(esn.seal(1 << 32, &[b"x"], 4, &mut out).is_ok());
    }

    #[test]
    fn a_buffer_that_is_too_small_is_an_error_that_says_how_much_is_needed() {
        let sa = OutboundSa::new(1, EspSuite::ChaCha20Poly1305, &[7; 36], &[], false).unwrap();
        let needed = sa.suite().sealed_len(60);
        for available in 0..needed {
            assert_eq!(
                sa.seal(1, &[&[0; 60]], 4, &mut vec![0; available]),
                Err(SealError::BufferTooSmall { needed, available })
            );
        }
        assert_eq!(sa.seal(1, &[&[0; 60]], 4, &mut vec![0; needed]), Ok(needed));
    }

    #[test]
    fn spi_zero_and_wrong_key_lengths_make_no_sa() {
        let suite = EspSuite::from_iana(12, 128, Some(12)).unwrap();
        assert_eq!(OutboundSa::new(0, suite, &[0; 16], &[0; 32], false).unwrap_err(), KeyError::ZeroSpi);
        assert_eq!(
            OutboundSa::new(1, suite, &[0; 20], &[0; 32], false).unwrap_err(),
            KeyError::EncryptionKeyLength { expected: 16, actual: 20 }
        );
        assert_eq!(
            OutboundSa::new(1, suite, &[0; 16], &[0; 20], false).unwrap_err(),
            KeyError::IntegrityKeyLength { expected: 32, actual: 20 }
        );
    }

    #[test]
    fn debug_output_shows_no_key() {
        let sa = OutboundSa::new(0xabcd, EspSuite::ChaCha20Poly1305, &[0x5a; 36], &[], false).unwrap();
        assert_eq!(
            format!("{sa:?}"),
            "OutboundSa { spi: 0000abcd, suite: ChaCha20Poly1305, esn: false, .. }"
        );
    }
}
