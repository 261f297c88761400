//! `SearchTasks`: words in the titles, prompts, results and failures of tasks. The index finds candidates; the records decide what is
//! returned: namespaces, filters and tasks that were removed.

use prost::Message;
use rota_core::TaskKey;
use rota_core::task::Task;
use rota_proto::{num, v1};
use rota_store::search::{SearchQuery, Word, first_hit, query_words};
use tonic::{Request, Status};

use super::list_tasks::MAX_PAGE_BYTES;
use super::task_filter;
use super::tasks::Tasks;
use crate::creation::Scope;
use crate::task_texts::{Texts, with_texts};
use crate::wire::status::{invalid, store};
use crate::wire::task as wire;

/// Bytes of a text that is searched for.
const MAX_TEXT: usize = 1024;
const MAX_WORDS: usize = 16;
const MAX_PAGE: i32 = 100;
const DEFAULT_PAGE: i32 = 20;
/// Candidates that one call looks at.
const MAX_CANDIDATES: usize = 500;

pub(super) async fn search(
    tasks: &Tasks,
    request: Request<v1::SearchTasksRequest>,
) -> Result<v1::SearchTasksResponse, Status> {
    let scope = Scope::of(&request);
    let request = request.into_inner();
    let words = words(&request.text)?;
    let page_size = match request.page_size {
        0 => DEFAULT_PAGE,
        size => size.min(MAX_PAGE),
    };
    let mut filter = task_filter::of(&v1::ListTasksRequest {
        parent: request.parent,
        page_size,
        page_token: request.page_token,
        filter: request.filter,
    })?;
    let reads = tasks.store.reads();
    let (indexed, revision) = (reads.indexed_revision().await, reads.revision().await);
    let (indexed, revision) = (indexed.map_err(store)?, revision.map_err(store)?);
    if indexed.is_none() {
        // A damaged one was removed, which the indexer has not seen.
        tasks.store.index().wake();
    }
    let indexed = indexed.unwrap_or(0);
    let query = SearchQuery {
        words: words.clone(),
        namespace: filter.namespace.clone(),
        before: filter.before,
        limit: MAX_CANDIDATES,
    };
    let found = reads.search(query).await.inspect_err(|_| tasks.store.index().wake());
    let keys = found.map_err(store)?;
    let behind = keys.last().copied().filter(|_| keys.len() == MAX_CANDIDATES);
    filter.keys = Some(keys);
    let page = reads.list(filter).await.map_err(store)?;
    let found: Vec<_> = page.tasks.into_iter().filter(|task| scope.contains(task)).collect();
    let keys: Vec<_> = found.iter().map(|task| task.key).collect();
    let mut read = with_texts(reads, found, move |task, texts| hit(task, &texts, &words))
        .await
        .map_err(store)?
        .into_iter();
    let (mut hits, mut size, mut next) = (Vec::new(), 0, page.next.or(behind));
    for index in 0..keys.len() {
        let hit = read.next();
        size += hit.as_ref().map_or(usize::MAX / 2, Message::encoded_len);
        if size > MAX_PAGE_BYTES && index > 0 {
            next = Some(keys[index - 1]);
            break;
        }
        hits.extend(hit);
    }
    Ok(v1::SearchTasksResponse {
        hits,
        next_page_token: next.map(|TaskKey(key)| format!("{key:x}")).unwrap_or_default(),
        indexed_revision: num::to_i64(indexed),
        revision: num::to_i64(revision.max(indexed)),
    })
}

fn words(text: &str) -> Result<Vec<Word>, Status> {
    if text.len() > MAX_TEXT {
        return Err(invalid("text", format!("is longer than {MAX_TEXT} bytes: search for fewer words")));
    }
    let words = query_words(text);
    match words.len() {
        0 => Err(invalid("text", "has no word to search for: words are made of letters and digits")),
        1..=MAX_WORDS => Ok(words),
        _ => Err(invalid("text", format!("has more than {MAX_WORDS} words: search for the rarest of them"))),
    }
}

/// Returns a task with the first of its texts that has a word.
fn hit(task: &Task, texts: &Texts, words: &[Word]) -> v1::TaskHit {
    let fields = [
        (v1::TaskTextField::Prompt, &texts.prompt),
        (v1::TaskTextField::Result, &texts.result),
        (v1::TaskTextField::Failure, &texts.failure),
        // Last: a list shows it anyway, and one that the caller did not choose is the begin of the prompt.
        (v1::TaskTextField::Title, &texts.title),
    ];
    let first = fields.into_iter().find_map(|(field, text)| Some((field, first_hit(text, words)?)));
    let (field, snippet) = first.unwrap_or_default();
    v1::TaskHit { task: Some(wire::to_wire(task, None, None)), field: field.into(), snippet }
}
