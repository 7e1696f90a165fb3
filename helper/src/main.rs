//! `ropewalk-helper`: reads its options, sets everything up in the one right order, serves until told to end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use ropewalk_helper::authorise::Authoriser;
use ropewalk_helper::engine::{Engine, EngineConfig};
use ropewalk_helper::log;
use ropewalk_helper::neighbours::Neighbours;
use ropewalk_helper::platform::Platform;
use ropewalk_helper::server::Server;
use ropewalk_helper::service::Service;
use ropewalk_helper::state::Registry;
use ropewalk_helper::store::{Store, make_private_dir};
use tokio::signal::unix::{SignalKind, signal};

/// How long connections may take to say good-bye to their gateways and to clean up: below systemd's 90 seconds.
const SHUTDOWN_TIME: Duration = Duration::from_secs(15);

/// The privileged service of Ropewalk: it makes the connections that the window and the command line ask for.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// Folder of the socket `helper.sock`.
    #[arg(long, value_name = "DIR", default_value = "/run/ropewalk")]
    runtime_dir: PathBuf,
    /// Folder of profiles and of what is needed to clean up after a crash.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/ropewalk")]
    state_dir: PathBuf,
    /// Folder of what the administrator hands out: `DIR/profiles/*.toml`.
    #[arg(long, value_name = "DIR", default_value = "/etc/ropewalk")]
    config_dir: PathBuf,
    /// What to log, e.g. `info` or `ropewalk_session=debug,info`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Do not ask polkit: root and the socket's group may do everything, others nothing.
    #[arg(long)]
    no_polkit: bool,
    /// Log keys into this folder in the formats Wireshark reads. Whoever has them reads all traffic.
    #[arg(long, value_name = "DIR")]
    key_log: Option<PathBuf>,
    /// Do not use segmentation offloads.
    #[arg(long)]
    no_offloads: bool,
    /// For tests of renewal: ESP sequence numbers go on after this.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide = true)]
    esp_sequence: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Alternate: the whole chain of causes on one line.
            eprintln!("ropewalk-helper: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let ring = log::start(&options.log).context("the log filter cannot be used")?;
    // Keys and passwords are in this process: no core file, and nothing it makes is for others to read.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)
        .context("forbid core files")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(options, ring))
}

async fn serve(options: Options, ring: log::LogRing) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let state_dir = &options.state_dir;
    make_private_dir(state_dir).with_context(|| format!("make {}", state_dir.display()))?;
    if let Some(dir) = &options.key_log {
        make_private_dir(dir).with_context(|| format!("make {}", dir.display()))?;
        tracing::warn!(dir = %dir.display(), "keys are logged; whoever has them reads all traffic");
    }

    // The socket first: its lock keeps a second helper from taking down what the first one made.
    let server = Server::bind(&options.runtime_dir, !options.no_polkit)
        .with_context(|| format!("make the socket in {}", options.runtime_dir.display()))?;
    // Without networks (no privilege, another system) profiles can still be managed, and connecting says why not.
    let platform = match Platform::open(state_dir).await {
        Ok(platform) => Some(platform),
        Err(error) => {
            tracing::error!(%error, "the system's networks cannot be used; nothing can be connected");
            None
        }
    };
    let config = EngineConfig {
        state_dir: state_dir.clone(),
        runtime_dir: options.runtime_dir.clone(),
        key_log_dir: options.key_log.clone(),
        offloads: !options.no_offloads,
        esp_sequence: options.esp_sequence,
        neighbours: Neighbours::default(),
        platform,
    };
    let platform = config.platform.clone();
    let engine = Engine::new(config, Registry::default());
    let store = Store::new(state_dir, &options.config_dir);
    let authoriser = if options.no_polkit {
        Authoriser::socket_group(server.path().to_owned())
    } else {
        Authoriser::polkit()
    };
    let service = Arc::new(Service::new(engine.clone(), store, authoriser, ring));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %server.path().display(), "ready");

    tokio::select! {
        () = server.run(service) => {}
        _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
    }
    engine.shutdown(SHUTDOWN_TIME).await;
    if let Some(platform) = platform
        && let Err(error) = platform.network.undo_all().await
    {
        tracing::error!(%error, "not everything could be put back; the next start tries again");
    }
    Ok(())
}
