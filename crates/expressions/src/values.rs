//! Values that expressions see, and the work that they may cause together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

/// Names of the values, in the order of the docs.
pub(crate) const ROOTS: &[&str] = &["inputs", "steps", "workflow", "item", "index", "round", "previous"];

pub(crate) type Named = BTreeMap<String, Arc<Value>>;

/// Values by their names, which clones share. Those that are not set do not exist for expressions.
#[derive(Debug, Clone, Default)]
pub struct Values {
    pub(crate) map: Named,
    /// Units that are left to all evaluations; without a limit if there is none. Clones share it.
    budget: Option<Arc<AtomicU64>>,
}

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

    /// Limits the work of all evaluations with these values and their clones, in units of [`crate::MAX_COST`].
    pub fn budget(self, units: u64) -> Self {
        Self { budget: Some(Arc::new(AtomicU64::new(units))), ..self }
    }

    /// Returns what shows the units that are left, without the values.
    pub fn meter(&self) -> Self {
        Self { map: Named::new(), budget: self.budget.clone() }
    }

    /// Returns the units that are left to further evaluations.
    pub fn left(&self) -> u64 {
        self.budget.as_ref().map_or(u64::MAX, |budget| budget.load(Ordering::Relaxed))
    }

    /// Takes units from the budget. Returns whether there were as many.
    pub(crate) fn spend(&self, units: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(units)).is_ok()
    }

    /// Returns what one of the names stands for.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).map(Arc::as_ref)
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.map.insert(name.to_owned(), Arc::new(value));
        self
    }
}
