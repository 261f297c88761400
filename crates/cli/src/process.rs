//! Limits of this process, and its protection against others of the same user.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Keeps other processes of the same user out of this one's memory and environment, and its secrets out of core dumps.
pub fn protect() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "failed to protect this process against others of the same user");
    }
    // Inherited by the programs that it starts, which are dumpable again: git has tokens, too.
    let limited =
        getrlimit(Resource::RLIMIT_CORE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_CORE, 0, most));
    if let Err(error) = limited {
        tracing::warn!(%error, "failed to turn core dumps off");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_process_dumps_no_core() {
        let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, most, most).unwrap();
        protect();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, most));
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
        // Other tests read files of this process.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
}
