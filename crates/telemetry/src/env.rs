//! Environment variable reads. An empty variable counts as unset.

use std::ffi::OsString;
use std::path::PathBuf;

/// Returns a variable that is set, not empty and UTF-8.
pub fn var(name: &str) -> Option<String> {
    var_os(name)?.into_string().ok()
}

/// Returns a variable that is set and not empty.
pub fn var_os(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "the only reader of the environment")]
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns all variables, including empty ones.
pub fn vars_os() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// The user's home directory; `/` if the system has none.
pub fn user_home() -> PathBuf {
    var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Rota's own directory: `$ROTA_HOME`, else `~/.rota`.
pub fn rota_home() -> PathBuf {
    var_os("ROTA_HOME").map_or_else(|| user_home().join(".rota"), PathBuf::from)
}
