//! Which crate may know which: the design's directions, written once. A crate that is not listed
//! here is an error, so that whoever adds one thinks about its place.

use crate::workspace::{Dependency, Metadata};

/// What one of our crates may use.
struct Rule {
    name: &'static str,
    uses: &'static [&'static str],
    reason: &'static str,
}

const fn rule(name: &'static str, uses: &'static [&'static str], reason: &'static str) -> Rule {
    Rule { name, uses, reason }
}

const RULES: &[Rule] = &[
    rule("rota-core", &[], "it is pure: everything else may be built on it"),
    rule("rota-proto", &[], "it is the API alone, also for clients that know nothing of the core"),
    rule("rota-telemetry", &[], "everything that runs uses it"),
    rule("rota-fake-model", &[], "it stands in for somebody else's server and must not know its callers"),
    rule("rota-store", &["rota-core"], "a store persists records of the core, it knows no wire"),
    rule("rota-store-sqlite", &["rota-core", "rota-store"], "one store knows nothing of another"),
    rule(
        "rota-store-postgres",
        &["rota-core", "rota-store", "rota-telemetry"],
        "as for SQLite; it has loops of its own",
    ),
    rule("rota-crds", &["rota-proto"], "it turns manifests into API messages, for kubectl and the CLI alike"),
    rule(
        "rota-client",
        &["rota-proto", "rota-telemetry"],
        "it is what everybody outside the server sees of it",
    ),
    rule(
        "rota-server",
        &["rota-core", "rota-proto", "rota-store", "rota-telemetry"],
        "it knows the store's trait, not the stores; nobody's pods or processes",
    ),
    rule(
        "rota-worker",
        &["rota-client", "rota-proto", "rota-telemetry"],
        "a worker is a client: it decides nothing",
    ),
    rule(
        "rota-local",
        &["rota-client", "rota-core", "rota-proto", "rota-telemetry"],
        "only a client of the API, with the core's pure scaling",
    ),
    rule(
        "rota-operator",
        &["rota-client", "rota-core", "rota-crds", "rota-proto", "rota-telemetry"],
        "only a client of the API, with the core's pure scaling; it never opens the store",
    ),
    rule(
        "rota-bench",
        &[
            "rota-client",
            "rota-core",
            "rota-proto",
            "rota-server",
            "rota-store",
            "rota-store-postgres",
            "rota-store-sqlite",
            "rota-telemetry",
            "rota-worker",
        ],
        "it measures a control plane with real sessions; what manages pools is no part of that",
    ),
    rule(
        "rota-cli",
        &[
            "rota-bench",
            "rota-client",
            "rota-core",
            "rota-crds",
            "rota-local",
            "rota-operator",
            "rota-proto",
            "rota-server",
            "rota-store",
            "rota-store-postgres",
            "rota-store-sqlite",
            "rota-telemetry",
            "rota-worker",
        ],
        "it is the program: it puts together everything that it starts",
    ),
    rule(
        "rota-e2e",
        &["rota-crds", "rota-telemetry"],
        "it uses an installed Rota as people do, by its programs and resources",
    ),
    rule("xtask", &["rota-core", "rota-crds", "rota-proto", "rota-server"], "it writes docs from contracts"),
];

/// For tests only, and there for everybody.
const FOR_TESTS: &[&str] = &["rota-testkit", "rota-fake-model"];
/// It puts together whatever there is.
const TESTKIT: &str = "rota-testkit";

/// What the core must not touch: it gets time, randomness and ids as values.
const NOT_IN_CORE: &[&str] =
    &["tokio", "futures", "tonic", "prost", "rand", "getrandom", "tracing", "jiff", "chrono", "reqwest"];
/// Clients of Kubernetes, and who may have them.
const KUBE_CLIENTS: &[&str] = &["kube-client", "kube-runtime", "kube-lease-manager"];
const KUBE_USERS: &[&str] = &["rota-operator", "rota-e2e", TESTKIT, "xtask"];
/// These may use Kubernetes' types.
const KUBE_TYPES: &[&str] = &["rota-crds", "rota-cli"];
/// Features of `kube` that bring a client.
const KUBE_CLIENT_FEATURES: &[&str] = &["client", "config", "runtime", "ws", "oauth", "oidc"];

/// Looks at each member's manifest.
pub(crate) fn check(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    let ours: Vec<&str> = metadata.members().map(|member| member.name.as_str()).collect();
    for member in metadata.members() {
        let name = member.name.as_str();
        let rule = RULES.iter().find(|rule| rule.name == name);
        if rule.is_none() && name != TESTKIT {
            problems.push(format!("{name} has no rule: add it to RULES in xtask/src/check/directions.rs"));
        }
        for dependency in &member.dependencies {
            let other = dependency.name.as_str();
            let (uses, reason) = rule.map_or((&[][..], ""), |rule| (rule.uses, rule.reason));
            if ours.contains(&other)
                && name != TESTKIT
                && other != name
                && !uses.contains(&other)
                && !(is_dev(dependency) && FOR_TESTS.contains(&other))
            {
                problems.push(format!("{name} must not use {other}: {reason}"));
            }
            if name == "rota-core" && !is_dev(dependency) && NOT_IN_CORE.contains(&other) {
                problems.push(format!("{name} must not use {other}: it has no IO, no clock and no chance"));
            }
            problems.extend(kube(name, dependency));
        }
    }
    problems
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
        Some(format!("{name} must not use {other}: only {} know Kubernetes", KUBE_USERS.join(", ")))
    } else if client {
        Some(format!("{name} must not use a client of Kubernetes ({other}), only types"))
    } else {
        None
    }
}

fn is_dev(dependency: &Dependency) -> bool {
    dependency.kind.as_deref() == Some("dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, dependencies: serde_json::Value) -> Vec<String> {
        let metadata = serde_json::json!({
            "packages": [
                {"id": name, "name": name, "version": "1.0.0", "license": null, "dependencies": dependencies},
                {"id": "s", "name": "rota-server", "version": "1.0.0", "license": null, "dependencies": []},
                {"id": "t", "name": TESTKIT, "version": "1.0.0", "license": null, "dependencies": []},
            ],
            "workspace_members": [name, "s", "t"],
            "target_directory": "target",
        });
        check(&serde_json::from_value(metadata).unwrap())
    }

    fn uses(other: &str, kind: Option<&str>, features: &[&str]) -> serde_json::Value {
        serde_json::json!([
            {"name": other, "kind": kind, "features": features, "uses_default_features": false}
        ])
    }

    #[test]
    fn a_worker_must_not_know_the_server() {
        assert_eq!(problems("rota-worker", uses("rota-server", None, &[])).len(), 1);
        assert_eq!(problems("rota-worker", uses("rota-server", Some("dev"), &[])).len(), 1);
        assert_eq!(problems("rota-cli", uses("rota-server", None, &[])), Vec::<String>::new());
    }

    #[test]
    fn the_test_kit_is_for_tests() {
        assert_eq!(problems("rota-worker", uses(TESTKIT, None, &[])).len(), 1);
        assert_eq!(problems("rota-worker", uses(TESTKIT, Some("dev"), &[])), Vec::<String>::new());
    }

    #[test]
    fn kubernetes_stays_where_it_belongs() {
        assert_eq!(problems("rota-worker", uses("k8s-openapi", None, &[])).len(), 1);
        assert_eq!(problems("rota-crds", uses("kube", None, &["client"])).len(), 1);
        assert_eq!(problems("rota-crds", uses("kube", None, &["derive"])), Vec::<String>::new());
        assert_eq!(problems("rota-operator", uses("kube", None, &["client"])), Vec::<String>::new());
    }

    #[test]
    fn a_new_crate_needs_a_rule_and_the_core_has_no_clock() {
        assert_eq!(problems("rota-new", uses("serde", None, &[])).len(), 1);
        assert_eq!(problems("rota-core", uses("tokio", None, &[])).len(), 1);
    }
}
