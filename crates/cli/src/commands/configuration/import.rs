//! `rota admin import-configuration`: object by object. One that is refused does not keep the others from being imported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use pbjson_types::FieldMask;
use rota_client::{Code, Error};
use rota_proto::{names, v1};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::workflow::read;
use super::super::{found, pairs};
use super::Configuration;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Table;

/// Fields of an agent that an import replaces: all that an administrator sets.
const AGENT_FIELDS: [&str; 3] = ["labels", "spec", "spec.permission_rules"];

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

/// An object that was left out.
#[derive(Debug, Serialize)]
struct Refused {
    name: String,
    message: String,
}

struct Import<'a> {
    context: &'a Context,
    secrets: BTreeMap<String, String>,
    dry_run: bool,
    /// Objects of the file that the control plane does not have: those of a dry run that others may name.
    new: BTreeSet<String>,
    refused: Vec<Refused>,
    /// Objects that were not refused.
    done: usize,
}

impl ImportConfiguration {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let secrets = pairs::from_environment(&self.secret_env)?;
        let whole = Configuration::parse(&self.file.display().to_string(), &read(&self.file)?)?;
        let dry_run = self.dry_run;
        let new = if dry_run { new_objects(context, &whole).await? } else { BTreeSet::new() };
        let mut import = Import { context, secrets, dry_run, new, refused: Vec::new(), done: 0 };
        let ended = import.all(whole).await;
        let (file, refused, done) = (self.file.display(), import.refused, import.done);
        if !context.out.is_human() {
            context.out.value(&json!({ "file": self.file, "objects": done, "refused": refused }))?;
        } else {
            let would = if dry_run { "would be " } else { "" };
            let but = if refused.is_empty() { String::new() } else { format!(", {} refused", refused.len()) };
            context.out.line(&format!("{file}: {done} objects {would}imported{but}"))?;
            let mut table = Table::new(&["REFUSED", "REASON"]);
            for Refused { name, message } in &refused {
                table.row([name.as_str(), message.as_str()]);
            }
            context.out.table(&table)?;
        }
        ended?;
        Ok(if refused.is_empty() { Exit::Ok } else { Exit::Failed })
    }
}

/// Returns the names of agents, kinds and templates of a file that the control plane does not have. Reads no other namespaces, which
/// an administrator of these may not.
async fn new_objects(context: &Context, file: &Configuration) -> anyhow::Result<BTreeSet<String>> {
    let agents = file.agents.iter().map(|agent| &agent.name);
    let kinds = file.kinds.iter().map(|kind| &kind.name);
    let templates = file.templates.iter().map(|template| &template.name);
    let named: BTreeSet<_> = agents.chain(kinds).chain(templates).cloned().collect();
    let namespaces: BTreeSet<_> = named.iter().filter_map(|name| name.split('/').nth(1)).collect();
    let mut known = BTreeSet::new();
    for namespace in namespaces {
        match known_objects(context, &names::namespace(namespace)).await {
            Ok(found) => known.extend(found),
            // The import names what has an impossible name, and nothing is known of what is damaged.
            Err(error) if [Code::InvalidArgument, Code::DataLoss].contains(&error.code) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(named.into_iter().filter(|name| !known.contains(name)).collect())
}

/// Returns the names of agents, kinds and templates of a namespace.
async fn known_objects(context: &Context, namespace: &str) -> Result<Vec<String>, Error> {
    let client = &context.client;
    let (kinds, mut known) = client.all_kinds(namespace).await?;
    known.extend(kinds.into_iter().map(|kind| kind.name));
    known.extend(client.all_agents(namespace).await?.into_iter().map(|agent| agent.name));
    known.extend(client.all_workflow_templates(namespace).await?.into_iter().map(|template| template.name));
    Ok(known)
}

impl Import<'_> {
    async fn all(&mut self, whole: Configuration) -> anyhow::Result<()> {
        let context = self.context;
        let (client, validate_only) = (&context.client, self.dry_run);
        for budget in whole.budgets {
            // Its call has no dry run.
            if validate_only {
                self.done += 1;
                continue;
            }
            let name = budget.name.clone();
            let answer = client.set_namespace_budget(budget).await;
            self.note(name, None, answer)?;
        }
        for agent in whole.agents {
            let (name, needed) = (agent.name.clone(), self.needed(&agent.name, &agent)?);
            let request = v1::UpdateAgentRequest {
                agent: Some(agent),
                update_mask: Some(FieldMask { paths: AGENT_FIELDS.map(str::to_owned).to_vec() }),
                allow_missing: true,
                validate_only,
                ..Default::default()
            };
            let answer = Box::pin(client.update_agent(request)).await;
            self.note(name, needed, answer)?;
        }
        for kind in whole.kinds {
            let (name, needed) = (kind.name.clone(), self.needed(&kind.name, &kind)?);
            let request =
                v1::PutTaskKindRequest { task_kind: Some(kind), validate_only, ..Default::default() };
            let answer = Box::pin(client.put_task_kind(request)).await;
            self.note(name, needed, answer)?;
        }
        for template in whole.templates {
            let (name, needed) = (template.name.clone(), self.needed(&template.name, &template)?);
            let request = v1::UpdateWorkflowTemplateRequest {
                workflow_template: Some(template),
                allow_missing: true,
                validate_only,
                ..Default::default()
            };
            let answer = Box::pin(client.update_workflow_template(request)).await;
            self.note(name, needed, answer)?;
        }
        for schedule in whole.schedules {
            let (name, needed) = (schedule.name.clone(), self.needed(&schedule.name, &schedule)?);
            let answer = Box::pin(self.schedule(schedule)).await;
            self.note(name, needed, answer)?;
        }
        Ok(())
    }

    /// Notes an object that was refused. Fails if the others would be, too.
    fn note<T>(
        &mut self,
        name: String,
        needed: Option<String>,
        answer: Result<T, Error>,
    ) -> anyhow::Result<()> {
        let Err(error) = answer else {
            self.done += 1;
            return Ok(());
        };
        let denied = [Code::Unavailable, Code::Unauthenticated, Code::PermissionDenied];
        if error.lost || denied.contains(&error.code) {
            return Err(anyhow::Error::from(error).context(format!("failed to import {name}")));
        }
        match needed {
            Some(needed) => {
                self.done += 1;
                let why = format!("it needs {needed}, which only the file has");
                self.context.reporter.note("note", &format!("{name} is checked by the import alone: {why}"));
            }
            None => self.refused.push(Refused { name, message: error.message }),
        }
        Ok(())
    }

    /// Returns an object that another one names, and that only the file has.
    fn needed(&self, name: &str, object: &impl Serialize) -> anyhow::Result<Option<String>> {
        let Some(namespace) = name.split('/').nth(1).filter(|_| !self.new.is_empty()) else {
            return Ok(None);
        };
        let mut named = Vec::new();
        collect_names(&serde_json::to_value(object)?, namespace, &mut named);
        Ok(named.into_iter().find(|one| self.new.contains(one)))
    }

    /// Creates or replaces a schedule. One that is the same already keeps its secrets, and one that would lose them is left as it is; a new
    /// one without a value for a secret is paused.
    async fn schedule(&self, mut schedule: v1::Schedule) -> Result<(), Error> {
        let Self { context, secrets, dry_run, .. } = self;
        let validate_only = *dry_run;
        let request = v1::GetScheduleRequest { name: schedule.name.clone() };
        let known = found(context.client.get_schedule(request).await)?;
        let is_same = known
            .as_ref()
            .is_some_and(|known| (&known.spec, &known.labels) == (&schedule.spec, &schedule.labels));
        let named = secret_names(&schedule);
        if is_same && !named.iter().any(|name| secrets.contains_key(name)) {
            return Ok(());
        }
        let (given, missing): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|name| secrets.contains_key(name));
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
}

/// Adds the names of all agents, kinds and templates that an object names.
fn collect_names(value: &Value, namespace: &str, named: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    ("agent", Some(agent)) => named.push(names::agent(namespace, agent)),
                    ("kind", Some(kind)) => named.push(names::kind(namespace, kind)),
                    ("template", Some(template)) => {
                        // Perhaps with a version.
                        let template = template.split('@').next().unwrap_or(template);
                        named.push(names::template(namespace, template));
                    }
                    _ => collect_names(value, namespace, named),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, namespace, named)),
        _ => {}
    }
}

/// Returns the names of the secrets of a schedule's task.
fn secret_names(schedule: &v1::Schedule) -> Vec<String> {
    let task = schedule.spec.as_ref().and_then(|spec| spec.task.as_ref());
    task.and_then(|task| task.spec.as_ref()).map(|spec| spec.secret_names.clone()).unwrap_or_default()
}
