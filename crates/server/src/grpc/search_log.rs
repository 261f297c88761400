//! `SearchTaskLog`: a text in the whole log of a task, so much of it per call.

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use rota_proto::{num, v1};
use rota_store::Budget;
use tokio::time::Instant;
use tonic::Status;

use super::answers::page_size;
use super::log_text::text_of;
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::wire::status::invalid;
use crate::wire::{check, event, names};

/// Characters of the text that is searched, at most.
const MAX_TEXT: usize = 256;
/// Hits of one entry; further lines of it are left out.
const MAX_ENTRY_HITS: usize = 1000;
/// Bytes of entries that one call reads at most, and the time after which it returns.
const CALL_BYTES: usize = 8 << 20;
const CALL_TIME: Duration = Duration::from_secs(1);
/// Entries before the position from which the begin of a line is taken: output arrives in pieces.
const EARLIER: usize = 64;
/// Bytes of a line before and after what was found.
const CONTEXT: usize = 200;

/// Returns what was found from a position on, and where the next call continues.
pub(super) async fn search(
    store: &StoreClient,
    request: &v1::SearchTaskLogRequest,
) -> Result<v1::SearchTaskLogResponse, Status> {
    let after =
        u64::try_from(request.after_log_seq).map_err(|_| invalid("after_log_seq", "must not be negative"))?;
    let most = page_size(request.page_size, 100)?;
    let mut search = Search::new(&request.text, after)?;
    let (namespace, named) = names::task("name", &request.name)?;
    let task = store.task(&namespace, named).await?;
    let (began, mut bytes) = (Instant::now(), 0);
    let earlier = Budget { entries: EARLIER, ..LOG_PAGE };
    let mut seen = after.saturating_sub(EARLIER as u64);
    let mut budget = if seen < after { earlier } else { LOG_PAGE };
    loop {
        let events = store.events(&task, seen, budget).await?;
        if events.is_empty() {
            break;
        }
        for entry in &events {
            bytes += search.entry(&event::to_wire(entry));
            seen = entry.log_seq;
            if search.hits.len() >= most {
                break;
            }
        }
        budget = LOG_PAGE;
        let is_full = search.hits.len() >= most;
        // Before that a call would return where it began, and its caller would repeat it without end.
        let has_advanced = seen > after;
        if has_advanced && (is_full || bytes >= CALL_BYTES || began.elapsed() >= CALL_TIME) {
            break;
        }
    }
    let next = if seen < task.log_seq { num::to_i64(seen.max(after)) } else { 0 };
    Ok(v1::SearchTaskLogResponse {
        hits: search.hits,
        next_log_seq: next,
        log_seq: num::to_i64(task.log_seq.max(seen)),
    })
}

struct Search {
    text: Regex,
    /// Length of the text in bytes at most, in any case of its letters.
    longest: usize,
    /// Entries up to this one are only the begin of lines.
    after: u64,
    /// End of what was written last to each stream, in which a match may begin.
    tails: [Vec<u8>; 2],
    attempt: i32,
    hits: Vec<v1::LogHit>,
}

impl Search {
    fn new(text: &str, after: u64) -> Result<Self, Status> {
        if text.is_empty() || text.contains('\n') {
            return Err(invalid("text", "must be a part of a line"));
        }
        check::length("text", text, MAX_TEXT)?;
        let regex = RegexBuilder::new(&regex::escape(text)).case_insensitive(true).build();
        let regex = regex.map_err(|error| invalid("text", error.to_string()))?;
        // The other case of a character takes up to three times the bytes: the sign of Kelvin is a k.
        let longest = 3 * text.len();
        Ok(Self { text: regex, longest, after, tails: Default::default(), attempt: 0, hits: Vec::new() })
    }

    /// Searches an entry. Returns the bytes that it has.
    fn entry(&mut self, entry: &v1::Event) -> usize {
        if std::mem::replace(&mut self.attempt, entry.attempt) != entry.attempt {
            self.tails = Default::default();
        }
        match &entry.kind {
            Some(v1::event::Kind::Output(output)) => self.output(entry.log_seq, output),
            _ => text_of(entry).map_or(0, |text| self.whole(entry.log_seq, &text)),
        }
    }

    fn output(&mut self, seq: i64, output: &v1::Output) -> usize {
        let stream = usize::from(output.stream() == v1::OutputStream::Stderr);
        let mut text = std::mem::take(&mut self.tails[stream]);
        let begin = text.len();
        text.extend_from_slice(&output.data);
        self.find(seq, &text, begin);
        let line = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // Enough for the begin of a match. `find` skips those that end in what is kept.
        let kept = text.len().saturating_sub(self.longest - 1).max(line);
        self.tails[stream] = text.split_off(kept);
        output.data.len()
    }

    fn whole(&mut self, seq: i64, text: &str) -> usize {
        self.find(seq, text.as_bytes(), 0);
        text.len()
    }

    /// Finds the text, once in each line, where it ends after `begin`, and in so many lines at most.
    fn find(&mut self, seq: i64, text: &[u8], begin: usize) {
        if u64::try_from(seq).unwrap_or(0) <= self.after {
            return;
        }
        let (mut line_end, most) = (0, self.hits.len() + MAX_ENTRY_HITS);
        for found in self.text.find_iter(text) {
            if found.end() <= begin || found.start() < line_end {
                continue;
            }
            let line = text[..found.start()].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let rest = text[found.end()..].iter().position(|byte| *byte == b'\n');
            line_end = rest.map_or(text.len(), |at| found.end() + at);
            let from = line.max(found.start().saturating_sub(CONTEXT));
            let to = line_end.min(found.end() + CONTEXT);
            let line = String::from_utf8_lossy(&text[from..to]).into_owned();
            self.hits.push(v1::LogHit { log_seq: seq, line });
            if self.hits.len() == most {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(seq: i64, stream: v1::OutputStream, data: &str) -> v1::Event {
        let data = data.as_bytes().to_vec().into();
        let output = v1::Output { stream: stream.into(), data, dropped_bytes: 0 };
        v1::Event { log_seq: seq, kind: Some(v1::event::Kind::Output(output)), ..v1::Event::default() }
    }

    fn found(text: &str, after: u64, entries: &[(i64, v1::OutputStream, &str)]) -> Vec<(i64, String)> {
        let mut search = Search::new(text, after).unwrap();
        for (seq, stream, data) in entries {
            search.entry(&output(*seq, *stream, data));
        }
        search.hits.into_iter().map(|hit| (hit.log_seq, hit.line)).collect()
    }

    const OUT: v1::OutputStream = v1::OutputStream::Stdout;
    const ERR: v1::OutputStream = v1::OutputStream::Stderr;

    #[test]
    fn text_is_found_across_pieces_of_a_stream() {
        let pieces = [(1, OUT, "a nee"), (2, ERR, "other\n"), (3, OUT, "d"), (4, OUT, "le\nnext")];
        assert_eq!(found("NEEDLE", 0, &pieces), [(4, "a needle".to_owned())]);
        // What ends before the position was found before.
        assert_eq!(found("needle", 3, &pieces), [(4, "a needle".to_owned())]);
        assert_eq!(found("needle", 4, &pieces), []);
        assert_eq!(found("le next", 0, &pieces), []);
    }

    #[test]
    fn all_that_a_page_shows_is_searched() {
        use v1::event::Kind;
        let input = v1::TaskInput { text: "needle".to_owned(), ..Default::default() };
        let kinds = [
            Kind::State(v1::StateChange { reason: "needle".to_owned(), ..Default::default() }),
            Kind::Progress(v1::Progress { step: "needle".to_owned(), ..Default::default() }),
            Kind::InputRequest(v1::InputRequest { tool: "needle".to_owned(), ..Default::default() }),
            Kind::InputReceived(v1::InputReceived { input: Some(input), ..Default::default() }),
            Kind::Change(v1::Change { fields: vec!["needle".to_owned()], ..Default::default() }),
        ];
        for kind in kinds {
            let mut search = Search::new("needle", 0).unwrap();
            search.entry(&v1::Event { log_seq: 1, kind: Some(kind), ..Default::default() });
            assert_eq!(search.hits.len(), 1);
        }
    }

    #[test]
    fn each_line_is_a_hit_once() {
        let lines = [(1, OUT, "x x\nno\nX.\n"), (2, OUT, "x")];
        let hits = [(1, "x x".to_owned()), (1, "X.".to_owned()), (2, "x".to_owned())];
        assert_eq!(found("x", 0, &lines), hits);
        // Signs of expressions are text.
        assert_eq!(found(".", 0, &lines), [(1, "X.".to_owned())]);
        let long = format!("{}ä!{}", "ä".repeat(1000), "-".repeat(1000));
        let hits = found("Ä!", 0, &[(1, OUT, &long)]);
        assert!(hits.len() == 1 && hits[0].1.len() < 3 * CONTEXT, "{hits:?}");
        let many = "x\n".repeat(MAX_ENTRY_HITS + 1);
        assert_eq!(found("x", 0, &[(1, OUT, &many), (2, OUT, "x")]).len(), MAX_ENTRY_HITS + 1);
    }
}
