//! A backend that counts its calls, and what they read and write.

use bytes::Bytes;
use rota_store::memory::InMemoryStore;
use rota_store::{Backend, Changes, Error, Load, Loaded, Snapshot, Written};

/// Calls of a backend, and the rows that they read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) loads: u32,
    /// Those that have returned records of workflows.
    pub(crate) workflow_loads: u32,
    pub(crate) writes: u32,
    pub(crate) rows_read: usize,
    /// Rows that are no records of tasks or workflows: states of what others need, keys of what waits, threads and documents.
    pub(crate) keys_read: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) tasks_written: usize,
    pub(crate) tasks_removed: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) inner: InMemoryStore,
    pub(crate) calls: Calls,
    /// Whether writes fail from now on.
    pub(crate) is_full: bool,
    pub(crate) snapshots: u32,
}

impl Backend for Counting {
    fn load(&mut self, load: &Load) -> Result<Loaded, Error> {
        let loaded = self.inner.load(load)?;
        self.calls.loads += 1;
        let ready: usize = loaded.ready.iter().map(Vec::len).sum();
        let pages: usize = loaded.dependents.iter().map(Vec::len).sum();
        let payloads = loaded.ready.iter().flatten().filter_map(|row| row.payload.as_ref());
        let payloads = payloads.chain(loaded.payloads.iter().map(|(_, payload)| payload));
        self.calls.payload_bytes += payloads.map(Bytes::len).sum::<usize>();
        let named = loaded.ids.len() + loaded.tasks.len() + loaded.idempotency_keys.len();
        let bodies = loaded.payloads.len() + loaded.results.len() + loaded.secrets.len();
        self.calls.rows_read += ready + pages + named + bodies + loaded.sessions.len() + loaded.due.len();
        self.calls.rows_read += loaded.expired.tasks.len() + loaded.expired.sessions.len();
        self.calls.keys_read += loaded.expired.keys.len() + loaded.expired.threads.len();
        let waits: usize = loaded.waits.iter().map(Vec::len).sum();
        let states = loaded.dependencies.len() + loaded.aliases.len() + loaded.waiting.len();
        self.calls.keys_read += states + waits + loaded.threads.len() + loaded.documents.len();
        let of = &loaded.workflows;
        self.calls.workflow_loads += u32::from(!of.workflows.is_empty());
        let steps: usize = of.held.iter().chain(&of.active).map(Vec::len).sum();
        let members: usize = of.groups.iter().map(Vec::len).sum();
        self.calls.rows_read += of.workflows.len() + of.steps.len() + steps + members;
        Ok(loaded)
    }

    fn write(&mut self, changes: &Changes) -> Result<Written, Error> {
        if self.is_full {
            return Err(Error::Unavailable { message: "the disk is full".to_owned(), hint: "" });
        }
        self.calls.writes += 1;
        self.calls.tasks_written += changes.inserted.len() + changes.updated.len();
        self.calls.tasks_removed += changes.removed.len();
        self.inner.write(changes)
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        self.snapshots += 1;
        self.inner.snapshot()
    }

    fn stored_revision(&mut self) -> Result<u64, Error> {
        self.inner.stored_revision()
    }
}
