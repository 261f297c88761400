//! The control plane's records of tasks that have a resource here, as last heard. Filled by a stream,
//! so that a reconciliation seldom has to ask.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_proto::v1;

/// Records by uid. Holds no more than the tasks that go on: one that has ended leaves when that is written down.
#[derive(Debug, Default)]
pub(crate) struct Mirror(Mutex<HashMap<String, Arc<v1::Task>>>);

impl Mirror {
    /// Takes in a record unless a later one is here, and gives back the later of the two.
    pub(crate) fn put(&self, record: v1::Task) -> Arc<v1::Task> {
        let mut records = self.0.lock();
        match records.get(&record.uid) {
            Some(known) if position(known) > position(&record) => Arc::clone(known),
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

    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Forgets everything: something may have been missed.
    pub(crate) fn clear(&self) {
        // The capacity goes too: after a large batch it would stay for ever.
        *self.0.lock() = HashMap::new();
    }
}

fn position(record: &v1::Task) -> i64 {
    record.status.as_ref().map_or(0, |status| status.log_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(log_seq: i64) -> v1::Task {
        let status = v1::TaskStatus { log_seq, ..Default::default() };
        v1::Task { uid: "a".into(), status: Some(status), ..Default::default() }
    }

    #[test]
    fn the_later_one_stays() {
        let mirror = Mirror::default();
        assert_eq!(position(&mirror.put(record(2))), 2);
        assert_eq!(position(&mirror.put(record(1))), 2);
        assert_eq!(position(&mirror.put(record(3))), 3);
        assert_eq!(position(&mirror.get("a").unwrap()), 3);
        mirror.forget("a");
        assert!(mirror.get("a").is_none());
    }
}
