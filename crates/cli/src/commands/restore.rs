//! `rota restore`: puts a backup in place of the store of a control plane that is stopped.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{serve, storage};
use crate::exit::Exit;
use crate::globals::Globals;
use crate::output::{Out, Reporter};
use crate::private;

const EXAMPLES: &str = "\
Examples:
  rota restore rota.sqlite --data-dir /var/lib/rota/server
  rota restore --directory /var/backups/rota --data-dir /var/lib/rota/server --replace

Everything that was acknowledged after the backup is lost. Contents of artifacts, changes and checkpoints are not in it.";

const ARTIFACTS: &str = "contents of artifacts, changes and checkpoints are not in a backup: they are as they were in the storage of artifacts, by \
                         default the folder `artifacts` of the data directory. If that was lost, too, restore it from its own \
                         backup; `rota admin status` shows how many are missing";

/// Put a backup in place of the store of a control plane that is stopped
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Restore {
    /// Backup to restore, a file of `rota admin backup`
    #[arg(value_name = "FILE", required_unless_present = "directory", conflicts_with = "directory")]
    file: Option<PathBuf>,
    /// Directory of `rota admin backup --directory`, of which the newest backup is restored
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Data directory of the control plane
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Replace the store in the data directory, whose records are lost
    #[arg(long)]
    replace: bool,
}

impl Restore {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let file = match (self.file, &self.directory) {
            (Some(file), _) => file,
            (None, Some(directory)) => storage::backups(directory)?
                .pop()
                .with_context(|| format!("{} has no backups", directory.display()))?,
            (None, None) => bail!("a file or a directory is required"),
        };
        private::directory(&self.data_dir)?;
        let (from, to, replace) = (file.clone(), serve::database(&self.data_dir), self.replace);
        let restored = tokio::task::spawn_blocking(move || rota_store_sqlite::restore(&from, &to, replace));
        restored.await?.map_err(serve::store_failure)?;
        // The control plane takes an empty folder for one whose disk is not mounted.
        let artifacts = self.data_dir.join("artifacts");
        tokio::task::spawn_blocking(move || rota_server::Parts::make_folder(&artifacts)).await??;
        let line = format!("{} restored to {}", file.display(), self.data_dir.display());
        Out::new(globals.output, globals.color).line(&line)?;
        Reporter::new(globals.color).line(ARTIFACTS);
        Ok(Exit::Ok)
    }
}
