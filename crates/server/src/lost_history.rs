//! The last loss of commits of the store as a cause, with tasks that have lost events. Knows nothing of how they are found.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use rota_core::Timestamp;

use crate::health::{Cause, State};
use crate::lineage::Loss;
use crate::wire::time::rfc3339;

/// How long lost commits are a cause after they were noticed, by the clock of the store.
const SHOWN: Duration = Duration::from_secs(24 * 3600);
/// Tasks that the cause names.
const MAX_NAMED: usize = 20;

#[derive(Debug)]
pub(crate) struct LostHistory {
    pub(crate) loss: Option<Loss>,
    /// Names of tasks, at most one more than the cause names.
    tasks: Mutex<BTreeSet<String>>,
}

impl LostHistory {
    pub(crate) fn new(loss: Option<Loss>) -> Self {
        Self { loss, tasks: Mutex::default() }
    }

    /// Records a task that continues without events of it.
    pub(crate) fn lost_events(&self, task: String) {
        let mut tasks = self.tasks.lock();
        if tasks.len() <= MAX_NAMED {
            tasks.insert(task);
        }
    }

    pub(crate) fn cause(&self, now: Timestamp) -> Option<Cause> {
        let loss = self.loss.filter(|loss| now < loss.noticed + SHOWN)?;
        Some(Cause {
            state: State::Degraded,
            code: "history_lost",
            subject: String::new(),
            message: format!(
                "the store has lost the commits {} to {}, noticed {}: its database was restored, or continues on a standby that lacks them{}",
                loss.kept + 1,
                loss.lost,
                rfc3339(loss.noticed),
                self.affected()
            ),
            hint: "create again what is missing; with a synchronous standby, a failover loses nothing"
                .to_owned(),
        })
    }

    fn affected(&self) -> String {
        let tasks = self.tasks.lock();
        if tasks.is_empty() {
            return String::new();
        }
        let named: Vec<_> = tasks.iter().take(MAX_NAMED).map(String::as_str).collect();
        let others = if tasks.len() > MAX_NAMED { " and others" } else { "" };
        format!("; events were lost of {}{others}", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_many_tasks_are_named() {
        let noticed = Timestamp(1_000_000);
        let history = LostHistory::new(Some(Loss { kept: 4, lost: 9, noticed }));
        let message = || history.cause(noticed).unwrap().message;
        assert!(message().contains("commits 5 to 9") && message().ends_with("lacks them"), "{}", message());
        for number in 10..30 {
            history.lost_events(format!("tasks/{number}"));
            history.lost_events(format!("tasks/{number}"));
        }
        assert!(message().contains("events were lost of tasks/10, tasks/11, "), "{}", message());
        assert!(message().matches("tasks/").count() == MAX_NAMED && message().ends_with("tasks/29"));
        for number in 30..99 {
            history.lost_events(format!("tasks/{number}"));
        }
        assert!(message().ends_with("tasks/29 and others"), "{}", message());
        assert_eq!(history.tasks.lock().len(), MAX_NAMED + 1);
        assert!(history.cause(noticed + SHOWN).is_none());
    }
}
