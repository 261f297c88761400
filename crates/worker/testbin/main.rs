//! The binary of this crate's tests: the hidden subcommands, and a worker that can be killed.
//! `serve <endpoint> <state-dir> <slots>` serves the agent `default` as the worker `w`.

use std::process::ExitCode;

use rota_worker::Options;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(code) = rota_worker::run_hidden_subcommand(args.clone()) {
        return code;
    }
    let args: Vec<String> = args.into_iter().filter_map(|arg| arg.into_string().ok()).collect();
    let [command, endpoint, state, slots] = args.as_slice() else { return ExitCode::from(2) };
    let (Ok(endpoint), Ok(slots), "serve") =
        (tonic::transport::Endpoint::from_shared(endpoint.clone()), slots.parse(), command.as_str())
    else {
        return ExitCode::from(2);
    };
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let served = runtime.block_on(async {
        let mut options = Options::new(endpoint.connect_lazy(), "default", "default", "w", state.into());
        options.slots = slots;
        options.run(CancellationToken::new()).await
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
