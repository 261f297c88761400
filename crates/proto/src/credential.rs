//! Which model credential an environment holds, and its id: a keyed hash by which workers and control plane name a credential
//! without its value.
//!
//! The id is the first 64 bits of an HMAC-SHA-256 under a key of the namespace, which the control plane derives from its key
//! file. Without that key an id reveals nothing, not even about a guessed credential; with it, a credential of 128 random bits
//! is as far from being guessed as before. 64 bits keep the few credentials of a namespace apart, and are too few to prove
//! which credential made them.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::claude::Provider;

/// Bytes of a key of hashes.
pub const KEY_BYTES: usize = 32;

/// Variables that hold a credential for the model and do nothing else, with the provider that takes them: those of one provider
/// in the order of precedence.
const VARIABLES: [(Provider, &str); 6] = [
    (Provider::Anthropic, "ANTHROPIC_AUTH_TOKEN"),
    (Provider::Anthropic, "ANTHROPIC_API_KEY"),
    (Provider::Anthropic, "CLAUDE_CODE_OAUTH_TOKEN"),
    (Provider::Bedrock, "AWS_BEARER_TOKEN_BEDROCK"),
    (Provider::Bedrock, "AWS_SECRET_ACCESS_KEY"),
    (Provider::Foundry, "ANTHROPIC_FOUNDRY_API_KEY"),
];
/// Others, which hold a part of one.
const PARTS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"];
/// Variable that may hold a credential among other headers.
const HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";

/// Returns the variables that hold a credential of a provider, in the order of precedence.
pub fn variables(provider: Provider) -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().filter(move |(of, _)| *of == provider).map(|(_, name)| name)
}

/// Whether a variable holds a credential for the model, and does nothing else.
pub fn is_credential(name: &str) -> bool {
    VARIABLES.iter().any(|(_, known)| *known == name) || PARTS.contains(&name)
}

/// Whether the value of a variable has a credential for the model.
pub fn has_credential(name: &str) -> bool {
    is_credential(name) || name == HEADERS
}

/// Returns the HMAC-SHA-256 of a text.
pub fn mac(key: &[u8], text: &[&[u8]]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    text.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Returns the id of a credential, in hexadecimal.
pub fn id(key: &[u8], credential: &str) -> String {
    let mac = mac(key, &[credential.trim().as_bytes()]);
    mac.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the id of a credential at a back end, of which the API may have limits of its own.
pub fn at_backend(key: &[u8], id: [u8; 8], backend: &str) -> [u8; 8] {
    let mut at = [0; 8];
    at.copy_from_slice(&mac(key, &[&id, b"@", backend.as_bytes()])[..8]);
    if backend.is_empty() { id } else { at }
}

/// Returns the model credential that programs use by an environment; `None` if it is in none of its variables.
pub fn of_environment<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    variables(Provider::of(&get)).find_map(|name| get(name).filter(|value| !value.trim().is_empty()))
}

/// Returns the host of the model API that programs use by an environment, or its provider with the region or resource.
pub fn backend<'a>(get: impl Fn(&str) -> Option<&'a str>) -> String {
    let provider = Provider::of(&get);
    let (name, url, place) = match provider {
        Provider::Anthropic => ("api.anthropic.com", "ANTHROPIC_BASE_URL", None),
        Provider::Bedrock => ("bedrock", "ANTHROPIC_BEDROCK_BASE_URL", Some("AWS_REGION")),
        Provider::Vertex => ("vertex", "ANTHROPIC_VERTEX_BASE_URL", Some("CLOUD_ML_REGION")),
        Provider::Foundry => ("foundry", "ANTHROPIC_FOUNDRY_BASE_URL", Some("ANTHROPIC_FOUNDRY_RESOURCE")),
    };
    let place = place.and_then(&get).map(str::trim).filter(|place| !place.is_empty());
    let host = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned()
    };
    let default = || place.map_or_else(|| name.to_owned(), |place| format!("{name}:{place}"));
    get(url).map(host).filter(|host| !host.is_empty()).unwrap_or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
        move |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    #[test]
    fn credential_follows_precedence() {
        let all = [("ANTHROPIC_API_KEY", "key"), ("CLAUDE_CODE_OAUTH_TOKEN", "oauth"), ("OTHER", "x")];
        assert_eq!(of_environment(env(&all)), Some("key"));
        assert_eq!(of_environment(env(&all[1..])), Some("oauth"));
        assert_eq!(of_environment(env(&all[2..])), None);
        let bedrock = [("CLAUDE_CODE_USE_BEDROCK", "1"), ("ANTHROPIC_API_KEY", "key")];
        assert_eq!(of_environment(env(&bedrock)), None);
        assert_eq!(
            of_environment(env(&[("CLAUDE_CODE_USE_BEDROCK", "0"), ("ANTHROPIC_API_KEY", "k")])),
            Some("k")
        );
    }

    #[test]
    fn settings_are_no_credentials() {
        let of_anthropic = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"];
        assert_eq!(variables(Provider::Anthropic).collect::<Vec<_>>(), of_anthropic);
        assert_eq!(variables(Provider::Vertex).count(), 0);
        for (name, is, has) in [
            ("AWS_SESSION_TOKEN", true, true),
            ("ANTHROPIC_FOUNDRY_API_KEY", true, true),
            // Leads calls elsewhere as well.
            ("ANTHROPIC_CUSTOM_HEADERS", false, true),
            ("ANTHROPIC_BASE_URL", false, false),
            ("AWS_REGION", false, false),
        ] {
            assert_eq!((is_credential(name), has_credential(name)), (is, has), "{name}");
        }
    }

    #[test]
    fn backend_is_host_or_provider() {
        assert_eq!(backend(env(&[])), "api.anthropic.com");
        for (url, host) in [
            ("http://127.0.0.1:99/v1", "127.0.0.1:99"),
            ("https://user:secret@proxy.example", "proxy.example"),
            ("proxy.example/x", "proxy.example"),
        ] {
            assert_eq!(backend(env(&[("ANTHROPIC_BASE_URL", url)])), host);
        }
        let vertex = [("CLAUDE_CODE_USE_VERTEX", "1"), ("ANTHROPIC_BASE_URL", "http://x")];
        assert_eq!(backend(env(&vertex)), "vertex");
        let bedrock = [("CLAUDE_CODE_USE_BEDROCK", "1"), ("AWS_REGION", "eu-west-1")];
        assert_eq!(backend(env(&bedrock)), "bedrock:eu-west-1");
        let proxy = [bedrock[0], bedrock[1], ("ANTHROPIC_BEDROCK_BASE_URL", "https://proxy.example/x")];
        assert_eq!(backend(env(&proxy)), "proxy.example");
    }

    #[test]
    fn ids_depend_on_key_and_credential() {
        let (one, two) = ([1; KEY_BYTES], [2; KEY_BYTES]);
        assert_eq!(id(&one, "a").len(), 16);
        assert_eq!(id(&one, "a"), id(&one, "a\n"), "a file may end with a line feed");
        assert_ne!(id(&one, "a"), id(&one, "b"));
        assert_ne!(id(&one, "a"), id(&two, "a"));
        let [bare, here, there] = ["", "here", "there"].map(|backend| at_backend(&one, [7; 8], backend));
        assert_eq!(bare, [7; 8]);
        assert!(here != bare && here != there && here != at_backend(&two, [7; 8], "here"));
    }
}
