//! Tests of limits of messages.

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use rota_proto::v1::{BatchCreateTasksRequest, CreateTaskRequest, FindMissingPartsRequest};
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Hello, Reject, Release, SessionRequest, WorkerHeartbeat, WorkerStatus};

use super::*;

fn framed(kind: Kind) -> Vec<u8> {
    framing::encode(&SessionRequest { kind: Some(kind) })
}

fn of_session() -> LimitedBody {
    LimitedBody::new(Body::empty(), Limits::session(elements::input(SESSION).unwrap()))
}

fn prefix(length: u32) -> Bytes {
    [&[0][..], &length.to_be_bytes()].concat().into()
}

#[test]
fn messages_in_any_pieces_are_passed_on() {
    let hello = Kind::Hello(Box::new(Hello { agent: "coder".to_owned(), ..Hello::default() }));
    let beat = Kind::Heartbeat(WorkerHeartbeat { cpu: 0.5, ..WorkerHeartbeat::default() });
    let stream = [framed(hello), framed(beat.clone()), framed(beat)].concat();
    for size in 1..=stream.len() {
        let mut body = of_session();
        let passed: Vec<u8> = stream
            .chunks(size)
            .flat_map(|chunk| body.accept(Bytes::copy_from_slice(chunk)).unwrap().to_vec())
            .collect();
        assert!(passed == stream && body.partial.is_empty(), "{size}");
    }
}

#[test]
fn large_message_is_rejected_at_its_prefix() {
    let mut body = of_session();
    let refused = body.accept(prefix((MAX_FIRST_MESSAGE + 1) as u32)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");

    let mut body = of_session();
    body.accept(framed(Kind::Hello(Box::default())).into()).unwrap();
    assert!(body.accept(prefix(MAX_MESSAGE as u32)).unwrap().is_empty());
    let mut body = of_session();
    body.accept(framed(Kind::Hello(Box::default())).into()).unwrap();
    let refused = body.accept(prefix((MAX_MESSAGE + 1) as u32)).unwrap_err();
    assert!(refused.message().contains("2097153 bytes"), "{refused}");
}

#[test]
fn messages_have_sizes_in_their_order() {
    let text = || "x".repeat(1 << 20);
    let kinds = [
        Kind::Reject(Reject { reason: text(), ..Reject::default() }),
        Kind::Release(Release { request_ids: vec![text()], ..Release::default() }),
        Kind::Status(WorkerStatus { not_ready_reason: text(), ..WorkerStatus::default() }),
    ];
    let request_ids = vec![String::new(); 1000];
    let release = Kind::Release(Release { request_ids, ..Release::default() });
    let beat = Kind::Heartbeat(WorkerHeartbeat::default());
    let mut body = of_session();
    let hello = framed(Kind::Hello(Box::default()));
    let all = [hello].into_iter().chain(kinds.into_iter().chain([beat, release]).map(framed));
    body.accept(all.collect::<Vec<_>>().concat().into()).unwrap();
    let sizes: Vec<_> = (0..6).map(|_| body.sizes.take()).collect();
    assert!(sizes[0] < 1024 && sizes[4] < 1024, "{sizes:?}");
    assert!(sizes[1..4].iter().all(|size| *size >= 1 << 20), "{sizes:?}");
    assert!(sizes[5] >= 1000 * size_of::<String>(), "an empty id takes memory: {sizes:?}");
    assert!(body.sizes.0.lock().is_empty());
}

/// Reads the body of a call as its service does.
async fn read(path: &str, body: Body) -> Result<Bytes, Status> {
    let request = limit(http::Request::builder().uri(path).body(body).unwrap());
    Ok(request.into_body().collect().await?.to_bytes())
}

fn body(message: &[u8]) -> Body {
    let framed = [&prefix(message.len() as u32)[..], message].concat();
    Body::new(Full::new(Bytes::from(framed)))
}

const BATCH: &str = "/rota.v1.TaskService/BatchCreateTasks";

#[tokio::test]
async fn small_elements_of_calls_are_refused() {
    let two: Vec<u8> = [2 << 3 | 2, 0].repeat((MAX_REQUEST >> 1) - 32);
    let steps: Vec<u8> = [5 << 3 | 2, 0].repeat((MAX_REQUEST >> 1) - 32);
    let schedule = [2, 10, 3].iter().rev().fold(steps, |inner, number| {
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(*number, &inner, &mut outer);
        outer
    });
    for (path, message) in [
        (BATCH, &two),
        ("/rota.v1.ArtifactService/FindMissingParts", &two),
        ("/rota.v1.ScheduleService/PreviewSchedule", &schedule),
    ] {
        let refused = read(path, body(message)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{path}: {refused}");
        assert!(refused.message().ends_with("more than 64 MiB of memory"), "{path}: {refused}");
    }
}

#[tokio::test]
async fn large_and_malformed_calls_are_refused() {
    let header = Body::new(Full::new(prefix((MAX_REQUEST + 1) as u32)));
    assert_eq!(read(BATCH, header).await.unwrap_err().code(), tonic::Code::OutOfRange);
    // Its elements cannot be counted.
    let compressed = Body::new(Full::new(Bytes::from_static(&[1, 0, 0, 0, 1, 0])));
    assert_eq!(read(BATCH, compressed).await.unwrap_err().code(), tonic::Code::Unimplemented);
    // Services that take less buffer no more than they take.
    for (path, most) in [
        ("/rota.worker.v1.WorkerService/KeepArtifacts", MAX_MESSAGE),
        ("/rota.v1.AgentService/UpdateAgent", MAX_ADMIN_REQUEST),
        ("/rota.v1.AdminService/SetLogFilter", MAX_ADMIN_REQUEST),
    ] {
        let header = Body::new(Full::new(prefix((most + 1) as u32)));
        let refused = read(path, header).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::OutOfRange, "{path}: {refused}");
    }
    // A group, which the decoder would skip with all that is in it.
    let group = [&[0x0b_u8, 0x0c][..], &[0].repeat(UNCHECKED)].concat();
    assert_eq!(read(BATCH, body(&group)).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn calls_arrive_as_they_were_sent() {
    let one = CreateTaskRequest { parent: "x".repeat(100), ..Default::default() };
    let batch = BatchCreateTasksRequest { requests: vec![one; 1000], ..Default::default() };
    let parts = FindMissingPartsRequest { digests: vec![vec![0; 32]; 8192], ..Default::default() };
    for (path, sent) in [
        (BATCH, framing::encode(&batch)),
        ("/rota.v1.ArtifactService/FindMissingParts", framing::encode(&parts)),
        ("/other.Service/Call", b"anything".to_vec()),
    ] {
        let pieces =
            sent.chunks(10_000).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece))));
        let body = Body::new(StreamBody::new(stream::iter(pieces.collect::<Vec<_>>())));
        assert!(read(path, body).await.unwrap() == sent, "{path}");
    }
}

/// Returns a body that has a part of a message whenever this time has passed.
fn slow(message: &[u8], parts: usize, each: Duration) -> Body {
    let parts: Vec<_> = message.chunks(message.len().div_ceil(parts)).map(Bytes::copy_from_slice).collect();
    let parts = stream::iter(parts).then(move |part| async move {
        tokio::time::sleep(each).await;
        Ok::<_, Status>(Frame::data(part))
    });
    Body::new(StreamBody::new(parts))
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_arrive_while_they_move() {
    let sent = framing::encode(&CreateTaskRequest { parent: "x".repeat(100), ..Default::default() });
    let each = Duration::from_secs(50);
    assert!(read(BATCH, slow(&sent, 5, each)).await.unwrap() == sent);
    for (path, parts, each) in [
        (BATCH, 7, each),
        (BATCH, 2, Duration::from_secs(61)),
        ("/rota.v1.AdminService/RedeemSignInCode", 2, each),
    ] {
        let refused = read(path, slow(&sent, parts, each)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{path}: {parts} parts: {refused}");
    }
    // The gateway limits what it converts itself.
    let converted = http::Request::builder().uri(BATCH).extension(HttpMethod(http::Method::POST));
    let converted = limit(converted.body(slow(&sent, 1, 2 * PART_TIMEOUT)).unwrap());
    assert!(converted.into_body().collect().await.unwrap().to_bytes() == sent);
}

/// A message that arrives is not enough: the call has ended only with its body.
#[tokio::test(start_paused = true)]
async fn bodies_of_single_messages_end_in_time() {
    let unfinished = || {
        let message = Ok::<_, Status>(Frame::data(prefix(0)));
        Body::new(StreamBody::new(stream::once(std::future::ready(message)).chain(stream::pending())))
    };
    for path in [BATCH, "/rota.v1.AdminService/RedeemSignInCode", "/rota.v1.TaskService/WatchTasks"] {
        let refused = read(path, unfinished()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{path}: {refused}");
    }
    for path in [SESSION, "/rota.v1.TaskService/AttachTask", "/rota.v1.ArtifactService/UploadParts"] {
        let waits = tokio::time::timeout(2 * MESSAGE_TIMEOUT, read(path, unfinished())).await;
        assert!(waits.is_err(), "{path}: {waits:?}");
    }
}
