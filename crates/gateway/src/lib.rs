//! The API over HTTP and JSON: a layer in front of the gRPC services that turns `GET /api/v1/namespaces/default/tasks` into
//! a call of `ListTasks`, and its response into JSON. Adds no rule: roles, limits and errors are those of the services,
//! which cannot see the difference. Knows neither a store nor a task.
//!
//! # Main types
//!
//! - [`Gateway`]: the descriptors of the API with their HTTP paths, made once.
//! - [`Layer`]: puts it in front of services.
//! - [`openapi()`]: describes the same paths in OpenAPI 3.1, for `docs/reference/openapi.json` and `/api/v1/openapi.json`.
//! - [`Gateway::names`]: the resources that a request names, by the fields that HTTP paths have.
//! - [`Sockets`]: what the WebSockets of a server have in common; `socket/` makes calls of their messages, as of requests.
//! - [`REASONS`]: errors that only HTTP requests have.
//!
//! # How a request flows
//!
//! 1. `routes.rs` finds the call by method and path; `template.rs` fills the fields that the path names.
//! 2. `call.rs` makes a gRPC request of it, whose body is read and converted (`request.rs`) only when the service asks for it:
//!    a caller without rights is refused before anything of the body is read. `values.rs` bounds its memory.
//! 3. The services answer. `response.rs` converts one message; `stream.rs` converts many, as lines of JSON or as server-sent
//!    events; `content.rs` passes contents on that are no JSON; `status.rs` converts errors.
//!
//! # How to add a call
//!
//! Give its method in the `.proto` file a `google.api.http` option, and name it in `openapi/statuses.rs` if it may answer 409 or 429.
//! `cargo xtask docs` updates the OpenAPI document.
//! The rules of the JSON form are those of protobuf (<https://protobuf.dev/programming-guides/json/>).

mod call;
mod content;
mod etag;
mod large;
mod names;
mod openapi;
mod request;
mod response;
mod routes;
mod socket;
mod status;
mod stream;
mod template;
mod values;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost_reflect::DescriptorPool;

pub use self::call::{HttpMethod, Inner, Layer, Service};
pub use self::names::Names;
pub use self::openapi::document as openapi;
use self::routes::Routes;
pub use self::socket::{SOCKET, Sockets};
pub use self::status::REASONS;

/// First part of all paths of this layer.
pub const PREFIX: &str = "/api/";
/// Path of the OpenAPI document.
pub const OPENAPI: &str = "/api/v1/openapi.json";

/// Error of the descriptors that this layer is built from. Only a broken build has one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to decode the descriptors of the API: {0}")]
    Pool(#[from] prost_reflect::DescriptorError),
    #[error("failed to decode the descriptors of errors: {0}")]
    Errors(#[from] prost::DecodeError),
    #[error("the descriptors of the API lack {0}")]
    Descriptors(&'static str),
    #[error("path template {template:?} is invalid: {why}")]
    Template { template: String, why: &'static str },
}

/// HTTP paths and messages of the API.
#[derive(Debug)]
pub struct Gateway {
    pool: DescriptorPool,
    routes: Routes,
    openapi: Bytes,
}

impl Gateway {
    /// Reads the HTTP paths from the descriptors. `max_body` returns the limit of a call's body by its path in gRPC, if it is
    /// less than that of others: one that needs no token. `base` is the path below which clients reach the API, without a slash at
    /// its end.
    pub fn new(base: &str, max_body: impl Fn(&str) -> Option<usize>) -> Result<Arc<Self>, Error> {
        let pool = pool()?;
        let mut document = openapi::document()?;
        if !base.is_empty() {
            document["servers"] = serde_json::json!([{ "url": base }]);
        }
        let openapi = serde_json::to_vec(&document).unwrap_or_default().into();
        let mut routes = Routes::new(&pool)?;
        routes.limit(max_body);
        Ok(Arc::new(Self { routes, pool, openapi }))
    }
}

/// Descriptors of the API, and of the details of errors.
fn pool() -> Result<DescriptorPool, Error> {
    let mut pool = DescriptorPool::decode(rota_proto::DESCRIPTORS)?;
    let errors = prost_types::FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    let missing = errors.file.into_iter().filter(|file| pool.get_file_by_name(file.name()).is_none());
    let missing: Vec<_> = missing.collect();
    pool.add_file_descriptor_protos(missing)?;
    Ok(pool)
}
