//! A desktop of its own for one test: an X display without a screen, a session bus, the user's folders, and a keyring
//! when asked for. What was started ends with the value.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ropewalk_lab::{Lab, Process, until};

use crate::PATIENCE;

/// A session bus that starts nothing by itself: what is on this desktop is what a test has put there.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// Sends WM_DELETE_WINDOW (ICCCM section 4.2.8.1), which a window manager would: there is none on this desktop.
const ASK_TO_CLOSE: &str = r#"
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = ctypes.c_ulong
display = ctypes.c_void_p(x.XOpenDisplay(None))
window = ctypes.c_ulong(int(sys.argv[1]))
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int),
                ("display", ctypes.c_void_p), ("window", ctypes.c_ulong), ("message", ctypes.c_ulong),
                ("format", ctypes.c_int), ("data", ctypes.c_long * 5), ("room", ctypes.c_long * 12)]
message = Message(type=33, sent=1, display=display, window=window, format=32,
                  message=x.XInternAtom(display, b"WM_PROTOCOLS", 0))
message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
sent = x.XSendEvent(display, window, 0, ctypes.c_long(0), ctypes.byref(message))
x.XSync(display, 0)
sys.exit(0 if sent else 1)
"#;

/// The desktop.
#[derive(Debug)]
pub struct Desktop {
    dir: PathBuf,
    display: String,
    bus: String,
    // In the order in which they are to end.
    keyring: Option<Process>,
    _bus: Process,
    _display: Process,
}

/// Where the window's program is: `ROPEWALK_BIN_DIR`, else beside the running test.
///
/// # Errors
/// When it is not there.
pub fn app_program() -> Result<PathBuf> {
    let program = match std::env::var_os("ROPEWALK_BIN_DIR") {
        Some(dir) => PathBuf::from(dir).join("ropewalk-app"),
        None => {
            let exe = std::env::current_exe().context("where this test is")?;
            let dir = exe.parent().context("the test's folder")?;
            let dir = if dir.ends_with("deps") { dir.parent().context("the target folder")? } else { dir };
            dir.join("ropewalk-app")
        }
    };
    ensure!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace --all-targets`",
        program.display()
    );
    Ok(program)
}

impl Desktop {
    /// Starts a display and a bus, with folders inside the laboratory's.
    ///
    /// # Errors
    /// When a program is missing or does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.dir().join("desktop");
        for folder in ["run", "home", "config", "data", "cache"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("make {folder}"))?;
            fs::set_permissions(dir.join(folder), fs::Permissions::from_mode(0o700))
                .context("private folders")?;
        }
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"]);
        let display = Process::start(&mut command, &dir.join("display.log")).context("Xvfb")?;
        // The server says its number on a line of its own when it is ready.
        let number = until("a display", PATIENCE, || {
            let log = display.log();
            log.lines().find(|line| line.parse::<u32>().is_ok()).map(str::to_owned)
        })?;

        let socket = dir.join("run/bus");
        let config = dir.join("bus.conf");
        fs::write(&config, BUS.replace("SOCKET", &socket.display().to_string()))
            .context("write the bus's rules")?;
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(&config);
        let display_name = format!(":{number}");
        settle(&mut command, &dir, &display_name, "");
        let bus = Process::start(&mut command, &dir.join("bus.log")).context("dbus-daemon")?;
        until("a session bus", PATIENCE, || UnixStream::connect(&socket).is_ok().then_some(()))?;
        Ok(Self {
            bus: format!("unix:path={}", socket.display()),
            display: display_name,
            dir,
            keyring: None,
            _bus: bus,
            _display: display,
        })
    }

    /// Starts a keyring and unlocks it, as a login does.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn unlock_keyring(&mut self) -> Result<()> {
        let password = self.dir.join("keyring-password");
        fs::write(&password, "of this test only\n").context("write the keyring's password")?;
        // The daemon reads the password from its standard input.
        let mut command = self.command("sh");
        command
            .args([
                "-c",
                "exec gnome-keyring-daemon --foreground --unlock --components=secrets < \"$1\"",
                "sh",
            ])
            .arg(&password);
        let keyring =
            Process::start(&mut command, &self.dir.join("keyring.log")).context("gnome-keyring-daemon")?;
        until("a keyring", PATIENCE, || {
            let answer = self
                .command("gdbus")
                .args(["call", "--session", "-d", "org.freedesktop.DBus", "-o", "/org/freedesktop/DBus"])
                .args(["-m", "org.freedesktop.DBus.NameHasOwner", "org.freedesktop.secrets"])
                .output()
                .ok()?;
            String::from_utf8_lossy(&answer.stdout).contains("true").then_some(())
        })?;
        self.keyring = Some(keyring);
        Ok(())
    }

    /// What the keyring holds for a profile, read with another program than ours.
    ///
    /// # Errors
    /// When that program cannot be run.
    pub fn secret_of(&self, profile: &str) -> Result<Option<String>> {
        let output = self
            .command("secret-tool")
            .args(["lookup", "service", "ropewalk", "username", profile])
            .output()
            .context("secret-tool")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success() && !text.is_empty()).then_some(text))
    }

    /// A command that runs on this desktop.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        settle(&mut command, &self.dir, &self.display, &self.bus);
        command
    }

    /// The session bus.
    #[must_use]
    pub fn bus_address(&self) -> &str {
        &self.bus
    }

    /// A file among the desktop's.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The X number of the window with this title, while it is on the screen.
    ///
    /// # Errors
    /// When xdotool cannot be run.
    pub fn window_on_screen(&self, title: &str) -> Result<Option<String>> {
        let output = self
            .command("xdotool")
            .args(["search", "--onlyvisible", "--name", &format!("^{title}$")])
            .output()
            .context("xdotool")?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned))
    }

    /// Asks a window to close, as the button in its title bar does.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn ask_to_close(&self, window: &str) -> Result<()> {
        let status =
            self.command("python3").args(["-c", ASK_TO_CLOSE, window]).status().context("python3")?;
        ensure!(status.success(), "the window was not asked to close");
        Ok(())
    }

    /// Takes a picture of the whole screen into the folder of screenshots.
    ///
    /// # Errors
    /// When ImageMagick cannot.
    pub fn screenshot(&self, name: &str) -> Result<PathBuf> {
        let folder = match std::env::var_os("ROPEWALK_GUI_OUT") {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/gui"),
        };
        fs::create_dir_all(&folder).context("make the folder of screenshots")?;
        let file = folder.join(format!("{name}.png"));
        let status =
            self.command("import").args(["-window", "root"]).arg(&file).status().context("import")?;
        ensure!(status.success(), "no screenshot");
        Ok(file)
    }
}

/// The environment of a program on the desktop: nothing of the real one shines through.
fn settle(command: &mut Command, dir: &Path, display: &str, bus: &str) {
    command
        .stdin(Stdio::null())
        .env("DISPLAY", display)
        .env("GDK_BACKEND", "x11")
        .env("HOME", dir.join("home"))
        .env("XDG_RUNTIME_DIR", dir.join("run"))
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("XDG_DATA_HOME", dir.join("data"))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("LANG", "C.UTF-8")
        .env_remove("WAYLAND_DISPLAY")
        .env_remove("XAUTHORITY");
    if bus.is_empty() {
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
    } else {
        command.env("DBUS_SESSION_BUS_ADDRESS", bus);
    }
}
