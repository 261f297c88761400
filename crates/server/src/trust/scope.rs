//! Namespaces of people: a call by a person who may call for some namespaces only is refused unless each name in its request is
//! in one of them. Knows no call by name but those about the caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rota_gateway::{Gateway, Names};
use rota_proto::framing::{self, Header, PREFIX};
use tonic::Status;
use tonic::body::Body;

use super::people::{Namespaces, PersonCall};
use crate::wire::status;

/// Time to receive the only message of a call, or the first of a stream.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);
/// Calls about the caller alone.
const OWN: &[&str] = &[
    "/rota.v1.AdminService/IssueSignInCode",
    "/rota.v1.AdminService/CreateBrowserSession",
    "/rota.v1.AdminService/GetCurrentBrowserSession",
    "/rota.v1.AdminService/SignOut",
    "/rota.v1.AdminService/GetWebPush",
    "/rota.v1.AdminService/SubscribeWebPush",
    "/rota.v1.AdminService/UnsubscribeWebPush",
];

/// Returns the request again if its caller may call for the names in its first message, of at most `max_message` bytes. Later ones have
/// none that count.
pub(crate) async fn permit(
    gateway: Arc<Gateway>,
    max_message: usize,
    request: http::Request<Body>,
) -> Result<http::Request<Body>, http::Response<Body>> {
    let caller = request.extensions().get::<PersonCall>();
    let caller = caller.filter(|caller| caller.namespaces != Namespaces::All).cloned();
    match caller.filter(|_| !OWN.contains(&request.uri().path())) {
        None => Ok(request),
        Some(caller) => {
            // Boxed: the future of each call would be as large.
            let checked = Box::pin(check(&gateway, max_message, &caller, request)).await;
            checked.map_err(|refused| refused.into_http())
        }
    }
}

async fn check(
    gateway: &Gateway,
    max_message: usize,
    caller: &PersonCall,
    request: http::Request<Body>,
) -> Result<http::Request<Body>, Status> {
    let (parts, body) = request.into_parts();
    let read = tokio::time::timeout(MESSAGE_TIMEOUT, first_message(body, max_message)).await;
    let late = || Status::deadline_exceeded("the message of the call did not arrive");
    let (message, body) = read.map_err(|_| late())??;
    let names = gateway.names(parts.uri.path(), &message);
    let names = names.map_err(|error| Status::invalid_argument(format!("invalid message: {error}")))?;
    check_names(caller, &names)?;
    Ok(http::Request::from_parts(parts, body))
}

fn check_names(caller: &PersonCall, names: &Names) -> Result<(), Status> {
    let Namespaces::Of(permitted) = &caller.namespaces else { return Ok(()) };
    let is_permitted = |name: &String| {
        let rest = name.strip_prefix("namespaces/");
        let namespace = rest.and_then(|rest| rest.split('/').next());
        namespace.is_some_and(|namespace| caller.namespaces.contains(namespace))
    };
    if !names.subjects.is_empty() && names.subjects.iter().chain(&names.others).all(is_permitted) {
        return Ok(());
    }
    let all: Vec<_> = permitted.iter().map(|namespace| namespace.as_str()).collect();
    Err(status::hinted(
        "NAMESPACE_FORBIDDEN",
        format!("{} may not make this call outside of the namespaces {}", caller.person.name, all.join(", ")),
        "choose one of these namespaces (--namespace), or ask an admin for an entry in the file of --sign-in",
    ))
}

/// Returns the first message of a call, and its body with that message again.
async fn first_message(mut body: Body, max: usize) -> Result<(Bytes, Body), Status> {
    let mut read = BytesMut::new();
    let mut header: Option<Header> = None;
    while header.is_none_or(|header| read.len() < PREFIX + header.length) {
        let Some(frame) = body.frame().await.transpose()? else { break };
        let Ok(data) = frame.into_data() else { break };
        read.extend_from_slice(&data);
        if header.is_none()
            && let Some(found) = framing::header(&read)
        {
            if found.compressed {
                return Err(Status::unimplemented("compressed messages are not supported"));
            }
            if found.length > max {
                return Err(Status::out_of_range(format!("the message has more than {max} bytes")));
            }
            header = Some(found);
        }
    }
    let read = read.freeze();
    let message = header.and_then(|header| read.get(PREFIX..PREFIX + header.length));
    let message = message.map(|part| read.slice_ref(part));
    let message = message.ok_or_else(|| Status::invalid_argument("the call has no message"))?;
    let rest = stream::unfold(body, async |mut body| Some((body.frame().await?, body)));
    let all = stream::once(std::future::ready(Ok(Frame::data(read)))).chain(rest);
    Ok((message, Body::new(StreamBody::new(Box::pin(all)))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http_body_util::Full;
    use rota_core::Namespace;

    use super::super::people::Person;
    use super::*;

    fn caller() -> PersonCall {
        let namespaces = Namespaces::Of(BTreeSet::from([Namespace::new("team").unwrap()]));
        let person = Person {
            issuer: String::new(),
            subject: "ada".to_owned(),
            name: "ada".to_owned(),
            groups: Vec::new(),
        };
        let agents = namespaces.clone();
        PersonCall {
            person: Arc::new(person),
            agents,
            namespaces,
            is_viewer: false,
            is_admin: false,
            token_expires: None,
        }
    }

    fn is_permitted(subjects: &[&str], others: &[&str]) -> bool {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        check_names(&caller(), &Names { subjects: owned(subjects), others: owned(others) }).is_ok()
    }

    #[test]
    fn every_name_is_in_a_permitted_namespace() {
        assert!(is_permitted(&["namespaces/team"], &[]));
        assert!(is_permitted(&["namespaces/team/tasks/x"], &["namespaces/team/agents/a"]));
        for subject in [
            "",
            "namespaces/",
            "namespaces/-",
            "namespaces/teams",
            "namespaces/other/tasks/x",
            "tasks/x",
            "team",
        ] {
            assert!(!is_permitted(&[subject], &[]), "{subject:?}");
        }
        assert!(!is_permitted(&[], &[]) && !is_permitted(&[], &["namespaces/team"]));
        assert!(!is_permitted(&["namespaces/team"], &["namespaces/other/tasks/x"]));
    }

    #[tokio::test]
    async fn body_is_the_same_after_a_look() {
        let sent = [&[0, 0, 0, 0, 3][..], b"one", &[0, 0, 0, 0, 1], b"2"].concat();
        let chunks = sent.chunks(2).map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))));
        let body = Body::new(StreamBody::new(stream::iter(chunks.collect::<Vec<_>>())));
        let (message, body) = first_message(body, 8).await.unwrap();
        assert_eq!(&message[..], b"one");
        assert_eq!(body.collect().await.unwrap().to_bytes(), sent);
        for wrong in [&[][..], &[0, 0, 0, 0, 3, 1], &[1, 0, 0, 0, 1, 1], &[0, 0, 0, 0, 9, 1]] {
            let body = Body::new(Full::new(Bytes::copy_from_slice(wrong)));
            assert!(first_message(body, 8).await.is_err(), "{wrong:?}");
        }
    }
}
