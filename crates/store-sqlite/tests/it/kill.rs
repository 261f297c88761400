//! A process that is killed while it works: whatever it acknowledged is there afterwards. (What the
//! system had taken over survives a kill; a power cut is beyond this test.)

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command as Program, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rota_core::rank::Priority;
use rota_core::target::Target;
use rota_core::task::{self, Desired, Ending, Held, Limits, New, State, WorkerRef};
use rota_core::{AgentName, Fence, Namespace, TaskId, Timestamp, WorkerName, retry};
use rota_store::{Command, Create, OpenSession, Reads, Reply, Store, Tables};
use rota_store_sqlite::{Options, Sqlite};
use uuid::Uuid;

const CALLERS: u128 = 8;

fn namespace() -> Namespace {
    Namespace::new("n").unwrap()
}

fn create(id: TaskId, offer: WorkerRef) -> Command {
    let new = New {
        id,
        namespace: namespace(),
        alias: None,
        title: String::new(),
        owner: String::new(),
        parent: None,
        retry_of: None,
        labels: BTreeMap::new(),
        target: Target::Worker(offer.worker.clone()),
        priority: Priority::NORMAL,
        desired: Desired::Run,
        limits: Limits::default(),
        retry: retry::Policy::default(),
        not_before: None,
        dependencies: Vec::new(),
        trace: task::Trace::default(),
        agent_known: true,
        has_secrets: false,
    };
    let payload = Bytes::from(vec![1; 200]);
    Command::Create(Box::new(Create {
        new,
        payload,
        secrets: None,
        key: Some(id.to_string()),
        foreign_id: false,
        strict: false,
        offer: Some(offer),
    }))
}

/// Creates and ends tasks until it is killed; says each answer once it has it.
async fn work(store: Arc<Sqlite>, round: u128, caller: u128, worker: WorkerRef) {
    for number in 0_u128.. {
        let id = TaskId(Uuid::from_u128((round << 100) | (caller << 80) | number));
        let replies = store.apply(vec![create(id, worker.clone())]).await.unwrap();
        let [Ok(Reply::Created(_))] = &replies[..] else { panic!("{replies:?}") };
        say(&format!("made {id}\n"));
        let held = Held { by: worker.clone(), fence: Fence(1) };
        let ending = Ending::Succeeded(Some(Bytes::from(id.to_string())));
        let command =
            task::Command::Finish { held, ending, usage: None, session: String::new(), jitter: 0.0 };
        let replies = store.apply(vec![Command::Task { namespace: namespace(), id, command }]).await.unwrap();
        assert!(replies[0].is_ok());
        say(&format!("done {id}\n"));
    }
}

fn say(line: &str) {
    // One write a line; not `println`, which tests capture.
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

#[test]
#[ignore = "the child of the test below, told by its standard input what to do"]
fn child() {
    let mut told = String::new();
    std::io::stdin().read_line(&mut told).unwrap();
    let Some((round, path)) = told.trim_end().split_once(' ') else { return };
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
fn killed_at_work_it_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rota.db");
    // By task, whether its end was acknowledged too.
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
        // A different number each round; the kill comes while commits go on.
        let mut left = 5 + round * 7 % 40;
        let mut heard = 0;
        for line in lines.by_ref() {
            let Ok(line) = line else { break };
            heard += u32::from(hear(&line, &mut known));
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
                break;
            }
        }
        for line in lines.map_while(Result::ok) {
            heard += u32::from(hear(&line, &mut known));
        }
        child.wait().unwrap();
        assert!(heard > 0, "the child did nothing");

        let (mut writer, readers) = rota_store_sqlite::open_tables(&path).unwrap();
        for (id, done) in &known {
            let task = Reads::task(&readers, *id).unwrap().unwrap_or_else(|| panic!("{id} is lost"));
            assert!(!done || task.state == State::Succeeded, "the end of {id} is lost");
            let log = readers.events(*id, 0, usize::MAX).unwrap();
            assert_eq!(log.len() as u64, task.log_seq);
            assert_eq!(Tables::key(&mut writer, &namespace(), &id.to_string()).unwrap(), Some(*id));
            assert_eq!(Reads::payload(&readers, *id).unwrap().map(|payload| payload.len()), Some(200));
            let result = Reads::result(&readers, *id).unwrap();
            assert_eq!(result.is_some(), task.state == State::Succeeded);
        }
    }
    assert!(known.values().any(|done| *done), "nothing was ever ended");
}

/// Takes in a line of the child, if it is whole.
fn hear(line: &str, known: &mut HashMap<TaskId, bool>) -> bool {
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
