//! Protection of this process against others of the same user.

/// Keeps other processes of the same user out of this one's memory and environment, and its secrets out of core dumps.
pub fn protect() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "failed to protect this process against others of the same user");
    }
}
