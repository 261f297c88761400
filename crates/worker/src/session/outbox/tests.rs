//! Orders of operations on an outbox and its file.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_proto::v1::{Notice, Output};

use super::*;

fn event(number: i64, size: usize) -> Event {
    let notice = Notice { code: number.to_string(), message: "x".repeat(size), ..Notice::default() };
    Event { kind: Some(event::Kind::Notice(notice)), ..Event::default() }
}

fn number(event: &Event) -> i64 {
    match &event.kind {
        Some(event::Kind::Notice(notice)) => notice.code.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_slots_share_the_disk() {
    assert_eq!(Bounds::of_worker(1).file, 256 << 20);
    assert_eq!(Bounds::of_worker(64).file, 16 << 20);
    assert_eq!(Bounds::of_worker(1024).file * 1024, MAX_WORKER_SPILL);
}

/// One that no message takes would be sent again in every session.
#[test]
fn events_too_large_become_notices() {
    let directory = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(directory.path().to_owned(), Bounds::default());
    outbox.push(event(1, EVENT_BYTES - 100));
    outbox.push(event(2, 3 << 20));
    outbox.push(event(3, 10));
    let codes: Vec<_> = std::iter::from_fn(|| outbox.next(1))
        .flat_map(|(_, batch)| batch)
        .map(|event| {
            assert!(event.encoded_len() <= EVENT_BYTES);
            match event.kind {
                Some(event::Kind::Notice(notice)) => notice.code,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(codes, ["1", "report_dropped", "3"]);
    assert_eq!(outbox.last(), 3);
}

/// Does everything that is to be done with the file.
fn serve(outbox: &mut Outbox) {
    let mut job = outbox.start_job();
    while let Some(next) = job {
        job = outbox.finish(next.run());
    }
}

/// Random sequences of operations, some of them while a job runs: events are sent in order, without gaps, with their
/// own numbers.
#[test]
fn events_keep_order_and_numbers() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let bounds = Bounds { memory: 500, file: 1 << 20 };
        let mut outbox = Outbox::new(directory.path().to_owned(), bounds);
        let (mut made, mut sent, mut acked) = (0, 0, 0);
        let mut job = None;
        for _ in 0..300 {
            match random.random_range(0..14) {
                0..5 => {
                    made += 1;
                    outbox.push(event(made, random.random_range(0..200)));
                }
                5..7 => {
                    if let Some((first, batch)) = outbox.next(random.random_range(1..400)) {
                        assert_eq!(first, sent + 1);
                        for event in &batch {
                            sent += 1;
                            assert_eq!(number(event), sent);
                        }
                        assert!(!batch.is_empty());
                    }
                }
                7..9 => {
                    acked = random.random_range(acked..=sent);
                    outbox.ack(acked);
                }
                9 => {
                    acked = random.random_range(acked..=sent);
                    outbox.resume(acked);
                    sent = acked;
                }
                10 | 11 => job = job.or_else(|| outbox.start_job()),
                _ => job = job.and_then(|job: SpillJob| outbox.finish(job.run())),
            }
            assert_eq!(outbox.last(), made);
        }
        outbox.ack(sent);
        while let Some(next) = job {
            job = outbox.finish(next.run());
        }
        serve(&mut outbox);
        while let Some((_, batch)) = outbox.next(100) {
            sent += to_i64(batch.len());
            outbox.ack(sent);
            serve(&mut outbox);
        }
        assert!(sent == made && outbox.is_fully_sent());
    }
}

#[test]
fn full_outbox_counts_dropped_output() {
    let directory = tempfile::tempdir().unwrap();
    let bounds = Bounds { memory: 100, file: 300 };
    let mut outbox = Outbox::new(directory.path().to_owned(), bounds);
    let output = |size: usize| Event {
        kind: Some(event::Kind::Output(Output { data: vec![b'x'; size].into(), ..Output::default() })),
        ..Event::default()
    };
    while !outbox.is_full() {
        outbox.push(output(50));
        serve(&mut outbox);
    }
    let last = outbox.last();
    outbox.push(output(50));
    outbox.push(output(7));
    assert_eq!(outbox.last(), last);
    while let Some((first, batch)) = outbox.next(1000) {
        outbox.ack(first + to_i64(batch.len()) - 1);
        serve(&mut outbox);
    }
    outbox.push(output(1));
    let (first, batch) = outbox.next(1000).unwrap();
    assert_eq!(first, last + 1);
    assert!(matches!(&batch[0].kind, Some(event::Kind::Output(output)) if output.dropped_bytes == 57));
}

#[test]
fn hanging_disk_holds_back_output_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(directory.path().to_owned(), Bounds { memory: 500, file: 1 << 20 });
    (1..=10).for_each(|number| outbox.push(event(number, 80)));
    let hanging = outbox.start_job().unwrap();
    // What is in memory is sent meanwhile, and more is taken up to the bound.
    let (_, batch) = outbox.next(10_000).unwrap();
    assert!(!batch.is_empty() && batch.len() < 10, "{}", batch.len());
    outbox.ack(to_i64(batch.len()));
    assert!(outbox.next(10_000).is_none() && outbox.start_job().is_none());
    (11..=20).for_each(|number| outbox.push(event(number, 80)));
    assert!(outbox.is_full());
    let next = outbox.finish(hanging.run());
    let mut sent = to_i64(batch.len());
    let mut job = next;
    while sent < 20 {
        job = job.and_then(|job| outbox.finish(job.run())).or_else(|| outbox.start_job());
        if let Some((_, batch)) = outbox.next(10_000) {
            let numbers: Vec<_> = batch.iter().map(number).collect();
            let expected: Vec<_> = (sent + 1..=sent + to_i64(batch.len())).collect();
            assert_eq!(numbers, expected);
            sent += to_i64(batch.len());
            outbox.ack(sent);
        }
    }
    assert!(outbox.is_fully_sent());
}

#[test]
fn failed_writes_lose_nothing() {
    let missing = tempfile::tempdir().unwrap().path().join("missing");
    let mut outbox = Outbox::new(missing, Bounds { memory: 500, file: 1 << 20 });
    for number in 1..=20 {
        outbox.push(event(number, 80));
        serve(&mut outbox);
    }
    assert!(outbox.is_full());
    let mut sent = 0;
    while let Some((_, batch)) = outbox.next(10_000) {
        sent += to_i64(batch.len());
        assert_eq!(number(batch.last().unwrap()), sent);
        outbox.ack(sent);
    }
    assert_eq!((sent, outbox.last()), (20, 20));
}

#[test]
fn outdated_job_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(directory.path().to_owned(), Bounds { memory: 100, file: 1 << 20 });
    (1..=5).for_each(|number| outbox.push(event(number, 80)));
    let job = outbox.start_job().unwrap();
    outbox.discard();
    assert!(outbox.is_fully_sent());
    outbox.push(event(6, 80));
    assert!(outbox.finish(job.run()).is_none());
    let (first, batch) = outbox.next(1000).unwrap();
    assert_eq!((first, batch.len(), number(&batch[0])), (6, 1, 6));
}

#[test]
fn events_lost_with_their_file_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(directory.path().to_owned(), Bounds { memory: 200, file: 1 << 20 });
    (1..=10).for_each(|number| outbox.push(event(number, 80)));
    serve(&mut outbox);
    let (_, batch) = outbox.next(10_000).unwrap();
    let kept = to_i64(batch.len());
    outbox.ack(kept);
    let job = outbox.start_job().unwrap();
    let done = SpillDone {
        number: job.number,
        error: Some(std::io::Error::other("a bad sector")),
        ..SpillDone::default()
    };
    assert!(outbox.finish(done).is_none());
    assert!(outbox.is_fully_sent());
    let output = Output { data: b"x".to_vec().into(), ..Output::default() };
    outbox.push(Event { kind: Some(event::Kind::Output(output)), ..Event::default() });
    let (first, batch) = outbox.next(1000).unwrap();
    assert_eq!(first, kept + 1);
    assert!(matches!(&batch[0].kind, Some(event::Kind::Output(output)) if output.dropped_bytes > 0));
}
