//! Writes what was seen as a page for people.

use std::fmt::Write;

use rota_core::task::State;

use super::asked::Asked;
use super::setups::Setup;
use super::{Outcome, Seen};

const HEAD: &str = "\
# The state machine of a task

This page is written by a test (`crates/core/tests/it/table`), which asks every command of a task in every state and
notes what comes of it; do not edit it. `ROTA_BLESS=1 cargo test -p rota-core` writes it anew, and without that variable
the test fails when page and code differ.

All rules are in `crates/core/src/task`. A command is carried out wholly or refused wholly; a refused one leaves the
record as it was. Every step goes to the task's log with its reason. An ended task never changes its state again.
";

const DIAGRAM: &str = "\
## The steps

Every step that was really seen, with all its reasons.
";

const STATES: &str = "\
## The states

| state | what it means | how it is left when nobody asks for anything |
|---|---|---|
| `PENDING` | it waits for dependencies, its agent, its start time, the next try, or somebody to let it go on; always with a reason that `rota explain` tells | when the last reason is gone |
| `QUEUED` | ready: it waits for a slot | a slot is free; its queue timeout or total time is over |
| `ASSIGNED` | sent to a worker that has not yet taken it | the worker takes it or not; after 10 s it goes back |
| `RUNNING` | a worker works on it | the attempt ends, its worker is lost, its total time is over |
| `INPUT_REQUIRED` | it runs, and at least one of its questions waits for an answer | as `RUNNING`, or its last question is settled |
| `SUCCEEDED` | ended with a result | – |
| `FAILED` | ended without, for a reason that its failure tells | – |
| `CANCELLED` | ended because somebody asked for it, or a dependency did not succeed and that was to be its end | – |
";

const READING: &str = "\
## The table

How to read a cell:

| cell | meaning |
|---|---|
| → STATE | it goes there; more than one arrow: by way of the first |
| kept | its state stays, its record or log changes |
| – | accepted, and nothing changes: it was already so, or is none of its business |
| stale | the worker's word no longer counts; nothing changes, and the worker is told so |
| stale, noted | the same, and the log tells of the late result (once for each fence) |
| ✗ ended | refused: the task has ended |
| ✗ state | refused: not possible in this state |
| ✗ fence | refused: that fence was never given |
| ✗ gap | refused: reports are missing in between |
| ✗ question | refused: no such question is open |
| ✗ cancelling | refused: its end has been asked for |

A worker's word counts only with the live **fence**, from the worker that was given it, in the session that it is known
to have. The fence that an attempt had before it ended is called live here too: a worker does not know better.
All tasks of this table but the new one have lost two workers before, so that there are earlier fences. A late tick
tells what happens when the control plane was away.
";

const SPECIAL: &str = "\
## Where it is not so simple

A state does not tell everything. Here is what differs from the table above for tasks that are special within their
state. (Words of workers that change nothing either way are left out: whether such a word is stale, noted or of an
unknown fence depends only on the fences given so far.)
";

/// The whole page.
pub(super) fn write(setups: &[Setup], all: &[Asked], seen: &Seen) -> String {
    let mut page = format!("{HEAD}\n{DIAGRAM}\n");
    diagram(&mut page, seen);
    let _ = write!(page, "\n{STATES}\n{READING}\n");
    table(&mut page, setups, all, seen);
    let _ = write!(page, "\n{SPECIAL}");
    special(&mut page, setups, all, seen);
    page
}

fn diagram(page: &mut String, seen: &Seen) {
    page.push_str("```mermaid\nstateDiagram-v2\n");
    for ((from, to), reasons) in &seen.steps {
        let from = from.map_or("[*]", State::name);
        let reasons: Vec<_> = reasons.iter().map(String::as_str).collect();
        let _ = writeln!(page, "    {from} --> {}: {}", to.name(), reasons.join(", "));
    }
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        let _ = writeln!(page, "    {} --> [*]", state.name());
    }
    page.push_str("```\n");
}

fn table(page: &mut String, setups: &[Setup], all: &[Asked], seen: &Seen) {
    let columns: Vec<_> = setups.iter().enumerate().filter(|(_, setup)| setup.column).collect();
    page.push_str("| command |");
    for (_, setup) in &columns {
        let _ = write!(page, " {} |", title(setup));
    }
    let _ = writeln!(page, "\n|---|{}", "---|".repeat(columns.len()));
    for (row, asked) in all.iter().enumerate() {
        let _ = write!(page, "| {} |", name(asked));
        for (column, _) in &columns {
            let _ = write!(page, " {} |", seen.cells[&(row, *column)].text);
        }
        page.push('\n');
    }
}

fn title(setup: &Setup) -> String {
    let comma = if setup.label.is_empty() { "" } else { ", " };
    format!("{}{comma}{}", setup.life.state().name(), setup.label)
}

fn name(asked: &Asked) -> String {
    let dot = if asked.label.is_empty() { "" } else { " · " };
    format!("**{}**{dot}{}", asked.kind, asked.label)
}

fn special(page: &mut String, setups: &[Setup], all: &[Asked], seen: &Seen) {
    let mut usual = 0;
    for (column, setup) in setups.iter().enumerate() {
        if setup.column {
            usual = column;
            continue;
        }
        let mut rows = String::new();
        for (row, asked) in all.iter().enumerate() {
            let (there, here) = (&seen.cells[&(row, usual)], &seen.cells[&(row, column)]);
            if there.text != here.text && !(void(there) && void(here)) {
                let _ = writeln!(rows, "| {} | {} | {} |", name(asked), here.text, there.text);
            }
        }
        if !rows.is_empty() {
            let title = title(setup);
            let _ = write!(page, "\n### {title}\n\n| command | comes | instead of |\n|---|---|---|\n{rows}");
        }
    }
}

/// A word that counts for nothing, for whatever reason.
fn void(outcome: &Outcome) -> bool {
    outcome.stale || outcome.text == "✗ fence"
}
