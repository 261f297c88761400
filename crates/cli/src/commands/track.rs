//! Tracks the states of several tasks concurrently until all have finished.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rota_proto::v1::Task;

use super::state_of;
use crate::context::Context;

/// Maximum concurrent streams on one connection; servers allow about two hundred. Further watches start as
/// tasks finish and miss nothing, since each begins at the task's last known position.
const MAX_STREAMS: usize = 100;

/// Current task, and its index among the tracked tasks.
pub type Update = Result<(usize, Task), rota_client::Error>;

/// Follows tasks that were just read until each has finished.
pub fn track(context: &Context, tasks: &[Task]) -> BoxStream<'static, Update> {
    let watches: Vec<_> = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| !state_of(task).is_final())
        .map(|(index, task)| {
            let after = task.status.as_ref().map_or(0, |status| status.log_seq);
            let watch = context.client.watch_task(task.name.clone(), after);
            watch
                .filter_map(move |answer| async move {
                    match answer {
                        Ok(answer) => answer.task.map(|task| Ok((index, task))),
                        Err(error) => Some(Err(error)),
                    }
                })
                .boxed()
        })
        .collect();
    stream::iter(watches).flatten_unordered(MAX_STREAMS).boxed()
}
