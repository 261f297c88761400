//! Commands that prepare a workspace, and commands that the work must pass.

use anyhow::Result;
use rota_proto::v1::{self, FailureClass, TaskState, event};
use rota_testkit::git_host::git;
use rota_testkit::tasks;
use serde_json::json;

use super::{Site, site};
use crate::{claude, workload};

fn command(line: &str) -> v1::WorkspaceCommand {
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).into();
    v1::WorkspaceCommand { argv, ..Default::default() }
}

pub(super) fn done_when(lines: &[&str]) -> v1::DoneWhen {
    v1::DoneWhen { commands: lines.iter().map(|line| command(line)).collect(), ..Default::default() }
}

/// Returns a task with only one attempt.
fn once(mut task: v1::Task, change: impl FnOnce(&mut v1::TaskSpec)) -> v1::Task {
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    change(spec);
    task
}

impl Site {
    async fn failure(&self, task: v1::Task) -> Result<v1::Failure> {
        Ok(self.run(task).await?.0.failure.unwrap_or_default())
    }
}

/// The real CLI, which gets the output of the failed check in the same conversation.
#[tokio::test]
async fn agents_go_on_until_their_work_passes() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let claude = v1::ClaudeRuntime { program, allowed_tools: vec!["Bash".to_owned()], ..Default::default() };
    let bash = |line: &str| json!([{"name": "Bash", "input": {"command": line}}]);
    let script = json!([
        {"tools": bash("echo two > answer.txt")},
        {"text": "Done."},
        {"tools": bash("echo four > answer.txt")},
        {"text": "Now it is right."},
    ]);
    let source = v1::GitSource { push: Some(v1::Push::default()), ..site.source() };
    let mut task = once(site.task_with("sum", "", source, |_| ()), |spec| {
        spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) });
        spec.prompt = format!("What is two and two? MOCK{script}");
        spec.environment = [("ANTHROPIC_BASE_URL".to_owned(), model.base_url())].into();
        spec.limits = Some(v1::Limits { max_turns: 10, ..Default::default() });
        let line = "printenv ANTHROPIC_API_KEY GIT; cat answer.txt; grep -q four answer.txt";
        spec.done_when = Some(done_when(&[line, "echo passed"]));
    });
    let key = format!("sk-ant-{}", uuid::Uuid::new_v4());
    task.spec.get_or_insert_default().secrets.insert("ANTHROPIC_API_KEY".to_owned(), key);
    let task = tasks::create(&client, task).await?;
    let ended = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, 1), "{:?}", ended.failure);
    assert_eq!(ended.result.unwrap().text, "Now it is right.");
    // The commands do not get the secrets.
    assert_eq!(workload::printed(&client, &task.name).await?, "two\nfour\npassed\n");
    let log = tasks::log(&client, &task.name).await?;
    let notices = log.iter().filter_map(|event| match &event.kind {
        Some(event::Kind::Notice(notice)) if notice.code.starts_with("check") => Some(notice.code.as_str()),
        _ => None,
    });
    assert_eq!(notices.collect::<Vec<_>>(), ["check_failed", "checks_passed"]);
    // One conversation, whose usage is that of both rounds.
    assert!(model.requests().iter().any(|request| request.step == Some(3) && request.turns == 3));
    let usage = ended.usage.unwrap();
    assert!(usage.turns >= 4 && usage.cost_micro_usd > 0, "{usage:?}");
    let branch = format!("rota/{}", task.uid);
    assert_eq!(git(&site.host.path("project"), &["show", &format!("{branch}:answer.txt")]).await?, "four");
    Ok(())
}

#[tokio::test]
async fn work_that_does_not_pass_has_not_succeeded() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let checked = |alias: &str, line: &str, checks: v1::DoneWhen| {
        once(site.task(alias, line), |spec| spec.done_when = Some(checks))
    };
    site.succeed(checked("good", "echo a > a", done_when(&["test -e a", "true"]))).await?;
    let failed =
        site.failure(checked("bad", "echo a > a", done_when(&["true", "echo why >&2; exit 3"]))).await?;
    assert_eq!(failed.class(), FailureClass::Checks);
    assert!(failed.message.contains("exit code 3") && failed.message.ends_with("why"), "{}", failed.message);
    assert_eq!(site.paths("bad").await?, ["a"], "its work is kept");

    let mut slow = command("sleep 600");
    slow.timeout = Some(std::time::Duration::from_millis(200).into());
    let slow = v1::DoneWhen { commands: vec![slow], ..Default::default() };
    let failed = site.failure(checked("slow", "true", slow)).await?;
    assert!(failed.message.contains("took longer than 0.2 s"), "{}", failed.message);

    // They end with their attempt.
    let task =
        tasks::create(&client, checked("hangs", "true", done_when(&["echo checking; sleep 600"]))).await?;
    workload::prints(&client, &task.name, "checking").await?;
    tasks::cancel(&client, &task.name).await?;
    assert_eq!(tasks::ended(&client, &task.name).await?.status.unwrap().state(), TaskState::Cancelled);

    let missing = v1::WorkspaceCommand { secrets: vec!["OTHER".to_owned()], ..command("true") };
    let missing = v1::DoneWhen { commands: vec![missing], ..Default::default() };
    let failed = site.failure(checked("missing", "true", missing)).await?;
    assert!(failed.class() == FailureClass::Invalid && failed.message.contains("OTHER"), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn setup_prepares_the_workspace() -> Result<()> {
    let site = site(1).await?;
    let prepared = once(site.task("prepared", "cat ready"), |spec| {
        spec.secrets.insert("TOKEN".to_owned(), "for-setup-alone".to_owned());
        let get = v1::WorkspaceCommand {
            secrets: vec!["TOKEN".to_owned()],
            ..command("test -n \"$TOKEN\" && echo ok > ready")
        };
        spec.setup = vec![get, command("test -z \"$TOKEN\" && echo again >> ready")];
    });
    assert_eq!(site.succeed(prepared).await?, "ok\nagain\n");
    let broken = once(site.task("broken", "echo never"), |spec| {
        spec.setup = vec![command("echo no network >&2; exit 1")];
    });
    let (status, printed) = site.run(broken).await?;
    let failed = status.failure.unwrap();
    assert_eq!(failed.class(), FailureClass::Setup);
    assert!(failed.message.contains("no network") && !printed.contains("never"), "{failed:?} {printed}");
    Ok(())
}

/// An agent cannot pass by a change of the tests, and its changes of them are kept.
#[tokio::test]
async fn checks_see_pinned_files_as_they_were() -> Result<()> {
    let site = site(1).await?;
    let user = site.clone("user").await?;
    std::fs::create_dir(user.join("tests"))?;
    std::fs::write(
        user.join("tests/run.sh"),
        "test -e tests/old && ! test -e tests/new && ! test -e tests/hidden && grep -q right answer\n",
    )?;
    std::fs::write(user.join("tests/old"), "old\n")?;
    git(&user, &["add", "."]).await?;
    git(&user, &["commit", "-q", "-m", "tests"]).await?;
    git(&user, &["push", "-q", "origin", "HEAD:main"]).await?;

    let checks =
        v1::DoneWhen { pinned_files: vec!["tests/**".to_owned()], ..done_when(&["sh tests/run.sh"]) };
    // What is ignored, and filters, hide nothing.
    let easy = "echo exit 0 > tests/run.sh; rm tests/old; echo new > tests/new; echo 'tests/** filter=x text eol=crlf' > .gitattributes; \
                git config filter.x.smudge 'echo exit 0 #'; git config --global filter.x.smudge 'echo exit 0 #'; \
                mkdir -p .git/info; echo tests/hidden > .git/info/exclude; echo x > tests/hidden; git add .; ";
    let task = |alias: &str, line: &str| {
        once(site.task(alias, &format!("{easy}{line}")), |spec| spec.done_when = Some(checks.clone()))
    };
    let wrong = site.failure(task("wrong", "git commit -qm x; echo wrong > answer")).await?;
    assert_eq!(wrong.class(), FailureClass::Checks, "{wrong:?}");
    site.succeed(task("right", "echo right > answer")).await?;
    for alias in ["wrong", "right"] {
        let paths = site.paths(alias).await?;
        assert_eq!(paths, [".gitattributes", "answer", "tests/new", "tests/old", "tests/run.sh"], "{alias}");
    }

    // A command that runs the agent's work changes nothing for the next one.
    let two = v1::DoneWhen {
        pinned_files: vec!["**/*.{sh,txt}".to_owned(), "tests/**".to_owned()],
        ..done_when(&["echo exit 0 > tests/run.sh", "sh tests/run.sh"])
    };
    let wrong = once(site.task("two", "echo wrong > answer"), |spec| spec.done_when = Some(two));
    assert_eq!(site.failure(wrong).await?.class(), FailureClass::Checks);
    // An agent could write the objects of a kept workspace.
    let mut kept = task("kept", "true");
    let spec = kept.spec.get_or_insert_default();
    spec.workspace.get_or_insert_default().mode = v1::WorkspaceMode::Keep.into();
    assert_eq!(site.failure(kept).await?.class(), FailureClass::Invalid);
    Ok(())
}

/// Behind a link to a folder, files have names that their own do not show.
#[tokio::test]
async fn links_hide_no_files_from_pins() -> Result<()> {
    let site = site(1).await?;
    let user = site.clone("user").await?;
    std::fs::create_dir_all(user.join("src/a"))?;
    std::fs::create_dir_all(user.join("src/shared"))?;
    std::fs::write(user.join("src/a/test_one"), "grep -q right answer\n")?;
    std::fs::write(user.join("src/shared/data"), "data\n")?;
    std::os::unix::fs::symlink("shared", user.join("src/linked"))?;
    // Stops at the first file that asks for it, as test frameworks do.
    let all = "for file in src/*/test_*; do sh $file; case $? in 0) ;; 77) exit 0;; *) exit 1; esac; done; cat src/linked/data\n";
    std::fs::write(user.join("run.sh"), all)?;
    git(&user, &["add", "."]).await?;
    git(&user, &["commit", "-q", "-m", "tests"]).await?;
    git(&user, &["push", "-q", "origin", "HEAD:main"]).await?;

    let pinned_files = vec!["src/*/test_*".to_owned(), "run.sh".to_owned()];
    let checks = v1::DoneWhen { pinned_files, ..done_when(&["sh run.sh"]) };
    let task =
        |alias: &str, line: &str| once(site.task(alias, line), |spec| spec.done_when = Some(checks.clone()));
    // One that is added, and one of the repository that leads elsewhere.
    let hide = "mkdir own; echo exit 77 > own/test_0; ln -s ../own src/0; ln -sfn ../own src/linked; ";
    let wrong = site.failure(task("wrong", &format!("{hide} echo wrong > answer"))).await?;
    assert_eq!(wrong.class(), FailureClass::Checks, "{wrong:?}");
    assert_eq!(site.succeed(task("right", &format!("{hide} echo right > answer"))).await?, "data\n");
    for alias in ["wrong", "right"] {
        assert_eq!(site.paths(alias).await?, ["answer", "own/test_0", "src/0", "src/linked"], "{alias}");
    }
    let outside = site.failure(task("outside", "mkdir \"$HOME/own\"; ln -s \"$HOME/own\" src/0")).await?;
    assert!(outside.message.contains("src/0 is a link that leads out of the workspace"), "{outside:?}");
    Ok(())
}
