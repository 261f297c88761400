//! `rota-fake-model`: the fake model API as a program. Owns its flags and signals, nothing else.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use rota_fake_model::{Error, Options};
use tokio::signal::unix::{SignalKind, signal};

/// A local model API whose answers are scripted by the prompt. Prints its base URL once it listens.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "ROTA_FAKE_MODEL_LISTEN", default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Allow an address that other machines can reach.
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
            () = heard(SignalKind::interrupt()) => {}
            () = heard(SignalKind::terminate()) => {}
        }
        handle.shutdown().await;
    };
    let (served, ()) = tokio::join!(server.run(), stopped);
    served
}

async fn heard(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Then the default action of the signal ends the program.
        Err(_) => std::future::pending().await,
    }
}

fn hint(error: &Error) -> &'static str {
    match error {
        Error::NotLoopback(_) => "listen on 127.0.0.1, or say --allow-remote",
        Error::Bind { .. } => "choose another address with --listen; port 0 takes a free one",
        _ => "start it again",
    }
}
