//! Money: each attempt's usage counts once, whenever it is reported, and a task that has spent its budget ends.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::spending::{BudgetWait, Scope};
use rota_core::task::explain::Wait;
use rota_core::task::{
    Assignment, Command, Completion, EventEffect, Limits, NEARLY_SPENT_BY_TASK, STOPPING, State,
};
use rota_core::usage::Usage;

use crate::harness::*;

fn costs(cost_micro_usd: i64) -> Usage {
    Usage { cost_micro_usd, ..Usage::default() }
}

fn used(cost: i64) -> Vec<rota_core::task::Item> {
    vec![item(EventEffect::Usage(costs(cost)))]
}

fn limited(budget: i64) -> Harness {
    let limits = Limits { budget_micro_usd: Some(budget), ..Limits::default() };
    Harness::new(rota_core::task::Task { limits, ..plain() })
}

fn crash() -> Completion {
    Completion::Failed(Failure::new(Class::Crash, "it crashed"))
}

#[test]
fn late_usage_of_superseded_attempt_counts_once() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, used(30)).unwrap();
    let old = harness.live();
    harness.lose(EPOCH);
    harness.apply(assign("w2", EPOCH));
    harness.accept();
    harness.report(1, used(5)).unwrap();
    assert_eq!(harness.task.total_usage().cost_micro_usd, 35);
    // Its worker comes back, with what it has used meanwhile; the message is repeated, and an older one arrives late.
    for total in [50, 50, 40] {
        let report = Command::Report { attempt: old.clone(), first: 2, items: used(total) };
        harness.apply(report);
        assert_eq!(harness.task.total_usage().cost_micro_usd, 55);
    }
    let stopped = Completion::Stopped { by: "kill".to_owned() };
    let mut end = finish(old, stopped);
    if let Command::Finish { usage, .. } = &mut end {
        *usage = Some(costs(60));
    }
    harness.apply(end.clone());
    harness.apply(end.clone());
    assert_eq!(harness.task.total_usage().cost_micro_usd, 65);
    assert!(harness.notices().is_empty(), "an end on request is no late result");
    harness.finish(succeeded());
    harness.apply(end);
    assert_eq!(harness.task.usage.cost_micro_usd, 65);
}

#[test]
fn returned_attempt_keeps_its_usage() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, used(30)).unwrap();
    let old = harness.live();
    harness.lose(EPOCH);
    let fence = old.fence;
    harness.apply(Command::Report { attempt: old, first: 2, items: used(40) });
    assert_eq!(harness.task.total_usage().cost_micro_usd, 40);
    harness.apply(Command::Resume { by: worker("w1", EPOCH + 1), fence });
    assert_eq!(harness.state(), State::Running);
    harness.report(2, used(45)).unwrap();
    assert_eq!(harness.task.total_usage().cost_micro_usd, 45);
}

#[test]
fn spent_budget_stops_the_attempt() {
    let mut harness = limited(100);
    harness.start();
    harness.report(1, used(99)).unwrap();
    assert_eq!(harness.notices(), [NEARLY_SPENT_BY_TASK]);
    harness.report(2, used(101)).unwrap();
    harness.report(3, used(102)).unwrap();
    assert_eq!(
        (harness.state(), harness.notices()),
        (State::Running, vec![NEARLY_SPENT_BY_TASK, STOPPING]),
        "the worker ends it"
    );
    harness.finish(Completion::Stopped { by: "interrupt".to_owned() });
    let failure = harness.task.failure.clone().unwrap();
    assert_eq!((harness.state(), failure.class), (State::Failed, Class::Budget));
    assert!(failure.message.contains("$0.000101 of $0.0001"), "{}", failure.message);
}

#[test]
fn spent_budget_ends_the_task_however_the_attempt_ends() {
    for end in [crash(), Completion::Stopped { by: "kill".to_owned() }] {
        let mut harness = limited(100);
        harness.start();
        harness.report(1, used(100)).unwrap();
        harness.finish(end);
        assert_eq!(harness.task.failure.as_ref().map(|failure| failure.class), Some(Class::Budget));
    }
    let mut silent = limited(100);
    silent.start();
    silent.report(1, used(100)).unwrap();
    silent.wait(secs(41));
    assert_eq!(silent.task.failure.as_ref().map(|failure| failure.class), Some(Class::Budget));
    let mut lost = limited(100);
    lost.start();
    lost.report(1, used(100)).unwrap();
    lost.lose(EPOCH);
    assert_eq!(lost.task.failure.as_ref().map(|failure| failure.class), Some(Class::Budget));
    let mut done = limited(100);
    done.start();
    done.report(1, used(100)).unwrap();
    done.finish(succeeded());
    assert_eq!(done.state(), State::Succeeded, "what is done is done");
}

/// The work is finished before the request to end it arrives.
#[test]
fn finished_work_of_a_spent_budget_is_stored_in_its_own_time() {
    let mut stopped = limited(100);
    stopped.start();
    stopped.report(1, used(100)).unwrap();
    assert_eq!(stopped.notices(), [STOPPING]);
    stopped.report(2, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    stopped.wait(secs(3600));
    assert_eq!(stopped.state(), State::Running, "its storage is away");
    let mut delivered = stopped.clone();
    delivered.finish(succeeded());
    assert_eq!(delivered.state(), State::Succeeded);
    let failure = Failure::new(Class::Delivery, "its host is away");
    stopped.finish(Completion::Undelivered { failure, result: bytes::Bytes::new() });
    assert_eq!((stopped.state(), stopped.task.delivers()), (State::Pending, true));
    // One that was cut off by the budget is none that has succeeded.
    let mut cut_off = limited(100);
    cut_off.start();
    cut_off.report(1, used(100)).unwrap();
    cut_off.report(2, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    cut_off.finish(Completion::Stopped { by: "interrupt".to_owned() });
    assert_eq!(cut_off.task.failure.as_ref().map(|failure| failure.class), Some(Class::Budget));
}

#[test]
fn budget_is_that_of_all_attempts() {
    let mut harness = limited(100);
    harness.start();
    harness.report(1, used(60)).unwrap();
    harness.finish(crash());
    assert_eq!(harness.state(), State::Pending);
    harness.wait(secs(3600)).start();
    harness.report(1, used(39)).unwrap();
    assert_eq!(harness.notices(), [NEARLY_SPENT_BY_TASK]);
    harness.report(2, used(40)).unwrap();
    assert_eq!(harness.notices(), [NEARLY_SPENT_BY_TASK, STOPPING]);
    harness.finish(crash());
    assert_eq!(harness.task.failure.as_ref().map(|failure| failure.class), Some(Class::Budget));
}

#[test]
fn late_usage_stops_the_running_attempt() {
    let mut harness = limited(100);
    harness.start();
    let old = harness.live();
    harness.lose(EPOCH);
    harness.apply(assign("w2", EPOCH));
    harness.accept();
    harness.report(1, used(50)).unwrap();
    harness.apply(Command::Report { attempt: old, first: 1, items: used(50) });
    assert_eq!(harness.notices(), [STOPPING]);
}

#[test]
fn spent_budget_of_the_agent_returns_the_task_to_the_queue() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.apply(stop(harness.task.fence, true));
    assert_eq!(harness.notices(), [STOPPING]);
    harness.finish(crash());
    assert_eq!((harness.state(), harness.task.failures), (State::Pending, 0));
    assert_eq!(harness.task.waits(), [Wait::Budget(budget_wait())]);
    harness.wait(secs(7200));
    assert_eq!((harness.state(), harness.task.budget_wait.is_some()), (State::Queued, false));
    harness.start();
    assert_eq!((harness.task.confirm_by, harness.task.hand_backs), (None, 0));
}

/// The machine may sleep after the timer has read the clock.
#[test]
fn overdue_stop_counts_time_until_the_tick() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.apply(stop(harness.task.fence, true));
    let by = harness.task.confirm_by.unwrap();
    harness.now = by + secs(7200);
    harness.apply(Command::Tick { by, away: Duration::ZERO });
    assert_eq!((harness.state(), harness.task.worked), (State::Queued, by.since(START)));
}

#[test]
fn wait_for_a_budget_costs_no_queue_time() {
    let limits = Limits { queue_timeout: Some(secs(60)), ..Limits::default() };
    let mut harness = Harness::new(rota_core::task::Task { limits, ..plain() });
    harness.wait(secs(50));
    let wait = BudgetWait { since: harness.now, ..budget_wait() };
    harness.apply(Command::AwaitBudget(wait));
    assert_eq!(harness.state(), State::Pending);
    harness.apply(Command::BudgetLifted { scope: Scope::Agent(agent("coder")) });
    assert_eq!(harness.state(), State::Pending, "of another budget");
    harness.wait(secs(3000));
    let ready = harness.task.ready_at;
    harness.apply(Command::BudgetLifted { scope: Scope::Namespace });
    assert_eq!((harness.state(), harness.task.ready_at), (State::Queued, ready));
    harness.wait(secs(9));
    assert_eq!(harness.state(), State::Queued);
    harness.wait(secs(2));
    assert_eq!(harness.state(), State::Failed);
}

#[test]
fn reservation_shrinks_with_the_usage() {
    let mut harness = Harness::new(plain());
    let mut assign = assign("w1", EPOCH);
    if let Command::Assign { reserved, .. } = &mut assign {
        *reserved = 100;
    }
    harness.apply(assign);
    harness.accept();
    let unspent = |harness: &Harness| harness.task.assignment.as_ref().map(Assignment::unspent);
    assert_eq!(unspent(&harness), Some(100));
    harness.report(1, used(70)).unwrap();
    assert_eq!(unspent(&harness), Some(30));
    // What it has left may take days to store.
    let mut stores = harness.clone();
    stores.report(2, vec![item(EventEffect::WorkEnded(None))]).unwrap();
    assert_eq!((stores.state(), unspent(&stores)), (State::Running, Some(0)));
    harness.report(2, used(170)).unwrap();
    assert_eq!(unspent(&harness), Some(0));
    harness.finish(succeeded());
    // The end of the task may be what has brought the budget near its limit.
    harness.apply(Command::WarnOfBudget { message: "most of it".to_owned() });
    assert_eq!(harness.notices(), ["budget_nearly_spent"]);
}

#[test]
fn assignments_that_were_not_accepted_push_out_no_attempt() {
    let mut harness = Harness::new(plain());
    harness.start();
    harness.report(1, used(30)).unwrap();
    let old = harness.live();
    harness.lose(EPOCH);
    for _ in 0..9 {
        harness.wait(secs(60));
        harness.apply(assign("w2", EPOCH));
        let attempt = harness.live();
        harness.apply(Command::Reject { attempt, reason: "no room".to_owned() });
    }
    harness.apply(Command::Report { attempt: old, first: 2, items: used(50) });
    assert_eq!(harness.task.total_usage().cost_micro_usd, 50);
}

#[test]
fn absurd_late_usage_stops_the_running_attempt() {
    let mut harness = limited(100);
    harness.start();
    let old = harness.live();
    harness.lose(EPOCH);
    harness.apply(assign("w2", EPOCH));
    harness.accept();
    harness.report(1, used(1)).unwrap();
    harness.apply(Command::Report { attempt: old, first: 1, items: used(i64::MAX) });
    assert_eq!(harness.notices(), ["implausible_cost", STOPPING]);
}

#[test]
fn implausible_costs_are_not_counted() {
    let mut harness = Harness::new(plain());
    harness.start();
    for _ in 0..2 {
        let seq = harness.task.assignment.as_ref().map_or(0, |assignment| assignment.attempt_seq) + 1;
        harness.report(seq, used(i64::MAX)).unwrap();
        assert_eq!(harness.task.total_usage().cost_micro_usd, 10_000_000_000);
    }
    assert_eq!(harness.notices(), ["implausible_cost"]);
    // A task with a budget spends no multiple of it.
    let mut harness = limited(50_000_000);
    harness.start();
    let old = harness.live();
    harness.report(1, used(40_000_000)).unwrap();
    harness.lose(EPOCH);
    harness.apply(Command::Report { attempt: old.clone(), first: 2, items: used(i64::MAX) });
    assert_eq!(harness.task.total_usage().cost_micro_usd, 500_000_000);
    harness.apply(Command::Report { attempt: old, first: 2, items: used(i64::MAX) });
    assert_eq!(harness.task.total_usage().cost_micro_usd, 500_000_000);
    // What a message of a model may cost is counted, however small the budget is.
    let mut harness = limited(1);
    harness.start();
    harness.report(1, used(90_000_000)).unwrap();
    assert_eq!(harness.task.total_usage().cost_micro_usd, 90_000_000);
}
