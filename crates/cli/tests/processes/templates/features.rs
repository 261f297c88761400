//! Features that are built by agents that are programs, and become pull requests.

use anyhow::Result;
use rota_proto::v1::StepState;
use rota_testkit::forge::{Forge, Kind, PATH};
use rota_testkit::git_host::git;

use super::{Ended, Site, site_of_programs};

const DOCUMENTATION: &str = "\nwrite README.md: how to export";

async fn build(site: &Site, feature: &str, test: &str) -> Result<Ended> {
    let parameters = [("feature", feature), ("test", test), ("documentation", DOCUMENTATION)];
    Ok(site.run("build-feature", &parameters).await?.succeeded())
}

#[tokio::test]
async fn backend_and_frontend_are_merged_tested_and_documented() -> Result<()> {
    let site = site_of_programs(&[("README.md", "an app\n")]).await?;
    let feature = "Export\nbackend: write api.txt: export\nfrontend: write page.txt: button";
    let ended = build(&site, feature, "cat api.txt page.txt && test \"$(cat README.md)\" = 'an app'").await?;
    assert_eq!(ended.names(StepState::Skipped), ["deliver"]);
    assert_eq!(
        (ended.text("title"), ended.text("pullRequest")),
        ("A feature; $(touch /tmp/never)".into(), String::new())
    );
    let commit = ended.text("commit");
    for (name, text) in [("api.txt", "export"), ("page.txt", "button"), ("README.md", "how to export")] {
        assert_eq!(site.git(&["show", &format!("{commit}:{name}")]).await?, text);
    }
    assert_eq!(site.git(&["rev-parse", &ended.text("branch")]).await?, commit);
    // Each has a branch of its own: backend, frontend, their merge, the documentation.
    assert_eq!(site.git(&["branch", "--list", "rota/*"]).await?.lines().count(), 4);
    assert_eq!(site.git(&["log", "--format=%s", "main"]).await?, "first");
    Ok(())
}

#[tokio::test]
async fn agent_resolves_conflicts() -> Result<()> {
    let site = site_of_programs(&[("app.txt", "one\n")]).await?;
    let feature = "Export\nbackend: write app.txt: backend\nfrontend: write app.txt: frontend";
    let ended = build(&site, feature, "grep backend app.txt && grep frontend app.txt").await?;
    assert_eq!(ended.names(StepState::Skipped), ["deliver"]);
    let commit = ended.text("commit");
    assert_eq!(site.git(&["show", &format!("{commit}:app.txt")]).await?, "backend\nfrontend");
    Ok(())
}

/// The template is changed as its comment describes, for a forge whose host has any name.
#[tokio::test]
async fn pull_request_has_the_branch_that_was_tested() -> Result<()> {
    let mut site = site_of_programs(&[("unused", "")]).await?;
    site.url = site.host.repository(PATH, &[("README.md", "an app\n")]).await?;
    let forge = Forge::start(Kind::Gitea, "tok-for-the-forge").await?;
    let text = site.fixture.rota(&["template", "get", "build-feature", "--shipped"]).await.success();
    let asked = format!("pullRequest: {{provider: FORGE_PROVIDER_GITEA, apiUrl: \"{}\"}}", forge.api());
    assert!(text.contains("pullRequest: {}"));
    let text = text.replace("pullRequest: {}", &asked);
    std::fs::write(site.fixture.dir().join("own.yaml"), text)?;
    site.fixture.rota(&["template", "apply", "build-feature", "-f", "own.yaml"]).await.success();
    let parameters = [
        ("feature", "Export\nbackend: write api.txt: export\nfrontend: write page.txt: button"),
        ("test", "cat api.txt page.txt"),
        ("documentation", DOCUMENTATION),
        ("credentials", "GIT"),
        ("pullRequest", "true"),
    ];
    site.start_stored("build-feature", &parameters).await.success();
    let ended = site.ended("build-feature").await?.succeeded();
    let requests = forge.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].title.starts_with("A feature; $(touch"), "{requests:?}");
    assert!(requests[0].body.contains("It does `this`."), "{requests:?}");
    assert!(ended.text("pullRequest").contains(PATH), "{:?}", ended.text("pullRequest"));
    let names = git(&site.host.path(PATH), &["ls-tree", "--name-only", &requests[0].branch]).await?;
    assert_eq!(names, "README.md\napi.txt\npage.txt");
    Ok(())
}
