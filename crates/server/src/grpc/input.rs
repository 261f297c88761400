//! Input for tasks: answers to their requests, and messages while they run.

use prost::Message;
use rota_core::task;
use rota_proto::v1;
use tonic::Status;

use crate::store_client::{StoreClient, unexpected_reply};
use crate::wire::status::invalid;
use crate::wire::{check, names};

/// Gives a task input. Returns its position among the inputs of the task.
pub(super) async fn give(store: &StoreClient, name: &str, input: &v1::TaskInput) -> Result<u64, Status> {
    check::length("input.text", &input.text, check::MAX_TEXT)?;
    check::length("input.request_id", &input.request_id, 256)?;
    if input.request_id.is_empty() && input.text.is_empty() {
        return Err(invalid("input", "must have a request_id or a text"));
    }
    let (namespace, named) = names::task("name", name)?;
    let id = store.resolve(&namespace, named).await?;
    let payload = input.encode_to_vec().into();
    let command = task::Command::GiveInput { request: input.request_id.clone(), payload };
    match store.command(namespace, id, command, false).await? {
        (_, task::Reply::InputSeq(seq)) => Ok(seq),
        _ => Err(unexpected_reply()),
    }
}
