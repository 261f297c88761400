//! The file in which `rota dev` publishes its endpoint for other commands on this machine.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Endpoint of a `rota dev` on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevEndpoint {
    /// URL of its API.
    pub endpoint: String,
    /// File with its bearer token.
    pub token_file: PathBuf,
    /// Process id, by which a stale file is recognized.
    pub pid: u32,
    /// Start of that process: a later one may have its id. Empty without procfs.
    #[serde(default)]
    pub started: String,
}

impl DevEndpoint {
    /// Returns the endpoint of this process.
    pub fn of_this_process(endpoint: String, token_file: PathBuf) -> Self {
        let pid = std::process::id();
        Self { endpoint, token_file, pid, started: start_of(pid).unwrap_or_default() }
    }

    /// Reads the file. A missing or invalid one counts as none.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Returns whether its process may still run. Without procfs, it is assumed to. The token is worth more than the address: another
    /// program may listen there by now. One of a version that did not write when it was started therefore counts as ended.
    pub fn is_alive(&self) -> bool {
        self.is_alive_by(start_of)
    }

    fn is_alive_by(&self, start_of: impl Fn(u32) -> Option<String>) -> bool {
        // Where this machine does not show when processes were started, no file has it.
        if start_of(std::process::id()).is_none() {
            let processes = Path::new("/proc");
            return !processes.join("self").exists() || processes.join(self.pid.to_string()).exists();
        }
        start_of(self.pid).is_some_and(|started| started == self.started)
    }

    /// Writes the file atomically, with access for its owner only.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_private(path, &text)
    }

    /// Removes the file, unless another `rota dev` has replaced it.
    pub fn remove(&self, path: &Path) {
        if Self::read(path).as_ref() == Some(self) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Returns when a process that runs was started: the boot, and the ticks of the clock since then.
fn start_of(pid: u32) -> Option<String> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok().filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
    let boot = procfs::sys::kernel::random::boot_id().unwrap_or_default();
    Some(format!("{boot}/{}", stat.starttime))
}

/// Writes a file of mode 0600 atomically, creating its directories.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_owner_reads_and_removes_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev/endpoint.json");
        let own = DevEndpoint::of_this_process("http://127.0.0.1:1".into(), "/t".into());
        own.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(DevEndpoint::read(&path).as_ref(), Some(&own));
        assert!(own.is_alive());
        let other = DevEndpoint { pid: u32::MAX, ..own.clone() };
        assert!(!other.is_alive());
        other.remove(&path);
        assert!(path.exists());
        own.remove(&path);
        assert!(!path.exists());
    }

    #[test]
    fn later_process_with_the_same_id_is_another() {
        let own = DevEndpoint::of_this_process("http://127.0.0.1:1".into(), "/t".into());
        assert!(own.is_alive());
        let mut earlier = DevEndpoint { started: "an earlier boot/1".to_owned(), ..own };
        assert!(!earlier.is_alive());
        // Of a version that did not write it.
        earlier.started.clear();
        assert!(!earlier.is_alive());
    }

    #[test]
    fn processes_count_where_starts_are_unknown() {
        let own = DevEndpoint::of_this_process("http://127.0.0.1:1".into(), "/t".into());
        let own = DevEndpoint { started: String::new(), ..own };
        assert!(own.is_alive_by(|_| None));
        let ended = DevEndpoint { pid: u32::MAX, ..own };
        assert!(!ended.is_alive_by(|_| None));
    }

    #[test]
    fn process_that_has_ended_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let of_child = DevEndpoint {
            endpoint: "http://127.0.0.1:1".into(),
            token_file: "/t".into(),
            pid: child.id(),
            started: start_of(child.id()).unwrap(),
        };
        assert!(of_child.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!of_child.is_alive());
    }
}
