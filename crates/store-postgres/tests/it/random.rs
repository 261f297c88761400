//! Random commands on PostgreSQL and on the in-memory store, while the connections of the first are ended.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use rota_store_postgres::{Options, Readers, Target, Writer};
use rota_testkit::postgres::PostgresServer;

use crate::differential::{Place, StorePair, step};

/// Environment variable with the number of sequences; `make differential` sets it.
const CASES: &str = "ROTA_TEST_CASES";
const DEFAULT_CASES: u32 = 12;
/// Ends the sessions of the writer, whatever they do.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE 'rota-writer%' AND datname = current_database()";

struct Database<'a> {
    url: String,
    /// Number of the sessions of writers that were ended so far.
    ended: &'a Cell<u32>,
}

impl Place for Database<'_> {
    type Writer = Writer;
    type Readers = Readers;

    fn open(&self) -> (Writer, Readers) {
        let options = Options::new(Target::parse(&self.url, None).unwrap(), "random");
        rota_store_postgres::open_connections(options).unwrap()
    }

    fn fail(&self, _: u32, _: u32) {
        let ended: u32 = PostgresServer::shared().sql(&self.url, END).unwrap().parse().unwrap();
        self.ended.set(self.ended.get() + ended);
    }

    fn heal(&self) {}
}

#[test]
fn postgres_matches_the_in_memory_store() {
    let cases = rota_telemetry::env::var(CASES).map_or(DEFAULT_CASES, |cases| cases.parse().unwrap());
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let ended = Cell::new(0);
    let result = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let url = PostgresServer::shared().database().unwrap();
        StorePair::new(Database { url, ended: &ended }).take_all(&steps)
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    assert!(ended.get() > 0, "no session was ended");
}
