//! `cargo xtask docs` and `cargo xtask crds`: files generated from the code. Each page is a file of its own here that only
//! returns text; [`crate::generated`] writes or compares it.

mod api;
mod cli;
mod config;
mod errors;
mod failures;
mod manifests;
mod metrics;
mod schema;
mod table;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::generated::{self, Files};
use crate::{protos, workspace};

const FOLDER: &str = "docs/reference";
/// First line of every page.
const MARK: &str = "<!-- Written by `cargo xtask docs`. Do not edit. -->";
/// Where the definitions of custom resources are: for readers, and for the chart that installs them.
const CRD_FOLDERS: [&str; 2] = ["crds", "charts/rota-crds/files"];

/// Writes or compares the reference.
pub(crate) fn run(check: bool, rota: Option<PathBuf>) -> anyhow::Result<Vec<String>> {
    let rota = match rota {
        Some(rota) => std::path::absolute(rota)?,
        None => cli::build()?,
    };
    generated::sync(workspace::root(), &pages(&rota)?, Some(FOLDER), check)
}

/// Writes or compares the definitions of custom resources.
pub(crate) fn crds(check: bool) -> anyhow::Result<Vec<String>> {
    let mut files = Files::new();
    for definition in rota_crds::resource::definitions() {
        let name = definition.metadata.name.as_deref().context("a definition has no name")?;
        let text = rota_crds::resource::to_yaml(&definition).map_err(anyhow::Error::msg)?;
        for folder in CRD_FOLDERS {
            let text = format!("# Written by `cargo xtask crds`. Do not edit.\n{text}");
            files.insert(format!("{folder}/{name}.yaml"), text);
        }
    }
    generated::sync(workspace::root(), &files, None, check)
}

fn pages(rota: &Path) -> anyhow::Result<Files> {
    let pool = protos::pool()?;
    let mut pages: Vec<_> = api::pages(&pool).collect();
    pages.push(("cli.md", cli::page(rota).context("page of the command line")?));
    pages.push(("config.md", config::page(rota).context("page of the configuration")?));
    pages.push(("errors.md", errors::page()));
    pages.push(("failures.md", failures::page(&pool).context("page of failures")?));
    pages.push(("metrics.md", metrics::page()));
    pages.push(("manifests.md", manifests::page()?));
    pages.push(("agent.schema.json", manifests::schema::<rota_crds::Agent>()?));
    pages.push(("task.schema.json", manifests::schema::<rota_crds::Task>()?));
    pages.push(("openapi.json", serde_json::to_string_pretty(&rota_gateway::openapi()?)? + "\n"));
    pages.push(("schedule.schema.json", manifests::schema::<rota_crds::Schedule>()?));
    pages.push(("workflow.schema.json", manifests::schema::<rota_crds::Workflow>()?));
    pages.push(("workflowtemplate.schema.json", manifests::schema::<rota_crds::WorkflowTemplate>()?));
    pages.push(("README.md", index()));
    Ok(pages.into_iter().map(|(name, text)| (format!("{FOLDER}/{name}"), text)).collect())
}

fn index() -> String {
    format!(
        "{MARK}\n\n# Reference\n\nGenerated from the code by `make docs`; CI compares.\n\n\
         - [Command line](cli.md): all commands and options\n\
         - [Configuration](config.md): all keys with their defaults\n\
         - [API](api.md): services and messages of `rota.v1`\n\
         - [OpenAPI](openapi.json): the same over HTTP and JSON, in OpenAPI 3.1; see [HTTP API](../http-api.md)\n\
         - [Worker protocol](worker-protocol.md): the session between a worker and the control plane\n\
         - [Errors](errors.md): reasons of failed calls\n\
         - [Failures](failures.md): classes of failed attempts, and how each is handled\n\
         - [Metrics](metrics.md): metrics of the control plane\n\
         - [Manifests](manifests.md): `Agent`, `Task`, `Workflow`, `WorkflowTemplate` and `Schedule` as `rota apply` and `kubectl apply` take them; for editors as JSON\n  \
           schema: [agent](agent.schema.json), [task](task.schema.json), [workflow](workflow.schema.json),\n  \
           [workflowtemplate](workflowtemplate.schema.json), [schedule](schedule.schema.json)\n"
    )
}
