//! Kinds of tasks: validation, the choice of `auto`, and the text around a prompt. Pure: knows neither store nor agents.

use std::collections::{BTreeSet, HashMap};

use prost::Message;
use rota_proto::v1;
use tonic::Status;

use super::status::invalid;
use super::{check, schema, spec, target};

/// Kind that is decided by the prompt.
pub(crate) const AUTO: &str = "auto";
/// Place of the prompt in the text of a kind.
const PROMPT: &str = "${{ prompt }}";
const MAX_DESCRIPTION: usize = 1 << 10;
const MAX_WORDS: usize = 64;
const MAX_WORD: usize = 63;
/// Bytes of a specification. Choosing a kind reads all of a namespace.
const MAX_BYTES: usize = 16 << 10;
const FIELD: &str = "task_kind.spec";

/// Validates the specification of a kind.
pub(crate) fn check(kind: &v1::TaskKindSpec) -> Result<(), Status> {
    let at = |field: &str| format!("{FIELD}.{field}");
    check::length(&at("description"), &kind.description, MAX_DESCRIPTION)?;
    check::count(&at("words"), kind.words.len(), MAX_WORDS)?;
    let mut known = BTreeSet::new();
    for (index, word) in kind.words.iter().enumerate() {
        let at = format!("{FIELD}.words[{index}]");
        let letters = !word.is_empty() && word.chars().all(char::is_alphanumeric);
        if !letters || word.len() > MAX_WORD || word.to_lowercase() != *word {
            return Err(invalid(at, "is not a word: use up to 63 lower-case letters and digits"));
        }
        if !known.insert(word) {
            return Err(invalid(at, "is named twice"));
        }
    }
    if kind.target.is_some() {
        target::from_wire(&at("target"), kind.target.as_ref())?;
    }
    frame(&kind.frame)?;
    spec::limits(&at("limits"), kind.limits.as_ref())?;
    spec::retry(&at("retry"), kind.retry.as_ref())?;
    if let Some(given) = &kind.result_schema {
        let field = at("result_schema");
        let schema = serde_json::to_value(given).map_err(|error| invalid(&field, error.to_string()))?;
        schema::parse(&field, &schema, MAX_BYTES)?;
    }
    match kind.encoded_len() {
        bytes if bytes > MAX_BYTES => Err(invalid(FIELD, format!("is larger than {MAX_BYTES} bytes"))),
        _ => Ok(()),
    }
}

/// Checks that the text has the prompt once, and nothing else that looks like an expression.
fn frame(text: &str) -> Result<(), Status> {
    let expressions = text.matches("${{").count();
    match (text.is_empty(), expressions, text.contains(PROMPT)) {
        (true, ..) | (false, 1, true) => Ok(()),
        _ => Err(invalid(
            format!("{FIELD}.frame"),
            format!("must have {PROMPT} once, and no other expression"),
        )),
    }
}

/// Returns a prompt within the text of its kind, as the agent is given it. A task without a prompt, such as one with a program of
/// its own, has none either way.
pub(crate) fn framed(frame: &str, prompt: String) -> String {
    match frame.split_once(PROMPT) {
        Some((before, after)) if !prompt.is_empty() => {
            format!("{before}{prompt}{}", after.trim_end())
        }
        _ => prompt,
    }
}

/// Returns the name of the kind that has the first word of a prompt that any kind has, if there is one. Of several with the same
/// word it is the first by name.
pub(crate) fn choose<'a>(
    prompt: &str,
    kinds: impl IntoIterator<Item = (&'a str, &'a v1::TaskKindSpec)>,
) -> Option<&'a str> {
    let mut known = HashMap::new();
    for (name, kind) in kinds {
        for word in &kind.words {
            known.entry(word.as_str()).and_modify(|first| *first = name.min(*first)).or_insert(name);
        }
    }
    let mut words = prompt.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.find_map(|word| known.get(word.to_lowercase().as_str()).copied())
}

/// Sets each limit that a task leaves unset.
pub(crate) fn complete_limits(limits: &mut v1::Limits, kind: &v1::Limits) {
    let v1::Limits { timeout, silence_timeout, queue_timeout, cancel_grace, max_turns, budget_micro_usd } =
        kind;
    limits.timeout = limits.timeout.or(*timeout);
    limits.silence_timeout = limits.silence_timeout.or(*silence_timeout);
    limits.queue_timeout = limits.queue_timeout.or(*queue_timeout);
    limits.cancel_grace = limits.cancel_grace.or(*cancel_grace);
    if limits.max_turns == 0 {
        limits.max_turns = *max_turns;
    }
    if limits.budget_micro_usd == 0 {
        limits.budget_micro_usd = *budget_micro_usd;
    }
}

/// Fields that a kind presets, as the caller of a creation has set them.
pub(crate) struct Asked {
    kind: String,
    target: bool,
    retry: bool,
    result_schema: bool,
    limits: Option<v1::Limits>,
}

impl Asked {
    /// Returns the fields of a task before its kind completes it; `None` for a task without a kind.
    pub(crate) fn of(spec: &v1::TaskSpec) -> Option<Self> {
        (!spec.kind.is_empty()).then(|| Self {
            kind: spec.kind.clone(),
            target: spec.target.as_ref().is_some_and(|target| target.kind.is_some()),
            retry: spec.retry.is_some(),
            result_schema: spec.result_schema.is_some(),
            limits: spec.limits,
        })
    }

    /// Gives the repetition of a creation what the stored task got from its kind. The kind may have changed since, and other
    /// agents exist.
    pub(crate) fn adopt(&self, spec: &mut v1::TaskSpec, stored: &v1::TaskSpec) {
        // A stored task without a kind has nothing from one.
        if stored.kind.is_empty() {
            return;
        }
        if self.kind == AUTO {
            spec.kind.clone_from(&stored.kind);
        }
        spec.prompt_frame.clone_from(&stored.prompt_frame);
        if !self.target {
            spec.target.clone_from(&stored.target);
        }
        if !self.retry {
            spec.retry.clone_from(&stored.retry);
        }
        if !self.result_schema {
            spec.result_schema.clone_from(&stored.result_schema);
        }
        spec.limits = self.limits.or(stored.limits);
        if let (Some(limits), Some(stored)) = (&mut spec.limits, &stored.limits) {
            complete_limits(limits, stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(words: &[&str], frame: &str) -> v1::TaskKindSpec {
        let words = words.iter().map(ToString::to_string).collect();
        v1::TaskKindSpec { words, frame: frame.to_owned(), ..Default::default() }
    }

    #[test]
    fn first_known_word_chooses_the_kind() {
        let (fix, test) = (kind(&["fix", "both"], ""), kind(&["test", "tests", "both"], ""));
        let kinds = || [("test", &test), ("bug_fix", &fix)];
        for (prompt, chosen) in [
            ("Fix the failing test", Some("bug_fix")),
            ("Add tests, then fix them", Some("test")),
            ("TESTS!", Some("test")),
            ("of both", Some("bug_fix")),
            ("prefix the contest", None),
            ("", None),
        ] {
            assert_eq!(choose(prompt, kinds()), chosen, "{prompt}");
        }
    }

    #[test]
    fn prompts_stay_as_they_are_within_a_frame() {
        let text = |prompt: &str| framed("Review:\n${{ prompt }}\nBe short.\n", prompt.to_owned());
        assert_eq!(text("a ${{ prompt }} b"), "Review:\na ${{ prompt }} b\nBe short.");
        assert_eq!(text(""), "");
        assert_eq!(framed("", "a".to_owned()), "a");
    }

    #[test]
    fn invalid_kinds_name_their_field() {
        check(&kind(&["fix", "größe"], "a ${{ prompt }}")).unwrap();
        let with_schema = v1::TaskKindSpec {
            result_schema: Some(serde_json::from_str(r#"{"type": "nonsense"}"#).unwrap()),
            ..Default::default()
        };
        let limits = v1::TaskKindSpec {
            limits: Some(v1::Limits { max_turns: -1, ..Default::default() }),
            ..Default::default()
        };
        for (kind, field) in [
            (kind(&["two words"], ""), "words[0]"),
            (kind(&["fix", "Fix"], ""), "words[1]"),
            (kind(&["fix", "fix"], ""), "words[1]"),
            (kind(&[], "no place"), "frame"),
            (kind(&[], "${{ prompt }} ${{ prompt }}"), "frame"),
            (kind(&[], "${{ prompt }} ${{ inputs.a }}"), "frame"),
            (kind(&[], "${{prompt}}"), "frame"),
            (with_schema, "result_schema"),
            (limits, "limits.max_turns"),
        ] {
            let error = check(&kind).unwrap_err();
            assert!(error.message().starts_with(&format!("{FIELD}.{field}: ")), "{error}");
        }
        let large = kind(&[], &format!("{}${{{{ prompt }}}}", "a".repeat(MAX_BYTES)));
        assert!(check(&large).unwrap_err().message().contains("larger"));
    }
}
