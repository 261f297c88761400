//! Helpers: polling, processes, and the supervisor of tests.

use std::path::Path;
use std::time::Duration;

use rota_worker::supervise::{SUBCOMMAND, Supervisor};
use tokio::time::{sleep, timeout};

/// Limit for each wait, exceeded only by a failure.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes the test binary the supervisor.
pub(crate) fn supervised() {
    let program = env!("CARGO_BIN_EXE_rota-worker-test").into();
    Supervisor { program, args: vec![SUBCOMMAND.into()] }.install();
}

/// Polls until there is a value.
pub(crate) async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = probe() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// Waits until a program has written its process id to a file.
pub(crate) async fn pid_in(path: &Path) -> i32 {
    until(&path.display().to_string(), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
    .await
}

/// State of a process in /proc; `None` for a zombie and for one that has exited.
fn state(pid: i32) -> Option<char> {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.state)
}

pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some()
}

/// Whether a process is stopped, or waits for a child that was stopped between fork and exec.
pub(crate) fn is_frozen(pid: i32) -> bool {
    matches!(state(pid), Some('T' | 'D'))
}

pub(crate) fn parent(pid: i32) -> i32 {
    procfs::process::Process::new(pid).unwrap().stat().unwrap().ppid
}

pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Shell line that starts three processes, each ignoring SIGINT and SIGTERM, with their ids in files: `child`
/// in the program's group, `session` in a session of its own, `orphan` whose parent has exited.
pub(crate) fn stubborn_processes(directory: &Path) -> String {
    let stubborn = |name: &str| {
        let file = directory.join(name);
        format!("trap \"\" INT TERM HUP; echo $$ > {}; while :; do sleep 1000; done", file.display())
    };
    format!(
        "sh -c '{}' & setsid sh -c '{}' & (setsid sh -c '{}' &) ",
        stubborn("child"),
        stubborn("session"),
        stubborn("orphan")
    )
}

/// Waits for the ids of the stubborn processes.
pub(crate) async fn stubborn_pids(directory: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for name in ["child", "session", "orphan"] {
        pids.push(pid_in(&directory.join(name)).await);
    }
    pids
}

/// Waits until none of the processes is left.
pub(crate) async fn exited(pids: &[i32]) {
    until(&format!("the end of {pids:?}"), || (!pids.iter().any(|pid| is_alive(*pid))).then_some(())).await;
}
