//! Outbox of an attempt: its events, numbered from 1, until they are acknowledged. Kept in memory up to
//! one bound, then in a spill file up to another, then the producer has to wait.
//!
//! `memory` holds the oldest events without a gap, the file those after them. Only events in memory are
//! sent, so the memory bound is also the window of sent but unacknowledged events.

use std::collections::VecDeque;
use std::path::PathBuf;

use prost::Message;
use rota_proto::num::to_i64;
use rota_proto::v1::{Event, event};

use super::spill::Spill;

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

#[derive(Debug)]
pub(super) struct Outbox {
    bounds: Bounds,
    directory: PathBuf,
    memory: VecDeque<(Event, usize)>,
    bytes: usize,
    spill: Option<Spill>,
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
        let memory = VecDeque::new();
        Self { bounds, directory, memory, bytes: 0, spill: None, acked: 0, sent: 0, last: 0, dropped: 0 }
    }

    /// Returns the highest number assigned.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// Whether the producer should wait.
    pub(super) fn is_full(&self) -> bool {
        match &self.spill {
            Some(spill) => spill.size() >= self.bounds.file || self.bytes >= 2 * self.bounds.memory,
            None => self.bytes >= 2 * self.bounds.memory,
        }
    }

    /// Appends an event. A full outbox counts output instead of keeping it; other events are always kept.
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
        let size = event.encoded_len();
        let in_file = self.spill.as_ref().is_some_and(|spill| !spill.is_empty());
        if in_file || self.bytes + size > self.bounds.memory {
            match self.spill(&event) {
                Ok(()) => return,
                // It must not overtake those in the file, so it is lost together with its number.
                Err(error) if in_file => {
                    tracing::warn!(%error, "event lost: failed to write to the spill file");
                    self.last -= 1;
                    return;
                }
                // Falls back to memory, until that is full.
                Err(error) => {
                    tracing::warn!(%error, "failed to write to the spill file, keeping events in memory")
                }
            }
        }
        self.bytes += size;
        self.memory.push_back((event, size));
    }

    fn spill(&mut self, event: &Event) -> std::io::Result<()> {
        match &mut self.spill {
            Some(spill) => spill.push(event),
            empty => empty.insert(Spill::create(&self.directory)?).push(event),
        }
    }

    /// Removes events up to `seq`, which were acknowledged.
    pub(super) fn ack(&mut self, seq: i64) {
        while self.acked < seq {
            let Some((_, size)) = self.memory.pop_front() else { break };
            self.bytes -= size;
            self.acked += 1;
        }
        self.sent = self.sent.max(self.acked);
        self.refill();
    }

    fn refill(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        while self.bytes < self.bounds.memory {
            match spill.pop() {
                Ok(Some(event)) => {
                    let size = event.encoded_len();
                    self.bytes += size;
                    self.memory.push_back((event, size));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "events lost: failed to read the spill file");
                    self.last = self.acked + to_i64(self.memory.len());
                    self.spill = None;
                    return;
                }
            }
        }
    }

    /// Drops all events, which count as acknowledged.
    pub(super) fn discard(&mut self) {
        (self.memory, self.bytes, self.spill) = (VecDeque::new(), 0, None);
        (self.acked, self.sent) = (self.last, self.last);
    }

    /// Starts over on a new session, after the event `seq`.
    pub(super) fn resume(&mut self, seq: i64) {
        self.ack(seq);
        self.sent = self.acked;
    }

    /// Whether an event can be sent now.
    pub(super) fn has_more(&self) -> bool {
        self.sent < self.acked + to_i64(self.memory.len())
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
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rota_proto::v1::{Notice, Output};

    use super::*;

    fn event(number: i64, size: usize) -> Event {
        let notice = Notice { code: number.to_string(), message: "x".repeat(size), ..Notice::default() };
        Event { kind: Some(event::Kind::Notice(notice)), ..Event::default() }
    }

    fn number(event: &Event) -> i64 {
        match &event.kind {
            Some(event::Kind::Notice(notice)) => notice.code.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Random sequences of operations: events are sent in order, without gaps, with their own numbers.
    #[test]
    fn many_slots_share_the_disk() {
        assert_eq!(Bounds::of_worker(1).file, 256 << 20);
        assert_eq!(Bounds::of_worker(64).file, 16 << 20);
        assert_eq!(Bounds::of_worker(1024).file * 1024, MAX_WORKER_SPILL);
    }

    #[test]
    fn events_keep_order_and_numbers() {
        let directory = tempfile::tempdir().unwrap();
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let bounds = Bounds { memory: 500, file: 1 << 20 };
            let mut outbox = Outbox::new(directory.path().to_owned(), bounds);
            let (mut made, mut sent, mut acked) = (0, 0, 0);
            for _ in 0..300 {
                match random.random_range(0..10) {
                    0..5 => {
                        made += 1;
                        outbox.push(event(made, random.random_range(0..200)));
                    }
                    5..7 => {
                        if let Some((first, batch)) = outbox.next(random.random_range(1..400)) {
                            assert_eq!(first, sent + 1);
                            for event in &batch {
                                sent += 1;
                                assert_eq!(number(event), sent);
                            }
                            assert!(!batch.is_empty());
                        }
                    }
                    7..9 => {
                        acked = random.random_range(acked..=sent);
                        outbox.ack(acked);
                    }
                    _ => {
                        acked = random.random_range(acked..=sent);
                        outbox.resume(acked);
                        sent = acked;
                    }
                }
                assert_eq!(outbox.last(), made);
            }
            outbox.ack(sent);
            while let Some((_, batch)) = outbox.next(100) {
                sent += to_i64(batch.len());
                outbox.ack(sent);
            }
            assert!(sent == made && outbox.is_fully_sent());
        }
    }

    #[test]
    fn full_outbox_counts_dropped_output() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds { memory: 100, file: 300 };
        let mut outbox = Outbox::new(directory.path().to_owned(), bounds);
        let output = |size: usize| Event {
            kind: Some(event::Kind::Output(Output { data: vec![b'x'; size].into(), ..Output::default() })),
            ..Event::default()
        };
        while !outbox.is_full() {
            outbox.push(output(50));
        }
        let last = outbox.last();
        outbox.push(output(50));
        outbox.push(output(7));
        assert_eq!(outbox.last(), last);
        while let Some((first, batch)) = outbox.next(1000) {
            outbox.ack(first + to_i64(batch.len()) - 1);
        }
        outbox.push(output(1));
        let (first, batch) = outbox.next(1000).unwrap();
        assert_eq!(first, last + 1);
        assert!(matches!(&batch[0].kind, Some(event::Kind::Output(output)) if output.dropped_bytes == 57));
    }
}
