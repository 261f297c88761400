//! `rota workflow graph`: the steps of a workflow as a picture, with their states.

mod document;
mod picture;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rota_proto::{names, v1};

use super::{create, show};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Paint;

/// Steps that a picture may have: beyond, lines cross more often than they help.
const MAX_DRAWN: usize = 200;

#[derive(Debug, Args)]
pub(super) struct Draw {
    /// Id or alias of a workflow, whose steps are drawn with their states
    #[arg(value_name = "WORKFLOW", required_unless_present = "file", conflicts_with = "file")]
    workflow: Option<String>,
    /// Specification of a workflow or a template as YAML or JSON, without a control plane; `-` reads it from standard input
    #[arg(long = "filename", short, value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// Language or form of the picture
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Boxes of characters for a terminal
    Text,
    /// Text for pages in Markdown: https://mermaid.js.org
    Mermaid,
    /// Text that Graphviz draws: https://graphviz.org
    Dot,
    /// Picture that a browser shows
    Svg,
}

impl Draw {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let (spec, steps) = match (&self.file, &self.workflow) {
            (None, Some(workflow)) => {
                let name = names::workflow(&context.namespace, workflow);
                let request = v1::GetWorkflowRequest { name: name.clone() };
                let workflow = Box::pin(context.client.get_workflow(request)).await?;
                (workflow.spec.unwrap_or_default(), context.client.all_workflow_steps(&name).await?)
            }
            (file, _) => (create::read_spec(file.as_deref().unwrap_or("-".as_ref()))?, Vec::new()),
        };
        let graph = Graph::new(&spec, &steps)?;
        if matches!(self.format, Format::Text | Format::Svg) && graph.nodes.len() > MAX_DRAWN {
            let text = format!("{} steps are too many to draw: at most {MAX_DRAWN}", graph.nodes.len());
            return Err(Failure::usage(text).hint("`--format dot` has no limit").into());
        }
        context.out.text(&match self.format {
            Format::Text => picture::text(&graph),
            Format::Svg => picture::svg(&graph),
            Format::Mermaid => document::mermaid(&graph),
            Format::Dot => document::dot(&graph),
        })?;
        Ok(Exit::Ok)
    }
}

/// Returns a picture of the steps of a workflow for a terminal.
pub(in crate::commands) fn draw(spec: &v1::WorkflowSpec) -> Result<String, Failure> {
    Ok(picture::text(&Graph::new(spec, &[])?))
}

/// Steps, and which must end before which.
struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

struct Node {
    /// Name, and what kind of step it is or which state it has.
    label: String,
    paint: Paint,
}

/// Line between two nodes, by their positions.
struct Edge {
    from: usize,
    to: usize,
    /// Whether it leads to a finally-step, which follows whatever the outcome.
    finally: bool,
}

impl Graph {
    fn new(spec: &v1::WorkflowSpec, status: &[v1::StepStatus]) -> Result<Self, Failure> {
        let steps = || spec.steps.iter().chain(&spec.finally);
        let mut positions = HashMap::new();
        for (position, step) in steps().enumerate() {
            // Then it needs no escapes in any format.
            if !rota_core::ids::is_step_name(&step.name) {
                return Err(Failure::usage(format!("{:?} is not the name of a step", step.name)));
            }
            if positions.insert(step.name.as_str(), position).is_some() {
                return Err(Failure::usage(format!("two steps have the name {}", step.name)));
            }
        }
        let (mut edges, mut is_last) = (Vec::new(), vec![true; spec.steps.len()]);
        for (to, step) in steps().enumerate() {
            for need in &step.needs {
                let missing = || {
                    Failure::usage(format!("step {} needs {:?}, which does not exist", step.name, need.step))
                };
                let from = *positions.get(need.step.as_str()).ok_or_else(missing)?;
                edges.push(Edge { from, to, finally: false });
                if let Some(is_last) = is_last.get_mut(from) {
                    *is_last = false;
                }
            }
        }
        let firsts = (spec.steps.len()..).zip(&spec.finally).filter(|(_, step)| step.needs.is_empty());
        for (to, _) in firsts {
            let lasts = is_last.iter().enumerate().filter(|(_, is_last)| **is_last);
            edges.extend(lasts.map(|(from, _)| Edge { from, to, finally: true }));
        }
        let nodes =
            steps().enumerate().map(|(position, step)| Node::new(step, status.get(position))).collect();
        Ok(Self { nodes, edges })
    }
}

impl Node {
    fn new(step: &v1::WorkflowStep, status: Option<&v1::StepStatus>) -> Self {
        if let Some(status) = status {
            let (state, paint) = show::step_state(status.state());
            let tasks = match status.tasks_total {
                0 | 1 => String::new(),
                total => format!(" {}/{total}", status.tasks_succeeded + status.tasks_failed),
            };
            let reused = if status.reused { ", reused" } else { "" };
            return Self { label: format!("{}: {}{tasks}{reused}", step.name, state.to_lowercase()), paint };
        }
        let kind = match &step.kind {
            Some(v1::workflow_step::Kind::Approval(_)) => " (approval)",
            Some(v1::workflow_step::Kind::Wait(_)) => " (wait)",
            Some(v1::workflow_step::Kind::Workflow(_)) if step.for_each.is_some() => " (workflow for each)",
            Some(v1::workflow_step::Kind::Workflow(_)) => " (workflow)",
            Some(v1::workflow_step::Kind::Merge(_)) => " (merge)",
            _ if step.for_each.is_some() => " (for each)",
            _ if step.repeat.is_some() => " (repeat)",
            _ => "",
        };
        Self { label: format!("{}{kind}", step.name), paint: Paint::Plain }
    }
}

/// Returns the color of a box, as 0xRRGGBB.
fn fill(paint: Paint) -> u32 {
    match paint {
        Paint::Good => 0x00d3_f0da,
        Paint::Bad => 0x00f8_d0cf,
        Paint::Busy => 0x00d2_e5fa,
        Paint::Waiting => 0x00fa_eac0,
        Paint::Faint => 0x00ee_eeee,
        Paint::Plain => 0x00ff_ffff,
    }
}
