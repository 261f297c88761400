//! Upper bound of the work of an evaluation, from the expression and the sizes of the values that it has: the evaluator
//! has no limit of its own. A unit is about the time to copy one element of a list.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use serde_json::{Map, Value};

/// Most units of an evaluation: about a second.
pub const MAX_COST: u64 = 40_000_000;
/// Units of what any evaluation needs: most of it is the parser's work.
pub(crate) const EVALUATION: u64 = 4000;
/// Bytes of a text that cost as much as an element.
const BYTES: u64 = 32;
/// Places of values that are followed one by one; more are bounded together.
const MAX_PLACES: usize = 10_000;

pub(crate) fn bound(expression: &IdedExpr, values: &Map<String, Value>) -> u64 {
    let mut scope = Scope { values, locals: Vec::new() };
    scope.cost(expression).0.saturating_add(values.values().map(weight).fold(0, u64::saturating_add))
}

/// What is known of the size of a value before it exists.
#[derive(Debug, Clone)]
enum Size<'a> {
    /// It is one of these parts of the values.
    OneOf(Vec<&'a Value>),
    /// It has at most this weight, and as many elements.
    AtMost { weight: u64, elements: u64 },
}

/// Elements of a value and of what it contains, and the bytes of its texts in proportion.
fn weight(value: &Value) -> u64 {
    let own = match value {
        Value::String(text) => text.len() as u64 / BYTES,
        Value::Array(list) => list.iter().map(weight).fold(0, u64::saturating_add),
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| 1 + key.len() as u64 / BYTES + weight(value))
            .fold(0, u64::saturating_add),
        _ => 0,
    };
    own.saturating_add(1)
}

impl<'a> Size<'a> {
    const SMALL: Self = Self::AtMost { weight: 2, elements: 0 };

    fn weight(&self) -> u64 {
        match self {
            Self::OneOf(values) => values.iter().map(|value| weight(value)).max().unwrap_or(1),
            Self::AtMost { weight, .. } => *weight,
        }
    }

    fn elements(&self) -> u64 {
        let count = |value: &&Value| match value {
            Value::Array(list) => list.len() as u64,
            Value::Object(object) => object.len() as u64,
            _ => 0,
        };
        match self {
            Self::OneOf(values) => values.iter().map(count).max().unwrap_or(0),
            Self::AtMost { elements, .. } => *elements,
        }
    }

    fn field(&self, name: &str) -> Self {
        match self {
            Self::OneOf(values) => Self::OneOf(values.iter().filter_map(|value| value.get(name)).collect()),
            other => other.clone(),
        }
    }

    /// The size of any element.
    fn element(&self) -> Self {
        let Self::OneOf(values) = self else { return self.clone() };
        let mut places = Vec::new();
        for value in values {
            match value {
                Value::Array(list) => places.extend(list),
                // Its keys are what a loop sees, its values what an index finds.
                Value::Object(object) => {
                    places.extend(object.values());
                    if object.keys().any(|key| key.len() as u64 >= BYTES) {
                        return self.at_most();
                    }
                }
                _ => {}
            }
        }
        if places.len() > MAX_PLACES { self.at_most() } else { Self::OneOf(places) }
    }

    fn at_most(&self) -> Self {
        Self::AtMost { weight: self.weight(), elements: self.weight() }
    }

    fn plus(&self, other: &Self) -> Self {
        Self::AtMost {
            weight: self.weight().saturating_add(other.weight()),
            elements: self.elements().saturating_add(other.elements()),
        }
    }

    fn larger(self, other: Self) -> Self {
        Self::AtMost {
            weight: self.weight().max(other.weight()),
            elements: self.elements().max(other.elements()),
        }
    }
}

struct Scope<'a, 'e> {
    values: &'a Map<String, Value>,
    locals: Vec<(&'e str, Size<'a>)>,
}

impl<'a, 'e> Scope<'a, 'e> {
    /// Returns the cost of an expression, and the size of its result.
    fn cost(&mut self, expression: &'e IdedExpr) -> (u64, Size<'a>) {
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                let weight = 1 + text.inner().len() as u64 / BYTES;
                (weight, Size::AtMost { weight, elements: 0 })
            }
            Expr::Ident(name) => (1, self.variable(name)),
            Expr::Select(select) => {
                let (cost, size) = self.cost(&select.operand);
                (cost.saturating_add(1), size.field(&select.field))
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.all(list.elements.iter(), list.elements.len()),
            Expr::Map(map) => {
                let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
                    EntryExpr::StructField(field) => [Some(&field.value), None],
                });
                self.all(parts.flatten(), map.entries.len())
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => (1, Size::SMALL),
        }
    }

    fn variable(&self, name: &str) -> Size<'a> {
        let local = self.locals.iter().rev().find(|(local, _)| *local == name).map(|(_, size)| size.clone());
        local.unwrap_or_else(|| Size::OneOf(self.values.get(name).into_iter().collect()))
    }

    /// Returns the cost of some expressions together, and the size of a value that has all of their results.
    fn all(&mut self, parts: impl Iterator<Item = &'e IdedExpr>, elements: usize) -> (u64, Size<'a>) {
        let (mut cost, mut weight) = (1_u64, 1_u64);
        for part in parts {
            let (part_cost, size) = self.cost(part);
            cost = cost.saturating_add(part_cost);
            weight = weight.saturating_add(size.weight());
        }
        (cost.saturating_add(weight), Size::AtMost { weight, elements: elements as u64 })
    }

    fn call(&mut self, call: &'e CallExpr) -> (u64, Size<'a>) {
        let operands: Vec<_> =
            call.target.as_deref().into_iter().chain(&call.args).map(|operand| self.cost(operand)).collect();
        let cost = operands.iter().fold(1_u64, |sum, (cost, _)| sum.saturating_add(*cost));
        let together = operands.iter().fold(1_u64, |sum, (_, size)| sum.saturating_add(size.weight()));
        let mut sizes = operands.into_iter().map(|(_, size)| size);
        let (first, second) = (sizes.next().unwrap_or(Size::SMALL), sizes.next().unwrap_or(Size::SMALL));
        match call.func_name.as_str() {
            "_+_" => (cost.saturating_add(together), first.plus(&second)),
            "_[_]" => {
                let key = match call.args.get(1).map(|index| &index.expr) {
                    Some(Expr::Literal(LiteralValue::String(key))) => first.field(key.inner()),
                    _ => first.element(),
                };
                (cost, key)
            }
            "_?_:_" => {
                let third = sizes.next().unwrap_or(Size::SMALL);
                (cost, second.larger(third))
            }
            "_&&_" | "_||_" | "!_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "@not_strictly_false" => {
                (cost, Size::SMALL)
            }
            // Equality ends with the smaller value.
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => {
                (cost.saturating_add(first.weight().min(second.weight())), Size::SMALL)
            }
            // A pattern is compiled each time, and its automaton may be large.
            "matches" => {
                let pattern = second.weight().saturating_mul(BYTES);
                (
                    cost.saturating_add(first.weight().saturating_mul(pattern)).saturating_add(100 * pattern),
                    Size::SMALL,
                )
            }
            // The separator stands between all elements.
            "join" => {
                let weight = first.elements().saturating_mul(second.weight()).saturating_add(together);
                // Elements in their JSON form.
                let weight = weight.saturating_mul(2);
                (cost.saturating_add(weight), Size::AtMost { weight, elements: 0 })
            }
            "json" | "string" => {
                let weight = together.saturating_mul(2);
                (cost.saturating_add(weight), Size::AtMost { weight, elements: 0 })
            }
            "max" | "min" => (cost.saturating_add(together), first.larger(second)),
            // Sizes, searches, conversions: linear, with a small result.
            _ => (cost.saturating_add(together), Size::SMALL),
        }
    }

    fn comprehension(&mut self, comprehension: &'e ComprehensionExpr) -> (u64, Size<'a>) {
        let (range_cost, range) = self.cost(&comprehension.iter_range);
        let (init_cost, init) = self.cost(&comprehension.accu_init);
        let rounds = range.elements();
        let depth = self.locals.len();
        self.locals.push((&comprehension.iter_var, range.element()));
        if let Some(second) = &comprehension.iter_var2 {
            self.locals.push((second, range.element()));
        }
        // The macros use what was accumulated once a round, so that each adds what the first adds.
        self.locals.push((&comprehension.accu_var, init.clone()));
        let (_, once) = self.cost(&comprehension.loop_step);
        let grows = |from: u64, to: u64| from.saturating_add(rounds.saturating_mul(to.saturating_sub(from)));
        let accumulated = Size::AtMost {
            weight: grows(init.weight(), once.weight()),
            elements: grows(init.elements(), once.elements()),
        };
        self.locals.pop();
        self.locals.push((&comprehension.accu_var, accumulated.clone()));
        let (condition, _) = self.cost(&comprehension.loop_cond);
        let (step, _) = self.cost(&comprehension.loop_step);
        let (result, size) = self.cost(&comprehension.result);
        self.locals.truncate(depth);
        // What was accumulated is copied in each round.
        let round = condition.saturating_add(step).saturating_add(accumulated.weight()).saturating_add(1);
        let cost = [range_cost, range.weight(), init_cost, rounds.saturating_mul(round), result];
        (cost.into_iter().fold(1, u64::saturating_add), size)
    }
}
