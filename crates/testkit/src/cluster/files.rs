//! Files of a control plane in the folder of its cluster: certificate, key and the token of viewers. Knows no server.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Setup;

/// Returns the paths of certificate and key.
pub(super) fn tls(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("tls.crt"), folder.join("tls.key"))
}

/// Returns the path of the viewers' token.
pub(super) fn viewers(folder: &Path) -> PathBuf {
    folder.join("viewers")
}

/// Writes the files that a configuration has.
pub(super) fn write(setup: &Setup, folder: &Path) -> Result<()> {
    if let Some((certificate, key)) = &setup.tls {
        let paths = tls(folder);
        std::fs::write(paths.0, certificate)?;
        std::fs::write(paths.1, key)?;
    }
    if let Some(token) = &setup.viewer_token {
        std::fs::write(viewers(folder), token)?;
    }
    Ok(())
}
