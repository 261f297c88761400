//! Budgets of agents and namespaces: what is spent in a day and a month of UTC, and whether another attempt fits. Those of workflows
//! have no books: their records count what is spent. Pure; knows no prices, and no tasks but what they reserve and use.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::usage::usd;
use crate::{AgentName, Namespace, Timestamp, WorkflowKey};

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;
/// Share of a limit, or of the budget of a task, at which a warning is due, in percent.
pub const WARNING_PERCENT: u8 = 80;
/// Largest limit, and largest amount that an attempt reserves: a million US dollars.
pub const MAX_LIMIT_MICRO_USD: i64 = 1_000_000_000_000;
/// Weight of the costs so far, against that of one more attempt or report, in what these usually cost.
const USUAL_WEIGHT: i64 = 7;

/// Limits of the cost of an agent's tasks, or of those of a namespace, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<i64>,
    #[serde(skip_serializing_if = "WhenExhausted::is_queue")]
    pub when_exhausted: WhenExhausted,
}

impl Budget {
    /// Whether neither the day nor the month has a limit.
    pub fn is_empty(&self) -> bool {
        self.daily.is_none() && self.monthly.is_none()
    }

    /// Returns the limit of a period, if there is one.
    pub fn limit(&self, period: Period) -> Option<i64> {
        match period {
            Period::Day => self.daily,
            Period::Month => self.monthly,
        }
    }
}

/// What becomes of new tasks while a budget is exhausted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenExhausted {
    /// They wait for the next period.
    #[default]
    Queue,
    /// Their creation fails, as long as nothing could be started.
    Refuse,
}

impl WhenExhausted {
    fn is_queue(&self) -> bool {
        *self == Self::Queue
    }
}

/// Time for which a limit holds. A later one ends later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Day,
    Month,
}

impl Period {
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Returns the number of the period that contains a time.
    fn number(self, at: Timestamp) -> i64 {
        let days = at.0.div_euclid(DAY_MICROS);
        match self {
            Self::Day => days,
            Self::Month => month_of(days),
        }
    }

    /// Returns when the next period begins.
    pub fn end(self, at: Timestamp) -> Timestamp {
        let next = self.number(at) + 1;
        let days = match self {
            Self::Day => next,
            Self::Month => first_day(next),
        };
        Timestamp(days.saturating_mul(DAY_MICROS))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "daily",
            Self::Month => "monthly",
        }
    }
}

/// Returns the number of the month, from January of the year 0, that contains a day, counted from 1970-01-01
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn month_of(days: i64) -> i64 {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March, with which the algorithm's years begin.
    let month = (5 * day_of_year + 2) / 153;
    (year_of_era + era * 400) * 12 + month + 2
}

/// Returns the first day of a month.
fn first_day(month: i64) -> i64 {
    let (year, month) = ((month - 2).div_euclid(12), (month - 2).rem_euclid(12));
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Whose budget it is, within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Namespace,
    Agent(AgentName),
    /// A workflow, which has no account.
    Workflow(WorkflowKey),
}

impl Scope {
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::Namespace | Self::Workflow(_) => None,
            Self::Agent(agent) => Some(agent),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("the namespace"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
            Self::Workflow(_) => f.write_str("its workflow"),
        }
    }
}

/// What a waiting task waits for: a budget that has no room for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetWait {
    pub scope: Scope,
    /// Without a meaning for a workflow.
    pub period: Period,
    /// Since when the task waits for it.
    pub since: Timestamp,
    /// When the next period begins, or the task looks for room again.
    pub until: Timestamp,
}

impl BudgetWait {
    /// Describes the budget, for users.
    pub fn describe(&self) -> String {
        match self.scope {
            Scope::Workflow(_) => format!("the budget of {}", self.scope),
            _ => format!("the {} budget of {}", self.period.name(), self.scope),
        }
    }
}

/// What was spent in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// Number of the day or month that the amount belongs to.
    period: i64,
    micro_usd: i64,
    /// Whether there was a warning in this period.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    warned: bool,
}

/// The books of an agent, or of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub namespace: Namespace,
    pub scope: Scope,
    /// The budget of a namespace; that of an agent is a part of its record.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    day: Spent,
    month: Spent,
    /// What an attempt usually costs, in millionths of a US dollar; zero if unknown.
    #[serde(default)]
    pub usual: i64,
    /// What an attempt of an agent may spend between two reports, such as on a turn of a model, in millionths of a US dollar: the
    /// dearest of late; zero if unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: i64,
    /// Whether tasks may wait for the budget.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waiting: bool,
}

impl Account {
    pub fn new(namespace: Namespace, scope: Scope) -> Self {
        Self {
            namespace,
            scope,
            budget: Budget::default(),
            day: Spent::default(),
            month: Spent::default(),
            usual: 0,
            turn: 0,
            waiting: false,
        }
    }

    fn book(&self, period: Period) -> &Spent {
        match period {
            Period::Day => &self.day,
            Period::Month => &self.month,
        }
    }

    fn book_mut(&mut self, period: Period) -> &mut Spent {
        match period {
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
        }
    }

    /// Returns what was spent in the period that contains a time. A clock that was set back begins no new one.
    pub fn spent(&self, period: Period, now: Timestamp) -> i64 {
        let book = self.book(period);
        if book.period >= period.number(now) { book.micro_usd } else { 0 }
    }

    /// Adds a cost that was reported to the books of the day and the month. `turn` is the dearest of the turns that have caused it; zero
    /// if that is not known.
    pub fn add(&mut self, micro_usd: i64, turn: i64, now: Timestamp) {
        if self.scope.agent().is_some() && turn > 0 {
            self.turn = turn.max(average(self.turn, turn));
        }
        for period in Period::ALL {
            let number = period.number(now);
            let book = self.book_mut(period);
            if book.period < number {
                *book = Spent { period: number, ..Spent::default() };
            }
            book.micro_usd = book.micro_usd.saturating_add(micro_usd);
        }
    }

    /// Takes in what an attempt has cost in all.
    pub fn observe_attempt(&mut self, micro_usd: i64) {
        self.usual = match self.usual {
            0 => micro_usd,
            usual => average(usual, micro_usd),
        };
    }

    /// Replaces what was spent in the period that contains a time. What attempts and turns cost is learned again: it may come from
    /// the same mistake.
    pub fn correct(&mut self, period: Period, micro_usd: i64, now: Timestamp) {
        *self.book_mut(period) = Spent { period: period.number(now), micro_usd, warned: false };
        (self.usual, self.turn) = (0, 0);
    }

    /// Lets warnings of the current periods come once more, for a changed budget.
    pub fn forget_warnings(&mut self) {
        (self.day.warned, self.month.warned) = (false, false);
    }

    /// Takes the warning that is due, if one is: most of a limit is spent.
    pub fn take_warning(&mut self, budget: &Budget, now: Timestamp) -> Option<String> {
        let mut warning = None;
        for period in Period::ALL {
            let (spent, scope) = (self.spent(period, now), self.scope.clone());
            let Some(limit) = budget.limit(period) else { continue };
            let book = self.book_mut(period);
            if !book.warned && spent.saturating_mul(100) >= limit.saturating_mul(WARNING_PERCENT.into()) {
                book.warned = true;
                let text = format!(
                    "{scope} has spent {} of its {} budget of {}",
                    usd(spent),
                    period.name(),
                    usd(limit)
                );
                warning = Some(text);
            }
        }
        warning
    }

    /// Returns the period whose limit is reached; the longer one of two.
    pub fn exhausted(&self, budget: &Budget, now: Timestamp) -> Option<Period> {
        let reached =
            |period: &Period| budget.limit(*period).is_some_and(|limit| self.spent(*period, now) >= limit);
        Period::ALL.into_iter().rev().find(reached)
    }

    /// Returns the period whose limit leaves no room for an attempt with a cost; the longer one of two. `reserved` is what
    /// running attempts may still spend. What usually costs more than the whole limit may use all of it.
    pub fn blocked(&self, budget: &Budget, reserved: i64, cost: i64, now: Timestamp) -> Option<Period> {
        let full = |period: &Period| {
            budget.limit(*period).is_some_and(|limit| {
                let spent = self.spent(*period, now);
                let taken = spent.saturating_add(reserved);
                spent >= limit || taken.saturating_add(cost.min(limit)) > limit
            })
        };
        Period::ALL.into_iter().rev().find(full)
    }

    /// Returns the smallest room that a limit leaves; `None` if nothing is limited.
    pub fn room(&self, budget: &Budget, reserved: i64, now: Timestamp) -> Option<i64> {
        let room = |period: Period| {
            let taken = self.spent(period, now).saturating_add(reserved);
            Some(budget.limit(period)?.saturating_sub(taken).max(0))
        };
        Period::ALL.into_iter().filter_map(room).min()
    }

    /// Returns the wait for the next period.
    pub fn wait(&self, period: Period, now: Timestamp) -> BudgetWait {
        BudgetWait { scope: self.scope.clone(), period, since: now, until: period.end(now) }
    }
}

/// Moves an average towards one more cost.
fn average(before: i64, micro_usd: i64) -> i64 {
    before.saturating_mul(USUAL_WEIGHT).saturating_add(micro_usd) / (USUAL_WEIGHT + 1)
}

fn is_zero(micro_usd: &i64) -> bool {
    *micro_usd == 0
}

#[cfg(test)]
mod tests;
