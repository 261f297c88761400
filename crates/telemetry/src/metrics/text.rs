//! The Prometheus text format 0.0.4, converted from OpenMetrics: many readers, `promtool` among them, support no other.

/// Media type by which an `Accept` header asks for OpenMetrics.
pub(super) const OPEN_METRICS_TYPE: &str = "application/openmetrics-text";
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Converts OpenMetrics text to the Prometheus format: counter families get the `_total` of their samples, and
/// `# UNIT` and `# EOF`, which that format does not have, are dropped.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        // HELP precedes TYPE, which alone has the kind of the family.
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        if let Some(rest) = line.strip_prefix("# HELP ")
            && lines.peek().is_some_and(|next| is_counter(next))
            && let Some((name, help)) = rest.split_once(' ')
        {
            text.push_str(&format!("# HELP {name}_total {help}\n"));
        } else if is_counter(line) {
            let name = line.trim_start_matches("# TYPE ").trim_end_matches(" counter");
            text.push_str(&format!("# TYPE {name}_total counter\n"));
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
