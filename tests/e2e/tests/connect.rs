//! Connecting, through NAT, with every kind of authentication, to both gateways, over both families; and that what the
//! tunnel carries arrives whole.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Gateway, GatewayKind, NetworkState, Offer, PATIENCE,
    ProfileText, in_lab,
};
use ropewalk_lab::{
    PAGE, Site, SiteOptions, TWENTY_MEGABYTES, download, fetch_page,
    site::{CLIENT_V4, GATEWAY_V4, GATEWAY_V6, SERVER_V4, SERVER_V6},
    udp_echo, upload,
};
use serde_json::Value;

/// One whole visit: connect, see what the status says, move traffic of both families, disconnect, find everything as before.
fn visit(which: GatewayKind, kind: AuthKind, outer: IpAddr, options: SiteOptions) -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, options)?;
        let credentials = Credentials::new(kind)?;
        let gateway = Gateway::start(which, &site, &Offer::new(kind), &credentials)?;
        let before = NetworkState::of(&site.client)?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(kind, &credentials, &outer.to_string());
        ensure!(!site.client.ping("10.77.50.2", 1)?, "the server must not be reachable without a tunnel");

        let finished = client.connect(&profile, credentials.password_for(kind))?;
        eprintln!("{which:?} {kind:?} {outer}: connect took {:?}", finished.elapsed);
        ensure!(gateway.sessions()? == 1);
        check_status(&client, kind, outer, options)?;
        for server in [SERVER_V4.to_string(), SERVER_V6.to_string()] {
            ensure!(site.client.ping(&server, 3)?, "ping {server}");
        }
        for server in [Site::transfer_v4(), Site::transfer_v6()] {
            ensure!(udp_echo(&site.client, server, 1200, PATIENCE)?, "UDP echo of {server}");
            ensure!(fetch_page(&site.client, server, PATIENCE)? == PAGE, "page of {server}");
        }

        client.disconnect()?;
        ensure!(!site.client.ping("10.77.50.2", 1)?, "no answer after the end");
        before.assert_restored(&site.client)
    })
}

fn check_status(client: &Client, kind: AuthKind, outer: IpAddr, options: SiteOptions) -> Result<()> {
    let status = client.status()?;
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(text("/state") == "connected", "{status}");
    ensure!(text("/profile") == "lab", "{status}");
    ensure!(text("/gateway/address") == outer.to_string(), "{status}");
    ensure!(text("/gateway/identity") == kind.gateway_identity(), "{status}");
    let list = |pointer: &str| {
        let values = status.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        values.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    ensure!(list("/addresses").iter().any(|address| address.starts_with("10.77.99.")), "{status}");
    ensure!(list("/addresses").iter().any(|address| address.starts_with("fd77:99::")), "{status}");
    ensure!(list("/dns/servers").contains(&SERVER_V4.to_string()), "{status}");
    ensure!(list("/routes").contains(&"10.77.50.0/24".to_owned()), "{status}");
    ensure!(status.pointer("/ike/0/nat") == Some(&Value::Bool(options.nat)), "{status}");
    ensure!(text("/children/0/mode") == "tunnel", "{status}");
    ensure!(text("/paths/0/interface") == "eth0" && text("/paths/0/state") == "active", "{status}");
    ensure!(status.get("error") == Some(&Value::Null), "{status}");
    Ok(())
}

macro_rules! visits {
    ($($name:ident: $which:ident, $kind:ident, $outer:expr, $options:expr;)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                visit(GatewayKind::$which, AuthKind::$kind, IpAddr::from($outer), $options)
            }
        )*
    };
}

const BEHIND_NAT: SiteOptions = SiteOptions { nat: true, v4: true, v6: true };
const NO_NAT: SiteOptions = SiteOptions { nat: false, v4: true, v6: true };
const V6_ONLY: SiteOptions = SiteOptions { nat: false, v4: false, v6: true };

visits! {
    psk_to_strongswan_behind_nat: StrongSwan, Psk, GATEWAY_V4, BEHIND_NAT;
    ecdsa_to_strongswan_behind_nat: StrongSwan, Ecdsa, GATEWAY_V4, BEHIND_NAT;
    rsa_to_strongswan_behind_nat: StrongSwan, Rsa, GATEWAY_V4, BEHIND_NAT;
    eap_to_strongswan_behind_nat: StrongSwan, EapMschapv2, GATEWAY_V4, BEHIND_NAT;
    psk_to_reference_behind_nat: Reference, Psk, GATEWAY_V4, BEHIND_NAT;
    ecdsa_to_reference_behind_nat: Reference, Ecdsa, GATEWAY_V4, BEHIND_NAT;
    rsa_to_reference_behind_nat: Reference, Rsa, GATEWAY_V4, BEHIND_NAT;
    eap_to_reference_behind_nat: Reference, EapMschapv2, GATEWAY_V4, BEHIND_NAT;
    psk_to_strongswan_over_ipv6_behind_nat: StrongSwan, Psk, GATEWAY_V6, BEHIND_NAT;
    psk_to_strongswan_without_nat: StrongSwan, Psk, GATEWAY_V4, NO_NAT;
    psk_to_reference_without_nat: Reference, Psk, GATEWAY_V4, NO_NAT;
    eap_to_strongswan_in_an_ipv6_only_network: StrongSwan, EapMschapv2, GATEWAY_V6, V6_ONLY;
    eap_to_reference_in_an_ipv6_only_network: Reference, EapMschapv2, GATEWAY_V6, V6_ONLY;
}

/// 20 MB each way, inside IPv4 and IPv6, with checksums.
fn transfer(which: GatewayKind, esp: &str, outer: IpAddr, more: &[&str]) -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway = Gateway::start(which, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start_with(
            &site.client,
            ClientOptions {
                arguments: more.iter().map(ToString::to_string).collect(),
                ..ClientOptions::default()
            },
        )?;
        let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &outer.to_string());
        profile.esp = Some(esp.to_owned());
        client.connect(&profile, None)?;
        let suite = client.status_at("/children/0/suite")?;
        // The reference gateway knows extended sequence numbers, strongSwan's user-space ESP does not.
        let expected = match which {
            GatewayKind::StrongSwan => esp.to_owned(),
            GatewayKind::Reference => format!("{esp}-esn"),
        };
        ensure!(suite == Value::String(expected), "{suite}");
        for server in [Site::transfer_v4(), Site::transfer_v6()] {
            let up = upload(&site.client, server, TWENTY_MEGABYTES, PATIENCE)?;
            let down = download(&site.client, server, TWENTY_MEGABYTES, PATIENCE)?;
            eprintln!(
                "{which:?} {esp} {server}: up {:.0}, down {:.0} Mbit/s",
                up.megabits(),
                down.megabits()
            );
        }
        for direction in ["/children/0/bytes_in", "/children/0/bytes_out"] {
            let counted = client.status_at(direction)?.as_u64().unwrap_or_default();
            ensure!(counted > 2 * TWENTY_MEGABYTES, "{direction} counts {counted}");
        }
        client.disconnect()
    })
}

#[test]
fn twenty_megabytes_arrive_whole_each_way_through_strongswan() -> Result<()> {
    transfer(GatewayKind::StrongSwan, "aes256gcm16", GATEWAY_V4.into(), &[])
}

#[test]
fn twenty_megabytes_arrive_whole_each_way_through_strongswan_over_ipv6() -> Result<()> {
    transfer(GatewayKind::StrongSwan, "chacha20poly1305", GATEWAY_V6.into(), &[])
}

#[test]
fn twenty_megabytes_arrive_whole_each_way_through_the_reference_gateway() -> Result<()> {
    transfer(GatewayKind::Reference, "aes256gcm16", GATEWAY_V4.into(), &[])
}

#[test]
fn twenty_megabytes_arrive_whole_each_way_without_offloads() -> Result<()> {
    transfer(GatewayKind::StrongSwan, "aes256gcm16", GATEWAY_V4.into(), &["--no-offloads"])
}

#[test]
fn every_suite_is_agreed_with_strongswan_and_carries() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        let suites = [
            ("aes256gcm16-prfsha384-x25519", "aes256gcm16"),
            ("aes128gcm16-prfsha256-ecp256", "aes128gcm16"),
            ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
            ("aes256-sha256-modp2048", "aes256-sha256"),
            ("aes256-sha256-modp3072", "aes128-sha256"),
            ("aes256-sha384-ecp384", "aes256-sha384"),
            ("aes256-sha512-modp4096", "aes256-sha512"),
        ];
        for (ike, esp) in suites {
            let mut profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
            profile.ike = Some(ike.to_owned());
            profile.esp = Some(esp.to_owned());
            client.connect(&profile, None)?;
            ensure!(site.client.ping("10.77.50.2", 1)?, "{ike} {esp}: ping");
            upload(&site.client, Site::transfer_v4(), 500_000, PATIENCE)?;
            download(&site.client, Site::transfer_v6(), 500_000, PATIENCE)?;
            client.disconnect()?;
        }
        Ok(())
    })
}

#[test]
fn the_gateway_may_ask_for_another_group_first() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        // The client's first guess is another group: INVALID_KE_PAYLOAD, then a retry.
        let offer = Offer { ike: Some("aes256-sha256-modp2048".to_owned()), ..Offer::new(AuthKind::Psk) };
        let gateway = Gateway::start(GatewayKind::StrongSwan, &site, &offer, &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        ensure!(site.client.ping("10.77.50.2", 2)?);
        ensure!(gateway.sessions()? == 1);
        client.disconnect()
    })
}

#[test]
fn large_packets_pass_or_their_sender_is_told() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        let mtu = client.status_at("/mtu")?.as_u64().unwrap_or_default();
        ensure!((1280..1500).contains(&mtu), "inner MTU {mtu}");
        let ping = |arguments: &[&str]| site.client.run("ping", arguments, PATIENCE);
        // 28 octets are the IPv4 and ICMP headers.
        let fits = (mtu - 28).to_string();
        ensure!(
            ping(&["-n", "-c1", "-W3", "-M", "do", "-s", &fits, "10.77.50.2"])?.code == 0,
            "a packet of {mtu} octets"
        );
        let told = ping(&["-n", "-c1", "-W3", "-M", "do", "-s", "1473", "10.77.50.2"])?;
        ensure!(told.code != 0 && format!("{}{}", told.stdout, told.stderr).contains("mtu"), "{told:?}");
        ensure!(ping(&["-n", "-c1", "-W3", "-s", "4000", "10.77.50.2"])?.code == 0, "a packet in fragments");
        client.disconnect()
    })
}

#[test]
fn a_name_leads_to_the_gateway_too() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        // The network at home has a DNS server of its own, on the router.
        let names = vec![("vpn.example.test".to_owned(), IpAddr::V4(GATEWAY_V4))];
        let _dns = ropewalk_lab::Dnsmasq::start_named(
            &site.router,
            "home",
            &ropewalk_lab::DnsmasqConfig { names, ..ropewalk_lab::DnsmasqConfig::default() },
        )?;
        site.client.resolv_conf("nameserver 10.77.1.1\n")?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, "vpn.example.test"), None)?;
        ensure!(client.status_at("/gateway/address")? == Value::String(GATEWAY_V4.to_string()));
        ensure!(site.client.ping("10.77.50.2", 2)?);
        client.disconnect()
    })
}

#[test]
fn the_gateway_sees_an_inner_address_of_its_pool_and_nothing_of_the_clients_own() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions::default())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        let client = Client::start(&site.client)?;
        client.connect(&ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string()), None)?;
        let capture = ropewalk_lab::Capture::start(&site.server, "eth0", "server")?;
        ensure!(udp_echo(&site.client, Site::transfer_v4(), 100, PATIENCE)?);
        // A packet whose source is not the inner address must not come through.
        let bound = site.client.bind_udp(SocketAddr::new(CLIENT_V4.into(), 0))?;
        let _ = bound.send_to(b"not mine", Site::transfer_v4());
        let seen = ropewalk_lab::tshark(&capture.finish()?, lab.dir(), &["-T", "fields", "-e", "ip.src"])?;
        ensure!(seen.contains("10.77.99."), "{seen}");
        ensure!(!seen.contains(&CLIENT_V4.to_string()), "the client's own address was seen: {seen}");
        client.disconnect()
    })
}
