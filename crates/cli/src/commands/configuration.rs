//! `rota admin export-configuration` and `rota admin import-configuration`: what administrators have set, as one document with the
//! messages of the API. Values of secrets are not in it: the control plane returns none.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use pbjson_types::FieldMask;
use rota_proto::labels::CLUSTER;
use rota_proto::{names, v1};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::storage::{PartialFile, is_standard};
use super::workflow::read;
use super::{found, pairs};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Format of the document, which an import compares.
const FORMAT: &str = "rota.dev/configuration/v1";
/// Fields of an agent that an import replaces: all that an administrator sets.
const AGENT_FIELDS: [&str; 3] = ["labels", "spec", "spec.permission_rules"];

#[derive(Debug, Args)]
pub struct ExportConfiguration {
    /// File to create; `-` writes to the standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct ImportConfiguration {
    /// File of `rota admin export-configuration`; `-` reads the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Validate on the server, without changing anything
    #[arg(long)]
    dry_run: bool,
    /// Secret of the schedules that name it, taken from the environment of this command; may be repeated
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
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
    /// Reads everything that no cluster manages. Returns the number of objects that one does as well.
    async fn read(context: &Context) -> anyhow::Result<(Self, usize)> {
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
        for kind in client.all_task_kinds(&all).await? {
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
        Ok((whole, managed))
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
        let (whole, managed) = Configuration::read(context).await?;
        let mut text = serde_json::to_string_pretty(&whole)?;
        text.push('\n');
        if managed > 0 {
            context.reporter.line(&format!(
                "{managed} objects are left out: they are resources of a cluster, whose operator stores them again"
            ));
        }
        if is_standard(&self.file) {
            context.out.bytes(text.as_bytes()).context("failed to write the configuration")?;
            return Ok(Exit::Ok);
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
                let done = json!({ "file": self.file, "objects": whole.len(), "managedByClusters": managed });
                context.out.value(&done)?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl ImportConfiguration {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let secrets = pairs::from_environment(&self.secret_env)?;
        let whole = Configuration::parse(&self.file.display().to_string(), &read(&self.file)?)?;
        let (client, count) = (&context.client, whole.len());
        let failed = |name: &str| format!("failed to import {name}");
        // Its call has no dry run.
        for budget in whole.budgets.into_iter().filter(|_| !self.dry_run) {
            let name = budget.name.clone();
            client.set_namespace_budget(budget).await.with_context(|| failed(&name))?;
        }
        for agent in whole.agents {
            let name = agent.name.clone();
            let request = v1::UpdateAgentRequest {
                agent: Some(agent),
                update_mask: Some(FieldMask { paths: AGENT_FIELDS.map(str::to_owned).to_vec() }),
                allow_missing: true,
                validate_only: self.dry_run,
                ..Default::default()
            };
            Box::pin(client.update_agent(request)).await.with_context(|| failed(&name))?;
        }
        for kind in whole.kinds {
            let name = kind.name.clone();
            let (task_kind, validate_only) = (Some(kind), self.dry_run);
            let request = v1::PutTaskKindRequest { task_kind, validate_only, ..Default::default() };
            Box::pin(client.put_task_kind(request)).await.with_context(|| failed(&name))?;
        }
        for template in whole.templates {
            let name = template.name.clone();
            let request = v1::UpdateWorkflowTemplateRequest {
                workflow_template: Some(template),
                allow_missing: true,
                validate_only: self.dry_run,
                ..Default::default()
            };
            Box::pin(client.update_workflow_template(request)).await.with_context(|| failed(&name))?;
        }
        for schedule in whole.schedules {
            let name = schedule.name.clone();
            let imported = Box::pin(import_schedule(context, schedule, &secrets, self.dry_run)).await;
            imported.with_context(|| failed(&name))?;
        }
        let file = self.file.display();
        match (context.out.is_human(), self.dry_run) {
            (true, false) => context.out.line(&format!("{file}: {count} objects imported"))?,
            (true, true) => context.out.line(&format!("{file}: {count} objects would be imported"))?,
            (false, _) => context.out.value(&json!({ "file": self.file, "objects": count }))?,
        }
        Ok(Exit::Ok)
    }
}

/// Creates or replaces a schedule. One that is the same already keeps its secrets, and one that would lose them is left as it is; a new
/// one without a value for a secret is paused.
async fn import_schedule(
    context: &Context,
    mut schedule: v1::Schedule,
    secrets: &BTreeMap<String, String>,
    validate_only: bool,
) -> anyhow::Result<()> {
    let request = v1::GetScheduleRequest { name: schedule.name.clone() };
    let known = found(context.client.get_schedule(request).await)?;
    let is_same = known
        .as_ref()
        .is_some_and(|known| (&known.spec, &known.labels) == (&schedule.spec, &schedule.labels));
    let named = secret_names(&schedule);
    if is_same && !named.iter().any(|name| secrets.contains_key(name)) {
        return Ok(());
    }
    let (given, missing): (Vec<_>, Vec<_>) = named.into_iter().partition(|name| secrets.contains_key(name));
    let stored = known.as_ref().map(secret_names).unwrap_or_default();
    let lost: Vec<_> = missing.iter().filter(|name| stored.contains(name)).map(String::as_str).collect();
    if !lost.is_empty() {
        context.reporter.warn(&format!(
            "{} is left as it is, since it would lose its secrets: import it again with --secret-env {}",
            schedule.name,
            lost.join(" --secret-env ")
        ));
        return Ok(());
    }
    if let Some(spec) = &mut schedule.spec {
        if let Some(task) = spec.task.as_mut().and_then(|task| task.spec.as_mut()) {
            task.secret_names.clear();
            task.secrets = given.into_iter().map(|name| (name.clone(), secrets[&name].clone())).collect();
        }
        if !missing.is_empty() {
            // Its tasks would run without them.
            spec.paused = Some(true);
            context.reporter.warn(&format!(
                "{} is paused, since the file has no values of secrets: import it again with --secret-env {}",
                schedule.name,
                missing.join(" --secret-env ")
            ));
        }
    }
    let schedule = Some(schedule);
    let request =
        v1::UpdateScheduleRequest { schedule, allow_missing: true, validate_only, ..Default::default() };
    context.client.update_schedule(request).await?;
    Ok(())
}

/// Returns the names of the secrets of a schedule's task.
fn secret_names(schedule: &v1::Schedule) -> Vec<String> {
    let task = schedule.spec.as_ref().and_then(|spec| spec.task.as_ref());
    task.and_then(|task| task.spec.as_ref()).map(|spec| spec.secret_names.clone()).unwrap_or_default()
}
