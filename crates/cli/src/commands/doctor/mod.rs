//! `rota doctor`: checks everything that a task needs to run, and suggests fixes.

mod claude;
pub mod database;
mod isolation;
mod local;
mod server;
mod waiting;

use std::io;
use std::time::Duration;

use clap::Args;
use rota_client::{Client, Options};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::login;
use crate::output::{Out, Paint, plain};

const EXAMPLES: &str = "\
Examples:
  rota doctor
  rota doctor --endpoint https://rota.example -o json";

/// Check configuration, connection, control plane and agents, and suggest fixes
///
/// Exits with 0 if no check fails, even with warnings; with 1 if a check fails; with 5 if the server is unreachable or
/// denies access.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {}

/// Time for which calls are repeated: what does not answer now is what this command reports.
const RETRY_FOR: Duration = Duration::from_secs(2);
/// Width of the column of names: that of the longest one.
const NAME_WIDTH: usize = "background tasks".len();

/// Result of a check; a worse one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// Finished check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    message: String,
    /// How to resolve the problem; empty if unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

impl Check {
    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, message: message.into(), hint: String::new() }
    }

    fn warn(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, message: message.into(), hint: hint.into() }
    }

    fn fail(name: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, message: message.into(), hint: hint.into() }
    }
}

impl Doctor {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let mut findings = Findings { out: Out::new(globals.output, globals.color), checks: Vec::new() };
        let exit = run_all(globals, &mut findings).await?;
        let Findings { out, checks } = findings;
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        if !out.is_human() {
            out.value(&serde_json::json!({ "verdict": worst, "checks": checks }))?;
        }
        Ok(if worst == Verdict::Fail { exit } else { Exit::Ok })
    }
}

/// Finished checks. Printed immediately for humans, since the next one may take long.
struct Findings {
    out: Out,
    checks: Vec<Check>,
}

impl Findings {
    fn report(&mut self, checks: Vec<Check>) -> io::Result<()> {
        if self.out.is_human() && !checks.is_empty() {
            self.out.line(&text(&checks, self.out.colored()))?;
        }
        self.checks.extend(checks);
        Ok(())
    }
}

/// Runs all checks, as far as possible; returns the exit code for the case that one of them failed.
async fn run_all(globals: &Globals, findings: &mut Findings) -> io::Result<Exit> {
    let config = local::config(globals);
    let unread = config.iter().any(|check| check.verdict == Verdict::Fail);
    findings.report(config)?;
    if unread {
        // Every command fails with this configuration.
        return Ok(Exit::Failed);
    }
    let found = match login::find(globals).await {
        Ok(found) => found,
        Err(error) => {
            let hint = error.downcast_ref::<Failure>().and_then(|failure| failure.hint.clone());
            let hint = hint.unwrap_or_else(|| "fix the file, or sign in again with `rota login`".to_owned());
            findings.report(vec![Check::fail("server", error.to_string(), hint)])?;
            return Ok(Exit::Failed);
        }
    };
    findings.report(local::server(&found))?;
    findings.report(vec![local::isolation(), local::control_groups()])?;
    let options = Options { retry_for: RETRY_FOR, ..found.options.clone() };
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => {
            let check = Check::fail("connection", error.message, error.hint.unwrap_or_default());
            findings.report(vec![check])?;
            return Ok(Exit::Unreachable);
        }
    };
    match server::reach(&client).await {
        Ok(reached) => {
            findings.report(server::status(&reached))?;
            findings.report(database::checks(&client, reached.replicas()).await)?;
            findings.report(server::pools(&client, &found, reached.breakers()).await)?;
            findings.report(waiting::checks(&client, &found).await)?;
            Ok(Exit::Failed)
        }
        Err(check) => {
            findings.report(vec![check])?;
            Ok(Exit::Unreachable)
        }
    }
}

fn text(checks: &[Check], colored: bool) -> String {
    let lines = checks.iter().flat_map(|check| {
        let (word, paint) = match check.verdict {
            Verdict::Ok => ("ok  ", Paint::Good),
            Verdict::Warn => ("warn", Paint::Waiting),
            Verdict::Fail => ("FAIL", Paint::Bad),
        };
        let message = plain(&check.message);
        let line = format!("{}  {:<NAME_WIDTH$}  {message}", paint.around(word, colored), check.name);
        let hint =
            (!check.hint.is_empty()).then(|| format!("      {:<NAME_WIDTH$}  → {}", "", plain(&check.hint)));
        std::iter::once(line).chain(hint)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_render_as_text() {
        let checks = [
            Check::ok("config", "fine"),
            Check::warn("token file", "others can read it", "chmod 600 it"),
            Check::fail("control plane", "lost\u{1b}[2J", ""),
        ];
        assert_eq!(
            text(&checks, false),
            "\
ok    config            fine
warn  token file        others can read it
                        → chmod 600 it
FAIL  control plane     lost"
        );
        assert!(text(&checks, true).contains("\u{1b}[31mFAIL"));
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Ok);
    }
}
