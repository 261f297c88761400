//! History checker of concurrency groups: compares the times of all workflows and steps of the namespace with the limits of their
//! groups.

use std::collections::BTreeMap;

use anyhow::Result;
use rota_client::Client;
use rota_proto::v1;

use crate::history::{Findings, micros_of};
use crate::tasks::NAMESPACE;

/// Time in which a member held a group, the limit that it found, and its name.
struct Span {
    start: i64,
    end: i64,
    limit: i32,
    name: String,
}

#[derive(Default)]
struct Groups(BTreeMap<(&'static str, String), Vec<Span>>);

impl Groups {
    fn add(
        &mut self,
        kind: &'static str,
        group: &str,
        given: Option<&v1::Concurrency>,
        span: (Option<i64>, Option<i64>),
        name: String,
    ) {
        let (Some(given), (Some(start), end)) = (given, span) else { return };
        let span = Span { start, end: end.unwrap_or(i64::MAX), limit: given.limit.max(1), name };
        self.0.entry((kind, group.to_owned())).or_default().push(span);
    }

    /// G1: no more members ran than the last one that started allows.
    fn check(&self, findings: &mut Findings) {
        for ((kind, group), spans) in &self.0 {
            for span in spans {
                // Ends before starts: the commit that ends one starts the next. Of those that start together, the ones with
                // smaller limits may have been first.
                let at_start = spans.iter().filter(|other| {
                    let is_before =
                        other.start < span.start || other.start == span.start && other.limit <= span.limit;
                    is_before && span.start < other.end
                });
                let running = at_start.clone().filter(|other| other.name != span.name).count() + 1;
                if running > usize::try_from(span.limit).unwrap_or(0) {
                    let names: Vec<_> = at_start.map(|other| other.name.as_str()).collect();
                    let why = format!("G1: {kind} group {group} was held by {}", names.join(", "));
                    findings.violations.push(why);
                }
            }
        }
    }
}

/// Checks the groups of all workflows that there are. Returns the number of their members that have started as `attempts`.
pub async fn check(client: &Client) -> Result<Findings> {
    let (mut findings, mut groups) = (Findings::default(), Groups::default());
    let parent = rota_proto::names::namespace(NAMESPACE);
    for listed in client.all_workflows(&parent, v1::WorkflowFilter::default()).await? {
        let request = v1::GetWorkflowRequest { name: listed.name.clone() };
        let workflow = client.get_workflow(request).await?;
        let (spec, status) = (workflow.spec.unwrap_or_default(), workflow.status.unwrap_or_default());
        let steps = client.all_workflow_steps(&listed.name).await?;
        let start = steps.iter().filter_map(|step| step.start_time.as_ref()).map(micros_of).min();
        let end = status.end_time.as_ref().map(micros_of);
        let given = spec.concurrency.as_ref();
        groups.add("workflow", &status.concurrency_group, given, (start, end), listed.name.clone());
        for (step, given) in steps.iter().zip(spec.steps.iter().chain(&spec.finally)) {
            let span = (step.start_time.as_ref().map(micros_of), step.end_time.as_ref().map(micros_of));
            let name = format!("{}/{}", listed.name, step.name);
            groups.add("step", &step.concurrency_group, given.concurrency.as_ref(), span, name);
        }
    }
    findings.attempts = groups.0.values().map(Vec::len).sum();
    groups.check(&mut findings);
    Ok(findings)
}
