//! The words of manifests, written the Kubernetes way (`OnSuccess`), and the API's enums they mean.

use rota_proto::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$meta:meta])* $name:ident => $api:ident { $($(#[$note:meta])* $word:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$note])* $word),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// As the API has it.
            pub fn to_api(self) -> v1::$api {
                match self { $(Self::$word => v1::$api::$word),+ }
            }

            /// From the API; `None` for the unspecified one.
            pub fn from_api(value: v1::$api) -> Option<Self> {
                match value {
                    $(v1::$api::$word => Some(Self::$word),)+
                    _ => None,
                }
            }
        }
    };
}

words! {
    /// What the caller wants to become of a task.
    DesiredState => DesiredState {
        /// It shall be done.
        Run,
        /// It shall not start; a run that has started goes on.
        Suspended,
        /// It shall end. There is no way back.
        Cancelled,
    }
}

words! {
    /// What happens if a task's dependency does not succeed.
    OnDependencyFailure => OnDependencyFailure {
        /// The task fails too.
        Fail,
        /// The task is done all the same.
        Continue,
        /// The task is cancelled.
        Cancel,
    }
}

words! {
    /// Which directory an attempt works in.
    WorkspaceMode => WorkspaceMode {
        /// A new empty one for each attempt.
        Fresh,
        /// One that stays for the next attempt, or for a later task.
        Keep,
        /// One that exists, such as a project.
        InPlace,
    }
}

words! {
    /// What becomes of a fresh workspace at the end.
    WorkspaceCleanup => WorkspaceCleanup {
        /// It is removed.
        Always,
        /// It is removed if the attempt succeeded.
        OnSuccess,
        /// It stays.
        Never,
    }
}

words! {
    /// What a cut-off worker does when its lease ends, since its tasks may now run elsewhere.
    OnDisconnect => OnDisconnect {
        /// Goes on until its orphan timeout; the late result is refused if the task went elsewhere.
        Continue,
        /// Freezes the attempt until it hears from a control plane again.
        Pause,
        /// Ends the attempt.
        Stop,
    }
}

words! {
    /// Whether a task shares a worker with others.
    Isolation => Isolation {
        /// Any worker that fits may do it.
        Shared,
        /// It gets a pod of its own.
        Pod,
    }
}

words! {
    /// Who starts an agent's workers.
    Management => Management {
        /// `rota dev` (processes) or the operator (pods).
        Managed,
        /// Whoever likes: workers join by themselves.
        External,
    }
}

words! {
    /// What happens when a tool needs a permission that the rules do not give.
    PermissionPolicy => PermissionPolicy {
        /// It is denied; the agent goes on without.
        Deny,
        /// A person is asked; the task waits.
        Ask,
        /// It is allowed.
        Allow,
    }
}

words! {
    /// What kind of failure a script acts.
    FailureClass => FailureClass {
        /// The program or agent said that it failed.
        Agent,
        /// It could not be started.
        Start,
        /// Total time ran out.
        Timeout,
        /// Nothing was heard for too long.
        Hang,
        /// It ended without saying how, or by a signal.
        Crash,
        /// The worker was lost.
        WorkerLost,
        /// The model refuses the credentials.
        Auth,
        /// The model says: too many requests.
        RateLimit,
        /// The model is overloaded or failing.
        Overload,
        /// The model refuses the task.
        Refusal,
        /// Turns, tokens or money ran out.
        Budget,
        /// The task's input cannot be used.
        Invalid,
        /// The agent broke its protocol.
        Protocol,
        /// The worker's disk, memory or workspace failed it.
        Environment,
    }
}

impl FailureClass {
    /// As a script of the API names it: lower case, without prefix.
    pub fn script_word(self) -> String {
        self.to_api().as_str_name().trim_start_matches("FAILURE_CLASS_").to_lowercase()
    }
}

/// The Claude CLI's permission modes, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Asks for whatever no rule allows.
    Default,
    /// Edits need no permission.
    AcceptEdits,
    /// Reads and plans only.
    Plan,
    /// Denies what no rule allows.
    DontAsk,
    /// Everything is allowed; only in a closed-off machine.
    BypassPermissions,
}

impl PermissionMode {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Default, Self::AcceptEdits, Self::Plan, Self::DontAsk, Self::BypassPermissions];

    /// The CLI's word.
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
            for &word in $name::ALL {
                let json = serde_json::to_string(&word).unwrap();
                assert_eq!(serde_json::from_str::<$name>(&json).unwrap(), word);
                assert_eq!($name::from_api(word.to_api()), Some(word), "{json}");
                // The manifest's word is the API's, only spelt differently.
                let api = word.to_api().as_str_name().replace('_', "").to_lowercase();
                let own = json.trim_matches('"').to_lowercase();
                assert!(api.ends_with(&own), "{api} {own}");
            }
            assert_eq!($name::from_api(v1::$name::Unspecified), None);
        )+};
    }

    #[test]
    fn every_word_goes_there_and_back() {
        round_trips!(
            DesiredState,
            OnDependencyFailure,
            WorkspaceMode,
            WorkspaceCleanup,
            OnDisconnect,
            Isolation,
            Management,
            PermissionPolicy,
            FailureClass
        );
        for &mode in PermissionMode::ALL {
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("{:?}", mode.as_str()));
        }
        assert_eq!(FailureClass::RateLimit.script_word(), "rate_limit");
    }

    #[test]
    fn other_words_are_refused() {
        assert!(serde_json::from_str::<DesiredState>("\"run\"").is_err());
        assert!(serde_json::from_str::<WorkspaceMode>("\"IN_PLACE\"").is_err());
    }
}
