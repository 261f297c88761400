//! Waiting, processes, and the supervisor of tests.

use std::path::Path;
use std::time::Duration;

use rota_worker::supervise::{SUBCOMMAND, Supervisor};
use tokio::time::{sleep, timeout};

/// Nothing here takes so long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the test binary the supervisor.
pub(crate) fn supervised() {
    let program = env!("CARGO_BIN_EXE_rota-worker-test").into();
    Supervisor { program, args: vec![SUBCOMMAND.into()] }.install();
}

/// Waits until something is there.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

/// Waits until a program has written its process id into a file.
pub(crate) async fn pid_in(path: &Path) -> i32 {
    until(&path.display().to_string(), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
    .await
}

/// The state of a process, as /proc has it; none when it is gone or a zombie.
fn state(pid: i32) -> Option<char> {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.state)
}

pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some()
}

/// Stopped, or waiting for a child that was stopped before it became a program of its own.
pub(crate) fn is_frozen(pid: i32) -> bool {
    matches!(state(pid), Some('T' | 'D'))
}

pub(crate) fn parent(pid: i32) -> i32 {
    procfs::process::Process::new(pid).unwrap().stat().unwrap().ppid
}

pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A shell line that leaves three processes, each deaf to SIGINT and SIGTERM, and their ids in files:
/// `child` in the program's group, `session` in a session of its own, `orphan` whose parent has ended.
pub(crate) fn brood(directory: &Path) -> String {
    let deaf = |name: &str| {
        let file = directory.join(name);
        format!("trap \"\" INT TERM HUP; echo $$ > {}; while :; do sleep 1000; done", file.display())
    };
    format!(
        "sh -c '{}' & setsid sh -c '{}' & (setsid sh -c '{}' &) ",
        deaf("child"),
        deaf("session"),
        deaf("orphan")
    )
}

/// The ids of a brood, when all of it is there.
pub(crate) async fn brood_pids(directory: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for name in ["child", "session", "orphan"] {
        pids.push(pid_in(&directory.join(name)).await);
    }
    pids
}

/// Waits until all of them are gone.
pub(crate) async fn gone(pids: &[i32]) {
    until(&format!("the end of {pids:?}"), || (!pids.iter().any(|pid| is_alive(*pid))).then_some(())).await;
}
