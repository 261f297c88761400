//! Resources that the request of a call names, over HTTP and gRPC alike: the field that its path has, and all others that are
//! names. Knows not who may call what.

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

use crate::Gateway;

/// Fields with the resource of calls that have no HTTP form.
const WITHOUT_PATH: &[(&str, &str)] = &[
    ("AttachTask", "watch.name"),
    ("UploadParts", "parent"),
    ("DownloadParts", "parent"),
    ("FindMissingParts", "parent"),
];
const PREFIX: &str = "namespaces/";
/// Number of the key in an entry of a map.
const MAP_KEY: u32 = 1;
/// More nested messages than the decoder allows.
const MAX_DEPTH: usize = 128;

/// Names of resources in a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Names {
    /// Resources that the call is about: those of its path. Empty texts where the request lacks them, and none of a call that is about
    /// the control plane itself.
    pub subjects: Vec<String>,
    /// Other texts of the request that are names of resources.
    pub others: Vec<String>,
}

impl Gateway {
    /// Returns the names in the first message of a call, by the call's path in gRPC. The message is read in its encoded form: a decoded
    /// one of any type is hundreds of times as large. What the decoder refuses may have no names here.
    pub fn names(&self, path: &str, message: &[u8]) -> Result<Names, DecodeError> {
        let Some(call) = self.call_at(path) else { return Ok(Names::default()) };
        let fields = self.subject_fields(&call);
        let mut names = Names { subjects: vec![String::new(); fields.len()], others: Vec::new() };
        let wanted: Vec<_> = fields.iter().map(String::as_str).enumerate().collect();
        collect(&call.input(), message, &wanted, &mut names, 0)?;
        Ok(names)
    }

    fn call_at(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.pool.get_service_by_name(service)?.methods().find(|call| call.name() == method)
    }

    fn subject_fields(&self, call: &MethodDescriptor) -> Vec<String> {
        let routes = self.routes.iter().filter(|route| route.call == *call);
        let variables = routes.flat_map(|route| &route.template.variables);
        let mut fields: Vec<_> = variables.map(|variable| variable.field.clone()).collect();
        let fixed = WITHOUT_PATH.iter().filter(|(name, _)| *name == call.name());
        fields.extend(fixed.map(|(_, field)| (*field).to_owned()));
        fields.sort_unstable();
        fields.dedup();
        fields
    }
}

/// Collects the names in an encoded message. `wanted` are the fields with its subjects, such as `task.name`, with their places; the last
/// value of a field counts, as for the decoder.
fn collect(
    message: &MessageDescriptor,
    mut bytes: &[u8],
    wanted: &[(usize, &str)],
    names: &mut Names,
    depth: usize,
) -> Result<(), DecodeError> {
    let is_entry = message.is_map_entry();
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes)?;
        let mut rest = bytes;
        // Checks the length, too.
        skip_field(wire, number, &mut rest, DecodeContext::default())?;
        let (mut value, _) = bytes.split_at(bytes.len() - rest.len());
        bytes = rest;
        // Keys of maps name nothing.
        let is_read = wire == WireType::LengthDelimited && !(is_entry && number == MAP_KEY);
        let Some(field) = message.get_field(number).filter(|_| is_read) else { continue };
        decode_varint(&mut value)?;
        match field.kind() {
            Kind::String => {
                // The decoder refuses others.
                let Ok(text) = std::str::from_utf8(value) else { continue };
                for (place, _) in wanted.iter().filter(|(_, path)| *path == field.name()) {
                    text.clone_into(&mut names.subjects[*place]);
                }
                if is_name(text) {
                    names.others.push(text.to_owned());
                }
            }
            Kind::Message(inner) if depth < MAX_DEPTH => {
                let below = wanted.iter().filter_map(|(place, path)| {
                    let (first, path) = path.split_once('.')?;
                    (first == field.name()).then_some((*place, path))
                });
                collect(&inner, value, &below.collect::<Vec<_>>(), names, depth + 1)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a text is the name of a resource, and not one of more words that begins like one.
fn is_name(text: &str) -> bool {
    text.starts_with(PREFIX) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rota_proto::v1;

    use super::*;

    /// Calls about the control plane itself.
    const WITHOUT_SUBJECT: &[&str] = &[
        "GetSystemStatus",
        "WatchSystemStatus",
        "GetDatabaseStatus",
        "ListBackgroundTasks",
        "GetLogFilter",
        "SetLogFilter",
        "IssueSignInCode",
        "RedeemSignInCode",
        "GetSignInOptions",
        "CreateBrowserSession",
        "GetCurrentBrowserSession",
        "SignOut",
        "GetWebPush",
        "SubscribeWebPush",
        "UnsubscribeWebPush",
        "ListBrowserSessions",
        "Prune",
        "RotateKey",
        "RebuildSearchIndex",
        "Backup",
    ];

    fn gateway() -> std::sync::Arc<Gateway> {
        Gateway::new("", |_| None).unwrap()
    }

    #[test]
    fn every_call_is_about_a_resource() {
        let gateway = gateway();
        let services = gateway.pool.services().filter(|service| service.full_name().starts_with("rota.v1."));
        for call in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let fields = gateway.subject_fields(&call);
            assert_eq!(fields.is_empty(), WITHOUT_SUBJECT.contains(&call.name()), "{}", call.full_name());
            for field in &fields {
                let mut message = Some(call.input());
                for part in field.split('.') {
                    let field = message.as_ref().and_then(|message| message.get_field_by_name(part));
                    message =
                        field.unwrap_or_else(|| panic!("{}", call.full_name())).kind().as_message().cloned();
                }
            }
        }
    }

    #[test]
    fn names_are_found_at_any_depth() {
        let gateway = gateway();
        let task = v1::Task {
            name: "namespaces/b/tasks/x".to_owned(),
            alias: "namespaces/c is a namespace".to_owned(),
            ..v1::Task::default()
        };
        let one = v1::CreateTaskRequest {
            parent: "namespaces/b".to_owned(),
            task: Some(task),
            ..Default::default()
        };
        let batch = v1::BatchCreateTasksRequest {
            parent: "namespaces/a".to_owned(),
            requests: vec![one],
            ..Default::default()
        };
        let path = "/rota.v1.TaskService/BatchCreateTasks";
        let names = gateway.names(path, &batch.encode_to_vec()).unwrap();
        assert_eq!(names.subjects, ["namespaces/a"]);
        assert_eq!(names.others, ["namespaces/a", "namespaces/b", "namespaces/b/tasks/x"]);
        let watch = v1::WatchTaskRequest { name: "namespaces/a/tasks/x".to_owned(), ..Default::default() };
        let kind = Some(v1::attach_task_request::Kind::Watch(watch));
        let attach = v1::AttachTaskRequest { kind }.encode_to_vec();
        let path = "/rota.v1.TaskService/AttachTask";
        assert_eq!(gateway.names(path, &attach).unwrap().subjects, ["namespaces/a/tasks/x"]);
        assert_eq!(gateway.names(path, &[]).unwrap().subjects, [""]);
        assert!(gateway.names(path, &[0xff]).is_err());
        assert_eq!(gateway.names("/other.Service/Call", &[]).unwrap(), Names::default());
    }

    #[test]
    fn names_are_those_that_the_decoder_finds() {
        let gateway = gateway();
        let of = |name: &str| v1::Task { name: name.to_owned(), ..Default::default() };
        let update = |name| v1::UpdateTaskRequest { task: Some(of(name)), ..Default::default() };
        // The parts of a message that is sent twice are merged, and the last value of a field counts.
        let again = v1::Task { alias: "a".to_owned(), ..Default::default() };
        let again = v1::UpdateTaskRequest { task: Some(again), ..Default::default() };
        let sent = [update("namespaces/a/tasks/x"), update("namespaces/b/tasks/x"), again];
        let sent: Vec<u8> = sent.iter().flat_map(Message::encode_to_vec).collect();
        let names = gateway.names("/rota.v1.TaskService/UpdateTask", &sent).unwrap();
        assert_eq!(v1::UpdateTaskRequest::decode(&sent[..]).unwrap().task.unwrap().name, names.subjects[0]);
        assert_eq!(names.others, ["namespaces/a/tasks/x", "namespaces/b/tasks/x"]);

        let labels = [("namespaces/key".to_owned(), "namespaces/value".to_owned())].into();
        let labelled = v1::Task { labels, ..Default::default() };
        let created = v1::CreateTaskRequest { task: Some(labelled), ..Default::default() };
        let names = gateway.names("/rota.v1.TaskService/CreateTask", &created.encode_to_vec()).unwrap();
        assert_eq!(
            (names.subjects, names.others),
            (vec![String::new()], vec!["namespaces/value".to_owned()])
        );
        // Lengths beyond the end, at any depth.
        for wrong in [&[0x0a, 5, b'x'][..], &[0x12, 2, 0x0a, 5], &[0x0a]] {
            assert!(gateway.names("/rota.v1.TaskService/CreateTask", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn deeply_nested_messages_end() {
        let nested = |numbers: &[u32], inner: Vec<u8>| {
            numbers.iter().rev().fold(inner, |inner, number| {
                let mut outer = Vec::new();
                prost::encoding::bytes::encode(*number, &inner, &mut outer);
                outer
            })
        };
        let deep = |lists| {
            let text = nested(&[3], b"namespaces/deep".to_vec());
            // A value that is a list of one value.
            let value = (0..lists).fold(text, |value, _| nested(&[6, 1], value));
            // The value of a field of task.spec.input.
            nested(&[2, 4, 3, 1, 2], value)
        };
        let gateway = gateway();
        let others =
            |message: &[u8]| gateway.names("/rota.v1.TaskService/CreateTask", message).unwrap().others;
        let decoded = |message: &[u8]| v1::CreateTaskRequest::decode(message).is_ok();
        let (some, most) = (deep(10), deep(5_000));
        assert!(decoded(&some) && !decoded(&most));
        assert_eq!((others(&some).len(), others(&most).len()), (1, 0));
    }
}
