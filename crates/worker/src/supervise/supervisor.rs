//! The supervisor process: starts one program, and does not end before everything below itself
//! has. Blocking code without a runtime, since it must stay small and cannot be starved.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::orders::{self, Order, Run, Stage, Word};
use super::tree;

/// Grace when the worker has died.
const ORPHAN_GRACE: Duration = Duration::from_secs(6);
/// What outlives the program by less is no stray.
const STRAY_NATURAL: Duration = Duration::from_millis(50);
/// Between SIGTERM and SIGKILL for what outlives the program.
const STRAY_GRACE: Duration = Duration::from_millis(500);

/// Entry of the hidden subcommand [`SUBCOMMAND`](super::SUBCOMMAND). It takes no arguments: all that
/// it needs comes by its environment and a socket.
pub fn supervisor_main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its standard error is the attempt's until the program runs, then nobody's.
            let _ = writeln!(io::stderr(), "supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What wakes the supervisor.
enum Event {
    Order(Order),
    /// The worker has died.
    Gone,
    /// The program has ended.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// Nothing is left. As a subreaper it has no child exactly when it has no descendant.
    NoneLeft,
}

fn supervise() -> io::Result<()> {
    let missing = || io::Error::other("this is started by a worker only");
    let path = rota_telemetry::env::var_os(orders::SOCKET).ok_or_else(missing)?;
    let token = rota_telemetry::env::var(orders::TOKEN).ok_or_else(missing)?;
    // A session of its own: no terminal, and a worker can tell what it inherits from it.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    // A service manager may signal everything at once; the worker decides when attempts end. Handlers
    // that do nothing, since a program would inherit a blocked or ignored signal but not a handler.
    let heard = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal_hook::flag::register(signal as i32, Arc::clone(&heard))?;
    }

    let mut worker = UnixStream::connect(path)?;
    let mut reader = BufReader::new(worker.try_clone()?);
    worker.write_all(&orders::line(&Word::Hello { token })?)?;
    let Some(Event::Order(Order::Run(run))) = read(&mut reader) else {
        return Err(io::Error::other("the worker went away"));
    };
    let main = match launch(run) {
        Ok(pid) => pid,
        Err(error) => {
            let refused = Word::Refused { errno: error.raw_os_error(), message: error.to_string() };
            return worker.write_all(&orders::line(&refused)?);
        }
    };
    let (events, wakes) = mpsc::channel();
    let orders = events.clone();
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        while let Some(event) = read(&mut reader) {
            if orders.send(event).is_err() {
                return;
            }
        }
        let _ = orders.send(Event::Gone);
    })?;
    std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reap(main, &events))?;
    // Fails only if the worker is gone, which the reader tells.
    let _ = worker.write_all(&orders::line(&Word::Started { pid: main.as_raw() })?);

    let mut tree = Supervision::new(main);
    loop {
        match wakes.recv_timeout(tree.wake()) {
            Ok(Event::NoneLeft) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(event) => tree.on(event),
            Err(RecvTimeoutError::Timeout) => {}
        }
        tree.advance();
    }
    let strays = u32::try_from(tree.strays.len()).unwrap_or(u32::MAX);
    let ended = Word::Ended { code: tree.code, signal: tree.signal, strays, by: tree.by };
    let _ = worker.write_all(&orders::line(&ended)?);
    Ok(())
}

fn read(reader: &mut BufReader<UnixStream>) -> Option<Event> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(1..) => serde_json::from_str(&line).ok().map(Event::Order),
        _ => None,
    }
}

/// Starts the program in a group of its own, on the standard streams that the worker gave, and lets go of those.
fn launch(run: Run) -> io::Result<Pid> {
    if !run.directory.is_dir() {
        let text = format!("the directory {} does not exist", run.directory.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let child = Command::new(&run.program)
        .args(&run.args)
        .env_clear()
        .envs(&run.environment)
        .current_dir(&run.directory)
        .process_group(0)
        .spawn()?;
    // So that they end when the program's own ends do.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

/// Reaps whatever ends, until there is nothing any more.
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

/// What the supervisor does to the tree below it.
struct Supervision {
    main: Pid,
    running: bool,
    code: Option<i32>,
    signal: Option<i32>,
    /// How far it had gone when the program ended.
    by: Stage,
    stage: Option<Stage>,
    terminate_at: Option<Instant>,
    kill_at: Option<Instant>,
    strays: HashSet<tree::Process>,
    paused: bool,
    rounds: u32,
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
            strays: HashSet::new(),
            paused: false,
            rounds: 0,
        }
    }

    /// Until when there is nothing to do unless something happens.
    fn wake(&self) -> Duration {
        if self.stage == Some(Stage::Kill) {
            // What was started while it was looked for is found in the next round.
            return Duration::from_millis(u64::from(10 * self.rounds.clamp(1, 50)));
        }
        let next = self.terminate_at.into_iter().chain(self.kill_at).min();
        next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()))
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Order(Order::Pause) if self.stage.is_none() => self.freeze(),
            Event::Order(Order::Resume) => self.thaw(),
            Event::Order(Order::End { grace_ms }) => self.end(Duration::from_millis(grace_ms)),
            Event::Order(Order::Run(_) | Order::Pause) | Event::NoneLeft => {}
            Event::Gone => self.end(ORPHAN_GRACE),
            Event::Exited { code, signal } => {
                (self.code, self.signal, self.running) = (code, signal, false);
                self.by = self.stage.unwrap_or(Stage::Interrupt);
                let terminate_at = Instant::now() + STRAY_NATURAL;
                self.sooner(terminate_at, terminate_at + STRAY_GRACE);
            }
        }
    }

    /// Begins the end, or hastens it.
    fn end(&mut self, grace: Duration) {
        let now = Instant::now();
        self.sooner(now + grace / 3, now + grace * 2 / 3);
        if self.stage.is_none() {
            self.stage = Some(Stage::Interrupt);
            if self.running {
                // As a terminal does it; the program tells its own children.
                let _ = killpg(self.main, Signal::SIGINT);
            }
            self.thaw();
        }
    }

    fn sooner(&mut self, terminate_at: Instant, kill_at: Instant) {
        let sooner = |old: Option<Instant>, new| Some(old.map_or(new, |old| old.min(new)));
        if self.stage < Some(Stage::Terminate) {
            self.terminate_at = sooner(self.terminate_at, terminate_at);
        }
        self.kill_at = sooner(self.kill_at, kill_at);
    }

    /// Does what is due.
    fn advance(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            (self.stage, self.terminate_at) = (Some(Stage::Kill), None);
            self.rounds = self.rounds.saturating_add(1);
            self.signal_all(Signal::SIGKILL);
        } else if self.terminate_at.is_some_and(|at| at <= now) {
            (self.stage, self.terminate_at) = (Some(Stage::Terminate), None);
            self.signal_all(Signal::SIGTERM);
            self.thaw();
        }
    }

    fn signal_all(&mut self, signal: Signal) {
        for seen in tree::descendants(Pid::this().as_raw()) {
            tree::signal(seen.process, signal);
            if !self.running && signal != Signal::SIGCONT {
                self.strays.insert(seen.process);
            }
        }
    }

    /// Stops every process, in rounds, since one may start others until it is stopped itself.
    fn freeze(&mut self) {
        self.paused = true;
        for _ in 0..100 {
            let mut awake = tree::descendants(Pid::this().as_raw());
            awake.retain(|seen| !seen.is_stopped());
            if awake.is_empty() {
                return;
            }
            awake.iter().for_each(|seen| tree::signal(seen.process, Signal::SIGSTOP));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.signal_all(Signal::SIGCONT);
        }
    }
}
