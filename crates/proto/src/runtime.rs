//! Properties of runtime settings that every component must derive alike.

use crate::names;
use crate::v1::{RetryPolicy, Runtime, runtime::Kind};

impl Runtime {
    /// Returns whether these settings determine the program that an attempt runs, explicitly or by the default of the
    /// runtime.
    pub fn names_program(&self) -> bool {
        match &self.kind {
            Some(Kind::Claude(_)) => true,
            Some(Kind::Command(command)) => !command.argv.is_empty() || !command.shell.is_empty(),
            _ => false,
        }
    }

    /// Returns whether these settings choose a model.
    pub fn names_model(&self) -> bool {
        matches!(&self.kind, Some(Kind::Claude(claude)) if !claude.model.is_empty() || !claude.fallback_model.is_empty())
    }
}

impl RetryPolicy {
    /// Returns the models among what attempts escalate to; the others are agents.
    pub fn escalated_models(&self) -> impl Iterator<Item = &String> {
        self.escalate.iter().filter(|entry| names::escalated_agent(entry).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ClaudeRuntime, CommandRuntime, ScriptedRuntime};

    #[test]
    fn runtime_names_its_program() {
        let names = |kind| Runtime { kind: Some(kind) }.names_program();
        assert!(names(Kind::Claude(ClaudeRuntime::default())));
        assert!(names(Kind::Command(CommandRuntime { shell: "true".into(), ..Default::default() })));
        assert!(!names(Kind::Command(CommandRuntime::default())));
        assert!(!names(Kind::Scripted(ScriptedRuntime::default())));
        assert!(!Runtime::default().names_program());
        let names = |model: &str, fallback: &str| {
            let claude =
                ClaudeRuntime { model: model.into(), fallback_model: fallback.into(), ..Default::default() };
            Runtime { kind: Some(Kind::Claude(claude)) }.names_model()
        };
        assert!(names("haiku", "") && names("", "haiku") && !names("", ""));
    }
}
