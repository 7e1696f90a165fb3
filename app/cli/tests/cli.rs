//! The program against a helper that answers as each test wants: exit codes, what is printed, what is sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ropewalk_ipc::{
    ClientMessage, CredentialField, CredentialReason, CredentialRequest, Credentials, EndpointStatus,
    EndpointWay, ErrorCode, ErrorInfo, GroupState, GroupStatus, Imported, Reply, Request, ServerMessage,
    State, Status, handshake, read_frame, write_frame,
};
use tokio::net::UnixListener;

/// What a helper does with one request.
type Answer = dyn Fn(&Request) -> Result<Reply, ErrorInfo> + Send + Sync;

/// Whether the fake helper asks for credentials before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Never,
    First,
    /// It does not wait for them.
    InVain,
}

/// A helper on a socket of its own, which remembers what it was asked and told.
struct FakeHelper {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
    credentials: Arc<Mutex<Vec<Option<Credentials>>>>,
    _runtime: tokio::runtime::Runtime,
}

impl FakeHelper {
    fn new(
        asks: Asks,
        answer: impl Fn(&Request) -> Result<Reply, ErrorInfo> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let credentials = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(dir.path().join("socket")).unwrap()
        };
        let (seen, told, answer): (_, _, Arc<Answer>) =
            (Arc::clone(&requests), Arc::clone(&credentials), Arc::new(answer));
        runtime.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (seen, told, answer) = (Arc::clone(&seen), Arc::clone(&told), Arc::clone(&answer));
                tokio::spawn(async move {
                    handshake(&mut stream, "fake").await.unwrap();
                    while let Ok(ClientMessage::Request { id, request }) = read_frame(&mut stream).await {
                        if asks != Asks::Never {
                            let question = CredentialRequest {
                                id: 1,
                                profile: "Example".into(),
                                fields: vec![CredentialField::Password],
                                reason: CredentialReason::Missing,
                                user: Some("alice".into()),
                            };
                            write_frame(&mut stream, &ServerMessage::CredentialRequest(question))
                                .await
                                .unwrap();
                            if asks == Asks::InVain {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            } else {
                                let Ok(ClientMessage::Credentials { credentials, .. }) =
                                    read_frame(&mut stream).await
                                else {
                                    return;
                                };
                                told.lock().unwrap().push(credentials);
                            }
                        }
                        let result = answer(&request);
                        let watch = request == Request::Watch;
                        seen.lock().unwrap().push(request);
                        write_frame(&mut stream, &ServerMessage::Reply { id, result }).await.unwrap();
                        if watch {
                            for state in [State::Connecting, State::Connected] {
                                let status =
                                    Status { state, profile: Some("Example".into()), ..Status::default() };
                                write_frame(&mut stream, &ServerMessage::Status(Box::new(status)))
                                    .await
                                    .unwrap();
                            }
                            return;
                        }
                    }
                });
            }
        });
        Self { dir, requests, credentials, _runtime: runtime }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).env("ROPEWALK_SOCKET", self.dir.path().join("socket")).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn connected() -> Status {
    Status {
        state: State::Connected,
        profile: Some("Example".into()),
        addresses: vec!["10.0.0.5/32".into()],
        owned: true,
        ..Status::default()
    }
}

#[test]
fn every_error_has_its_exit_code_and_one_line_on_stderr() {
    for (code, exit) in [
        (ErrorCode::Failed, 1),
        (ErrorCode::Usage, 2),
        (ErrorCode::HelperUnreachable, 3),
        (ErrorCode::NotAuthorised, 4),
        (ErrorCode::AuthFailed, 5),
        (ErrorCode::GatewayUnreachable, 6),
        (ErrorCode::NoProposal, 7),
        (ErrorCode::ProfileRefused, 8),
    ] {
        let helper =
            FakeHelper::new(Asks::Never, move |_| Err(ErrorInfo::new(code, "it\nfailed", "do this")));
        let output = helper.run(&["connect", "Example"]);
        assert_eq!(output.status.code(), Some(exit));
        assert_eq!(text(&output.stderr), "ropewalk: it failed; do this\n");
        assert!(output.stdout.is_empty());
        let output = helper.run(&["connect", "Example", "--json"]);
        assert_eq!(output.status.code(), Some(exit));
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((&error["code"], &error["hint"]), (&code.as_str().into(), &"do this".into()));
        assert_eq!(error.as_object().unwrap().len(), 3);
    }
}

#[test]
fn a_wrong_usage_is_2_and_an_absent_helper_3() {
    let run =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_ropewalk")).args(arguments).output().unwrap();
    for wrong in
        [&["frobnicate"][..], &[], &["connect"], &["policy", "fastest"], &["connect", "x", "--wait", "soon"]]
    {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let output = run(&["status", "--socket", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("systemctl start"), "{}", text(&output.stderr));
}

#[test]
fn status_as_json_has_the_published_keys() {
    let helper = FakeHelper::new(Asks::Never, |_| Ok(Reply::Statuses(vec![connected()])));
    let output = helper.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in [
        "state",
        "profile",
        "since",
        "gateway",
        "addresses",
        "dns",
        "routes",
        "mtu",
        "ike",
        "children",
        "paths",
        "features",
        "error",
    ] {
        assert!(status.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(status["state"], "connected");
    for (object, keys) in [
        ("gateway", &["address", "identity"][..]),
        ("dns", &["servers", "domains"]),
        (
            "features",
            &["mobike", "keep_old_ike_sa", "multi_point_sa", "fragmentation", "ppk", "key_exchange"],
        ),
    ] {
        for key in keys {
            assert!(status[object].get(key).is_some(), "{object}.{key} is missing");
        }
    }
    let output = helper.run(&["status", "--json", "--all"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().is_array());
}

#[test]
fn status_tells_how_the_members_of_a_group_are_reached_and_what_is_wrong_with_it() {
    let endpoint = |address: &str, way| EndpointStatus {
        address: address.into(),
        networks: vec!["10.30.2.0/24".into()],
        learned: vec!["10.30.3.7/32".into()],
        way,
        ..EndpointStatus::default()
    };
    let in_use = GroupStatus {
        state: GroupState::InUse,
        suite: Some("aes256-sha256".into()),
        endpoints: vec![
            endpoint("192.0.2.12", EndpointWay::Direct),
            endpoint("192.0.2.13", EndpointWay::Untried),
            endpoint("192.0.2.14", EndpointWay::Gateway),
        ],
        ignored_routes: vec!["0.0.0.0/0 via 192.0.2.12: it is too much".into()],
        ..GroupStatus::default()
    };
    let refused = GroupStatus {
        state: GroupState::Refused,
        reason: Some("it is a counter mode".into()),
        ..GroupStatus::default()
    };
    for (group, expected) in [
        (
            in_use,
            &[
                "aes256-sha256, not checked for replayed packets",
                "10.30.2.0/24 and 10.30.3.7/32 (learned) at 192.0.2.12 directly\n",
                "192.0.2.13 directly, not heard from yet",
                "192.0.2.14 through the gateway",
                "Not used   0.0.0.0/0 via 192.0.2.12: it is too much",
            ][..],
        ),
        (refused, &["not used: it is a counter mode"]),
    ] {
        let status = Status { group: Some(group), ..connected() };
        let helper = FakeHelper::new(Asks::Never, move |_| Ok(Reply::Statuses(vec![status.clone()])));
        let shown = text(&helper.run(&["status"]).stdout).to_owned();
        for words in expected {
            assert!(shown.contains(words), "{words:?} is not in {shown}");
        }
    }
}

#[test]
fn import_sends_the_file_s_bytes_and_prints_the_name() {
    let helper = FakeHelper::new(Asks::Never, |_| {
        let warnings = vec!["`x`: not known".to_owned()];
        Ok(Reply::Imported(Imported { name: "Example".into(), replaced: false, warnings }))
    });
    let file = helper.dir.path().join("profile.toml");
    std::fs::write(&file, "version = 1\n").unwrap();
    let output = helper.run(&["import", file.to_str().unwrap(), "--name", "Other", "--system"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "Example\n"));
    assert!(text(&output.stderr).contains("warning"));
    let requests = helper.requests.lock().unwrap();
    let Request::Import { data, name, system } = &requests[0] else { panic!("{requests:?}") };
    assert_eq!((data.as_bytes(), name.as_deref(), *system), (&b"version = 1\n"[..], Some("Other"), true));
    assert_eq!(helper.run(&["import", "/nowhere/at/all"]).status.code(), Some(1));
}

#[test]
fn a_password_from_standard_input_goes_with_the_request() {
    let helper = FakeHelper::new(Asks::Never, |_| Ok(Reply::Status(Box::new(connected()))));
    let arguments = ["connect", "Example", "--wait", "7", "--user", "alice", "--password-stdin"];
    let output = helper.run_with_input(&arguments, "hunter2\nrest");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("10.0.0.5"), "{}", text(&output.stdout));
    let expected = Request::Connect {
        name: "Example".into(),
        user: Some("alice".into()),
        password: Some("hunter2".into()),
        wait_seconds: 7,
    };
    assert_eq!(*helper.requests.lock().unwrap(), [expected]);
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let helper =
        FakeHelper::new(Asks::First, |_| Err(ErrorInfo::new(ErrorCode::AuthFailed, "nobody answered", "")));
    assert_eq!(helper.run(&["connect", "Example"]).status.code(), Some(5));
    assert_eq!(*helper.credentials.lock().unwrap(), [None]);
}

#[test]
fn on_a_terminal_the_password_is_asked_for_and_not_echoed() {
    let helper = FakeHelper::new(Asks::First, |_| Ok(Reply::Status(Box::new(connected()))));
    let socket = helper.dir.path().join("socket");
    let output = on_a_terminal(&socket, "connect Example", "hunter2\n");
    let screen = text(&output.stdout);
    assert!(screen.contains("Password of alice for Example"), "{screen}");
    assert!(!screen.contains("hunter2"), "{screen}");
    let told = helper.credentials.lock().unwrap();
    assert_eq!(told[0].as_ref().unwrap().password, Some("hunter2".into()));
}

#[test]
fn a_question_that_ends_without_an_answer_gives_the_terminal_back() {
    let helper = FakeHelper::new(Asks::InVain, |_| Err(ErrorInfo::new(ErrorCode::Failed, "too late", "")));
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("sh -c '{} connect Example; stty -a'", env!("CARGO_BIN_EXE_ropewalk")))
        .arg("/dev/null")
        .env("ROPEWALK_SOCKET", helper.dir.path().join("socket"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is installed");
    // Nobody types, and the keyboard stays.
    let keyboard = child.stdin.take().unwrap();
    let mut screen = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut screen).unwrap();
    drop(keyboard);
    child.wait().unwrap();
    assert!(screen.contains("Password of alice") && screen.contains("too late"), "{screen}");
    for setting in ["echo", "icanon", "isig"] {
        assert!(screen.split([' ', '\r', '\n']).any(|word| word == setting), "{setting} is off: {screen}");
    }
}

/// Runs the program on a pseudo-terminal (`script`, part of every Debian), typing when it has asked.
fn on_a_terminal(socket: &Path, arguments: &str, typed: &str) -> Output {
    use std::io::{Read, Write};
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{} {arguments}", env!("CARGO_BIN_EXE_ropewalk")))
        .arg("/dev/null")
        .env("ROPEWALK_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is installed");
    let mut screen = Vec::new();
    let mut out = child.stdout.take().unwrap();
    let mut octet = [0u8; 1];
    while !screen.ends_with(b": ") && out.read(&mut octet).unwrap() == 1 {
        screen.push(octet[0]);
    }
    // The prompt is there a moment before the echo is off; nobody types within that moment.
    std::thread::sleep(Duration::from_millis(500));
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(typed.as_bytes()).unwrap();
    out.read_to_end(&mut screen).unwrap();
    drop(keyboard);
    let status = child.wait().unwrap();
    Output { status, stdout: screen, stderr: Vec::new() }
}

#[test]
fn watch_prints_one_line_for_every_change_and_ends_with_3_when_the_helper_goes() {
    let helper = FakeHelper::new(Asks::Never, |_| Ok(Reply::Done));
    let output = helper.run(&["watch", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let states: Vec<String> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Status>(line).unwrap().state.as_str().to_owned())
        .collect();
    assert_eq!(states, ["connecting", "connected"]);
}
