//! The EAP packet (RFC 3748 section 4) and the messages of EAP-MSCHAPv2 inside it
//! (draft-kamath-pppext-eap-mschapv2-02 section 2).

use super::EapError;

/// EAP type Identity.
pub const TYPE_IDENTITY: u8 = 1;
/// EAP type Notification.
pub const TYPE_NOTIFICATION: u8 = 2;
/// EAP type Nak, in responses only.
pub const TYPE_NAK: u8 = 3;
/// EAP type EAP-MSCHAPv2.
pub const TYPE_MSCHAPV2: u8 = 26;

/// The Code octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EapCode {
    /// 1, from the server.
    Request,
    /// 2, from the client.
    Response,
    /// 3, from the server.
    Success,
    /// 4, from the server.
    Failure,
}

impl EapCode {
    const fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Success => 3,
            Self::Failure => 4,
        }
    }
}

/// A parsed EAP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EapPacket<'a> {
    /// What kind of packet.
    pub code: EapCode,
    /// The Identifier that matches responses to requests.
    pub identifier: u8,
    /// Type and type data of a request or response; `None` in Success and Failure.
    pub method: Option<(u8, &'a [u8])>,
}

impl<'a> EapPacket<'a> {
    /// Parses a packet. Octets after its Length are ignored, as RFC 3748 section 4.1 says.
    ///
    /// # Errors
    /// [`EapError::Malformed`] or [`EapError::UnexpectedCode`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, EapError> {
        let (&[code, identifier, len0, len1], _) =
            octets.split_first_chunk::<4>().ok_or(EapError::Malformed)?;
        let len = usize::from(u16::from_be_bytes([len0, len1]));
        let body = octets.get(4..len).ok_or(EapError::Malformed)?;
        let code = match code {
            1 => EapCode::Request,
            2 => EapCode::Response,
            3 => EapCode::Success,
            4 => EapCode::Failure,
            other => return Err(EapError::UnexpectedCode(other)),
        };
        let method = match code {
            EapCode::Request | EapCode::Response => {
                let (&kind, data) = body.split_first().ok_or(EapError::Malformed)?;
                Some((kind, data))
            }
            EapCode::Success | EapCode::Failure => None,
        };
        Ok(Self { code, identifier, method })
    }

    /// Writes the packet. Type data that does not fit into the Length field is cut off.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some((kind, data)) = self.method {
            body.push(kind);
            body.extend(data.iter().take(usize::from(u16::MAX) - 5));
        }
        let len = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
        let mut out = vec![self.code.number(), self.identifier];
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// A request.
    #[must_use]
    pub const fn request(identifier: u8, kind: u8, data: &'a [u8]) -> Self {
        Self { code: EapCode::Request, identifier, method: Some((kind, data)) }
    }

    /// A response.
    #[must_use]
    pub const fn response(identifier: u8, kind: u8, data: &'a [u8]) -> Self {
        Self { code: EapCode::Response, identifier, method: Some((kind, data)) }
    }

    /// EAP-Success.
    #[must_use]
    pub const fn success(identifier: u8) -> Self {
        Self { code: EapCode::Success, identifier, method: None }
    }

    /// EAP-Failure.
    #[must_use]
    pub const fn failure(identifier: u8) -> Self {
        Self { code: EapCode::Failure, identifier, method: None }
    }
}

/// Op codes of EAP-MSCHAPv2.
mod op {
    pub(super) const CHALLENGE: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const SUCCESS: u8 = 3;
    pub(super) const FAILURE: u8 = 4;
}

/// The type data of an EAP-MSCHAPv2 packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mschapv2Message {
    /// Challenge request.
    Challenge {
        /// MS-CHAPv2-ID.
        id: u8,
        /// The authenticator challenge.
        challenge: [u8; 16],
        /// The server's name.
        name: Vec<u8>,
    },
    /// Response to a challenge.
    Response {
        /// MS-CHAPv2-ID of the challenge.
        id: u8,
        /// The client's challenge.
        peer_challenge: [u8; 16],
        /// The NT-Response.
        nt_response: [u8; 24],
        /// The user name.
        name: Vec<u8>,
    },
    /// Success request: "S=<40 hex digits> M=<message>".
    SuccessRequest {
        /// MS-CHAPv2-ID.
        id: u8,
        /// The message.
        message: Vec<u8>,
    },
    /// Success response, the op code alone.
    SuccessResponse,
    /// Failure request: "E=<code> R=<retry> C=<challenge> V=3 M=<message>".
    FailureRequest {
        /// MS-CHAPv2-ID.
        id: u8,
        /// The message.
        message: Vec<u8>,
    },
    /// Failure response, the op code alone.
    FailureResponse,
}

impl Mschapv2Message {
    /// Parses the type data of a packet of type 26 that came as `code`. MS-Length repeats what EAP's Length says;
    /// servers are known that fill it wrongly, so it is not looked at.
    ///
    /// # Errors
    /// [`EapError::Malformed`]; [`EapError::UnexpectedMessage`] for an op code that is not known in this direction.
    pub fn parse(code: EapCode, data: &[u8]) -> Result<Self, EapError> {
        let (&op, rest) = data.split_first().ok_or(EapError::Malformed)?;
        if code == EapCode::Response {
            match op {
                op::SUCCESS => return Ok(Self::SuccessResponse),
                op::FAILURE => return Ok(Self::FailureResponse),
                _ => {}
            }
        }
        let (&[id, _, _], body) = rest.split_first_chunk::<3>().ok_or(EapError::Malformed)?;
        match (code, op) {
            (EapCode::Request, op::CHALLENGE) => {
                let (&[value_size], body) = body.split_first_chunk::<1>().ok_or(EapError::Malformed)?;
                let (challenge, name) = body.split_first_chunk::<16>().ok_or(EapError::Malformed)?;
                if value_size != 16 {
                    return Err(EapError::Malformed);
                }
                Ok(Self::Challenge { id, challenge: *challenge, name: name.to_vec() })
            }
            (EapCode::Response, op::RESPONSE) => {
                let (&[value_size], body) = body.split_first_chunk::<1>().ok_or(EapError::Malformed)?;
                let (peer_challenge, body) = body.split_first_chunk::<16>().ok_or(EapError::Malformed)?;
                let (_reserved, body) = body.split_first_chunk::<8>().ok_or(EapError::Malformed)?;
                let (nt_response, body) = body.split_first_chunk::<24>().ok_or(EapError::Malformed)?;
                let (&_flags, name) = body.split_first().ok_or(EapError::Malformed)?;
                if value_size != 49 {
                    return Err(EapError::Malformed);
                }
                Ok(Self::Response {
                    id,
                    peer_challenge: *peer_challenge,
                    nt_response: *nt_response,
                    name: name.to_vec(),
                })
            }
            (EapCode::Request, op::SUCCESS) => Ok(Self::SuccessRequest { id, message: body.to_vec() }),
            (EapCode::Request, op::FAILURE) => Ok(Self::FailureRequest { id, message: body.to_vec() }),
            _ => Err(EapError::UnexpectedMessage(op)),
        }
    }

    /// Writes the whole EAP packet with this message.
    #[must_use]
    pub fn emit(&self, identifier: u8) -> Vec<u8> {
        let (code, op, id, body) = match self {
            Self::Challenge { id, challenge, name } => {
                (EapCode::Request, op::CHALLENGE, *id, [&[16], challenge.as_slice(), name].concat())
            }
            Self::Response { id, peer_challenge, nt_response, name } => {
                let body = [&[49], peer_challenge.as_slice(), &[0; 8], nt_response, &[0], name].concat();
                (EapCode::Response, op::RESPONSE, *id, body)
            }
            Self::SuccessRequest { id, message } => (EapCode::Request, op::SUCCESS, *id, message.clone()),
            Self::FailureRequest { id, message } => (EapCode::Request, op::FAILURE, *id, message.clone()),
            Self::SuccessResponse => {
                return EapPacket::response(identifier, TYPE_MSCHAPV2, &[op::SUCCESS]).emit();
            }
            Self::FailureResponse => {
                return EapPacket::response(identifier, TYPE_MSCHAPV2, &[op::FAILURE]).emit();
            }
        };
        let ms_length = u16::try_from(body.len() + 4).unwrap_or(u16::MAX).to_be_bytes();
        let data = [&[op, id], ms_length.as_slice(), &body].concat();
        EapPacket { code, identifier, method: Some((TYPE_MSCHAPV2, &data)) }.emit()
    }
}
