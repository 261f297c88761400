//! What only the inside can show: a full disk, a failed sync, how statements are carried out.

mod full;
mod migrations;
mod plans;

use std::collections::BTreeMap;

use bytes::Bytes;
use rota_core::rank::Priority;
use rota_core::target::Target;
use rota_core::task::{self, Desired, Limits, New};
use rota_core::{Namespace, TaskId, Timestamp, retry};
use rota_store::{Command, Create};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_750_000_000_000_000);

fn id(number: u128) -> TaskId {
    TaskId(Uuid::from_u128((0x0197_0000_0000 + number) << 80))
}

/// A task that is ready at once.
fn create(number: u128, payload: usize) -> Command {
    let new = New {
        id: id(number),
        namespace: Namespace::new("n").unwrap(),
        alias: Some("x".to_owned()),
        title: String::new(),
        owner: String::new(),
        parent: None,
        retry_of: None,
        labels: BTreeMap::new(),
        target: Target::Capabilities(["code".to_owned()].into()),
        priority: Priority::NORMAL,
        desired: Desired::Run,
        limits: Limits::default(),
        retry: retry::Policy::default(),
        not_before: None,
        dependencies: Vec::new(),
        trace: task::Trace::default(),
        agent_known: true,
        has_secrets: false,
    };
    Command::Create(Box::new(Create {
        new,
        payload: Bytes::from(vec![7; payload]),
        secrets: None,
        key: Some(number.to_string()),
        foreign_id: false,
        strict: false,
        offer: None,
    }))
}
