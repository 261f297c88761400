//! The page of metrics: what the control plane tells at `/metrics`.

use super::MARK;
use super::table::table;

/// The page.
pub(super) fn page() -> String {
    let rows: Vec<_> = rota_server::metrics()
        .into_iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            vec![
                format!("`{}`", metric.name),
                metric.kind.to_owned(),
                labels.join(", "),
                metric.help.to_owned(),
            ]
        })
        .collect();
    format!(
        "{MARK}\n\n# Metrics\n\n`rota server --http-listen` tells these at `/metrics`, as OpenMetrics where it is asked for, else in the\n\
         older text format. Counters begin at zero with the process. A metric without samples is left out.\n\n\
         Names that callers choose are bounded: the first 200 agents and 50 models have figures of their own, all others share\n\
         `_other`. `_none` stands where there is no agent or no model to name.\n\n{}",
        table(&["Name", "Kind", "Labels", "Meaning"], &rows)
    )
}
