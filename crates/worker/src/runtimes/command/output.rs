//! Forwards a program's output as events: in bounded chunks, coalesced so that single lines do not cost an
//! event each, and bounded in total. Redacted before anything is dropped, since a secret cut by a gap would not
//! be recognized. Knows nothing of its meaning.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rota_proto::num::to_i64;
use rota_proto::v1::{Output, OutputStream, event};
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::tail::Tail;

/// Maximum size of a chunk.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// Time that a short chunk waits for more output.
const COALESCE_DELAY: Duration = Duration::from_millis(30);
/// Total output of both streams that is logged; beyond it only the tail is.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Size of the tail kept of each stream.
const TAIL_BYTES: usize = 64 << 10;
/// Interval at which dropped output is reported, which shows that the program is not silent.
const ACTIVITY_INTERVAL: Duration = Duration::from_secs(5);

/// Remaining log volume of both streams.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_OUTPUT_BYTES))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Forwards a stream as events until it ends; returns its last bytes.
pub(super) async fn forward<R: AsyncRead + Unpin>(
    reader: Option<R>,
    stream: OutputStream,
    events: &mpsc::Sender<event::Kind>,
    budget: &Budget,
    redactor: &Redactor,
) -> Vec<u8> {
    let Some(mut reader) = reader else { return Vec::new() };
    let mut chunks =
        ChunkForwarder { stream, events, budget, tail: Tail::new(redactor, TAIL_BYTES), dropped: None };
    let mut buffer = BytesMut::new();
    let mut flush_at = Instant::now();
    loop {
        let room = MAX_CHUNK_BYTES - buffer.len();
        buffer.reserve(room.min(8 << 10));
        let mut into = (&mut buffer).limit(room);
        let read = tokio::select! {
            biased;
            read = reader.read_buf(&mut into) => read,
            () = sleep_until(flush_at), if room < MAX_CHUNK_BYTES => {
                chunks.send(buffer.split().freeze()).await;
                continue;
            }
        };
        match read {
            Ok(1..) if room == MAX_CHUNK_BYTES => flush_at = Instant::now() + COALESCE_DELAY,
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
        if buffer.len() == MAX_CHUNK_BYTES || flush_at <= Instant::now() {
            chunks.send(buffer.split().freeze()).await;
        }
    }
    chunks.send(buffer.freeze()).await;
    chunks.finish().await
}

struct ChunkForwarder<'a> {
    stream: OutputStream,
    events: &'a mpsc::Sender<event::Kind>,
    budget: &'a Budget,
    tail: Tail,
    /// Bytes dropped since the last event, and its time. Once set, only the tail is forwarded.
    dropped: Option<(usize, Instant)>,
}

impl ChunkForwarder<'_> {
    async fn send(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            let clean = self.tail.add(&chunk);
            // Forwarded even if all of it is held back for redaction: an empty chunk is activity.
            self.forward_chunk(clean.into()).await;
        }
    }

    async fn forward_chunk(&mut self, chunk: Bytes) {
        match &mut self.dropped {
            None if self.budget.take(chunk.len()) => self.emit(chunk, 0).await,
            None => self.dropped = Some((chunk.len(), Instant::now())),
            Some((dropped, since)) => {
                *dropped += chunk.len();
                // Bytes that may become the tail are not counted yet.
                if since.elapsed() >= ACTIVITY_INTERVAL && *dropped > TAIL_BYTES {
                    let reported = *dropped - TAIL_BYTES;
                    (*dropped, *since) = (TAIL_BYTES, Instant::now());
                    self.emit(Bytes::new(), reported).await;
                }
            }
        }
    }

    async fn emit(&self, data: Bytes, dropped: usize) {
        let dropped_bytes = to_i64(dropped);
        let output = Output { stream: self.stream.into(), data, dropped_bytes };
        // Fails when the attempt is over; the stream is still read to its end.
        let _ = self.events.send(event::Kind::Output(output)).await;
    }

    async fn finish(mut self) -> Vec<u8> {
        let rest = self.tail.end();
        if !rest.is_empty() {
            self.forward_chunk(rest.into()).await;
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

    async fn forwarded(input: &[u8]) -> (Vec<u8>, Vec<Output>) {
        forwarded_with(input, "", Budget::default()).await
    }

    async fn forwarded_with(input: &[u8], secret: &str, budget: Budget) -> (Vec<u8>, Vec<Output>) {
        let (events, mut received) = mpsc::channel(1 << 12);
        let tail =
            forward(Some(input), OutputStream::Stdout, &events, &budget, &Redactor::new([secret])).await;
        let mut chunks = Vec::new();
        while let Ok(event::Kind::Output(output)) = received.try_recv() {
            chunks.push(output);
        }
        (tail, chunks)
    }

    #[tokio::test]
    async fn short_binary_output_is_one_chunk() {
        let (tail, chunks) = forwarded(b"a\xff\nz").await;
        assert_eq!(tail, b"a\xff\nz");
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].data.as_ref(), b"a\xff\nz");
    }

    #[tokio::test]
    async fn chunks_are_bounded_and_complete() {
        let input: Vec<u8> = (0..5 * MAX_CHUNK_BYTES + 7).map(|n| n as u8).collect();
        let (_, chunks) = forwarded(&input).await;
        assert!(chunks.iter().all(|chunk| chunk.data.len() <= MAX_CHUNK_BYTES && chunk.dropped_bytes == 0));
        assert_eq!(chunks.concat_data(), input);
    }

    #[tokio::test]
    async fn output_beyond_budget_keeps_only_the_tail() {
        let input = vec![b'x'; MAX_OUTPUT_BYTES + 10 * MAX_CHUNK_BYTES];
        let (tail, chunks) = forwarded(&input).await;
        let (kept, dropped) =
            (chunks.concat_data().len(), chunks.iter().map(|p| p.dropped_bytes).sum::<i64>());
        assert_eq!(kept + dropped as usize, input.len());
        assert!(kept <= MAX_OUTPUT_BYTES + TAIL_BYTES && dropped > 0);
        assert_eq!(tail.len(), TAIL_BYTES);
    }

    #[tokio::test]
    async fn gap_leaves_no_partial_secret() {
        let secret = uuid::Uuid::new_v4().to_string();
        // One secret across the start of the gap, one across its end.
        for (before, after) in
            [(MAX_CHUNK_BYTES - 12, 3 * TAIL_BYTES), (3 * MAX_CHUNK_BYTES, TAIL_BYTES - 12)]
        {
            let input = ["x".repeat(before), secret.clone(), "y".repeat(after)].concat();
            let (tail, chunks) =
                forwarded_with(input.as_bytes(), &secret, Budget(AtomicUsize::new(MAX_CHUNK_BYTES))).await;
            assert!(chunks.iter().any(|chunk| chunk.dropped_bytes > 0));
            for bytes in [tail, chunks.concat_data()] {
                let text = String::from_utf8(bytes).unwrap();
                for part in [&secret[..8], &secret[secret.len() - 8..]] {
                    assert!(!text.contains(part), "{before}");
                }
            }
        }
    }

    trait Data {
        fn concat_data(&self) -> Vec<u8>;
    }

    impl Data for Vec<Output> {
        fn concat_data(&self) -> Vec<u8> {
            self.iter().flat_map(|chunk| chunk.data.to_vec()).collect()
        }
    }
}
