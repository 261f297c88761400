//! Ends that are asked for, and pauses.

use rota_core::failure::Class;
use rota_core::rank::Priority;
use rota_core::task::{CONFIRM_SLACK, Command, Desired, Rejected, Reply, State};

use crate::life::*;

#[test]
fn what_waits_is_cancelled_at_once() {
    for new in [plain(), rota_core::task::New { agent_known: false, ..plain() }] {
        let mut life = Life::new(new);
        let done = life.tries(update(Desired::Cancelled)).unwrap();
        assert!(done.ended);
        assert_eq!((life.state(), life.task.ended_at), (State::Cancelled, Some(START)));
    }
}

#[test]
fn born_cancelled() {
    let life = Life::new(rota_core::task::New { desired: Desired::Cancelled, ..plain() });
    assert_eq!((life.state(), life.reasons()), (State::Cancelled, vec!["created", "cancelled"]));
}

#[test]
fn a_running_task_ends_when_its_worker_says_so() {
    let mut life = Life::new(plain());
    life.start().want(Desired::Cancelled);
    assert_eq!((life.state(), life.task.desired), (State::Running, Desired::Cancelled));
    assert_eq!(life.task.due(), Some(START + secs(10) + CONFIRM_SLACK));
    life.finish(stopped());
    assert_eq!((life.state(), life.task.confirm_by, life.task.worker_losses), (State::Cancelled, None, 0));
}

#[test]
fn a_cancelled_task_has_no_success_and_no_failure() {
    for ending in [succeeded(), failed(Class::Agent), failed(Class::RateLimit)] {
        let mut life = Life::new(plain());
        life.start().want(Desired::Cancelled);
        let done = life.tries(finish(life.live(), ending)).unwrap();
        assert_eq!((life.state(), done.result, life.task.has_result), (State::Cancelled, None, false));
    }
}

#[test]
fn a_worker_that_never_confirms_holds_no_cancellation() {
    let mut life = Life::new(plain());
    life.start().want(Desired::Cancelled).wait(secs(39));
    assert_eq!(life.state(), State::Running);
    // Asking again moves nothing, and no other change does.
    let priority = Some(Priority::HIGH);
    life.does(Command::Update { priority, labels: None, desired: None, reason: String::new() });
    life.want(Desired::Cancelled).wait(secs(1));
    assert_eq!(life.state(), State::Cancelled);
}

#[test]
fn a_cancelled_assignment_ends_by_any_way_back() {
    let ways: [fn(&mut Life); 4] = [
        |life| {
            life.reject();
        },
        |life| {
            life.lose(EPOCH);
        },
        |life| {
            life.accept().finish(stopped());
        },
        |life| {
            life.wait(secs(10));
        },
    ];
    for way in ways {
        let mut life = Life::new(plain());
        life.assign().want(Desired::Cancelled);
        assert_eq!(life.state(), State::Assigned);
        way(&mut life);
        assert_eq!(life.state(), State::Cancelled, "{:?}", life.reasons());
    }
}

#[test]
fn losing_the_worker_of_a_cancelled_run_is_its_end() {
    let mut life = Life::new(plain());
    life.start().want(Desired::Cancelled).lose(EPOCH);
    assert_eq!((life.state(), life.task.worker_losses), (State::Cancelled, 0));
}

#[test]
fn there_is_no_way_back() {
    let mut life = Life::new(plain());
    life.start().want(Desired::Cancelled);
    for desired in [Desired::Run, Desired::Suspended] {
        assert_eq!(life.tries(update(desired)).unwrap_err(), Rejected::Cancelling);
    }
    life.finish(stopped());
    assert_eq!(life.tries(update(Desired::Run)).unwrap_err(), Rejected::Cancelling);
    assert_eq!(life.does(update(Desired::Cancelled)), Reply::Done);
}

#[test]
fn an_ended_task_takes_labels_and_nothing_else() {
    let mut life = Life::new(plain());
    life.start().finish(succeeded());
    let labels = Some([("team".to_owned(), "a".to_owned())].into());
    let change =
        |priority, labels| Command::Update { priority, labels, desired: None, reason: String::new() };
    life.does(change(None, labels.clone()));
    assert_eq!(Some(life.task.labels.clone()), labels);
    let refused = life.tries(change(Some(Priority::HIGH), None)).unwrap_err();
    assert_eq!(refused, Rejected::Final(State::Succeeded));
    assert_eq!(life.tries(update(Desired::Cancelled)).unwrap_err(), Rejected::Final(State::Succeeded));
    // What is already so is no change.
    let seq = life.task.log_seq;
    life.does(change(Some(Priority::NORMAL), labels));
    assert_eq!((life.state(), life.task.log_seq), (State::Succeeded, seq));
}

#[test]
fn suspended_and_back() {
    let mut life = Life::new(plain());
    life.want(Desired::Suspended);
    assert_eq!((life.state(), life.task.ready_at, life.task.due()), (State::Pending, None, None));
    life.wait(secs(600)).want(Desired::Run);
    assert_eq!((life.state(), life.task.ready_at), (State::Queued, Some(START + secs(600))));
}

#[test]
fn suspending_a_run_holds_only_the_next_attempt() {
    let mut life = Life::new(plain());
    life.start().want(Desired::Suspended);
    assert_eq!(life.state(), State::Running);
    life.lose(EPOCH);
    assert_eq!((life.state(), life.task.worker_losses), (State::Pending, 1));
    life.want(Desired::Run).start().finish(succeeded());
    assert_eq!(life.state(), State::Succeeded);
}
