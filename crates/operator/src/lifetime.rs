//! Ages of resources that are submitted once: tasks and workflows. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rota_crds::resource::{Condition, condition};
use rota_crds::{HumanDuration, Time};

use crate::condition::Conditions;

/// Age of an object that could not be submitted at which its status reports it: a restart of the control plane takes less.
pub(crate) const FAILING_STATUS_DELAY: Duration = Duration::from_secs(40);

/// Returns whether the status of an object that was not submitted yet has to report that.
pub(crate) fn is_overdue(object: &ObjectMeta, now: Timestamp) -> bool {
    let created = object.creation_timestamp.as_ref().map_or(now, |created| created.0);
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    age >= FAILING_STATUS_DELAY && object.deletion_timestamp.is_none()
}

/// What happens to a finished resource because of its time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing, as long as it does not change.
    Never,
    In(Duration),
    Delete,
    /// It stays: this tool would create it again, and it would run again, as often as it is deleted.
    Retain(&'static str),
}

/// Returns what happens to a resource that has ended.
pub(crate) fn expiry(
    object: &ObjectMeta,
    ttl: Option<HumanDuration>,
    ended: Option<Time>,
    now: Timestamp,
) -> Expiry {
    let Some((ttl, ended)) = ttl.zip(ended) else { return Expiry::Never };
    let age = Duration::try_from(now.duration_since(ended.0)).unwrap_or_default();
    match (ttl.0.saturating_sub(age), keeper(object)) {
        (left, _) if !left.is_zero() => Expiry::In(left),
        (_, Some(tool)) => Expiry::Retain(tool),
        _ => Expiry::Delete,
    }
}

/// Returns the tool that keeps an object in the cluster as a repository has it, by what the tool writes on its objects.
fn keeper(object: &ObjectMeta) -> Option<&'static str> {
    let annotation = |name: &str| object.annotations.as_ref()?.get(name);
    let has_label = |name: &str| object.labels.as_ref().is_some_and(|labels| labels.contains_key(name));
    let name = [object.namespace.as_deref(), object.name.as_deref()].map(Option::unwrap_or_default).join("/");
    // A copy under another name has the id of the original, and is none of Argo CD's. Nor does it restore hooks.
    let is_argos =
        annotation("argocd.argoproj.io/tracking-id").is_some_and(|id| id.ends_with(&format!(":{name}")));
    if is_argos && annotation("argocd.argoproj.io/hook").is_none() && annotation("helm.sh/hook").is_none() {
        return Some("Argo CD");
    }
    let is_fluxs =
        ["kustomize", "helm"].iter().any(|kind| has_label(&format!("{kind}.toolkit.fluxcd.io/name")));
    is_fluxs.then_some("Flux")
}

/// Returns the conditions of a resource that stays beyond its time to live.
pub(crate) fn retained(
    before: &[Condition],
    generation: Option<i64>,
    tool: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let all = Conditions {
        old: before,
        generation,
        reason: "WouldRunAgain".to_owned(),
        message: format!(
            "ttlAfterFinished has passed; the object stays, since {tool} would create it again, which would run it \
             again: remove it from the repository to delete it"
        ),
        now,
    };
    let others = before.iter().filter(|condition| condition.type_ != condition::RETAINED);
    let mut conditions = others.cloned().collect();
    all.put_always(&mut conditions, condition::RETAINED, true);
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &str) -> ObjectMeta {
        serde_saphyr::from_str(&format!("{{name: build, namespace: team, {metadata}}}")).unwrap()
    }

    #[test]
    fn expiry_counts_from_completion() {
        let (ended, now) = ("2030-01-01T00:00:00Z".parse().unwrap(), "2030-01-01T00:00:40Z".parse().unwrap());
        let of = |ttl: Option<u64>| {
            let ttl = ttl.map(|seconds| HumanDuration(Duration::from_secs(seconds)));
            expiry(&object("uid: u"), ttl, Some(Time(ended)), now)
        };
        assert_eq!(of(None), Expiry::Never);
        assert_eq!(of(Some(60)), Expiry::In(Duration::from_secs(20)));
        assert_eq!(of(Some(40)), Expiry::Delete);
        let running = expiry(&object("uid: u"), Some(HumanDuration(Duration::ZERO)), None, now);
        assert_eq!(running, Expiry::Never);
    }

    #[test]
    fn objects_of_tools_that_restore_them_are_known() {
        let argo = |name: &str, more: &str| {
            let id = format!("'argocd.argoproj.io/tracking-id': 'app:rota.dev/Task:team/{name}'");
            keeper(&object(&format!("annotations: {{{id}{more}}}")))
        };
        assert_eq!(argo("build", ""), Some("Argo CD"));
        assert_eq!(argo("other", ""), None, "a copy");
        assert_eq!(argo("build", ", 'argocd.argoproj.io/hook': PostSync"), None);
        assert_eq!(argo("build", ", 'helm.sh/hook': post-install"), None);
        for label in ["kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"] {
            assert_eq!(keeper(&object(&format!("labels: {{{label}: apps}}"))), Some("Flux"));
        }
        assert_eq!(keeper(&object("labels: {app.kubernetes.io/instance: apps}")), None);
    }
}
