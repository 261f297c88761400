//! Conformance of the PostgreSQL store.

use std::sync::Arc;

use rota_store::Store;
use rota_store::single_writer::Clock;
use rota_store_postgres::{Options, Target};
use rota_testkit::postgres::PostgresServer;

pub(crate) fn start() -> impl Fn(Clock) -> Arc<dyn Store> {
    let target = Target::parse(&PostgresServer::shared().database().unwrap(), None).unwrap();
    move |clock| {
        let options = Options { seed: 1, ..Options::new(target.clone(), "conformance") };
        Arc::new(rota_store_postgres::open(options, Some(clock)).unwrap().store)
    }
}

rota_store::conformance!(crate::conformance::start);
