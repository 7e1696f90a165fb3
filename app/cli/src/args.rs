//! The command line's grammar.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ropewalk_ipc::Policy;

/// Ropewalk, an IKEv2/IPsec VPN client: lays several network interfaces into one connection.
#[derive(Debug, Parser)]
#[command(name = "ropewalk", version, about, after_help = EXIT_CODES)]
pub struct Args {
    /// The helper's socket [default: $ROPEWALK_SOCKET, else /run/ropewalk/helper.sock]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// Print JSON, also errors: {code, message, hint}
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 helper not reachable, 4 not authorised, \
                          5 authentication failed, 6 gateway unreachable or timed out, 7 no common proposal, \
                          8 profile refused";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Import a profile and print its name
    Import {
        /// The file (native TOML or .sswan); `-` reads standard input
        file: PathBuf,
        /// Save it under this name
        #[arg(long)]
        name: Option<String>,
        /// For all users of this machine
        #[arg(long)]
        system: bool,
        /// Read the password of a PKCS#12 bundle from standard input, not from the terminal
        #[arg(long)]
        password_stdin: bool,
    },
    /// List the profiles
    Profiles,
    /// Show what a profile will do
    Show {
        /// Name of the profile
        name: String,
    },
    /// Remove a profile and its secrets
    Remove {
        /// Name of the profile
        name: String,
    },
    /// Print a profile in the native format, without secrets
    Export {
        /// Name of the profile
        name: String,
    },
    /// Connect, and return when connected
    Connect {
        /// Name of the profile
        name: String,
        /// Seconds the attempt may take, then it is ended; 0 returns at once and lets it go on
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u32,
        /// User name, in place of the profile's
        #[arg(long)]
        user: Option<String>,
        /// Read the password from the first line of standard input, not from the terminal
        #[arg(long)]
        password_stdin: bool,
    },
    /// Disconnect, and return when everything is undone
    Disconnect {
        /// Name of the profile; without it, all your connections
        name: Option<String>,
        /// Seconds to wait; 0 returns at once
        #[arg(long, value_name = "SECONDS", default_value_t = 20)]
        wait: u32,
    },
    /// Show the paths of your connections
    Paths,
    /// Set what several paths are used for
    Policy {
        /// The policy
        policy: PolicyArg,
    },
    /// Show the state of a connection
    Status {
        /// Name of the profile; without it, your most important connection
        name: Option<String>,
        /// Every connection of this machine
        #[arg(long)]
        all: bool,
    },
    /// Print a line for every change of state
    Watch,
    /// Write a diagnostics bundle without secrets
    Report {
        /// Where to; without it, standard output
        file: Option<PathBuf>,
    },
}

/// What several paths are used for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyArg {
    /// One carries, the others stand by
    Failover,
    /// Flows are spread
    Balance,
    /// Small packets go on two
    Redundant,
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Failover => Self::Failover,
            PolicyArg::Balance => Self::Balance,
            PolicyArg::Redundant => Self::Redundant,
        }
    }
}
