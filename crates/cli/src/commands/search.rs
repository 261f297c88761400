//! `rota search`: finds tasks by words.

use clap::Args;
use rota_proto::v1::SearchTasksRequest;

use super::task_filter::TaskFilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

const PAGE_SIZE: usize = 100;

const EXAMPLES: &str = "\
Examples:
  rota search flaky login test
  rota search \"connection refused\" --state failed --since 30d
  rota search invoice -A --limit 100 -o json

A task is found if each word is in its title, its prompt, its result or its failure. Words of three letters and more find longer ones, too: \
fix finds fixed. The index follows within a second; a message names how much of it is missing.";

/// Find tasks by words of their titles, prompts, results and failures, newest first
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Search {
    /// Words that a task must have, all of them
    #[arg(required = true, value_name = "WORDS")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub filter: TaskFilterArgs,
    /// Maximum number of tasks to list
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub limit: usize,
    /// Include the tasks of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Search {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut request = SearchTasksRequest {
            parent: context.parent(self.all_namespaces),
            text: self.words.join(" "),
            filter: Some(Box::pin(self.filter.to_api(context)).await?),
            ..SearchTasksRequest::default()
        };
        let mut hits = Vec::new();
        // One more than the limit shows whether there are more.
        let wanted = self.limit.saturating_add(1);
        let last = loop {
            request.page_size = i32::try_from((wanted - hits.len()).min(PAGE_SIZE)).unwrap_or(i32::MAX);
            let mut page = context.client.search_tasks(request.clone()).await?;
            hits.append(&mut page.hits);
            if page.next_page_token.is_empty() || hits.len() >= wanted {
                break page;
            }
            request.page_token = page.next_page_token;
        };
        let more = hits.len() > self.limit;
        hits.truncate(self.limit);
        if !context.out.is_human() {
            context.out.list("hits", &hits)?;
        } else if hits.is_empty() {
            context.reporter.line("no task has these words");
        } else {
            context.out.table(&output::hits(&hits, self.all_namespaces))?;
        }
        if more {
            context.reporter.line(&format!("more than {} tasks; raise --limit to list them", self.limit));
        }
        if last.indexed_revision < last.revision {
            let (indexed, revision) = (last.indexed_revision, last.revision);
            context.reporter.line(&format!(
                "the index is complete up to revision {indexed} of {revision}: newer tasks and results may be missing"
            ));
        }
        Ok(Exit::Ok)
    }
}
