//! Memory of this process: what it has, and what its control groups (version 2) or the machine let it have.
//!
//! Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>

use std::path::{Path, PathBuf};

use procfs::Current;
use procfs::process::Process;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Returns the resident memory in bytes, without mapped files: these make room when it is needed.
pub fn used() -> Option<u64> {
    let sample = Process::myself().ok()?.statm().ok()?;
    Some(sample.resident.saturating_sub(sample.shared).saturating_mul(procfs::page_size()))
}

/// Returns the memory in bytes that this process may have.
pub fn limit() -> Option<u64> {
    let machine = procfs::Meminfo::current().ok().map(|machine| machine.mem_total);
    groups().iter().filter_map(|group| limit_of(group)).chain(machine).min()
}

/// Returns the directories of the control group of this process and those around it.
fn groups() -> Vec<PathBuf> {
    let groups = Process::myself().and_then(|process| process.cgroups());
    let unified = groups.ok().and_then(|all| all.into_iter().find(|group| group.hierarchy == 0));
    let Some(path) = unified.map(|group| group.pathname) else { return Vec::new() };
    let inner = Path::new(MOUNT).join(path.trim_start_matches('/'));
    inner.ancestors().take_while(|group| group.starts_with(MOUNT)).map(Path::to_owned).collect()
}

/// Returns the limit of a control group; `None` without one.
fn limit_of(group: &Path) -> Option<u64> {
    std::fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_has_less_than_its_limit() {
        let (used, limit) = (used().unwrap(), limit().unwrap());
        assert!(0 < used && used < limit, "{used} of {limit}");
    }
}
