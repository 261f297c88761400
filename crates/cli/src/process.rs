//! Limits of this process, and its protection against others of the same user.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Keeps other processes of the same user out of this one's memory and environment, and its secrets out of core dumps.
pub fn protect() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "failed to protect this process against others of the same user");
    }
}

/// Raises the number of files that this process may open to the most that it is allowed: many systems start programs with 1024, and
/// each connection of a client takes one, or two at a replica that passes it on. Not for processes that start others, which
/// would inherit it.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}
