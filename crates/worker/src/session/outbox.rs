//! Outbox of an attempt: its events, numbered from 1, until they are acknowledged. Kept in memory up to
//! one bound, then in a spill file up to another, then the producer has to wait.
//!
//! `memory` holds the oldest events without a gap, the file those after them, and `tail` the newest ones, until they are
//! written. Only events in memory are sent, so the memory bound is also the window of sent but unacknowledged events. The
//! file is read and written by a [`SpillJob`], outside of all locks, since a disk may hang.

use std::collections::VecDeque;
use std::path::PathBuf;

use prost::Message;
use rota_proto::limits::EVENT_BYTES;
use rota_proto::num::to_i64;
use rota_proto::v1::{Event, Severity, event};

use super::spill::{Spill, SpillDone, SpillJob, SpillWork};
use crate::report::notice;

/// Sizes in bytes at which an outbox spills, and at which it is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) memory: usize,
    pub(super) file: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory: 4 << 20, file: 256 << 20 }
    }
}

/// Bytes that the attempts of one worker spill together.
const MAX_WORKER_SPILL: u64 = 1 << 30;

impl Bounds {
    /// Returns the bounds of each attempt of a worker, so that many during an outage do not fill its disk.
    pub(super) fn of_worker(slots: usize) -> Self {
        let all = Self::default();
        let share = MAX_WORKER_SPILL / u64::try_from(slots.max(1)).unwrap_or(u64::MAX);
        Self { file: all.file.min(share), ..all }
    }
}

/// Events with their encoded sizes, and the sum of these.
#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<(Event, usize)>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, event: (Event, usize)) {
        self.bytes += event.1;
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<(Event, usize)> {
        let event = self.events.pop_front()?;
        self.bytes -= event.1;
        Some(event)
    }

    fn len(&self) -> i64 {
        to_i64(self.events.len())
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    bounds: Bounds,
    directory: PathBuf,
    /// Oldest events, of which the first ones may have been sent.
    memory: Queue,
    /// File of the next ones; `None` while a job works on it.
    spill: Option<Spill>,
    /// Events in the file, and its size.
    in_file: i64,
    file_size: u64,
    /// Bytes of events that a job writes now.
    writing: usize,
    /// Newest events, which follow those in the file.
    tail: Queue,
    /// Number of the job that works on the file; those of others are outdated.
    job: Option<u64>,
    jobs: u64,
    /// Whether the last write to the file has failed.
    failing: bool,
    /// Highest number acknowledged; the front of `memory` has the next one.
    acked: i64,
    /// Highest number sent on the current session.
    sent: i64,
    last: i64,
    /// Bytes of output dropped since the last event.
    dropped: i64,
}

impl Outbox {
    /// Creates an empty outbox that spills to an unlinked file in `directory`.
    pub(super) fn new(directory: PathBuf, bounds: Bounds) -> Self {
        Self {
            bounds,
            directory,
            memory: Queue::default(),
            spill: None,
            in_file: 0,
            file_size: 0,
            writing: 0,
            tail: Queue::default(),
            job: None,
            jobs: 0,
            failing: false,
            acked: 0,
            sent: 0,
            last: 0,
            dropped: 0,
        }
    }

    /// Returns the highest number assigned.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// Whether the producer should wait.
    pub(super) fn is_full(&self) -> bool {
        let in_memory = self.memory.bytes + self.writing + self.tail.bytes;
        self.file_size >= self.bounds.file || in_memory >= 2 * self.bounds.memory
    }

    /// Appends an event. A full outbox counts output instead of keeping it; other events are always kept, and replaced by a notice
    /// if they are too large.
    pub(super) fn push(&mut self, mut event: Event) {
        if let Some(event::Kind::Output(output)) = &mut event.kind {
            if self.is_full() {
                let length = to_i64(output.data.len());
                self.dropped = self.dropped.saturating_add(length).saturating_add(output.dropped_bytes);
                return;
            }
            output.dropped_bytes = output.dropped_bytes.saturating_add(std::mem::take(&mut self.dropped));
        }
        self.last += 1;
        let mut size = event.encoded_len();
        // Whatever has bounds of its own is smaller.
        if size > EVENT_BYTES {
            let text = format!("an event of {size} bytes was left out: it has more than {EVENT_BYTES}");
            tracing::warn!(text);
            event.kind = Some(notice(Severity::Medium, "report_dropped", text));
            size = event.encoded_len();
        }
        self.tail.push((event, size));
        self.fill_memory();
    }

    /// Moves the newest events to those in memory, if none are in between.
    fn fill_memory(&mut self) {
        if self.in_file > 0 || self.job.is_some() {
            return;
        }
        while let Some((_, size)) = self.tail.events.front()
            && self.memory.bytes + size <= self.bounds.memory
        {
            self.tail.pop().into_iter().for_each(|event| self.memory.push(event));
        }
    }

    /// Returns what is to be done with the file now, if anything. Its result is for [`Self::finish`].
    pub(super) fn start_job(&mut self) -> Option<SpillJob> {
        if self.job.is_some() {
            return None;
        }
        let work = if self.in_file > 0 && self.memory.bytes < self.bounds.memory {
            SpillWork::Read(self.bounds.memory - self.memory.bytes)
        } else if !self.tail.events.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.writing = tail.bytes;
            SpillWork::Write(tail.events)
        } else {
            return None;
        };
        self.jobs += 1;
        self.job = Some(self.jobs);
        Some(SpillJob {
            number: self.jobs,
            spill: self.spill.take(),
            directory: self.directory.clone(),
            work,
        })
    }

    /// Takes the result of a job. Returns the next one, unless the disk has failed, which the next event tries again.
    pub(super) fn finish(&mut self, done: SpillDone) -> Option<SpillJob> {
        // All events were dropped meanwhile.
        if self.job != Some(done.number) {
            return None;
        }
        let lost_bytes = i64::try_from(self.file_size).unwrap_or(i64::MAX);
        (self.job, self.writing, self.spill) = (None, 0, done.spill);
        self.file_size = self.spill.as_ref().map_or(0, Spill::size);
        self.in_file = self.spill.as_ref().map_or(0, Spill::len);
        for event in done.read {
            self.memory.push(event);
        }
        for event in done.unwritten.into_iter().rev() {
            self.tail.bytes += event.1;
            self.tail.events.push_front(event);
        }
        let failed = done.error.is_some();
        let left = self.acked + self.memory.len() + self.in_file + self.tail.len();
        let lost = self.last - left;
        if lost > 0 {
            // With their numbers; the log shows the next output with their size.
            (self.last, self.dropped) = (left, self.dropped.saturating_add(lost_bytes));
            let error = done.error.map(|error| error.to_string()).unwrap_or_default();
            tracing::error!(error, events = lost, "events lost: failed to read the spill file");
        } else if let Some(error) = done.error.filter(|_| !self.failing) {
            tracing::warn!(%error, "failed to write the spill file, keeping events in memory");
        }
        self.failing = failed;
        self.fill_memory();
        if failed { None } else { self.start_job() }
    }

    /// Removes events up to `seq`, which were acknowledged.
    pub(super) fn ack(&mut self, seq: i64) {
        while self.acked < seq && self.memory.pop().is_some() {
            self.acked += 1;
        }
        self.sent = self.sent.max(self.acked);
        self.fill_memory();
    }

    /// Drops all events, which count as acknowledged.
    pub(super) fn discard(&mut self) {
        (self.memory, self.tail, self.spill) = (Queue::default(), Queue::default(), None);
        (self.in_file, self.file_size, self.writing, self.job) = (0, 0, 0, None);
        (self.acked, self.sent) = (self.last, self.last);
    }

    /// Numbers the first event as the one after `seq`: those before are of an earlier process.
    pub(super) fn continue_after(&mut self, seq: i64) {
        (self.acked, self.sent, self.last) = (seq, seq, seq);
    }

    /// Starts over on a new session, after the event `seq`.
    pub(super) fn resume(&mut self, seq: i64) {
        self.ack(seq);
        self.sent = self.acked;
    }

    /// Whether an event can be sent now.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.acked + self.memory.len()
    }

    /// Whether every event is durable.
    pub(super) fn is_acked(&self) -> bool {
        self.acked == self.last
    }

    /// Whether every event was sent.
    pub(super) fn is_fully_sent(&self) -> bool {
        self.sent == self.last
    }

    /// Returns the next batch and the number of its first event: at least one event, of about `limit` bytes in all.
    pub(super) fn next(&mut self, limit: usize) -> Option<(i64, Vec<Event>)> {
        if !self.has_more() {
            return None;
        }
        let first = self.sent + 1;
        let skipped = usize::try_from(self.sent - self.acked).unwrap_or(0);
        let mut bytes = 0;
        let batch: Vec<Event> = self
            .memory
            .events
            .iter()
            .skip(skipped)
            .take_while(|(_, size)| {
                let fits = bytes == 0 || bytes + size <= limit;
                bytes += size;
                fits
            })
            .map(|(event, _)| event.clone())
            .collect();
        self.sent += to_i64(batch.len());
        Some((first, batch))
    }
}

#[cfg(test)]
mod tests;
