//! The user's editor, for texts that a command shows before it acts.

use anyhow::Context as _;
use rota_telemetry::env;

/// Editor if neither variable is set.
const DEFAULT: &str = "vi";

/// Returns a text as a person has edited it, in $VISUAL or $EDITOR.
pub(super) async fn edit(text: &str) -> anyhow::Result<String> {
    let file = tempfile::Builder::new().prefix("rota-").suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), text)?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| env::var(name));
    let editor = editor.unwrap_or_else(|| DEFAULT.to_owned());
    // As git does: the variable may have arguments.
    let ended = tokio::process::Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .await
        .with_context(|| format!("failed to start {editor}"))?;
    anyhow::ensure!(ended.success(), "{editor} has failed: {ended}");
    Ok(std::fs::read_to_string(file.path())?)
}
