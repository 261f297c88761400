//! Counts the elements of an encoded message before it is decoded: an empty element is two bytes on the wire and hundreds in
//! memory, so that a limit of bytes alone does not bound memory. Knows the schema, not what messages mean.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Nested messages at most, as many as the decoder allows.
const MAX_DEPTH: usize = 100;

/// Why a message is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    TooMany,
    Malformed,
}

/// Fields of a message that are messages themselves, by their number, with the index of their type. They are few.
type Fields = Vec<(u32, usize)>;

struct Schema {
    messages: Vec<Fields>,
    root: usize,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::of(".rota.worker.v1.SessionRequest"));

impl Schema {
    fn of(root: &str) -> Self {
        // The set is built with the program; an unreadable one has no messages, and the root's fields are counted flat.
        let set = FileDescriptorSet::decode(rota_proto::DESCRIPTORS).unwrap_or_default();
        let mut found = Vec::new();
        for file in &set.file {
            file.message_type
                .iter()
                .for_each(|one| collect(&format!(".{}", file.package()), one, &mut found));
        }
        let index: HashMap<&str, usize> =
            found.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
        let fields = |message: &DescriptorProto| {
            let number = |field: &prost_types::FieldDescriptorProto| u32::try_from(field.number()).ok();
            let fields = message.field.iter();
            fields.filter_map(|field| Some((number(field)?, *index.get(field.type_name())?))).collect()
        };
        let mut messages: Vec<_> = found.iter().map(|(_, message)| fields(message)).collect();
        let root = index.get(root).copied().unwrap_or_else(|| {
            messages.push(Fields::new());
            messages.len() - 1
        });
        Self { messages, root }
    }
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, found: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|one| collect(&name, one, found));
    found.push((name, message));
}

/// Returns how many strings, bytes and messages a worker's message has in it, at any depth. Fails if these are more than `most`.
pub(super) fn check(message: &[u8], most: usize) -> Result<usize, Excess> {
    let mut left = most;
    walk(message, SCHEMA.root, &mut left, 0)?;
    Ok(most - left)
}

fn walk(mut bytes: &[u8], message: usize, left: &mut usize, depth: usize) -> Result<(), Excess> {
    if depth > MAX_DEPTH {
        return Err(Excess::Malformed);
    }
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).map_err(|_| Excess::Malformed)?;
        let skipped = match wire {
            WireType::Varint => decode_varint(&mut bytes).map(|_| 0).map_err(|_| Excess::Malformed)?,
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut bytes).map_err(|_| Excess::Malformed)?,
            // Not of this version of the language; the decoder would skip them.
            WireType::StartGroup | WireType::EndGroup => return Err(Excess::Malformed),
        };
        let skipped = usize::try_from(skipped).map_err(|_| Excess::Malformed)?;
        let (value, rest) = bytes.split_at_checked(skipped).ok_or(Excess::Malformed)?;
        bytes = rest;
        if wire == WireType::LengthDelimited {
            *left = left.checked_sub(1).ok_or(Excess::TooMany)?;
            let mut fields = SCHEMA.messages.get(message).into_iter().flatten();
            if let Some((_, inner)) = fields.find(|(field, _)| *field == number) {
                walk(value, *inner, left, depth + 1)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pbjson_types::{ListValue, Struct, Value, value};
    use rota_proto::v1::{Event, Notice, TaskResult, event};
    use rota_proto::worker::v1::session_request::Kind;
    use rota_proto::worker::v1::{Hello, Report, Result as AttemptResult, SessionRequest, result};

    use super::*;

    fn check_message(kind: Kind, most: usize) -> Result<usize, Excess> {
        check(&SessionRequest { kind: Some(kind) }.encode_to_vec(), most)
    }

    #[test]
    fn nested_elements_are_counted() {
        let events = vec![Event::default(); 10];
        let report = Kind::Report(Report { events, ..Report::default() });
        assert_eq!(check_message(report.clone(), 11), Ok(11));
        assert_eq!(check_message(report, 10), Err(Excess::TooMany));

        let hello = Kind::Hello(Hello { capabilities: vec![String::new(); 10], ..Hello::default() });
        assert_eq!(check_message(hello.clone(), 11), Ok(11));
        assert_eq!(check_message(hello, 10), Err(Excess::TooMany));

        let list = ListValue { values: vec![Value { kind: Some(value::Kind::BoolValue(true)) }; 100] };
        let list = Value { kind: Some(value::Kind::ListValue(list)) };
        let data = Struct { fields: [("list".to_owned(), list)].into() };
        let succeeded = TaskResult { data: Some(data), ..TaskResult::default() };
        let result =
            AttemptResult { kind: Some(result::Kind::Succeeded(succeeded)), ..AttemptResult::default() };
        assert!(check_message(Kind::Result(result.clone()), 110).is_ok());
        assert_eq!(check_message(Kind::Result(result), 100), Err(Excess::TooMany));
    }

    #[test]
    fn text_is_one_element_whatever_its_bytes() {
        let notice = Notice { message: "\n\0".repeat(1000), ..Notice::default() };
        let events = vec![Event { kind: Some(event::Kind::Notice(notice)), ..Event::default() }];
        assert_eq!(check_message(Kind::Report(Report { events, ..Report::default() }), 4), Ok(4));
    }

    #[test]
    fn groups_and_truncated_messages_are_malformed() {
        for bytes in [&[0x0b, 0x0c][..], &[0x0a], &[0x0a, 0x05, 0x01], &[0x09, 0x01], &[0xff]] {
            assert_eq!(check(bytes, 100), Err(Excess::Malformed), "{bytes:?}");
        }
    }
}
