//! The commands of the page of docs, with a repository that has what they name.

use anyhow::{Context, Result};

use super::{SHIPPED, site_of_programs};
use crate::responses::Response;

const PAGE: &str = include_str!("../../../../../docs/templates.md");
const REPOSITORY: &str = "https://git.example/team/shop.git";
const MAKEFILE: &str = "\
test:
\ttest -e app && test ! -e broken
image:
\techo '{\"data\": {\"artifact\": \"shop:1\"}}' > $$ROTA_OUTPUT/result.json
migrate release smoke:
\ttest \"$$ARTIFACT\" = shop:1 && git rev-parse HEAD | grep -x \"$$VERSION\"
migrate-down rollback:
\tfalse
";

#[tokio::test]
async fn commands_of_the_page_run() -> Result<()> {
    let files = [("Makefile", MAKEFILE), ("app", "print hello\n"), ("README.md", "A shop\n")];
    let site = site_of_programs(&files).await?;
    site.git(&["tag", "v1", "main"]).await?;
    site.push("v2", &[("app", "print hello, world\n")]).await?;
    site.push("feature/export", &[("export", "print all\n")]).await?;
    let mut ran = Vec::new();
    for block in PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let script = block.replace("\\\n", " ");
        for line in script.lines().filter(|line| line.contains("workflow run --template")) {
            let name = line.split_whitespace().skip_while(|word| *word != "--template").nth(1);
            let name = name.context("a template")?;
            site.fixture.rota(&["template", "apply", name, "--shipped"]).await.success();
            assert!(line.contains(REPOSITORY), "{line}");
            let line = line.replace(REPOSITORY, &site.url);
            let script = format!("rota() {{ '{}' \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_rota"));
            let command = site.fixture.command_of("bash".as_ref(), &["-c", &script]);
            let watched = Response::of(command, "").await.success();
            assert!(watched.contains("workflow SUCCEEDED"), "{watched}");
            // The file has the same example.
            let text = site.fixture.rota(&["template", "get", name, "--shipped"]).await.success();
            let bare = |text: &str| text.replace(['\n', ' ', '\\', '#'], "");
            assert!(bare(&text).contains(&bare(block)), "{name}: {block}");
            ran.push(name.to_owned());
        }
    }
    ran.sort_unstable();
    assert_eq!(ran, SHIPPED);
    Ok(())
}
