//! Path templates of `google.api.http` (<https://google.aip.dev/127>): literals, `*`, variables such as
//! `{name=namespaces/*/tasks/*}`, and a verb after a colon. `**` is not part of it.

use std::ops::Range;

use percent_encoding::percent_decode_str;

use crate::Error;

#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) verb: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    Any,
}

/// Field of the request that has some segments of the path as its value.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    /// Path of the field, for example `task.name`.
    pub(crate) field: String,
    pub(crate) segments: Range<usize>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Template { template: text.to_owned(), why };
        let rest = text.strip_prefix('/').ok_or_else(|| invalid("it has no leading slash"))?;
        // A colon after the last brace and slash: those of variables are within braces.
        let tail = rest.rfind(['}', '/']).map_or(0, |at| at + 1);
        let verb_at = rest.get(tail..).and_then(|tail| tail.find(':')).map(|at| tail + at);
        let (path, verb) = match verb_at.and_then(|at| rest.split_at_checked(at)) {
            Some((path, verb)) => (path, Some(verb.trim_start_matches(':').to_owned())),
            None => (rest, None),
        };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb };
        let mut rest = path;
        loop {
            rest = if let Some(inner) = rest.strip_prefix('{') {
                let (variable, after) = inner.split_once('}').ok_or_else(|| invalid("a brace is open"))?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                let from = template.segments.len();
                template.segments.extend(pattern.split('/').map(Segment::parse));
                let segments = from..template.segments.len();
                template.variables.push(Variable { field: field.to_owned(), segments });
                after
            } else {
                let end = rest.find('/').unwrap_or(rest.len());
                let (segment, after) = rest.split_at(end);
                template.segments.push(Segment::parse(segment));
                after
            };
            if rest.is_empty() {
                return Ok(template);
            }
            rest = rest.strip_prefix('/').ok_or_else(|| invalid("text follows a variable"))?;
        }
    }

    /// Returns the values of the variables, decoded, if a path fits. A segment never contains a slash, encoded or not.
    pub(crate) fn values(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let mut decoded = Vec::with_capacity(self.segments.len());
        let mut given = path.split('/');
        for segment in &self.segments {
            let value = percent_decode_str(given.next()?).decode_utf8().ok()?;
            let fits = match segment {
                Segment::Literal(literal) => value == *literal,
                Segment::Any => !value.is_empty() && !value.contains('/'),
            };
            if !fits {
                return None;
            }
            decoded.push(value);
        }
        if given.next().is_some() {
            return None;
        }
        let value =
            |variable: &Variable| decoded.get(variable.segments.clone()).unwrap_or_default().join("/");
        Some(self.variables.iter().map(|variable| (variable.field.as_str(), value(variable))).collect())
    }
}

impl Segment {
    fn parse(text: &str) -> Self {
        if text == "*" { Self::Any } else { Self::Literal(text.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).unwrap();
        let values = template.values(path)?;
        Some(values.into_iter().map(|(field, value)| (field.to_owned(), value)).collect())
    }

    fn one(field: &str, value: &str) -> Option<Vec<(String, String)>> {
        Some(vec![(field.to_owned(), value.to_owned())])
    }

    #[test]
    fn paths_fill_variables() {
        let task = "/api/v1/{task.name=namespaces/*/tasks/*}";
        assert_eq!(values(task, "/api/v1/namespaces/a/tasks/b"), one("task.name", "namespaces/a/tasks/b"));
        assert_eq!(
            values(task, "/api/v1/namespaces/a/tasks/b%20c"),
            one("task.name", "namespaces/a/tasks/b c")
        );
        assert_eq!(values("/v1/{id}/x", "/v1/7/x"), one("id", "7"));
        assert_eq!(values("/v1/system", "/v1/system"), Some(Vec::new()));
        let cancel = "/v1/{name=tasks/*}:cancel";
        assert_eq!(values(cancel, "/v1/tasks/a:cancel"), one("name", "tasks/a"));
        assert_eq!(values(cancel, "/v1/tasks/a:b:cancel"), one("name", "tasks/a:b"));
    }

    #[test]
    fn other_paths_do_not_fit() {
        let template = "/v1/{name=namespaces/*/tasks/*}:cancel";
        for path in [
            "",
            "/",
            "/v1/namespaces/a/tasks/b",
            "/v1/namespaces/a/tasks/:cancel",
            "/v1/namespaces/a/tasks/b:retry",
            "/v1/namespaces//tasks/b:cancel",
            "/v1/namespaces/a/tasks/b/c:cancel",
            "/v1/namespaces/a/agents/b:cancel",
            "/v1/namespaces/a%2Ftasks%2Fx/tasks/b:cancel",
            "/v1/namespaces/a/tasks/%ff:cancel",
            "//v1/namespaces/a/tasks/b:cancel",
        ] {
            assert_eq!(values(template, path), None, "{path}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for template in ["v1", "/v1/{name", "/v1/{name}x"] {
            Template::parse(template).unwrap_err();
        }
    }
}
