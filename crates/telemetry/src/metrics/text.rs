//! The older text format, made from OpenMetrics: many readers know nothing else, `promtool` among them.

/// The newer format, as an `Accept` header names it.
pub(super) const OPEN_METRICS_TYPE: &str = "application/openmetrics-text";
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of OpenMetrics in the older format: a counter's family is named as its samples are, and what the format
/// has no word for is left out.
pub(super) fn plain(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        // HELP comes first, and only the line after it tells the type.
        let counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        if let Some(rest) = line.strip_prefix("# HELP ")
            && lines.peek().is_some_and(|next| counter(next))
            && let Some((name, help)) = rest.split_once(' ')
        {
            text.push_str(&format!("# HELP {name}_total {help}\n"));
        } else if counter(line) {
            let name = line.trim_start_matches("# TYPE ").trim_end_matches(" counter");
            text.push_str(&format!("# TYPE {name}_total counter\n"));
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
