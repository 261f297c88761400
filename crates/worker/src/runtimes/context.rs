//! Files that programs exchange with a worker: `context/task.json`, `context/previous_results.json` and `context/results`
//! as input, `output/result.json` as output. For every runtime with directories.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions};
use rota_proto::v1::{Failure, FailureClass, TaskResult};
use rota_proto::worker::v1::{Assign, StepResult};
use serde::{Deserialize, Serialize};

use super::structs;
use crate::layout::{CHECKPOINT, CONTEXT, OUTPUT};
use crate::program_dir;
use crate::report::failure;

/// Environment variable with the directory of `task.json` and `previous_results.json`.
pub const CONTEXT_VAR: &str = "ROTA_CONTEXT";
/// Environment variable with the directory whose files the next attempt has, if this one is cut off.
pub const CHECKPOINT_VAR: &str = "ROTA_CHECKPOINT";
/// Environment variable with the directory in which `result.json` is expected.
pub const OUTPUT_VAR: &str = "ROTA_OUTPUT";
/// Names of files in these directories.
const RESULT: &str = "result.json";
pub(super) const PREVIOUS: &str = "previous_results.json";
/// Directory of long texts of results of dependencies.
const TEXTS: &str = "results";
/// Bytes of a text from which on it has a file of its own: in JSON it is one line, of which tools that read by lines show the beginning.
const MAX_LINE_BYTES: usize = 2000;
const MAX_RESULT_BYTES: u64 = 1 << 20;

/// Returns the file, below the directory of context, that has the text of the result of a dependency, if it is long.
pub(super) fn text_file(index: usize, text: &str) -> Option<PathBuf> {
    (text.len() > MAX_LINE_BYTES).then(|| Path::new(TEXTS).join(format!("{}.txt", index + 1)))
}

#[derive(Serialize)]
struct Task<'a> {
    id: &'a str,
    alias: &'a str,
    namespace: &'a str,
    agent: &'a str,
    attempt: i32,
    title: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a pbjson_types::Struct>,
    owner: &'a str,
    parent_task: &'a str,
}

/// Writes the input files below the scratch directory. They contain no secrets.
pub(crate) async fn write(scratch: &Path, assign: &Assign) -> std::io::Result<()> {
    let nothing = rota_proto::v1::TaskSpec::default();
    let spec = assign.spec.as_ref().unwrap_or(&nothing);
    let task = Task {
        id: &assign.task_id,
        alias: &assign.alias,
        namespace: &assign.namespace,
        agent: &assign.agent,
        attempt: assign.attempt,
        title: &spec.title,
        prompt: &spec.prompt,
        input: spec.input.as_ref(),
        owner: &spec.owner,
        parent_task: &spec.parent_task,
    };
    let (task, previous) = (serde_json::to_vec_pretty(&task)?, serde_json::to_vec_pretty(&assign.previous)?);
    let results = assign.previous.iter().enumerate();
    let texts: Vec<_> = results
        .filter_map(|(index, previous)| {
            let text = &previous.result.as_ref()?.text;
            Some((text_file(index, text)?, text.clone()))
        })
        .collect();
    within(scratch, move |scratch| {
        for folder in [CONTEXT, OUTPUT, CHECKPOINT] {
            program_dir::make(scratch, Path::new(folder))?;
        }
        let context = Path::new(CONTEXT);
        if !texts.is_empty() {
            program_dir::make(scratch, &context.join(TEXTS))?;
        }
        for (file, text) in texts {
            program_dir::replace(scratch, &context.join(file), text.as_bytes())?;
        }
        program_dir::replace(scratch, &context.join("task.json"), &task)?;
        program_dir::replace(scratch, &context.join(PREVIOUS), &previous)
    })
    .await
}

/// Writes the results of the steps that the step of an attempt needs, in place of those of dependencies.
pub(crate) async fn write_steps(scratch: &Path, steps: &[StepResult]) -> std::io::Result<()> {
    let steps = serde_json::to_vec_pretty(steps)?;
    let path = Path::new(CONTEXT).join(PREVIOUS);
    within(scratch, move |scratch| program_dir::replace(scratch, &path, &steps)).await
}

/// Does something with the scratch directory.
async fn within<T: Send + 'static>(
    scratch: &Path,
    work: impl FnOnce(&Dir) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let scratch = scratch.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&program_dir::open(&scratch)?)).await;
    done.map_err(io::Error::other)?
}

#[derive(Debug, Deserialize)]
pub(crate) struct ResultFile {
    #[serde(default = "yes")]
    pub(crate) success: bool,
    #[serde(default)]
    data: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "text")]
    pub(crate) summary: String,
    #[serde(default, deserialize_with = "texts")]
    files_created: Vec<String>,
    #[serde(default, deserialize_with = "texts")]
    next_steps: Vec<String>,
}

/// A text, or what was written in its place: agents write these files.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(plain(serde_json::Value::deserialize(from)?))
}

/// A list of texts, or a single one.
fn texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let values = match serde_json::Value::deserialize(from)? {
        serde_json::Value::Array(values) => values,
        single => vec![single],
    };
    Ok(values.into_iter().map(plain).filter(|text| !text.is_empty()).collect())
}

fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn yes() -> bool {
    true
}

/// Removes `result.json`, so that it is not the result of what follows. Returns whether there was one.
pub(crate) async fn remove_result(scratch: &Path) -> bool {
    // Of the attempt's own directories alone, whatever its programs have made of them.
    let path = Path::new(OUTPUT).join(RESULT);
    let remove = move |scratch: &Dir| {
        scratch.symlink_metadata(&path)?;
        program_dir::remove(scratch, &path)
    };
    within(scratch, remove).await.is_ok()
}

/// Reads `result.json`, if there is one. The error is the reason why it is unusable.
pub(crate) async fn read(scratch: &Path) -> Result<Option<ResultFile>, String> {
    let text = match within(scratch, read_result).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| error.to_string())?,
    };
    if text.len() as u64 > MAX_RESULT_BYTES {
        return Err("larger than 1 MiB".to_owned());
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string())
}

/// Reads the file, and a byte more than it may have. The program has made it, and its folder: neither a link out of the scratch
/// directory nor a pipe is followed or waited for.
fn read_result(scratch: &Dir) -> io::Result<Vec<u8>> {
    let path = Path::new(OUTPUT).join(RESULT);
    let file = program_dir::open_file(scratch, &path, OpenOptions::new().read(true))?;
    let mut text = Vec::new();
    file.take(MAX_RESULT_BYTES + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Completes the result of an agent by what it wrote to `result.json`, if it did. A file that reports a failure, or that might
/// but cannot be used, is one.
pub(crate) async fn complete(scratch: &Path, result: TaskResult) -> Result<TaskResult, Failure> {
    let written = match read(scratch).await {
        Ok(Some(written)) => written,
        Ok(None) => return Ok(result),
        Err(error) => return Err(unusable(&error)),
    };
    if let Some(failed) = written.failure() {
        return Err(failed);
    }
    let TaskResult { text, data, files, .. } = written.into_result();
    let more: Vec<_> = files.into_iter().filter(|file| !result.files.contains(file)).collect();
    Ok(TaskResult {
        text: if text.is_empty() { result.text } else { text },
        data: result.data.or(data),
        files: result.files.into_iter().chain(more).collect(),
        ..result
    })
}

/// Returns the failure for a result file that cannot be used.
pub(crate) fn unusable(error: &str) -> Failure {
    let failed = failure(FailureClass::Agent, format!("output/result.json cannot be used: {error}"));
    let hint = "write a JSON object of at most 1 MiB; large results belong in files of the workspace";
    Failure { hint: hint.to_owned(), ..failed }
}

impl ResultFile {
    /// Returns the failure that the file reports, if it does.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let text =
            if self.summary.is_empty() { "result.json reports a failure" } else { self.summary.as_str() };
        (!self.success).then(|| failure(FailureClass::Agent, text))
    }

    /// Converts to a task's result.
    pub(crate) fn into_result(self) -> TaskResult {
        let mut text = self.summary;
        if !self.next_steps.is_empty() {
            let steps: Vec<_> = self.next_steps.iter().map(|step| format!("- {step}")).collect();
            text = format!("{text}\n\nNext steps:\n{}", steps.join("\n")).trim_start().to_owned();
        }
        TaskResult {
            text,
            data: self.data.and_then(structs::from_json),
            files: self.files_created.into_iter().filter(|file| is_below(Path::new(file))).collect(),
            ..TaskResult::default()
        }
    }
}

/// Whether a path is relative and stays below its directory.
pub(crate) fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && path.components().any(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use rota_proto::worker::v1::PreviousResult;

    use super::*;
    use crate::layout::Scratch;

    #[test]
    fn result_file_becomes_task_result() {
        let written: ResultFile = serde_json::from_str(
            r#"{"success":true,"data":{"n":1},"summary":"done","files_created":["a/b","../x","/etc/passwd"],"next_steps":["rest"]}"#,
        )
        .unwrap();
        let result = written.into_result();
        assert_eq!(result.text, "done\n\nNext steps:\n- rest");
        assert_eq!(result.files, ["a/b"]);
        assert_eq!(serde_json::to_value(result.data).unwrap(), serde_json::json!({"n": 1.0}));
    }

    #[test]
    fn result_file_is_read_leniently() {
        let text = |json: &str| serde_json::from_str::<ResultFile>(json).unwrap().into_result();
        let result = text(r#"{"summary":["a",1],"files_created":"a/b","next_steps":"rest","extra":{}}"#);
        assert_eq!(result.text, "[\"a\",1]\n\nNext steps:\n- rest");
        assert_eq!(result.files, ["a/b"]);
        let empty = text(r#"{"summary":null,"files_created":null,"next_steps":[null,""]}"#);
        assert_eq!((empty.text.as_str(), empty.files.len()), ("", 0));
        assert!(
            !serde_json::from_str::<ResultFile>(r#"{"success":false,"next_steps":"x"}"#).unwrap().success
        );
    }

    #[tokio::test]
    async fn long_texts_of_results_are_files() {
        let scratch = tempfile::tempdir().unwrap();
        let previous = |size| PreviousResult {
            result: Some(TaskResult { text: "x".repeat(size), ..TaskResult::default() }),
            ..PreviousResult::default()
        };
        let assign = Assign { previous: vec![previous(9), previous(3000)], ..Assign::default() };
        write(scratch.path(), &assign).await.unwrap();
        let texts = Scratch(scratch.path()).context().join(TEXTS);
        assert_eq!(std::fs::read_to_string(texts.join("2.txt")).unwrap().len(), 3000);
        assert!(!texts.join("1.txt").exists(), "it is in the list");
    }

    #[tokio::test]
    async fn agents_complete_their_result_by_a_file() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), &Assign::default()).await.unwrap();
        let spoken =
            || TaskResult { text: "spoken".to_owned(), files: vec!["a".to_owned()], ..Default::default() };
        assert_eq!(complete(scratch.path(), spoken()).await.unwrap(), spoken());
        let file = Scratch(scratch.path()).output().join("result.json");
        std::fs::write(&file, r#"{"data":{"n":1},"files_created":["a","b"]}"#).unwrap();
        let result = complete(scratch.path(), spoken()).await.unwrap();
        assert!(result.text == "spoken" && result.files == ["a", "b"] && result.data.is_some(), "{result:?}");
        std::fs::write(&file, r#"{"success":false,"summary":"no access"}"#).unwrap();
        assert_eq!(complete(scratch.path(), spoken()).await.unwrap_err().message, "no access");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(complete(scratch.path(), spoken()).await.unwrap_err().class(), FailureClass::Agent);
    }

    #[tokio::test]
    async fn result_of_an_earlier_round_is_removed() {
        let (scratch, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(scratch.path(), &Assign::default()).await.unwrap();
        assert!(!remove_result(scratch.path()).await);
        let file = Scratch(scratch.path()).output().join("result.json");
        std::fs::write(&file, r#"{"summary": "of the first"}"#).unwrap();
        assert!(remove_result(scratch.path()).await && read(scratch.path()).await.unwrap().is_none());
        std::fs::create_dir(&file).unwrap();
        assert!(remove_result(scratch.path()).await && !file.exists());
        // Not through a link.
        std::fs::write(outside.path().join("result.json"), "{}").unwrap();
        std::fs::remove_dir(Scratch(scratch.path()).output()).unwrap();
        std::os::unix::fs::symlink(outside.path(), Scratch(scratch.path()).output()).unwrap();
        assert!(!remove_result(scratch.path()).await && outside.path().join("result.json").exists());
    }

    #[tokio::test]
    async fn symlinked_result_file_is_rejected() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), &Assign::default()).await.unwrap();
        assert!(read(scratch.path()).await.unwrap().is_none());
        std::os::unix::fs::symlink("/etc/hostname", Scratch(scratch.path()).output().join("result.json"))
            .unwrap();
        assert!(read(scratch.path()).await.is_err());
    }
}
