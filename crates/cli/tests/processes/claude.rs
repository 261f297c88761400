//! The real Claude Code CLI.

use std::path::Path;

use anyhow::{Result, ensure};

/// Returns the path of the CLI, installed if missing. Without it the test fails.
pub(crate) fn installed() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
    let output = std::process::Command::new(script).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
