//! Labels, and limits on their number: callers and workers choose the names of agents, namespaces and models, and the
//! cardinality of the metrics must stay bounded.

use std::collections::HashSet;
use std::hash::Hash;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use rota_core::{AgentName, Namespace};

/// Agents with their own labels.
const MAX_AGENTS: usize = 200;
/// Models with their own labels.
const MAX_MODELS: usize = 50;
/// Length of a model's name in characters.
const MAX_MODEL_LENGTH: usize = 64;
/// Label of everything beyond a limit. No valid name starts with an underscore.
pub(crate) const OTHER: &str = "_other";
/// Label of a missing name.
pub(crate) const NONE: &str = "_none";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(crate) struct Agent {
    namespace: String,
    agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Of {
    pub(crate) namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Resource {
    pub(crate) resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) backend: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(crate) struct InState {
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Model {
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Token {
    pub(crate) namespace: String,
    pub(crate) agent: String,
    pub(crate) model: String,
    pub(crate) r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct State {
    pub(crate) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Class {
    pub(crate) class: String,
}

/// Class of a failure, and the reaction to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Recovery {
    pub(crate) class: String,
    pub(crate) action: &'static str,
}

/// Receiver of notifications; the admin chooses their names, and there are few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Receiver {
    pub(crate) receiver: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Notified {
    pub(crate) receiver: String,
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Budget {
    pub(crate) namespace: String,
    /// Name of the agent; empty for the budget of a namespace.
    pub(crate) agent: String,
    pub(crate) period: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Run {
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Opened {
    pub(crate) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Version {
    pub(crate) version: &'static str,
}

impl Agent {
    pub(crate) fn outcome(self, outcome: &'static str) -> Outcome {
        Outcome { namespace: self.namespace, agent: self.agent, outcome }
    }

    pub(crate) fn state(self, state: &'static str) -> InState {
        InState { namespace: self.namespace, agent: self.agent, state }
    }

    pub(crate) fn model(self, model: String) -> Model {
        Model { namespace: self.namespace, agent: self.agent, model }
    }
}

impl Model {
    pub(crate) fn tokens(self, r#type: &'static str) -> Token {
        Token { namespace: self.namespace, agent: self.agent, model: self.model, r#type }
    }
}

/// Set of the first values of a kind, up to a limit.
#[derive(Debug)]
struct First<T> {
    known: RwLock<HashSet<T>>,
    most: usize,
}

impl<T: Hash + Eq> First<T> {
    fn new(most: usize) -> Self {
        Self { known: RwLock::default(), most }
    }

    fn is_one(&self, what: &T) -> bool
    where
        T: Clone,
    {
        if self.known.read().contains(what) {
            return true;
        }
        let mut known = self.known.write();
        known.contains(what) || (known.len() < self.most && known.insert(what.clone()))
    }
}

/// Names that have their own labels.
#[derive(Debug)]
pub(crate) struct Bounds {
    agents: First<(Namespace, AgentName)>,
    models: First<String>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { agents: First::new(MAX_AGENTS), models: First::new(MAX_MODELS) }
    }
}

impl Bounds {
    /// Returns the labels of an agent, or of no particular one.
    pub(crate) fn agent(&self, namespace: &Namespace, agent: Option<&AgentName>) -> Agent {
        let label =
            |namespace: &str, agent: &str| Agent { namespace: namespace.to_owned(), agent: agent.to_owned() };
        match agent {
            None => label(NONE, NONE),
            Some(agent) if self.agents.is_one(&(namespace.clone(), agent.clone())) => {
                label(namespace.as_str(), agent.as_str())
            }
            Some(_) => label(OTHER, OTHER),
        }
    }

    pub(crate) fn model(&self, model: &str) -> String {
        let model: String = model.chars().take(MAX_MODEL_LENGTH).collect();
        if model.is_empty() {
            NONE.to_owned()
        } else if self.models.is_one(&model) {
            model
        } else {
            OTHER.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_cardinality_is_bounded() {
        let bounds = Bounds::default();
        let namespace = Namespace::new("n").unwrap();
        let name = |number: usize| AgentName::new(&format!("a{number}")).unwrap();
        for number in 0..MAX_AGENTS {
            assert_eq!(bounds.agent(&namespace, Some(&name(number))).agent, format!("a{number}"));
        }
        assert_eq!(bounds.agent(&namespace, Some(&name(MAX_AGENTS))).namespace, OTHER);
        assert_eq!(bounds.agent(&namespace, Some(&name(0))).agent, "a0");
        assert_eq!(bounds.agent(&namespace, None).agent, NONE);
        for number in 0..MAX_MODELS {
            bounds.model(&format!("m{number}"));
        }
        assert_eq!((bounds.model("m0"), bounds.model("new")), ("m0".to_owned(), OTHER.to_owned()));
    }
}
