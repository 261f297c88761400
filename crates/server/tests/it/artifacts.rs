//! Artifacts: who may store and read them, and which lists are kept.

mod changing;

use std::fs;

use anyhow::{Context, Result};
use rota_proto::PART_BYTES;
use rota_proto::v1::{
    Artifact, ArtifactList, Dependency, DownloadPartsRequest, Failure, FailureClass, FindMissingPartsRequest,
    IssueWorkerTokenRequest, SkippedFile, TaskResult, UploadPartsRequest,
    artifact_service_client::ArtifactServiceClient,
};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{
    FetchPreviousResultRequest, KeepArtifactsRequest, KeepArtifactsResponse, Result as WorkerResult, result,
};
use rota_testkit::client::{Client, Options, Token, reason};
use rota_testkit::raw::{RawWorker, hello};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use sha2::{Digest, Sha256};
use tonic::Status;

const ECHO: &str = "namespaces/default/agents/echo";

async fn start_cluster() -> Result<Cluster> {
    let setup = Setup { token: Some("open sesame".to_owned()), http: true, ..Setup::new(Backend::Sqlite) };
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    Ok(cluster)
}

/// Returns a client with the token of a worker.
async fn holder(cluster: &Cluster, worker: &str) -> Result<Client> {
    let request =
        IssueWorkerTokenRequest { agent: ECHO.to_owned(), worker: worker.to_owned(), ..Default::default() };
    let token = cluster.client().issue_worker_token(request).await?.token;
    let options = Options::new(format!("http://{}", cluster.addr()));
    Ok(Client::new(Options { token: Token::Fixed(token.into()), ..options })?)
}

pub(crate) fn artifact(name: &str, text: &str) -> Artifact {
    let digest = Sha256::digest(text);
    Artifact {
        name: name.to_owned(),
        size: i64::try_from(text.len()).unwrap(),
        sha256: hex::encode(digest),
        parts: vec![digest.to_vec()],
        executable: false,
    }
}

pub(crate) async fn upload(client: &Client, parent: &str, text: &'static str) -> Result<i64, Status> {
    let part = UploadPartsRequest { parent: parent.to_owned(), data: text.into() };
    Ok(client.artifact_service().upload_parts(tokio_stream::iter([part])).await?.into_inner().parts)
}

async fn keep(client: &Client, request: &KeepArtifactsRequest) -> Result<KeepArtifactsResponse, Status> {
    Ok(client.workers().keep_artifacts(request.clone()).await?.into_inner())
}

#[tokio::test]
async fn only_the_worker_of_an_attempt_keeps_its_artifacts() -> Result<()> {
    let cluster = start_cluster().await?;
    let (one, two) = (holder(&cluster, "one").await?, holder(&cluster, "two").await?);
    let mut worker = RawWorker::join(&one, hello("echo", "one", 1)).await?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let list = |artifacts| Some(ArtifactList { artifacts, ..ArtifactList::default() });
    let right = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        artifacts: list(vec![artifact("output/a", "text")]),
    };
    // Nothing is kept before its content is stored.
    assert_eq!(keep(&one, &right).await?.missing_parts, [Sha256::digest("text").to_vec()]);
    assert!(cluster.client().fetch_artifacts(&task.name).await?.attempts.is_empty());
    assert_eq!(upload(&one, "namespaces/default", "text").await?, 1);
    for (client, wrong, expected) in [
        (&two, right.clone(), "WORKER_NAME_MISMATCH"),
        (&two, KeepArtifactsRequest { worker: "two".to_owned(), ..right.clone() }, "TASK_NOT_FOUND"),
        (&one, KeepArtifactsRequest { fence: right.fence + 1, ..right.clone() }, "TASK_NOT_FOUND"),
        (
            &one,
            KeepArtifactsRequest { namespace: "team".to_owned(), ..right.clone() },
            "WORKER_NAME_MISMATCH",
        ),
        (
            &one,
            KeepArtifactsRequest { artifacts: list(vec![artifact("output/../a", "text")]), ..right.clone() },
            "INVALID_FIELD",
        ),
    ] {
        let refused = keep(client, &wrong).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some(expected), "{wrong:?}");
    }
    assert_eq!(keep(&one, &right).await?, KeepArtifactsResponse::default());
    let kept = cluster.client().fetch_artifacts(&task.name).await?.attempts;
    assert_eq!((kept.len(), kept[0].attempt, kept[0].list.clone()), (1, 1, right.artifacts.clone()));
    worker.succeed(&assign, 0, "done");
    assert!(worker.result_ack().await?);
    assert_eq!(reason(&keep(&one, &right).await.unwrap_err()).as_deref(), Some("TASK_NOT_FOUND"), "it ended");
    Ok(())
}

#[tokio::test]
async fn artifacts_of_the_last_attempts_are_listed() -> Result<()> {
    let cluster = start_cluster().await?;
    let one = holder(&cluster, "one").await?;
    upload(&one, "namespaces/default", "text").await?;
    let mut worker = RawWorker::join(&one, hello("echo", "one", 1)).await?;
    let mut task = tasks::task("echo");
    let retry = task.spec.get_or_insert_default().retry.get_or_insert_default();
    (retry.max_attempts, retry.initial_backoff) = (18, Some(tasks::millis(1)));
    retry.max_backoff = Some(tasks::millis(1));
    let name = tasks::create(cluster.client(), task).await?.name;
    for _ in 0..18 {
        let assign = worker.take().await?;
        let artifacts = vec![artifact("output/a", "text")];
        let request = KeepArtifactsRequest {
            namespace: "default".to_owned(),
            worker: "one".to_owned(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            artifacts: Some(ArtifactList { artifacts, ..ArtifactList::default() }),
        };
        keep(&one, &request).await?;
        let class = FailureClass::Agent.into();
        worker.fail(&assign, Failure { class, ..Failure::default() });
        assert!(worker.result_ack().await?);
    }
    let listed = cluster.client().fetch_artifacts(&name).await?.attempts;
    let attempts: Vec<_> = listed.iter().map(|one| one.attempt).collect();
    assert_eq!((attempts.len(), attempts.iter().min()), (16, Some(&3)), "{attempts:?}");
    Ok(())
}

#[tokio::test]
async fn workers_stay_in_their_namespace() -> Result<()> {
    let cluster = start_cluster().await?;
    let one = holder(&cluster, "one").await?;
    let mut service: ArtifactServiceClient<_> = one.artifact_service();
    let (parent, digests) = ("namespaces/team".to_owned(), vec![Sha256::digest("text").to_vec()]);
    let refusals = [
        upload(&one, &parent, "text").await.unwrap_err(),
        service
            .find_missing_parts(FindMissingPartsRequest {
                parent: parent.clone(),
                digests: digests.clone(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        service.download_parts(DownloadPartsRequest { parent, digests }).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(reason(&refused).as_deref(), Some("WORKER_NAME_MISMATCH"));
    }
    let listed = one.fetch_artifacts("namespaces/default/tasks/any").await.unwrap_err();
    assert_eq!(listed.reason.as_deref(), Some("ROLE_FORBIDDEN"));
    Ok(())
}

#[tokio::test]
async fn input_must_be_stored() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let given = |name: &str| {
        let mut task = tasks::task("echo");
        task.spec.get_or_insert_default().inputs = vec![artifact(name, "given")];
        task
    };
    let refused = async |task| {
        let error = tasks::create(client, task).await.unwrap_err();
        error.downcast_ref::<rota_testkit::client::Error>().and_then(|error| error.reason.clone())
    };
    assert_eq!(refused(given("input/a")).await.as_deref(), Some("ARTIFACT_NOT_STORED"));
    upload(client, "namespaces/default", "given").await?;
    assert_eq!(refused(given("output/a")).await.as_deref(), Some("INVALID_FIELD"));
    let task = tasks::create(client, given("input/a")).await?;
    let kept = client.fetch_artifacts(&task.name).await?.attempts;
    assert_eq!((kept.len(), kept[0].attempt), (1, 0));
    Ok(())
}

/// What is not kept does not keep the rest from being kept, however long its names are.
#[tokio::test]
async fn list_of_skipped_files_is_cut() -> Result<()> {
    let cluster = start_cluster().await?;
    let one = holder(&cluster, "one").await?;
    let mut worker = RawWorker::join(&one, hello("echo", "one", 1)).await?;
    let task = tasks::create(cluster.client(), tasks::task("echo")).await?;
    let assign = worker.take().await?;
    // Of no content, so that nothing has to be stored.
    let empty = |number: usize| Artifact {
        name: format!("output/{number:0>800}"),
        sha256: hex::encode(Sha256::digest("")),
        ..Artifact::default()
    };
    let skipped = |number: usize| SkippedFile { name: format!("{number:0>1000}"), reason: "x".repeat(250) };
    let request = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        artifacts: Some(ArtifactList {
            artifacts: (0..560).map(empty).collect(),
            skipped: (0..100).map(skipped).collect(),
            ..ArtifactList::default()
        }),
    };
    assert_eq!(keep(&one, &request).await?, KeepArtifactsResponse::default());
    let kept = cluster.client().fetch_artifacts(&task.name).await?.attempts.remove(0).list.unwrap();
    assert_eq!(kept.artifacts.len(), 560);
    assert!(kept.skipped.len() < 100);
    Ok(())
}

/// A worker that expects artifacts, of which the dependency's own attempt has left none, gets an answer.
#[tokio::test]
async fn dependency_without_result_and_artifacts_is_no_error() -> Result<()> {
    let cluster = start_cluster().await?;
    let one = holder(&cluster, "one").await?;
    let mut worker = RawWorker::join(&one, hello("echo", "one", 1)).await?;
    let mut first = tasks::task("echo");
    upload(&one, "namespaces/default", "given").await?;
    first.spec.get_or_insert_default().inputs = vec![artifact("input/a", "given")];
    let first = tasks::create(cluster.client(), first).await?;
    let assign = worker.take().await?;
    worker.send(Kind::Result(Box::new(WorkerResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        kind: Some(result::Kind::Succeeded(TaskResult::default())),
        ..WorkerResult::default()
    })));
    assert!(worker.result_ack().await?);
    let mut second = tasks::task("echo");
    second.spec.get_or_insert_default().depends_on =
        vec![Dependency { task: first.uid, ..Default::default() }];
    tasks::create(cluster.client(), second).await?;
    let assign = worker.take().await?;
    let request = FetchPreviousResultRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        previous_task_id: assign.previous[0].task_id.clone(),
    };
    let answer = one.workers().fetch_previous_result(request).await?.into_inner();
    assert!(answer.artifacts.is_none());
    Ok(())
}

/// A browser saves the content, and neither shows nor runs it.
#[tokio::test]
async fn contents_are_downloaded_over_http() -> Result<()> {
    let cluster = start_cluster().await?;
    let client = cluster.client();
    let page: &'static str = Box::leak("<script>alert(1)</script>".repeat(50_000).into_boxed_str());
    let pieces = [&page[..PART_BYTES], &page[PART_BYTES..]];
    for piece in pieces {
        upload(client, "namespaces/default", piece).await?;
    }
    let large = Artifact {
        parts: pieces.map(|piece| Sha256::digest(piece).to_vec()).into(),
        ..artifact("input/a page.html", page)
    };
    let empty = Artifact { parts: Vec::new(), ..artifact("input/empty", "") };
    let mut task = tasks::task("echo");
    task.spec.get_or_insert_default().inputs = vec![large, empty];
    let task = tasks::create(client, task).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let download = async |query: &[(&str, &str)]| {
        let url = format!("http://{}/api/v1/{}/artifacts:download", cluster.addr(), task.name);
        let url = reqwest::Url::parse_with_params(&url, query)?;
        anyhow::Ok(http.get(url).bearer_auth("open sesame").send().await?)
    };
    let found = download(&[("attempt", "0"), ("name", "input/a page.html")]).await?;
    for (header, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(found.headers()[header], value);
    }
    assert!(found.text().await? == page);
    assert_eq!(download(&[("name", "input/empty")]).await?.error_for_status()?.text().await?, "");
    for (query, status, reason) in [
        ([("attempt", "0"), ("name", "input/b")], 404, "ARTIFACT_NOT_FOUND"),
        ([("attempt", "1"), ("name", "input/empty")], 404, "ARTIFACT_NOT_FOUND"),
        ([("attempt", "-1"), ("name", "input/empty")], 400, "INVALID_FIELD"),
    ] {
        let refused = download(&query).await?;
        assert_eq!(refused.status(), status, "{query:?}");
        assert!(refused.text().await?.contains(reason), "{query:?}");
    }
    Ok(())
}

async fn metrics(cluster: &Cluster) -> Result<String> {
    let addr = cluster.http_addr().context("it does not listen")?;
    Ok(reqwest::get(format!("http://{addr}/metrics")).await?.text().await?)
}

/// What the storage has lost is counted and named; a folder that was made in place of another has lost nothing.
#[tokio::test]
async fn lost_parts_are_no_folder_that_is_away() -> Result<()> {
    let mut cluster = start_cluster().await?;
    let client = cluster.client().clone();
    let mut task = tasks::task("echo");
    task.alias = "given".to_owned();
    task.spec.get_or_insert_default().inputs = vec![artifact("input/a", "kept"), artifact("input/b", "lost")];
    upload(&client, "namespaces/default", "kept").await?;
    upload(&client, "namespaces/default", "lost").await?;
    tasks::create(&client, task).await?;
    let alerts = async || -> Result<Vec<_>> {
        let request = rota_proto::v1::ListAlertsRequest { parent: "namespaces/-".to_owned() };
        let found = client.list_alerts(request).await?.alerts.into_iter();
        Ok(found.map(|alert| (alert.code, alert.message, alert.subject)).collect())
    };
    let (folder, away) = (cluster.folder().join("artifacts"), cluster.folder().join("away"));
    let part = hex::encode(Sha256::digest("lost"));
    for entry in fs::read_dir(&folder)? {
        let _ = fs::remove_file(entry?.path().join("default").join(&part[..2]).join(&part));
    }
    cluster.stop().await.context("it does not stop")?;
    cluster.restart().await?;
    tasks::eventually("a cause", async || Ok(!alerts().await?.is_empty())).await?;
    let [(code, message, subject)] = &alerts().await?[..] else { panic!("{:?}", alerts().await) };
    assert_eq!((code.as_str(), subject.as_str()), ("artifacts_lost", "namespaces/default"));
    assert!(message.contains("1 parts of 1 files") && message.contains("input/b of task given"), "{message}");
    let page = metrics(&cluster).await?;
    assert!(page.contains("rota_artifacts_lost{namespace=\"default\"} 1\n"), "{page}");
    assert!(page.contains("rota_artifacts_unavailable 0\n"), "{page}");

    cluster.stop().await.context("it does not stop")?;
    fs::rename(&folder, &away)?;
    cluster.restart().await?;
    let [(code, message, _)] = &alerts().await?[..] else { panic!("{:?}", alerts().await) };
    assert_eq!(code, "artifacts_unavailable");
    assert!(metrics(&cluster).await?.contains("rota_artifacts_unavailable 1\n"));
    assert!(message.contains("is not the one that this store knows"), "{message}");
    let refused = upload(&client, "namespaces/default", "more").await;
    let digests = vec![Sha256::digest("kept").to_vec()];
    let request =
        FindMissingPartsRequest { parent: "namespaces/default".to_owned(), digests, ..Default::default() };
    let missing = client.artifact_service().find_missing_parts(request.clone()).await.unwrap_err();
    assert_eq!(reason(&missing).as_deref(), Some("ARTIFACTS_UNAVAILABLE"), "{refused:?}");
    fs::remove_dir_all(&folder)?;
    fs::rename(&away, &folder)?;
    let found = client.artifact_service().find_missing_parts(request).await?.into_inner();
    assert!(found.digests.is_empty());
    Ok(())
}
