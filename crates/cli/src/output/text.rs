//! Text for values: times, money, states. Also removes control sequences from untrusted text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pbjson_types::Timestamp;
use rota_proto::v1::{
    AgentStatus, BudgetStatus, CoolDown, Failure, Task, TaskState, TaskStatus, Wait, WaitReason,
};
use rota_telemetry::clock;

/// Seconds from the Unix epoch to the end of the year 9999, the last that RFC 3339 has.
const LAST_SECOND: u64 = 253_402_300_799;

/// Converts a timestamp to the time since the Unix epoch.
fn since_epoch(time: &Timestamp) -> Duration {
    let seconds = u64::try_from(time.seconds).unwrap_or_default().min(LAST_SECOND);
    Duration::new(seconds, u32::try_from(time.nanos).unwrap_or_default().min(999_999_999))
}

/// Converts a timestamp of the API; one beyond the years 1970 to 9999 to the nearest within.
pub fn moment(time: &Timestamp) -> SystemTime {
    UNIX_EPOCH + since_epoch(time)
}

/// Formats a timestamp as RFC 3339, in milliseconds.
pub fn time(time: Option<&Timestamp>) -> String {
    match time {
        Some(time) => humantime::format_rfc3339_millis(moment(time)).to_string(),
        None => String::new(),
    }
}

/// Formats the time since a timestamp.
pub fn age(time: Option<&Timestamp>) -> String {
    let Some(time) = time else { return String::new() };
    duration(between(moment(time), clock::now()))
}

/// Formats the time from one timestamp to another, or to now.
pub fn elapsed(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    let Some(from) = from else { return String::new() };
    let end = to.map_or_else(clock::now, moment);
    duration(between(moment(from), end))
}

/// Returns the time from one moment to another; zero if they are in reverse order.
pub fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// Formats a duration in at most two units.
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

/// Formats a duration as the JSON of the API does.
pub fn seconds(span: Duration) -> String {
    format!("{:.3}s", span.as_secs_f64())
}

/// Formats millionths of a dollar as dollars; zero as an empty string.
pub fn money(micro: i64) -> String {
    match micro {
        0 => String::new(),
        _ => format!("${}", rota_crds::Usd { micro }),
    }
}

/// Formats a duration of the API; a missing one as an empty string.
pub fn micros(span: Option<&pbjson_types::Duration>) -> String {
    span.map(|span| rota_crds::HumanDuration(to_std(span)).to_string()).unwrap_or_default()
}

/// Formats an estimated duration of the API, of which less than a tenth of a millisecond means nothing; a missing one as an empty
/// string.
pub fn estimate(span: Option<&pbjson_types::Duration>) -> String {
    match span.map(to_std) {
        None => String::new(),
        Some(span) if span < Duration::from_millis(10) => format!("{:.1}ms", span.as_secs_f64() * 1000.0),
        Some(span) => duration(span),
    }
}

fn to_std(span: &pbjson_types::Duration) -> Duration {
    let seconds = u64::try_from(span.seconds).unwrap_or_default();
    Duration::new(seconds, u32::try_from(span.nanos).unwrap_or_default())
}

/// Returns the display name of a state.
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

/// Converts an enum name of the API to words, such as `WAIT_REASON_DEPENDENCY_MISSING` to `dependency missing`.
pub fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

/// Formats what a task waits for.
pub fn wait(wait: &Wait) -> String {
    let until = wait.until.as_ref().map_or_else(String::new, |until| format!("until {}", time(Some(until))));
    let what = word(wait.reason().as_str_name(), "WAIT_REASON_");
    format!("{what} {} {until}", wait.subject).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Formats the cool-downs of an agent's model credentials: which limit, and until when.
fn cool_downs(status: &AgentStatus) -> String {
    let one = |one: &CoolDown| format!("{} until {}", plain(&one.limit), time(one.until_time.as_ref()));
    status.cool_downs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Formats what holds back an agent's tasks: circuit breakers, limits of its model credentials, and of its budgets.
pub fn limits(status: &AgentStatus) -> String {
    let budgets = [(&status.budget, "budget"), (&status.namespace_budget, "budget of the namespace")];
    let exhausted = budgets.into_iter().filter_map(|(budget, what)| {
        let until = budget.as_ref()?.exhausted_until.as_ref()?;
        Some(format!("{what} until {}", time(Some(until))))
    });
    let cool_downs = Some(cool_downs(status)).filter(|text| !text.is_empty());
    let breaker = (!status.breaker.is_empty()).then(|| "circuit breaker".to_owned());
    breaker.into_iter().chain(cool_downs).chain(exhausted).collect::<Vec<_>>().join(", ")
}

/// Formats what is spent of a budget in a day and a month.
pub fn spent(status: &BudgetStatus) -> String {
    let budget = status.budget.unwrap_or_default();
    let dollars = |micro| format!("${}", rota_crds::Usd { micro });
    let of = |spent, limit, period: &str| match limit {
        0 => format!("{} {period}", dollars(spent)),
        limit => format!("{} of {} {period}", dollars(spent), dollars(limit)),
    };
    let day = of(status.spent_today_micro_usd, budget.daily_micro_usd, "today");
    format!("{day}, {}", of(status.spent_this_month_micro_usd, budget.monthly_micro_usd, "this month"))
}

/// Formats a failure: class and message.
pub fn failure(failure: &Failure) -> String {
    let class = word(failure.class().as_str_name(), "FAILURE_CLASS_");
    format!("{class}: {}", failure.message)
}

/// Summarizes in a few words why a task is in its state.
pub fn reason(status: &TaskStatus) -> String {
    if let Some(failure) = &status.failure {
        return first_line(&failure.message, 60);
    }
    let waits = status.waiting.iter().find(|wait| wait.reason() != WaitReason::Answer);
    if let Some(wait) = waits {
        if matches!(wait.reason(), WaitReason::Quota | WaitReason::Budget | WaitReason::Delivery) {
            return self::wait(wait);
        }
        let reason = word(wait.reason().as_str_name(), "WAIT_REASON_");
        return format!("{reason} {}", plain(&wait.subject)).trim_end().to_owned();
    }
    if let Some(request) = status.pending_input.first() {
        return format!("question: {}", first_line(&request.prompt, 50));
    }
    match &status.progress {
        _ if status.delivering && status.state() == TaskState::Running => "delivery".to_owned(),
        Some(progress) if status.state() == TaskState::Running => {
            format!("{:.0}% {}", progress.fraction * 100.0, first_line(&progress.step, 50))
                .trim_end()
                .to_owned()
        }
        _ if status.cancelling && !status.state().is_final() => "cancelling".to_owned(),
        _ => String::new(),
    }
}

/// Returns the first line of a text, cut to a number of characters.
pub fn first_line(text: &str, max_chars: usize) -> String {
    let line = plain(text.trim_start().lines().next().unwrap_or_default());
    if line.chars().count() <= max_chars {
        return line;
    }
    let cut: String = line.chars().take(max_chars.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// Removes control characters, escape sequences but colors, and bidirectional controls from the output of agents.
pub fn clean(text: &str) -> String {
    sanitize(text, true)
}

/// Sanitizes untrusted text for use within a line: removes colors, line breaks, tabs and bidirectional controls.
pub fn plain(text: &str) -> String {
    sanitize(text, false)
}

/// Applies [`plain`] to each line.
pub fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Whether a character is a control, or changes the direction of text.
pub fn is_hidden(next: char) -> bool {
    next.is_control()
        || matches!(next, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shows what is hidden in the lines of a file, such as `^[` for an escape, also what is not UTF-8: for a review, nothing is left out.
pub fn visible(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for next in chunk.valid().chars() {
            match next {
                '\n' | '\t' => shown.push(next),
                '\u{7f}' => shown.push_str("^?"),
                // `^@` and so on, as `cat -v` has it.
                next if next.is_ascii_control() => {
                    shown.extend(['^', char::from(next as u8 ^ 0x40)]);
                }
                next if is_hidden(next) => shown.push_str(&format!("<U+{:04X}>", u32::from(next))),
                next => shown.push(next),
            }
        }
        shown.extend(chunk.invalid().iter().map(|byte| format!("<{byte:02X}>")));
    }
    shown
}

/// Escapes what JSON allows in its strings, and terminals act on.
pub fn escaped_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for next in text.chars() {
        match next {
            // Between values.
            '\n' => escaped.push(next),
            next if is_hidden(next) => escaped.push_str(&format!("\\u{:04x}", u32::from(next))),
            next => escaped.push(next),
        }
    }
    escaped
}

fn sanitize(text: &str, streamed: bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => {
                // A sequence is removed completely; only those that set colors are kept.
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
            // A lone one would have the rest of the line replace its beginning.
            '\r' if streamed && !rest.as_str().starts_with('\n') => kept.push_str("^M"),
            '\n' | '\t' | '\r' if streamed => kept.push(next),
            next if next.is_control() => kept.extend((!streamed).then_some(' ')),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            next => kept.push(next),
        }
    }
    kept
}

/// Formats a count with its noun, which takes an s in the plural.
pub fn count(number: impl Into<i64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Formats the time from a task's first start to its end, which includes pauses between attempts.
pub fn ran(status: &TaskStatus) -> String {
    let Some(start) = &status.start_time else { return String::new() };
    let whole = if status.attempt > 1 { " in all" } else { "" };
    format!("{}{whole}", elapsed(Some(start), status.end_time.as_ref()))
}

/// Returns the alias of a task, or its id if it has none.
pub fn name(task: &Task) -> &str {
    if task.alias.is_empty() { &task.uid } else { &task.alias }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_is_formatted() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (i64::MIN, i32::MIN, "1970-01-01T00:00:00.000Z"),
            (253_402_300_800, 0, "9999-12-31T23:59:59.000Z"),
            (i64::MAX, i32::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            let at = Timestamp { seconds, nanos };
            assert_eq!(time(Some(&at)), text);
            assert!(!age(Some(&at)).is_empty());
        }
    }

    #[test]
    fn durations_use_two_units() {
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
    fn estimates_have_a_tenth_of_a_millisecond() {
        for (nanos, text) in [(777_778, "0.8ms"), (3_800_000, "3.8ms"), (58_333_333, "58ms")] {
            assert_eq!(estimate(Some(&pbjson_types::Duration { seconds: 0, nanos })), text);
        }
        assert_eq!(estimate(Some(&pbjson_types::Duration { seconds: 61, nanos: 5 })), "1m1s");
        assert_eq!(estimate(None), "");
    }

    #[test]
    fn clean_removes_control_sequences() {
        assert_eq!(
            clean("a\u{1b}[31mred\u{1b}[0m\u{1b}[2Jb\u{7}\u{1b}]0;title\u{7}c\n"),
            "a\u{1b}[31mred\u{1b}[0mb]0;titlec\n"
        );
        assert_eq!(["\u{1b}", "\u{1b}[31"].map(clean), ["", ""]);
        assert_eq!(clean("real\rforged\r\na\u{202e}b\u{2066}c\r"), "real^Mforged\r\nabc^M");
    }

    #[test]
    fn plain_keeps_text_on_its_line() {
        assert_eq!(plain("a\u{1b}[31mred\u{1b}[0m\rb\tc\nd\u{7}"), "ared b c d ");
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{2069}"), "abc");
        assert_eq!(plain_lines("a\r\nb\rc\n"), "a\nb c");
        assert_eq!(first_line("\u{1b}[1mone\u{1b}[0m\rtwo", 20), "one two");
    }

    #[test]
    fn hidden_characters_are_shown() {
        let hostile = "+a\r\u{1b}[1A\u{1b}]52;c;eA==\u{7}\u{7f}\u{9b}2J\u{202e}\u{200f}\tä\n".as_bytes();
        let hostile = [hostile, b"\xff\xc3"].concat();
        let shown = visible(&hostile);
        assert_eq!(shown, "+a^M^[[1A^[]52;c;eA==^G^?<U+009B>2J<U+202E><U+200F>\tä\n<FF><C3>");
        assert_eq!(visible("plain\n".as_bytes()), "plain\n");
    }

    #[test]
    fn json_is_for_terminals_too() {
        let value = serde_json::json!({"a": "x\u{9b}2J\u{202e}\u{7f}ä\n"});
        for text in [value.to_string(), format!("{value:#}")] {
            let escaped = escaped_json(&text);
            assert!(escaped.contains(r"x\u009b2J\u202e\u007fä\n"), "{escaped}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }

    #[test]
    fn count_one_is_singular() {
        assert_eq!([0, 1, 2].map(|number| count(number, "slot")), ["0 slots", "1 slot", "2 slots"]);
    }

    #[test]
    fn several_attempts_are_summed_in_runtime() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let status =
            |attempt| TaskStatus { attempt, start_time: at(10), end_time: at(30), ..Default::default() };
        assert_eq!([1, 2].map(|attempt| ran(&status(attempt))), ["20s", "20s in all"]);
        assert_eq!(ran(&TaskStatus::default()), "");
    }

    #[test]
    fn first_line_is_truncated() {
        assert_eq!(first_line("\n one\ntwo", 10), "one");
        assert_eq!(first_line("abcdefghij", 5), "abcd…");
    }
}
