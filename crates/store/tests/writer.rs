//! A writer that panics: everybody hears of the end, and nobody waits for what will never come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_core::Timestamp;
use rota_store::embedded::Embedded;
use rota_store::engine::Engine;
use rota_store::memory::Memory;
use rota_store::{Command, Error, Store};

/// Longest wait; only a broken store comes near it.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_commits_end_with_a_writer_that_panics() {
    let memory = Memory::default();
    let broken = Arc::new(AtomicBool::new(false));
    let clock = {
        let broken = Arc::clone(&broken);
        move || {
            assert!(!broken.load(Ordering::Relaxed), "the test wants the writer to panic");
            Timestamp(1)
        }
    };
    let engine = Engine::new(memory.clone(), 1).unwrap();
    let store = Embedded::start(engine, memory, Arc::new(clock)).unwrap();
    let mut commits = store.commits().unwrap();
    let tick = || store.apply(vec![Command::Tick { limit: 1 }]);
    tick().await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let told = tokio::time::timeout(PATIENCE, async {
        assert!(matches!(tick().await, Err(Error::Closed)));
        assert!(commits.recv().await.is_none());
        broken.store(false, Ordering::Relaxed);
        assert!(matches!(tick().await, Err(Error::Closed)), "it does not come back by itself");
        store.close().await;
    });
    told.await.unwrap();
}
