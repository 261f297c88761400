//! Damaged agents, sessions, routes, cool-downs and books: the store opens and works without them.

use rota_core::agent::Agent;
use rota_core::spending::Budget;
use rota_core::target::Target;
use rota_core::task::{Limits, Loss, WorkerRef};
use rota_core::{AgentName, Epoch, Namespace, Timestamp, WorkerName};
use rota_store::engine::{BatchOutcome, Engine};
use rota_store::{Backend, Claim, Command, EndSession, OpenSession, PutAgent, Refused, Reply};

use super::{NOW, create, id};
use crate::Writer;

const DAMAGE: &str = "x'81a57374617465a46e6577'";

fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

fn agent() -> AgentName {
    AgentName::new("a").unwrap()
}

fn worker(epoch: u64) -> WorkerRef {
    WorkerRef { worker: WorkerName::new("w").unwrap(), epoch: Epoch(epoch) }
}

fn put_agent(must_exist: Option<bool>) -> Command {
    let agent = Agent {
        namespace: namespace(),
        name: agent(),
        generation: 0,
        capabilities: ["code".to_owned()].into(),
        defaults: Limits::default(),
        budget: Budget::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: bytes::Bytes::new(),
    };
    Command::PutAgent(PutAgent { agent, must_exist })
}

fn delete_agent() -> Command {
    Command::DeleteAgent { namespace: namespace(), name: agent() }
}

fn of_agent(number: u128) -> Command {
    let Command::Create(mut create) = create(number, 10) else { unreachable!() };
    (create.task.target, create.task.alias) = (Target::Agent(agent()), None);
    Command::Create(create)
}

fn hello() -> Command {
    Command::OpenSession(OpenSession {
        namespace: namespace(),
        worker: worker(1).worker,
        agent: agent(),
        instance: "process".to_owned(),
        replica: "replica".to_owned(),
        running: Vec::new(),
        last: None,
        takes_name: true,
    })
}

fn end(epoch: u64) -> Command {
    let (loss, message) = (Loss::Unclear, String::new());
    Command::EndSession(EndSession {
        namespace: namespace(),
        session: worker(epoch),
        loss,
        seen: None,
        message,
    })
}

struct Fixture {
    folder: tempfile::TempDir,
    engine: Engine<Writer>,
}

fn open(folder: &std::path::Path) -> Engine<Writer> {
    let (writer, _readers) = crate::open_connections(&folder.join("rota.db")).unwrap();
    Engine::new(writer, 0).unwrap()
}

impl Fixture {
    /// A store with an agent, a task on its worker, and one in the queue.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = Self { engine: open(folder.path()), folder };
        fixture.run(vec![put_agent(None), hello(), of_agent(0), of_agent(1)]);
        assert!(matches!(fixture.claim(1), Ok(Reply::Claimed(1))));
        fixture
    }

    fn run(&mut self, batch: Vec<Command>) -> BatchOutcome {
        self.engine.run(batch, NOW).unwrap()
    }

    fn one(&mut self, command: Command) -> Result<Reply, Refused> {
        self.run(vec![command]).replies.pop().unwrap()
    }

    fn claim(&mut self, epoch: u64) -> Result<Reply, Refused> {
        let find = "SELECT id FROM routes WHERE route LIKE '%agent%'";
        let route = self.engine.backend().connection().query_row(find, [], |row| row.get(0)).unwrap();
        self.one(Command::Claim(Claim {
            namespace: namespace(),
            worker: worker(epoch),
            routes: vec![rota_core::RouteId(route)],
            shared: Vec::new(),
            probes: None,
            not_isolating: Default::default(),
            slots: 1,
        }))
    }

    fn execute(&mut self, sql: &str) {
        assert_eq!(self.engine.backend().connection().execute(sql, []).unwrap(), 1, "{sql}");
    }

    fn count(&mut self, sql: &str) -> u32 {
        self.engine.backend().connection().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Opens the store again, as a control plane that starts. Returns what its first commit reports.
    fn reopen(&mut self) -> Vec<String> {
        // The lock is released first.
        let elsewhere = tempfile::tempdir().unwrap();
        drop(std::mem::replace(&mut self.engine, open(elsewhere.path())));
        self.engine = open(self.folder.path());
        let reported = self.run(Vec::new()).commit.undecodable;
        reported.into_iter().map(|(what, _)| what).collect()
    }

    fn reopen_damaged(&mut self, table: &str) -> Vec<String> {
        self.execute(&format!("UPDATE {table} SET record = {DAMAGE}"));
        self.reopen()
    }
}

#[test]
fn damaged_agent_stops_only_itself() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.reopen_damaged("agents"), ["agent n/a"]);
    assert!(matches!(fixture.one(create(2, 10)), Ok(Reply::Created(_))));
    let refused = fixture.one(of_agent(3));
    assert!(matches!(&refused, Err(Refused::Corrupt { what, .. }) if what == "agent a"), "{refused:?}");
    // Its queued task stays in the queue, for a version that can decode it.
    assert!(matches!(fixture.one(hello()), Ok(Reply::Session(Epoch(2), _))));
    assert!(matches!(fixture.claim(2), Ok(Reply::PassedOver)));
    assert_eq!(fixture.count("SELECT count(*) FROM waits"), 0);
    assert_eq!(fixture.run(Vec::new()).commit.undecodable, [], "reported once");
    assert!(matches!(fixture.one(put_agent(Some(false))), Err(Refused::AgentExists(_))));
    assert!(matches!(fixture.one(delete_agent()), Ok(Reply::Deleted)));
    assert_eq!(fixture.count("SELECT count(*) FROM agents"), 0);
    assert!(matches!(fixture.one(delete_agent()), Err(Refused::NoAgent(_))));
    assert!(matches!(fixture.one(of_agent(3)), Ok(Reply::Created(_))));
}

#[test]
fn damaged_agent_is_replaced_by_a_put() {
    let mut fixture = Fixture::new();
    fixture.reopen_damaged("agents");
    assert!(matches!(fixture.one(put_agent(Some(true))), Ok(Reply::Agent(_))));
    fixture.one(hello()).unwrap();
    assert!(matches!(fixture.claim(2), Ok(Reply::Claimed(1))));
    assert_eq!(fixture.reopen(), [""; 0]);
}

#[test]
fn damaged_session_counts_as_closed() {
    let mut fixture = Fixture::new();
    let on_worker = "SELECT count(*) FROM tasks WHERE state IN (3, 4, 5) AND state <> 6";
    assert_eq!(fixture.reopen_damaged("sessions"), ["session of worker n/w"]);
    let damaged: Vec<_> = fixture.engine.backend().snapshot().unwrap().damaged_sessions().collect();
    assert_eq!(damaged, [((namespace(), worker(1).worker), Epoch(1))]);
    assert!(matches!(fixture.claim(1), Err(Refused::Superseded)));
    // The grace period of a worker that has not come back ends.
    assert!(matches!(fixture.one(end(1)), Ok(Reply::Ended(1))));
    assert_eq!(fixture.count(on_worker), 0);
    assert_eq!(fixture.count("SELECT count(*) FROM sessions"), 0);
}

#[test]
fn worker_of_a_damaged_session_returns() {
    let mut fixture = Fixture::new();
    fixture.reopen_damaged("sessions");
    let Command::OpenSession(mut back) = hello() else { unreachable!() };
    back.running = vec![(id(0), rota_core::Fence(1))];
    let opened = fixture.one(Command::OpenSession(back));
    let Ok(Reply::Session(Epoch(2), resumed)) = opened else { panic!("{opened:?}") };
    assert!(resumed[0].live.is_some(), "{resumed:?}");
    assert!(matches!(fixture.claim(2), Ok(Reply::Claimed(1))));
    assert_eq!(fixture.reopen(), [""; 0]);
}

#[test]
fn damaged_route_books_and_cool_down_are_left_out() {
    let mut fixture = Fixture::new();
    fixture.execute("INSERT INTO routes (id, route) VALUES (99, '{\"planet\": 1}')");
    fixture.execute(&format!("INSERT INTO cool_downs VALUES ('n', '0123456789abcdef', {DAMAGE})"));
    fixture.execute(&format!("INSERT INTO accounts VALUES ('n', '', {DAMAGE})"));
    let reported = fixture.reopen();
    assert_eq!(reported, ["route 99", "cool-down of credential n/0123456789abcdef", "books of namespace n"],);
    // Its end is not known: it ends now.
    assert_eq!(fixture.count("SELECT count(*) FROM cool_downs"), 0);
    assert!(matches!(fixture.one(create(2, 10)), Ok(Reply::Created(_))));
}

/// A batch that fails makes the engine read its memory again.
#[test]
fn failed_batch_is_survived_with_a_damaged_agent() {
    let mut fixture = Fixture::new();
    fixture.reopen_damaged("agents");
    let connection =
        |fixture: &mut Fixture, sql| fixture.engine.backend().connection().execute_batch(sql).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON payloads BEGIN SELECT RAISE(ABORT, 'full'); END";
    connection(&mut fixture, full);
    assert!(fixture.engine.run(vec![create(5, 10)], NOW).is_err());
    connection(&mut fixture, "DROP TRIGGER full");
    let later = Timestamp(NOW.0 + 1);
    assert!(fixture.engine.run(vec![create(5, 10)], later).unwrap().replies[0].is_ok());
}
