//! A task as a row of CSV (RFC 4180). The columns are stable: new ones are added at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use csv::{Terminator, WriterBuilder};
use rota_proto::labels::KIND;
use rota_proto::{names, v1};

const COLUMNS: [&str; 33] = [
    "name",
    "alias",
    "title",
    "state",
    "agent",
    "kind",
    "owner",
    "priority",
    "labels",
    "parent_task",
    "workflow",
    "step",
    "thread",
    "retry_of",
    "worker",
    "attempts",
    "create_time",
    "ready_time",
    "start_time",
    "end_time",
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "turns",
    "model",
    "failure_class",
    "failure_message",
    "desired_state",
    "prompt",
    "result",
    "trace_id",
];

/// Returns the names of the columns.
pub(crate) fn head() -> Result<Vec<u8>, csv::Error> {
    row(COLUMNS.map(str::to_owned))
}

/// Returns the row of a task, with its prompt and the text of its result if it has them.
pub(crate) fn of(task: &v1::Task) -> Result<Vec<u8>, csv::Error> {
    let spec = task.spec.clone().unwrap_or_default();
    let status = task.status.clone().unwrap_or_default();
    let step = task.step.as_deref().cloned().unwrap_or_default();
    let usage = status.usage.clone().unwrap_or_default();
    let failure = status.failure.clone().unwrap_or_default();
    let agent = match spec.target.as_ref().and_then(|target| target.kind.as_ref()) {
        Some(v1::target::Kind::Agent(agent)) => agent.clone(),
        _ => String::new(),
    };
    let labels = match task.labels.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&task.labels.iter().collect::<BTreeMap<_, _>>()).unwrap_or_default(),
    };
    let time = |at: Option<&pbjson_types::Timestamp>| at.map(rfc3339).unwrap_or_default();
    let text = |text: &str| safe(text).into_owned();
    row([
        task.name.clone(),
        text(&task.alias),
        text(&spec.title),
        lower(status.state().as_str_name(), "TASK_STATE_"),
        text(&agent),
        text(task.labels.get(KIND).map_or("", String::as_str)),
        text(&spec.owner),
        task.priority.unwrap_or_default().to_string(),
        text(&labels),
        spec.parent_task.clone(),
        step.workflow,
        text(&step.step),
        text(&spec.thread),
        task.retry_of.clone(),
        text(names::last(&status.worker)),
        status.attempt.to_string(),
        time(task.create_time.as_ref()),
        time(status.ready_time.as_ref()),
        time(status.start_time.as_ref()),
        time(status.end_time.as_ref()),
        dollars(usage.cost_micro_usd),
        usage.input_tokens.to_string(),
        usage.output_tokens.to_string(),
        usage.cache_read_tokens.to_string(),
        usage.cache_write_tokens.to_string(),
        usage.turns.to_string(),
        text(&usage.model),
        status
            .failure
            .as_ref()
            .map(|_| lower(failure.class().as_str_name(), "FAILURE_CLASS_"))
            .unwrap_or_default(),
        text(&failure.message),
        lower(task.desired_state().as_str_name(), "DESIRED_STATE_"),
        text(&spec.prompt),
        text(status.result.as_ref().map_or("", |result| result.text.as_str())),
        status.trace_id,
    ])
}

fn row(fields: [String; COLUMNS.len()]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(&fields)?;
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Returns a text that no spreadsheet takes for a formula: with an apostrophe in front of the characters with which one begins.
fn safe(text: &str) -> Cow<'_, str> {
    let begins = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if text.starts_with(begins) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

fn lower(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

fn rfc3339(at: &pbjson_types::Timestamp) -> String {
    prost_types::Timestamp { seconds: at.seconds, nanos: at.nanos }.to_string()
}

fn dollars(micro: i64) -> String {
    let amount = micro.unsigned_abs();
    format!("{}{}.{:06}", if micro < 0 { "-" } else { "" }, amount / 1_000_000, amount % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_stable() {
        let head = String::from_utf8(head().unwrap()).unwrap();
        assert_eq!(
            head,
            "name,alias,title,state,agent,kind,owner,priority,labels,parent_task,workflow,step,thread,retry_of,worker,attempts,\
             create_time,ready_time,start_time,end_time,cost_usd,input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,\
             turns,model,failure_class,failure_message,desired_state,prompt,result,trace_id\r\n"
        );
    }

    #[test]
    fn texts_are_no_formulas_and_keep_their_lines() {
        let mut task =
            v1::Task { name: "namespaces/n/tasks/t".into(), alias: "-a".into(), ..Default::default() };
        let spec = task.spec.get_or_insert_default();
        (spec.title, spec.owner) = ("=HYPERLINK(\"http://x\",\"y\")".into(), "@me".into());
        spec.prompt = "line one,\r\n\"line\" two".into();
        let status = task.status.get_or_insert_default();
        status.set_state(v1::TaskState::Failed);
        status.usage = Some(v1::Usage { cost_micro_usd: 1_250_000, ..Default::default() });
        status.failure = Some(v1::Failure {
            class: v1::FailureClass::RateLimit.into(),
            message: "\t+1".into(),
            ..Default::default()
        });
        let bytes = of(&task).unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&bytes[..]);
        let record = reader.records().next().unwrap().unwrap();
        let column = |name: &str| &record[COLUMNS.iter().position(|column| *column == name).unwrap()];
        assert_eq!(record.len(), COLUMNS.len());
        assert_eq!((column("alias"), column("owner")), ("'-a", "'@me"));
        assert_eq!(column("title"), "'=HYPERLINK(\"http://x\",\"y\")");
        assert_eq!(column("prompt"), "line one,\r\n\"line\" two");
        assert_eq!((column("state"), column("cost_usd")), ("failed", "1.250000"));
        assert_eq!((column("failure_class"), column("failure_message")), ("rate_limit", "'\t+1"));
    }
}
