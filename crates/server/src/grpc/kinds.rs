//! `TaskKindService`.

use std::sync::Arc;

use pbjson_types::Empty;
use prost::Message;
use rota_core::rank::Priority;
use rota_proto::v1;
use rota_proto::v1::task_kind_service_server::TaskKindService;
use rota_store::{Command, DocumentKey, DocumentKind, DocumentsPage, PutDocument, Reply};
use tonic::{Request, Response, Status};

use super::answers::page_size;
use crate::kinds::{self, Kinds, MAX_KINDS};
use crate::room;
use crate::store_client::{no_reply, unexpected_reply};
use crate::wire::status::{self, error, hinted, invalid};
use crate::wire::{etag, kind as wire, names};

/// Kinds of one page of a list, encoded; the page has at least one.
const MAX_PAGE_BYTES: usize = 1 << 20;

fn missing(name: &str) -> Status {
    error("TASK_KIND_NOT_FOUND", format!("kind {name} does not exist in the namespace"))
}

fn full_name(key: &DocumentKey) -> String {
    rota_proto::names::kind(key.namespace.as_str(), &key.name)
}

impl Kinds {
    /// Returns a page of the kinds that all namespaces have of their own.
    async fn list_own(
        &self,
        request: &v1::ListTaskKindsRequest,
    ) -> Result<v1::ListTaskKindsResponse, Status> {
        let limit = page_size(request.page_size, 100)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(names::kind("page_token", token)?),
        };
        let page = DocumentsPage {
            kind: DocumentKind::TaskKind,
            namespace: None,
            after,
            limit,
            bytes: MAX_PAGE_BYTES,
        };
        let found = self.store.reads().documents(page).await.map_err(status::store)?;
        let mut response = v1::ListTaskKindsResponse::default();
        for document in &found.documents {
            // One that cannot be read hides no other.
            match kinds::decode(document) {
                Ok(kind) => response.task_kinds.push(kind),
                Err(_) => response.damaged.push(full_name(&document.key)),
            }
        }
        if let Some(last) = found.documents.last().filter(|_| found.more) {
            response.next_page_token = full_name(&last.key);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl TaskKindService for Kinds {
    async fn get_task_kind(
        &self,
        request: Request<v1::GetTaskKindRequest>,
    ) -> Result<Response<v1::TaskKind>, Status> {
        let (namespace, name) = names::kind("name", &request.into_inner().name)?;
        self.get(&namespace, &name).await?.ok_or_else(|| missing(&name)).map(Response::new)
    }

    async fn list_task_kinds(
        &self,
        request: Request<v1::ListTaskKindsRequest>,
    ) -> Result<Response<v1::ListTaskKindsResponse>, Status> {
        let request = request.into_inner();
        let Some(namespace) = names::parent_or_all("parent", &request.parent)? else {
            return self.list_own(&request).await.map(Response::new);
        };
        let limit = page_size(request.page_size, 100)?;
        let after = match request.page_token.as_str() {
            "" => String::new(),
            token => names::kind("page_token", token)?.1,
        };
        let rest = Arc::unwrap_or_clone(self.all(&namespace).await?).into_iter();
        let mut rest = rest.filter(|(name, _)| *name > after).peekable();
        let (mut page, mut bytes) = (v1::ListTaskKindsResponse::default(), 0);
        while let Some((_, kind)) = rest.peek() {
            bytes += kind.encoded_len();
            if page.task_kinds.len() == limit || (bytes > MAX_PAGE_BYTES && !page.task_kinds.is_empty()) {
                page.next_page_token =
                    page.task_kinds.last().map(|last| last.name.clone()).unwrap_or_default();
                break;
            }
            page.task_kinds.extend(rest.next().map(|(_, kind)| kind));
        }
        Ok(Response::new(page))
    }

    async fn put_task_kind(
        &self,
        request: Request<v1::PutTaskKindRequest>,
    ) -> Result<Response<v1::TaskKind>, Status> {
        let request = request.into_inner();
        let given = request.task_kind.ok_or_else(|| invalid("task_kind", "is required"))?;
        let (namespace, name) = names::kind("task_kind.name", &given.name)?;
        let spec = given.spec.ok_or_else(|| invalid("task_kind.spec", "is required"))?;
        wire::check(&spec)?;
        let _exclusive = self.changes.lock().await;
        let own = self.own(&namespace).await?;
        let is_new = own.iter().all(|document| document.key.name != name);
        if is_new && own.len() >= MAX_KINDS {
            let text = format!("namespace {namespace} has {MAX_KINDS} kinds, the most that are allowed");
            return Err(hinted(
                "LIMIT_REACHED",
                text,
                "delete one that is not used: `rota kind delete NAME`",
            ));
        }
        let full = room::refusal(self.store.space(), Priority::NORMAL);
        if let Some(full) = full.filter(|_| is_new && !request.validate_only) {
            return Err(full);
        }
        let current = own.iter().find(|document| document.key.name == name);
        let expected = etag::expected(&request.etag, current)?;
        let payload = spec.encode_to_vec().into();
        let key = kinds::key(&namespace, &name);
        let batch = vec![Command::PutDocument(PutDocument { key, payload, expected })];
        let replies = match request.validate_only {
            true => self.store.dry_run(batch).await,
            false => self.store.apply(batch).await,
        };
        match replies.map_err(status::store)?.into_iter().next().ok_or_else(no_reply)? {
            Ok(Reply::Document(document)) => kinds::decode(&document).map(Response::new),
            Ok(_) => Err(unexpected_reply()),
            Err(refused) => Err(status::refused(refused)),
        }
    }

    async fn delete_task_kind(
        &self,
        request: Request<v1::DeleteTaskKindRequest>,
    ) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (namespace, name) = names::kind("name", &request.name)?;
        let _exclusive = self.changes.lock().await;
        let own = self.own(&namespace).await?;
        let current = own.iter().find(|document| document.key.name == name);
        let expected = etag::expected(&request.etag, current)?;
        let delete = Command::DeleteDocument(kinds::key(&namespace, &name), expected);
        let replies = self.store.apply(vec![delete]).await.map_err(status::store)?;
        replies.into_iter().next().ok_or_else(no_reply)?.map_err(status::refused)?;
        Ok(Response::new(Empty {}))
    }
}
