//! Authorisation by a real polkitd on a bus of its own: nothing of the machine's is touched. polkitd runs in a mount
//! namespace in which its action and rule folders are ours; the action file is the one that is installed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Helper, NOBODY, PATIENCE, connect, import, silent_profile};
use ropewalk_ipc::{Client, ClientOptions, ErrorCode, Policy, Reply, Request, State};

/// User `daemon` on Debian.
const DAEMON: u32 = 1;

const RULES: &str = r#"
polkit.addRule(function(action, subject) {
  if (subject.user == "daemon") return polkit.Result.NO;
  if (subject.user == "nobody" && action.id == "org.ropewalk.set-policy") return polkit.Result.AUTH_SELF;
  if (subject.user == "nobody" && action.id != "org.ropewalk.manage-system-profiles") return polkit.Result.YES;
});
"#;

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=@DIR@/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

struct Polkit {
    dir: tempfile::TempDir,
    bus: Child,
    polkitd: Child,
}

impl Polkit {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["actions", "rules", "empty"] {
            std::fs::create_dir(path.join(folder)).unwrap();
        }
        let action = Path::new(env!("CARGO_MANIFEST_DIR")).join("../installer/polkit/org.ropewalk.policy");
        std::fs::copy(action, path.join("actions/org.ropewalk.policy")).expect("the action file");
        std::fs::write(path.join("rules/10-test.rules"), RULES).unwrap();
        std::fs::write(path.join("bus.conf"), BUS.replace("@DIR@", &path.display().to_string())).unwrap();
        let bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(path.join("bus.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        wait_for("the bus", || path.join("bus").exists());
        let script = "mount --make-rprivate / \
             && mount --bind \"$1/actions\" /usr/share/polkit-1/actions \
             && mount --bind \"$1/rules\" /etc/polkit-1/rules.d \
             && mount --bind \"$1/empty\" /usr/share/polkit-1/rules.d \
             && exec /usr/lib/polkit-1/polkitd --no-debug";
        let polkitd = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(path)
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.join("bus").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare is installed");
        let polkit = Self { dir, bus, polkitd };
        wait_for("polkitd", || {
            Command::new("pkaction")
                .args(["--action-id", "org.ropewalk.connect"])
                .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", polkit.bus().display()))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("pkaction is installed")
                .success()
        });
        polkit
    }

    fn bus(&self) -> PathBuf {
        self.dir.path().join("bus")
    }

    fn stop_polkitd(&mut self) {
        let _ = self.polkitd.kill();
        let _ = self.polkitd.wait();
    }
}

impl Drop for Polkit {
    fn drop(&mut self) {
        self.stop_polkitd();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < PATIENCE, "{what} does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
#[ignore = "the part of other tests that runs as another user"]
async fn inner() {
    match std::env::var("ROPEWALK_INNER").as_deref() {
        Ok("requests") => common::send_requests().await,
        Ok("dialog") => disconnect_beside_a_dialog().await,
        _ => {}
    }
}

#[tokio::test]
async fn polkit_decides_and_its_no_is_a_no() {
    let polkit = Polkit::start();
    let helper = Helper::start(&[], Some(&polkit.bus()));
    let mode = std::fs::metadata(helper.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666, "everybody may ask");

    let allowed = helper.as_user(
        NOBODY,
        &[
            import(&silent_profile("mine"), false),
            connect("mine", 0),
            Request::Disconnect { name: Some("mine".into()), wait_seconds: 10 },
        ],
    );
    assert!(allowed.iter().all(Result::is_ok), "{allowed:?}");
    let refused = helper.as_user(NOBODY, &[import(&silent_profile("ours"), true)]);
    assert_eq!(refused[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);

    let denied = helper.as_user(
        DAEMON,
        &[Request::Profiles, import(&silent_profile("mine"), false), import(&silent_profile("ours"), true)],
    );
    assert!(denied[0].is_ok(), "one's own list needs no right");
    for result in &denied[1..] {
        assert_eq!(result.as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
    }

    // Root's is for everybody; connecting with it is still polkit's to decide.
    let (root, _events) = helper.client().await;
    root.request(import(&silent_profile("ours"), true)).await.unwrap();
    let denied = helper.as_user(DAEMON, &[connect("ours", 0)]);
    assert_eq!(denied[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
}

#[tokio::test]
async fn others_see_that_a_tunnel_exists_and_cannot_end_it() {
    let polkit = Polkit::start();
    let helper = Helper::start(&[], Some(&polkit.bus()));
    let (root, _events) = helper.client().await;
    root.request(import(&silent_profile("ours"), true)).await.unwrap();
    root.request(connect("ours", 0)).await.unwrap();
    let seen = helper.as_user(
        NOBODY,
        &[
            Request::Status { name: None, all: true },
            Request::Disconnect { name: Some("ours".into()), wait_seconds: 5 },
            Request::Disconnect { name: None, wait_seconds: 5 },
        ],
    );
    let Ok(Reply::Statuses(statuses)) = &seen[0] else { panic!("{seen:?}") };
    assert_eq!(statuses.len(), 1);
    assert_eq!(
        (statuses[0].state, &statuses[0].profile, statuses[0].owned),
        (State::Connecting, &None, false)
    );
    assert_eq!(seen[1].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
    assert_eq!(seen[2], Ok(Reply::Disconnected(Vec::new())));
    root.request(Request::Disconnect { name: None, wait_seconds: 10 }).await.unwrap();
}

#[tokio::test]
async fn without_polkit_or_without_a_bus_the_answer_is_no() {
    let mut polkit = Polkit::start();
    let helper = Helper::start(&[], Some(&polkit.bus()));
    polkit.stop_polkitd();
    let refused = helper.as_user(NOBODY, &[import(&silent_profile("mine"), false)]);
    assert_eq!(refused[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
    let helper = Helper::start(&[], None);
    let refused = helper.as_user(NOBODY, &[import(&silent_profile("mine"), false)]);
    assert_eq!(refused[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
}

#[tokio::test]
async fn a_dialog_that_nobody_answers_does_not_hold_up_a_disconnect() {
    let polkit = Polkit::start();
    let helper = Helper::start(&[], Some(&polkit.bus()));
    let output = common::inner("dialog", NOBODY, &helper.socket())
        .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", polkit.bus().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("disconnected beside the dialog"), "{said}");
}

/// As `nobody`: registers as authentication agent that never answers, asks for something that needs a dialog, and
/// disconnects meanwhile.
async fn disconnect_beside_a_dialog() {
    let bus = zbus::Connection::system().await.unwrap();
    let pid = std::process::id();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let subject = std::collections::HashMap::from([
        ("pid", zbus::Variant::U32(pid)),
        ("start-time", zbus::Variant::U64(start)),
        ("uid", zbus::Variant::I32(NOBODY.try_into().unwrap())),
    ]);
    bus.call_method(
        Some("org.freedesktop.PolicyKit1"),
        "/org/freedesktop/PolicyKit1/Authority",
        Some("org.freedesktop.PolicyKit1.Authority"),
        "RegisterAuthenticationAgent",
        &(("unix-process", subject), "C", "/agent"),
    )
    .await
    .unwrap();

    let options = ClientOptions::new(std::env::var_os("ROPEWALK_SOCKET").unwrap(), "inner");
    let (client, _events) = Client::connect(&options).await.unwrap();
    client.request(import(&silent_profile("mine"), false)).await.unwrap();
    client.request(connect("mine", 0)).await.unwrap();
    let asking = client.clone();
    let dialog =
        tokio::spawn(async move { asking.request(Request::SetPolicy { policy: Policy::Failover }).await });
    // Long enough for the question to reach polkit and polkit's to reach the agent.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!dialog.is_finished(), "the dialog is open");
    let started = Instant::now();
    let gone = client.request(Request::Disconnect { name: None, wait_seconds: 10 }).await.unwrap();
    assert_eq!(gone, Reply::Disconnected(vec!["mine".into()]));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!dialog.is_finished(), "the dialog is still open");
    println!("disconnected beside the dialog");
}
