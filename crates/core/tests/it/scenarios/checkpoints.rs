//! Checkpoints of attempts, and which of them later attempts continue.

use rota_core::failure::Class;
use rota_core::task::Command;

use crate::harness::*;

#[test]
fn attempts_that_cannot_continue_let_the_next_start_over() {
    let mut harness = Harness::new(plain());
    let keep = |harness: &Harness, unusable| Command::KeepArtifacts {
        attempt: harness.live(),
        list: "list".into(),
        checkpoint: true,
        unusable,
    };
    let known = |harness: &Harness| (harness.task.checkpointed, harness.task.concluded);
    harness.start();
    harness.apply(keep(&harness, false));
    assert_eq!(known(&harness), (1, 0));
    harness.finish(failed(Class::Hang));
    harness.wait(secs(600)).apply(Command::TICK);
    harness.start();
    harness.apply(keep(&harness, true));
    assert_eq!(known(&harness), (2, 2));
}

#[test]
fn discarded_checkpoints_leave_the_one_before() {
    let mut harness = Harness::new(plain());
    let keep = |harness: &Harness, checkpoint| Command::KeepArtifacts {
        attempt: harness.live(),
        list: "list".into(),
        checkpoint,
        unusable: false,
    };
    let mut kept = Vec::new();
    for checkpoints in [&[true, false][..], &[true], &[true, true, false]] {
        harness.start();
        for checkpoint in checkpoints {
            harness.apply(keep(&harness, *checkpoint));
        }
        kept.push(harness.task.checkpointed);
        harness.finish(failed(Class::Hang));
        if !harness.task.state.is_final() {
            harness.wait(secs(600)).apply(Command::TICK);
        }
    }
    assert_eq!(kept, [0, 2, 2]);
}
