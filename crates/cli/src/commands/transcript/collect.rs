//! Collects a transcript: the checkpoints of a task's attempts, and what its log has besides.

use std::collections::BTreeMap;
use std::io::{BufReader, Seek};

use anyhow::Context as _;
use rota_proto::artifact_names::{CHECKPOINT, within};
use rota_proto::v1::{Artifact, ArtifactList, Event, Task};
use rota_worker::Prices;

use super::log;
use super::model::{Attempt, Entry, Transcript, remove_repeated};
use super::session::{self, Meta, Reader};
use crate::commands::artifacts::{access, broken};
use crate::commands::follow;
use crate::context::Context;
use crate::output::{money, name, state, target};

/// Subagents that are read at most.
const MAX_SUBAGENTS: usize = 200;

pub(super) async fn collect(
    context: &Context,
    task: &Task,
    only: Option<i32>,
    full: bool,
) -> anyhow::Result<Transcript> {
    let mut events: BTreeMap<i32, Vec<Event>> = BTreeMap::new();
    follow::log(context, task, |event| {
        if event.attempt > 0 {
            events.entry(event.attempt).or_default().push(event);
        }
    })
    .await?;
    let stored = context.client.fetch_artifacts(&task.name).await?.attempts;
    let lists: BTreeMap<i32, ArtifactList> =
        stored.into_iter().filter_map(|found| Some((found.attempt, found.list?))).collect();
    let (mut attempts, mut before) = (Vec::new(), Vec::new());
    for (number, events) in &events {
        let mut attempt = Attempt { number: *number, ..Attempt::default() };
        let list = lists.get(number);
        let conversation = list.and_then(|list| Some(list.checkpoint.as_ref()?.conversation.as_str()));
        let mut entries = match (list, conversation.filter(|id| !id.is_empty())) {
            (Some(list), Some(id)) => read(context, task, list, id, full).await?,
            _ => Vec::new(),
        };
        let whole = entries.clone();
        let repeated = remove_repeated(&mut entries, &before);
        if repeated > 0 {
            attempt.notes.push(format!("continues the conversation: {repeated} entries are above"));
        }
        let from_transcript = !whole.is_empty();
        // Entries of the log are matched with all of the conversation.
        if log::add(log::after(events, &whole), &mut entries, full) {
            attempt.notes.push(match from_transcript {
                true => {
                    "the last entries are from the log: they are newer than the last checkpoint".to_owned()
                }
                false => {
                    "from the log: the attempt has left no transcript; texts may be cut there".to_owned()
                }
            });
        }
        if from_transcript {
            before = whole;
        }
        attempt.entries = entries;
        attempts.push(attempt);
    }
    attempts.retain(|attempt| only.is_none_or(|only| only == attempt.number));
    let (spec, status) = (task.spec.clone().unwrap_or_default(), task.status.clone().unwrap_or_default());
    Ok(Transcript {
        task: name(task).to_owned(),
        id: task.uid.clone(),
        title: spec.title,
        agent: target(task),
        state: state(status.state()).to_owned(),
        continues: spec.continue_from,
        cost: money(status.usage.unwrap_or_default().cost_micro_usd),
        attempts,
    })
}

/// Reads the conversation of a checkpoint, with its subagents.
async fn read(
    context: &Context,
    task: &Task,
    list: &ArtifactList,
    conversation: &str,
    full: bool,
) -> anyhow::Result<Vec<Entry>> {
    let all: BTreeMap<&str, &Artifact> = list
        .artifacts
        .iter()
        .filter_map(|artifact| Some((within(&artifact.name, CHECKPOINT)?, artifact)))
        .collect();
    let Some(main) = all.get(format!("{conversation}.jsonl").as_str()) else { return Ok(Vec::new()) };
    let results = format!("{conversation}/tool-results/");
    let outputs = all.keys().filter(|name| name.starts_with(&results));
    let outputs = outputs.map(|name| ((*name).to_owned(), format!("{CHECKPOINT}/{name}"))).collect();
    let prices = Prices::default();
    let reader = Reader { prices: &prices, full, outputs: &outputs };
    let mut entries = reader.read(file(context, task, main).await?)?;
    let mut subagents = Vec::new();
    let folder = format!("{conversation}/subagents/");
    let transcripts = all.iter().filter(|(name, _)| name.starts_with(&folder));
    for (name, artifact) in transcripts.take(2 * MAX_SUBAGENTS) {
        let Some(base) = name.strip_suffix(".jsonl") else { continue };
        let meta = match all.get(format!("{base}.meta.json").as_str()) {
            Some(meta) => serde_json::from_reader(file(context, task, meta).await?).unwrap_or_default(),
            None => Meta::default(),
        };
        subagents.push((meta, reader.read(file(context, task, artifact).await?)?));
    }
    session::attach(&mut entries, subagents);
    Ok(entries)
}

/// Downloads an artifact to a file without a name.
async fn file(
    context: &Context,
    task: &Task,
    artifact: &Artifact,
) -> anyhow::Result<BufReader<std::fs::File>> {
    let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
    let access = access(context, Some(&task.name))?;
    let received = access.download(artifact, &mut file, |_| {}).await;
    received.map_err(broken).with_context(|| format!("failed to download {}", artifact.name))?;
    let mut file = file.into_std().await;
    file.rewind()?;
    Ok(BufReader::new(file))
}
