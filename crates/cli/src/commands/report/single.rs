//! Statistics of one task: attempts, tools, usage. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rota_proto::v1::{Event, Task, Usage};
use serde::Serialize;

use super::section::Section;
use crate::commands::describe::flow::{ApiDuration, Flow};
use crate::output::{duration, first_line, money};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(flatten)]
    flow: Flow,
    attempts: Vec<Attempt>,
    tools: Vec<Tool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    attempt: i32,
    worker: String,
    ran: ApiDuration,
    /// Kind of the step that ended it; empty while it runs.
    end: &'static str,
    why: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tool {
    tool: String,
    calls: u64,
    failed: u64,
    took: ApiDuration,
}

impl Report {
    pub fn of(task: &Task, events: &[Event], now: SystemTime) -> Self {
        let flow = Flow::of(task, events, now);
        let mut attempts = Vec::new();
        let mut tools: BTreeMap<&str, Tool> = BTreeMap::new();
        for (at, step) in flow.steps.iter().enumerate() {
            match step.kind {
                "running" => {
                    let ended = flow.steps[at + 1..].iter().find(|next| {
                        matches!(
                            next.kind,
                            "retry"
                                | "worker_lost"
                                | "handed_back"
                                | "succeeded"
                                | "failed"
                                | "cancelled"
                                | "waits"
                        )
                    });
                    attempts.push(Attempt {
                        attempt: step.attempt,
                        worker: step.worker.clone(),
                        ran: step.took.unwrap_or_default(),
                        end: ended.map_or("", |step| step.kind),
                        why: ended.map_or_else(String::new, |step| step.text.clone()),
                    });
                }
                "tool" => {
                    let name = step.tool.as_str();
                    let tool = tools
                        .entry(name)
                        .or_insert_with(|| Tool { tool: name.to_owned(), ..Tool::default() });
                    tool.calls += 1;
                    tool.failed += u64::from(step.has_failed());
                    tool.took.0 += step.took.map_or(Duration::ZERO, |span| span.0);
                }
                _ => {}
            }
        }
        let tools = tools.into_values().collect();
        let usage = task.status.as_ref().and_then(|status| status.usage.clone());
        Self { attempts, tools, usage, flow }
    }

    pub fn title(&self) -> String {
        self.flow.headline()
    }

    pub fn sections(&self) -> Vec<Section> {
        let attempts = self.attempts.iter().map(|one| {
            let end = if one.end.is_empty() { "running" } else { one.end };
            let end = end.replace('_', " ");
            vec![
                one.attempt.to_string(),
                one.worker.clone(),
                duration(one.ran.0),
                end,
                first_line(&one.why, 100),
            ]
        });
        let tools = self.tools.iter().map(|one| {
            vec![one.tool.clone(), one.calls.to_string(), one.failed.to_string(), duration(one.took.0)]
        });
        let used = self.usage.iter().map(|usage| {
            let read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
            let turns = usage.turns.to_string();
            let cost = money(usage.cost_micro_usd);
            vec![usage.model.clone(), turns, read.to_string(), usage.output_tokens.to_string(), cost]
        });
        vec![
            Section::new("Attempts", &["ATTEMPT", "WORKER", "RAN", "END", "REASON"], attempts.collect()),
            Section::new("Tools", &["TOOL", "CALLS", "FAILED", "TOOK"], tools.collect()),
            Section::new("Usage", &["MODEL", "TURNS", "TOKENS IN", "TOKENS OUT", "COST"], used.collect()),
        ]
    }
}
