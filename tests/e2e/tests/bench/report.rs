//! Measurements as JSON and as a table.

use std::path::PathBuf;

use serde_json::{Value, json};

/// Returns a quantile of sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Summarizes a distribution of microseconds.
pub(crate) fn latency(micros: impl IntoIterator<Item = i64>) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of minutes")]
    let mut millis: Vec<f64> = micros.into_iter().map(|micros| micros as f64 / 1000.0).collect();
    millis.sort_by(f64::total_cmp);
    json!({
        "count": millis.len(),
        "p50_ms": quantile(&millis, 0.5),
        "p99_ms": quantile(&millis, 0.99),
        "max_ms": millis.last(),
    })
}

/// Returns the rate per second.
pub(crate) fn rate(count: usize, micros: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small counts, and microseconds of minutes")]
    let rate = count as f64 * 1e6 / micros as f64;
    (rate * 10.0).round() / 10.0
}

/// Returns the average per item.
pub(crate) fn each(calls: usize, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let each = calls as f64 / count as f64;
    (each * 100.0).round() / 100.0
}

/// Prints a table, and writes JSON to the file that `ROTA_BENCH_JSON` names.
pub(crate) fn print(report: &Value) {
    println!("\n| measurement | tasks | a Job per task |\n| --- | --- | --- |");
    let row = |what: &str, path: &str| {
        let cell = |of: &str| match report.pointer(&format!("/{of}{path}")) {
            Some(value) if !value.is_null() => value.to_string(),
            _ => "-".to_owned(),
        };
        println!("| {what} | {} | {} |", cell("tasks"), cell("jobs"));
    };
    for (what, path) in [
        ("object created to first byte", "/one_at_a_time/created_to_first_byte"),
        ("create call to first byte", "/one_at_a_time/call_to_first_byte"),
        ("object created to terminal status", "/one_at_a_time/created_to_terminal"),
    ] {
        for quantile in ["p50_ms", "p99_ms", "max_ms"] {
            row(&format!("{what}, {quantile}"), &format!("{path}/{quantile}"));
        }
    }
    row("one at a time", "/one_at_a_time/created_to_terminal/count");
    row("concurrent", "/concurrent/count");
    row("concurrent, per second", "/concurrent/per_second");
    row("writes to the API server, per task", "/writes_each");
    row("status writes, per task", "/status_writes_each");
    println!("| idle | {} | |", report["idle"]);
    println!("| rules of the definitions | {} | |", report["rules"]);
    println!("\n| runtime | tasks | per second | CPU of the API server, each | operator | control plane |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for burst in report["bursts"].as_array().into_iter().flatten() {
        let cpu = &burst["cpu_ms_each"];
        let cells = [&burst["runtime"], &burst["count"], &burst["per_second"]].map(Value::to_string);
        let [api, operator, plane] =
            ["api_server", "operator", "control_plane"].map(|component| format!("{} ms", cpu[component]));
        println!("| {} | {api} | {operator} | {plane} |", cells.join(" | "));
    }
    let text = format!("{report:#}");
    if let Some(file) = rota_telemetry::env::var_os("ROTA_BENCH_JSON").map(PathBuf::from) {
        std::fs::write(&file, &text).unwrap();
        println!("\nmeasurements: {}", file.display());
    } else {
        println!("\n{text}");
    }
}
