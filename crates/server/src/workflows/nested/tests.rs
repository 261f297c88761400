//! Reads of the store by a step whose workflows leave results.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use rota_core::workflow::{Kind, StepState};
use rota_core::{Namespace, RouteId, TaskKey, Timestamp, WorkflowId};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::search::{ChangedTexts, IndexUpdate, SearchIndex, SearchQuery};
use rota_store::single_writer::SingleWriterStore;
use rota_store::{
    ArtifactsKeys, ArtifactsRow, Budget, Document, DocumentKey, Documents, DocumentsPage, Error, FeedPage,
    Filter, NameKey, Page, Reader, ScopedId, SealedSecrets, Snapshot, StoreSpace, StoreStats, TaskBody,
    Thread, WorkflowRows,
};
use uuid::Uuid;

use super::super::outcomes::results;
use super::*;

/// Counts the reads of workflows.
struct Counting {
    inner: InMemoryStore,
    reads: Arc<AtomicUsize>,
}

macro_rules! pass_on {
    ($(fn $name:ident($($arg:ident: $of:ty),*) -> $out:ty;)+) => {
        $(fn $name(&self, $($arg: $of),*) -> $out {
            Reader::$name(&self.inner, $($arg),*)
        })+
    };
}

impl SearchIndex for Counting {
    fn search(&self, query: &SearchQuery) -> Result<Vec<TaskKey>, Error> {
        self.inner.search(query)
    }

    fn changed_texts(&self, after: u64, entries: usize) -> Result<ChangedTexts, Error> {
        self.inner.changed_texts(after, entries)
    }

    fn indexed_revision(&self) -> Result<Option<u64>, Error> {
        self.inner.indexed_revision()
    }

    fn update_index(&self, update: &IndexUpdate) -> Result<bool, Error> {
        self.inner.update_index(update)
    }

    fn indexed_keys(&self, after: TaskKey, limit: usize) -> Result<Vec<TaskKey>, Error> {
        self.inner.indexed_keys(after, limit)
    }
}

impl Reader for Counting {
    fn workflows(&self, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.workflows(query)
    }

    pass_on! {
        fn concurrency() -> usize;
        fn task(id: &ScopedId) -> Result<Option<rota_core::task::Task>, Error>;
        fn newest(alias: &NameKey) -> Result<Option<rota_core::task::Task>, Error>;
        fn thread(name: &NameKey) -> Result<Option<Thread>, Error>;
        fn threads(after: &NameKey, limit: usize) -> Result<Vec<(NameKey, Thread)>, Error>;
        fn document(key: &DocumentKey) -> Result<Option<Document>, Error>;
        fn documents(page: &DocumentsPage) -> Result<Documents, Error>;
        fn bodies(body: TaskBody, keys: &[TaskKey], bytes: u64) -> Result<Vec<(TaskKey, Bytes)>, Error>;
        fn artifacts(keys: ArtifactsKeys, limit: usize) -> Result<Vec<ArtifactsRow>, Error>;
        fn secrets(after: TaskKey, limit: usize) -> Result<Vec<SealedSecrets>, Error>;
        fn list(filter: &Filter) -> Result<Page, Error>;
        fn events(key: TaskKey, after: u64, budget: Budget) -> Result<Vec<rota_core::task::Event>, Error>;
        fn feed(after: u64, budget: Budget) -> Result<FeedPage, Error>;
        fn revision() -> Result<u64, Error>;
        fn ahead(route: RouteId, rank: i64) -> Result<u64, Error>;
        fn stats(routes: &[RouteId]) -> Result<StoreStats, Error>;
        fn snapshot() -> Result<Snapshot, Error>;
        fn space() -> Result<Option<StoreSpace>, Error>;
        fn backup() -> Result<File, Error>;
    }
}

fn empty_store(reads: &Arc<AtomicUsize>) -> StoreClient {
    let memory = InMemoryStore::default();
    let engine = Engine::new(memory.clone(), 0).unwrap();
    let reader = Counting { inner: memory, reads: Arc::clone(reads) };
    let store = SingleWriterStore::start(engine, reader, Arc::new(|| Timestamp(1))).unwrap();
    StoreClient::new(Arc::new(store), Arc::new(|| Timestamp(1)), Counter::default())
}

#[tokio::test]
async fn results_are_read_in_pages() {
    let reads = Arc::new(AtomicUsize::new(0));
    let store = empty_store(&reads);
    let workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), Namespace::new("n").unwrap());
    for (created, pages) in [(0, 0), (1, 1), (OUTCOMES, 1), (OUTCOMES + 1, 2), (256, 4)] {
        let step = Step { created, round: 1, ..Step::new("call".to_owned(), Kind::Workflow) };
        reads.store(0, Ordering::Relaxed);
        let (found, bytes) = results(&store, &workflow, &step).await.unwrap_or_else(|_| panic!("no results"));
        assert_eq!((found, bytes), (vec![Value::Null; created as usize], 0));
        assert_eq!(reads.load(Ordering::Relaxed), pages, "{created} workflows");
    }
}

#[tokio::test]
async fn items_without_rows_are_evaluated_again() {
    let store = empty_store(&Arc::default());
    let workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), Namespace::new("n").unwrap());
    let (state, round, total, created) = (StepState::Running, 1, 3, 1);
    let step = Step { state, round, total, created, ..Step::new("call".to_owned(), Kind::Workflow) };
    let spec = json!({
        "name": "call",
        "forEach": { "items": "inputs.names" },
        "workflow": {
            "inputs": { "name": "${{ item }} is ${{ index }}" },
            "spec": { "steps": [{ "name": "pause", "wait": { "duration": "1s" } }] },
        },
    });
    let spec: v1::WorkflowStep = serde_json::from_value(spec).unwrap();
    let values = Values::default().inputs(json!({ "names": ["a", "b", "c"] })).budget(values::MAX_WORK);
    let more = more(&store, &workflow, &step, &spec, &values, &Files::new()).await;
    let action = more.map(|next| next.action).unwrap_or_else(|_| panic!("nothing is created"));
    let Action::More { created, nested, .. } = action else { panic!("{action:?}") };
    let inputs = nested.iter().map(|create| {
        let stored = values::decode(create.spec.clone()).unwrap_or_else(|_| panic!("no spec"));
        serde_json::to_value(stored.spec.unwrap().inputs).unwrap()
    });
    let expected = [json!({ "name": "b is 1" }), json!({ "name": "c is 2" })];
    assert_eq!((created, inputs.collect::<Vec<_>>()), (1, expected.to_vec()));
}
