//! Benchmark: complete task executions per second. Each caller creates a task, which is assigned in the same commit;
//! its worker accepts it (lazily) and completes it.
//!
//! ```text
//! cargo run --release -p rota-store-sqlite --example commit_rate -- [callers] [seconds] [folder]
//! ```
//!
//! Disks differ, and one disk from minute to minute: the time of a 4 KiB append with `fdatasync` in the same directory
//! is printed before and after.
#![expect(clippy::unwrap_used, reason = "a failed measurement panics")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, State, Task, WorkerRef};
use rota_core::{AgentName, Fence, Namespace, TaskId, Timestamp, WorkerName};
use rota_store::{Command, Create, OpenSession, PutAgent, Reply, Store};
use rota_store_sqlite::{Options, Sqlite};
use tokio::time::Instant;
use uuid::Uuid;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let callers = arguments.next().map_or(64, |text| text.parse().unwrap());
    let seconds = arguments.next().map_or(5, |text| text.parse().unwrap());
    let home = tempfile::tempdir_in(arguments.next().map_or_else(std::env::temp_dir, PathBuf::from)).unwrap();
    let before = syncs(home.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(home.path(), callers, Duration::from_secs(seconds)));
    let after = syncs(home.path());
    println!("fdatasync of 4 KiB   p50 {before:.2} ms before, {after:.2} ms after");
}

/// Returns the median time of an append with `fdatasync`, in milliseconds.
fn syncs(folder: &Path) -> f64 {
    let path = folder.join("syncs");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    std::fs::remove_file(path).unwrap();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

#[derive(Default)]
struct Counts {
    tasks: AtomicU64,
    commits: AtomicU64,
    changes: AtomicU64,
}

async fn measure(folder: &Path, callers: u128, length: Duration) {
    let origin = Instant::now();
    let begin = 1_750_000_000_000_000;
    let clock = Arc::new(move || Timestamp(begin) + origin.elapsed());
    let store = rota_store_sqlite::open(Options { path: folder.join("rota.db"), clock, seed: 1 }).unwrap();
    let (store, counts) = (Arc::new(store), Arc::new(Counts::default()));
    let mut commits = store.commits().unwrap();
    let worker = prepare(&store).await;

    let mut tasks = tokio::task::JoinSet::new();
    let mut reader = tokio::task::JoinSet::new();
    reader.spawn({
        let counts = Arc::clone(&counts);
        async move {
            while let Some(commit) = commits.recv().await {
                counts.commits.fetch_add(1, Ordering::Relaxed);
                counts.changes.fetch_add(commit.tasks.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let start = Instant::now();
    for caller in 0..callers {
        let (store, counts, worker) = (Arc::clone(&store), Arc::clone(&counts), worker.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < length {
                let begun = Instant::now();
                let millis = 0x0197_0000_0000 + start.elapsed().as_millis();
                let id = (millis << 80) | 0x7000_8000_0000_0000_0000 | (caller << 32) | times.len() as u128;
                live(&store, TaskId(Uuid::from_u128(id)), &worker).await;
                counts.tasks.fetch_add(1, Ordering::Relaxed);
                times.push(begun.elapsed());
            }
            times
        });
    }
    let mut times: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let took = start.elapsed().as_secs_f64();
    store.close().await;
    drop(store);
    reader.join_all().await;

    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let [made, commits, changes] = [&counts.tasks, &counts.commits, &counts.changes]
        .map(|count| f64::from(u32::try_from(count.load(Ordering::Relaxed)).unwrap()));
    println!("callers              {callers}");
    println!("tasks                {:.0}/s", made / took);
    println!("commits              {:.0}/s, {:.1} tasks changed in each", commits / took, changes / commits);
    println!("a task's whole life  p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    let size = std::fs::metadata(folder.join("rota.db")).unwrap().len();
    println!("on disk              {:.0} bytes a task", size as f64 / made);
}

async fn prepare(store: &Sqlite) -> WorkerRef {
    let namespace = Namespace::new("bench").unwrap();
    let agent = rota_core::agent::Agent {
        namespace: namespace.clone(),
        name: AgentName::new("agent").unwrap(),
        generation: 0,
        capabilities: Default::default(),
        defaults: Default::default(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        payload: Bytes::from(vec![1; 300]),
    };
    let worker = WorkerName::new("worker").unwrap();
    let hello = OpenSession {
        namespace,
        worker: worker.clone(),
        agent: agent.name.clone(),
        instance: "process".to_owned(),
        replica: "replica".to_owned(),
        running: Vec::new(),
        last: None,
    };
    let put = Command::PutAgent(PutAgent { agent, must_exist: None });
    let replies = store.apply(vec![put, Command::OpenSession(hello)]).await.unwrap();
    let Ok(Reply::Session(epoch, _)) = replies[1] else { panic!("{replies:?}") };
    WorkerRef { worker, epoch }
}

/// Executes one task from its creation to its end.
async fn live(store: &Sqlite, id: TaskId, worker: &WorkerRef) {
    let namespace = Namespace::new("bench").unwrap();
    let task = Task {
        title: "count the words of a page".to_owned(),
        owner: "bench".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "measurements".to_owned())]),
        trace: task::Trace { trace_id: [7; 16], span_id: [7; 8], ..task::Trace::default() },
        ..Task::new(id, namespace.clone(), Target::Agent(AgentName::new("agent").unwrap()))
    };
    let create = Create {
        task,
        payload: Bytes::from_static(&[1; 500]),
        secrets: None,
        key: None,
        foreign_id: false,
        strict: false,
        offer: Some(worker.clone()),
    };
    let replies = store.apply(vec![Command::Create(Box::new(create))]).await.unwrap();
    assert!(matches!(&replies[0], Ok(Reply::Created(task)) if task.state == State::Assigned));
    let attempt = AttemptRef { by: worker.clone(), fence: Fence(1) };
    let ask = |command| vec![Command::Task { namespace: namespace.clone(), id, command }];
    let finish = task::Command::Finish {
        attempt: attempt.clone(),
        last: 0,
        completion: Completion::Succeeded(Some(Bytes::from_static(&[1; 100]))),
        usage: None,
        session: String::new(),
        jitter: 0.0,
    };
    let taken = store.apply_lazily(ask(task::Command::Accept(attempt)));
    let (taken, ended) = tokio::join!(taken, store.apply(ask(finish)));
    assert!(taken.unwrap()[0].is_ok() && ended.unwrap()[0].is_ok());
}
