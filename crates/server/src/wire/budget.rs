//! Budgets of agents and namespaces: wire ⇄ core.

use rota_core::Timestamp;
use rota_core::spending::{Account, Budget, MAX_LIMIT_MICRO_USD, Period, Scope, WhenExhausted};
use rota_proto::{names, v1};
use tonic::Status;

use super::status::invalid;
use super::{etag, time};

/// Validates a budget. Limits of zero limit nothing.
pub(crate) fn check(field: &str, given: Option<&v1::Budget>) -> Result<Budget, Status> {
    let Some(given) = given else { return Ok(Budget::default()) };
    let limit = |name: &str, micro_usd: i64| match micro_usd {
        0 => Ok(None),
        1..=MAX_LIMIT_MICRO_USD => Ok(Some(micro_usd)),
        _ => Err(invalid(format!("{field}.{name}"), format!("must be from 0 to {MAX_LIMIT_MICRO_USD}"))),
    };
    let when = v1::WhenExhausted::try_from(given.when_exhausted)
        .map_err(|_| invalid(format!("{field}.when_exhausted"), "is unknown"))?;
    Ok(Budget {
        daily: limit("daily_micro_usd", given.daily_micro_usd)?,
        monthly: limit("monthly_micro_usd", given.monthly_micro_usd)?,
        when_exhausted: match when {
            v1::WhenExhausted::Unspecified | v1::WhenExhausted::Queue => WhenExhausted::Queue,
            v1::WhenExhausted::Refuse => WhenExhausted::Refuse,
        },
    })
}

/// Validates a correction of what was spent.
pub(crate) fn check_spent(field: &str, given: Option<i64>) -> Result<(), Status> {
    match given {
        None | Some(0..=MAX_LIMIT_MICRO_USD) => Ok(()),
        Some(_) => Err(invalid(field, format!("must be from 0 to {MAX_LIMIT_MICRO_USD}"))),
    }
}

fn to_wire(budget: &Budget) -> v1::Budget {
    let when = match budget.when_exhausted {
        WhenExhausted::Queue => v1::WhenExhausted::Queue,
        WhenExhausted::Refuse => v1::WhenExhausted::Refuse,
    };
    v1::Budget {
        daily_micro_usd: budget.daily.unwrap_or_default(),
        monthly_micro_usd: budget.monthly.unwrap_or_default(),
        when_exhausted: when.into(),
    }
}

/// Returns what is known of a budget, with what running attempts have reserved.
pub(crate) fn status(account: &Account, budget: &Budget, reserved: i64, now: Timestamp) -> v1::BudgetStatus {
    let namespace = account.namespace.as_str();
    // What waits is what does not fit, although the limit may not have been reached.
    let full = account.blocked(budget, 0, account.usual, now);
    v1::BudgetStatus {
        name: match &account.scope {
            Scope::Namespace | Scope::Workflow(_) => names::namespace(namespace),
            Scope::Agent(agent) => names::agent(namespace, agent),
        },
        budget: (!budget.is_empty()).then(|| to_wire(budget)),
        spent_today_micro_usd: account.spent(Period::Day, now),
        spent_this_month_micro_usd: account.spent(Period::Month, now),
        reserved_micro_usd: reserved,
        usual_micro_usd: account.usual,
        exhausted_until: full.map(|period| time::timestamp(period.end(now))),
        etag: match &account.scope {
            Scope::Namespace => etag::of_budget(budget),
            // That of an agent is a part of its record.
            Scope::Agent(_) | Scope::Workflow(_) => String::new(),
        },
    }
}
