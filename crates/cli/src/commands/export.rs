//! `rota export`: writes all tasks that match a filter to standard output, as CSV or as one JSON document per line.

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rota_proto::v1::{ExportTasksRequest, TaskExportFormat};

use super::task_filter::TaskFilterArgs;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota export --since 30d > tasks.csv
  rota export --state failed --texts --format jsonl > failed.jsonl
  rota export --after 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40 >> tasks.csv

The newest tasks come first. An export that was interrupted continues with --after and the last task that it has completely: \
without the names of the columns.";

/// Export tasks as CSV or as JSON lines
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Export {
    /// Format of the rows that are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Include prompts and the texts of results
    #[arg(long)]
    pub texts: bool,
    /// Task after which an interrupted export continues: id, name, or the first column of its row
    #[arg(long, value_name = "TASK")]
    pub after: Option<String>,
    #[command(flatten)]
    pub filter: TaskFilterArgs,
    /// Include the tasks of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values with a row of names, for spreadsheets
    #[default]
    Csv,
    /// One task of the API per line, as JSON
    Jsonl,
}

impl Export {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let format = match self.format {
            Format::Csv => TaskExportFormat::Csv,
            Format::Jsonl => TaskExportFormat::Jsonl,
        };
        let after = match self.after {
            Some(name) if name.starts_with("namespaces/") => name,
            Some(given) => context.task(&given)?,
            None => String::new(),
        };
        let request = ExportTasksRequest {
            parent: context.parent(self.all_namespaces),
            filter: Some(Box::pin(self.filter.to_api(context)).await?),
            format: format.into(),
            texts: self.texts,
            after,
        };
        let mut parts = context.client.export_tasks(request).await?;
        while let Some(part) = parts.message().await.map_err(|status| context.client.error(status))? {
            context.out.bytes(&part.data).context("failed to write the export")?;
        }
        Ok(Exit::Ok)
    }
}
