//! A small file system for a tablespace of a server: in memory, in a mount namespace that ends with the process that made it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Mounts the file system, and keeps the namespace until its input ends.
const HOLD: &str = r#"mount -t tmpfs -o "$1" none "$2" && echo mounted && exec cat >/dev/null"#;

#[derive(Debug)]
pub(super) struct Volume {
    holder: Child,
    at: PathBuf,
    user: Option<(u32, u32)>,
}

impl Volume {
    /// Mounts a file system of a size such as `64m` over a new directory, for a server of this user.
    pub(super) fn mount(at: &Path, size: &str, user: Option<(u32, u32)>) -> Result<Self> {
        fs::create_dir(at)?;
        let mut options = format!("size={size},mode=700");
        let mut command = Command::new("unshare");
        match user {
            Some((uid, gid)) => options.push_str(&format!(",uid={uid},gid={gid}")),
            // May mount only within a user namespace, and keeps its own id in it: a server refuses to run as root.
            None => _ = command.args(["--map-current-user", "--keep-caps"]),
        }
        command.args(["--mount", "sh", "-c", HOLD, "sh", &options]).arg(at);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().context("failed to start unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no output")?).read_line(&mut line)?;
        let volume = Self { holder, at: at.to_owned(), user };
        ensure!(line == "mounted\n", "no file system was mounted at {}", at.display());
        Ok(volume)
    }

    /// Returns the command of a program that sees the volume, as the user of the server.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--mount");
        match self.user {
            Some((uid, gid)) => {
                command.arg(format!("--setuid={uid}")).arg(format!("--setgid={gid}"));
            }
            None => _ = command.args(["--user", "--preserve-credentials"]),
        }
        command.arg("--").arg(program);
        command
    }

    /// Fills the volume to the last byte.
    pub(super) fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        match std::io::copy(&mut std::io::repeat(0), &mut file) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("the volume has no end"),
        }
    }

    /// Frees what [`Volume::fill`] has taken.
    pub(super) fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the volume was not filled")
    }

    /// Path of the filler as this process sees it.
    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.at.strip_prefix("/").unwrap_or(&self.at)).join("fill")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
