//! What the end-to-end tests are written with: a real cluster in which Rota is installed, used as people use it.
//! What goes wrong panics with what was seen. It knows nothing of the control plane's inside.
#![expect(clippy::panic, reason = "helpers of tests: a panic is how they say what they saw")]

mod audit;
mod command;
mod control;
mod here;
mod release;
mod space;
mod until;
mod watched;

pub use audit::{Audit, Call};
pub use command::{Output, run, run_with};
pub use control::Control;
pub use here::processes;
pub use release::Away;
pub use space::Space;
pub use until::{holds, until};
pub use watched::{Watched, age_of, is_there};

/// Where the release is installed.
pub const RELEASE: &str = "rota";

/// The cluster, as programs use it.
pub async fn client() -> kube::Client {
    kube::Client::try_default().await.unwrap_or_else(|error| {
        panic!("the cluster cannot be reached: {error}; `make e2e` starts one and runs the tests in it")
    })
}
