//! Push of metric snapshots to a collector, one at a time: values are cumulative, so the next snapshot makes up for one
//! that a slow collector missed.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::snapshot::Interval;
use crate::otlp::{Error, HttpTransport, Protocol, Target};
use crate::{clock, env};

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

const DEFAULT_EXPORT_INTERVAL: Duration = Duration::from_secs(60);

struct Exporter {
    sender: Arc<Mutex<Sender>>,
    runtime: Handle,
    resource: Resource,
    /// When counting began, in nanoseconds since the Unix epoch.
    started_at: u64,
    interval: Duration,
}

struct Sender {
    target: Target,
    transport: Transport,
    /// Whether the last export failed: only the first failure in a row is logged.
    failing: bool,
}

enum Transport {
    Grpc(MetricsServiceClient<Channel>),
    Http(HttpTransport),
}

pub(crate) fn start(
    target: &Target,
    resource: &opentelemetry_sdk::Resource,
    runtime: &Handle,
) -> Result<(), Error> {
    let transport = match target.protocol {
        Protocol::Grpc => {
            let _inside = runtime.enter();
            Transport::Grpc(MetricsServiceClient::new(channel(target)?))
        }
        _ => Transport::Http(HttpTransport::new(target, runtime)?),
    };
    let interval = env::var("OTEL_METRIC_EXPORT_INTERVAL").and_then(|text| text.trim().parse().ok());
    let _ = EXPORTER.set(Exporter {
        sender: Arc::new(Mutex::new(Sender { target: target.clone(), transport, failing: false })),
        runtime: runtime.clone(),
        resource: Resource {
            attributes: ResourceAttributesWithSchema::from(resource).attributes.0,
            ..Resource::default()
        },
        started_at: unix_nanos(),
        interval: interval
            .map_or(DEFAULT_EXPORT_INTERVAL, |millis: u64| Duration::from_millis(millis.max(1))),
    });
    Ok(())
}

fn channel(target: &Target) -> Result<Channel, Error> {
    let invalid = |error: tonic::transport::Error| Error::Endpoint {
        endpoint: target.without_password(&target.endpoint),
        reason: target.without_password(&error.to_string()),
    };
    let mut endpoint =
        Endpoint::from_shared(target.endpoint.clone()).map_err(invalid)?.timeout(target.timeout);
    if target.endpoint.starts_with("https://") {
        let tls = match &target.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(invalid)?;
    }
    Ok(endpoint.connect_timeout(target.timeout).connect_lazy())
}

fn unix_nanos() -> u64 {
    u64::try_from(clock::unix_micros()).unwrap_or(0).saturating_mul(1000)
}

/// Returns how often metrics are to be exported, or `None` if no collector is configured.
pub fn export_interval() -> Option<Duration> {
    EXPORTER.get().map(|exporter| exporter.interval)
}

/// Returns the interval that a snapshot taken now covers, or `None` if no collector is configured.
pub(super) fn snapshot_interval() -> Option<Interval> {
    EXPORTER.get().map(|exporter| Interval { start: exporter.started_at, end: unix_nanos() })
}

/// Hands a snapshot to the sender without waiting. Drops it while the previous export is still in flight.
pub(super) fn export(metrics: Vec<Metric>) {
    let Some(exporter) = EXPORTER.get() else { return };
    let Ok(mut sender) = Arc::clone(&exporter.sender).try_lock_owned() else {
        return tracing::warn!("dropping metrics export: previous export still in flight");
    };
    let scope = InstrumentationScope {
        name: "rota".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
    let resource = Some(exporter.resource.clone());
    let metrics = ResourceMetrics { resource, scope_metrics: vec![metrics], ..ResourceMetrics::default() };
    let request = ExportMetricsServiceRequest { resource_metrics: vec![metrics] };
    drop(exporter.runtime.spawn(async move {
        let result = sender.send(request).await;
        let was_failing = std::mem::replace(&mut sender.failing, result.is_err());
        match result {
            Err(error) if !was_failing => tracing::warn!(error, "metrics export failed"),
            Ok(()) if was_failing => tracing::info!("metrics export recovered"),
            _ => {}
        }
    }));
}

impl Sender {
    async fn send(&mut self, request: ExportMetricsServiceRequest) -> Result<(), String> {
        let http = match &mut self.transport {
            Transport::Http(http) => http,
            Transport::Grpc(client) => {
                let mut request = tonic::Request::new(request);
                let headers = self.target.headers.iter().cloned().collect();
                *request.metadata_mut() = MetadataMap::from_headers(headers);
                return match client.export(request).await {
                    Ok(_) => Ok(()),
                    Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
                };
            }
        };
        let body = match self.target.protocol {
            Protocol::HttpJson => serde_json::to_vec(&request).map_err(|error| error.to_string())?,
            _ => request.encode_to_vec(),
        };
        http.post(&self.target, body).await
    }
}

/// Waits until no export is in flight, for at most `timeout`. Blocks.
pub(crate) fn flush(timeout: Duration) {
    let Some(exporter) = EXPORTER.get() else { return };
    let (idle, flushed) = mpsc::channel();
    let sender = Arc::clone(&exporter.sender);
    drop(exporter.runtime.spawn(async move {
        let _sender = sender.lock().await;
        let _ = idle.send(());
    }));
    if flushed.recv_timeout(timeout).is_err() {
        tracing::warn!(?timeout, "the last metrics export did not finish in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::Settings;

    #[test]
    fn invalid_endpoint_error_hides_password() {
        let settings = Settings::for_endpoint("t", "http://me:secret@no host", Protocol::Grpc);
        let error = channel(&settings.metrics.unwrap()).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("no host"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
