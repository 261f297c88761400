//! Following one task: its log from a position, then what comes, each entry once and in order.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use rota_core::TaskId;
use rota_core::task::{Event, Task};
use rota_proto::v1::{
    self, AttachTaskRequest, AttachTaskResponse, attach_task_request, attach_task_response,
};
use rota_store::TaskChange;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::Tasks;
use crate::shared::Shared;
use crate::wire::status::{error, invalid};
use crate::wire::{event, names, status, task as wire};

/// Entries of one answer.
const PAGE: usize = 500;
/// Answers that may wait for the caller.
const OUTBOX: usize = 16;

type Outbox = mpsc::Sender<Result<v1::WatchTaskResponse, Status>>;

/// Follows a task. Ends after its last entry when the task has ended.
pub(super) async fn one(
    shared: &Arc<Shared>,
    request: v1::WatchTaskRequest,
) -> Result<ReceiverStream<Result<v1::WatchTaskResponse, Status>>, Status> {
    let (namespace, named) = names::task("name", &request.name)?;
    let after =
        u64::try_from(request.after_log_seq).map_err(|_| invalid("after_log_seq", "must not be negative"))?;
    let id = shared.task(&namespace, named).await?.id;
    let (outbox, stream) = mpsc::channel(OUTBOX);
    let shared = Arc::clone(shared);
    spawn("watch-task", OnExit::Done, async move {
        let stop = shared.stop.clone();
        let ended = tokio::select! {
            () = stop.cancelled() => Err(error("STOPPING", "the control plane is stopping; watch again")),
            () = outbox.closed() => Ok(()),
            ended = follow(&shared, id, after, &outbox) => ended,
        };
        if let Err(status) = ended {
            let _ = outbox.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn follow(shared: &Shared, id: TaskId, mut seen: u64, outbox: &Outbox) -> Result<(), Status> {
    loop {
        // Listening begins before reading: what comes in between is heard twice, not never.
        let mut changes = shared.watchers.task(id);
        if catch_up(shared, id, &mut seen, outbox).await? {
            return Ok(());
        }
        while let Some(change) = changes.recv().await {
            if change.events.first().is_some_and(|event| event.log_seq > seen + 1) {
                break;
            }
            if live(shared, &change, &mut seen, outbox).await? {
                return Ok(());
            }
        }
    }
}

/// Sends what the store has. Whether the task has ended and all was sent.
async fn catch_up(shared: &Shared, id: TaskId, seen: &mut u64, outbox: &Outbox) -> Result<bool, Status> {
    loop {
        let task = shared.store.task(id).await.map_err(status::store)?;
        let task = task.ok_or_else(|| error("TASK_NOT_FOUND", "the task's record is gone"))?;
        let mut events = shared.store.events(id, *seen, PAGE).await.map_err(status::store)?;
        // What was committed between the two reads comes with its own record: an entry is told once, and whoever
        // had it with an older record would not hear of the newer one.
        events.retain(|event| event.log_seq <= task.log_seq);
        *seen = events.last().map_or(*seen, |event| event.log_seq);
        let whole = *seen >= task.log_seq;
        let ended = whole && task.state.is_final();
        send(shared, &task, &events, outbox).await?;
        if whole {
            return Ok(ended);
        }
    }
}

async fn live(shared: &Shared, change: &TaskChange, seen: &mut u64, outbox: &Outbox) -> Result<bool, Status> {
    let fresh: Vec<_> = change.events.iter().filter(|event| event.log_seq > *seen).cloned().collect();
    *seen = fresh.last().map_or(*seen, |event| event.log_seq);
    let ended = change.task.state.is_final();
    if !fresh.is_empty() || ended {
        send(shared, &change.task, &fresh, outbox).await?;
    }
    Ok(ended)
}

/// A record that has ended is never told without its result, also where the log takes several answers.
async fn send(shared: &Shared, task: &Task, events: &[Event], outbox: &Outbox) -> Result<(), Status> {
    let result = match task.state.is_final() && task.has_result {
        true => shared.store.result(task.id).await.map_err(status::store)?,
        false => None,
    };
    let answer = v1::WatchTaskResponse {
        events: events.iter().map(event::to_wire).collect(),
        task: Some(wire::to_wire(task, None, result.as_ref())),
    };
    // A caller that has gone needs no answer.
    outbox.send(Ok(answer)).await.map_err(|_| Status::cancelled("the caller has gone"))
}

/// Follows a task and gives it input, over one call.
pub(super) fn attach(
    tasks: Tasks,
    mut inbound: Streaming<AttachTaskRequest>,
) -> impl Stream<Item = Result<AttachTaskResponse, Status>> + Send {
    let (outbox, stream) = mpsc::channel(OUTBOX);
    spawn("attach-task", OnExit::Done, async move {
        let stop = tasks.shared.stop.clone();
        let ended = tokio::select! {
            () = stop.cancelled() => Err(error("STOPPING", "the control plane is stopping; attach again")),
            ended = attached(&tasks, &mut inbound, &outbox) => ended,
        };
        if let Err(status) = ended {
            let _ = outbox.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

async fn attached(
    tasks: &Tasks,
    inbound: &mut Streaming<AttachTaskRequest>,
    outbox: &mpsc::Sender<Result<AttachTaskResponse, Status>>,
) -> Result<(), Status> {
    let first = inbound.message().await?.and_then(|message| message.kind);
    let Some(attach_task_request::Kind::Watch(watch)) = first else {
        return Err(invalid("watch", "must be the first message"));
    };
    let name = watch.name.clone();
    let mut updates = one(&tasks.shared, watch).await?;
    let mut listening = true;
    loop {
        let kind = tokio::select! {
            () = outbox.closed() => return Ok(()),
            update = updates.next() => match update {
                None => return Ok(()),
                Some(update) => attach_task_response::Kind::Update(update?),
            },
            message = inbound.message(), if listening => match message?.map(|message| message.kind) {
                // The caller has said all it will; it still listens.
                None => {
                    listening = false;
                    continue;
                }
                Some(Some(attach_task_request::Kind::Input(input))) => match tasks.give_input(&name, &input).await {
                    Ok(_) => continue,
                    Err(status) => attach_task_response::Kind::Refused(batch_error(&status)),
                },
                Some(_) => return Err(invalid("input", "is all that may follow")),
            },
        };
        let answer = AttachTaskResponse { kind: Some(kind) };
        outbox.send(Ok(answer)).await.map_err(|_| Status::cancelled("the caller has gone"))?;
    }
}

/// An error inside of an answer.
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
