//! The shipped templates with the real Claude Code CLI, whose model answers by the scripts that the parameters have. The first
//! script of a prompt counts; that of a later prompt is data of an earlier answer.

use anyhow::Result;
use rota_fake_model::Handle as FakeModel;
use serde_json::{Value, json};

use super::{Site, site};
use crate::claude::installed;

/// Starts a site whose coder is Claude. The model ends with the test.
async fn site_of_claude(files: &[(&str, &str)]) -> Result<(Site, FakeModel)> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(installed).await??;
    let runtime = json!({"claude": {"program": program, "allowedTools": ["Bash"]}});
    let key = format!("sk-ant-{}", uuid::Uuid::new_v4());
    let environment = json!({"ANTHROPIC_BASE_URL": model.base_url(), "ANTHROPIC_API_KEY": key});
    Ok((site(files, runtime, environment).await?, model))
}

fn script(steps: &Value) -> String {
    format!("MOCK{steps}")
}

/// Returns steps that run a command, and return data.
fn steps(line: &str, data: &Value) -> Value {
    json!([
        {"tools": [{"name": "Bash", "input": {"command": line}}]},
        {"tools": [{"name": "StructuredOutput", "input": data}]},
        {"text": "Done."},
    ])
}

/// Returns steps that run a command, for agents that return no data.
fn works(line: &str) -> Value {
    json!([{"tools": [{"name": "Bash", "input": {"command": line}}]}, {"text": "Done."}])
}

#[tokio::test]
async fn claude_reviews_what_is_deployed() -> Result<()> {
    let (site, model) = site_of_claude(&[("app", "one\n")]).await?;
    site.push("main", &[("app", "two\n")]).await?;
    let review = steps("git diff HEAD~1 HEAD", &json!({"approved": true, "reasons": []}));
    let released = site.fixture.dir().join("released");
    let release = format!("cp app '{}'", released.display());
    let smoke = format!("grep two '{}'", released.display());
    let parameters = [
        ("instructions", script(&review)),
        ("test", "test -e app".to_owned()),
        ("build", "test -e app".to_owned()),
        ("release", release),
        ("undoRelease", format!("rm '{}'", released.display())),
        ("smoke", smoke),
    ];
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ended = site.run("deploy-app", &parameters).await?.succeeded();
    assert_eq!(ended.output("approved"), json!(true));
    assert_eq!(std::fs::read_to_string(released)?, "two\n");
    // The answers of the script: a command, the data, and the end if the CLI asks for it.
    assert!(model.requests().len() >= 2, "{:?}", model.requests());
    Ok(())
}

#[tokio::test]
async fn claude_builds_a_feature() -> Result<()> {
    let (site, _model) = site_of_claude(&[("README.md", "an app\n")]).await?;
    let writes = |name: &str| works(&format!("echo {name} > {name}.txt; git add .; git commit -qm {name}"));
    let data = json!({
        "title": "Export", "summary": "Exports.",
        "backend": script(&writes("backend")), "frontend": script(&writes("frontend")),
    });
    let design = script(&steps("ls", &data));
    let documentation = script(&works("echo documented >> README.md; git commit -qam docs"));
    let parameters = [
        ("feature", design.as_str()),
        ("documentation", documentation.as_str()),
        ("test", "cat backend.txt frontend.txt"),
    ];
    let ended = site.run("build-feature", &parameters).await?.succeeded();
    let commit = ended.text("commit");
    assert_eq!(site.git(&["show", &format!("{commit}:README.md")]).await?, "an app\ndocumented");
    assert_eq!(site.git(&["show", &format!("{commit}:backend.txt")]).await?, "backend");
    Ok(())
}

#[tokio::test]
async fn claude_refactors_modules() -> Result<()> {
    let (site, _model) = site_of_claude(&[("a", "old\n"), ("b", "old\n")]).await?;
    let module = |name: &str| {
        let work = works(&format!("sed -i s/old/new/ {name}; git commit -qam {name}"));
        json!({"path": name, "work": script(&work)})
    };
    let goal = script(&steps("grep -l old *", &json!({"modules": [module("a"), module("b")]})));
    let parameters = [("goal", goal.as_str()), ("test", "! grep old *")];
    let ended = site.run("analyse-and-refactor", &parameters).await?.succeeded();
    assert_eq!(ended.output("modules"), json!(["a", "b"]));
    assert_eq!(site.git(&["show", &format!("{}:b", ended.text("commit"))]).await?, "new");
    Ok(())
}

#[tokio::test]
async fn claude_works_in_rounds() -> Result<()> {
    let (site, _model) = site_of_claude(&[("README.md", "an app\n")]).await?;
    let line = |name: &str| format!("touch {name}; git add .; git commit -qm {name}");
    let second = script(&steps(&line("b"), &json!({"passes": true, "report": "both"})));
    let instructions = script(&steps(&line("a"), &json!({"passes": false, "report": second})));
    let parameters = [("check", "test -e a && test -e b"), ("instructions", instructions.as_str())];
    let ended = site.run("fix-until-green", &parameters).await?.succeeded();
    assert_eq!((ended.output("rounds"), ended.output("report")), (json!(2.0), json!("both")));
    let log = site.git(&["log", "--format=%s", "--reverse", &ended.text("commit")]).await?;
    assert_eq!(log, "first\na\nb");
    Ok(())
}

#[tokio::test]
async fn claude_reviews_and_decides() -> Result<()> {
    let (site, model) = site_of_claude(&[("app", "one\n")]).await?;
    site.push("change", &[("app", "two\n")]).await?;
    let review = |approve: bool, findings: Value| {
        script(&steps("git diff origin/main...HEAD", &json!({"approve": approve, "findings": findings})))
    };
    let perspectives =
        json!([review(true, json!([])), review(false, json!(["app:1 is wrong"])), review(true, json!([]))]);
    let decision = json!({"verdict": "reject", "reasons": ["app:1 is wrong, indeed"]});
    let criteria = script(&steps("cat app", &decision));
    let perspectives = perspectives.to_string();
    let parameters =
        [("ref", "change"), ("perspectives", perspectives.as_str()), ("criteria", criteria.as_str())];
    let ended = site.run("review-by-three", &parameters).await?.succeeded();
    assert_eq!(
        (ended.output("verdict"), ended.output("reasons")),
        (json!("reject"), decision["reasons"].clone())
    );
    assert!(model.requests().len() >= 8, "four agents with two answers each: {:?}", model.requests());
    Ok(())
}
