//! Input for tasks: answers to their requests, and messages while they run.

use std::sync::Arc;

use prost::Message;
use rota_core::task;
use rota_proto::v1;
use tonic::Status;

use super::grants;
use crate::agents::AgentRegistry;
use crate::store_client::{StoreClient, unexpected_reply};
use crate::trust::people::PersonCall;
use crate::wire::status::{hinted, invalid};
use crate::wire::{check, names};

const MAX_UPDATED_INPUT: usize = 16 << 10;

/// Service methods that give tasks input, and the rules that answers allow.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) store: StoreClient,
    pub(crate) agents: Arc<AgentRegistry>,
}

impl Inputs {
    /// Gives a task input of a caller, a person or not. Returns its position among the inputs of the task.
    pub(super) async fn give(
        &self,
        caller: Option<&PersonCall>,
        name: &str,
        input: &v1::TaskInput,
    ) -> Result<u64, Status> {
        check::length("input.text", &input.text, check::MAX_TEXT)?;
        check::length("input.request_id", &input.request_id, 256)?;
        check::length("input.updated_input_json", &input.updated_input_json, MAX_UPDATED_INPUT)?;
        check::count("input.rules", input.rules.len(), rota_proto::permission_rules::MAX_SUGGESTED)?;
        if input.request_id.is_empty() && input.text.is_empty() {
            return Err(invalid("input", "must have a request_id or a text"));
        }
        let (namespace, named) = names::task("name", name)?;
        if input.scope() == v1::PermissionScope::Agent
            && caller.is_some_and(|caller| !caller.agents.contains(namespace.as_str()))
        {
            return Err(hinted(
                "ROLE_FORBIDDEN",
                "developers may not allow something for later tasks of an agent",
                "allow it for this call, or with the scope SESSION for this task",
            ));
        }
        let record = self.store.task(&namespace, named).await?;
        let grant = grants::check(&record, input)?;
        let agent = record.asking_agent(&input.request_id).cloned();
        if input.scope() == v1::PermissionScope::Agent && agent.is_none() {
            return Err(invalid("input.scope", "cannot be AGENT: it is not known which agent has asked"));
        }
        let payload = input.encode_to_vec().into();
        let command = task::Command::GiveInput { request: input.request_id.clone(), payload, grant };
        let (record, seq) = match self.store.command(namespace, record.id, command, false).await? {
            (record, task::Reply::InputSeq(seq)) => (record, seq),
            _ => return Err(unexpected_reply()),
        };
        // Only now: rules of an answer that counts. A caller that gets an error repeats the answer, and this, when the question is
        // closed: its rules are those that the task was granted.
        if input.scope() == v1::PermissionScope::Agent {
            if !input.rules.iter().all(|rule| record.granted.contains(rule)) {
                return Err(invalid("input.rules", "are not those of the answer that was given"));
            }
            if let Some(agent) = agent {
                let key = (record.namespace.clone(), agent);
                grants::keep(&self.store, &self.agents, key, &input.rules).await?;
            }
        }
        Ok(seq)
    }
}
