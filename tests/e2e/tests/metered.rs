//! A real NetworkManager says that a network is metered: its path stands by, whatever the system's routes prefer.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ropewalk_e2e::{
    AuthKind, Client, ClientOptions, Credentials, Gateway, GatewayKind, Logind, Offer, PATIENCE, ProfileText,
    in_lab,
};
use ropewalk_lab::{Namespace, Process, Site, SiteOptions, site::GATEWAY_V4, until};
use serde_json::Value;

/// NetworkManager as `helper/net/tests/fetch-dns-managers.sh` unpacks it.
fn tools() -> Result<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools/root");
    ensure!(
        Path::new(root).join("usr/sbin/NetworkManager").exists(),
        "NetworkManager is missing: run scripts/setup.sh test"
    );
    Ok(root.to_owned())
}

/// NetworkManager in a namespace with a bus, in folders of its own, which rules `eth0` alone.
struct Manager {
    root: String,
    bus: String,
    namespace: Namespace,
    _process: Process,
}

impl Manager {
    fn start(namespace: &Namespace, bus: &Path) -> Result<Self> {
        let root = tools()?;
        let dir = namespace.lab().dir().join("nm");
        fs::create_dir_all(dir.join("connections"))?;
        fs::write(
            dir.join("nm.conf"),
            format!(
                "[main]\nplugins=keyfile\ndns=none\nno-auto-default=*\n\n[keyfile]\npath={}\n\
                 unmanaged-devices=except:interface-name:eth0\n",
                dir.join("connections").display()
            ),
        )?;
        let connection = dir.join("connections/home.nmconnection");
        fs::write(
            &connection,
            "[connection]\nid=home\nuuid=6d1e4a9e-53a5-4c4b-9a4e-0d8b6a6f7c12\ntype=ethernet\ninterface-name=eth0\n\
             metered=1\n[ipv4]\nmethod=manual\naddress1=10.77.1.2/24,10.77.1.1\nroute-metric=100\n\
             [ipv6]\nmethod=disabled\n",
        )?;
        fs::set_permissions(&connection, fs::Permissions::from_mode(0o600))?;
        // It writes to folders that are the machine's; without a writable /sys it does not wait for udev.
        let script = format!(
            "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -o remount,bind,ro /sys && \
             mkdir -p /var/lib/NetworkManager && exec {root}/usr/sbin/NetworkManager --no-daemon --log-level=INFO \
             --config={0}/nm.conf --config-dir={0}/none --system-config-dir={0}/none --state-file={0}/state \
             --intern-config={0}/intern.conf",
            dir.display()
        );
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let bus = format!("unix:path={}", bus.display());
        surroundings(&mut command, &root, &bus);
        let process = Process::start(&mut command, &namespace.log_path("nm"))?;
        let manager = Self { root, bus, namespace: namespace.clone(), _process: process };
        // It found the address there, which it leaves alone until it is told.
        until("NetworkManager to rule eth0", PATIENCE, || {
            manager.nmcli(&["--wait", "5", "connection", "up", "home"]).ok()
        })?;
        Ok(manager)
    }

    fn nmcli(&self, words: &[&str]) -> Result<String> {
        let mut command = self.namespace.command(format!("{}/usr/bin/nmcli", self.root));
        surroundings(&mut command, &self.root, &self.bus);
        let done = command.args(words).output().context("nmcli")?;
        ensure!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

fn surroundings(command: &mut Command, root: &str, bus: &str) {
    let libraries =
        ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib"];
    let libraries = libraries.map(|folder| format!("{root}/{folder}")).join(":");
    command.env("LD_LIBRARY_PATH", libraries).env("DBUS_SYSTEM_BUS_ADDRESS", bus);
}

/// The interface that carries, and which are metered.
fn paths(client: &Client) -> Option<(String, Vec<String>)> {
    let paths = client.status_at("/paths").ok()?;
    let paths = paths.as_array().filter(|paths| paths.len() == 2)?;
    let name = |path: &Value| path.get("interface").and_then(Value::as_str).unwrap_or_default().to_owned();
    let active = paths.iter().find(|path| path.get("state").and_then(Value::as_str) == Some("active"))?;
    let metered = paths.iter().filter(|path| path.get("metered") == Some(&Value::Bool(true)));
    Some((name(active), metered.map(name).collect()))
}

#[test]
fn a_network_that_networkmanager_calls_metered_stands_by() -> Result<()> {
    in_lab(|lab| {
        let site = Site::new(lab, SiteOptions { v6: false, ..SiteOptions::default() })?;
        site.router.link("cafe", &site.client, "wlan0")?;
        site.router.address("cafe", &["10.77.2.1/24"])?;
        site.client.address("wlan0", &["10.77.2.2/24"])?;
        site.client.ip("route add default via 10.77.2.1 dev wlan0 metric 600")?;
        // The bus is the one on which logind is spoken for.
        let bus = Logind::start(lab)?;
        let manager = Manager::start(&site.client, &bus.bus())?;
        let credentials = Credentials::new(AuthKind::Psk)?;
        let offer = Offer::new(AuthKind::Psk);
        let _gateway = Gateway::start(GatewayKind::Reference, &site, &offer, &credentials)?;
        let options = ClientOptions { bus: Some(bus.bus()), ..ClientOptions::default() };
        let client = Client::start_with(&site.client, options)?;
        let profile = ProfileText::new(AuthKind::Psk, &credentials, &GATEWAY_V4.to_string());
        client.connect(&profile, None)?;
        // The system prefers eth0; it costs, so the other one takes over as soon as it has shown that it works.
        let wanted = ("wlan0".to_owned(), vec!["eth0".to_owned()]);
        until("the free network to carry", PATIENCE, || (paths(&client)? == wanted).then_some(()))?;
        // Without another one it carries all the same, and not longer than it must.
        site.router.ip("link set cafe down")?;
        until("the metered network to carry", PATIENCE, || {
            let paths = client.status_at("/paths").ok()?;
            let first = paths.as_array()?.first()?;
            (first.get("interface")? == "eth0" && first.get("state")? == "active").then_some(())
        })?;
        site.router.ip("link set cafe up")?;
        site.router.address("cafe", &["10.77.2.1/24"]).ok();
        site.client.ip("route replace default via 10.77.2.1 dev wlan0 metric 600").ok();
        until("the free network to carry again", PATIENCE, || (paths(&client)? == wanted).then_some(()))?;
        // The user says that it does not cost: that is heard of, and is no reason to move.
        manager.nmcli(&["connection", "modify", "home", "connection.metered", "no"])?;
        manager.nmcli(&["device", "reapply", "eth0"])?;
        until("that nothing is metered", PATIENCE, || {
            paths(&client).filter(|(_, metered)| metered.is_empty()).map(|_| ())
        })?;
        thread::sleep(Duration::from_secs(1));
        ensure!(paths(&client).is_some_and(|(carries, _)| carries == "wlan0"));
        client.disconnect()
    })
}
