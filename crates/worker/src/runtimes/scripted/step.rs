//! Processes of scripted steps: a hidden subcommand of this binary that runs in them, and how the worker
//! starts them.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::runtimes::Environment;
use crate::supervise::{self, Program, Running, Supervisor};

/// Hidden subcommand under which a program calls [`script_step_main`].
pub const SUBCOMMAND: &str = "__script_step";

/// Starts the process of a step. It needs no directory of its own.
pub(super) async fn start(step: &[&str], environment: Environment) -> Result<Running, supervise::Error> {
    let program = Supervisor::installed().program;
    // The supervisor's own /proc/self/exe is this binary too.
    let program = program.to_string_lossy().into_owned();
    let args = std::iter::once(SUBCOMMAND).chain(step.iter().copied()).map(str::to_owned).collect();
    supervise::start(Program { program, args, environment, directory: PathBuf::from("/") }).await
}

/// Entry point of the hidden subcommand [`SUBCOMMAND`]: `hang`, `crash <signal>`, `orphan`, `linger`.
pub fn script_step_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.into_iter().filter_map(|arg| arg.into_string().ok()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["hang"] => park_until_killed(),
        ["crash", signal] => {
            let signal = signal.parse().ok().and_then(|number: i32| Signal::try_from(number).ok());
            let _ = kill(Pid::this(), signal.unwrap_or(Signal::SIGKILL));
            // Reached only by signals that do not end a process.
            ExitCode::FAILURE
        }
        ["orphan"] => {
            // Re-executes this binary, since only a fresh process can leave its session safely.
            let child = Command::new("/proc/self/exe")
                .args([SUBCOMMAND, "linger"])
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            if child.is_err() {
                return ExitCode::FAILURE;
            }
            // Blocks until the attempt ends.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ExitCode::SUCCESS
        }
        ["linger", rest @ ..] => linger(rest.is_empty()),
        _ => ExitCode::from(2),
    }
}

/// Leaves the session and the parent, and ignores every signal except SIGKILL.
fn linger(first: bool) -> ExitCode {
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        blocked.add(signal);
    }
    let _ = blocked.thread_block();
    if first {
        // A group leader cannot leave its session; its child can, and is orphaned when this process ends.
        let started = Command::new("/proc/self/exe").args([SUBCOMMAND, "linger", "on"]).spawn();
        return if started.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let _ = nix::unistd::setsid();
    park_until_killed()
}

fn park_until_killed() -> ! {
    loop {
        std::thread::park();
    }
}
