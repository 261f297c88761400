//! Values as words: times, money, states. Also makes what strangers wrote fit for a terminal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pbjson_types::Timestamp;
use rota_proto::v1::{Failure, Task, TaskState, TaskStatus, Wait};
use rota_telemetry::clock;

/// A moment as a length of time since the epoch.
fn since_epoch(time: &Timestamp) -> Duration {
    Duration::new(
        u64::try_from(time.seconds).unwrap_or_default(),
        u32::try_from(time.nanos).unwrap_or_default(),
    )
}

/// A moment of the API's as one of the machine's.
pub fn moment(time: &Timestamp) -> SystemTime {
    UNIX_EPOCH + since_epoch(time)
}

/// A moment as RFC 3339 has it, to the millisecond.
pub fn time(time: Option<&Timestamp>) -> String {
    match time {
        Some(time) => humantime::format_rfc3339_millis(moment(time)).to_string(),
        None => String::new(),
    }
}

/// How long ago.
pub fn age(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return String::new() };
    duration(between(moment(time), clock::now()))
}

/// From one moment to another, or to now.
pub fn elapsed(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    let Some(from) = from else { return String::new() };
    let end = to.map_or_else(clock::now, moment);
    duration(between(moment(from), end))
}

/// The length from one moment to another; none if they are the other way round.
pub fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// A length of time in at most two units.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..=9 => format!("{:.1}s", span.as_secs_f64()),
        10..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A length of time as the API's JSON has it.
pub fn seconds(span: Duration) -> String {
    format!("{:.3}s", span.as_secs_f64())
}

/// Millionths of a dollar as dollars.
pub fn money(micro: i64) -> String {
    match micro {
        0 => String::new(),
        _ => format!("${}", rota_crds::Usd { micro }),
    }
}

/// An API duration, or nothing.
pub fn micros(span: Option<&pbjson_types::Duration>) -> String {
    let Some(span) = span else { return String::new() };
    let seconds = u64::try_from(span.seconds).unwrap_or_default();
    let nanos = u32::try_from(span.nanos).unwrap_or_default();
    rota_crds::Span(Duration::new(seconds, nanos)).to_string()
}

/// A state's word.
pub fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "Unknown",
        TaskState::Pending => "Pending",
        TaskState::Queued => "Queued",
        TaskState::Assigned => "Assigned",
        TaskState::Running => "Running",
        TaskState::InputRequired => "InputRequired",
        TaskState::Succeeded => "Succeeded",
        TaskState::Failed => "Failed",
        TaskState::Cancelled => "Cancelled",
    }
}

/// The word of an API's value without its prefix, as in `dependency missing` for `WAIT_REASON_DEPENDENCY_MISSING`.
pub fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

/// What a task waits for.
pub fn wait(wait: &Wait) -> String {
    let until = wait.until.as_ref().map_or_else(String::new, |until| format!("until {}", time(Some(until))));
    let what = word(wait.reason().as_str_name(), "WAIT_REASON_");
    format!("{what} {} {until}", wait.what).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why something failed: its class and its message.
pub fn failure(failure: &Failure) -> String {
    let class = word(failure.class().as_str_name(), "FAILURE_CLASS_");
    format!("{class}: {}", failure.message)
}

/// Why a task is as it is, in a few words.
pub fn reason(status: &TaskStatus) -> String {
    if let Some(failure) = &status.failure {
        return first_line(&failure.message, 60);
    }
    if let Some(wait) = status.waiting.first() {
        let reason = word(wait.reason().as_str_name(), "WAIT_REASON_");
        return format!("{reason} {}", plain(&wait.what)).trim_end().to_owned();
    }
    if let Some(request) = status.pending_input.first() {
        return format!("asks: {}", first_line(&request.prompt, 50));
    }
    match &status.progress {
        Some(progress) if status.state() == TaskState::Running => {
            format!("{:.0}% {}", progress.fraction * 100.0, first_line(&progress.step, 50))
                .trim_end()
                .to_owned()
        }
        _ if status.cancelling && !rota_client::watch::is_final(status.state()) => "ending".to_owned(),
        _ => String::new(),
    }
}

/// The first line of a text, at most so many characters.
pub fn first_line(text: &str, longest: usize) -> String {
    let line = plain(text.trim_start().lines().next().unwrap_or_default());
    if line.chars().count() <= longest {
        return line;
    }
    let cut: String = line.chars().take(longest.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Takes out what could make a terminal do things: agents print what they like. Colours stay.
pub fn clean(text: &str) -> String {
    harmless(text, true)
}

/// What strangers wrote, so that it stays in its place within a line of ours: without colours, line breaks, tabs, and
/// what turns the direction of writing.
pub fn plain(text: &str) -> String {
    harmless(text, false)
}

/// [`plain`], line by line.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn harmless(text: &str, streamed: bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => {
                // A sequence goes as a whole; only one that sets colours is kept.
                let all = rest.as_str();
                let Some(body) = all.strip_prefix('[') else { continue };
                let length = body.find(|c: char| ('\u{40}'..='\u{7e}').contains(&c)).unwrap_or(body.len());
                if streamed
                    && body[length..].starts_with('m')
                    && body[..length].bytes().all(|b| b.is_ascii_digit() || b == b';')
                {
                    kept.push_str("\u{1b}[");
                    kept.push_str(&body[..=length]);
                }
                rest = body.get(length + 1..).unwrap_or_default().chars();
            }
            '\n' | '\t' | '\r' if streamed => kept.push(next),
            next if next.is_control() => kept.extend((!streamed).then_some(' ')),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' if !streamed => {}
            next => kept.push(next),
        }
    }
    kept
}

/// So many of something, whose name takes an s.
pub fn count(number: impl Into<i64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How long it took a task from its first start to its end: with several attempts, also what lay between them.
pub fn ran(status: &TaskStatus) -> String {
    let Some(start) = &status.start_time else { return String::new() };
    let whole = if status.attempt > 1 { " in all" } else { "" };
    format!("{}{whole}", elapsed(Some(start), status.end_time.as_ref()))
}

/// What to call a task: its alias, or else its id.
pub fn name(task: &Task) -> &str {
    if task.alias.is_empty() { &task.uid } else { &task.alias }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1500, "1.5s"),
            (59_000, "59s"),
            (61_000, "1m1s"),
            (3_660_000, "1h1m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn terminals_are_not_told_to_do_things() {
        assert_eq!(
            clean("a\u{1b}[31mred\u{1b}[0m\u{1b}[2Jb\u{7}\u{1b}]0;title\u{7}c\n"),
            "a\u{1b}[31mred\u{1b}[0mb]0;titlec\n"
        );
        assert_eq!(clean("\u{1b}"), "");
        assert_eq!(clean("\u{1b}[31"), "");
    }

    #[test]
    fn a_line_of_strangers_stays_in_its_place() {
        assert_eq!(plain("a\u{1b}[31mred\u{1b}[0m\rb\tc\nd\u{7}"), "ared b c d ");
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{2069}"), "abc");
        assert_eq!(plain_lines("a\r\nb\rc\n"), "a\nb c");
        assert_eq!(first_line("\u{1b}[1mone\u{1b}[0m\rtwo", 20), "one two");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|number| count(number, "slot")), ["0 slots", "1 slot", "2 slots"]);
    }

    #[test]
    fn what_several_attempts_took_is_said_to_be_all() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let status =
            |attempt| TaskStatus { attempt, start_time: at(10), end_time: at(30), ..Default::default() };
        assert_eq!([1, 2].map(|attempt| ran(&status(attempt))), ["20s", "20s in all"]);
        assert_eq!(ran(&TaskStatus::default()), "");
    }

    #[test]
    fn lines_are_cut() {
        assert_eq!(first_line("\n one\ntwo", 10), "one");
        assert_eq!(first_line("abcdefghij", 5), "abcd…");
    }
}
