//! The program `ropewalk-gateway` in a namespace: what it makes, what it answers, and that it leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use ropewalk_lab::site::{GATEWAY_V4, LAN_V4};
use ropewalk_lab::{Lab, Namespace, Process, Site, SiteOptions, Swan, SwanAuth, SwanClient};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
identity = "psk.gw.test"
pools = ["10.77.99.0/24", "fd77:99::/64"]
traffic = ["10.77.50.0/24"]

[[psk]]
identity = "alice@corp.test"
secret = "correct horse battery"

[tunnel]
device = "rwgate"
"#;

fn start(namespace: &Namespace, control: &Path) -> Process {
    let config = namespace.lab().dir().join("gateway.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let mut command = namespace.command(env!("CARGO_BIN_EXE_ropewalk-gateway"));
    command.arg("--config").arg(config).arg("--control").arg(control);
    let mut process = Process::start(&mut command, &namespace.log_path("gateway")).unwrap();
    process.wait_for_log("ready", PATIENCE).unwrap();
    process
}

fn ask(control: &Path, line: &str) -> Value {
    let mut stream = UnixStream::connect(control).unwrap();
    writeln!(stream, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn forwarding(namespace: &Namespace) -> String {
    let asked = namespace.run("cat", &["/proc/sys/net/ipv4/ip_forward"], PATIENCE).unwrap();
    asked.stdout.trim().to_owned()
}

#[test]
fn device_addresses_and_forwarding_come_and_go_with_the_program() {
    let lab = Lab::new().unwrap();
    let namespace = lab.namespace("gate").unwrap();
    let control = lab.dir().join("control");
    namespace.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let mut process = start(&namespace, &control);
    let shown = namespace.ip_show(&["address", "show", "dev", "rwgate"]).unwrap();
    assert!(shown.contains("10.77.99.1/24") && shown.contains("fd77:99::1/64"), "{shown}");
    assert!(!shown.contains("fe80"), "no link-local address: {shown}");
    assert_eq!(forwarding(&namespace), "1");
    assert_eq!(ask(&control, "list"), Value::Array(Vec::new()));
    assert_eq!(ask(&control, "stats")["clients"], 0);
    assert!(ask(&control, "dance")["error"].is_string());

    assert_eq!(process.terminate(PATIENCE).unwrap(), 0, "{}", process.log());
    let devices = namespace.ip_show(&["link", "show"]).unwrap();
    assert!(!devices.contains("rwgate"), "{devices}");
    assert_eq!(forwarding(&namespace), "0");
    assert!(!control.exists());
}

fn client() -> SwanClient {
    SwanClient {
        gateway: GATEWAY_V4.into(),
        gateway_id: "psk.gw.test".to_owned(),
        auth: SwanAuth::Psk { id: "alice@corp.test".to_owned(), secret: "correct horse battery".to_owned() },
        ike: "aes256gcm16-prfsha384-x25519".to_owned(),
        esp: "aes256gcm16".to_owned(),
        traffic: vec![LAN_V4.to_owned()],
        authorities: Vec::new(),
    }
}

#[test]
fn when_a_nat_forgets_the_client_its_next_packet_tells_where_it_is_now() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab, SiteOptions::default()).unwrap();
    let control = lab.dir().join("control");
    let _process = start(&site.gateway, &control);
    let swan = Swan::start(&site.client, "swan-client", &client().config()).unwrap();
    swan.initiate("net", PATIENCE).unwrap();
    assert!(site.client.ping("10.77.50.2", 1).unwrap());
    let before = ask(&control, "list")[0]["remote"].clone();

    // A device that goes down takes its masqueraded connections with it; the new ones get other ports.
    let other_ports = "table ip moved {\n chain post {\n  type nat hook postrouting priority 90;\n  \
                       oifname \"outside\" meta l4proto udp masquerade to :61000-61999\n }\n}\n";
    site.router.nft(other_ports).unwrap();
    site.router.ip("link set outside down\nlink set outside up\n").unwrap();
    assert!(site.client.ping("10.77.50.2", 5).unwrap(), "{}", swan.log());
    let after = ask(&control, "list")[0]["remote"].clone();
    assert_ne!(before, after);
    assert!(after.as_str().unwrap().contains(":61"), "{after}");
}

#[test]
fn the_control_socket_shows_clients_and_ends_them_and_so_does_the_end() {
    let lab = Lab::new().unwrap();
    let site = Site::new(&lab, SiteOptions::default()).unwrap();
    let control = lab.dir().join("control");
    let mut process = start(&site.gateway, &control);
    let swan = Swan::start(&site.client, "swan-client", &client().config()).unwrap();
    let gone = || swan.list_sas().is_ok_and(|list| !list.contains("ESTABLISHED")).then_some(());

    swan.initiate("net", PATIENCE).unwrap();
    assert!(site.client.ping("10.77.50.2", 2).unwrap());
    let list = ask(&control, "list");
    assert_eq!(list[0]["name"], "alice@corp.test");
    assert_eq!(list[0]["addresses"][0], "10.77.99.2");
    assert!(list[0]["bytes_in"].as_u64() >= Some(84), "{list}");
    assert_eq!(ask(&control, "disconnect nobody@corp.test")["disconnected"], 0);
    assert_eq!(ask(&control, "disconnect alice@corp.test")["disconnected"], 1);
    ropewalk_lab::until("the client to hear of it", PATIENCE, gone).unwrap();

    swan.initiate("net", PATIENCE).unwrap();
    assert_eq!(ask(&control, "list")[0]["addresses"][0], "10.77.99.2", "the same address again");
    process.signal(Signal::SIGTERM).unwrap();
    ropewalk_lab::until("the client to hear of the end", PATIENCE, gone).unwrap();
    assert_eq!(process.wait(PATIENCE).unwrap(), 0, "{}", process.log());
}
