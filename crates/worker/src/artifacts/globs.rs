//! Globs of the files of a workspace that are kept, and which folders can have such files.

use std::path::Path;

use globset::{GlobSet, GlobSetBuilder};

use crate::globs::{globs, parse};

/// Files of a workspace that are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Keep {
    files: GlobSet,
    /// Folders that may contain some: a large one that cannot, such as `node_modules`, is not entered.
    folders: GlobSet,
}

impl Keep {
    /// Parses globs, of which each part that ends before a slash matches the folders on the way. A whole one with `**` matches those
    /// below it.
    pub(super) fn of(all: &[String]) -> Result<Self, globset::Error> {
        let mut folders = GlobSetBuilder::new();
        for glob in all {
            for (end, _) in glob.match_indices('/').filter(|(end, _)| *end > 0) {
                // Alternatives that have slashes are cut through.
                folders.add(parse(&glob[..end]).or_else(|_| parse("**"))?);
            }
            if glob.contains("**") {
                folders.add(parse(glob)?);
            }
        }
        Ok(Self { files: globs(all)?, folders: folders.build()? })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn is_match(&self, file: &Path) -> bool {
        self.files.is_match(file)
    }

    /// Whether a folder may contain a file that is kept.
    pub(super) fn enters(&self, folder: &Path) -> bool {
        self.folders.is_match(folder)
    }
}
