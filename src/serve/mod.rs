//! `rekindle serve`: starts the two roles, wires the API role, and ends both in order.
//!
//! The host role is started first, while this process has one thread. Then the API role gives up every privilege and
//! serves: metadata, fleet, control plane, HTTP. When either role dies the other ends too; what was acknowledged is in
//! the metadata and the store.

mod banner;
mod credentials;
pub mod host;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::auth::Auth;
use api::runtime_api::RuntimeApi;
use linux::channel::Channel;
use meta::{Meta, Sqlite};
use model::names::Home;
use platform::code::CodeStore;
use platform::control::{Control, Setup};
use platform::fleet::{Fleet, FleetConfig, FleetParts, RandomCredentials};
use platform::host_client::HostClient;
use platform::runtimes::Runtimes;
use sandbox::{HostAbilities, Privilege};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{AuthMode, ServeArguments};

/// Serves until a signal or the death of the host role.
///
/// # Errors
/// Why the server could not start, or that the host role died.
pub fn run(arguments: &ServeArguments, data_dir: &Path) -> Result<ExitCode> {
    start_log();
    // Asked once, while this process still has the privileges that the host role will have.
    let abilities = HostAbilities::probe();
    check(arguments, &abilities)?;
    make_private(data_dir)?;
    let lock = lock_data_dir(data_dir)?;
    let listener = std::net::TcpListener::bind(arguments.listen)
        .with_context(|| format!("listen on {}: choose another port with --listen", arguments.listen))?;
    listener.set_nonblocking(true).context("prepare the listening socket")?;
    let home = Home { region: arguments.region.clone(), account: arguments.account.clone() };
    let auth = match arguments.auth {
        AuthMode::None => Auth::None,
        AuthMode::Sigv4 => Auth::Keys(credentials::open(data_dir, &home)?),
    };
    let lacks = crate::doctor::lacks(&abilities);
    let (host, channel) = host::start(arguments, data_dir)?;
    linux::credential::drop_capabilities().context("give up the privileges of the API role")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    let served = runtime.block_on(serve(arguments, data_dir, Front { home, auth, listener, lacks }, channel));
    runtime.shutdown_timeout(Duration::from_secs(5));
    host.wait_for_end();
    drop(lock);
    served
}

/// What was made ready before the threads were started.
struct Front {
    home: Home,
    auth: Auth,
    listener: std::net::TcpListener,
    lacks: Vec<String>,
}

async fn serve(
    arguments: &ServeArguments,
    data_dir: &Path,
    front: Front,
    channel: Channel,
) -> Result<ExitCode> {
    let Front { home, auth, listener, lacks } = front;
    let (host, events) = HostClient::start(channel).context("talk to the host role")?;
    let runtimes = Runtimes::open(data_dir.join("runtimes"));
    let parts = FleetParts {
        host: host.clone(),
        events,
        runtimes: runtimes.clone(),
        frontend: Arc::new(RuntimeApi),
        credentials: Arc::new(RandomCredentials),
    };
    let fleet = Fleet::new(fleet_config(arguments, data_dir), parts).context("start the fleet")?;
    let meta: Arc<dyn Meta> =
        Arc::new(Sqlite::open(&data_dir.join("meta.db")).await.context("open the metadata")?);
    let code = CodeStore::open(data_dir).context("open the code store")?;
    let control =
        Control::new(Setup { home, meta, code, runtimes: runtimes.clone(), runner: Arc::new(fleet.clone()) });
    if let Err(error) = control.recover().await {
        bail!("take up the state in {}: {}", data_dir.display(), error.message);
    }
    let listener = TcpListener::from_std(listener).context("serve")?;
    banner::print(listener.local_addr().context("serve")?, &auth, &runtimes, &lacks, data_dir);
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = host.closed() => {}
        }
    };
    api::server::serve(listener, control, auth, stop).await.context("serve the Lambda API")?;
    let died = tokio::time::timeout(Duration::ZERO, host.closed()).await.is_ok();
    fleet.shutdown().await;
    if died {
        bail!("the host role has died; its last words are in the log above. Start the server again");
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn fleet_config(arguments: &ServeArguments, data_dir: &Path) -> FleetConfig {
    let mut config = FleetConfig::new(data_dir);
    config.idle_max = Duration::from_millis(arguments.idle_timeout_ms);
    config.pool_floor = arguments.pool;
    config.pool_ceiling = config.pool_ceiling.max(arguments.pool);
    config.concurrency_max = arguments.concurrency;
    config.exposed.clone_from(&arguments.expose);
    config
}

/// What clap cannot check by itself.
fn check(arguments: &ServeArguments, abilities: &HostAbilities) -> Result<()> {
    use ::host::protocol::{EXPOSED_PORTS_MAX, RUNTIME_API_PORT};
    if arguments.expose.len() > EXPOSED_PORTS_MAX {
        bail!(
            "--expose was given {} times; {EXPOSED_PORTS_MAX} services are the most",
            arguments.expose.len()
        );
    }
    for (index, service) in arguments.expose.iter().enumerate() {
        if service.port() == RUNTIME_API_PORT || service.port() == 0 {
            bail!("--expose {service}: port {} belongs to the Runtime API or to nobody", service.port());
        }
        if arguments.expose[..index].iter().any(|earlier| earlier.port() == service.port()) {
            bail!("--expose {service}: port {} was given twice", service.port());
        }
    }
    if abilities.privilege == Privilege::None {
        bail!("no sandbox can be made without privilege: start the server as root, such as with sudo");
    }
    if arguments.account.len() != 12 || !arguments.account.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("--account {}: an account has twelve digits", arguments.account);
    }
    Ok(())
}

/// Logs of the server itself go to standard error; `RUST_LOG` chooses what.
pub fn start_log() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Makes the data directory, readable by its owner alone: keys and code lie in it.
fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(dir).with_context(|| format!("make the data directory {}", dir.display()))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("make {} private", dir.display()))
}

/// Two servers on one data directory would delete each other's snapshots.
fn lock_data_dir(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => {
            bail!("another rekindle serve uses {}; stop it or choose another --data-dir", dir.display())
        }
    }
}
