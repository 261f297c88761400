//! Pull and merge requests at each forge: opened, found again, updated, and what happens when a forge refuses, limits or fails. Over
//! HTTP, at the forges of the test kit.

mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use rota_forge::{
    AppKey, AppTokens, Error, Forge, Opened, Pages, Provider, Repository, Settings, TokenSource, Wanted,
};
use rota_testkit::forge::{self, App, Check, Comment, Fault, Forge as Fake, Kind, Method};
use secrecy::SecretString;

const TOKEN: &str = "tok-of-the-forge";
/// Longer than any wait that a test asks for.
const RETRY_FOR: Duration = Duration::from_secs(60);
const KINDS: [(Kind, Provider); 3] =
    [(Kind::GitHub, Provider::GitHub), (Kind::GitLab, Provider::GitLab), (Kind::Gitea, Provider::Gitea)];

/// A secret that is read for the first time, and again after it was refused.
#[derive(Debug, Default)]
struct Rotated {
    reads: AtomicUsize,
}

#[async_trait]
impl TokenSource for Rotated {
    async fn token(&self, refused: bool) -> Result<SecretString, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(if refused { format!("user:{TOKEN}").into() } else { "expired".to_owned().into() })
    }
}

fn repository(provider: Provider, api: &str) -> Result<Repository> {
    Repository::of("https://git.example/team/project.git", Some(provider), Some(api))
        .map_err(anyhow::Error::msg)
}

fn client(provider: Provider, fake: &Fake) -> Result<Forge> {
    let token: Arc<dyn TokenSource> = Arc::new(SecretString::from(TOKEN.to_owned()));
    Ok(Forge::new(repository(provider, &fake.api())?, token, &Settings::default(), RETRY_FOR)?)
}

fn wanted(title: &str) -> Wanted {
    Wanted {
        branch: "rota/t1".to_owned(),
        title: title.to_owned(),
        body: format!("{title} in detail"),
        draft: true,
        labels: vec!["agents".to_owned()],
        reviewers: vec!["ada".to_owned()],
        ..Wanted::default()
    }
}

fn posts(fake: &Fake) -> usize {
    let opens = |call: &&String| {
        let path = call.split(' ').nth(1).unwrap_or_default();
        call.starts_with("POST") && (path.ends_with("/pulls") || path.ends_with("/merge_requests"))
    };
    fake.calls().iter().filter(opens).count()
}

#[tokio::test]
async fn second_delivery_updates_the_open_request() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        // Others come first, on other pages, and one has the same branch in a fork.
        fake.set_page(1);
        for of_fork in [false, true] {
            let branch = if of_fork { "rota/t1" } else { "feature" }.to_owned();
            fake.open(forge::Opened { branch, of_fork, ..Default::default() });
        }
        let client = client(provider, &fake)?;
        let first = client.deliver(&wanted("First")).await?;
        let Opened { number, url, base, created, missing } = first;
        assert_eq!((number, base.as_str(), created, missing.len()), (3, "main", true, 0), "{kind:?}");
        assert!(url.ends_with("/3"), "{url}");
        let second =
            client.deliver(&Wanted { base: "next".to_owned(), retitle: true, ..wanted("Second") }).await?;
        assert_eq!((second.number, second.base.as_str(), second.created), (3, "next", false), "{kind:?}");
        assert_eq!((posts(&fake), fake.requests().len()), (1, 3), "{kind:?}");
        let open = fake.requests().remove(2);
        assert!(open.title.ends_with("Second"), "{kind:?} {}", open.title);
        assert_eq!((open.body.as_str(), open.base.as_str()), ("Second in detail", "next"), "{kind:?}");
        assert_eq!((open.labels, open.reviewers), (vec!["agents".to_owned()], vec!["ada".to_owned()]));
        let is_draft = open.draft || open.title.starts_with("Draft: ") || open.title.starts_with("WIP: ");
        assert!(is_draft, "{kind:?}");
    }
    Ok(())
}

/// What a person has made of it stays so.
#[tokio::test]
async fn ready_requests_stay_ready() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        fake.open(forge::Opened {
            branch: "rota/t1".to_owned(),
            title: "Ready".to_owned(),
            base: "main".to_owned(),
            ..Default::default()
        });
        for (retitle, title) in [(false, "Ready"), (true, "Again")] {
            assert!(!client(provider, &fake)?.deliver(&Wanted { retitle, ..wanted("Again") }).await?.created);
            let open = fake.requests().remove(0);
            assert_eq!((open.title.as_str(), open.draft), (title, false), "{kind:?}");
            assert_eq!(open.body, "Again in detail");
        }
    }
    Ok(())
}

#[tokio::test]
async fn request_that_exists_already_is_found() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        let client = client(provider, &fake)?;
        // The answer to the first call is lost, and the call is repeated.
        fake.fault(Method::POST, Fault::Lost);
        let first = client.deliver(&wanted("First")).await?;
        assert_eq!((first.number, first.created, posts(&fake)), (1, false, 2), "{kind:?}");
        // The list is of a moment before.
        fake.fault(Method::GET, Fault::ListsNone);
        let second = client.deliver(&wanted("Second")).await?;
        assert_eq!((second.number, second.created), (1, false), "{kind:?}");
        assert_eq!(fake.requests().len(), 1, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn refused_tokens_are_read_again() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        let tokens = Arc::new(Rotated::default());
        let source: Arc<dyn TokenSource> = Arc::clone(&tokens) as _;
        let client = Forge::new(repository(provider, &fake.api())?, source, &Settings::default(), RETRY_FOR)?;
        client.deliver(&wanted("First")).await?;
        assert!(tokens.reads.load(Ordering::Relaxed) > 1);
        // Twice in a row it is wrong.
        fake.set_token("another");
        let failed = client.deliver(&wanted("Second")).await.unwrap_err();
        assert!(
            matches!(&failed, Error::Credentials(text) if text.contains("Bad credentials")),
            "{failed:?}"
        );
        assert!(!format!("{failed:?}").contains(TOKEN));
    }
    Ok(())
}

/// Also where the text is cut.
#[tokio::test]
async fn repeated_tokens_are_redacted() -> Result<()> {
    let fake = Fake::start(Kind::Gitea, TOKEN).await?;
    let client = client(Provider::Gitea, &fake)?;
    for before in (0..1030).step_by(10) {
        fake.fault(Method::GET, Fault::Forbids(format!("{}token {TOKEN}", "x".repeat(before))));
        let failed = client.deliver(&wanted("First")).await.unwrap_err().to_string();
        assert!(failed.contains("403") && !failed.contains(&TOKEN[..6]), "{failed}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_are_waited_for_if_they_are_short() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        for (method, fault) in [
            (Method::GET, Fault::Limited(0)),
            (Method::GET, Fault::LimitedUntilNow),
            (Method::POST, Fault::Limited(1)),
            (Method::POST, Fault::Fails),
        ] {
            fake.fault(method, fault);
        }
        let client = client(provider, &fake)?;
        assert!(client.deliver(&wanted("First")).await?.created, "{kind:?}");
        assert_eq!(fake.requests().len(), 1);
        // Hours are not waited for, and the forge is not called meanwhile.
        fake.fault(Method::GET, Fault::Limited(u64::MAX));
        let before = fake.calls().len();
        let failed = client.deliver(&wanted("Second")).await.unwrap_err();
        assert!(
            matches!(&failed, Error::Away(text, Some(_)) if text.contains("rate limit")),
            "{kind:?} {failed:?}"
        );
        assert_eq!(fake.calls().len(), before + 1, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn tokens_stay_with_their_host() -> Result<()> {
    for (kind, provider) in KINDS {
        let (fake, other) = (Fake::start(kind, TOKEN).await?, Fake::start(kind, TOKEN).await?);
        for method in [Method::GET, Method::POST] {
            fake.fault(method.clone(), Fault::MovedTo(other.api()));
            let failed = client(provider, &fake)?.deliver(&wanted("First")).await.unwrap_err();
            assert!(failed.to_string().contains("another host"), "{kind:?} {method} {failed:?}");
        }
        assert!(other.authorizations().is_empty(), "{kind:?}");
        // Within the host it is followed.
        let path = match kind {
            Kind::GitHub => "repos/team/project/pulls",
            Kind::GitLab => "projects/team%2Fproject/merge_requests",
            Kind::Gitea => "repos/team/project/pulls",
        };
        let api = fake.api();
        fake.fault(Method::POST, Fault::MovedTo(format!("{}/{path}", api.trim_end_matches('/'))));
        assert!(client(provider, &fake)?.deliver(&wanted("First")).await?.created, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn strange_answers_are_bounded() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        fake.fault(Method::GET, Fault::Large(9 << 20));
        let failed = client(provider, &fake)?.deliver(&wanted("First")).await.unwrap_err();
        assert!(failed.to_string().contains("more than"), "{kind:?} {failed:?}");
        let missing = Wanted { base: "missing".to_owned(), ..wanted("First") };
        let failed = client(provider, &fake)?.deliver(&missing).await.unwrap_err();
        assert!(matches!(&failed, Error::Refused(_)), "{kind:?} {failed:?}");
        // It is open all the same.
        let reviewers = vec!["unknown".to_owned()];
        let labels = vec!["unheard-of".to_owned()];
        let opened =
            client(provider, &fake)?.deliver(&Wanted { reviewers, labels, ..wanted("First") }).await?;
        assert!(
            opened.created && opened.missing.iter().any(|text| text.starts_with("reviewers")),
            "{opened:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn apps_make_tokens_that_are_kept() -> Result<()> {
    let fake = Fake::start(Kind::GitHub, "none").await?;
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let app = App::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    })?;
    let secret = app.secret(&fake.api());
    fake.install(app);
    let key = AppKey::parse(&secret).unwrap().unwrap();
    let tokens: Arc<dyn TokenSource> =
        Arc::new(AppTokens::new(key, "https://git.example/team/project.git", &Settings::default())?);
    let client = Forge::new(
        repository(Provider::GitHub, &fake.api())?,
        Arc::clone(&tokens),
        &Settings::default(),
        RETRY_FOR,
    )?;
    client.deliver(&wanted("First")).await?;
    assert_eq!(made.load(Ordering::Relaxed), 1);
    // One that is refused is not used again.
    fake.fault(Method::GET, Fault::Unauthorized);
    client.deliver(&wanted("Second")).await?;
    assert_eq!((made.load(Ordering::Relaxed), fake.requests().len()), (2, 1));
    assert!(fake.authorizations().iter().any(|value| value == "Bearer ghs_2"));
    // Forbidden for now, and not for good.
    for fault in [Fault::Limited(7200), Fault::LimitedUntilNow] {
        fake.fault(Method::POST, fault);
        let limited = tokens.token(true).await.unwrap_err();
        assert!(matches!(&limited, Error::Away(_, Some(_))), "{limited:?}");
    }
    let stranger = App::new(|_| ())?.secret(&fake.api());
    let key = AppKey::parse(&stranger).unwrap().unwrap();
    let refused = AppTokens::new(key, "https://git.example/team/project.git", &Settings::default())?;
    let failed = refused.token(false).await.unwrap_err();
    assert!(matches!(&failed, Error::Credentials(text) if text.contains("4711")), "{failed:?}");
    Ok(())
}

#[test]
fn keys_of_apps_are_no_tokens() {
    assert!(AppKey::parse("ghp_token").is_none());
    let wrong = AppKey::parse(r#"{"appId": 1, "privateKey": "secret"}"#).unwrap().unwrap_err();
    assert!(wrong.contains("installationId") && !wrong.contains("secret"), "{wrong}");
    assert!(AppKey::parse(r#"{"appId": "1/..", "installationId": 2, "privateKey": "x"}"#).unwrap().is_err());
}

/// What becomes of a request is read, and read again only where it has changed.
#[tokio::test]
async fn reviews_are_read_where_they_have_changed() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        let client = client(provider, &fake)?;
        let number = client.deliver(&wanted("Fix")).await?.number;
        let check = |name: &str, state: &str| Check {
            name: name.to_owned(),
            state: state.to_owned(),
            text: "2 failed".to_owned(),
        };
        let comment = |author: &str, at: i64, path: &str| Comment {
            author: author.to_owned(),
            text: format!("by {author}"),
            at,
            path: path.to_owned(),
        };
        fake.change(1, |opened| {
            opened.commit = "c0ffee".to_owned();
            opened.checks =
                vec![check("lint", "success"), check("test", "failure"), check("slow", "pending")];
            opened.comments = vec![
                comment("ada", 1000, ""),
                comment("mallory", 3000, ""),
                comment("grace", 2000, "src/a.rs"),
            ];
        });
        let mut pages = Pages::default();
        let review = client.review(number, 1500, &mut pages).await?;
        assert!(review.open && review.own && review.pending, "{review:?}");
        assert_eq!((review.branch.as_str(), review.commit.as_str()), ("rota/t1", "c0ffee"), "{kind:?}");
        let [failed] = &review.failed[..] else { panic!("{review:?}") };
        assert!(failed.name == "test" && failed.text.contains("2 failed"), "{failed:?}");
        let [grace, mallory] = &review.comments[..] else { panic!("{review:?}") };
        assert!(
            grace.author == "grace" && grace.place.starts_with("src/a.rs") && mallory.at == 3000,
            "{review:?}"
        );
        assert!(client.may_write(grace).await? && !client.may_write(mallory).await?);

        let before = fake.calls().len();
        assert_eq!(client.review(number, 1500, &mut pages).await?, review);
        let again = fake.calls().split_off(before);
        assert!(!again.is_empty() && again.iter().all(|call| call.ends_with(" 304")), "{again:?}");
        fake.change(1, |opened| opened.closed = true);
        assert!(!client.review(number, 1500, &mut pages).await?.open);
    }
    Ok(())
}

/// Neither strangers nor the number of checks hide what matters, and what the author writes is no review.
#[tokio::test]
async fn long_lists_are_read_from_both_ends() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        let client = client(provider, &fake)?;
        let number = client.deliver(&wanted("Fix")).await?.number;
        fake.set_page(2);
        let check = |name: &str, state: &str| Check {
            name: name.to_owned(),
            state: state.to_owned(),
            ..Check::default()
        };
        let comment = |author: &str, at: i64| Comment {
            author: author.to_owned(),
            text: format!("by {author}"),
            at,
            ..Comment::default()
        };
        fake.change(1, |opened| {
            (opened.commit, opened.author) = ("c0ffee".to_owned(), "grace".to_owned());
            opened.checks = vec![check("lint", "success"); 8];
            opened.checks.push(check("test", "failure"));
            opened.comments = (0..40).map(|at| comment("mallory", at)).collect();
            opened.comments.extend([comment("ada", 50), comment("grace", 51), comment(forge::HIDDEN, 52)]);
        });
        let mut pages = Pages::default();
        let review = client.review(number, 0, &mut pages).await?;
        assert!(!review.pending && review.failed.len() == 1, "{kind:?} {review:?}");
        let [.., ada, hidden] = &review.comments[..] else { panic!("{review:?}") };
        assert_eq!((ada.author.as_str(), review.comments[0].at), ("ada", 0), "{kind:?}");
        let refused = client.may_write(hidden).await.unwrap_err();
        assert!(matches!(refused, Error::Credentials(_)), "{kind:?} {refused:?}");

        let before = fake.calls().len();
        assert_eq!(client.review(number, 0, &mut pages).await?, review);
        let again = fake.calls().split_off(before);
        assert!(!again.is_empty() && again.iter().all(|call| call.ends_with(" 304")), "{again:?}");
        fake.change(1, |opened| opened.checks = vec![check("lint", "success"); 21]);
        let review = client.review(number, 0, &mut Pages::default()).await?;
        assert!(review.pending, "{kind:?}: some are not known");

        // A page that is full does not change when another one follows it.
        fake.set_page(100);
        fake.change(1, |opened| opened.comments = vec![comment("mallory", 1); 100]);
        let mut pages = Pages::default();
        assert_eq!(client.review(number, 0, &mut pages).await?.comments.len(), 100, "{kind:?}");
        fake.change(1, |opened| opened.comments.push(comment("ada", 2)));
        assert_eq!(client.review(number, 0, &mut pages).await?.comments.len(), 101, "{kind:?}");
    }
    Ok(())
}
