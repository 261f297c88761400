//! Watch of one task: its log from a position, then what is appended, each entry once and in order.

use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use rota_core::{Namespace, TaskId, TaskKey};
use rota_proto::v1::{
    self, AttachTaskRequest, AttachTaskResponse, attach_task_request, attach_task_response,
};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::input::Inputs;
use super::streams::{Chunks, Outbox, Streams, send};
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::trust::people::PersonCall;
use crate::watchers::{Follower, Next, Subscription, Topic, messages};
use crate::wire::names;
use crate::wire::status::{error, hint_of, invalid};

/// Messages of an attached caller that may wait for it.
const STREAM_BUFFER: usize = 1;

/// Watches a task. Ends after its last entry when the task has ended.
pub(super) async fn one(
    store: &StoreClient,
    streams: &Streams,
    request: v1::WatchTaskRequest,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + 'static, Status> {
    let (namespace, named) = names::task("name", &request.name)?;
    let seen =
        u64::try_from(request.after_log_seq).map_err(|_| invalid("after_log_seq", "must not be negative"))?;
    let task = store.task(&namespace, named).await?;
    // Before the store is read: what is committed after that arrives, and what was committed before is read.
    let subscription = streams.watchers.subscribe(Topic::Task(task.key));
    let (id, key) = (task.id, task.key);
    let store = store.clone();
    let follower = request.deltas.then(|| streams.deltas.follow(namespace.clone(), id));
    let source = Follow {
        store,
        subscription,
        follower,
        namespace,
        id,
        key,
        seen,
        begun: false,
        behind: true,
        ended: false,
    };
    Ok(streams.chunks(source))
}

/// State of a watcher of one task.
struct Follow {
    store: StoreClient,
    subscription: Subscription,
    /// Set if the caller wants parts of messages.
    follower: Option<Follower>,
    namespace: Namespace,
    id: TaskId,
    key: TaskKey,
    /// Position of the last log entry that was sent.
    seen: u64,
    /// Whether the store was read once.
    begun: bool,
    /// Whether the store is read before anything is taken from the buffer.
    behind: bool,
    ended: bool,
}

impl Chunks for Follow {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.ended {
            return Ok(None);
        }
        if !self.behind {
            let next = tokio::select! {
                biased;
                next = self.subscription.next(self.seen) => next,
                part = next_part(&mut self.follower) => return Ok(Some(part)),
            };
            match next {
                Next::Chunk(chunk, end) => {
                    self.seen = end;
                    return Ok(Some(chunk));
                }
                Next::Missing(_) => self.behind = true,
            }
        }
        self.read().await.map(Some)
    }
}

impl Follow {
    /// Reads a page of the store. The last page of a task that has ended comes with its result.
    async fn read(&mut self) -> Result<Bytes, Status> {
        let task = self.store.record(&self.namespace, self.id).await?.filter(|found| found.key == self.key);
        let task = task.ok_or_else(|| error("TASK_NOT_FOUND", "the task's record was removed"))?;
        if let Some(follower) = &mut self.follower {
            if !std::mem::replace(&mut self.begun, true) {
                follower.begin(&task);
            }
            follower.skip();
        }
        let mut events = self.store.events(&task, self.seen, LOG_PAGE).await?;
        // Entries committed between the two reads are left for the next round, which sends them with their own record:
        // each entry is sent once, and must not come with an older record.
        events.retain(|event| event.log_seq <= task.log_seq);
        self.seen = events.last().map_or(self.seen, |event| event.log_seq);
        self.behind = self.seen < task.log_seq;
        self.ended = !self.behind && task.state.is_final();
        let result = if self.ended { self.store.result(&task).await? } else { None };
        let mut chunk = Vec::new();
        messages::log(&mut chunk, &task, events.iter(), result.as_ref());
        Ok(chunk.into())
    }
}

/// Waits for the next part of a message, if parts are wanted.
async fn next_part(follower: &mut Option<Follower>) -> Bytes {
    match follower {
        Some(follower) => follower.next().await,
        None => std::future::pending().await,
    }
}

/// Watches a task and gives it input over one call.
pub(super) fn attach(
    inputs: Inputs,
    caller: Option<PersonCall>,
    streams: Streams,
    mut inbound: Streaming<AttachTaskRequest>,
) -> impl Stream<Item = Result<AttachTaskResponse, Status>> + Send {
    let inner = streams.clone();
    streams.serve("attach-task", STREAM_BUFFER, move |outbox| async move {
        attached((&inputs, caller.as_ref()), &inner, &mut inbound, &outbox).await
    })
}

async fn attached(
    (inputs, caller): (&Inputs, Option<&PersonCall>),
    streams: &Streams,
    inbound: &mut Streaming<AttachTaskRequest>,
    outbox: &Outbox<AttachTaskResponse>,
) -> Result<(), Status> {
    let first = inbound.message().await?.and_then(|message| message.kind);
    let Some(attach_task_request::Kind::Watch(watch)) = first else {
        return Err(invalid("watch", "must be the first message"));
    };
    let name = watch.name.clone();
    let mut updates = pin!(one(&inputs.store, streams, watch).await?);
    let mut listening = true;
    loop {
        let kind = tokio::select! {
            chunk = updates.next() => {
                let Some(mut chunk) = chunk.transpose()? else { return Ok(()) };
                while let Some(update) = messages::take(&mut chunk)? {
                    let kind = Some(attach_task_response::Kind::Update(update));
                    send(outbox, AttachTaskResponse { kind }).await?;
                }
                continue;
            }
            message = inbound.message(), if listening => match message?.map(|message| message.kind) {
                // The caller has closed its half of the stream, and still reads.
                None => {
                    listening = false;
                    continue;
                }
                Some(Some(attach_task_request::Kind::Input(input))) => match inputs.give(caller, &name, &input).await {
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
        hint: hint_of(status),
    }
}
