//! Every command, with every kind of standing that a worker's word may have.

use rota_core::failure::{Class, Failure};
use rota_core::rank::Priority;
use rota_core::task::{Command, DependencyKey, Desired, Ending, Held, Limits, Meaning, State};
use rota_core::{Epoch, Fence};

use crate::life::*;

/// One command to ask.
pub(super) struct Asked {
    pub(super) kind: &'static str,
    pub(super) label: &'static str,
    /// Said by who has not the live assignment: must never count.
    pub(super) foreign: bool,
    pub(super) command: Box<dyn Fn(&mut Life) -> Command>,
}

/// Every kind of command, in the page's order.
pub(super) const KINDS: [&str; 15] = [
    "Accept",
    "AgentAppeared",
    "AgentGone",
    "Assign",
    "Cycle",
    "DependencyEnded",
    "DependencyFound",
    "Finish",
    "GiveInput",
    "LoseWorker",
    "Reject",
    "Report",
    "Resume",
    "Tick",
    "Update",
];

/// A new command does not compile until it has a name here, and the tests do not pass until it is asked.
pub(super) fn kind(command: &Command) -> &'static str {
    match command {
        Command::Assign { .. } => "Assign",
        Command::Accept(_) => "Accept",
        Command::Reject { .. } => "Reject",
        Command::Report { .. } => "Report",
        Command::Finish { .. } => "Finish",
        Command::Resume { .. } => "Resume",
        Command::LoseWorker { .. } => "LoseWorker",
        Command::Tick => "Tick",
        Command::Update { .. } => "Update",
        Command::GiveInput { .. } => "GiveInput",
        Command::DependencyFound { .. } => "DependencyFound",
        Command::DependencyEnded { .. } => "DependencyEnded",
        Command::Cycle { .. } => "Cycle",
        Command::AgentAppeared { .. } => "AgentAppeared",
        Command::AgentGone => "AgentGone",
    }
}

fn asked(label: &'static str, foreign: bool, command: impl Fn(&mut Life) -> Command + 'static) -> Asked {
    let kind = kind(&command(&mut Life::new(plain())));
    Asked { kind, label, foreign, command: Box::new(command) }
}

type Twist = fn(&mut Held);

/// Words that do not count, as they differ from the live one.
const FOREIGN: [(&str, Twist); 5] = [
    ("an earlier fence", |held| held.fence = Fence(held.fence.0.saturating_sub(1))),
    ("a fence never given", |held| held.fence = Fence(held.fence.0 + 1)),
    ("another worker", |held| held.by.worker = worker("w9", 0).worker),
    ("an older session", |held| held.by.epoch = Epoch(EPOCH - 1)),
    ("a newer session that did not resume", |held| held.by.epoch = Epoch(EPOCH + 1)),
];

/// A worker's command by the live fence, then by all others.
fn by_all(list: &mut Vec<Asked>, label: &'static str, command: fn(Held) -> Command) {
    list.push(asked(label, false, move |life| command(life.live())));
    for (label, twist) in FOREIGN {
        list.push(asked(label, true, move |life| {
            let mut held = life.live();
            twist(&mut held);
            command(held)
        }));
    }
}

fn report(held: Held, first: u64, meaning: Meaning) -> Command {
    Command::Report { held, first, items: vec![item(meaning)] }
}

fn next(life: &Life) -> u64 {
    life.task.assignment.as_ref().map_or(1, |assignment| assignment.attempt_seq + 1)
}

fn throttled() -> Ending {
    Ending::Failed(Failure::new(Class::RateLimit, "too many requests"))
}

/// All of them, in the page's order.
pub(super) fn all() -> Vec<Asked> {
    let mut list = vec![asked("", false, |_| assign("w2", 1))];
    by_all(&mut list, "live fence", Command::Accept);
    by_all(&mut list, "live fence", |held| Command::Reject { held, reason: "no room".to_owned() });
    reports(&mut list);
    finishes(&mut list);
    sessions(&mut list);
    list.push(asked("nothing is due", false, |_| Command::Tick));
    list.push(asked("its time is due", false, |life| {
        life.now = life.task.due().unwrap_or(life.now);
        Command::Tick
    }));
    list.push(asked("a week too late", false, |life| {
        life.now = life.now + secs(7 * 24 * 3600);
        Command::Tick
    }));
    callers(&mut list);
    others(&mut list);
    list
}

fn reports(list: &mut Vec<Asked>) {
    by_all(list, "live fence, first item", |held| report(held, 1, Meaning::Plain));
    type What = fn(&Life) -> (u64, Meaning);
    let more: [(&str, What); 4] = [
        ("live fence, next item", |life| (next(life), Meaning::Plain)),
        ("live fence, items missing", |life| (next(life) + 1, Meaning::Plain)),
        ("live fence, asks", |life| {
            (next(life), Meaning::Asks { request: "q2".to_owned(), payload: "?".into() })
        }),
        ("live fence, settles", |life| (next(life), Meaning::Settles("q1".to_owned()))),
    ];
    for (label, what) in more {
        list.push(asked(label, false, move |life| {
            let (first, meaning) = what(life);
            report(life.live(), first, meaning)
        }));
    }
}

fn finishes(list: &mut Vec<Asked>) {
    by_all(list, "live fence, succeeded", |held| finish(held, succeeded()));
    type Made = fn() -> Ending;
    let more: [(&str, Made); 4] = [
        ("live fence, failed, worth another try", || failed(Class::Agent)),
        ("live fence, failed, useless to try again", || failed(Class::Auth)),
        ("live fence, throttled", throttled),
        ("live fence, stopped", stopped),
    ];
    for (label, ending) in more {
        list.push(asked(label, false, move |life| finish(life.live(), ending())));
    }
}

fn sessions(list: &mut Vec<Asked>) {
    let resumes: [(&str, bool, Twist); 6] = [
        ("same session", false, |_| {}),
        ("newer session", false, |held| held.by.epoch = Epoch(EPOCH + 1)),
        ("older session", true, |held| held.by.epoch = Epoch(EPOCH - 1)),
        ("another worker", true, |held| held.by.worker = worker("w9", 0).worker),
        ("an earlier fence", true, |held| held.fence = Fence(held.fence.0.saturating_sub(1))),
        ("a fence never given", true, |held| held.fence = Fence(held.fence.0 + 1)),
    ];
    for (label, foreign, twist) in resumes {
        list.push(asked(label, foreign, move |life| {
            let mut held = life.live();
            twist(&mut held);
            Command::Resume { by: held.by, fence: held.fence }
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
            message: "it is gone".to_owned(),
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
    list.push(asked("nothing new", false, move |_| change(Some(Priority::NORMAL), None)));
    list.push(asked("out of turn", false, |_| answer("")));
    list.push(asked("answers an open question", false, |_| answer("q1")));
    list.push(asked("answers no question", false, |_| answer("q9")));
}

fn others(list: &mut Vec<Asked>) {
    let key = || DependencyKey::Alias("build".to_owned());
    list.push(asked("", false, move |_| Command::DependencyFound { key: key(), id: id(3) }));
    for (label, number, state) in [
        ("succeeded", 2, State::Succeeded),
        ("failed", 2, State::Failed),
        ("cancelled", 2, State::Cancelled),
        ("one that it does not wait for", 8, State::Failed),
    ] {
        list.push(asked(label, false, move |_| Command::DependencyEnded { id: id(number), state }));
    }
    list.push(asked("", false, |_| Command::Cycle { path: vec![id(1), id(2), id(1)] }));
    list.push(asked("", false, |_| appeared(Limits::default())));
    list.push(asked("", false, |_| Command::AgentGone));
}
