//! Conformance of the in-memory store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use rota_store::Store;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::{Clock, SingleWriterStore};

fn start() -> impl Fn(Clock) -> Arc<dyn Store> {
    let memory = InMemoryStore::default();
    move |clock| {
        let engine = Engine::new(memory.clone(), 1).unwrap();
        Arc::new(SingleWriterStore::start(engine, memory.clone(), clock).unwrap())
    }
}

rota_store::conformance!(crate::start);
