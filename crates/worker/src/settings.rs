//! Settings of `rota worker`: keys, flags, environment variables and defaults. Knows nothing of how a file or
//! a command line is read.

use std::path::PathBuf;

use clap::Args;
use rota_client::RenewableChannel;
use rota_settings::HumanDuration;
use rota_telemetry::env;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::session::{
    CHECKPOINT_INTERVAL, DELIVERY_TIMEOUT, KEEP_WORKSPACES, MIN_FREE_DISK, MIN_FREE_MEMORY, ORPHAN_TIMEOUT,
    Options, STORING_TIMEOUT,
};

/// Settings of `rota worker`.
#[derive(Debug, Clone, Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Agent that the worker serves (required)
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Name of the worker, unique in the namespace [default: the agent's name and a random suffix]
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Number of tasks that run at a time
    #[arg(long, value_name = "COUNT")]
    pub slots: usize,
    /// Capability beyond those of the agent; may be repeated
    #[arg(long = "capability", value_name = "WORD")]
    pub capabilities: Vec<String>,
    /// Directory of workspaces and unsent results
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Directory of the agent's secrets: one file per variable, named like it
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// Do not confine attempts, which is otherwise done where the kernel supports it and the worker is not root
    #[arg(long)]
    pub unconfined: bool,
    /// Further file or directory that confined attempts may read; may be repeated
    #[arg(long, value_name = "PATH")]
    pub allow_read: Vec<PathBuf>,
    /// Further directory that confined attempts may write; may be repeated
    #[arg(long, value_name = "DIR")]
    pub allow_write: Vec<PathBuf>,
    /// Further directory that confined attempts must not open; may be repeated
    #[arg(long, value_name = "DIR", hide = true)]
    pub private: Vec<PathBuf>,
    /// File that supervisors of programs lock [default: one in the state directory]
    #[arg(long, value_name = "FILE", hide = true)]
    pub supervisors_lock: Option<PathBuf>,
    /// Time after its last use for which a workspace is kept
    #[arg(long, value_name = "TIME")]
    pub keep_workspaces: HumanDuration,
    /// Free disk in the state directory without which the worker takes no tasks, in MiB
    #[arg(long, value_name = "MIB")]
    pub min_free_disk_mib: u64,
    /// Free memory, of the machine and of the worker's container, without which the worker takes no tasks, in MiB
    #[arg(long, value_name = "MIB")]
    pub min_free_memory_mib: u64,
    /// Id of the only task to accept, if it requested a worker of its own
    #[arg(long, value_name = "ID")]
    pub isolated_task: Option<String>,
    /// Time without a control plane after which running attempts are ended
    #[arg(long, value_name = "TIME")]
    pub orphan_timeout: HumanDuration,
    /// Time for running attempts to finish on shutdown, after which they are requeued [default: unlimited]
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<HumanDuration>,
    /// Time for which an attempt delivers its work to hosts that do not respond, after which later attempts deliver it
    #[arg(long, value_name = "TIME")]
    pub delivery_timeout: HumanDuration,
    /// Time for which an attempt stores its files with its slot, after which the worker stores them without it, and for which it waits
    /// for files that it is given
    #[arg(long, value_name = "TIME")]
    pub storing_timeout: HumanDuration,
    /// The state directory is lost with the worker: files that no storage has taken until then are lost as well
    #[arg(long)]
    pub temporary_state: bool,
    /// Time between checkpoints of running attempts, from which another worker can continue; 0s for none
    #[arg(long, value_name = "TIME")]
    pub checkpoint_interval: HumanDuration,
    /// Do not keep the checkpoints of attempts that have succeeded, from which other tasks could continue
    #[arg(long)]
    pub discard_conversations: bool,
    /// Claude Code CLI of agents that name none [default: claude on the PATH]
    #[arg(long, value_name = "FILE")]
    pub claude_program: Option<PathBuf>,
    /// File with prices of models, which precede the list prices and what Claude Code reports
    #[arg(long, value_name = "FILE")]
    pub prices_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent: None,
            worker: None,
            slots: 1,
            capabilities: Vec::new(),
            state_dir: env::rota_home().join("worker"),
            secrets_dir: None,
            unconfined: false,
            allow_read: Vec::new(),
            allow_write: Vec::new(),
            private: Vec::new(),
            supervisors_lock: None,
            keep_workspaces: HumanDuration(KEEP_WORKSPACES),
            min_free_disk_mib: MIN_FREE_DISK >> 20,
            min_free_memory_mib: MIN_FREE_MEMORY >> 20,
            isolated_task: None,
            orphan_timeout: HumanDuration(ORPHAN_TIMEOUT),
            drain_timeout: None,
            delivery_timeout: HumanDuration(DELIVERY_TIMEOUT),
            storing_timeout: HumanDuration(STORING_TIMEOUT),
            temporary_state: false,
            checkpoint_interval: HumanDuration(CHECKPOINT_INTERVAL),
            discard_conversations: false,
            claude_program: None,
            prices_file: None,
        }
    }
}

impl rota_settings::Settings for Settings {
    const ENV_PREFIX: &'static str = "ROTA_WORKER_";
}

impl Settings {
    /// Returns the options of a worker of `agent`, without a token. The name is made up unless it is set.
    pub fn options(self, channel: RenewableChannel, namespace: &str, agent: &str) -> Options {
        let set = self.worker.filter(|name| !name.is_empty());
        // No other process gets a name that is made up, nor what is left under it.
        let temporary_state = self.temporary_state || set.is_none();
        let name = set.unwrap_or_else(|| {
            let suffix = uuid::Uuid::new_v4().simple().to_string();
            format!("{agent}-{}", &suffix[..6])
        });
        let mut options = Options::new(channel, namespace, agent, &name, self.state_dir);
        options.slots = self.slots;
        options.capabilities = self.capabilities;
        options.secrets_dir = self.secrets_dir;
        options.unconfined = self.unconfined;
        options.allow_read = self.allow_read;
        options.allow_write = self.allow_write;
        options.private = self.private;
        options.supervisors_lock = self.supervisors_lock;
        options.isolated_task = self.isolated_task.unwrap_or_default();
        options.keep_workspaces = self.keep_workspaces.0;
        options.min_free_disk = self.min_free_disk_mib.saturating_mul(1 << 20);
        options.min_free_memory = self.min_free_memory_mib.saturating_mul(1 << 20);
        options.orphan_timeout = self.orphan_timeout.0;
        options.delivery_timeout = self.delivery_timeout.0;
        options.storing_timeout = self.storing_timeout.0;
        options.temporary_state = temporary_state;
        options.checkpoint_interval = self.checkpoint_interval.0;
        options.discard_conversations = self.discard_conversations;
        options.claude_program = self.claude_program;
        options.prices_file = self.prices_file;
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn state_of_a_made_up_name_is_temporary() {
        let temporary = |worker: Option<&str>| {
            let channel = RenewableChannel::new(rota_client::Options::new("http://127.0.0.1:9")).unwrap();
            let settings = Settings { worker: worker.map(str::to_owned), ..Settings::default() };
            settings.options(channel, "default", "coder").temporary_state
        };
        assert_eq!([None, Some(""), Some("coder-1")].map(temporary), [true, true, false]);
    }
}
