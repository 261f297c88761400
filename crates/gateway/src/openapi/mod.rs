//! The HTTP paths in OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1.html>), with the comments of the protos.

mod comments;
mod schema;
mod statuses;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use self::comments::Comments;
use self::schema::Schemas;
use crate::routes::{Body, Route, Routes};
use crate::template::{Segment, Template};
use crate::{Error, content, etag, pool};

/// Depth of fields of fields that are parameters of a query.
const MAX_DEPTH: usize = 3;

pub fn document() -> Result<Value, Error> {
    let pool = pool()?;
    let routes = Routes::new(&pool)?;
    let comments = Comments::new(&pool);
    let mut schemas = Schemas::new(&comments);
    let mut paths = Map::new();
    let mut ordered: Vec<_> = routes.iter().collect();
    ordered.sort_by_key(|route| {
        (route.template.variables.len() + route.template.segments.len(), path(&route.template))
    });
    for route in ordered {
        let item = paths.entry(path(&route.template)).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            let id = operation_id(route, &routes);
            item.insert(route.method.as_str().to_lowercase(), operation(route, id, &comments, &mut schemas));
        }
    }
    if let Some(status) = pool.get_message_by_name("google.rpc.Status") {
        schemas.add(&status);
    }
    Ok(json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Rota",
            "version": "v1",
            "description": "Tasks for fleets of AI agents. The same calls as over gRPC, with the JSON form of protobuf.",
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": statuses::components(),
            "schemas": schemas.finish(),
        },
    }))
}

/// Returns the path with a parameter for each open segment: `/api/v1/namespaces/{namespace}`.
fn path(template: &Template) -> String {
    let mut path = String::new();
    for (place, segment) in template.segments.iter().enumerate() {
        path.push('/');
        match segment {
            Segment::Literal(literal) => path.push_str(literal),
            Segment::Any => path.push_str(&format!("{{{}}}", parameter(template, place))),
        }
    }
    if let Some(verb) = &template.verb {
        path.push(':');
        path.push_str(verb);
    }
    path
}

/// Returns the name of the parameter of a segment: the singular of the collection before it.
fn parameter(template: &Template, place: usize) -> String {
    let before = place.checked_sub(1).and_then(|place| template.segments.get(place));
    match before {
        Some(Segment::Literal(collection)) => collection.strip_suffix('s').unwrap_or(collection).to_owned(),
        _ => format!("segment{place}"),
    }
}

/// Returns the name of a call; for its further paths with what they are about, since ids are unique.
fn operation_id(route: &Route, routes: &Routes) -> String {
    let (first, rest) = route.call.name().split_at(1);
    let id = first.to_lowercase() + rest;
    let is_main =
        routes.iter().find(|one| one.call == route.call).is_some_and(|one| std::ptr::eq(one, route));
    let of = route.template.segments.iter().rposition(|segment| *segment == Segment::Any);
    match of.map(|place| parameter(&route.template, place)) {
        Some(of) if !is_main => {
            let (first, rest) = of.split_at(1);
            format!("{id}Of{}{rest}", first.to_uppercase())
        }
        _ => id,
    }
}

fn operation(route: &Route, id: String, comments: &Comments, schemas: &mut Schemas<'_>) -> Value {
    let (call, template) = (&route.call, &route.template);
    let input = call.input();
    let open = template.segments.iter().enumerate().filter(|(_, segment)| **segment == Segment::Any);
    let mut parameters: Vec<_> = open
        .map(|(place, _)| {
            let name = parameter(template, place);
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        })
        .collect();
    let in_path: Vec<_> = template.variables.iter().map(|variable| variable.field.as_str()).collect();
    if route.body != Body::Message {
        let in_body = match &route.body {
            Body::Field(field) => Some(field.as_str()),
            _ => None,
        };
        let fields =
            input.fields().filter(|field| Some(field.name()) != in_body && !in_path.contains(&field.name()));
        for field in fields {
            query(&mut parameters, "", &field, 1, comments, schemas);
        }
    }
    if input.get_field_by_name("idempotency_key").is_some() {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string" },
            "description": "The same as the field `idempotencyKey`.",
        }));
    }
    for (name, of, is_read) in [("If-Match", &input, false), ("If-None-Match", &call.output(), true)] {
        let is_used = if is_read { etag::is_of_all(of) } else { etag::has(of) };
        if is_used && !call.is_server_streaming() && (route.method == http::Method::GET) == is_read {
            let description = match is_read {
                true => "`ETag` of the record that the caller has: if it is unchanged, the response is 304.",
                false => {
                    "The field `etag` in quotes, or `*`: the `ETag` of the record that the caller has read."
                }
            };
            parameters.push(json!({
                "name": name, "in": "header", "schema": { "type": "string" }, "description": description,
            }));
        }
    }
    let service = call.parent_service();
    let mut operation = json!({
        "operationId": id,
        "tags": [service.name().strip_suffix("Service").unwrap_or(service.name())],
        "description": comments.of_method(call),
        "parameters": parameters,
        "responses": statuses::of(route),
    });
    operation["responses"]["200"] = json!({ "description": "Success.", "content": content(route, schemas) });
    if etag::has(&call.output()) {
        let header = json!({ "schema": { "type": "string" }, "description": "The field `etag`, in quotes." });
        operation["responses"]["200"]["headers"] = json!({ "ETag": header });
    }
    let body = match &route.body {
        Body::None => None,
        Body::Message => Some(schemas.object(&input, &in_path)),
        Body::Field(field) => input.get_field_by_name(field).map(|field| schemas.of_field(&field)),
    };
    if let (Some(operation), Some(schema)) = (operation.as_object_mut(), body) {
        let body = json!({ "content": { "application/json": { "schema": schema } } });
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}

fn content(route: &Route, schemas: &mut Schemas<'_>) -> Value {
    if content::is(&route.call.output()) {
        // Of artifacts, logs, and exports as JSON lines or as a table.
        return json!({
            "application/octet-stream": {}, "application/x-ndjson": {}, "text/csv": {}, "text/plain": {},
        });
    }
    let schema = schemas.of_message(&route.call.output());
    if route.call.is_server_streaming() {
        // OpenAPI 3.1 has no word for the items of a stream: this is the schema of each.
        json!({ "application/x-ndjson": { "schema": schema }, "text/event-stream": { "schema": schema } })
    } else {
        json!({ "application/json": { "schema": schema } })
    }
}

/// Adds the parameters of a field, and of its fields.
fn query(
    parameters: &mut Vec<Value>,
    prefix: &str,
    field: &FieldDescriptor,
    depth: usize,
    comments: &Comments,
    schemas: &mut Schemas<'_>,
) {
    let name = format!("{prefix}{}", field.json_name());
    let own = |message: &MessageDescriptor| !message.full_name().starts_with("google.protobuf.");
    match field.kind() {
        Kind::Message(message) if own(&message) && !field.is_map() => {
            if depth < MAX_DEPTH && !field.is_list() {
                for inner in message.fields() {
                    query(parameters, &format!("{name}."), &inner, depth + 1, comments, schemas);
                }
            }
        }
        _ => {
            let mut parameter = json!({
                "name": name, "in": "query", "description": comments.of_field(field),
                "schema": schemas.of_field(field),
            });
            if field.is_map()
                && let Some(parameter) = parameter.as_object_mut()
            {
                parameter.insert("style".to_owned(), json!("deepObject"));
                parameter.insert("explode".to_owned(), json!(true));
                // Documentation from which calls are made would begin with names and values of its own.
                parameter.insert("example".to_owned(), json!({}));
            }
            parameters.push(parameter);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    #[test]
    fn ids_of_operations_are_unique() {
        let document = super::document().unwrap();
        let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for operation in operations.as_object().unwrap().values() {
                paths.entry(operation["operationId"].as_str().unwrap()).or_default().push(path);
            }
        }
        let repeated: Vec<_> = paths.iter().filter(|(_, paths)| paths.len() > 1).collect();
        assert!(repeated.is_empty(), "{repeated:?}");
        assert!(paths["resetBreaker"][0].ends_with("/agents/{agent}:resetBreaker"));
        assert!(paths["resetBreakerOfNamespace"][0].ends_with("/namespaces/{namespace}:resetBreaker"));
    }
}
