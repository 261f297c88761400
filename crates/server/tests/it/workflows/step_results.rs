//! What the tasks of a step are given of the steps that it needs: in files, on a real worker.

use anyhow::{Context, Result};
use prost::Message;
use reqwest::StatusCode;
use rota_proto::worker::v1::FetchStepResultsRequest;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};
use tonic::Code;

use super::{Api, WORKFLOWS, echoes};

pub(super) fn shell(text: &str) -> Value {
    json!({ "target": { "agent": "echo" }, "retry": { "maxAttempts": 1 }, "runtime": { "command": { "shell": text } } })
}

/// Prints the file with the results.
const SEEN: &str = "cat $ROTA_CONTEXT/previous_results.json";

async fn cluster(backend: Backend) -> Result<(Cluster, Api)> {
    let cluster = Cluster::start(backend).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let api = Api::new(&cluster)?;
    Ok((cluster, api))
}

/// Returns the text that the last task of a step has printed.
pub(super) async fn text(api: &Api, workflow: &str, step: &str) -> Result<String> {
    let task = api.step(workflow, step).await?["lastTask"].as_str().context("a task")?.to_owned();
    let task = api.get(&format!("/api/v1/namespaces/default/tasks/{task}")).await?;
    Ok(task["status"]["result"]["text"].as_str().with_context(|| task.to_string())?.to_owned())
}

/// Returns step, state, item and text of each result that a step was given.
fn brief(seen: &str) -> Result<Vec<(String, String, u64, String)>> {
    let seen: Vec<Value> = serde_json::from_str(seen).with_context(|| seen.to_owned())?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |one: &Value| {
        let state = word(&one["state"]).replace("STEP_STATE_", "");
        let text = match &one["result"]["text"] {
            Value::Null => one["result"]["data"].to_string().replace("null", ""),
            text => word(text),
        };
        (word(&one["step"]), state, one["item"].as_u64().unwrap_or(0), text)
    };
    Ok(seen.iter().map(one).collect())
}

fn expected(list: &[(&str, &str, u64, &str)]) -> Vec<(String, String, u64, String)> {
    list.iter()
        .map(|(step, state, item, text)| ((*step).into(), (*state).into(), *item, (*text).into()))
        .collect()
}

#[tokio::test]
async fn tasks_get_results_and_files_of_needed_steps() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let (cluster, api) = cluster(backend).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let made = r#"echo "of ${{ item }}" > $ROTA_OUTPUT/part; echo '{"summary": "did ${{ item }}"}' > $ROTA_OUTPUT/result.json"#;
        let spec = json!({
            "onFailure": "ON_STEP_FAILURE_CONTINUE",
            "steps": [
                { "name": "fan", "task": shell(made), "forEach": { "items": "['a', 'b']" } },
                { "name": "one", "task": shell("echo whole > $ROTA_OUTPUT/all; echo one") },
                { "name": "skip", "condition": "false", "task": echoes("never") },
                { "name": "bad", "task": shell("exit 3") },
                { "name": "go", "wait": { "signal": "go" } },
                { "name": "none", "task": shell(SEEN) },
                { "name": "other", "needs": [{ "step": "one" }], "task": shell(SEEN) },
                { "name": "end", "task": shell(SEEN),
                  "needs": [{ "step": "fan" }, { "step": "skip" }, { "step": "bad" }, { "step": "go" }] },
                { "name": "files", "needs": [{ "step": "fan" }, { "step": "one" }],
                  "task": shell("cd $ROTA_CONTEXT/artifacts; find . -type f | sort | xargs tail -n +1") },
            ],
        });
        api.create("all", spec).await?;
        let signal = json!({ "signal": "go", "payload": { "by": "me" } });
        assert_eq!(api.post(&format!("{WORKFLOWS}/all:signal"), &signal).await?.0, StatusCode::OK);
        api.ended("all").await?;
        assert_eq!(text(&api, "all", "none").await?.trim(), "[]");
        assert_eq!(brief(&text(&api, "all", "other").await?)?, expected(&[("one", "SUCCEEDED", 0, "one")]));
        let end = text(&api, "all", "end").await?;
        let given = [
            ("fan", "SUCCEEDED", 0, "did a"),
            ("fan", "SUCCEEDED", 1, "did b"),
            ("skip", "SKIPPED", 0, ""),
            ("bad", "FAILED", 0, ""),
            ("go", "SUCCEEDED", 0, r#"{"by":"me"}"#),
        ];
        assert_eq!(brief(&end)?, expected(&given), "{end}");
        let end: Vec<Value> = serde_json::from_str(&end)?;
        assert_eq!((&end[3]["taskState"], &end[2]["taskId"]), (&json!("TASK_STATE_FAILED"), &Value::Null));
        let files = text(&api, "all", "files").await? + "\n";
        let named = |folder: &str, content: &str| files.contains(&format!("==> ./{folder} <==\n{content}\n"));
        assert!(named("fan/0/output/part", "of a") && named("fan/1/output/part", "of b"), "{files}");
        assert!(named("one/output/all", "whole"), "{files}");
    }
    Ok(())
}

#[tokio::test]
async fn compensation_sees_its_step_and_reruns_see_reused_ones() -> Result<()> {
    let (cluster, api) = cluster(Backend::Sqlite).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let mut undo = shell(SEEN);
    undo["title"] = json!("undo");
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "first", "task": echoes("begun") },
            { "name": "made", "needs": [{ "step": "first" }], "task": echoes("made it"), "compensate": undo },
            { "name": "bad", "needs": [{ "step": "made" }], "task": shell("exit 3") },
        ],
    });
    let id = api.create("undone", spec).await?["uid"].as_str().context("an id")?.to_owned();
    assert_eq!(api.ended("undone").await?["status"]["state"], "WORKFLOW_STATE_FAILED");
    let all = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}")).await?;
    let is_undo = |task: &&Value| task["spec"]["title"] == "undo";
    let undone = all["tasks"].as_array().and_then(|all| all.iter().find(is_undo)).context("undo")?;
    let name = undone["name"].as_str().context("a name")?;
    let undone = api.get(&format!("/api/v1/{name}")).await?;
    let seen = undone["status"]["result"]["text"].as_str().context("a text")?;
    let given = expected(&[("first", "SUCCEEDED", 0, "begun"), ("made", "SUCCEEDED", 0, "made it")]);
    assert_eq!(brief(seen)?, given);

    // A rerun gets the results of what did not run again, but not of what left something else.
    let spec = json!({
        "inputs": { "word": "a", "seen": true },
        "steps": [
            { "name": "still", "task": echoes("as it was") },
            { "name": "word", "task": echoes("${{ inputs.word }}") },
            { "name": "reads", "needs": [{ "step": "word" }], "task": shell(SEEN) },
            // It reports the same with and without a file.
            { "name": "left", "task": shell("[ ${{ inputs.word }} = b ] || echo x > $ROTA_OUTPUT/x; echo same") },
            { "name": "finds", "needs": [{ "step": "left" }], "task": shell("ls $ROTA_CONTEXT/artifacts || true; echo found") },
            { "name": "end", "needs": [{ "step": "still" }], "task": shell(&format!("{SEEN}; : ${{{{ inputs.seen }}}}")) },
        ],
    });
    api.create("first", spec).await?;
    api.ended("first").await?;
    let (_, again) = api
        .post(
            &format!("{WORKFLOWS}/first:rerun"),
            &json!({ "reuseResults": true, "inputs": { "word": "b", "seen": false } }),
        )
        .await?;
    let again = again["uid"].as_str().context("an id")?;
    api.ended(again).await?;
    assert_eq!(api.step(again, "still").await?["reused"], true);
    assert_ne!(api.step(again, "finds").await?["reused"], true);
    let end = text(&api, again, "end").await?;
    assert_eq!(brief(&end)?, expected(&[("still", "SUCCEEDED", 0, "as it was")]), "{end}");
    let reads = text(&api, again, "reads").await?;
    assert_eq!(brief(&reads)?, expected(&[("word", "SUCCEEDED", 0, "b")]), "{reads}");
    Ok(())
}

#[tokio::test]
async fn large_fan_out_is_given_in_pages() -> Result<()> {
    let (cluster, api) = cluster(Backend::Sqlite).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let spec = json!({
        "inputs": { "items": (0..600).collect::<Vec<_>>(), "large": (0..30).collect::<Vec<_>>() },
        "steps": [
            { "name": "many", "task": echoes("n${{ item }}"), "forEach": { "items": "inputs.items" } },
            // More than a page takes, each nearly as large as the text of a command may be.
            { "name": "large", "task": shell("head -c 60000 /dev/zero | tr '\\0' x; : ${{ item }}"), "forEach": { "items": "inputs.large" } },
            { "name": "end", "needs": [{ "step": "many" }, { "step": "large" }],
              "task": shell("cd $ROTA_CONTEXT; grep -o '\"n[0-9]*\"' previous_results.json | sort -u | wc -l; \
                             grep -o '\"large\"' previous_results.json | wc -l; wc -c < previous_results.json") },
        ],
    });
    api.create("wide", spec).await?;
    assert_eq!(api.ended("wide").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    let counted = text(&api, "wide", "end").await?;
    let [many, large, bytes] = counted.split_whitespace().collect::<Vec<_>>()[..] else {
        anyhow::bail!("{counted:?}");
    };
    assert_eq!((many, large), ("600", "30"));
    assert!(bytes.parse::<usize>()? > 30 * 60_000, "{bytes}");
    Ok(())
}

#[tokio::test]
async fn results_without_tasks_are_given_in_pages() -> Result<()> {
    let (cluster, api) = cluster(Backend::Memory).await?;
    let mut worker = RawWorker::join(cluster.client(), raw::hello("echo", "hand", 1)).await?;
    let names: Vec<_> = (0..40).map(|index| format!("s{index}")).collect();
    let wait = |name| json!({ "name": name, "wait": { "duration": "0s" }, "outputs": { "text": "${{ inputs.text }}" } });
    let mut steps: Vec<_> = names.iter().map(wait).collect();
    let needs: Vec<_> = names.iter().map(|name| json!({ "step": name })).collect();
    steps.push(json!({ "name": "end", "needs": needs, "task": echoes("x") }));
    api.create("wide", json!({ "inputs": { "text": "x".repeat(60 << 10) }, "steps": steps })).await?;
    let assign = worker.take().await?;
    let mut request = FetchStepResultsRequest {
        namespace: "default".to_owned(),
        worker: "hand".to_owned(),
        task_id: assign.task_id,
        fence: assign.fence,
        page_token: String::new(),
    };
    let mut given = Vec::new();
    loop {
        let answer = cluster.client().workers().fetch_step_results(request.clone()).await?.into_inner();
        let bytes = answer.encoded_len();
        assert!(bytes <= (1 << 20) + (64 << 10), "a page has {bytes} bytes");
        given.extend(answer.results.into_iter().map(|result| result.step));
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    assert_eq!(given, names);
    Ok(())
}

#[tokio::test]
async fn results_of_steps_are_only_for_the_attempt() -> Result<()> {
    let (cluster, api) = cluster(Backend::Memory).await?;
    let client = cluster.client();
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 2)).await?;
    let spec = json!({ "steps": [
        { "name": "a", "task": echoes("x") },
        { "name": "b", "needs": [{ "step": "a" }], "task": echoes("y") },
    ] });
    api.create("two", spec).await?;
    let first = worker.take().await?;
    assert!(!first.has_step_results);
    worker.succeed(&first, 0, "of a");
    assert!(worker.result_ack().await?);
    let second = worker.take().await?;
    assert!(second.has_step_results && second.previous.is_empty());
    let right = FetchStepResultsRequest {
        namespace: "default".to_owned(),
        worker: "hand".to_owned(),
        task_id: second.task_id.clone(),
        fence: second.fence,
        page_token: String::new(),
    };
    let fetch =
        async |request: &FetchStepResultsRequest| client.workers().fetch_step_results(request.clone()).await;
    let answer = fetch(&right).await?.into_inner();
    assert_eq!(answer.results.len(), 1);
    assert_eq!(answer.results[0].result.clone().unwrap_or_default().text, "of a");
    assert!(answer.next_page_token.is_empty() && answer.results[0].step == "a");
    for wrong in [
        FetchStepResultsRequest { fence: right.fence + 1, ..right.clone() },
        FetchStepResultsRequest { worker: "another".to_owned(), ..right.clone() },
        FetchStepResultsRequest { namespace: "another".to_owned(), ..right.clone() },
        FetchStepResultsRequest { task_id: first.task_id.clone(), ..right.clone() },
    ] {
        assert_eq!(
            fetch(&wrong).await.map(drop).map_err(|status| status.code()),
            Err(Code::NotFound),
            "{wrong:?}"
        );
    }
    let wrong = FetchStepResultsRequest { page_token: "x".to_owned(), ..right };
    assert_eq!(fetch(&wrong).await.map(drop).map_err(|status| status.code()), Err(Code::InvalidArgument));
    Ok(())
}

#[tokio::test]
async fn rerun_gives_the_files_of_steps_that_it_takes_over() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let (mut cluster, api) = cluster(backend).await?;
        let worker = cluster.worker("echo", "one", 4)?;
        let made = "[ ${{ item }} = none ] || echo of ${{ item }} > $ROTA_OUTPUT/part; echo did ${{ item }}";
        let shows =
            "cd $ROTA_CONTEXT/artifacts && find . -type f | sort | xargs tail -n +1; exit ${{ inputs.code }}";
        let needs = json!([{ "step": "fan" }, { "step": "one" }, { "step": "word" }]);
        let spec = json!({
            "inputs": { "code": 3, "word": "a" },
            "steps": [
                { "name": "fan", "task": shell(made), "forEach": { "items": "['a', 'none', 'b']" } },
                { "name": "one", "task": shell("echo whole > $ROTA_OUTPUT/all; echo one") },
                { "name": "word", "task": shell("echo ${{ inputs.word }} > $ROTA_OUTPUT/word; echo word") },
                { "name": "end", "needs": needs, "task": shell(shows) },
            ],
        });
        let first = api.create("files", spec).await?["uid"].as_str().context("an id")?.to_owned();
        assert_eq!(api.ended("files").await?["status"]["failedStep"], "end");
        let rerun = async |api: &Api, of: &str, body: Value| {
            let (_, made) = api.post(&format!("{WORKFLOWS}/{of}:rerun"), &body).await?;
            let id = made["uid"].as_str().with_context(|| made.to_string())?.to_owned();
            let ended = api.ended(&id).await?;
            anyhow::ensure!(ended["status"]["state"] == "WORKFLOW_STATE_SUCCEEDED", "{ended}");
            anyhow::Ok(id)
        };
        let check = async |api: &Api, id: &str, word: &str, reused: [bool; 3]| {
            let files = text(api, id, "end").await? + "\n";
            let expected = [
                ("fan/0/output/part", "of a"),
                ("fan/2/output/part", "of b"),
                ("one/output/all", "whole"),
                ("word/output/word", word),
            ];
            for (name, content) in expected {
                let named = files.contains(&format!("==> ./{name} <==\n{content}\n"));
                anyhow::ensure!(named, "{name}: {files}");
            }
            anyhow::ensure!(files.matches("==>").count() == expected.len(), "{files}");
            for (step, reused) in ["fan", "one", "word"].into_iter().zip(reused) {
                anyhow::ensure!(
                    api.step(id, step).await?["reused"] == if reused { json!(true) } else { Value::Null }
                );
            }
            anyhow::Ok(())
        };
        let fixed = json!({ "reuseResults": true, "inputs": { "code": 0, "word": "b" } });
        let second = rerun(&api, &first, fixed).await?;
        check(&api, &second, "b", [true, true, false]).await?;

        // The first one is removed with its tasks: the files are those of the second, and of a rerun of that.
        let deleted = api.http.delete(format!("{}{WORKFLOWS}/{first}", api.base)).send().await?;
        assert_eq!(deleted.status(), StatusCode::OK);
        tasks::eventually("the removal of the tasks", async || {
            let left = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={first}")).await?;
            Ok(left["tasks"].is_null())
        })
        .await?;
        let from = json!({ "reuseResults": true, "steps": ["end"] });
        let third = rerun(&api, &second, from.clone()).await?;
        check(&api, &third, "b", [true; 3]).await?;

        // Contents that are lost: the steps run again.
        for entry in std::fs::read_dir(cluster.folder().join("artifacts"))? {
            let path = entry?.path();
            // Without its marker the folder would be another one, and nothing lost.
            if path.is_dir() {
                std::fs::remove_dir_all(path)?;
            }
        }
        let fourth = rerun(&api, &third, from).await?;
        check(&api, &fourth, "b", [false; 3]).await?;
        drop(worker);
        cluster.kill().await;
    }
    Ok(())
}
