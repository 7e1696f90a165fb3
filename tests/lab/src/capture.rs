//! Packet captures: `tcpdump` writes them inside a namespace, `tshark` reads them, an implementation that is not ours.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    error::Result,
    netns::Namespace,
    process::{Process, run},
};

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts capturing what crosses `interface` and waits until it does.
    ///
    /// # Errors
    /// When `tcpdump` is missing or refuses.
    pub fn start(namespace: &Namespace, interface: &str, name: &str) -> Result<Self> {
        Self::only(namespace, interface, name, "udp or icmp or icmp6 or arp", 4096)
    }

    /// The same of the headers of TCP only, of which there may be many.
    ///
    /// # Errors
    /// When `tcpdump` is missing or refuses.
    pub fn tcp(namespace: &Namespace, interface: &str, name: &str) -> Result<Self> {
        Self::only(namespace, interface, name, "tcp", 96)
    }

    fn only(namespace: &Namespace, interface: &str, name: &str, filter: &str, octets: u32) -> Result<Self> {
        let path = namespace.lab().dir().join(format!("{name}.pcap"));
        let file = path.display().to_string();
        let log = format!("tcpdump-{name}");
        // -U and --immediate-mode: each packet is in the file at once, not when a second is over. -Z root: do not change the
        // user, the folder is ours alone. -s: no packet here is longer, but for joined ones on their way into the TUN device.
        let options = format!("-i {interface} -U --immediate-mode -Z root -B 16384 -s {octets} -w {file}");
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.push(filter);
        let mut process = namespace.spawn("tcpdump", &arguments, &log)?;
        process.wait_for_log("listening on", Duration::from_secs(10))?;
        Ok(Self { process, path })
    }

    /// Ends the capture and gives the file.
    ///
    /// # Errors
    /// When `tcpdump` does not end.
    pub fn finish(mut self) -> Result<PathBuf> {
        // Packets are handed over in batches; one that was just sent may still be on its way into the file.
        std::thread::sleep(Duration::from_millis(300));
        if self.process.is_running()? {
            self.process.signal(Signal::SIGINT)?;
        }
        self.process.wait(Duration::from_secs(10))?;
        Ok(self.path.clone())
    }
}

/// What `tshark` says of a capture file with these further arguments.
///
/// # Errors
/// When `tshark` is missing or refuses.
pub fn tshark(file: &Path, home: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("tshark");
    // A home of its own: the user's preferences must not change what is seen.
    command.env("HOME", home).env("XDG_CONFIG_HOME", home).arg("-n").arg("-r").arg(file).args(arguments);
    Ok(run(&mut command, &[], Duration::from_secs(60))?.success()?.stdout)
}
