//! Verification of the tokens of people, by the verifier of all tokens of issuers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rota_core::Timestamp;
use serde_json::Value;
use tonic::Status;

use super::{Claims, People, Person, PersonCall, SignIn};
use crate::trust::oidc::Verifier;
use crate::trust::roles::Role;

/// Why a person is not signed in.
pub(crate) enum NotSignedIn {
    Token(Status),
    /// The token is of another sign-in.
    Nonce,
    Unlisted(Person),
}

/// Verifies the tokens of people.
#[derive(Debug)]
pub(crate) struct PeopleVerifier {
    people: Arc<People>,
    verifier: Verifier,
}

impl PeopleVerifier {
    pub(crate) fn new(people: Arc<People>) -> Self {
        Self { verifier: Verifier::new(people.oidc.clone()), people }
    }

    pub(crate) fn issuer(&self) -> &str {
        self.verifier.issuer()
    }

    /// Returns the file of certificates that the issuer is trusted by, if there is one.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.people.oidc.ca.as_deref()
    }

    pub(crate) fn sign_in(&self) -> &SignIn {
        &self.people.sign_in
    }

    /// Verifies the token that a sign-in with this nonce has led to, and returns the person if they are on the list.
    pub(crate) async fn sign_in_with(&self, token: &[u8], nonce: &str) -> Result<Person, NotSignedIn> {
        let claims = self.verifier.claims::<Claims>(token).await.map_err(NotSignedIn::Token)?;
        if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
            return Err(NotSignedIn::Nonce);
        }
        let person = self.people.person(&claims).map_err(NotSignedIn::Token)?;
        match self.people.role(&person) {
            Some(_) => Ok(person),
            None => Err(NotSignedIn::Unlisted(person)),
        }
    }

    /// Verifies a token, and returns the person whom it was issued to, and when it expires.
    pub(in crate::trust) async fn person(&self, token: &[u8]) -> Result<(Person, Timestamp), Status> {
        let claims = self.verifier.claims::<Claims>(token).await?;
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let expires = Timestamp(0) + Duration::try_from_secs_f64(expires).unwrap_or_default();
        Ok((self.people.person(&claims)?, expires))
    }

    /// Decides on a call of a person for these roles.
    pub(in crate::trust) fn permit(
        &self,
        person: Arc<Person>,
        allowed: &[Role],
    ) -> Result<PersonCall, Status> {
        self.people.permit(person, allowed)
    }
}
