//! Validation for `kubectl apply` and `rota apply`: names, lengths, ranges and mutually exclusive fields. Reports all
//! violations, each with the path of its field. Must not know other objects; the control plane checks references.

mod agent;
mod pod;
mod pod_template;
mod runtime;
mod schedule;
mod task;
mod text;
mod workflow;

pub use pod::RESERVED_PREFIX;
pub use pod_template::pod_template;

/// Validation error of one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Violation {
    /// Path of the field, for example `spec.limits.timeout`.
    pub field: String,
    pub message: String,
}

/// Collects violations of the field at a path.
struct Check<'a> {
    path: String,
    found: &'a mut Vec<Violation>,
}

impl Check<'_> {
    fn field(&mut self, name: &str) -> Check<'_> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Check { path, found: &mut *self.found }
    }

    fn item(&mut self, index: usize) -> Check<'_> {
        Check { path: format!("{}[{index}]", self.path), found: &mut *self.found }
    }

    fn fail(&mut self, message: impl Into<String>) {
        self.found.push(Violation { field: self.path.clone(), message: message.into() });
    }

    fn require(&mut self, holds: bool, message: &str) {
        if !holds {
            self.fail(message);
        }
    }

    fn range<T: PartialOrd + std::fmt::Display>(&mut self, name: &str, value: Option<T>, low: T, high: T) {
        if let Some(value) = value
            && (value < low || value > high)
        {
            self.field(name).fail(format!("must be between {low} and {high}, not {value}"));
        }
    }

    /// Requires at most one of the named fields to be set. Returns how many are.
    fn at_most_one(&mut self, set: &[(&str, bool)]) -> usize {
        let names: Vec<_> = set.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if names.len() > 1 {
            self.fail(format!("{} are mutually exclusive", names.join(" and ")));
        }
        names.len()
    }
}

#[cfg(test)]
mod tests;
