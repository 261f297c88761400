//! Every command, and every way in which a report can be stale.

use rota_core::failure::{Class, Failure};
use rota_core::quota::{CredentialId, ModelAccess};
use rota_core::rank::Priority;
use rota_core::spending::{BudgetWait, Scope};
use rota_core::task::{
    AttemptRef, Command, Completion, DependencyKey, Desired, EventEffect, Limits, Loss, Settings, State,
};
use rota_core::{Epoch, Fence};

use crate::harness::*;

const CREDENTIAL: CredentialId = CredentialId([7; 8]);

/// One row of the table.
pub(super) struct Asked {
    pub(super) kind: &'static str,
    pub(super) label: &'static str,
    /// Sent without the live assignment: must never count.
    pub(super) foreign: bool,
    pub(super) command: Box<dyn Fn(&mut Harness) -> Command>,
}

pub(super) const KINDS: [&str; 29] = [
    "Accept",
    "Acknowledge",
    "AddChild",
    "AgentAppeared",
    "AgentDeleted",
    "Assign",
    "AwaitBudget",
    "AwaitQuota",
    "BudgetLifted",
    "ClockJumped",
    "Cycle",
    "DependencyEnded",
    "DependencyFound",
    "Finish",
    "GiveInput",
    "KeepArtifacts",
    "LoseWorker",
    "QuotaLifted",
    "Reject",
    "Release",
    "Report",
    "Resume",
    "Stop",
    "ThreadPassedOn",
    "Tick",
    "Update",
    "UpdateAsRead",
    "UseModel",
    "WarnOfBudget",
];

/// Names a command. A new one does not compile without an arm here, and fails the tests without a row.
pub(super) fn kind(command: &Command) -> &'static str {
    match command {
        Command::Assign { .. } => "Assign",
        Command::Accept(_) => "Accept",
        Command::Acknowledge { .. } => "Acknowledge",
        Command::AddChild { .. } => "AddChild",
        Command::UseModel { .. } => "UseModel",
        Command::AwaitQuota { .. } => "AwaitQuota",
        Command::QuotaLifted { .. } => "QuotaLifted",
        Command::AwaitBudget(_) => "AwaitBudget",
        Command::BudgetLifted { .. } => "BudgetLifted",
        Command::WarnOfBudget { .. } => "WarnOfBudget",
        Command::Reject { .. } => "Reject",
        Command::Report { .. } => "Report",
        Command::KeepArtifacts { .. } => "KeepArtifacts",
        Command::Release { .. } => "Release",
        Command::Finish { .. } => "Finish",
        Command::Resume { .. } => "Resume",
        Command::LoseWorker { .. } => "LoseWorker",
        Command::Stop { .. } => "Stop",
        Command::Tick { .. } => "Tick",
        Command::ClockJumped { .. } => "ClockJumped",
        Command::Update { .. } => "Update",
        Command::UpdateAsRead { .. } => "UpdateAsRead",
        Command::GiveInput { .. } => "GiveInput",
        Command::DependencyFound { .. } => "DependencyFound",
        Command::DependencyEnded { .. } => "DependencyEnded",
        Command::ThreadPassedOn { .. } => "ThreadPassedOn",
        Command::Cycle { .. } => "Cycle",
        Command::AgentAppeared { .. } => "AgentAppeared",
        Command::AgentDeleted => "AgentDeleted",
    }
}

fn asked(label: &'static str, foreign: bool, command: impl Fn(&mut Harness) -> Command + 'static) -> Asked {
    let kind = kind(&command(&mut Harness::new(plain())));
    Asked { kind, label, foreign, command: Box::new(command) }
}

type Twist = fn(&mut AttemptRef);

/// Stale references, by their difference from the live one.
const FOREIGN: [(&str, Twist); 5] = [
    ("an earlier fence", |attempt| attempt.fence = Fence(attempt.fence.0.saturating_sub(1))),
    ("a fence never issued", |attempt| attempt.fence = Fence(attempt.fence.0 + 1)),
    ("another worker", |attempt| attempt.by.worker = worker("w9", 0).worker),
    ("an older session", |attempt| attempt.by.epoch = Epoch(EPOCH - 1)),
    ("a newer session that did not resume", |attempt| attempt.by.epoch = Epoch(EPOCH + 1)),
];

/// Adds a report with the live reference, then with every stale one.
fn by_all(list: &mut Vec<Asked>, label: &'static str, command: fn(AttemptRef) -> Command) {
    list.push(asked(label, false, move |harness| command(harness.live())));
    for (label, twist) in FOREIGN {
        list.push(asked(label, true, move |harness| {
            let mut attempt = harness.live();
            twist(&mut attempt);
            command(attempt)
        }));
    }
}

fn report(attempt: AttemptRef, first: u64, effect: EventEffect) -> Command {
    Command::Report { attempt, first, items: vec![item(effect)] }
}

fn next(harness: &Harness) -> u64 {
    harness.task.assignment.as_ref().map_or(1, |assignment| assignment.attempt_seq + 1)
}

fn rate_limited() -> Completion {
    Completion::Failed(Failure::new(Class::RateLimit, "too many requests"))
}

/// Returns all rows in order.
pub(super) fn all() -> Vec<Asked> {
    let mut list = vec![asked("", false, |_| assign("w2", 1))];
    by_all(&mut list, "live fence", Command::Accept);
    by_all(&mut list, "live fence", |attempt| Command::UseModel {
        attempt,
        access: ModelAccess { credential: Some(CREDENTIAL), ..ModelAccess::default() },
    });
    by_all(&mut list, "live fence", |attempt| Command::Reject { attempt, reason: "no room".to_owned() });
    reports(&mut list);
    by_all(&mut list, "live fence", |attempt| Command::KeepArtifacts {
        attempt,
        list: "list".into(),
        checkpoint: true,
        unusable: false,
    });
    by_all(&mut list, "live fence", |attempt| Command::Release { attempt, requests: vec!["q1".to_owned()] });
    finishes(&mut list);
    sessions(&mut list);
    list.push(asked("no deadline has passed", false, |_| Command::TICK));
    list.push(asked("a deadline has passed", false, |harness| {
        harness.now = harness.task.due().unwrap_or(harness.now);
        Command::TICK
    }));
    list.push(asked("a week late", false, |harness| {
        harness.now = harness.now + secs(7 * 24 * 3600);
        Command::TICK
    }));
    list.push(asked("after an hour's sleep", false, |harness| {
        harness.now = harness.now + secs(3600);
        Command::ClockJumped { by: secs(3600), at: harness.now }
    }));
    callers(&mut list);
    others(&mut list);
    list
}

fn reports(list: &mut Vec<Asked>) {
    by_all(list, "live fence, first item", |attempt| report(attempt, 1, EventEffect::None));
    type What = fn(&Harness) -> (u64, EventEffect);
    let more: [(&str, What); 4] = [
        ("live fence, next item", |harness| (next(harness), EventEffect::None)),
        ("live fence, items missing", |harness| (next(harness) + 1, EventEffect::None)),
        ("live fence, input requested", |harness| {
            (next(harness), EventEffect::InputRequested { request: "q2".to_owned(), payload: "?".into() })
        }),
        ("live fence, input resolved", |harness| {
            (next(harness), EventEffect::InputResolved("q1".to_owned()))
        }),
    ];
    for (label, what) in more {
        list.push(asked(label, false, move |harness| {
            let (first, effect) = what(harness);
            report(harness.live(), first, effect)
        }));
    }
}

fn finishes(list: &mut Vec<Asked>) {
    by_all(list, "live fence, succeeded", |attempt| finish(attempt, succeeded()));
    type Made = fn() -> Completion;
    let more: [(&str, Made); 5] = [
        ("live fence, failed, retryable", || failed(Class::Agent)),
        ("live fence, failed, not retryable", || failed(Class::Refusal)),
        ("live fence, rate-limited", rate_limited),
        ("live fence, undelivered", undelivered),
        ("live fence, stopped", stopped),
    ];
    for (label, completion) in more {
        list.push(asked(label, false, move |harness| finish(harness.live(), completion())));
    }
}

fn sessions(list: &mut Vec<Asked>) {
    let resumes: [(&str, bool, Twist); 6] = [
        ("same session", false, |_| {}),
        ("newer session", false, |attempt| attempt.by.epoch = Epoch(EPOCH + 1)),
        ("older session", true, |attempt| attempt.by.epoch = Epoch(EPOCH - 1)),
        ("another worker", true, |attempt| attempt.by.worker = worker("w9", 0).worker),
        ("an earlier fence", true, |attempt| attempt.fence = Fence(attempt.fence.0.saturating_sub(1))),
        ("a fence never issued", true, |attempt| attempt.fence = Fence(attempt.fence.0 + 1)),
    ];
    for (label, foreign, twist) in resumes {
        list.push(asked(label, foreign, move |harness| {
            let mut attempt = harness.live();
            twist(&mut attempt);
            Command::Resume { by: attempt.by, fence: attempt.fence }
        }));
    }
    for (label, name, epoch, foreign) in [
        ("this session", "w1", EPOCH, false),
        ("sessions up to a newer one", "w1", EPOCH + 1, false),
        ("an older session", "w1", EPOCH - 1, true),
        ("another worker", "w9", EPOCH, true),
    ] {
        list.push(asked(label, foreign, move |_| Command::LoseWorker {
            session: worker(name, epoch),
            loss: Loss::Died,
            seen: None,
            message: "it disconnected".to_owned(),
        }));
    }
}

fn callers(list: &mut Vec<Asked>) {
    let change = |priority, team: Option<&str>| Command::Update {
        priority,
        labels: team.map(|team| [("team".to_owned(), team.to_owned())].into()),
        desired: None,
        reason: String::new(),
    };
    list.push(asked("priority", false, move |_| change(Some(Priority::HIGH), None)));
    list.push(asked("labels", false, move |_| change(None, Some("a"))));
    list.push(asked("suspend", false, |_| update(Desired::Suspended)));
    list.push(asked("run", false, |_| update(Desired::Run)));
    list.push(asked("cancel", false, |_| update(Desired::Cancelled)));
    list.push(asked("no difference", false, move |_| change(Some(Priority::NORMAL), None)));
    let as_read = |read| Command::UpdateAsRead {
        read,
        priority: Some(Priority::HIGH),
        labels: None,
        desired: None,
        reason: String::new(),
    };
    list.push(asked("of these settings", false, move |harness| as_read(harness.task.settings())));
    list.push(asked("of other settings", false, move |harness| {
        as_read(Settings { priority: Priority::LOW, ..harness.task.settings() })
    }));
    list.push(asked("unsolicited", false, |_| answer("")));
    list.push(asked("answers an open request", false, |_| answer("q1")));
    list.push(asked("answers no request", false, |_| answer("q9")));
}

fn others(list: &mut Vec<Asked>) {
    let key = || DependencyKey::Alias("build".to_owned());
    list.push(asked("", false, move |_| Command::DependencyFound { key: key(), id: id(3) }));
    for (label, number, state) in [
        ("succeeded", 2, State::Succeeded),
        ("failed", 2, State::Failed),
        ("cancelled", 2, State::Cancelled),
        ("not a dependency", 8, State::Failed),
    ] {
        list.push(asked(label, false, move |_| Command::DependencyEnded { id: id(number), state }));
    }
    list.push(asked("", false, |harness| Command::AwaitQuota {
        credential: CREDENTIAL,
        limit: "five_hour".to_owned(),
        since: harness.now,
        until: harness.now + secs(3600),
        retry_at: harness.now + secs(3600),
    }));
    list.push(asked("", false, |_| Command::QuotaLifted { credential: CREDENTIAL }));
    list.push(asked("", false, |_| Command::ThreadPassedOn { id: id(2), next: id(3) }));
    list.push(asked("", false, |harness| {
        let wait = budget_wait();
        Command::AwaitBudget(BudgetWait { since: harness.now, until: harness.now + secs(3600), ..wait })
    }));
    list.push(asked("", false, |_| Command::BudgetLifted { scope: Scope::Namespace }));
    list.push(asked("", false, |_| Command::AddChild { id: id(2) }));
    list.push(asked("", false, |_| Command::Acknowledge { reason: String::new() }));
    let message = || "the namespace has spent most of its budget".to_owned();
    list.push(asked("", false, move |_| Command::WarnOfBudget { message: message() }));
    list.push(asked("", false, |_| Command::Cycle { path: vec![id(1), id(2)], omitted: 0 }));
    list.push(asked("", false, |_| appeared(Limits::default())));
    list.push(asked("", false, |_| Command::AgentDeleted));
    list.push(asked("fails the task", false, |harness| stop(harness.task.fence, false)));
    list.push(asked("queues the task", false, |harness| stop(harness.task.fence, true)));
}
