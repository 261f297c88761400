//! Bounds of what the driver evaluates: in a turn, and before the store has committed it. Such commands share a transaction.

use std::sync::Arc;

use rota_core::workflow::MAX_TASKS_PER_COMMIT;
use rota_store::WorkflowCommand;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that a task counts for if its payload is smaller: so much may its record and its place in the transaction take.
const TASK_BYTES: usize = 32 << 10;
const MAX_BYTES: usize = 2 * MAX_TASKS_PER_COMMIT * TASK_BYTES;
/// Bytes with which a turn ends, so that those of others have room, too.
const TURN_BYTES: usize = MAX_BYTES / 8;
/// Work of expressions with which a turn ends: about 10 ms.
const TURN_WORK: u64 = rota_expressions::MAX_COST / 100;

/// Room of a command, until it is dropped.
pub(super) type Room = OwnedSemaphorePermit;

/// Returns the bytes that a command counts for.
pub(super) fn bytes(command: &WorkflowCommand) -> usize {
    command.payload_bytes().max(command.tasks().len().max(1) * TASK_BYTES)
}

/// What the steps of a turn have needed. Turns know no clock: those of a busy machine would end earlier, and what they have read for the
/// steps that they leave would be read again.
#[derive(Debug, Default)]
pub(super) struct Turn {
    bytes: usize,
    work: u64,
}

impl Turn {
    /// Adds the command of a step, and the work of its expressions, which those have needed that have no command, too.
    pub(super) fn add(&mut self, command: Option<&WorkflowCommand>, work: u64) {
        self.bytes += command.map_or(0, bytes);
        self.work = self.work.saturating_add(work);
    }

    /// Returns whether the steps that are left wait for the next turn.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES || self.work >= TURN_WORK
    }
}

#[derive(Clone)]
pub(super) struct Uncommitted(Arc<Semaphore>);

impl Default for Uncommitted {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BYTES)))
    }
}

impl Uncommitted {
    /// Waits for the room of commands that have so many bytes. More than all of it waits until there are no others.
    pub(super) async fn acquire(&self, bytes: usize) -> Option<Room> {
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(u32::try_from(bytes.min(MAX_BYTES)).ok()?).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use rota_core::WorkflowKey;

    use super::*;

    fn conclude(bytes: usize) -> WorkflowCommand {
        WorkflowCommand::Conclude { workflow: WorkflowKey(1), outputs: Ok(Bytes::from(vec![0; bytes])) }
    }

    #[test]
    fn turn_ends_by_its_work() {
        let mut turn = Turn::default();
        for _ in 0..32 {
            turn.add(Some(&conclude(1)), TURN_WORK / 1000);
            assert!(!turn.is_full());
        }
        turn.add(None, TURN_WORK);
        assert!(turn.is_full(), "also of a step without a command");
        let mut turn = Turn::default();
        turn.add(Some(&conclude(TURN_BYTES)), 0);
        assert!(turn.is_full());
    }

    #[tokio::test]
    async fn large_commands_wait_for_each_other() {
        let room = Uncommitted::default();
        let large = conclude(MAX_BYTES / 2);
        let acquire = |command: &WorkflowCommand| room.acquire(bytes(command)).now_or_never().flatten();
        let (first, second) = (acquire(&large).unwrap(), acquire(&large).unwrap());
        assert!(acquire(&conclude(0)).is_none());
        drop(first);
        let third = acquire(&conclude(MAX_BYTES / 2 - TASK_BYTES)).unwrap();
        let fourth = acquire(&conclude(1)).unwrap();
        assert!(acquire(&conclude(1)).is_none(), "a small one counts as a task");
        drop((second, third, fourth));
        assert!(acquire(&conclude(2 * MAX_BYTES)).is_some(), "one that is larger than all of it");
    }
}
