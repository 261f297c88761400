//! Elements and memory of an encoded message, before it is decoded: an empty element is two bytes on the wire and up to thousands in
//! memory, so that a limit of bytes alone does not bound memory. Knows the schema, not what messages mean.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Nested messages at most, as many as the decoder allows.
const MAX_DEPTH: usize = 100;
const NUMBER: usize = 8;
const VEC: usize = 24;
const BYTES: usize = 32;
/// The larger one of the maps that types have.
const MAP: usize = 48;
/// A list that grows has room for four elements first, unless they are large, and takes twice its size while it is moved.
const ROOM: usize = 4;
const LARGE_ELEMENT: usize = 1024;
const GROWTH: usize = 2;
/// A map has nodes of 11 entries, of which five are in use at least, and texts on the heap.
const NODE: usize = 11;
const NODE_GROWTH: usize = 3;
/// The only message whose map is a hash table. That has four buckets first, and while it is moved fewer than four for each entry.
const HASHED: &str = ".google.protobuf.Struct";
const BUCKETS: usize = 4;

/// Why a message is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    TooMany,
    Malformed,
}

/// What a message may have in it, at any depth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Strings, byte fields and messages.
    pub(super) elements: usize,
    /// Memory of its decoded form while it is made, by estimate, without the contents of strings and bytes.
    pub(super) memory: usize,
}

impl Bounds {
    pub(super) const fn elements(elements: usize) -> Self {
        Self { elements, memory: usize::MAX }
    }

    pub(super) const fn memory(memory: usize) -> Self {
        Self { elements: usize::MAX, memory }
    }
}

/// What a call receives: one message, or a stream of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    message: usize,
    pub(super) is_stream: bool,
}

impl Input {
    /// Whether a decoded message takes about as much memory as the encoded one.
    pub(super) fn is_flat(self) -> bool {
        SCHEMA.messages.get(self.message).is_none_or(Vec::is_empty)
    }
}

/// Returns the input of a call of Rota's services, by the call's path.
pub(super) fn input(path: &str) -> Option<Input> {
    SCHEMA.inputs.get(path).copied()
}

/// Checks a message of a call. Returns how many elements it has.
pub(super) fn check(message: &[u8], input: Input, bounds: Bounds) -> Result<usize, Excess> {
    let mut left = bounds;
    walk(message, input.message, &mut left, 0)?;
    Ok(bounds.elements - left.elements)
}

/// A field whose values take memory besides that of the message that has them, or are messages.
struct Field {
    number: u32,
    message: Option<usize>,
    is_number: bool,
    /// Memory of the first value, and of each one that follows it immediately.
    first: usize,
    next: usize,
}

struct Schema {
    /// Fields of each message, by its index.
    messages: Vec<Vec<Field>>,
    inputs: HashMap<String, Input>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::of(&descriptors()));

/// The set is built with the program; an unreadable one has no calls.
fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(rota_proto::DESCRIPTORS).unwrap_or_default()
}

impl Schema {
    fn of(set: &FileDescriptorSet) -> Self {
        let found = messages_of(set);
        let mut sizes = Sizes::of(&found);
        let messages = (0..found.len()).map(|message| sizes.fields(message)).collect();
        let mut inputs = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                for call in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), call.name());
                    let message = sizes.index.get(call.input_type()).copied();
                    let is_stream = call.client_streaming();
                    inputs.extend(message.map(|message| (path, Input { message, is_stream })));
                }
            }
        }
        Self { messages, inputs }
    }
}

type Found<'a> = Vec<(String, &'a DescriptorProto)>;

fn messages_of(set: &FileDescriptorSet) -> Found<'_> {
    let mut found = Vec::new();
    for file in &set.file {
        let scope = format!(".{}", file.package());
        file.message_type.iter().for_each(|one| collect(&scope, one, &mut found));
    }
    found
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, found: &mut Found<'a>) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|one| collect(&name, one, found));
    found.push((name, message));
}

/// Sizes of the types that are generated for messages, from above.
struct Sizes<'a> {
    found: &'a Found<'a>,
    index: HashMap<&'a str, usize>,
    known: Vec<Option<usize>>,
}

impl<'a> Sizes<'a> {
    fn of(found: &'a Found<'a>) -> Self {
        let index = found.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
        Self { found, index, known: vec![None; found.len()] }
    }

    fn message_of(&self, field: &FieldDescriptorProto) -> Option<usize> {
        self.index.get(field.type_name()).copied().filter(|_| field.r#type() == Type::Message)
    }

    fn is_map(&self, message: Option<usize>) -> bool {
        let message = message.and_then(|message| self.found.get(message));
        message.and_then(|(_, one)| one.options.as_ref()).is_some_and(|options| options.map_entry())
    }

    /// Returns the size of a message without what it has on the heap.
    fn message(&mut self, message: usize) -> usize {
        if let Some(size) = self.known.get(message).copied().flatten() {
            return size;
        }
        // The generator puts a message on the heap that is in itself.
        self.known[message] = Some(size_of::<usize>());
        let found = self.found;
        let (name, one) = &found[message];
        let mut choices = vec![0; one.oneof_decl.len()];
        let mut size = 0;
        for field in &one.field {
            let inner = self.message_of(field);
            let own = match inner {
                _ if is_boxed(name, one, field) => size_of::<usize>(),
                inner if is_list(field) && self.is_map(inner) => MAP,
                _ if is_list(field) => VEC,
                Some(inner) => self.message(inner) + size_of::<usize>(),
                // A number, and whether there is one.
                None if field.proto3_optional() => NUMBER + plain(field),
                None => plain(field),
            };
            match choice(field) {
                Some(index) => choices[index] = own.max(choices[index]),
                None => size += own,
            }
        }
        // Those of single fields that may be absent have none.
        let choices = choices.into_iter().filter(|size| *size > 0);
        size += choices.map(|size| size + size_of::<usize>()).sum::<usize>();
        self.known[message] = Some(size);
        size
    }

    fn fields(&mut self, message: usize) -> Vec<Field> {
        let found = self.found;
        let (name, one) = &found[message];
        let fields = one.field.iter().filter_map(|field| {
            let (number, inner) = (u32::try_from(field.number()).ok()?, self.message_of(field));
            let size = match inner {
                Some(inner) => self.message(inner),
                None => plain(field),
            };
            let (first, next) = if name == HASHED {
                (BUCKETS * size, BUCKETS * size)
            } else if is_list(field) && self.is_map(inner) {
                (NODE * size, NODE_GROWTH * size)
            } else if is_list(field) && size > LARGE_ELEMENT {
                (GROWTH * size, GROWTH * size)
            } else if is_list(field) {
                (ROOM * size, GROWTH * size)
            } else if is_boxed(name, one, field) {
                (size, size)
            } else {
                (0, 0)
            };
            let is_number = inner.is_none() && size == NUMBER;
            (first > 0 || inner.is_some()).then_some(Field { number, message: inner, is_number, first, next })
        });
        fields.collect()
    }
}

/// Returns the size of a field that is no message.
fn plain(field: &FieldDescriptorProto) -> usize {
    match field.r#type() {
        Type::String => VEC,
        Type::Bytes => BYTES,
        _ => NUMBER,
    }
}

fn is_list(field: &FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated
}

/// Returns the index of the `oneof` that a field is in.
fn choice(field: &FieldDescriptorProto) -> Option<usize> {
    let index = field.oneof_index.filter(|_| !field.proto3_optional())?;
    usize::try_from(index).ok()
}

fn is_boxed(message: &str, descriptor: &DescriptorProto, field: &FieldDescriptorProto) -> bool {
    let choice = choice(field).and_then(|index| descriptor.oneof_decl.get(index));
    let path = match choice {
        Some(choice) => format!("{message}.{}.{}", choice.name(), field.name()),
        None => format!("{message}.{}", field.name()),
    };
    rota_proto::BOXED_FIELDS.contains(&path.as_str())
}

fn walk(mut bytes: &[u8], message: usize, left: &mut Bounds, depth: usize) -> Result<(), Excess> {
    if depth > MAX_DEPTH {
        return Err(Excess::Malformed);
    }
    let mut previous = 0;
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
        let is_delimited = wire == WireType::LengthDelimited;
        if is_delimited {
            left.elements = left.elements.checked_sub(1).ok_or(Excess::TooMany)?;
        }
        let mut fields = SCHEMA.messages.get(message).into_iter().flatten();
        if let Some(field) = fields.find(|field| field.number == number) {
            let each = if number == previous { field.next } else { field.first };
            // Numbers that are sent together have a byte each at least.
            let count = if field.is_number && is_delimited { value.len() } else { 1 };
            left.memory = left.memory.checked_sub(each.saturating_mul(count)).ok_or(Excess::TooMany)?;
            if let Some(inner) = field.message.filter(|_| is_delimited) {
                walk(value, inner, left, depth + 1)?;
            }
        }
        previous = number;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
