//! strongSwan's profile for Android: UTF-8 JSON, MIME type `application/vnd.strongswan.profile`.
//!
//! What the format can say and this client does not do is refused with the key's name; strongSwan's own app drops
//! unknown types and numbers out of range in silence, which is how users end up with another login than the
//! one they were given.

use base64::Engine as _;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use serde_json::Value;

use crate::import::{Format, Import};
use crate::json::{Object, Places};
use crate::model::{
    Address, Auth, Crypto, Dns, Gateway, Method, MultiPointSa, Paths, Profile, Timing, Tunnel,
};
use crate::{ProfileError, Secret, Secrets};

/// Reads a `.sswan` file.
pub(crate) fn import(text: &str) -> Result<Import, ProfileError> {
    let value: Value = serde_json::from_str(text).map_err(|error| ProfileError::Syntax {
        line: Some(error.line()),
        message: format!("this is not valid JSON: {error}"),
    })?;
    let Value::Object(map) = value else {
        return Err(ProfileError::NotAProfile { found: "JSON that is not an object".to_owned() });
    };
    if !["uuid", "type", "remote"].iter().any(|key| map.contains_key(*key)) {
        return Err(ProfileError::NotAProfile {
            found: "JSON without `uuid`, `type` and `remote`".to_owned(),
        });
    }
    let places = Places::of(text);
    places.check_once()?;
    let mut warnings = Vec::new();
    let mut file = Object::new("", map, &places);

    check_uuid(&mut file)?;
    let name = file.required("name", "the profile's name")?;
    let method = method(&mut file)?;
    let gateway = gateway(&mut file, &mut warnings)?;
    let (auth, secrets) = local(&mut file, method, &mut warnings)?;
    let crypto = crypto(&mut file)?;
    let tunnel = tunnel(&mut file, &mut warnings)?;
    let dns = dns(&mut file)?;
    let mut timing = Timing::default();
    if let Some(seconds) = file.number("nat-keepalive", 10, 120)? {
        timing.nat_keepalive = u32::try_from(seconds).unwrap_or(timing.nat_keepalive);
    }
    match file.bool("ipv6-transport")? {
        None | Some(true) => {}
        Some(false) => {
            return Err(
                file.error("ipv6-transport", "false is not supported: IPv6 is used when the gateway has it")
            );
        }
    }
    refuse_the_rest(&mut file)?;
    file.finish(&mut warnings);

    let profile = Profile {
        name,
        gateway,
        auth,
        crypto,
        address: Address::default(),
        tunnel,
        dns,
        timing,
        paths: Paths::default(),
        multi_point_sa: MultiPointSa::default(),
    };
    profile.check(&secrets).map_err(|error| in_their_words(error, &places))?;
    Ok(Import { format: Format::Sswan, profile, secrets, warnings })
}

fn check_uuid(file: &mut Object<'_>) -> Result<(), ProfileError> {
    let uuid = file.required("uuid", "the profile's unique identifier")?;
    let groups: Vec<&str> = uuid.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(file.error("uuid", format!("`{uuid}` is not a UUID")));
    }
    Ok(())
}

fn method(file: &mut Object<'_>) -> Result<Method, ProfileError> {
    let kind =
        file.required("type", "one of ikev2-eap, ikev2-cert, ikev2-cert-eap, ikev2-eap-tls, ikev2-byod-eap")?;
    match kind.as_str() {
        "ikev2-eap" => Ok(Method::EapMschapv2),
        "ikev2-cert" => Ok(Method::Certificate),
        "ikev2-cert-eap" | "ikev2-eap-tls" | "ikev2-byod-eap" => Err(file.error(
            "type",
            format!("`{kind}` is not supported by this version; ikev2-eap and ikev2-cert are"),
        )),
        _ => Err(file
            .error("type", format!("`{kind}` is not known; this version imports ikev2-eap and ikev2-cert"))),
    }
}

fn gateway(file: &mut Object<'_>, warnings: &mut Vec<String>) -> Result<Gateway, ProfileError> {
    let Some(mut remote) = file.object("remote")? else {
        return Err(file.error("remote", "required: an object with the gateway's `addr`"));
    };
    let address = remote.required("addr", "the gateway's host name or address")?;
    let port = remote.number("port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok());
    let identity = remote.string("id")?;
    let ca = match remote.string("cert")? {
        None => Vec::new(),
        Some(text) => vec![certificate(&remote, &text)?],
    };
    if remote.bool("certreq")? == Some(false) {
        return Err(
            remote.error("certreq", "false is not supported: the client always names the CAs it trusts")
        );
    }
    if let Some(mut revocation) = remote.object("revocation")? {
        for key in ["crl", "ocsp", "strict"] {
            if revocation.bool(key)? == Some(true) {
                return Err(
                    revocation.error(key, "true is not supported: revocation is not checked by this version")
                );
            }
        }
        revocation.finish(warnings);
    }
    remote.finish(warnings);
    Ok(Gateway { addresses: vec![address], port: port.unwrap_or(500), identity, ca })
}

fn certificate(remote: &Object<'_>, text: &str) -> Result<String, ProfileError> {
    let der = base64_of(text).map_err(|problem| remote.error("cert", problem))?;
    // A certificate is an ASN.1 SEQUENCE; the engine reads the rest.
    if der.first() != Some(&0x30) {
        return Err(remote.error("cert", "is not a certificate (DER in base64)"));
    }
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config))
}

fn local(
    file: &mut Object<'_>,
    method: Method,
    warnings: &mut Vec<String>,
) -> Result<(Auth, Secrets), ProfileError> {
    let mut auth = Auth { method, identity: None, user: None, certificate: None };
    let mut secrets = Secrets::default();
    let Some(mut local) = file.object("local")? else { return Ok((auth, secrets)) };
    auth.identity = local.string("id")?;
    auth.user = local.string("eap_id")?;
    if auth.user.is_some() && !method.uses_password() {
        return Err(local.error("eap_id", "has no meaning with type ikev2-cert"));
    }
    secrets.password = local.string("shared_secret")?.map(Secret::new);
    if secrets.password.is_some() && !method.uses_password() {
        return Err(local.error("shared_secret", "has no meaning with type ikev2-cert"));
    }
    if let Some(text) = local.string("p12")? {
        if !method.uses_certificate() {
            return Err(local.error("p12", "has no meaning with type ikev2-eap"));
        }
        base64_of(&text).map_err(|problem| local.error("p12", problem))?;
        secrets.pkcs12 = Some(Secret::new(text.split_whitespace().collect()));
    }
    if local.bool("rsa-pss")? == Some(true) {
        return Err(
            local.error("rsa-pss", "true is not supported: the gateway decides on the signature scheme")
        );
    }
    local.finish(warnings);
    Ok((auth, secrets))
}

fn crypto(file: &mut Object<'_>) -> Result<Crypto, ProfileError> {
    let mut crypto = Crypto::default();
    if let Some(text) = file.string("ike-proposal")? {
        crypto.ike = vec![text.to_ascii_lowercase()];
    }
    if let Some(text) = file.string("esp-proposal")? {
        crypto.esp = vec![text.to_ascii_lowercase()];
    }
    Ok(crypto)
}

fn tunnel(file: &mut Object<'_>, warnings: &mut Vec<String>) -> Result<Tunnel, ProfileError> {
    let mut tunnel = Tunnel::default();
    if let Some(mtu) = file.number("mtu", 1280, 1500)? {
        tunnel.mtu = u16::try_from(mtu).unwrap_or_default();
    }
    if let Some(mut split) = file.object("split-tunneling")? {
        for text in split.list("subnets")? {
            tunnel.routes.extend(networks(&text).map_err(|problem| split.error("subnets", problem))?);
        }
        for text in split.list("excluded")? {
            tunnel.exclude.extend(networks(&text).map_err(|problem| split.error("excluded", problem))?);
        }
        for key in ["block-ipv4", "block-ipv6"] {
            if split.bool(key)? == Some(true) {
                return Err(split.error(key, "true is not supported by this version"));
            }
        }
        split.finish(warnings);
    }
    Ok(tunnel)
}

fn dns(file: &mut Object<'_>) -> Result<Dns, ProfileError> {
    let mut dns = Dns::default();
    for text in file.list("dns-servers")? {
        let server =
            text.parse().map_err(|_| file.error("dns-servers", format!("`{text}` is not an IP address")))?;
        dns.servers.push(server);
    }
    Ok(dns)
}

/// Known keys that change what the tunnel does and that this version cannot honour.
fn refuse_the_rest(file: &mut Object<'_>) -> Result<(), ProfileError> {
    for (key, what) in [
        ("proxy", "an HTTP proxy"),
        ("apps", "a tunnel for some applications only"),
        ("excluded-apps", "a tunnel without some applications"),
    ] {
        if file.present(key) {
            return Err(file.error(key, format!("{what} is not supported by this version")));
        }
    }
    Ok(())
}

/// `10.0.0.0/8`, a single address, or a range `10.0.0.1-10.0.0.9`.
fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    use std::net::IpAddr;
    let wrong = || format!("`{text}` is neither a network (10.0.0.0/8), an address nor a range");
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(vec![net.trunc()]);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(vec![IpNet::from(address)]);
    }
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
            Ok(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) if first <= last => {
            Ok(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => Err(wrong()),
    }
}

fn base64_of(text: &str) -> Result<Vec<u8>, String> {
    let text: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| format!("is not base64: {error}"))
}

/// The checks of the native format name its own keys; the reader has another file before them.
fn in_their_words(error: ProfileError, places: &Places) -> ProfileError {
    let ProfileError::Key { key, line, problem } = error else { return error };
    let theirs = match key.as_str() {
        "gateway.address" | "gateway.addresses" => "remote.addr",
        "gateway.port" => "remote.port",
        "gateway.identity" => "remote.id",
        "gateway.ca" => "remote.cert",
        "auth.identity" => "local.id",
        "auth.user" => "local.eap_id",
        "crypto.ike" => "ike-proposal",
        "crypto.esp" => "esp-proposal",
        "tunnel.mtu" => "mtu",
        other => other,
    };
    ProfileError::Key { line: line.or_else(|| places.line(theirs)), key: theirs.to_owned(), problem }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({
            "uuid": "01234567-89ab-cdef-0123-456789abcdef",
            "name": "Example",
            "type": "ikev2-eap",
            "remote": { "addr": "vpn.example.com" },
        })
    }

    fn with(pointer: &str, value: Value) -> Result<Import, ProfileError> {
        let mut file = minimal();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        if file.pointer(parent).is_none() {
            *file.as_object_mut().unwrap().entry(parent.trim_start_matches('/')).or_insert(json!({})) =
                json!({});
        }
        file.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        import(&serde_json::to_string_pretty(&file).unwrap())
    }

    fn refused_key(result: Result<Import, ProfileError>) -> String {
        match result.unwrap_err() {
            ProfileError::Key { key, line, .. } => {
                assert!(line.is_some(), "no line for {key}");
                key
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_minimal_file_becomes_an_eap_profile() {
        let import = import(&minimal().to_string()).unwrap();
        assert_eq!(import.profile.auth.method, Method::EapMschapv2);
        assert_eq!(import.profile.gateway.addresses, ["vpn.example.com"]);
        assert!(import.warnings.is_empty() && import.secrets.is_empty());
    }

    #[test]
    fn everything_that_can_be_honoured_is() {
        let file = json!({
            "split-tunneling": { "excluded": ["10.9.0.1-10.9.0.3"], "subnets": "10.0.0.0/8 fd00::/8" },
            "nat-keepalive": 30, "mtu": 1300, "dns-servers": ["10.0.0.53", "fd00::53"],
            "esp-proposal": "aes128gcm16", "ike-proposal": "aes256-sha256-ecp384",
            "local": { "shared_secret": "hunter2", "eap_id": "alice", "id": "alice@example.com" },
            "remote": { "id": "gw.example.com", "port": 4500, "addr": "192.0.2.1", "cert": "MAA=" },
            "type": "ikev2-eap", "name": "Voll", "uuid": "01234567-89AB-cdef-0123-456789abcdef",
        });
        let import = import(&file.to_string()).unwrap();
        let profile = import.profile;
        assert_eq!(
            (profile.gateway.port, profile.gateway.identity.as_deref()),
            (4500, Some("gw.example.com"))
        );
        assert!(profile.gateway.ca[0].starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(profile.auth.user.as_deref(), Some("alice"));
        assert_eq!(profile.auth.identity.as_deref(), Some("alice@example.com"));
        assert_eq!(import.secrets.password.as_ref().map(Secret::expose), Some("hunter2"));
        assert_eq!(profile.crypto.ike, ["aes256-sha256-ecp384"]);
        assert_eq!((profile.tunnel.mtu, profile.timing.nat_keepalive), (1300, 30));
        let nets = |list: &[IpNet]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(nets(&profile.tunnel.routes), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(nets(&profile.tunnel.exclude), ["10.9.0.1/32", "10.9.0.2/31"]);
        assert_eq!(profile.dns.servers.len(), 2);
        assert!(!profile.to_toml().contains("hunter2"));
    }

    #[test]
    fn an_unknown_key_is_a_warning_that_names_it() {
        let import = with("/remote/send_certreq", json!(true)).unwrap();
        assert_eq!(import.warnings.len(), 1);
        assert!(import.warnings[0].contains("`remote.send_certreq`"), "{:?}", import.warnings);
        assert!(import.warnings[0].starts_with("line "));
    }

    #[test]
    fn a_known_key_that_cannot_be_honoured_is_an_error_that_names_it() {
        for (pointer, value) in [
            ("/type", json!("ikev2-eap-tls")),
            ("/type", json!("ikev1-psk")),
            ("/remote/port", json!(0)),
            ("/remote/port", json!(65536)),
            ("/remote/port", json!("500")),
            ("/remote/cert", json!("%%%")),
            ("/remote/certreq", json!(false)),
            ("/remote/addr", json!("not a host")),
            ("/local/rsa-pss", json!(true)),
            ("/local/p12", json!("MAA=")),
            ("/mtu", json!(1279)),
            ("/mtu", json!(1501)),
            ("/nat-keepalive", json!(9)),
            ("/nat-keepalive", json!(121)),
            ("/ipv6-transport", json!(false)),
            ("/dns-servers", json!(["dns.example.com"])),
            ("/proxy", json!({ "host": "proxy", "port": 8080 })),
            ("/apps", json!(["org.example"])),
            ("/excluded-apps", json!([])),
            ("/split-tunneling/subnets", json!(["10.0.0.0/33"])),
            ("/split-tunneling/block-ipv6", json!(true)),
            ("/uuid", json!("1234")),
        ] {
            let key = refused_key(with(pointer, value.clone()));
            assert_eq!(key, pointer.trim_start_matches('/').replace('/', "."), "{pointer} = {value}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error() {
        let text = minimal().to_string().replacen('{', "{\"name\": \"Other\",", 1);
        assert_eq!(refused_key(import(&text)), "name");
    }

    #[test]
    fn revocation_that_would_have_to_be_checked_is_refused() {
        let key = refused_key(with("/remote/revocation", json!({ "strict": true })));
        assert_eq!(key, "remote.revocation.strict");
        assert!(with("/remote/revocation", json!({ "crl": false, "ocsp": false })).is_ok());
    }

    #[test]
    fn json_that_is_no_profile_says_so() {
        assert!(matches!(import("{\"a\": 1}"), Err(ProfileError::NotAProfile { .. })));
        assert!(matches!(import("{"), Err(ProfileError::Syntax { line: Some(1), .. })));
    }
}
