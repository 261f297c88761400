//! Watch of one task: its log from a position, then what is appended, each entry once and in order.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use rota_core::task::{Event, Task};
use rota_proto::v1::{
    self, AttachTaskRequest, AttachTaskResponse, attach_task_request, attach_task_response,
};
use rota_store::TaskChange;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::input;
use super::streams::{Outbox, Streams, page, send};
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::watchers::Watchers;
use crate::wire::status::{error, invalid};
use crate::wire::{names, task as wire};

/// Messages that may wait for the caller.
const STREAM_BUFFER: usize = 16;

/// Watches a task. Ends after its last entry when the task has ended.
pub(super) async fn one(
    store: &StoreClient,
    streams: &Streams,
    request: v1::WatchTaskRequest,
) -> Result<ReceiverStream<Result<v1::WatchTaskResponse, Status>>, Status> {
    let (namespace, named) = names::task("name", &request.name)?;
    let after =
        u64::try_from(request.after_log_seq).map_err(|_| invalid("after_log_seq", "must not be negative"))?;
    let task = store.task(&namespace, named).await?;
    let (store, watchers) = (store.clone(), Arc::clone(&streams.watchers));
    Ok(streams.serve("watch-task", STREAM_BUFFER, move |outbox| async move {
        follow(&store, &watchers, &task, after, &outbox).await
    }))
}

async fn follow(
    store: &StoreClient,
    watchers: &Watchers,
    task: &Task,
    mut seen: u64,
    outbox: &Outbox<v1::WatchTaskResponse>,
) -> Result<(), Status> {
    loop {
        // Subscribed before reading: what is committed in between arrives twice instead of never.
        let mut changes = watchers.task(task.key);
        if catch_up(store, task, &mut seen, outbox).await? {
            return Ok(());
        }
        while let Some(change) = changes.recv().await {
            if change.events.first().is_some_and(|event| event.log_seq > seen + 1) {
                break;
            }
            if live(store, &change, &mut seen, outbox).await? {
                return Ok(());
            }
        }
    }
}

/// Sends what the store has. Returns whether the task has ended and all of its log was sent.
async fn catch_up(
    store: &StoreClient,
    task: &Task,
    seen: &mut u64,
    outbox: &Outbox<v1::WatchTaskResponse>,
) -> Result<bool, Status> {
    loop {
        let task = store.record(&task.namespace, task.id).await?.filter(|found| found.key == task.key);
        let task = task.ok_or_else(|| error("TASK_NOT_FOUND", "the task's record was removed"))?;
        let mut events = store.events(&task, *seen, LOG_PAGE).await?;
        // Entries committed between the two reads are left for the next round, which sends them with their own record:
        // each entry is sent once, and must not come with an older record.
        events.retain(|event| event.log_seq <= task.log_seq);
        *seen = events.last().map_or(*seen, |event| event.log_seq);
        let whole = *seen >= task.log_seq;
        let ended = whole && task.state.is_final();
        send_task(store, &task, &events, outbox).await?;
        if whole {
            return Ok(ended);
        }
    }
}

async fn live(
    store: &StoreClient,
    change: &TaskChange,
    seen: &mut u64,
    outbox: &Outbox<v1::WatchTaskResponse>,
) -> Result<bool, Status> {
    let fresh: Vec<_> = change.events.iter().filter(|event| event.log_seq > *seen).cloned().collect();
    *seen = fresh.last().map_or(*seen, |event| event.log_seq);
    let ended = change.task.state.is_final();
    if !fresh.is_empty() || ended {
        send_task(store, &change.task, &fresh, outbox).await?;
    }
    Ok(ended)
}

/// Sends entries, in as many messages as they need. An ended task always comes with its result, in each of them.
async fn send_task(
    store: &StoreClient,
    task: &Task,
    events: &[Event],
    outbox: &Outbox<v1::WatchTaskResponse>,
) -> Result<(), Status> {
    let result = if task.state.is_final() { store.result(task).await? } else { None };
    let mut events = events.iter().peekable();
    loop {
        let answer = v1::WatchTaskResponse {
            events: page(&mut events),
            task: Some(wire::to_wire(task, None, result.as_ref())),
        };
        send(outbox, answer).await?;
        if events.peek().is_none() {
            return Ok(());
        }
    }
}

/// Watches a task and gives it input over one call.
pub(super) fn attach(
    store: StoreClient,
    streams: Streams,
    mut inbound: Streaming<AttachTaskRequest>,
) -> impl Stream<Item = Result<AttachTaskResponse, Status>> + Send {
    let inner = streams.clone();
    streams.serve("attach-task", STREAM_BUFFER, move |outbox| async move {
        attached(&store, &inner, &mut inbound, &outbox).await
    })
}

async fn attached(
    store: &StoreClient,
    streams: &Streams,
    inbound: &mut Streaming<AttachTaskRequest>,
    outbox: &Outbox<AttachTaskResponse>,
) -> Result<(), Status> {
    let first = inbound.message().await?.and_then(|message| message.kind);
    let Some(attach_task_request::Kind::Watch(watch)) = first else {
        return Err(invalid("watch", "must be the first message"));
    };
    let name = watch.name.clone();
    let mut updates = one(store, streams, watch).await?;
    let mut listening = true;
    loop {
        let kind = tokio::select! {
            update = updates.next() => match update {
                None => return Ok(()),
                Some(update) => attach_task_response::Kind::Update(update?),
            },
            message = inbound.message(), if listening => match message?.map(|message| message.kind) {
                // The caller has closed its half of the stream, and still reads.
                None => {
                    listening = false;
                    continue;
                }
                Some(Some(attach_task_request::Kind::Input(input))) => match input::give(store, &name, &input).await {
                    Ok(_) => continue,
                    Err(status) => attach_task_response::Kind::Rejected(batch_error(&status)),
                },
                Some(_) => return Err(invalid("input", "must be the kind of every later message")),
            },
        };
        send(outbox, AttachTaskResponse { kind: Some(kind) }).await?;
    }
}

/// Converts a status to an error inside of a response.
pub(super) fn batch_error(status: &Status) -> v1::BatchError {
    let details = status.get_error_details();
    let field =
        details.bad_request().and_then(|bad| bad.field_violations.first()).map(|one| one.field.clone());
    v1::BatchError {
        code: status.code().into(),
        message: status.message().to_owned(),
        field: field.unwrap_or_default(),
    }
}
