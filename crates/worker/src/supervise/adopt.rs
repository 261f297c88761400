//! What becomes of processes whose supervisor was killed: they come to the worker, which is a
//! subreaper too, and are ended here.

use std::collections::HashSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getsid};
use parking_lot::Mutex;

use super::tree;

/// The supervisors that this process has started and not yet reaped. Held while one is started, so
/// that it is never taken for an orphan.
static SUPERVISORS: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

/// Starts a supervisor and remembers it.
pub(super) fn spawn(command: &mut tokio::process::Command) -> std::io::Result<tokio::process::Child> {
    let mut supervisors = SUPERVISORS.lock();
    let known = supervisors.get_or_insert_with(|| {
        // Without it (an old kernel) orphans of a killed supervisor go to init.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%error, "cannot adopt the processes of a supervisor that is killed");
        }
        HashSet::new()
    });
    let child = command.spawn()?;
    known.extend(child.id().and_then(|pid| i32::try_from(pid).ok()));
    Ok(child)
}

/// A supervisor has been reaped.
pub(super) fn forget(pid: Option<u32>) {
    if let (Some(known), Some(pid)) = (SUPERVISORS.lock().as_mut(), pid.and_then(|p| i32::try_from(p).ok())) {
        known.remove(&pid);
    }
}

/// Ends everything that a lost supervisor left. Blocks until nothing of it is there.
///
/// A supervisor and all below it live outside this process's session and cannot come back into it.
/// So a child that is in another session and is no supervisor was adopted; children that other
/// parts of this process started are in its own session and are left alone.
pub(super) fn sweep() {
    let me = Pid::this().as_raw();
    let session = getsid(None).map_or(0, Pid::as_raw);
    loop {
        let supervisors = SUPERVISORS.lock();
        let orphans: Vec<_> = tree::children(me)
            .into_iter()
            .filter(|child| {
                child.session != session
                    && !supervisors.as_ref().is_some_and(|known| known.contains(&child.process.pid))
            })
            .collect();
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            for below in tree::descendants(orphan.process.pid) {
                tree::signal(below.process, Signal::SIGKILL);
            }
            tree::signal(orphan.process, Signal::SIGKILL);
            // Only what is a zombie now; the others in the next round.
            let _ = waitpid(Pid::from_raw(orphan.process.pid), Some(WaitPidFlag::WNOHANG));
        }
        drop(supervisors);
        std::thread::sleep(Duration::from_millis(5));
    }
}
