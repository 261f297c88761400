//! Upper bound of the work of an evaluation, from the expression and the sizes of the values that it has: the evaluator
//! has no limit of its own. A unit is about the time to copy one element of a list.

use std::collections::HashMap;
use std::rc::Rc;

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

/// Most parts of expressions and values that are looked at for one bound: values of 2 MiB have fewer.
const MAX_VISITS: u64 = 4_000_000;

/// Upper bound of the work of an evaluation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Units, with those of finding the bound.
    pub(crate) cost: u64,
    /// Units of finding the bound, which are spent in any case.
    pub(crate) visits: u64,
}

pub(crate) fn bound(expression: &IdedExpr, values: &Map<String, Value>) -> Bound {
    let mut scope = Scope { values, locals: Vec::new(), weights: Weights::default() };
    let cost = scope.cost(expression).0;
    let given = values.values().map(|value| scope.weights.of(value)).fold(0, u64::saturating_add);
    let visits = scope.weights.visits;
    let cost = if visits > MAX_VISITS { u64::MAX } else { cost.saturating_add(given).saturating_add(visits) };
    Bound { cost, visits }
}

/// What is known of the size of a value before it exists.
#[derive(Debug, Clone)]
enum Size<'a> {
    /// It is one of these parts of the values, of which none has more.
    OneOf { places: Rc<[&'a Value]>, weight: u64, elements: u64 },
    /// It has at most this weight, and as many elements.
    AtMost { weight: u64, elements: u64 },
}

/// Weights of lists and objects by their addresses, so that each is found once: expressions name the same values in many places.
#[derive(Debug, Default)]
struct Weights {
    known: HashMap<*const Value, u64>,
    /// Parts of expressions and values that were looked at.
    visits: u64,
}

impl Weights {
    /// Returns the elements of a value and of what it contains, and the bytes of its texts in proportion.
    fn of(&mut self, value: &Value) -> u64 {
        self.visits += 1;
        let own = match value {
            Value::String(text) => return 1 + text.len() as u64 / BYTES,
            Value::Array(_) | Value::Object(_) => self.known.get(&std::ptr::from_ref(value)).copied(),
            _ => return 1,
        };
        own.unwrap_or_else(|| {
            let parts = match value {
                Value::Array(list) => list.iter().map(|part| self.of(part)).fold(0, u64::saturating_add),
                Value::Object(object) => object
                    .iter()
                    .map(|(key, part)| 1 + key.len() as u64 / BYTES + self.of(part))
                    .fold(0, u64::saturating_add),
                _ => 0,
            };
            let weight = parts.saturating_add(1);
            self.known.insert(std::ptr::from_ref(value), weight);
            weight
        })
    }

    /// Returns the size of what is one of these parts of the values.
    fn one_of<'a>(&mut self, places: Vec<&'a Value>) -> Size<'a> {
        let count = |value: &&Value| match value {
            Value::Array(list) => list.len() as u64,
            Value::Object(object) => object.len() as u64,
            _ => 0,
        };
        let weight = places.iter().map(|value| self.of(value)).max().unwrap_or(1);
        let elements = places.iter().map(count).max().unwrap_or(0);
        Size::OneOf { places: places.into(), weight, elements }
    }

    /// Returns the size of a field.
    fn field<'a>(&mut self, of: &Size<'a>, name: &str) -> Size<'a> {
        let Size::OneOf { places, .. } = of else { return of.clone() };
        self.visits += places.len() as u64;
        self.one_of(places.iter().filter_map(|value| value.get(name)).collect())
    }

    /// Returns the size of any element.
    fn element<'a>(&mut self, of: &Size<'a>) -> Size<'a> {
        let Size::OneOf { places: values, .. } = of else { return of.clone() };
        let mut places = Vec::new();
        for value in values.iter() {
            self.visits += 1;
            match value {
                Value::Array(list) => places.extend(list.iter().take(MAX_PLACES + 1)),
                // Its keys are what a loop sees, its values what an index finds.
                Value::Object(object) => {
                    self.visits += object.len() as u64;
                    places.extend(object.values().take(MAX_PLACES + 1));
                    if object.keys().any(|key| key.len() as u64 >= BYTES) {
                        return of.at_most();
                    }
                }
                _ => {}
            }
            if places.len() > MAX_PLACES {
                return of.at_most();
            }
        }
        self.one_of(places)
    }
}

impl<'a> Size<'a> {
    const SMALL: Self = Self::AtMost { weight: 2, elements: 0 };

    fn weight(&self) -> u64 {
        match self {
            Self::OneOf { weight, .. } | Self::AtMost { weight, .. } => *weight,
        }
    }

    fn elements(&self) -> u64 {
        match self {
            Self::OneOf { elements, .. } | Self::AtMost { elements, .. } => *elements,
        }
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
    weights: Weights,
}

impl<'a, 'e> Scope<'a, 'e> {
    /// Returns the cost of an expression, and the size of its result.
    fn cost(&mut self, expression: &'e IdedExpr) -> (u64, Size<'a>) {
        self.weights.visits += 1;
        if self.weights.visits > MAX_VISITS {
            return (u64::MAX, Size::SMALL);
        }
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                let weight = 1 + text.inner().len() as u64 / BYTES;
                (weight, Size::AtMost { weight, elements: 0 })
            }
            Expr::Ident(name) => (1, self.variable(name)),
            Expr::Select(select) => {
                let (cost, size) = self.cost(&select.operand);
                (cost.saturating_add(1), self.weights.field(&size, &select.field))
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

    fn variable(&mut self, name: &str) -> Size<'a> {
        let local = self.locals.iter().rev().find(|(local, _)| *local == name).map(|(_, size)| size.clone());
        local.unwrap_or_else(|| self.weights.one_of(self.values.get(name).into_iter().collect()))
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
                    Some(Expr::Literal(LiteralValue::String(key))) => self.weights.field(&first, key.inner()),
                    _ => self.weights.element(&first),
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
        let element = self.weights.element(&range);
        if let Some(second) = &comprehension.iter_var2 {
            self.locals.push((second, element.clone()));
        }
        self.locals.push((&comprehension.iter_var, element));
        // The macros use what was accumulated once a round, so that each adds what the first adds.
        self.locals.push((&comprehension.accu_var, init.clone()));
        let (first_step, once) = self.cost(&comprehension.loop_step);
        let grows = |from: u64, to: u64| from.saturating_add(rounds.saturating_mul(to.saturating_sub(from)));
        let accumulated = Size::AtMost {
            weight: grows(init.weight(), once.weight()),
            elements: grows(init.elements(), once.elements()),
        };
        self.locals.pop();
        let grown = accumulated.weight() > init.weight() || accumulated.elements() > init.elements();
        self.locals.push((&comprehension.accu_var, accumulated.clone()));
        let (condition, _) = self.cost(&comprehension.loop_cond);
        // Loops within loops would be bounded twice at each level.
        let step = if grown { self.cost(&comprehension.loop_step).0 } else { first_step };
        let (result, size) = self.cost(&comprehension.result);
        self.locals.truncate(depth);
        // What was accumulated is copied in each round.
        let round = condition.saturating_add(step).saturating_add(accumulated.weight()).saturating_add(1);
        let cost = [range_cost, range.weight(), init_cost, rounds.saturating_mul(round), result];
        (cost.into_iter().fold(1, u64::saturating_add), size)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn visits(text: &str, values: &Value) -> u64 {
        let program = cel::Program::compile(text).unwrap();
        bound(program.expression(), values.as_object().unwrap()).visits
    }

    #[test]
    fn each_part_of_the_values_is_looked_at_once() {
        let list: Vec<_> = (0..20_000).map(|number| json!({ "a": [number], "b": "x" })).collect();
        let values = json!({ "inputs": { "list": list } });
        let parts = 4 * 20_000;
        let one = visits("size(inputs.list)", &values);
        assert!(one > parts && one < 2 * parts, "{one}");
        let many = vec!["size(inputs.list) == size(inputs.list)"; 40].join(" && ");
        assert!(visits(&many, &values) < one + 40 * 20, "{}", visits(&many, &values));
    }

    #[test]
    fn loops_within_loops_are_not_looked_at_twice() {
        let values = json!({ "list": [1, 2, 3] });
        let nested = |depth: usize| {
            (0..depth).fold("true".to_owned(), |inner, at| format!("list.all(v{at}, {inner})"))
        };
        let (five, ten) = (visits(&nested(5), &values), visits(&nested(10), &values));
        assert!(ten < 3 * five, "{five} {ten}");
        // Those that accumulate are bounded again with what they have accumulated, up to a limit.
        let wide: Vec<_> = (0..9_000).collect();
        let values = json!({ "list": wide });
        let mapped = (0..12).fold("1".to_owned(), |inner, at| format!("list.map(v{at}, {inner})"));
        let Bound { cost, visits } =
            bound(cel::Program::compile(&mapped).unwrap().expression(), values.as_object().unwrap());
        assert!(cost > MAX_COST && visits < 2 * MAX_VISITS, "{cost} {visits}");
    }
}
