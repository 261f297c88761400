//! Settings of an OIDC issuer.

use std::path::Path;

use super::{Settings, SettingsError};
use crate::options::Oidc;
use crate::trust::people::People;

/// `aud` claim that tokens must have unless `oidc_audience` is set.
pub(super) const DEFAULT_AUDIENCE: &str = "rota";

impl Settings {
    pub(super) fn people(&self) -> Result<Option<People>, SettingsError> {
        let base = self.base_path()?;
        let people = self.sign_in.as_deref().map(People::load).transpose()?;
        let page = people.as_ref().and_then(|people| people.sign_in.page.as_ref());
        match page.filter(|page| page.path().trim_end_matches('/') != base.as_str()) {
            Some(page) => {
                Err(SettingsError::OtherPage { url: page.to_string(), base: base.as_str().to_owned() })
            }
            None => Ok(people),
        }
    }

    /// Whether tokens of an issuer are accepted. Fails if those of people and of workers would be of the same one.
    pub(super) fn has_issuer(&self) -> Result<bool, SettingsError> {
        match (self.oidc()?, self.people()?) {
            (Some(oidc), Some(people)) if oidc.issuer == people.issuer() => {
                Err(SettingsError::SharedIssuer(oidc.issuer))
            }
            (oidc, people) => Ok(oidc.is_some() || people.is_some()),
        }
    }

    pub(super) fn oidc(&self) -> Result<Option<Oidc>, SettingsError> {
        let issuer = match (&self.oidc_issuer, &self.oidc_token_file) {
            (Some(issuer), _) => issuer.clone(),
            (None, Some(file)) => issuer_of(file)?,
            (None, None) => return self.check_no_oidc().map(|()| None),
        };
        for (key, url) in [("oidc_issuer", Some(&issuer)), ("oidc_jwks_url", self.oidc_jwks_url.as_ref())] {
            let Some(url) = url else { continue };
            Oidc::check_url(url).map_err(|problem| SettingsError::Url { key, url: url.clone(), problem })?;
        }
        let audience = self.oidc_audience.as_deref().unwrap_or(DEFAULT_AUDIENCE);
        for (key, value) in
            [("oidc_audience", Some(audience)), ("oidc_operator", self.oidc_operator.as_deref())]
        {
            if value.is_some_and(str::is_empty) {
                return Err(SettingsError::Empty(key));
            }
        }
        Ok(Some(Oidc {
            jwks_url: self.oidc_jwks_url.clone(),
            ca: self.oidc_ca.clone(),
            token_file: self.oidc_token_file.clone(),
            operator: self.oidc_operator.clone(),
            ..Oidc::new(issuer, audience)
        }))
    }

    /// Fails if a key is set that has no effect without an issuer.
    fn check_no_oidc(&self) -> Result<(), SettingsError> {
        let keys = [
            ("oidc_jwks_url", self.oidc_jwks_url.is_some()),
            ("oidc_ca", self.oidc_ca.is_some()),
            ("oidc_audience", self.oidc_audience.is_some()),
            ("oidc_operator", self.oidc_operator.is_some()),
        ];
        match keys.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => Err(SettingsError::NoIssuer(key)),
            None => Ok(()),
        }
    }
}

/// Returns the issuer of a token of our own: the same issuer gives tokens to our callers.
fn issuer_of(file: &Path) -> Result<String, SettingsError> {
    let token = std::fs::read_to_string(file)
        .map_err(|source| SettingsError::TokenFile { path: file.to_owned(), source })?;
    Oidc::issuer_of(&token).ok_or_else(|| SettingsError::NoIssuerInToken(file.to_owned()))
}
