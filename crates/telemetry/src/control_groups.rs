//! Control groups (version 2) of this process: where they are, and the numbers in their files. Changes none.
//!
//! Source: <https://docs.kernel.org/admin-guide/cgroup-v2.html>

use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::Process;

/// Where the control groups are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Returns the directories of the control group of this process and those around it, the innermost first.
pub fn own() -> Vec<PathBuf> {
    let groups = Process::myself().and_then(|process| process.cgroups());
    let unified = groups.ok().and_then(|all| all.into_iter().find(|group| group.hierarchy == 0));
    let Some(path) = unified.map(|group| group.pathname) else { return Vec::new() };
    let inner = directory_of(&path);
    inner.ancestors().take_while(|group| group.starts_with(MOUNT)).map(Path::to_owned).collect()
}

/// Returns the directory of a control group. That of the root has no slash at its end.
fn directory_of(path: &str) -> PathBuf {
    Path::new(MOUNT).join(path.trim_start_matches('/')).components().collect()
}

/// Returns the number in a file that has nothing else; `None` for the word that stands for no limit.
pub fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns the number of a line in a file of names and numbers.
pub fn number_of(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_groups_have_single_slashes() {
        for (path, directory) in [("/", MOUNT), ("/a/b", "/sys/fs/cgroup/a/b")] {
            assert_eq!(directory_of(path).to_str(), Some(directory));
        }
    }

    #[test]
    fn outermost_group_is_the_mount() {
        let outermost = own().last().cloned();
        assert!(outermost.is_none_or(|group| group == Path::new(MOUNT)));
    }
}
