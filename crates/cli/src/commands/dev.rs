//! `rota dev`: store, control plane and workers on this machine, in one command.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rota_client::discover::{self, DevEndpoint, write_private};
use rota_client::{Client, Token};
use rota_crds::Span;
use rota_server::{Options, Timing};
use rota_telemetry::{Loops, OnExit, spawn};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::apply::Apply;
use super::{serve, signals};
use crate::args::Globals;
use crate::config;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Out, Talk};

const EXAMPLES: &str = "\
Examples:
  rota dev
  rota dev -f examples/
  rota dev --data-dir /tmp/try --listen 127.0.0.1:0

Other commands on this machine find it by themselves. Ctrl-C ends its workers in order; tasks are
kept, and go on when it is started again.";

/// Run everything on this machine: store, control plane and workers
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Dev {
    #[command(flatten)]
    pub source: config::Source,
    /// Manifests to apply at the start
    #[arg(long = "filename", short, value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub flags: Flags,
}

/// What flags say.
#[derive(Debug, Default, Args, Serialize)]
pub struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    place: config::Place,
    #[command(flatten)]
    #[serde(flatten)]
    programs: config::Programs,
}

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    listen: SocketAddr,
    data_dir: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claude_program: Option<PathBuf>,
    reconnect_grace: Span,
    recovery_grace: Span,
    retention: Span,
}

impl Default for Config {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            data_dir: discover::home().join("dev"),
            claude_program: None,
            reconnect_grace: Span(timing.reconnect_grace),
            // Its own workers ended with it; only others' may come back, and they do at once.
            recovery_grace: Span(Duration::from_secs(10)),
            retention: Span(timing.retention.unwrap_or_default()),
        }
    }
}

/// For workers to end: their own grace for an attempt, and some.
const STOP_GRACE: Duration = Duration::from_secs(20);

impl Dev {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let Some(config) = self.source.load::<Config>("ROTA_DEV_", &self.flags, globals)? else {
            return Ok(Exit::Ok);
        };
        if !config.listen.ip().is_loopback() {
            let message =
                format!("{} can be reached from other machines; `rota dev` is for this one", config.listen);
            return Err(Failure::usage(message).hint("use `rota server` for others").into());
        }
        let talk = Talk::new(globals.color);
        let told = signals::Told::listen()?;
        serve::private_dir(&config.data_dir)?;
        let data_dir = config.data_dir.canonicalize()?;
        let token_file = token_file(&data_dir)?;
        let store = serve::open(&data_dir).await.map_err(|error| in_use(error, &data_dir))?;
        let place = Place::take()?;
        // One list for both: the workers' loop is to be seen with the control plane's.
        let loops = Loops::default();
        let bound = serve::bind(Options {
            listen: config.listen,
            token: Some(rota_server::Token::Fixed(serve::token(&token_file)?)),
            oidc: None,
            http_listen: None,
            tls: None,
            store,
            key_file: data_dir.join("secrets.key"),
            replica: "dev".to_owned(),
            isolates: false,
            timing: Timing {
                reconnect_grace: config.reconnect_grace.0,
                recovery_grace: config.recovery_grace.0,
                retention: Some(config.retention.0).filter(|time| *time > Duration::ZERO),
                ..Timing::default()
            },
            loops: loops.clone(),
        })
        .await?;
        let own =
            DevEndpoint { endpoint: format!("http://{}", bound.addr()), token_file, pid: std::process::id() };
        let stop_server = CancellationToken::new();
        let mut server = spawn("control plane", OnExit::Done, bound.run(stop_server.clone()));
        // Only now, so that whoever finds it can also use it.
        let announced = Announced::new(own, &data_dir, place)?;
        let result =
            self.beside(globals, &config, &announced.own, &data_dir, &talk, &told, loops, &mut server).await;
        stop_server.cancel();
        if !server.is_finished() {
            server.await??;
        }
        drop(announced);
        result
    }

    /// Everything that is a client of the control plane: workers and manifests.
    #[expect(clippy::too_many_arguments, reason = "the parts of one program, put together once")]
    async fn beside(
        &self,
        globals: &Globals,
        config: &Config,
        own: &DevEndpoint,
        data_dir: &Path,
        talk: &Talk,
        told: &signals::Told,
        loops: Loops,
        server: &mut tokio::task::JoinHandle<Result<rota_server::Ended, rota_server::Error>>,
    ) -> anyhow::Result<Exit> {
        let mut options = rota_client::Options::new(own.endpoint.clone());
        options.token = Token::File(own.token_file.clone());
        let client = Client::new(options)?;
        let stop_workers = CancellationToken::new();
        let pools = local(client.clone(), config, own, data_dir, loops)?;
        let mut workers = spawn("local workers", OnExit::Done, pools.run(stop_workers.clone()));
        if !self.files.is_empty() {
            let context = Context {
                client,
                namespace: globals.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                out: Out::new(globals.output, globals.color),
                talk: *talk,
            };
            let apply = Apply::of(self.files.clone());
            if let Err(error) = apply.run(&context).await {
                stop_workers.cancel();
                workers.await??;
                return Err(error);
            }
        }
        greet(talk, own, data_dir);
        let exit = tokio::select! {
            () = told.to_end.cancelled() => Exit::Ok,
            ended = &mut *server => {
                ended??;
                Exit::Failed
            }
            ended = &mut workers => {
                ended??;
                return Ok(Exit::Failed);
            }
        };
        talk.say("\nending workers; once more Ctrl-C ends at once");
        stop_workers.cancel();
        tokio::select! {
            ended = workers => ended??,
            () = told.at_once.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(exit)
    }
}

/// The workers of this machine.
fn local(
    client: Client,
    config: &Config,
    own: &DevEndpoint,
    data_dir: &Path,
    loops: Loops,
) -> anyhow::Result<rota_local::Options> {
    let mut arguments = vec![
        "worker".into(),
        "--endpoint".into(),
        own.endpoint.clone().into(),
        "--token-file".into(),
        own.token_file.clone().into_os_string(),
    ];
    if let Some(program) = &config.claude_program {
        arguments.extend(["--claude-program".into(), program.clone().into_os_string()]);
    }
    Ok(rota_local::Options {
        client,
        parent: rota_proto::names::namespace("-"),
        program: std::env::current_exe().context("this program does not find itself")?,
        arguments,
        state_dir: data_dir.to_owned(),
        stop_grace: STOP_GRACE,
        loops,
    })
}

/// The token's file, made when it does not exist.
fn token_file(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("token");
    if !path.exists() {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        write_private(&path, format!("{}{}\n", random(), random()).as_bytes())
            .with_context(|| format!("the token file {} cannot be written", path.display()))?;
    }
    Ok(path)
}

/// Says who has the data directory, where that can be seen.
fn in_use(error: anyhow::Error, data_dir: &Path) -> anyhow::Error {
    let other = DevEndpoint::read(&data_dir.join("endpoint.json")).filter(DevEndpoint::is_alive);
    match other {
        Some(other) if error.to_string().contains("in use") => {
            let message = format!(
                "{} is in use by a `rota dev` at {} (process {})",
                data_dir.display(),
                other.endpoint,
                other.pid
            );
            Failure::new(Exit::Failed, message)
                .hint("use that one, end it, or choose another --data-dir")
                .into()
        }
        _ => error,
    }
}

/// The right to be the `rota dev` that other commands find. The system gives it back when this process
/// ends, however it does: what a dead one left behind is in nobody's way.
struct Place {
    // The file stays: removing it would let two processes lock two files of one name.
    _lock: File,
}

impl Place {
    fn take() -> anyhow::Result<Self> {
        let found = discover::dev_file();
        let path = found.with_extension("lock");
        serve::private_dir(path.parent().unwrap_or(Path::new("/")))?;
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.with_context(|| format!("{} cannot be opened", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} cannot be locked", path.display()))
            }
            Err(TryLockError::WouldBlock) => {
                let other = DevEndpoint::read(&found)
                    .map(|other| format!(" at {} (process {})", other.endpoint, other.pid));
                let message = format!("there is a `rota dev` already{}", other.unwrap_or_default());
                Err(Failure::new(Exit::Failed, message)
                    .hint("use that one, or end it; a second one needs a folder of its own in ROTA_HOME, as do its commands")
                    .into())
            }
        }
    }
}

/// The files that say where it is, for as long as it is there: one where other commands look, and
/// one in the data directory.
struct Announced {
    own: DevEndpoint,
    files: Vec<PathBuf>,
    /// Given back after the files are gone.
    _place: Place,
}

impl Announced {
    fn new(own: DevEndpoint, data_dir: &Path, place: Place) -> anyhow::Result<Self> {
        let mut files = vec![data_dir.join("endpoint.json"), discover::dev_file()];
        files.dedup();
        for file in &files {
            own.write(file).with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(Self { own, files, _place: place })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| self.own.remove(file));
    }
}

fn greet(talk: &Talk, own: &DevEndpoint, data_dir: &Path) {
    talk.say(&format!("rota dev is up at {}", own.endpoint));
    talk.say(&format!("  data   {}", data_dir.display()));
    talk.say(&format!("  token  {}", own.token_file.display()));
    talk.say(&format!("  logs   {}", data_dir.join("logs").display()));
    talk.say("Other commands on this machine find it by themselves:");
    talk.say("  rota apply -f FILE     make agents and tasks");
    talk.say("  rota run \"PROMPT\"      run one task and print its result");
    talk.say("  rota watch             see all tasks");
}
