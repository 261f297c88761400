//! Kinds of tasks: those that come with Rota, those of a namespace, and what a new task gets from its kind. Each kind of a namespace
//! is a document. Knows nothing of requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use prost::Message;
use rota_core::Namespace;
use rota_core::target::Target as CoreTarget;
use rota_proto::labels::KIND;
use rota_proto::v1::target::Kind as Target;
use rota_proto::{names as n, reasons, v1};
use rota_store::{Document, DocumentKey, DocumentKind, DocumentsPage};
use tonic::Status;

use crate::agents::AgentRegistry;
use crate::scheduler::Scheduler;
use crate::store_client::StoreClient;
use crate::wire::kind::{self as wire, AUTO};
use crate::wire::status::{self, error, invalid};
use crate::wire::{etag, names, target, time};

/// Kinds that a namespace may have of its own.
pub(crate) const MAX_KINDS: usize = 50;

macro_rules! shipped {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../../kinds/", $name, ".yaml")))),*] };
}

const FILES: [(&str, &str); 9] =
    shipped!["auto", "bug_fix", "code", "data", "docs", "investigation", "research", "review", "test"];

/// Kinds that come with Rota. A test reads the files, so that none is missing.
static SHIPPED: LazyLock<BTreeMap<&'static str, v1::TaskKindSpec>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &str)| Some((*name, serde_saphyr::from_str(text).ok()?));
    FILES.iter().filter_map(read).collect()
});

#[derive(Clone)]
pub(crate) struct Kinds {
    pub(crate) store: StoreClient,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) scheduler: Arc<Scheduler>,
    /// Held by a call that counts kinds before it adds one.
    pub(crate) changes: Arc<tokio::sync::Mutex<()>>,
    /// What was read for the tasks of one batch.
    pub(crate) read: Option<Arc<Mutex<Read>>>,
}

/// Kinds that were read, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Read {
    named: BTreeMap<(Namespace, String), Option<v1::TaskKind>>,
    all: BTreeMap<Namespace, Arc<BTreeMap<String, v1::TaskKind>>>,
}

pub(crate) fn key(namespace: &Namespace, name: &str) -> DocumentKey {
    DocumentKey { kind: DocumentKind::TaskKind, namespace: namespace.clone(), name: name.to_owned() }
}

/// Returns the kind of a document.
pub(crate) fn decode(document: &Document) -> Result<v1::TaskKind, Status> {
    let DocumentKey { namespace, name, .. } = &document.key;
    let spec = v1::TaskKindSpec::decode(&document.payload[..])
        .map_err(|_| error("STORE_CORRUPT", format!("the record of kind {name} cannot be decoded")))?;
    Ok(v1::TaskKind {
        name: n::kind(namespace.as_str(), name),
        spec: Some(spec),
        shipped: false,
        create_time: Some(time::timestamp(document.created_at)),
        update_time: Some(time::timestamp(document.updated_at)),
        etag: etag::of_document(document),
    })
}

fn shipped(namespace: &Namespace, name: &str, spec: &v1::TaskKindSpec) -> v1::TaskKind {
    let name = n::kind(namespace.as_str(), name);
    v1::TaskKind { name, spec: Some(spec.clone()), shipped: true, ..Default::default() }
}

impl Kinds {
    /// Returns access that reads and decodes each kind once, for the tasks of one batch.
    pub(crate) fn of_batch(&self) -> Self {
        Self { read: Some(Arc::default()), ..self.clone() }
    }

    /// Returns a kind of a namespace, or the one of that name that comes with Rota.
    pub(crate) async fn get(
        &self,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Option<v1::TaskKind>, Status> {
        let place = || (namespace.clone(), name.to_owned());
        if let Some(kind) = self.read.as_ref().and_then(|read| read.lock().named.get(&place()).cloned()) {
            return Ok(kind);
        }
        let kind = match self.store.reads().document(key(namespace, name)).await.map_err(status::store)? {
            Some(document) => Some(decode(&document)?),
            None => SHIPPED.get(name).map(|spec| shipped(namespace, name, spec)),
        };
        if let Some(read) = &self.read {
            read.lock().named.insert(place(), kind.clone());
        }
        Ok(kind)
    }

    /// Returns the kinds that a namespace has of its own, by name.
    pub(crate) async fn own(&self, namespace: &Namespace) -> Result<Vec<Document>, Status> {
        let page = DocumentsPage {
            kind: DocumentKind::TaskKind,
            namespace: Some(namespace.clone()),
            after: None,
            limit: MAX_KINDS,
            bytes: usize::MAX,
        };
        Ok(self.store.reads().documents(page).await.map_err(status::store)?.documents)
    }

    /// Returns all kinds of a namespace by name, with those that come with Rota.
    pub(crate) async fn all(
        &self,
        namespace: &Namespace,
    ) -> Result<Arc<BTreeMap<String, v1::TaskKind>>, Status> {
        if let Some(all) = self.read.as_ref().and_then(|read| read.lock().all.get(namespace).cloned()) {
            return Ok(all);
        }
        let one =
            |(name, spec): (&&str, &v1::TaskKindSpec)| ((*name).to_owned(), shipped(namespace, name, spec));
        let mut all: BTreeMap<_, _> = SHIPPED.iter().map(one).collect();
        for document in self.own(namespace).await? {
            all.insert(document.key.name.clone(), decode(&document)?);
        }
        let all = Arc::new(all);
        if let Some(read) = &self.read {
            read.lock().all.insert(namespace.clone(), Arc::clone(&all));
        }
        Ok(all)
    }

    /// Returns what tasks of these kinds get from them, by name. `auto`, and an expression, may be any kind of the namespace.
    pub(crate) async fn presets(
        &self,
        namespace: &Namespace,
        names: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, v1::TaskKindSpec>, Status> {
        let mut presets = BTreeMap::new();
        if names.iter().any(|name| *name == AUTO || name.contains("${{")) {
            let all = self.all(namespace).await?;
            presets.extend(all.iter().filter_map(|(name, kind)| Some((name.clone(), kind.spec.clone()?))));
            return Ok(presets);
        }
        for name in names {
            if let Some(spec) = self.get(namespace, name).await?.and_then(|kind| kind.spec) {
                // They preset nothing, and do not choose a kind that is named.
                let spec = v1::TaskKindSpec { description: String::new(), words: Vec::new(), ..spec };
                presets.insert((*name).to_owned(), spec);
            }
        }
        Ok(presets)
    }

    /// Returns a kind, which must exist.
    async fn known(
        &self,
        namespace: &Namespace,
        field: &str,
        name: &str,
    ) -> Result<v1::TaskKindSpec, Status> {
        if let Some(spec) = self.get(namespace, name).await?.and_then(|kind| kind.spec) {
            return Ok(spec);
        }
        let known: Vec<_> = self.all(namespace).await?.keys().cloned().collect();
        let why = format!("{name} is not a kind of the namespace: use one of {}", known.join(", "));
        Err(invalid(field, why))
    }

    /// Checks that kinds exist which tasks will have later. `auto`, and an expression, may be any kind.
    pub(crate) async fn check(
        &self,
        namespace: &Namespace,
        field: &str,
        kinds: &[&str],
    ) -> Result<(), Status> {
        for name in kinds.iter().collect::<BTreeSet<_>>() {
            if !name.is_empty() && *name != AUTO && !name.contains("${{") {
                self.known(namespace, field, &names::kind_id(field, name)?).await?;
            }
        }
        Ok(())
    }

    /// Gives a new task what its kind has and the task leaves unset.
    pub(crate) async fn complete(&self, namespace: &Namespace, task: &mut v1::Task) -> Result<(), Status> {
        let Some(spec) = task.spec.as_mut() else { return Ok(()) };
        spec.prompt_frame.clear();
        if spec.kind.is_empty() {
            return Ok(());
        }
        // Boxed, since most tasks have no kind, and the state of each creation is moved several times.
        Box::pin(self.complete_by_kind(namespace, task)).await
    }

    async fn complete_by_kind(&self, namespace: &Namespace, task: &mut v1::Task) -> Result<(), Status> {
        let Some(spec) = task.spec.as_mut() else { return Ok(()) };
        let name = match spec.kind.as_str() {
            AUTO => self.decide(namespace, &spec.prompt).await?,
            name => names::kind_id("task.spec.kind", name)?,
        };
        let kind = self.known(namespace, "task.spec.kind", &name).await?;
        self.preset(namespace, spec, kind)?;
        spec.kind.clone_from(&name);
        task.labels.insert(KIND.to_owned(), name);
        Ok(())
    }

    /// Returns the kind that a prompt asks for.
    async fn decide(&self, namespace: &Namespace, prompt: &str) -> Result<String, Status> {
        let all = self.all(namespace).await?;
        let words = all.iter().filter_map(|(name, kind)| Some((name.as_str(), kind.spec.as_ref()?)));
        Ok(wire::choose(prompt, words).unwrap_or(AUTO).to_owned())
    }

    fn preset(
        &self,
        namespace: &Namespace,
        spec: &mut v1::TaskSpec,
        kind: v1::TaskKindSpec,
    ) -> Result<(), Status> {
        if spec.target.as_ref().is_none_or(|target| target.kind.is_none()) {
            spec.target = kind.target.filter(|target| match &target.kind {
                Some(Target::Capabilities(set)) => {
                    self.agents.find(namespace, |_, known| known.agent.may_have(&set.capabilities)).is_some()
                }
                _ => true,
            });
        }
        spec.prompt_frame = kind.frame;
        if spec.result_schema.is_none() {
            spec.result_schema = kind.result_schema.map(Box::new);
        }
        let sets_limits = kind.limits.is_some_and(|limits| limits != v1::Limits::default());
        let sets_retry = spec.retry.is_none() && kind.retry.is_some();
        if !(sets_limits || sets_retry) || self.keeps_limits(namespace, spec.target.as_ref())? {
            return Ok(());
        }
        if let Some(limits) = &kind.limits {
            wire::complete_limits(spec.limits.get_or_insert_default(), limits);
        }
        if spec.retry.is_none() {
            spec.retry = kind.retry;
        }
        Ok(())
    }

    /// Whether the agents that may take the task let tasks set no limits: they would refuse what only the kind has set. Fails if
    /// only some of them do, since the task would have no limits on the others.
    fn keeps_limits(&self, namespace: &Namespace, given: Option<&v1::Target>) -> Result<bool, Status> {
        let target = target::from_wire("task.spec.target", given)?;
        // A worker that has not connected yet may be of any agent.
        let of_worker = match &target {
            CoreTarget::Worker(worker) => self.scheduler.agent_of(namespace, worker),
            _ => None,
        };
        let find = |keeps: bool| {
            self.agents.find(namespace, |name, agent| {
                let takes = match &target {
                    CoreTarget::Capabilities(words) => agent.agent.may_have(words),
                    CoreTarget::Worker(_) => of_worker.as_ref().is_none_or(|of| of == name),
                    target => target.agents().any(|of| of == name),
                };
                takes && keeps == (agent.spec.overrides() == v1::Overrides::None)
            })
        };
        match (find(true), find(false)) {
            (Some(strict), Some(other)) => Err(status::hinted(
                reasons::OVERRIDE_FORBIDDEN,
                format!(
                    "the kind sets limits, which agent {other} lets tasks set, and agent {strict} does not"
                ),
                format!("name an agent as the target, or set `overrides: Limits` in agent {strict}"),
            )),
            (strict, _) => Ok(strict.is_some()),
        }
    }
}

/// Keeps the label of a task's kind, which callers do not set and manifests do not have.
pub(crate) fn keep_label(labels: &mut BTreeMap<String, String>, before: &BTreeMap<String, String>) {
    match before.get(KIND) {
        Some(kind) => labels.insert(KIND.to_owned(), kind.clone()),
        None => labels.remove(KIND),
    };
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_proto::v1::task_kind_service_server::TaskKindService;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;

    use super::*;
    use crate::clock::now;

    #[tokio::test]
    async fn batch_reads_each_kind_once() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(now)).unwrap();
        let kinds = Kinds {
            store: StoreClient::new(Arc::new(store), Arc::new(now), Counter::default()),
            agents: Arc::default(),
            scheduler: Arc::new(Scheduler::new(Counter::default())),
            changes: Arc::default(),
            read: None,
        };
        let namespace = Namespace::new("default").unwrap();
        let frame = async |kinds: &Kinds| {
            let kind = kinds.get(&namespace, "code").await.unwrap().unwrap();
            assert_eq!(kinds.all(&namespace).await.unwrap()["code"], kind);
            kind.spec.unwrap().frame
        };
        let batch = kinds.of_batch();
        let shipped = frame(&batch).await;
        let spec = v1::TaskKindSpec { frame: "Mine: ${{ prompt }}".to_owned(), ..Default::default() };
        let kind = v1::TaskKind { name: n::kind("default", "code"), spec: Some(spec), ..Default::default() };
        let request =
            v1::PutTaskKindRequest { task_kind: Some(kind), validate_only: false, ..Default::default() };
        kinds.put_task_kind(tonic::Request::new(request)).await.unwrap();
        assert_eq!(frame(&batch).await, shipped, "it was read before");
        assert_ne!(frame(&kinds.of_batch()).await, shipped);
        assert_ne!(frame(&kinds).await, shipped);
    }

    #[test]
    fn shipped_files_are_valid_and_share_no_word() {
        let mut words = BTreeMap::new();
        for (name, text) in FILES {
            let kind: v1::TaskKindSpec = serde_saphyr::from_str(text).unwrap();
            wire::check(&kind).unwrap();
            names::kind_id("name", name).unwrap();
            assert!(!kind.description.is_empty(), "{name}");
            for word in kind.words {
                assert_eq!(words.insert(word.clone(), name), None, "{word}");
            }
        }
        assert_eq!(SHIPPED.len(), FILES.len());
    }
}
