//! `rota doctor`: looks at everything between here and a task that runs, and says what to do.

mod here;
mod server;

use clap::Args;
use rota_client::Client;
use rota_client::discover;
use serde::Serialize;

use crate::args::Globals;
use crate::exit::Exit;
use crate::output::{Out, Paint, clean};

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
        let out = Out::new(globals.output, globals.color);
        let (checks, exit) = all(globals).await;
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        if out.for_eyes() {
            out.line(&text(&checks, out.colored()))?;
        } else {
            out.value(&serde_json::json!({ "verdict": worst, "checks": checks }))?;
        }
        Ok(if worst == Verdict::Fail { exit } else { Exit::Ok })
    }
}

/// Everything, as far as it can be looked at; and how the program ends if anything of it failed.
async fn all(globals: &Globals) -> (Vec<Check>, Exit) {
    let mut checks = here::config(globals);
    let found = match discover::find(&globals.flags()) {
        Ok(found) => found,
        Err(error) => {
            checks.push(Check::fail(
                "server",
                error.to_string(),
                "mend the file, or name the server with --endpoint",
            ));
            return (checks, Exit::Failed);
        }
    };
    checks.extend(here::server(&found));
    let client = match Client::new(found.options.clone()) {
        Ok(client) => client,
        Err(error) => {
            checks.push(Check::fail("connection", error.message, error.hint.unwrap_or_default()));
            return (checks, Exit::Unreachable);
        }
    };
    match server::reach(&client).await {
        Ok(reached) => {
            checks.extend(server::status(&reached));
            checks.extend(server::fleet(&client, &found).await);
            (checks, Exit::Failed)
        }
        Err(check) => {
            checks.push(check);
            (checks, Exit::Unreachable)
        }
    }
}

fn text(checks: &[Check], colored: bool) -> String {
    let widest = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let lines = checks.iter().flat_map(|check| {
        let (word, paint) = match check.verdict {
            Verdict::Ok => ("ok  ", Paint::Good),
            Verdict::Warn => ("warn", Paint::Waiting),
            Verdict::Fail => ("FAIL", Paint::Bad),
        };
        let line =
            format!("{}  {:<widest$}  {}", paint.around(word, colored), check.name, clean(&check.message));
        let hint =
            (!check.hint.is_empty()).then(|| format!("      {:<widest$}  → {}", "", clean(&check.hint)));
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
            Check::fail("server", "gone\u{1b}[2J", ""),
        ];
        assert_eq!(
            text(&checks, false),
            "\
ok    config      fine
warn  token file  others can read it
                  → chmod 600 it
FAIL  server      gone"
        );
        assert!(text(&checks, true).contains("\u{1b}[31mFAIL"));
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Ok);
    }
}
