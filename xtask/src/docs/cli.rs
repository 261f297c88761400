//! The command line's page: the help of every command, as the program itself prints it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::MARK;
use super::table::anchor;
use crate::workspace;

/// Builds the program and says where it is.
pub(super) fn build() -> anyhow::Result<PathBuf> {
    let status = workspace::cargo()
        .args(["build", "--quiet", "--locked", "--package", "rota-cli", "--bin", "rota"])
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("rota could not be built");
    }
    Ok(workspace::metadata()?.target_directory.join("debug/rota"))
}

/// Runs the program with nothing of the caller's environment.
pub(super) fn run(rota: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    // A home that nobody has: defaults below it can be told from fixed ones.
    workspace::output(
        Command::new(rota)
            .args(arguments)
            .env_clear()
            .env("HOME", HOME)
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1"),
    )
}

/// Stands for the reader's own in what is printed.
pub(super) const HOME: &str = "/home/you";

/// The page.
pub(super) fn page(rota: &Path) -> anyhow::Result<String> {
    let mut sections = Vec::new();
    walk(rota, &[], &mut sections)?;
    let mut text = format!(
        "{MARK}\n\n# The `rota` command\n\nWhat `rota … --help` prints, for every command. The global options are the same for all, and shown once.\n\n"
    );
    for (name, _) in &sections {
        writeln!(text, "- [`{name}`](#{})", anchor(name))?;
    }
    for (name, help) in &sections {
        write!(text, "\n## {name}\n\n```text\n{help}\n```\n")?;
    }
    Ok(text)
}

fn walk(rota: &Path, path: &[&str], sections: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let mut arguments = path.to_vec();
    arguments.push("--help");
    let help = run(rota, &arguments)?;
    let lines: Vec<_> = if path.is_empty() { help.lines().collect() } else { own(&help) };
    let lines: Vec<_> = lines.into_iter().map(str::trim_end).collect();
    sections.push((
        ["rota"].iter().chain(path).copied().collect::<Vec<_>>().join(" "),
        lines.join("\n").trim().to_owned(),
    ));
    for command in commands(&help) {
        walk(rota, &[path, &[command]].concat(), sections)?;
    }
    Ok(())
}

/// A command's help without the global options.
fn own(help: &str) -> Vec<&str> {
    let mut global = false;
    let keep = |line: &&str| {
        if !line.is_empty() && !line.starts_with(' ') {
            global = *line == "Global options:";
        }
        !global
    };
    help.lines().filter(keep).collect()
}

/// The commands that a help lists: the words two spaces in, below `Commands:`.
fn commands(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  ") || line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_help() {
        let help = "About.\n\nUsage: rota\n\nCommands:\n  apply  Make it so,\n         and more\n  get    Look\n  help   This\n\n\
                    Options:\n  -h  No command\n";
        assert_eq!(commands(help), ["apply", "get"]);
        assert_eq!(own("A\nGlobal options:\n  -x  X\n\nExamples:\n  a\n"), ["A", "Examples:", "  a"]);
        assert_eq!(commands("Usage: rota get\n\nOptions:\n  -h\n"), Vec::<&str>::new());
    }
}
