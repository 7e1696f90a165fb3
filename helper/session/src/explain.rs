//! What went wrong, in words for a person: what failed, why, and what to do.

use ropewalk_ike::auth::PkiError;
use ropewalk_ike::exchange::initiator::HandshakeError;
use ropewalk_ike::wire::NotifyType;

/// The kinds of failure that scripts tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something else.
    Failed,
    /// One side did not accept the other's identity or proof.
    Authentication,
    /// Nobody answers.
    Unreachable,
    /// The two ends have no algorithm in common.
    NoProposal,
    /// The profile cannot be used.
    Profile,
}

/// A failure, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its kind.
    pub cause: Cause,
    /// What failed and why, one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Explanation {
    /// Puts the three together.
    pub fn new(cause: Cause, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { cause, message: message.into(), hint: hint.into() }
    }

    /// Explains the end of an attempt to reach `gateway`.
    #[must_use]
    pub fn of_handshake(error: &HandshakeError, gateway: &str, offered: &str) -> Self {
        match error {
            HandshakeError::NoAnswer { after_init: false } => Self::new(
                Cause::Unreachable,
                format!("The gateway {gateway} does not answer."),
                "Check the network and the gateway's address. A firewall may block UDP ports 500 and 4500.",
            ),
            HandshakeError::NoAnswer { after_init: true } => Self::new(
                Cause::Unreachable,
                format!("The gateway {gateway} answered at first and then fell silent."),
                "UDP port 4500 or large packets may be blocked on the way, or the gateway's user database is slow.",
            ),
            HandshakeError::NoProposalChosen => Self::new(
                Cause::NoProposal,
                format!("The gateway {gateway} accepts none of the proposed algorithms ({offered})."),
                "Ask the administrator what the gateway accepts and set crypto.ike in the profile.",
            ),
            HandshakeError::ChildRefused(NotifyType::NoProposalChosen) => Self::new(
                Cause::NoProposal,
                format!("The gateway {gateway} accepts none of the algorithms proposed for the tunnel."),
                "Ask the administrator what the gateway accepts and set crypto.esp in the profile.",
            ),
            HandshakeError::ChildRefused(NotifyType::TsUnacceptable) => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} grants none of the networks that the profile asks for."),
                "Check tunnel.routes in the profile against what the gateway offers.",
            ),
            HandshakeError::ChildRefused(
                NotifyType::InternalAddressFailure | NotifyType::FailedCpRequired,
            ) => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} has no inner address for this client."),
                "Its address pool may be used up: try again later or ask the administrator.",
            ),
            HandshakeError::ChildRefused(notify) | HandshakeError::Refused(notify) => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} refused the connection ({notify})."),
                "Ask the administrator to look into the gateway's log.",
            ),
            HandshakeError::NoNatTraversal => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} does not support NAT traversal."),
                "Ropewalk carries ESP in UDP only: NAT traversal must be switched on at the gateway.",
            ),
            HandshakeError::AuthenticationFailed => Self::new(
                Cause::Authentication,
                format!("The gateway {gateway} refused our authentication."),
                "Check the identity, and the password, key or certificate. The gateway may also not know the identity asked for.",
            ),
            HandshakeError::EapRefused(failure) => {
                let said = failure.message.as_deref().map(|text| format!(" It says: {}", printable(text)));
                Self::new(
                    Cause::Authentication,
                    format!(
                        "The gateway {gateway} refused the user name or password.{}",
                        said.unwrap_or_default()
                    ),
                    "Enter them again. If they are right, the account may be locked.",
                )
            }
            HandshakeError::Eap(error) => Self::new(
                Cause::Authentication,
                format!("The login at {gateway} failed: {error}."),
                "Ask the administrator whether the gateway offers EAP-MSCHAPv2.",
            ),
            HandshakeError::EapProof => Self::new(
                Cause::Authentication,
                format!("The gateway {gateway} does not hold the key that the login produced."),
                "The gateway could not prove that it knows the password. Do not go on if this persists: tell the administrator.",
            ),
            HandshakeError::PskMismatch => Self::new(
                Cause::Authentication,
                format!("The gateway {gateway} does not hold the same pre-shared key."),
                "Check the pre-shared key of the profile.",
            ),
            HandshakeError::WrongIdentity { expected, found } => Self::new(
                Cause::Authentication,
                format!("The gateway says to be \"{found}\", the profile expects \"{expected}\"."),
                "Set gateway.identity in the profile if the gateway's name is right.",
            ),
            HandshakeError::Certificate(error) => Self::of_certificate(error, gateway),
            HandshakeError::Signature(error) => Self::new(
                Cause::Authentication,
                format!(
                    "The gateway {gateway} could not prove that it holds its certificate's key: {error}."
                ),
                "Somebody may be in between. Tell the administrator.",
            ),
            HandshakeError::OurSignature(error) => Self::new(
                Cause::Authentication,
                format!("This client cannot sign for the gateway {gateway}: {error}."),
                "Use an RSA or ECDSA key (P-256, P-384) and a gateway that accepts SHA-2 signatures.",
            ),
            HandshakeError::NothingToPropose => Self::new(
                Cause::Profile,
                "The profile's proposals name no usable key exchange group.".to_owned(),
                "Add one to crypto.ike, for example aes256gcm16-prfsha384-x25519.",
            ),
            HandshakeError::Misbehaved(error) => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} broke the protocol: {error}."),
                "Report this together with the gateway's name and version.",
            ),
            HandshakeError::Crypto(error) => Self::new(
                Cause::Failed,
                format!("The keys for {gateway} cannot be used: {error}."),
                "Report this together with the gateway's name and version.",
            ),
        }
    }

    fn of_certificate(error: &PkiError, gateway: &str) -> Self {
        Self::new(
            Cause::Authentication,
            format!("The certificate of the gateway {gateway} is not acceptable: {error}."),
            "Check gateway.ca and gateway.identity in the profile, and this computer's clock.",
        )
    }
}

/// Text from a peer, fit for one line of a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
