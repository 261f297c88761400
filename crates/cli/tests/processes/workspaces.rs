//! Directories of users that attempts work in, and clones of their checkouts.

use anyhow::Result;
use rota_proto::v1::{self, TaskState, event};
use rota_testkit::tasks;

use crate::{Fixture, Graces, workload};

const WAITS: &str = "echo $NAME >> order; until [ -e \"$GATE/$NAME\" ]; do sleep 0.02; done";

#[tokio::test]
async fn directory_in_place_belongs_to_one_attempt_unless_shared() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    // Of different workers, each with a process of its own.
    let _workers =
        (fixture.worker(workload::AGENT, "one", 1).await?, fixture.worker(workload::AGENT, "two", 1).await?);
    let project = fixture.dir().join("project");
    std::fs::create_dir(&project)?;
    let create = async |name: &str, shared: bool| {
        let variables = [("NAME", name), ("GATE", fixture.dir().to_str().unwrap())];
        let mut task = workload::shell(WAITS, &variables);
        task.spec.get_or_insert_default().workspace = Some(v1::Workspace {
            mode: v1::WorkspaceMode::InPlace.into(),
            path: project.to_str().unwrap().to_owned(),
            shared,
            ..Default::default()
        });
        tasks::create(&client, task).await
    };
    let order = || std::fs::read_to_string(project.join("order")).unwrap_or_default();
    let open = |name: &str| std::fs::write(fixture.dir().join(name), "").unwrap();

    let first = create("a", false).await?;
    tasks::eventually("the first task", async || Ok(order() == "a\n")).await?;
    let second = create("b", false).await?;
    tasks::eventually("a notice of the wait", async || {
        let log = tasks::log(&client, &second.name).await?;
        let waits = |event: &v1::Event| matches!(&event.kind, Some(event::Kind::Notice(notice)) if notice.code == "workspace_busy");
        Ok(log.iter().any(waits))
    })
    .await?;
    assert_eq!(order(), "a\n");
    open("a");
    tasks::eventually("the second task", async || Ok(order() == "a\nb\n")).await?;
    open("b");
    for task in [&first, &second] {
        let ended = tasks::ended(&client, &task.name).await?.status.unwrap();
        assert_eq!(ended.state(), TaskState::Succeeded, "{ended:?}");
    }

    // Together.
    let shared = [create("c", true).await?, create("d", true).await?];
    tasks::eventually("both", async || Ok(order().lines().count() == 4)).await?;
    open("c");
    open("d");
    for task in shared {
        tasks::ended(&client, &task.name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn ignored_files_that_a_checkout_names_are_in_its_clones() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let checkout = fixture.dir().join("checkout");
    std::fs::create_dir(&checkout)?;
    for (name, text) in [(".gitignore", ".env\n*.log\n"), (".worktreeinclude", ".env\n"), ("code", "x")] {
        std::fs::write(checkout.join(name), text)?;
    }
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .current_dir(&checkout)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "first"]);
    std::fs::write(checkout.join(".env"), "KEY=of-the-user\n")?;
    std::fs::write(checkout.join("build.log"), "x")?;
    let mut task = workload::shell("cat .env; ls -A; echo changed > code", &[]);
    let url = checkout.to_str().unwrap().to_owned();
    task.spec.get_or_insert_default().workspace =
        Some(v1::Workspace { git: Some(v1::GitSource { url, ..Default::default() }), ..Default::default() });
    let task = tasks::create(&client, task).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    let text = status.result.unwrap_or_default().text;
    assert!(text.contains("of-the-user") && !text.contains("build.log"), "{text}");
    let log = tasks::log(&client, &task.name).await?;
    assert!(tasks::notices(&log).iter().any(|notice| notice.contains("files_included")), "{log:?}");
    // It is no change of the task.
    let diff = fixture.rota(&["diff", &task.uid]).await.success();
    assert!(diff.contains("changed") && !diff.contains(".env"), "{diff}");
    Ok(())
}
