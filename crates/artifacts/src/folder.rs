//! The folder of a local store: whether it is the one that has the parts, or one that was made in its place, such as where a disk is
//! not mounted. A marker in it shows that.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Name of the marker, which no part has.
const MARKER: &str = ".rota-artifacts";
const CONTENT: &str = "The contents of artifacts are in this folder. Without this file, Rota takes it for another one, and neither stores nor \
                       fetches any.\n";

#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Fails unless the marker is in the folder.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let marker = self.0.join(MARKER);
        let found = tokio::task::spawn_blocking(move || marker.symlink_metadata()).await;
        let found = found.map_err(io::Error::other).flatten();
        found.map(drop).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Error::Unavailable(format!(
                "the artifact folder {} is not the one that this store knows: it has no file {MARKER}; mount its disk, or create that file if its \
                 contents are lost",
                self.0.display()
            )),
            _ => Error::Unavailable(format!("the artifact folder {} cannot be read: {error}", self.0.display())),
        })
    }

    /// Makes the marker, which is durable then.
    pub(crate) async fn mark(&self) -> Result<(), Error> {
        let folder = self.0.clone();
        let marked = tokio::task::spawn_blocking(move || mark(&folder)).await;
        let failed = |error| Error::Unavailable(format!("failed to mark {}: {error}", self.0.display()));
        marked.map_err(io::Error::other).flatten().map_err(failed)
    }
}

fn mark(folder: &Path) -> io::Result<()> {
    let mut marker = std::fs::File::create(folder.join(MARKER))?;
    marker.write_all(CONTENT.as_bytes())?;
    marker.sync_all()?;
    std::fs::File::open(folder)?.sync_all()
}

/// Makes a folder of which is known that it has nothing, readable by its owner only, unless there is one already. Blocks.
pub(crate) fn make_empty(folder: &Path) -> io::Result<()> {
    match create(folder) {
        Ok(()) => mark(folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn create(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}
