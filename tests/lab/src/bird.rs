//! BIRD in a namespace: a routing daemon that is not ours.

use std::{fs, path::PathBuf, time::Duration};

use crate::{
    error::{Context, Result},
    netns::Namespace,
    process::Process,
};

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    namespace: Namespace,
    socket: PathBuf,
    process: Process,
}

impl Bird {
    /// Starts it with this configuration (`bird.conf`).
    ///
    /// # Errors
    /// When `bird` is missing or does not start.
    pub fn start(namespace: &Namespace, config: &str) -> Result<Self> {
        let dir = namespace.lab().dir().join(format!("bird-{}", namespace.name()));
        fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
        let file = dir.join("bird.conf");
        fs::write(&file, format!("log stderr all;\n{config}"))
            .context(|| format!("write {}", file.display()))?;
        let socket = dir.join("bird.ctl");
        let mut command = namespace.command("bird");
        command.arg("-f").arg("-c").arg(&file).arg("-s").arg(&socket);
        let mut process = Process::start(&mut command, &namespace.log_path("bird"))?;
        process.wait_for_log("Started", Duration::from_secs(10))?;
        Ok(Self { namespace: namespace.clone(), socket, process })
    }

    /// What `birdc` says to this.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, question: &str) -> Result<String> {
        let socket = self.socket.display().to_string();
        let mut arguments = vec!["-s", &socket];
        arguments.extend(question.split_whitespace());
        Ok(self.namespace.run("birdc", &arguments, Duration::from_secs(10))?.success()?.stdout)
    }

    /// The interfaces over which OSPF has a neighbour with which it exchanged everything.
    ///
    /// # Errors
    /// When BIRD does not answer.
    pub fn full_neighbours(&self, protocol: &str) -> Result<Vec<String>> {
        let table = self.ask(&format!("show ospf neighbors {protocol}"))?;
        let full = table.lines().filter(|line| line.contains("Full/"));
        // Router ID, priority, state, dead time, interface, address.
        Ok(full.filter_map(|line| line.split_whitespace().nth(4)).map(str::to_owned).collect())
    }

    /// Ends it as a service manager does: its routes are withdrawn.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(10)).map(|_| ())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
