//! Authentication: pre-shared keys, signatures, certificates, identities (RFC 7296 section 2.15, RFC 7427).
//!
//! Both ends prove themselves over [`auth_octets`]: with a shared secret ([`psk`], also for the MSK of an EAP method)
//! or with a signature ([`signature`]) whose key is bound to an identity by a certificate ([`pki`]).

use zeroize::Zeroizing;

use crate::crypto::Prf;

mod algorithm;
pub mod credential;
mod der;
pub mod fuzz;
pub mod id_text;
pub mod identity;
pub mod pki;
pub mod psk;
pub mod signature;
mod signing_key;

pub use credential::{ClientCertificate, CredentialError};
pub use id_text::parse_identity;
pub use identity::IdRef;
pub use pki::{PkiError, TrustAnchors, verify_gateway};
pub use signature::{AuthData, SignatureError, SigningKey, verify_signature};

/// The octets an end signs (RFC 7296 section 2.15): its own IKE_SA_INIT message | the *peer's* nonce |
/// prf(SK_p, its own ID payload without the generic header).
///
/// `message` is the IKE_SA_INIT request (initiator) or response (responder) as sent, without the non-ESP marker;
/// `sk_p` is SK_pi or SK_pr; `id_body` begins with the ID type octet and its three reserved octets.
#[must_use]
pub fn auth_octets(
    prf: Prf,
    message: &[u8],
    peer_nonce: &[u8],
    sk_p: &[u8],
    id_body: &[u8],
) -> Zeroizing<Vec<u8>> {
    let maced_id = prf.compute(sk_p, &[id_body]);
    Zeroizing::new([message, peer_nonce, &maced_id].concat())
}
