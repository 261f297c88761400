//! Shapes of calls after Google's AIPs. `buf lint` checks names, comments and packages, and `buf breaking` that released
//! numbers keep their meaning and removed ones are reserved. Google's api-linter is in no registry that CI reaches.

use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor, Syntax};

use crate::protos::{PACKAGE, comment, ours};

/// Calls whose response is not what their AIP or `<Rpc>Response` gives, with the message and the reason.
const RESPONSES: &[(&str, &str, &str)] = &[
    ("AcknowledgeTask", "Task", "a state change of a resource returns the resource (AIP-216)"),
    ("CancelTask", "Task", "a state change of a resource returns the resource (AIP-216)"),
    ("CancelWorkflow", "Workflow", "a state change of a resource returns the resource (AIP-216)"),
    ("PauseWorkflow", "Workflow", "a state change of a resource returns the resource (AIP-216)"),
    ("ResumeWorkflow", "Workflow", "a state change of a resource returns the resource (AIP-216)"),
    ("RevokeWorkerToken", "WorkerToken", "a state change of a resource returns the resource (AIP-216)"),
    ("RevokeBrowserSession", "BrowserSession", "a state change of a resource returns the resource (AIP-216)"),
    ("SignOut", "BrowserSession", "a state change of a resource returns the resource (AIP-216)"),
    ("GetCurrentBrowserSession", "BrowserSession", "the one of the caller, which has no name of its own"),
    ("SubscribeWebPush", "WebPush", "a state change of a resource returns the resource (AIP-216)"),
    ("UnsubscribeWebPush", "WebPush", "a state change of a resource returns the resource (AIP-216)"),
    ("RerunWorkflow", "Workflow", "it creates a resource and returns it, as Create does (AIP-133)"),
    ("DownloadArtifact", "google.api.HttpBody", "a content is no JSON over HTTP (AIP-127 names the message)"),
    ("ExportTasks", "google.api.HttpBody", "rows of CSV and JSON Lines are no JSON over HTTP either"),
    ("DownloadTaskLog", "google.api.HttpBody", "a log is text"),
    ("SetLogFilter", "LogFilter", "a small singleton"),
    ("PutTaskKind", "TaskKind", "it replaces a resource as a whole, whose fields belong together"),
    ("WatchSystemStatus", "SystemStatus", "each message is the whole of what GetSystemStatus returns"),
    ("RetryTask", "Task", "it creates a resource and returns it, as Create does (AIP-133)"),
];
/// Lists without pages: each is short by nature.
const UNPAGED: &[&str] = &["ListCapabilities", "ListBackgroundTasks", "ListAlerts"];
/// Calls about the server itself and those who are signed in to it, which have neither name nor parent.
const OF_THE_SERVER: &[&str] = &[
    "GetSystemStatus",
    "WatchSystemStatus",
    "GetDatabaseStatus",
    "ListBackgroundTasks",
    "GetLogFilter",
    "ListAlerts",
    "GetMetricsHistory",
    "GetSpending",
    "CreateBrowserSession",
    "GetCurrentBrowserSession",
    "GetWebPush",
    "GetSignInOptions",
    "ListBrowserSessions",
];

/// Checks all files of the API.
pub(crate) fn check(pool: &DescriptorPool) -> Vec<String> {
    let mut problems = Vec::new();
    for file in ours(pool) {
        if file.syntax() != Syntax::Proto3 || comment(&file, PACKAGE).is_empty() {
            problems.push(format!("{} must be proto3, with a comment on its package line", file.name()));
        }
        problems
            .extend(file.services().flat_map(|service| service.methods().collect::<Vec<_>>()).flat_map(call));
    }
    problems
}

/// Reports exceptions that no call needs any more.
pub(crate) fn unused_exceptions(pool: &DescriptorPool) -> Vec<String> {
    let calls: Vec<_> = ours(pool).flat_map(|file| file.services().collect::<Vec<_>>()).collect();
    let is_call = |name: &str| calls.iter().any(|service| service.methods().any(|rpc| rpc.name() == name));
    let listed = RESPONSES.iter().map(|one| one.0).chain(UNPAGED.iter().chain(OF_THE_SERVER).copied());
    listed.filter(|name| !is_call(name)).map(|name| format!("the exception for {name} is unused")).collect()
}

fn call(rpc: MethodDescriptor) -> Vec<String> {
    let (package, name) = (rpc.parent_service().package_name().to_owned(), rpc.name());
    let mut problems = Vec::new();
    let verb = |verbs: &[&str]| verbs.iter().find_map(|verb| name.strip_prefix(verb));
    // AIP-131, 133 and 134: the resource itself; AIP-135: nothing.
    let response = match RESPONSES.iter().find(|one| one.0 == name) {
        Some((_, resource, _)) if resource.contains('.') => (*resource).to_owned(),
        Some((_, resource, _)) => format!("{package}.{resource}"),
        None if verb(&["Delete"]).is_some() => "google.protobuf.Empty".to_owned(),
        None => match verb(&["Get", "Create", "Update"]) {
            Some(resource) => format!("{package}.{resource}"),
            None => format!("{package}.{name}Response"),
        },
    };
    if rpc.output().full_name() != response {
        problems.push(format!("{name} must return {response}, not {}", rpc.output().full_name()));
    }
    let paged = verb(&["List"]).is_some() && !UNPAGED.contains(&name);
    let required: &[&str] = match () {
        () if OF_THE_SERVER.contains(&name) => &[],
        () if paged => &["parent", "page_size", "page_token"],
        () if verb(&["List", "Create"]).is_some() => &["parent"],
        () if verb(&["Get", "Delete"]).is_some() => &["name"],
        () if verb(&["Update"]).is_some() => &["update_mask"],
        () => &[],
    };
    let lacks = |message: &MessageDescriptor, field: &&&str| message.get_field_by_name(field).is_none();
    for field in required.iter().filter(|field| lacks(&rpc.input(), field)) {
        problems.push(format!("the request of {name} must have `{field}`"));
    }
    if paged && lacks(&rpc.output(), &&"next_page_token") {
        problems.push(format!("the response of {name} must have `next_page_token`"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(head: &str, request: &str, rpc: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "{head}\nimport \"google/protobuf/empty.proto\";\nservice ThingService {{ {rpc}; }}\n\
             message Thing {{}}\nmessage Request {{ {request} }}\n"
        );
        std::fs::write(folder.path().join("thing.proto"), text).unwrap();
        let set = protox::compile(["thing.proto"], [folder.path()]).unwrap();
        check(&DescriptorPool::from_file_descriptor_set(set).unwrap())
    }

    #[test]
    fn each_rule_finds_its_breach() {
        let head = "syntax = \"proto3\";\n// Things.\npackage rota.v1;";
        let get = "rpc GetThing(Request) returns (Thing)";
        for (head, request, rpc, problem) in [
            (head, "string name = 1; string kind = 2;", get, ""),
            ("syntax = \"proto3\";\npackage rota.v1;", "string name = 1;", get, "comment"),
            ("syntax = \"proto2\";\n// Things.\npackage rota.v1;", "", get, "proto3"),
            (head, "string name = 1;", "rpc DeleteThing(Request) returns (Thing)", "Empty"),
            (head, "string id = 1;", get, "`name`"),
            (head, "string parent = 1;", "rpc CreateThing(Request) returns (Request)", "must return"),
        ] {
            let found = problems(head, request, rpc);
            let found: Vec<_> =
                found.iter().filter(|one| problem.is_empty() || one.contains(problem)).collect();
            assert_eq!(found.len(), usize::from(!problem.is_empty()), "{request} {rpc}: {found:?}");
        }
    }
}
