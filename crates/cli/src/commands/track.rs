//! Keeps an eye on several tasks at once: how each is, until all have ended.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rota_client::watch::is_final;
use rota_proto::v1::Task;

use super::state_of;
use crate::context::Context;

/// Streams of one connection at a time; servers allow some two hundred. The others' turns come as
/// tasks end, and nothing is missed, since each watch begins where its task was last seen.
const AT_ONCE: usize = 100;

/// A task as it is now, and its place among those that are tracked.
pub type Update = Result<(usize, Task), rota_client::Error>;

/// Follows tasks, as they were just read, until each has ended.
pub fn track(context: &Context, tasks: &[Task]) -> BoxStream<'static, Update> {
    let watches: Vec<_> = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| !is_final(state_of(task)))
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
    stream::iter(watches).flatten_unordered(AT_ONCE).boxed()
}
