//! Two replicas that commit to one database, whose answers may be lost, and which may be replaced by an earlier state of itself;
//! and a watcher that is connected to one of them after the other. Leases are left out: a replica takes over at any time, since
//! no rule of this model depends on them.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::mutants::{Bounds, COMPLETE, KEPT, Mutant, ONCE, ONE_HISTORY, UP_TO_DATE};
use super::rules;

/// Commit in the log of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Entry {
    /// Beginning of a run, with its id.
    Run(u8),
    /// What a client has asked for: a call with an idempotency key.
    Operation(u8),
}

pub(super) type Log = Vec<Entry>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Database {
    pub(super) epoch: u8,
    /// Run of the owner: each process has an identity of its own.
    owner: Option<u8>,
    pub(super) log: Log,
}

/// Commit on its way to the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Sent {
    replica: usize,
    run: u8,
    pub(super) epoch: u8,
    /// Commits that its sender knows of.
    pub(super) basis: Log,
    entry: Entry,
}

/// Replica that believes to own the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    epoch: u8,
    run: u8,
    memory: Log,
    /// Commit whose answer it waits for, or does not know.
    pending: Option<Entry>,
    connected: bool,
}

impl Owner {
    fn serves(&self) -> bool {
        self.memory.contains(&Entry::Run(self.run))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Watcher {
    /// Replica and run that the watcher is, or was last, connected to.
    at: Option<(usize, u8)>,
    /// Number of the next entry.
    position: usize,
    seen: Log,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) database: Database,
    /// Earlier state, such as that of an asynchronous standby or a backup.
    copy: Option<Database>,
    in_flight: BTreeSet<Sent>,
    owners: [Option<Owner>; 2],
    acknowledged: BTreeSet<u8>,
    /// Operations that were lost with the database.
    lost: BTreeSet<u8>,
    watcher: Watcher,
    /// Last number that was given to a run or an epoch.
    pub(super) issued: u8,
    replacements: u8,
    /// A commit followed another log than the one that its sender knew.
    forked: bool,
    /// An answer lacked what was acknowledged before.
    stale: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    TakeOver(usize),
    Submit(usize, u8),
    /// The database executes a commit; its answer arrives, or is lost with the connection.
    Execute(Sent, bool),
    Drop(Sent),
    Disconnect(usize),
    /// A commit that is known not to be made is repeated, or refused.
    Reconnect(usize, bool),
    /// Answers from memory, without a commit.
    Answer(usize),
    Crash(usize),
    HandOver(usize),
    Copy,
    /// The database is replaced by its copy: with all connections ended, or under the eyes of its owners.
    Replace(bool),
    Attach(usize),
    Deliver,
}

pub(super) struct Commits {
    pub(super) bounds: Bounds,
    pub(super) mutant: Option<Mutant>,
}

/// Whether a state has a property.
type Holds = fn(&Commits, &State) -> bool;

fn operations(log: &[Entry]) -> BTreeSet<u8> {
    let operation = |entry: &Entry| match entry {
        Entry::Operation(number) => Some(*number),
        Entry::Run(_) => None,
    };
    log.iter().filter_map(operation).collect()
}

impl State {
    fn send(&mut self, replica: usize) {
        let Some(Owner { epoch, run, memory, pending: Some(entry), .. }) = &self.owners[replica] else {
            return;
        };
        self.in_flight.insert(Sent {
            replica,
            run: *run,
            epoch: *epoch,
            basis: memory.clone(),
            entry: *entry,
        });
    }

    /// The owner learns that its commit is made, and answers.
    fn made(&mut self, replica: usize) {
        let Some(owner) = &mut self.owners[replica] else { return };
        if let Some(entry) = owner.pending.take() {
            owner.memory.push(entry);
            self.acknowledged.extend(operations(&[entry]));
        }
    }

    fn take_over(&mut self, model: &Commits, replica: usize) {
        self.issued += 1;
        let run = self.issued;
        self.database.epoch = rules::next_epoch(model, self);
        self.database.owner = Some(run);
        self.owners[replica] = Some(Owner {
            epoch: self.database.epoch,
            run,
            memory: self.database.log.clone(),
            pending: Some(Entry::Run(run)),
            connected: true,
        });
        self.send(replica);
    }

    fn execute(&mut self, model: &Commits, sent: &Sent, answered: bool) {
        self.in_flight.remove(sent);
        let passes = rules::fence_passes(model, &self.database, sent);
        let executed = passes || model.mutant == Some(Mutant::CountingFence);
        if executed {
            self.forked |= sent.basis != self.database.log;
            self.database.log.push(sent.entry);
        }
        let Some(owner) = self.owners[sent.replica].as_mut().filter(|owner| owner.run == sent.run) else {
            return;
        };
        let awaited = owner.connected && owner.epoch == sent.epoch && owner.pending == Some(sent.entry);
        match (awaited, answered) {
            (false, _) => {}
            (true, false) => owner.connected = false,
            (true, true) if executed => self.made(sent.replica),
            (true, true) => self.owners[sent.replica] = None,
        }
    }

    /// Ends the earlier sessions of an owner, opens another one under a raised epoch, and finds out what has become of the last commit.
    fn reconnect(&mut self, model: &Commits, replica: usize, repeats: bool) {
        let run = self.owners[replica].as_ref().map(|owner| owner.run);
        if self.database.owner != run {
            self.owners[replica] = None;
            return;
        }
        self.in_flight.retain(|sent| Some(sent.run) != run);
        self.issued += 1;
        self.database.epoch = rules::next_epoch(model, self);
        let (epoch, found) = (self.database.epoch, self.database.log.len());
        let Some(owner) = &mut self.owners[replica] else { return };
        (owner.epoch, owner.connected) = (epoch, true);
        let doubtful = owner.pending.is_some();
        match found.checked_sub(owner.memory.len()) {
            _ if doubtful && model.mutant == Some(Mutant::DoubtTakenForMade) => self.made(replica),
            Some(1) if doubtful => self.made(replica),
            Some(0) if repeats => self.send(replica),
            // A run that has not begun does not serve, and ends.
            Some(0) if owner.serves() => owner.pending = None,
            _ => self.owners[replica] = None,
        }
    }

    /// Answers from memory: a read, or a call that was executed before.
    fn answer(&mut self, model: &Commits, replica: usize) {
        let Some(owner) = &self.owners[replica] else { return };
        if !rules::confirms(model, &self.database, owner.epoch) {
            self.owners[replica] = None;
            return;
        }
        let known = operations(&owner.memory);
        let stored = operations(&self.database.log);
        self.stale |= self.acknowledged.intersection(&stored).any(|operation| !known.contains(operation));
        self.acknowledged.extend(known);
    }

    fn replace(&mut self, ends_connections: bool) {
        let Some(copy) = self.copy.take() else { return };
        self.lost.extend(operations(&self.database.log).difference(&operations(&copy.log)));
        self.database = copy;
        self.replacements += 1;
        if ends_connections {
            self.in_flight.clear();
            self.owners.iter_mut().flatten().for_each(|owner| owner.connected = false);
        }
    }

    fn attach(&mut self, model: &Commits, replica: usize) {
        let Some(owner) = &self.owners[replica] else { return };
        let watcher = &mut self.watcher;
        let origin = watcher.at.map(|(_, run)| run);
        if !rules::contains(model, &owner.memory, origin, watcher.seen.len()) {
            watcher.seen.clear();
        }
        watcher.position = match model.mutant {
            Some(Mutant::NoResumeNumber) => owner.memory.len(),
            _ => watcher.seen.len(),
        };
        watcher.at = Some((replica, owner.run));
    }

    /// Returns what the replica of the watcher knows, while it is connected.
    fn watched(&self) -> Option<&Log> {
        let (replica, run) = self.watcher.at?;
        self.owners[replica].as_ref().filter(|owner| owner.run == run).map(|owner| &owner.memory)
    }
}

impl Commits {
    pub(super) fn new(bounds: Bounds, mutant: Option<Mutant>) -> Self {
        Self { bounds, mutant }
    }
}

impl Model for Commits {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (epoch, run) = (1, 1);
        let log = vec![Entry::Run(run)];
        let first = Owner { epoch, run, memory: log.clone(), pending: None, connected: true };
        vec![State {
            database: Database { epoch, owner: Some(run), log },
            copy: None,
            in_flight: BTreeSet::new(),
            owners: [Some(first), None],
            acknowledged: BTreeSet::new(),
            lost: BTreeSet::new(),
            watcher: Watcher::default(),
            issued: 1,
            replacements: 0,
            forked: false,
            stale: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let more = state.issued < self.bounds.issued;
        for (replica, owner) in state.owners.iter().enumerate() {
            let Some(owner) = owner else {
                actions.extend(more.then_some(Action::TakeOver(replica)));
                continue;
            };
            actions.push(Action::Crash(replica));
            if !owner.connected {
                let all = [true, false].map(|repeats| Action::Reconnect(replica, repeats));
                actions.extend(all.into_iter().filter(|_| more));
            } else {
                actions.push(Action::Disconnect(replica));
            }
            if owner.serves() && owner.pending.is_none() && owner.connected {
                let new = |number: &u8| !owner.memory.contains(&Entry::Operation(*number));
                let submitted = (0..self.bounds.operations).filter(new);
                actions.extend(submitted.map(|number| Action::Submit(replica, number)));
                actions.extend([Action::Answer(replica), Action::HandOver(replica)]);
            }
            if self.bounds.watches && owner.serves() && state.watcher.at != Some((replica, owner.run)) {
                actions.push(Action::Attach(replica));
            }
        }
        for sent in &state.in_flight {
            actions.extend([true, false].map(|answered| Action::Execute(sent.clone(), answered)));
            actions.push(Action::Drop(sent.clone()));
        }
        if state.replacements < self.bounds.replacements {
            if state.copy.as_ref() != Some(&state.database) {
                actions.push(Action::Copy);
            }
            if state.copy.is_some() {
                actions.extend([true, false].map(Action::Replace));
            }
        }
        if state.watched().is_some_and(|memory| state.watcher.position < memory.len()) {
            actions.push(Action::Deliver);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::TakeOver(replica) => next.take_over(self, replica),
            Action::Submit(replica, number) => {
                next.owners[replica].as_mut()?.pending = Some(Entry::Operation(number));
                next.send(replica);
                if self.mutant == Some(Mutant::AnswerBeforeCommit) {
                    next.acknowledged.insert(number);
                }
            }
            Action::Execute(sent, answered) => next.execute(self, &sent, answered),
            Action::Drop(sent) => {
                next.in_flight.remove(&sent);
            }
            Action::Disconnect(replica) => next.owners[replica].as_mut()?.connected = false,
            Action::Reconnect(replica, repeats) => next.reconnect(self, replica, repeats),
            Action::Answer(replica) => next.answer(self, replica),
            Action::Crash(replica) => next.owners[replica] = None,
            Action::HandOver(replica) => {
                let run = next.owners[replica].take().map(|owner| owner.run);
                if next.database.owner == run {
                    next.database.owner = None;
                }
            }
            Action::Copy => next.copy = Some(next.database.clone()),
            Action::Replace(ends_connections) => next.replace(ends_connections),
            Action::Attach(replica) => next.attach(self, replica),
            Action::Deliver => {
                let entry = *next.watched()?.get(next.watcher.position)?;
                next.watcher.seen.push(entry);
                next.watcher.position += 1;
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<(&'static str, Holds)> = vec![
            (KEPT, |_, state| {
                let stored = operations(&state.database.log);
                state.acknowledged.iter().all(|one| stored.contains(one) || state.lost.contains(one))
            }),
            (ONCE, |_, state| {
                let log = &state.database.log;
                log.iter().collect::<BTreeSet<_>>().len() == log.len()
            }),
            (ONE_HISTORY, |_, state| !state.forked),
            (UP_TO_DATE, |_, state| !state.stale),
            (COMPLETE, |_, state| {
                state.watched().is_none_or(|memory| memory.starts_with(&state.watcher.seen))
            }),
        ];
        // The search for a counterexample ends with the first one.
        all.retain(|(name, _)| self.mutant.is_none_or(|mutant| mutant.violates() == *name));
        let mut properties: Vec<_> =
            all.into_iter().map(|(name, holds)| Property::always(name, holds)).collect();
        if self.mutant.is_none() {
            properties.push(Property::sometimes("what was acknowledged is lost", |_, state: &State| {
                !state.lost.is_empty() && state.acknowledged.is_superset(&state.lost)
            }));
            properties.push(Property::sometimes("another replica acknowledges", |_, state: &State| {
                let second = state.owners[1].as_ref();
                second.is_some_and(|owner| owner.serves() && !operations(&owner.memory).is_empty())
            }));
        }
        properties
    }
}
