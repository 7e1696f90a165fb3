//! Opening: verify, decrypt in place, check the trailer, keep the replay window.

use std::fmt;
use std::ops::Range;

use crate::NEXT_HEADER_DUMMY;
use crate::cipher::Cipher;
use crate::error::{KeyError, OpenError};
use crate::replay::{Refused, ReplayWindow};
use crate::suite::EspSuite;

/// One inbound SA with its replay window. One owner: opening changes it.
pub struct InboundSa {
    spi: u32,
    suite: EspSuite,
    cipher: Cipher,
    esn: bool,
    /// `None`: many senders count for themselves.
    window: Option<ReplayWindow>,
}

/// A packet that was authentic and new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where the inner packet stands in the buffer that was given. Traffic flow confidentiality padding may follow
    /// the packet inside it: trust the inner packet's own length (RFC 4303 2.7).
    pub range: Range<usize>,
    /// What is inside.
    pub next_header: u8,
    /// The whole sequence number.
    pub seq: u64,
    /// Whether no authenticated packet with a higher sequence number came before; never with many senders.
    pub newest: bool,
}

impl Opened {
    /// Whether this is a dummy packet, to be dropped without a word (RFC 4303 2.6).
    #[must_use]
    pub const fn is_dummy(&self) -> bool {
        self.next_header == NEXT_HEADER_DUMMY
    }
}

impl InboundSa {
    /// An SA from KEYMAT, as [`crate::OutboundSa::new`].
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
        Ok(Self { spi, suite, cipher, esn, window: Some(ReplayWindow::new()) })
    }

    /// An SA that many senders share, each with a counter of its own: sequence numbers cannot be held against one replay
    /// window, so a repeated packet is taken again (RFC 4303 sections 2.2 and 3.4.3).
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn of_many_senders(
        spi: u32,
        suite: EspSuite,
        encr_key: &[u8],
        integ_key: &[u8],
    ) -> Result<Self, KeyError> {
        Ok(Self { window: None, ..Self::new(spi, suite, encr_key, integ_key, false)? })
    }

    /// The SPI, chosen by us.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// The algorithms.
    #[must_use]
    pub const fn suite(&self) -> EspSuite {
        self.suite
    }

    /// The replay window as it stands; none with many senders.
    #[must_use]
    pub const fn window(&self) -> Option<&ReplayWindow> {
        self.window.as_ref()
    }

    /// Verifies and decrypts `packet` where it stands. The replay window is asked before the cipher works and moves
    /// only after it said yes (RFC 4303 3.4.3).
    ///
    /// # Errors
    /// [`OpenError`]; the buffer's contents are then undefined.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, OpenError> {
        let suite = self.suite;
        let start = suite.payload_offset();
        let text_end = packet.len().checked_sub(suite.icv_len()).ok_or(OpenError::TooShort)?;
        let text_len = text_end.checked_sub(start).ok_or(OpenError::TooShort)?;
        if text_len < 2 {
            return Err(OpenError::TooShort);
        }
        if text_len % suite.alignment() != 0 {
            return Err(OpenError::Misaligned);
        }
        let (header, _) = packet.split_first_chunk::<8>().ok_or(OpenError::TooShort)?;
        let header = u64::from_be_bytes(*header);
        if (header >> 32) as u32 != self.spi {
            return Err(OpenError::WrongSpi);
        }
        let low = header as u32;
        let mut seq = u64::from(low);
        if let Some(window) = &self.window {
            if self.esn {
                seq = window.infer(low);
            }
            window.check(seq).map_err(|refused| match refused {
                Refused::OutsideWindow => OpenError::OutsideWindow,
                Refused::Replayed => OpenError::Replayed,
            })?;
        }

        let high = self.esn.then_some((seq >> 32) as u32);
        self.cipher.open(suite, high, packet).map_err(|_| OpenError::Authentication)?;
        let newest = self.window.as_mut().is_some_and(|window| {
            let newest = seq > window.newest();
            window.record(seq);
            newest
        });

        let text = packet.get(start..text_end).ok_or(OpenError::TooShort)?;
        let (next_header, inner_len) = read_trailer(text).ok_or(OpenError::Padding)?;
        Ok(Opened { range: start..start + inner_len, next_header, seq, newest })
    }
}

impl fmt::Debug for InboundSa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundSa")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("suite", &self.suite)
            .field("esn", &self.esn)
            .field("newest", &self.window.as_ref().map(ReplayWindow::newest))
            .finish_non_exhaustive()
    }
}

/// Next header and the length of what stands before the padding, when the padding is 1, 2, 3, ... (RFC 4303 2.4).
fn read_trailer(text: &[u8]) -> Option<(u8, usize)> {
    let (text, [pad_len, next_header]) = text.split_last_chunk::<2>()?;
    let inner_len = text.len().checked_sub(usize::from(*pad_len))?;
    let padding = text.get(inner_len..)?;
    padding.iter().zip(1u8..).all(|(octet, expected)| *octet == expected).then_some((*next_header, inner_len))
}
