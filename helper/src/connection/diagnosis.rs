//! Why a gateway is silent, as far as the network shows it: a login page in front of it, UDP that is blocked, or nothing.
//!
//! Looked into only when the gateway has left the first messages unanswered, and only by means that such a network shows
//! anyway: the address that its name server gave, and one web request to the gateway itself, past the tunnel. Nobody else is
//! asked. What comes out is a suspicion and is told as such.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ropewalk_ipc::ErrorInfo;
use ropewalk_net::{DEFAULT_FWMARK, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// After so much silence it is looked into.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// One TCP connection, and one answer by it.
const LIMIT: Duration = Duration::from_secs(3);
/// As much of a web answer as holds its first lines.
const ENOUGH: usize = 4096;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The network gave an address of its own for the gateway's name.
    NameOfTheNetwork {
        /// That address.
        address: IpAddr,
    },
    /// A web request to the gateway is answered in a login page's way.
    LoginPage {
        /// Where it sends to, when it says so.
        to: Option<String>,
    },
    /// The gateway's host is reached by TCP.
    OnlyTcp,
    /// Nothing answers.
    Nothing,
}

impl Finding {
    /// Puts the suspicion behind what is known.
    pub fn add_to(&self, error: &mut ErrorInfo) {
        let (suspicion, hint) = match self {
            Self::NameOfTheNetwork { address } => (
                format!(
                    " This network says that the gateway is at {address}, an address of its own: it may have a login page."
                ),
                "Open a web browser, log in to the network, and connect again. A connection that stood goes on by itself.",
            ),
            Self::LoginPage { to } => (
                match to {
                    Some(to) => format!(
                        " This network sends web requests for the gateway to {to}: it may have a login page."
                    ),
                    None => " This network answers web requests in the gateway's place: it may have a login page.".to_owned(),
                },
                "Open a web browser, log in to the network, and connect again. A connection that stood goes on by itself.",
            ),
            Self::OnlyTcp => (
                " Its host can be reached by TCP, so UDP ports 500 and 4500 may be blocked on the way, or its VPN service is down.".to_owned(),
                "Try another network; if it works there, this one blocks UDP. Else ask the administrator of the gateway.",
            ),
            Self::Nothing => return,
        };
        error.message.push_str(&suspicion);
        hint.clone_into(&mut error.hint);
    }
}

/// Looks into the silence of the gateway that the profile calls `host`.
pub async fn look(host: String, address: IpAddr, networks: &Snapshot) -> Finding {
    if host.parse::<IpAddr>().is_err() && belongs_to_the_network(address, networks) {
        return Finding::NameOfTheNetwork { address };
    }
    let web = async {
        let stream = connect(SocketAddr::new(address, 80)).await.ok()?;
        tokio::time::timeout(LIMIT, ask(stream, &host)).await.ok()?
    };
    let (answer, secure) = tokio::join!(web, connect(SocketAddr::new(address, 443)));
    match answer {
        Some(answer) => match login_page(&answer, &host, address) {
            Some(to) => Finding::LoginPage { to },
            None => Finding::OnlyTcp,
        },
        None if secure.is_ok() => Finding::OnlyTcp,
        // A refusal comes from the host itself, or from a firewall that speaks for it.
        None if secure.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) => {
            Finding::OnlyTcp
        }
        None => Finding::Nothing,
    }
}

/// Whether the address is the router's, or one of the networks that this computer is in.
fn belongs_to_the_network(address: IpAddr, networks: &Snapshot) -> bool {
    let leads_out = |interface: &&ropewalk_net::Interface| {
        interface.default_v4.is_some() || interface.default_v6.is_some()
    };
    networks.interfaces.iter().filter(leads_out).any(|interface| {
        let routers = [&interface.default_v4, &interface.default_v6].into_iter().flatten();
        interface.addresses.iter().any(|own| own.net.contains(&address))
            || routers.filter_map(|route| route.gateway).any(|router| router == address)
    })
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Past the tunnel, like the connection itself.
    socket2::SockRef::from(&socket).set_mark(DEFAULT_FWMARK)?;
    tokio::time::timeout(LIMIT, socket.connect(to))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

async fn ask(mut stream: TcpStream, host: &str) -> Option<Vec<u8>> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < ENOUGH && !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend(piece.iter().take(count)),
        }
    }
    Some(answer)
}

/// Whether a web answer is a login page's: "network authentication required" (RFC 6585 section 6), or a redirection to
/// another host.
fn login_page(answer: &[u8], host: &str, address: IpAddr) -> Option<Option<String>> {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines();
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status == 511 {
        return Some(None);
    }
    if !(300..400).contains(&status) {
        return None;
    }
    let location = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim())
    })?;
    let authority = location.split_once("//")?.1.split(['/', '?', '#']).next()?;
    let to = match authority.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => authority,
    };
    let bare = to.trim_start_matches('[').trim_end_matches(']');
    let itself = bare.eq_ignore_ascii_case(host) || bare.parse() == Ok(address);
    let printable: String = to.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
    (!itself && !printable.is_empty()).then_some(Some(printable))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));

    fn judged(answer: &str) -> Option<Option<String>> {
        login_page(answer.as_bytes(), "vpn.example.com", GATEWAY)
    }

    #[test]
    fn a_redirection_elsewhere_and_511_are_login_pages_and_a_gateways_own_pages_are_not() {
        let to = |location: &str| format!("HTTP/1.1 302 Found\r\nServer: x\r\nLOCATION: {location}\r\n\r\n");
        let found = Some(Some("login.hotel.example".to_owned()));
        assert_eq!(judged(&to("http://login.hotel.example/start?x=1")), found);
        assert_eq!(judged(&to("https://login.hotel.example:8443")), found);
        assert_eq!(judged("HTTP/1.1 511 Network Authentication Required\r\n\r\n"), Some(None));
        for own in
            ["https://vpn.example.com/", "https://VPN.example.com:443/x", "https://198.51.100.2/", "/login"]
        {
            assert_eq!(judged(&to(own)), None, "{own}");
        }
        for other in [
            "HTTP/1.1 200 OK\r\nLocation: http://x/\r\n\r\n",
            "HTTP/1.1 302",
            "",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 301 \r\n\r\n",
        ] {
            assert_eq!(judged(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_address_of_the_network_is_known_by_its_router_and_by_ours() {
        let own = |net: &str| ropewalk_net::InterfaceAddress {
            net: net.parse().unwrap(),
            global: true,
            temporary: false,
            deprecated: false,
            tentative: false,
        };
        let interface = |name: &str, address: &str, router: Option<&str>| ropewalk_net::Interface {
            name: name.to_owned(),
            index: 2,
            kind: ropewalk_net::InterfaceKind::Wifi,
            up: true,
            mtu: 1500,
            mac: None,
            addresses: vec![own(address)],
            default_v4: router
                .map(|router| ropewalk_net::DefaultRoute { gateway: router.parse().ok(), metric: 600 }),
            default_v6: None,
        };
        let networks = Snapshot {
            interfaces: vec![
                interface("wlan0", "10.77.1.2/24", Some("10.99.0.1")),
                interface("docker0", "172.17.0.1/16", None),
            ],
        };
        for (address, expected) in
            [("10.77.1.1", true), ("10.99.0.1", true), ("172.17.0.9", false), ("198.51.100.2", false)]
        {
            assert_eq!(belongs_to_the_network(address.parse().unwrap(), &networks), expected, "{address}");
        }
    }

    #[test]
    fn what_a_stranger_writes_into_the_answer_is_cut_and_cleaned() {
        let hostile = format!("HTTP/1.1 302 x\r\nLocation: http://a\u{1b}[31m{}\r\n\r\n", "b".repeat(5000));
        let found = judged(&hostile).unwrap().unwrap();
        assert!(found.len() <= 100 && found.chars().all(|c| c.is_ascii_graphic()), "{found}");
    }
}
