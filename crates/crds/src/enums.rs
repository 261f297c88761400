//! Enums of manifests, spelt as in Kubernetes (`OnSuccess`), with their counterparts in the API.

use rota_proto::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Defines an enum of manifests with the same variants as an enum of the API.
macro_rules! string_enum {
    ($(#[$meta:meta])* $name:ident => $api:ident { $($(#[$note:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$note])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the corresponding variant of the API.
            pub fn to_api(self) -> v1::$api {
                match self { $(Self::$variant => v1::$api::$variant),+ }
            }

            /// Converts the API's variant; `None` if it is unspecified.
            pub fn from_api(value: v1::$api) -> Option<Self> {
                match value {
                    $(v1::$api::$variant => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

string_enum! {
    /// Desired state of a task.
    DesiredState => DesiredState {
        /// Run the task when it is ready.
        Run,
        /// Do not start the task; an attempt that is already running continues.
        Suspended,
        /// Cancel the task. Cannot be undone.
        Cancelled,
    }
}

string_enum! {
    /// Effect of a dependency that does not succeed.
    OnDependencyFailure => OnDependencyFailure {
        /// Fail the task with the dependency.
        Fail,
        /// Run the task despite the failure.
        Continue,
        /// Cancel the task without a failure.
        Cancel,
    }
}

string_enum! {
    /// Action at a time at which earlier runs of a schedule have not ended.
    ScheduleConcurrency => ScheduleConcurrency {
        /// Start the run besides them.
        Allow,
        /// Start no run at this time.
        Forbid,
        /// Cancel the earlier runs, and start the run.
        Replace,
    }
}

string_enum! {
    /// Action after times that have passed while nothing could run.
    ScheduleCatchUp => ScheduleCatchUp {
        /// One run for the last of them.
        Latest,
        /// No run, unless its start deadline has not passed.
        Skip,
        /// A run for each, oldest first, and at most for the last 100 of them.
        All,
    }
}

string_enum! {
    /// What becomes of new tasks while a budget is exhausted.
    WhenExhausted => WhenExhausted {
        /// They wait for the next day or month.
        Queue,
        /// They are refused until the next day or month.
        Refuse,
    }
}

string_enum! {
    /// Kind of directory in which an attempt runs.
    WorkspaceMode => WorkspaceMode {
        /// A new empty directory for each attempt.
        Fresh,
        /// A directory that is kept for the next attempt or a later task.
        Keep,
        /// An existing directory, such as a project.
        InPlace,
    }
}

string_enum! {
    /// Cleanup of a fresh workspace after the attempt.
    WorkspaceCleanup => WorkspaceCleanup {
        /// Remove the workspace after every attempt.
        Always,
        /// Remove the workspace if the attempt succeeded.
        OnSuccess,
        /// Keep the workspace after every attempt.
        Never,
    }
}

string_enum! {
    /// What becomes of changes of files that decide what a forge runs.
    WorkflowFiles => WorkflowFiles {
        /// They are not pushed: the task fails.
        Refuse,
        /// They are pushed as any other.
        Allow,
    }
}

string_enum! {
    /// Forge whose API is spoken.
    ForgeProvider => ForgeProvider {
        /// GitHub, also its Enterprise Server.
        Github,
        /// GitLab, also where it is hosted by its users.
        Gitlab,
        /// Gitea, and Forgejo with the same API.
        Gitea,
    }
}

string_enum! {
    /// Behavior of a disconnected worker whose lease has expired: its tasks may have been reassigned.
    OnDisconnect => OnDisconnect {
        /// Continue until the orphan timeout; a late result is rejected if the task was reassigned.
        Continue,
        /// Freeze the attempt until the worker reconnects.
        Pause,
        /// Stop the attempt when the lease expires.
        Stop,
    }
}

string_enum! {
    /// Isolation of a task from other tasks.
    Isolation => Isolation {
        /// Run on any matching worker.
        Shared,
        /// Run on a pod of its own.
        Pod,
    }
}

string_enum! {
    /// Who starts the workers of an agent.
    Management => Management {
        /// `rota dev` (processes) or the operator (pods).
        Managed,
        /// The user: workers join on their own.
        External,
    }
}

string_enum! {
    /// What tasks may set besides their work: prompt, input and priority; the program or script of an agent without one;
    /// a fresh or kept workspace unless the agent has one; fewer tools.
    Overrides => Overrides {
        /// Nothing: neither limits nor a retry policy.
        None,
        /// Their limits of time, turns and cost, and their retry policy.
        Limits,
        /// Everything: runtime, tools, environment, secrets, existing directories.
        All,
    }
}

string_enum! {
    /// Answer to a tool use that no permission rule covers.
    PermissionPolicy => PermissionPolicy {
        /// Deny; the agent continues without the tool.
        Deny,
        /// Ask a user; the task waits for the answer.
        Ask,
        /// Allow the use of the tool.
        Allow,
    }
}

string_enum! {
    /// Failure class that a script simulates.
    FailureClass => FailureClass {
        /// The program or agent reported a failure.
        Agent,
        /// The program could not be started.
        Start,
        /// The total timeout of the task expired.
        Timeout,
        /// The silence timeout of the attempt expired.
        Hang,
        /// The program exited without a result, or by a signal.
        Crash,
        /// The worker was lost during the attempt.
        WorkerLost,
        /// The model API rejected the credentials.
        Auth,
        /// The model API limited the request rate.
        RateLimit,
        /// The model API is overloaded or failing.
        Overload,
        /// The model refused the task.
        Refusal,
        /// The budget of turns, tokens or money is exhausted.
        Budget,
        /// The input of the task is invalid.
        Invalid,
        /// The agent violated its protocol.
        Protocol,
        /// The disk, memory or workspace of the worker failed.
        Environment,
        /// The host of the repository does not respond, or refuses the credentials.
        Source,
        /// The work is done, and could not be pushed.
        Delivery,
        /// A command that prepares the workspace failed.
        Setup,
        /// The agent has finished, and a command that the task must pass failed.
        Checks,
    }
}

impl FailureClass {
    /// Returns the API's name of the class in scripts: lower case, without prefix.
    pub fn script_word(self) -> String {
        self.to_api().as_str_name().trim_start_matches("FAILURE_CLASS_").to_lowercase()
    }
}

/// Permission mode of the Claude Code CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Ask for every tool use that no rule allows.
    Default,
    /// Allow edits of files without asking.
    AcceptEdits,
    /// Read and plan without making changes.
    Plan,
    /// Deny every tool use that no rule allows.
    DontAsk,
    /// Allow everything; for isolated machines only.
    BypassPermissions,
}

impl PermissionMode {
    pub const ALL: &'static [Self] =
        &[Self::Default, Self::AcceptEdits, Self::Plan, Self::DontAsk, Self::BypassPermissions];

    /// Returns the CLI's name of the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::DontAsk => "dontAsk",
            Self::BypassPermissions => "bypassPermissions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! round_trips {
        ($($name:ident),+) => {$(
            for &variant in $name::ALL {
                let json = serde_json::to_string(&variant).unwrap();
                assert_eq!(serde_json::from_str::<$name>(&json).unwrap(), variant);
                assert_eq!($name::from_api(variant.to_api()), Some(variant), "{json}");
                // The names differ in spelling only.
                let api = variant.to_api().as_str_name().replace('_', "").to_lowercase();
                let own = json.trim_matches('"').to_lowercase();
                assert!(api.ends_with(&own), "{api} {own}");
            }
            assert_eq!($name::from_api(v1::$name::Unspecified), None);
        )+};
    }

    #[test]
    fn every_variant_round_trips() {
        round_trips!(
            DesiredState,
            OnDependencyFailure,
            WorkspaceMode,
            WorkspaceCleanup,
            WorkflowFiles,
            OnDisconnect,
            Isolation,
            Management,
            Overrides,
            PermissionPolicy,
            FailureClass
        );
        for &mode in PermissionMode::ALL {
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{:?}", mode.as_str()));
        }
        assert_eq!(FailureClass::RateLimit.script_word(), "rate_limit");
    }

    #[test]
    fn unknown_variants_are_rejected() {
        assert!(serde_json::from_str::<DesiredState>("\"run\"").is_err());
        assert!(serde_json::from_str::<WorkspaceMode>("\"IN_PLACE\"").is_err());
    }
}
