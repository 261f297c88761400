//! `rota dev`: runs store, control plane and workers on this machine.

mod announce;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rota_client::discover::{DevEndpoint, write_private};
use rota_client::{Client, Token};
use rota_core::breaker::Policy;
use rota_local::{TokenSource, WorkerProcess};
use rota_server::{DEFAULT_LISTEN, KeyFiles, Options, PoolKind, Timing, WorkerGrant, WorkerTokens};
use rota_settings::{HumanDuration, Layers};
use rota_telemetry::{BackgroundTasks, OnExit, env, spawn};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::announce::{Announced, DataDirLock, in_use, print_banner};
use super::apply::Apply;
use super::{replica, serve, signals};
use crate::config;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::{Out, Reporter};
use crate::private;

/// More than any `rota dev` runs: a worker's token ends with its process.
const WORKER_TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
const EXAMPLES: &str = "\
Examples:
  rota dev
  rota dev -f examples/
  rota dev --data-dir /tmp/try --listen 127.0.0.1:0

Other commands on this machine connect to it automatically. Ctrl-C drains its workers; tasks are kept \
and continue after a restart.";

/// Run everything on this machine: store, control plane and workers
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Dev {
    /// Manifest to apply at the start: a file, or a directory of files; may be repeated
    #[arg(long = "filename", short, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    settings: Layers<Settings>,
}

/// Settings of `rota dev`.
#[derive(Debug, Clone, Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the gRPC listener; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Directory of the database, the workers' state and their logs
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// PostgreSQL database of all records instead of a file in --data-dir: `postgres://USER@HOST:PORT/DATABASE`, or a file that
    /// contains such a URL
    #[arg(long, value_name = "URL|FILE")]
    store: Option<String>,
    /// Claude Code CLI of agents that name none [default: claude on the PATH]
    #[arg(long, value_name = "FILE")]
    claude_program: Option<PathBuf>,
    /// Do not confine attempts, which is otherwise done where the kernel supports it, unless started by root
    #[arg(long)]
    unconfined: bool,
    /// Further file or directory that confined attempts may read; may be repeated
    #[arg(long, value_name = "PATH")]
    allow_read: Vec<PathBuf>,
    /// Further directory that confined attempts may write; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_write: Vec<PathBuf>,
    /// TOML file with the receivers of notifications (webhooks, Slack) about tasks that wait for a person, have failed or have
    /// nearly spent their budget; read at the start
    #[arg(long, value_name = "FILE")]
    notifications: Option<PathBuf>,
    /// Path below which a proxy serves the control centre and the HTTP API, such as `/rota` [default: none]
    #[arg(long, value_name = "PATH")]
    base_path: Option<String>,
    /// Time without a session after which the tasks of a worker are requeued
    #[arg(long, value_name = "TIME")]
    reconnect_grace: HumanDuration,
    /// Reconnect grace after a start, for workers connected before it
    #[arg(long, value_name = "TIME")]
    recovery_grace: HumanDuration,
    /// Age at which finished tasks are deleted; 0s keeps them
    #[arg(long, value_name = "TIME")]
    retention: HumanDuration,
}

impl Default for Settings {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            listen: DEFAULT_LISTEN,
            data_dir: env::rota_home().join("dev"),
            store: None,
            claude_program: None,
            unconfined: false,
            allow_read: Vec::new(),
            allow_write: Vec::new(),
            notifications: None,
            base_path: None,
            reconnect_grace: HumanDuration(timing.reconnect_grace),
            // Its own workers end with it; only workers of other machines reconnect, and they do so immediately.
            recovery_grace: HumanDuration(Duration::from_secs(10)),
            retention: HumanDuration(timing.retention.unwrap_or_default()),
        }
    }
}

impl rota_settings::Settings for Settings {
    const ENV_PREFIX: &'static str = "ROTA_DEV_";
}

/// Time for workers to exit: their cancel grace for an attempt, and a margin.
const STOP_GRACE: Duration = Duration::from_secs(20);

impl Dev {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        crate::process::protect();
        let Some(config) = config::load(&self.settings, globals)? else {
            return Ok(Exit::Ok);
        };
        if !config.listen.ip().is_loopback() {
            let message = format!(
                "{} is reachable from other machines, but `rota dev` serves only this one",
                config.listen
            );
            return Err(Failure::usage(message).hint("use `rota server` to serve other machines").into());
        }
        let receivers = config.notifications.as_deref().map(rota_server::Receiver::load).transpose();
        let receivers = receivers.map_err(|error| Failure::usage(format!("notifications: {error}")))?;
        let base_path = config.base_path.as_deref().map(str::parse::<rota_server::BasePath>).transpose();
        let base_path =
            base_path.map_err(|error| Failure::usage(format!("base_path {error}")))?.unwrap_or_default();
        let reporter = Reporter::new(globals.color);
        let shutdown = signals::Shutdown::listen()?;
        private::directory(&config.data_dir)?;
        let data_dir = config.data_dir.canonicalize()?;
        let token_file = token_file(&data_dir)?;
        let (store, clock) = match &config.store {
            None => serve::open(&data_dir).await.map_err(|error| in_use(error, &data_dir))?,
            Some(place) => replica::open_alone(place, "dev").await?,
        };
        let lock = DataDirLock::acquire()?;
        // Shared, so that the control plane also lists the background tasks of the local workers.
        let background_tasks = BackgroundTasks::default();
        let bound = serve::bind(Options {
            listen: config.listen,
            token: Some(rota_server::Token::Fixed(serve::token(&token_file)?)),
            oidc: None,
            people: None,
            http_listen: None,
            tls: None,
            store,
            clock,
            artifacts: rota_server::Parts::in_folder(&data_dir.join("artifacts"))?,
            viewer_token: None,
            artifacts_quota: 0,
            notifications: receivers.unwrap_or_default(),
            web_push: Some(rota_server::WebPushOptions::default()),
            follow: None,
            keys: KeyFiles {
                // A database may have the secrets of others.
                replace_lost: config.store.is_none(),
                ..KeyFiles::new(data_dir.join("secrets.key"))
            },
            replica: "dev".to_owned(),
            pool_kind: PoolKind::Processes,
            overrides: rota_proto::v1::Overrides::All,
            timing: Timing {
                reconnect_grace: config.reconnect_grace.0,
                recovery_grace: config.recovery_grace.0,
                retention: Some(config.retention.0).filter(|time| *time > Duration::ZERO),
                ..Timing::default()
            },
            console: true,
            base_path,
            limits: rota_server::Limits::default(),
            cors_origins: Vec::new(),
            sessions: rota_server::SessionLimits::default(),
            breakers: Policy::default(),
            background_tasks: background_tasks.clone(),
        })
        .await?;
        let tokens = bound.worker_tokens();
        let own = DevEndpoint::of_this_process(format!("http://{}", bound.addr()), token_file);
        let stop_server = CancellationToken::new();
        let mut server = spawn("control plane", OnExit::Done, bound.run(stop_server.clone()));
        // Announced last, so that clients that find it can use it.
        let announced = Announced::new(own, &data_dir, lock)?;
        let result = self
            .run_clients(
                globals,
                &config,
                &announced.own,
                tokens,
                &data_dir,
                &reporter,
                &shutdown,
                background_tasks,
                &mut server,
            )
            .await;
        stop_server.cancel();
        if !server.is_finished() {
            server.await??;
        }
        drop(announced);
        result
    }

    /// Runs the clients of the control plane: local workers, and the manifests of the command line.
    #[expect(clippy::too_many_arguments, reason = "the parts of one program, put together once")]
    async fn run_clients(
        &self,
        globals: &Globals,
        config: &Settings,
        own: &DevEndpoint,
        tokens: WorkerTokens,
        data_dir: &Path,
        reporter: &Reporter,
        shutdown: &signals::Shutdown,
        background_tasks: BackgroundTasks,
        server: &mut tokio::task::JoinHandle<Result<rota_server::ShutdownOutcome, rota_server::Error>>,
    ) -> anyhow::Result<Exit> {
        let mut options = rota_client::Options::new(own.endpoint.clone());
        options.token = Token::File(own.token_file.clone());
        let client = Client::new(options)?;
        let stop_workers = CancellationToken::new();
        let pools = local(client.clone(), config, own, tokens, data_dir, background_tasks)?;
        let mut workers = spawn("local workers", OnExit::Done, pools.run(stop_workers.clone()));
        if !self.files.is_empty() {
            let context = Context {
                client,
                namespace: globals.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                out: Out::new(globals.output, globals.color),
                reporter: *reporter,
            };
            let apply = Apply::of(self.files.clone());
            if let Err(error) = apply.run(&context).await {
                stop_workers.cancel();
                workers.await??;
                return Err(error);
            }
        }
        print_banner(reporter, own, data_dir);
        let exit = tokio::select! {
            () = shutdown.graceful.cancelled() => Exit::Ok,
            ended = &mut *server => {
                ended??;
                Exit::Failed
            }
            ended = &mut workers => {
                ended??;
                return Ok(Exit::Failed);
            }
        };
        reporter.line("\ndraining workers; press Ctrl-C again to exit immediately");
        stop_workers.cancel();
        tokio::select! {
            ended = workers => ended??,
            () = shutdown.forced.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(exit)
    }
}

/// Returns the options of the local worker pools.
fn local(
    client: Client,
    config: &Settings,
    own: &DevEndpoint,
    tokens: WorkerTokens,
    data_dir: &Path,
    background_tasks: BackgroundTasks,
) -> anyhow::Result<rota_local::Options> {
    let mut arguments =
        vec!["worker".into(), "--endpoint".into(), own.endpoint.clone().into(), "--token-from-stdin".into()];
    if let Some(program) = &config.claude_program {
        arguments.extend(["--claude-program".into(), program.clone().into_os_string()]);
    }
    if config.unconfined {
        arguments.push("--unconfined".into());
    }
    let listed = |flag: &'static str, paths: &[PathBuf]| {
        paths.iter().flat_map(|path| [flag.into(), path.clone().into_os_string()]).collect::<Vec<OsString>>()
    };
    arguments.extend(listed("--allow-read", &config.allow_read));
    arguments.extend(listed("--allow-write", &config.allow_write));
    // The database, its key and the tokens.
    arguments.extend(listed("--private", &[data_dir.to_owned()]));
    Ok(rota_local::Options {
        client,
        parent: rota_proto::names::namespace("-"),
        program: std::env::current_exe().context("failed to determine the path of this program")?,
        arguments,
        tokens: TokenSource::new(move |worker| worker_token(&tokens, worker)),
        state_dir: data_dir.to_owned(),
        stop_grace: STOP_GRACE,
        background_tasks,
    })
}

/// Returns a token for one process of one local worker.
fn worker_token(tokens: &WorkerTokens, worker: &WorkerProcess<'_>) -> Result<SecretString, String> {
    let issue = || {
        let grant = WorkerGrant {
            namespace: rota_core::Namespace::new(worker.namespace)?,
            agent: rota_core::AgentName::new(worker.agent)?,
            worker: Some(rota_core::WorkerName::new(worker.worker)?),
            instance: Some(worker.instance.to_owned()),
            slots: i32::try_from(worker.slots).ok(),
            capabilities: Vec::new(),
        };
        anyhow::Ok(tokens.issue(grant, WORKER_TOKEN_LIFETIME)?)
    };
    issue().map_err(|error| error.to_string())
}

/// Returns the path of the token file, which is created if missing, and again if others may have read it: an attempt can change its mode.
fn token_file(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("token");
    if !path.exists() || private::check_file(&path).is_err() {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        write_private(&path, format!("{}{}\n", random(), random()).as_bytes())
            .with_context(|| format!("failed to write the token file {}", path.display()))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, read_to_string, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_that_others_could_read_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = token_file(folder.path()).unwrap();
        let first = read_to_string(&path).unwrap();
        assert_eq!(token_file(folder.path()).unwrap(), path);
        assert_eq!(read_to_string(&path).unwrap(), first);
        set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        token_file(folder.path()).unwrap();
        assert_ne!(read_to_string(&path).unwrap(), first);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
