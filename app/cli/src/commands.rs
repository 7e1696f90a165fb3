//! What each command does.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ropewalk_ipc::{
    Blob, Client, ClientError, ClientOptions, Credentials, ErrorCode, ErrorInfo, Event, Events, Reply,
    Request, Secret, default_socket,
};

use crate::args::{Args, Command};
use crate::{output, prompt};

/// Largest file that is sent as a profile: in base64 it fits a frame with room to spare.
const MAX_FILE: u64 = 700 * 1024;

/// An error without a code of its own.
pub fn failed(message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Failed, message, "")
}

/// Runs one command.
pub async fn run(args: Args) -> Result<(), ErrorInfo> {
    let options = ClientOptions::new(args.socket.unwrap_or_else(default_socket), "ropewalk");
    let json = args.json;
    match args.command {
        Command::Import { file, name, system, password_stdin } => {
            let data = Blob::new(read_file(&file)?);
            let password = if password_stdin { Some(prompt::from_stdin()?) } else { None };
            let mut session = Session::open(&options).await?;
            session.given = password;
            let reply = session.request(Request::Import { data, name, system }).await?;
            let Reply::Imported(imported) = reply else { return Err(unexpected()) };
            output::imported(&imported, json)
        }
        Command::Profiles => {
            let Reply::Profiles(profiles) = ask(&options, Request::Profiles).await? else {
                return Err(unexpected());
            };
            output::profiles(&profiles, json)
        }
        Command::Show { name } => {
            let Reply::Profile(shown) = ask(&options, Request::Show { name }).await? else {
                return Err(unexpected());
            };
            output::profile(&shown, json)
        }
        Command::Remove { name } => ask(&options, Request::Remove { name }).await.map(|_| ()),
        Command::Export { name } => {
            let Reply::Profile(shown) = ask(&options, Request::Show { name }).await? else {
                return Err(unexpected());
            };
            output::text(&shown.toml)
        }
        Command::Connect { name, wait, user, password_stdin } => {
            connect(&options, name, wait, user, password_stdin, json).await
        }
        Command::Disconnect { name, wait } => {
            let request = Request::Disconnect { name, wait_seconds: wait };
            let Reply::Disconnected(names) = ask(&options, request).await? else { return Err(unexpected()) };
            output::disconnected(&names, json)
        }
        Command::Paths => {
            let Reply::Paths(paths) = ask(&options, Request::Paths).await? else { return Err(unexpected()) };
            output::paths(&paths, json)
        }
        Command::Policy { policy } => {
            ask(&options, Request::SetPolicy { policy: policy.into() }).await.map(|_| ())
        }
        Command::Status { name, all } => {
            let Reply::Statuses(statuses) = ask(&options, Request::Status { name, all }).await? else {
                return Err(unexpected());
            };
            output::statuses(&statuses, all, json)
        }
        Command::Watch => watch(&options, json).await,
        Command::Report { file } => {
            let Reply::Report(report) = ask(&options, Request::Report).await? else {
                return Err(unexpected());
            };
            match file {
                Some(file) => write_private(&file, &report),
                None => output::text(&report),
            }
        }
    }
}

async fn ask(options: &ClientOptions, request: Request) -> Result<Reply, ErrorInfo> {
    Session::open(options).await?.request(request).await
}

async fn connect(
    options: &ClientOptions,
    name: String,
    wait: u32,
    user: Option<String>,
    password_stdin: bool,
    json: bool,
) -> Result<(), ErrorInfo> {
    let password = if password_stdin { Some(prompt::from_stdin()?) } else { None };
    let mut session = Session::open(options).await?;
    // With the password from standard input there is nobody at the terminal to be asked again.
    session.interactive = !password_stdin;
    let client = session.client.clone();
    let request = Request::Connect { name: name.clone(), user, password, wait_seconds: wait };
    let reply = tokio::select! {
        reply = session.request(request) => reply?,
        _ = tokio::signal::ctrl_c() => {
            // The attempt would go on without us.
            let undo = Request::Disconnect { name: Some(name.clone()), wait_seconds: 5 };
            let _ = client.request(undo).await;
            return Err(failed(format!("connecting `{name}` was cancelled")));
        }
    };
    let Reply::Status(status) = reply else { return Err(unexpected()) };
    output::connected(&status, json)
}

async fn watch(options: &ClientOptions, json: bool) -> Result<(), ErrorInfo> {
    let (client, mut events) = Client::connect(options).await.map_err(|error| error.to_info())?;
    client.request(Request::Watch).await.map_err(|error| error.to_info())?;
    while let Some(event) = events.next().await {
        match event {
            Event::Status(status) => {
                if !output::change(&status, json)? {
                    return Ok(());
                }
            }
            Event::Traffic(_) => {}
            Event::Credentials(request) => {
                client.answer(request.id, None).await.map_err(|error| error.to_info())?
            }
            Event::Closed(reason) => return Err(ClientError::Lost(reason).to_info()),
        }
    }
    Err(ClientError::Lost("it closed the connection".to_owned()).to_info())
}

/// A connection to the helper that answers its questions while a request is under way.
struct Session {
    client: Client,
    events: Events,
    /// False: never ask on the terminal.
    interactive: bool,
    /// A password given beforehand, used once.
    given: Option<Secret>,
}

impl Session {
    async fn open(options: &ClientOptions) -> Result<Self, ErrorInfo> {
        let (client, events) = Client::connect(options).await.map_err(|error| error.to_info())?;
        Ok(Self { client, events, interactive: true, given: None })
    }

    async fn request(&mut self, request: Request) -> Result<Reply, ErrorInfo> {
        let client = self.client.clone();
        let reply = client.request(request);
        tokio::pin!(reply);
        loop {
            let event = tokio::select! {
                reply = &mut reply => return reply.map_err(|error| error.to_info()),
                event = self.events.next() => event,
            };
            match event {
                Some(Event::Credentials(question)) => {
                    let id = question.id;
                    let answer = match self.given.take() {
                        Some(password) => Some(Credentials {
                            password: Some(password.clone()),
                            pkcs12_password: Some(password),
                            ..Credentials::default()
                        }),
                        None if self.interactive => {
                            tokio::select! {
                                reply = &mut reply => return reply.map_err(|error| error.to_info()),
                                answer = prompt::on_terminal(question) => answer,
                            }
                        }
                        None => None,
                    };
                    self.client.answer(id, answer).await.map_err(|error| error.to_info())?;
                }
                Some(Event::Status(_) | Event::Traffic(_)) => {}
                Some(Event::Closed(reason)) => return Err(ClientError::Lost(reason).to_info()),
                None => return Err(ClientError::Lost("it closed the connection".to_owned()).to_info()),
            }
        }
    }
}

fn unexpected() -> ErrorInfo {
    ErrorInfo::new(
        ErrorCode::Failed,
        "the helper's reply does not fit the request",
        "update the helper and this program to the same release",
    )
}

fn read_file(path: &Path) -> Result<Vec<u8>, ErrorInfo> {
    let cannot = |error: std::io::Error| {
        ErrorInfo::new(
            ErrorCode::Failed,
            format!("cannot read {}: {error}", path.display()),
            "check the file's name",
        )
    };
    let mut data = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut data).map_err(cannot)?;
    } else {
        fs::File::open(path).map_err(cannot)?.take(MAX_FILE + 1).read_to_end(&mut data).map_err(cannot)?;
    }
    if u64::try_from(data.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(ErrorInfo::new(
            ErrorCode::ProfileRefused,
            format!("{} is larger than {MAX_FILE} octets and is no profile", path.display()),
            "choose a profile: native TOML or .sswan",
        ));
    }
    Ok(data)
}

/// The report is redacted, but it is still the user's own business.
fn write_private(path: &Path, text: &str) -> Result<(), ErrorInfo> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| failed(format!("cannot write {}: {error}", path.display())))
}
