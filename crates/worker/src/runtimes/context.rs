//! Files by which a program learns what it is to do and tells what it did: `context/task.json`,
//! `context/previous_results.json`, `output/result.json`. For every runtime that has a directory.

use std::path::{Component, Path, PathBuf};

use rota_proto::v1::TaskResult;
use rota_proto::worker::v1::Assign;
use serde::{Deserialize, Serialize};
use tokio::fs;
use tokio::io::AsyncReadExt;

/// Variable that names the directory of `task.json` and `previous_results.json`.
pub const CONTEXT: &str = "ROTA_CONTEXT";
/// Variable that names the directory where `result.json` is looked for.
pub const OUTPUT: &str = "ROTA_OUTPUT";
/// A longer `result.json` is not read.
const MAX_RESULT: u64 = 1 << 20;

/// The two directories.
#[derive(Debug, Clone)]
pub struct Directories {
    /// What the program may read.
    pub context: PathBuf,
    /// Where it may leave its result.
    pub output: PathBuf,
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

/// Writes what the attempt is about below its scratch directory. No secret is in it.
pub async fn write(scratch: &Path, assign: &Assign) -> std::io::Result<Directories> {
    let directories = Directories { context: scratch.join("context"), output: scratch.join("output") };
    fs::create_dir_all(&directories.context).await?;
    fs::create_dir_all(&directories.output).await?;
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
    fs::write(directories.context.join("task.json"), serde_json::to_vec_pretty(&task)?).await?;
    let previous = serde_json::to_vec_pretty(&assign.previous)?;
    fs::write(directories.context.join("previous_results.json"), previous).await?;
    Ok(directories)
}

/// `result.json`, as a program writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    #[serde(default = "yes")]
    pub(crate) success: bool,
    #[serde(default)]
    data: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    files_created: Vec<String>,
    #[serde(default)]
    next_steps: Vec<String>,
}

fn yes() -> bool {
    true
}

/// The result that the program wrote, if it did. An error says what is wrong with it.
pub(crate) async fn read(directories: &Directories) -> Result<Option<Written>, String> {
    let path = directories.output.join("result.json");
    // The program made it: a link or a pipe in its place must not be followed or waited for.
    match fs::symlink_metadata(&path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(found) if !found.is_file() => return Err("it is not a file".to_owned()),
        Ok(found) if found.len() > MAX_RESULT => return Err("it is longer than 1 MiB".to_owned()),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    let file = fs::File::open(&path).await.map_err(|error| error.to_string())?;
    file.take(MAX_RESULT).read_to_end(&mut text).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string())
}

impl Written {
    /// As a task's result.
    pub(crate) fn into_result(self) -> TaskResult {
        let mut text = self.summary;
        if !self.next_steps.is_empty() {
            let steps: Vec<_> = self.next_steps.iter().map(|step| format!("- {step}")).collect();
            text = format!("{text}\n\nNext steps:\n{}", steps.join("\n")).trim_start().to_owned();
        }
        TaskResult {
            text,
            data: self.data.and_then(data),
            files: self.files_created.into_iter().filter(|file| is_below(Path::new(file))).collect(),
            ..TaskResult::default()
        }
    }
}

/// Any JSON as structured data: what is not an object becomes the field `value` of one.
pub(crate) fn data(value: serde_json::Value) -> Option<pbjson_types::Struct> {
    let object = match value {
        serde_json::Value::Null => return None,
        serde_json::Value::Object(_) => value,
        other => serde_json::json!({ "value": other }),
    };
    serde_json::from_value(object).ok()
}

/// A relative path that does not leave its directory.
pub(crate) fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && path.components().any(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_json_becomes_a_result() {
        let written: Written = serde_json::from_str(
            r#"{"success":true,"data":{"n":1},"summary":"done","files_created":["a/b","../x","/etc/passwd"],"next_steps":["rest"]}"#,
        )
        .unwrap();
        let result = written.into_result();
        assert_eq!(result.text, "done\n\nNext steps:\n- rest");
        assert_eq!(result.files, ["a/b"]);
        assert_eq!(serde_json::to_value(result.data).unwrap(), serde_json::json!({"n": 1.0}));
    }

    #[test]
    fn data_is_always_an_object() {
        assert!(data(serde_json::Value::Null).is_none());
        let wrapped = data(serde_json::json!([1, "x"])).unwrap();
        assert_eq!(serde_json::to_value(wrapped).unwrap(), serde_json::json!({"value": [1.0, "x"]}));
    }

    #[tokio::test]
    async fn a_link_in_place_of_the_result_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let directories = write(scratch.path(), &Assign::default()).await.unwrap();
        assert!(read(&directories).await.unwrap().is_none());
        std::os::unix::fs::symlink("/etc/hostname", directories.output.join("result.json")).unwrap();
        assert!(read(&directories).await.is_err());
    }
}
