//! `ropewalk-gateway`: the reference gateway as a program. See the README beside it for its configuration.

mod program;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::program::{Config, Program};

/// The reference IKEv2 gateway of Ropewalk, for tests and demonstrations.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// The TOML file that says who the gateway is and whom it lets in.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log, e.g. `info` or `ropewalk_gateway=debug,info`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Listen here for `list`, `stats` and `disconnect NAME`, one line each.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Do not speak KEEP_OLD_IKE_SA: clients have one path each.
    #[arg(long)]
    no_keep_old: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ropewalk-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log).context("--log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let mut config = Config::read(&options.config)?;
    if options.no_keep_old {
        config.without_keep_old();
    }
    Program::start(&config, options.control.as_deref())?.run()
}
