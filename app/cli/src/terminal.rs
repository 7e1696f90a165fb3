//! The terminal as it was before a question.
//!
//! A password is asked for by a thread that waits for the terminal with its echo and its line editing off. When the attempt
//! ends before the answer comes, the program ends without that thread, and nobody would switch them on again.

#[cfg(unix)]
use std::fs::File;

#[cfg(unix)]
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

/// Gives the terminal its settings back when dropped, and begins a new line unless the question was answered.
#[derive(Debug)]
pub struct Kept {
    #[cfg(unix)]
    terminal: Option<(File, Termios)>,
    answered: bool,
}

impl Kept {
    /// Notes the settings, where there is a terminal.
    pub fn note() -> Self {
        Self {
            #[cfg(unix)]
            terminal: File::open("/dev/tty").ok().and_then(|tty| {
                let settings = tcgetattr(&tty).ok()?;
                Some((tty, settings))
            }),
            answered: false,
        }
    }

    /// The question has an answer, or was refused: the one who asked has cleaned up.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        #[cfg(unix)]
        if let Some((tty, settings)) = &self.terminal {
            // Without a terminal there is nothing to give back.
            let _ = tcsetattr(tty, SetArg::TCSANOW, settings);
        }
        eprintln!();
    }
}
