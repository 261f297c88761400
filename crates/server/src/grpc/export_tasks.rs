//! `ExportTasks`: all tasks that match a filter, as CSV or as a JSON document per line, newest first. Read in pages, so that an export of
//! any size needs little memory; one that was interrupted continues after a task that it has.

use bytes::{Bytes, BytesMut};
use rota_core::task::Task;
use rota_proto::{HttpBody, v1};
use rota_store::Filter;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::streams::{Outbox, send_in_time};
use super::task_filter;
use super::tasks::Tasks;
use crate::creation::Scope;
use crate::store_client::StoreClient;
use crate::task_texts::with_texts;
use crate::wire::status::{invalid, store};
use crate::wire::{names, task as wire, task_row};

/// Tasks that are read at a time.
const PAGE: i32 = 200;
const CHUNK_BYTES: usize = 256 << 10;
/// Messages that wait for the caller to read them.
const BUFFER: usize = 2;

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Lines,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Lines => "application/x-ndjson",
        }
    }
}

struct Export {
    store: StoreClient,
    filter: Filter,
    scope: Scope,
    format: Format,
    /// Whether prompts and results are part of it.
    texts: bool,
}

pub(super) async fn export(
    tasks: &Tasks,
    request: Request<v1::ExportTasksRequest>,
) -> Result<ReceiverStream<Result<HttpBody, Status>>, Status> {
    let scope = Scope::of(&request);
    let request = request.into_inner();
    let format = match v1::TaskExportFormat::try_from(request.format) {
        Ok(v1::TaskExportFormat::Csv) => Format::Csv,
        Ok(v1::TaskExportFormat::Unspecified | v1::TaskExportFormat::Jsonl) => Format::Lines,
        Err(_) => return Err(invalid("format", "is not a known format")),
    };
    let mut filter = task_filter::of(&v1::ListTasksRequest {
        parent: request.parent,
        page_size: PAGE,
        filter: request.filter,
        ..Default::default()
    })?;
    let begins = request.after.is_empty();
    if !begins {
        let (namespace, named) = names::task("after", &request.after)?;
        filter.before = Some(scope.check(tasks.store.task(&namespace, named).await?)?.key);
    }
    let export = Export { store: tasks.store.clone(), filter, scope, format, texts: request.texts };
    Ok(tasks.streams.serve("export-tasks", BUFFER, |outbox| export.run(outbox, begins)))
}

impl Export {
    async fn run(mut self, outbox: Outbox<HttpBody>, begins: bool) -> Result<(), Status> {
        let mut rows = BytesMut::new();
        if let (Format::Csv, true) = (self.format, begins) {
            rows.extend_from_slice(&task_row::head().map_err(failed)?);
        }
        loop {
            let page = self.store.reads().list(self.filter.clone()).await.map_err(store)?;
            let found: Vec<_> = page.tasks.into_iter().filter(|task| self.scope.contains(task)).collect();
            self.add(&found, &mut rows, &outbox).await?;
            self.filter.before = page.next;
            if page.next.is_none() {
                return self.send(rows.freeze(), &outbox).await;
            }
        }
    }

    /// Adds the rows of some tasks, and sends what fills a message.
    async fn add(
        &self,
        mut tasks: &[Task],
        rows: &mut BytesMut,
        outbox: &Outbox<HttpBody>,
    ) -> Result<(), Status> {
        while !tasks.is_empty() {
            let texts = match self.texts {
                true => {
                    with_texts(self.store.reads(), tasks.to_vec(), |_, texts| texts).await.map_err(store)?
                }
                false => Vec::new(),
            };
            let (now, later) = tasks.split_at(if self.texts { texts.len() } else { tasks.len() });
            let mut texts = texts.into_iter();
            for record in now {
                let mut task = wire::to_wire(record, None, None);
                let (spec, status) = (task.spec.get_or_insert_default(), task.status.get_or_insert_default());
                if let Some(texts) = texts.next() {
                    spec.prompt = texts.prompt;
                    status.result = record
                        .has_result
                        .then(|| v1::TaskResult { text: texts.result, ..v1::TaskResult::default() });
                }
                match self.format {
                    Format::Csv => rows.extend_from_slice(&task_row::of(&task).map_err(failed)?),
                    Format::Lines => {
                        rows.extend_from_slice(&serde_json::to_vec(&task).map_err(failed)?);
                        rows.extend_from_slice(b"\n");
                    }
                }
                while rows.len() >= CHUNK_BYTES {
                    self.send(rows.split_to(CHUNK_BYTES).freeze(), outbox).await?;
                }
            }
            tasks = later;
        }
        Ok(())
    }

    async fn send(&self, data: Bytes, outbox: &Outbox<HttpBody>) -> Result<(), Status> {
        let content_type = self.format.content_type().to_owned();
        send_in_time(outbox, HttpBody { content_type, data }).await
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("failed to write a row: {error}"))
}
