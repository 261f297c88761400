//! Full-text index: what is found, in which order, and how changes of it are made. The words themselves are tested where they are made.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_core::TaskKey;

use super::harness::{Harness, namespace};
use crate::search::{IndexUpdate, IndexedTask, SearchQuery, query_words};

const SEEDS: u64 = 10;
/// Words of which some begin with others, with letters beyond ASCII, and such that mean something in a query language.
const WORDS: [&str; 12] =
    ["fix", "fixes", "fixed", "fi", "größe", "größer", "日本", "or", "and", "near", "x1", "not"];

fn indexed(key: u64, space: &str, text: &str) -> IndexedTask {
    IndexedTask::new(TaskKey(key), &namespace(space), [text])
}

fn query(text: &str) -> SearchQuery {
    SearchQuery { words: query_words(text), limit: 100, ..SearchQuery::default() }
}

async fn found(t: &Harness, query: SearchQuery) -> Vec<u64> {
    t.store.search(query).await.unwrap().into_iter().map(|key| key.0).collect()
}

async fn update(t: &Harness, after: Option<u64>, through: u64, tasks: Vec<IndexedTask>) -> bool {
    let update = IndexUpdate { after, through, tasks, removed: Vec::new() };
    t.store.update_index(update).await.unwrap()
}

pub async fn all_words_are_found_newest_first(t: &mut Harness) {
    assert_eq!(t.store.indexed_revision().await.unwrap(), None);
    assert_eq!(found(t, query("fix")).await, [0; 0]);
    let tasks = vec![
        indexed(1, "n", "Fix the parser's tests"),
        indexed(2, "n", "fixes: src/parser.rs"),
        indexed(3, "m", "fix the PARSER, (\"quoted\") AND 'that' is all \u{0}"),
        indexed(u64::from(u32::MAX), "a.b-c", "größer \\ 日本"),
    ];
    assert!(update(t, None, 10, tasks).await);
    assert_eq!(t.store.indexed_revision().await.unwrap(), Some(10));
    let cases: [(&str, &[u64]); 12] = [
        ("fix parser", &[3, 2, 1]),
        ("fixes", &[2]),
        ("PARSER rs", &[2]),
        ("parser and", &[3]),
        ("quoted", &[3]),
        ("Größe", &[4_294_967_295]),
        ("日本", &[4_294_967_295]),
        ("fix missing", &[]),
        // Nothing of these is a query language.
        ("\"fix", &[3, 2, 1]),
        ("fix* OR", &[]),
        ("-fix", &[3, 2, 1]),
        ("'|!&:*() fix", &[3, 2, 1]),
    ];
    for (text, wanted) in cases {
        assert_eq!(found(t, query(text)).await, wanted, "{text}");
    }
    let of = |space: &str| SearchQuery { namespace: Some(namespace(space)), ..query("fix") };
    assert_eq!(found(t, of("n")).await, [2, 1]);
    assert_eq!(found(t, of("m")).await, [3]);
    for other in ["none", "a.b", "a", "a.b-c"] {
        assert_eq!(found(t, of(other)).await, [0; 0]);
    }
    let other = SearchQuery { namespace: Some(namespace("a.b-c")), ..query("größer 日本") };
    assert_eq!(found(t, other).await, [4_294_967_295]);
    let page = |before, limit| SearchQuery { before: Some(TaskKey(before)), limit, ..query("fix") };
    assert_eq!(found(t, page(3, 10)).await, [2, 1]);
    assert_eq!(found(t, page(4, 2)).await, [3, 2]);
    let keys = t.store.indexed_keys(TaskKey(1), 2).await.unwrap();
    assert_eq!(keys, [TaskKey(2), TaskKey(3)]);
    assert_eq!(t.store.indexed_keys(TaskKey(u64::from(u32::MAX)), 2).await.unwrap(), []);
}

pub async fn index_changes_from_the_expected_revision_only(t: &mut Harness) {
    assert!(!update(t, Some(0), 5, vec![indexed(1, "n", "fix")]).await, "there is none");
    assert!(update(t, None, 5, vec![indexed(1, "n", "fix"), indexed(2, "n", "fix")]).await);
    assert!(!update(t, Some(4), 6, vec![indexed(3, "n", "fix")]).await);
    assert!(!update(t, Some(6), 7, vec![indexed(3, "n", "fix")]).await);
    assert_eq!(
        (found(t, query("fix")).await, t.store.indexed_revision().await.unwrap()),
        (vec![2, 1], Some(5))
    );
    // New words take the place of the old ones; a removal that is repeated does nothing.
    for through in [6, 7] {
        let removed = vec![TaskKey(2), TaskKey(9)];
        let tasks = vec![indexed(1, "n", "done")];
        let update = IndexUpdate { after: Some(through - 1), through, tasks, removed };
        assert!(t.store.update_index(update).await.unwrap());
        assert_eq!((found(t, query("fix")).await, found(t, query("done")).await), (vec![], vec![1]));
    }
    t.reopen().await;
    assert_eq!(
        (found(t, query("done")).await, t.store.indexed_revision().await.unwrap()),
        (vec![1], Some(7))
    );
    // An empty one, then.
    assert!(update(t, None, 1, Vec::new()).await);
    assert_eq!((found(t, query("done")).await, t.store.indexed_revision().await.unwrap()), (vec![], Some(1)));
    assert_eq!(t.store.indexed_keys(TaskKey(0), 9).await.unwrap(), []);
}

/// Words of a task, and its namespace.
type Model = BTreeMap<u64, (BTreeSet<String>, &'static str)>;

fn fits(model: &(BTreeSet<String>, &str), words: &[&str], space: Option<&str>) -> bool {
    let (own, namespace) = model;
    let has = |wanted: &&str| match wanted.chars().count() >= 3 {
        true => own.iter().any(|word| word.starts_with(*wanted)),
        false => own.contains(*wanted),
    };
    words.iter().all(has) && space.is_none_or(|space| space == *namespace)
}

fn some(random: &mut StdRng, most: usize) -> Vec<&'static str> {
    (0..random.random_range(1..=most)).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect()
}

pub async fn random_searches_match_a_model(t: &mut Harness) {
    let mut revision = None;
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut model = Model::new();
        for round in 0..6 {
            let keys: BTreeSet<u64> = (0..8).map(|_| random.random_range(1..40)).collect();
            let mut tasks = Vec::new();
            for key in keys {
                let (words, space) = (some(&mut random, 6), if random.random_bool(0.5) { "n" } else { "m" });
                tasks.push(indexed(
                    key,
                    space,
                    &words.join([" ", "/", " \"", "'-"][random.random_range(0..4)]),
                ));
                model.insert(key, (words.into_iter().map(str::to_owned).collect(), space));
            }
            let removed: Vec<_> = (0..2).map(|_| random.random_range(1..40)).collect();
            model.retain(|key, _| !removed.contains(key));
            // The first of each seed begins again.
            let after = if round == 0 { None } else { revision };
            let through = revision.map_or(1, |at| at + 1);
            let removed = removed.into_iter().map(TaskKey).collect();
            assert!(t.store.update_index(IndexUpdate { after, through, tasks, removed }).await.unwrap());
            revision = Some(through);
            for _ in 0..10 {
                let words = some(&mut random, 3);
                let space = [None, Some("n"), Some("m")][random.random_range(0..3)];
                let before = random.random_bool(0.3).then(|| random.random_range(0..42));
                let limit = random.random_range(1..12);
                let wanted = model.iter().rev().filter(|(key, _)| before.is_none_or(|before| **key < before));
                let wanted = wanted.filter(|(_, one)| fits(one, &words, space)).map(|(key, _)| *key);
                let wanted: Vec<_> = wanted.take(limit).collect();
                let query = SearchQuery {
                    words: query_words(&words.join(" ")),
                    namespace: space.map(namespace),
                    before: before.map(TaskKey),
                    limit,
                };
                assert_eq!(
                    found(t, query).await,
                    wanted,
                    "seed {seed}, round {round}: {words:?} of {space:?}"
                );
            }
        }
        if seed == SEEDS / 2 {
            t.reopen().await;
        }
        let keys = t.store.indexed_keys(TaskKey(0), 100).await.unwrap();
        assert_eq!(keys, model.keys().map(|key| TaskKey(*key)).collect::<Vec<_>>());
    }
}
