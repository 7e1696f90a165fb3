//! The algorithm sets of RFC 8221 that we speak, by their IANA numbers, and the lengths that follow from them.

use crate::ESP_HEADER_LEN;
use crate::error::SuiteError;

const ENCR_AES_CBC: u16 = 12;
const ENCR_AES_GCM_16: u16 = 20;
const ENCR_CHACHA20_POLY1305: u16 = 28;
const AUTH_HMAC_SHA1_96: u16 = 2;
const AUTH_HMAC_SHA2_256_128: u16 = 12;
const AUTH_HMAC_SHA2_384_192: u16 = 13;
const AUTH_HMAC_SHA2_512_256: u16 = 14;

/// Key size of AES.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AesKey {
    /// 128 bits.
    Bits128,
    /// 256 bits.
    Bits256,
}

impl AesKey {
    fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            128 => Some(Self::Bits128),
            256 => Some(Self::Bits256),
            _ => None,
        }
    }

    const fn octets(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits256 => 32,
        }
    }
}

/// Integrity beside AES-CBC: the full hash as key, and of HMAC-SHA2 half of it as ICV (RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CbcIntegrity {
    /// HMAC-SHA1-96 (RFC 2404): only for the SA of a group ([`EspSuite::of_group`]), never negotiated.
    Sha1,
    /// HMAC-SHA2-256-128.
    Sha256,
    /// HMAC-SHA2-384-192.
    Sha384,
    /// HMAC-SHA2-512-256.
    Sha512,
}

impl CbcIntegrity {
    /// Octets of the integrity key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Octets of the ICV.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Sha1 => 12,
            Self::Sha256 | Self::Sha384 | Self::Sha512 => self.key_len() / 2,
        }
    }
}

/// An algorithm set for ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EspSuite {
    /// AES-GCM with a 16-octet ICV (RFC 4106).
    AesGcm16(AesKey),
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868).
    AesCbc(AesKey, CbcIntegrity),
}

impl EspSuite {
    /// The suite for negotiated IKEv2 transforms: ENCR id, its Key Length attribute (0 or 256 for
    /// ChaCha20-Poly1305, which has none), INTEG id (`None` or 0 for an AEAD).
    ///
    /// # Errors
    /// [`SuiteError`] when the combination is not one of ours.
    pub fn from_iana(encr: u16, key_bits: u16, integ: Option<u16>) -> Result<Self, SuiteError> {
        let unsupported = SuiteError::Encryption { encr, key_bits };
        let no_integ = || match integ {
            None | Some(0) => Ok(()),
            Some(_) => Err(SuiteError::Integrity { encr, integ }),
        };
        match encr {
            ENCR_AES_GCM_16 => {
                let key = AesKey::from_bits(key_bits).ok_or(unsupported)?;
                no_integ()?;
                Ok(Self::AesGcm16(key))
            }
            ENCR_CHACHA20_POLY1305 => {
                if !matches!(key_bits, 0 | 256) {
                    return Err(unsupported);
                }
                no_integ()?;
                Ok(Self::ChaCha20Poly1305)
            }
            ENCR_AES_CBC => {
                let key = AesKey::from_bits(key_bits).ok_or(unsupported)?;
                let integrity = match integ {
                    Some(AUTH_HMAC_SHA2_256_128) => CbcIntegrity::Sha256,
                    Some(AUTH_HMAC_SHA2_384_192) => CbcIntegrity::Sha384,
                    Some(AUTH_HMAC_SHA2_512_256) => CbcIntegrity::Sha512,
                    None | Some(_) => return Err(SuiteError::Integrity { encr, integ }),
                };
                Ok(Self::AesCbc(key, integrity))
            }
            _ => Err(unsupported),
        }
    }

    /// The suite of an SA that many senders share (draft-yamaya-ipsecme-mpsa): AES-CBC only, for a counter mode would
    /// repeat nonces. HMAC-SHA1-96 is among them, and whoever calls has asked whether it is allowed.
    ///
    /// # Errors
    /// [`SuiteError`] for anything else.
    pub fn of_group(encr: u16, key_bits: u16, integ: u16) -> Result<Self, SuiteError> {
        let integrity = Some(integ);
        match (encr, AesKey::from_bits(key_bits)) {
            (ENCR_AES_CBC, Some(key)) if integ == AUTH_HMAC_SHA1_96 => {
                Ok(Self::AesCbc(key, CbcIntegrity::Sha1))
            }
            (ENCR_AES_CBC, _) => Self::from_iana(encr, key_bits, integrity),
            _ => Err(SuiteError::Encryption { encr, key_bits }),
        }
    }

    /// Octets of KEYMAT for encryption, the salt of an AEAD included.
    #[must_use]
    pub const fn encr_key_len(self) -> usize {
        match self {
            Self::AesGcm16(key) => key.octets() + 4,
            Self::ChaCha20Poly1305 => 32 + 4,
            Self::AesCbc(key, _) => key.octets(),
        }
    }

    /// Octets of KEYMAT for integrity: 0 for an AEAD.
    #[must_use]
    pub const fn integ_key_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 0,
            Self::AesCbc(_, integrity) => integrity.key_len(),
        }
    }

    /// Octets of the IV on the wire.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 8,
            Self::AesCbc(..) => 16,
        }
    }

    /// Octets of the ICV.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 16,
            Self::AesCbc(_, integrity) => integrity.icv_len(),
        }
    }

    /// What inner packet plus trailer must be a multiple of (RFC 4303 2.4: at least 4).
    #[must_use]
    pub const fn alignment(self) -> usize {
        match self {
            Self::AesGcm16(_) | Self::ChaCha20Poly1305 => 4,
            Self::AesCbc(..) => 16,
        }
    }

    /// Where the inner packet begins in the sealed one.
    #[must_use]
    pub const fn payload_offset(self) -> usize {
        ESP_HEADER_LEN + self.iv_len()
    }

    /// Octets of the sealed packet for an inner packet of `inner` octets.
    #[must_use]
    pub const fn sealed_len(self, inner: usize) -> usize {
        self.payload_offset() + (inner + 2).next_multiple_of(self.alignment()) + self.icv_len()
    }

    /// The largest inner packet whose sealed form fits into `sealed` octets of UDP payload; 0 when none does.
    #[must_use]
    pub const fn max_inner(self, sealed: usize) -> usize {
        let room = sealed.saturating_sub(self.payload_offset() + self.icv_len());
        (room - room % self.alignment()).saturating_sub(2)
    }

    /// The largest inner packet that crosses a path of `path_mtu` octets in UDP over IPv4 or IPv6.
    #[must_use]
    pub const fn inner_mtu(self, path_mtu: usize, outer_is_ipv6: bool) -> usize {
        let outer = if outer_is_ipv6 { 40 + 8 } else { 20 + 8 };
        self.max_inner(path_mtu.saturating_sub(outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn iana_numbers_name_the_suites_and_their_key_lengths() {
        let suite = |e, k, i| EspSuite::from_iana(e, k, i).map(|s| (s.encr_key_len(), s.integ_key_len()));
        assert_eq!(suite(20, 128, None), Ok((20, 0)));
        assert_eq!(suite(20, 256, Some(0)), Ok((36, 0)));
        assert_eq!(suite(28, 0, None), Ok((36, 0)));
        assert_eq!(suite(28, 256, None), Ok((36, 0)));
        assert_eq!(suite(12, 128, Some(12)), Ok((16, 32)));
        assert_eq!(suite(12, 256, Some(13)), Ok((32, 48)));
        assert_eq!(suite(12, 256, Some(14)), Ok((32, 64)));
    }

    #[test]
    fn a_group_has_cbc_only_and_may_have_sha1() {
        assert_eq!(EspSuite::of_group(12, 256, 2), Ok(EspSuite::AesCbc(AesKey::Bits256, CbcIntegrity::Sha1)));
        assert_eq!(EspSuite::of_group(12, 128, 12), EspSuite::from_iana(12, 128, Some(12)));
        assert!(EspSuite::of_group(20, 256, 0).is_err());
        assert!(EspSuite::of_group(28, 256, 0).is_err());
        assert!(EspSuite::of_group(12, 192, 2).is_err());
        assert!(EspSuite::of_group(12, 256, 0).is_err());
    }

    #[test]
    fn impossible_combinations_are_refused() {
        assert!(EspSuite::from_iana(20, 192, None).is_err());
        assert!(EspSuite::from_iana(20, 128, Some(12)).is_err());
        assert!(EspSuite::from_iana(28, 128, None).is_err());
        assert!(EspSuite::from_iana(12, 128, None).is_err());
        assert!(EspSuite::from_iana(12, 128, Some(2)).is_err());
        assert!(EspSuite::from_iana(12, 0, Some(12)).is_err());
        assert!(EspSuite::from_iana(3, 0, Some(12)).is_err());
    }

    pub(crate) fn any_suite() -> impl Strategy<Value = EspSuite> {
        let key = prop_oneof![Just(AesKey::Bits128), Just(AesKey::Bits256)];
        let integ = prop_oneof![
            Just(CbcIntegrity::Sha1),
            Just(CbcIntegrity::Sha256),
            Just(CbcIntegrity::Sha384),
            Just(CbcIntegrity::Sha512)
        ];
        prop_oneof![
            key.clone().prop_map(EspSuite::AesGcm16),
            Just(EspSuite::ChaCha20Poly1305),
            (key, integ).prop_map(|(k, i)| EspSuite::AesCbc(k, i)),
        ]
    }

    proptest! {
        #[test]
        fn max_inner_is_the_largest_that_fits(suite in any_suite(), room in 0usize..2000) {
            let max = suite.max_inner(room);
            if max > 0 {
                prop_assert!(suite.sealed_len(max) <= room);
            }
            prop_assert!(suite.sealed_len(max + 1) > room);
        }
    }
}
