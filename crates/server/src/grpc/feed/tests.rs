//! Feeds over an in-memory store, with commits that are published by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use prometheus_client::metrics::counter::Counter;
use proptest::prelude::*;
use rota_core::target::Target;
use rota_core::task::{Command, Desired};
use rota_core::{AgentName, TaskId};
use rota_proto::framing::PREFIX;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_store::{Commit, Create, Prune, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::scheduler::Scheduler;
use crate::watchers::{Deltas, MAX_BUFFER_BYTES, Watchers};

const NAMESPACES: [&str; 2] = ["n", "m"];
/// The time of the store: the encoded size of a time differs from one to the next. It is behind the machine's.
const NOW: Timestamp = Timestamp(1_750_000_000_123_456);

struct Fixture {
    store: StoreClient,
    commits: mpsc::Receiver<Commit>,
    streams: Streams,
    created: BTreeSet<u8>,
}

/// A stream of a feed, and what it has delivered.
struct Watcher {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>,
    delivered: Delivered,
    /// What it had delivered after the first message of the last chunk.
    first: Delivered,
    parent: String,
    largest_chunk: usize,
}

#[derive(Debug, Clone, Default)]
struct Delivered {
    /// Log positions that arrived, by task.
    log: BTreeMap<String, Vec<i64>>,
    token: String,
}

impl Fixture {
    fn new() -> Self {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(|| NOW)).unwrap();
        let commits = store.commits().unwrap();
        let deltas = Arc::new(Deltas::new(Arc::new(Scheduler::new(Counter::default()))));
        let streams =
            Streams { watchers: Arc::new(Watchers::default()), deltas, stop: CancellationToken::new() };
        Self {
            store: StoreClient::new(Arc::new(store), Arc::new(|| NOW), Counter::default()),
            commits,
            streams,
            created: BTreeSet::new(),
        }
    }

    async fn watch(&self, parent: &str, token: &str) -> Watcher {
        self.open(parent, token, false, Form::Single).await
    }

    /// Opens a feed. All entries of these tests are changes of state or of the task itself.
    async fn open(&self, parent: &str, token: &str, states_only: bool, form: Form) -> Watcher {
        let (parent, token) = (parent.to_owned(), token.to_owned());
        let batched = form != Form::Single;
        let request = v1::WatchTasksRequest { parent: parent.clone(), token, states_only, batched };
        let gzip = form == Form::Compressed;
        let chunks = many(&self.store, &self.streams, None, request, false, gzip).await.unwrap().boxed();
        let mut watcher = Watcher {
            chunks,
            delivered: Delivered::default(),
            first: Delivered::default(),
            parent,
            largest_chunk: 0,
        };
        assert!(watcher.read().await.is_some());
        watcher
    }

    /// Commits changes of tasks. The first change of each is its creation.
    async fn commit(&mut self, tasks: &[u8], text: &str) {
        let commands = tasks.iter().map(|&task| {
            let namespace = Namespace::new(NAMESPACES[usize::from(task % 2)]).unwrap();
            let id = TaskId(Uuid::from_u128(u128::from(task) + 1));
            let labels = [("label".to_owned(), text.to_owned())].into();
            if !self.created.insert(task) {
                let reason = text.to_owned();
                let command = Command::Update { priority: None, labels: Some(labels), desired: None, reason };
                return rota_store::Command::Task { namespace, id, command };
            }
            let agent = Target::Agent(AgentName::new("a").unwrap());
            let task = rota_core::task::Task { labels, ..Task::new(id, namespace, agent) };
            let (payload, foreign_id) = (Bytes::new(), true);
            let create = Create {
                task,
                payload,
                secrets: None,
                given: Default::default(),
                key: None,
                foreign_id,
                strict: false,
                offer: None,
            };
            rota_store::Command::Create(Box::new(create))
        });
        let commands = commands.collect();
        self.store.apply(commands).await.unwrap().into_iter().for_each(|reply| drop(reply.unwrap()));
    }

    /// Publishes the oldest commit that has not been published, if there is one.
    fn publish(&mut self) -> bool {
        let commit = self.commits.try_recv();
        commit.is_ok_and(|commit| {
            self.streams.watchers.publish(&commit, NOW);
            true
        })
    }

    async fn settle(&mut self, watcher: &mut Watcher) {
        while self.publish() {}
        self.streams.watchers.flush();
        while watcher.read().await.is_some() {}
    }

    /// Asserts that a watcher has received each entry since `from` once.
    async fn assert_complete(&self, watcher: &Watcher, from: &Delivered) {
        for (name, log) in &watcher.delivered.log {
            assert!(log.windows(2).all(|two| two[1] == two[0] + 1), "{name}: {log:?}");
        }
        let (all, next) =
            (self.store.reads().list(rota_store::Filter { limit: 500, ..Default::default() }), 1);
        for task in all.await.unwrap().tasks {
            let name = rota_proto::names::task(task.namespace.as_str(), task.id);
            if watcher.parent != "namespaces/-" && !name.starts_with(&format!("{}/", watcher.parent)) {
                assert!(!watcher.delivered.log.contains_key(&name), "{name}");
                continue;
            }
            let next = from.log.get(&name).and_then(|log| log.last()).map_or(next, |last| last + 1);
            let end = i64::try_from(task.log_seq).unwrap();
            let log = watcher.delivered.log.get(&name).cloned().unwrap_or_default();
            let (first, last) = (log.first().copied().unwrap_or(end + 1), log.last().copied().unwrap_or(end));
            assert!(first <= next && last == end, "{name}: {log:?} instead of {next} to {end}");
        }
    }
}

impl Watcher {
    /// Reads a chunk, if there is one.
    async fn read(&mut self) -> Option<Bytes> {
        // Time is paused: it passes only when there is nothing to do.
        let next = tokio::time::timeout(Duration::from_millis(1), self.chunks.next()).await;
        let chunk = next.ok()?.unwrap().unwrap();
        self.largest_chunk = self.largest_chunk.max(chunk.len());
        let (mut messages, mut first) = (unzipped(&chunk), true);
        while let Some(message) = messages::take::<v1::WatchTasksResponse>(&mut messages).unwrap() {
            assert!(!message.resync);
            self.delivered.token = message.token;
            let single = message.task.map(|task| v1::TaskChange { task: Some(task), events: message.events });
            for v1::TaskChange { task, events } in single.into_iter().chain(message.changes) {
                let task = task.unwrap();
                let log = self.delivered.log.entry(task.name).or_default();
                log.extend(events.iter().map(|event| event.log_seq));
                assert!(task.status.unwrap().log_seq >= *log.last().unwrap());
            }
            if std::mem::take(&mut first) {
                self.first = self.delivered.clone();
            }
        }
        Some(chunk)
    }
}

/// Returns a chunk without compression. One that is compressed is one message.
fn unzipped(chunk: &Bytes) -> Bytes {
    if chunk[0] == 0 {
        return chunk.clone();
    }
    let mut message = vec![0; PREFIX];
    flate2::read::GzDecoder::new(&chunk[PREFIX..]).read_to_end(&mut message).unwrap();
    framing::set_length(&mut message);
    message.into()
}

#[tokio::test(start_paused = true)]
async fn busy_feed_is_one_small_message() {
    const TASKS: u8 = 200;
    let mut fixture = Fixture::new();
    let mut watchers = Vec::new();
    for form in [Form::Single, Form::Batched, Form::Compressed] {
        watchers.push(fixture.open("namespaces/-", "", false, form).await);
    }
    fixture.commit(&(0..TASKS).collect::<Vec<_>>(), "text").await;
    while fixture.publish() {}
    fixture.streams.watchers.flush();
    assert_eq!(fixture.streams.watchers.stats().encoded, u64::from(TASKS), "once for all of them");
    let mut sizes = Vec::new();
    for watcher in &mut watchers {
        sizes.push(watcher.read().await.unwrap().len());
        fixture.assert_complete(watcher, &Delivered::default()).await;
    }
    assert!(sizes[1] < sizes[0] && 5 * sizes[2] < sizes[1], "{sizes:?}");
    let tokens = watchers.iter().map(|watcher| watcher.delivered.token.split_once('.').unwrap().0);
    assert!(
        tokens.clone().all(|token| Some(token) == tokens.clone().next()),
        "they end at the same revision"
    );
}

#[tokio::test(start_paused = true)]
async fn work_per_commit_is_independent_of_watchers() {
    const COMMITS: u8 = 50;
    let mut works = Vec::new();
    for count in [100, 10_000] {
        let mut fixture = Fixture::new();
        let mut watchers = Vec::new();
        for _ in 0..count {
            watchers.push(fixture.watch("namespaces/-", "").await);
        }
        for task in 0..COMMITS {
            fixture.commit(&[task], "text").await;
            fixture.publish();
            fixture.streams.watchers.flush();
        }
        for watcher in &mut watchers {
            fixture.settle(watcher).await;
            fixture.assert_complete(watcher, &Delivered::default()).await;
        }
        works.push(fixture.streams.watchers.stats());
    }
    let [few, many] = &works[..] else { unreachable!() };
    assert_eq!((few.encoded, few.reads), (u64::from(COMMITS), 0));
    assert_eq!(few, many);
}

#[tokio::test(start_paused = true)]
async fn stalled_watchers_hold_nothing() {
    const STALLED: usize = 128;
    const TASKS: u8 = 240;
    let text = "x".repeat(100 << 10);
    let mut fixture = Fixture::new();
    let mut stalled = Vec::new();
    for parent in ["namespaces/-", "namespaces/n"].repeat(STALLED / 2) {
        stalled.push(fixture.watch(parent, "").await);
    }
    let mut fast = fixture.watch("namespaces/-", "").await;
    let mut first = None;
    for task in 0..TASKS {
        fixture.commit(&[task], &text).await;
        fixture.publish();
        fixture.streams.watchers.flush();
        let chunk = fast.read().await;
        first = first.or(chunk);
        let stats = fixture.streams.watchers.stats();
        assert!(stats.bytes <= MAX_BUFFER_BYTES && stats.chunks <= 2 * usize::from(TASKS), "{stats:?}");
    }
    let before = fixture.streams.watchers.stats();
    assert!(before.bytes > MAX_BUFFER_BYTES / 2 && before.reads == 0, "{before:?}");
    assert!(first.is_some_and(|chunk| chunk.is_unique()), "a watcher holds an evicted chunk");
    fixture.assert_complete(&fast, &Delivered::default()).await;
    // Those that continue receive everything from the store and then from the buffer, in chunks of bounded size.
    for mut watcher in stalled.drain(..4) {
        fixture.settle(&mut watcher).await;
        fixture.assert_complete(&watcher, &Delivered::default()).await;
        assert!(watcher.largest_chunk <= 2 * MAX_CHUNK_BYTES, "{}", watcher.largest_chunk);
    }
    assert!(fixture.streams.watchers.stats().reads > before.reads);
    drop((stalled, fast));
    let after = fixture.streams.watchers.stats();
    assert_eq!((after.bytes, after.chunks), (0, 0), "topics without watchers are removed");
}

#[tokio::test(start_paused = true)]
async fn watcher_passes_removed_entries() {
    let mut fixture = Fixture::new();
    let mut watcher = fixture.watch("namespaces/-", "").await;
    fixture.commit(&[0], "text").await;
    let (namespace, id) = (Namespace::new(NAMESPACES[0]).unwrap(), TaskId(Uuid::from_u128(1)));
    let desired = Some(Desired::Cancelled);
    let command = Command::Update { priority: None, labels: None, desired, reason: String::new() };
    fixture.store.command(namespace, id, command, false).await.unwrap();
    while fixture.publish() {}
    fixture.streams.watchers.flush();
    fixture.streams.watchers.evict_oldest();
    let later = NOW + Duration::from_secs(60);
    let prune = Prune { ended_before: Some(later), left_before: later, limit: 10 };
    fixture.store.prune(prune).await.unwrap();
    assert!(watcher.read().await.is_none());
    assert_eq!(fixture.streams.watchers.stats().reads, 1);
    fixture.commit(&[1], "text").await;
    fixture.settle(&mut watcher).await;
    assert_eq!(watcher.delivered.log.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_age_by_the_clock_of_the_store() {
    let fixture = Fixture::new();
    let retention = Some(Duration::from_secs(60));
    for (age, resync) in [(59, false), (60, true)] {
        let token = token(&Lineage::default(), 0, NOW - Duration::from_secs(age));
        let parent = "namespaces/-".to_owned();
        let request = v1::WatchTasksRequest { parent, token, ..Default::default() };
        let chunks = many(&fixture.store, &fixture.streams, retention, request, false, false).await.unwrap();
        let mut first = Box::pin(chunks).next().await.unwrap().unwrap();
        let first = messages::take::<v1::WatchTasksResponse>(&mut first).unwrap().unwrap();
        assert_eq!(first.resync, resync, "after {age} s");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Changes of tasks in one transaction, with texts of a length.
    Commit(Vec<u8>, usize),
    Publish,
    Flush,
    Evict,
    Read(usize),
    /// Opens a second stream from the last token of a watcher, or from the first one of its last chunk; of states only, or
    /// of everything.
    Resume(usize, bool, bool, Form),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![8 => Just(10_usize), 1 => Just(MAX_CHUNK_BYTES)];
    let form = prop::sample::select(vec![Form::Single, Form::Batched, Form::Compressed]);
    let step = prop_oneof![
        4 => (prop::collection::btree_set(0_u8..6, 1..3), length)
            .prop_map(|(tasks, length)| Step::Commit(tasks.into_iter().collect(), length)),
        4 => Just(Step::Publish),
        1 => Just(Step::Flush),
        1 => Just(Step::Evict),
        4 => (0_usize..3).prop_map(Step::Read),
        2 => (0_usize..3, any::<bool>(), any::<bool>(), form)
            .prop_map(|(index, middle, states_only, form)| Step::Resume(index, middle, states_only, form)),
    ];
    prop::collection::vec(step, 0..60)
}

async fn run(steps: Vec<Step>) {
    let mut fixture = Fixture::new();
    let mut watchers = Vec::new();
    for (parent, form) in
        [("namespaces/-", Form::Single), ("namespaces/n", Form::Batched), ("namespaces/-", Form::Compressed)]
    {
        watchers.push(fixture.open(parent, "", false, form).await);
    }
    let mut resumed = Vec::new();
    for step in steps {
        match step {
            Step::Commit(tasks, length) => fixture.commit(&tasks, &"x".repeat(length)).await,
            Step::Publish => drop(fixture.publish()),
            Step::Flush => fixture.streams.watchers.flush(),
            Step::Evict => fixture.streams.watchers.evict_oldest(),
            Step::Read(index) => drop(watchers[index].read().await),
            Step::Resume(index, middle, states_only, form) => {
                let Watcher { parent, first, delivered, .. } = &watchers[index];
                let from = if middle { first } else { delivered };
                let watcher = fixture.open(parent, &from.token, states_only, form).await;
                resumed.push((watcher, from.clone()));
            }
        }
    }
    let started = watchers.into_iter().map(|watcher| (watcher, Delivered::default()));
    for (mut watcher, from) in started.chain(resumed) {
        fixture.settle(&mut watcher).await;
        fixture.assert_complete(&watcher, &from).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_watcher_receives_everything_once(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(steps));
    }
}
