//! Protection of the Encrypted and Encrypted Fragment payloads (RFC 7296 section 3.14, RFC 5282, RFC 7634, RFC 7383).
//!
//! The body of the payload is IV, ciphertext, integrity check value; the plaintext ends with padding and a pad length
//! octet. With an AEAD cipher everything before the IV is associated data; with AES-CBC the integrity check covers the
//! whole message up to itself. The caller writes all headers first, with final lengths
//! ([`IkeCipher::sealed_len`]), and the cipher appends the body.

use std::fmt;
use std::ops::Range;

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use rand_core::CryptoRng;
use ring::{aead, hmac};
use zeroize::Zeroizing;

use super::CryptoError;

/// An integrity algorithm for AES-CBC (transform type 3, RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integ {
    /// AUTH_HMAC_SHA2_256_128 (12).
    HmacSha2_256_128,
    /// AUTH_HMAC_SHA2_384_192 (13).
    HmacSha2_384_192,
    /// AUTH_HMAC_SHA2_512_256 (14).
    HmacSha2_512_256,
}

impl Integ {
    /// The algorithm with this transform number, if it is supported.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            12 => Some(Self::HmacSha2_256_128),
            13 => Some(Self::HmacSha2_384_192),
            14 => Some(Self::HmacSha2_512_256),
            _ => None,
        }
    }

    /// The transform number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::HmacSha2_256_128 => 12,
            Self::HmacSha2_384_192 => 13,
            Self::HmacSha2_512_256 => 14,
        }
    }

    /// Octets of the key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        self.icv_len() * 2
    }

    /// Octets of the (truncated) integrity check value.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha2_256_128 => hmac::HMAC_SHA256,
            Self::HmacSha2_384_192 => hmac::HMAC_SHA384,
            Self::HmacSha2_512_256 => hmac::HMAC_SHA512,
        }
    }
}

/// The encryption (and integrity) of an IKE_SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IkeCipher {
    /// ENCR_AES_GCM_16 (20), 128-bit key.
    Aes128Gcm16,
    /// ENCR_AES_GCM_16 (20), 256-bit key.
    Aes256Gcm16,
    /// ENCR_CHACHA20_POLY1305 (28).
    ChaCha20Poly1305,
    /// ENCR_AES_CBC (12), 128-bit key.
    Aes128Cbc(Integ),
    /// ENCR_AES_CBC (12), 256-bit key.
    Aes256Cbc(Integ),
}

/// Octets of salt at the end of an AEAD key (RFC 5282 section 4, RFC 7634 section 2).
const SALT_LEN: usize = 4;
const AES_BLOCK: usize = 16;

impl IkeCipher {
    /// The cipher with these transform numbers and this Key Length attribute, if it is supported.
    ///
    /// `integ` is `None` or 0 (NONE) with an AEAD cipher; `key_bits` is `None` for ChaCha20-Poly1305, which has no
    /// such attribute.
    #[must_use]
    pub fn from_iana(encr: u16, key_bits: Option<u16>, integ: Option<u16>) -> Option<Self> {
        let integ = integ.filter(|id| *id != 0);
        match (encr, key_bits, integ) {
            (20, Some(128), None) => Some(Self::Aes128Gcm16),
            (20, Some(256), None) => Some(Self::Aes256Gcm16),
            (28, None, None) => Some(Self::ChaCha20Poly1305),
            (12, Some(128), Some(id)) => Some(Self::Aes128Cbc(Integ::from_iana(id)?)),
            (12, Some(256), Some(id)) => Some(Self::Aes256Cbc(Integ::from_iana(id)?)),
            _ => None,
        }
    }

    /// The number of the encryption transform.
    #[must_use]
    pub const fn encr_iana(self) -> u16 {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 => 20,
            Self::ChaCha20Poly1305 => 28,
            Self::Aes128Cbc(_) | Self::Aes256Cbc(_) => 12,
        }
    }

    /// The Key Length attribute, where the transform has one.
    #[must_use]
    pub const fn key_bits(self) -> Option<u16> {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc(_) => Some(128),
            Self::Aes256Gcm16 | Self::Aes256Cbc(_) => Some(256),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// The integrity algorithm; `None` with an AEAD cipher.
    #[must_use]
    pub const fn integ(self) -> Option<Integ> {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => None,
            Self::Aes128Cbc(integ) | Self::Aes256Cbc(integ) => Some(integ),
        }
    }

    /// Octets of SK_ei and SK_er, with the salt.
    #[must_use]
    pub const fn encr_key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16 + SALT_LEN,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + SALT_LEN,
            Self::Aes128Cbc(_) => 16,
            Self::Aes256Cbc(_) => 32,
        }
    }

    /// Octets of SK_ai and SK_ar; 0 with an AEAD cipher.
    #[must_use]
    pub const fn integ_key_len(self) -> usize {
        match self.integ() {
            Some(integ) => integ.key_len(),
            None => 0,
        }
    }

    /// Octets of the initialization vector on the wire.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self.integ() {
            Some(_) => AES_BLOCK,
            None => 8,
        }
    }

    /// Octets of the integrity check value.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self.integ() {
            Some(integ) => integ.icv_len(),
            None => 16,
        }
    }

    /// Octets of the payload body (IV, ciphertext with padding and pad length, ICV) for `plaintext_len` octets of inner
    /// payloads. Headers are not counted.
    #[must_use]
    pub const fn sealed_len(self, plaintext_len: usize) -> usize {
        self.iv_len() + plaintext_len + self.pad_len(plaintext_len) + 1 + self.icv_len()
    }

    /// The most octets of inner payloads whose body is not longer than `body_len` (for choosing a fragment's size);
    /// `None` when not even an empty one fits.
    #[must_use]
    pub const fn max_plaintext(self, body_len: usize) -> Option<usize> {
        let Some(room) = body_len.checked_sub(self.iv_len() + self.icv_len()) else { return None };
        let whole = match self.integ() {
            Some(_) => room - room % AES_BLOCK,
            None => room,
        };
        whole.checked_sub(1)
    }

    /// Padding octets before the pad length octet: the least the cipher needs.
    const fn pad_len(self, plaintext_len: usize) -> usize {
        match self.integ() {
            Some(_) => (AES_BLOCK - (plaintext_len + 1) % AES_BLOCK) % AES_BLOCK,
            None => 0,
        }
    }
}

/// One direction's keyed cipher of an IKE_SA. `Debug` shows no key.
pub struct SkCipher {
    suite: IkeCipher,
    keyed: Keyed,
}

enum Keyed {
    Aead {
        key: Box<aead::LessSafeKey>,
        salt: Zeroizing<[u8; SALT_LEN]>,
        /// The next explicit IV: a counter from a random start, so it never repeats under one key.
        next_iv: Option<u64>,
    },
    Cbc {
        encr: Zeroizing<Vec<u8>>,
        integ: Box<hmac::Key>,
        icv_len: usize,
    },
}

impl fmt::Debug for SkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkCipher").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl SkCipher {
    /// A cipher for one direction: `encr_key` is SK_ei or SK_er, `integ_key` SK_ai or SK_ar (empty with AEAD).
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] when a key has not the suite's length.
    pub fn new(suite: IkeCipher, encr_key: &[u8], integ_key: &[u8]) -> Result<Self, CryptoError> {
        check_len(encr_key, suite.encr_key_len())?;
        check_len(integ_key, suite.integ_key_len())?;
        let keyed = match suite {
            IkeCipher::Aes128Gcm16 => aead_key(&aead::AES_128_GCM, encr_key)?,
            IkeCipher::Aes256Gcm16 => aead_key(&aead::AES_256_GCM, encr_key)?,
            IkeCipher::ChaCha20Poly1305 => aead_key(&aead::CHACHA20_POLY1305, encr_key)?,
            IkeCipher::Aes128Cbc(integ) | IkeCipher::Aes256Cbc(integ) => Keyed::Cbc {
                encr: Zeroizing::new(encr_key.to_vec()),
                integ: Box::new(hmac::Key::new(integ.algorithm(), integ_key)),
                icv_len: integ.icv_len(),
            },
        };
        Ok(Self { suite, keyed })
    }

    /// The suite this cipher works for.
    #[must_use]
    pub const fn suite(&self) -> IkeCipher {
        self.suite
    }

    /// Appends the encrypted body to `prefix` and gives the whole message.
    ///
    /// `prefix` is everything before the IV: IKE header, unencrypted payloads, generic header of the Encrypted
    /// payload (and the fragment numbers of an Encrypted Fragment payload), all lengths final
    /// ([`IkeCipher::sealed_len`]). A message that is sent again must be kept, not sealed again.
    ///
    /// # Errors
    /// [`CryptoError::SealFailed`] when the message is longer than the cipher can take.
    pub fn seal_message(
        &mut self,
        rng: &mut dyn CryptoRng,
        prefix: Vec<u8>,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let pad_len = self.suite.pad_len(plaintext.len());
        let pad_octet = u8::try_from(pad_len).map_err(|_| CryptoError::SealFailed)?;
        let mut content = Vec::with_capacity(plaintext.len() + pad_len + 1);
        content.extend_from_slice(plaintext);
        content.resize(plaintext.len() + pad_len, 0);
        content.push(pad_octet);

        let mut message = prefix;
        message.reserve(self.suite.sealed_len(plaintext.len()));
        match &mut self.keyed {
            Keyed::Aead { key, salt, next_iv } => {
                let counter = next_iv.unwrap_or_else(|| rng.next_u64());
                *next_iv = Some(counter.wrapping_add(1));
                let iv = counter.to_be_bytes();
                let tag = key
                    .seal_in_place_separate_tag(nonce(salt, iv), aead::Aad::from(&message), &mut content)
                    .map_err(|_| CryptoError::SealFailed)?;
                message.extend_from_slice(&iv);
                message.extend_from_slice(&content);
                message.extend_from_slice(tag.as_ref());
            }
            Keyed::Cbc { encr, integ, icv_len } => {
                let mut iv = [0_u8; AES_BLOCK];
                rng.fill_bytes(&mut iv);
                cbc_encrypt(encr, &iv, &mut content)?;
                message.extend_from_slice(&iv);
                message.extend_from_slice(&content);
                let icv = hmac::sign(integ, &message);
                message.extend(icv.as_ref().iter().take(*icv_len));
            }
        }
        Ok(message)
    }

    /// Checks and decrypts a message: gives the inner payloads without padding.
    ///
    /// `body` is where the IV begins and the ICV ends in `message`; everything before it is authenticated too.
    ///
    /// # Errors
    /// [`CryptoError::MalformedCiphertext`], [`CryptoError::IntegrityCheckFailed`] or [`CryptoError::BadPadding`];
    /// only the last comes from someone who knows the keys.
    pub fn open_message(
        &self,
        message: &[u8],
        body: Range<usize>,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let malformed = CryptoError::MalformedCiphertext;
        let authenticated = message.get(..body.start).ok_or(malformed)?;
        let body_octets = message.get(body.clone()).ok_or(malformed)?;
        let (iv, rest) = body_octets.split_at_checked(self.suite.iv_len()).ok_or(malformed)?;
        let icv_at = rest.len().checked_sub(self.suite.icv_len()).ok_or(malformed)?;
        let (ciphertext, icv) = rest.split_at_checked(icv_at).ok_or(malformed)?;
        if ciphertext.is_empty() {
            return Err(malformed);
        }

        let mut content;
        match &self.keyed {
            Keyed::Aead { key, salt, next_iv: _ } => {
                let iv = <[u8; 8]>::try_from(iv).map_err(|_| malformed)?;
                content = Zeroizing::new(rest.to_vec());
                let plain_len = key
                    .open_in_place(nonce(salt, iv), aead::Aad::from(authenticated), &mut content)
                    .map_err(|_| CryptoError::IntegrityCheckFailed)?
                    .len();
                content.truncate(plain_len);
            }
            Keyed::Cbc { encr, integ, icv_len } => {
                let covered = message.get(..body.start + iv.len() + ciphertext.len()).ok_or(malformed)?;
                let expected = hmac::sign(integ, covered);
                let expected = expected.as_ref().get(..*icv_len).ok_or(malformed)?;
                if !super::constant_time_eq(expected, icv) {
                    return Err(CryptoError::IntegrityCheckFailed);
                }
                content = Zeroizing::new(ciphertext.to_vec());
                cbc_decrypt(encr, iv, &mut content)?;
            }
        }
        let pad_len = usize::from(content.pop().ok_or(malformed)?);
        let plain_len = content.len().checked_sub(pad_len).ok_or(CryptoError::BadPadding)?;
        content.truncate(plain_len);
        Ok(content)
    }
}

fn check_len(key: &[u8], want: usize) -> Result<(), CryptoError> {
    if key.len() == want { Ok(()) } else { Err(CryptoError::KeyLength { got: key.len(), want }) }
}

fn aead_key(algorithm: &'static aead::Algorithm, key_and_salt: &[u8]) -> Result<Keyed, CryptoError> {
    let wrong_length =
        CryptoError::KeyLength { got: key_and_salt.len(), want: algorithm.key_len() + SALT_LEN };
    let (key, salt) = key_and_salt.split_last_chunk::<SALT_LEN>().ok_or(wrong_length)?;
    let key = aead::UnboundKey::new(algorithm, key).map_err(|_| wrong_length)?;
    Ok(Keyed::Aead { key: Box::new(aead::LessSafeKey::new(key)), salt: Zeroizing::new(*salt), next_iv: None })
}

/// The nonce is the salt followed by the explicit IV.
fn nonce(salt: &[u8; SALT_LEN], iv: [u8; 8]) -> aead::Nonce {
    let [s0, s1, s2, s3] = *salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    aead::Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7])
}

fn cbc_encrypt(key: &[u8], iv: &[u8; AES_BLOCK], content: &mut [u8]) -> Result<(), CryptoError> {
    let failed = CryptoError::SealFailed;
    let len = content.len();
    if key.len() == 16 {
        cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv)
            .map_err(|_| failed)?
            .encrypt_padded::<NoPadding>(content, len)
            .map_err(|_| failed)?;
    } else {
        cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv)
            .map_err(|_| failed)?
            .encrypt_padded::<NoPadding>(content, len)
            .map_err(|_| failed)?;
    }
    Ok(())
}

fn cbc_decrypt(key: &[u8], iv: &[u8], content: &mut [u8]) -> Result<(), CryptoError> {
    let failed = CryptoError::MalformedCiphertext;
    if key.len() == 16 {
        cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
            .map_err(|_| failed)?
            .decrypt_padded::<NoPadding>(content)
            .map_err(|_| failed)?;
    } else {
        cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
            .map_err(|_| failed)?
            .decrypt_padded::<NoPadding>(content)
            .map_err(|_| failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "cipher_tests.rs"]
mod tests;
