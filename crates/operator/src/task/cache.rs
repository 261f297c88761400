//! Records of tasks that have a resource in this cluster, as last received from the control plane. Filled by a stream, so
//! that most reconciliations make no request.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rota_proto::v1;

use super::waits;

/// Task records by UID. Limited to unfinished tasks: a record is removed when its final status has been written.
#[derive(Debug, Default)]
pub(crate) struct TaskCache(Mutex<HashMap<String, Arc<v1::Task>>>);

impl TaskCache {
    /// Inserts a record unless a newer one is present. Returns the newer of the two.
    pub(crate) fn insert(&self, record: v1::Task) -> Arc<v1::Task> {
        let mut records = self.0.lock();
        match records.get(&record.uid) {
            Some(known) if log_seq(known) > log_seq(&record) => Arc::clone(known),
            _ => {
                let record = Arc::new(record);
                records.insert(record.uid.clone(), Arc::clone(&record));
                record
            }
        }
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Arc<v1::Task>> {
        self.0.lock().get(uid).cloned()
    }

    /// Returns the queued tasks of these routes.
    pub(crate) fn waiting(&self, routes: &HashSet<String>) -> Vec<Arc<v1::Task>> {
        let is_waiting =
            |record: &&Arc<v1::Task>| waits::route_of(record).is_some_and(|route| routes.contains(&route));
        self.0.lock().values().filter(is_waiting).cloned().collect()
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Removes all records but those of these tasks.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Removes all records: changes may have been missed.
    pub(crate) fn clear(&self) {
        // Releases the capacity too, which would otherwise stay after a large batch.
        *self.0.lock() = HashMap::new();
    }
}

fn log_seq(record: &v1::Task) -> i64 {
    record.status.as_ref().map_or(0, |status| status.log_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log_seq: i64) -> v1::Task {
        let status = v1::TaskStatus { log_seq, ..Default::default() };
        v1::Task { uid: "a".into(), status: Some(Box::new(status)), ..Default::default() }
    }

    #[test]
    fn newest_record_is_kept() {
        let cache = TaskCache::default();
        assert_eq!(log_seq(&cache.insert(record(2))), 2);
        assert_eq!(log_seq(&cache.insert(record(1))), 2);
        assert_eq!(log_seq(&cache.insert(record(3))), 3);
        assert_eq!(log_seq(&cache.get("a").unwrap()), 3);
        cache.remove("a");
        assert!(cache.get("a").is_none());
    }
}
