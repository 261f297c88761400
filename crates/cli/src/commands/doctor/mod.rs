//! `rota doctor`: looks at everything between here and a task that runs, and says what to do.

mod here;
mod server;

use std::io;

use clap::Args;
use rota_client::Client;
use rota_client::discover;
use serde::Serialize;

use crate::args::Globals;
use crate::exit::Exit;
use crate::output::{Out, Paint, plain};

const EXAMPLES: &str = "\
Examples:
  rota doctor
  rota doctor --endpoint https://rota.example -o json";

/// Check configuration, connection, control plane and agents, and say what to do
///
/// Ends with 0 if nothing fails, though there may be warnings; with 1 if something fails; with 5 if no server can be
/// reached or it does not let us in.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Doctor {}

/// Characters of the longest name of a check.
const WIDEST: usize = "control plane".len();

/// How a check ended. The worse one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    message: String,
    /// What to do, where something can be done.
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
        let exit = all(globals, &mut findings).await?;
        let Findings { out, checks } = findings;
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        if !out.for_eyes() {
            out.value(&serde_json::json!({ "verdict": worst, "checks": checks }))?;
        }
        Ok(if worst == Verdict::Fail { exit } else { Exit::Ok })
    }
}

/// What was looked at so far. A person is told each at once, since the next may take its time.
struct Findings {
    out: Out,
    checks: Vec<Check>,
}

impl Findings {
    fn tell(&mut self, checks: Vec<Check>) -> io::Result<()> {
        if self.out.for_eyes() && !checks.is_empty() {
            self.out.line(&text(&checks, self.out.colored()))?;
        }
        self.checks.extend(checks);
        Ok(())
    }
}

/// Looks at everything, as far as it can be looked at; gives how the program ends if anything of it failed.
async fn all(globals: &Globals, findings: &mut Findings) -> io::Result<Exit> {
    let config = here::config(globals);
    let unread = config.iter().any(|check| check.verdict == Verdict::Fail);
    findings.tell(config)?;
    if unread {
        // No command would go on, whatever else is given.
        return Ok(Exit::Failed);
    }
    let found = match discover::find(&globals.flags()) {
        Ok(found) => found,
        Err(error) => {
            findings.tell(vec![Check::fail("server", error.to_string(), "mend the file")])?;
            return Ok(Exit::Failed);
        }
    };
    findings.tell(here::server(&found))?;
    let client = match Client::new(found.options.clone()) {
        Ok(client) => client,
        Err(error) => {
            let check = Check::fail("connection", error.message, error.hint.unwrap_or_default());
            findings.tell(vec![check])?;
            return Ok(Exit::Unreachable);
        }
    };
    match server::reach(&client).await {
        Ok(reached) => {
            findings.tell(server::status(&reached))?;
            findings.tell(server::fleet(&client, &found, reached.breakers()).await)?;
            Ok(Exit::Failed)
        }
        Err(check) => {
            findings.tell(vec![check])?;
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
        let said = plain(&check.message);
        let line = format!("{}  {:<WIDEST$}  {said}", paint.around(word, colored), check.name);
        let hint =
            (!check.hint.is_empty()).then(|| format!("      {:<WIDEST$}  → {}", "", plain(&check.hint)));
        std::iter::once(line).chain(hint)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_as_text() {
        let checks = [
            Check::ok("config", "fine"),
            Check::warn("token file", "others can read it", "chmod 600 it"),
            Check::fail("control plane", "gone\u{1b}[2J", ""),
        ];
        assert_eq!(
            text(&checks, false),
            "\
ok    config         fine
warn  token file     others can read it
                     → chmod 600 it
FAIL  control plane  gone"
        );
        assert!(text(&checks, true).contains("\u{1b}[31mFAIL"));
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Ok);
    }
}
