//! A real helper process in folders of its own, and clients of it, also as other users.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ropewalk_ipc::{Blob, Client, ClientOptions, ErrorInfo, Events, Reply, Request};

/// User and group `nobody`/`nogroup` on Debian.
pub const NOBODY: u32 = 65534;

/// How long anything local may take on a machine that is busy with builds.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Helper {
    child: Child,
    dir: tempfile::TempDir,
}

impl Helper {
    /// Starts a helper; `bus` is the system bus it is to use (or not to find).
    pub fn start(arguments: &[&str], bus: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Other users' clients walk through it to the socket.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let child = Self::command(dir.path(), arguments, bus).stderr(Stdio::piped()).spawn().unwrap();
        let mut helper = Self { child, dir };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(helper.socket()).is_err() {
            if let Some(status) = helper.child.try_wait().unwrap() {
                let mut log = String::new();
                helper.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("the helper ended with {status}: {log}");
            }
            assert!(started.elapsed() < PATIENCE, "the helper does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        helper
    }

    pub fn command(dir: &Path, arguments: &[&str], bus: Option<&Path>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk-helper"));
        let bus = bus.map_or_else(|| dir.join("no-bus"), Path::to_owned);
        command
            .args(arguments)
            .arg("--runtime-dir")
            .arg(dir.join("run"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--config-dir")
            .arg(dir.join("etc"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", bus.display()));
        command
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/helper.sock")
    }

    pub async fn client(&self) -> (Client, Events) {
        Client::connect(&ClientOptions::new(self.socket(), "test")).await.unwrap()
    }

    /// Imports a profile as this process's user.
    pub async fn import(&self, text: &str) -> String {
        let (client, _events) = self.client().await;
        let Reply::Imported(imported) = client.request(import(text, false)).await.unwrap() else { panic!() };
        imported.name
    }

    /// Sends requests one after the other as another user, from a process of that user.
    pub fn as_user(&self, uid: u32, requests: &[Request]) -> Vec<Result<Reply, ErrorInfo>> {
        let output = inner("requests", uid, &self.socket())
            .env("ROPEWALK_INNER_REQUESTS", serde_json::to_string(requests).unwrap())
            .output()
            .unwrap();
        results(&String::from_utf8_lossy(&output.stdout), &String::from_utf8_lossy(&output.stderr))
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the helper does not end on SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This test program again, as another user: its test `inner` does what the environment says.
pub fn inner(what: &str, uid: u32, socket: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "inner", "--nocapture", "--ignored"])
        .env("ROPEWALK_INNER", what)
        .env("ROPEWALK_SOCKET", socket)
        .uid(uid)
        .gid(uid)
        .current_dir("/");
    command
}

pub fn results(stdout: &str, stderr: &str) -> Vec<Result<Reply, ErrorInfo>> {
    let lines: Vec<_> = stdout
        .lines()
        .filter_map(|line| line.split_once("RESULT ").map(|(_, json)| serde_json::from_str(json).unwrap()))
        .collect();
    assert!(!lines.is_empty(), "no result: {stdout}{stderr}");
    lines
}

/// The body of the test `inner` for `requests`.
pub async fn send_requests() {
    let requests: Vec<Request> =
        serde_json::from_str(&std::env::var("ROPEWALK_INNER_REQUESTS").unwrap()).unwrap();
    let options = ClientOptions::new(std::env::var_os("ROPEWALK_SOCKET").unwrap(), "inner");
    let connected = Client::connect(&options).await;
    for request in requests {
        let result = match &connected {
            Ok((client, _events)) => client.request(request).await.map_err(|error| error.to_info()),
            Err(error) => Err(error.to_info()),
        };
        println!("RESULT {}", serde_json::to_string(&result).unwrap());
    }
}

pub fn import(text: &str, system: bool) -> Request {
    Request::Import { data: Blob::new(text.as_bytes().to_vec()), name: None, system }
}

pub fn connect(name: &str, wait_seconds: u32) -> Request {
    Request::Connect { name: name.to_owned(), user: None, password: None, wait_seconds }
}

/// A profile whose gateway is a port of this machine where nobody answers.
pub fn silent_profile(name: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\n[gateway]\naddress = \"127.0.0.1\"\nport = 9\nidentity = \"gw.test\"\n\
         [auth]\nmethod = \"psk\"\nidentity = \"client.test\"\npsk = \"correct horse battery\"\n"
    )
}

pub fn eap_profile(name: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\n[gateway]\naddress = \"127.0.0.1\"\nport = 9\n[auth]\nmethod = \"eap-mschapv2\"\n"
    )
}
