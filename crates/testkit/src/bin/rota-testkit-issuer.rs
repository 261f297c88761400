//! An OpenID Connect provider for tests in a browser. Prints its address. Each line of its standard input is the claims of the person who
//! signs in from then on, or `null` for one who refuses, and is answered with a line; the end of the input ends the program.

use std::io::Write;

use anyhow::Result;
use rota_testkit::identity_provider::{Algorithm, IdentityProvider};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<()> {
    let provider = IdentityProvider::start(Algorithm::ES256, None).await?;
    writeln!(std::io::stdout(), "{}", provider.url())?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let person: Value = serde_json::from_str(&line)?;
        provider.behave(|next| {
            next.denies = person.is_null();
            next.person = person;
        });
        writeln!(std::io::stdout(), "changed")?;
    }
    Ok(())
}
