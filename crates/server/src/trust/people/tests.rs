//! Tests of lists of people, and of what they permit.

use serde_json::json;

use super::*;

const HEAD: &str = "issuer = 'https://id.example'\nclient_id = 'rota'\n";
const LIST: &str = "[[allow]]\nsubject = 'ada'\nrole = 'admin'\n[[allow]]\ngroup = 'dev'\nrole = 'developer'\n\
    namespaces = ['team', 'lab']\n[[allow]]\ngroup = 'all'\nrole = 'viewer'\n[[allow]]\nsubject = 'bob'\nrole = 'admin'\n\
    namespaces = ['lab']\n";

fn load(text: &str) -> Result<People, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sign-in.toml");
    std::fs::write(&path, text).unwrap();
    People::load(&path).map_err(|error| error.to_string())
}

fn person(people: &People, claims: Value) -> Arc<Person> {
    Arc::new(people.person(claims.as_object().unwrap()).unwrap())
}

fn of(names: &[&str]) -> Namespaces {
    Namespaces::Of(names.iter().map(|name| Namespace::new(name).unwrap()).collect())
}

#[test]
fn incomplete_lists_are_refused() {
    load(&format!("{HEAD}{LIST}")).unwrap();
    for (text, word) in [
        (HEAD.to_owned(), "allow has no entry"),
        (format!("{HEAD}[[allow]]\nrole = 'admin'\n"), "entry 1 of allow must have a subject or a group"),
        (format!("{HEAD}[[allow]]\nsubject = ''\nrole = 'admin'\n"), "empty subject"),
        (format!("{HEAD}[[allow]]\nsubject = 'a'\nrole = 'owner'\n"), "owner"),
        (format!("{HEAD}[[allow]]\nsubject = 'a'\nrole = 'admin'\nnamespaces = []\n"), "leave them out"),
        (
            format!("{HEAD}[[allow]]\nsubject = 'a'\nrole = 'admin'\nnamespaces = ['-']\n"),
            "invalid namespace",
        ),
        (format!("{HEAD}[[allow]]\nsubject = 'a'\nrole = 'admin'\nnamespace = 'a'\n"), "unknown field"),
        (format!("issuer = 'http://id.example'\nclient_id = 'x'\n{LIST}"), "https://"),
        (format!("issuer = 'https://id.example'\nclient_id = ''\n{LIST}"), "client_id"),
        (format!("{HEAD}url = 'https://rota.example/?x'\n{LIST}"), "must be the address of a page"),
        (format!("{HEAD}url = 'http://rota.example'\n{LIST}"), "https://"),
        (format!("{HEAD}client_secret_file = 'missing'\n{LIST}"), "missing"),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn entries_add_up() {
    let people = load(&format!("{HEAD}{LIST}")).unwrap();
    let admins = &[Role::Admin][..];
    let developers = &[Role::Developer, Role::Admin][..];
    let viewers = &[Role::Viewer, Role::Developer, Role::Admin][..];
    let ada = person(&people, json!({ "sub": "ada", "email": "ada@x.example" }));
    assert_eq!(ada.name, "ada@x.example");
    assert_eq!(people.permit(ada, admins).unwrap().namespaces, Namespaces::All);

    let claims = json!({ "sub": "bob", "groups": ["dev", "all", "elsewhere", 7] });
    let bob = person(&people, claims);
    assert_eq!(bob.groups, ["all", "dev"]);
    let permit = |allowed| people.permit(Arc::clone(&bob), allowed).unwrap();
    assert_eq!(permit(admins).namespaces, of(&["lab"]));
    assert_eq!(permit(developers).namespaces, of(&["lab", "team"]));
    assert_eq!(permit(viewers).namespaces, Namespaces::All);
    assert!(permit(viewers).agents == of(&["lab"]) && !permit(viewers).is_viewer);

    let guest = person(&people, json!({ "sub": "eve", "groups": "all" }));
    assert!(people.permit(Arc::clone(&guest), viewers).unwrap().is_viewer);
    let refused = people.permit(guest, developers).unwrap_err();
    assert!(refused.message().contains("eve is a viewer"), "{refused:?}");
}

#[test]
fn people_off_the_list_may_do_nothing() {
    let people = load(&format!("{HEAD}{LIST}")).unwrap();
    for claims in
        [json!({ "sub": "eve" }), json!({ "sub": "dev" }), json!({ "sub": "x", "groups": { "dev": 1 } })]
    {
        let refused = people.permit(person(&people, claims), &[Role::Viewer]).unwrap_err();
        assert!(refused.message().contains("not on the list"), "{refused:?}");
    }
    let elsewhere = Person {
        issuer: "https://other.example".to_owned(),
        ..(*person(&people, json!({ "sub": "ada" }))).clone()
    };
    assert_eq!(people.role(&elsewhere), None);
    assert!(people.person(&Map::new()).is_err());
    assert!(people.person(json!({ "sub": "x".repeat(256) }).as_object().unwrap()).is_err());
}
