//! IKE_AUTH from the responder's side: one type a state (RFC 7296 sections 1.2, 2.15 and 2.16).
//!
//! ```text
//! FirstAwaited --PSK or certificate--------------------------------> admitted
//!      |                                                                ^
//!      +--no AUTH--> EapAwaited --EAP-Success--> ProofAwaited --MSK-----+
//! ```
//!
//! Each state consumes itself; what is wrong ends it with AUTHENTICATION_FAILED and a [`Refused`] for the log.

use rand_core::CryptoRng;
use ropewalk_ike::auth::pki::verify_client;
use ropewalk_ike::auth::psk::{shared_key_auth, verify_shared_key_auth};
use ropewalk_ike::auth::{ClientCertificate, IdRef, PkiError, SignatureError, auth_octets, verify_signature};
use ropewalk_ike::wire::{
    AuthMethod, Authentication, CertEncoding, Certificate, EapMessage, Identification, Notify, NotifyType,
    Payload,
};
use zeroize::Zeroizing;

use super::AuthDesk;
use super::eap::{EapServer, EapServerStep};
use super::grant::Wishes;
use super::init::Agreed;

/// More rounds than EAP-Identity and EAP-MSCHAPv2 take.
const MAX_ROUNDS: u8 = 8;

/// Why a client was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A payload is missing or out of place.
    #[error("the request lacks {0}")]
    Incomplete(&'static str),
    /// No key for this identity.
    #[error("there is no pre-shared key for {0}")]
    NoKeyFor(String),
    /// The keys differ.
    #[error("the pre-shared key of {0} is another one")]
    WrongKey(String),
    /// The gateway has no certificate of its own to prove itself with.
    #[error("this gateway has no certificate")]
    NoCertificate,
    /// No client certificates are accepted.
    #[error("certificates of clients are not accepted")]
    CertificatesNotAccepted,
    /// There are no users.
    #[error("EAP is not accepted")]
    EapNotAccepted,
    /// The client's certificate.
    #[error("the client's certificate: {0}")]
    Certificate(PkiError),
    /// The client's signature.
    #[error("the client's signature: {0}")]
    Signature(SignatureError),
    /// Our own signature.
    #[error("our signature cannot be made: {0}")]
    OurSignature(SignatureError),
    /// The user or the password is wrong.
    #[error("the login of {0} failed")]
    Login(String),
    /// The EAP conversation went wrong.
    #[error("the EAP conversation went wrong")]
    Eap,
    /// AUTH after EAP was not made with the MSK.
    #[error("{0} did not prove to hold the key of the EAP method")]
    EapProof(String),
}

/// A client that has proved itself.
#[derive(Debug)]
pub struct Admitted {
    /// The first payloads of the answer: our proof.
    pub proof: Vec<Payload>,
    /// Who it is: IDi.
    pub peer_id: Identification,
    /// What its address belongs to: the user's name with EAP, else IDi.
    pub name: String,
    /// What it wants.
    pub wishes: Wishes,
}

/// Where a request led.
pub enum Verdict {
    /// Another round.
    Next(AuthState, Vec<Payload>),
    /// It is in.
    Admitted(Box<Admitted>),
    /// It is not; with this answer.
    Refused(Refused, Vec<Payload>),
}

/// The states of IKE_AUTH.
pub enum AuthState {
    /// The first request.
    First(FirstAwaited),
    /// The next EAP packet.
    Eap(Box<EapAwaited>),
    /// The client's proof with the MSK.
    Proof(Box<ProofAwaited>),
}

impl AuthState {
    /// Takes the payloads of the next request.
    pub fn handle(
        self,
        agreed: &Agreed,
        desk: &AuthDesk<'_>,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Verdict {
        let verdict = match self {
            Self::First(state) => state.handle(agreed, desk, payloads, rng),
            Self::Eap(state) => state.handle(agreed, desk, payloads, rng),
            Self::Proof(state) => state.handle(agreed, desk, payloads),
        };
        verdict.unwrap_or_else(|refused| {
            let failed = Payload::Notify(Notify::status(NotifyType::AuthenticationFailed));
            Verdict::Refused(refused, vec![failed])
        })
    }
}

/// Nothing but IKE_SA_INIT has happened.
#[derive(Debug)]
pub struct FirstAwaited;

impl FirstAwaited {
    fn handle(
        self,
        agreed: &Agreed,
        desk: &AuthDesk<'_>,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Verdict, Refused> {
        let peer_id = payloads.iter().find_map(|payload| match payload {
            Payload::IdI(id) => Some(id.clone()),
            _ => None,
        });
        let peer_id = peer_id.ok_or(Refused::Incomplete("the IDi payload"))?;
        let wishes = Wishes::of(payloads, desk.settings.keep_old);
        let Some(auth) = find_auth(payloads) else {
            return begin_eap(agreed, desk, peer_id, wishes, rng);
        };
        let octets = client_octets(agreed, &peer_id);
        let proof = match auth.method {
            AuthMethod::SharedKey => {
                let secret = desk.settings.psk_of(&peer_id);
                let secret = secret.ok_or_else(|| Refused::NoKeyFor(peer_id.to_string()))?;
                if !verify_shared_key_auth(agreed.prf, secret, &octets, &auth.data) {
                    return Err(Refused::WrongKey(peer_id.to_string()));
                }
                if desk.settings.certificate_to_all {
                    prove_by_certificate(agreed, desk)?
                } else {
                    let own = own_octets(agreed, desk);
                    vec![Payload::IdR(desk.settings.identity.clone()), shared_key(agreed, secret, &own)]
                }
            }
            AuthMethod::RsaSignature
            | AuthMethod::EcdsaSha256P256
            | AuthMethod::EcdsaSha384P384
            | AuthMethod::EcdsaSha512P521
            | AuthMethod::DigitalSignature => {
                verify_certificate(desk, &peer_id, payloads, auth, &octets)?;
                prove_by_certificate(agreed, desk)?
            }
            AuthMethod::DssSignature | AuthMethod::Null | AuthMethod::Other(_) => {
                return Err(Refused::Signature(SignatureError::UnsupportedMethod(auth.method.into())));
            }
        };
        let name = peer_id.to_string();
        Ok(Verdict::Admitted(Box::new(Admitted { proof, peer_id, name, wishes })))
    }
}

/// An EAP request was sent.
#[derive(Debug)]
pub struct EapAwaited {
    server: EapServer,
    rounds: u8,
    peer_id: Identification,
    wishes: Wishes,
}

impl EapAwaited {
    fn handle(
        self: Box<Self>,
        _agreed: &Agreed,
        desk: &AuthDesk<'_>,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<Verdict, Refused> {
        let Self { server, rounds, peer_id, wishes } = *self;
        let packet = payloads.iter().find_map(|payload| match payload {
            Payload::Eap(packet) => Some(packet),
            _ => None,
        });
        let packet = packet.ok_or(Refused::Incomplete("the EAP payload"))?;
        if rounds >= MAX_ROUNDS {
            return Err(Refused::Eap);
        }
        match server.handle(&packet.data, &desk.settings.users, rng) {
            EapServerStep::Request(server, data) => {
                let next = Self { server, rounds: rounds + 1, peer_id, wishes };
                Ok(Verdict::Next(AuthState::Eap(Box::new(next)), vec![eap(data)]))
            }
            EapServerStep::Success { packet, msk, user } => {
                let next = ProofAwaited { msk, user, peer_id, wishes };
                Ok(Verdict::Next(AuthState::Proof(Box::new(next)), vec![eap(packet)]))
            }
            EapServerStep::Failure { packet, user } => {
                let refused = user.map_or(Refused::Eap, Refused::Login);
                Ok(Verdict::Refused(refused, vec![eap(packet)]))
            }
        }
    }
}

/// EAP-Success was sent.
pub struct ProofAwaited {
    msk: Zeroizing<[u8; 64]>,
    user: String,
    peer_id: Identification,
    wishes: Wishes,
}

impl std::fmt::Debug for ProofAwaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofAwaited").field("user", &self.user).finish_non_exhaustive()
    }
}

impl ProofAwaited {
    fn handle(
        self: Box<Self>,
        agreed: &Agreed,
        desk: &AuthDesk<'_>,
        payloads: &[Payload],
    ) -> Result<Verdict, Refused> {
        let Self { msk, user, peer_id, wishes } = *self;
        let auth = find_auth(payloads).ok_or(Refused::Incomplete("the AUTH payload"))?;
        let octets = client_octets(agreed, &peer_id);
        let proven = auth.method == AuthMethod::SharedKey
            && verify_shared_key_auth(agreed.prf, msk.as_slice(), &octets, &auth.data);
        if !proven {
            return Err(Refused::EapProof(user));
        }
        let proof = vec![shared_key(agreed, msk.as_slice(), &own_octets(agreed, desk))];
        Ok(Verdict::Admitted(Box::new(Admitted { proof, peer_id, name: user, wishes })))
    }
}

/// A request without AUTH wants EAP: the gateway proves itself first.
fn begin_eap(
    agreed: &Agreed,
    desk: &AuthDesk<'_>,
    peer_id: Identification,
    wishes: Wishes,
    rng: &mut dyn CryptoRng,
) -> Result<Verdict, Refused> {
    if desk.settings.users.is_empty() {
        return Err(Refused::EapNotAccepted);
    }
    let mut answer = prove_by_certificate(agreed, desk)?;
    let (server, packet) = EapServer::start(rng);
    answer.push(eap(packet));
    let state = EapAwaited { server, rounds: 0, peer_id, wishes };
    Ok(Verdict::Next(AuthState::Eap(Box::new(state)), answer))
}

/// IDr, our certificates and our signature.
fn prove_by_certificate(agreed: &Agreed, desk: &AuthDesk<'_>) -> Result<Vec<Payload>, Refused> {
    let own: &ClientCertificate = desk.settings.certificate.as_deref().ok_or(Refused::NoCertificate)?;
    let octets = own_octets(agreed, desk);
    let signed = own.key().sign(&agreed.peer_hashes, &octets).map_err(Refused::OurSignature)?;
    let mut payloads = vec![Payload::IdR(desk.settings.identity.clone())];
    payloads.extend(own.chain().iter().map(|der| Payload::Cert(Certificate::x509(der.clone()))));
    let method = AuthMethod::from(signed.method);
    payloads.push(Payload::Auth(Authentication { method, data: signed.data }));
    Ok(payloads)
}

fn verify_certificate(
    desk: &AuthDesk<'_>,
    peer_id: &Identification,
    payloads: &[Payload],
    auth: &Authentication,
    octets: &[u8],
) -> Result<(), Refused> {
    if desk.settings.client_authorities.is_empty() {
        return Err(Refused::CertificatesNotAccepted);
    }
    let chain: Vec<&[u8]> = payloads
        .iter()
        .filter_map(|payload| match payload {
            Payload::Cert(cert) if cert.encoding == CertEncoding::X509Signature => Some(cert.data.as_slice()),
            _ => None,
        })
        .collect();
    let (own, intermediates) = chain.split_first().ok_or(Refused::Incomplete("the CERT payload"))?;
    let expected = IdRef { id_type: peer_id.ty.into(), data: &peer_id.data };
    let anchors = &desk.settings.client_authorities;
    verify_client(own, intermediates, anchors, desk.wall_clock, expected).map_err(Refused::Certificate)?;
    verify_signature(auth.method.into(), &auth.data, own, octets, false).map_err(Refused::Signature)
}

/// What the client signs.
fn client_octets(agreed: &Agreed, peer_id: &Identification) -> Zeroizing<Vec<u8>> {
    auth_octets(agreed.prf, &agreed.request, &agreed.nonce_r, &agreed.keys.sk_pi, &peer_id.body())
}

/// What we sign.
fn own_octets(agreed: &Agreed, desk: &AuthDesk<'_>) -> Zeroizing<Vec<u8>> {
    let identity = desk.settings.identity.body();
    auth_octets(agreed.prf, &agreed.response, &agreed.nonce_i, &agreed.keys.sk_pr, &identity)
}

fn shared_key(agreed: &Agreed, secret: &[u8], octets: &[u8]) -> Payload {
    let data = shared_key_auth(agreed.prf, secret, octets).to_vec();
    Payload::Auth(Authentication { method: AuthMethod::SharedKey, data })
}

fn eap(data: Vec<u8>) -> Payload {
    Payload::Eap(EapMessage { data })
}

fn find_auth(payloads: &[Payload]) -> Option<&Authentication> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Auth(auth) => Some(auth),
        _ => None,
    })
}
