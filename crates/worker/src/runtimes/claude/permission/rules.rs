//! Rules that the CLI suggests with a permission request, as a person may allow them. Pure.

use std::collections::BTreeSet;

use rota_proto::permission_rules::{self, MAX_SUGGESTED};
use rota_proto::v1::PermissionRule;
use serde_json::Value;

use super::super::control::{AddRules, Rule};

/// Returns the rules among the CLI's suggestions. Others, such as another permission mode or further directories, cannot be given
/// to a later attempt as rules, and are left out; so are rules that a person could misread.
pub(super) fn suggested(suggestions: &[Value]) -> Vec<PermissionRule> {
    let mut seen = BTreeSet::new();
    let added = suggestions.iter().filter_map(|one| serde_json::from_value::<AddRules>(one.clone()).ok());
    let allowed = added.filter(|one| one.kind == "addRules" && one.behavior == "allow");
    allowed
        .flat_map(|one| one.rules)
        .filter_map(|Rule { tool_name, rule_content }| {
            let rule = match rule_content {
                Some(content) => format!("{tool_name}({content})"),
                None => tool_name,
            };
            let (tool, content) = permission_rules::parse(&rule)?;
            let description = permission_rules::describe(tool, content);
            seen.insert(rule.clone()).then_some(PermissionRule { rule, description })
        })
        .take(MAX_SUGGESTED)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_rules_that_can_be_read_are_suggested() {
        let rule = |content: &str| json!({"toolName": "Bash", "ruleContent": content});
        let add = |behavior: &str, rules: Value| json!({"type": "addRules", "behavior": behavior, "destination": "localSettings", "rules": rules});
        let suggestions = [
            json!({"type": "setMode", "mode": "bypassPermissions", "destination": "session"}),
            add("deny", json!([rule("ls *")])),
            add(
                "allow",
                json!([rule("make test *"), rule("make test *"), rule("x) Bash(*"), rule("a\u{202e}b")]),
            ),
            add("allow", json!([{"toolName": "WebSearch"}])),
            json!("nonsense"),
        ];
        let rules: Vec<_> = suggested(&suggestions).into_iter().map(|one| one.rule).collect();
        assert_eq!(rules, ["Bash(make test *)", "WebSearch"]);
    }
}
