//! `rota admin prune`, `rota admin rotate-key`, `rota admin reindex` and `rota admin backup`: care for the store of the control plane.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::civil::DateTime;
use rota_proto::v1::{BackupRequest, PruneRequest, RebuildSearchIndexRequest, RotateKeyRequest};
use rota_settings::HumanDuration;
use rota_telemetry::clock;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;

/// Beginning and end of the names of backups in a directory, around the time of each.
const PREFIX: &str = "rota-";
const SUFFIX: &str = ".sqlite";
/// Time in the name of a backup.
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// End of the name of a file that is not complete.
const PARTIAL: &str = ".partial";
/// Time after the last write to such a file in a directory of backups after which its backup was surely killed: transfers end when
/// nothing comes for a minute. Less than a day, so that of nightly backups each removes what the one before has left.
const ABANDONED_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Debug, Args)]
pub struct Prune {
    /// Time since the end of the tasks that are removed
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        required_unless_present = "task",
        conflicts_with = "task"
    )]
    older_than: Option<HumanDuration>,
    /// Id of the only task to remove: one that has ended, or whose record cannot be decoded
    #[arg(long, value_name = "ID")]
    task: Option<String>,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// File to create; `-` writes to the standard output
    #[arg(value_name = "FILE", required_unless_present = "directory", conflicts_with = "directory")]
    file: Option<PathBuf>,
    /// Directory in which to create a file named after the time
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Number of backups to keep in the directory; older ones are removed [default: all]
    #[arg(long, value_name = "COUNT", requires = "directory", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
}

impl Prune {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut removed = 0;
        loop {
            let task = self.task.as_deref().map(|task| context.task(task)).transpose()?.unwrap_or_default();
            let older_than = self.older_than.as_ref().map(|age| age.0.into());
            let request = PruneRequest { older_than, task };
            let part = context.client.prune(request).await?;
            removed += part.removed;
            if !part.more {
                break;
            }
            context.reporter.line(&format!("{removed} records removed so far"));
        }
        match context.out.is_human() {
            true => context.out.line(&format!("{removed} records removed"))?,
            false => context.out.value(&json!({ "removed": removed }))?,
        }
        Ok(Exit::Ok)
    }
}

/// Seals all secrets under the next key. One that is interrupted is repeated.
pub async fn rotate_key(context: &Context) -> anyhow::Result<Exit> {
    let (mut resealed, mut unreadable) = (0, 0);
    let (key, previous) = loop {
        let part = context.client.rotate_key(RotateKeyRequest {}).await?;
        resealed += part.resealed;
        unreadable += part.unreadable;
        if !part.more {
            break (part.key_id, part.previous_key_id);
        }
        if part.resealed > 0 {
            context.reporter.line(&format!("{resealed} secrets sealed again so far"));
        }
    };
    if !context.out.is_human() {
        let done = json!({ "keyId": key, "previousKeyId": previous, "resealed": resealed, "unreadable": unreadable });
        context.out.value(&done)?;
        return Ok(Exit::Ok);
    }
    context.out.line(&format!("all secrets are sealed under the key {key} ({resealed} sealed again)"))?;
    if unreadable > 0 {
        context
            .out
            .line(&format!("{unreadable} secrets are sealed under a key that is not known; see the log"))?;
    }
    context.reporter.line(&format!(
        "once all replicas are restarted with it as --key-file, the key {previous} is not needed any more"
    ));
    Ok(Exit::Ok)
}

/// Has the search index built again by the control plane.
pub async fn reindex(context: &Context) -> anyhow::Result<Exit> {
    let begun = context.client.rebuild_search_index(RebuildSearchIndexRequest {}).await?;
    match context.out.is_human() {
        true => context.out.line(&format!(
            "the search index is built again up to revision {}; until then searches find less, and report it",
            begun.revision
        ))?,
        false => context.out.value(&begun)?,
    }
    Ok(Exit::Ok)
}

impl Backup {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if self.file.as_deref().is_some_and(is_standard) {
            receive(context, &mut io::stdout()).await?;
            return Ok(Exit::Ok);
        }
        let path = match (self.file, &self.directory) {
            (Some(file), _) => file,
            (None, Some(directory)) => directory
                .join(format!("{PREFIX}{}{SUFFIX}", jiff::Timestamp::try_from(clock::now())?.strftime(TIME))),
            (None, None) => bail!("a file or a directory is required"),
        };
        let mut removed = Vec::new();
        // The backup matters more than what others have left.
        let left = self.directory.as_deref().and_then(|directory| abandoned(directory).ok());
        for left in left.unwrap_or_default() {
            match fs::remove_file(&left) {
                Ok(()) => removed.push(left),
                Err(error) => context.reporter.line(&format!("failed to remove {}: {error}", left.display())),
            }
        }
        let bytes = create(context, &path).await?;
        if let (Some(directory), Some(keep)) = (&self.directory, self.keep) {
            removed.extend(remove_older(directory, keep)?);
        }
        if !context.out.is_human() {
            context.out.value(&json!({ "file": path, "bytes": bytes, "removed": removed }))?;
            return Ok(Exit::Ok);
        }
        context.out.line(&format!("{}: {} MiB, complete", path.display(), bytes.div_ceil(1 << 20)))?;
        for old in removed {
            context.out.line(&format!("{}: removed", old.display()))?;
        }
        Ok(Exit::Ok)
    }
}

/// A file that has its name once it is complete and on the disk. It has prompts, results and encrypted secrets: only its owner may
/// read it.
pub struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl PartialFile {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let _ = fs::remove_file(&partial);
        // Neither one that another user has put there meanwhile nor the target of a link.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.with_context(|| format!("failed to create {}", partial.display()))?;
        Ok(Self { path: path.to_owned(), partial, file })
    }

    /// Returns another handle of the file.
    pub fn file(&mut self) -> anyhow::Result<File> {
        Ok(self.file.try_clone()?)
    }

    /// Writes the file to the disk, and gives it its name.
    pub fn complete(self) -> anyhow::Result<()> {
        self.file.sync_all().with_context(|| format!("failed to write {}", self.partial.display()))?;
        fs::rename(&self.partial, &self.path)
            .with_context(|| format!("failed to rename {}", self.partial.display()))?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all())?;
        }
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // That of a complete one has another name.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Whether a file is named `-`, for the standard input or output.
pub fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// Creates the file, or nothing: it has its name once it is complete, checked and on the disk. Returns its size.
async fn create(context: &Context, path: &Path) -> anyhow::Result<u64> {
    let mut partial = PartialFile::create(path)?;
    let bytes = receive(context, &mut partial.file()?).await?;
    let written = partial.partial.clone();
    tokio::task::spawn_blocking(move || rota_store_sqlite::check(&written)).await??;
    partial.complete()?;
    Ok(bytes)
}

async fn receive(context: &Context, to: &mut impl Write) -> anyhow::Result<u64> {
    let mut parts = context.client.backup(BackupRequest {}).await?;
    let mut bytes = 0;
    while let Some(part) = parts.message().await.map_err(|status| context.client.error(status))? {
        to.write_all(&part.data).context("failed to write the backup")?;
        bytes += part.data.len() as u64;
    }
    to.flush().context("failed to write the backup")?;
    Ok(bytes)
}

/// Returns the backups of a directory, the newest last. Files without a time in their names are none of them.
pub fn backups(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    named(directory, SUFFIX)
}

/// Returns the files of a directory that are named like backups up to this end, the newest last.
fn named(directory: &Path, suffix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(directory).with_context(|| format!("failed to read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let time = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(suffix));
        if let Some(time) = time.and_then(|time| DateTime::strptime(TIME, time).ok()) {
            files.push((time, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Returns the files that killed backups have left in a directory.
fn abandoned(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = named(directory, &format!("{SUFFIX}{PARTIAL}"))?;
    // That of a backup that runs is written to, or was renamed a moment ago.
    let written = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified());
    let age = |at: SystemTime| clock::now().duration_since(at).unwrap_or_default();
    files.retain(|path| written(path).is_ok_and(|at| age(at) >= ABANDONED_AFTER));
    Ok(files)
}

/// Removes all but the newest backups of a directory. Returns what was removed.
fn remove_older(directory: &Path, keep: u32) -> anyhow::Result<Vec<PathBuf>> {
    let mut backups = backups(directory)?;
    let old = backups.len().saturating_sub(keep as usize);
    backups.truncate(old);
    for path in &backups {
        fs::remove_file(path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(backups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_backups_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "rota-20300101T000000Z.sqlite",
            "rota-20300103T000000Z.sqlite",
            "rota-20300102T000000Z.sqlite",
            "rota-before-0.2.sqlite",
            "other.sqlite",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let newest = folder.path().join("rota-20300103T000000Z.sqlite");
        assert_eq!(backups(folder.path()).unwrap().pop(), Some(newest));
        assert_eq!(
            remove_older(folder.path(), 2).unwrap(),
            [folder.path().join("rota-20300101T000000Z.sqlite")]
        );
        assert_eq!(remove_older(folder.path(), 2).unwrap(), [""; 0].map(PathBuf::from));
        for kept in ["rota-before-0.2.sqlite", "other.sqlite"] {
            assert!(folder.path().join(kept).exists(), "{kept} is none of them");
        }
    }
}
