//! Certificates for tests: authorities, intermediates, gateways, users, and the broken kinds that a client must refuse.
//!
//! RSA keys come from the `openssl` program, because `ring` does not make any; `rcgen` signs with both kinds.

use std::{net::IpAddr, process::Command, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use time::OffsetDateTime;

use crate::{
    error::{LabError, Result},
    process::run,
};

/// What kind of key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// RSA with that many bits.
    Rsa(u32),
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From yesterday for a year.
    Now,
    /// Until yesterday.
    Expired,
    /// From tomorrow on.
    NotYet,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A gateway (serverAuth and the IKE intermediate purpose).
    Gateway,
    /// A user or machine (clientAuth).
    Client,
}

/// A certificate to be issued.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The subject's common name.
    pub name: &'a str,
    /// Alternative names: an address, a mail address (with `@`), else a DNS name.
    pub alternative: &'a [&'a str],
    /// The kind of key.
    pub key: KeyKind,
    /// What for.
    pub purpose: Purpose,
    /// When.
    pub validity: Validity,
}

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its private key.
#[derive(Debug, Clone)]
pub struct Credential {
    /// PEM, `CERTIFICATE`.
    pub certificate: String,
    /// PEM, PKCS#8 `PRIVATE KEY`.
    pub private_key: String,
}

impl Authority {
    /// A root.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn root(name: &str, key: KeyKind) -> Result<Self> {
        let key = key_pair(key)?;
        let params = authority_params(name, 1)?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// An authority below this one.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn intermediate(&self, name: &str, key: KeyKind) -> Result<Self> {
        let key = key_pair(key)?;
        let params = authority_params(name, 0)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate with a fresh key.
    ///
    /// # Errors
    /// When a key or certificate cannot be made.
    pub fn issue(&self, request: &Request<'_>) -> Result<Credential> {
        let key = key_pair(request.key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(request.name);
        for name in request.alternative {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match request.purpose {
            Purpose::Gateway => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                // id-kp-ipsecIKE, RFC 4945 section 5.1.3.12
                ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]),
            ],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        (params.not_before, params.not_after) = period(request.validity);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credential { certificate, private_key: key.serialize_pem() })
    }
}

fn authority_params(name: &str, path_length: u8) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = period(Validity::Now);
    Ok(params)
}

fn distinguished_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::OrganizationName, "Ropewalk Laboratory");
    dn.push(DnType::CommonName, name);
    dn
}

fn alternative_name(name: &str) -> Result<SanType> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let text = Ia5String::try_from(name)?;
    Ok(if name.contains('@') { SanType::Rfc822Name(text) } else { SanType::DnsName(text) })
}

fn period(validity: Validity) -> (OffsetDateTime, OffsetDateTime) {
    const DAY: Duration = Duration::from_secs(86_400);
    let now = OffsetDateTime::now_utc();
    match validity {
        Validity::Now => (now - DAY, now + DAY * 365),
        Validity::Expired => (now - DAY * 30, now - DAY),
        Validity::NotYet => (now + DAY, now + DAY * 30),
    }
}

fn key_pair(kind: KeyKind) -> Result<KeyPair> {
    let bits = match kind {
        KeyKind::P256 => return Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?),
        KeyKind::P384 => return Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?),
        KeyKind::Rsa(bits) => bits,
    };
    let option = format!("rsa_keygen_bits:{bits}");
    let pem = run(
        Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", &option]),
        &[],
        Duration::from_secs(120),
    )?
    .success()?;
    if !pem.stdout.contains("BEGIN PRIVATE KEY") {
        return Err(LabError::Content {
            path: "openssl genpkey".into(),
            problem: "no PKCS#8 key in its output".to_owned(),
        });
    }
    Ok(KeyPair::from_pem_and_sign_algo(&pem.stdout, &rcgen::PKCS_RSA_SHA256)?)
}
