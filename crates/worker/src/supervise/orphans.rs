//! Orphans of a supervisor: processes left when the supervisor itself was killed. They are reparented to the worker,
//! which is a subreaper too, and are killed here. Descendants that outlive their program are not meant: the
//! supervisor ends those.

use std::collections::HashSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getsid};
use parking_lot::Mutex;

use super::tree;

/// Supervisors started by this process and not yet reaped. Locked while one is started, so that it is
/// never mistaken for an orphan.
static SUPERVISORS: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

/// Starts a supervisor and registers it.
pub(super) fn spawn(command: &mut tokio::process::Command) -> std::io::Result<tokio::process::Child> {
    let mut supervisors = SUPERVISORS.lock();
    let known = supervisors.get_or_insert_with(|| {
        // Otherwise (on an old kernel) orphans of a killed supervisor are reparented to init.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%error, "failed to become a subreaper: processes of a killed supervisor may survive");
        }
        HashSet::new()
    });
    let child = command.spawn()?;
    known.extend(child.id().and_then(|pid| i32::try_from(pid).ok()));
    Ok(child)
}

/// Unregisters a supervisor that was reaped.
pub(super) fn forget(pid: Option<u32>) {
    if let (Some(known), Some(pid)) = (SUPERVISORS.lock().as_mut(), pid.and_then(|p| i32::try_from(p).ok())) {
        known.remove(&pid);
    }
}

/// Kills all orphans and blocks until none is left.
///
/// A supervisor and its descendants live outside this process's session and cannot join it again. So a
/// child in another session that is no supervisor was adopted; children that other parts of this process
/// started are in its own session and are left alone.
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
            // Reaps it if it is a zombie by now; otherwise in the next round.
            let _ = waitpid(Pid::from_raw(orphan.process.pid), Some(WaitPidFlag::WNOHANG));
        }
        drop(supervisors);
        std::thread::sleep(Duration::from_millis(5));
    }
}
