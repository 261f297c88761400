//! Copies of the files that a runtime continues from elsewhere, such as transcripts. Made where no program of the attempt may write,
//! from folders where they may: no link is followed, and secrets are redacted.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use rota_telemetry::redact::{Redactor, StreamRedactor};

use crate::runtimes::CheckpointFolder;

/// Folder of the copies, and of the artifacts.
pub(crate) const FOLDER: &str = "checkpoint";
const MAX_FILES: usize = 1000;
/// Bytes of all files; a conversation takes a few MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes of a line, which has an image at most.
const MAX_LINE: usize = 16 << 20;
const CHUNK: usize = 64 << 10;

/// Copies the files to a folder, in place of earlier ones. Returns the conversation that they are of; `None` if there are none.
pub(super) fn copy(from: &CheckpointFolder, to: &Path, redactor: &Redactor) -> io::Result<Option<String>> {
    let opened =
        Dir::open_ambient_dir(&from.root, ambient_authority()).and_then(|root| root.open_dir(&from.within));
    let folder = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let to = to.join(FOLDER);
    match std::fs::remove_dir_all(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::create_dir_all(&to)?,
    }
    let mut copying = Copying { folder: &folder, to: &to, redactor, files: 0, bytes: 0 };
    if from.conversations.is_empty() {
        copying.all(Path::new(""))?;
        return Ok((copying.files > 0).then(String::new));
    }
    let Some(conversation) = newest(&folder, &from.conversations) else { return Ok(None) };
    copying.file(&transcript(&conversation))?;
    if folder.symlink_metadata(&conversation).is_ok_and(|found| found.is_dir()) {
        copying.all(Path::new(&conversation))?;
    }
    Ok(Some(conversation))
}

/// Puts files into the folder that a runtime continues from, in place of others of these names. Programs may have written there
/// before: no link leads out of the folder.
pub(crate) async fn place(from: PathBuf, folder: CheckpointFolder) -> io::Result<()> {
    let placed = tokio::task::spawn_blocking(move || place_all(&from, &folder));
    placed.await.map_err(io::Error::other)?
}

fn place_all(from: &Path, folder: &CheckpointFolder) -> io::Result<()> {
    std::fs::create_dir_all(&folder.root)?;
    if !folder.root.symlink_metadata()?.is_dir() {
        return Err(io::Error::other(format!("{} is a link", folder.root.display())));
    }
    let root = Dir::open_ambient_dir(&folder.root, ambient_authority())?;
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
            io::copy(&mut std::fs::File::open(from.join(&inner))?, &mut copy)?;
        }
    }
    Ok(())
}

fn transcript(conversation: &str) -> PathBuf {
    PathBuf::from(format!("{conversation}.jsonl"))
}

/// Returns which of these conversations was the last that was written to.
fn newest(folder: &Dir, conversations: &[String]) -> Option<String> {
    let written = |conversation: &&String| -> Option<SystemTime> {
        let found = folder.symlink_metadata(transcript(conversation)).ok().filter(|found| found.is_file())?;
        found.modified().ok().map(cap_std::time::SystemTime::into_std)
    };
    let found = conversations.iter().filter(|conversation| written(conversation).is_some());
    found.max_by_key(written).cloned()
}

struct Copying<'a> {
    folder: &'a Dir,
    to: &'a Path,
    redactor: &'a Redactor,
    files: usize,
    bytes: u64,
}

impl Copying<'_> {
    /// Copies a folder with all below it.
    fn all(&mut self, path: &Path) -> io::Result<()> {
        let mut folders = vec![path.to_owned()];
        while let Some(path) = folders.pop() {
            let entries = match path.as_os_str().is_empty() {
                true => self.folder.entries()?,
                false => self.folder.read_dir(&path)?,
            };
            for entry in entries.take(MAX_FILES + 1) {
                let entry = entry?;
                let inner = path.join(entry.file_name());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(inner);
                } else if kind.is_file() {
                    self.file(&inner)?;
                }
            }
            if folders.len() > MAX_FILES {
                return Err(io::Error::other("it has too many folders"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let from = self.folder.open_with(path, OpenOptions::new().read(true).custom_flags(flags.bits()))?;
        let metadata = from.metadata()?;
        if !metadata.is_file() {
            return Ok(());
        }
        let large = || io::Error::other(format!("it has more than {} MiB", MAX_BYTES >> 20));
        if self.bytes.saturating_add(metadata.len()) > MAX_BYTES {
            return Err(large());
        }
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(io::Error::other(format!("it has more than {MAX_FILES} files")));
        }
        let to = self.to.join(path);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut to = std::fs::File::create_new(to)?;
        // A line that is being written is not there yet.
        let lines = path.extension().is_some_and(|extension| extension == "jsonl");
        self.bytes += redacted(from.take(MAX_BYTES + 1 - self.bytes), &mut to, self.redactor, lines)?;
        if self.bytes > MAX_BYTES {
            return Err(large());
        }
        Ok(())
    }
}

/// Copies bytes without secrets; of `lines`, only whole ones. Returns how many were read.
fn redacted(mut from: impl Read, to: &mut impl Write, redactor: &Redactor, lines: bool) -> io::Result<u64> {
    let mut stream = StreamRedactor::new(redactor.clone());
    let (mut chunk, mut line, mut count) = (vec![0; CHUNK], Vec::new(), 0);
    loop {
        let read = from.read(&mut chunk)?;
        count += read as u64;
        let clean = if read == 0 { stream.end() } else { stream.push(&chunk[..read]) };
        match clean.iter().rposition(|byte| *byte == b'\n').filter(|_| lines) {
            Some(at) => {
                to.write_all(&line)?;
                to.write_all(&clean[..=at])?;
                line.clear();
                line.extend_from_slice(&clean[at + 1..]);
            }
            None if lines => line.extend_from_slice(&clean),
            None => to.write_all(&clean)?,
        }
        if line.len() > MAX_LINE {
            return Err(io::Error::other(format!("a line has more than {} MiB", MAX_LINE >> 20)));
        }
        if read == 0 {
            return Ok(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(root: &Path, conversations: &[&str]) -> CheckpointFolder {
        let conversations = conversations.iter().map(ToString::to_string).collect();
        CheckpointFolder { root: root.to_owned(), within: "projects/rota".into(), conversations }
    }

    fn all(path: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(path).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_conversation_that_was_written_to_is_copied() {
        let root = tempfile::tempdir().unwrap();
        let (to, from) = (root.path().join("to"), root.path().join("projects/rota"));
        let wanted = folder(root.path(), &["old", "new", "none"]);
        assert_eq!(copy(&wanted, &to, &Redactor::default()).unwrap(), None);
        fs::create_dir_all(from.join("new/tool-results")).unwrap();
        fs::write(from.join("old.jsonl"), "{}\n").unwrap();
        fs::write(from.join("other.jsonl"), "{}\n").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(from.join("old.jsonl")).unwrap().set_modified(long_ago).unwrap();
        fs::write(from.join("new.jsonl"), "{\"key\":\"a-secret-value\"}\n{\"cut\":").unwrap();
        fs::write(from.join("new/tool-results/a.txt"), "no line").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", from.join("new/link")).unwrap();
        for _ in 0..2 {
            let copied = copy(&wanted, &to, &Redactor::new(["a-secret-value"])).unwrap();
            assert_eq!(copied.as_deref(), Some("new"));
        }
        let to = to.join(FOLDER);
        assert_eq!(all(&to), ["new.jsonl", "new/tool-results/a.txt"]);
        assert_eq!(fs::read_to_string(to.join("new.jsonl")).unwrap(), "{\"key\":\"[redacted]\"}\n");
        assert_eq!(fs::read_to_string(to.join("new/tool-results/a.txt")).unwrap(), "no line");
    }

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

    #[test]
    fn links_lead_nowhere_and_sizes_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("c.jsonl"), "{}\n").unwrap();
        fs::create_dir_all(root.path().join("projects")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("projects/rota")).unwrap();
        let to = root.path().join("to");
        assert!(copy(&folder(root.path(), &["c"]), &to, &Redactor::default()).is_err());
        fs::remove_file(root.path().join("projects/rota")).unwrap();
        fs::create_dir(root.path().join("projects/rota")).unwrap();
        let large = fs::File::create(root.path().join("projects/rota/c.bin")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        let error = copy(&folder(root.path(), &[]), &to, &Redactor::default()).unwrap_err();
        assert!(error.to_string().contains("256 MiB"), "{error}");
        large.set_len(MAX_LINE as u64 + 1).unwrap();
        fs::rename(root.path().join("projects/rota/c.bin"), root.path().join("projects/rota/c.jsonl"))
            .unwrap();
        let error = copy(&folder(root.path(), &["c"]), &to, &Redactor::default()).unwrap_err();
        assert!(error.to_string().contains("16 MiB"), "{error}");
    }
}
