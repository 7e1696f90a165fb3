//! `ropewalk`: the same as the window, for terminals, scripts and IT.
//!
//! Every command is one request to the helper. Files are read here and sent as bytes; the helper never opens a
//! path that a user names. Output is on stdout, an error is one line on stderr, and the exit code says what kind of
//! error it is (`docs/cli.md`).

mod args;
mod commands;
mod output;
mod prompt;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use ropewalk_ipc::ErrorInfo;

fn main() -> ExitCode {
    // clap itself ends the process with code 2 when the usage is wrong.
    let args = args::Args::parse();
    let json = args.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&commands::failed(format!("the runtime cannot be started: {error}")), json);
        }
    };
    let result = runtime.block_on(commands::run(args));
    // A question for a password may still hold a thread that nobody waits for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, json),
    }
}

fn fail(error: &ErrorInfo, json: bool) -> ExitCode {
    output::error(error, json);
    ExitCode::from(error.code.exit_code())
}
