use super::*;
use crate::auth::credential::{ClientCertificate, CredentialError};
use crate::auth::der::encode;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CrlDistributionPoint, CustomExtension,
    DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa, KeyPair,
    NameConstraints, SanType, date_time_ymd,
};

type Ca = CertifiedIssuer<'static, KeyPair>;

/// 2026-06-01 00:00:00 UTC.
const NOW: UnixTime = UnixTime(1_780_272_000);

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, DnValue::PrintableString("CH".try_into().unwrap()));
    name.push(DnType::OrganizationName, "Rope Walk");
    name.push(DnType::CommonName, common_name);
    name
}

fn ca_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = name(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn ca(common_name: &str) -> Ca {
    Ca::self_signed(ca_params(common_name), KeyPair::generate().unwrap()).unwrap()
}

fn gateway_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = name("gateway");
    params.subject_alt_names = vec![
        SanType::DnsName("vpn.example.com".try_into().unwrap()),
        SanType::DnsName("*.wild.example.com".try_into().unwrap()),
        SanType::IpAddress("192.0.2.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::Rfc822Name("Gate@example.com".try_into().unwrap()),
    ];
    params
}

fn issue(params: &CertificateParams, ca: &Ca) -> Vec<u8> {
    params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().to_vec()
}

fn anchors(ca: &Ca) -> TrustAnchors {
    TrustAnchors::from_der([ca.der().to_vec()]).unwrap()
}

const fn fqdn(name: &str) -> IdRef<'_> {
    IdRef { id_type: 2, data: name.as_bytes() }
}

fn verify(end_entity: &[u8], intermediates: &[&[u8]], ca: &Ca) -> Result<(), PkiError> {
    verify_gateway(end_entity, intermediates, &anchors(ca), NOW, fqdn("vpn.example.com"))
}

#[test]
fn a_gateway_certificate_of_the_trusted_ca_is_accepted() {
    let ca = ca("CA");
    assert_eq!(verify(&issue(&gateway_params(), &ca), &[], &ca), Ok(()));
}

#[test]
fn intermediates_lead_to_the_trusted_ca_in_any_order() {
    let root = ca("root");
    let first = Ca::signed_by(ca_params("first"), KeyPair::generate().unwrap(), &root).unwrap();
    let second = Ca::signed_by(ca_params("second"), KeyPair::generate().unwrap(), &first).unwrap();
    let certificate = issue(&gateway_params(), &second);
    let (a, b) = (first.der().to_vec(), second.der().to_vec());
    assert_eq!(verify(&certificate, &[&a, &b], &root), Ok(()));
    assert_eq!(verify(&certificate, &[&b, &a], &root), Ok(()));
    assert!(matches!(verify(&certificate, &[&b], &root), Err(PkiError::UnknownCa { .. })));
    assert_eq!(verify(&certificate, &[&b], &first), Ok(()), "an intermediate may be the anchor");
}

#[test]
fn a_chain_of_four_certificates_is_followed() {
    let root = ca("root");
    let sign =
        |name, issuer: &Ca| Ca::signed_by(ca_params(name), KeyPair::generate().unwrap(), issuer).unwrap();
    let first = sign("first", &root);
    let second = sign("second", &first);
    let third = sign("third", &second);
    let certificate = issue(&gateway_params(), &third);
    let chain = [third.der().to_vec(), second.der().to_vec(), first.der().to_vec()];
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    assert_eq!(verify(&certificate, &chain, &root), Ok(()));
}

#[test]
fn an_unknown_ca_is_named_with_the_certificate() {
    let certificate = issue(&gateway_params(), &ca("Another CA"));
    let error = verify(&certificate, &[], &ca("CA")).unwrap_err();
    let PkiError::UnknownCa { subject, issuer } = &error else { panic!("{error:?}") };
    assert_eq!(subject, "C=CH, O=Rope Walk, CN=gateway");
    assert_eq!(issuer, "C=CH, O=Rope Walk, CN=Another CA");
}

#[test]
fn a_ca_of_the_same_name_with_another_key_is_a_bad_signature() {
    let certificate = issue(&gateway_params(), &ca("CA"));
    assert!(matches!(verify(&certificate, &[], &ca("CA")), Err(PkiError::BadSignature { .. })));
}

#[test]
fn expired_and_not_yet_valid_tell_the_dates() {
    let ca = ca("CA");
    let mut params = gateway_params();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2024, 2, 29);
    let Err(PkiError::Expired { subject, not_after, now }) = verify(&issue(&params, &ca), &[], &ca) else {
        panic!("expired")
    };
    assert_eq!(subject, "C=CH, O=Rope Walk, CN=gateway");
    assert_eq!(not_after, "2024-02-29 00:00:00 UTC");
    assert_eq!(now, "2026-06-01 00:00:00 UTC");
    params.not_before = date_time_ymd(2030, 12, 31);
    params.not_after = date_time_ymd(2040, 1, 1);
    let Err(PkiError::NotYetValid { not_before, .. }) = verify(&issue(&params, &ca), &[], &ca) else {
        panic!("not yet valid")
    };
    assert_eq!(not_before, "2030-12-31 00:00:00 UTC");
}

#[test]
fn an_expired_intermediate_is_the_one_named() {
    let root = ca("root");
    let mut params = ca_params("old intermediate");
    params.not_after = date_time_ymd(2024, 1, 1);
    let old = Ca::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let result = verify(&issue(&gateway_params(), &old), &[old.der()], &root);
    let Err(PkiError::Expired { subject, .. }) = result else { panic!("{result:?}") };
    assert_eq!(subject, "C=CH, O=Rope Walk, CN=old intermediate");
}

#[test]
fn a_gateway_needs_a_fitting_extended_key_usage_or_none() {
    let ca = ca("CA");
    let ike_intermediate = Eku::Other(vec![1, 3, 6, 1, 5, 5, 8, 2, 2]);
    let ipsec_ike = Eku::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for (usages, allowed) in [
        (vec![], true),
        (vec![Eku::ServerAuth], true),
        (vec![Eku::ClientAuth, Eku::ServerAuth], true),
        (vec![ike_intermediate.clone()], true),
        (vec![ipsec_ike], true),
        (vec![Eku::Any], true),
        (vec![Eku::ClientAuth], false),
        (vec![Eku::EmailProtection, Eku::CodeSigning], false),
    ] {
        let mut params = gateway_params();
        params.extended_key_usages.clone_from(&usages);
        let result = verify(&issue(&params, &ca), &[], &ca);
        if allowed {
            assert_eq!(result, Ok(()), "{usages:?}");
        } else {
            assert!(matches!(result, Err(PkiError::WrongUsage { .. })), "{usages:?}: {result:?}");
        }
    }
    let mut params = gateway_params();
    params.extended_key_usages = vec![Eku::ClientAuth];
    let client = issue(&params, &ca);
    assert_eq!(verify_client(&client, &[], &anchors(&ca), NOW, fqdn("vpn.example.com")), Ok(()));
}

#[test]
fn a_ca_certificate_is_not_a_gateways() {
    let ca = ca("CA");
    let mut params = ca_params("sub");
    params.subject_alt_names = gateway_params().subject_alt_names;
    assert!(matches!(verify(&issue(&params, &ca), &[], &ca), Err(PkiError::CaAsGateway { .. })));
}

#[test]
fn a_certificate_issued_by_an_end_entity_is_refused() {
    let root = ca("root");
    let leaf = Ca::signed_by(gateway_params(), KeyPair::generate().unwrap(), &root).unwrap();
    let mut params = gateway_params();
    params.distinguished_name = name("forged");
    assert!(verify(&issue(&params, &leaf), &[leaf.der()], &root).is_err());
}

#[test]
fn a_self_signed_gateway_certificate_may_be_its_own_anchor() {
    let key = KeyPair::generate().unwrap();
    let own = gateway_params().self_signed(&key).unwrap().der().to_vec();
    let pinned = TrustAnchors::from_der([own.clone()]).unwrap();
    assert_eq!(verify_gateway(&own, &[], &pinned, NOW, fqdn("vpn.example.com")), Ok(()));
    let forged = gateway_params().self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let result = verify_gateway(&forged, &[], &pinned, NOW, fqdn("vpn.example.com"));
    assert!(matches!(result, Err(PkiError::BadSignature { .. })), "{result:?}");
}

#[test]
fn path_length_constraints_hold() {
    let mut params = ca_params("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    assert_eq!(verify(&issue(&gateway_params(), &root), &[], &root), Ok(()));
    let mut params = ca_params("limited");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let top = ca("top");
    let limited = Ca::signed_by(params, KeyPair::generate().unwrap(), &top).unwrap();
    let below = Ca::signed_by(ca_params("below"), KeyPair::generate().unwrap(), &limited).unwrap();
    let result = verify(&issue(&gateway_params(), &below), &[below.der(), limited.der()], &top);
    assert!(matches!(result, Err(PkiError::Constraint { .. })), "{result:?}");
}

#[test]
fn without_any_anchor_nothing_is_trusted() {
    let ca = ca("CA");
    let certificate = issue(&gateway_params(), &ca);
    let result = verify_gateway(&certificate, &[], &TrustAnchors::default(), NOW, fqdn("vpn.example.com"));
    assert_eq!(result, Err(PkiError::NoTrustAnchors));
}

#[test]
fn identities_are_proved_by_the_subject_alternative_name_only() {
    let certificate = issue(&gateway_params(), &ca("CA"));
    for (id_type, data) in [
        (2, b"vpn.example.com".as_slice()),
        (2, b"VPN.example.COM"),
        (2, b"vpn.example.com."),
        (2, b"a.wild.example.com"),
        (1, &[192, 0, 2, 1]),
        (5, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (3, b"Gate@example.com"),
        (3, b"Gate@EXAMPLE.com"),
    ] {
        assert_eq!(check_identity(&certificate, IdRef { id_type, data }), Ok(()), "{data:02x?}");
    }
    for (id_type, data) in [
        (2, b"example.com".as_slice()),
        (2, b"gateway"),
        (2, b"a.b.wild.example.com"),
        (2, b"wild.example.com"),
        (2, b".wild.example.com"),
        (2, b"*.wild.example.com"),
        (2, b"vpn.example.com\0.evil.example"),
        (2, b"vpn.example.co"),
        (2, b""),
        (2, b"\xff\xfe"),
        (2, b"192.0.2.1"),
        (1, &[192, 0, 2, 2]),
        (1, &[192, 0, 2]),
        (1, &[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (5, &[192, 0, 2, 1]),
        (3, b"gate@example.com"),
        (3, b"@example.com"),
        (3, b"vpn.example.com"),
        (9, b"vpn.example.com"),
        (9, b""),
        (11, b"vpn.example.com"),
        (0, b""),
        (255, b"vpn.example.com"),
    ] {
        let result = check_identity(&certificate, IdRef { id_type, data });
        assert!(
            matches!(result, Err(PkiError::IdentityMismatch { .. })),
            "{id_type} {data:02x?}: {result:?}"
        );
    }
}

#[test]
fn a_mismatch_names_both_identities() {
    let certificate = issue(&gateway_params(), &ca("CA"));
    let error = check_identity(&certificate, fqdn("other.example.com")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("other.example.com") && text.contains("vpn.example.com"), "{text}");
    assert!(text.contains("192.0.2.1") && text.contains("2001:db8::1"), "{text}");
    let mut params = gateway_params();
    params.subject_alt_names.clear();
    let text = check_identity(&issue(&params, &ca("CA")), fqdn("gateway")).unwrap_err().to_string();
    assert_eq!(
        text, "the gateway should be gateway, but its certificate is for C=CH, O=Rope Walk, CN=gateway",
        "a common name proves nothing"
    );
}

#[test]
fn a_wildcard_does_not_stand_for_a_whole_top_level() {
    let mut params = gateway_params();
    params.subject_alt_names = ["*.com", "*", "*.*.example.com", "f*.example.com"]
        .map(|name| SanType::DnsName(name.try_into().unwrap()))
        .to_vec();
    let certificate = issue(&params, &ca("CA"));
    for name in ["example.com", "com", "a.b.example.com", "foo.example.com"] {
        assert!(check_identity(&certificate, fqdn(name)).is_err(), "{name}");
    }
}

#[test]
fn a_dn_is_compared_by_its_values_not_its_string_types() {
    let mut params = gateway_params();
    params.distinguished_name = name("Gate  Way");
    let certificate = issue(&params, &ca("CA"));
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    let subject = parsed.subject().as_raw();
    assert_eq!(check_identity(&certificate, IdRef { id_type: 9, data: subject }), Ok(()));

    let rdn = |oid: &[u8], tag: u8, value: &str| {
        encode(0x31, &encode(0x30, &[encode(6, oid), encode(tag, value.as_bytes())].concat()))
    };
    let dn = |tag: u8, common_name: &str| {
        let parts = [
            rdn(&[85, 4, 6], tag, "ch"),
            rdn(&[85, 4, 10], tag, "rope walk"),
            rdn(&[85, 4, 3], tag, common_name),
        ];
        encode(0x30, &parts.concat())
    };
    for tag in [0x0c, 0x13] {
        assert_eq!(check_identity(&certificate, IdRef { id_type: 9, data: &dn(tag, "GATE WAY") }), Ok(()));
        assert!(check_identity(&certificate, IdRef { id_type: 9, data: &dn(tag, "GATEWAY") }).is_err());
    }
    let reordered =
        encode(0x30, &[rdn(&[85, 4, 3], 0x0c, "gate way"), rdn(&[85, 4, 6], 0x0c, "ch")].concat());
    assert!(check_identity(&certificate, IdRef { id_type: 9, data: &reordered }).is_err());
    let trailing = [subject, &[0]].concat();
    assert!(check_identity(&certificate, IdRef { id_type: 9, data: &trailing }).is_err());
}

#[test]
fn text_of_a_peers_making_cannot_control_a_terminal() {
    let mut params = gateway_params();
    params.distinguished_name = name("evil\u{1b}[2J\nname");
    let text = subject_text(&issue(&params, &ca("CA")));
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(!IdRef { id_type: 11, data: b"\x1b[31m\r\n" }.text().chars().any(char::is_control));
    assert!(IdRef { id_type: 2, data: &[b'a'; 5000] }.text().chars().count() < 300);
}

/// CVE-2017-9023: ASN.1 nested deeper than a stack.
#[test]
fn recursive_asn1_is_refused_without_recursion() {
    let nested = |tag: u8, depth: usize| (0..depth).fold(Vec::new(), |inner, _| encode(tag, &inner));
    let ca = ca("CA");
    for depth in [10, 1_000, 20_000] {
        for tag in [0x30, 0x31, 0xa0, 0xa3, 0x24] {
            let bomb = nested(tag, depth);
            assert_eq!(verify(&bomb, &[], &ca), Err(PkiError::Malformed));
            assert!(check_identity(&bomb, fqdn("a.b")).is_err());
            assert!(TrustAnchors::from_der([bomb.clone()]).is_err());
            assert!(
                check_identity(&issue(&gateway_params(), &ca), IdRef { id_type: 9, data: &bomb }).is_err()
            );
            let _text = IdRef { id_type: 9, data: &bomb }.text();
        }
    }
    for (oid, tag) in
        [([2, 5, 29, 17], 0xa4), ([2, 5, 29, 17], 0xa0), ([2, 5, 29, 30], 0xa0), ([2, 5, 29, 32], 0x30)]
    {
        let mut params = gateway_params();
        params.subject_alt_names.clear();
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&oid, encode(0x30, &nested(tag, 5_000)))];
        let certificate = issue(&params, &ca);
        let result = verify(&certificate, &[], &ca);
        assert!(result.is_err(), "{oid:?}: {result:?}");
    }
}

/// CVE-2022-40617: what a certificate names (CRL, OCSP, issuer) is not looked at; this crate could not fetch it.
#[test]
fn uris_named_by_a_certificate_are_not_fetched() {
    let ca = ca("CA");
    let mut params = gateway_params();
    params.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://192.0.2.66/evil.crl".to_owned()] }];
    params.subject_alt_names.push(SanType::URI("http://192.0.2.66/san".try_into().unwrap()));
    assert_eq!(verify(&issue(&params, &ca), &[], &ca), Ok(()));
    assert!(matches!(verify(&issue(&params, &self::ca("x")), &[], &ca), Err(PkiError::UnknownCa { .. })));
}

/// CVE-2026-35331: the case of a name must not lead around a name constraint.
#[test]
fn name_constraint_case_does_not_matter() {
    let root = ca("root");
    let constrained = |permitted: &[&str], excluded: &[&str]| {
        let subtrees =
            |names: &[&str]| names.iter().map(|n| GeneralSubtree::DnsName((*n).to_owned())).collect();
        let mut params = ca_params("constrained");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: subtrees(permitted),
            excluded_subtrees: subtrees(excluded),
        });
        Ca::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap()
    };
    let check = |ca: &Ca, host: &str| {
        let mut params = gateway_params();
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().unwrap())];
        verify_gateway(&issue(&params, ca), &[ca.der()], &anchors(&root), NOW, fqdn(host))
    };
    let ca = constrained(&["EXAMPLE.com"], &["Bad.Example.com"]);
    assert_eq!(check(&ca, "vpn.example.COM"), Ok(()));
    for host in ["x.bad.example.com", "x.BAD.EXAMPLE.COM", "bad.example.com", "vpn.example.org"] {
        let result = check(&ca, host);
        assert!(matches!(result, Err(PkiError::Constraint { .. })), "{host}: {result:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_certificate_is_refused() {
    let ca = ca("CA");
    let good = issue(&gateway_params(), &ca);
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        assert!(verify(&bad, &[], &ca).is_err(), "octet {index}");
    }
    for len in 0..good.len() {
        assert!(verify(&good[..len], &[], &ca).is_err(), "{len} octets");
        assert!(check_identity(&good[..len], fqdn("vpn.example.com")).is_err());
    }
}

#[test]
fn trust_anchors_come_from_pem_and_say_what_is_wrong() {
    let (a, b) = (ca("A"), ca("B"));
    let pem = format!("junk before\n{}\n{}\n", a.pem(), b.pem());
    let both = TrustAnchors::from_pem(&pem).unwrap();
    assert_eq!((both.len(), both.is_empty()), (2, false));
    assert_eq!(TrustAnchors::from_pem("").unwrap_err(), PkiError::NoCertificate);
    assert!(matches!(TrustAnchors::from_der([vec![1, 2, 3]]), Err(PkiError::BadTrustAnchor { .. })));
    let lenient = TrustAnchors::from_der_lenient([vec![1, 2, 3], a.der().to_vec()]);
    assert_eq!(lenient.len(), 1);
    assert_eq!(
        verify_gateway(&issue(&gateway_params(), &b), &[], &both, NOW, fqdn("vpn.example.com")),
        Ok(())
    );
}

#[test]
fn certreq_is_the_sha_1_of_each_public_key_info() {
    let (a, b) = (ca("A"), ca("B"));
    let hashes = TrustAnchors::from_der([a.der().to_vec(), b.der().to_vec()]).unwrap().certreq();
    assert_eq!(hashes.len(), 40);
    for (ca, hash) in [&a, &b].into_iter().zip(hashes.chunks(20)) {
        let (_, certificate) = X509Certificate::from_der(ca.der()).unwrap();
        let spki = certificate.tbs_certificate.subject_pki.raw;
        assert_eq!(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, spki).as_ref(), hash);
    }
}

#[test]
fn a_client_certificate_is_found_by_its_key_and_sent_first() {
    let root = ca("root");
    let middle = Ca::signed_by(ca_params("middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = gateway_params();
    params.distinguished_name = name("alice");
    params.subject_alt_names = vec![SanType::Rfc822Name(Ia5String::try_from("alice@example.com").unwrap())];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    let own = params.signed_by(&key, &middle).unwrap();
    let pem = format!("{}{}{}", root.pem(), middle.pem(), own.pem());
    let client = ClientCertificate::from_pem(&pem, &key.serialize_pem()).unwrap();
    assert_eq!(client.chain(), [own.der().to_vec(), middle.der().to_vec()], "the root stays at home");
    assert_eq!(client.subject_text(), "C=CH, O=Rope Walk, CN=alice");
    assert_eq!(client.alternative_names(), [(3, b"alice@example.com".to_vec())]);
    let dn = IdRef { id_type: 9, data: client.subject_der() };
    assert_eq!(check_identity(client.certificate(), dn), Ok(()));
    assert_eq!(client.check_validity(NOW), Ok(()));
    assert!(matches!(
        client.check_validity(UnixTime(1_600_000_000)),
        Err(CredentialError::NotYetValid { .. })
    ));
    let Err(CredentialError::Expired { not_after, .. }) = client.check_validity(UnixTime(1_900_000_000))
    else {
        panic!("expired")
    };
    assert_eq!(not_after, "2027-01-01 00:00:00 UTC");

    let other = KeyPair::generate().unwrap().serialize_pem();
    let error = ClientCertificate::from_pem(&own.pem(), &other).unwrap_err();
    assert_eq!(error, CredentialError::KeyMismatch { subject: "C=CH, O=Rope Walk, CN=alice".to_owned() });
    let error = ClientCertificate::from_pem("", &other).unwrap_err();
    assert_eq!(error, CredentialError::NoCertificate);
    assert!(matches!(ClientCertificate::from_pem(&own.pem(), ""), Err(CredentialError::Key(_))));
    let key_text = key.serialize_pem();
    let secret = key_text.lines().nth(1).unwrap();
    assert!(!format!("{client:?}").contains(secret));
}

#[test]
fn dates_are_civil() {
    for (seconds, text) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_399, "2000-02-28 23:59:59 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (1_709_164_800, "2024-02-29 00:00:00 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        (253_402_300_799, "9999-12-31 23:59:59 UTC"),
    ] {
        assert_eq!(date_text(seconds), text);
    }
    let _no_panic = date_text(u64::MAX);
}
