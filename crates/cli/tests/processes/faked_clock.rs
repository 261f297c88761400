//! Processes with a clock of their own.

use std::fs;

use anyhow::{Context, Result};

/// Path of the library in Debian's package `faketime`, below the directory of an architecture.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// Returns the library that gives a process a clock of its own.
pub(crate) fn library() -> Result<String> {
    let mut places = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path().join(FAKETIME));
    let found = places.find(|path| path.exists()).context("install Debian's package faketime")?;
    Ok(found.display().to_string())
}

/// Environment of a process with a clock of its own.
pub(crate) fn environment(library: &str, more: [(&'static str, String); 2]) -> Vec<(&'static str, String)> {
    let [first, second] = more;
    let always = [("LD_PRELOAD", library), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")];
    always.map(|(name, value)| (name, value.to_owned())).into_iter().chain([first, second]).collect()
}
