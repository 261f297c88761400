//! What a repository may never set, and what of its settings is known: the one list of both. Knows nothing of files.
//!
//! The CLI lets settings that it is given precede those of the repository, so what must not take effect is set there, whether or
//! not the repository has it: a file that appears later has no effect either. A setting that is not known could do anything, and
//! is refused. Found in the settings of Claude Code 2.1.329, and tried with it.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Settings that name a program, which the CLI would run without a permission.
const PROGRAMS: [&str; 7] = [
    "apiKeyHelper",
    "awsAuthRefresh",
    "awsCredentialExport",
    "gcpAuthRefresh",
    "otelHeadersHelper",
    "processWrapper",
    "proxyAuthHelper",
];

/// Variables that decide which code programs load or run, set to what the attempt has, or to nothing. Each means nothing when empty.
const VARIABLES: [&str; 24] = [
    "PATH",
    "HOME",
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "BASH_ENV",
    "ENV",
    "NODE_OPTIONS",
    "PERL5OPT",
    "RUBYOPT",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "GIT_PAGER",
    "PAGER",
    "CLAUDE_CODE_SHELL_PREFIX",
    "CLAUDE_ENV_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];

/// Variables that mean something even when they are empty, so that none of a repository can be overridden by nothing.
const NEVER_EMPTY: [&str; 16] = [
    "GIT_ALLOW_PROTOCOL",
    "GIT_COMMON_DIR",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CURL_VERBOSE",
    "GIT_DIR",
    "GIT_EDITOR",
    "GIT_EXTERNAL_DIFF",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PROTOCOL_FROM_USER",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_NO_VERIFY",
    "GIT_WORK_TREE",
    "POSIXLY_CORRECT",
];

/// Settings of the CLI's schema that were looked at: they change texts, the display, the model or its cost, deny something, have
/// no effect in a repository or without a terminal, or are overridden.
const KNOWN: &str = "\
    $schema additionalDirectoryConfigRoots additionalMarketplaces advisorModel agent agentPushNotifEnabled allowAllClaudeAiMcps \
    allowClaudeInChromeWithManagedMcp allowManagedHooksOnly allowManagedMcpServersOnly allowManagedPermissionRulesOnly \
    allowNestedModelAccessUnderForceLogin allowedChannelPlugins allowedHttpHookUrls allowedMarketplaces allowedMcpServers \
    allowedProviders alwaysThinkingEnabled apiKeyHelper appendPlugins askUserQuestionTimeout attribution attributionProject \
    attributionProjectPolicy autoCompactEnabled autoCompactOfferAnswer autoCompactRaisedForLoad autoCompactWindow \
    autoContinueAtUsageLimit autoDreamEnabled autoMemoryDirectory autoMemoryEnabled autoScrollEnabled autoUpdatesChannel \
    autoUploadSessions availableModels availableModelsMatch awaySummaryEnabled awsAuthRefresh awsCredentialExport \
    bashEditDiffEnabled bashOutputMaxChars blockedMarketplaces breakReminder channelsEnabled claudeMd claudeMdExcludes \
    clawdFileProgressEnabled cleanupPeriodDays companyAnnouncements crossSessionInbound daemonColdStart defaultShell \
    deniedMcpServers deniedModels desktopMcpServersListScope desktopSessionCleanupPeriodDays dialogExpiry disableAgentView \
    disableAllHooks disableArtifact disableAutoMode disableBundledSkills disableClaudeAiConnectors disableCommandPluginSources \
    disableRemoteControl disableReplyCheck disableSideloadFlags disableSkillShellExecution disableWindowsBashCommandSplit \
    disableWorkflows disabledMcpjsonServers doneMeansMerged editorMode effortLevel emojiCompletionEnabled \
    enableAllProjectMcpServers enableArtifact enableWorkflows enabledMcpjsonServers enabledPlugins enforceAvailableModels env \
    extraKnownMarketplaces fallbackModel fastMode fastModePerSessionOptIn feedbackDrafts feedbackSurveyRate \
    fileCheckpointingEnabled fileSuggestion footerLinksRegexes forceLoginGatewayUrl forceLoginMethod forceLoginOrgUUID \
    forceRemoteSettingsRefresh gatewayInternalNetworks gcpAuthRefresh hooks httpHookAllowedEnvVars idleCompaction \
    includeCoAuthoredBy includeGitInstructions inputNeededNotifEnabled isolatePeerMachines keybindingFlavor language \
    managedMcpServers managedSourcesBehavior maxEffortLevel maxProseWidth minimumVersion model modelOverrides modelPicker \
    modelPricing modelProposedGoals modelSettings otelHeadersHelper outputStyle parentSettingsBehavior permissions \
    plansDirectory pluginConfigs pluginSuggestionMarketplaces pluginTrustMessage policyHelper policyHelpers prUrlTemplate \
    precomputeArmTokens precomputeCompactionEnabled preferredNotifChannel prefersReducedMotion prependPlugins processWrapper \
    promptCacheTtl promptSuggestionEnabled proxyAuthHelper quietHours remote remoteControl remoteControlAtStartup \
    remoteMessageReceipts remoteTools requiredMaximumVersion requiredMinimumVersion respectGitignore respondToBashCommands \
    responseComparisonEnabled sandbox showClearContextOnPlanAccept showMessageTimestamps showThinkingSummaries \
    showTurnDuration skillListingBudgetFraction skillListingMaxDescChars skillOverrides skipDangerousModePermissionPrompt \
    skipWebFetchPreflight skipWorkflowUsageWarning spellcheck spinnerTipsEnabled spinnerTipsOverride spinnerVerbs sshConfigs \
    sshHostCommands statusLine strictKnownMarketplaces strictPluginOnlyCustomization subagentPromptCacheTtl \
    subagentStatusLine switchModelsOnFlag syncClaudeAiPlugins syncClaudeAiSkills syntaxHighlightingDisabled \
    taskOutputMaxChars teammateMode terminalProgressBarEnabled terminalTitleFromRename theme timeFormat timeZone \
    todoFeatureEnabled totalTokensReminder totalTokensReminderAfterUserTurn totalTokensReminderBudget tui ultracode verbose \
    viewMode vimInsertModeRemaps voice wheelScrollAccelerationEnabled workflowKeywordTriggerEnabled workflowSizeGuideline \
    worktree wslInheritsWindowsSettings xaaIdp";

/// Returns the settings that are the CLI's whatever the repository has. `memory`: the directory of the CLI's memory, which its
/// tools may read, and write notes to, without a permission.
pub(super) fn settings(memory: &Path) -> Map<String, Value> {
    let mut settings: Map<_, _> =
        PROGRAMS.into_iter().map(|name| (name.to_owned(), Value::from(""))).collect();
    settings.insert("autoMemoryDirectory".to_owned(), json!(memory));
    // It allows commands without a rule where it works, and fails the start where it does not.
    let sandbox = json!({"enabled": false, "failIfUnavailable": false, "autoAllowBashIfSandboxed": false});
    settings.insert("sandbox".to_owned(), sandbox);
    for name in ["autoUploadSessions", "remoteControlAtStartup"] {
        settings.insert(name.to_owned(), false.into());
    }
    settings
}

/// Returns the variables that are the attempt's whatever the repository has.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter()
}

/// Whether a variable can only be overridden by a value.
pub(super) fn is_never_empty(variable: &str) -> bool {
    NEVER_EMPTY.contains(&variable)
}

/// Whether a setting of a repository is one of those that were looked at.
pub(super) fn is_known(setting: &str) -> bool {
    KNOWN.split_whitespace().any(|known| known == setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_overridden_is_known() {
        for name in settings(Path::new("/m")).keys() {
            assert!(is_known(name), "{name}");
        }
        assert!(!is_known("futureHelper") && !is_known(""));
        assert!(variables().all(|name| !is_never_empty(name)));
    }
}
