//! Messages to watchers, encoded with the prefix that gRPC gives each message (a flag and the length), so that any number of
//! them can be sent as they are.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use prost::encoding::{self, WireType};
use rota_core::Timestamp;
use rota_core::task::{Body, Event, Task};
use rota_proto::framing::{self, PREFIX};
use rota_proto::v1;
use tonic::Status;

use crate::lineage::Lineage;
use crate::wire::{event, task as wire};

/// Number of the field `token` in `WatchTasksResponse`.
const TOKEN: u32 = 3;
/// Number of the field `changes` in `WatchTasksResponse`.
const CHANGES: u32 = 5;

/// Returns the token of a feed: the last revision seen, the time of the store, and the store. Opaque to callers.
pub(crate) fn token(lineage: &Lineage, revision: u64, now: Timestamp) -> String {
    format!("{revision:x}.{:x}.{lineage}", now.0 / 1_000_000)
}

/// The kinds of a reported entry that concern a question; all others are skipped without being read.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(bytes = "bytes", optional, tag = "17")]
    asked: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "18")]
    answered: Option<Bytes>,
}

/// Whether an entry is a change of state or of the task itself, a question or an input, which `states_only` is limited to.
pub(crate) fn is_state(event: &Event) -> bool {
    match &event.body {
        Body::State(_) | Body::Change { .. } | Body::Input { .. } => true,
        Body::Report(report) => Question::decode(report.clone())
            .is_ok_and(|question| question.asked.is_some() || question.answered.is_some()),
        Body::Notice { .. } => false,
    }
}

/// Appends a change with these entries, encoded. Nothing without entries.
pub(crate) fn change<'a>(out: &mut Vec<u8>, task: &Task, events: impl Iterator<Item = &'a Event>) {
    let events: Vec<_> = events.map(event::to_wire).collect();
    if !events.is_empty() {
        let task = Some(wire::to_wire(task, None, None));
        // A vector has room for everything.
        let _ = v1::TaskChange { task, events }.encode(out);
    }
}

/// Returns the message of a feed with an encoded change, after which a watcher resumes from `token`. Empty without a change.
pub(crate) fn single(change: &[u8], token: impl FnOnce() -> String) -> Vec<u8> {
    let mut message = Vec::with_capacity(change.len() + 64);
    if !change.is_empty() {
        message.extend_from_slice(&[0; PREFIX]);
        // A response has the fields of a change, with the same numbers.
        message.extend_from_slice(change);
        encoding::string::encode(TOKEN, &token(), &mut message);
        framing::set_length(&mut message);
    }
    message
}

/// Returns an encoded change as a part of a batch. Empty without a change.
pub(crate) fn entry(change: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(change.len() + 8);
    if !change.is_empty() {
        encoding::encode_key(CHANGES, WireType::LengthDelimited, &mut entry);
        encoding::encode_varint(change.len() as u64, &mut entry);
        entry.extend_from_slice(change);
    }
    entry
}

/// Returns the message of a feed with all changes of a batch, after which a watcher resumes from `token`.
pub(crate) fn batch(mut entries: Vec<u8>, token: &str, compressed: bool) -> Vec<u8> {
    encoding::string::encode(TOKEN, &token.to_owned(), &mut entries);
    let zipped = compressed.then(|| {
        let mut zipped = GzEncoder::new(vec![1, 0, 0, 0, 0], Compression::fast());
        zipped.write_all(&entries).and_then(|()| zipped.finish())
    });
    // A vector takes everything.
    let mut message = match zipped {
        Some(Ok(zipped)) => zipped,
        _ => [&[0; PREFIX], &entries[..]].concat(),
    };
    framing::set_length(&mut message);
    message
}

/// Appends the message of the watch of one task with these entries.
pub(crate) fn log<'a>(
    out: &mut Vec<u8>,
    task: &Task,
    events: impl Iterator<Item = &'a Event>,
    result: Option<&Bytes>,
) {
    let events = events.map(event::to_wire).collect();
    framing::append(
        out,
        &v1::WatchTaskResponse { events, task: Some(wire::to_wire(task, None, result)), deltas: vec![] },
    );
}

/// Takes the first message of a chunk.
pub(crate) fn take<M: Message + Default>(chunk: &mut Bytes) -> Result<Option<M>, Status> {
    let message = framing::split(chunk).map(M::decode).transpose();
    message.map_err(|error| Status::internal(error.to_string()))
}
