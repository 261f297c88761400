//! The one `rota dev` of a user that other commands find, and what it prints.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rota_client::discover::{self, DevEndpoint};
use rota_store::{FileLock, LockError};

use crate::exit::{Exit, Failure};
use crate::output::Reporter;
use crate::private;

/// Adds the owner of a data directory in use to the error, where it is known.
pub(super) fn in_use(error: anyhow::Error, data_dir: &Path) -> anyhow::Error {
    let other = DevEndpoint::read(&data_dir.join("endpoint.json")).filter(DevEndpoint::is_alive);
    match other {
        Some(other) if error.to_string().contains("in use") => {
            let message = format!(
                "{} is in use by a `rota dev` at {} (process {})",
                data_dir.display(),
                other.endpoint,
                other.pid
            );
            Failure::new(Exit::Failed, message)
                .hint("use that instance, stop it, or choose another --data-dir")
                .into()
        }
        _ => error,
    }
}

/// Lock of the one `rota dev` that other commands find. A stale file of a dead one blocks nothing.
pub(super) struct DataDirLock {
    _file: FileLock,
}

impl DataDirLock {
    pub(super) fn acquire() -> anyhow::Result<Self> {
        let found = discover::dev_file();
        let path = found.with_extension("lock");
        private::directory(path.parent().unwrap_or(Path::new("/")))?;
        match FileLock::acquire(&path) {
            Ok(file) => Ok(Self { _file: file }),
            Err(LockError::Held) => {
                let other = DevEndpoint::read(&found)
                    .map(|other| format!(" at {} (process {})", other.endpoint, other.pid));
                let message = format!("another `rota dev` is running{}", other.unwrap_or_default());
                Err(Failure::new(Exit::Failed, message)
                    .hint("use that instance, or stop it; to run a second one, set ROTA_HOME to another directory for it and its clients")
                    .into())
            }
            Err(error) => Err(error).with_context(|| format!("failed to lock {}", path.display())),
        }
    }
}

/// Files with the address of this instance while it runs: one for other commands to find, one in the data
/// directory.
pub(super) struct Announced {
    pub(super) own: DevEndpoint,
    files: Vec<PathBuf>,
    /// Released after the files are removed.
    _lock: DataDirLock,
}

impl Announced {
    pub(super) fn new(own: DevEndpoint, data_dir: &Path, lock: DataDirLock) -> anyhow::Result<Self> {
        let mut files = vec![data_dir.join("endpoint.json"), discover::dev_file()];
        files.dedup();
        for file in &files {
            own.write(file).with_context(|| format!("failed to write {}", file.display()))?;
        }
        Ok(Self { own, files, _lock: lock })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| self.own.remove(file));
    }
}

pub(super) fn print_banner(reporter: &Reporter, own: &DevEndpoint, data_dir: &Path) {
    reporter.line(&format!("rota dev is running at {}", own.endpoint));
    reporter.line(&format!("  data   {}", data_dir.display()));
    reporter.line(&format!("  token  {}", own.token_file.display()));
    reporter.line(&format!("  logs   {}", data_dir.join("logs").display()));
    reporter.line("Other commands on this machine connect to it automatically:");
    reporter.line("  rota apply -f FILE     create agents and tasks");
    reporter.line("  rota run \"PROMPT\"      run one task and print its result");
    reporter.line("  rota watch             follow all tasks");
    reporter.line("  rota ui                print a link to the control centre");
}
