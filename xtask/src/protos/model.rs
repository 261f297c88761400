//! Descriptors as a tree of names, types and comments. Knows the format of descriptors, no rules.

use std::collections::{BTreeSet, HashMap};

use prost_types::field_descriptor_proto::{Label, Type as Kind};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// One `.proto` file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) package: String,
    pub(crate) syntax: String,
    pub(crate) comment: String,
    pub(crate) services: Vec<Service>,
    /// Nested ones come after the one that they are in.
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<Enum>,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) comment: String,
    pub(crate) methods: Vec<Method>,
}

#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    pub(crate) comment: String,
    /// Full names.
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) streams_in: bool,
    pub(crate) streams_out: bool,
}

#[derive(Debug)]
pub(crate) struct Message {
    /// Without the package.
    pub(crate) name: String,
    pub(crate) comment: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) oneofs: Vec<String>,
    pub(crate) reserved: BTreeSet<i32>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) comment: String,
    pub(crate) number: i32,
    pub(crate) ty: Type,
    pub(crate) repeated: bool,
    /// Whether absence differs from zero, for a plain value.
    pub(crate) optional: bool,
    pub(crate) oneof: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Type {
    Plain(&'static str),
    /// A full name.
    Named(String),
    Map(Box<Type>, Box<Type>),
}

#[derive(Debug)]
pub(crate) struct Enum {
    /// Without the package.
    pub(crate) name: String,
    pub(crate) comment: String,
    /// Name, number, comment.
    pub(crate) values: Vec<(String, i32, String)>,
    pub(crate) reserved: BTreeSet<i32>,
}

/// Comments by path; see `SourceCodeInfo` in descriptor.proto.
type Comments = HashMap<Vec<i32>, String>;

impl File {
    pub(crate) fn new(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments: Comments = locations
            .filter_map(|one| Some((one.path.clone(), unindent(one.leading_comments.as_deref()?))))
            .collect();
        let mut this = Self {
            path: file.name().to_owned(),
            package: file.package().to_owned(),
            syntax: file.syntax().to_owned(),
            comment: comment(&comments, &[2]),
            services: Vec::new(),
            messages: Vec::new(),
            enums: Vec::new(),
        };
        for (at, service) in numbered(&file.service) {
            let methods = numbered(&service.method).map(|(i, method)| Method {
                name: method.name().to_owned(),
                comment: comment(&comments, &[6, at, 2, i]),
                input: full(method.input_type()),
                output: full(method.output_type()),
                streams_in: method.client_streaming(),
                streams_out: method.server_streaming(),
            });
            this.services.push(Service {
                name: service.name().to_owned(),
                comment: comment(&comments, &[6, at]),
                methods: methods.collect(),
            });
        }
        for (at, message) in numbered(&file.message_type) {
            this.message(&comments, message, "", &[4, at]);
        }
        for (at, one) in numbered(&file.enum_type) {
            this.enums.push(enumeration(&comments, one, "", &[5, at]));
        }
        this
    }

    fn message(&mut self, comments: &Comments, message: &DescriptorProto, outer: &str, path: &[i32]) {
        let name = format!("{outer}{}", message.name());
        // `optional` makes a oneof of its own in the descriptor, which is nobody's business.
        let shown: Vec<_> = message
            .oneof_decl
            .iter()
            .enumerate()
            .filter(|(at, _)| {
                !message
                    .field
                    .iter()
                    .any(|one| one.proto3_optional() && one.oneof_index == i32::try_from(*at).ok())
            })
            .map(|(_, oneof)| oneof.name().to_owned())
            .collect();
        let fields = numbered(&message.field).map(|(at, field)| Field {
            name: field.name().to_owned(),
            comment: comment(comments, &join(path, &[2, at])),
            number: field.number(),
            ty: field_type(message, field),
            repeated: field.label() == Label::Repeated && map_entry(message, field).is_none(),
            optional: field.proto3_optional(),
            oneof: field
                .oneof_index
                .filter(|_| !field.proto3_optional())
                .and_then(|at| message.oneof_decl.get(usize::try_from(at).ok()?))
                .map(|oneof| oneof.name().to_owned()),
        });
        self.messages.push(Message {
            comment: comment(comments, path),
            fields: fields.collect(),
            oneofs: shown,
            reserved: message.reserved_range.iter().flat_map(|one| one.start()..one.end()).collect(),
            name: name.clone(),
        });
        let outer = format!("{name}.");
        for (at, nested) in numbered(&message.nested_type) {
            if !nested.options.as_ref().is_some_and(|options| options.map_entry()) {
                self.message(comments, nested, &outer, &join(path, &[3, at]));
            }
        }
        for (at, one) in numbered(&message.enum_type) {
            self.enums.push(enumeration(comments, one, &outer, &join(path, &[4, at])));
        }
    }
}

fn enumeration(comments: &Comments, one: &EnumDescriptorProto, outer: &str, path: &[i32]) -> Enum {
    let values = numbered(&one.value).map(|(at, value)| {
        (value.name().to_owned(), value.number(), comment(comments, &join(path, &[2, at])))
    });
    Enum {
        name: format!("{outer}{}", one.name()),
        comment: comment(comments, path),
        values: values.collect(),
        // Unlike a message's, these ranges hold their end.
        reserved: one.reserved_range.iter().flat_map(|one| one.start()..=one.end()).collect(),
    }
}

fn field_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> Type {
    if let Some([key, value]) = map_entry(message, field).map(|entry| entry.field.as_slice()) {
        return Type::Map(Box::new(field_type(message, key)), Box::new(field_type(message, value)));
    }
    Type::Plain(match field.r#type() {
        Kind::Message | Kind::Enum | Kind::Group => return Type::Named(full(field.type_name())),
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int64 => "int64",
        Kind::Uint64 => "uint64",
        Kind::Int32 => "int32",
        Kind::Fixed64 => "fixed64",
        Kind::Fixed32 => "fixed32",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Uint32 => "uint32",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
    })
}

/// The hidden message that a map field has.
fn map_entry<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> Option<&'a DescriptorProto> {
    let name = field.type_name().rsplit('.').next()?;
    message.nested_type.iter().find(|nested| {
        nested.name() == name && nested.options.as_ref().is_some_and(|options| options.map_entry())
    })
}

fn comment(comments: &Comments, path: &[i32]) -> String {
    comments.get(path).cloned().unwrap_or_default()
}

/// Comment lines begin with the space after `//`.
fn unindent(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}

fn numbered<T>(list: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(list)
}

fn join(path: &[i32], more: &[i32]) -> Vec<i32> {
    [path, more].concat()
}

/// Full names begin with a dot in descriptors.
fn full(name: &str) -> String {
    name.trim_start_matches('.').to_owned()
}
