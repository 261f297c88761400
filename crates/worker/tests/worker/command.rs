//! The `command` runtime, driven over a session.

use rota_proto::v1::{
    CommandRuntime, Event, Failure, FailureClass, GitSource, OutputStream, SecretSelection, TaskInput,
    Workspace, event, runtime,
};
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Assign, Checkpoints, Input, PreviousResult, Result as AttemptResult, result};
use tonic::{Code, Status};

use crate::control_plane::{FakeControlPlane, Session, Worker, assign};
use crate::session::{class, refusal};

async fn run(
    change: impl FnOnce(&mut CommandRuntime),
    more: impl FnOnce(&mut Assign),
) -> (Vec<Event>, AttemptResult) {
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let mut command = CommandRuntime::default();
    change(&mut command);
    let mut task = assign(1, runtime::Kind::Command(command));
    more(&mut task);
    session.send(ToWorker::Assign(Box::new(task))).await;
    session.accepted(1).await;
    session.result().await
}

async fn shell(line: &str) -> (Vec<Event>, AttemptResult) {
    run(|command| command.shell = line.to_owned(), |_| {}).await
}

fn printed(events: &[Event], from: OutputStream) -> Vec<u8> {
    let data = |event: &Event| match &event.kind {
        Some(event::Kind::Output(output)) if output.stream() == from => output.data.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(data).collect()
}

fn succeeded(result: AttemptResult) -> rota_proto::v1::TaskResult {
    match result.kind {
        Some(result::Kind::Succeeded(result)) => result,
        other => panic!("{other:?}"),
    }
}

/// Starts an attempt whose list of artifacts is refused.
async fn without_list(error: Status) -> (FakeControlPlane, Worker, Session) {
    let mut plane = FakeControlPlane::start().await;
    plane.refuse_lists(error);
    let worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let shell = "mkfifo $ROTA_OUTPUT/pipe && echo paid".to_owned();
    let command = CommandRuntime { shell, ..CommandRuntime::default() };
    session.send(ToWorker::Assign(Box::new(assign(1, runtime::Kind::Command(command))))).await;
    session.accepted(1).await;
    (plane, worker, session)
}

/// Waits for a notice with a code.
async fn noted(session: &mut Session, code: &str) {
    let is_it = |event: &Event| match &event.kind {
        Some(event::Kind::Notice(notice)) => notice.code == code,
        _ => false,
    };
    while !session.report().await.events.iter().any(is_it) {}
}

/// Nothing is uploaded: the list has only a file that cannot be kept.
#[tokio::test]
async fn nearly_full_volume_fails_no_success() {
    let (_plane, _worker, mut session) =
        without_list(refusal(Code::ResourceExhausted, "the volume is nearly full")).await;
    let (events, result) = session.result().await;
    assert_eq!(succeeded(result).text, "paid");
    let code = |event: &Event| match &event.kind {
        Some(event::Kind::Notice(notice)) => Some(notice.code.clone()),
        _ => None,
    };
    let codes: Vec<_> = events.iter().filter_map(code).collect();
    assert!(codes.contains(&"artifacts_not_stored".to_owned()), "{codes:?}");
}

/// Another attempt would leave the same: it is not repeated like that of a storage which is away.
#[tokio::test]
async fn refused_list_is_no_failure_of_the_storage() {
    let (_plane, _worker, mut session) =
        without_list(refusal(Code::InvalidArgument, "takes 597036 bytes")).await;
    match session.result().await.1.kind {
        Some(result::Kind::Failed(failed)) => {
            assert_eq!((failed.class(), failed.of_storage), (FailureClass::Invalid, false));
            assert!(failed.message.contains("597036"), "{failed:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Its record may be put back. The agent would have to work again for what is there already.
#[tokio::test]
async fn work_waits_for_a_damaged_record() {
    let (plane, _worker, mut session) =
        without_list(refusal(Code::DataLoss, "the record cannot be decoded")).await;
    noted(&mut session, "artifacts_waiting").await;
    // No agent reads it any more.
    let input = Some(TaskInput { text: "in French".to_owned(), ..TaskInput::default() });
    let input = Input { task_id: "t1".to_owned(), fence: 1, input_seq: 1, input };
    session.send(ToWorker::Input(input.into())).await;
    noted(&mut session, "input_unheard").await;
    plane.keep_lists();
    assert_eq!(succeeded(session.result().await.1).text, "paid");
}

#[tokio::test]
async fn prompt_is_stdin_and_stdout_is_result() {
    let prompt = |task: &mut Assign| task.spec.as_mut().unwrap().prompt = "repeat this\n".to_owned();
    let argv = |command: &mut CommandRuntime| {
        command.argv = ["sh", "-c", "cat; echo warn >&2; printf '\\377'"].map(str::to_owned).into();
    };
    let (events, result) = run(argv, prompt).await;
    assert_eq!(printed(&events, OutputStream::Stdout), b"repeat this\n\xff");
    assert_eq!(printed(&events, OutputStream::Stderr), b"warn\n");
    let result = succeeded(result);
    assert_eq!((result.text.as_str(), result.exit_code), ("repeat this\n\u{fffd}", Some(0)));
}

/// An attempt that does not continue where it should writes a notice. Which failures end a conversation is for the control plane to decide.
#[tokio::test]
async fn missing_checkpoints_are_noticed() {
    let class = FailureClass::Agent.into();
    let left = |task: &mut Assign| {
        task.attempt = 18;
        let last_failure = Some(Failure { class, ..Failure::default() });
        task.checkpoints =
            Some(Checkpoints { exist: true, attempt: 1, last_failure, ..Checkpoints::default() });
    };
    let (events, result) = run(|command| command.shell = "echo over".to_owned(), left).await;
    assert_eq!(succeeded(result).text, "over");
    let notices = events.iter().filter_map(|event| match &event.kind {
        Some(event::Kind::Notice(notice)) => {
            Some((notice.code.as_str(), notice.message.contains("attempt 1 ")))
        }
        _ => None,
    });
    assert_eq!(notices.collect::<Vec<_>>(), [("checkpoint_unusable", true)]);
}

/// A task of its own starts over. One that continues another has no meaning without that.
#[tokio::test]
async fn unreadable_checkpoints_end_no_task_of_its_own() {
    let mut plane = FakeControlPlane::start().await;
    plane.refuse_checkpoints(refusal(Code::DataLoss, "the list cannot be decoded"));
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    for (fence, continues) in [(1, false), (2, true)] {
        let shell = "echo over".to_owned();
        let command = CommandRuntime { shell, ..CommandRuntime::default() };
        let mut task = assign(fence, runtime::Kind::Command(command));
        task.checkpoints = Some(Checkpoints { exist: true, attempt: 1, continues, ..Checkpoints::default() });
        session.send(ToWorker::Assign(Box::new(task))).await;
        session.accepted(fence).await;
        let (_, ended) = session.result().await;
        match continues {
            false => assert_eq!(succeeded(ended).text, "over"),
            true => assert_eq!(class(&ended), Some(FailureClass::Invalid)),
        }
    }
}

#[tokio::test]
async fn exit_codes_map_to_failure_classes() {
    let (_, result) = shell("echo reason >&2; exit 3").await;
    match result.kind {
        Some(result::Kind::Failed(failed)) => {
            assert_eq!((failed.class(), failed.exit_code), (FailureClass::Agent, Some(3)));
            assert!(failed.message.contains("reason"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(class(&shell("no-such-program-at-all").await.1), Some(FailureClass::Start));
    let missing = |command: &mut CommandRuntime| command.argv = vec!["no-such-program-at-all".to_owned()];
    assert_eq!(class(&run(missing, |_| {}).await.1), Some(FailureClass::Start));
    assert_eq!(class(&run(|_| {}, |_| {}).await.1), Some(FailureClass::Invalid));
    assert_eq!(class(&shell("kill -9 $$").await.1), Some(FailureClass::Crash));
}

#[tokio::test]
async fn side_channel_and_context_files_work() {
    let line = r#"
        grep -q '"id": "t1"' $ROTA_CONTEXT/task.json || exit 1
        grep -q before $ROTA_CONTEXT/previous_results.json || exit 2
        echo '{"progress":0.5,"step":"half"}' > $ROTA_EVENTS
        echo 'nonsense' > $ROTA_EVENTS
        echo '{"usage":{"input_tokens":5}}' > $ROTA_EVENTS
        echo '{"result":{"answer":42}}' > $ROTA_EVENTS
    "#;
    let previous = |task: &mut Assign| {
        task.previous = vec![PreviousResult { alias: "before".to_owned(), ..PreviousResult::default() }];
    };
    let (events, result) = run(|command| command.shell = line.to_owned(), previous).await;
    let kinds: Vec<_> = events.iter().filter_map(|event| event.kind.as_ref()).collect();
    assert!(
        kinds.iter().any(|kind| matches!(kind, event::Kind::Progress(progress) if progress.step == "half"))
    );
    assert!(kinds.iter().any(|kind| matches!(kind, event::Kind::Notice(_))));
    assert_eq!(result.usage.as_ref().unwrap().input_tokens, 5);
    let data = serde_json::to_value(succeeded(result).data).unwrap();
    assert_eq!(data, serde_json::json!({"answer": 42.0}));
}

#[tokio::test]
async fn result_file_is_the_result() {
    let line = r#"echo '{"success":true,"summary":"done","files_created":["a"]}' > $ROTA_OUTPUT/result.json"#;
    let result = succeeded(shell(line).await.1);
    assert_eq!((result.text.as_str(), result.files.as_slice()), ("done", ["a".to_owned()].as_slice()));
    let line = r#"echo '{"success":false,"summary":"could not"}' > $ROTA_OUTPUT/result.json"#;
    assert_eq!(class(&shell(line).await.1), Some(FailureClass::Agent));
}

#[tokio::test]
async fn environment_has_only_the_attempts_variables() {
    let secret = |task: &mut Assign| {
        task.secrets = [("API_KEY".to_owned(), "sealed".to_owned())].into();
        task.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    };
    let (_, result) = run(
        |command| {
            command.shell = "env; echo ${#API_KEY} letters; test -d $HOME && test -d $TMPDIR".to_owned()
        },
        secret,
    )
    .await;
    let text = succeeded(result).text;
    for wanted in [
        "API_KEY=[redacted]",
        "6 letters",
        "TRACEPARENT=00-0af",
        "ROTA_TASK_ID=t1",
        "ROTA_FENCE=1",
        "ROTA_ATTEMPT=1",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert!(!text.contains("CARGO"));
}

#[tokio::test]
async fn printed_private_key_is_redacted_from_failure() {
    let lines: Vec<_> = (0..40).map(|_| uuid::Uuid::new_v4().simple().to_string().repeat(2)).collect();
    let dashes = "-".repeat(5);
    let key = format!(
        "{dashes}BEGIN RSA PRIVATE KEY{dashes}\n{}\n{dashes}END RSA PRIVATE KEY{dashes}",
        lines.join("\n")
    );
    let (events, result) = shell(&format!("echo 'it is' >&2; echo '{key}' >&2; exit 3")).await;
    let Some(result::Kind::Failed(failed)) = &result.kind else { panic!("{result:?}") };
    assert_eq!(failed.message, "exit code 3: it is\n[redacted]");
    let printed = String::from_utf8(printed(&events, OutputStream::Stderr)).unwrap();
    assert_eq!(printed, "it is\n[redacted]\n");
}

#[tokio::test]
async fn numeric_secret_is_redacted_from_result() {
    let number = 100_000_000 + u64::from(uuid::Uuid::new_v4().as_fields().0 >> 8);
    let secret = |task: &mut Assign| task.secrets = [("PIN".to_owned(), number.to_string())].into();
    let line = r#"echo "{\"data\":{\"pin\":$PIN,\"n\":7}}" > $ROTA_OUTPUT/result.json"#;
    let (_, result) = run(|command| command.shell = line.to_owned(), secret).await;
    let data = serde_json::to_value(succeeded(result).data).unwrap();
    assert_eq!(data, serde_json::json!({"pin": "[redacted]", "n": 7.0}));
}

#[tokio::test]
async fn workspace_is_cloned_from_git() {
    let source = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t"])
            .args(args)
            .current_dir(source.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    std::fs::write(source.path().join("file"), "first").unwrap();
    git(&["add", "file"]);
    git(&["commit", "--quiet", "-m", "first"]);
    let first = git(&["rev-parse", "HEAD"]);
    std::fs::write(source.path().join("file"), "second").unwrap();
    git(&["commit", "--quiet", "-a", "-m", "second"]);
    for (r#ref, depth, wanted) in [("", 0, "second"), ("main", 1, "second"), (first.as_str(), 1, "first")] {
        let url = format!("file://{}", source.path().display());
        let git = Some(GitSource { url, r#ref: r#ref.to_owned(), depth, ..GitSource::default() });
        let workspace = |task: &mut Assign| {
            task.spec.as_mut().unwrap().workspace = Some(Workspace { git, ..Workspace::default() });
        };
        let (_, result) = run(|command| command.shell = "cat file".to_owned(), workspace).await;
        assert_eq!(succeeded(result).text, wanted, "{ref} {depth}");
    }
    let url = format!("file://{}", source.path().display());
    assert_eq!(failed_clone(&url, "none").await, FailureClass::Invalid);
    assert_eq!(failed_clone("file:///no/such", "").await, FailureClass::Invalid);
}

/// Returns the class of the failure to clone a repository.
async fn failed_clone(url: &str, r#ref: &str) -> FailureClass {
    let git = Some(GitSource { url: url.to_owned(), r#ref: r#ref.to_owned(), ..GitSource::default() });
    let workspace = |task: &mut Assign| {
        task.spec.as_mut().unwrap().workspace = Some(Workspace { git, ..Workspace::default() });
    };
    let (_, result) = run(|command| command.shell = "true".to_owned(), workspace).await;
    class(&result).unwrap()
}

/// Starts an HTTP server that answers every request with this status. Returns its address.
async fn http_server(status: &'static str) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    rota_telemetry::spawn("http-server", rota_telemetry::OnExit::Done, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let authenticate = "WWW-Authenticate: Basic realm=\"git\"\r\n";
            let answer =
                format!("HTTP/1.1 {status}\r\n{authenticate}Content-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn failed_clones_blame_no_worker() {
    for (status, credentials, class) in [
        ("401 Unauthorized", "", FailureClass::Invalid),
        ("401 Unauthorized", "user:expired@", FailureClass::Invalid),
        ("403 Forbidden", "", FailureClass::Source),
        ("404 Not Found", "", FailureClass::Invalid),
        ("503 Service Unavailable", "", FailureClass::Source),
    ] {
        let address = http_server(status).await;
        let url = format!("http://{credentials}{address}/team/repository.git");
        assert_eq!(failed_clone(&url, "").await, class, "{status}");
    }
    let closed = rota_telemetry::free_addresses(1).unwrap()[0];
    assert_eq!(failed_clone(&format!("http://{closed}/x.git"), "").await, FailureClass::Source);
}

#[tokio::test]
async fn token_and_unselected_secrets_are_redacted() {
    let mut plane = FakeControlPlane::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let (token, other) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    std::fs::write(secrets.path().join("OTHER"), &other).unwrap();
    let _worker = Worker::start_with(&plane, |options| {
        options.token = Some(token.clone().into());
        options.secrets_dir = Some(secrets.path().to_owned());
    });
    let mut session = plane.welcomed().await;
    let shell = format!("echo {token} {other} $OTHER.");
    let mut task = assign(1, runtime::Kind::Command(CommandRuntime { shell, ..CommandRuntime::default() }));
    task.spec.as_mut().unwrap().agent_secrets = Some(SecretSelection::default());
    session.send(ToWorker::Assign(Box::new(task))).await;
    session.accepted(1).await;
    let (events, result) = session.result().await;
    assert_eq!(printed(&events, OutputStream::Stdout), b"[redacted] [redacted] .\n");
    assert_eq!(succeeded(result).text, "[redacted] [redacted] .");
}
