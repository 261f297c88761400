//! `rota admin export-configuration` and `rota admin import-configuration`: what administrators have set, as one document with the
//! messages of the API. Values of secrets are not in it: the control plane returns none.

mod import;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rota_proto::labels::CLUSTER;
use rota_proto::{names, v1};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::import::ImportConfiguration;
use super::found;
use super::storage::{PartialFile, is_standard};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Format of the document, which an import compares.
const FORMAT: &str = "rota.dev/configuration/v1";

#[derive(Debug, Args)]
pub struct ExportConfiguration {
    /// File to create; `-` writes to the standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Objects of all namespaces, without what the control plane adds to them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    format: String,
    /// Budgets of namespaces; that of an agent is a part of the agent.
    budgets: Vec<v1::SetNamespaceBudgetRequest>,
    agents: Vec<v1::Agent>,
    kinds: Vec<v1::TaskKind>,
    /// The newest version of each.
    templates: Vec<v1::WorkflowTemplate>,
    schedules: Vec<v1::Schedule>,
}

impl Configuration {
    /// Reads everything that no cluster manages. Returns the number of objects that one does as well, and the names of those that the
    /// control plane cannot read.
    async fn read(context: &Context) -> anyhow::Result<(Self, usize, Vec<String>)> {
        let (client, all) = (&context.client, names::namespace("-"));
        let mut managed = 0;
        let mut whole = Self { format: FORMAT.to_owned(), ..Self::default() };
        for status in client.all_budgets(&all).await? {
            if status.budget.is_some() && names::parse_namespace(&status.name).is_some() {
                let (name, budget) = (status.name, status.budget);
                whole.budgets.push(v1::SetNamespaceBudgetRequest { name, budget, ..Default::default() });
            }
        }
        for agent in own(client.all_agents(&all).await?, |agent| &agent.labels, &mut managed) {
            let v1::Agent { name, spec, labels, .. } = agent;
            whole.agents.push(v1::Agent { name, spec, labels, ..Default::default() });
        }
        let (kinds, damaged) = client.all_kinds(&all).await?;
        for kind in kinds {
            let v1::TaskKind { name, spec, .. } = kind;
            whole.kinds.push(v1::TaskKind { name, spec, ..Default::default() });
        }
        // Lists have neither the steps of templates nor the prompts of schedules.
        let templates = client.all_workflow_templates(&all).await?;
        for listed in own(templates, |template| &template.labels, &mut managed) {
            let request = v1::GetWorkflowTemplateRequest { name: listed.name, version: 0 };
            if let Some(template) = found(Box::pin(client.get_workflow_template(request)).await)? {
                let v1::WorkflowTemplate { name, labels, spec, .. } = template;
                whole.templates.push(v1::WorkflowTemplate { name, labels, spec, ..Default::default() });
            }
        }
        for listed in own(client.all_schedules(&all).await?, |schedule| &schedule.labels, &mut managed) {
            let request = v1::GetScheduleRequest { name: listed.name };
            if let Some(schedule) = found(Box::pin(client.get_schedule(request)).await)? {
                let v1::Schedule { name, labels, spec, .. } = schedule;
                whole.schedules.push(v1::Schedule { name, labels, spec, ..Default::default() });
            }
        }
        Ok((whole, managed, damaged))
    }

    fn parse(origin: &str, text: &str) -> Result<Self, Failure> {
        let invalid = |why: String| Failure::usage(format!("{origin} is not a configuration: {why}"));
        let whole: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        match whole.format == FORMAT {
            true => Ok(whole),
            false => Err(invalid(format!("its format is {:?}, not {FORMAT:?}", whole.format))),
        }
    }

    fn len(&self) -> usize {
        let Self { format: _, budgets, agents, kinds, templates, schedules } = self;
        budgets.len() + agents.len() + kinds.len() + templates.len() + schedules.len()
    }
}

/// Returns those that no cluster manages, and counts the others.
fn own<T>(all: Vec<T>, labels: impl Fn(&T) -> &BTreeMap<String, String>, managed: &mut usize) -> Vec<T> {
    let count = all.len();
    let own: Vec<_> = all.into_iter().filter(|one| !labels(one).contains_key(CLUSTER)).collect();
    *managed += count - own.len();
    own
}

impl ExportConfiguration {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let (whole, managed, damaged) = Configuration::read(context).await?;
        let mut text = serde_json::to_string_pretty(&whole)?;
        text.push('\n');
        if managed > 0 {
            context.reporter.line(&format!(
                "{managed} objects are left out: they are resources of a cluster, whose operator stores them again"
            ));
        }
        for name in &damaged {
            context.reporter.warn(&format!("{name} is left out: its record cannot be decoded"));
        }
        let exit = if damaged.is_empty() { Exit::Ok } else { Exit::Failed };
        if is_standard(&self.file) {
            context.out.bytes(text.as_bytes()).context("failed to write the configuration")?;
            return Ok(exit);
        }
        let mut partial = PartialFile::create(&self.file)?;
        let written = partial.file()?.write_all(text.as_bytes());
        written.with_context(|| format!("failed to write {}", self.file.display()))?;
        partial.complete()?;
        match context.out.is_human() {
            true => {
                context.out.line(&format!("{}: {} objects exported", self.file.display(), whole.len()))?;
            }
            false => {
                let done = json!({
                    "file": self.file, "objects": whole.len(), "managedByClusters": managed, "damaged": damaged,
                });
                context.out.value(&done)?;
            }
        }
        Ok(exit)
    }
}
