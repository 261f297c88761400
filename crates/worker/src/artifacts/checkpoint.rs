//! Copies of the files that a runtime continues from elsewhere, such as transcripts. Made where no program of the attempt may write,
//! from folders where they may: no link is followed, and secrets are redacted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::fs::{Dir, MetadataExt, OpenOptions};
use rota_telemetry::redact::{Redactor, StreamRedactor};

use super::transcript;
use crate::program_dir;
use crate::runtimes::CheckpointFolder;

/// Folder of the copies, and of the artifacts.
pub(crate) use rota_proto::artifact_names::CHECKPOINT as FOLDER;
const MAX_FILES: usize = 1000;
/// Bytes of all files; a conversation takes a few MiB.
pub(super) const MAX_BYTES: u64 = 256 << 20;
const CHUNK: usize = 64 << 10;
/// Copies of files that programs change meanwhile, the last of which counts.
const MAX_COPIES: usize = 3;

/// Copies of the files that a later attempt continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copied {
    /// Conversation that they are of; empty if the runtime has none.
    pub(super) conversation: String,
    /// Digest of names and contents, to recognize what has not changed.
    pub(super) digest: u64,
}

/// Copies the files to a folder, in place of earlier ones. Returns nothing if there are none.
pub(super) fn copy(from: &CheckpointFolder, to: &Path, redactor: &Redactor) -> io::Result<Option<Copied>> {
    let opened = program_dir::open(&from.root).and_then(|root| root.open_dir(&from.within));
    let folder = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let to = to.join(FOLDER);
    for copy in 1.. {
        emptied(&to)?;
        let mut copying = Copying::new(&folder, &to, redactor, !from.conversations.is_empty());
        let conversation = if from.conversations.is_empty() {
            let files = listed(&folder, Path::new(""))?;
            files.keys().try_for_each(|path| copying.file(path).map(drop))?;
            if copy < MAX_COPIES && files != listed(&folder, Path::new(""))? {
                continue;
            }
            (copying.files > 0).then(String::new)
        } else {
            copying.conversation(from)?
        };
        let digest = copying.digest.finish();
        return Ok(conversation.map(|conversation| Copied { conversation, digest }));
    }
    Ok(None)
}

fn emptied(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(folder),
    }
}

/// Returns what a call has found; `None` if it was removed meanwhile.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Version of a file: its inode, its size, and when it was changed.
type Version = (u64, u64, i64, i64);

/// Returns the files of a folder with all below it.
fn listed(folder: &Dir, path: &Path) -> io::Result<BTreeMap<PathBuf, Version>> {
    let (mut files, mut folders, mut count) = (BTreeMap::new(), vec![path.to_owned()], 0);
    while let Some(path) = folders.pop() {
        let entries = match path.as_os_str().is_empty() {
            true => there(folder.entries())?,
            false => there(folder.read_dir(&path))?,
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let inner = path.join(entry.file_name());
            count += 1;
            if count > 2 * MAX_FILES {
                return Err(io::Error::other(format!("it has more than {MAX_FILES} files")));
            }
            let Some(found) = there(folder.symlink_metadata(&inner))? else { continue };
            if found.is_dir() {
                folders.push(inner);
            } else if found.is_file() {
                files.insert(inner, (found.ino(), found.len(), found.mtime(), found.mtime_nsec()));
            }
        }
    }
    Ok(files)
}

pub(super) fn file_of(conversation: &str) -> PathBuf {
    PathBuf::from(format!("{conversation}.jsonl"))
}

/// Returns which of these conversations was the last that was written to.
fn newest(folder: &Dir, conversations: &[String]) -> Option<String> {
    let written = |conversation: &&String| -> Option<SystemTime> {
        let found = folder.symlink_metadata(file_of(conversation)).ok().filter(|found| found.is_file())?;
        found.modified().ok().map(cap_std::time::SystemTime::into_std)
    };
    let found = conversations.iter().filter(|conversation| written(conversation).is_some());
    found.max_by_key(written).cloned()
}

struct Copying<'a> {
    folder: &'a Dir,
    to: &'a Path,
    redactor: &'a Redactor,
    /// Whether files of lines are transcripts, and not a program's own.
    transcripts: bool,
    files: usize,
    bytes: u64,
    digest: DefaultHasher,
}

impl<'a> Copying<'a> {
    fn new(folder: &'a Dir, to: &'a Path, redactor: &'a Redactor, transcripts: bool) -> Self {
        Self { folder, to, redactor, transcripts, files: 0, bytes: 0, digest: DefaultHasher::new() }
    }

    /// Copies the newest of the conversations. Returns which it is; `None` if no user has written in it.
    fn conversation(&mut self, from: &CheckpointFolder) -> io::Result<Option<String>> {
        let Some(conversation) = newest(self.folder, &from.conversations) else { return Ok(None) };
        if !self.file(&file_of(&conversation))? {
            return Ok(None);
        }
        // It names files in the folders of those that it has continued.
        for name in from.folders.iter().chain([&conversation]) {
            if there(self.folder.symlink_metadata(name))?.is_some_and(|found| found.is_dir()) {
                listed(self.folder, Path::new(name))?
                    .keys()
                    .try_for_each(|path| self.file(path).map(drop))?;
            }
        }
        Ok(Some(conversation))
    }

    /// Copies a file, unless it was removed meanwhile. Returns whether it has something to continue from.
    fn file(&mut self, path: &Path) -> io::Result<bool> {
        let opened = program_dir::open_file(self.folder, path, OpenOptions::new().read(true));
        let Some(from) = there(opened)? else { return Ok(false) };
        let metadata = from.metadata()?;
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
        let to = std::fs::File::create_new(to)?;
        let is_executable = metadata.permissions().mode() & 0o111 != 0;
        if is_executable {
            to.set_permissions(std::fs::Permissions::from_mode(0o700))?;
        }
        (path, is_executable).hash(&mut self.digest);
        let mut to = Hashed { to, digest: &mut self.digest };
        let from = from.take(MAX_BYTES + 1 - self.bytes);
        let is_transcript =
            self.transcripts && path.extension().is_some_and(|extension| extension == "jsonl");
        let (bytes, is_begun) = match is_transcript {
            true => transcript::copy(from, &mut to, self.redactor)?,
            false => (redacted(from, &mut to, self.redactor)?, true),
        };
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(large());
        }
        Ok(is_begun)
    }
}

/// Writes to a file, and into a digest.
struct Hashed<'a> {
    to: std::fs::File,
    digest: &'a mut DefaultHasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.write(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies bytes without secrets. Returns how many were read.
fn redacted(mut from: impl Read, to: &mut impl Write, redactor: &Redactor) -> io::Result<u64> {
    let mut stream = StreamRedactor::new(redactor.clone());
    let (mut chunk, mut count) = (vec![0; CHUNK], 0);
    loop {
        let read = from.read(&mut chunk)?;
        count += read as u64;
        to.write_all(&if read == 0 { stream.end() } else { stream.push(&chunk[..read]) })?;
        if read == 0 {
            return Ok(count);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    pub(in crate::artifacts) fn folder(root: &Path, conversations: &[&str]) -> CheckpointFolder {
        let conversations = conversations.iter().map(ToString::to_string).collect();
        let folders = vec!["before".to_owned()];
        CheckpointFolder { root: root.to_owned(), within: "projects/rota".into(), conversations, folders }
    }

    pub(in crate::artifacts) fn all(path: &Path) -> Vec<String> {
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
        fs::write(from.join("old.jsonl"), "{\"type\":\"user\"}\n").unwrap();
        fs::write(from.join("other.jsonl"), "{}\n").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(from.join("old.jsonl")).unwrap().set_modified(long_ago).unwrap();
        fs::write(from.join("new.jsonl"), "{\"type\":\"user\",\"key\":\"a-secret-value\"}\n{\"cut\":")
            .unwrap();
        fs::write(from.join("new/tool-results/a.txt"), "no line").unwrap();
        fs::create_dir_all(from.join("before")).unwrap();
        fs::write(from.join("before/b.txt"), "b").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", from.join("new/link")).unwrap();
        for _ in 0..2 {
            let copied = copy(&wanted, &to, &Redactor::new(["a-secret-value"])).unwrap();
            assert_eq!(copied.unwrap().conversation, "new");
        }
        let to = to.join(FOLDER);
        assert_eq!(all(&to), ["before/b.txt", "new.jsonl", "new/tool-results/a.txt"]);
        assert_eq!(
            fs::read_to_string(to.join("new.jsonl")).unwrap(),
            "{\"key\":\"[redacted]\",\"type\":\"user\"}\n"
        );
        assert_eq!(fs::read_to_string(to.join("new/tool-results/a.txt")).unwrap(), "no line");
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
        large.set_len(transcript::MAX_LINE as u64 + 1).unwrap();
        fs::rename(root.path().join("projects/rota/c.bin"), root.path().join("projects/rota/c.jsonl"))
            .unwrap();
        let error = copy(&folder(root.path(), &["c"]), &to, &Redactor::default()).unwrap_err();
        assert!(error.to_string().contains("16 MiB"), "{error}");
    }

    #[test]
    fn files_that_vanish_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("from");
        fs::create_dir_all(from.join("deep")).unwrap();
        let opened = program_dir::open(&from).unwrap();
        let (to, redactor) = (root.path().join("to"), Redactor::default());
        let mut copying = Copying::new(&opened, &to, &redactor, false);
        fs::write(from.join("deep/a.tmp"), "").unwrap();
        let before = listed(&opened, Path::new("")).unwrap();
        fs::rename(from.join("deep/a.tmp"), from.join("deep/a")).unwrap();
        for path in before.keys() {
            assert!(!copying.file(path).unwrap());
        }
        // So it is looked for again.
        assert_ne!(before, listed(&opened, Path::new("")).unwrap());
        assert!(listed(&opened, Path::new("none")).unwrap().is_empty());
    }

    #[test]
    fn conversations_begin_with_a_user() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("projects/rota")).unwrap();
        fs::write(root.path().join("projects/rota/c.jsonl"), "{\"type\":\"summary\"}\n").unwrap();
        let wanted = folder(root.path(), &["c"]);
        assert_eq!(copy(&wanted, &root.path().join("to"), &Redactor::default()).unwrap(), None);
    }

    #[test]
    fn digests_are_of_names_contents_and_modes() {
        let root = tempfile::tempdir().unwrap();
        let (to, from) = (root.path().join("to"), root.path().join("projects/rota"));
        let wanted = folder(root.path(), &[]);
        fs::create_dir_all(&from).unwrap();
        let digest = || copy(&wanted, &to, &Redactor::default()).unwrap().unwrap().digest;
        let mut digests = Vec::new();
        fs::write(from.join("a"), "a").unwrap();
        digests.extend([digest(), digest()]);
        assert_eq!(digests[0], digests[1]);
        fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        digests.push(digest());
        assert_eq!(fs::metadata(to.join("checkpoint/a")).unwrap().permissions().mode() & 0o111, 0o100);
        fs::write(from.join("a"), "b").unwrap();
        digests.push(digest());
        fs::rename(from.join("a"), from.join("b")).unwrap();
        digests.push(digest());
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), 4);
    }
}
