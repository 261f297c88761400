//! Every dependency's licence, as its package states it, against the list in `deny.toml`; and that
//! our own crates say what `LICENSE` says.

use std::collections::BTreeSet;

use super::bans::Deny;
use super::spdx;
use crate::workspace::Metadata;

const OURS: &str = "Apache-2.0";

/// Looks at everything in the tree.
pub(crate) fn check(deny: &Deny, metadata: &Metadata, tree: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut problems = Vec::new();
    for package in metadata.others() {
        if !tree.contains(&(package.name.clone(), package.version.clone())) {
            continue;
        }
        let licence = package.license.as_deref().unwrap_or_default();
        if !spdx::allowed(licence, &deny.licenses.allow) {
            problems.push(format!(
                "{} {} has the licence {licence:?}, which deny.toml does not allow",
                package.name, package.version
            ));
        }
    }
    for member in metadata.members() {
        if member.license.as_deref() != Some(OURS) {
            problems.push(format!("{} must say `license.workspace = true`", member.name));
        }
    }
    problems
}
