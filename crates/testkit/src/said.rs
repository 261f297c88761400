//! What attempts of a test say of themselves, so that the checker can tell whether all of it arrived: lines
//! that are counted, and the fence that they were given. Other output is passed over.

use std::collections::BTreeMap;

use rota_proto::v1::{self, TaskState, event::Kind, script_step::Kind as Step};

/// A script's line `number` of `all`.
pub fn line(number: u32, all: u32) -> Step {
    Step::Output(format!("line {number} of {all}"))
}

/// A shell's program that says its fence and so many lines.
pub fn shell(all: u32) -> String {
    format!(
        "echo fence $ROTA_FENCE; n=0; while [ $n -lt {all} ]; do n=$((n + 1)); echo line $n of {all}; done"
    )
}

/// What one attempt has said.
#[derive(Default)]
struct Said {
    lines: Vec<(u32, u32)>,
    fences: Vec<u64>,
}

fn said(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["line", number, "of", all] => {
                // What is no number is a line that was broken on its way, and no line's number is 0.
                said.lines.push((number.parse().unwrap_or(0), all.parse().unwrap_or(0)));
            }
            ["fence", fence] => said.fences.push(fence.parse().unwrap_or(0)),
            _ => {}
        }
    }
    said
}

/// The rules that a log's output breaks.
pub(crate) fn broken(events: &[v1::Event]) -> Vec<&'static str> {
    let mut texts: BTreeMap<i32, String> = BTreeMap::new();
    let mut succeeded = 0;
    for event in events {
        match &event.kind {
            Some(Kind::Output(output)) => {
                texts.entry(event.attempt).or_default().push_str(&String::from_utf8_lossy(&output.data));
            }
            Some(Kind::State(change)) if change.to() == TaskState::Succeeded => succeeded = event.attempt,
            _ => {}
        }
    }
    let (mut broken, mut highest) = (Vec::new(), 0);
    for (attempt, text) in texts {
        let Said { lines, fences } = said(&text);
        if !lines.iter().map(|(number, _)| *number).eq((1..).take(lines.len())) {
            broken.push("H5: what an attempt said has a gap, repeats itself or is out of order");
        }
        if attempt == succeeded && lines.last().is_some_and(|(number, all)| number != all) {
            broken.push("H5: it succeeded, and the end of what it said is missing");
        }
        for fence in fences {
            if fence <= highest {
                broken.push("H6: a fence fell or came again");
            }
            highest = fence;
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(attempt: i32, text: &str) -> v1::Event {
        let output = v1::Output { data: text.to_owned().into(), ..Default::default() };
        v1::Event { attempt, kind: Some(Kind::Output(output)), ..Default::default() }
    }

    fn success(attempt: i32) -> v1::Event {
        let change = v1::StateChange { to: TaskState::Succeeded.into(), ..Default::default() };
        v1::Event { attempt, kind: Some(Kind::State(change)), ..Default::default() }
    }

    #[test]
    fn what_is_missing_or_twice_is_found() {
        let rules = |log: &[v1::Event]| broken(log).iter().map(|rule| &rule[..2]).collect::<Vec<_>>();
        let first = output(1, "fence 1\nline 1 of 2\n");
        // Events may cut a line anywhere.
        let whole = [output(2, "fence 2\nline 1 "), output(2, "of 2\nline 2 of 2\nother\n"), success(2)];
        assert!(rules(&[std::slice::from_ref(&first), &whole[..]].concat()).is_empty());
        assert_eq!(rules(&[first.clone(), success(1)]), ["H5"]);
        assert_eq!(rules(&[first.clone(), first.clone()]), ["H5", "H6"]);
        assert_eq!(rules(&[output(1, "line 2 of 2\n")]), ["H5"]);
        assert_eq!(rules(&[output(1, "line 1 of 3\nline 3 of 3\n"), success(1)]), ["H5"]);
        assert_eq!(rules(&[first, output(2, "fence 1\n")]), ["H6"]);
    }
}
