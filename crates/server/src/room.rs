//! Room of the store on its volume, as it was last measured.

use std::time::Duration;

use rota_core::rank::Priority;
use rota_store::StoreSpace;
use tokio::time::Instant;
use tonic::Status;

use crate::health;
use crate::wire::status;

/// Time with a nearly full volume after which what is left of it is kept for results. A shorter one costs no log.
const MAX_LOW: Duration = Duration::from_secs(120);

/// Returns the refusal of a new task, if there is no room for it: what is left of scarce room is kept for urgent ones. Other new
/// records count as tasks of normal priority.
pub(crate) fn refusal(space: Option<StoreSpace>, priority: Priority) -> Option<Status> {
    let space =
        space.filter(|space| space.is_nearly_full() || (priority <= Priority::LOW && space.is_scarce()))?;
    let why = health::describe_space(&space);
    let why = match space.is_nearly_full() {
        true => why,
        false => format!("no tasks of low priority (0 to 2) are accepted: {why}"),
    };
    Some(status::hinted("STORE_NEARLY_FULL", why, health::SPACE_HINT))
}

/// Room of the store when it was last measured.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Room {
    /// `None` before the first measurement, and for a store without files.
    space: Option<StoreSpace>,
    /// Since when the volume has been nearly full.
    low_since: Option<Instant>,
}

impl Room {
    pub(crate) fn measured(&mut self, space: Option<StoreSpace>, now: Instant) {
        let since = self.low_since.unwrap_or(now);
        self.low_since = space.filter(StoreSpace::is_nearly_full).map(|_| since);
        self.space = space;
    }

    pub(crate) fn space(&self) -> Option<StoreSpace> {
        self.space
    }

    pub(crate) fn is_kept_for_results(&self, now: Instant) -> bool {
        self.low_since.is_some_and(|since| now.duration_since(since) >= MAX_LOW)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::metrics::counter::Counter;
    use rota_proto::v1::task_kind_service_server::TaskKindService;
    use rota_proto::v1::template_service_server::TemplateService;
    use rota_proto::v1::workflow_service_server::WorkflowService;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;
    use tonic::Request;
    use tonic_types::StatusExt;

    use super::*;
    use crate::artifacts::Artifacts;
    use crate::clock::now;
    use crate::grpc::{Streams, Templates, Workflows};
    use crate::kinds::Kinds;
    use crate::scheduler::Scheduler;
    use crate::store_client::StoreClient;
    use crate::watchers::Deltas;

    fn request<T: DeserializeOwned>(given: Value) -> Request<T> {
        Request::new(serde_json::from_value(given).unwrap())
    }

    #[tokio::test]
    async fn full_volume_takes_no_new_records() {
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(now)).unwrap();
        let store = StoreClient::new(Arc::new(store), Arc::new(now), Counter::default());
        let (folder, scheduler) =
            (tempfile::tempdir().unwrap(), Arc::new(Scheduler::new(Counter::default())));
        let kinds = Kinds {
            store: store.clone(),
            agents: Arc::default(),
            scheduler: Arc::clone(&scheduler),
            changes: Arc::default(),
            read: None,
        };
        let templates = Templates { store: store.clone(), kinds: kinds.clone(), changes: Arc::default() };
        let parts = rota_artifacts::Parts::in_folder(folder.path()).unwrap();
        let workflows = Workflows {
            store: store.clone(),
            artifacts: Artifacts::new(parts, store.clone(), 0),
            ready_steps: Arc::default(),
            streams: Streams {
                watchers: Arc::default(),
                deltas: Arc::new(Deltas::new(scheduler)),
                stop: CancellationToken::new(),
            },
            approvals: Arc::default(),
        };
        let spec = json!({ "steps": [{ "name": "hold", "wait": { "signal": "go" } }] });
        let create = async |key: &str, only_check: bool| {
            let given = json!({
                "parent": "namespaces/n",
                "workflow": { "spec": spec },
                "idempotencyKey": key,
                "validateOnly": only_check,
            });
            let created = workflows.create_workflow(request(given)).await;
            created.map(|created| created.into_inner().uid)
        };
        let put_kind = async |description: &str| {
            let kind = json!({ "name": "namespaces/n/kinds/own", "spec": { "description": description } });
            kinds.put_task_kind(request(json!({ "taskKind": kind }))).await.map(drop)
        };
        let put_template = async |name: &str, labels: Value| {
            let name = format!("namespaces/n/templates/{name}");
            let template = json!({ "name": name, "labels": labels, "spec": { "workflow": spec } });
            let given = json!({ "workflowTemplate": template, "allowMissing": true });
            templates.update_workflow_template(request(given)).await.map(drop)
        };
        let known = create("known", false).await.unwrap();
        put_template("known", json!({})).await.unwrap();

        let space = StoreSpace { volume: 100, free: 1, ..StoreSpace::default() };
        store.measured(Some(space));
        let refused = [
            create("new", false).await.map(drop),
            put_kind("new").await,
            put_template("new", json!({})).await,
        ];
        for refused in refused {
            let info = refused.unwrap_err().get_details_error_info().unwrap();
            assert_eq!(info.reason, "STORE_NEARLY_FULL");
        }
        // What exists is returned, and may be changed; a check writes nothing.
        assert_eq!(create("known", false).await.unwrap(), known);
        put_template("known", json!({ "team": "a" })).await.unwrap();
        create("new", true).await.unwrap();
        store.measured(None);
        create("new", false).await.unwrap();
        put_kind("new").await.unwrap();
        store.measured(Some(space));
        put_kind("changed").await.unwrap();
    }

    #[test]
    fn volume_that_stays_nearly_full_is_kept_for_results() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let full = StoreSpace { volume: 100, free: 1, ..StoreSpace::default() };
        let roomy = StoreSpace { free: 50, ..full };
        let mut room = Room::default();
        room.measured(Some(full), at(0));
        room.measured(Some(full), at(119));
        assert!(!room.is_kept_for_results(at(119)) && room.is_kept_for_results(at(120)));
        room.measured(Some(roomy), at(125));
        room.measured(Some(full), at(130));
        assert!(!room.is_kept_for_results(at(240)), "it has had room");
    }

    #[test]
    fn low_priority_is_refused_first() {
        let reason = |free: u64, priority: i32| {
            let space = StoreSpace { volume: 2000, free, ..StoreSpace::default() };
            let refused = refusal(Some(space), Priority::new(priority).unwrap());
            refused.map(|status| status.message().contains("low priority"))
        };
        assert_eq!((reason(200, 0), reason(200, 10)), (None, None));
        assert_eq!((reason(199, 0), reason(199, 2)), (Some(true), Some(true)));
        assert_eq!((reason(199, 3), reason(100, 10)), (None, None));
        assert_eq!((reason(99, 0), reason(99, 10)), (Some(false), Some(false)));
        assert!(refusal(None, Priority::LOW).is_none(), "a store without files");
    }
}
