//! What of a gateway's offer is accepted, and the keys that come of it (sections 3.3.2 and RFC 7296 section 2.17).

use std::time::Duration;

use ring::hmac;
use zeroize::Zeroizing;

use super::put::MpsaPut;
use crate::crypto::{CryptoError, Prf, prf_plus_with};
use crate::exchange::child::DirectionKeys;

const ENCR_AES_CBC: u16 = 12;
/// AES-CTR, AES-CCM, AES-GCM, AES-GMAC, ChaCha20-Poly1305 and the implicit-IV forms: a counter is their nonce.
const COUNTER_MODES: [u16; 13] = [13, 14, 15, 16, 18, 19, 20, 21, 28, 29, 30, 31, 32];
const PRF_HMAC_SHA1: u16 = 2;
const AUTH_HMAC_SHA1_96: u16 = 2;
/// HMAC-SHA1-96, HMAC-SHA2 at 128, 192, 256: number and octets of the key.
const INTEGRITY: [(u16, usize); 4] = [(AUTH_HMAC_SHA1_96, 20), (12, 32), (13, 48), (14, 64)];
const SHA1_LEN: usize = 20;

/// What the profile allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupPolicy {
    /// HMAC-SHA1, which the draft's own example uses.
    pub allow_sha1: bool,
}

/// Why a well-formed offer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Many senders with one key and counters of their own would repeat a nonce.
    #[error(
        "the gateway offers encryption {encr} for the group, a counter mode: with several senders under one key it would \
         repeat nonces and give the key away; it has to offer AES-CBC with HMAC-SHA2"
    )]
    CounterMode {
        /// The algorithm's number.
        encr: u16,
    },
    /// HMAC-SHA1 without the profile's word.
    #[error(
        "the gateway offers HMAC-SHA1 for the group; set multi_point_sa.allow_sha1 = true to take it all the same"
    )]
    Sha1,
    /// Something that is not spoken here.
    #[error("the gateway offers {what} {number} for the group, which is not supported")]
    Unsupported {
        /// What kind of algorithm.
        what: &'static str,
        /// Its number.
        number: u16,
    },
    /// SK_d is to be as long as the function's key.
    #[error("the group's SK_d has {found} octets instead of {expected}")]
    SkdLength {
        /// How long it is.
        found: usize,
        /// How long it is to be.
        expected: usize,
    },
    /// It is over already.
    #[error("the group's SA has no lifetime left")]
    NoLifetime,
    /// More than one SA at once.
    #[error("the gateway hands out the SAs of several groups, of which only one is supported; none is used")]
    SeveralGroups,
    /// The older ones are not out of use yet.
    #[error("the gateway hands out SAs of the group faster than it takes older ones out of use")]
    TooMany,
    /// The SPI names another SA here.
    #[error("the group's SPI {spi:08x} is in use by another SA")]
    SpiInUse {
        /// The SPI.
        spi: u32,
    },
}

/// An SA of the group: the same SPI and the same keys inbound and outbound. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct GroupSa {
    /// Its SPI.
    pub spi: u32,
    /// The encryption algorithm's number.
    pub encr: u16,
    /// Its key length in bits.
    pub key_bits: u16,
    /// The integrity algorithm's number.
    pub integ: u16,
    /// Its keys.
    pub keys: DirectionKeys,
    /// How long it is good.
    pub lifetime: Duration,
    /// When to begin to send with it.
    pub rollover1: Duration,
    /// When to stop to take its predecessor's packets.
    pub rollover2: Duration,
}

impl GroupSa {
    /// Judges an offer and derives its keys: KEYMAT = prf+(SK_d, Nonce), ENCR first, then INTEG.
    ///
    /// # Errors
    /// Why it is not used: something to tell the user, not the gateway, which negotiates nothing here.
    pub fn accept(put: &MpsaPut, policy: GroupPolicy) -> Result<Self, Refusal> {
        if COUNTER_MODES.contains(&put.encr) {
            return Err(Refusal::CounterMode { encr: put.encr });
        }
        if put.encr != ENCR_AES_CBC {
            return Err(Refusal::Unsupported { what: "encryption", number: put.encr });
        }
        if !matches!(put.key_bits, 128 | 256) {
            return Err(Refusal::Unsupported { what: "the AES key length", number: put.key_bits });
        }
        let sha1 = put.prf == PRF_HMAC_SHA1 || put.integ == AUTH_HMAC_SHA1_96;
        if sha1 && !policy.allow_sha1 {
            return Err(Refusal::Sha1);
        }
        let integ = INTEGRITY.iter().find(|(number, _)| *number == put.integ);
        let Some((_, integ_len)) = integ else {
            return Err(Refusal::Unsupported { what: "integrity", number: put.integ });
        };
        let expected = match (put.prf, Prf::from_iana(put.prf)) {
            (PRF_HMAC_SHA1, _) => SHA1_LEN,
            (_, Some(prf)) => prf.key_len(),
            (number, None) => return Err(Refusal::Unsupported { what: "the pseudorandom function", number }),
        };
        if put.sk_d.len() != expected {
            return Err(Refusal::SkdLength { found: put.sk_d.len(), expected });
        }
        if put.lifetime.is_zero() {
            return Err(Refusal::NoLifetime);
        }
        let encr_len = usize::from(put.key_bits / 8);
        let unsupported = |_| Refusal::Unsupported { what: "the pseudorandom function", number: put.prf };
        let keymat = keymat(put, encr_len + integ_len).map_err(unsupported)?;
        let (encr, integ) = keymat.split_at_checked(encr_len).unwrap_or_default();
        let keys =
            DirectionKeys { encr: Zeroizing::new(encr.to_vec()), integ: Zeroizing::new(integ.to_vec()) };
        Ok(Self {
            spi: put.spi,
            encr: put.encr,
            key_bits: put.key_bits,
            integ: put.integ,
            keys,
            lifetime: put.lifetime,
            rollover1: put.rollover1,
            // A predecessor that stopped to be heard before its successor speaks would lose packets.
            rollover2: put.rollover2.max(put.rollover1),
        })
    }

    /// Whether both are the same SA, as when a gateway hands it out again.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let suite = (self.spi, self.encr, self.key_bits, self.integ);
        suite == (other.spi, other.encr, other.key_bits, other.integ)
            && self.keys.encr == other.keys.encr
            && self.keys.integ == other.keys.integ
    }
}

fn keymat(put: &MpsaPut, len: usize) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    match Prf::from_iana(put.prf) {
        Some(prf) => prf.prf_plus(&put.sk_d, &put.nonce, len),
        None => prf_plus_with(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &put.sk_d, &put.nonce, len),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn offer(spi: u32) -> MpsaPut {
        MpsaPut {
            spi,
            encr: 12,
            key_bits: 256,
            prf: 5,
            integ: 12,
            nonce: (0..16).collect(),
            sk_d: Zeroizing::new(vec![0x0c; 32]),
            lifetime: Duration::from_secs(3600),
            rollover1: Duration::from_secs(60),
            rollover2: Duration::from_secs(120),
        }
    }

    fn refused(change: impl Fn(&mut MpsaPut)) -> Refusal {
        let mut put = offer(300);
        change(&mut put);
        GroupSa::accept(&put, GroupPolicy::default()).unwrap_err()
    }

    /// Computed with Python's hmac: T1 | T2 of prf+(0c * 32, 00 01 .. 0f) with HMAC-SHA-256.
    #[test]
    fn keys_are_prf_plus_of_sk_d_and_nonce_encryption_first() {
        let sa = GroupSa::accept(&offer(300), GroupPolicy::default()).unwrap();
        let expected = "55b159e6362d527b4105f8553ee95b9250c3a4ab044fb80e1a0ad2faf6e64117";
        assert_eq!(hex::encode(&*sa.keys.encr), expected);
        let expected = "f8d54aefbc34a6f2a269ecff7cf17414bded1b911538e97316827b0e41348a6b";
        assert_eq!(hex::encode(&*sa.keys.integ), expected);
    }

    /// The same with HMAC-SHA-1, 0b * 20 and 00 01 .. 1f: the draft's example.
    #[test]
    fn the_drafts_own_suite_is_taken_only_when_the_profile_allows_it() {
        let mut put = offer(300);
        (put.prf, put.integ) = (2, 2);
        put.nonce = (0..32).collect();
        put.sk_d = Zeroizing::new(vec![0x0b; 20]);
        assert_eq!(GroupSa::accept(&put, GroupPolicy::default()).unwrap_err(), Refusal::Sha1);
        let sa = GroupSa::accept(&put, GroupPolicy { allow_sha1: true }).unwrap();
        let expected = "066e3af6ce79e23211ea1fa44846323bde782b316eaefdf37c7b18b8194d45be";
        assert_eq!(hex::encode(&*sa.keys.encr), expected);
        assert_eq!(hex::encode(&*sa.keys.integ), "db46613fa2780ddf1d71eea3ac3aea4ad017b97c");
    }

    #[test]
    fn counter_modes_are_refused_with_the_reason() {
        for encr in [13, 20, 28] {
            let refusal = refused(|put| put.encr = encr);
            assert_eq!(refusal, Refusal::CounterMode { encr });
            assert!(refusal.to_string().contains("repeat nonces"), "{refusal}");
        }
    }

    #[test]
    fn whatever_is_not_spoken_is_named() {
        let unsupported = |what, number| Refusal::Unsupported { what, number };
        assert_eq!(refused(|put| put.encr = 3), unsupported("encryption", 3));
        assert_eq!(refused(|put| put.key_bits = 0), unsupported("the AES key length", 0));
        assert_eq!(refused(|put| put.integ = 0), unsupported("integrity", 0));
        assert_eq!(refused(|put| put.prf = 4), unsupported("the pseudorandom function", 4));
        assert_eq!(refused(|put| put.lifetime = Duration::ZERO), Refusal::NoLifetime);
        let short = refused(|put| put.sk_d = Zeroizing::new(vec![1; 20]));
        assert_eq!(short, Refusal::SkdLength { found: 20, expected: 32 });
    }

    #[test]
    fn nothing_of_the_keys_is_printed() {
        let sa = GroupSa::accept(&offer(300), GroupPolicy::default()).unwrap();
        let printed = format!("{sa:?} {:?}", offer(300));
        assert!(!printed.contains("85, 177") && !printed.contains("12, 12, 12"), "{printed}");
    }
}
