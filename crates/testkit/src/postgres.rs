//! A real PostgreSQL server for tests: in a temporary directory, on a Unix socket, with fsync, and removed with the process that
//! started it, however that ends.

mod volume;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use self::volume::Volume;

/// The superuser of the server, which needs no password on the socket.
const USER: &str = "rota";
/// Settings of the server: small, and as durable as PostgreSQL is by default.
const SETTINGS: &str = "listen_addresses = ''\nfsync = on\nfull_page_writes = on\nsynchronous_commit = on\nshared_buffers = 64MB\n\
    max_connections = 300\nlogging_collector = off\nlog_min_messages = fatal\n";

/// A server with its data.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    folder: PathBuf,
    /// Whom the server runs as, if this process is root, which PostgreSQL refuses.
    user: Option<(u32, u32)>,
    /// Ends the server and removes its data once its input ends, as it does when this process ends.
    guardian: Child,
    /// Where its databases are, if not with its other data.
    volume: Option<Volume>,
    databases: AtomicU32,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ends all sessions before the server stops.
    Fast,
    /// As a crash: it recovers at the next start.
    Immediate,
}

impl PostgresServer {
    /// Returns the server of this process, which its tests share: each has a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start("").unwrap_or_else(|error| panic!("no PostgreSQL server: {error:#}")))
    }

    /// Starts a server of its own with further settings, for tests that stop it.
    pub fn start(settings: &str) -> Result<Self> {
        Self::start_on(None, settings)
    }

    /// Starts a server whose databases are on a volume of a size such as `64m`. Its log of changes is not: a full volume fails
    /// statements, and not the server.
    pub fn on_small_volume(size: &str) -> Result<Self> {
        let server = Self::start_on(Some(size), "")?;
        let at = server.folder.join("volume");
        server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", at.display()))?;
        Ok(server)
    }

    fn start_on(volume: Option<&str>, settings: &str) -> Result<Self> {
        let mut server = Self::empty()?;
        let data = server.data();
        // The server itself syncs everything; only the creation of its files does not.
        let flags = ["-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"];
        server.run(Command::new(server.programs.join("initdb")).args(flags).arg(&data))?;
        server.configure(&format!("{SETTINGS}{settings}"))?;
        if let Some(size) = volume {
            server.volume = Some(Volume::mount(&server.folder.join("volume"), size, server.user)?);
        }
        server.resume()?;
        Ok(server)
    }

    /// Fills the volume of the databases.
    pub fn fill(&self) -> Result<()> {
        // What is in memory alone has its place afterwards.
        self.sql("postgres", "CHECKPOINT")?;
        self.volume.as_ref().context("the server has no volume")?.fill()
    }

    /// Makes room on the volume again.
    pub fn free(&self) -> Result<()> {
        self.volume.as_ref().context("the server has no volume")?.free()
    }

    /// Starts a standby of this server, for which its commits wait from now on.
    pub fn synchronous_standby(&self) -> Result<Self> {
        let standby = self.asynchronous_standby()?;
        self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'")?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        Ok(standby)
    }

    /// Starts a standby of this server, for which its commits do not wait.
    pub fn asynchronous_standby(&self) -> Result<Self> {
        let standby = Self::empty()?;
        let source = format!("host={} user={USER} application_name=standby", self.folder.display());
        let mut copy = Command::new(standby.programs.join("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-d", &source, "-D"]);
        standby.run(copy.arg(standby.data()))?;
        standby.configure("")?;
        standby.resume()?;
        Ok(standby)
    }

    /// Makes a standby the primary, and waits until it takes writes.
    pub fn promote(&self) -> Result<()> {
        let mut promote = Command::new(self.programs.join("pg_ctl"));
        self.run(promote.args(["-w", "promote", "-D"]).arg(self.data()))
    }

    /// Returns a server without data.
    fn empty() -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("rota-pg").tempdir_in("/tmp")?.keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let user = if fs::metadata("/proc/self")?.uid() == 0 { Some(unprivileged()?) } else { None };
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid))?;
        }
        let mut guardian = Command::new("sh");
        guardian
            .args(["-c", "cat >/dev/null; \"$1/pg_ctl\" -D \"$2/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"", "sh"])
            .args([&programs, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0);
        let guardian = as_user(&mut guardian, user).spawn().context("failed to start a shell")?;
        Ok(Self { programs, folder, user, guardian, volume: None, databases: AtomicU32::new(0) })
    }

    /// Adds settings to those that its data came with.
    fn configure(&self, settings: &str) -> Result<()> {
        let socket = format!("unix_socket_directories = '{}'\n", self.folder.display());
        let path = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, format!("{text}\n{socket}{settings}\n"))?;
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns the directory of the socket.
    pub fn socket(&self) -> &Path {
        &self.folder
    }

    /// Creates a database and returns its URL.
    pub fn database(&self) -> Result<String> {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let place = if self.volume.is_some() { " TABLESPACE small" } else { "" };
        self.sql("postgres", &format!("CREATE DATABASE {name}{place}"))?;
        Ok(self.url(&name))
    }

    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{folder}/{database}")
    }

    /// Executes SQL in a database, given by its name or its URL, and returns what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let name = database.rsplit('/').next().unwrap_or(database);
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", name, "-c", sql])
            .arg("-h")
            .arg(&self.folder);
        let output = psql.output().context("failed to start psql")?;
        if !output.status.success() {
            bail!("{sql}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Returns a program of PostgreSQL, such as `pg_dump`, that connects to a database.
    pub fn program(&self, name: &str, database: &str) -> Command {
        let database = database.rsplit('/').next().unwrap_or(database);
        let mut program = Command::new(self.programs.join(name));
        program.args(["-U", USER, "-d", database]).arg("-h").arg(&self.folder);
        program
    }

    /// Stops the server. Its data stay.
    pub fn stop(&self, how: Stop) -> Result<()> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.run(
            Command::new(self.programs.join("pg_ctl"))
                .args(["-w", "-m", mode, "stop", "-D"])
                .arg(self.data()),
        )
    }

    /// Starts the server on its data, and waits until it accepts connections.
    pub fn resume(&self) -> Result<()> {
        let log = self.folder.join("log");
        let program = self.programs.join("pg_ctl");
        let flags = ["-w", "-t", "180", "start", "-l"];
        let Some(volume) = &self.volume else {
            let mut start = Command::new(program);
            return self.run(start.args(flags).arg(log).arg("-D").arg(self.data()));
        };
        Self::execute(volume.command(&program).args(flags).arg(log).arg("-D").arg(self.data()))
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        Self::execute(as_user(command, self.user))
    }

    fn execute(command: &mut Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
        // A server that is started keeps what it inherits: nothing that this process would wait for.
        let errors = tempfile::tempfile()?;
        let status = command
            .stderr(errors.try_clone()?)
            .status()
            .with_context(|| format!("failed to start {command:?}"))?;
        if !status.success() {
            use std::io::{Read, Seek};
            let mut text = String::new();
            (&errors).rewind()?;
            (&errors).read_to_string(&mut text)?;
            bail!("{command:?}: {status}: {text}");
        }
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

fn as_user(command: &mut Command, user: Option<(u32, u32)>) -> &mut Command {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Returns the directory of the newest installed programs.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        found.push((version, entry.path().join("bin")));
    }
    let path = rota_telemetry::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).map(|folder| (0, folder)));
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("pg_ctl").exists();
    let folders = found.into_iter().map(|(_, folder)| folder);
    folders
        .into_iter()
        .find(complete)
        .context("PostgreSQL is not installed (Debian: apt-get install postgresql)")
}

/// Returns a user and a group without rights.
fn unprivileged() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    for wanted in ["postgres", "daemon"] {
        for line in users.lines() {
            let fields: Vec<_> = line.split(':').collect();
            if let [name, _, uid, gid, ..] = fields[..]
                && name == wanted
            {
                return Ok((uid.parse()?, gid.parse()?));
            }
        }
    }
    bail!("neither the user postgres nor daemon exists")
}
