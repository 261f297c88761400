//! The graph of a new workflow: names, needs, cycles, and which steps others may read.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use rota_expressions::References;
use rota_proto::v1::{self, OnStepFailure};
use tonic::Status;

use super::super::check;
use super::super::status::invalid;

/// Most steps that are visited to find out what the steps of a workflow may read.
const MAX_VISITS: usize = 5_000_000;
/// Longest name of a step; unknown names that are longer are compared with none.
const MAX_NAME: usize = 63;
/// Most names of a cycle in an error.
const MAX_NAMES: usize = 10;

pub(super) struct Graph {
    names: Vec<String>,
    by_name: HashMap<String, u32>,
    needs: Vec<Vec<u32>>,
    dependents: Vec<bool>,
    /// Policies of the needs of a step by those that have it: what its failure means to them.
    policies: Vec<Vec<OnStepFailure>>,
    finals: Range<usize>,
    visits: std::cell::Cell<usize>,
}

impl Graph {
    /// Checks names and needs of the steps, of which `finals` are finally-steps, and one behind them is to be added.
    pub(super) fn new(steps: &[v1::WorkflowStep], finals: Range<usize>) -> Result<Self, Status> {
        let mut graph = Self {
            names: steps.iter().map(|step| step.name.clone()).collect(),
            by_name: HashMap::new(),
            needs: Vec::with_capacity(steps.len()),
            dependents: vec![false; steps.len()],
            policies: vec![Vec::new(); steps.len()],
            finals,
            visits: std::cell::Cell::new(0),
        };
        for (index, step) in steps.iter().enumerate() {
            let field = format!("{}.name", graph.field(index));
            if !rota_core::ids::is_step_name(&step.name) {
                let why = "is not a step's name: use up to 63 letters, digits, '-' and '_', and begin with a letter";
                return Err(invalid(field, format!("{:?} {why}", check::shorten(&step.name))));
            }
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if graph.by_name.insert(step.name.clone(), index).is_some() {
                return Err(invalid(field, format!("{:?} is the name of another step, too", step.name)));
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let mut needs = Vec::with_capacity(step.needs.len());
            for (place, need) in step.needs.iter().enumerate() {
                let field = format!("{}.needs[{place}]", graph.field(index));
                let needed = graph.find(&field, &need.step)?;
                let at = needed as usize;
                if graph.is_finally(at) != graph.is_finally(index) {
                    let why = "finally-steps and other steps cannot need each other";
                    return Err(invalid(field, why));
                }
                if needs.contains(&needed) {
                    return Err(invalid(field, format!("{:?} is named twice", need.step)));
                }
                if need.on_failure() == OnStepFailure::Compensate {
                    let why = "COMPENSATE is for a whole workflow: for a part of one, make that part a workflow as a step";
                    return Err(invalid(format!("{field}.on_failure"), why));
                }
                graph.dependents[at] = true;
                graph.policies[at].push(need.on_failure());
                needs.push(needed);
            }
            graph.needs.push(needs);
        }
        graph.check_cycles()?;
        Ok(graph)
    }

    fn check_cycles(&self) -> Result<(), Status> {
        let mut edges = DiGraph::<(), ()>::with_capacity(self.names.len(), 0);
        for _ in &self.names {
            edges.add_node(());
        }
        for (index, needs) in self.needs.iter().enumerate() {
            for needed in needs {
                edges.add_edge(NodeIndex::new(*needed as usize), NodeIndex::new(index), ());
            }
        }
        if toposort(&edges, None).is_ok() {
            return Ok(());
        }
        let is_cycle = |part: &Vec<NodeIndex>| {
            part.len() > 1 || part.iter().any(|node| edges.contains_edge(*node, *node))
        };
        let cycle = tarjan_scc(&edges).into_iter().filter(is_cycle).min_by_key(Vec::len).unwrap_or_default();
        let names: Vec<_> = cycle
            .iter()
            .take(MAX_NAMES)
            .filter_map(|node| self.names.get(node.index()))
            .map(String::as_str)
            .collect();
        let more = if cycle.len() > MAX_NAMES { " and others" } else { "" };
        Err(invalid("workflow.spec.steps", format!("steps need each other: {}{more}", names.join(", "))))
    }

    pub(super) fn is_finally(&self, index: usize) -> bool {
        self.finals.contains(&index)
    }

    /// Whether the failure of a step stops the workflow: if a step that needs it has that policy, or if no step needs it while the
    /// workflow has it.
    pub(super) fn stops(&self, index: usize, policy: OnStepFailure) -> bool {
        let stops = |policy: OnStepFailure| matches!(policy, OnStepFailure::Stop | OnStepFailure::Compensate);
        let effective = |own: &OnStepFailure| if *own == OnStepFailure::Unspecified { policy } else { *own };
        let policies = self.policies.get(index).map(Vec::as_slice).unwrap_or_default();
        let is_leaf = policies.is_empty() && stops(policy);
        !self.is_finally(index) && (is_leaf || policies.iter().map(effective).any(stops))
    }

    /// Returns the path of a step in the request.
    pub(super) fn field(&self, index: usize) -> String {
        match index.checked_sub(self.finals.start) {
            None => format!("workflow.spec.steps[{index}]"),
            Some(_) if index >= self.finals.end => "step".to_owned(),
            Some(index) => format!("workflow.spec.finally[{index}]"),
        }
    }

    pub(super) fn needs(&self, index: usize) -> &[u32] {
        self.needs.get(index).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn has_dependents(&self, index: usize) -> bool {
        self.dependents.get(index).copied().unwrap_or_default()
    }

    fn find(&self, field: &str, name: &str) -> Result<u32, Status> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let distance = |other: &&String| strsim::damerau_levenshtein(name, other);
            let names = self.names.iter().take(if name.len() > MAX_NAME { 0 } else { 1000 });
            let similar = names.min_by_key(distance).filter(|other| distance(other) <= 3);
            let hint = similar.map(|similar| format!("; did you mean {similar:?}?")).unwrap_or_default();
            invalid(field, format!("step {:?} does not exist{hint}", check::shorten(name)))
        })
    }

    /// Returns the indexes of the steps that expressions read. A step, given with whether it may read itself, reads those that
    /// it needs, directly or through others; finally-steps read all that are none as well.
    pub(super) fn resolve(
        &self,
        field: &str,
        used: &References,
        reader: Option<(usize, bool)>,
    ) -> Result<BTreeMap<String, u32>, Status> {
        if used.all_steps {
            return Err(invalid(field, "`steps` must be followed by the name of a step"));
        }
        let mut seen = BTreeMap::new();
        for name in &used.steps {
            let step = self.find(field, name)?;
            let may = match reader {
                None => true,
                Some((reader, itself)) => {
                    itself && reader == step as usize
                        || self.is_finally(reader) && !self.is_finally(step as usize)
                        || self.reaches(field, reader, step)?
                }
            };
            if !may {
                return Err(invalid(
                    field,
                    format!("reads step {name:?} without needing it: add it to needs"),
                ));
            }
            seen.insert(name.clone(), step);
        }
        Ok(seen)
    }

    fn reaches(&self, field: &str, from: usize, to: u32) -> Result<bool, Status> {
        let mut open = self.needs(from).to_vec();
        let mut visited: std::collections::HashSet<u32> = open.iter().copied().collect();
        while let Some(step) = open.pop() {
            if step == to {
                return Ok(true);
            }
            self.visits.set(self.visits.get() + 1);
            if self.visits.get() > MAX_VISITS {
                return Err(invalid(
                    field,
                    "has too many indirect needs: name the steps that are read in needs",
                ));
            }
            open.extend(self.needs(step as usize).iter().copied().filter(|next| visited.insert(*next)));
        }
        Ok(false)
    }
}
