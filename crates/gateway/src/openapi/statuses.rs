//! HTTP statuses of failures, per operation: those of this layer, and those of the codes with which the services answer its call.
//! `scripts/http-fuzz` fails where a response has another one, and the table here is to be completed then.

use http::Method;
use serde_json::{Map, Value, json};

use crate::etag;
use crate::routes::{Body, Route};
use crate::template::Segment;

/// Calls that need no record of the name in their path: they create it, or write the name down.
const WITHOUT_RECORD: &[&str] = &["IssueWorkerToken", "PutTaskKind"];
/// Calls that look a record up that their path does not name: `NOT_FOUND`.
const NAMING_OTHERS: &[&str] =
    &["CreateSchedule", "CreateTask", "CreateWorkflow", "ExportTasks", "ListApprovals", "ResetBreaker"];
/// Calls that create a record, or write one that others may have changed: `ALREADY_EXISTS` and `ABORTED`.
const CONFLICTING: &[&str] = &[
    "CreateAgent",
    "CreateSchedule",
    "CreateTask",
    "CreateWorkflowTemplate",
    "DeleteSchedule",
    "DeleteTaskKind",
    "DeleteWorkflowTemplate",
    "PutTaskKind",
    "RetryTask",
    "RotateKey",
    "RunSchedule",
    "SubscribeWebPush",
    "UnsubscribeWebPush",
    "UpdateSchedule",
    "UpdateWorkflowTemplate",
];
/// Calls that a limit or a budget bounds: `RESOURCE_EXHAUSTED`.
const LIMITED: &[&str] = &[
    "AddWorkflowStep",
    "CreateSchedule",
    "CreateTask",
    "CreateWorkflow",
    "IssueWorkerToken",
    "PutTaskKind",
    "RerunWorkflow",
    "RetryTask",
    "RunSchedule",
    "SendTaskInput",
    "UpdateSchedule",
];

/// A status with the name of its response in the document, its description, and whether an operation may have it.
struct Failure {
    status: &'static str,
    name: &'static str,
    description: &'static str,
    is_of: fn(&Route) -> bool,
}

const fn failure(
    status: &'static str,
    name: &'static str,
    description: &'static str,
    is_of: fn(&Route) -> bool,
) -> Failure {
    Failure { status, name, description, is_of }
}

const FAILURES: [Failure; 13] = [
    failure("400", "BadRequest", "The request is invalid, or not possible in the present state.", always),
    failure("401", "Unauthorized", "The credentials are missing, or valid no more.", always),
    failure("403", "Forbidden", "The caller may not make the call.", always),
    failure("404", "NotFound", "A record does not exist.", |route| {
        (names_record(route) && !is_one_of(WITHOUT_RECORD, route)) || is_one_of(NAMING_OTHERS, route)
    }),
    failure("408", "RequestTimeout", "The body did not arrive in time.", has_body),
    failure("409", "Conflict", "A record exists already, or has changed meanwhile.", |route| {
        is_one_of(CONFLICTING, route)
    }),
    failure("412", "PreconditionFailed", "The record has another etag.", |route| {
        etag::has(&route.call.input()) && route.method != Method::GET
    }),
    failure("413", "ContentTooLarge", "The body, or what it takes in memory, is too large.", has_body),
    failure("415", "UnsupportedMediaType", "The body is not declared as JSON.", has_body),
    failure("429", "TooManyRequests", "A limit or a budget is reached.", |route| is_one_of(LIMITED, route)),
    failure("500", "InternalServerError", "The control plane has failed, or cannot read a record.", always),
    failure("503", "ServiceUnavailable", "The control plane or its store takes no calls now: retry.", always),
    failure("504", "GatewayTimeout", "The deadline of the call has passed.", always),
];

/// Returns the responses of an operation by their statuses, but for that of success.
pub(super) fn of(route: &Route) -> Map<String, Value> {
    let possible = FAILURES.iter().filter(|failure| (failure.is_of)(route));
    let mut responses: Map<_, _> =
        possible.map(|failure| (failure.status.to_owned(), reference(failure.name))).collect();
    if etag::is_of_all(&route.call.output()) && route.method == Method::GET {
        responses.insert("304".to_owned(), json!({ "description": "The caller has the record." }));
    }
    // Of what is between the client and the control plane.
    responses.insert("default".to_owned(), reference("Failure"));
    responses
}

/// Returns the responses that operations refer to.
pub(super) fn components() -> Map<String, Value> {
    let others = [("Failure", "Failure.")];
    let named = FAILURES.iter().map(|failure| (failure.name, failure.description)).chain(others);
    let schema = json!({ "$ref": "#/components/schemas/google.rpc.Status" });
    let content = json!({ "application/json": { "schema": schema } });
    named
        .map(|(name, description)| {
            (name.to_owned(), json!({ "description": description, "content": content }))
        })
        .collect()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/{name}") })
}

fn always(_: &Route) -> bool {
    true
}

fn has_body(route: &Route) -> bool {
    route.body != Body::None
}

/// Whether the path names more than a namespace, all of which exist.
fn names_record(route: &Route) -> bool {
    let segments = &route.template.segments;
    let is_record = |pair: &[Segment]| match pair {
        [Segment::Literal(collection), Segment::Any] => collection != "namespaces",
        [_, Segment::Literal(one)] => one == "current",
        _ => false,
    };
    segments.windows(2).any(is_record)
}

fn is_one_of(calls: &[&str], route: &Route) -> bool {
    calls.contains(&route.call.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Routes;

    #[test]
    fn calls_of_the_table_exist() {
        let routes = Routes::new(&crate::pool().unwrap()).unwrap();
        for call in [WITHOUT_RECORD, NAMING_OTHERS, CONFLICTING, LIMITED].concat() {
            assert!(routes.iter().any(|route| route.call.name() == call), "{call}");
        }
    }

    #[test]
    fn operations_have_their_own_statuses() {
        let routes = Routes::new(&crate::pool().unwrap()).unwrap();
        let own = |call: &str| -> Vec<String> {
            let route = routes.iter().find(|route| route.call.name() == call).unwrap();
            let everywhere = ["400", "401", "403", "500", "503", "504", "default"];
            of(route)
                .into_iter()
                .map(|(status, _)| status)
                .filter(|one| !everywhere.contains(&&**one))
                .collect()
        };
        assert_eq!(own("ListTasks"), Vec::<String>::new());
        assert_eq!(own("ListTaskKinds"), Vec::<String>::new(), "a namespace exists when it is named");
        assert_eq!(own("GetTask"), ["404"]);
        assert_eq!(own("GetAgent"), ["304", "404"]);
        assert_eq!(own("GetCurrentBrowserSession"), ["404"]);
        assert_eq!(own("CancelTask"), ["404", "408", "413", "415"]);
        assert_eq!(own("UpdateTask"), ["404", "408", "412", "413", "415"]);
        assert_eq!(own("CreateAgent"), ["408", "409", "413", "415"]);
        assert_eq!(own("PutTaskKind"), ["408", "409", "412", "413", "415", "429"]);
        assert_eq!(own("DeleteSchedule"), ["404", "409", "412"]);
    }

    #[test]
    fn responses_that_operations_refer_to_exist() {
        let document = crate::openapi().unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let Some(pointer) = response["$ref"].as_str() else { continue };
                    let found = document.pointer(pointer.trim_start_matches('#'));
                    let content = found.map(|found| &found["content"]["application/json"]["schema"]["$ref"]);
                    let is_status =
                        content.is_some_and(|name| *name == "#/components/schemas/google.rpc.Status");
                    assert!(is_status, "{method} {path}: {status}");
                }
            }
        }
    }
}
