//! Tests of the sessions of browsers, with times as arguments.

use futures::FutureExt;

use super::super::shared_tokens::Digests;
use super::*;

const LIMITS: SessionLimits =
    SessionLimits { idle: Duration::from_secs(3600), lifetime: Duration::from_secs(8 * 3600) };
const START: Timestamp = Timestamp(1_000_000_000_000);

fn sessions() -> BrowserSessions {
    let tokens = SharedTokens::default();
    tokens.set(Digests { admin: Some(digest(b"admin")), viewer: Some(digest(b"viewer")) });
    BrowserSessions::new(tokens, None, LIMITS)
}

/// Applies commands as a store does.
fn apply(sessions: &BrowserSessions, commands: Vec<Command>, now: Timestamp) {
    for command in commands {
        let (key, payload) = match command {
            Command::PutDocument(put) => (put.key, Some(put.payload)),
            Command::DeleteDocument(key, _) => (key, None),
            other => panic!("{other:?}"),
        };
        let known = key.name.parse().ok().and_then(|id| sessions.get(id));
        let document = Document {
            key,
            uid: Uuid::from_u128(1),
            version: known.as_ref().map_or(1, |known| known.document.version + 1),
            created_at: known.map_or(now, |known| known.created()),
            updated_at: now,
            payload: payload.clone().unwrap_or_default(),
        };
        sessions.apply(&DocumentChange { document: Arc::new(document), deleted: payload.is_none() });
    }
}

fn begin(sessions: &BrowserSessions, token: &[u8], now: Timestamp) -> (Uuid, String) {
    let new = sessions.begin(token, "browser", now).unwrap();
    apply(sessions, new.commands, now);
    (new.id, new.value)
}

fn why(found: Result<Arc<BrowserSession>, Status>) -> String {
    found.err().map(|status| status.message().to_owned()).unwrap_or_default()
}

#[test]
fn sessions_of_people_are_bounded_and_end_with_their_entry() {
    let dir = tempfile::tempdir().unwrap();
    let people = |subject: &str| {
        let path = dir.path().join("sign-in.toml");
        let head = "issuer = 'https://id.example'\nclient_id = 'rota'\n[[allow]]\nrole = 'developer'\n";
        std::fs::write(&path, format!("{head}subject = '{subject}'\n")).unwrap();
        Some(Arc::new(People::load(&path).unwrap()))
    };
    let known = BrowserSessions::new(SharedTokens::default(), people("ada"), LIMITS);
    let person = |subject: &str| Person {
        issuer: "https://id.example".to_owned(),
        subject: subject.to_owned(),
        name: subject.to_owned(),
        groups: Vec::new(),
    };
    assert!(known.begin_for(&person("eve"), None, "", START).is_none());
    let mut values = Vec::new();
    for at in 0..=MAX_PER_PERSON {
        let now = START + Duration::from_secs(at as u64);
        let new = known.begin_for(&person("ada"), None, "browser", now).unwrap();
        apply(&known, new.commands, now);
        values.push(new.value);
    }
    assert_eq!(known.list(START).len(), MAX_PER_PERSON);
    assert!(known.find(&values[0], START).is_err());
    let last = known.find(&values[MAX_PER_PERSON], START).unwrap();
    assert_eq!((last.role(), last.person().unwrap().name.as_str()), (Role::Developer, "ada"));
    assert_eq!(last.ends(), last.created() + LIMITS.lifetime);
    // One of a token ends with it.
    let expires = START + Duration::from_secs(300);
    let of_token = known.begin_for(&person("ada"), Some(expires), "", START).unwrap();
    apply(&known, of_token.commands, START);
    assert_eq!(known.get(of_token.id).unwrap().expires(), expires);
    assert_eq!(why(known.find(&of_token.value, expires)), "the session has expired");
    let later = BrowserSessions::new(SharedTokens::default(), people("bob"), LIMITS);
    later.put(Arc::clone(&last.document));
    assert!(why(later.find(&values[MAX_PER_PERSON], START)).contains("not on the list"));
    assert!(later.list(START).is_empty());
}

#[test]
fn only_the_whole_cookie_is_a_session() {
    let sessions = sessions();
    assert!(sessions.begin(b"wrong", "", START).is_none());
    let (_, value) = begin(&sessions, b"admin", START);
    assert_eq!(sessions.find(&value, START).unwrap().role(), Role::Admin);
    let (_, of_viewer) = begin(&sessions, b"viewer", START);
    assert_eq!(sessions.find(&of_viewer, START).unwrap().role(), Role::Viewer);
    let mixed = format!("{}{}", &value[..PART], &of_viewer[PART..]);
    for wrong in
        ["", "x", &value[..PART], &value[..63], &format!("{value}0"), &mixed, "é".repeat(32).as_str()]
    {
        assert!(!why(sessions.find(wrong, START)).is_empty(), "{wrong}");
    }
}

#[test]
fn sessions_expire_unused_and_in_the_end() {
    let sessions = sessions();
    let (_, value) = begin(&sessions, b"admin", START);
    let hour = |hours: u64| START + Duration::from_secs(3600 * hours);
    assert_eq!(why(sessions.find(&value, hour(1))), "the session has expired");
    for used in 0..8 {
        let at = hour(used) + Duration::from_secs(1800);
        let session = sessions.find(&value, at - Duration::from_secs(1)).unwrap();
        // One that is used all the time costs a write now and then.
        assert!(session.record_use(at - Duration::from_secs(1)).is_some());
        assert!(session.record_use(at).is_none());
    }
    assert_eq!(why(sessions.find(&value, hour(8))), "the session has expired");
}

#[test]
fn last_use_outlives_a_restart() {
    let sessions = sessions();
    let (id, value) = begin(&sessions, b"admin", START);
    let later = START + Duration::from_secs(3000);
    let used = sessions.find(&value, later).unwrap().record_use(later).unwrap();
    apply(&sessions, vec![used], later);
    let document = Arc::clone(&sessions.get(id).unwrap().document);
    let restarted = self::sessions();
    restarted.apply(&DocumentChange { document, deleted: false });
    restarted.find(&value, START + Duration::from_secs(4000)).unwrap();
}

#[tokio::test]
async fn another_token_ends_the_sessions_of_a_role() {
    let sessions = sessions();
    let (id, admin) = begin(&sessions, b"admin", START);
    let (_, viewer) = begin(&sessions, b"viewer", START);
    let session = sessions.get(id).unwrap();
    let mut replaced = Box::pin(sessions.token_replaced(&session));
    sessions.tokens.set(Digests { viewer: None, ..sessions.tokens.get() });
    assert!((&mut replaced).now_or_never().is_none(), "the token of another role was replaced");
    sessions.tokens.set(Digests { admin: Some(digest(b"new")), viewer: Some(digest(b"viewer")) });
    replaced.await;
    assert_eq!(why(sessions.find(&admin, START)), "the token of the session was replaced");
    sessions.find(&viewer, START).unwrap();
    apply(&sessions, vec![BrowserSessions::end(id)], START);
    assert_eq!(why(sessions.find(&admin, START)), "the session was ended");
    session.ended().await;
}

#[test]
fn sessions_of_a_role_are_bounded() {
    let sessions = sessions();
    let (_, admin) = begin(&sessions, b"admin", START);
    let at = |index: usize| START + Duration::from_millis(index as u64);
    let viewers: Vec<_> = (0..=MAX_PER_TOKEN).map(|index| begin(&sessions, b"viewer", at(index)).1).collect();
    let now = at(MAX_PER_TOKEN);
    assert_eq!(sessions.list(now).len(), MAX_PER_TOKEN + 1);
    assert_eq!(why(sessions.find(&viewers[0], now)), "the session was ended");
    sessions.find(&viewers[1], now).unwrap();
    sessions.find(&admin, now).unwrap();
    // Also if there are too many.
    let many: Vec<_> = (0..10).filter_map(|_| sessions.begin(b"viewer", "", now)).collect();
    many.into_iter().for_each(|new| apply(&sessions, new.commands, now));
    assert_eq!(sessions.list(now).len(), MAX_PER_TOKEN + 10);
    begin(&sessions, b"viewer", now);
    assert_eq!(sessions.list(now).len(), MAX_PER_TOKEN + 1);
    // Those that have expired make room.
    let (_, last) = begin(&sessions, b"viewer", START + LIMITS.idle * 2);
    assert_eq!(sessions.known.read().len(), 1);
    sessions.find(&last, START + LIMITS.idle * 2).unwrap();
}

#[test]
fn subscriptions_end_with_their_session() {
    let known = sessions();
    let subscribe = |id: Uuid, since: i64| {
        let endpoint = "https://push.example/1".to_owned();
        let one = Subscription { endpoint, since, ..Subscription::default() };
        let commands = known.subscribe(id, one).unwrap();
        let count = commands.len();
        apply(&known, commands, START);
        count
    };
    let subscribed = |now: Timestamp| {
        let found = known.subscribed(&Namespace::default(), now);
        found.iter().map(|one| (one.id, one.subscription().unwrap().since)).collect::<Vec<_>>()
    };
    let ((one, _), (other, _)) = (begin(&known, b"admin", START), begin(&known, b"viewer", START));
    assert!(!known.has_subscriptions());
    assert_eq!(subscribe(one, 1), 1);
    assert_eq!((subscribe(one, 2), subscribed(START)), (0, vec![(one, 1)]), "the same again changes nothing");
    assert_eq!(subscribe(other, 3), 2);
    assert_eq!(subscribed(START), [(other, 3)], "a browser has one session");
    let later = START + LIMITS.idle / 2;
    let used = known.get(other).unwrap().record_use(later).unwrap();
    apply(&known, vec![used], later);
    assert_eq!(subscribed(START + LIMITS.idle), [(other, 3)], "use keeps it");
    assert_eq!(subscribed(later + LIMITS.idle), [], "the session has expired");
    apply(&known, vec![BrowserSessions::end(other)], later);
    assert!(!known.has_subscriptions());
}
