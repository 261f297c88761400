//! What must be nowhere in the tree, and what must be there only once. The lists are those of
//! `deny.toml`, which cargo-deny reads as well.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// As much of `deny.toml` as we look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Deny {
    pub(crate) licenses: Licences,
    bans: Bans,
}

/// Its licences.
#[derive(Debug, Deserialize)]
pub(crate) struct Licences {
    pub(crate) allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

impl Deny {
    /// Reads `deny.toml`.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

/// Looks at names and versions of everything that is compiled.
pub(crate) fn check(deny: &Deny, tree: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut problems = Vec::new();
    for ban in &deny.bans.deny {
        let versions: Vec<_> =
            tree.iter().filter(|(name, _)| *name == ban.name).map(|(_, version)| version.as_str()).collect();
        let most = usize::from(ban.deny_multiple_versions);
        if versions.len() > most {
            let rule = if most == 0 { "must not be in the tree" } else { "must be there once" };
            problems.push(format!(
                "{} {rule} ({}), now {}; see `cargo tree --target all -i {}`",
                ban.name,
                ban.reason,
                versions.join(" and "),
                ban.name
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banned_and_doubled_crates_are_found() {
        let deny = r#"
            licenses.allow = ["MIT"]
            bans.deny = [
                { crate = "ring", reason = "r" },
                { crate = "http", deny-multiple-versions = true, reason = "r" },
            ]"#;
        let deny = Deny::parse(deny).unwrap();
        let tree = |all: &[(&str, &str)]| {
            all.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
        };
        assert_eq!(check(&deny, &tree(&[("http", "1.0.0"), ("bytes", "1.0.0")])), Vec::<String>::new());
        assert_eq!(check(&deny, &tree(&[("http", "1.0.0"), ("http", "0.2.0"), ("ring", "0.17.0")])).len(), 2);
    }
}
