//! Tests of the precedence of sources.

use secrecy::ExposeSecret;

use super::*;

fn token(found: &Found) -> String {
    match &found.options.token {
        Token::None => "none".into(),
        Token::Fixed(token) => token.expose_secret().to_owned(),
        Token::File(path) => path.display().to_string(),
        Token::Renewed(token) => token.borrow().expose_secret().to_owned(),
    }
}

fn dev() -> DevEndpoint {
    let (endpoint, token_file) = ("http://127.0.0.1:9".into(), "/dev-token".into());
    DevEndpoint { endpoint, token_file, pid: 1, started: String::new() }
}

fn config() -> Config {
    Config {
        endpoint: Some("https://rota.example".into()),
        token_file: Some("/config-token".into()),
        namespace: Some("team".into()),
        ..Config::default()
    }
}

#[test]
fn sources_apply_by_precedence() {
    let flags = Flags { endpoint: Some("f.example".into()), ..Flags::default() };
    let environment = DiscoveryInputs {
        endpoint: Some("e.example".into()),
        token: Some("t".into()),
        ..DiscoveryInputs::default()
    };
    let none = Flags::default;
    let found = merge(&flags, environment.clone(), None, config(), Some(dev())).unwrap();
    assert_eq!((found.options.endpoint.as_str(), found.origin), ("https://f.example", Origin::Flag));
    let found = merge(&none(), environment, None, config(), Some(dev())).unwrap();
    assert_eq!((token(&found).as_str(), found.origin), ("t", Origin::Environment));
    let found = merge(&none(), DiscoveryInputs::default(), None, config(), Some(dev())).unwrap();
    assert_eq!((token(&found).as_str(), found.origin), ("/config-token", Origin::Config));
    assert_eq!(found.namespace, "team");
    let found = merge(&none(), DiscoveryInputs::default(), None, Config::default(), Some(dev())).unwrap();
    assert_eq!((token(&found).as_str(), found.origin), ("/dev-token", Origin::Dev));
    let found = merge(&none(), DiscoveryInputs::default(), None, Config::default(), None).unwrap();
    assert_eq!((found.options.endpoint.as_str(), found.origin), (DEFAULT_ENDPOINT, Origin::Default));
    assert_eq!((found.namespace.as_str(), token(&found).as_str()), ("default", "none"));
}

#[test]
fn token_is_sent_only_to_its_server() {
    let to = |endpoint: &str| Flags { endpoint: Some(endpoint.into()), ..Flags::default() };
    let token =
        |flags: Flags, dev| token(&merge(&flags, DiscoveryInputs::default(), None, config(), dev).unwrap());
    assert_eq!(token(to("https://elsewhere.example"), Some(dev())), "none");
    assert_eq!(token(to("rota.example"), Some(dev())), "/config-token");
    assert_eq!(token(to("127.0.0.1:9"), Some(dev())), "/dev-token");
}

fn selected(by_flag: bool) -> Option<Selected> {
    let context = ServerContext {
        endpoint: "https://team.example".into(),
        token: Some("context-token".into()),
        namespace: Some("squad".into()),
        ..ServerContext::default()
    };
    Some(Selected { name: "team".into(), context, by_flag })
}

#[test]
fn context_comes_between_environment_and_config() {
    let find = |flags: Flags, environment: DiscoveryInputs, by_flag| {
        let found = merge(&flags, environment, selected(by_flag), config(), Some(dev())).unwrap();
        let used = found.context.as_deref().unwrap_or("no context");
        [found.options.endpoint.as_str(), &token(&found), &found.namespace, used].map(str::to_owned)
    };
    let context = ["https://team.example", "context-token", "squad", "team"];
    let (flags, environment) = (Flags::default, DiscoveryInputs::default);
    assert_eq!(find(flags(), environment(), false), context);
    let variables = || DiscoveryInputs {
        endpoint: Some("e.example".into()),
        token: Some("t".into()),
        namespace: Some("own".into()),
        ..DiscoveryInputs::default()
    };
    assert_eq!(find(flags(), variables(), false), ["https://e.example", "t", "own", "no context"]);
    assert_eq!(find(flags(), variables(), true), context);
    let single = DiscoveryInputs { endpoint: None, ..variables() };
    assert_eq!(find(flags(), single, false), ["https://team.example", "t", "own", "team"]);
    let elsewhere = Flags { endpoint: Some("other.example".into()), ..flags() };
    assert_eq!(
        find(elsewhere, environment(), false),
        ["https://other.example", "none", "team", "no context"]
    );
    let namespace = Flags { namespace: Some("flag".into()), token_file: Some("/flag".into()), ..flags() };
    assert_eq!(find(namespace, environment(), true), ["https://team.example", "/flag", "flag", "team"]);
}

#[test]
fn cluster_gets_no_values_of_other_servers() {
    let flags = Flags { endpoint: Some("kube://-/rota".into()), ..Flags::default() };
    let environment = DiscoveryInputs {
        token: Some("of another".into()),
        ca: Some("/nowhere".into()),
        ..DiscoveryInputs::default()
    };
    let config = Config { endpoint: None, ..config() };
    let find = |flags: &Flags, environment: &DiscoveryInputs| {
        merge(flags, environment.clone(), selected(false), config.clone(), Some(dev())).unwrap()
    };
    let found = find(&flags, &environment);
    assert_eq!((found.options.endpoint.as_str(), found.options.ca.as_ref()), ("kube://-/rota", None));
    assert_eq!((token(&found).as_str(), found.namespace_given), ("none", false));
    let namespace = DiscoveryInputs { namespace: Some("own".into()), ..environment };
    assert!(find(&flags, &namespace).namespace_given);
    let given = Flags { token_file: Some("/flag".into()), ..flags };
    assert_eq!(token(&find(&given, &namespace)), "/flag");
    // Nor does the context that is current.
    let mut current = selected(false);
    let context = &mut current.as_mut().unwrap().context;
    (context.endpoint, context.token) = ("kube://-/rota".to_owned(), None);
    let found = merge(&Flags::default(), namespace, current, config.clone(), Some(dev())).unwrap();
    assert_eq!((token(&found).as_str(), found.options.ca, found.namespace.as_str()), ("none", None, "own"));
}

#[test]
fn context_without_a_token_is_called_without_one() {
    let mut bare = selected(true);
    let context = &mut bare.as_mut().unwrap().context;
    (context.token, context.namespace) = (None, None);
    let environment = DiscoveryInputs {
        token: Some("of another".into()),
        ca: Some("/nowhere".into()),
        namespace: Some("own".into()),
        ..DiscoveryInputs::default()
    };
    let config = Config { endpoint: None, ..config() };
    let found = merge(&Flags::default(), environment, bare, config, None).unwrap();
    assert_eq!((token(&found).as_str(), found.namespace.as_str()), ("none", "own"));
}

#[test]
fn missing_ca_file_is_an_error() {
    let flags = Flags { ca: Some("/nowhere/ca.pem".into()), ..Flags::default() };
    assert!(matches!(
        merge(&flags, DiscoveryInputs::default(), None, Config::default(), None),
        Err(Error::Read { .. })
    ));
}
