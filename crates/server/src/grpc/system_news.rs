//! What has changed between two looks at the control plane: problems, which its watchers learn immediately, or numbers alone, which can
//! wait. Without that, a message with the length of a queue would be sent each second.

use rota_proto::v1::{BackgroundTask, Breaker, Cause, Replica, SystemStatus};

/// Difference between what watchers have and what is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    /// Counts, or the numbers in messages.
    Numbers,
    /// The state, a cause, a breaker or a replica.
    Problem,
}

impl News {
    pub(super) fn between(last: &SystemStatus, now: &SystemStatus) -> Self {
        let is_available = |status: &SystemStatus| status.store.as_ref().map(|store| store.available);
        let is_same_problem = last.state == now.state
            && is_available(last) == is_available(now)
            && all(&last.causes, &now.causes, is_same_cause)
            && all(&last.breakers, &now.breakers, is_same_breaker)
            && all(&last.replicas, &now.replicas, is_same_replica);
        if !is_same_problem {
            return Self::Problem;
        }
        let is_same = last.counts == now.counts
            && last.causes == now.causes
            && last.breakers == now.breakers
            && write_error(last) == write_error(now)
            && all(&last.background_tasks, &now.background_tasks, is_same_background_task);
        if is_same { Self::None } else { Self::Numbers }
    }
}

fn all<T>(last: &[T], now: &[T], is_same: impl Fn(&T, &T) -> bool) -> bool {
    last.len() == now.len() && last.iter().zip(now).all(|(last, now)| is_same(last, now))
}

/// Whether two causes differ in numbers at most.
fn is_same_cause(last: &Cause, now: &Cause) -> bool {
    last.code == now.code && last.hint == now.hint && has_same_words(&last.message, &now.message)
}

fn has_same_words(last: &str, now: &str) -> bool {
    let is_word = |char: &char| !char.is_ascii_digit();
    last.chars().filter(is_word).eq(now.chars().filter(is_word))
}

fn is_same_breaker(last: &Breaker, now: &Breaker) -> bool {
    (&last.agent, &last.backend, last.state) == (&now.agent, &now.backend, now.state)
}

/// The rest of a lease is another one each time.
fn is_same_replica(last: &Replica, now: &Replica) -> bool {
    (&last.name, &last.version, last.owner) == (&now.name, &now.version, now.owner)
}

/// Most of them succeed every few seconds.
fn is_same_background_task(last: &BackgroundTask, now: &BackgroundTask) -> bool {
    (&last.name, last.state, &last.error) == (&now.name, now.state, &now.error)
}

fn write_error(status: &SystemStatus) -> Option<&str> {
    status.store.as_ref().map(|store| store.write_error.as_str())
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{BackgroundTaskState, BreakerState, SystemCounts, SystemState};

    use super::*;

    fn overloaded(message: &str) -> SystemStatus {
        let cause = Cause { code: "too_many_tasks".into(), message: message.into(), hint: "wait".into() };
        SystemStatus { state: SystemState::Degraded.into(), causes: vec![cause], ..SystemStatus::default() }
    }

    #[test]
    fn numbers_in_messages_can_wait() {
        let last = overloaded("81 tasks wait, of 100 that may");
        assert_eq!(News::between(&last, &last.clone()), News::None);
        let longer = overloaded("8234 tasks wait, of 10000 that may");
        assert_eq!(News::between(&last, &longer), News::Numbers);
        let other = overloaded("81 tasks of the namespace team wait, of 100 that may");
        assert_eq!(News::between(&last, &other), News::Problem);
        let worse = SystemStatus { state: SystemState::Error.into(), ..last.clone() };
        assert_eq!(News::between(&last, &worse), News::Problem);
        assert_eq!(News::between(&last, &SystemStatus::default()), News::Problem);
    }

    #[test]
    fn successes_and_leases_are_no_news() {
        let background = |succeeded, state: BackgroundTaskState| BackgroundTask {
            name: "timers".into(),
            state: state.into(),
            succeeded,
            ..BackgroundTask::default()
        };
        let lease = |seconds| Replica {
            name: "one".into(),
            lease: Some(std::time::Duration::from_secs(seconds).into()),
            ..Replica::default()
        };
        let status = |succeeded, state, seconds| SystemStatus {
            background_tasks: vec![background(succeeded, state)],
            replicas: vec![lease(seconds)],
            ..SystemStatus::default()
        };
        let last = status(1, BackgroundTaskState::Idle, 9);
        assert_eq!(News::between(&last, &status(2, BackgroundTaskState::Idle, 3)), News::None);
        assert_eq!(News::between(&last, &status(2, BackgroundTaskState::Running, 3)), News::Numbers);
        let alone = SystemStatus { replicas: Vec::new(), ..last.clone() };
        assert_eq!(News::between(&last, &alone), News::Problem);
    }

    #[test]
    fn counts_can_wait_and_breakers_cannot() {
        let breaker = |state: BreakerState, failures| Breaker {
            agent: "namespaces/default/agents/a".into(),
            state: state.into(),
            failures,
            ..Breaker::default()
        };
        let status = |running_tasks, breaker| SystemStatus {
            counts: Some(SystemCounts { running_tasks, ..SystemCounts::default() }),
            breakers: vec![breaker],
            ..SystemStatus::default()
        };
        let last = status(1, breaker(BreakerState::Closed, 1));
        assert_eq!(News::between(&last, &status(2, breaker(BreakerState::Closed, 1))), News::Numbers);
        assert_eq!(News::between(&last, &status(1, breaker(BreakerState::Closed, 2))), News::Numbers);
        assert_eq!(News::between(&last, &status(1, breaker(BreakerState::Open, 2))), News::Problem);
    }
}
