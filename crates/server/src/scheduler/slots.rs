//! The slots of one worker: one map, in which each occupied slot has exactly one state. Knows neither tasks nor
//! sessions, only their ids.

use std::collections::BTreeMap;

use rota_core::{Fence, TaskId};

/// State of an occupied slot. A slot that is in no map entry is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// Held by a [`Reservation`](super::Reservation) while a creation or a claim is being committed.
    Reserved,
    /// Holds an attempt that the worker has.
    Running,
    /// The worker has reported the end of the attempt, which is being committed.
    Finishing,
    /// The attempt was superseded. The worker has been sent a cancel and has not confirmed yet.
    Abandoned,
}

/// Purpose of a reserved slot. Slots of one worker that are reserved for the same purpose are interchangeable: a
/// commit names the worker that got a task, not which of its claims fetched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Claim,
    Creation(TaskId),
}

/// Attempts sort before reservations, so that a prefix of the map is all attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SlotKey {
    Attempt(TaskId, Fence),
    Reserved(Purpose, u64),
}

/// The occupied slots of one worker.
#[derive(Debug, Default)]
pub(super) struct Slots {
    occupied: BTreeMap<SlotKey, SlotState>,
    /// How many entries of the map are attempts.
    attempts: usize,
    last_number: u64,
}

impl Slots {
    pub(super) fn occupied(&self) -> usize {
        self.occupied.len()
    }

    /// Returns the number of attempts, whatever their state.
    pub(super) fn attempts(&self) -> usize {
        self.attempts
    }

    /// Iterates over the attempts in the order of their task ids.
    pub(super) fn iter_attempts(&self) -> impl Iterator<Item = (TaskId, Fence, SlotState)> {
        self.occupied.iter().map_while(|(key, state)| match key {
            SlotKey::Attempt(id, fence) => Some((*id, *fence, *state)),
            SlotKey::Reserved(..) => None,
        })
    }

    /// Returns the fence of an attempt of a task that is running here and is not `live`.
    pub(super) fn superseded(&self, id: TaskId, live: Option<Fence>) -> Option<Fence> {
        let attempts = SlotKey::Attempt(id, Fence(0))..=SlotKey::Attempt(id, Fence(u64::MAX));
        self.occupied.range(attempts).find_map(|(key, state)| match key {
            SlotKey::Attempt(_, fence) if *state == SlotState::Running && Some(*fence) != live => {
                Some(*fence)
            }
            _ => None,
        })
    }

    pub(super) fn state(&self, id: TaskId, fence: Fence) -> Option<SlotState> {
        self.occupied.get(&SlotKey::Attempt(id, fence)).copied()
    }

    pub(super) fn reserve(&mut self, purpose: Purpose, count: usize) {
        for _ in 0..count {
            self.last_number += 1;
            self.occupied.insert(SlotKey::Reserved(purpose, self.last_number), SlotState::Reserved);
        }
    }

    /// Frees slots that were reserved for a purpose. Returns whether there were as many.
    #[must_use = "a slot that is not there has been lost or freed twice"]
    pub(super) fn release(&mut self, purpose: Purpose, count: usize) -> bool {
        (0..count).all(|_| self.take_reserved(purpose))
    }

    fn take_reserved(&mut self, purpose: Purpose) -> bool {
        let all = SlotKey::Reserved(purpose, 0)..=SlotKey::Reserved(purpose, u64::MAX);
        let first = self.occupied.range(all).next().map(|(key, _)| *key);
        first.is_some_and(|key| self.occupied.remove(&key).is_some())
    }

    /// Turns a slot that was reserved for a purpose, or else one of a claim, into a running attempt. Returns whether
    /// there was one.
    #[must_use = "an attempt without a reserved slot was assigned past the scheduler"]
    pub(super) fn start(&mut self, purpose: Purpose, id: TaskId, fence: Fence) -> bool {
        let reserved = self.take_reserved(purpose) || self.take_reserved(Purpose::Claim);
        self.resume(id, fence, SlotState::Running);
        reserved
    }

    /// Adds an attempt that the worker brings along.
    pub(super) fn resume(&mut self, id: TaskId, fence: Fence, state: SlotState) {
        if self.occupied.insert(SlotKey::Attempt(id, fence), state).is_none() {
            self.attempts += 1;
        }
    }

    /// Moves a running attempt to another state. Returns whether it was running.
    pub(super) fn advance(&mut self, id: TaskId, fence: Fence, to: SlotState) -> bool {
        let slot = self.occupied.get_mut(&SlotKey::Attempt(id, fence));
        slot.filter(|state| **state == SlotState::Running).map(|state| *state = to).is_some()
    }

    /// Frees the slot of an attempt. Returns whether it occupied one.
    pub(super) fn end(&mut self, id: TaskId, fence: Fence) -> bool {
        let ended = self.occupied.remove(&SlotKey::Attempt(id, fence)).is_some();
        self.attempts -= usize::from(ended);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u128) -> TaskId {
        TaskId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn start_takes_slot_of_its_purpose() {
        let mut slots = Slots::default();
        slots.reserve(Purpose::Claim, 1);
        slots.reserve(Purpose::Creation(task(1)), 1);
        // The task was queued before; its creation was repeated, and a claim won.
        assert!(slots.start(Purpose::Claim, task(1), Fence(1)));
        assert!(slots.release(Purpose::Creation(task(1)), 1), "the creation's slot must be left");
        assert_eq!((slots.occupied(), slots.attempts()), (1, 1));
    }

    #[test]
    fn missing_reservation_is_reported() {
        let mut slots = Slots::default();
        assert!(!slots.start(Purpose::Claim, task(1), Fence(1)));
        slots.reserve(Purpose::Creation(task(2)), 1);
        let other = Purpose::Creation(task(3));
        assert!(!slots.start(other, task(3), Fence(1)), "a slot of another creation must not be taken");
        assert!(!slots.release(Purpose::Creation(task(2)), 2));
    }

    #[test]
    fn superseded_ignores_live_and_ending_attempts() {
        let mut slots = Slots::default();
        slots.resume(task(1), Fence(1), SlotState::Finishing);
        slots.resume(task(1), Fence(2), SlotState::Running);
        slots.resume(task(2), Fence(1), SlotState::Running);
        assert_eq!(slots.superseded(task(1), Some(Fence(2))), None);
        assert_eq!(slots.superseded(task(1), None), Some(Fence(2)));
    }
}
