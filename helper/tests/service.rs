//! The helper as a process: its socket, its frames, its profiles, its end. Needs root, as the helper does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::{Duration, Instant};

use common::{Helper, NOBODY, PATIENCE, connect, eap_profile, import, silent_profile};
use ropewalk_ipc::{
    ClientMessage, ErrorCode, Event, Hello, MAX_FRAME, PROTOCOL, ProfileSource, Reply, Request,
    ServerMessage, State, read_frame, write_frame,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

fn helper() -> Helper {
    Helper::start(&["--no-polkit"], None)
}

#[tokio::test]
#[ignore = "the part of other tests that runs as another user"]
async fn inner() {
    if std::env::var("ROPEWALK_INNER").is_ok_and(|what| what == "requests") {
        common::send_requests().await;
    }
}

async fn hello(socket: &mut UnixStream, protocol: u32) {
    let hello = Hello { protocol, program: "old-window".into(), version: "0.0.1".into() };
    write_frame(socket, &ClientMessage::Hello(hello)).await.unwrap();
}

async fn refusal(socket: &mut UnixStream) -> String {
    loop {
        match tokio::time::timeout(PATIENCE, read_frame::<ServerMessage>(socket)).await.unwrap().unwrap() {
            ServerMessage::Refused { error } => return error.to_string(),
            ServerMessage::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_of_another_version_is_told_so_after_the_helpers_hello() {
    let helper = helper();
    for (protocol, update) in [(PROTOCOL - 1, "update old-window"), (PROTOCOL + 1, "update ropewalk-helper")]
    {
        let mut socket = UnixStream::connect(helper.socket()).await.unwrap();
        hello(&mut socket, protocol).await;
        let ServerMessage::Hello(answer) = read_frame(&mut socket).await.unwrap() else { panic!("no hello") };
        assert_eq!(answer.protocol, PROTOCOL);
        let said = refusal(&mut socket).await;
        assert!(said.contains(update), "{said}");
        assert!(read_frame::<ServerMessage>(&mut socket).await.is_err(), "the connection is closed");
    }
}

#[tokio::test]
async fn malformed_and_oversized_frames_end_that_client_and_nothing_else() {
    let helper = helper();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    for (what, bytes) in [
        ("JSON that is no message", &b"\0\0\0\x02{}"[..]),
        ("no JSON", b"\0\0\0\x03abc"),
        ("nothing", b"\0\0\0\0"),
        ("a frame over the limit", &too_long),
        ("the longest length", b"\xff\xff\xff\xff"),
    ] {
        for after_hello in [false, true] {
            let mut socket = UnixStream::connect(helper.socket()).await.unwrap();
            if after_hello {
                hello(&mut socket, PROTOCOL).await;
                read_frame::<ServerMessage>(&mut socket).await.unwrap();
            }
            socket.write_all(bytes).await.unwrap();
            let said = refusal(&mut socket).await;
            assert!(!said.is_empty(), "{what}");
        }
    }
    // A request before the hello, and a frame that never ends.
    let mut early = UnixStream::connect(helper.socket()).await.unwrap();
    write_frame(&mut early, &ClientMessage::Request { id: 1, request: Request::Profiles }).await.unwrap();
    assert!(refusal(&mut early).await.contains("hello"));
    let mut half = UnixStream::connect(helper.socket()).await.unwrap();
    half.write_all(b"\0\0\x10\0{\"type\"").await.unwrap();
    drop(half);
    let (client, _events) = helper.client().await;
    assert_eq!(client.request(Request::Profiles).await.unwrap(), Reply::Profiles(Vec::new()));
}

#[tokio::test]
async fn a_profile_is_imported_listed_shown_and_removed_and_no_secret_comes_back() {
    let helper = helper();
    assert_eq!(helper.import(&silent_profile("Example Corp")).await, "Example Corp");
    let (client, _events) = helper.client().await;
    let Reply::Profiles(profiles) = client.request(Request::Profiles).await.unwrap() else { panic!() };
    assert_eq!((profiles[0].name.as_str(), profiles[0].source), ("Example Corp", ProfileSource::User));
    let shown = client.request(Request::Show { name: "Example Corp".into() }).await.unwrap();
    assert!(!serde_json::to_string(&shown).unwrap().contains("correct horse"));
    let Reply::Report(report) = client.request(Request::Report).await.unwrap() else { panic!() };
    assert!(!report.contains("correct horse") && !report.contains("Example Corp"), "{report}");
    client.request(Request::Remove { name: "Example Corp".into() }).await.unwrap();
    let error = client.request(Request::Show { name: "Example Corp".into() }).await.unwrap_err().to_info();
    assert_eq!(error.code, ErrorCode::Failed);
}

#[tokio::test]
async fn a_wrong_profile_is_refused_with_key_and_line() {
    let helper = helper();
    let (client, _events) = helper.client().await;
    for (text, word) in [
        (silent_profile("x").replace("port = 9", "port = 0"), "line 5: `gateway.port`"),
        (silent_profile("x") + "[tunnel]\nkill_switch = true\n", "kill_switch"),
        (silent_profile("x") + "[crypto]\nike = [\"rot13-md5-modp768\"]\n", "rot13"),
        ("<VPNProfile/>".to_owned(), "not supported yet"),
    ] {
        let error = client.request(import(&text, false)).await.unwrap_err().to_info();
        assert_eq!(error.code, ErrorCode::ProfileRefused, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[tokio::test]
async fn without_polkit_only_root_and_the_sockets_group_are_served() {
    let helper = helper();
    let mode = std::fs::metadata(helper.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let refused = helper.as_user(NOBODY, &[Request::Profiles]);
    assert_eq!(refused[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);

    // Let in by the file's mode, still refused by the helper.
    std::fs::set_permissions(helper.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    for request in [Request::Profiles, import(&silent_profile("x"), false), Request::Watch, Request::Report] {
        let refused = helper.as_user(NOBODY, &[request]);
        assert_eq!(refused[0].as_ref().unwrap_err().code, ErrorCode::NotAuthorised);
    }

    chown(helper.socket(), None, Some(NOBODY)).unwrap();
    let served = helper.as_user(NOBODY, &[import(&silent_profile("mine"), false), Request::Profiles]);
    assert!(matches!(&served[1], Ok(Reply::Profiles(list)) if list.len() == 1), "{served:?}");
    let (client, _events) = helper.client().await;
    assert_eq!(
        client.request(Request::Profiles).await.unwrap(),
        Reply::Profiles(Vec::new()),
        "it is nobody's own"
    );
}

#[tokio::test]
async fn a_missing_password_is_asked_for_and_a_cancelled_question_is_an_authentication_failure() {
    let helper = helper();
    helper.import(&eap_profile("eap")).await;
    let (client, mut events) = helper.client().await;
    let asking = client.clone();
    let attempt = tokio::spawn(async move { asking.request(connect("eap", 5)).await });
    let Some(Event::Credentials(question)) = events.next().await else { panic!("no question") };
    assert_eq!(question.profile, "eap");
    assert_eq!(question.fields.len(), 2, "{question:?}");
    client.answer(question.id, None).await.unwrap();
    let error = attempt.await.unwrap().unwrap_err().to_info();
    assert_eq!(error.code, ErrorCode::AuthFailed);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_is_asked_leaves_nothing_behind() {
    let helper = helper();
    helper.import(&eap_profile("eap")).await;
    let (client, mut events) = helper.client().await;
    tokio::spawn({
        let client = client.clone();
        async move { client.request(connect("eap", 5)).await }
    });
    assert!(matches!(events.next().await, Some(Event::Credentials(_))));
    drop((client, events));
    let (other, _events) = helper.client().await;
    let Reply::Statuses(statuses) = other.request(Request::Status { name: None, all: true }).await.unwrap()
    else {
        panic!()
    };
    assert!(statuses.iter().all(|status| !status.state.is_active()), "{statuses:?}");
}

#[tokio::test]
async fn an_attempt_without_an_answer_ends_in_time_and_says_why() {
    let helper = helper();
    helper.import(&silent_profile("silent")).await;
    let (client, mut events) = helper.client().await;
    client.request(Request::Watch).await.unwrap();
    let started = Instant::now();
    let error = client.request(connect("silent", 2)).await.unwrap_err().to_info();
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(error.code, ErrorCode::GatewayUnreachable, "{error}");
    let mut states = Vec::new();
    while states.last() != Some(&State::Failed) {
        match events.next().await.unwrap() {
            Event::Status(status) => states.push(status.state),
            Event::Traffic(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(states.contains(&State::Connecting), "{states:?}");
}

#[tokio::test]
async fn a_connection_outlives_its_client_and_ends_by_disconnect() {
    let helper = helper();
    helper.import(&silent_profile("silent")).await;
    let (client, events) = helper.client().await;
    client.request(connect("silent", 0)).await.unwrap();
    drop((client, events));
    let (client, _events) = helper.client().await;
    let status = Request::Status { name: Some("silent".into()), all: false };
    let Reply::Statuses(statuses) = client.request(status).await.unwrap() else { panic!() };
    assert_eq!(statuses[0].state, State::Connecting);
    let gone = client.request(Request::Disconnect { name: None, wait_seconds: 10 }).await.unwrap();
    assert_eq!(gone, Reply::Disconnected(vec!["silent".into()]));
}

#[tokio::test]
async fn a_second_waiter_that_runs_out_of_time_does_not_end_the_first_ones_attempt() {
    let helper = helper();
    helper.import(&silent_profile("silent")).await;
    let (client, _events) = helper.client().await;
    client.request(connect("silent", 0)).await.unwrap();
    let error = client.request(connect("silent", 1)).await.unwrap_err().to_info();
    assert_eq!(error.code, ErrorCode::GatewayUnreachable, "{error}");
    let status = Request::Status { name: Some("silent".into()), all: false };
    let Reply::Statuses(statuses) = client.request(status).await.unwrap() else { panic!() };
    assert_eq!(statuses[0].state, State::Connecting);
}

#[tokio::test]
async fn the_socket_is_root_s_and_goes_with_the_process() {
    let helper = helper();
    let metadata = std::fs::metadata(helper.socket()).unwrap();
    assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw());
    let second = Helper::command(helper.dir(), &["--no-polkit"], None).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "a second helper on the same folders is refused");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another ropewalk-helper"), "{said}");
    let socket = helper.socket();
    helper.client().await.0.request(Request::Profiles).await.unwrap();
    assert_eq!(helper.terminate(), Some(0));
    assert!(!socket.exists());
}
