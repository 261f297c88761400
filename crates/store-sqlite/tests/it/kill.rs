//! A process that is killed while it works: everything it acknowledged is present afterwards. (Data that the operating
//! system accepted survives a kill; a power failure is beyond this test.)

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, State, Task, WorkerRef};
use rota_core::{AgentName, Fence, Namespace, TaskId, Timestamp, WorkerName};
use rota_store::{Backend, Budget, Command, Create, Load, OpenSession, Reader, Reply, Store, TaskBody};
use rota_store_sqlite::{Options, Sqlite};
use uuid::Uuid;

const CALLERS: u128 = 8;

fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

fn create(id: TaskId, offer: WorkerRef) -> Command {
    let task = Task { agent_known: true, ..Task::new(id, namespace(), Target::Worker(offer.worker.clone())) };
    let payload = Bytes::from(vec![1; 200]);
    Command::Create(Box::new(Create {
        task,
        payload,
        secrets: None,
        given: Default::default(),
        key: Some(id.to_string()),
        foreign_id: false,
        strict: false,
        offer: Some(offer),
    }))
}

/// Creates and completes tasks until killed, and prints each reply.
async fn work(store: Arc<Sqlite>, round: u128, caller: u128, worker: WorkerRef) {
    for number in 0_u128.. {
        let id = TaskId(Uuid::from_u128((round << 100) | (caller << 80) | number));
        let replies = store.apply(vec![create(id, worker.clone())]).await.unwrap();
        let [Ok(Reply::Created(_))] = &replies[..] else { panic!("{replies:?}") };
        print(&format!("made {id}\n"));
        let attempt = AttemptRef { by: worker.clone(), fence: Fence(1) };
        let completion = Completion::Succeeded(Some(Bytes::from(id.to_string())));
        let command = task::Command::Finish {
            attempt,
            last: 0,
            completion,
            usage: None,
            session: String::new(),
            jitter: 0.0,
        };
        let replies = store.apply(vec![Command::Task { namespace: namespace(), id, command }]).await.unwrap();
        assert!(replies[0].is_ok());
        print(&format!("done {id}\n"));
    }
}

fn print(line: &str) {
    // One write per line, and not `println`, which tests capture.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

#[test]
#[ignore = "the child of the test below, controlled by its standard input"]
fn child() {
    let mut input = String::new();
    std::io::stdin().read_line(&mut input).unwrap();
    let Some((round, path)) = input.trim_end().split_once(' ') else { return };
    let (round, path) = (round.parse::<u128>().unwrap(), PathBuf::from(path));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(|| Timestamp(1_750_000_000_000_000));
        let store = Arc::new(rota_store_sqlite::open(Options { path, clock, seed: 1 }).unwrap());
        let worker = WorkerName::new("w").unwrap();
        let hello = Command::OpenSession(OpenSession {
            namespace: namespace(),
            worker: worker.clone(),
            agent: AgentName::new("a").unwrap(),
            instance: round.to_string(),
            replica: "replica".to_owned(),
            running: Vec::new(),
            last: None,
            takes_name: true,
        });
        let replies = store.apply(vec![hello]).await.unwrap();
        let [Ok(Reply::Session(epoch, _))] = replies[..] else { panic!("{replies:?}") };
        let worker = WorkerRef { worker, epoch };
        let callers = (1..=CALLERS).map(|caller| work(Arc::clone(&store), round, caller, worker.clone()));
        let mut callers: Vec<_> = callers.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            for caller in &mut callers {
                let _ = caller.as_mut().poll(context);
            }
            std::task::Poll::<()>::Pending
        })
        .await;
    });
}

#[test]
fn killed_process_keeps_acknowledged_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    // By task, whether its end was acknowledged.
    let mut known: HashMap<TaskId, bool> = HashMap::new();
    for round in 1..=20_u32 {
        let mut child = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{round} {}", path.display()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A different number each round; the kill interrupts running commits.
        let mut left = 5 + round * 7 % 40;
        let mut parsed = 0;
        for line in lines.by_ref() {
            let Ok(line) = line else { break };
            parsed += u32::from(parse(&line, &mut known));
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
                break;
            }
        }
        for line in lines.map_while(Result::ok) {
            parsed += u32::from(parse(&line, &mut known));
        }
        child.wait().unwrap();
        assert!(parsed > 0, "the child did nothing");

        let (mut writer, readers) = rota_store_sqlite::open_connections(&path).unwrap();
        for (id, done) in &known {
            let task = Reader::task(&readers, &(namespace(), *id))
                .unwrap()
                .unwrap_or_else(|| panic!("{id} is lost"));
            assert!(!done || task.state == State::Succeeded, "the end of {id} is lost");
            let log = readers.events(task.key, 0, Budget::UNLIMITED).unwrap();
            assert_eq!(log.len() as u64, task.log_seq);
            let load = Load { idempotency_keys: vec![(namespace(), id.to_string())], ..Load::default() };
            assert_eq!(writer.load(&load).unwrap().idempotency_keys[0].1.id, *id);
            let body = |body| readers.bodies(body, &[task.key], 1).unwrap().pop().map(|(_, body)| body.len());
            assert_eq!(body(TaskBody::Payload), Some(200));
            assert_eq!(body(TaskBody::Result).is_some(), task.state == State::Succeeded);
        }
    }
    assert!(known.values().any(|done| *done), "nothing was ever ended");
}

/// Parses a line of the child, if it is complete.
fn parse(line: &str, known: &mut HashMap<TaskId, bool>) -> bool {
    let Some((word, id)) = line.split_once(' ') else { return false };
    match (word, id.parse()) {
        ("made", Ok(id)) => known.entry(id).or_insert(false),
        ("done", Ok(id)) => {
            known.insert(id, true);
            return true;
        }
        _ => return false,
    };
    true
}
