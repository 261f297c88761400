//! Memory of this process: what it has, and what its control groups (version 2) or the machine let it have, and leave free. In a
//! container the machine may have much, and the container nothing.
//!
//! Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>

use std::path::Path;

use procfs::Current;
use procfs::process::Process;

use crate::control_groups::{self, number, number_of};

/// Free memory in bytes, and who is short of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    pub bytes: u64,
    /// Whether a limit of a container or service leaves less than the machine has.
    pub is_limited: bool,
}

/// Returns the resident memory in bytes, without mapped files: these make room when it is needed.
pub fn used() -> Option<u64> {
    let sample = Process::myself().ok()?.statm().ok()?;
    Some(sample.resident.saturating_sub(sample.shared).saturating_mul(procfs::page_size()))
}

/// Returns the memory in bytes that this process may have.
pub fn limit() -> Option<u64> {
    let machine = procfs::Meminfo::current().ok().map(|machine| machine.mem_total);
    control_groups::own().iter().filter_map(|group| limit_of(group)).chain(machine).min()
}

/// Returns the memory that is free for this process and its children, if it is known.
pub fn free() -> Option<Free> {
    let machine = procfs::Meminfo::current().ok()?.mem_available?;
    let limited = control_groups::own().iter().filter_map(|group| free_in(group)).min();
    Some(match limited.filter(|limited| *limited < machine) {
        Some(bytes) => Free { bytes, is_limited: true },
        None => Free { bytes: machine, is_limited: false },
    })
}

/// Returns how many processes the kernel has killed for lack of memory: of the control group that limits this process, or else of
/// the machine.
pub fn kills() -> u64 {
    let limiting = control_groups::own().into_iter().find(|group| free_in(group).is_some());
    let own = limiting.and_then(|group| number_of(&group.join("memory.events"), "oom_kill"));
    own.unwrap_or_else(|| {
        let counters = procfs::VmStat::current().map(|counters| counters.0).unwrap_or_default();
        counters.get("oom_kill").and_then(|count| u64::try_from(*count).ok()).unwrap_or_default()
    })
}

/// Returns the limit of a control group; `None` without one.
fn limit_of(group: &Path) -> Option<u64> {
    number(&group.join("memory.max"))
}

/// Returns what the limit of a control group leaves; `None` without a limit. Cached files and their names make
/// room when it is needed.
fn free_in(group: &Path) -> Option<u64> {
    let (limit, used) = (limit_of(group)?, number(&group.join("memory.current"))?);
    let freed = ["inactive_file", "active_file", "slab_reclaimable"];
    let cached = freed.map(|name| number_of(&group.join("memory.stat"), name).unwrap_or_default());
    Some(limit.saturating_sub(used.saturating_sub(cached.iter().sum())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn process_has_less_than_its_limit() {
        let (used, limit) = (used().unwrap(), limit().unwrap());
        assert!(0 < used && used < limit, "{used} of {limit}");
    }

    #[test]
    fn limits_of_groups_leave_less() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        let numbers = || (limit_of(folder.path()), free_in(folder.path()));
        assert_eq!(numbers(), (None, None), "no such controller");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\ninactive_file 200\nactive_file 70\nslab_reclaimable 30\n");
        write("memory.max", "max\n");
        assert_eq!(numbers(), (None, None), "no limit");
        write("memory.max", "1000\n");
        assert_eq!(numbers(), (Some(1000), Some(400)));
        write("memory.current", "2000\n");
        assert_eq!(numbers(), (Some(1000), Some(0)), "the limit was lowered");
        write("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");
        assert_eq!(number_of(&folder.path().join("memory.events"), "oom_kill"), Some(2));
    }

    #[test]
    fn machine_has_some_memory() {
        assert!(free().is_some_and(|free| free.bytes > 0));
    }
}
