//! Tests that need internals: damaged records, a full disk, a failed sync, migrations, rows that pruning leaves, and query plans.

mod damage;
mod damage_objects;
mod damage_workflows;
mod full;
mod lists;
mod migrations;
mod plans;
mod pruned;
mod sync;
mod transfer;

use bytes::Bytes;
use rota_core::target::Target;
use rota_core::task::Task;
use rota_core::{Namespace, TaskId, Timestamp};
use rota_store::{Command, Create, ScopedId};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_750_000_000_000_000);

fn id(number: u128) -> TaskId {
    TaskId(Uuid::from_u128((0x0197_0000_0000 + number) << 80))
}

fn scoped(number: u128) -> ScopedId {
    (Namespace::new("n").unwrap(), id(number))
}

/// A task that is ready immediately.
fn create(number: u128, payload: usize) -> Command {
    let task = Task {
        alias: Some("x".to_owned()),
        agent_known: true,
        ..Task::new(
            id(number),
            Namespace::new("n").unwrap(),
            Target::Capabilities(["code".to_owned()].into()),
        )
    };
    Command::Create(Box::new(Create {
        task,
        payload: Bytes::from(vec![7; payload]),
        secrets: None,
        given: Default::default(),
        key: Some(number.to_string()),
        foreign_id: true,
        strict: false,
        offer: None,
    }))
}
