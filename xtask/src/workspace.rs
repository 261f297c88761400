//! What cargo and git know of this workspace: members and what they depend on, everything in the
//! dependency tree, the files that belong to the repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

/// As `cargo metadata` tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: BTreeSet<String>,
    pub(crate) target_directory: PathBuf,
}

/// A package, ours or another's.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for ordinary ones, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    pub(crate) features: Vec<String>,
    pub(crate) uses_default_features: bool,
}

/// The repository's top.
pub(crate) fn root() -> &'static Path {
    // xtask is only ever run from its own checkout.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Runs `cargo metadata`.
pub(crate) fn metadata() -> anyhow::Result<Metadata> {
    let text = output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("cargo metadata printed something unknown")
}

impl Metadata {
    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Everybody else's.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !self.workspace_members.contains(&package.id))
    }
}

/// Name and version of everything that is really compiled, for any platform. `cargo metadata` also
/// lists what an optional dependency would need if it were there.
pub(crate) fn tree() -> anyhow::Result<BTreeSet<(String, String)>> {
    let text = output(cargo().args([
        "tree",
        "--workspace",
        "--locked",
        "--target=all",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={p}",
    ]))?;
    let packages: BTreeSet<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
        })
        .collect();
    if packages.is_empty() {
        bail!("cargo tree printed nothing");
    }
    Ok(packages)
}

/// Every file that is in the repository or about to be, as paths from its top.
pub(crate) fn files() -> anyhow::Result<Vec<PathBuf>> {
    let text = output(Command::new("git").arg("-C").arg(root()).args([
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]))?;
    // A file that is deleted but not yet committed is still listed.
    let mut files: Vec<_> = text
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Cargo, at the top of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

/// What a program prints; its failure is an error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = format!("{command:?}");
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{name} could not be started"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} did not print UTF-8"))
}
