//! Version of a template of which the workflows of a round are made, and its form in the records of earlier versions.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Kind, Step};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRef {
    pub name: String,
    /// Zero if an earlier version has stored none.
    pub version: i64,
    /// Differs from that of another template that had the name before. Empty if an earlier version has stored none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0 => f.write_str(&self.name),
            version => write!(f, "{}@{version}", self.name),
        }
    }
}

impl TemplateRef {
    /// Reads `name@version#uid`, which earlier versions have stored as the question of a step.
    fn from_question(text: &str) -> Self {
        let (named, uid) = text.split_once('#').unwrap_or((text, ""));
        let version =
            named.rsplit_once('@').and_then(|(name, version)| Some((name, version.parse::<i64>().ok()?)));
        let (name, version) = version.unwrap_or((named, 0));
        Self { name: name.to_owned(), version, uid: uid.to_owned() }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The function that is derived, since it has no receiver.
        Step::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut step = Step::deserialize(deserializer)?;
        if step.kind == Kind::Workflow && !step.question.is_empty() {
            let question = std::mem::take(&mut step.question);
            step.template.get_or_insert_with(|| Box::new(TemplateRef::from_question(&question)));
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decoded(kind: &str, prompt: &str) -> Step {
        let mut record = serde_json::to_value(Step::new("a".to_owned(), Kind::Task)).unwrap();
        record["prompt"] = prompt.into();
        record["kind"] = match kind {
            "approval" => json!({ "approval": { "deadline": null, "approves": false } }),
            kind => kind.into(),
        };
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn records_of_earlier_versions_are_read() {
        for (prompt, name, version, uid, shown) in [
            ("deploy@3#u-1", "deploy", 3, "u-1", "deploy@3"),
            ("deploy@3", "deploy", 3, "", "deploy@3"),
            ("deploy", "deploy", 0, "", "deploy"),
        ] {
            let step = decoded("workflow", prompt);
            let (name, uid) = (name.to_owned(), uid.to_owned());
            let template = TemplateRef { name, version, uid };
            assert_eq!((step.question.as_str(), template.to_string().as_str()), ("", shown));
            assert_eq!(step.template, Some(Box::new(template)));
        }
        assert_eq!(decoded("workflow", "").template, None, "a workflow of its own");
        let asks = decoded("approval", "Deploy a@3#b?");
        assert_eq!((asks.question.as_str(), asks.template), ("Deploy a@3#b?", None));
    }

    #[test]
    fn templates_are_stored_on_their_own() {
        let template = TemplateRef { name: "deploy".to_owned(), version: 3, uid: "u-1".to_owned() };
        let mut step = Step::new("a".to_owned(), Kind::Workflow);
        step.template = Some(Box::new(template));
        let record = serde_json::to_value(&step).unwrap();
        assert_eq!(record["template"], json!({ "name": "deploy", "version": 3, "uid": "u-1" }));
        assert_eq!(record.get("prompt"), None::<&Value>);
        assert_eq!(serde_json::from_value::<Step>(record).unwrap(), step);
    }
}
