//! The native format: defaults as published, nothing unknown accepted, errors that say where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use ropewalk_profile::{
    AddressSource, Format, Method, Policy, Profile, ProfileError, TunnelMode, UseMetered, detect, import,
    unsupported,
};

const MINIMAL: &str = "version = 1\nname = \"Example Corp\"\n\n[gateway]\naddress = \"vpn.example.com\"\n\n[auth]\nmethod = \"eap-mschapv2\"\n";

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::from_toml(text).map(|parsed| parsed.profile)
}

/// The minimal profile with lines of one more section.
fn with(section: &str) -> String {
    format!("{MINIMAL}\n{section}\n")
}

fn key_and_line(text: &str) -> (String, usize, String) {
    match parse(text).unwrap_err() {
        ProfileError::Key { key, line: Some(line), problem } => (key, line, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_default_is_as_published() {
    let profile = parse(MINIMAL).unwrap();
    assert_eq!(profile.gateway.port, 500);
    assert_eq!(profile.gateway.expected_identity(), "vpn.example.com");
    assert!(profile.gateway.ca.is_empty());
    assert_eq!(profile.crypto.ike[0], "aes256gcm16-prfsha384-x25519");
    assert_eq!(profile.crypto.esp[0], "aes256gcm16");
    assert_eq!(profile.address.source, AddressSource::ConfigPayload);
    assert_eq!(profile.tunnel.mode, TunnelMode::Tunnel);
    assert!(profile.tunnel.routes.is_empty() && !profile.tunnel.kill_switch);
    assert!(profile.dns.servers.is_empty() && profile.dns.domains.is_empty());
    let timing = &profile.timing;
    assert_eq!(
        (timing.dpd, timing.nat_keepalive, timing.ike_rekey, timing.child_rekey),
        (30, 20, 14400, 3600)
    );
    assert_eq!((timing.child_rekey_bytes, timing.reauth), (0, 0));
    let paths = &profile.paths;
    assert!(paths.multipath && paths.mobike && !paths.in_ike_auth && !paths.address_per_path);
    assert_eq!((paths.policy, paths.use_metered), (Policy::Failover, UseMetered::Standby));
    assert_eq!(paths.keep_old_ike_sa_notify, 50213);
    assert!(!profile.multi_point_sa.enabled && !profile.multi_point_sa.allow_sha1);
    assert!(profile.multi_point_sa.learn_routes.is_empty());
    assert!(unsupported(&profile).is_ok());
}

#[test]
fn the_example_of_the_format_is_accepted_whole() {
    let text = r#"
version = 1
name = "Example Corp"
[gateway]
addresses = ["vpn.example.com", "2001:db8::1"]
port = 500
identity = "vpn.example.com"
[auth]
method = "eap-mschapv2"
identity = "alice@example.com"
user = "alice"
[crypto]
ike = ["aes256gcm16-prfsha384-x25519"]
esp = ["aes256gcm16"]
[address]
source = "static"
static = ["10.20.0.5/24"]
[tunnel]
mode = "tunnel"
routes = ["10.0.0.0/8"]
exclude = ["10.1.0.0/16"]
[dns]
servers = ["10.0.0.53"]
domains = ["example.com"]
[multi_point_sa]
routes = [{ prefix = "10.30.2.0/24", endpoint = "203.0.113.7" }]
learn_routes = ["10.30.0.0/16", "fd30::/16"]
"#;
    let profile = parse(text).unwrap();
    assert_eq!(profile.gateway.addresses.len(), 2);
    assert_eq!(profile.address.fixed[0].to_string(), "10.20.0.5/24");
    assert_eq!(parse(&profile.to_toml()).unwrap(), profile, "what is exported is read back the same");
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_its_line_and_what_is_allowed() {
    for (section, key) in [
        ("[tunnel]\nkill_swich = true", "tunnel.kill_swich"),
        ("[timing]\n\ndpd_delay = 3", "timing.dpd_delay"),
        ("[firewall]\nx = 1", "firewall"),
    ] {
        let text = with(section);
        let (found, line, problem) = key_and_line(&text);
        assert_eq!(found, key);
        let expected = key.rsplit('.').next().unwrap();
        assert!(text.lines().nth(line - 1).unwrap().contains(expected), "line {line} of\n{text}");
        assert!(problem.contains("expected"), "{problem}");
    }
}

#[test]
fn a_value_out_of_range_is_an_error_with_key_and_line() {
    for (section, key) in [
        ("[timing]\ndpd = 90000", "timing.dpd"),
        ("[timing]\nchild_rekey = 1", "timing.child_rekey"),
        ("[timing]\nchild_rekey_bytes = 10", "timing.child_rekey_bytes"),
        ("[timing]\nreauth = -1", "timing.reauth"),
        ("[tunnel]\nmtu = 500", "tunnel.mtu"),
        ("[tunnel]\nroutes = [\"10.0.0.0/33\"]", "tunnel.routes"),
        ("[tunnel]\nmode = \"bridge\"", "tunnel.mode"),
        ("[address]\nsource = \"static\"", "address"),
        ("[address]\nstatic = [\"10.0.0.1/24\"]", "address.static"),
        ("[dns]\nservers = [\"dns.example.com\"]", "dns.servers"),
        ("[dns]\ndomains = [\"exa mple\"]", "dns.domains"),
        ("[crypto]\nike = []", "crypto.ike"),
        ("[crypto]\nesp = [\"aes 256\"]", "crypto.esp"),
        ("[paths]\nkeep_old_ike_sa_notify = 16400", "paths.keep_old_ike_sa_notify"),
        ("[paths]\npolicy = \"fastest\"", "paths.policy"),
        ("[paths]\naddress_per_path = true\npolicy = \"balance\"", "paths.address_per_path"),
    ] {
        let (found, _, problem) = key_and_line(&with(section));
        assert!(found.starts_with(key), "{section}: {found}: {problem}");
    }
    for (from, to, key) in [
        ("address = \"vpn.example.com\"", "address = \"vpn.example.com\"\nport = 0", "gateway.port"),
        ("address = \"vpn.example.com\"", "address = \"300.1.1.1\"", "gateway.address"),
        ("address = \"vpn.example.com\"", "addresses = []", "gateway.addresses"),
        ("address = \"vpn.example.com\"", "address = \"a\"\naddresses = [\"b\"]", "gateway.addresses"),
        ("address = \"vpn.example.com\"", "address = \"a\"\nca = [\"not PEM\"]", "gateway.ca"),
        ("name = \"Example Corp\"", "name = \" \"", "name"),
        ("name = \"Example Corp\"", "name = \"--all\"", "name"),
        ("eap-mschapv2\"", "psk\"\npassword = \"x\"", "auth.password"),
        ("eap-mschapv2\"", "eap-mschapv2\"\npsk = \"x\"", "auth.psk"),
        ("eap-mschapv2\"", "ikev1\"", "auth.method"),
        ("version = 1", "version = 2", "version"),
    ] {
        let (found, _, problem) = key_and_line(&MINIMAL.replace(from, to));
        assert_eq!(found, key, "{to}: {problem}");
    }
}

#[test]
fn what_is_required_is_missed_by_name() {
    for (line, key) in [
        ("version = 1\n", "version"),
        ("name = \"Example Corp\"\n", "name"),
        ("address = \"vpn.example.com\"\n", "address"),
        ("method = \"eap-mschapv2\"\n", "method"),
    ] {
        let error = parse(&MINIMAL.replace(line, "")).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn secrets_come_apart_from_the_profile() {
    let text = MINIMAL.replace("eap-mschapv2\"", "psk\"\npsk = \"hunter2\"");
    let parsed = Profile::from_toml(&text).unwrap();
    assert_eq!(parsed.secrets.psk.as_ref().map(ropewalk_profile::Secret::expose), Some("hunter2"));
    assert!(!parsed.profile.to_toml().contains("hunter2"));
    assert!(!format!("{parsed:?}").contains("hunter2"));
    assert_eq!(parsed.profile.auth.method, Method::Psk);
}

#[test]
fn an_error_never_repeats_a_secret() {
    let text = MINIMAL.replace("eap-mschapv2\"", "eap-mschapv2\"\npassword = { value = \"hunter2\" }");
    assert!(!parse(&text).unwrap_err().to_string().contains("hunter2"));
    let text = MINIMAL.replace("eap-mschapv2\"", "certificate\"\nprivate_key = \"hunter2\"");
    assert!(!parse(&text).unwrap_err().to_string().contains("hunter2"));
    // Without quotes it is a number.
    for key in ["password", "psk", "pkcs12_password"] {
        for value in ["12345678", "0x1122334455667788", "1234.5678", "1979-05-27"] {
            let text = MINIMAL.replace("eap-mschapv2\"", &format!("eap-mschapv2\"\n{key} = {value}"));
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("quotes"), "{error}");
            for told in [value, "1234605616436508552", "1122334455667788"] {
                assert!(!error.contains(told), "{error}");
            }
        }
    }
}

#[test]
fn formats_are_told_apart_by_content() {
    assert_eq!(detect(MINIMAL.as_bytes()).unwrap(), Format::Native);
    assert_eq!(detect(b"\n {\"uuid\": 1}").unwrap(), Format::Sswan);
    assert_eq!(detect(b"<?xml version=\"1.0\"?><plist></plist>").unwrap(), Format::Mobileconfig);
    assert_eq!(detect(b"bplist00\xd1").unwrap(), Format::Mobileconfig);
    assert_eq!(detect(b"<VPNProfile><NativeProfile/></VPNProfile>").unwrap(), Format::ProfileXml);
    let keyfile = b"[connection]\nid=x\n[vpn]\nservice-type=org.freedesktop.NetworkManager.strongswan\n";
    assert_eq!(detect(keyfile).unwrap(), Format::NetworkManager);
    for (data, word) in [
        (&b""[..], "empty"),
        (b"<html></html>", "XML"),
        (b"\x30\x82\x01\x00\xff", "DER"),
        (b"-----BEGIN CERTIFICATE-----", "PEM"),
    ] {
        let error = detect(data).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    for data in [&b"<VPNProfile/>"[..], b"bplist00", keyfile] {
        assert!(matches!(import(data), Err(ProfileError::UnsupportedFormat { .. })));
    }
}

#[test]
fn what_this_version_does_not_do_is_named() {
    match unsupported(&parse(&with("[tunnel]\nkill_switch = true")).unwrap()).unwrap_err() {
        ProfileError::Unsupported { key, .. } => assert_eq!(key, "tunnel.kill_switch"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn iiptran_combines_with_what_routing_leaves_to_it_and_says_why_not_with_the_rest() {
    let iiptran = |more: &str| with(&format!("[tunnel]\nmode = \"iiptran\"\n{more}"));
    for good in [
        "",
        "interface = \"to-branch\"\nroutes = [\"10.0.0.0/8\"]",
        "[address]\nsource = \"static\"\nstatic = [\"10.255.0.1/31\"]",
    ] {
        unsupported(&parse(&iiptran(good)).unwrap()).unwrap();
    }
    for (more, key, why) in [
        ("[address]\nsource = \"dhcp\"", "address.source", "config-payload"),
        ("[multi_point_sa]\nenabled = true", "multi_point_sa.enabled", "routes on the interface"),
        ("exclude = [\"10.0.0.0/8\"]", "tunnel.exclude", "not routed"),
        ("[paths]\naddress_per_path = true", "paths.address_per_path", "one path"),
        ("interface = \"a/b\"", "tunnel.interface", "not the name"),
        ("interface = \"sixteen-letters!\"", "tunnel.interface", "not the name"),
        ("interface = \"rw%d\"", "tunnel.interface", "not the name"),
    ] {
        let error = parse(&iiptran(more)).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(why), "{more}: {error}");
    }
}

#[test]
fn an_address_by_dhcp_is_within_what_this_version_does() {
    unsupported(&parse(&with("[address]\nsource = \"dhcp\"")).unwrap()).unwrap();
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,400}") {
        let _ = import(text.as_bytes());
    }

    #[test]
    fn no_octets_make_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = import(&data);
    }

    #[test]
    fn a_broken_sswan_is_an_error_not_a_panic(cut in 0usize..200, insert in "[\\PC]{0,4}") {
        let whole = r#"{"uuid":"01234567-89ab-cdef-0123-456789abcdef","name":"x","type":"ikev2-eap","remote":{"addr":"a.b"},"split-tunneling":{"subnets":["10.0.0.0/8"]}}"#;
        let cut = cut.min(whole.len());
        let _ = import(format!("{}{insert}{}", &whole[..cut], &whole[cut..]).as_bytes());
    }

    #[test]
    fn what_is_written_is_read_back(
        name in "[A-Za-z0-9][A-Za-z0-9 äöü.]{0,30}[a-z]",
        port in 1u16..,
        dpd in 1u32..86_400,
        routes in proptest::collection::vec((any::<[u8; 4]>(), 0u8..=32), 0..5),
        user in proptest::option::of("[a-z@.\\\\\"']{1,20}"),
    ) {
        let mut profile = parse(MINIMAL).unwrap();
        profile.name = name;
        profile.gateway.port = port;
        profile.timing.dpd = dpd;
        profile.auth.user = user;
        profile.tunnel.routes = routes
            .into_iter()
            .map(|(octets, length)| ipnet::IpNet::new(octets.into(), length).unwrap())
            .collect();
        prop_assert_eq!(parse(&profile.to_toml()).unwrap(), profile);
    }
}
