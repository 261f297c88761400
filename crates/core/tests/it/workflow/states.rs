//! Rules that hold over the whole table of commands and states.

use super::table::{
    NOW, SECOND, apply, apply_to, cancel, cancel_finally, on_steps, on_workflows, steps, workflows,
};
use super::*;

#[test]
fn repeated_cancellations_change_nothing() {
    let pairs = [(cancel(), cancel()), (cancel_finally(), cancel_finally()), (cancel_finally(), cancel())];
    let of = |one: (&'static str, Workflow)| pairs.clone().map(|pair| (one.clone(), pair));
    for ((label, mut once), (first, second)) in workflows().into_iter().flat_map(of) {
        let _ = once.apply(first, NOW);
        let mut again = once.clone();
        let change = again.apply(second, NOW + SECOND);
        assert!(change.is_err() || change == Ok(Change::default()), "{label}: {change:?}");
        assert_eq!(again, once, "{label}");
    }
}

#[test]
fn ended_workflows_and_steps_stay_ended() {
    for (label, workflow) in workflows().into_iter().filter(|(_, workflow)| workflow.state.is_final()) {
        for command in on_workflows() {
            let cell = apply(&workflow, command.clone());
            // What workers report late is counted.
            let changes = matches!(command, Command::Delete | Command::Spend { .. });
            let allowed = changes || cell.starts_with('✗') || cell == "–";
            assert!(allowed, "{command:?} in {label}: {cell}");
        }
    }
    for (label, step) in steps().into_iter().filter(|(_, step)| step.state.is_final()) {
        for command in on_steps(&step) {
            let cell = apply_to(&step, command.clone());
            assert!(
                !cell.starts_with("→ ") || cell.contains("compensation"),
                "{command:?} in {label}: {cell}"
            );
        }
    }
}
