//! Frames and both ends over a real socket pair.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use proptest::prelude::*;
use ropewalk_ipc::{
    Client, ClientError, ClientMessage, ClientOptions, Credentials, ErrorCode, ErrorInfo, Event, FrameError,
    Hello, MAX_FRAME, PROTOCOL, Peer, Reply, Request, ServerMessage, State, Status, handshake, read_frame,
    write_frame,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

/// A listening socket in a folder of its own, and the options of a client of it.
fn listen() -> (tempfile::TempDir, UnixListener, ClientOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let options = ClientOptions::new(path, "test");
    (dir, listener, options)
}

#[tokio::test]
async fn a_request_finds_its_reply_among_others_and_pushes() {
    let (_dir, listener, options) = listen();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        handshake(&mut stream, "fake").await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let ClientMessage::Request { id, .. } = read_frame(&mut stream).await.unwrap() else { panic!() };
            ids.push(id);
        }
        let status = Status { state: State::Connected, ..Status::default() };
        write_frame(&mut stream, &ServerMessage::Status(Box::new(status))).await.unwrap();
        let names = |name: &str| Ok(Reply::Disconnected(vec![name.to_owned()]));
        write_frame(&mut stream, &ServerMessage::Reply { id: ids[1], result: names("second") })
            .await
            .unwrap();
        write_frame(&mut stream, &ServerMessage::Reply { id: ids[0], result: names("first") }).await.unwrap();
        // Keeps the socket open until the client is done.
        let _ = read_frame::<ClientMessage>(&mut stream).await;
    });
    let (client, mut events) = Client::connect(&options).await.unwrap();
    assert_eq!(client.helper().protocol, PROTOCOL);
    let (first, second) =
        tokio::join!(biased; client.request(Request::Paths), client.request(Request::Profiles));
    assert_eq!(first.unwrap(), Reply::Disconnected(vec!["first".into()]));
    assert_eq!(second.unwrap(), Reply::Disconnected(vec!["second".into()]));
    assert!(matches!(events.next().await, Some(Event::Status(status)) if status.state == State::Connected));
}

#[tokio::test]
async fn a_lost_helper_ends_every_request_and_the_events() {
    let (_dir, listener, options) = listen();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        handshake(&mut stream, "fake").await.unwrap();
        read_frame::<ClientMessage>(&mut stream).await.unwrap();
    });
    let (client, mut events) = Client::connect(&options).await.unwrap();
    let error = client.request(Request::Profiles).await.unwrap_err();
    assert_eq!(error.to_info().code, ErrorCode::HelperUnreachable);
    assert!(matches!(events.next().await, Some(Event::Closed(_))));
    assert_eq!(events.next().await, None);
    assert!(matches!(client.request(Request::Profiles).await, Err(ClientError::Lost(_))));
}

#[tokio::test]
async fn an_absent_helper_one_of_another_version_and_a_strangers_are_told_apart() {
    let (dir, listener, mut options) = listen();
    let absent = ClientOptions::new(dir.path().join("nothing"), "test");
    assert!(matches!(Client::connect(&absent).await, Err(ClientError::NotRunning { .. })));

    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello =
                Hello { protocol: PROTOCOL + 1, program: "ropewalk-helper".into(), version: "9.0.0".into() };
            let _ = read_frame::<ClientMessage>(&mut stream).await;
            let _ = write_frame(&mut stream, &ServerMessage::Hello(hello)).await;
        }
    });
    let error = Client::connect(&options).await.unwrap_err();
    assert!(matches!(&error, ClientError::Version { protocol, .. } if *protocol == PROTOCOL + 1), "{error}");
    assert!(error.to_info().hint.contains("update this program"));

    options.trusted_uids = vec![4_000_000];
    assert!(matches!(Client::connect(&options).await, Err(ClientError::Untrusted { .. })));
}

#[tokio::test]
async fn the_kernel_tells_who_the_peer_is() {
    let (here, _there) = UnixStream::pair().unwrap();
    let peer = Peer::of(&here).unwrap();
    let mut groups: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|gid| gid.as_raw()).collect();
    let mut seen = peer.groups.clone();
    groups.sort_unstable();
    seen.sort_unstable();
    assert_eq!((peer.pid, seen), (std::process::id(), groups));
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_before_anything_of_it_is_read() {
    let (mut here, mut there) = tokio::io::duplex(64);
    there.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), read_frame::<ClientMessage>(&mut here)).await;
    assert!(matches!(read.unwrap(), Err(FrameError::TooLong(_))));
    let long = ServerMessage::Refused { error: ErrorInfo::new(ErrorCode::Failed, "x".repeat(MAX_FRAME), "") };
    assert!(matches!(write_frame(&mut there, &long).await, Err(FrameError::TooLong(_))));
}

#[test]
fn secrets_do_not_show_in_debug() {
    let message = ClientMessage::Credentials {
        id: 1,
        credentials: Some(Credentials { password: Some("hunter2".into()), ..Credentials::default() }),
    };
    let import =
        Request::Import { data: ropewalk_ipc::Blob::new(b"hunter2".to_vec()), name: None, system: false };
    assert!(!format!("{message:?}{import:?}").contains("hunter2"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn request() -> impl Strategy<Value = Request> {
    let text = || "\\PC{0,20}";
    prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..200), proptest::option::of(text()), any::<bool>())
            .prop_map(|(data, name, system)| Request::Import {
                data: ropewalk_ipc::Blob::new(data),
                name,
                system
            }),
        Just(Request::Profiles),
        text().prop_map(|name| Request::Show { name }),
        text().prop_map(|name| Request::Remove { name }),
        (text(), proptest::option::of(text()), proptest::option::of(text()), any::<u32>()).prop_map(
            |(name, user, password, wait_seconds)| Request::Connect {
                name,
                user,
                password: password.map(Into::into),
                wait_seconds
            }
        ),
        (proptest::option::of(text()), any::<u32>())
            .prop_map(|(name, wait_seconds)| Request::Disconnect { name, wait_seconds }),
        Just(Request::Paths),
        (proptest::option::of(text()), any::<bool>()).prop_map(|(name, all)| Request::Status { name, all }),
        Just(Request::Watch),
        Just(Request::Report),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(id in any::<u64>(), request in request()) {
        let message = ClientMessage::Request { id, request };
        let read = runtime().block_on(async {
            let (mut here, mut there) = tokio::io::duplex(4096);
            write_frame(&mut there, &message).await.unwrap();
            read_frame::<ClientMessage>(&mut here).await.unwrap()
        });
        prop_assert_eq!(read, message);
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = runtime().block_on(read_frame::<ClientMessage>(&mut octets.as_slice()));
        let _ = runtime().block_on(read_frame::<ServerMessage>(&mut octets.as_slice()));
    }

    #[test]
    fn no_json_makes_the_reader_panic(text in "[{}\\[\\]\":,a-z0-9\\\\ ]{0,200}") {
        let mut frame = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(text.as_bytes());
        let _ = runtime().block_on(read_frame::<ClientMessage>(&mut frame.as_slice()));
    }
}
