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
    /// The attempt needs no slot: only its worker's disk has what it left, until the storage takes it.
    Storing,
    /// The worker has reported the end of the attempt, which is being committed.
    Finishing,
    /// The attempt was superseded. The worker has been sent a cancel and has not confirmed yet.
    Abandoned,
}

impl SlotState {
    /// Whether the worker has the attempt, whose end is not known.
    fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Storing)
    }
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
    /// How many of these hold no slot.
    storing: usize,
    last_number: u64,
}

impl Slots {
    pub(super) fn occupied(&self) -> usize {
        self.occupied.len() - self.storing
    }

    /// Whether nothing is reserved, and no attempt is left, not even one that holds no slot.
    pub(super) fn are_free(&self) -> bool {
        self.occupied.is_empty()
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
            SlotKey::Attempt(_, fence) if state.is_live() && Some(*fence) != live => Some(*fence),
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
        let before = self.occupied.insert(SlotKey::Attempt(id, fence), state);
        self.attempts += usize::from(before.is_none());
        self.count_storing(before, Some(state));
    }

    /// Moves an attempt that has not ended to another state. Returns whether there was one.
    pub(super) fn advance(&mut self, id: TaskId, fence: Fence, to: SlotState) -> bool {
        let slot = self.occupied.get_mut(&SlotKey::Attempt(id, fence)).filter(|state| state.is_live());
        let Some(before) = slot.map(|state| std::mem::replace(state, to)) else { return false };
        self.count_storing(Some(before), Some(to));
        true
    }

    /// Ends an attempt, whose slot is free. Returns whether there was one.
    pub(super) fn end(&mut self, id: TaskId, fence: Fence) -> bool {
        let ended = self.occupied.remove(&SlotKey::Attempt(id, fence));
        self.attempts -= usize::from(ended.is_some());
        self.count_storing(ended, None);
        ended.is_some()
    }

    /// Returns the tasks of the attempts that hold no slot.
    pub(super) fn storing(&self) -> impl Iterator<Item = TaskId> {
        let storing = self.iter_attempts().filter(|(.., state)| *state == SlotState::Storing);
        storing.take(self.storing).map(|(id, ..)| id)
    }

    fn count_storing(&mut self, before: Option<SlotState>, after: Option<SlotState>) {
        let is = |state| usize::from(state == Some(SlotState::Storing));
        self.storing = self.storing + is(after) - is(before);
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
    fn attempts_that_store_hold_no_slot() {
        let mut slots = Slots::default();
        for number in 1..=3 {
            slots.resume(task(number), Fence(1), SlotState::Running);
        }
        assert!(slots.advance(task(1), Fence(1), SlotState::Storing));
        assert!(slots.advance(task(1), Fence(1), SlotState::Storing), "it is committed again");
        slots.resume(task(2), Fence(1), SlotState::Storing);
        assert_eq!((slots.occupied(), slots.attempts()), (1, 3));
        assert!(!slots.are_free() && Slots::default().are_free());
        assert_eq!(slots.storing().collect::<Vec<_>>(), [task(1), task(2)]);
        assert_eq!(slots.superseded(task(1), None), Some(Fence(1)));
        assert!(slots.advance(task(1), Fence(1), SlotState::Abandoned));
        assert_eq!(slots.occupied(), 2, "its programs may still have to end");
        assert!(slots.end(task(1), Fence(1)) && slots.end(task(2), Fence(1)));
        assert_eq!((slots.occupied(), slots.attempts(), slots.storing().count()), (1, 1, 0));
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
