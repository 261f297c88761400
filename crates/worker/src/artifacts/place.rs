//! Puts the copies of a checkpoint where a runtime continues from them. Programs may have written there before.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cap_std::fs::{OpenOptions, Permissions, PermissionsExt};

use crate::program_dir;
use crate::runtimes::CheckpointFolder;

/// Puts files into the folder that a runtime continues from, in place of others of these names. Programs may have written there
/// before: no link leads out of the folder.
pub(crate) async fn place(from: PathBuf, folder: CheckpointFolder) -> io::Result<()> {
    let placed = tokio::task::spawn_blocking(move || place_all(&from, &folder));
    placed.await.map_err(io::Error::other)?
}

fn place_all(from: &Path, folder: &CheckpointFolder) -> io::Result<()> {
    std::fs::create_dir_all(&folder.root)?;
    let root = program_dir::open(&folder.root)?;
    root.create_dir_all(&folder.within)?;
    let to = root.open_dir(&folder.within)?;
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let entries = match std::fs::read_dir(from.join(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let inner = path.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                to.create_dir_all(&inner)?;
                folders.push(inner);
                continue;
            }
            match to.remove_file(&inner) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut copy = to.open_with(&inner, OpenOptions::new().write(true).create_new(true))?;
            let mut from = std::fs::File::open(from.join(&inner))?;
            io::copy(&mut from, &mut copy)?;
            if from.metadata()?.permissions().mode() & 0o100 != 0 {
                copy.set_permissions(Permissions::from_mode(0o700))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::checkpoint::tests::{all, folder};
    use super::*;

    #[test]
    fn files_are_placed_within_their_folder() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = root.path().join("from");
        fs::create_dir_all(from.join("c/tool-results")).unwrap();
        fs::write(from.join("c.jsonl"), "new").unwrap();
        fs::write(from.join("c/tool-results/a"), "a").unwrap();
        let wanted = folder(&root.path().join("config"), &[]);
        let to = root.path().join("config/projects/rota");
        place_all(&from, &wanted).unwrap();
        assert_eq!(all(&to), ["c.jsonl", "c/tool-results/a"]);
        // What an agent has made of them since.
        fs::remove_file(to.join("c.jsonl")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("c.jsonl"), to.join("c.jsonl")).unwrap();
        place_all(&from, &wanted).unwrap();
        assert_eq!(fs::read_to_string(to.join("c.jsonl")).unwrap(), "new");
        fs::remove_dir_all(to.join("c")).unwrap();
        std::os::unix::fs::symlink(outside.path(), to.join("c")).unwrap();
        place_all(&from, &wanted).unwrap_err();
        fs::remove_dir_all(&to).unwrap();
        std::os::unix::fs::symlink(outside.path(), &to).unwrap();
        place_all(&from, &wanted).unwrap_err();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
