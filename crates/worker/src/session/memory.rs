//! Memory that the worker's programs have: what the machine has free, within the limits of the cgroups (version 2) that the
//! worker is in. In a container the machine may have much, and the container nothing.
//!
//! Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>

use std::fs;
use std::path::Path;

use procfs::Current;

use crate::supervise::control_group::{number_of, unified as own_cgroups};

/// Free memory in bytes, and who is short of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) bytes: u64,
    /// Whether a limit of a container or service leaves less than the machine has.
    pub(super) is_limited: bool,
}

/// Returns the memory that is free for the worker's programs, if it is known.
pub(super) fn free() -> Option<Free> {
    let machine = procfs::Meminfo::current().ok()?.mem_available?;
    let limited = own_cgroups().iter().filter_map(|cgroup| free_in(cgroup)).min();
    Some(match limited.filter(|limited| *limited < machine) {
        Some(bytes) => Free { bytes, is_limited: true },
        None => Free { bytes: machine, is_limited: false },
    })
}

/// Returns how many processes the kernel has killed for lack of memory: of the cgroup that limits the worker, or else of
/// the machine.
pub(super) fn kills() -> u64 {
    let limiting = own_cgroups().into_iter().find(|cgroup| free_in(cgroup).is_some());
    let own = limiting.and_then(|cgroup| number_of(&cgroup.join("memory.events"), "oom_kill"));
    own.unwrap_or_else(|| {
        let counters = procfs::VmStat::current().map(|counters| counters.0).unwrap_or_default();
        counters.get("oom_kill").and_then(|count| u64::try_from(*count).ok()).unwrap_or_default()
    })
}

/// Returns what the limit of a cgroup leaves; `None` without a limit. Cached files and their names make
/// room when it is needed.
fn free_in(cgroup: &Path) -> Option<u64> {
    let limit: u64 = fs::read_to_string(cgroup.join("memory.max")).ok()?.trim().parse().ok()?;
    let used: u64 = fs::read_to_string(cgroup.join("memory.current")).ok()?.trim().parse().ok()?;
    let freed = ["inactive_file", "active_file", "slab_reclaimable"];
    let cached = freed.map(|name| number_of(&cgroup.join("memory.stat"), name).unwrap_or_default());
    Some(limit.saturating_sub(used.saturating_sub(cached.iter().sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_cgroups_leave_less() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        assert_eq!(free_in(folder.path()), None, "no such controller");
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\ninactive_file 200\nactive_file 70\nslab_reclaimable 30\n");
        write("memory.max", "max\n");
        assert_eq!(free_in(folder.path()), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(free_in(folder.path()), Some(400));
        write("memory.current", "2000\n");
        assert_eq!(free_in(folder.path()), Some(0), "the limit was lowered");
        write("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n");
        assert_eq!(number_of(&folder.path().join("memory.events"), "oom_kill"), Some(2));
    }

    #[test]
    fn machine_has_some_memory() {
        assert!(free().is_some_and(|free| free.bytes > 0));
        // The outermost is the mount itself.
        let outermost = own_cgroups().last().cloned();
        assert!(outermost.is_none_or(|cgroup| cgroup == Path::new("/sys/fs/cgroup")));
    }
}
