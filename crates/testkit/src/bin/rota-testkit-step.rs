//! What workers inside of a test binary start their supervisors and scripted steps with.

use std::process::ExitCode;

fn main() -> ExitCode {
    rota_worker::hidden(std::env::args_os().skip(1)).unwrap_or(ExitCode::from(2))
}
