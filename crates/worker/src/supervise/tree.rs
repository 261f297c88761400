//! The tree of processes below one, as /proc shows it, and signals that hit exactly what was seen.
//! Decides nothing.

use std::collections::HashMap;

use nix::sys::signal::Signal;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// A process: its id, and what tells it from a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

/// What /proc says of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) process: Process,
    pub(crate) session: i32,
    pub(crate) state: char,
    pub(crate) rss_pages: u64,
}

impl Seen {
    /// Ended, and only waits to be reaped.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// Every process by its parent's id. One that ends meanwhile is left out.
fn by_parent() -> HashMap<i32, Vec<Seen>> {
    let mut children: HashMap<i32, Vec<Seen>> = HashMap::new();
    let Ok(processes) = procfs::process::all_processes() else { return children };
    for stat in processes.filter_map(|process| process.ok()?.stat().ok()) {
        children.entry(stat.ppid).or_default().push(Seen {
            process: Process { pid: stat.pid, started: stat.starttime },
            session: stat.session,
            state: stat.state,
            rss_pages: stat.rss,
        });
    }
    children
}

/// The children of a process, zombies included.
pub(crate) fn children(of: i32) -> Vec<Seen> {
    by_parent().remove(&of).unwrap_or_default()
}

/// All descendants of a process that are not zombies, the nearest first.
pub(crate) fn descendants(of: i32) -> Vec<Seen> {
    let mut children = by_parent();
    let mut found = children.remove(&of).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        // A zombie is kept until here: it may have children until they are reparented.
        let below = children.remove(&found[next].process.pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found.retain(|seen| !seen.is_zombie());
    found
}

/// Signals this process, never another that got its id since.
pub(crate) fn signal(process: Process, signal: Signal) {
    let (Some(pid), Some(named)) =
        (rustix::process::Pid::from_raw(process.pid), rustix::process::Signal::from_named_raw(signal as i32))
    else {
        return;
    };
    // Errors mean that it is gone, or not ours to end; whoever loops sees which.
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        let still = procfs::process::Process::new(process.pid).and_then(|found| found.stat());
        if still.is_ok_and(|stat| stat.starttime == process.started) {
            let _ = pidfd_send_signal(&handle, named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_itself_below_its_parent() {
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(parent).iter().any(|seen| seen.process.pid == me));
        assert!(children(parent).iter().any(|seen| seen.process.pid == me));
        assert!(!descendants(me).iter().any(|seen| seen.process.pid == me));
    }

    #[test]
    fn does_not_signal_another_process_of_the_same_id() {
        // Would end this test if the start time were not looked at.
        let me = i32::try_from(std::process::id()).unwrap();
        signal(Process { pid: me, started: 1 }, Signal::SIGKILL);
    }
}
