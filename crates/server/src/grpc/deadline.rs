//! Deadlines of calls: what is not answered within the time that its caller gives (`grpc-timeout`) ends. A stream that has begun continues.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use rota_gateway::Inner;
use tonic::Status;
use tonic::body::Body;

/// Ends a call at its deadline.
pub(crate) async fn enforce<S: Inner>(
    request: Request<Body>,
    mut inner: S,
) -> Result<Response<Body>, S::Error> {
    let Some(time) = time_of(request.headers()) else { return inner.call(request).await };
    let passed = |_| Ok(Status::deadline_exceeded("the deadline of the call has passed").into_http());
    tokio::time::timeout(time, inner.call(request)).await.unwrap_or_else(passed)
}

/// Returns the time that a caller gives its call: at most eight digits and a unit, as gRPC defines them. Others count as none.
fn time_of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_all_units() {
        let of = |value: &str| time_of(&[("grpc-timeout", value)].into_iter().map(pair).collect());
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for other in ["", "S", "1", "1s", "-1S", "100000000S", "1.5S"] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_without_an_answer_end_at_their_deadline() {
        use std::convert::Infallible;
        use std::future::pending;

        let never = |_: Request<Body>| pending::<Result<Response<Body>, Infallible>>();
        let request = Request::builder().header("grpc-timeout", "5S").body(Body::empty()).unwrap();
        let response = enforce(request, tower::service_fn(never)).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    fn pair((name, value): (&'static str, &str)) -> (http::HeaderName, http::HeaderValue) {
        (http::HeaderName::from_static(name), value.parse().unwrap())
    }
}
