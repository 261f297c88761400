//! The supervisor process: starts one program and exits only after all of its own descendants have.
//! Blocking code without an async runtime, so that it stays small and cannot be starved. Orphans are here the
//! descendants that outlive the program.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::Jail;
use super::limits;
use super::protocol::{self, Request, Response, Run, Stage};
use super::tree;

/// Grace period after the worker has died.
const WORKER_LOST_GRACE: Duration = Duration::from_secs(6);
/// Added to the score by which the kernel chooses what to kill when memory runs out, in thousandths of all memory.
const OOM_SCORE: i16 = 500;
/// Descendants that exit within this time of the program do not count as orphans.
const ORPHAN_EXIT_TIME: Duration = Duration::from_millis(50);
/// Time between SIGTERM and SIGKILL for orphans.
const ORPHAN_KILL_GRACE: Duration = Duration::from_millis(500);

/// Time after the first SIGKILL after which processes count as impossible to end: they wait for a device or a file system,
/// or signals do not reach them.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// Time between two attempts to end them from then on.
const STUCK_INTERVAL: Duration = Duration::from_secs(1);

/// Entry point of the hidden subcommand [`SUBCOMMAND`](super::SUBCOMMAND). Takes no arguments: its
/// input comes from its environment and a socket.
pub fn supervisor_main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error belongs to the attempt until the program runs, and to /dev/null afterwards.
            let _ = writeln!(io::stderr(), "supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Event that wakes the supervisor.
enum Event {
    Request(Request),
    WorkerLost,
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// No descendant is left. As a subreaper, the process has no child exactly when it has no descendant.
    NoneLeft,
}

fn supervise() -> io::Result<()> {
    let missing = || io::Error::other("the supervisor can only be started by a worker");
    let path = rota_telemetry::env::var_os(protocol::SOCKET_VAR).ok_or_else(missing)?;
    let token = rota_telemetry::env::var(protocol::TOKEN_VAR).ok_or_else(missing)?;
    // A session of its own: no terminal, and a worker can identify the orphans that it adopts.
    let _ = nix::unistd::setsid();
    expendable();
    limits::apply();
    // Keeps the program out of this process's memory and environment, and secrets out of core dumps.
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // A service manager may signal every process; the worker decides when attempts end. The handlers do
    // nothing, since a program would inherit a blocked or ignored signal but not a handler.
    let received = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal_hook::flag::register(signal as i32, Arc::clone(&received))?;
    }

    let mut worker = UnixStream::connect(path)?;
    let mut reader = BufReader::new(worker.try_clone()?);
    worker.write_all(&protocol::line(&Response::Hello { token })?)?;
    let Some(Event::Request(Request::Run(run))) = read(&mut reader) else {
        return Err(io::Error::other("connection closed by the worker"));
    };
    // Held until this process ends.
    let (main, _locks) = match lock(&run.locks).and_then(|locks| Ok((launch(*run)?, locks))) {
        Ok(started) => started,
        Err(error) => {
            let refused = Response::Refused { errno: error.raw_os_error(), message: error.to_string() };
            return worker.write_all(&protocol::line(&refused)?);
        }
    };
    let (events, wakes) = mpsc::channel();
    let requests = events.clone();
    std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
        while let Some(event) = read(&mut reader) {
            if requests.send(event).is_err() {
                return;
            }
        }
        let _ = requests.send(Event::WorkerLost);
    })?;
    std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reap(main, &events))?;
    // Fails only if the worker is dead, which the reader thread reports.
    let _ = worker.write_all(&protocol::line(&Response::Started { pid: main.as_raw() })?);

    let mut tree = Supervision::new(main);
    loop {
        match wakes.recv_timeout(tree.wake()) {
            Ok(Event::NoneLeft) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(event) => tree.handle(event),
            Err(RecvTimeoutError::Timeout) => {}
        }
        tree.advance();
        if let Some(processes) = tree.stuck() {
            let _ = worker.write_all(&protocol::line(&Response::Stuck { processes })?);
        }
    }
    let orphans = u32::try_from(tree.orphans.len()).unwrap_or(u32::MAX);
    let ended = Response::Ended { code: tree.code, signal: tree.signal, orphans, by: tree.by };
    let _ = worker.write_all(&protocol::line(&ended)?);
    Ok(())
}

/// Lets the kernel end the program instead of its worker when memory runs out. Must precede the change to not dumpable, after which
/// this file is root's.
fn expendable() {
    // Not worth failing for: a container may forbid it.
    let score = procfs::process::Process::myself().and_then(|me| me.oom_score_adj()).unwrap_or(0);
    let _ = std::fs::write("/proc/self/oom_score_adj", score.saturating_add(OOM_SCORE).min(1000).to_string());
}

fn read(reader: &mut BufReader<UnixStream>) -> Option<Event> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(1..) => serde_json::from_str(&line).ok().map(Event::Request),
        _ => None,
    }
}

/// Takes the shared locks, without waiting: the worker has made sure that no other process holds them.
fn lock(files: &[PathBuf]) -> io::Result<Vec<File>> {
    let lock = |path| {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.try_lock_shared()?;
        Ok(file)
    };
    files.iter().map(lock).collect()
}

/// Starts the program in its own process group on the supervisor's standard streams, then releases those.
fn launch(run: Run) -> io::Result<Pid> {
    if !run.directory.is_dir() {
        let text = format!("the directory {} does not exist", run.directory.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let mut command = Command::new(&run.program);
    command.args(&run.args).env_clear().envs(&run.environment).current_dir(&run.directory).process_group(0);
    let mut spawn = || match &run.jail {
        None => command.spawn(),
        Some(jail) => spawn_confined(&mut command, jail),
    };
    let child = match &run.control_group {
        None => spawn()?,
        Some(group) => group.within(spawn)?,
    };
    // So that the streams end when the program's copies are closed.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

/// Starts the program from a thread that is confined, so that the program is and the supervisor is not.
fn spawn_confined(command: &mut Command, jail: &Jail) -> io::Result<Child> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("launch".to_owned());
        let launch = thread.spawn_scoped(scope, || {
            jail.enter()?;
            command.spawn()
        })?;
        launch.join().unwrap_or_else(|_| Err(io::Error::other("the launching thread panicked")))
    })
}

/// Reaps children until none is left.
fn reap(main: Pid, events: &Sender<Event>) {
    loop {
        let event = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => {
                Event::Exited { code: Some(code), signal: None }
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                Event::Exited { code: None, signal: Some(signal as i32) }
            }
            Err(Errno::ECHILD) => Event::NoneLeft,
            _ => continue,
        };
        let last = matches!(event, Event::NoneLeft);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// State of the supervised process tree.
struct Supervision {
    main: Pid,
    running: bool,
    code: Option<i32>,
    signal: Option<i32>,
    /// Stage reached when the program ended.
    by: Stage,
    stage: Option<Stage>,
    terminate_at: Option<Instant>,
    kill_at: Option<Instant>,
    orphans: HashSet<tree::Process>,
    paused: bool,
    rounds: u32,
    /// When SIGKILL was sent first.
    killed_at: Option<Instant>,
    is_stuck: bool,
}

impl Supervision {
    fn new(main: Pid) -> Self {
        Self {
            main,
            running: true,
            code: None,
            signal: None,
            by: Stage::Interrupt,
            stage: None,
            terminate_at: None,
            kill_at: None,
            orphans: HashSet::new(),
            paused: false,
            rounds: 0,
            killed_at: None,
            is_stuck: false,
        }
    }

    /// Returns how long to wait for an event before `advance` has work.
    fn wake(&self) -> Duration {
        if self.is_stuck {
            return STUCK_INTERVAL;
        }
        if self.stage == Some(Stage::Kill) {
            // Processes forked during a scan are found in the next round.
            return Duration::from_millis(u64::from(10 * self.rounds.clamp(1, 50)));
        }
        let next = self.terminate_at.into_iter().chain(self.kill_at).min();
        next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(Request::Pause) if self.stage.is_none() => self.freeze(),
            Event::Request(Request::Resume) => self.thaw(),
            Event::Request(Request::End { grace_ms }) => self.end(Duration::from_millis(grace_ms)),
            Event::Request(Request::Run(_) | Request::Pause) | Event::NoneLeft => {}
            Event::WorkerLost => self.end(WORKER_LOST_GRACE),
            Event::Exited { code, signal } => {
                (self.code, self.signal, self.running) = (code, signal, false);
                self.by = self.stage.unwrap_or(Stage::Interrupt);
                let terminate_at = Instant::now() + ORPHAN_EXIT_TIME;
                self.bring_forward(terminate_at, terminate_at + ORPHAN_KILL_GRACE);
            }
        }
    }

    /// Starts the escalation, or brings it forward.
    fn end(&mut self, grace: Duration) {
        let now = Instant::now();
        self.bring_forward(now + grace / 3, now + grace * 2 / 3);
        if self.stage.is_none() {
            self.stage = Some(Stage::Interrupt);
            if self.running {
                // As a terminal does; the program forwards the signal to its children.
                let _ = killpg(self.main, Signal::SIGINT);
            }
            self.thaw();
        }
    }

    fn bring_forward(&mut self, terminate_at: Instant, kill_at: Instant) {
        let sooner = |old: Option<Instant>, new| Some(old.map_or(new, |old| old.min(new)));
        if self.stage < Some(Stage::Terminate) {
            self.terminate_at = sooner(self.terminate_at, terminate_at);
        }
        self.kill_at = sooner(self.kill_at, kill_at);
    }

    /// Sends the signals that are due.
    fn advance(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            (self.stage, self.terminate_at) = (Some(Stage::Kill), None);
            self.rounds = self.rounds.saturating_add(1);
            self.killed_at.get_or_insert(now);
            // Processes that fork faster than they are found are stopped first.
            if self.rounds > 1 {
                self.freeze();
            }
            self.signal_all(Signal::SIGKILL);
        } else if self.terminate_at.is_some_and(|at| at <= now) {
            (self.stage, self.terminate_at) = (Some(Stage::Terminate), None);
            self.signal_all(Signal::SIGTERM);
            self.thaw();
        }
    }

    /// Returns the processes that cannot be ended, once.
    fn stuck(&mut self) -> Option<String> {
        if self.is_stuck || self.killed_at.is_none_or(|at| at.elapsed() < STUCK_AFTER) {
            return None;
        }
        self.is_stuck = true;
        Some(tree::describe(&tree::descendants(Pid::this().as_raw())))
    }

    fn signal_all(&mut self, signal: Signal) {
        for found in tree::descendants(Pid::this().as_raw()) {
            tree::signal(found.process, signal);
            if !self.running && signal != Signal::SIGCONT {
                self.orphans.insert(found.process);
            }
        }
    }

    /// Stops every process, in rounds, since a process may fork until it is stopped itself.
    fn freeze(&mut self) {
        self.paused = true;
        for _ in 0..100 {
            let mut awake = tree::descendants(Pid::this().as_raw());
            awake.retain(|found| !found.is_stopped());
            if awake.is_empty() {
                return;
            }
            awake.iter().for_each(|found| tree::signal(found.process, Signal::SIGSTOP));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.signal_all(Signal::SIGCONT);
        }
    }
}
