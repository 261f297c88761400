//! A store whose disk becomes full, or fails to sync, when a test wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rota_store::memory::InMemoryStore;

/// A store that takes no writes while its disk is full, and is lost with a sync that fails.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) memory: InMemoryStore,
    pub(super) full: Arc<AtomicBool>,
    pub(super) unsynced: Arc<AtomicBool>,
}

impl rota_store::Backend for Disk {
    fn load(&mut self, load: &rota_store::Load) -> Result<rota_store::Loaded, rota_store::Error> {
        self.memory.load(load)
    }

    fn write(&mut self, changes: &rota_store::Changes) -> Result<rota_store::Written, rota_store::Error> {
        if self.full.load(Ordering::Relaxed) {
            let message = "the disk is full".to_owned();
            return Err(rota_store::Error::Unavailable { message, hint: "the test makes room" });
        }
        if self.unsynced.load(Ordering::Relaxed) {
            return Err(rota_store::Error::LostSync("the test fails the sync".to_owned()));
        }
        self.memory.write(changes)
    }

    fn snapshot(&mut self) -> Result<rota_store::Snapshot, rota_store::Error> {
        rota_store::Backend::snapshot(&mut self.memory)
    }
}
