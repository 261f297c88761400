//! Verification of OpenID Connect tokens, such as a cluster issues to its pods: their subject, and its role. Knows nothing
//! of calls.

mod fetch;
mod keys;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use rota_core::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use self::keys::{Keys, NoKey};
use super::identity::{Holder, Identity};
use super::roles::Role;
use crate::options::Oidc;
use crate::wire::status;

/// Seconds by which the clocks of the issuer and the server may differ.
const CLOCK_SKEW: u64 = 30;

/// The pod that a token was issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Subject of a verified token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Operator,
    Worker(Identity),
    /// A subject without a role.
    Unknown(String),
}

impl Caller {
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Operator => Role::Operator,
            Self::Worker(_) => Role::Worker,
            Self::Unknown(_) => Role::Anonymous,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Clone, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Named>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Verifies tokens of one issuer.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys,
    options: Oidc,
}

impl Verifier {
    pub(crate) fn new(options: Oidc) -> Self {
        Self { keys: Keys::new(options.clone()), options }
    }

    /// Returns the issuer of the tokens.
    pub(super) fn issuer(&self) -> &str {
        &self.options.issuer
    }

    /// Verifies a token, and returns its subject.
    pub(crate) async fn caller(&self, token: &[u8]) -> Result<Caller, Status> {
        Ok(self.caller_of(self.claims(token).await?))
    }

    /// Verifies a token, and returns its claims.
    pub(super) async fn claims<C: DeserializeOwned + Clone>(&self, token: &[u8]) -> Result<C, Status> {
        let header = decode_header(token).map_err(|_| invalid("neither the admin token nor a signed one"))?;
        // Only asymmetric signatures: otherwise the public key would be a password.
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(invalid(&format!("signed with {:?}; only RS256 and ES256 are accepted", header.alg)));
        }
        let kid =
            header.kid.filter(|kid| !kid.is_empty()).ok_or_else(|| invalid("the token names no key"))?;
        let key = self.keys.find(&kid).await.map_err(|none| match none {
            NoKey::Unknown => invalid("signed with a key that its issuer does not list"),
            NoKey::Unavailable(why) => {
                status::error("ISSUER_KEYS_UNAVAILABLE", format!("failed to verify the token: {why}"))
            }
        })?;
        if key.algorithm != header.alg {
            return Err(invalid("signed with another algorithm than its key is for"));
        }
        let mut rules = Validation::new(key.algorithm);
        rules.leeway = CLOCK_SKEW;
        rules.validate_nbf = true;
        rules.set_audience(&self.options.audiences);
        rules.set_issuer(&[&self.options.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<C>(token, &key.key, &rules).map_err(|error| {
            let audience = format!("not issued for the audience {:?}", self.options.audiences.join(" or "));
            invalid(match error.kind() {
                // The signature is checked first: a signed token is well-formed.
                ErrorKind::InvalidSignature | ErrorKind::Base64(_) => "wrong signature",
                ErrorKind::ExpiredSignature => "expired",
                ErrorKind::ImmatureSignature => "not valid yet",
                ErrorKind::InvalidAudience => &audience,
                ErrorKind::InvalidIssuer => "issued by another issuer",
                _ => "required claims are missing",
            })
        })?;
        Ok(claims.claims)
    }

    fn caller_of(&self, claims: Claims) -> Caller {
        if self.options.operator.as_ref() == Some(&claims.sub) {
            return Caller::Operator;
        }
        match claims.kubernetes {
            Some(Kubernetes { namespace, pod: Some(Named { name, uid }) }) => {
                let expires =
                    Timestamp(i64::try_from(claims.exp.saturating_mul(1_000_000)).unwrap_or(i64::MAX));
                Caller::Worker(Identity {
                    holder: Holder::Pod(Pod { namespace, name, uid }),
                    expires,
                    token: None,
                })
            }
            _ => Caller::Unknown(claims.sub),
        }
    }
}

fn invalid(why: &str) -> Status {
    status::error("TOKEN_INVALID", format!("token rejected: {why}"))
}
