//! Networks that let some things through: a login page in front of everything, UDP that is blocked.

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use anyhow::Result;
use ropewalk_e2e::{AuthKind, Client, Credentials, Gateway, GatewayKind, Offer, ProfileText, in_lab};
use ropewalk_lab::{
    Site, SiteOptions,
    site::{GATEWAY_V4, ROUTER_V4},
};

const UNREACHABLE: i32 = 6;
/// The limit of [`Client::expect_refusal`] for a gateway that is silent.
const GIVEN_UP: Duration = Duration::from_secs(45);

#[test]
fn a_login_page_in_front_of_the_gateway_is_suspected() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let portal = site.router.listen_tcp((ROUTER_V4, 8081).into())?;
        thread::spawn(move || {
            for stream in portal.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(
                    b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.test/?from=x\r\nContent-Length: 0\r\n\r\n",
                );
            }
        });
        site.router.nft(
            "table ip portal {\n chain pre {\n  type nat hook prerouting priority dstnat;\n  \
             iifname \"home\" tcp dport 80 dnat to 10.77.1.1:8081\n }\n \
             chain through {\n  type filter hook forward priority 0;\n  iifname \"home\" drop\n }\n}\n",
        )?;
        let client = Client::start(&site.client)?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        client.expect_refusal(
            &profile,
            None,
            UNREACHABLE,
            "login.hotel.test: it may have a login page",
            GIVEN_UP,
        )
    })
}

#[test]
fn blocked_udp_is_told_from_a_gateway_that_is_not_there() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let _gateway =
            Gateway::start(GatewayKind::StrongSwan, &site, &Offer::new(AuthKind::Psk), &credentials)?;
        site.router.nft(
            "table ip firewall {\n chain through {\n  type filter hook forward priority 0;\n  \
             iifname \"home\" meta l4proto udp drop\n }\n}\n",
        )?;
        let client = Client::start(&site.client)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        client.expect_refusal(&profile, None, UNREACHABLE, "may be blocked on the way", GIVEN_UP)
    })
}
