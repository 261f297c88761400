//! Lists of threads.

use rota_core::Namespace;
use rota_proto::{num, v1};
use rota_store::{NameKey, Thread};
use tonic::Status;

use super::answers::page_size;
use crate::store_client::StoreClient;
use crate::wire::status::{self, invalid};
use crate::wire::{event, names, time};

/// A name that no other namespace is before.
const FIRST: &str = "0";

/// Returns a page of threads.
pub(super) async fn list(
    store: &StoreClient,
    request: &v1::ListThreadsRequest,
) -> Result<v1::ListThreadsResponse, Status> {
    let namespace = names::parent_or_all("parent", &request.parent)?;
    let limit = page_size(request.page_size, 50)?;
    let after: NameKey = match (request.page_token.split_once('/'), &namespace) {
        (Some((space, name)), _) => (names::namespace("page_token", space)?, name.to_owned()),
        (None, _) if !request.page_token.is_empty() => {
            return Err(invalid("page_token", "is not a token of an earlier page"));
        }
        (None, Some(namespace)) => (namespace.clone(), String::new()),
        (None, None) => (names::namespace("parent", FIRST)?, String::new()),
    };
    let mut rows = store.reads().threads(after, limit).await.map_err(status::store)?;
    let is_whole = rows.len() == limit;
    rows.retain(|((space, _), _)| namespace.as_ref().is_none_or(|wanted| space == wanted));
    let last = rows.last().filter(|_| is_whole && rows.len() == limit);
    let next_page_token = last.map(|((space, name), _)| format!("{space}/{name}")).unwrap_or_default();
    let mut threads = Vec::with_capacity(rows.len());
    for ((space, name), thread) in rows {
        threads.push(to_wire(store, &space, &name, thread).await?);
    }
    Ok(v1::ListThreadsResponse { threads, next_page_token })
}

async fn to_wire(
    store: &StoreClient,
    namespace: &Namespace,
    name: &str,
    thread: Thread,
) -> Result<v1::Thread, Status> {
    let last = store.record(namespace, thread.last).await?;
    let running = last.as_ref().filter(|task| !task.state.is_final()).map(|task| task.total_usage());
    Ok(v1::Thread {
        name: format!("namespaces/{namespace}/threads/{name}"),
        tasks: num::to_i64(thread.tasks),
        open_tasks: num::to_i64(thread.open),
        last_task: thread.last.to_string(),
        last_state: last.map_or(0, |task| event::state(task.state).into()),
        conversation_task: thread.conversation.map(|(_, id)| id.to_string()).unwrap_or_default(),
        usage: Some(event::usage(&running.map_or(thread.usage.clone(), |usage| thread.usage.plus(&usage)))),
        use_time: Some(time::timestamp(thread.used_at)),
    })
}
