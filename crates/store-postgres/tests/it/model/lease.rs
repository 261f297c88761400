//! Two replicas and the lease in the database, in units of time that pass for all alike. Messages take any time.

use stateright::{Model, Property};

/// Duration of a lease, and of the exploration.
const LEASE: u8 = 2;
const END: u8 = 6;

pub(super) const ONE_HOLDER: &str = "at most one replica believes to hold the lease";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    /// Until when it believes to hold the lease.
    until: u8,
    /// When the renewal under way was sent, and whether the database has executed it.
    renewal: Option<(u8, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    now: u8,
    owner: usize,
    expires: u8,
    replicas: [Replica; 2],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    Tick,
    Send(usize),
    Execute(usize),
    Receive(usize),
    TakeOver(usize),
}

pub(super) struct Leases {
    /// The mutant: a lease counts from the answer instead of the request.
    pub(super) counts_from_answer: bool,
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let holder = Replica { until: LEASE, renewal: None };
        vec![State { now: 0, owner: 0, expires: LEASE, replicas: [holder, Replica::default()] }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < END {
            actions.push(Action::Tick);
        }
        for (index, replica) in state.replicas.iter().enumerate() {
            match replica.renewal {
                // One that was the owner renews until it learns that it is no more.
                None if replica.until > 0 => actions.push(Action::Send(index)),
                None => {}
                Some((_, false)) => actions.push(Action::Execute(index)),
                Some((_, true)) => actions.push(Action::Receive(index)),
            }
            if state.owner != index && state.expires <= state.now && replica.renewal.is_none() {
                actions.push(Action::TakeOver(index));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let now = state.now;
        match action {
            Action::Tick => next.now += 1,
            Action::Send(index) => next.replicas[index].renewal = Some((now, false)),
            Action::Execute(index) if state.owner == index => {
                next.replicas[index].renewal.as_mut()?.1 = true;
                next.expires = now + LEASE;
            }
            // It learns that another one is the owner.
            Action::Execute(index) => next.replicas[index] = Replica::default(),
            Action::Receive(index) => {
                let (sent, _) = next.replicas[index].renewal.take()?;
                next.replicas[index].until = LEASE + if self.counts_from_answer { now } else { sent };
            }
            Action::TakeOver(index) => {
                (next.owner, next.expires) = (index, now + LEASE);
                next.replicas[index].until = now + LEASE;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let one: fn(&Self, &State) -> bool =
            |_, state| state.replicas.iter().filter(|replica| state.now < replica.until).count() <= 1;
        let taken: fn(&Self, &State) -> bool =
            |_, state| state.owner == 1 && state.now < state.replicas[1].until;
        let mut all = vec![Property::always(ONE_HOLDER, one)];
        if !self.counts_from_answer {
            all.push(Property::sometimes("a replica takes an expired lease", taken));
        }
        all
    }
}
