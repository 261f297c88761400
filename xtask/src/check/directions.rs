//! Directions between crates: `directions.toml`, and who may use what from outside. cargo-deny has no such rules: its bans hold
//! for the whole tree.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::workspace::{Dependency, Metadata};

/// Crates of this workspace that one of them may use.
#[derive(Debug, Deserialize)]
struct Rule {
    uses: Vec<String>,
    reason: String,
}

/// Rules by the name of the crate.
type Rules = BTreeMap<String, Rule>;

/// Usable by every crate, for tests only.
const FOR_TESTS: &[&str] = &["rota-testkit", "rota-fake-model"];
/// Assembles all components, so that it may use any crate.
const TESTKIT: &str = "rota-testkit";

/// Banned from the core, which receives time, randomness and ids as values.
const NOT_IN_CORE: &[&str] =
    &["tokio", "futures", "tonic", "prost", "rand", "getrandom", "tracing", "jiff", "chrono", "reqwest"];
/// Kubernetes clients, and the crates that may use them.
const KUBE_CLIENTS: &[&str] = &["kube-client", "kube-runtime", "kube-lease-manager"];
/// The command line is one for `--kube`: it finds a control plane by the rights of a person, whose kubeconfig no server has. It reads
/// and forwards alone; objects are the operator's.
const KUBE_USERS: &[&str] = &["rota-operator", "rota-cli", "rota-e2e", TESTKIT, "xtask"];
/// Crates that may use Kubernetes types.
const KUBE_TYPES: &[&str] = &["rota-crds"];
/// Features of `kube` that include a client.
const KUBE_CLIENT_FEATURES: &[&str] = &["client", "config", "runtime", "ws", "oauth", "oidc"];

pub(crate) fn check(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let rules: Rules = toml::from_str(include_str!("../../directions.toml"))?;
    let mut problems = Vec::new();
    for member in &metadata.packages {
        let name = member.name.as_str();
        let rule = rules.get(name);
        if rule.is_none() && name != TESTKIT {
            problems.push(format!("{name} has no rule in xtask/directions.toml"));
        }
        if member.license.as_deref() != Some("Apache-2.0") {
            problems.push(format!("{name} must have `license.workspace = true`, the license in LICENSE"));
        }
        for dependency in &member.dependencies {
            let other = dependency.name.as_str();
            let is_dev = dependency.kind.as_deref() == Some("dev");
            let is_ours = metadata.packages.iter().any(|member| member.name == other);
            let free = name == TESTKIT || other == name || is_dev && FOR_TESTS.contains(&other);
            if let Some(rule) =
                rule.filter(|rule| is_ours && !free && !rule.uses.iter().any(|one| one == other))
            {
                problems.push(format!("{name} must not use {other}: {}", rule.reason));
            }
            if name == "rota-core" && !is_dev && NOT_IN_CORE.contains(&other) {
                problems.push(format!(
                    "{name} must not use {other}: it does no IO, and receives time and randomness as values"
                ));
            }
            problems.extend(kube(name, dependency));
        }
    }
    Ok(problems)
}

fn kube(name: &str, dependency: &Dependency) -> Option<String> {
    let other = dependency.name.as_str();
    if KUBE_USERS.contains(&name) || !(other.starts_with("kube") || other == "k8s-openapi") {
        return None;
    }
    let client = KUBE_CLIENTS.contains(&other)
        || other == "kube"
            && (dependency.uses_default_features
                || dependency.features.iter().any(|one| KUBE_CLIENT_FEATURES.contains(&one.as_str())));
    if !KUBE_TYPES.contains(&name) {
        Some(format!("{name} must not use {other}: only {} use Kubernetes", KUBE_USERS.join(", ")))
    } else if client {
        Some(format!("{name} must not use a Kubernetes client ({other}), only types"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, dependencies: serde_json::Value) -> Vec<String> {
        let metadata = serde_json::json!({
            "packages": [
                {"id": name, "name": name, "version": "1.0.0", "license": "Apache-2.0", "dependencies": dependencies},
                {"id": "s", "name": "rota-server", "version": "1.0.0", "license": "Apache-2.0", "dependencies": []},
                {"id": "t", "name": TESTKIT, "version": "1.0.0", "license": "Apache-2.0", "dependencies": []},
            ],
            "target_directory": "target",
        });
        check(&serde_json::from_value(metadata).unwrap()).unwrap()
    }

    fn uses(other: &str, kind: Option<&str>, features: &[&str]) -> serde_json::Value {
        serde_json::json!([
            {"name": other, "kind": kind, "features": features, "uses_default_features": false}
        ])
    }

    #[test]
    fn each_rule_finds_its_breach() {
        for (name, other, kind, features, breaches) in [
            ("rota-worker", "rota-server", None, &[][..], 1),
            ("rota-worker", "rota-server", Some("dev"), &[], 1),
            ("rota-cli", "rota-server", None, &[], 0),
            ("rota-worker", TESTKIT, None, &[], 1),
            ("rota-worker", TESTKIT, Some("dev"), &[], 0),
            ("rota-worker", "k8s-openapi", None, &[], 1),
            ("rota-crds", "kube", None, &["client"], 1),
            ("rota-crds", "kube", None, &["derive"], 0),
            ("rota-operator", "kube", None, &["client"], 0),
            ("rota-cli", "kube", None, &["client", "ws"], 0),
            ("rota-server", "kube", None, &["client"], 1),
            ("rota-new", "serde", None, &[], 1),
            ("rota-core", "tokio", None, &[], 1),
        ] {
            let found = problems(name, uses(other, kind, features));
            assert_eq!(found.len(), breaches, "{name} {other} {kind:?} {features:?}: {found:?}");
        }
    }
}
