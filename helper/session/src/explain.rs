//! What went wrong, in words for a person: what failed, why, and what to do.

use ropewalk_ike::auth::PkiError;
use ropewalk_ike::eap::EapFailure;
use ropewalk_ike::error::PeerMisbehaved;
use ropewalk_ike::exchange::initiator::HandshakeError;
use ropewalk_ike::proposal::{EspProposal, group_name};
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
    /// The gateway or its machine was heard of, so that its silence is not the network's.
    pub heard: bool,
}

/// What is known besides the error.
#[derive(Clone, Debug, Default)]
pub struct Circumstances<'a> {
    /// The gateway as the profile names it.
    pub gateway: &'a str,
    /// What was proposed for the IKE_SA.
    pub ike: String,
    /// What was proposed for the tunnel.
    pub esp: String,
    /// Transport mode was asked for (RFC 3884).
    pub transport: bool,
    /// The first of those with a key exchange of its own, when it has none, and without when it has one.
    pub other_pfs: Option<String>,
    /// What the gateway would take for the IKE_SA, when it was asked.
    pub would_take: Option<String>,
    /// This computer's clock says what cannot be.
    pub clock_is_wrong: bool,
    /// What the system told of the way there; unauthenticated.
    pub unreached: Option<Unreached>,
    /// The inner address was to come by DHCP.
    pub dhcp: bool,
}

/// What the system tells of datagrams that do not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The machine is there, and nothing listens at the port.
    NothingListens,
    /// There is no way to the machine.
    NoWay,
}

impl Explanation {
    /// Puts the three together.
    pub fn new(cause: Cause, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { cause, message: message.into(), hint: hint.into(), heard: false }
    }

    fn heard(self) -> Self {
        Self { heard: true, ..self }
    }

    /// Explains the end of an attempt.
    #[must_use]
    pub fn of_handshake(error: &HandshakeError, known: &Circumstances<'_>) -> Self {
        let gateway = known.gateway;
        match error {
            HandshakeError::NoAnswer { after_init: false } => Self::of_silence(known),
            HandshakeError::LargeUnanswered { octets } => Self::new(
                Cause::Unreachable,
                format!(
                    "The gateway {gateway} answered at first, but not to a message of {octets} octets, which the network cuts in pieces."
                ),
                "Pieces seem to be lost on the way: switch on IKE fragmentation (RFC 7383) at the gateway, or use smaller certificates.",
            )
            .heard(),
            HandshakeError::NoAnswer { after_init: true } => Self::new(
                Cause::Unreachable,
                format!("The gateway {gateway} answered at first and then fell silent."),
                "UDP port 4500 or large packets may be blocked on the way, or the gateway's user database is slow.",
            )
            .heard(),
            HandshakeError::NoProposalChosen => Self::of_proposals(known),
            HandshakeError::Misbehaved(PeerMisbehaved::GroupNotOffered { group }) => {
                let group = group_name(*group).to_lowercase().replace('-', "");
                Self::new(
                    Cause::NoProposal,
                    format!(
                        "The gateway {gateway} wants the key exchange {group}, which is not among the proposed algorithms ({}).",
                        known.ike
                    ),
                    format!("Add {group} to crypto.ike in the profile, if the administrator agrees."),
                )
            }
            HandshakeError::ChildRefused(NotifyType::NoProposalChosen) if known.transport => Self::new(
                Cause::NoProposal,
                format!(
                    "The gateway {gateway} has no transport mode, which IIPtran needs, or accepts none of the algorithms proposed for it ({}).",
                    known.esp
                ),
                "Ask the administrator whether IIPtran (RFC 3884) is offered to this client, and with which algorithms.",
            ),
            HandshakeError::ChildRefused(NotifyType::NoProposalChosen) => Self::new(
                Cause::NoProposal,
                format!(
                    "The gateway {gateway} accepts none of the algorithms proposed for the tunnel ({}).",
                    known.esp
                ),
                format!(
                    "Ask the administrator what the gateway accepts and set crypto.esp in the profile. {}",
                    match &known.other_pfs {
                        Some(other) => format!(
                            "If the difference is the tunnel's own key exchange (PFS), that is esp = [\"{other}\"]."
                        ),
                        None => String::new(),
                    }
                )
                .trim_end(),
            ),
            HandshakeError::ChildRefused(
                NotifyType::TsUnacceptable
                | NotifyType::FailedCpRequired
                | NotifyType::InternalAddressFailure,
            ) if known.dhcp => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} does not let its clients ask a DHCP server for an address."),
                "Ask the administrator for DHCP over IPsec (RFC 3456) at the gateway, or set address.source = \"config-payload\" in \
                 the profile.",
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
            HandshakeError::ChildRefused(NotifyType::UseTransportMode) => Self::new(
                Cause::NoProposal,
                format!("The gateway {gateway} does not agree to transport mode, which IIPtran needs."),
                "Ask the administrator to offer IIPtran (RFC 3884) to this client, or set tunnel.mode = \"tunnel\" in the profile.",
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
            HandshakeError::EapRefused(failure) => Self::of_login(failure, gateway),
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
            HandshakeError::Certificate(error) => Self::of_certificate(error, known),
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
            HandshakeError::Redirected(to) => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} sends its clients to {to}."),
                "Set gateway.address in the profile to it.",
            ),
            HandshakeError::Closed => Self::new(
                Cause::Failed,
                format!("The gateway {gateway} ended the connection before it carried anything."),
                "Ask the administrator to look into the gateway's log.",
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

    fn of_login(failure: &EapFailure, gateway: &str) -> Self {
        let said = failure.message.as_deref().map(|text| format!(" It says: {}", printable(text)));
        let said = said.unwrap_or_default();
        let (message, hint) = match (failure.wanted, failure.code) {
            (Some(method), _) => (
                format!(
                    "The gateway {gateway} wants {}. Ropewalk offered user name and password by EAP-MSCHAPv2 instead, and was refused.",
                    login_method(method)
                ),
                "Ask the administrator whether EAP-MSCHAPv2 or a certificate can be used with this gateway.",
            ),
            (None, Some(646)) => (
                format!("The gateway {gateway} does not let this account log in at this time of day.{said}"),
                "Try again later, or ask the administrator for the account's hours.",
            ),
            (None, Some(647)) => (
                format!("The gateway {gateway} says that this account is disabled.{said}"),
                "Only the administrator can enable it.",
            ),
            (None, Some(648)) => (
                format!("The gateway {gateway} says that the password has expired.{said}"),
                "Change it where your organisation lets you, then connect with the new one.",
            ),
            (None, Some(649)) => (
                format!("The gateway {gateway} says that this account may not use the VPN.{said}"),
                "Ask the administrator to allow it.",
            ),
            (None, _) => (
                format!("The gateway {gateway} refused the user name or password.{said}"),
                "Enter them again. If they are right, the account may be locked, or a one-time code may be wanted besides.",
            ),
        };
        Self::new(Cause::Authentication, message, hint)
    }

    fn of_silence(known: &Circumstances<'_>) -> Self {
        let gateway = known.gateway;
        match known.unreached {
            Some(Unreached::NothingListens) => Self::new(
                Cause::Unreachable,
                format!("The machine {gateway} is there, but no gateway answers on it."),
                "Its VPN service may be down, or gateway.address or gateway.port in the profile is wrong.",
            )
            .heard(),
            Some(Unreached::NoWay) => Self::new(
                Cause::Unreachable,
                format!(
                    "The gateway {gateway} does not answer: the network says that there is no way to it."
                ),
                "Check the network connection and gateway.address in the profile.",
            ),
            None => Self::new(
                Cause::Unreachable,
                format!("The gateway {gateway} does not answer."),
                "Check the network and the gateway's address. A firewall may block UDP ports 500 and 4500.",
            ),
        }
    }

    fn of_proposals(known: &Circumstances<'_>) -> Self {
        let Circumstances { gateway, ike, .. } = known;
        let refused = format!("The gateway {gateway} accepts none of the proposed algorithms ({ike}).");
        match &known.would_take {
            Some(suite) => Self::new(
                Cause::NoProposal,
                format!("{refused} It would take {suite}."),
                format!(
                    "Set ike = [\"{suite}\"] under [crypto] in the profile, if the administrator agrees."
                ),
            ),
            None => Self::new(
                Cause::NoProposal,
                refused,
                "Ask the administrator what the gateway accepts and set crypto.ike in the profile.",
            ),
        }
    }

    fn of_certificate(error: &PkiError, known: &Circumstances<'_>) -> Self {
        let hint = match error {
            PkiError::Expired { .. } | PkiError::NotYetValid { .. } if known.clock_is_wrong => {
                "The clock of this computer is wrong: set it, and connect again."
            }
            PkiError::Expired { .. } => {
                "The administrator has to renew it. If the date above is not today's, set this computer's clock."
            }
            PkiError::NotYetValid { .. } => {
                "If the date above is not today's, set this computer's clock; else tell the administrator."
            }
            PkiError::IdentityMismatch { .. } => {
                "Set gateway.identity in the profile to a name in the certificate, if that is the right gateway."
            }
            PkiError::UnknownCa { .. } | PkiError::NoTrustAnchors => {
                "Put the authority's certificate into gateway.ca in the profile, if the administrator vouches for it."
            }
            PkiError::NoCertificate
            | PkiError::BadTrustAnchor { .. }
            | PkiError::Malformed
            | PkiError::BadSignature { .. }
            | PkiError::UnsupportedAlgorithm { .. }
            | PkiError::CaAsGateway { .. }
            | PkiError::WrongUsage { .. }
            | PkiError::Constraint { .. }
            | PkiError::Invalid { .. } => {
                "Check gateway.ca and gateway.identity in the profile, or tell the administrator."
            }
        };
        let message = format!("The certificate of the gateway {} is not acceptable: {error}.", known.gateway);
        Self::new(Cause::Authentication, message, hint)
    }
}

/// A proposal for the tunnel with a key exchange of its own, this group, when it has none, and without when it has one.
#[must_use]
pub fn other_pfs(proposal: &EspProposal, group: u16) -> String {
    let name = |group: u16| group_name(group).to_lowercase().replace('-', "");
    let own: Vec<String> = proposal.groups().iter().map(|group| name(*group)).collect();
    let text = proposal.to_string();
    let words = text.split('-').filter(|word| !own.iter().any(|own| own == word));
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    if own.is_empty() {
        words.push(name(group));
    }
    words.join("-")
}

/// What a gateway asks for by an EAP type (IANA's registry of method types).
fn login_method(method: u8) -> String {
    let known = match method {
        4 => "a login by EAP-MD5, which proves nothing of the gateway",
        5 => "a one-time password (EAP-OTP)",
        6 => "a code or password in the clear, as tokens have it (EAP-GTC)",
        13 => "a certificate of the user's by EAP-TLS",
        18 | 23 | 50 => "a SIM card (EAP-SIM or EAP-AKA)",
        21 => "a login inside TLS by EAP-TTLS",
        25 => "a login inside TLS by EAP-PEAP",
        43 => "a login inside TLS by EAP-FAST",
        52 => "a login by EAP-PWD",
        55 => "a login inside TLS by TEAP",
        other => return format!("a login by the EAP method number {other}"),
    };
    known.to_owned()
}

/// Text from a peer, fit for one line of a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
