//! Limits of what the programs of an attempt use up besides memory: descriptors of each process, and processes of the user. They
//! hold for a supervisor and all that it starts, not for the worker, which can still start others when an attempt has reached one.
//! The kernel exempts root from that of processes.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files of a process.
const MAX_DESCRIPTORS: u64 = 65_536;
/// Processes and threads of the user, of all attempts together.
const MAX_PROCESSES: u64 = 32_768;
/// Those that are left of the user's limit to the worker, and to what else the user runs.
const SPARE_PROCESSES: u64 = 1024;

/// Lowers the limits of this process, and of those that it starts.
pub(super) fn apply() {
    // None is worth failing for.
    lower(Resource::RLIMIT_CORE, |_| 0);
    lower(Resource::RLIMIT_NOFILE, |hard| hard.min(MAX_DESCRIPTORS));
    lower(Resource::RLIMIT_NPROC, |hard| processes(hard, of_machine()));
}

fn lower(resource: Resource, limit: impl FnOnce(u64) -> u64) {
    let _ = getrlimit(resource).and_then(|(soft, hard)| {
        let hard = limit(hard);
        setrlimit(resource, soft.min(hard), hard)
    });
}

/// Returns the limit of processes for a user with this one, on a machine that can have so many.
fn processes(hard: u64, machine: u64) -> u64 {
    let rest = hard.saturating_sub(SPARE_PROCESSES).max(hard.min(SPARE_PROCESSES));
    MAX_PROCESSES.min(rest).min(machine / 2)
}

/// Returns the number of processes and threads that the machine can have.
fn of_machine() -> u64 {
    let ids = procfs::sys::kernel::pid_max().ok().and_then(|most| u64::try_from(most).ok());
    let threads = procfs::sys::kernel::threads_max().ok().map(u64::from);
    ids.into_iter().chain(threads).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_processes_leaves_some_to_the_worker() {
        let unlimited = u64::MAX;
        assert_eq!(processes(unlimited, unlimited), MAX_PROCESSES);
        assert_eq!(processes(4096, unlimited), 3072);
        assert_eq!(processes(unlimited, 32_768), 16_384);
        // Nothing can be spared of so few.
        assert_eq!(processes(500, unlimited), 500);
        assert_eq!(processes(1500, unlimited), 1024);
        assert!(of_machine() > 0);
    }
}
