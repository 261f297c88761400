//! Directories and files of a control plane that no other user of the machine may change or read: another user could otherwise
//! place a token or a key there, or read every prompt.

use std::fs::{DirBuilder, Metadata, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::Context as _;

use crate::exit::{Exit, Failure};

/// Shortest token that is accepted, in bytes: 128 bits in hexadecimal digits.
const MIN_TOKEN_BYTES: usize = 32;
/// Permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Creates a directory that only its owner can access, or closes an existing one to others. Refuses one of another user.
pub fn directory(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to create the directory {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(failed)?;
    let found = path.metadata().with_context(failed)?;
    if !is_ours(&found) {
        return Err(foreign("directory", path, &found).hint("choose a directory of your own").into());
    }
    if found.uid() == own_uid() && found.mode() & OTHERS != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(failed)?;
        tracing::info!(path = %path.display(), "closed the directory to other users");
    }
    Ok(())
}

/// Refuses a file with a secret that belongs to another user, or that other users can access. Those of root, such as mounted
/// secrets, are accepted as they are. One that is missing is left to its reader.
pub fn check_file(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = path.metadata() else { return Ok(()) };
    if !is_ours(&found) {
        return Err(foreign("file", path, &found).hint("use a file of your own").into());
    }
    let mode = found.mode() & 0o777;
    if found.uid() == own_uid() && own_uid() != 0 && mode & OTHERS != 0 {
        return Err(open_to_others(path, mode));
    }
    // Root cannot distinguish a mounted secret from a file of its own, but nothing mounts one that others may write.
    if mode & 0o022 != 0 {
        return Err(open_to_others(path, mode));
    }
    Ok(())
}

/// Closes a file of a closed directory to its group, and checks it: Kubernetes opens all files of a volume to the group of a pod
/// that mounts it (`fsGroup`).
pub fn restrict_file(path: &Path) -> anyhow::Result<()> {
    if let Ok(found) = path.metadata()
        && found.uid() == own_uid()
        && (found.mode() & 0o070 != 0, found.mode() & 0o007) == (true, 0)
    {
        let failed = || format!("failed to close {} to its group", path.display());
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(failed)?;
        tracing::info!(path = %path.display(), "closed the file to its group");
    }
    check_file(path)
}

fn open_to_others(path: &Path, mode: u32) -> anyhow::Error {
    let message = format!("other users can access the file {} (mode {mode:o})", path.display());
    Failure::new(Exit::Failed, message).hint(format!("close it with `chmod 600 {}`", path.display())).into()
}

/// Refuses a token that could be guessed.
pub fn check_token(path: &Path, token: &str) -> anyhow::Result<()> {
    if token.trim().len() >= MIN_TOKEN_BYTES {
        return Ok(());
    }
    let message = format!("the token in {} has fewer than {MIN_TOKEN_BYTES} characters", path.display());
    Err(Failure::new(Exit::Failed, message).hint("make one with `openssl rand -hex 32`").into())
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn is_ours(found: &Metadata) -> bool {
    found.uid() == own_uid() || found.uid() == 0
}

fn foreign(kind: &str, path: &Path, found: &Metadata) -> Failure {
    let message = format!("the {kind} {} belongs to another user (uid {})", path.display(), found.uid());
    Failure::new(Exit::Failed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn directory_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("a/b");
        directory(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
        std::fs::set_permissions(&made, Permissions::from_mode(0o777)).unwrap();
        directory(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn things_of_other_users_are_refused() {
        if own_uid() != 0 {
            return println!("skipped: only root can give a file away");
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
        let refused = directory(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user (uid 65534)"), "{refused}");
        let file = folder.path().join("token");
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
        assert!(check_file(&file).is_err());
    }

    #[test]
    fn files_that_others_may_write_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        check_file(&file).unwrap();
        std::fs::write(&file, "x").unwrap();
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o660, false), (0o602, false)] {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_file(&file).is_ok(), accepted, "{mode:o}");
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(check_file(&file).is_ok(), own_uid() == 0, "readable by others");
    }

    #[test]
    fn files_of_a_closed_directory_are_closed_to_their_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secrets.key");
        restrict_file(&file).unwrap();
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o660)).unwrap();
        restrict_file(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        std::fs::set_permissions(&file, Permissions::from_mode(0o602)).unwrap();
        assert!(restrict_file(&file).is_err());
    }

    #[test]
    fn short_tokens_are_refused() {
        let path = Path::new("token");
        assert!(check_token(path, "0123456789abcdef0123456789abcde\n").is_err());
        check_token(path, "0123456789abcdef0123456789abcdef\n").unwrap();
    }
}
