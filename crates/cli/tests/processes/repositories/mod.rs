//! Tasks with a git repository: clones that share one cache, what becomes of an agent's changes, and credentials that only the
//! worker uses. Real git, over HTTP and SSH.

mod apply;
mod books;
mod chain;
mod continuing;
mod conversations;
mod delivering;
mod disk;
mod followed;
mod gates;
mod push;
mod real_forge;
mod requests;
mod restoring;
mod ssh;
mod start;
mod starting_over;
mod waiting_on_disk;

use std::path::Path;

use anyhow::Result;
use futures::future::try_join_all;
use rota_proto::v1::{self, Changes, TaskState};
use rota_testkit::git_host::{GitHost, git};
use rota_testkit::tasks;
use tempfile::TempDir;

use crate::process::Process;
use crate::{Fixture, Graces, workload};

/// Value that no attempt may see, and the header that it becomes.
const TOKEN: &str = "tok-for-the-host-of-repositories";
const AUTHORIZATION: &str = "Basic eC1hY2Nlc3MtdG9rZW46dG9rLWZvci10aGUtaG9zdC1vZi1yZXBvc2l0b3JpZXM=";

struct Site {
    fixture: Fixture,
    host: GitHost,
    url: String,
    _worker: Process,
    _folder: TempDir,
}

/// Starts a control plane with a worker, and a host with a repository that needs the token.
async fn site(slots: usize) -> Result<Site> {
    site_of(Fixture::start(Graces::LONG).await?, slots).await
}

async fn site_of(fixture: Fixture, slots: usize) -> Result<Site> {
    workload::agent(&fixture.client()?).await?;
    let worker = fixture.worker(workload::AGENT, "w", slots).await?;
    let folder = tempfile::tempdir()?;
    let host = GitHost::start(folder.path()).await?;
    let files =
        [("README.md", "one\ntwo\nthree\n"), ("src/main.rs", "fn main() {}\n"), (".gitignore", "target\n")];
    let url = host.repository("project", &files).await?;
    host.require(Some(AUTHORIZATION));
    Ok(Site { fixture, host, url, _worker: worker, _folder: folder })
}

impl Site {
    fn source(&self) -> v1::GitSource {
        v1::GitSource { url: self.url.clone(), credentials_from: "GIT".to_owned(), ..Default::default() }
    }

    /// Returns a task that runs a command in a clone.
    fn task(&self, alias: &str, line: &str) -> v1::Task {
        self.task_with(alias, line, self.source(), |_| ())
    }

    fn task_with(
        &self,
        alias: &str,
        line: &str,
        source: v1::GitSource,
        change: impl FnOnce(&mut v1::Workspace),
    ) -> v1::Task {
        let mut task = workload::shell(line, &[]);
        let spec = task.spec.get_or_insert_default();
        let mut workspace = v1::Workspace { git: Some(source), ..Default::default() };
        change(&mut workspace);
        spec.workspace = Some(workspace);
        spec.secrets = [("GIT".to_owned(), TOKEN.to_owned())].into();
        v1::Task { alias: alias.to_owned(), ..task }
    }

    /// Runs a task to its end, and returns its status and what it has printed.
    async fn run(&self, task: v1::Task) -> Result<(v1::TaskStatus, String)> {
        let client = self.fixture.client()?;
        let name = tasks::create(&client, task).await?.name;
        let status = tasks::ended(&client, &name).await?.status.unwrap();
        Ok((*status, workload::printed(&client, &name).await?))
    }

    async fn succeed(&self, task: v1::Task) -> Result<String> {
        let (status, printed) = self.run(task).await?;
        assert_eq!(status.state(), TaskState::Succeeded, "{:?} {printed}", status.failure);
        Ok(printed)
    }

    async fn changes(&self, task: &str) -> Result<Changes> {
        let shown = self.fixture.rota(&["diff", task, "-o", "json"]).await;
        Ok(serde_json::from_str(&shown.success())?)
    }

    /// Returns the paths that a task has changed.
    async fn paths(&self, task: &str) -> Result<Vec<String>> {
        let shown = self.fixture.rota(&["diff", task]).await.success();
        let heads = shown.lines().filter_map(|line| line.strip_prefix("diff --git a/")?.split(' ').next());
        Ok(heads.map(str::to_owned).collect())
    }

    /// Clones the repository as a user has it.
    async fn clone(&self, name: &str) -> Result<std::path::PathBuf> {
        let at = self.fixture.dir().join(name);
        let from = self.host.path("project");
        git(self.fixture.dir(), &["clone", "--quiet", from.to_str().unwrap(), name]).await?;
        Ok(at)
    }

    fn only_cache(&self) -> Result<std::path::PathBuf> {
        let caches = std::fs::read_dir(self.fixture.state_dir().join("repositories/default"))?;
        Ok(caches.flatten().map(|entry| entry.path()).find(|path| path.is_dir()).unwrap())
    }

    fn caches(&self) -> usize {
        let caches = std::fs::read_dir(self.fixture.state_dir().join("repositories/default"));
        caches.unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir()).count()
    }
}

#[tokio::test]
async fn agents_work_on_one_repository_without_interference() -> Result<()> {
    let site = site(10).await?;
    let client = site.fixture.client()?;
    let gate = workload::Gate::closed().await?;
    let line = |number: usize| {
        format!(
            "{}\nexec 2>&1\n{}\ngit branch --show-current; git count-objects | cut -d' ' -f1; env; git config --list\n\
             echo work-{number} > file-{number} && git add . && git commit -qm work-{number}; git log -1 --format='%an <%ae>'",
            gate.line(),
            // One of them harms what others might share.
            if number == 0 {
                "cache=$(dirname $(cat .git/objects/info/alternates)); git fetch -q --depth=1 $cache 2>&1; \
                 git config core.fsmonitor /bin/false; mkdir -p .git/hooks; \
                 printf '#!/bin/sh\\necho hooked\\n' > .git/hooks/post-commit; chmod +x .git/hooks/post-commit"
            } else {
                ""
            }
        )
    };
    let created =
        (0..10).map(|number| tasks::create(&client, site.task(&format!("t{number}"), &line(number))));
    let created = try_join_all(created).await?;
    gate.open(&client, &created).await?;
    for (number, task) in created.iter().enumerate() {
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let printed = workload::printed(&client, &task.name).await?;
        assert_eq!(status.state(), TaskState::Succeeded, "{printed}");
        assert!(
            printed.contains(&format!("rota/{}\n0\n", task.uid)),
            "a branch of its own, no objects: {printed}"
        );
        assert!(printed.contains("shell <shell@default.rota.invalid>"), "{printed}");
        assert!(!printed.contains(TOKEN) && !printed.contains("[redacted]"), "{printed}");
        assert!(!printed.contains("GIT="), "{printed}");
        assert_eq!(printed.contains("hooked"), number == 0, "{printed}");
        assert_eq!(site.paths(&format!("t{number}")).await?, [format!("file-{number}")]);
        let changes = site.changes(&format!("t{number}")).await?;
        assert_eq!((changes.files, changes.insertions, changes.deletions), (1, 1, 0));
        assert_eq!(changes.branch, format!("rota/{}", task.uid));
    }
    assert_eq!(site.caches(), 1);
    // Nothing of the attempts is left in it.
    let refs = |at: &Path| {
        let at = at.to_owned();
        async move { git(&at, &["for-each-ref", "--format=%(refname)"]).await }
    };
    let cache = std::fs::read_dir(site.fixture.state_dir().join("repositories/default"))?.flatten();
    let cache = cache.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    assert_eq!(refs(&cache).await?, "refs/remotes/origin/main\nrefs/rota/head");
    let state = site.fixture.state_dir();
    site.fixture
        .rota(&["clean", "--older-than", "0s", "--state-dir", state.to_str().unwrap()])
        .await
        .success();
    assert_eq!(site.caches(), 0);
    Ok(())
}

#[tokio::test]
async fn whatever_an_agent_did_is_kept() -> Result<()> {
    let site = site(2).await?;
    let cases = [
        (
            "files",
            "echo four >> README.md; rm src/main.rs; mkdir target; echo x > target/x; printf '\\0\\1' > data.bin",
            "README.md data.bin src/main.rs",
        ),
        ("committed", "echo a > a; git add a; git commit -qm a", "a"),
        ("more", "echo a > a; git add a; git commit -qm a; echo b > b; echo c >> a", "a b"),
        ("branch", "git checkout -qb own; echo a > a; git add a; git commit -qm a; echo b > b", "a b"),
        (
            "orphan",
            "git checkout -q --orphan own; git rm -rqf .; echo a > a",
            ".gitignore README.md a src/main.rs",
        ),
        (
            "staged",
            "echo a > a; git add a; echo b > a; rm README.md; git add README.md 2>/dev/null",
            "README.md a",
        ),
        ("index", "echo a > a; echo garbage > .git/index", "a"),
        (
            "flagged",
            "git update-index --assume-unchanged README.md; git update-index --skip-worktree src/main.rs; echo x > README.md; echo y > src/main.rs",
            "README.md src/main.rs",
        ),
        (
            "settings",
            "git config diff.noprefix true; git config diff.context 0; echo x >> README.md",
            "README.md",
        ),
        ("failed", "echo a > a; exit 3", "a"),
        ("nothing", "true", ""),
        (
            "hooks",
            "mkdir .git/hooks; printf '#!/bin/sh\\nexit 1' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo a > a",
            "a",
        ),
    ];
    for (name, line, wanted) in cases {
        let (status, printed) = site.run(site.task(name, line)).await?;
        let state = if name == "failed" { TaskState::Failed } else { TaskState::Succeeded };
        assert_eq!(status.state(), state, "{name}: {:?} {printed}", status.failure);
        assert_eq!(site.paths(name).await?, wanted.split_whitespace().collect::<Vec<_>>(), "{name}");
        // The bundle is complete, too.
        let user = site.clone(&format!("clone-{name}")).await?;
        let branch = site
            .fixture
            .rota(&["apply-diff", name, "--branch", "theirs", "--directory", user.to_str().unwrap()])
            .await;
        branch.success();
        if !wanted.is_empty() {
            let differs = git(&user, &["diff", "--name-only", "--no-renames", "main", "theirs"]).await?;
            assert_eq!(
                differs.lines().collect::<Vec<_>>(),
                wanted.split_whitespace().collect::<Vec<_>>(),
                "{name}"
            );
        }
    }
    // Nor is what the agent had on another branch lost.
    let away =
        "echo a > a; git add a; git checkout -qb other; git commit -qm a; git checkout -q -; echo c > c";
    site.succeed(site.task("away", away)).await?;
    assert_eq!(site.paths("away").await?, ["c"]);
    let kept = site.fixture.rota(&["artifacts", "away"]).await.success();
    assert!(kept.contains("git/branches.bundle"), "{kept}");
    let broken = site.run(site.task("broken", "rm -rf .git; echo a > a")).await?.0;
    assert_eq!(broken.state(), TaskState::Succeeded);
    let log = tasks::log(&site.fixture.client()?, "namespaces/default/tasks/broken").await?;
    assert!(tasks::notices(&log).contains(&"changes_not_kept".to_owned()), "{:?}", tasks::notices(&log));
    Ok(())
}

#[tokio::test]
async fn cancelled_attempts_leave_their_changes() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let task = tasks::create(&client, site.task("long", "echo a > a; echo written; sleep 1000")).await?;
    workload::prints(&client, &task.name, "written").await?;
    tasks::cancel(&client, &task.name).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Cancelled);
    assert_eq!(site.paths("long").await?, ["a"]);
    Ok(())
}

#[tokio::test]
async fn references_and_folders_are_checked_out() -> Result<()> {
    let site = site(1).await?;
    let bare = site.host.path("project");
    let user = site.clone("user").await?;
    let first = git(&user, &["rev-parse", "HEAD"]).await?;
    for line in [
        &["tag", "-m", "v1", "v1"][..],
        &["push", "-q", "origin", "v1"],
        &["checkout", "-q", "-b", "feature/one"],
        &["commit", "-q", "--allow-empty", "-m", "on feature"],
        &["push", "-q", "origin", "feature/one"],
        &["commit", "-q", "--allow-empty", "-m", "proposed"],
        &["push", "-q", "origin", "HEAD:refs/pull/7/head"],
    ] {
        git(&user, line).await?;
    }
    for (number, (reference, depth, subject)) in [
        ("", 0, "first"),
        ("v1", 0, "first"),
        ("feature/one", 0, "on feature"),
        ("refs/pull/7/head", 0, "proposed"),
        (first.as_str(), 0, "first"),
        ("feature/one", 1, "on feature"),
        ("", 1, "first"),
    ]
    .into_iter()
    .enumerate()
    {
        let source = v1::GitSource { r#ref: reference.to_owned(), depth, ..site.source() };
        let line = "git log -1 --format=%s; git status --porcelain";
        let printed = site.succeed(site.task_with(&format!("r{number}"), line, source, |_| ())).await?;
        assert_eq!(printed, format!("{subject}\n"), "{reference} {depth}");
        assert!(site.changes(&format!("r{number}")).await?.bundle.is_empty());
    }
    // What has changed at the host is seen, and what is removed there is not.
    git(&user, &["push", "-q", "origin", ":feature/one", "HEAD:refs/heads/feature"]).await?;
    for (name, reference, state) in [
        ("removed", "feature/one", TaskState::Failed),
        ("new", "feature", TaskState::Succeeded),
        ("rule", "x:refs/heads/main", TaskState::Failed),
    ] {
        let source = v1::GitSource { r#ref: reference.to_owned(), ..site.source() };
        let (status, printed) = site.run(site.task_with(name, "true", source, |_| ())).await?;
        assert_eq!(status.state(), state, "{name} {printed}");
    }
    assert_eq!(git(&bare, &["rev-parse", "main"]).await?, first);

    let source = v1::GitSource { sparse: vec!["src".to_owned()], ..site.source() };
    let line = "ls -a | tr '\\n' ' '; echo more >> src/main.rs; mkdir -p notes; echo new > notes/new.md";
    git(&user, &["checkout", "-q", "main"]).await?;
    std::fs::create_dir(user.join("notes"))?;
    std::fs::write(user.join("notes/old.md"), "old")?;
    for line in [&["add", "."][..], &["commit", "-qm", "docs"], &["push", "-q", "origin", "main"]] {
        git(&user, line).await?;
    }
    let printed = site.succeed(site.task_with("sparse", line, source, |_| ())).await?;
    assert_eq!(printed, ". .. .git .gitignore README.md src ");
    assert_eq!(site.paths("sparse").await?, ["notes/new.md", "src/main.rs"]);
    Ok(())
}

/// Users, and agents, are not left to find out that they work on pointers or empty folders.
#[tokio::test]
async fn what_clones_are_without_is_noticed() -> Result<()> {
    let site = site(1).await?;
    let noticed = async |alias: &str| -> Result<Vec<String>> {
        let line = "cat data/a.bin 2> /dev/null || true; git status --porcelain";
        let printed = site.succeed(site.task(alias, line)).await?;
        let log = tasks::log(&site.fixture.client()?, &format!("namespaces/default/tasks/{alias}")).await?;
        let mut notices = tasks::notices(&log);
        notices.retain(|code| code.ends_with("_not_fetched"));
        notices.push(printed);
        Ok(notices)
    };
    assert_eq!(noticed("plain").await?, [""]);
    let user = site.clone("user").await?;
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::create_dir(user.join("data"))?;
    std::fs::write(user.join("data/.gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n")?;
    std::fs::write(user.join("data/a.bin"), pointer)?;
    std::fs::write(user.join(".gitmodules"), "[submodule \"x\"]\n\tpath = x\n\turl = ../x.git\n")?;
    for line in [&["add", "."][..], &["commit", "-qm", "lfs"], &["push", "-q", "origin", "HEAD:main"]] {
        git(&user, line).await?;
    }
    assert_eq!(noticed("large").await?, ["lfs_not_fetched", "submodules_not_fetched", pointer]);
    Ok(())
}
