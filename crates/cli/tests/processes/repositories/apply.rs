//! Work that is applied to the files of its user.

use anyhow::Result;
use rota_testkit::git_host::git;

use super::site;
use crate::terminal::Terminal;
use crate::workload;

#[tokio::test]
async fn changes_are_applied_to_a_users_files() -> Result<()> {
    let site = site(1).await?;
    site.succeed(site.task("fix", "sed -i 's/two/TWO/' README.md; echo new > new.txt")).await?;
    let user = site.clone("user").await?;
    let directory = user.to_str().unwrap();
    let apply = async || site.fixture.rota(&["apply-diff", "fix", "--directory", directory]).await;

    // Edits of other lines and files stay.
    std::fs::write(user.join("src/main.rs"), "edited")?;
    apply().await.success();
    assert_eq!(std::fs::read_to_string(user.join("README.md"))?, "one\nTWO\nthree\n");
    assert_eq!(std::fs::read_to_string(user.join("new.txt"))?, "new\n");
    assert_eq!(std::fs::read_to_string(user.join("src/main.rs"))?, "edited");

    // A conflict is marked.
    git(&user, &["checkout", "-q", "--", "."]).await?;
    std::fs::remove_file(user.join("new.txt"))?;
    std::fs::write(user.join("README.md"), "one\n2\nthree\n")?;
    git(&user, &["commit", "-qam", "two is 2"]).await?;
    let conflict = apply().await;
    assert_eq!(conflict.code, 1);
    assert!(
        conflict.err.contains("1 files have conflicts") && conflict.err.contains("README.md"),
        "{}",
        conflict.err
    );
    let marked = std::fs::read_to_string(user.join("README.md"))?;
    assert!(marked.contains("<<<<<<<") && marked.contains("TWO") && marked.contains('2'), "{marked}");

    // What is staged is the user's, and no merge touches it.
    git(&user, &["reset", "-q", "--hard"]).await?;
    std::fs::write(user.join("src/main.rs"), "staged")?;
    git(&user, &["add", "."]).await?;
    let staged = apply().await;
    assert!(staged.code == 1 && staged.err.contains("nothing is staged"), "{}", staged.err);
    assert_eq!(git(&user, &["status", "--porcelain"]).await?, "M  src/main.rs");

    // A repository without the commit that the task started from.
    let other = site.fixture.dir().join("other");
    std::fs::create_dir(&other)?;
    git(&other, &["init", "-q"]).await?;
    let missing = site.fixture.rota(&["apply-diff", "fix", "--directory", other.to_str().unwrap()]).await;
    assert!(missing.code == 1 && missing.err.contains("fetch it first"), "{missing:?}");

    // Objects that do harm where they are checked out, made by hand.
    git(&user, &["reset", "-q", "--hard"]).await?;
    let made = "blob=$(echo x | git hash-object -w --stdin); tree=$(printf '100644 blob %s\t.git\n' $blob | git mktree); \
                git reset -q --soft $(git commit-tree -p HEAD -m x $tree)";
    site.succeed(site.task("made", made)).await?;
    let commit = site.changes("made").await?.commit;
    for more in [&[][..], &["--branch", "try"]] {
        let refused =
            site.fixture.rota(&[&["apply-diff", "made", "--directory", directory], more].concat()).await;
        assert!(refused.code == 1 && refused.err.contains("hasDotgit"), "{refused:?}");
        assert!(git(&user, &["cat-file", "-e", &commit]).await.is_err(), "it is not in the repository");
    }
    Ok(())
}

/// A review shows what an agent has written, whatever that makes of a terminal.
#[tokio::test]
async fn patches_are_shown_without_control_characters() -> Result<()> {
    let site = site(1).await?;
    // Without care, the last line takes the place of the one before.
    let line = r"printf 'rm -rf everything\n\033[1A\033[2Kall is well\r\342\200\256\n' > run.sh";
    site.succeed(site.task("sly", line)).await?;
    let mut terminal = Terminal::start(&site.fixture.command(&["diff", "sly"]), 40, 100);
    let lines = terminal.prints("all is well").await;
    for shown in ["+rm -rf everything", "+^[[1A^[[2Kall is well^M<U+202E>"] {
        assert!(lines.iter().any(|line| line == shown), "{shown} is not in {lines:#?}");
    }
    assert_eq!(terminal.ended().await, 0);
    let raw = site.fixture.rota(&["diff", "sly"]).await.success();
    assert!(raw.contains("+\u{1b}[1A\u{1b}[2Kall is well\r\u{202e}"), "{raw:?}");
    Ok(())
}

#[tokio::test]
async fn agents_work_on_a_copy_of_the_callers_files() -> Result<()> {
    let site = site(1).await?;
    let user = site.clone("user").await?;
    // Neither committed nor staged.
    std::fs::write(user.join("README.md"), "one\ntwo\nthree\nfour\n")?;
    std::fs::write(user.join("notes.txt"), "mine\n")?;
    let line = "grep -q four README.md && grep -q mine notes.txt && sed -i 's/four/FOUR/' README.md && echo b > b; sleep 0.1";
    let args = [
        "run",
        "--agent",
        workload::AGENT,
        "--workspace",
        user.to_str().unwrap(),
        "--apply",
        "--command",
        "--",
        "sh",
        "-c",
        line,
    ];
    site.fixture.rota(&args).await.success();
    assert_eq!(std::fs::read_to_string(user.join("README.md"))?, "one\ntwo\nthree\nFOUR\n");
    assert_eq!(std::fs::read_to_string(user.join("b"))?, "b\n");
    assert_eq!(git(&user, &["status", "--porcelain"]).await?, " M README.md\n?? b\n?? notes.txt");
    assert_eq!(git(&user, &["for-each-ref", "refs/rota"]).await?, "");

    // A task that fails changes nothing.
    let args = [
        "run",
        "--agent",
        workload::AGENT,
        "--workspace",
        user.to_str().unwrap(),
        "--apply",
        "--command",
        "--",
        "sh",
        "-c",
        "rm b; exit 1",
    ];
    assert_eq!(site.fixture.rota(&args).await.code, 1);
    assert!(user.join("b").exists());
    Ok(())
}
