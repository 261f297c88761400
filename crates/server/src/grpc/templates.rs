//! `TemplateService`. The newest version of a template is a document, and each version is another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use pbjson_types::Empty;
use prost::Message;
use rota_core::Namespace;
use rota_core::rank::Priority;
use rota_proto::v1::template_service_server::TemplateService;
use rota_proto::{names as n, v1};
use rota_store::{Command, Document, DocumentKey, DocumentKind, DocumentsPage, Expected, PutDocument, Reply};
use tonic::{Code, Request, Response, Status};

use super::answers::page_size;
use crate::creation::{Scope, managed};
use crate::kinds::Kinds;
use crate::room;
use crate::store_client::{StoreClient, no_reply, unexpected_reply};
use crate::wire::status::{self, error, invalid};
use crate::wire::{check, etag, names, template as wire, time};

/// Versions of a template that are kept.
const MAX_VERSIONS: i64 = 100;
/// Bytes of the documents that one page of a list reads.
const MAX_PAGE_BYTES: usize = 8 << 20;

#[derive(Clone)]
pub(crate) struct Templates {
    pub(crate) store: StoreClient,
    pub(crate) kinds: Kinds,
    /// Held by a call that reads a template before it writes it.
    pub(crate) changes: Arc<tokio::sync::Mutex<()>>,
}

type Key = (Namespace, String);

fn head((namespace, name): &Key) -> DocumentKey {
    DocumentKey { kind: DocumentKind::Template, namespace: namespace.clone(), name: name.clone() }
}

fn version_of((namespace, name): &Key, version: i64) -> DocumentKey {
    let name = format!("{name}@{version}");
    DocumentKey { kind: DocumentKind::TemplateVersion, namespace: namespace.clone(), name }
}

/// Returns the template of a document, which has what does not change with each version in the payload.
fn decode(document: &Document, key: &Key) -> Result<v1::WorkflowTemplate, Status> {
    let template = v1::WorkflowTemplate::decode(&document.payload[..])
        .map_err(|_| error("STORE_CORRUPT", format!("the record of template {} cannot be decoded", key.1)))?;
    // What is stored as a version is never changed.
    let is_head = document.key.kind == DocumentKind::Template;
    let etag = if is_head { etag::of_document(document) } else { String::new() };
    Ok(v1::WorkflowTemplate { name: n::template(key.0.as_str(), &key.1), etag, ..template })
}

fn missing(key: &Key, version: i64) -> Status {
    let text = match version {
        0 => format!("template {} does not exist in namespace {}", key.1, key.0),
        version => format!("template {} has no version {version}", key.1),
    };
    error("TEMPLATE_NOT_FOUND", text)
}

fn hint() -> String {
    "change the WorkflowTemplate resource with kubectl".to_owned()
}

/// Returns a template: a version of it, or the newest one for 0.
pub(crate) async fn template_at(
    store: &StoreClient,
    namespace: Namespace,
    name: String,
    version: i64,
) -> Result<v1::WorkflowTemplate, Status> {
    let key = (namespace, name);
    let document = if version == 0 { head(&key) } else { version_of(&key, version) };
    let found = store.reads().document(document).await.map_err(status::store)?;
    decode(&found.ok_or_else(|| missing(&key, version))?, &key)
}

impl Templates {
    async fn read(&self, key: DocumentKey) -> Result<Option<Document>, Status> {
        self.store.reads().document(key).await.map_err(status::store)
    }

    async fn put(
        &self,
        key: &Key,
        given: v1::WorkflowTemplate,
        known: Option<Document>,
        dry_run: bool,
    ) -> Result<v1::WorkflowTemplate, Status> {
        let before = known.as_ref().map(|known| decode(known, key)).transpose()?;
        check::labels("workflow_template.labels", &given.labels)?;
        let spec = given.spec.as_ref().ok_or_else(|| invalid("workflow_template.spec", "is required"))?;
        wire::check(spec)?;
        let (version, is_new) = match &before {
            Some(before) if before.spec == given.spec && before.labels == given.labels => {
                return Ok(before.clone());
            }
            Some(before) if before.spec == given.spec => (before.version, false),
            Some(before) => (before.version + 1, true),
            None => (1, true),
        };
        let steps = "workflow_template.spec.workflow.steps";
        let kinds: Vec<&str> = spec.workflow.iter().flat_map(wire::kinds).collect();
        self.kinds.check(&key.0, steps, &kinds).await?;
        let full = room::refusal(self.store.space(), Priority::NORMAL);
        if let Some(full) = full.filter(|_| is_new && !dry_run) {
            return Err(full);
        }
        let now = Some(time::timestamp(crate::clock::now()));
        let uid =
            before.as_ref().map_or_else(|| uuid::Uuid::new_v4().to_string(), |before| before.uid.clone());
        let template = v1::WorkflowTemplate {
            name: n::template(key.0.as_str(), &key.1),
            uid,
            labels: given.labels,
            spec: given.spec,
            version,
            create_time: before.as_ref().map_or(now, |before| before.create_time),
            update_time: if is_new { now } else { before.as_ref().and_then(|before| before.update_time) },
            // Of the record, which it is a part of.
            etag: String::new(),
        };
        let expected = known.as_ref().map_or(Expected::Absent, Document::expected);
        let payload = bytes::Bytes::from(template.encode_to_vec());
        let put =
            |key, expected| Command::PutDocument(PutDocument { key, payload: payload.clone(), expected });
        let mut batch = vec![put(head(key), expected)];
        if is_new {
            batch.push(put(version_of(key, version), Expected::Any));
        }
        if is_new && version > MAX_VERSIONS {
            let key = version_of(key, version - MAX_VERSIONS);
            batch.push(Command::DeleteDocument(key, Expected::Any));
        }
        let replies = if dry_run { self.store.dry_run(batch).await } else { self.store.apply(batch).await };
        match replies.map_err(status::store)?.into_iter().next().ok_or_else(no_reply)? {
            Ok(Reply::Document(document)) => {
                Ok(v1::WorkflowTemplate { etag: etag::of_document(&document), ..template })
            }
            Ok(_) => Err(unexpected_reply()),
            Err(refused) => Err(status::refused(refused)),
        }
    }
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn create_workflow_template(
        &self,
        request: Request<v1::CreateWorkflowTemplateRequest>,
    ) -> Result<Response<v1::WorkflowTemplate>, Status> {
        let request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        let key = (namespace, names::short_name("workflow_template_id", &request.workflow_template_id)?);
        let given = request.workflow_template.ok_or_else(|| invalid("workflow_template", "is required"))?;
        let _exclusive = self.changes.lock().await;
        if self.read(head(&key)).await?.is_some() {
            return Err(error("TEMPLATE_EXISTS", format!("template {} already exists", key.1)));
        }
        self.put(&key, given, None, request.validate_only).await.map(Response::new)
    }

    async fn get_workflow_template(
        &self,
        request: Request<v1::GetWorkflowTemplateRequest>,
    ) -> Result<Response<v1::WorkflowTemplate>, Status> {
        let request = request.into_inner();
        let key = names::template("name", &request.name)?;
        template_at(&self.store, key.0, key.1, request.version).await.map(Response::new)
    }

    async fn list_workflow_templates(
        &self,
        request: Request<v1::ListWorkflowTemplatesRequest>,
    ) -> Result<Response<v1::ListWorkflowTemplatesResponse>, Status> {
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let limit = page_size(request.page_size, 100)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(names::template("page_token", token)?),
        };
        let page =
            DocumentsPage { kind: DocumentKind::Template, namespace, after, limit, bytes: MAX_PAGE_BYTES };
        let found = self.store.reads().documents(page).await.map_err(status::store)?;
        let mut templates = Vec::with_capacity(found.documents.len());
        for document in &found.documents {
            let key = (document.key.namespace.clone(), document.key.name.clone());
            let whole = decode(document, &key)?;
            let spec = whole.spec.map(|spec| v1::WorkflowTemplateSpec { workflow: None, ..spec });
            templates.push(v1::WorkflowTemplate { spec, ..whole });
        }
        let last = templates.last().filter(|_| found.more).map(|last| last.name.clone());
        Ok(Response::new(v1::ListWorkflowTemplatesResponse {
            workflow_templates: templates,
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn update_workflow_template(
        &self,
        request: Request<v1::UpdateWorkflowTemplateRequest>,
    ) -> Result<Response<v1::WorkflowTemplate>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let mut given =
            request.workflow_template.ok_or_else(|| invalid("workflow_template", "is required"))?;
        let key = names::template("workflow_template.name", &given.name)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        if let Some(other) = paths.iter().find(|path| !matches!(path.as_str(), "*" | "labels" | "spec")) {
            let why = format!("{:?} cannot be updated; labels and spec can", check::shorten(other));
            return Err(invalid("update_mask", why));
        }
        let _exclusive = self.changes.lock().await;
        let known = self.read(head(&key)).await?;
        match &known {
            None if !request.allow_missing => return Err(missing(&key, 0)),
            Some(known) => {
                let before = decode(known, &key)?;
                scope.check_template(&key.1, &before.labels)?;
                managed::check(&before.labels, &given.labels, &format!("template {}", key.1), hint)?;
            }
            None => scope.check_new(&given.labels)?,
        }
        etag::expected(&request.etag, known.as_ref())?;
        match &known {
            Some(known) if !paths.is_empty() && !paths.iter().any(|path| path == "*") => {
                let before = decode(known, &key)?;
                let has = |path: &str| paths.iter().any(|given| given == path);
                if !has("labels") {
                    given.labels = before.labels;
                }
                if !has("spec") {
                    given.spec = before.spec;
                }
            }
            _ => {}
        }
        self.put(&key, given, known, request.validate_only).await.map(Response::new)
    }

    async fn delete_workflow_template(
        &self,
        request: Request<v1::DeleteWorkflowTemplateRequest>,
    ) -> Result<Response<Empty>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let key = names::template("name", &request.name)?;
        let _exclusive = self.changes.lock().await;
        let mut expected = Expected::Any;
        let last = match self.read(head(&key)).await {
            Ok(Some(document)) => {
                let known = decode(&document, &key)?;
                expected = etag::expected(&request.etag, Some(&document))?;
                scope.check_template(&key.1, &known.labels)?;
                if scope == Scope::All {
                    managed::check(&known.labels, &BTreeMap::new(), &format!("template {}", key.1), hint)?;
                }
                known.version
            }
            Ok(None) if request.allow_missing => return Ok(Response::new(Empty {})),
            Ok(None) => return Err(missing(&key, 0)),
            // Nothing is known of one that cannot be decoded. A template that is created again replaces its versions.
            Err(damaged) if damaged.code() == Code::DataLoss && scope == Scope::All => 0,
            Err(failed) => return Err(failed),
        };
        let versions = (last - MAX_VERSIONS).max(0) + 1..=last;
        let versions = versions.map(|version| (version_of(&key, version), Expected::Any));
        let keys = std::iter::once((head(&key), expected)).chain(versions);
        let batch = keys.map(|(key, expected)| Command::DeleteDocument(key, expected)).collect();
        let replies = self.store.apply(batch).await.map_err(status::store)?;
        replies.into_iter().next().ok_or_else(no_reply)?.map_err(status::refused)?;
        Ok(Response::new(Empty {}))
    }
}
