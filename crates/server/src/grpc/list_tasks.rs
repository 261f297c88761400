//! `ListTasks`: pages of tasks that match a filter.

use prost::Message;
use rota_proto::v1;
use tonic::{Request, Status};

use super::task_filter;
use super::tasks::Tasks;
use crate::creation::Scope;
use crate::wire::{status, task as wire};

/// Tasks of one page, encoded; the page has at least one task.
pub(super) const MAX_PAGE_BYTES: usize = 4 << 20;

pub(super) async fn list(
    tasks: &Tasks,
    request: Request<v1::ListTasksRequest>,
) -> Result<v1::ListTasksResponse, Status> {
    let scope = Scope::of(&request);
    let filter = task_filter::of(request.get_ref())?;
    let reads = tasks.store.reads();
    let page = match filter.attention {
        true => tasks.attention.list(reads, filter).await,
        false => reads.list(filter).await,
    };
    let mut page = page.map_err(status::store)?;
    page.tasks.retain(|task| scope.contains(task));
    let (mut listed, mut size, mut next) = (Vec::with_capacity(page.tasks.len()), 0, page.next);
    for (index, record) in page.tasks.iter().enumerate() {
        let task = wire::to_wire(record, None, None);
        size += task.encoded_len();
        if size > MAX_PAGE_BYTES && index > 0 {
            next = Some(page.tasks[index - 1].key);
            break;
        }
        listed.push(task);
    }
    let next_page_token = next.map(|key| format!("{:x}", key.0)).unwrap_or_default();
    Ok(v1::ListTasksResponse { tasks: listed, next_page_token })
}
