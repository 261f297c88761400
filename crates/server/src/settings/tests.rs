//! Settings that contradict each other.

use super::*;

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[test]
fn every_address_requires_authentication() {
    for listen in [[0, 0, 0, 0], [127, 0, 0, 1]] {
        let open = settings(|settings| settings.listen = (listen, 0).into());
        let error = open.validate().unwrap_err();
        assert!(matches!(error, SettingsError::Unauthenticated(_)) && error.hint().is_some());
        assert!(Settings { insecure: true, ..open.clone() }.validate().is_ok());
        assert!(Settings { token_file: Some("token".into()), ..open.clone() }.validate().is_ok());
        let viewers = Some("viewers".into());
        let alone = Settings { insecure: true, viewer_token_file: viewers, ..open };
        assert!(matches!(alone.validate(), Err(SettingsError::ViewersAlone)));
    }
}

#[test]
fn origins_are_those_that_browsers_send() {
    let with = |origin: &str| {
        settings(|s| (s.token_file, s.cors_origin) = (Some("token".into()), vec![origin.to_owned()]))
    };
    for origin in ["https://app.example", "http://localhost:3000", "https://app.example:8443"] {
        assert_eq!(with(origin).cors_origins().unwrap(), [origin], "{origin}");
    }
    for other in ["*", "null", "app.example", "https://app.example/", "https://App.example", ""] {
        assert!(matches!(with(other).validate(), Err(SettingsError::Origin(_))), "{other}");
    }
    assert!(matches!(with("https://a.example:443").validate(), Err(SettingsError::Origin(_))));
    let open = Settings { token_file: None, insecure: true, ..with("https://app.example") };
    assert!(matches!(open.validate(), Err(SettingsError::OriginsAlone)));
}

#[test]
fn people_sign_in_at_the_page_of_the_base_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sign-in.toml");
    let with = |url: &str, base: Option<&str>| {
        let url = if url.is_empty() { String::new() } else { format!("url = '{url}'\n") };
        let allow = "[[allow]]\nsubject = 'ada'\nrole = 'admin'\n";
        std::fs::write(&file, format!("issuer = 'https://id.example'\nclient_id = 'rota'\n{url}{allow}"))
            .unwrap();
        settings(|s| (s.sign_in, s.base_path) = (Some(file.clone()), base.map(str::to_owned))).validate()
    };
    for (url, base) in [
        ("https://rota.example", None),
        ("https://rota.example/", Some("/")),
        ("https://rota.example/team/rota", Some("/team/rota")),
        ("https://rota.example/team/rota/", Some("/team/rota")),
        ("", Some("/team/rota")),
    ] {
        with(url, base).unwrap();
    }
    for (url, base) in [
        ("https://rota.example/rota", None),
        ("https://rota.example", Some("/rota")),
        ("https://rota.example/rota/x", Some("/rota")),
    ] {
        assert!(matches!(with(url, base), Err(SettingsError::OtherPage { .. })), "{url} {base:?}");
    }
    assert!(matches!(with("", Some("rota")), Err(SettingsError::BasePath(_))));
}

#[test]
fn oidc_keys_require_an_issuer() {
    let alone = settings(|s| s.oidc_operator = Some("operator".into()));
    let error = alone.validate().unwrap_err().to_string();
    assert_eq!(error, "oidc_operator requires oidc_issuer or oidc_token_file");
    let complete = settings(|s| {
        s.oidc_operator = Some("operator".into());
        s.oidc_issuer = Some("https://issuer.example".into());
    });
    assert_eq!(complete.oidc().unwrap().unwrap().audiences, [oidc::DEFAULT_AUDIENCE]);
}
