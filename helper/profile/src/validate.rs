//! What a profile must satisfy beyond its syntax: names, ranges, and that a method has what it needs.

use std::net::IpAddr;

use crate::model::{AddressSource, Method, Policy, Profile, TunnelMode};
use crate::{ProfileError, Secrets};

/// Longest name of a profile, in characters.
pub const MAX_NAME_LENGTH: usize = 128;

/// Which of the two kinds of proposal a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalKind {
    /// For the IKE_SA.
    Ike,
    /// For CHILD_SAs.
    Esp,
}

impl Profile {
    /// Checks everything that can be checked without knowing the algorithms; `secrets` are those from the
    /// same file.
    ///
    /// # Errors
    /// Names the first key that is wrong, and what is allowed.
    pub fn check(&self, secrets: &Secrets) -> Result<(), ProfileError> {
        check_name(&self.name).map_err(|problem| ProfileError::key("name", problem))?;
        self.check_gateway()?;
        self.check_auth(secrets)?;
        self.check_proposals(check_proposal_tokens)?;
        self.check_addresses()?;
        self.check_interface()?;
        self.check_timing()?;
        self.check_paths()
    }

    /// Checks each proposal with the caller's parser.
    ///
    /// # Errors
    /// Names the proposal that the parser refuses, with the parser's words.
    pub fn check_proposals(
        &self,
        parse: impl Fn(ProposalKind, &str) -> Result<(), String>,
    ) -> Result<(), ProfileError> {
        for (key, kind, list) in [
            ("crypto.ike", ProposalKind::Ike, &self.crypto.ike),
            ("crypto.esp", ProposalKind::Esp, &self.crypto.esp),
        ] {
            if list.is_empty() {
                return Err(ProfileError::key(key, "must not be empty; leave the key away for the default"));
            }
            for text in list {
                parse(kind, text)
                    .map_err(|problem| ProfileError::key(key, format!("`{text}`: {problem}")))?;
            }
        }
        Ok(())
    }

    fn check_gateway(&self) -> Result<(), ProfileError> {
        if self.gateway.addresses.is_empty() {
            return Err(ProfileError::key("gateway.addresses", "must name at least one host or address"));
        }
        for address in &self.gateway.addresses {
            check_host(address).map_err(|problem| {
                let key =
                    if self.gateway.addresses.len() == 1 { "gateway.address" } else { "gateway.addresses" };
                ProfileError::key(key, problem)
            })?;
        }
        if self.gateway.port == 0 {
            return Err(ProfileError::key("gateway.port", "0 is not a port; allowed are 1 to 65535"));
        }
        check_text("gateway.identity", self.gateway.identity.as_deref())?;
        for pem in &self.gateway.ca {
            check_pem("gateway.ca", pem, &["CERTIFICATE"])?;
        }
        Ok(())
    }

    fn check_auth(&self, secrets: &Secrets) -> Result<(), ProfileError> {
        check_text("auth.identity", self.auth.identity.as_deref())?;
        check_text("auth.user", self.auth.user.as_deref())?;
        let method = self.auth.method;
        if let Some(certificate) = &self.auth.certificate {
            check_pem("auth.certificate", certificate, &["CERTIFICATE"])?;
        }
        if let Some(key) = &secrets.private_key {
            check_private_key(key.expose())?;
        }
        if method.uses_certificate()
            && self.auth.certificate.is_none()
            && secrets.pkcs12.is_none()
            && secrets.private_key.is_some()
        {
            return Err(ProfileError::key(
                "auth.certificate",
                format!(
                    "required with method = \"{}\": the certificate that belongs to `private_key`",
                    method.as_str()
                ),
            ));
        }
        if secrets.psk.as_ref().is_some_and(crate::Secret::is_empty) {
            return Err(ProfileError::key("auth.psk", "must not be empty"));
        }
        let misplaced = |key: &str, needs: &str| {
            Err(ProfileError::key(
                format!("auth.{key}"),
                format!("is not used with method = \"{}\"; {needs}", method.as_str()),
            ))
        };
        if secrets.psk.is_some() && method != Method::Psk {
            return misplaced("psk", "it belongs to method = \"psk\"");
        }
        if secrets.password.is_some() && !method.uses_password() {
            return misplaced("password", "it belongs to the EAP methods with a password");
        }
        if secrets.private_key.is_some() && !method.uses_certificate() {
            return misplaced("private_key", "it belongs to method = \"certificate\" or \"eap-tls\"");
        }
        if secrets.pkcs12.is_some() && !method.uses_certificate() {
            return misplaced("pkcs12", "it belongs to method = \"certificate\" or \"eap-tls\"");
        }
        if secrets.pkcs12_password.is_some() && secrets.pkcs12.is_none() {
            return Err(ProfileError::key("auth.pkcs12_password", "there is no `pkcs12` that it would open"));
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ProfileError> {
        match self.address.source {
            AddressSource::Static if self.address.fixed.is_empty() => Err(ProfileError::key(
                "address.static",
                "required with source = \"static\": the inner addresses, e.g. [\"10.20.0.5/24\"]",
            )),
            AddressSource::ConfigPayload | AddressSource::Dhcp if !self.address.fixed.is_empty() => {
                Err(ProfileError::key("address.static", "is used only with source = \"static\""))
            }
            AddressSource::Static | AddressSource::ConfigPayload | AddressSource::Dhcp => Ok(()),
        }?;
        for domain in &self.dns.domains {
            check_domain(domain).map_err(|problem| ProfileError::key("dns.domains", problem))?;
        }
        let mtu = self.tunnel.mtu;
        if mtu != 0 && !(1280..=9000).contains(&mtu) {
            return Err(ProfileError::key(
                "tunnel.mtu",
                format!("{mtu} is not allowed; 1280 to 9000, or 0 to find it out"),
            ));
        }
        Ok(())
    }

    fn check_interface(&self) -> Result<(), ProfileError> {
        let name = &self.tunnel.interface;
        // IFNAMSIZ is 16 with the terminating zero.
        let printable = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
        if name.len() > 15 || matches!(name.as_str(), "." | "..") || !name.bytes().all(printable) {
            return Err(ProfileError::key(
                "tunnel.interface",
                format!("`{name}` is not the name of a device"),
            ));
        }
        if self.tunnel.mode == TunnelMode::Tunnel {
            return Ok(());
        }
        let refused = |key: &str, why: &str| {
            Err(ProfileError::key(key, format!("does not combine with tunnel.mode = \"iiptran\": {why}")))
        };
        if self.address.source == AddressSource::Dhcp {
            return refused(
                "address.source",
                "the link's addresses come from the profile (`static`) or from the gateway (`config-payload`)",
            );
        }
        if self.multi_point_sa.enabled {
            return refused("multi_point_sa.enabled", "packets go where routes on the interface say");
        }
        if self.paths.address_per_path {
            return refused("paths.address_per_path", "there is one path, and the link has its addresses");
        }
        if !self.tunnel.exclude.is_empty() {
            return refused("tunnel.exclude", "what is not routed into the interface does not go there");
        }
        Ok(())
    }

    fn check_timing(&self) -> Result<(), ProfileError> {
        // The upper ends keep every sum of timers far from overflow; the lower ones keep a typing error from
        // becoming a flood. Short rekey times are legitimate in laboratories.
        let timing = &self.timing;
        for (key, value, low, high) in [
            ("timing.dpd", timing.dpd, 1, 86_400),
            ("timing.nat_keepalive", timing.nat_keepalive, 1, 3_600),
            ("timing.ike_rekey", timing.ike_rekey, 10, 2_592_000),
            ("timing.child_rekey", timing.child_rekey, 10, 2_592_000),
            ("timing.reauth", timing.reauth, 10, 2_592_000),
        ] {
            if value != 0 && !(low..=high).contains(&value) {
                return Err(ProfileError::key(
                    key,
                    format!("{value} is not allowed; {low} to {high} seconds, or 0 for never"),
                ));
            }
        }
        let bytes = timing.child_rekey_bytes;
        if bytes != 0 && bytes < 65_536 {
            return Err(ProfileError::key(
                "timing.child_rekey_bytes",
                format!("{bytes} is not allowed; at least 65536, or 0 for no limit but the cipher's"),
            ));
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), ProfileError> {
        let notify = self.paths.keep_old_ike_sa_notify;
        if notify < 40_960 {
            return Err(ProfileError::key(
                "paths.keep_old_ike_sa_notify",
                format!("{notify} is not allowed; private-use status types are 40960 to 65535"),
            ));
        }
        if self.paths.address_per_path && self.paths.policy != Policy::Failover {
            return Err(ProfileError::key(
                "paths.address_per_path",
                "does not go with this `paths.policy`; what has an address goes by its path, so there is nothing to spread \
                 or to copy: use \"failover\"",
            ));
        }
        if self.paths.address_per_path && self.address.source != AddressSource::ConfigPayload {
            return Err(ProfileError::key(
                "paths.address_per_path",
                "needs `address.source = \"config-payload\"`; the gateway gives the addresses",
            ));
        }
        for interface in &self.paths.interfaces {
            // IFNAMSIZ is 16 with the terminating zero on Linux; other systems use longer, friendly names.
            if interface.is_empty() || interface.len() > 255 || interface.contains(['/', '\0']) {
                return Err(ProfileError::key(
                    "paths.interfaces",
                    format!("`{interface}` is not the name of an interface"),
                ));
            }
        }
        Ok(())
    }
}

/// Checks the name of a profile: what commands, menus and files can carry.
///
/// # Errors
/// Says in words what is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name.trim() != name {
        return Err("must not begin or end with a space".to_owned());
    }
    let length = name.chars().count();
    if length > MAX_NAME_LENGTH {
        return Err(format!("is {length} characters long; allowed are {MAX_NAME_LENGTH}"));
    }
    if name.chars().any(is_unprintable) {
        return Err("must not contain control characters".to_owned());
    }
    if name.starts_with('-') {
        return Err("must not begin with `-` (commands would take it for an option)".to_owned());
    }
    Ok(())
}

/// Checks that a proposal is made of words and hyphens; which words are algorithms is the caller's to know.
///
/// # Errors
/// Says in words what is wrong.
pub fn check_proposal_tokens(_kind: ProposalKind, text: &str) -> Result<(), String> {
    let word =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.len() > 1024 {
        return Err("is too long".to_owned());
    }
    // Commas join several proposals, as in strongSwan.
    if !text.split(',').flat_map(|one| one.trim().split('-')).all(word) {
        return Err("is not a proposal like `aes256gcm16-prfsha384-x25519`".to_owned());
    }
    Ok(())
}

/// Control characters, and the marks that make text run backwards in a menu.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn check_text(key: &str, text: Option<&str>) -> Result<(), ProfileError> {
    let Some(text) = text else { return Ok(()) };
    if text.is_empty() {
        return Err(ProfileError::key(key, "must not be empty; leave the key away for the default"));
    }
    if text.len() > 1024 {
        return Err(ProfileError::key(key, "is longer than 1024 octets"));
    }
    if text.chars().any(is_unprintable) {
        return Err(ProfileError::key(key, "must not contain control characters"));
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // Only digits and dots: a mistyped IPv4 address, not a name.
    let mistyped = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if name.len() > 253 || mistyped || !name.split('.').all(label) {
        return Err(format!("`{host}` is neither a host name nor an IP address"));
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), String> {
    let name = domain.strip_prefix("~").unwrap_or(domain);
    let name = name.strip_prefix('.').unwrap_or(name);
    check_host(name).map_err(|_| format!("`{domain}` is not a domain name"))?;
    if name.parse::<IpAddr>().is_ok() {
        return Err(format!("`{domain}` is an address, not a domain name"));
    }
    Ok(())
}

fn check_pem(key: &str, text: &str, tags: &[&str]) -> Result<(), ProfileError> {
    let blocks = pem::parse_many(text.trim())
        .map_err(|error| ProfileError::key(key, format!("is not PEM: {error}")))?;
    if blocks.is_empty() {
        return Err(ProfileError::key(
            key,
            format!("is not PEM: no `-----BEGIN {}-----`", tags.join("` or `")),
        ));
    }
    match blocks.iter().find(|block| !tags.contains(&block.tag())) {
        Some(block) => {
            Err(ProfileError::key(key, format!("holds a {}; allowed is {}", block.tag(), tags.join(", "))))
        }
        None => Ok(()),
    }
}

fn check_private_key(text: &str) -> Result<(), ProfileError> {
    const KEY: &str = "auth.private_key";
    if text.contains("ENCRYPTED") {
        return Err(ProfileError::key(
            KEY,
            "is encrypted; write it unencrypted (it goes to the secret store)",
        ));
    }
    // OpenSSL writes the curve's name in a block of its own before an SEC1 key.
    check_pem(KEY, text, &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "EC PARAMETERS"])
}
