//! How `rota dev` tells the other commands of this machine where it is.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A `rota dev` of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevEndpoint {
    /// Where it listens.
    pub endpoint: String,
    /// The file with its token.
    pub token_file: PathBuf,
    /// Its process.
    pub pid: u32,
}

impl DevEndpoint {
    /// Reads the file; one that cannot be read is none.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Whether its process may still run. Where that cannot be seen, it does.
    pub fn is_alive(&self) -> bool {
        !Path::new("/proc/self").exists() || Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// Writes the file, readable to its owner alone, at once and whole.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_private(path, &text)
    }

    /// Removes the file if it is still this one's.
    pub fn remove(&self, path: &Path) {
        if Self::read(path).as_ref() == Some(self) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes a file of mode 0600, at once and whole, making its folders.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn written_read_and_removed() {
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
