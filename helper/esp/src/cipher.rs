//! Encryption with integrity over one packet's buffer, the same calls for AEADs and for AES-CBC with HMAC.

use aes::cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};
use aes::{Aes128, Aes256};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::ESP_HEADER_LEN;
use crate::error::KeyError;
use crate::suite::{AesKey, CbcIntegrity, EspSuite};

/// AES in CBC mode works on these.
type Block = Array<u8, aes::cipher::consts::U16>;

pub(crate) enum Cipher {
    Aead { key: LessSafeKey, salt: [u8; 4] },
    Cbc { key: AesCbc, integrity: hmac::Key },
}

pub(crate) enum AesCbc {
    Aes128(Aes128),
    Aes256(Aes256),
}

/// The packet did not come from who has the key, or cannot be processed at all.
pub(crate) struct Refused;

impl Cipher {
    pub(crate) fn new(suite: EspSuite, encr_key: &[u8], integ_key: &[u8]) -> Result<Self, KeyError> {
        let bad_encr =
            KeyError::EncryptionKeyLength { expected: suite.encr_key_len(), actual: encr_key.len() };
        let bad_integ =
            KeyError::IntegrityKeyLength { expected: suite.integ_key_len(), actual: integ_key.len() };
        if encr_key.len() != suite.encr_key_len() {
            return Err(bad_encr);
        }
        if integ_key.len() != suite.integ_key_len() {
            return Err(bad_integ);
        }
        let aead = |algorithm| {
            let (key, salt) = encr_key.split_last_chunk::<4>().ok_or(bad_encr)?;
            let key = UnboundKey::new(algorithm, key).map_err(|_| bad_encr)?;
            Ok(Self::Aead { key: LessSafeKey::new(key), salt: *salt })
        };
        match suite {
            EspSuite::AesGcm16(AesKey::Bits128) => aead(&aead::AES_128_GCM),
            EspSuite::AesGcm16(AesKey::Bits256) => aead(&aead::AES_256_GCM),
            EspSuite::ChaCha20Poly1305 => aead(&aead::CHACHA20_POLY1305),
            EspSuite::AesCbc(bits, integrity) => {
                let key = match bits {
                    AesKey::Bits128 => AesCbc::Aes128(new_aes(encr_key).ok_or(bad_encr)?),
                    AesKey::Bits256 => AesCbc::Aes256(new_aes(encr_key).ok_or(bad_encr)?),
                };
                let algorithm = match integrity {
                    CbcIntegrity::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    CbcIntegrity::Sha256 => hmac::HMAC_SHA256,
                    CbcIntegrity::Sha384 => hmac::HMAC_SHA384,
                    CbcIntegrity::Sha512 => hmac::HMAC_SHA512,
                };
                Ok(Self::Cbc { key, integrity: hmac::Key::new(algorithm, integ_key) })
            }
        }
    }

    /// Writes the IV for `nonce`, which never repeats under this key.
    ///
    /// An AEAD takes it as it is (RFC 4106 3.1, RFC 7634 2). For CBC the IV must be unpredictable (RFC 3602 3):
    /// the nonce is encrypted under the key (NIST SP 800-38A appendix C, first method).
    pub(crate) fn write_iv(&self, nonce: [u8; 16], iv: &mut [u8]) {
        match self {
            Self::Aead { .. } => copy_prefix(iv, &nonce),
            Self::Cbc { key, .. } => {
                let mut block = Block::from(nonce);
                match key {
                    AesCbc::Aes128(aes) => aes.encrypt_block(&mut block),
                    AesCbc::Aes256(aes) => aes.encrypt_block(&mut block),
                }
                copy_prefix(iv, &block);
            }
        }
    }

    /// Encrypts and authenticates `packet` = ESP header, IV, plaintext with trailer, room for the ICV.
    /// `high` are the sequence number's upper 32 bits when ESN is in use.
    pub(crate) fn seal(&self, suite: EspSuite, high: Option<u32>, packet: &mut [u8]) -> Result<(), Refused> {
        let text_end = packet.len().checked_sub(suite.icv_len()).ok_or(Refused)?;
        let (covered, icv) = packet.split_at_mut_checked(text_end).ok_or(Refused)?;
        match self {
            Self::Aead { key, salt } => {
                let (header, rest) = covered.split_at_mut_checked(ESP_HEADER_LEN).ok_or(Refused)?;
                let (iv, text) = rest.split_at_mut_checked(suite.iv_len()).ok_or(Refused)?;
                let (aad, aad_len) = associated_data(header, high);
                let aad = Aad::from(aad.get(..aad_len).ok_or(Refused)?);
                let tag =
                    key.seal_in_place_separate_tag(aead_nonce(*salt, iv), aad, text).map_err(|_| Refused)?;
                copy_prefix(icv, tag.as_ref());
            }
            Self::Cbc { key, integrity } => {
                let (_, rest) = covered.split_at_mut_checked(ESP_HEADER_LEN).ok_or(Refused)?;
                let (iv, text) = rest.split_first_chunk_mut::<16>().ok_or(Refused)?;
                let iv = Block::from(*iv);
                let (blocks, tail) = Block::slice_as_chunks_mut(text);
                if !tail.is_empty() {
                    return Err(Refused);
                }
                match key {
                    AesCbc::Aes128(aes) => cbc::Encryptor::inner_iv_init(aes, &iv).encrypt_blocks(blocks),
                    AesCbc::Aes256(aes) => cbc::Encryptor::inner_iv_init(aes, &iv).encrypt_blocks(blocks),
                }
                copy_prefix(icv, authenticator(integrity, covered, high).as_ref());
            }
        }
        Ok(())
    }

    /// Verifies, then decrypts in place. The counterpart of [`Self::seal`].
    pub(crate) fn open(&self, suite: EspSuite, high: Option<u32>, packet: &mut [u8]) -> Result<(), Refused> {
        match self {
            Self::Aead { key, salt } => {
                let (header, rest) = packet.split_at_mut_checked(ESP_HEADER_LEN).ok_or(Refused)?;
                let (iv, text_and_icv) = rest.split_at_mut_checked(suite.iv_len()).ok_or(Refused)?;
                let (aad, aad_len) = associated_data(header, high);
                let aad = Aad::from(aad.get(..aad_len).ok_or(Refused)?);
                key.open_in_place(aead_nonce(*salt, iv), aad, text_and_icv).map_err(|_| Refused)?;
            }
            Self::Cbc { key, integrity } => {
                let text_end = packet.len().checked_sub(suite.icv_len()).ok_or(Refused)?;
                let (covered, icv) = packet.split_at_mut_checked(text_end).ok_or(Refused)?;
                let expected = authenticator(integrity, covered, high);
                let expected = expected.as_ref().get(..icv.len()).ok_or(Refused)?;
                if !bool::from(expected.ct_eq(icv)) {
                    return Err(Refused);
                }
                let (_, rest) = covered.split_at_mut_checked(ESP_HEADER_LEN).ok_or(Refused)?;
                let (iv, text) = rest.split_first_chunk_mut::<16>().ok_or(Refused)?;
                let iv = Block::from(*iv);
                let (blocks, tail) = Block::slice_as_chunks_mut(text);
                if !tail.is_empty() {
                    return Err(Refused);
                }
                match key {
                    AesCbc::Aes128(aes) => cbc::Decryptor::inner_iv_init(aes, &iv).decrypt_blocks(blocks),
                    AesCbc::Aes256(aes) => cbc::Decryptor::inner_iv_init(aes, &iv).decrypt_blocks(blocks),
                }
            }
        }
        Ok(())
    }
}

fn new_aes<A: aes::cipher::KeyInit>(key: &[u8]) -> Option<A> {
    A::new_from_slice(key).ok()
}

/// Salt and IV, 4 and 8 octets (RFC 4106 4, RFC 7634 2).
fn aead_nonce(salt: [u8; 4], iv: &[u8]) -> Nonce {
    let mut nonce = [0; aead::NONCE_LEN];
    let (front, back) = nonce.split_at_mut(salt.len());
    copy_prefix(front, &salt);
    copy_prefix(back, iv);
    Nonce::assume_unique_for_key(nonce)
}

/// SPI and sequence number: 32 bits of it, or all 64 with ESN (RFC 4106 5).
fn associated_data(header: &[u8], high: Option<u32>) -> ([u8; 12], usize) {
    let mut aad = [0; 12];
    match high {
        None => {
            copy_prefix(&mut aad, header);
            (aad, 8)
        }
        Some(high) => {
            let (spi, seq) = header.split_at(header.len().min(4));
            let mut parts = aad.chunks_exact_mut(4);
            for part in [spi, &high.to_be_bytes(), seq] {
                if let Some(target) = parts.next() {
                    copy_prefix(target, part);
                }
            }
            (aad, 12)
        }
    }
}

/// HMAC over the packet and, with ESN, the unsent upper bits after it (RFC 4303 2.2.1).
fn authenticator(key: &hmac::Key, covered: &[u8], high: Option<u32>) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(covered);
    if let Some(high) = high {
        context.update(&high.to_be_bytes());
    }
    context.sign()
}

/// Copies as much of `source` as fits into `target`.
pub(crate) fn copy_prefix(target: &mut [u8], source: &[u8]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case of draft-mcgrew-gcm-test-01: AES-128-GCM ESP with an extended sequence number.
    #[test]
    fn gcm_esp_vector_with_esn() {
        let suite = EspSuite::AesGcm16(AesKey::Bits128);
        let key = hex::decode("4c80cdefbb5d10da906ac73c3613a6342e443b68").unwrap();
        let mut packet = hex::decode(concat!(
            "0000432100000000",
            "4956ed7e3b244cfe",
            "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34",
            "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce",
            "61bc17d768fd9732",
            "459018148f6cbe722fd04796562dfdb4",
        ))
        .unwrap();
        let plain = hex::decode(concat!(
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000",
            "00000000045f736970045f756470037369700963796265726369747902646b00",
            "0021000101020201",
        ))
        .unwrap();
        let sealed = packet.clone();
        let cipher = Cipher::new(suite, &key, &[]).unwrap();
        assert!(cipher.open(suite, Some(0x8765_4321), &mut packet).is_ok());
        let text = suite.payload_offset()..packet.len() - suite.icv_len();
        assert_eq!(packet[text.clone()], plain);
        assert!(cipher.seal(suite, Some(0x8765_4321), &mut packet).is_ok());
        assert_eq!(packet, sealed);
    }

    /// The ciphertext of RFC 3602 section 4 case 4 (64 octets, AES-128-CBC).
    #[test]
    fn cbc_vector_of_rfc_3602() {
        let suite = EspSuite::AesCbc(AesKey::Bits128, CbcIntegrity::Sha256);
        let key = hex::decode("56e47a38c5598974bc46903dba290349").unwrap();
        let cipher = Cipher::new(suite, &key, &[0; 32]).unwrap();
        let mut packet = vec![0; 8];
        packet.extend(hex::decode("8ce82eefbea0da3c44699ed7db51b7d9").unwrap());
        packet.extend(0xa0..=0xdf_u8);
        packet.extend([0; 16]);
        assert!(cipher.seal(suite, None, &mut packet).is_ok());
        assert_eq!(
            hex::encode(&packet[24..88]),
            concat!(
                "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e",
                "35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
            )
        );
        assert!(cipher.open(suite, None, &mut packet).is_ok());
        assert_eq!(packet[24..88], (0xa0..=0xdf_u8).collect::<Vec<_>>());
    }
}
