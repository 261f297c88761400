//! Tokens of an OpenID Connect issuer, such as a cluster that gives its pods tokens: whose they are, and what that
//! makes of a caller. Knows nothing of calls.

mod fetch;
mod keys;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use tonic::Status;

use self::keys::{Keys, NoKey};
use super::roles::Role;
use crate::options::Oidc;
use crate::wire::status;

/// Seconds by which the issuer's clock and ours may differ.
const LEEWAY: u64 = 30;

/// The pod that a token was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Who a token says that its bearer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Operator,
    Worker(Pod),
    /// Somebody whom the issuer knows and we do not.
    Stranger(String),
}

impl Caller {
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Operator => Role::Operator,
            Self::Worker(_) => Role::Worker,
            Self::Stranger(_) => Role::Anybody,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

/// Checks tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Keys,
    options: Oidc,
}

impl Verifier {
    pub(crate) fn new(options: Oidc) -> Self {
        Self { keys: Keys::new(options.clone()), options }
    }

    /// Whose token it is.
    pub(crate) async fn caller(&self, token: &[u8]) -> Result<Caller, Status> {
        let header =
            decode_header(token).map_err(|_| invalid("it is neither the admin's nor a signed one"))?;
        // Only what is signed with a private key: the public one must not become a password.
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Err(invalid(&format!(
                "it is signed with {:?}, and only RS256 and ES256 are taken",
                header.alg
            )));
        }
        let kid =
            header.kid.filter(|kid| !kid.is_empty()).ok_or_else(|| invalid("it does not name its key"))?;
        let key = self.keys.find(&kid).await.map_err(|none| match none {
            NoKey::Unknown => invalid("it is signed with a key that its issuer does not list"),
            NoKey::Away(why) => {
                status::error("KEYS_UNAVAILABLE", format!("the token cannot be checked now: {why}"))
            }
        })?;
        if key.algorithm != header.alg {
            return Err(invalid("it is signed in another way than its key is for"));
        }
        let mut rules = Validation::new(key.algorithm);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_audience(&[&self.options.audience]);
        rules.set_issuer(&[&self.options.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<Claims>(token, &key.key, &rules).map_err(|error| {
            let audience = format!("it is not meant for the audience {:?}", self.options.audience);
            invalid(match error.kind() {
                // The signature comes first: what was signed is well-formed.
                ErrorKind::InvalidSignature | ErrorKind::Base64(_) => "its signature is wrong",
                ErrorKind::ExpiredSignature => "it has expired",
                ErrorKind::ImmatureSignature => "it is not valid yet",
                ErrorKind::InvalidAudience => &audience,
                ErrorKind::InvalidIssuer => "it is of another issuer",
                _ => "it does not say what a token must say",
            })
        })?;
        Ok(self.of(claims.claims))
    }

    fn of(&self, claims: Claims) -> Caller {
        if self.options.operator.as_ref() == Some(&claims.sub) {
            return Caller::Operator;
        }
        match claims.kubernetes {
            Some(Kubernetes { namespace, pod: Some(Named { name, uid }) }) => {
                Caller::Worker(Pod { namespace, name, uid })
            }
            _ => Caller::Stranger(claims.sub),
        }
    }
}

fn invalid(why: &str) -> Status {
    status::error("TOKEN_INVALID", format!("the token is not accepted: {why}"))
}
