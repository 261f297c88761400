//! Upper bound of the work of an evaluation, from the expression and the sizes of the values that it has: the evaluator
//! has no limit of its own. A unit is about the time to copy one element of a list.

use std::rc::Rc;
use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use serde_json::Value;

use crate::patterns::{COMPILE, Kept, Literals, MAX_KEPT, MAX_STEPS, Pattern};
use crate::rounds::ROUND;
use crate::size::{BYTES, Size, Weights};
use crate::values::Named;

/// Most units of an evaluation: about a second.
pub const MAX_COST: u64 = 40_000_000;
/// Units of what any evaluation needs: most of it is the parser's work.
pub(crate) const EVALUATION: u64 = 4000;
/// Most parts of expressions and values that are looked at for one bound: values of 2 MiB have fewer.
const MAX_VISITS: u64 = 4_000_000;

/// Upper bound of the work of an evaluation.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    /// Units, with those of finding the bound.
    pub(crate) cost: u64,
    /// Units of finding the bound and of compiling `patterns`, which are spent in any case.
    pub(crate) visits: u64,
    /// Patterns among the values, compiled once, in whichever loop they are used.
    pub(crate) patterns: Kept<'a>,
}

pub(crate) fn bound<'a>(expression: &IdedExpr, literals: &Literals, values: &'a Named) -> Bound<'a> {
    let mut scope =
        Scope { values, literals, locals: Vec::new(), weights: Weights::default(), patterns: Kept::new() };
    let cost = scope.cost(expression).0;
    let given = values.values().map(|value| scope.weights.of(value)).fold(0, u64::saturating_add);
    let Scope { weights: Weights { visits, .. }, patterns, .. } = scope;
    let compiled = patterns.values().map(|kept| kept.as_ref().map_or(COMPILE, |pattern| pattern.cost));
    let spent = compiled.fold(visits, u64::saturating_add);
    let parts = [cost, given, spent];
    let cost = if visits > MAX_VISITS { u64::MAX } else { parts.into_iter().fold(0, u64::saturating_add) };
    Bound { cost, visits: spent, patterns }
}

struct Scope<'a, 'e> {
    values: &'a Named,
    literals: &'e Literals,
    locals: Vec<(&'e str, Size<'a>)>,
    weights: Weights,
    patterns: Kept<'a>,
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
                (weight, Size::text(weight))
            }
            Expr::Ident(name) => (1, self.variable(name)),
            Expr::Select(select) => {
                let (cost, size) = self.cost(&select.operand);
                if select.test {
                    return (cost.saturating_add(1), Size::SMALL);
                }
                // The evaluator copies it.
                let field = self.weights.field(&size, &select.field);
                (cost.saturating_add(1).saturating_add(field.weight()), field)
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
        local.unwrap_or_else(|| {
            self.weights.one_of(self.values.get(name).map(Arc::as_ref).into_iter().collect())
        })
    }

    /// Returns the cost of some expressions together, and the size of a value that has all of their results.
    fn all(&mut self, parts: impl Iterator<Item = &'e IdedExpr>, elements: usize) -> (u64, Size<'a>) {
        let (mut cost, mut weight, mut any) = (1_u64, 1_u64, Size::SMALL);
        for part in parts {
            let (part_cost, size) = self.cost(part);
            cost = cost.saturating_add(part_cost);
            weight = weight.saturating_add(size.weight());
            any = self.weights.either(any, size);
        }
        let size = Size::AtMost { weight, elements: elements as u64, part: Some(Rc::new(any)) };
        (cost.saturating_add(weight), size)
    }

    fn call(&mut self, call: &'e CallExpr) -> (u64, Size<'a>) {
        let operands: Vec<_> =
            call.target.as_deref().into_iter().chain(&call.args).map(|operand| self.cost(operand)).collect();
        let cost = operands.iter().fold(1_u64, |sum, (cost, _)| sum.saturating_add(*cost));
        let together = operands.iter().fold(1_u64, |sum, (_, size)| sum.saturating_add(size.weight()));
        let mut sizes = operands.into_iter().map(|(_, size)| size);
        let (first, second) = (sizes.next().unwrap_or(Size::SMALL), sizes.next().unwrap_or(Size::SMALL));
        match call.func_name.as_str() {
            "_+_" => (cost.saturating_add(together), self.weights.both(&first, &second)),
            "_[_]" => {
                let key = match call.args.get(1).map(|index| &index.expr) {
                    Some(Expr::Literal(LiteralValue::String(key))) => self.weights.field(&first, key.inner()),
                    _ => self.weights.element(&first),
                };
                (cost, key)
            }
            "_?_:_" => {
                let third = sizes.next().unwrap_or(Size::SMALL);
                (cost, self.weights.either(second, third))
            }
            "_&&_" | "_||_" | "!_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "@not_strictly_false" => {
                (cost, Size::SMALL)
            }
            // Equality ends with the smaller value.
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => {
                (cost.saturating_add(first.weight().min(second.weight())), Size::SMALL)
            }
            "matches" => (cost.saturating_add(self.matching(call, &first, &second)), Size::SMALL),
            // The separator stands between all elements.
            "join" => {
                let weight = first.elements().saturating_mul(second.weight()).saturating_add(together);
                // Elements in their JSON form.
                let weight = weight.saturating_mul(2);
                (cost.saturating_add(weight), Size::text(weight))
            }
            "json" | "string" => {
                let weight = together.saturating_mul(2);
                (cost.saturating_add(weight), Size::text(weight))
            }
            // Searches and conversions: linear, with a small result.
            "contains" | "double" | "endsWith" | "int" | "size" | "startsWith" | "uint" | "@in" | ROUND => {
                (cost.saturating_add(together), Size::SMALL)
            }
            // `max` and `min` return one of their operands, or an element of one.
            _ => (cost.saturating_add(together), Size::any(together)),
        }
    }

    /// Returns the cost of a search for a pattern.
    fn matching(&mut self, call: &'e CallExpr, text: &Size<'a>, pattern: &Size<'a>) -> u64 {
        let bytes = text.weight().saturating_mul(BYTES);
        let argument = call.args.get(usize::from(call.target.is_none())).map(|argument| &argument.expr);
        if let Some(Expr::Literal(LiteralValue::String(literal))) = argument
            && let Some(known) = self.literals.get(literal.inner())
        {
            return bytes.saturating_mul(known.steps());
        }
        if let (Some(argument), Size::OneOf { places, .. }) = (argument, pattern)
            && self.is_path(argument)
            && let [Value::String(pattern)] = &places[..]
            && (self.patterns.len() < MAX_KEPT || self.patterns.contains_key(pattern.as_str()))
        {
            let kept = self.patterns.entry(pattern).or_insert_with(|| Pattern::compile(pattern));
            return bytes.saturating_mul(kept.as_ref().map_or(1, Pattern::steps));
        }
        bytes.saturating_mul(MAX_STEPS).saturating_add(COMPILE)
    }

    /// Whether an expression is the same part of the values in each round of a loop.
    fn is_path(&self, expression: &Expr) -> bool {
        match expression {
            Expr::Ident(name) => !self.locals.iter().any(|(local, _)| local == name),
            Expr::Select(select) => self.is_path(&select.operand.expr),
            _ => false,
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
            part: match &once {
                Size::AtMost { part, .. } => part.clone(),
                Size::OneOf { .. } => None,
            },
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

    fn named(values: &Value) -> Named {
        let values = values.as_object().unwrap().iter();
        values.map(|(name, value)| (name.clone(), Arc::new(value.clone()))).collect()
    }

    fn visits(text: &str, values: &Value) -> u64 {
        let (program, named) = (cel::Program::compile(text).unwrap(), named(values));
        bound(program.expression(), &Literals::default(), &named).visits
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
        let (program, named) = (cel::Program::compile(&mapped).unwrap(), named(&values));
        let Bound { cost, visits, .. } = bound(program.expression(), &Literals::default(), &named);
        assert!(cost > MAX_COST && visits < 2 * MAX_VISITS, "{cost} {visits}");
    }
}
