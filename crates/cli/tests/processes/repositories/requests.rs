//! Pull and merge requests of what tasks have pushed: at the forges of the test kit, with real git.

use std::sync::Arc;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_proto::v1::{self, DeliveryOutcome, FailureClass, ForgeProvider, TaskState, event};
use rota_testkit::forge::{App, Fault, Forge, Kind, Method, PATH};
use rota_testkit::git_host::{GitHost, git};
use rota_testkit::tasks;
use serde_json::json;

use super::continuing::site_with;
use super::conversations::{bash, outputs};
use super::{AUTHORIZATION, Site, TOKEN};
use crate::responses::Response;
use crate::workload;

/// Token of the forge's API, which is not that of git.
pub(super) const API_TOKEN: &str = "tok-for-the-api-of-the-forge";
const KEY: &str = "sk-ant-for-tests-of-requests";

fn provider(kind: Kind) -> ForgeProvider {
    match kind {
        Kind::GitHub => ForgeProvider::Github,
        Kind::GitLab => ForgeProvider::Gitlab,
        Kind::Gitea => ForgeProvider::Gitea,
    }
}

/// A host of the repository, and its forge.
pub(super) struct Place {
    pub(super) host: Arc<GitHost>,
    pub(super) forge: Forge,
    /// Values of the secrets GIT and FORGE.
    secrets: [(&'static str, String); 2],
    _folder: tempfile::TempDir,
}

impl Place {
    pub(super) async fn new(kind: Kind) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let host = Arc::new(GitHost::start(folder.path()).await?);
        host.repository(PATH, &[("README.md", "one\n")]).await?;
        host.require(Some(AUTHORIZATION));
        let forge = Forge::start(kind, API_TOKEN).await?;
        let secrets = [("GIT", TOKEN.to_owned()), ("FORGE", API_TOKEN.to_owned())];
        Ok(Self { host, forge, secrets, _folder: folder })
    }

    /// Has an app open both the repository and the API: no token that a user gives does.
    fn of_app(mut self) -> Result<Self> {
        self.host.require(Some("nothing"));
        let host = Arc::clone(&self.host);
        let app = App::new(move |token| {
            let user = STANDARD.encode(format!("x-access-token:{token}"));
            host.require(Some(&format!("Basic {user}")));
        })?;
        let secret = app.secret(&self.forge.api());
        self.forge.install(app);
        self.secrets = [("GIT", secret.clone()), ("FORGE", secret)];
        Ok(self)
    }

    /// Has the request of a task's branch follow its push.
    pub(super) fn ask(&self, kind: Kind, task: &mut v1::Task, change: impl FnOnce(&mut v1::PullRequest)) {
        let mut asked = v1::PullRequest {
            token_from: "FORGE".to_owned(),
            api_url: self.forge.api(),
            labels: vec!["agents".to_owned()],
            ..v1::PullRequest::default()
        };
        asked.set_provider(provider(kind));
        change(&mut asked);
        let spec = task.spec.get_or_insert_default();
        spec.secrets.extend(self.secrets.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let source = spec.workspace.as_mut().and_then(|workspace| workspace.git.as_mut()).unwrap();
        source.url = self.host.url(PATH);
        source.push = Some(v1::Push { pull_request: Some(asked), ..v1::Push::default() });
    }

    pub(super) async fn files(&self, branch: &str) -> Result<String> {
        git(&self.host.path(PATH), &["ls-tree", "-r", "--name-only", branch]).await
    }
}

impl Site {
    async fn delivery(&self, task: &str) -> Result<v1::Delivery> {
        let client = self.fixture.client()?;
        let status = tasks::ended(&client, task).await?.status.unwrap();
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        Ok(status.result.unwrap().delivery.unwrap())
    }
}

/// The real CLI works, its branch is pushed and its request opened. The next task of the conversation continues with both.
#[tokio::test]
async fn requests_follow_a_conversation() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    for kind in [Kind::GitHub, Kind::GitLab, Kind::Gitea] {
        let place = Place::new(kind).await?;
        let place = if kind == Kind::GitHub { place.of_app()? } else { place };
        // In the middle of it the token is refused, and the number of calls is limited.
        place.forge.fault(Method::GET, Fault::Unauthorized);
        place.forge.fault(Method::GET, Fault::LimitedUntilNow);
        place.forge.fault(Method::POST, Fault::Fails);
        let script = json!([
            {"tools": bash("echo one > a; env; git config --list")},
            {"text": "It is done. Fixes #12, thanks to @ada."},
        ]);
        let name = format!("{kind:?}").to_lowercase();
        let mut task = site.talk(&model, &name, &script).await?;
        task.spec.get_or_insert_default().title = "Write a".to_owned();
        place.ask(kind, &mut task, |asked| asked.draft = true);
        let task = tasks::create(&client, task).await?;
        let delivery = site.delivery(&task.name).await?;
        let printed = outputs(&tasks::log(&client, &task.name).await?).concat();
        assert!(!place.secrets.iter().any(|(_, secret)| printed.contains(secret)), "{kind:?}");
        assert!(!printed.contains("ghs_") && !printed.contains("[redacted]"), "{kind:?} {printed}");

        let branch = format!("rota/{}", task.uid);
        assert_eq!((delivery.outcome(), &delivery.branch), (DeliveryOutcome::Delivered, &branch), "{kind:?}");
        assert_eq!(place.files(&branch).await?, "README.md\na", "{kind:?}");
        let request = delivery.pull_request.unwrap();
        assert_eq!((request.number, request.base.as_str(), request.created), (1, "main", true), "{kind:?}");
        let open = place.forge.requests().remove(0);
        assert_eq!((&open.branch, open.labels), (&branch, vec!["agents".to_owned()]), "{kind:?}");
        let is_draft = open.draft || open.title.starts_with("Draft: ") || open.title.starts_with("WIP: ");
        assert!(is_draft && open.title.ends_with("Write a"), "{kind:?} {}", open.title);
        assert!(open.body.contains("It is done.") && open.body.contains(&task.uid), "{kind:?} {}", open.body);
        assert!(!open.body.contains("@ada") && !open.body.contains("#12"), "{kind:?} {}", open.body);
        for command in [&["get", "task", &name][..], &["diff", &name], &["diff", &name, "--stat"]] {
            let shown = site.fixture.rota(command).await;
            assert!(shown.err.contains(&request.url), "{kind:?} {command:?} {shown:?}");
        }
        let described = site.fixture.rota(&["describe", "task", &name]).await.success();
        assert!(described.contains(&request.url) && described.contains(&branch), "{kind:?} {described}");

        let script = json!([{"tools": bash("echo two > b")}, {"text": "More of it."}]);
        let next = format!("{name}-next");
        let prompt = format!("And now: MOCK{script}");
        let args =
            ["continue", &name, "--name", &next, "--quiet", &prompt, "--secret-env", "ANTHROPIC_API_KEY"];
        let args = [&args[..], &["--secret-env", "GIT", "--secret-env", "FORGE"]].concat();
        let mut command = site.fixture.command(&args);
        command.env("ANTHROPIC_API_KEY", KEY).envs(place.secrets.clone());
        assert_eq!(Response::of(command, "").await.success(), "More of it.", "{kind:?}");
        let delivery = site.delivery(&format!("namespaces/default/tasks/{next}")).await?;
        assert_eq!(delivery.branch, branch, "{kind:?}");
        assert_eq!(place.files(&branch).await?, "README.md\na\nb", "{kind:?}");
        let updated = delivery.pull_request.unwrap();
        assert_eq!((updated.number, updated.created), (1, false), "{kind:?}");
        let requests = place.forge.requests();
        assert_eq!(requests.len(), 1, "{kind:?}");
        assert!(requests[0].body.contains("More of it."), "{kind:?} {}", requests[0].body);
        assert!(requests[0].title.ends_with("Write a"), "{kind:?} {}", requests[0].title);
        if kind == Kind::GitHub {
            let header = |value: &String| value.starts_with("Bearer ghs_") || value.starts_with("Bearer ey");
            assert!(place.forge.authorizations().iter().all(header), "only the app opens it");
        }
    }
    Ok(())
}

/// A worker is lost between push and request: the next attempt opens it, once.
#[tokio::test]
async fn requests_survive_the_loss_of_a_worker() -> Result<()> {
    let mut site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let place = Place::new(Kind::GitLab).await?;
    place.forge.set_away(true);
    let mut task = site.task("lost", "echo a > a");
    place.ask(Kind::GitLab, &mut task, |_| ());
    let task = tasks::create(&client, task).await?;
    tasks::eventually("the first call", async || Ok(!place.forge.calls().is_empty())).await?;
    let branch = format!("rota/{}", task.uid);
    assert_eq!(place.files(&branch).await?, "README.md\na");
    site.lose_worker().await?;
    place.forge.set_away(false);
    let delivery = site.delivery(&task.name).await?;
    assert_eq!(delivery.branch, branch);
    assert_eq!(tasks::get(&client, &task.name).await?.status.unwrap().attempt, 2);
    assert_eq!(place.forge.requests().len(), 1);
    assert_eq!(place.forge.requests()[0].branch, branch);
    Ok(())
}

/// A task that should open a request and cannot has not succeeded. What it has pushed stays.
#[tokio::test]
async fn work_without_its_request_has_not_succeeded() -> Result<()> {
    let site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let place = Place::new(Kind::Gitea).await?;
    // Of a proxy that repeats all that it was given.
    let repeated = format!("not with {TOKEN}, nor with {API_TOKEN}");
    for (alias, fault, base, wanted) in [
        ("base", None, "missing", "404"),
        (
            "repeats",
            Some(Fault::Forbids(repeated.clone())),
            "main",
            "not with [redacted], nor with [redacted]",
        ),
        ("moved", Some(Fault::MovedTo("http://127.0.0.1:9/".to_owned())), "main", "another host"),
    ] {
        if let Some(fault) = fault {
            place.forge.fault(Method::POST, fault);
        }
        let mut task = site.task(alias, "echo a > a");
        place.ask(Kind::Gitea, &mut task, |asked| asked.base = base.to_owned());
        let task = tasks::create(&client, task).await?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let failure = status.failure.unwrap();
        assert_eq!((failure.class(), status.attempt), (FailureClass::Delivery, 1), "{alias} {failure:?}");
        assert!(failure.message.contains(wanted), "{alias} {failure:?}");
        assert!(site.changes(alias).await?.pushed, "{alias}");
        assert_eq!(place.files(&format!("rota/{}", task.uid)).await?, "README.md\na", "{alias}");
    }
    assert!(place.forge.requests().is_empty());
    // The first list is empty anyway; the next one is of labels.
    place.forge.fault(Method::GET, Fault::ListsNone);
    place.forge.fault(Method::GET, Fault::Forbids(repeated));
    let mut task = site.task("unlabelled", "echo a > a");
    place.ask(Kind::Gitea, &mut task, |asked| asked.base = "main".to_owned());
    let task = tasks::create(&client, task).await?;
    assert!(site.delivery(&task.name).await?.pull_request.is_some());
    let log = tasks::log(&client, &task.name).await?;
    let text = log.iter().find_map(|event| match &event.kind {
        Some(event::Kind::Notice(notice)) if notice.code == "pull_request_incomplete" => {
            Some(notice.message.as_str())
        }
        _ => None,
    });
    assert!(text.is_some_and(|text| text.ends_with("not with [redacted], nor with [redacted]")), "{text:?}");
    // The worker asks for no more than the branch that the task names.
    let mut task = site.task("nothing", "true");
    place.ask(Kind::Gitea, &mut task, |_| ());
    let task = tasks::create(&client, task).await?;
    let delivery = site.delivery(&task.name).await?;
    assert_eq!((delivery.outcome(), delivery.pull_request), (DeliveryOutcome::NoChange, None));
    assert_eq!(place.forge.requests().len(), 1);
    assert_eq!(workload::printed(&client, &task.name).await?, "");
    Ok(())
}
