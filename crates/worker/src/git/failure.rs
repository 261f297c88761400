//! Causes of git's failures, by its messages: it has no error codes. Git runs with `LC_ALL=C`, in which the messages have been
//! the same for years.

use rota_proto::v1::FailureClass;

/// Who has to act on a failure of git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The worker's machine: its disk, its memory, or git itself. Never by a message: the kernel's words may be the host's, or
    /// part of a URL.
    Machine,
    /// The task names a repository or reference that does not exist or may not be read, or a URL that is none.
    Task,
    /// The host of the repository refuses the credentials that it was given.
    Credentials,
    /// The host has another key for SSH than the one that is remembered.
    HostKey,
    /// The host does not respond, fails, or is unknown. Also what no message names.
    Host,
}

/// Parts of messages, in lower case. The first that occurs decides, since later lines are consequences.
const MESSAGES: [(&str, Cause); 26] = [
    // Of pushes: someone else has changed the branch, or the host forbids it.
    ("[rejected]", Cause::Task),
    (REMOTE_REJECTED, Cause::Task),
    // Over HTTP, then over SSH.
    ("authentication failed", Cause::Credentials),
    ("returned error: 401", Cause::Credentials),
    ("returned error: 403", Cause::Credentials),
    ("permission denied (", Cause::Credentials),
    ("access denied", Cause::Credentials),
    // No credentials were given, where some are required; the prompt is off.
    ("could not read username", Cause::Task),
    ("could not read password", Cause::Task),
    ("host key verification failed", Cause::HostKey),
    ("returned error: 400", Cause::Task),
    ("returned error: 404", Cause::Task),
    ("returned error: 410", Cause::Task),
    ("repository not found", Cause::Task),
    ("' not found", Cause::Task),
    ("does not exist", Cause::Task),
    ("does not appear to be a git repository", Cause::Task),
    ("remote branch", Cause::Task),
    ("couldn't find remote ref", Cause::Task),
    ("not our ref", Cause::Task),
    ("unadvertised object", Cause::Task),
    ("' not allowed", Cause::Task),
    ("unable to find remote helper", Cause::Task),
    ("url rejected", Cause::Task),
    ("illegal characters found in url", Cause::Task),
    ("no path specified", Cause::Task),
];

const REMOTE_REJECTED: &str = "[remote rejected]";

/// Parts of a host's reasons for a push that it has rejected, in lower case, which are faults of its own, or of its load.
const FAULTS_OF_HOSTS: [&str; 10] = [
    "internal server error",
    "internal error",
    "unpacker error",
    "failed to lock",
    "cannot lock ref",
    "failed to update ref",
    "timeout",
    "timed out",
    "temporarily",
    "unavailable",
];

/// What a host writes before it rejects a push, in lower case, that it will reject in the same way again, although the reason that it
/// gives is one of its faults: a pack that is too large, and a branch whose name is a folder of others.
const FINAL_REASONS: [&str; 2] = ["exceeds maximum", "exists; cannot create"];

fn is_final(output: &str) -> bool {
    let written = |line: &str| line.trim_start().strip_prefix("remote:").map(str::to_lowercase);
    let mut lines = output.lines().filter_map(written);
    lines.any(|line| FINAL_REASONS.iter().any(|reason| line.contains(reason)))
}

/// Whether a host has rejected a push by a fault of its own: `! [remote rejected] main -> main (Internal Server Error)`.
fn is_fault_of_host(output: &str) -> bool {
    output.lines().filter(|line| line.contains(REMOTE_REJECTED)).any(|line| {
        let reason = line.rsplit_once(" (").map_or("", |(_, reason)| reason);
        FAULTS_OF_HOSTS.iter().any(|part| reason.contains(part))
    })
}

/// Parts of messages of git about a repository that is damaged, or that a killed call has left locked.
const DAMAGE: [&str; 12] = [
    "not a git repository",
    ".lock': file exists",
    ".new: file exists",
    "object file",
    "loose object",
    "bad object",
    "/pack-",
    "pack index",
    "bad config line",
    "unable to resolve reference",
    "is broken",
    "did not send all necessary objects",
];

/// Whether a failure is one of this machine's repository, which can be made again.
pub(super) fn is_damage(message: &str) -> bool {
    // The name of the call is before what it has written.
    let message = own_lines(message.split_once(": ").map_or(message, |(_, output)| output));
    DAMAGE.iter().any(|part| message.contains(part))
}

/// Returns what git itself has written, in lower case. Hosts write there too: over HTTP in lines that git marks.
fn own_lines(output: &str) -> String {
    let own: Vec<&str> = output.lines().filter(|line| !line.trim_start().starts_with("remote:")).collect();
    own.join("\n").to_lowercase()
}

impl Cause {
    /// Returns the cause of a failure with this output on standard error, if the machine is well.
    pub(crate) fn of(output: &str) -> Self {
        let is_final = is_final(output);
        let output = own_lines(output);
        if is_fault_of_host(&output) {
            return if is_final { Self::Task } else { Self::Host };
        }
        MESSAGES.iter().find(|(part, _)| output.contains(part)).map_or(Self::Host, |(_, cause)| *cause)
    }

    /// Returns the class of the failure. `embedded` is whether the URL itself has the credentials.
    pub(crate) fn class(self, embedded: bool) -> FailureClass {
        match self {
            Self::Machine => FailureClass::Environment,
            Self::Task => FailureClass::Invalid,
            Self::Credentials if embedded => FailureClass::Invalid,
            Self::Credentials | Self::HostKey | Self::Host => FailureClass::Source,
        }
    }

    /// Whether the failure may pass without the task: work that is to be delivered can be delivered later.
    pub(super) fn is_of_host(self) -> bool {
        matches!(self, Self::HostKey | Self::Host)
    }

    /// Returns how to resolve the failure.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Machine => "check disk and memory of the worker",
            Self::Task => {
                "check the URL and the reference in the task's workspace, and that its credentials are given"
            }
            Self::Credentials => "replace the credentials of the repository, or give them access to it",
            Self::HostKey => "check that the host has a new key, and let the workers forget the old one",
            Self::Host => "check that the host of the repository can be reached from the worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_hosts_are_classified() {
        for (output, cause) in [
            ("fatal: Authentication failed for 'https://git.example/x/'", Cause::Credentials),
            (
                "git@git.example: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Cause::Credentials,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://git.example/x/' not found",
                Cause::Task,
            ),
            (
                "fatal: could not read Username for 'https://git.example': terminal prompts disabled",
                Cause::Task,
            ),
            ("Host key verification failed.\nfatal: Could not read from remote repository.", Cause::HostKey),
            (
                "fatal: unable to access 'https://git.example/x/': The requested URL returned error: 503",
                Cause::Host,
            ),
            (
                "fatal: unable to access 'https://git.example/': Could not resolve host: git.example",
                Cause::Host,
            ),
            ("fatal: repository '/no space left on device' does not exist", Cause::Task),
            // It is not known whose disk is meant.
            ("No space left on device\nfatal: Could not read from remote repository.", Cause::Host),
            ("remote: Access denied, repository not found.\nfatal: the remote end hung up", Cause::Host),
            (" ! [remote rejected] rota/x -> rota/x (Internal Server Error)", Cause::Host),
            (
                " ! [remote rejected] rota/x -> rota/x (cannot lock ref 'refs/heads/rota/x': is at 1 but expected 2)",
                Cause::Host,
            ),
            (" ! [remote rejected] rota/x -> rota/x (unpacker error)", Cause::Host),
            (
                "remote: fatal: pack exceeds maximum allowed size (1000 bytes)\n\
                 error: remote unpack failed: index-pack abnormal exit\n \
                 ! [remote rejected] rota/x -> rota/x (unpacker error)",
                Cause::Task,
            ),
            (
                "remote: error: 'refs/heads/rota' exists; cannot create 'refs/heads/rota/x'\n \
                 ! [remote rejected] rota/x -> rota/x (failed to update ref)",
                Cause::Task,
            ),
            ("remote: the load exceeds maximum\nfatal: the remote end hung up unexpectedly", Cause::Host),
            (" ! [remote rejected] rota/x -> rota/x (protected branch hook declined)", Cause::Task),
            // The name of a branch is no reason.
            (" ! [remote rejected] timeout -> timeout (pre-receive hook declined)", Cause::Task),
            (" ! [rejected] rota/x -> rota/x (stale info)", Cause::Task),
            ("", Cause::Host),
        ] {
            assert_eq!(Cause::of(output), cause, "{output}");
        }
    }

    #[test]
    fn files_of_killed_calls_are_damage() {
        for left in [
            "Unable to create '/x/packed-refs.lock': File exists",
            "unable to create file /x/packed-refs.new: File exists",
        ] {
            assert!(is_damage(&format!("git fetch: error: {left}")), "{left}");
            assert!(!is_damage(&format!("git fetch: remote: error: {left}")), "{left}");
        }
    }

    #[test]
    fn only_machines_are_blamed_for_their_disks() {
        assert_eq!(Cause::Machine.class(false), FailureClass::Environment);
        assert_eq!(Cause::Credentials.class(true), FailureClass::Invalid);
        assert_eq!(Cause::Credentials.class(false), FailureClass::Source);
    }
}
