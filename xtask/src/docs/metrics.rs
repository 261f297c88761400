//! Page of the control plane's metrics.

use super::MARK;
use super::table::table;

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
        "{MARK}\n\n# Metrics\n\n`rota server --http-listen` exposes these at `/metrics`, in the OpenMetrics format if the client accepts\n\
         it, else in the Prometheus text format. Counters start at zero with the process. Metrics without samples are omitted.\n\n\
         Label values that callers choose are bounded: the first 200 agents and 50 models have series of their own, all others share\n\
         `_other`. `_none` stands for a missing agent or model.\n\n{}",
        table(&["Name", "Kind", "Labels", "Meaning"], &rows)
    )
}
