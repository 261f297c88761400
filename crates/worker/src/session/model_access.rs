//! What the model calls of an attempt use: the id of its credential, and the host of its model API. Pure; the credential
//! itself does not leave the worker.

use rota_proto::credential;
use rota_proto::v1::runtime::Kind;

use crate::runtimes::Attempt;

/// What the model calls of an attempt use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ModelAccess {
    /// Id of the credential; empty if it is in no variable.
    pub(super) credential: String,
    pub(super) backend: String,
    /// Whether the task brings its own.
    pub(super) own: bool,
}

impl ModelAccess {
    /// Returns it for an agent whose credential the worker knows; `None` for other programs, and for a control plane that
    /// keeps no cool-downs.
    pub(super) fn of(attempt: &Attempt) -> Option<Self> {
        let assign = &attempt.assign;
        let kind = assign.spec.as_ref()?.runtime.as_ref()?.kind.as_ref()?;
        if assign.credential_key.is_empty() || !matches!(kind, Kind::Claude(_)) {
            return None;
        }
        let get = |name: &str| attempt.environment.0.get(name).map(String::as_str);
        let id = |value| credential::id(&assign.credential_key, value);
        Some(Self {
            credential: credential::of_environment(get).map(id).unwrap_or_default(),
            backend: credential::backend(get),
            own: assign.own_credentials,
        })
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{ClaudeRuntime, CommandRuntime, Runtime, TaskSpec};
    use rota_proto::worker::v1::Assign;
    use rota_telemetry::redact::Redactor;

    use super::*;
    use crate::runtimes::Environment;

    fn attempt(kind: Kind, key: &[u8]) -> Attempt {
        let runtime = Some(Runtime { kind: Some(kind) });
        let assign = Assign {
            spec: Some(TaskSpec { runtime, ..TaskSpec::default() }),
            credential_key: key.to_vec(),
            ..Assign::default()
        };
        let environment = [("ANTHROPIC_API_KEY", "fake"), ("ANTHROPIC_BASE_URL", "http://model:1")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let redactor = Redactor::default();
        Attempt { environment: Environment(environment), ..Attempt::new(Box::new(assign), redactor) }
    }

    #[test]
    fn only_known_credentials_are_named() {
        let key = [1; credential::KEY_BYTES];
        let claude = Kind::Claude(ClaudeRuntime::default());
        let access = ModelAccess::of(&attempt(claude.clone(), &key)).unwrap();
        assert_eq!((access.credential, access.backend), (credential::id(&key, "fake"), "model:1".to_owned()));
        assert_eq!(ModelAccess::of(&attempt(claude, &[])), None);
        assert_eq!(ModelAccess::of(&attempt(Kind::Command(CommandRuntime::default()), &key)), None);
    }
}
