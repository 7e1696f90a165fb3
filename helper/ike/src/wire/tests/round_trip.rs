//! What is emitted is parsed back.

use proptest::prelude::*;

use super::strategies::{header, notify, octets, payload, payloads, selector, selectors};
use crate::wire::keep_old_ike_sa::KeepOldCode;
use crate::wire::switch_notify::switch_notify_type;
use crate::wire::*;

proptest! {
    #[test]
    fn every_payload_is_read_back(payload in payload()) {
        let (first, octets) = emit_payloads(std::slice::from_ref(&payload));
        prop_assert_eq!(parse_payloads(first, &octets), Ok(vec![payload]));
    }

    #[test]
    fn a_chain_of_payloads_is_read_back(payloads in payloads()) {
        let (first, octets) = emit_payloads(&payloads);
        prop_assert_eq!(parse_payloads(first, &octets), Ok(payloads));
    }

    #[test]
    fn a_message_in_the_clear_is_read_back(header in header(), payloads in payloads()) {
        let next_payload = payloads.first().map_or(0, Payload::payload_type);
        let datagram = emit_message(&header, &payloads);
        let expected = ParsedMessage { header: Header { next_payload, ..header }, payloads, encrypted: None };
        prop_assert_eq!(Message::parse(&datagram), Ok(expected));
    }

    #[test]
    fn the_body_of_an_encrypted_message_is_found(
        header in header(),
        fragment in proptest::option::of((1..=u16::MAX, any::<u16>())),
        first_inner in any::<u8>(),
        body in octets(100),
    ) {
        let kind = match fragment {
            None => EncryptedKind::Sk,
            Some((number, total)) => EncryptedKind::Skf { fragment_number: number.min(total.max(1)), total: total.max(1) },
        };
        let prefix = encrypted::emit_prefix(&header, kind, first_inner, body.len());
        let datagram = [prefix.as_slice(), &body].concat();
        let parsed = Message::parse(&datagram).unwrap();
        let found = parsed.encrypted.unwrap();
        prop_assert_eq!((found.kind, found.next_payload), (kind, first_inner));
        prop_assert_eq!(&datagram[found.body.clone()], body.as_slice());
        prop_assert_eq!(found.associated_length, prefix.len());
        prop_assert!(parsed.payloads.is_empty());
    }

    #[test]
    fn keep_old_ike_sa_is_read_back(request: bool, code: u8) {
        let code = match code {
            0 => KeepOldCode::Keep,
            1 => KeepOldCode::OldUnused,
            other => KeepOldCode::Other(other),
        };
        let data = KeepOldIkeSa { request, code };
        prop_assert_eq!(KeepOldIkeSa::parse(&data.emit()), Ok(data));
    }

    #[test]
    fn the_switch_notify_is_read_back(counter: u32, main: bool, copies: bool, weight: u16) {
        let notice = SwitchNotice { counter, main, copies, weight };
        prop_assert_eq!(SwitchNotice::parse(&notice.emit()), Ok(notice));
    }

    #[test]
    fn of_two_switch_notices_at_most_one_is_newer(counter: u32, other: u32) {
        let (first, second) = (SwitchNotice::main(counter), SwitchNotice::main(other));
        let half = counter.wrapping_sub(other) == 1 << 31;
        let (newer, older) = (first.is_newer_than(other), second.is_newer_than(counter));
        prop_assert_eq!(newer || older, counter != other && !half);
        prop_assert!(!(newer && older));
        prop_assert!(SwitchNotice::main(counter.wrapping_add(1)).is_newer_than(counter));
        prop_assert!(!SwitchNotice::main(counter.wrapping_add(1 << 31)).is_newer_than(counter));
    }

    #[test]
    fn the_numbers_of_both_notifies_differ(number: u16) {
        prop_assert_ne!(switch_notify_type(number), number);
    }

    #[test]
    fn numbers_and_names_belong_together(number: u16) {
        prop_assert_eq!(u16::from(NotifyType::from(number)), number);
        let low = number as u8;
        prop_assert_eq!(u8::from(ExchangeType::from(low)), low);
        prop_assert_eq!(u8::from(Protocol::from(low)), low);
        prop_assert_eq!(u8::from(TransformType::from(low)), low);
        prop_assert_eq!(u8::from(AuthMethod::from(low)), low);
        prop_assert_eq!(u8::from(CertEncoding::from(low)), low);
        prop_assert_eq!(u8::from(IdType::from(low)), low);
        prop_assert_eq!(u8::from(ConfigType::from(low)), low);
    }

    #[test]
    fn the_debug_form_of_a_notify_shows_no_data(notify in notify()) {
        let shown = format!("{notify:?}");
        let blank = Notify { data: vec![0; notify.data.len()], ..notify };
        prop_assert_eq!(shown, format!("{blank:?}"));
    }

    #[test]
    fn an_intersection_is_covered_by_both(a in selector(), b in selector()) {
        prop_assert!(a.covers(&a));
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        if let Some(common) = a.intersect(&b) {
            prop_assert!(a.covers(&common) && b.covers(&common));
        }
    }

    #[test]
    fn what_is_narrowed_lies_within_both(wanted in selectors(), allowed in selectors()) {
        let narrowed = wanted.narrow(&allowed);
        prop_assert!(wanted.covers(&narrowed));
        prop_assert!(allowed.covers(&narrowed));
        prop_assert_eq!(narrowed.narrow(&allowed), narrowed);
    }

    #[test]
    fn prefixes_cover_a_range_exactly(selector in selector()) {
        let prefixes = selector.prefixes();
        let mut next = Some(selector.start());
        for (address, length) in prefixes {
            let part = TrafficSelector::from_prefix(address, length);
            prop_assert_eq!(Some(part.start()), next);
            prop_assert_eq!(part.start(), address);
            next = after(part.end());
            if part.end() == selector.end() {
                next = None;
            }
        }
        prop_assert_eq!(next, None);
    }
}

fn after(address: std::net::IpAddr) -> Option<std::net::IpAddr> {
    match address {
        std::net::IpAddr::V4(v4) => Some(std::net::Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into()),
        std::net::IpAddr::V6(v6) => Some(std::net::Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into()),
    }
}
