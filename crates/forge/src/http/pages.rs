//! Pages of lists that are read again and again: only those that have changed, of a long list only some, and no more entries than were
//! asked for.

use reqwest::header::{self, HeaderMap};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::{Http, body, linked, parse, refused};
use crate::Error;
use crate::review::Pages;

/// Pages of a long list that are read: the first and the last ones.
const MAX_KNOWN_PAGES: usize = 10;

/// A page of a list.
pub(crate) trait Entries {
    /// Returns the number of its entries.
    fn count(&self) -> usize;
}

impl<T> Entries for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }
}

impl Http {
    /// Returns a page that may be known already: then the forge is only asked whether it has changed.
    pub(crate) async fn get_known<T: DeserializeOwned>(
        &self,
        path: &str,
        pages: &mut Pages,
    ) -> Result<T, Error> {
        Ok(self.known_page(path, pages).await?.0)
    }

    /// Returns the path of a list with the size of its pages.
    pub(super) fn sized(&self, path: &str) -> String {
        let (name, size) = self.dialect.page();
        let separator = if path.contains('?') { '&' } else { '?' };
        format!("{path}{separator}{name}={size}")
    }

    /// Reads the pages of a list as [`Self::get_known`] does: of a long one, the first and the last ones.
    /// Returns whether these pages are all. Fails if a page has more entries than were asked for.
    pub(crate) async fn each_known<T: DeserializeOwned + Entries>(
        &self,
        path: &str,
        pages: &mut Pages,
        mut take: impl FnMut(T) + Send,
    ) -> Result<bool, Error> {
        let ((_, full), path) = (self.dialect.page(), &*self.sized(path));
        let mut take = |page: T| match page.count() {
            count if count > full => {
                let text = format!(
                    "the forge lists {count} entries on a page, more than the {full} that were asked for"
                );
                Err(Error::Refused(text))
            }
            count => {
                take(page);
                Ok(count)
            }
        };
        let (first, mut last) = self.known_page(path, pages).await?;
        let mut entries = take(first)?;
        for number in (2..=last).rev().take(MAX_KNOWN_PAGES - 1) {
            let found = take(self.known_page(&format!("{path}&page={number}"), pages).await?.0)?;
            entries = if number == last { found } else { entries };
        }
        // A full page stays the same when others follow it.
        for number in (last + 1..).take(MAX_KNOWN_PAGES) {
            if entries < full {
                break;
            }
            entries = take(self.known_page(&format!("{path}&page={number}"), pages).await?.0)?;
            last = if entries > 0 { number } else { last };
        }
        pages.extend(path, last);
        Ok(last <= MAX_KNOWN_PAGES)
    }

    /// Returns a page, and the number of the last one of its list.
    async fn known_page<T: DeserializeOwned>(
        &self,
        path: &str,
        pages: &mut Pages,
    ) -> Result<(T, usize), Error> {
        let tag = pages.known(path).map(|page| page.tag.clone());
        let answer = self.call(Method::GET, self.url(path)?, None::<&()>, tag.as_ref()).await?;
        let response = answer.map_err(refused)?;
        if let (StatusCode::NOT_MODIFIED, Some(page)) = (response.status(), pages.known(path)) {
            return Ok((parse(&page.body)?, page.last));
        }
        let tag = response.headers().get(header::ETAG).cloned();
        let last = last_page(response.headers());
        let body = body(response).await?;
        let parsed = parse(&body)?;
        pages.remember(path, tag, body, last);
        Ok((parsed, last))
    }
}

/// Returns the number of the last page of a list, as far as it is named.
fn last_page(headers: &HeaderMap) -> usize {
    let number = |url: Url| url.query_pairs().find(|(name, _)| name == "page")?.1.parse().ok();
    // No list has more.
    linked(headers, "last").and_then(number).unwrap_or(1).min(1 << 20)
}
