//! Something that speaks as logind does, on a bus of its own, so that a test can put the computer to sleep without doing so.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use ropewalk_lab::{Lab, Process, until};

use crate::PATIENCE;

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=@BUS@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// SIGUSR1 announces a sleep, SIGUSR2 its end; what is asked for and given back is printed.
const LOGIND: &str = r#"
import os, signal
import dbus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib

INTERFACE = "org.freedesktop.login1.Manager"

class Manager(dbus.service.Object):
    @dbus.service.method(INTERFACE, in_signature="ssss", out_signature="h")
    def Inhibit(self, what, who, why, mode):
        reader, writer = os.pipe()
        lock = dbus.types.UnixFd(writer)
        os.close(writer)
        def given_back(*_):
            print("lock given back", flush=True)
            return False
        GLib.io_add_watch(reader, GLib.IO_HUP, given_back)
        print("lock taken:", what, mode, flush=True)
        return lock

    @dbus.service.signal(INTERFACE, signature="b")
    def PrepareForSleep(self, start):
        pass

dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
name = dbus.service.BusName("org.freedesktop.login1", bus)
manager = Manager(bus, "/org/freedesktop/login1")
for number, start in ((signal.SIGUSR1, True), (signal.SIGUSR2, False)):
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, lambda start=start: manager.PrepareForSleep(start) or True)
print("ready", flush=True)
GLib.MainLoop().run()
"#;

/// The bus and what stands for logind on it.
#[derive(Debug)]
pub struct Logind {
    logind: Process,
    _bus: Process,
    path: PathBuf,
}

impl Logind {
    /// Starts both.
    ///
    /// # Errors
    /// When `dbus-daemon`, or Python with its D-Bus modules, is missing.
    pub fn start(lab: &Lab) -> Result<Self> {
        let path = lab.dir().join("bus");
        let config = lab.dir().join("bus.conf");
        fs::write(&config, BUS.replace("@BUS@", &path.display().to_string())).context("write bus.conf")?;
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--config-file"]).arg(&config);
        let bus = Process::start(&mut command, &lab.dir().join("dbus.log"))?;
        until("the bus", PATIENCE, || path.exists().then_some(()))?;
        // The distribution's own: the modules are its packages.
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", LOGIND]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.display()));
        let mut logind = Process::start(&mut command, &lab.dir().join("logind.log"))?;
        logind.wait_for_log("ready", PATIENCE)?;
        Ok(Self { logind, _bus: bus, path })
    }

    /// The bus's socket.
    #[must_use]
    pub fn bus(&self) -> PathBuf {
        self.path.clone()
    }

    /// How often a lock was taken and given back.
    #[must_use]
    pub fn locks(&self) -> (usize, usize) {
        let log = self.logind.log();
        (log.matches("lock taken: sleep delay").count(), log.matches("lock given back").count())
    }

    /// The computer is about to sleep.
    ///
    /// # Errors
    /// When it is gone.
    pub fn announce_sleep(&mut self) -> Result<()> {
        Ok(self.logind.signal(Signal::SIGUSR1)?)
    }

    /// The computer woke up.
    ///
    /// # Errors
    /// When it is gone.
    pub fn announce_waking(&mut self) -> Result<()> {
        Ok(self.logind.signal(Signal::SIGUSR2)?)
    }
}
