//! Self-describing output of test attempts: numbered lines and the attempt's fence, from which the checker sees whether
//! all output arrived in order. Other output is ignored.

use std::collections::BTreeMap;

use rota_proto::v1::{self, TaskState, event::Kind, script_step::Kind as Step};

/// Returns a script step that prints line `number` of `count`.
pub fn line(number: u32, count: u32) -> Step {
    Step::Output(format!("line {number} of {count}"))
}

/// Returns a shell script that prints its fence and `count` lines.
pub fn shell(count: u32) -> String {
    format!(
        "echo fence $ROTA_FENCE; n=0; while [ $n -lt {count} ]; do n=$((n + 1)); echo line $n of {count}; done"
    )
}

/// Parsed output of one attempt.
#[derive(Default)]
struct AttemptOutput {
    /// Number and count of each line.
    lines: Vec<(u32, u32)>,
    fences: Vec<u64>,
}

fn parse(text: &str) -> AttemptOutput {
    let mut output = AttemptOutput::default();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["line", number, "of", count] => {
                // A line that was corrupted on its way becomes 0, which is no line's number.
                output.lines.push((number.parse().unwrap_or(0), count.parse().unwrap_or(0)));
            }
            ["fence", fence] => output.fences.push(fence.parse().unwrap_or(0)),
            _ => {}
        }
    }
    output
}

/// Code of the notice that the last entries of an attempt were lost with the process of its worker.
pub(crate) const LOG_CUT: &str = "log_cut";

/// Returns the rules that the output in a log violates.
pub(crate) fn violations(events: &[v1::Event]) -> Vec<&'static str> {
    let mut texts: BTreeMap<i32, String> = BTreeMap::new();
    let (mut succeeded, mut cut) = (0, 0);
    for event in events {
        match &event.kind {
            Some(Kind::Output(output)) => {
                texts.entry(event.attempt).or_default().push_str(&String::from_utf8_lossy(&output.data));
            }
            Some(Kind::State(change)) if change.to() == TaskState::Succeeded => succeeded = event.attempt,
            Some(Kind::Notice(notice)) if notice.code == LOG_CUT => cut = event.attempt,
            _ => {}
        }
    }
    let (mut violations, mut highest) = (Vec::new(), 0);
    for (attempt, text) in texts {
        let AttemptOutput { lines, fences } = parse(&text);
        if !lines.iter().map(|(number, _)| *number).eq((1..).take(lines.len())) {
            violations.push("H5: output of an attempt has a gap, a repetition or a wrong order");
        }
        if attempt == succeeded
            && attempt != cut
            && lines.last().is_some_and(|(number, count)| number != count)
        {
            violations.push("H5: the end of a successful attempt's output is missing");
        }
        for fence in fences {
            if fence <= highest {
                violations.push("H6: a fence decreased or was used twice");
            }
            highest = fence;
        }
    }
    violations
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
    fn missing_and_repeated_output_is_found() {
        let rules = |log: &[v1::Event]| violations(log).iter().map(|rule| &rule[..2]).collect::<Vec<_>>();
        let first = output(1, "fence 1\nline 1 of 2\n");
        // Events may cut a line anywhere.
        let whole = [output(2, "fence 2\nline 1 "), output(2, "of 2\nline 2 of 2\nother\n"), success(2)];
        assert!(rules(&[std::slice::from_ref(&first), &whole[..]].concat()).is_empty());
        assert_eq!(rules(&[first.clone(), success(1)]), ["H5"]);
        let notice = v1::Notice { code: LOG_CUT.to_owned(), ..Default::default() };
        let cut = v1::Event { attempt: 1, kind: Some(Kind::Notice(notice)), ..Default::default() };
        assert!(rules(&[first.clone(), cut, success(1)]).is_empty());
        assert_eq!(rules(&[first.clone(), first.clone()]), ["H5", "H6"]);
        assert_eq!(rules(&[output(1, "line 2 of 2\n")]), ["H5"]);
        assert_eq!(rules(&[output(1, "line 1 of 3\nline 3 of 3\n"), success(1)]), ["H5"]);
        assert_eq!(rules(&[first, output(2, "fence 1\n")]), ["H6"]);
    }
}
