//! Keys of the IKE_SA and of its CHILD_SAs (RFC 7296 sections 2.14, 2.17 and 2.18).

use std::fmt;

use zeroize::Zeroizing;

use super::{CryptoError, IkeCipher, Prf};

/// The seven keys of an IKE_SA. `Debug` shows none of them.
#[derive(Clone)]
pub struct IkeKeys {
    /// SK_d, from which keys of CHILD_SAs and of the next IKE_SA are made.
    pub sk_d: Zeroizing<Vec<u8>>,
    /// SK_ai, integrity key initiator to responder; empty with an AEAD cipher.
    pub sk_ai: Zeroizing<Vec<u8>>,
    /// SK_ar, integrity key responder to initiator; empty with an AEAD cipher.
    pub sk_ar: Zeroizing<Vec<u8>>,
    /// SK_ei, encryption key initiator to responder, with the salt at its end where the cipher has one.
    pub sk_ei: Zeroizing<Vec<u8>>,
    /// SK_er, encryption key responder to initiator, with the salt at its end where the cipher has one.
    pub sk_er: Zeroizing<Vec<u8>>,
    /// SK_pi, for the initiator's AUTH payload.
    pub sk_pi: Zeroizing<Vec<u8>>,
    /// SK_pr, for the responder's AUTH payload.
    pub sk_pr: Zeroizing<Vec<u8>>,
}

/// What both peers contribute to the keys of an IKE_SA besides the shared secret.
#[derive(Clone, Copy, Debug)]
pub struct KeyInputs<'a> {
    /// Data of the initiator's Nonce payload.
    pub nonce_i: &'a [u8],
    /// Data of the responder's Nonce payload.
    pub nonce_r: &'a [u8],
    /// The initiator's SPI of the (new) IKE_SA.
    pub spi_i: [u8; 8],
    /// The responder's SPI of the (new) IKE_SA.
    pub spi_r: [u8; 8],
}

impl IkeKeys {
    /// Keys of the first IKE_SA: SKEYSEED = prf(Ni | Nr, g^ir) (section 2.14).
    ///
    /// # Errors
    /// Never with the suites that exist; [`CryptoError::TooMuchKeyMaterial`] is prf+'s own limit.
    pub fn initial(
        prf: Prf,
        cipher: IkeCipher,
        inputs: &KeyInputs<'_>,
        shared_secret: &[u8],
    ) -> Result<Self, CryptoError> {
        let nonces = [inputs.nonce_i, inputs.nonce_r].concat();
        let skeyseed = prf.compute(&nonces, &[shared_secret]);
        Self::expand(prf, cipher, inputs, &skeyseed)
    }

    /// Keys of an IKE_SA made by rekeying another (section 2.18): SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr)
    /// with the *old* IKE_SA's function `old_prf`; everything after that uses the new one's.
    ///
    /// # Errors
    /// As [`IkeKeys::initial`].
    pub fn rekeyed(
        old_prf: Prf,
        old_sk_d: &[u8],
        prf: Prf,
        cipher: IkeCipher,
        inputs: &KeyInputs<'_>,
        shared_secret: &[u8],
    ) -> Result<Self, CryptoError> {
        let skeyseed = old_prf.compute(old_sk_d, &[shared_secret, inputs.nonce_i, inputs.nonce_r]);
        Self::expand(prf, cipher, inputs, &skeyseed)
    }

    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)
    fn expand(
        prf: Prf,
        cipher: IkeCipher,
        inputs: &KeyInputs<'_>,
        skeyseed: &[u8],
    ) -> Result<Self, CryptoError> {
        let seed = [inputs.nonce_i, inputs.nonce_r, &inputs.spi_i, &inputs.spi_r].concat();
        let (p, a, e) = (prf.key_len(), cipher.integ_key_len(), cipher.encr_key_len());
        let stream = prf.prf_plus(skeyseed, &seed, 3 * p + 2 * a + 2 * e)?;
        let mut cut = Cutter(&stream);
        Ok(Self {
            sk_d: cut.take(p)?,
            sk_ai: cut.take(a)?,
            sk_ar: cut.take(a)?,
            sk_ei: cut.take(e)?,
            sk_er: cut.take(e)?,
            sk_pi: cut.take(p)?,
            sk_pr: cut.take(p)?,
        })
    }
}

impl fmt::Debug for IkeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IkeKeys").finish_non_exhaustive()
    }
}

/// The keys of one CHILD_SA, cut from KEYMAT. `Debug` shows none of them.
#[derive(Clone)]
pub struct ChildKeys {
    /// Encryption key initiator to responder (of the exchange that made the SA), with its salt.
    pub encr_i: Zeroizing<Vec<u8>>,
    /// Integrity key initiator to responder; empty with an AEAD cipher.
    pub integ_i: Zeroizing<Vec<u8>>,
    /// Encryption key responder to initiator, with its salt.
    pub encr_r: Zeroizing<Vec<u8>>,
    /// Integrity key responder to initiator; empty with an AEAD cipher.
    pub integ_r: Zeroizing<Vec<u8>>,
}

impl ChildKeys {
    /// Keys of a CHILD_SA (section 2.17): all of the initiator's direction first, encryption before integrity.
    ///
    /// `shared_secret` is g^ir of the CREATE_CHILD_SA exchange when it carried KE payloads. "Initiator" is who began
    /// the exchange that made the CHILD_SA.
    ///
    /// # Errors
    /// [`CryptoError::TooMuchKeyMaterial`] when the lengths need more than prf+ can give.
    pub fn derive(
        prf: Prf,
        sk_d: &[u8],
        shared_secret: Option<&[u8]>,
        nonce_i: &[u8],
        nonce_r: &[u8],
        encr_len: usize,
        integ_len: usize,
    ) -> Result<Self, CryptoError> {
        let len = encr_len.saturating_add(integ_len).saturating_mul(2);
        let stream = keymat(prf, sk_d, shared_secret, nonce_i, nonce_r, len)?;
        let mut cut = Cutter(&stream);
        Ok(Self {
            encr_i: cut.take(encr_len)?,
            integ_i: cut.take(integ_len)?,
            encr_r: cut.take(encr_len)?,
            integ_r: cut.take(integ_len)?,
        })
    }
}

impl fmt::Debug for ChildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildKeys").finish_non_exhaustive()
    }
}

/// KEYMAT = prf+(SK_d, [g^ir |] Ni | Nr), its first `len` octets (section 2.17).
///
/// # Errors
/// [`CryptoError::TooMuchKeyMaterial`] when `len` is more than prf+ can give.
pub fn keymat(
    prf: Prf,
    sk_d: &[u8],
    shared_secret: Option<&[u8]>,
    nonce_i: &[u8],
    nonce_r: &[u8],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let seed = Zeroizing::new([shared_secret.unwrap_or_default(), nonce_i, nonce_r].concat());
    prf.prf_plus(sk_d, &seed, len)
}

/// Hands out consecutive pieces of key material.
struct Cutter<'a>(&'a [u8]);

impl Cutter<'_> {
    fn take(&mut self, len: usize) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(CryptoError::TooMuchKeyMaterial)?;
        self.0 = rest;
        Ok(Zeroizing::new(head.to_vec()))
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
