//! Serves the services of a control plane, and shuts it down gracefully.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;

use ::http::Request;
use rota_gateway::{Gateway, Sockets};
use rota_proto::v1::admin_service_server::AdminServiceServer;
use rota_proto::v1::agent_service_server::AgentServiceServer;
use rota_proto::v1::artifact_service_server::ArtifactServiceServer;
use rota_proto::v1::schedule_service_server::ScheduleServiceServer;
use rota_proto::v1::task_kind_service_server::TaskKindServiceServer;
use rota_proto::v1::task_service_server::TaskServiceServer;
use rota_proto::v1::template_service_server::TemplateServiceServer;
use rota_proto::v1::workflow_service_server::WorkflowServiceServer;
use rota_proto::worker::v1::worker_service_server::WorkerServiceServer;
use rota_telemetry::{OnExit, spawn};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceBuilder;

use super::{Bound, connections};
use crate::around::{Share, around, unless_answered};
use crate::error::{Error, ShutdownOutcome};
use crate::grpc::{self, deadline, encoded, ending, traced};
use crate::trust::{accept, auth, cors, roles, scope};
use crate::{code_flow, http, message_limits};

/// Largest message that is accepted.
const MAX_MESSAGE_SIZE: usize = message_limits::MAX_REQUEST;
const MAX_HEALTH_REQUEST: usize = 256;

impl Bound {
    /// Serves until `shutdown`; then ends every stream, waits for the shutdown grace period, and closes the store.
    pub async fn run(self, shutdown: CancellationToken) -> Result<ShutdownOutcome, Error> {
        let (grace, limits, mut background) = (self.shutdown_grace, self.limits, self.background);
        let base = self.authenticator.base_path().clone();
        let console = self.console.then(|| rota_console::Pages::new(base.as_str()));
        let Self { listener, tls, http, authenticator, cors_origins, store, services, pages, stop, .. } =
            self;
        let code_flow = services.admin.code_flow.clone();
        let reflection = grpc::reflection().map_err(Error::Reflection)?;
        let tasks = TaskServiceServer::new(services.tasks)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let workflows = WorkflowServiceServer::new(services.workflows)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let workers = WorkerServiceServer::new(services.workers)
            .max_decoding_message_size(message_limits::MAX_MESSAGE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let agents = AgentServiceServer::new(services.agents)
            .max_decoding_message_size(message_limits::MAX_ADMIN_REQUEST);
        let admin = AdminServiceServer::new(services.admin)
            .max_decoding_message_size(message_limits::MAX_ADMIN_REQUEST);
        let artifacts = ArtifactServiceServer::new(services.artifacts)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let schedules = ScheduleServiceServer::new(services.schedules)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let templates = TemplateServiceServer::new(services.templates)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let kinds = TaskKindServiceServer::new(services.kinds)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(2 * MAX_MESSAGE_SIZE);
        let health = HealthServer::new(services.health).max_decoding_message_size(MAX_HEALTH_REQUEST);

        let max_body = |path: &str| roles::is_anonymous(path).then_some(message_limits::MAX_ANONYMOUS);
        let gateway = Gateway::new(base.as_str(), max_body).map_err(Error::Gateway)?;

        let (calls, open) = (TaskTracker::new(), TaskTracker::new());
        let sockets =
            Sockets { stop: stop.clone(), open: open.clone(), origins: cors_origins.clone().into() };
        let mut routes = Routes::builder();
        routes
            .add_service(tasks)
            .add_service(workflows)
            .add_service(agents)
            .add_service(admin)
            .add_service(artifacts)
            .add_service(schedules)
            .add_service(templates)
            .add_service(kinds)
            .add_service(workers)
            .add_service(health)
            .add_service(reflection);
        let (authenticator, stopping) = (Arc::new(authenticator), stop.clone());
        // Calls until their answer begins: one whose answer is a single message has nothing left to do then.
        let unanswered = calls.clone();
        let gateway_layer = rota_gateway::Layer { gateway: Arc::clone(&gateway), sockets };
        let service = ServiceBuilder::new()
            .map_request(move |request: Request<Body>| base.strip(request))
            .layer(cors::layer(cors_origins))
            .layer(unless_answered(move |request| code_flow::answer(code_flow.clone(), request)))
            .layer(unless_answered(move |request| {
                let page = console.as_ref().and_then(|pages| pages.answer(&request));
                ready(page.map_or(Ok(request), Err))
            }))
            // What it makes of requests passes all others.
            .layer(gateway_layer)
            .layer(Share)
            .layer(around(deadline::enforce))
            .layer(around(move |request, inner| auth::authorize(Arc::clone(&authenticator), request, inner)))
            .map_future(move |answer| unanswered.track_future(answer))
            .layer(around(move |request, inner| ending::end_streams(stopping.clone(), request, inner)))
            .layer(tonic_web::GrpcWebLayer::new())
            .layer(Share)
            // In front of all that reads messages.
            .map_request(message_limits::limit)
            .layer(unless_answered(move |request| {
                scope::permit(Arc::clone(&gateway), MAX_MESSAGE_SIZE, request)
            }))
            .layer(around(traced::record))
            .map_response(encoded::replace)
            .service(routes.routes().prepare());

        let scraper = pages.scraper.clone();
        let http_stop = CancellationToken::new();
        if let Some(listener) = http {
            spawn("http-listener", OnExit::Done, http::serve(listener, pages, http_stop.clone()));
        }
        spawn("metrics-export", OnExit::Done, scraper.clone().send(stop.clone()));
        // A replica that exits, for whatever reason, stops answering probes.
        let _http_stop = http_stop.drop_guard();
        let incoming = accept::incoming(listener, tls, limits, shutdown.clone());
        let mut serve = pin!(connections::serve(incoming, service, limits, stop.clone()));
        let (is_over, exited) = tokio::select! {
            () = &mut serve => (true, None),
            () = shutdown.cancelled() => (false, None),
            // A process that exits is restarted; a server without its background tasks would only refuse calls.
            task = background.first_exit() => (false, Some(task)),
        };
        // The server waits for its streams, so that they have to end by themselves.
        stop.cancel();
        calls.close();
        open.close();
        let deadline = Instant::now() + grace;
        // An idle connection must not hold up the shutdown either.
        let served = async {
            if !is_over {
                serve.await;
            }
            open.wait().await;
        };
        let drained = async { timeout_at(deadline, served).await.is_ok() };
        // Another replica waits for the store. Connections stay after their calls: that of a client that has vanished, until the
        // grace period is over.
        let store = async {
            let _ = timeout_at(deadline, calls.wait()).await;
            store.reads().close().await;
        };
        let (ended, ()) = tokio::join!(drained, store);
        let mut outcome = ShutdownOutcome::Graceful;
        if !ended {
            tracing::warn!(
                ?grace,
                "calls and WebSockets still open after the shutdown grace period were cut off"
            );
            outcome = ShutdownOutcome::Forced;
        }
        if !background.join(grace).await {
            tracing::warn!(?grace, "a background task did not exit within the shutdown grace period");
            outcome = ShutdownOutcome::Forced;
        }
        scraper.send_last();
        match exited {
            Some(task) => Err(Error::BackgroundTaskExited(task)),
            None => Ok(outcome),
        }
    }
}
