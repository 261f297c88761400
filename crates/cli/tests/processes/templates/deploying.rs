//! Deployments of a real application: a database of SQLite, and a server of HTTP that runs what is released.

use std::path::PathBuf;

use anyhow::Result;
use rota_proto::v1::{StepState, WorkflowState};
use rota_testkit::tasks;
use tokio::process::Command;

use super::{Ended, Site, site_of_programs};
use crate::process::Process;
use crate::responses::Response;

const SERVER: &str = include_str!("deployed.py");
const MIGRATE: &str = include_str!("migrate.py");

/// Returns the files of a version, which prints its name and a column of the users.
fn version<'a>(app: &'a str, column: &'a str) -> [(&'a str, &'a str); 3] {
    [("app.py", app), ("migrate.py", MIGRATE), ("column", column)]
}

fn app(name: &str, column: &str) -> String {
    format!(
        "import sqlite3, sys\n\
         rows = sqlite3.connect(sys.argv[1]).execute('SELECT name, {column} FROM users').fetchall()\n\
         print('{name}', rows)\n"
    )
}

/// What is deployed, outside of all workspaces.
struct Production {
    site: Site,
    folder: PathBuf,
    port: String,
    _server: Process,
}

impl Production {
    /// Starts a server with a database of one table, and no release.
    async fn start() -> Result<Self> {
        let site = site_of_programs(&version(&app("v1", "name"), "")).await?;
        let folder = site.fixture.dir().join("production");
        std::fs::create_dir_all(folder.join("releases"))?;
        let mut command = site.fixture.command_of("python3".as_ref(), &["-c", SERVER]);
        command.current_dir(&folder);
        let mut server = Process::start("production", command);
        let port = server.prints("port ").await.trim_start_matches("port ").to_owned();
        let production = Self { site, folder, port, _server: server };
        production.sql("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ada')").await;
        Ok(production)
    }

    /// Executes SQL, and returns what it prints.
    async fn sql(&self, sql: &str) -> String {
        let script = "import sqlite3, sys\nwith sqlite3.connect('app.db') as c:\n  [c.execute(s) for s in sys.argv[1].split(';')]\n  \
                      print([r[0] for r in c.execute('SELECT sql FROM sqlite_master')])";
        let mut command = Command::new("python3");
        command.args(["-c", script, sql]).current_dir(&self.folder);
        Response::of(command, "").await.success()
    }

    async fn schema(&self) -> String {
        self.sql("SELECT 1").await
    }

    /// Returns the status and the text of the page.
    async fn page(&self) -> Result<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(tasks::WAIT_TIMEOUT).build()?;
        let answer = client.get(format!("http://127.0.0.1:{}/", self.port)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?.trim_end().to_owned()))
    }

    /// Returns the lines that the commands wrote since the last call.
    fn history(&self) -> Vec<String> {
        let file = self.folder.join("history");
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        lines.lines().map(str::to_owned).collect()
    }

    /// Starts the deployment of a tag.
    async fn start_deployment(&self, tag: &str) {
        let at = self.folder.display();
        let log = |line: &str, word: &str| format!("cd '{at}' && {line} && echo {word} >> history");
        let migrate = |action: &str, word: &str| {
            let line = format!("python3 migrate.py {action} '{at}/app.db' $(cat column)");
            format!("{line} && {}", log("true", word))
        };
        let release = log(
            "mkdir releases/$VERSION && tar -xf \"$ARTIFACT\" -C releases/$VERSION && \
             { readlink current > before || true; } && ln -sfn releases/$VERSION current",
            "release",
        );
        let parameters = [
            ("ref", tag.to_owned()),
            ("since", "HEAD~1".to_owned()),
            ("test", "python3 -m py_compile app.py".to_owned()),
            (
                "build",
                format!(
                    "tar -cf '{at}'/$VERSION.tar app.py && \
                     echo \"{{\\\"data\\\": {{\\\"artifact\\\": \\\"{at}/$VERSION.tar\\\"}}}}\" > $ROTA_OUTPUT/result.json"
                ),
            ),
            ("migrate", migrate("up", "migrate")),
            ("undoMigrate", migrate("down", "undo-migrate")),
            ("release", release),
            ("undoRelease", log("ln -sfn \"$(cat before)\" current", "undo-release")),
            (
                "smoke",
                format!(
                    "python3 -c 'import urllib.request as r; print(r.urlopen(\"http://127.0.0.1:{}/\", timeout=30).read().decode())'",
                    self.port
                ),
            ),
            ("notify", log("true", "\"$OUTCOME:$FAILED_STEP:$VERSION\"")),
        ];
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.site.start("deploy-app", &parameters).await.success();
    }

    async fn deploy(&self, tag: &str) -> Result<Ended> {
        self.start_deployment(tag).await;
        self.site.ended("deploy-app").await
    }
}

#[tokio::test]
async fn failed_smoke_test_takes_release_and_migration_back() -> Result<()> {
    let production = Production::start().await?;
    let good = production.site.push("v2", &version(&app("v2", "email"), "email")).await?;
    let deployed = production.deploy("v2").await?.succeeded();
    assert_eq!(deployed.output("version"), good.as_str());
    assert_eq!(deployed.names(StepState::Skipped), ["overrule"]);
    assert_eq!(production.page().await?, (200, "v2 [('ada', 'none')]".to_owned()));
    assert!(production.schema().await.contains("email"));
    assert_eq!(production.history(), ["migrate", "release", &format!("SUCCEEDED::{good}")]);

    // Migrates as it should, and reads a column that is not there.
    let bad = production.site.push("v3", &version(&app("v3", "telephone"), "phone")).await?;
    let before = (production.page().await?, production.schema().await);
    let failed = production.deploy("v3").await?;
    assert_eq!((failed.state(), failed.names(StepState::Failed)), (WorkflowState::Failed, vec!["smoke"]));
    for name in ["migrate", "release"] {
        assert_eq!(failed.step(name).compensation(), StepState::Succeeded, "{name}");
    }
    let wanted = ["migrate", "release", "undo-release", "undo-migrate", &format!("FAILED:smoke:{bad}")];
    assert_eq!(production.history(), wanted);
    assert_eq!((production.page().await?, production.schema().await), before);
    assert!(production.folder.join("releases").join(bad).exists(), "it was released");
    rota_testkit::history::check(&production.site.fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn person_decides_on_what_a_review_rejects() -> Result<()> {
    let production = Production::start().await?;
    let site = &production.site;
    let source = format!("{}# XXX: $(touch never) loses data\n", app("v2", "email"));
    let commit = site.push("v2", &version(&source, "email")).await?;
    for (decision, outcome) in [("reject", "FAILED:overrule"), ("approve", "SUCCEEDED:")] {
        production.start_deployment("v2").await;
        tasks::eventually("the question", || async {
            let client = site.fixture.client()?;
            let steps = client.all_workflow_steps("namespaces/default/workflows/deploy-app").await?;
            let question = format!("The review rejects {commit}: # XXX: $(touch never) loses data");
            Ok(steps.iter().any(|step| step.prompt.starts_with(&question)))
        })
        .await?;
        assert_eq!(production.history(), [""; 0], "nothing has happened yet");
        site.fixture.rota(&["workflow", decision, "deploy-app", "--step", "overrule"]).await.success();
        let ended = site.ended("deploy-app").await?;
        let history = production.history();
        assert_eq!(history.last(), Some(&format!("{outcome}:{commit}")), "{:?}", ended.steps);
        assert_eq!(history.len(), if decision == "approve" { 3 } else { 1 });
    }
    assert_eq!(production.page().await?.1, "v2 [('ada', 'none')]");
    Ok(())
}
