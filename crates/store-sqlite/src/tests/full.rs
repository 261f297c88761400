//! A full disk: the batch fails completely with an error, and work continues once there is space. An opening copies the log where it fits.

use std::fs;
use std::path::Path;

use rota_core::target::{Route, Target};
use rota_core::{AgentName, Namespace, WorkerName};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::memory::InMemoryStore;
use rota_store::{Claim, Command, Error, OpenSession, Reader, Snapshot, TaskBody};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{NOW, create, scoped};
use crate::{Writer, disk};

fn pages(engine: &mut Engine<Writer>, most: i64) -> i64 {
    let connection = engine.backend().connection();
    let sql = format!("PRAGMA max_page_count = {most}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

fn hello() -> Command {
    Command::OpenSession(OpenSession {
        namespace: Namespace::new("n").unwrap(),
        worker: WorkerName::new("w").unwrap(),
        agent: AgentName::new("a").unwrap(),
        instance: "process".to_owned(),
        replica: "replica".to_owned(),
        running: Vec::new(),
        last: None,
        takes_name: true,
    })
}

/// A batch with two tasks, a new route, a claim, and a new session; `payload` may exceed the space.
fn batch(turn: u128, payload: usize) -> Vec<Command> {
    let claim = Claim {
        namespace: Namespace::new("n").unwrap(),
        worker: rota_core::task::WorkerRef {
            worker: WorkerName::new("w").unwrap(),
            epoch: rota_core::Epoch(u64::try_from(turn).unwrap() + 1),
        },
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        routes: vec![rota_core::RouteId(1)],
        slots: 1,
    };
    let Command::Create(mut other) = create(2 * turn + 1, payload) else { unreachable!() };
    other.task.target = Target::Worker(WorkerName::new(&format!("w{turn}")).unwrap());
    vec![create(2 * turn, 10), hello(), Command::Claim(claim), Command::Create(other)]
}

#[test]
fn full_disk_rejects_batch_and_keeps_data() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let model = InMemoryStore::default();
    let mut twin = Engine::new(model.clone(), 0).unwrap();
    let most = pages(&mut engine, 0);
    let mut both = |engine: &mut Engine<Writer>, turn: u128, payload: usize| -> Result<(), Error> {
        engine.reseed(0);
        let found: BatchOutcome = engine.run(batch(turn, payload), NOW)?;
        twin.reseed(0);
        let wanted = twin.run(batch(turn, payload), NOW).unwrap();
        assert_eq!(format!("{wanted:?}"), format!("{found:?}"));
        Ok(())
    };
    both(&mut engine, 0, 10).unwrap();
    for turn in 1..4 {
        let used: i64 = {
            let connection = engine.backend().connection();
            connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
        };
        pages(&mut engine, used + 20);
        for _ in 0..3 {
            let error = both(&mut engine, turn, 1_000_000).unwrap_err();
            let Error::Unavailable { message, hint } = error else { panic!("{error}") };
            assert!(message.contains("the disk is full") && hint.contains("free some space"), "{message}");
            assert_eq!(Reader::task(&readers, &scoped(2 * turn)).unwrap(), None);
        }
        let store = readers.snapshot().unwrap().store;
        let model = Snapshot { store, ..model.snapshot().unwrap() };
        assert_eq!(format!("{:?}", readers.snapshot().unwrap()), format!("{model:?}"));
        pages(&mut engine, most);
        both(&mut engine, turn, 1_000_000).unwrap();
    }
    let route = Route {
        namespace: Namespace::new("n").unwrap(),
        target: Target::Worker(WorkerName::new("w3").unwrap()),
    };
    assert!(readers.snapshot().unwrap().routes.iter().any(|(_, known)| *known == route));
    assert_eq!(
        readers.bodies(TaskBody::Payload, &[readers.task(&scoped(7)).unwrap().unwrap().key], 1).unwrap()[0]
            .1
            .len(),
        1_000_000
    );
}

/// Opens a database with the log of 2 MB of a process that was killed, and such a reserve, on a volume with so much free space. Returns
/// whether the opening copied the log. The reserve stays, or is made again.
fn opening_copies_log(reserve: u64, free: fn(&Path) -> Option<u64>) -> bool {
    opening_copies_log_of("INSERT INTO payloads (key, body) VALUES (1, zeroblob(2000000))", reserve, free)
}

fn opening_copies_log_of(written: &str, reserve: u64, free: fn(&Path) -> Option<u64>) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    drop(crate::open_connections(&path).unwrap());
    let before = Connection::open(&path).unwrap();
    before.execute("INSERT INTO payloads (key, body) VALUES (2, zeroblob(2000000))", []).unwrap();
    drop(before);
    let killed = Connection::open(&path).unwrap();
    killed.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    killed.execute(written, []).unwrap();
    drop(killed);
    fs::File::create(disk::sibling(&path, ".reserve")).unwrap().set_len(reserve).unwrap();
    let log = || fs::metadata(disk::sibling(&path, "-wal")).unwrap().len();
    let left = log();
    assert!(left > 2_000_000, "{left}");
    let _opened = crate::open::open(&path, free).unwrap();
    assert_eq!(fs::metadata(disk::sibling(&path, ".reserve")).unwrap().len(), reserve);
    log() < left
}

#[test]
fn log_is_copied_only_where_it_fits() {
    assert!(opening_copies_log(0, |_| Some(4_000_000)));
    assert!(!opening_copies_log(0, |_| Some(2_500_000)));
}

/// The copy overwrites pages, and the file does not grow.
#[test]
fn log_without_new_pages_is_copied_without_room_for_it() {
    let written = "UPDATE payloads SET body = randomblob(2000000) WHERE key = 2";
    assert!(opening_copies_log_of(written, 0, |_| Some(2_500_000)));
}

/// Free space of a volume that has room for the log only without the reserve, or only with it.
fn free_space(database: &Path, with_reserve: bool) -> Option<u64> {
    let has_room = disk::sibling(database, ".reserve").exists() == with_reserve;
    Some(if has_room { 4_000_000 } else { 2_500_000 })
}

#[test]
fn reserve_is_released_where_log_fits_then() {
    assert!(opening_copies_log(1_500_000, |path| free_space(path, false)));
    // It is left where it would not help, and where it is not needed.
    assert!(!opening_copies_log(100_000, |path| free_space(path, false)));
    assert!(opening_copies_log(1_500_000, |path| free_space(path, true)));
}
