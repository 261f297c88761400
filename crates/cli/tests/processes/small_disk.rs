//! A small disk of its own for one process: a file system in memory, in a mount namespace that outlives the process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::process::Process;

/// Mounts the disk and keeps its mount namespace.
const HOLD: &str = r#"mount -t tmpfs -o size=$DISK none "$AT" && echo mounted && exec sleep 1000"#;

/// Disk that programs started with [`SmallDisk::command`] see in place of a directory.
pub(crate) struct SmallDisk {
    at: PathBuf,
    holder: Process,
}

impl SmallDisk {
    /// Mounts a disk of a size such as `1m` over a new directory. `mark` is in the environment of its process.
    pub(crate) async fn mount(at: &Path, size: &str, mark: &str) -> Result<Self> {
        fs::create_dir_all(at)?;
        // Root in a user namespace, if not otherwise, may mount.
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", HOLD]);
        command.env("AT", at).env("DISK", size).env("MARK", mark);
        let mut holder = Process::start("disk", command);
        holder.prints("mounted").await;
        Ok(Self { at: at.to_owned(), holder })
    }

    /// Directory of the disk, for those that see it.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Id of the process that keeps the disk.
    pub(crate) fn pid(&self) -> i32 {
        self.holder.pid()
    }

    /// Returns the command with the disk in its place. The process has the same id as without it.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let inner = command.as_std();
        let mut outer = Command::new("nsenter");
        outer.arg(format!("--target={}", self.holder.pid())).args(["--user", "--mount"]);
        if let Some(folder) = inner.get_current_dir() {
            outer.arg(format!("--wd={}", folder.display()));
        }
        outer.arg("--").arg(inner.get_program()).args(inner.get_args());
        outer.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer
    }

    /// Fills the disk to the last byte.
    pub(crate) fn fill(&self) -> Result<()> {
        fs::File::create(self.filler())?;
        self.fill_again()
    }

    /// Takes what was freed since [`SmallDisk::fill`], too.
    pub(crate) fn fill_again(&self) -> Result<()> {
        let mut file = fs::File::options().append(true).open(self.filler())?;
        match std::io::copy(&mut std::io::repeat(0), &mut file) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("the disk has no end"),
        }
    }

    /// Frees what [`SmallDisk::fill`] has taken.
    pub(crate) fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the disk was not filled")
    }

    /// Directory of the disk as this process sees it.
    pub(crate) fn inside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.at.strip_prefix("/").unwrap_or(&self.at))
    }

    fn filler(&self) -> PathBuf {
        self.inside().join("fill")
    }
}
