//! Globs of files of a workspace, as tasks write them: `*` matches no slash. Knows nothing of what they are for.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Parses globs, which the control plane has checked.
pub(crate) fn globs(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(parse(glob)?);
    }
    set.build()
}

pub(crate) fn parse(glob: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(glob).literal_separator(true).build()
}
