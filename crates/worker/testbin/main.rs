//! The binary of this crate's tests: the hidden subcommands, and a worker that can be killed.
//! `deny <file> <subcommand>` executes a subcommand that cannot send the signals by the system calls that the file names.
//! `serve <endpoint> <state-dir> <slots>` serves the agent `default` as the worker `w`.

use std::process::ExitCode;

use nix::libc;
use rota_client::RenewableChannel;
use rota_worker::Options;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let [deny, file, rest @ ..] = args.as_slice()
        && deny == "deny"
    {
        let Ok(calls) = std::fs::read_to_string(file) else { return ExitCode::from(2) };
        refuse(&calls);
        return rota_worker::run_hidden_subcommand(rest.to_vec()).unwrap_or(ExitCode::from(2));
    }
    if let Some(code) = rota_worker::run_hidden_subcommand(args.clone()) {
        return code;
    }
    let args: Vec<String> = args.into_iter().filter_map(|arg| arg.into_string().ok()).collect();
    let [command, endpoint, state, slots] = args.as_slice() else { return ExitCode::from(2) };
    let (Ok(slots), "serve") = (slots.parse(), command.as_str()) else { return ExitCode::from(2) };
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let served = runtime.block_on(async {
        let channel = RenewableChannel::new(rota_client::Options::new(endpoint)).ok()?;
        let mut options = Options::new(channel, "default", "default", "w", state.into());
        options.slots = slots;
        options.run(CancellationToken::new()).await.ok()
    });
    if served.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers system calls with EPERM from now on, as a container's seccomp profile does.
fn refuse(calls: &str) {
    let number = |call: &str| match call {
        "kill" => libc::SYS_kill,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        other => panic!("unknown system call {other}"),
    };
    let rules = calls.split_whitespace().map(|call| (number(call), Vec::new())).collect();
    let answer = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a valid filter");
    let program: BpfProgram = filter.try_into().expect("a filter that compiles");
    seccompiler::apply_filter(&program).expect("a kernel with seccomp");
}
