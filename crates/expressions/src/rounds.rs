//! Rounds of loops, counted while an expression is evaluated: an evaluation that has more than `cost.rs` has found to be possible
//! ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cel::common::ast::operators::CONDITIONAL;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::{ExecutionError, Value};

/// Name of the function that each round calls first. No expression can contain it.
pub(crate) const ROUND: &str = "@round";

/// Rounds that are left to an evaluation.
#[derive(Debug, Clone)]
pub(crate) struct Rounds(Arc<AtomicI64>);

impl Rounds {
    pub(crate) fn new(most: u64) -> Self {
        Self(Arc::new(AtomicI64::new(i64::try_from(most).unwrap_or(i64::MAX))))
    }

    /// Begins a round. An expression may ignore the error, as in `x || true`: every later round fails, too.
    pub(crate) fn begin(&self) -> Result<Value, ExecutionError> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            ..1 => Err(ExecutionError::function_error(ROUND, "too many rounds")),
            _ => Ok(Value::Bool(true)),
        }
    }

    pub(crate) fn are_exceeded(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 0
    }
}

/// Changes the loops of an expression so that each round begins with [`ROUND`].
pub(crate) fn count_rounds(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Select(select) => count_rounds(&mut select.operand),
        Expr::Call(call) => {
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(count_rounds);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(count_rounds),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => {
                [&mut entry.key, &mut entry.value].into_iter().for_each(count_rounds)
            }
            EntryExpr::StructField(field) => count_rounds(&mut field.value),
        }),
        Expr::Comprehension(found) => {
            for part in [&mut found.iter_range, &mut found.accu_init, &mut found.loop_step, &mut found.result]
            {
                count_rounds(part);
            }
            let condition = std::mem::take(&mut found.loop_cond);
            let never = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Boolean(false.into())) };
            found.loop_cond = call(CONDITIONAL, vec![call(ROUND, Vec::new()), condition, never]);
        }
        Expr::Literal(_) | Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}
