//! Checks of the permission rules that agents have.

use rota_proto::permission_rules as rules;
use tonic::Status;

use super::status::invalid;

/// Tools of which no rule of an agent allows every use: each would allow any program on behalf of any caller who creates a task.
const NEVER_WHOLE: [&str; 2] = ["Bash", "PowerShell"];

/// Checks a rule that is kept with an agent.
pub(crate) fn check(field: &str, rule: &str) -> Result<(), Status> {
    match rules::parse(rule) {
        None => {
            Err(invalid(field, "is not a rule such as `Bash(npm test *)`, of at most 512 visible characters"))
        }
        Some((tool, content)) => {
            let whole = content.is_none_or(|content| content.trim_matches(['*', ' ', ':']).is_empty());
            if whole && NEVER_WHOLE.contains(&tool) {
                return Err(invalid(
                    field,
                    format!("would allow every use of {tool}: set it in the agent's allowed tools"),
                ));
            }
            Ok(())
        }
    }
}
