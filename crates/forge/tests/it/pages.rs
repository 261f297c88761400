//! Pages of lists.

use anyhow::Result;
use rota_forge::{Pages, Provider};
use rota_testkit::forge::{Check, Comment, Forge as Fake};

use crate::{KINDS, TOKEN, client, wanted};

/// A forge does not decide how much is kept of what it answers.
#[tokio::test]
async fn entries_of_a_page_are_bounded() -> Result<()> {
    for (kind, provider) in KINDS {
        let fake = Fake::start(kind, TOKEN).await?;
        let client = client(provider, &fake)?;
        let number = client.deliver(&wanted("Fix")).await?.number;
        fake.set_page(10_000);
        fake.change(1, |opened| {
            let comment =
                |at| Comment { author: "ada".to_owned(), text: "x".to_owned(), at, ..Comment::default() };
            (opened.commit, opened.comments) = ("c0ffee".to_owned(), (0..2100).map(comment).collect());
        });
        let review = client.review(number, 0, &mut Pages::default()).await;
        if provider == Provider::Gitea {
            // Its lists of comments have no pages.
            let comments = review?.comments;
            assert_eq!((comments.len(), comments[0].at), (2000, 100), "the newest ones");
        } else {
            let failed = review.unwrap_err().to_string();
            assert!(failed.contains("2100 entries on a page, more than the 100"), "{kind:?} {failed}");
        }
        let check =
            |name: usize| Check { name: name.to_string(), state: "failure".to_owned(), ..Check::default() };
        fake.change(1, |opened| {
            opened.comments.clear();
            opened.checks = (0..200).map(check).collect();
        });
        let failed = client.review(number, 0, &mut Pages::default()).await.unwrap_err().to_string();
        assert!(failed.contains("200 entries on a page"), "{kind:?} {failed}");
    }
    Ok(())
}
