//! The one home of environment reads.

use std::ffi::OsString;

/// A variable's value, if it is set, not empty and UTF-8.
pub fn var(name: &str) -> Option<String> {
    var_os(name)?.into_string().ok()
}

/// A variable's value, if it is set and not empty.
pub fn var_os(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "the one home of environment reads")]
    std::env::var_os(name).filter(|value| !value.is_empty())
}
