//! `rota-fake-model`: the fake model as a program. Owns its flags and signals.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use rota_fake_model::{Error, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Local model API whose answers are scripted by the prompt. Prints its base URL once it listens.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Listen address; port 0 selects a free port.
    #[arg(long, env = "ROTA_FAKE_MODEL_LISTEN", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Allow a listen address that is reachable from other machines [default: false].
    #[arg(long, env = "ROTA_FAKE_MODEL_ALLOW_REMOTE")]
    allow_remote: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(cause) = std::error::Error::source(&error) {
                eprintln!("cause: {cause}");
            }
            eprintln!("hint:  {}", hint(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let options = Options { addr: args.listen, allow_remote: args.allow_remote, ..Options::default() };
    let server = options.bind().await?;
    let handle = server.handle();
    println!("{}", handle.base_url());
    let stopped = async {
        tokio::select! {
            () = wait_for_signal(SignalKind::interrupt()) => {}
            () = wait_for_signal(SignalKind::terminate()) => {}
        }
        handle.shutdown().await;
    };
    let (served, ()) = tokio::join!(server.run(), stopped);
    served
}

async fn wait_for_signal(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Then the signal has its default action, which ends the program.
        Err(_) => std::future::pending().await,
    }
}

fn hint(error: &Error) -> &'static str {
    match error {
        Error::NotLoopback(_) => "listen on 127.0.0.1, or add --allow-remote",
        Error::Bind { .. } => "choose another address with --listen; port 0 selects a free port",
        _ => "restart the program",
    }
}
