//! Pages of lists: of as many entries as each forge gives at most, which every call must ask for.

use serde_json::Value;

use super::{Kind, Site, parameter};

/// Cuts a list to the page that is asked for. Returns the header with the addresses of the next one and the last one, if there are more.
/// The error is why the forge does not answer.
pub(super) fn cut(
    site: &Site,
    path: &str,
    query: &str,
    answer: &mut Value,
) -> Result<Option<String>, String> {
    let is_list = answer.is_array() || path.ends_with("/status") || path.ends_with("/check-runs");
    let (size, is_whole) = match site.kind {
        Kind::GitHub => ("per_page=100", false),
        Kind::GitLab => ("per_page=100", path == "/users"),
        Kind::Gitea => ("limit=50", path.ends_with("/comments")),
    };
    let list = match answer {
        Value::Array(all) => Some(all),
        Value::Object(fields) => fields.values_mut().find_map(Value::as_array_mut),
        _ => None,
    };
    let Some(all) = list.filter(|_| !is_whole) else { return Ok(None) };
    if is_list && !query.split('&').any(|pair| pair == size) {
        return Err(format!("a list is asked for without {size}"));
    }
    let page = parameter(query, "page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let last = all.len().div_ceil(site.page);
    let rest = all.split_off(all.len().min((page - 1) * site.page));
    let has_more = rest.len() > site.page;
    *all = rest.into_iter().take(site.page).collect();
    if !has_more {
        return Ok(None);
    }
    let others = query.split('&').filter(|pair| !pair.starts_with("page=")).collect::<Vec<_>>().join("&");
    let list = format!("{}{}{path}?{others}", site.origin(), site.kind.root());
    let next = page + 1;
    Ok(Some(format!("<{list}&page={next}>; rel=\"next\", <{list}&page={last}>; rel=\"last\"")))
}
