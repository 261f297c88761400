//! `rota workflow graph`: the steps of a workflow as a picture, with their states.

mod document;
mod expand;
mod picture;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rota_proto::{names, v1};

use self::expand::Tree;
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
    /// Draw the steps of workflows that are steps, too: up to 4 within each other, with up to 1000 steps together; text and SVG draw up to 200
    #[arg(long)]
    expand: bool,
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
        let mut tree = Tree::new(spec, steps);
        if self.expand {
            tree.expand(context).await?;
        }
        let graph = Graph::new(&tree)?;
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
    Ok(picture::text(&Graph::new(&Tree::new(spec.clone(), Vec::new()))?))
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

/// Nodes with which a workflow begins and ends.
#[derive(Default)]
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Graph {
    fn new(tree: &Tree) -> Result<Self, Failure> {
        let mut graph = Self { nodes: Vec::new(), edges: Vec::new() };
        graph.add("", tree)?;
        Ok(graph)
    }

    /// Adds the steps of a workflow, whose names begin with the path to it. A step whose workflow is drawn comes before that.
    fn add(&mut self, path: &str, tree: &Tree) -> Result<Ends, Failure> {
        let (mut positions, mut entries, mut exits) = (HashMap::new(), Vec::new(), Vec::new());
        for (position, step) in tree.steps().enumerate() {
            // Then it needs no escapes in any format.
            if !rota_core::ids::is_step_name(&step.name) {
                return Err(Failure::usage(format!("{:?} is not the name of a step", step.name)));
            }
            if positions.insert(step.name.as_str(), position).is_some() {
                return Err(Failure::usage(format!("two steps have the name {}", step.name)));
            }
            let node = self.nodes.len();
            self.nodes.push(Node::new(path, step, tree.states.get(position)));
            entries.push(node);
            let below = match tree.below.get(&position) {
                Some(below) => self.add(&format!("{path}{}/", step.name), below)?,
                None => Ends::default(),
            };
            self.edges.extend(below.first.into_iter().map(|to| Edge { from: node, to, finally: false }));
            exits.push(if below.last.is_empty() { vec![node] } else { below.last });
        }
        let (main, mut is_last) = (tree.spec.steps.len(), vec![true; exits.len()]);
        for (step, to) in tree.steps().zip(&entries) {
            for need in &step.needs {
                let missing = || {
                    Failure::usage(format!("step {} needs {:?}, which does not exist", step.name, need.step))
                };
                let from = *positions.get(need.step.as_str()).ok_or_else(missing)?;
                let edge = |from: &usize| Edge { from: *from, to: *to, finally: false };
                self.edges.extend(exits.get(from).into_iter().flatten().map(edge));
                if let Some(is_last) = is_last.get_mut(from) {
                    *is_last = false;
                }
            }
        }
        let ends = |range: std::ops::Range<usize>| -> Vec<usize> {
            range
                .filter(|at| is_last.get(*at) == Some(&true))
                .filter_map(|at| exits.get(at))
                .flatten()
                .copied()
                .collect()
        };
        let lasts = ends(0..main);
        let finals = (main..).zip(&tree.spec.finally).filter(|(_, step)| step.needs.is_empty());
        for to in finals.filter_map(|(at, _)| entries.get(at)) {
            self.edges.extend(lasts.iter().map(|from| Edge { from: *from, to: *to, finally: true }));
        }
        let first = tree.spec.steps.iter().zip(&entries).filter(|(step, _)| step.needs.is_empty());
        let first = first.map(|(_, node)| *node).collect();
        let last = if tree.spec.finally.is_empty() { lasts } else { ends(main..exits.len()) };
        Ok(Ends { first, last })
    }
}

impl Node {
    fn new(path: &str, step: &v1::WorkflowStep, status: Option<&v1::StepStatus>) -> Self {
        let name = format!("{path}{}", step.name);
        if let Some(status) = status {
            let (state, paint) = show::step_state(status.state());
            let tasks = match status.tasks_total {
                0 | 1 => String::new(),
                total => format!(" {}/{total}", status.tasks_succeeded + status.tasks_failed),
            };
            let reused = if status.reused { ", reused" } else { "" };
            return Self { label: format!("{name}: {}{tasks}{reused}", state.to_lowercase()), paint };
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
        Self { label: format!("{name}{kind}"), paint: Paint::Plain }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> v1::WorkflowSpec {
        serde_json::from_value(serde_saphyr::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn expanded_steps_are_between_what_they_need_and_what_needs_them() {
        let outer = "steps:
- {name: plan, task: {prompt: x}}
- {name: deploy, needs: [{step: plan}], workflow: {template: deploy}}
- {name: report, needs: [{step: deploy}], task: {prompt: x}}
finally: [{name: clean, task: {prompt: x}}]
";
        let inner = "steps:
- {name: build, task: {prompt: x}}
- {name: test, task: {prompt: x}}
finally: [{name: tidy, task: {prompt: x}}]
";
        let mut tree = Tree::new(spec(outer), Vec::new());
        tree.below.insert(1, Tree::new(spec(inner), Vec::new()));
        let graph = Graph::new(&tree).unwrap();
        let label = |at: usize| graph.nodes[at].label.as_str();
        let mut edges: Vec<_> = graph
            .edges
            .iter()
            .map(|edge| {
                format!("{} {} {}", label(edge.from), if edge.finally { "~" } else { ">" }, label(edge.to))
            })
            .collect();
        edges.sort_unstable();
        let expected = [
            "deploy (workflow) > deploy/build",
            "deploy (workflow) > deploy/test",
            "deploy/build ~ deploy/tidy",
            "deploy/test ~ deploy/tidy",
            "deploy/tidy > report",
            "plan > deploy (workflow)",
            "report ~ clean",
        ];
        assert_eq!(edges, expected);
        let drawn = document::mermaid(&graph);
        assert!(drawn.contains(r#"s2["deploy/build"]"#), "{drawn}");
    }
}
