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
}

impl DevEndpoint {
    /// Reads the file. A missing or invalid one counts as none.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Returns whether its process may still run. Without procfs, it is assumed to.
    pub fn is_alive(&self) -> bool {
        !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{}", self.pid)).exists()
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
        let own = DevEndpoint {
            endpoint: "http://127.0.0.1:1".into(),
            token_file: "/t".into(),
            pid: std::process::id(),
        };
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
}
