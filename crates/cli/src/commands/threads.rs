//! `rota threads`: lists threads of tasks.

use clap::Args;
use rota_proto::v1::ListThreadsRequest;

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  rota threads
  rota threads -A -o json";

/// List threads: tasks that run one after the other and continue one conversation
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Threads {
    /// Include the threads of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

impl Threads {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut request = ListThreadsRequest {
            parent: context.parent(self.all_namespaces),
            page_size: 1000,
            ..ListThreadsRequest::default()
        };
        let mut threads = Vec::new();
        loop {
            let page = context.client.list_threads(request.clone()).await?;
            threads.extend(page.threads);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if !context.out.is_human() {
            context.out.list("threads", &threads)?;
        } else if threads.is_empty() {
            context.reporter.line("no threads");
        } else {
            context.out.table(&output::threads(&threads, self.all_namespaces))?;
        }
        Ok(Exit::Ok)
    }
}
