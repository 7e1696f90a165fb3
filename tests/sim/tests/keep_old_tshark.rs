//! tshark, an implementation that is not ours, reads the message flow of appendix B of the KEEP_OLD_IKE_SA draft from a
//! capture of both ends and their keys: which payloads stand where, the octets of the notifies, whose SPIs, by which address.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use ropewalk_ike::exchange::IkeSpis;
use ropewalk_ike::wire::SwitchNotice;
use ropewalk_sim::bundle::{Bundle, Letter, To};
use ropewalk_sim::setup::{Auth, GATEWAY, Setup};

const WIFI: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const MOBILE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20));

const CREATE_CHILD_SA: &str = "36";
const INFORMATIONAL: &str = "37";

/// One message as tshark reads it.
#[derive(Debug)]
struct Seen {
    source: String,
    spi_i: String,
    exchange: String,
    payloads: Vec<String>,
    notifies: Vec<String>,
    data: Vec<String>,
}

#[test]
fn the_message_flow_of_appendix_b_as_an_independent_implementation_reads_it() {
    let mut setup = Setup::new(Auth::Psk);
    setup.client.initiator.ike_proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
    setup.gateway.ike_proposals.clone_from(&setup.client.initiator.ike_proposals);
    setup.gateway.log_keys = true;
    let mut bundle = Bundle::new(&setup, 1, WIFI);
    bundle.sent.clear();
    let new = bundle.add(0, MOBILE);
    bundle.announce(new, SwitchNotice::main(7));
    let spi = |spis: IkeSpis| format!("{:016x}", spis.initiator);
    let (old, new) = (spi(bundle.lanes[0].sa.spis()), spi(bundle.lanes[new].sa.spis()));
    assert_ne!(old, new);
    let (wifi, mobile, gateway) = (WIFI.to_string(), MOBILE.to_string(), GATEWAY.to_string());

    let seen = read(&bundle.sent, &bundle.key_log);
    // B.2: N(KEEP_OLD_IKE_SA), SA, Ni, KEi on the old IKE_SA, and the same in the answer. Proposal and transforms are
    // payloads of their own to tshark, and 46 is the Encrypted payload around them.
    for (message, source, data) in [(&seen[0], &wifi, "80000000"), (&seen[1], &gateway, "00000000")] {
        assert_eq!((&message.source, &message.spi_i), (source, &old), "{message:?}");
        assert_eq!(message.exchange, CREATE_CHILD_SA);
        assert_eq!(main_payloads(message), ["46", "41", "33", "40", "34"], "{message:?}");
        assert_eq!(
            (&message.notifies[..], &message.data[..]),
            (&["50213".to_owned()][..], &[data.to_owned()][..])
        );
    }
    // B.3: the CHILD_SA on the new one, still by the first interface.
    for (message, source) in [(&seen[2], &wifi), (&seen[3], &gateway)] {
        assert_eq!((&message.source, &message.spi_i), (source, &new), "{message:?}");
        assert_eq!(message.exchange, CREATE_CHILD_SA);
        let payloads = main_payloads(message);
        assert_eq!((payloads[1].as_str(), payloads[2].as_str()), ("33", "40"), "{message:?}");
        assert_eq!(payloads[payloads.len() - 2..], ["44", "45"], "{message:?}");
    }
    // B.4: UPDATE_SA_ADDRESSES with NAT detection and COOKIE2 on the new one, by the other interface.
    let (update, answer) = (&seen[4], &seen[5]);
    assert_eq!((&update.source, &update.spi_i, update.exchange.as_str()), (&mobile, &new, INFORMATIONAL));
    assert_eq!(update.notifies, ["16400", "16388", "16389", "16401"], "{update:?}");
    assert_eq!((&answer.source, &answer.spi_i), (&gateway, &new));
    assert_eq!(answer.notifies, ["16401", "16388", "16389"], "{answer:?}");
    assert_eq!(answer.data.first(), update.data.last(), "COOKIE2 comes back");
    // Whether the client receives there is asked before traffic goes there.
    let asked = seen.iter().skip(6).find(|message| message.source == gateway).unwrap();
    assert_eq!((&asked.spi_i, &asked.notifies[..]), (&new, &["16401".to_owned()][..]));
    // The switch, by the path that it is about.
    let switch = seen.iter().find(|message| message.notifies == ["50214"]).unwrap();
    assert_eq!(
        (&switch.source, &switch.spi_i, &switch.data[0]),
        (&mobile, &new, &"0000000780000000".to_owned())
    );
    assert!(seen.iter().skip(2).all(|message| message.spi_i == new), "nothing more on the old one");
}

fn main_payloads(message: &Seen) -> Vec<String> {
    let nested = ["2", "3"];
    message.payloads.iter().filter(|ty| !nested.contains(&ty.as_str())).cloned().collect()
}

/// What tshark makes of these datagrams with these keys.
fn read(letters: &[Letter], key_log: &[String]) -> Vec<Seen> {
    let path = std::env::temp_dir().join(format!("ropewalk-keep-old-{}.pcap", std::process::id()));
    std::fs::write(&path, capture(letters)).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(&path).args(["-Y", "isakmp", "-T", "fields", "-E", "separator=/t"]);
    for line in key_log {
        tshark.arg("-o").arg(format!("uat:ikev2_decryption_table:{line}"));
    }
    for field in [
        "ip.src",
        "isakmp.ispi",
        "isakmp.exchangetype",
        "isakmp.typepayload",
        "isakmp.notify.msgtype",
        "isakmp.notify.data",
    ] {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark is installed");
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let list = |text: &str| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        Seen {
            source: fields[0].to_owned(),
            spi_i: fields[1].to_owned(),
            exchange: fields[2].to_owned(),
            payloads: list(fields[3]),
            notifies: list(fields[4]),
            data: list(fields[5]),
        }
    };
    let seen: Vec<Seen> = printed.lines().map(of).collect();
    assert_eq!(seen.len(), letters.len(), "{printed}");
    seen
}

/// A pcap file of raw IPv4 packets: UDP to and from port 4500, with the non-ESP marker.
fn capture(letters: &[Letter]) -> Vec<u8> {
    const LINKTYPE_IPV4: u32 = 228;
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, LINKTYPE_IPV4] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for letter in letters {
        let (client, gateway) = ((letter.by, 50_001_u16), (GATEWAY, 4500_u16));
        let (from, to) = if letter.to == To::Gateway { (client, gateway) } else { (gateway, client) };
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        let length = u16::try_from(8 + 4 + letter.bytes.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend((20 + length).to_be_bytes());
        packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
        packet.extend(octets(from.0));
        packet.extend(octets(to.0));
        packet.extend(from.1.to_be_bytes());
        packet.extend(to.1.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0, 0]);
        packet.extend(&letter.bytes);
        let length = u32::try_from(packet.len()).unwrap();
        for word in [0, 0, length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&packet);
    }
    file
}
