//! What a program prints: cut into pieces of bounded size, gathered for a moment so that a line at
//! a time does not cost an event each, and bounded over all. Secrets go before anything is left out: what a gap
//! leaves of one is not recognized. Knows nothing of what it means.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rota_proto::v1::{Output, OutputStream, event};
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::runtimes::tail::Tail;

/// Longest piece that is read.
const PIECE: usize = 64 << 10;
/// How long a short piece waits for more.
const GATHER: Duration = Duration::from_millis(30);
/// Bytes of both streams that go into the log; then only the end does.
const MAX_OUTPUT: usize = 16 << 20;
/// Bytes kept of a stream's end.
const TAIL: usize = 64 << 10;
/// How often dropped output shows that the program is not silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What both streams may still put into the log.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_OUTPUT))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Turns a stream into events until it ends; returns its last bytes.
pub(super) async fn pump<R: AsyncRead + Unpin>(
    reader: Option<R>,
    stream: OutputStream,
    events: &mpsc::Sender<event::Kind>,
    budget: &Budget,
    redactor: &Redactor,
) -> Vec<u8> {
    let Some(mut reader) = reader else { return Vec::new() };
    let mut pieces = Pieces { stream, events, budget, tail: Tail::new(redactor, TAIL), dropped: None };
    let mut buffer = BytesMut::new();
    let mut flush_at = Instant::now();
    loop {
        let room = PIECE - buffer.len();
        buffer.reserve(room.min(8 << 10));
        let mut into = (&mut buffer).limit(room);
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut into) => read,
            () = sleep_until(flush_at), if room < PIECE => {
                pieces.send(buffer.split().freeze()).await;
                continue;
            }
        };
        match read {
            Ok(1..) if room == PIECE => flush_at = Instant::now() + GATHER,
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
        if buffer.len() == PIECE || flush_at <= Instant::now() {
            pieces.send(buffer.split().freeze()).await;
        }
    }
    pieces.send(buffer.freeze()).await;
    pieces.finish().await
}

struct Pieces<'a> {
    stream: OutputStream,
    events: &'a mpsc::Sender<event::Kind>,
    budget: &'a Budget,
    tail: Tail,
    /// Bytes dropped since the last piece, and when that one was sent. Once set, nothing but the tail goes out.
    dropped: Option<(usize, Instant)>,
}

impl Pieces<'_> {
    async fn send(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            let clean = self.tail.add(&piece);
            // An empty one shows life: all of it is held back for now.
            self.tell(clean.into()).await;
        }
    }

    async fn tell(&mut self, piece: Bytes) {
        match &mut self.dropped {
            None if self.budget.take(piece.len()) => self.emit(piece, 0).await,
            None => self.dropped = Some((piece.len(), Instant::now())),
            Some((dropped, since)) => {
                *dropped += piece.len();
                // What may still come as the tail is not counted yet.
                if since.elapsed() >= SIGN_OF_LIFE && *dropped > TAIL {
                    let told = *dropped - TAIL;
                    (*dropped, *since) = (TAIL, Instant::now());
                    self.emit(Bytes::new(), told).await;
                }
            }
        }
    }

    async fn emit(&self, data: Bytes, dropped: usize) {
        let dropped_bytes = i64::try_from(dropped).unwrap_or(i64::MAX);
        let output = Output { stream: self.stream.into(), data, dropped_bytes };
        // Nobody listening means that the attempt is over; the stream is still read to its end.
        let _ = self.events.send(event::Kind::Output(output)).await;
    }

    async fn finish(mut self) -> Vec<u8> {
        let rest = self.tail.end();
        if !rest.is_empty() {
            self.tell(rest.into()).await;
        }
        let last = self.tail.last().to_vec();
        if let Some((dropped, _)) = self.dropped {
            let kept = dropped.min(last.len());
            self.emit(Bytes::copy_from_slice(&last[last.len() - kept..]), dropped - kept).await;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pumped(input: &[u8]) -> (Vec<u8>, Vec<Output>) {
        pumped_with(input, "", Budget::default()).await
    }

    async fn pumped_with(input: &[u8], secret: &str, budget: Budget) -> (Vec<u8>, Vec<Output>) {
        let (events, mut received) = mpsc::channel(1 << 12);
        let tail = pump(Some(input), OutputStream::Stdout, &events, &budget, &Redactor::new([secret])).await;
        let mut pieces = Vec::new();
        while let Ok(event::Kind::Output(output)) = received.try_recv() {
            pieces.push(output);
        }
        (tail, pieces)
    }

    #[tokio::test]
    async fn short_output_is_one_piece_and_any_bytes_stay() {
        let (tail, pieces) = pumped(b"a\xff\nb").await;
        assert_eq!(tail, b"a\xff\nb");
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].data.as_ref(), b"a\xff\nb");
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_nothing_is_lost() {
        let input: Vec<u8> = (0..5 * PIECE + 7).map(|n| n as u8).collect();
        let (_, pieces) = pumped(&input).await;
        assert!(pieces.iter().all(|piece| piece.data.len() <= PIECE && piece.dropped_bytes == 0));
        assert_eq!(pieces.concat_data(), input);
    }

    #[tokio::test]
    async fn beyond_the_bound_only_the_end_is_kept_and_the_rest_counted() {
        let input = vec![b'x'; MAX_OUTPUT + 10 * PIECE];
        let (tail, pieces) = pumped(&input).await;
        let (kept, dropped) =
            (pieces.concat_data().len(), pieces.iter().map(|p| p.dropped_bytes).sum::<i64>());
        assert_eq!(kept + dropped as usize, input.len());
        assert!(kept <= MAX_OUTPUT + TAIL && dropped > 0);
        assert_eq!(tail.len(), TAIL);
    }

    #[tokio::test]
    async fn neither_side_of_a_gap_has_a_part_of_a_secret() {
        let secret = uuid::Uuid::new_v4().to_string();
        // One across the place where the gap begins, and one across the place where it ends.
        for (before, after) in [(PIECE - 12, 3 * TAIL), (3 * PIECE, TAIL - 12)] {
            let input = ["x".repeat(before), secret.clone(), "y".repeat(after)].concat();
            let (tail, pieces) =
                pumped_with(input.as_bytes(), &secret, Budget(AtomicUsize::new(PIECE))).await;
            assert!(pieces.iter().any(|piece| piece.dropped_bytes > 0));
            for told in [tail, pieces.concat_data()] {
                let told = String::from_utf8(told).unwrap();
                for part in [&secret[..8], &secret[secret.len() - 8..]] {
                    assert!(!told.contains(part), "{before}");
                }
            }
        }
    }

    trait Data {
        fn concat_data(&self) -> Vec<u8>;
    }

    impl Data for Vec<Output> {
        fn concat_data(&self) -> Vec<u8> {
            self.iter().flat_map(|piece| piece.data.to_vec()).collect()
        }
    }
}
