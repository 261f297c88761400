//! What a sign-in that has begun permits.

use super::*;

#[test]
fn sign_ins_come_back_once_while_they_live() {
    let (used, ends) = (Used::default(), |at: i64| Timestamp(1000 + at));
    assert!(used.insert(ends(0), "one", Timestamp(0)) && !used.insert(ends(0), "one", Timestamp(999)));
    assert!(used.insert(ends(0), "two", Timestamp(999)));
    for at in 1..=8192_i64 {
        assert!(used.insert(ends(at), "another", Timestamp(0)));
    }
    assert_eq!(used.0.lock().len(), MAX_USED);
    assert!(used.insert(ends(10_000), "last", ends(9_999)));
    assert_eq!(used.0.lock().len(), 1, "the others have expired");
}

#[test]
fn only_own_pages_are_targets() {
    for own in ["/", "/tasks/default?state=x", "/workflows/%20"] {
        assert!(is_own_path(own, &BasePath::default()), "{own}");
    }
    let long = format!("/{}", "x".repeat(MAX_TARGET));
    for other in ["", "tasks", "//evil.example", "/\\evil.example", "https://evil.example", "/a\nb", &long] {
        assert!(!is_own_path(other, &BasePath::default()), "{other:?}");
    }
    let base = "/rota".parse().unwrap();
    for (target, is_own) in [
        ("/rota", true),
        ("/rota/tasks?view=board", true),
        ("/rota?x", true),
        ("/rotary", false),
        ("/other", false),
        ("/rota/../other", false),
        ("/rota/%2e%2e/other", false),
        ("/rota/x/.%2E/%2e./other", false),
    ] {
        assert_eq!(is_own_path(target, &base), is_own, "{target}");
    }
}
