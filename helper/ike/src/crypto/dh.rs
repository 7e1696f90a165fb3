//! Key agreement: the Key Exchange payload's public values and g^ir (RFC 7296 section 2.14, RFC 3526, RFC 5903,
//! RFC 8031), with the checks of RFC 6989 on what the peer sends.
//!
//! A key pair serves one exchange. [`KeyPair::agree`] only borrows it, because the IKE_SA_INIT response is not
//! authenticated: after a forged one the attempt goes on with the same keys.

use std::fmt;
use std::sync::OnceLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd, Resize};
use p256::elliptic_curve::{Generate, ecdh, sec1::ToSec1Point};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::{CryptoError, modp};

/// A key exchange method (transform type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DhGroup {
    /// 2048-bit MODP group (14).
    Modp2048,
    /// 3072-bit MODP group (15).
    Modp3072,
    /// 4096-bit MODP group (16).
    Modp4096,
    /// 256-bit random ECP group (19).
    Ecp256,
    /// 384-bit random ECP group (20).
    Ecp384,
    /// Curve25519 (31).
    X25519,
}

impl DhGroup {
    /// The group with this transform number, if it is supported.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            14 => Some(Self::Modp2048),
            15 => Some(Self::Modp3072),
            16 => Some(Self::Modp4096),
            19 => Some(Self::Ecp256),
            20 => Some(Self::Ecp384),
            31 => Some(Self::X25519),
            _ => None,
        }
    }

    /// The transform number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::X25519 => 31,
        }
    }

    /// Octets of a public value in a Key Exchange payload.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::X25519 => 32,
        }
    }
}

/// An ephemeral key pair. `Debug` shows no secret.
pub struct KeyPair {
    group: DhGroup,
    secret: Secret,
    public: Vec<u8>,
}

enum Secret {
    Modp(&'static BoxedMontyParams, Zeroizing<BoxedUint>),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    X25519(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("group", &self.group).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// A fresh key pair of `group`.
    pub fn generate(group: DhGroup, rng: &mut dyn CryptoRng) -> Self {
        let secret = match group {
            DhGroup::Modp2048 => modp_secret(&MODP_2048, rng),
            DhGroup::Modp3072 => modp_secret(&MODP_3072, rng),
            DhGroup::Modp4096 => modp_secret(&MODP_4096, rng),
            DhGroup::Ecp256 => Secret::P256(p256::SecretKey::generate_from_rng(rng)),
            DhGroup::Ecp384 => Secret::P384(p384::SecretKey::generate_from_rng(rng)),
            DhGroup::X25519 => {
                let mut secret = Zeroizing::new([0_u8; 32]);
                rng.fill_bytes(secret.as_mut());
                Secret::X25519(secret)
            }
        };
        Self::from_secret(group, secret)
    }

    fn from_secret(group: DhGroup, secret: Secret) -> Self {
        let public = match &secret {
            Secret::Modp(params, exponent) => modp_pow(params, &BoxedUint::from(2_u8), exponent).to_vec(),
            Secret::P256(secret) => without_prefix(secret.public_key().to_sec1_point(false).as_bytes()),
            Secret::P384(secret) => without_prefix(secret.public_key().to_sec1_point(false).as_bytes()),
            Secret::X25519(secret) => x25519_dalek::x25519(**secret, X25519_BASE).to_vec(),
        };
        Self { group, secret, public }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> DhGroup {
        self.group
    }

    /// Our public value as the Key Exchange payload carries it: MODP padded to the prime's length, ECP as x | y.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret g^ir with the peer's public value: MODP padded to the prime's length, ECP the x coordinate.
    ///
    /// # Errors
    /// [`CryptoError::PublicValueLength`] or [`CryptoError::BadPublicValue`] when the peer's value must not be used.
    pub fn agree(&self, peer_public: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let want = self.group.public_len();
        if peer_public.len() != want {
            return Err(CryptoError::PublicValueLength { got: peer_public.len(), want });
        }
        match &self.secret {
            Secret::Modp(params, exponent) => {
                let peer = BoxedUint::from_be_slice(peer_public, params.bits_precision())
                    .map_err(|_| CryptoError::BadPublicValue)?;
                // 1 < y < p - 1 (RFC 6989 section 2.1): p is a safe prime, so nothing else is of small order.
                let one = BoxedUint::one_with_precision(params.bits_precision());
                let p_minus_1 = params.modulus().as_ref().wrapping_sub(&one);
                if peer <= one || peer >= p_minus_1 {
                    return Err(CryptoError::BadPublicValue);
                }
                Ok(modp_pow(params, &peer, exponent))
            }
            Secret::P256(secret) => {
                let peer = p256::PublicKey::from_sec1_bytes(&with_prefix(peer_public))
                    .map_err(|_| CryptoError::BadPublicValue)?;
                let shared = ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
                Ok(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
            }
            Secret::P384(secret) => {
                let peer = p384::PublicKey::from_sec1_bytes(&with_prefix(peer_public))
                    .map_err(|_| CryptoError::BadPublicValue)?;
                let shared = ecdh::diffie_hellman(secret.to_nonzero_scalar(), peer.as_affine());
                Ok(Zeroizing::new(shared.raw_secret_bytes().to_vec()))
            }
            Secret::X25519(secret) => {
                let peer = <[u8; 32]>::try_from(peer_public).map_err(|_| CryptoError::BadPublicValue)?;
                let shared = Zeroizing::new(x25519_dalek::x25519(**secret, peer));
                // All zero means a point of small order (RFC 8031 section 3.1, RFC 7748 section 6.1).
                if super::constant_time_eq(shared.as_ref(), &[0_u8; 32]) {
                    return Err(CryptoError::BadPublicValue);
                }
                Ok(Zeroizing::new(shared.to_vec()))
            }
        }
    }
}

const X25519_BASE: [u8; 32] = {
    let mut base = [0; 32];
    base[0] = 9;
    base
};

/// A MODP group ready for use, made on first use because the Montgomery constants of a prime are the same each time.
struct Modp {
    prime_hex: &'static str,
    bits: u32,
    /// Bits of the random exponent: the upper estimate of RFC 3526 section 8, in whole 64-bit words.
    exponent_bits: u32,
    params: OnceLock<BoxedMontyParams>,
}

static MODP_2048: Modp =
    Modp { prime_hex: modp::MODP_2048, bits: 2048, exponent_bits: 320, params: OnceLock::new() };
static MODP_3072: Modp =
    Modp { prime_hex: modp::MODP_3072, bits: 3072, exponent_bits: 448, params: OnceLock::new() };
static MODP_4096: Modp =
    Modp { prime_hex: modp::MODP_4096, bits: 4096, exponent_bits: 512, params: OnceLock::new() };

fn modp_secret(group: &'static Modp, rng: &mut dyn CryptoRng) -> Secret {
    let params = group.params.get_or_init(|| {
        let prime = BoxedUint::from_be_hex(group.prime_hex, group.bits)
            .into_option()
            .and_then(|prime| Odd::new(prime).into_option());
        // The fallback is unreachable: the constants are odd and of their length, as the tests show.
        BoxedMontyParams::new_vartime(
            prime.unwrap_or_else(|| Odd::new(BoxedUint::max(group.bits)).unwrap_or_default()),
        )
    });
    let mut octets = Zeroizing::new(vec![0_u8; (group.exponent_bits / 8) as usize]);
    rng.fill_bytes(&mut octets);
    let exponent = BoxedUint::from_be_slice_truncated(&octets, group.exponent_bits);
    Secret::Modp(params, Zeroizing::new(exponent))
}

fn modp_pow(params: &BoxedMontyParams, base: &BoxedUint, exponent: &BoxedUint) -> Zeroizing<Vec<u8>> {
    let base = BoxedMontyForm::new(base.resize(params.bits_precision()), params);
    let mut power = base.pow_bounded_exp(exponent, exponent.bits_precision());
    let mut result = power.retrieve();
    let octets = Zeroizing::new(result.to_be_bytes().into_vec());
    power.zeroize();
    result.zeroize();
    octets
}

/// x | y from the uncompressed point 04 | x | y.
fn without_prefix(point: &[u8]) -> Vec<u8> {
    point.get(1..).unwrap_or_default().to_vec()
}

fn with_prefix(x_y: &[u8]) -> Vec<u8> {
    let mut point = Vec::with_capacity(1 + x_y.len());
    point.push(4);
    point.extend_from_slice(x_y);
    point
}

#[cfg(test)]
#[path = "dh_tests.rs"]
mod tests;
