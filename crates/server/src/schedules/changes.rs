//! Changes of schedules: those of a namespace come one after the other, since its largest number of schedules is counted before one is
//! stored. Must not know what they change.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rota_core::Namespace;
use tokio::sync::OwnedMutexGuard;

/// Locks of the namespaces whose schedules are changed now.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<HashMap<Namespace, Arc<tokio::sync::Mutex<()>>>>);

impl Changes {
    /// Waits for the other changes of a namespace, and holds back later ones until the guard is dropped.
    pub(crate) async fn lock(&self, namespace: &Namespace) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            // Each that is held or waited for has another owner.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(namespace.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// Waits until the changes that are being made now have ended, of all namespaces.
    pub(crate) async fn ended(&self) {
        let locks: Vec<_> = self.0.lock().values().map(Arc::clone).collect();
        for lock in locks {
            drop(lock.lock_owned().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn namespaces_do_not_wait_for_each_other() {
        let changes = Changes::default();
        let [a, b] = ["a", "b"].map(|name| Namespace::new(name).unwrap());
        let held = changes.lock(&a).await;
        assert!(changes.lock(&a).now_or_never().is_none(), "the same one");
        let other = changes.lock(&b).now_or_never().unwrap();
        assert!(changes.ended().now_or_never().is_none());
        let waiting = changes.lock(&a);
        drop(held);
        let next = waiting.await;
        assert!(changes.lock(&a).now_or_never().is_none());
        drop((other, next));
        changes.ended().now_or_never().unwrap();
        let last = changes.lock(&b).await;
        assert_eq!(changes.0.lock().len(), 1, "nothing is kept of others");
        drop(last);
    }
}
