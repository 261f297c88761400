//! Rows that a page of a list visits.

use rota_core::task::State;
use rota_store::engine::Engine;
use rota_store::{Command, Filter, Reader};

use super::{NOW, create, id};

/// Rows that one page visits, and of each state, if the filter names states.
const VISITED: u64 = 5000;
const OF_STATE: u64 = 500;
const TASKS: u64 = VISITED + 100;

#[test]
fn pages_for_rare_tasks_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = Engine::new(writer, 0).unwrap();
    let named = |number: u64| {
        let Command::Create(mut create) = create(number.into(), 10) else { unreachable!() };
        create.task.alias = (number == 0).then(|| "rare".to_owned());
        Command::Create(create)
    };
    // The oldest is the only one that fits.
    engine.run((0..TASKS).map(named).collect(), NOW).unwrap();
    for (states, visited) in [(Vec::new(), VISITED), (vec![State::Queued], OF_STATE)] {
        let mut filter = Filter { alias: Some("rare".to_owned()), states, limit: 10, ..Filter::default() };
        let mut last = u64::MAX;
        for _ in 0..(TASKS - 1) / visited {
            let page = readers.list(&filter).unwrap();
            assert!(page.tasks.is_empty(), "{page:?}");
            filter.before = page.next;
            let next = page.next.expect("there are more").0;
            let sql = "SELECT count(*) FROM tasks WHERE key >= ?1 AND key < ?2";
            let params = [i64::try_from(next).unwrap(), i64::try_from(last).unwrap_or(i64::MAX)];
            let count: u32 = engine.backend().connection().query_row(sql, params, |row| row.get(0)).unwrap();
            assert_eq!(u64::from(count), visited);
            last = next;
        }
        let page = readers.list(&filter).unwrap();
        assert_eq!(page.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [id(0)]);
    }
}
