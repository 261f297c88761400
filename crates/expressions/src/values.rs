//! Values that expressions see.

use serde_json::{Map, Value};

/// Names of the values, in the order of the docs.
pub(crate) const ROOTS: &[&str] = &["inputs", "steps", "workflow", "item", "index", "round", "previous"];

/// Values by their names. Those that are not set do not exist for expressions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(pub(crate) Map<String, Value>);

impl Values {
    /// Sets the inputs of the workflow.
    pub fn inputs(self, inputs: Value) -> Self {
        self.with("inputs", inputs)
    }

    /// Sets the steps: by name, an object with `state`, `result`, `outputs`, `results` and what else a step offers.
    pub fn steps(self, steps: Map<String, Value>) -> Self {
        self.with("steps", Value::Object(steps))
    }

    /// Sets the description of the workflow, such as `id`, `name` and `status`.
    pub fn workflow(self, workflow: Value) -> Self {
        self.with("workflow", workflow)
    }

    /// Sets the element of a `forEach` and its index, from 0.
    pub fn item(self, index: u64, item: Value) -> Self {
        self.with("index", Value::from(index)).with("item", item)
    }

    /// Sets the round of a `repeat`, from 1.
    pub fn round(self, round: u64) -> Self {
        self.with("round", Value::from(round))
    }

    /// Sets the result of the round of a `repeat` before, or null in the first.
    pub fn previous(self, result: Value) -> Self {
        self.with("previous", result)
    }

    /// Returns what one of the names stands for.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }
}
