//! Globs of the files of a workspace that are kept, and which folders can have such files.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Parses the globs of files to keep. The control plane has checked them.
pub(crate) fn globs(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(parse(glob)?);
    }
    set.build()
}

fn parse(glob: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(glob).literal_separator(true).build()
}

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
