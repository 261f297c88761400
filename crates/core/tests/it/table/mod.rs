//! The whole table: every command in every state. The result is `docs/state-machine.md`, and the committed page must
//! match it.

mod asked;
mod page;
mod setups;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rota_core::task::{Body, Rejected, Reply, State};

use self::asked::Asked;
use self::setups::Setup;
use crate::harness::Harness;

/// Result of one command on one task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// The cell of the table.
    text: String,
    /// State changes: from, to, reason.
    steps: Vec<(Option<State>, State, String)>,
    refused: bool,
    stale: bool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Cells by row and column.
    cells: BTreeMap<(usize, usize), Outcome>,
    /// State changes with their reasons.
    steps: BTreeMap<(Option<State>, State), BTreeSet<String>>,
}

fn refusal(refused: &Rejected) -> &'static str {
    match refused {
        Rejected::Final(_) => "✗ ended",
        Rejected::State(_) => "✗ state",
        Rejected::UnknownFence(_) => "✗ fence",
        Rejected::Gap { .. } => "✗ gap",
        Rejected::NoSuchQuestion(_) => "✗ request",
        Rejected::TooMany(_) => "✗ too many",
        Rejected::Cancelling => "✗ cancelling",
        Rejected::Changed => "✗ changed",
    }
}

fn ask(harness: &mut Harness, asked: &Asked) -> Outcome {
    let command = (asked.command)(harness);
    let before = harness.task.clone();
    let nothing = Outcome { text: String::new(), steps: Vec::new(), refused: false, stale: false };
    let done = match harness.try_apply(command) {
        Ok(done) => done,
        Err(refused) => {
            assert_eq!(harness.task, before, "{}: a rejected command changed the record", asked.label);
            return Outcome { text: refusal(&refused).to_owned(), refused: true, ..nothing };
        }
    };
    let steps: Vec<_> = (done.events.iter())
        .filter_map(|event| match &event.body {
            Body::State(change) => Some((change.from, change.to, change.reason.to_string())),
            _ => None,
        })
        .collect();
    let path: Vec<_> = steps.iter().map(|(_, to, _)| format!("→ {}", to.name())).collect();
    let text = match done.reply {
        Reply::Stale if done.events.is_empty() => "stale".to_owned(),
        Reply::Stale => "stale, noted".to_owned(),
        _ if !path.is_empty() => path.join(" "),
        _ if harness.task != before => "kept".to_owned(),
        _ => "–".to_owned(),
    };
    Outcome { text, steps, refused: false, stale: done.reply == Reply::Stale }
}

/// Applies every command to every task.
fn walk(setups: &[Setup], all: &[Asked]) -> Seen {
    let mut seen = Seen::default();
    for (column, setup) in setups.iter().enumerate() {
        for event in &setup.harness.log {
            if let Body::State(change) = &event.body {
                seen.steps.entry((change.from, change.to)).or_default().insert(change.reason.to_string());
            }
        }
        for (row, asked) in all.iter().enumerate() {
            let outcome = ask(&mut setup.harness.clone(), asked);
            for (from, to, reason) in &outcome.steps {
                seen.steps.entry((*from, *to)).or_default().insert(reason.clone());
            }
            seen.cells.insert((row, column), outcome);
        }
    }
    seen
}

#[test]
fn state_machine_page_is_current() {
    let (setups, all) = (setups::all(), asked::all());
    let page = page::write(&setups, &all, &walk(&setups, &all)) + &crate::workflow::table::page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/state-machine.md");
    #[allow(clippy::disallowed_methods, reason = "a test has no component to read it for it")]
    let bless = std::env::var_os("ROTA_BLESS").is_some();
    if bless {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(committed.lines()).find(|(new, old)| new != old);
    assert!(
        page == committed,
        "docs/state-machine.md is out of date; first difference: {differs:?}\n\
         check the difference, then regenerate it with `ROTA_BLESS=1 cargo test -p rota-core`"
    );
}

#[test]
fn every_state_and_command_is_covered() {
    let states: BTreeSet<_> = setups::all().iter().map(|setup| setup.harness.state()).collect();
    assert_eq!(states, BTreeSet::from(State::ALL));
    let mut harness = setups::all().remove(0).harness;
    let kinds: BTreeSet<_> =
        asked::all().iter().map(|asked| asked::kind(&(asked.command)(&mut harness))).collect();
    assert_eq!(kinds, BTreeSet::from(asked::KINDS));
}

/// Rules that hold over the whole table.
#[test]
fn table_rules_hold() {
    let (setups, all) = (setups::all(), asked::all());
    let seen = walk(&setups, &all);
    for ((row, column), outcome) in &seen.cells {
        let (asked, setup) = (&all[*row], &setups[*column]);
        let place = format!("{} · {} in {}: {outcome:?}", asked.kind, asked.label, setup.label);
        let state = setup.harness.state();
        if state.is_final() {
            assert!(outcome.steps.is_empty(), "a final state is left: {place}");
        }
        if asked.foreign {
            let nothing = outcome.refused || outcome.stale || outcome.text == "–";
            assert!(nothing && outcome.steps.is_empty(), "a stale report counts: {place}");
        }
        if asked.kind == "Assign" {
            assert_eq!(outcome.refused, state != State::Queued, "{place}");
        }
        if setup.harness.task.desired == rota_core::task::Desired::Cancelled && !state.is_final() {
            let end = outcome.steps.last().map(|step| step.1).filter(|end| end.is_final());
            assert!(end.is_none_or(|end| end == State::Cancelled), "{place}");
        }
    }
    let into_success: Vec<_> = seen.steps.keys().filter(|step| step.1 == State::Succeeded).collect();
    assert_eq!(
        into_success,
        [&(Some(State::Running), State::Succeeded), &(Some(State::InputRequired), State::Succeeded)]
    );
    let into_run = seen.steps.keys().filter(|step| step.1 == State::Assigned);
    assert_eq!(into_run.collect::<Vec<_>>(), [&(Some(State::Queued), State::Assigned)]);
}
