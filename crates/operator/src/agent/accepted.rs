//! The spec of an agent that was last valid and accepted: what its pool is run by while its own is rejected. It is kept in the
//! status of the resource, since the control plane's record has nothing of its pods. Pure.

use std::borrow::Cow;

use rota_crds::AgentSpec;
use rota_crds::resource::Agent;

use super::start_failure::StartFailure;
use super::validate;
use crate::WorkerOptions;

/// Size of a spec beyond which it is not kept: an object of the cluster has at most 1.5 MiB.
const MAX_BYTES: usize = 256 << 10;

/// Last accepted spec of an agent.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    spec: Option<AgentSpec>,
    /// As JSON, for the status.
    text: Option<String>,
}

impl Accepted {
    /// Returns the agent to act on, with the hash of its pods: with its spec, or with the last accepted one if its own is
    /// rejected, so that an invalid edit stops nothing. `None` if there is no accepted spec that is still valid.
    pub(super) fn effective<'a>(
        &mut self,
        agent: &'a Agent,
        checked: Result<String, StartFailure>,
        options: &WorkerOptions,
    ) -> Option<(Cow<'a, Agent>, String)> {
        if let Ok(hash) = checked {
            if self.spec.as_ref() != Some(&agent.spec) {
                let text = serde_json::to_string(&agent.spec).ok();
                self.text = text.filter(|text| text.len() <= MAX_BYTES);
                self.spec = Some(agent.spec.clone());
            }
            return Some((Cow::Borrowed(agent), hash));
        }
        if self.spec.is_none() {
            // An operator that was started since.
            self.text = agent.status.as_ref().and_then(|status| status.accepted_spec.clone());
            self.spec = self.text.as_ref().and_then(|text| serde_json::from_str(text).ok());
        }
        let last = Agent { spec: self.spec.clone()?, ..agent.clone() };
        let hash = validate::check(&last, options).ok()?;
        Some((Cow::Owned(last), hash))
    }

    /// Returns the spec as the status has it.
    pub(super) fn text(&self) -> Option<String> {
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use rota_crds::resource::AgentStatus;

    use super::*;

    fn agent(text: &str) -> Agent {
        let head = "apiVersion: rota.dev/v1alpha1, kind: Agent, metadata: {name: x, namespace: a}";
        serde_saphyr::from_str(&format!("{{{head}, spec: {{runtime: {{scripted: {{}}}}, {text}}}}}")).unwrap()
    }

    fn failure() -> StartFailure {
        StartFailure::new("Error", "x")
    }

    #[test]
    fn rejected_edit_keeps_last_spec() {
        let options = WorkerOptions::default();
        let mut accepted = Accepted::default();
        let (good, edited) = (agent("replicas: 2"), agent("replicas: 5"));
        assert!(accepted.effective(&edited, Err(failure()), &options).is_none(), "nothing was accepted yet");
        let hash = validate::check(&good, &options).unwrap();
        accepted.effective(&good, Ok(hash.clone()), &options).unwrap();
        let (effective, of) = accepted.effective(&edited, Err(failure()), &options).unwrap();
        assert_eq!((effective.spec.replicas, of), (2, hash));
    }

    #[test]
    fn restarted_operator_runs_the_last_accepted_spec() {
        let options = WorkerOptions::default();
        let good = agent("replicas: 2, pod: {image: mine}, secrets: [{name: KEY, secretName: s, key: k}]");
        let hash = validate::check(&good, &options).unwrap();
        let mut before = Accepted::default();
        before.effective(&good, Ok(hash.clone()), &options).unwrap();
        let status = AgentStatus { accepted_spec: before.text(), ..AgentStatus::default() };
        let edited = Agent { status: Some(status), ..agent("replicas: 5") };
        let mut after = Accepted::default();
        let (effective, of) = after.effective(&edited, Err(failure()), &options).unwrap();
        assert_eq!((effective.spec.replicas, of), (2, hash), "the same pods");
        assert_eq!(after.text(), before.text(), "the status keeps it");
    }
}
