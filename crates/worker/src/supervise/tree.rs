//! Process tree, read from /proc, and signals that reach exactly the process that was read. Decides
//! nothing.

use std::collections::HashMap;

use nix::sys::signal::Signal;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// Processes that a description names.
const MAX_DESCRIBED: usize = 5;

/// Identity of a process: its id and its start time, since ids are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

/// Snapshot of a process in /proc.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessInfo {
    pub(crate) process: Process,
    pub(crate) session: i32,
    pub(crate) state: char,
    pub(crate) rss_pages: u64,
}

impl ProcessInfo {
    /// Whether it has exited and only waits to be reaped.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// Returns all processes by their parent's id, without those that end meanwhile.
fn by_parent() -> HashMap<i32, Vec<ProcessInfo>> {
    let mut children: HashMap<i32, Vec<ProcessInfo>> = HashMap::new();
    let Ok(processes) = procfs::process::all_processes() else { return children };
    for stat in processes.filter_map(|process| process.ok()?.stat().ok()) {
        children.entry(stat.ppid).or_default().push(ProcessInfo {
            process: Process { pid: stat.pid, started: stat.starttime },
            session: stat.session,
            state: stat.state,
            rss_pages: stat.rss,
        });
    }
    children
}

/// Returns the children of a process, including zombies.
pub(crate) fn children(of: i32) -> Vec<ProcessInfo> {
    by_parent().remove(&of).unwrap_or_default()
}

/// Returns the descendants of a process, nearest first, without zombies.
pub(crate) fn descendants(of: i32) -> Vec<ProcessInfo> {
    let mut children = by_parent();
    let mut found = children.remove(&of).unwrap_or_default();
    let mut next = 0;
    while next < found.len() {
        // A zombie is kept until here: it may have children until they are reparented.
        let below = children.remove(&found[next].process.pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found.retain(|info| !info.is_zombie());
    found
}

/// Returns the bytes that a process and its descendants have read and written by calls for files and pipes, as far as they still run
/// and that can be read.
pub(crate) fn transferred(of: i32) -> u64 {
    let below = descendants(of).into_iter().map(|info| info.process.pid);
    let io = |pid| procfs::process::Process::new(pid).and_then(|found| found.io()).ok();
    let all = std::iter::once(of).chain(below).filter_map(io);
    all.map(|io| io.rchar.saturating_add(io.wchar)).fold(0, u64::saturating_add)
}

/// Sends a signal to this process, never to a later one with the same id.
pub(crate) fn signal(process: Process, signal: Signal) {
    let (Some(pid), Some(named)) =
        (rustix::process::Pid::from_raw(process.pid), rustix::process::Signal::from_named_raw(signal as i32))
    else {
        return;
    };
    let is_same = || {
        let found = procfs::process::Process::new(process.pid).and_then(|found| found.stat());
        found.is_ok_and(|stat| stat.starttime == process.started)
    };
    // An error means that it has exited or belongs to another user; the next scan shows which.
    let sent = pidfd_open(pid, PidfdFlags::empty())
        .and_then(|handle| if is_same() { pidfd_send_signal(&handle, named) } else { Ok(()) });
    // gVisor and older seccomp profiles of containers know no process descriptors.
    if let Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM | rustix::io::Errno::INVAL) = sent
        && is_same()
    {
        let _ = rustix::process::kill_process(pid, named);
    }
}

/// Returns what a user needs to find processes: their ids, names and states.
pub(crate) fn describe(processes: &[ProcessInfo]) -> String {
    let describe = |info: &ProcessInfo| {
        let stat = procfs::process::Process::new(info.process.pid).and_then(|found| found.stat());
        let name = stat.map_or_else(|_| "?".to_owned(), |stat| stat.comm);
        format!("{} ({name}, state {})", info.process.pid, info.state)
    };
    let all: Vec<_> = processes.iter().take(MAX_DESCRIBED).map(describe).collect();
    let more = processes.len().saturating_sub(all.len());
    if more > 0 { format!("{} and {more} more", all.join(", ")) } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn own_process_is_below_its_parent() {
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(descendants(parent).iter().any(|info| info.process.pid == me));
        assert!(children(parent).iter().any(|info| info.process.pid == me));
        assert!(!descendants(me).iter().any(|info| info.process.pid == me));
    }

    #[test]
    fn bytes_that_pass_a_program_count() {
        let mut program = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut bytes = [0; 60_000];
        program.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
        program.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        // It waits for more.
        assert!(transferred(i32::try_from(program.id()).unwrap()) >= 60_000);
        drop(program.stdin.take());
        program.wait().unwrap();
    }

    #[test]
    fn reused_pid_is_not_signalled() {
        // A signal would end this test.
        let me = i32::try_from(std::process::id()).unwrap();
        signal(Process { pid: me, started: 1 }, Signal::SIGKILL);
    }
}
