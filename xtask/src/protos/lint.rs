//! Style of the protos: names, versions, numbers, comments and the shape of calls, after the usual
//! rules for protos and Google's AIPs. Exceptions are listed with their reason.

use super::model::{Enum, Field, File, Message, Method, Service, Type};
use super::text::{is_lower_snake, is_pascal, is_upper_snake, is_version, upper_snake};

/// Calls that answer with something else than `<Rpc>Response` or what their AIP says.
const OTHER_ANSWERS: &[(&str, &str, &str)] = &[
    ("CancelTask", "Task", "a state change of a resource answers with the resource (AIP-216)"),
    ("SetLogFilter", "LogFilter", "what is set is small, and there is one of it"),
    ("RetryTask", "Task", "it makes a resource and answers with it, as Create does (AIP-133)"),
];
/// Lists without pages.
const UNPAGED: &[(&str, &str)] =
    &[("ListCapabilities", "one short line a word, of which a namespace has a few dozen")];

/// Calls about the server itself, which has neither name nor parent.
const OF_THE_SERVER: &[&str] = &["GetSystemStatus", "ListLoops", "GetLogFilter"];

/// Everything that is not as it should be.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        let mut found = Vec::new();
        of_file(file, &mut found);
        for service in &file.services {
            of_service(files, file, service, &mut found);
        }
        for message in &file.messages {
            of_message(file, message, &mut found);
        }
        for one in &file.enums {
            of_enum(one, &mut found);
        }
        problems.extend(found.into_iter().map(|one| format!("{}: {one}", file.path)));
    }
    let rpcs = || files.iter().flat_map(|file| &file.services).flat_map(|service| &service.methods);
    let listed = OTHER_ANSWERS.iter().map(|one| one.0).chain(UNPAGED.iter().map(|one| one.0));
    let listed = listed.chain(OF_THE_SERVER.iter().copied());
    for name in listed.filter(|name| !rpcs().any(|rpc| rpc.name == *name)) {
        problems.push(format!("the exception for {name} is not needed any more"));
    }
    problems
}

fn of_file(file: &File, found: &mut Vec<String>) {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    if folder != file.package.replace('.', "/") {
        found.push(format!("must lie in a folder named after its package {}", file.package));
    }
    if !file.package.rsplit('.').next().is_some_and(is_version) {
        found.push(format!("package {} must end in a version, such as v1", file.package));
    }
    if !name.strip_suffix(".proto").is_some_and(is_lower_snake) {
        found.push("must have a lower_snake name".to_owned());
    }
    if file.syntax != "proto3" {
        found.push("must be proto3".to_owned());
    }
    documented("the file's package line", &file.comment, found);
}

fn of_service(files: &[File], file: &File, service: &Service, found: &mut Vec<String>) {
    if !is_pascal(&service.name) || !service.name.ends_with("Service") {
        found.push(format!("service {} must be PascalCase and end in Service", service.name));
    }
    documented(&service.name, &service.comment, found);
    for rpc in &service.methods {
        let name = &rpc.name;
        if !is_pascal(name) {
            found.push(format!("rpc {name} must be PascalCase"));
        }
        documented(name, &rpc.comment, found);
        let request = format!("{}.{name}Request", file.package);
        if rpc.input != request {
            found.push(format!("rpc {name} must take {request}, not {}", rpc.input));
        }
        let response = answer(&file.package, rpc);
        if rpc.output != response {
            found.push(format!("rpc {name} must answer with {response}, not {}", rpc.output));
        }
        let message = |full: &str| {
            let name = full.strip_prefix(&file.package)?.strip_prefix('.')?;
            files.iter().flat_map(|file| &file.messages).find(|message| message.name == name)
        };
        shape(rpc, message(&rpc.input), message(&rpc.output), found);
    }
}

/// What a call answers with.
fn answer(package: &str, rpc: &Method) -> String {
    if let Some((_, resource, _)) = OTHER_ANSWERS.iter().find(|one| one.0 == rpc.name) {
        return format!("{package}.{resource}");
    }
    // AIP-131, 133 and 134: the resource itself; AIP-135: nothing.
    if let Some(resource) = ["Get", "Create", "Update"].iter().find_map(|verb| rpc.name.strip_prefix(verb)) {
        return format!("{package}.{resource}");
    }
    if rpc.name.starts_with("Delete") {
        return "google.protobuf.Empty".to_owned();
    }
    format!("{package}.{}Response", rpc.name)
}

/// Fields that a standard method must have.
fn shape(rpc: &Method, request: Option<&Message>, response: Option<&Message>, found: &mut Vec<String>) {
    let has = |message: Option<&Message>, field: &str| {
        message.is_some_and(|message| message.fields.iter().any(|one| one.name == field))
    };
    let paged = !UNPAGED.iter().any(|one| one.0 == rpc.name);
    let wanted: &[&str] = match rpc.name.as_str() {
        name if OF_THE_SERVER.contains(&name) => &[],
        name if name.starts_with("List") && paged => &["parent", "page_size", "page_token"],
        name if name.starts_with("List") || name.starts_with("Create") => &["parent"],
        name if name.starts_with("Get") || name.starts_with("Delete") => &["name"],
        name if name.starts_with("Update") => &["update_mask"],
        _ => &[],
    };
    for field in wanted.iter().filter(|field| !has(request, field)) {
        found.push(format!("the request of {} must have `{field}`", rpc.name));
    }
    if rpc.name.starts_with("List") && paged && !has(response, "next_page_token") {
        found.push(format!("the response of {} must have `next_page_token`", rpc.name));
    }
}

fn of_message(file: &File, message: &Message, found: &mut Vec<String>) {
    let name = &message.name;
    if !name.split('.').all(is_pascal) {
        found.push(format!("message {name} must be PascalCase"));
    }
    documented(name, &message.comment, found);
    for oneof in message.oneofs.iter().filter(|oneof| !is_lower_snake(oneof)) {
        found.push(format!("oneof {name}.{oneof} must be lower_snake"));
    }
    for field in &message.fields {
        if !is_lower_snake(&field.name) {
            found.push(format!("field {name}.{} must be lower_snake", field.name));
        }
        if !speaks_for_itself(file, field) {
            documented(&format!("{name}.{}", field.name), &field.comment, found);
        }
    }
    numbers(message, found);
}

/// A choice among messages of the package may leave its comment to the message.
fn speaks_for_itself(file: &File, field: &Field) -> bool {
    field.oneof.is_some() && matches!(&field.ty, Type::Named(full) if full.starts_with(&file.package))
}

/// Numbers grow without gaps; what was removed is reserved. A oneof may begin at a full ten, which
/// leaves the low numbers to what comes before it.
fn numbers(message: &Message, found: &mut Vec<String>) {
    let mut next = 1;
    for field in &message.fields {
        while message.reserved.contains(&next) {
            next += 1;
        }
        let room = field.oneof.is_some() && field.number > next && field.number % 10 == 0;
        if field.number != next && !room {
            found.push(format!(
                "field {}.{} has number {} where {next} follows: keep the order, and reserve what was removed",
                message.name, field.name, field.number
            ));
        }
        next = field.number + 1;
    }
}

fn of_enum(one: &Enum, found: &mut Vec<String>) {
    let name = one.name.rsplit('.').next().unwrap_or(&one.name);
    if !is_pascal(name) {
        found.push(format!("enum {name} must be PascalCase"));
    }
    documented(name, &one.comment, found);
    let prefix = format!("{}_", upper_snake(name));
    let zero = format!("{prefix}UNSPECIFIED");
    if one.values.first().is_none_or(|(first, number, _)| *first != zero || *number != 0) {
        found.push(format!("enum {name} must begin with {zero} = 0"));
    }
    let mut next = 0;
    for (value, number, comment) in &one.values {
        if !is_upper_snake(value) || !value.starts_with(&prefix) {
            found.push(format!("value {value} must be UPPER_SNAKE and begin with {prefix}"));
        }
        documented(value, comment, found);
        while one.reserved.contains(&next) {
            next += 1;
        }
        if *number != next {
            found.push(format!("value {value} has number {number} where {next} follows"));
        }
        next = number + 1;
    }
}

fn documented(what: &str, comment: &str, found: &mut Vec<String>) {
    if comment.is_empty() {
        found.push(format!("{what} must have a comment"));
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
