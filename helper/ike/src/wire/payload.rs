//! The chain of payloads: generic header, type, body (RFC 7296 section 3.2).

use zeroize::Zeroize;

use crate::error::WireError;
use crate::wire::auth::Authentication;
use crate::wire::cert::Certificate;
use crate::wire::certreq::CertificateRequest;
use crate::wire::cp::Configuration;
use crate::wire::delete::Delete;
use crate::wire::eap::EapMessage;
use crate::wire::id::Identification;
use crate::wire::ke::KeyExchange;
use crate::wire::nonce::Nonce;
use crate::wire::notify::{Notify, NotifyType};
use crate::wire::reader::Reader;
use crate::wire::sa::SecurityAssociation;
use crate::wire::ts::TrafficSelectors;
use crate::wire::vendor_id::VendorId;

/// More payloads than any real message has.
const MAX_PAYLOADS: usize = 128;
const CRITICAL: u8 = 0x80;
/// Octets of the generic payload header.
pub const GENERIC_HEADER: usize = 4;

/// IANA numbers of the payloads.
pub mod payload_type {
    /// No next payload.
    pub const NONE: u8 = 0;
    /// Security Association.
    pub const SA: u8 = 33;
    /// Key Exchange.
    pub const KE: u8 = 34;
    /// Identification of the initiator.
    pub const ID_I: u8 = 35;
    /// Identification of the responder.
    pub const ID_R: u8 = 36;
    /// Certificate.
    pub const CERT: u8 = 37;
    /// Certificate Request.
    pub const CERTREQ: u8 = 38;
    /// Authentication.
    pub const AUTH: u8 = 39;
    /// Nonce.
    pub const NONCE: u8 = 40;
    /// Notify.
    pub const NOTIFY: u8 = 41;
    /// Delete.
    pub const DELETE: u8 = 42;
    /// Vendor ID.
    pub const VENDOR_ID: u8 = 43;
    /// Traffic Selectors of the initiator.
    pub const TS_I: u8 = 44;
    /// Traffic Selectors of the responder.
    pub const TS_R: u8 = 45;
    /// Encrypted and Authenticated.
    pub const SK: u8 = 46;
    /// Configuration.
    pub const CP: u8 = 47;
    /// Extensible Authentication.
    pub const EAP: u8 = 48;
    /// Encrypted and Authenticated Fragment (RFC 7383).
    pub const SKF: u8 = 53;
}

/// A payload whose type is not known and which is not critical: to be passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPayload {
    /// Its type.
    pub payload_type: u8,
    /// Its critical bit; a received one with the bit set is an error instead.
    pub critical: bool,
    /// Its body.
    pub body: Vec<u8>,
}

/// One payload in the clear. The Encrypted ones are not here: see [`super::EncryptedRef`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Security Association.
    Sa(SecurityAssociation),
    /// Key Exchange.
    Ke(KeyExchange),
    /// Identification of the initiator.
    IdI(Identification),
    /// Identification of the responder.
    IdR(Identification),
    /// Certificate.
    Cert(Certificate),
    /// Certificate Request.
    CertReq(CertificateRequest),
    /// Authentication.
    Auth(Authentication),
    /// Nonce.
    Nonce(Nonce),
    /// Notify.
    Notify(Notify),
    /// Delete.
    Delete(Delete),
    /// Vendor ID.
    VendorId(VendorId),
    /// Traffic Selectors of the initiator.
    TsI(TrafficSelectors),
    /// Traffic Selectors of the responder.
    TsR(TrafficSelectors),
    /// Configuration.
    Cp(Configuration),
    /// Extensible Authentication.
    Eap(EapMessage),
    /// Anything else.
    Unknown(UnknownPayload),
}

/// Notifies hold keys, such as those of a multi-point SA, and tokens.
impl Zeroize for Payload {
    fn zeroize(&mut self) {
        if let Self::Notify(notify) = self {
            notify.data.zeroize();
        }
    }
}

impl Payload {
    /// Its type's number.
    pub fn payload_type(&self) -> u8 {
        match self {
            Payload::Sa(_) => payload_type::SA,
            Payload::Ke(_) => payload_type::KE,
            Payload::IdI(_) => payload_type::ID_I,
            Payload::IdR(_) => payload_type::ID_R,
            Payload::Cert(_) => payload_type::CERT,
            Payload::CertReq(_) => payload_type::CERTREQ,
            Payload::Auth(_) => payload_type::AUTH,
            Payload::Nonce(_) => payload_type::NONCE,
            Payload::Notify(_) => payload_type::NOTIFY,
            Payload::Delete(_) => payload_type::DELETE,
            Payload::VendorId(_) => payload_type::VENDOR_ID,
            Payload::TsI(_) => payload_type::TS_I,
            Payload::TsR(_) => payload_type::TS_R,
            Payload::Cp(_) => payload_type::CP,
            Payload::Eap(_) => payload_type::EAP,
            Payload::Unknown(unknown) => unknown.payload_type,
        }
    }

    fn parse(generic: &GenericPayload<'_>) -> Result<Self, WireError> {
        let body = generic.body;
        let payload = match generic.payload_type {
            payload_type::SA => Payload::Sa(SecurityAssociation::parse(body)?),
            payload_type::KE => Payload::Ke(KeyExchange::parse(body)?),
            payload_type::ID_I => Payload::IdI(Identification::parse(body)?),
            payload_type::ID_R => Payload::IdR(Identification::parse(body)?),
            payload_type::CERT => Payload::Cert(Certificate::parse(body)?),
            payload_type::CERTREQ => Payload::CertReq(CertificateRequest::parse(body)?),
            payload_type::AUTH => Payload::Auth(Authentication::parse(body)?),
            payload_type::NONCE => Payload::Nonce(Nonce::parse(body)?),
            payload_type::NOTIFY => Payload::Notify(Notify::parse(body)?),
            payload_type::DELETE => Payload::Delete(Delete::parse(body)?),
            payload_type::VENDOR_ID => Payload::VendorId(VendorId::parse(body)),
            payload_type::TS_I => Payload::TsI(TrafficSelectors::parse(body)?),
            payload_type::TS_R => Payload::TsR(TrafficSelectors::parse(body)?),
            payload_type::CP => Payload::Cp(Configuration::parse(body)?),
            payload_type::EAP => Payload::Eap(EapMessage::parse(body)?),
            payload_type::SK | payload_type::SKF => return Err(WireError::NestedEncrypted),
            payload_type if generic.critical => {
                return Err(WireError::UnsupportedCriticalPayload { payload_type });
            }
            payload_type => {
                Payload::Unknown(UnknownPayload { payload_type, critical: false, body: body.to_vec() })
            }
        };
        Ok(payload)
    }

    fn emit_body(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Sa(sa) => sa.emit(out),
            Payload::Ke(ke) => ke.emit(out),
            Payload::IdI(id) | Payload::IdR(id) => id.emit(out),
            Payload::Cert(cert) => cert.emit(out),
            Payload::CertReq(request) => request.emit(out),
            Payload::Auth(auth) => auth.emit(out),
            Payload::Nonce(nonce) => nonce.emit(out),
            Payload::Notify(notify) => notify.emit(out),
            Payload::Delete(delete) => delete.emit(out),
            Payload::VendorId(vendor_id) => vendor_id.emit(out),
            Payload::TsI(selectors) | Payload::TsR(selectors) => selectors.emit(out),
            Payload::Cp(configuration) => configuration.emit(out),
            Payload::Eap(eap) => eap.emit(out),
            Payload::Unknown(unknown) => out.extend_from_slice(&unknown.body),
        }
    }

    fn critical_bit(&self) -> u8 {
        match self {
            Payload::Unknown(unknown) if unknown.critical => CRITICAL,
            Payload::Unknown(_)
            | Payload::Sa(_)
            | Payload::Ke(_)
            | Payload::IdI(_)
            | Payload::IdR(_)
            | Payload::Cert(_)
            | Payload::CertReq(_)
            | Payload::Auth(_)
            | Payload::Nonce(_)
            | Payload::Notify(_)
            | Payload::Delete(_)
            | Payload::VendorId(_)
            | Payload::TsI(_)
            | Payload::TsR(_)
            | Payload::Cp(_)
            | Payload::Eap(_) => 0,
        }
    }
}

/// Reads a chain of payloads, the content of an Encrypted payload, whose first one is of type `first_type`.
///
/// # Errors
/// The chain or one of its payloads is malformed, or there is an Encrypted payload or an unknown critical one in it.
pub fn parse_payloads(first_type: u8, octets: &[u8]) -> Result<Vec<Payload>, WireError> {
    let mut reader = Reader::new(octets, "a chain of payloads");
    let mut next = first_type;
    let mut payloads = Vec::new();
    while next != payload_type::NONE {
        let generic = GenericPayload::read(next, &mut reader)?;
        next = generic.next;
        push_bounded(&mut payloads, &generic)?;
    }
    if !reader.is_empty() {
        return Err(WireError::TrailingOctets);
    }
    Ok(payloads)
}

/// Writes a chain of payloads; returns the type of the first one (zero when there is none) and the octets.
///
/// A body of more than 65,531 octets cannot be written: it is cut there, and the peer will refuse it.
pub fn emit_payloads(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    emit_chain(payloads, payload_type::NONE, &mut out);
    (first_type(payloads, payload_type::NONE), out)
}

/// The notify of this type, if there is one.
pub fn find_notify(payloads: &[Payload], ty: NotifyType) -> Option<&Notify> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Notify(notify) if notify.ty == ty => Some(notify),
        _ => None,
    })
}

/// The type of the first payload, or `otherwise` when there is none.
pub(crate) fn first_type(payloads: &[Payload], otherwise: u8) -> u8 {
    payloads.first().map_or(otherwise, Payload::payload_type)
}

/// Appends a chain of payloads that is followed by one of type `after`.
pub(crate) fn emit_chain(payloads: &[Payload], after: u8, out: &mut Vec<u8>) {
    let followers = payloads.iter().skip(1).map(Payload::payload_type).chain(std::iter::once(after));
    for (payload, next) in payloads.iter().zip(followers) {
        let start = out.len();
        out.extend_from_slice(&[next, payload.critical_bit(), 0, 0]);
        payload.emit_body(out);
        let length = out.len() - start;
        let stated = u16::try_from(length).unwrap_or_else(|_| {
            tracing::error!(payload_type = payload.payload_type(), length, "payload too long, cut");
            u16::MAX
        });
        out.truncate(start + usize::from(stated));
        if let Some(field) = out.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&stated.to_be_bytes());
        }
    }
}

/// Adds a payload to those read so far.
pub(crate) fn push_bounded(
    payloads: &mut Vec<Payload>,
    generic: &GenericPayload<'_>,
) -> Result<(), WireError> {
    if payloads.len() == MAX_PAYLOADS {
        return Err(WireError::TooMany { what: "payloads", limit: MAX_PAYLOADS });
    }
    payloads.push(Payload::parse(generic)?);
    Ok(())
}

/// A payload of which only the generic header has been read.
#[derive(Debug)]
pub(crate) struct GenericPayload<'a> {
    pub(crate) payload_type: u8,
    pub(crate) next: u8,
    critical: bool,
    pub(crate) body: &'a [u8],
}

impl<'a> GenericPayload<'a> {
    /// Reads the generic header of a payload of type `payload_type`, and takes its body.
    pub(crate) fn read(payload_type: u8, reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let next = reader.u8()?;
        let critical = reader.u8()? & CRITICAL != 0;
        let length = usize::from(reader.u16()?);
        let Some(inner) = length.checked_sub(GENERIC_HEADER) else {
            return Err(WireError::BadLength { what: "a payload", length });
        };
        Ok(GenericPayload { payload_type, next, critical, body: reader.take(inner)? })
    }
}
