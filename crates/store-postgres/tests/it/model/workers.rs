//! A worker with one attempt, and two replicas, of which one may believe for any time that it still owns the database. Messages to the worker
//! name no epoch of their owner: they are sent after the commit that they follow from, on the stream of a session that is a commit, too.

use stateright::{Model, Property};

/// Largest epoch of the exploration.
const LAST_EPOCH: u8 = 3;

pub(super) const SPARED: &str = "an attempt is abandoned only once the store has ended it";
pub(super) const ASSIGNED: &str = "a worker runs only what the store has assigned";

/// Rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A worker receives what an owner has decided before that is committed.
    SentBeforeCommit,
    /// A session is opened from memory, without a commit.
    WelcomedFromMemory,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Attempt {
    #[default]
    Unknown,
    Running,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Change {
    Assign,
    End,
    OpenSession,
}

/// Replica that believes to own the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    epoch: u8,
    memory: Attempt,
    /// Commit on its way to the database.
    pending: Option<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Assign,
    End,
    /// Opens the stream: whether the attempt of the worker continues.
    Welcome(bool),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Worker {
    attempt: Attempt,
    /// Replica whose stream is open, and its epoch.
    stream: Option<(usize, u8)>,
    /// What is on its way on the stream.
    messages: Vec<Message>,
    /// Replica that was asked for a session.
    asked: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    epoch: u8,
    stored: Attempt,
    owners: [Option<Owner>; 2],
    worker: Worker,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    TakeOver(usize),
    Decide(usize, Change),
    Execute(usize),
    Connect(usize),
    Deliver,
    Disconnect,
}

pub(super) struct Workers {
    pub(super) mutant: Option<Mutant>,
}

impl State {
    fn is_attached(&self, replica: usize) -> bool {
        self.worker.stream.is_some_and(|(at, _)| at == replica)
    }

    /// Sends what follows from a change. The memory of the owner has the change already, or is about to have it.
    fn send(&mut self, replica: usize, change: Change) {
        let Some(owner) = &self.owners[replica] else { return };
        match change {
            Change::Assign if self.is_attached(replica) => self.worker.messages.push(Message::Assign),
            Change::End if self.is_attached(replica) => self.worker.messages.push(Message::End),
            Change::OpenSession if self.worker.asked == Some(replica) => {
                let continues = owner.memory == Attempt::Running;
                self.worker.asked = None;
                self.worker.stream = Some((replica, owner.epoch));
                self.worker.messages = vec![Message::Welcome(continues)];
            }
            _ => {}
        }
    }

    fn disconnect(&mut self) {
        self.worker.stream = None;
        self.worker.messages.clear();
    }

    /// A commit is executed under the epoch of its sender. An owner that learns of the next one ends, with its streams.
    fn execute(&mut self, model: &Workers, replica: usize) -> Option<()> {
        let owner = self.owners[replica].as_mut()?;
        let change = owner.pending.take()?;
        if owner.epoch != self.epoch {
            self.owners[replica] = None;
            if self.worker.asked == Some(replica) {
                self.worker.asked = None;
            }
            if self.is_attached(replica) {
                self.disconnect();
            }
            return Some(());
        }
        match change {
            Change::Assign => owner.memory = Attempt::Running,
            Change::End => owner.memory = Attempt::Ended,
            Change::OpenSession => {}
        }
        self.stored = owner.memory;
        if !model.sends_early(change) {
            self.send(replica, change);
        }
        Some(())
    }

    fn deliver(&mut self) -> Option<()> {
        if self.worker.messages.is_empty() {
            return None;
        }
        let attempt = &mut self.worker.attempt;
        match self.worker.messages.remove(0) {
            Message::Assign => *attempt = Attempt::Running,
            Message::End | Message::Welcome(false) if *attempt == Attempt::Running => {
                *attempt = Attempt::Ended
            }
            Message::End | Message::Welcome(_) => {}
        }
        Some(())
    }
}

impl Workers {
    /// Whether a mutant sends what follows from a change before its commit.
    fn sends_early(&self, change: Change) -> bool {
        match self.mutant {
            Some(Mutant::SentBeforeCommit) => change != Change::OpenSession,
            Some(Mutant::WelcomedFromMemory) => change == Change::OpenSession,
            None => false,
        }
    }
}

impl Model for Workers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Owner { epoch: 1, memory: Attempt::Unknown, pending: None };
        let (owners, worker) = ([Some(first), None], Worker::default());
        vec![State { epoch: 1, stored: Attempt::Unknown, owners, worker }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (replica, owner) in state.owners.iter().enumerate() {
            match owner {
                None if state.epoch < LAST_EPOCH => actions.push(Action::TakeOver(replica)),
                None => {}
                Some(Owner { pending: Some(_), .. }) => actions.push(Action::Execute(replica)),
                Some(owner) => {
                    match owner.memory {
                        Attempt::Unknown if state.is_attached(replica) => {
                            actions.push(Action::Decide(replica, Change::Assign));
                        }
                        Attempt::Running => actions.push(Action::Decide(replica, Change::End)),
                        Attempt::Unknown | Attempt::Ended => {}
                    }
                    if state.worker.stream.is_none() && state.worker.asked.is_none() {
                        actions.push(Action::Connect(replica));
                    }
                }
            }
        }
        if !state.worker.messages.is_empty() {
            actions.push(Action::Deliver);
        }
        if state.worker.stream.is_some() {
            actions.push(Action::Disconnect);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::TakeOver(replica) => {
                next.epoch += 1;
                let (epoch, memory) = (next.epoch, next.stored);
                next.owners[replica] = Some(Owner { epoch, memory, pending: None });
            }
            Action::Decide(replica, change) => {
                next.owners[replica].as_mut()?.pending = Some(change);
                if self.sends_early(change) {
                    next.send(replica, change);
                }
            }
            Action::Execute(replica) => next.execute(self, replica)?,
            Action::Connect(replica) => {
                next.owners[replica].as_mut()?.pending = Some(Change::OpenSession);
                next.worker.asked = Some(replica);
                if self.sends_early(Change::OpenSession) {
                    next.send(replica, Change::OpenSession);
                }
            }
            Action::Deliver => next.deliver()?,
            Action::Disconnect => next.disconnect(),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let spared: fn(&Self, &State) -> bool =
            |_, state| state.worker.attempt != Attempt::Ended || state.stored == Attempt::Ended;
        let assigned: fn(&Self, &State) -> bool =
            |_, state| state.worker.attempt == Attempt::Unknown || state.stored != Attempt::Unknown;
        let mut all = vec![Property::always(SPARED, spared), Property::always(ASSIGNED, assigned)];
        match self.mutant {
            // The search for a counterexample ends with the first one.
            Some(_) => all.truncate(1),
            None => {
                let stale: fn(&Self, &State) -> bool = |_, state| {
                    let is_old = state.worker.stream.is_some_and(|(_, epoch)| epoch < state.epoch);
                    is_old && state.worker.attempt == Attempt::Running
                };
                let ended: fn(&Self, &State) -> bool =
                    |_, state| state.epoch > 1 && state.worker.attempt == Attempt::Ended;
                all.push(Property::sometimes("a stale owner has the worker", stale));
                all.push(Property::sometimes("a later owner ends the attempt", ended));
            }
        }
        all
    }
}
