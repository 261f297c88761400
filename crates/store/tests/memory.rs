//! The in-memory twin keeps the suite too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use rota_store::Store;
use rota_store::embedded::{Clock, Embedded};
use rota_store::engine::Engine;
use rota_store::memory::Memory;

fn start() -> impl Fn(Clock) -> Arc<dyn Store> {
    let memory = Memory::default();
    move |clock| {
        let engine = Engine::new(memory.clone(), 1).unwrap();
        Arc::new(Embedded::start(engine, memory.clone(), clock).unwrap())
    }
}

rota_store::conformance!(crate::start);
