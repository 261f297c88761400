//! Issuers whose discovery document names keys on another host, or cannot be fetched.

use anyhow::Result;
use jsonwebtoken::Algorithm;
use rota_testkit::Backend;

use super::issuer::{Issuer, Key, OPERATOR};
use super::oidc::{bearer, rejection, start_cluster};

#[tokio::test]
async fn other_hosts_get_no_token() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let (issuer, other) = (Issuer::start(&[]).await?, Issuer::start(&[&key]).await?);
    issuer.name_keys_of(&other);
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let client = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    // The other one serves its keys only with the token.
    assert_eq!(rejection(&client).await.0, "ISSUER_KEYS_UNAVAILABLE");
    assert!(other.asked() > 0);
    Ok(())
}

#[tokio::test]
async fn missing_discovery_document_names_the_flag() -> Result<()> {
    let key = Key::new("key", Algorithm::ES256)?;
    let issuer = Issuer::start(&[&key]).await?;
    issuer.set_away(true);
    let cluster = start_cluster(Backend::Memory, issuer.oidc()).await?;
    let client = bearer(&cluster, &key.sign(&issuer.account(OPERATOR))?)?;
    let (reason, message) = rejection(&client).await;
    assert_eq!(reason, "ISSUER_KEYS_UNAVAILABLE");
    assert!(message.contains("--oidc-jwks-url"), "{message}");
    Ok(())
}
