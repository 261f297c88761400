//! Names of artifacts that have a meaning for control planes, workers and the CLI: the folders that a name begins with, and files of
//! the changes of a repository. Knows nothing of contents.

/// Folder of the files that a task is given.
pub const INPUT: &str = "input";
/// Folder of what a program has written to its output directory.
pub const OUTPUT: &str = "output";
/// Folder of the files of the workspace that a task keeps.
pub const WORKSPACE: &str = "workspace";
/// Folder of the changes of the repository.
pub const GIT: &str = "git";
/// Folder of what a later attempt continues from.
pub const CHECKPOINT: &str = "checkpoint";
/// Commits of other branches, and stashed ones, which are no part of the changes.
pub const BRANCHES: &str = "git/branches.bundle";

/// Returns a name without its folder; `None` if it is in another one.
pub fn within<'a>(name: &'a str, folder: &str) -> Option<&'a str> {
    name.strip_prefix(folder)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_one_folder() {
        assert_eq!(within("checkpoint/a/b", CHECKPOINT), Some("a/b"));
        for name in ["checkpoint", "checkpoint/", "checkpoints/a", "git/checkpoint/a", "/checkpoint/a"] {
            assert_eq!(within(name, CHECKPOINT), None, "{name}");
        }
        assert!(within(BRANCHES, GIT).is_some());
    }
}
