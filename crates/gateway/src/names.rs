//! Resources that the request of a call names, over HTTP and gRPC alike: the field that its path has, and all others that are
//! names. Knows not who may call what.

use prost::DecodeError;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};

use crate::Gateway;

/// Fields with the resource of calls that have no HTTP form.
const WITHOUT_PATH: &[(&str, &str)] = &[
    ("AttachTask", "watch.name"),
    ("UploadParts", "parent"),
    ("DownloadParts", "parent"),
    ("FindMissingParts", "parent"),
];
const PREFIX: &str = "namespaces/";

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
    /// Returns the names in the first message of a call, by the call's path in gRPC.
    pub fn names(&self, path: &str, message: &[u8]) -> Result<Names, DecodeError> {
        let Some(call) = self.call_at(path) else { return Ok(Names::default()) };
        let message = DynamicMessage::decode(call.input(), message)?;
        let fields = self.subject_fields(&call);
        let subjects = fields.iter().map(|field| text_at(&message, field)).collect();
        let mut others = Vec::new();
        collect(&message, &mut others);
        Ok(Names { subjects, others })
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

/// Returns the text in a field such as `task.name`; an empty one if it is not set.
fn text_at(message: &DynamicMessage, field: &str) -> String {
    let Some((first, rest)) = field.split_once('.') else {
        let value = message.get_field_by_name(field);
        return value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    };
    let inner = message.get_field_by_name(first);
    inner.and_then(|inner| Some(text_at(inner.as_message()?, rest))).unwrap_or_default()
}

fn collect(message: &DynamicMessage, found: &mut Vec<String>) {
    // As deep as the decoder permits.
    for (_, value) in message.fields() {
        collect_value(value, found);
    }
}

fn collect_value(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if is_name(text) => found.push(text.clone()),
        Value::Message(message) => collect(message, found),
        Value::List(values) => values.iter().for_each(|value| collect_value(value, found)),
        Value::Map(values) => values.values().for_each(|value| collect_value(value, found)),
        _ => {}
    }
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
}
