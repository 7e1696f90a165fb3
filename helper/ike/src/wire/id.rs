//! Identification payloads (RFC 7296 section 3.5): who an end says it is. Their text form is in [`super::id_text`].

use std::net::IpAddr;

use crate::error::WireError;
use crate::wire::reader::Reader;

/// Kinds of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdType {
    /// ID_IPV4_ADDR, 1.
    Ipv4Addr,
    /// ID_FQDN, 2.
    Fqdn,
    /// ID_RFC822_ADDR, 3.
    Rfc822Addr,
    /// ID_IPV6_ADDR, 5.
    Ipv6Addr,
    /// ID_DER_ASN1_DN, 9.
    DerAsn1Dn,
    /// ID_DER_ASN1_GN, 10.
    DerAsn1Gn,
    /// ID_KEY_ID, 11.
    KeyId,
    /// Any other number.
    Other(u8),
}

impl From<u8> for IdType {
    fn from(number: u8) -> Self {
        match number {
            1 => IdType::Ipv4Addr,
            2 => IdType::Fqdn,
            3 => IdType::Rfc822Addr,
            5 => IdType::Ipv6Addr,
            9 => IdType::DerAsn1Dn,
            10 => IdType::DerAsn1Gn,
            11 => IdType::KeyId,
            other => IdType::Other(other),
        }
    }
}

impl From<IdType> for u8 {
    fn from(ty: IdType) -> u8 {
        match ty {
            IdType::Ipv4Addr => 1,
            IdType::Fqdn => 2,
            IdType::Rfc822Addr => 3,
            IdType::Ipv6Addr => 5,
            IdType::DerAsn1Dn => 9,
            IdType::DerAsn1Gn => 10,
            IdType::KeyId => 11,
            IdType::Other(number) => number,
        }
    }
}

/// An identity: its kind and its octets. Read one from a profile with [`str::parse`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identification {
    /// The kind.
    pub ty: IdType,
    /// The octets: an address, ASCII text, DER, or anything.
    pub data: Vec<u8>,
}

impl Identification {
    /// An address.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Identification { ty: IdType::Ipv4Addr, data: v4.octets().to_vec() },
            IpAddr::V6(v6) => Identification { ty: IdType::Ipv6Addr, data: v6.octets().to_vec() },
        }
    }

    /// A domain name.
    pub fn fqdn(name: &str) -> Self {
        Identification { ty: IdType::Fqdn, data: name.as_bytes().to_vec() }
    }

    /// A name with a domain: user@host.
    pub fn rfc822(name: &str) -> Self {
        Identification { ty: IdType::Rfc822Addr, data: name.as_bytes().to_vec() }
    }

    /// A distinguished name in DER.
    pub fn distinguished_name(der: Vec<u8>) -> Self {
        Identification { ty: IdType::DerAsn1Dn, data: der }
    }

    /// Any octets that both ends know.
    pub fn key_id(octets: Vec<u8>) -> Self {
        Identification { ty: IdType::KeyId, data: octets }
    }

    /// The address, when it is one.
    pub fn as_address(&self) -> Option<IpAddr> {
        let data = self.data.as_slice();
        if self.ty == IdType::Ipv4Addr {
            return <[u8; 4]>::try_from(data).ok().map(Into::into);
        }
        if self.ty == IdType::Ipv6Addr {
            return <[u8; 16]>::try_from(data).ok().map(Into::into);
        }
        None
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// The body is shorter than its fixed part, or an address has the wrong length.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "an Identification payload");
        let ty = IdType::from(reader.u8()?);
        reader.array::<3>()?;
        let data = reader.rest();
        let length_fits = match ty {
            IdType::Ipv4Addr => data.len() == 4,
            IdType::Ipv6Addr => data.len() == 16,
            IdType::Fqdn
            | IdType::Rfc822Addr
            | IdType::DerAsn1Dn
            | IdType::DerAsn1Gn
            | IdType::KeyId
            | IdType::Other(_) => true,
        };
        if !length_fits {
            return Err(WireError::BadLength { what: "an address identity", length: data.len() });
        }
        Ok(Identification { ty, data: data.to_vec() })
    }

    /// Writes the payload's body, which is also what AUTH is computed over (RFC 7296 section 2.15).
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.ty.into(), 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }

    /// The payload's body, as AUTH takes it.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit(&mut out);
        out
    }
}
