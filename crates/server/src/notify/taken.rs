//! Notifications of one receiver that are being sent or wait in memory: those of one task one after the other, and of each namespace
//! a share, so that those with which the receiver fails leave room for the others. Knows no transport.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rota_core::{Namespace, TaskKey};

use super::message::Notification;

/// Notifications in memory, of a few KiB each.
const MAX_TAKEN: usize = 2048;
/// Those of a namespace that are being sent, wait for another attempt, or wait behind such a one of their task.
const MAX_OF_NAMESPACE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Taken {
    count: usize,
    /// Those that wait for the one of their task or workflow that is being sent.
    behind: HashMap<TaskKey, VecDeque<Arc<Notification>>>,
    namespaces: BTreeMap<Namespace, Share>,
}

#[derive(Debug, Default)]
struct Share {
    taken: usize,
    /// Those beyond the share, in their order.
    waiting: VecDeque<Arc<Notification>>,
}

impl Taken {
    pub(super) fn has_room(&self) -> bool {
        self.count < MAX_TAKEN
    }

    /// Takes a notification in, and returns it if it is to be sent now.
    pub(super) fn take(&mut self, one: Arc<Notification>) -> Option<Arc<Notification>> {
        self.count += 1;
        let share = self.namespaces.entry(one.namespace.clone()).or_default();
        if share.taken >= MAX_OF_NAMESPACE {
            share.waiting.push_back(one);
            return None;
        }
        share.taken += 1;
        match self.behind.entry(one.subject) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(one);
                None
            }
            Entry::Vacant(none) => {
                none.insert(VecDeque::new());
                Some(one)
            }
        }
    }

    /// Returns the namespace of which the most wait, if any do.
    pub(super) fn fullest(&self) -> Option<Namespace> {
        let waiting = self.namespaces.iter().filter(|(_, share)| !share.waiting.is_empty());
        waiting.max_by_key(|(_, share)| share.waiting.len()).map(|(namespace, _)| namespace.clone())
    }

    /// Gives up the older half of those that wait in a namespace, and returns them: they are not to be sent, and need not be
    /// forgotten.
    pub(super) fn give_up(&mut self, namespace: &Namespace) -> Vec<Arc<Notification>> {
        let share = self.namespaces.get_mut(namespace);
        let given_up: Vec<_> = share
            .map(|share| share.waiting.drain(..share.waiting.len().div_ceil(2)).collect())
            .unwrap_or_default();
        self.count -= given_up.len();
        given_up
    }

    /// Forgets a notification that was sent or given up, and returns those that are to be sent now.
    pub(super) fn done(&mut self, one: &Notification) -> impl Iterator<Item = Arc<Notification>> + use<> {
        self.count -= 1;
        let of_task = self.behind.get_mut(&one.subject).and_then(VecDeque::pop_front);
        if of_task.is_none() {
            self.behind.remove(&one.subject);
        }
        let mut next = None;
        if let Some(share) = self.namespaces.get_mut(&one.namespace) {
            share.taken -= 1;
            next = share.waiting.pop_front();
            if share.taken == 0 && next.is_none() {
                self.namespaces.remove(&one.namespace);
            }
        }
        let of_namespace = next.and_then(|next| {
            self.count -= 1;
            self.take(next)
        });
        of_task.into_iter().chain(of_namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(task: u64, namespace: &str) -> Arc<Notification> {
        Arc::new(Notification::example(TaskKey(task), namespace, "", ""))
    }

    #[test]
    fn namespaces_leave_each_other_room() {
        let mut taken = Taken::default();
        let failing: Vec<_> = (0..300).filter_map(|task| taken.take(one(task, "failing"))).collect();
        assert_eq!(failing.len(), MAX_OF_NAMESPACE);
        assert!(taken.has_room() && taken.take(one(1000, "sound")).is_some());
        // Each that ends makes room for the next of its namespace, and for no other.
        let next: Vec<_> = taken.done(&failing[0]).map(|next| next.subject).collect();
        assert_eq!(next, [TaskKey(MAX_OF_NAMESPACE as u64)]);
        assert_eq!(taken.done(&one(1000, "sound")).count(), 0);
        for task in 301..3000 {
            if taken.has_room() {
                taken.take(one(task, "failing"));
            }
        }
        assert_eq!(taken.count, MAX_TAKEN);
    }

    #[test]
    fn stalled_namespace_gives_up_its_oldest() {
        let mut taken = Taken::default();
        taken.take(one(9000, "sound"));
        let mut given_up = Vec::new();
        for task in 0..3000 {
            if !taken.has_room() {
                let fullest = taken.fullest().unwrap();
                given_up.extend(taken.give_up(&fullest).iter().map(|one| one.subject));
            }
            assert!(taken.has_room());
            taken.take(one(task, "failing"));
        }
        let first = MAX_OF_NAMESPACE as u64;
        let expected: Vec<_> = (first..first + given_up.len() as u64).map(TaskKey).collect();
        assert_eq!(given_up, expected, "the oldest that wait, and none of the other namespace");
        assert!(given_up.len() < 1100 && taken.count == 3001 - given_up.len());
        assert_eq!(taken.done(&one(9000, "sound")).count(), 0);
        let mut shared = Taken::default();
        (0..MAX_TAKEN as u64).for_each(|task| drop(shared.take(one(task, &format!("n{}", task % 40)))));
        assert_eq!(shared.fullest(), None, "none waits");
    }

    #[test]
    fn tasks_keep_their_order() {
        let mut taken = Taken::default();
        let first = taken.take(one(1, "a")).unwrap();
        assert!(taken.take(one(1, "a")).is_none());
        assert!(taken.take(one(2, "a")).is_some());
        assert_eq!(taken.done(&first).map(|next| next.subject).collect::<Vec<_>>(), [TaskKey(1)]);
        assert_eq!(taken.done(&first).count(), 0);
        assert!(taken.take(one(1, "a")).is_some(), "nothing of the task is left");
    }
}
