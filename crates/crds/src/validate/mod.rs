//! The one validation for `kubectl apply` and `rota apply`: names, lengths, ranges, and fields that
//! exclude each other. Finds everything that is wrong, each with the path of its field. What needs
//! to know other objects is the control plane's.

mod agent;
mod pod;
mod runtime;
mod task;
mod text;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Violation {
    /// The field, for example `spec.limits.timeout`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Collects violations under a path.
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
            self.field(name).fail(format!("{value} is outside of {low} to {high}"));
        }
    }

    /// `field` names the ones that are set; at most one may be.
    fn at_most_one(&mut self, set: &[(&str, bool)]) -> usize {
        let names: Vec<_> = set.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if names.len() > 1 {
            self.fail(format!("{} exclude each other", names.join(" and ")));
        }
        names.len()
    }
}

#[cfg(test)]
mod tests;
