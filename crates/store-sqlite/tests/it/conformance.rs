//! Conformance of the SQLite store.

use std::sync::Arc;

use rota_store::Store;
use rota_store::single_writer::Clock;
use rota_store_sqlite::Options;

pub(crate) fn start() -> impl Fn(Clock) -> Arc<dyn Store> {
    let folder = tempfile::tempdir().unwrap();
    move |clock| {
        let path = folder.path().join("rota.db");
        Arc::new(rota_store_sqlite::open(Options { path, clock, seed: 1 }).unwrap())
    }
}

rota_store::conformance!(crate::conformance::start);
