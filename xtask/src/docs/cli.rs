//! Page of the command line: `--help` of every command, as the program prints it. Runs the program instead of rendering its
//! clap definition (as clap-markdown does), for `rota-cli` has no library and the page must show what users see.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::MARK;
use super::table::anchor;
use crate::workspace;

/// Builds the program next to this one and returns its path.
pub(super) fn build() -> anyhow::Result<PathBuf> {
    workspace::output(workspace::cargo().args([
        "build",
        "--locked",
        "--package",
        "rota-cli",
        "--bin",
        "rota",
    ]))?;
    Ok(std::env::current_exe()?.with_file_name("rota"))
}

/// Runs the program in an empty environment.
pub(super) fn run(rota: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    // A made-up home: defaults below it differ from fixed paths.
    workspace::output(
        Command::new(rota)
            .args(arguments)
            .env_clear()
            .env("HOME", HOME)
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1"),
    )
}

/// Stands for the reader's home in the output.
pub(super) const HOME: &str = "/home/you";

pub(super) fn page(rota: &Path) -> anyhow::Result<String> {
    let mut sections = Vec::new();
    walk(rota, &[], &mut sections)?;
    let mut text = format!(
        "{MARK}\n\n# The `rota` command\n\nOutput of `rota … --help` for every command. Global options are the same for all commands and listed once.\n\n"
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
    let help = run(rota, &[path, &["--help"]].concat())?;
    let lines: Vec<_> = if path.is_empty() { help.lines().collect() } else { own(&help) };
    let lines: Vec<_> = lines.into_iter().map(str::trim_end).collect();
    sections.push(([&["rota"], path].concat().join(" "), lines.join("\n").trim().to_owned()));
    for command in commands(&help) {
        walk(rota, &[path, &[command]].concat(), sections)?;
    }
    Ok(())
}

/// Help of a command without the global options.
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

/// Subcommands in a help: words indented by two spaces below `Commands:`.
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
    fn commands_are_read_from_help() {
        let help = "About.\n\nUsage: rota\n\nCommands:\n  apply  Make it so,\n         and more\n  get    Look\n  help   This\n\n\
                    Options:\n  -h  No command\n";
        assert_eq!(commands(help), ["apply", "get"]);
        assert_eq!(own("A\nGlobal options:\n  -x  X\n\nExamples:\n  a\n"), ["A", "Examples:", "  a"]);
        assert_eq!(commands("Usage: rota get\n\nOptions:\n  -h\n"), Vec::<&str>::new());
    }
}
