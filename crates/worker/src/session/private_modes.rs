//! Modes of what belongs to the worker alone. Landlock keeps no attempt from changing those of any file of its user: what other users
//! could not open when the worker began is closed to them again.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rota_proto::v1::{Severity, event};

use crate::report::notice;

/// Permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

/// Paths of this user, each with its mode when the worker began.
#[derive(Debug)]
pub(super) struct PrivateModes(Vec<(PathBuf, u32)>);

impl PrivateModes {
    /// Notes the modes of those paths that exist and can be closed.
    pub(super) fn of(paths: &[PathBuf]) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let noted = paths.iter().filter_map(|path| {
            let found = path.metadata().ok().filter(|found| found.uid() == own)?;
            Some((path.clone(), found.mode()))
        });
        Self(noted.collect())
    }

    /// Takes what other users may do since then away, after an attempt that could run programs. Returns notices of the paths that
    /// were opened to them.
    pub(super) fn close(&self, has_programs: bool) -> impl Iterator<Item = event::Kind> {
        let opened = if has_programs { self.restore() } else { Vec::new() };
        opened.into_iter().map(|path| {
            let text = format!(
                "{} of the worker was opened to other users meanwhile; it is closed again",
                path.display()
            );
            notice(Severity::High, "private_path_opened", text)
        })
    }

    fn restore(&self) -> Vec<&Path> {
        let opened = self.0.iter().filter(|(path, before)| close(path, *before).unwrap_or_default());
        opened.map(|(path, _)| path.as_path()).collect()
    }
}

/// Returns whether a path was opened to others. Errors: it was removed.
fn close(path: &Path, before: u32) -> std::io::Result<bool> {
    let now = path.metadata()?.mode();
    let added = now & OTHERS & !before;
    if added == 0 {
        return Ok(false);
    }
    let closed = std::fs::set_permissions(path, Permissions::from_mode(now & 0o7777 & !added));
    if let Err(error) = &closed {
        tracing::error!(path = %path.display(), %error, "failed to close a path that was opened to other users");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_permissions_are_taken_away() {
        let root = tempfile::tempdir().unwrap();
        let paths = ["closed", "shared", "removed"].map(|name| root.path().join(name));
        let set =
            |at: usize, mode| std::fs::set_permissions(&paths[at], Permissions::from_mode(mode)).unwrap();
        for (at, mode) in [(0, 0o600), (1, 0o640), (2, 0o600)] {
            std::fs::write(&paths[at], "").unwrap();
            set(at, mode);
        }
        let modes = PrivateModes::of(&[paths.to_vec(), vec![root.path().join("never")]].concat());
        assert_eq!(modes.restore(), [""; 0].map(Path::new));
        std::fs::remove_file(&paths[2]).unwrap();
        set(0, 0o666);
        set(1, 0o444);
        assert_eq!(modes.restore(), [&paths[0], &paths[1]]);
        let mode = |at: usize| paths[at].metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(0), mode(1)), (0o600, 0o440));
        assert_eq!(modes.restore(), [""; 0].map(Path::new));
    }
}
