//! A writer that panics: the stream of commits ends, and no caller waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_store::{Command, Error, Store};

/// Limit of any wait; only a broken store reaches it.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn commit_stream_ends_when_writer_panics() {
    let memory = InMemoryStore::default();
    let broken = Arc::new(AtomicBool::new(false));
    let clock = {
        let broken = Arc::clone(&broken);
        move || {
            assert!(!broken.load(Ordering::Relaxed), "the test wants the writer to panic");
            Timestamp(1)
        }
    };
    let engine = Engine::new(memory.clone(), 1).unwrap();
    let store = SingleWriterStore::start(engine, memory, Arc::new(clock)).unwrap();
    let mut commits = store.commits().unwrap();
    let tick = || store.apply(vec![Command::tick(1)]);
    tick().await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(WAIT_TIMEOUT, async {
        assert!(matches!(tick().await, Err(Error::Closed)));
        assert!(commits.recv().await.is_none());
        broken.store(false, Ordering::Relaxed);
        assert!(matches!(tick().await, Err(Error::Closed)), "it does not come back by itself");
        store.close().await;
    });
    ended.await.unwrap();
}
