//! Looks at requests of a forge of the test kit: what is decided, and which requests are followed.

use rota_core::target::Target;
use rota_core::{AgentName, Namespace, Timestamp};
use rota_testkit::forge::{self, Kind, Opened};
use uuid::Uuid;

use super::super::settings::Follow;
use super::super::{MAX_WATCHED, Requests};
use super::*;

const TOKEN: &str = "tok-of-the-control-plane";
const BRANCH: &str = "rota/t";
const COMMIT: &str = "c0de";

fn watched(number: i64, created_at: Timestamp) -> Watched {
    let (namespace, agent) = (Namespace::new("n").unwrap(), AgentName::new("a").unwrap());
    let task = Task::new(TaskId(Uuid::from_u128(1)), namespace, Target::Agent(agent));
    Watched {
        task: Task { created_at, ..task },
        repository: 0,
        number,
        branch: BRANCH.to_owned(),
        commit: COMMIT.to_owned(),
        count: 0,
        since: 0,
        pages: Pages::default(),
        writers: HashMap::new(),
        looked: None,
    }
}

/// What a look decides: for a message, what it has and has not, and whether comments are part of it.
enum Expected {
    Wait,
    Forget,
    Asks(&'static [&'static str], &'static [&'static str], bool),
}

struct Case {
    name: &'static str,
    /// Lines in the settings of the repository.
    settings: &'static str,
    quiet: i64,
    /// Tasks that were continued for the request.
    count: u32,
    /// What has become of the request, at this time in seconds.
    change: fn(&mut Opened, i64),
    expected: Expected,
}

const CASE: Case =
    Case { name: "", settings: "", quiet: 0, count: 0, change: |_, _| (), expected: Expected::Wait };

fn check(opened: &mut Opened, name: &str, state: &str) {
    let text = format!("text of {name}");
    opened.checks.push(forge::Check { name: name.to_owned(), state: state.to_owned(), text });
}

fn comment(opened: &mut Opened, author: &str, at: i64) {
    let text = format!("from {author}");
    let (author, path) = (author.to_owned(), String::new());
    opened.comments.push(forge::Comment { author, text, at, path });
}

fn fails(opened: &mut Opened, _: i64) {
    check(opened, "unit", "failure");
}

fn comments(opened: &mut Opened, now: i64) {
    comment(opened, "mallory", now - 100);
    comment(opened, "ada", now - 90);
}

const CASES: &[Case] = &[
    Case { name: "nothing is new", ..CASE },
    Case {
        name: "closed",
        change: |opened, now| {
            fails(opened, now);
            opened.closed = true;
        },
        expected: Expected::Forget,
        ..CASE
    },
    Case {
        name: "of a fork",
        change: |opened, now| {
            fails(opened, now);
            opened.of_fork = true;
        },
        expected: Expected::Forget,
        ..CASE
    },
    Case {
        name: "of another branch",
        change: |opened, now| {
            fails(opened, now);
            "other".clone_into(&mut opened.branch);
        },
        expected: Expected::Forget,
        ..CASE
    },
    Case {
        name: "another account has pushed",
        change: |opened, now| {
            fails(opened, now);
            comments(opened, now);
            "foreign".clone_into(&mut opened.commit);
        },
        ..CASE
    },
    Case {
        name: "a check fails",
        change: fails,
        expected: Expected::Asks(&["check unit"], &[], false),
        ..CASE
    },
    Case { name: "checks are left alone", settings: "checks = false", change: fails, ..CASE },
    Case {
        name: "another check runs",
        change: |opened, now| {
            fails(opened, now);
            check(opened, "slow", "pending");
        },
        ..CASE
    },
    Case { name: "a check passes", change: |opened, _| check(opened, "unit", "success"), ..CASE },
    Case {
        name: "comments while a check runs",
        change: |opened, now| {
            fails(opened, now);
            check(opened, "slow", "pending");
            comments(opened, now);
        },
        expected: Expected::Asks(&["from ada"], &["unit"], true),
        ..CASE
    },
    Case {
        name: "comments of writers",
        change: comments,
        expected: Expected::Asks(&["from ada"], &["mallory"], true),
        ..CASE
    },
    Case {
        name: "comments of all",
        settings: "comments = \"all\"",
        change: comments,
        expected: Expected::Asks(&["from ada", "from mallory"], &[], true),
        ..CASE
    },
    Case { name: "comments of none", settings: "comments = \"none\"", change: comments, ..CASE },
    Case {
        name: "checks without comments",
        settings: "comments = \"none\"",
        change: |opened, now| {
            fails(opened, now);
            comments(opened, now);
        },
        expected: Expected::Asks(&["check unit"], &["from ada"], false),
        ..CASE
    },
    Case { name: "only others write", change: |opened, now| comment(opened, "mallory", now), ..CASE },
    Case { name: "its own account writes", change: |opened, now| comment(opened, "grace", now), ..CASE },
    Case { name: "considered before", change: |opened, now| comment(opened, "ada", now - 7201), ..CASE },
    Case { name: "the last comment is new", quiet: 3600, change: comments, ..CASE },
    Case {
        name: "the last comment is old enough",
        quiet: 60,
        change: comments,
        expected: Expected::Asks(&["from ada"], &[], true),
        ..CASE
    },
    Case {
        name: "checks do not write",
        quiet: 3600,
        change: fails,
        expected: Expected::Asks(&["check unit"], &[], false),
        ..CASE
    },
    Case {
        name: "continued once",
        count: 1,
        change: fails,
        expected: Expected::Asks(&["unit"], &[], false),
        ..CASE
    },
    Case { name: "continued often enough", count: 2, change: fails, expected: Expected::Forget, ..CASE },
];

#[tokio::test]
async fn looks_decide_by_state_and_settings() {
    for case in CASES {
        let forge = forge::Forge::start(Kind::GitHub, TOKEN).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let text = format!(
            "[[repository]]\nnamespace = \"n\"\nurl = \"https://forge.example/team/project\"\nprovider = \"github\"\n\
             api_url = {:?}\ntoken_file = \"token\"\nmax_continuations = 2\n{}\n",
            forge.api(),
            case.settings,
        );
        std::fs::write(folder.path().join("follow.toml"), text).unwrap();
        let follow = Follow::load(&folder.path().join("follow.toml")).unwrap();
        let followed = &follow.repositories[0];

        let seconds = now().0 / 1_000_000;
        let mut opened = Opened {
            branch: BRANCH.to_owned(),
            commit: COMMIT.to_owned(),
            author: "grace".to_owned(),
            ..Opened::default()
        };
        (case.change)(&mut opened, seconds);
        forge.open(opened);
        let since = seconds - 7200;
        let mut watched = Watched { count: case.count, since, ..watched(1, Timestamp(0)) };
        let client = followed.forge().await.unwrap();
        let next = watched.look(followed, &client, case.quiet).await.unwrap();
        match (&next, &case.expected) {
            (Next::Wait, Expected::Wait) | (Next::Forget, Expected::Forget) => {}
            (Next::Continue(text, until), Expected::Asks(has, has_not, of_comments)) => {
                assert!(has.iter().all(|part| text.contains(part)), "{}: {text}", case.name);
                assert!(!has_not.iter().any(|part| text.contains(part)), "{}: {text}", case.name);
                let expected = if *of_comments { seconds - 89 } else { since };
                assert_eq!(*until, expected, "{}", case.name);
            }
            _ => panic!("{}: {next:?}", case.name),
        }
    }
}

#[test]
fn oldest_requests_make_room() {
    let mut requests = Requests::default();
    let last = i64::try_from(MAX_WATCHED).unwrap();
    for number in 0..=last {
        requests.add(watched(number, Timestamp(number)));
    }
    assert_eq!(requests.by_key.len(), MAX_WATCHED);
    assert!(!requests.by_key.contains_key(&(0, 0)) && requests.by_key.contains_key(&(0, last)));
    // A request is that of its newest task, in whatever order they are found.
    let of = |requests: &Requests| requests.by_key[&(0, last)].task.created_at;
    requests.add(watched(last, Timestamp(last + 1)));
    requests.add(watched(last, Timestamp(last - 1)));
    assert_eq!((of(&requests), requests.by_key.len()), (Timestamp(last + 1), MAX_WATCHED));
}
