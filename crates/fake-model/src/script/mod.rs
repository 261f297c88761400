//! Script format: what a prompt can make the fake model do. Described for users in the README. Must not know the
//! wire format, nor the position in a conversation.

mod fault;
mod step;

use std::time::Duration;

pub(crate) use fault::{FaultKind, Limit, Malformed};
use serde::Deserialize;
pub(crate) use step::{Slow, Step, StopReason, Usage};

/// Marker at the start of a script; the `[` belongs to its JSON.
pub(crate) const SCRIPT_MARKER: &str = "MOCK[";
/// Maximum length of each wait of a step.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(3600);
const MAX_STEPS: usize = 10_000;

/// List of steps, each of which answers one request.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
}

/// Reason why a text contains no playable script.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("no script in this text")]
    Missing,
    /// The JSON after `MOCK` is not a list of steps.
    #[error("invalid script after MOCK: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// A step cannot be played.
    #[error("step {number} of the script: {reason}")]
    Step {
        /// Number of the step, from 1.
        number: usize,
        reason: &'static str,
    },
    /// The script is empty or too long.
    #[error("a script has 1 to {MAX_STEPS} steps, this one has {0}")]
    Length(usize),
}

impl Script {
    /// Parses the first script in a text and ignores what surrounds it.
    pub(crate) fn find(text: &str) -> Result<Self, ScriptError> {
        let at = text.find(SCRIPT_MARKER).ok_or(ScriptError::Missing)?;
        let json = &text[at + SCRIPT_MARKER.len() - 1..];
        let first = serde_json::Deserializer::from_str(json).into_iter::<Self>().next();
        let script = first.ok_or(ScriptError::Missing)?.map_err(ScriptError::Unreadable)?;
        script.check()?;
        Ok(script.folded())
    }

    /// Moves the faults of a step without an answer to the next step, so that every step is one answer.
    fn folded(self) -> Self {
        let mut steps: Vec<Step> = Vec::with_capacity(self.steps.len());
        for mut step in self.steps {
            if let Some(failing) = steps.pop_if(|before| before.only_fails()) {
                step.fail.splice(0..0, failing.fail);
            }
            steps.push(step);
        }
        Self { steps }
    }

    fn check(&self) -> Result<(), ScriptError> {
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            return Err(ScriptError::Length(self.steps.len()));
        }
        for (index, step) in self.steps.iter().enumerate() {
            step.check().map_err(|reason| ScriptError::Step { number: index + 1, reason })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_is_found_inside_other_text() {
        let script =
            Script::find("Please do: MOCK[{\"text\":\"a ] b\"},{\"text\":\"c\"}] and no more ]").unwrap();
        let texts: Vec<_> = script.steps.iter().map(|s| s.text.as_deref()).collect();
        assert_eq!(texts, [Some("a ] b"), Some("c")]);
    }

    #[test]
    fn nested_script_belongs_to_inner_prompt() {
        let script =
            Script::find(r#"MOCK[{"tools":[{"name":"Task","input":{"prompt":"MOCK[{\"text\":\"in\"}]"}}]}]"#);
        assert_eq!(script.unwrap().steps[0].tools[0].name, "Task");
    }

    #[test]
    fn faults_of_silent_step_move_to_next() {
        let script = Script::find(
            r#"MOCK[{"fail":{"status":500}},{"fail":{"status":529}},{"text":"a","fail":{"status":429}},{"text":"b"}]"#,
        );
        let steps = script.unwrap().steps;
        let faults: Vec<_> = steps.iter().map(|step| step.fail.len()).collect();
        assert_eq!(faults, [3, 0]);
        assert!(matches!(steps[0].fault(1).unwrap().kind, FaultKind::Status { status: 529, .. }));
        assert!(steps[0].fault(3).is_none());
    }

    #[test]
    fn invalid_scripts_are_rejected_with_reason() {
        for (text, part) in [
            ("hello", "no script"),
            ("MOCK[]", "1 to"),
            ("MOCK[{}]", "step 1"),
            ("MOCK[{\"txet\":\"a\"}]", "unknown field `txet`"),
            ("MOCK[{\"text\":\"a\"", "EOF"),
            ("MOCK[{\"fail\":{}}]", "needs one of"),
            ("MOCK[{\"fail\":{\"status\":200}}]", "400 to 599"),
            ("MOCK[{\"fail\":{\"status\":500,\"drop_after\":1}}]", "only one of"),
            ("MOCK[{\"text\":\"a\",\"delay_ms\":3600001}]", "an hour"),
        ] {
            let error = Script::find(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
