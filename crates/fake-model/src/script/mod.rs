//! The script format: what a prompt can make the fake model do. The README describes it for users.
//! Must not know the wire format, nor where in a conversation a script is.

mod fault;
mod step;

use std::time::Duration;

pub(crate) use fault::{FaultKind, Malformed};
use serde::Deserialize;
pub(crate) use step::{Slow, Step, StopReason, Usage};

/// What a script starts with; the `[` belongs to its JSON.
pub(crate) const MARK: &str = "MOCK[";
/// No step may wait longer than this at one place.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(3600);
const MAX_STEPS: usize = 10_000;

/// A list of steps: each request is answered with the next one.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Script {
    /// The steps in their order.
    pub(crate) steps: Vec<Step>,
}

/// Why a text holds no script that can be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    /// The text has no `MOCK[`.
    #[error("there is no script in this text")]
    Missing,
    /// What follows `MOCK` is no list of steps.
    #[error("the script after MOCK cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// A step asks for something that cannot be done.
    #[error("step {number} of the script: {reason}")]
    Step {
        /// Which step, from 1.
        number: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The script has no steps, or too many.
    #[error("a script has 1 to {MAX_STEPS} steps, this one has {0}")]
    Length(usize),
}

impl Script {
    /// Reads the first script in a text. Whatever stands before and after it is ignored.
    pub(crate) fn find(text: &str) -> Result<Self, ScriptError> {
        let at = text.find(MARK).ok_or(ScriptError::Missing)?;
        let json = &text[at + MARK.len() - 1..];
        let first = serde_json::Deserializer::from_str(json).into_iter::<Self>().next();
        let script = first.ok_or(ScriptError::Missing)?.map_err(ScriptError::Unreadable)?;
        script.check()?;
        Ok(script.folded())
    }

    /// Gives the faults of a step that only fails to the step after it: a step is one answer, and such a step has none.
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
    fn finds_a_script_inside_other_text() {
        let script =
            Script::find("Please do: MOCK[{\"text\":\"a ] b\"},{\"text\":\"c\"}] and no more ]").unwrap();
        let texts: Vec<_> = script.steps.iter().map(|s| s.text.as_deref()).collect();
        assert_eq!(texts, [Some("a ] b"), Some("c")]);
    }

    #[test]
    fn a_script_inside_a_script_belongs_to_the_inner_prompt() {
        let script =
            Script::find(r#"MOCK[{"tools":[{"name":"Task","input":{"prompt":"MOCK[{\"text\":\"in\"}]"}}]}]"#);
        assert_eq!(script.unwrap().steps[0].tools[0].name, "Task");
    }

    #[test]
    fn a_step_that_only_fails_belongs_to_the_next() {
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
    fn says_what_is_wrong() {
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
