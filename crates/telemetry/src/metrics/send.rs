//! Sends snapshots to a collector. One at a time: what a slow collector misses, the next snapshot has, too.

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

use super::snapshot::Span;
use crate::otlp::{Error, Http, Protocol, Target};
use crate::{clock, env};

static EXPORT: OnceLock<Export> = OnceLock::new();

/// Between two snapshots, where nobody says.
const INTERVAL: Duration = Duration::from_secs(60);

struct Export {
    way: Arc<Mutex<Way>>,
    runtime: Handle,
    resource: Resource,
    began: u64,
    interval: Duration,
}

struct Way {
    target: Target,
    to: To,
    /// What is wrong is said once, and not each minute.
    failing: bool,
}

enum To {
    Grpc(MetricsServiceClient<Channel>),
    Http(Http),
}

pub(crate) fn start(
    target: &Target,
    resource: &opentelemetry_sdk::Resource,
    runtime: &Handle,
) -> Result<(), Error> {
    let to = match target.protocol {
        Protocol::Grpc => {
            let _inside = runtime.enter();
            To::Grpc(MetricsServiceClient::new(channel(target)?))
        }
        _ => To::Http(Http::new(target, runtime)?),
    };
    let interval = env::var("OTEL_METRIC_EXPORT_INTERVAL").and_then(|text| text.trim().parse().ok());
    let _ = EXPORT.set(Export {
        way: Arc::new(Mutex::new(Way { target: target.clone(), to, failing: false })),
        runtime: runtime.clone(),
        resource: Resource {
            attributes: ResourceAttributesWithSchema::from(resource).attributes.0,
            ..Resource::default()
        },
        began: nanos(),
        interval: interval.map_or(INTERVAL, |millis: u64| Duration::from_millis(millis.max(1))),
    });
    Ok(())
}

fn channel(target: &Target) -> Result<Channel, Error> {
    let wrong = |error: tonic::transport::Error| Error::Endpoint {
        endpoint: target.shown(&target.endpoint),
        why: target.shown(&error.to_string()),
    };
    let mut endpoint = Endpoint::from_shared(target.endpoint.clone()).map_err(wrong)?.timeout(target.timeout);
    if target.endpoint.starts_with("https://") {
        let tls = match &target.authority {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(wrong)?;
    }
    Ok(endpoint.connect_timeout(target.timeout).connect_lazy())
}

fn nanos() -> u64 {
    u64::try_from(clock::unix_micros()).unwrap_or(0).saturating_mul(1000)
}

/// How often figures shall be sent; none if not at all.
pub fn interval() -> Option<Duration> {
    EXPORT.get().map(|export| export.interval)
}

/// The time that a snapshot taken now is about.
pub(super) fn span() -> Option<Span> {
    EXPORT.get().map(|export| Span { began: export.began, now: nanos() })
}

/// Hands a snapshot over. Never waits; while one is under way, another is left out.
pub(super) fn send(metrics: Vec<Metric>) {
    let Some(export) = EXPORT.get() else { return };
    let Ok(mut way) = Arc::clone(&export.way).try_lock_owned() else {
        return tracing::warn!("figures are left out: the collector has not taken those before them");
    };
    let scope = InstrumentationScope {
        name: "rota".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() };
    let resource = Some(export.resource.clone());
    let metrics = ResourceMetrics { resource, scope_metrics: vec![metrics], ..ResourceMetrics::default() };
    let request = ExportMetricsServiceRequest { resource_metrics: vec![metrics] };
    drop(export.runtime.spawn(async move {
        let sent = way.send(request).await;
        let failed_before = std::mem::replace(&mut way.failing, sent.is_err());
        match sent {
            Err(why) if !failed_before => {
                tracing::warn!("figures cannot be sent: {why}");
            }
            Ok(()) if failed_before => tracing::info!("figures are sent again"),
            _ => {}
        }
    }));
}

impl Way {
    async fn send(&mut self, request: ExportMetricsServiceRequest) -> Result<(), String> {
        let body = match (&mut self.to, self.target.protocol) {
            (To::Grpc(client), _) => {
                let mut request = tonic::Request::new(request);
                let headers = self.target.headers.iter().cloned().collect();
                *request.metadata_mut() = MetadataMap::from_headers(headers);
                return match client.export(request).await {
                    Ok(_) => Ok(()),
                    Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
                };
            }
            (To::Http(_), Protocol::HttpJson) => {
                serde_json::to_vec(&request).map_err(|error| error.to_string())?
            }
            (To::Http(_), _) => request.encode_to_vec(),
        };
        let To::Http(http) = &self.to else { return Ok(()) };
        http.post(&self.target, body).await
    }
}

/// Waits until nothing is under way, for at most so long. Blocks.
pub(crate) fn flush(limit: Duration) {
    let Some(export) = EXPORT.get() else { return };
    let (done, sent) = mpsc::channel();
    let way = Arc::clone(&export.way);
    drop(export.runtime.spawn(async move {
        let _way = way.lock().await;
        let _ = done.send(());
    }));
    if sent.recv_timeout(limit).is_err() {
        tracing::warn!("the last figures were not sent within {limit:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::{Protocol, Settings};

    #[test]
    fn an_address_that_cannot_be_used_is_told_without_its_password() {
        let settings = Settings::to("t", "http://me:secret@no host", Protocol::Grpc);
        let failed = channel(&settings.metrics.unwrap()).unwrap_err();
        let told = format!("{failed} {failed:?}");
        assert!(told.contains("no host") && !told.contains("secret"), "{told}");
    }
}
