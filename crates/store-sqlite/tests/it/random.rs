//! Random commands on SQLite and on the in-memory store.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use rota_store_sqlite::{Readers, Writer};

use crate::differential::{Place, StorePair, step};
use crate::faulty::{Faulty, Plan};

/// File whose calls fail on request.
struct File {
    path: PathBuf,
    plan: Arc<Plan>,
}

impl Place for File {
    type Writer = Faulty<Writer>;
    type Readers = Readers;

    fn open(&self) -> (Faulty<Writer>, Readers) {
        let (inner, readers) = rota_store_sqlite::open_connections(&self.path).unwrap();
        (Faulty { inner, plan: Arc::clone(&self.plan) }, readers)
    }

    fn fail(&self, after: u32, times: u32) {
        self.plan.fail(after, times);
    }

    fn heal(&self) {
        self.plan.fail(0, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_matches_the_in_memory_store(steps in prop::collection::vec(step(), 1..40)) {
        // In memory where available: this tests the contents, not their durability.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("rota.db");
        StorePair::new(File { path, plan: Arc::default() }).take_all(&steps)?;
    }
}
