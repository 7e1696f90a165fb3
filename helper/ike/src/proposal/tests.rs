use super::*;
use crate::error::PeerMisbehaved;

fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap()
}

fn esp(text: &str) -> EspProposal {
    text.parse().unwrap()
}

fn ike_error(text: &str) -> ProposalError {
    text.parse::<IkeProposal>().unwrap_err()
}

#[test]
fn proposals_are_written_as_strongswan_does() {
    for text in [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm16-aes256gcm16-prfsha256-prfsha512-ecp256-ecp384",
        "chacha20poly1305-prfsha256-ecp256",
        "aes128-aes256-sha256-sha512-prfsha384-modp2048-modp3072-modp4096",
    ] {
        assert_eq!(ike(text).to_string(), text);
    }
    assert_eq!(esp("aes128gcm16").to_string(), "aes128gcm16");
    assert_eq!(esp("aes256-sha512-x25519-noesn").to_string(), "aes256-sha512-x25519-noesn");
}

#[test]
fn other_spellings_and_capitals_mean_the_same() {
    assert_eq!(ike("AES256GCM-PRFSHA256-curve25519"), ike("aes256gcm16-prfsha256-x25519"));
    assert_eq!(ike(" aes-sha2_256-modp2048 "), ike("aes128-sha256-prfsha256-modp2048"));
}

#[test]
fn the_prf_follows_the_integrity_algorithm_when_none_is_named() {
    assert_eq!(
        ike("aes256-sha256-sha384-modp2048").to_string(),
        "aes256-sha256-sha384-prfsha256-prfsha384-modp2048"
    );
    // With an AEAD the word says the PRF only.
    assert_eq!(ike("aes256gcm16-sha384-ecp384"), ike("aes256gcm16-prfsha384-ecp384"));
    assert_eq!(esp("aes256gcm16-sha256"), esp("aes256gcm16"));
}

#[test]
fn errors_name_the_word_and_what_there_is() {
    let error = ike_error("aes256-sha1-modp1024");
    assert_eq!(
        error,
        ProposalError::UnknownWord { proposal: "aes256-sha1-modp1024".into(), word: "sha1".into() }
    );
    let text = error.to_string();
    assert!(text.contains("`sha1`") && text.contains("sha256") && text.contains("x25519"), "{text}");
    for (proposal, lacks) in [
        ("aes256gcm16-x25519", "pseudorandom function"),
        ("aes256gcm16-prfsha256", "key exchange"),
        ("aes256-prfsha256-x25519", "integrity"),
        ("sha256-modp2048", "cipher"),
    ] {
        let error = ike_error(proposal);
        assert!(
            matches!(error, ProposalError::Missing { .. }) && error.to_string().contains(lacks),
            "{error}"
        );
    }
    assert!(matches!(ike_error("aes256gcm16-aes256-sha256-x25519"), ProposalError::MixedCiphers { .. }));
    assert!(matches!(ike_error("aes256-sha256-x25519-esn"), ProposalError::Misplaced { kind: "IKE", .. }));
    let error = "aes256gcm16-prfsha256".parse::<EspProposal>().unwrap_err();
    assert!(error.to_string().contains("`prfsha256` has no place in the ESP"), "{error}");
    assert!(matches!(ike_error(""), ProposalError::UnknownWord { .. }));
}

#[test]
fn lists_take_commas_and_the_word_default() {
    let none: [&str; 0] = [];
    assert_eq!(parse_ike_list(&none).unwrap(), default_ike_proposals());
    let list = parse_esp_list(&["aes256gcm16, aes128-sha256", "default"]).unwrap();
    assert_eq!(list.len(), 4);
    assert_eq!(list[1], esp("aes128-sha256"));
    assert!(parse_ike_list(&["default,nonsense"]).is_err());
}

#[test]
fn the_defaults_can_be_written_and_read_again() {
    for proposal in default_ike_proposals() {
        assert_eq!(ike(&proposal.to_string()), proposal);
    }
    for proposal in default_esp_proposals() {
        assert_eq!(esp(&proposal.to_string()), proposal);
    }
}

#[test]
fn every_default_can_be_done_by_our_cryptography() {
    use crate::crypto::{DhGroup, IkeCipher, Prf};
    for proposal in default_ike_proposals() {
        for cipher in &proposal.ciphers {
            let integ = proposal.integ.first().copied();
            assert!(IkeCipher::from_iana(cipher.id, cipher.key_bits, integ).is_some(), "{cipher:?}");
        }
        assert!(proposal.prf.iter().all(|prf| Prf::from_iana(*prf).is_some()));
        assert!(proposal.groups.iter().all(|group| DhGroup::from_iana(*group).is_some()));
    }
}

#[test]
fn an_offer_numbers_its_proposals_and_carries_the_spi() {
    let offer = esp_offer(&default_esp_proposals(), 0xC000_0001, false);
    assert_eq!(offer.iter().map(|proposal| proposal.number).collect::<Vec<_>>(), [1, 2]);
    assert!(offer.iter().all(|proposal| proposal.esp_spi() == Some(0xC000_0001)));
    assert!(ike_offer(&default_ike_proposals()).iter().all(|proposal| proposal.spi.is_empty()));
    assert_eq!(ike_rekey_offer(&default_ike_proposals(), 7)[0].ike_spi(), Some(7));
}

#[test]
fn groups_are_offered_only_where_there_is_a_key_exchange() {
    let proposals = [esp("aes256gcm16-x25519")];
    let groups = |with| esp_offer(&proposals, 1, with)[0].of_type(TransformType::Group).count();
    assert_eq!((groups(false), groups(true)), (0, 1));
}

#[test]
fn the_responder_follows_its_own_order() {
    let offered = ike_offer(&default_ike_proposals());
    let configured = [ike("aes128-sha256-modp2048"), ike("aes256gcm16-prfsha384-x25519")];
    let (chosen, answer) = select_ike(&offered, &configured, None).unwrap();
    assert_eq!(chosen.to_string(), "AES-128-CBC + HMAC-SHA2-256-128 / HMAC-SHA2-256 / MODP-2048");
    assert_eq!(answer.number, 2);
    assert_eq!(validate_ike_answer(&answer, &offered), Ok(chosen));
}

#[test]
fn the_group_of_the_key_exchange_payload_is_preferred() {
    let offered = ike_offer(&default_ike_proposals());
    let group = |ke_group| select_ike(&offered, &default_ike_proposals(), ke_group).unwrap().0.group;
    assert_eq!(group(None), transform_id::GROUP_X25519);
    assert_eq!(group(Some(transform_id::GROUP_MODP_2048)), transform_id::GROUP_MODP_2048);
    assert_eq!(group(Some(2)), transform_id::GROUP_X25519);
}

#[test]
fn nothing_in_common_is_no_proposal_chosen() {
    let configured = [ike("aes256gcm16-prfsha384-x25519")];
    for other in
        ["aes128gcm16-prfsha384-x25519", "aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-ecp256"]
    {
        assert_eq!(select_ike(&ike_offer(&[ike(other)]), &configured, None), None, "{other}");
    }
    // Another key length, an unknown attribute, an unknown type of transform: none of them is ours.
    let mut offered = ike_offer(&configured);
    offered[0].transforms[0].unknown_attributes = true;
    assert_eq!(select_ike(&offered, &configured, None), None);
    let mut offered = ike_offer(&configured);
    offered[0].transforms.push(Transform::new(TransformType::Other(6), 0));
    assert_eq!(select_ike(&offered, &configured, None), None);
    let mut offered = ike_offer(&configured);
    offered[0].protocol = Protocol::Esp;
    assert_eq!(select_ike(&offered, &configured, None), None);
}

#[test]
fn an_aead_may_come_with_the_integrity_none() {
    let configured = [ike("aes256gcm16-prfsha384-x25519")];
    let mut offered = ike_offer(&configured);
    offered[0].transforms.push(Transform::new(TransformType::Integ, transform_id::AUTH_NONE));
    let (chosen, answer) = select_ike(&offered, &configured, None).unwrap();
    assert_eq!(chosen.integ, None);
    assert_eq!(answer.of_type(TransformType::Integ).count(), 0);
    let mut answer = answer;
    answer.transforms.push(Transform::new(TransformType::Integ, transform_id::AUTH_NONE));
    assert_eq!(validate_ike_answer(&answer, &ike_offer(&configured)), Ok(chosen));
}

/// An offer of AES-256-GCM and AES-256-CBC proposals, and an honest answer to its second proposal.
fn offer_and_answer() -> (Vec<Proposal>, Proposal) {
    let offered = ike_offer(&[ike("aes256gcm16-prfsha384-x25519"), ike("aes256-sha256-x25519-ecp256")]);
    let (_, answer) = select_ike(&offered[1..], &[ike("aes256-sha256-ecp256")], None).unwrap();
    assert!(validate_ike_answer(&answer, &offered).is_ok());
    (offered, answer)
}

#[test]
fn an_answer_to_a_proposal_that_was_not_made_is_refused() {
    let (offered, mut answer) = offer_and_answer();
    answer.number = 3;
    let refused = Err(PeerMisbehaved::AnswerProposalNotOffered { number: 3 });
    assert_eq!(validate_ike_answer(&answer, &offered), refused);
    answer.number = 2;
    answer.protocol = Protocol::Esp;
    let refused = Err(PeerMisbehaved::AnswerProposalNotOffered { number: 2 });
    assert_eq!(validate_ike_answer(&answer, &offered), refused);
}

#[test]
fn an_answer_with_a_transform_that_was_not_offered_is_refused() {
    let (offered, honest) = offer_and_answer();
    let not_offered =
        |transform_type, id| Err(PeerMisbehaved::AnswerTransformNotOffered { transform_type, id });
    let with = |index: usize, change: &dyn Fn(&mut Transform)| {
        let mut answer = honest.clone();
        change(&mut answer.transforms[index]);
        validate_ike_answer(&answer, &offered)
    };
    assert_eq!(with(0, &|encr| encr.key_length = Some(128)), not_offered(TransformType::Encr, 12));
    assert_eq!(with(0, &|encr| encr.key_length = None), not_offered(TransformType::Encr, 12));
    assert_eq!(with(0, &|encr| encr.unknown_attributes = true), not_offered(TransformType::Encr, 12));
    assert_eq!(with(1, &|integ| integ.id = 14), not_offered(TransformType::Integ, 14));
    assert_eq!(with(1, &|integ| integ.id = 0), not_offered(TransformType::Integ, 0));
    assert_eq!(with(2, &|prf| prf.id = 2), not_offered(TransformType::Prf, 2));
    assert_eq!(with(3, &|group| group.id = 14), not_offered(TransformType::Group, 14));
    // A transform of the first proposal does not fit an answer to the second.
    assert_eq!(with(2, &|prf| prf.id = 6), not_offered(TransformType::Prf, 6));
}

#[test]
fn an_answer_has_exactly_one_transform_of_each_type() {
    let (offered, honest) = offer_and_answer();
    for index in 0..honest.transforms.len() {
        let mut answer = honest.clone();
        let transform_type = answer.transforms.remove(index).ty;
        let refused = Err(PeerMisbehaved::AnswerTransformMissing { transform_type });
        assert_eq!(validate_ike_answer(&answer, &offered), refused);
    }
    let mut answer = honest.clone();
    answer.transforms.push(Transform::new(TransformType::Group, transform_id::GROUP_X25519));
    let refused = Err(PeerMisbehaved::AnswerTransformRepeated { transform_type: TransformType::Group });
    assert_eq!(validate_ike_answer(&answer, &offered), refused);
}

#[test]
fn the_spi_of_an_answer_fits_the_offer() {
    let configured = [ike("aes256gcm16-prfsha384-x25519")];
    let (_, mut answer) = select_ike(&ike_offer(&configured), &configured, None).unwrap();
    let rekey = ike_rekey_offer(&configured, 5);
    for spi in [vec![], vec![0; 8], vec![1; 4]] {
        answer.spi = spi;
        assert_eq!(validate_ike_answer(&answer, &rekey), Err(PeerMisbehaved::AnswerSpi));
    }
    answer.spi = vec![1; 8];
    assert!(validate_ike_answer(&answer, &rekey).is_ok());
    assert_eq!(validate_ike_answer(&answer, &ike_offer(&configured)), Err(PeerMisbehaved::AnswerSpi));

    let configured = [esp("aes256gcm16")];
    let offered = esp_offer(&configured, 1, false);
    let (_, mut answer) = select_esp(&offered, &configured, ChildExchange::IkeAuth).unwrap();
    for spi in [vec![], vec![0; 4], vec![1; 8]] {
        answer.spi = spi;
        assert_eq!(validate_esp_answer(&answer, &offered), Err(PeerMisbehaved::AnswerSpi));
    }
    answer.spi = vec![0, 0, 1, 0];
    assert!(validate_esp_answer(&answer, &offered).is_ok());
}

#[test]
fn extended_sequence_numbers_are_offered_first_and_may_be_declined() {
    let both = esp_offer(&[esp("aes256gcm16")], 1, false);
    let esn: Vec<u16> = both[0].of_type(TransformType::Esn).map(|esn| esn.id).collect();
    assert_eq!(esn, [transform_id::ESN_YES, transform_id::ESN_NO]);
    let choose = |configured: &str| select_esp(&both, &[esp(configured)], ChildExchange::IkeAuth).unwrap();
    assert_eq!(choose("aes256gcm16").0.to_string(), "AES-256-GCM / ESN");
    assert_eq!(choose("aes256gcm16-noesn").0.to_string(), "AES-256-GCM");
    // An answer that does not mention them means the ordinary ones, if they were offered.
    let mut answer = choose("aes256gcm16").1;
    answer.spi = vec![1; 4];
    assert!(validate_esp_answer(&answer, &both).unwrap().esn);
    answer.transforms.retain(|transform| transform.ty != TransformType::Esn);
    assert!(!validate_esp_answer(&answer, &both).unwrap().esn);
    let only_extended = esp_offer(&[esp("aes256gcm16-esn")], 1, false);
    let refused = Err(PeerMisbehaved::AnswerTransformMissing { transform_type: TransformType::Esn });
    assert_eq!(validate_esp_answer(&answer, &only_extended), refused);
    // As responder: an offer without any means the ordinary ones.
    let mut silent = both;
    silent[0].transforms.retain(|transform| transform.ty != TransformType::Esn);
    let esn = |configured: &str| {
        select_esp(&silent, &[esp(configured)], ChildExchange::IkeAuth).map(|(esp, _)| esp.esn)
    };
    assert_eq!(esn("aes256gcm16"), Some(false));
    assert_eq!(esn("aes256gcm16-esn"), None);
}

#[test]
fn perfect_forward_secrecy_is_agreed_where_either_end_insists() {
    let plain = [esp("aes256gcm16")];
    let pfs = [esp("aes256gcm16-x25519-ecp256")];
    let rekey = |ke_group| ChildExchange::CreateChildSa { ke_group };
    let group = |offer: &[EspProposal], configured: &[EspProposal], exchange| {
        select_esp(&esp_offer(offer, 1, true), configured, exchange).map(|(chosen, _)| chosen.group)
    };
    assert_eq!(group(&pfs, &pfs, ChildExchange::IkeAuth), Some(None));
    assert_eq!(group(&plain, &plain, rekey(None)), Some(None));
    assert_eq!(group(&pfs, &pfs, rekey(Some(19))), Some(Some(19)));
    assert_eq!(group(&pfs, &plain, rekey(Some(19))), Some(Some(19)));
    assert_eq!(group(&pfs, &plain, rekey(None)), Some(Some(31)));
    assert_eq!(group(&plain, &pfs, rekey(None)), None);
    // A peer that says it can do without is taken at its word.
    let mut offered = esp_offer(&pfs, 1, true);
    offered[0].transforms.push(Transform::new(TransformType::Group, transform_id::GROUP_NONE));
    assert_eq!(select_esp(&offered, &plain, rekey(None)).unwrap().0.group, None);
    // A group nobody can do does not help.
    let mut offered = esp_offer(&plain, 1, true);
    offered[0].transforms.push(Transform::new(TransformType::Group, 2));
    assert_eq!(select_esp(&offered, &plain, rekey(Some(2))), None);
}

#[test]
fn the_responder_needs_an_spi_to_send_to() {
    let configured = [esp("aes256gcm16")];
    let mut offered = esp_offer(&configured, 1, false);
    for spi in [vec![], vec![0; 4], vec![1; 8]] {
        offered[0].spi = spi;
        assert_eq!(select_esp(&offered, &configured, ChildExchange::IkeAuth), None);
    }
}

#[test]
fn people_see_names() {
    let chosen = ChosenIke { encr: 20, key_bits: Some(256), integ: None, prf: 6, group: 31 };
    assert_eq!(chosen.to_string(), "AES-256-GCM / HMAC-SHA2-384 / X25519");
    let chosen = ChosenEsp { encr: 28, key_bits: None, integ: None, esn: true, group: Some(19) };
    assert_eq!(chosen.to_string(), "ChaCha20-Poly1305 / ECP-256 / ESN");
}
