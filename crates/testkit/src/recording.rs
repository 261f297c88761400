//! Recorded calls of the worker protocol, as bytes: their text form, and edits of single values in which a replay must
//! differ. Everything else of a message stays as it was sent. Knows the encoding of messages, not their fields.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use tonic::{Code, Status};

/// What happened in a call, in the order in which a proxy between both sides saw it.
#[derive(Debug, Clone)]
pub enum Entry {
    FromWorker(Bytes),
    ToWorker(Bytes),
    /// The worker sends nothing more.
    HalfClosed,
    /// Status with which the call ended.
    Ended(Status),
}

/// Call, with all that both sides sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub entries: Vec<Entry>,
}

impl Call {
    /// Whether the control plane accepted the call, and the session began.
    fn is_session(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::ToWorker(_)))
    }

    /// Returns the status with which the call ended, if it has.
    pub fn status(&self) -> Option<&Status> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Ended(status) => Some(status),
            _ => None,
        })
    }
}

/// Calls in the order in which they began.
#[derive(Debug, Clone, Default)]
pub struct Recording(pub Vec<Call>);

impl Recording {
    /// Returns what a worker and a control plane of commit dc61eb4 sent each other, with version 1 of the protocol.
    pub fn dc61eb4() -> Result<Self> {
        Self::parse(include_str!("../data/protocol-dc61eb4.txt"))
    }

    /// Returns the calls in which sessions began.
    pub fn sessions(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| call.is_session())
    }

    /// Returns the status with which the control plane refused a version of the protocol that it does not know.
    pub fn refusal(&self) -> Result<Status> {
        let refused = self.0.iter().find(|call| !call.is_session()).and_then(Call::status);
        refused.cloned().context("no call was refused")
    }

    /// Parses the text form: a line each, `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self> {
        let mut calls: Vec<Call> = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            if kind == "call" {
                calls.push(Call { path: rest.to_owned(), entries: Vec::new() });
                continue;
            }
            let entry = match kind {
                "worker" => Entry::FromWorker(hex::decode(rest)?.into()),
                "server" => Entry::ToWorker(hex::decode(rest)?.into()),
                "half-closed" => Entry::HalfClosed,
                "ended" => Entry::Ended(parse_status(rest)?),
                other => bail!("unknown kind of line: {other}"),
            };
            calls.last_mut().context("an entry before the first call")?.entries.push(entry);
        }
        Ok(Self(calls))
    }

    /// Formats the calls as [`Self::parse`] reads them.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for call in &self.0 {
            let _ = writeln!(text, "call {}", call.path);
            for entry in &call.entries {
                let _ = match entry {
                    Entry::FromWorker(message) => writeln!(text, "worker {}", hex::encode(message)),
                    Entry::ToWorker(message) => writeln!(text, "server {}", hex::encode(message)),
                    Entry::HalfClosed => writeln!(text, "half-closed"),
                    Entry::Ended(status) => {
                        let (code, details) = (i32::from(status.code()), hex::encode(status.details()));
                        writeln!(text, "ended {code}:{details}:{}", status.message())
                    }
                };
            }
        }
        text
    }
}

fn parse_status(text: &str) -> Result<Status> {
    let (code, rest) = text.split_once(':').context("a status without details")?;
    let (details, message) = rest.split_once(':').context("a status without a message")?;
    Ok(Status::with_details(Code::from_i32(code.parse()?), message, hex::decode(details)?.into()))
}

/// Replaces every occurrence of a text by one of the same length, such as the id of a task by that of another: the
/// lengths around it stay right.
pub fn replace_text(message: &[u8], from: &str, to: &str) -> Result<Bytes> {
    ensure!(from.len() == to.len() && !from.is_empty(), "{from:?} and {to:?} differ in length");
    let mut replaced = message.to_vec();
    for (place, part) in message.windows(from.len()).enumerate() {
        if part == from.as_bytes() {
            replaced[place..place + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    Ok(replaced.into())
}

/// Changes the numbers at a path of field numbers, such as fences and times. Only the values and the lengths of the
/// messages around them are encoded again, so that order, unknown fields and unusual encodings stay: decoding the whole
/// message with any schema, as prost or prost-reflect would, preserves less.
pub fn replace_varints(
    mut message: &[u8],
    path: &[u32],
    change: &mut impl FnMut(u64) -> u64,
) -> Result<Bytes> {
    let (field, inner) = path.split_first().context("an empty path")?;
    let mut changed = Vec::with_capacity(message.len() + 8);
    while message.has_remaining() {
        let whole = message;
        let (tag, wire) = decode_key(&mut message)?;
        match wire {
            WireType::Varint if tag == *field && inner.is_empty() => {
                encode_key(tag, wire, &mut changed);
                encode_varint(change(decode_varint(&mut message)?), &mut changed);
            }
            WireType::LengthDelimited if tag == *field && !inner.is_empty() => {
                let length = usize::try_from(decode_varint(&mut message)?)?;
                let (nested, rest) = message.split_at_checked(length).context("a truncated message")?;
                let nested = replace_varints(nested, inner, change)?;
                encode_key(tag, wire, &mut changed);
                encode_varint(nested.len() as u64, &mut changed);
                changed.extend_from_slice(&nested);
                message = rest;
            }
            _ => {
                skip_field(wire, tag, &mut message, DecodeContext::default())?;
                changed.extend_from_slice(&whole[..whole.len() - message.len()]);
            }
        }
    }
    Ok(changed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190aaaa-0000-7000-8000-000000000001";

    #[test]
    fn text_form_is_read_as_written() {
        let status =
            Status::with_details(Code::FailedPrecondition, "version: 2", Bytes::from_static(b"\x08\x01"));
        let entries = vec![
            Entry::FromWorker(Bytes::from_static(b"\x00\xff")),
            Entry::ToWorker(Bytes::new()),
            Entry::HalfClosed,
            Entry::Ended(status),
        ];
        let written = Recording(vec![Call { path: "/a/B".to_owned(), entries }]).to_text();
        let read = Recording::parse(&format!("# comment\n{written}")).unwrap();
        assert_eq!(read.to_text(), written);
        assert_eq!(read.0[0].status().unwrap().message(), "version: 2");
        assert!(Recording::parse("worker 00").is_err() && Recording::parse("call /a\nother").is_err());
    }

    #[test]
    fn only_named_values_change() {
        let mut inner = vec![0x0a, 36];
        inner.extend(ID.bytes());
        // Field 2 is the fence; field 9 is unknown and longer than it has to be; field 2 also occurs within it.
        inner.extend([0x10, 1, 0x4a, 2, 0x10, 1, 0x48, 0x81, 0x00]);
        let mut message = vec![0x12, u8::try_from(inner.len()).unwrap()];
        message.extend(&inner);
        message.extend([0x10, 1]);

        let changed = replace_varints(&message, &[2, 2], &mut |fence| fence + 299).unwrap();
        let fence = message.iter().rposition(|byte| *byte == 0x4a).unwrap() - 1;
        let mut wanted = message.clone();
        wanted.splice(fence..=fence, [0xac, 0x02]);
        wanted[1] += 1;
        assert_eq!(changed, wanted);
        assert!(replace_varints(&message[..9], &[2, 2], &mut |fence| fence).is_err());

        let other = ID.replace('a', "b");
        let moved = replace_text(&message, ID, &other).unwrap();
        assert_eq!(replace_text(&moved, &other, ID).unwrap(), message);
        assert!(moved != message && replace_text(&message, ID, "short").is_err());
    }
}
