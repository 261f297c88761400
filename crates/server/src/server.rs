//! Wires a control plane together. `run.rs` runs it, and shuts it down gracefully.

mod connections;
mod run;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::agents::AgentRegistry;
use crate::alerts::Alerts;
use crate::approvals::Approvals;
use crate::artifacts::Artifacts;
use crate::attention::Attention;
use crate::background::{self, BackgroundDeps, BackgroundHandles, Claimer, CommitLoop};
use crate::barrier::Barriers;
use crate::breakers::Breakers;
use crate::code_flow::CodeFlow;
use crate::commit_applier::CommitApplier;
use crate::demand::Demand;
use crate::dispatcher::Dispatcher;
use crate::error::Error;
use crate::grpc::{self, Explainer, Streams};
use crate::health::Health;
use crate::history::History;
use crate::http::{self, Pages};
use crate::kinds::Kinds;
use crate::lineage::Lineage;
use crate::metrics::{Metrics, Scraper};
use crate::notify::{Notifier, WebPush};
use crate::options::{Limits, Options};
use crate::scheduler::Scheduler;
use crate::sessions::{self, SessionDeps};
use crate::store_client::StoreClient;
use crate::trust::auth::{Accepted, Authenticator, Sessions};
use crate::trust::browser_sessions::BrowserSessions;
use crate::trust::cookies::Cookies;
use crate::trust::people::PeopleVerifier;
use crate::trust::sign_in::SignInCodes;
use crate::trust::tls;
use crate::trust::token_registry::TokenRegistry;
use crate::trust::worker_token::WorkerTokens;
use crate::watchers::{Deltas, Watchers};
use crate::workflows::{self, ReadySteps};
use crate::{follow, schedules, seal};

/// Entry point: binds a control plane to its addresses and its store.
#[derive(Debug)]
pub struct Server;

/// A control plane that listens.
pub struct Bound {
    addr: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    http: Option<TcpListener>,
    authenticator: Authenticator,
    worker_tokens: WorkerTokens,
    shutdown_grace: Duration,
    limits: Limits,
    console: bool,
    cors_origins: Vec<HeaderValue>,
    store: StoreClient,
    services: Services,
    pages: Pages,
    background: BackgroundHandles,
    stop: CancellationToken,
}

/// The gRPC services, before they are wrapped for the transport.
struct Services {
    tasks: grpc::Tasks,
    workflows: grpc::Workflows,
    agents: grpc::Agents,
    admin: grpc::Admin,
    schedules: grpc::Schedules,
    templates: grpc::Templates,
    kinds: Kinds,
    artifacts: grpc::ArtifactsService,
    workers: sessions::Service,
    health: grpc::HealthService,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Restores the state from the store, and listens.
    pub async fn bind(options: Options) -> Result<Bound, Error> {
        let commits = options.store.commits().ok_or(Error::InUse)?;
        let metrics = Arc::new(Metrics::new(&options.background_tasks));
        let clock = Arc::clone(&options.clock);
        let store = StoreClient::new(Arc::clone(&options.store), clock, metrics.write_failures())
            .with_limits(options.limits.work, metrics.refused());
        let sealer = Arc::new(seal::open(&options.keys, &store).await?);
        let lineage = Lineage::begin(&store).await?;
        metrics.history_lost(lineage.loss());
        let snapshot = options.store.snapshot().await?;
        let (listener, addr) = http::listen(options.listen).await?;
        let http = match options.http_listen {
            Some(addr) => Some(http::listen(addr).await?.0),
            None => None,
        };
        let stop = CancellationToken::new();
        let tls = match &options.tls {
            Some(files) => Some(
                tls::acceptor(files, &options.background_tasks, stop.clone()).await.map_err(Error::Tls)?,
            ),
            None => None,
        };
        let token_registry = TokenRegistry::restore(&store, &metrics).await?;
        let worker_tokens = WorkerTokens::new(Arc::clone(&sealer), Arc::new(token_registry));
        let people = options.people.map(Arc::new);
        let people_verifier = people.clone().map(|people| Arc::new(PeopleVerifier::new(people)));
        let browser_sessions =
            Arc::new(BrowserSessions::new(Default::default(), people.clone(), options.sessions));
        browser_sessions.restore(&store, &metrics).await?;
        let cookies = Cookies { has_tls: tls.is_some(), base: options.base_path };
        let authenticator = Authenticator::new(
            Accepted {
                token: options.token,
                viewer_token: options.viewer_token,
                oidc: options.oidc,
                people: people_verifier.clone(),
            },
            Sessions { known: Arc::clone(&browser_sessions), store: store.clone(), cookies: cookies.clone() },
            worker_tokens.clone(),
            addr.ip().is_loopback(),
            &options.background_tasks,
            stop.clone(),
        );
        let authenticator = authenticator.await.map_err(Error::Token)?;
        let watchers = Arc::new(Watchers::new(lineage.of(snapshot.store), snapshot.revision));
        let agents = Arc::new(AgentRegistry::new(options.overrides));
        let scheduler = Arc::new(Scheduler::new(metrics.slot_mismatches()));
        let deltas = Arc::new(Deltas::new(Arc::clone(&scheduler)));
        let breakers = Arc::new(Breakers::new(options.breakers, &scheduler, &agents, options.clock));
        let demand = Demand::new(&scheduler, &agents, &breakers, options.pool_kind);
        let web_push = WebPush::new(options.web_push, &sealer, &browser_sessions, &store);
        let notifier =
            Notifier::open(options.notifications, web_push.as_ref(), &store, &snapshot, &metrics).await?;
        let artifacts = Artifacts::new(
            options.artifacts.of(&snapshot.store.to_string()),
            store.clone(),
            options.artifacts_quota,
        );
        artifacts.recognize().await;
        let schedules = schedules::restore(&store, options.timing.wall_clock.clone(), &metrics).await?;
        let health = Arc::new(Health::new(
            store.clone(),
            options.background_tasks.clone(),
            demand.clone(),
            Arc::clone(&notifier),
            artifacts.clone(),
            Arc::clone(&schedules),
            watchers.lineage().loss(),
            stop.clone(),
        ));
        let dispatcher = Arc::new(Dispatcher {
            store: store.clone(),
            scheduler: Arc::clone(&scheduler),
            agents: Arc::clone(&agents),
            sealer: Arc::clone(&sealer),
            artifacts: artifacts.clone(),
            result_schemas: Arc::default(),
            heartbeat_timeout: options.timing.heartbeat_timeout,
        });
        let sessions = SessionDeps {
            store: store.clone(),
            artifacts: artifacts.clone(),
            scheduler: Arc::clone(&scheduler),
            agents: Arc::clone(&agents),
            breakers: Arc::clone(&breakers),
            dispatcher: Arc::clone(&dispatcher),
            deltas: Arc::clone(&deltas),
            metrics: Arc::clone(&metrics),
            hellos: Arc::default(),
            heartbeats: Arc::new(sessions::Heartbeats::new(options.timing.heartbeat)),
            worker_tokens: worker_tokens.clone(),
            timing: options.timing.clone(),
            replica: options.replica.clone(),
            lost_history: health.lost_history(),
            stop: stop.clone(),
        };
        let kinds = Kinds {
            store: store.clone(),
            agents: Arc::clone(&agents),
            scheduler: Arc::clone(&scheduler),
            changes: Arc::default(),
            read: None,
        };
        let creator = crate::creation::Creator {
            store: store.clone(),
            scheduler: Arc::clone(&scheduler),
            agents: Arc::clone(&agents),
            artifacts: artifacts.clone(),
            sealer: Arc::clone(&sealer),
            kinds: kinds.clone(),
            step_files: Default::default(),
            pool_kind: options.pool_kind,
        };
        let (successes, follower) = follow::follow(options.follow, &creator);
        let ready_steps = Arc::new(ReadySteps::default());
        let workflows = workflows::Driver::new(store.clone(), creator.clone(), Arc::clone(&ready_steps));
        let streams =
            Streams { watchers: Arc::clone(&watchers), deltas: Arc::clone(&deltas), stop: stop.clone() };
        let approvals = Arc::new(Approvals::default());
        let workflow_service = grpc::Workflows {
            store: store.clone(),
            artifacts: artifacts.clone(),
            ready_steps: Arc::clone(&ready_steps),
            streams: streams.clone(),
            approvals: Arc::clone(&approvals),
        };
        let driver = schedules::Driver {
            registry: Arc::clone(&schedules),
            creator: creator.clone(),
            workflows: workflow_service.clone(),
            store: store.clone(),
            sealer: Arc::clone(&sealer),
            metrics: Arc::clone(&metrics),
        };
        let rotation = grpc::Rotation::new(store.clone(), Arc::clone(&sealer), Arc::clone(&schedules));
        let attention = Arc::new(Attention::default());
        let alerts = Arc::new(Alerts::new(Arc::clone(&health), demand.clone()));
        let system = grpc::SystemReport::new(&store, &health, &metrics, &demand, options.replica);
        let (timer, due) = watch::channel(None);
        let mut applier = CommitApplier {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            breakers: Arc::clone(&breakers),
            scheduler: Arc::clone(&scheduler),
            agents: Arc::clone(&agents),
            dispatcher,
            alerts: Arc::clone(&alerts),
            attention: Arc::clone(&attention),
            approvals: Arc::clone(&approvals),
            watchers: Arc::clone(&watchers),
            notifier: Arc::clone(&notifier),
            successes,
            ready_steps,
            schedules,
            token_registry: Arc::clone(worker_tokens.registry()),
            browser_sessions: Arc::clone(&browser_sessions),
            store: store.clone(),
            restored: None,
            timer,
        };
        applier.restore(snapshot, &sessions);
        let (barriers, passed) = Barriers::channel();
        let claimer =
            Claimer { scheduler: Arc::clone(&scheduler), store: store.clone(), barriers: barriers.clone() };
        let scraper = Scraper {
            metrics: Arc::clone(&metrics),
            store: store.clone(),
            demand: demand.clone(),
            artifacts: artifacts.clone(),
            approvals: Arc::clone(&approvals),
            schedules: Arc::clone(&driver.registry),
        };
        let history = History::new(scraper.clone(), store.clone(), options.timing.wall_clock);
        let background = background::start(
            CommitLoop { applier, claimer, commits, barriers: passed },
            BackgroundDeps {
                monitors: options.background_tasks.clone(),
                store: store.clone(),
                scheduler: Arc::clone(&scheduler),
                agents: Arc::clone(&agents),
                watchers,
                heartbeats: Arc::clone(&sessions.heartbeats),
                breakers,
                retention: options.timing.retention,
                write_grace: options.timing.reconnect_grace,
                due,
                artifacts: artifacts.clone(),
                notifier,
                follower,
                schedules: driver.clone(),
                workflows,
                history: history.clone(),
                alerts: Arc::clone(&alerts),
                system: Arc::clone(&system),
                attention: Arc::clone(&attention),
                approvals,
                stop: stop.clone(),
            },
        );

        let templates =
            grpc::Templates { store: store.clone(), kinds: kinds.clone(), changes: Arc::default() };
        let sessions_of_browsers = Arc::new(grpc::BrowserSessionAdmin {
            store: store.clone(),
            sessions: browser_sessions,
            barriers: barriers.clone(),
            creating: Default::default(),
            lifetime: options.sessions.lifetime,
            web_push,
            cookies,
        });
        let code_flow = people_verifier.as_ref().filter(|_| options.console);
        let code_flow = CodeFlow::new(code_flow, &sessions_of_browsers, &sealer);
        let explainer =
            Explainer { store: store.clone(), demand: demand.clone(), artifacts: artifacts.clone() };
        let services = Services {
            tasks: grpc::Tasks {
                store: store.clone(),
                inputs: grpc::Inputs { store: store.clone(), agents: Arc::clone(&agents) },
                creator,
                explainer: explainer.clone(),
                attention,
                streams: streams.clone(),
                retention: options.timing.retention,
            },
            schedules: grpc::Schedules { driver, barriers: barriers.clone() },
            templates,
            kinds,
            agents: grpc::Agents {
                agents,
                demand: demand.clone(),
                demand_messages: Arc::default(),
                explainer,
                sessions: sessions.clone(),
                barriers: barriers.clone(),
                streams: streams.clone(),
            },
            admin: grpc::Admin {
                store: store.clone(),
                system,
                demand,
                history,
                alerts,
                worker_tokens: grpc::TokenAdmin {
                    store: store.clone(),
                    tokens: worker_tokens.clone(),
                    barriers,
                    changes: Default::default(),
                },
                browser_sessions: sessions_of_browsers,
                people: people_verifier,
                code_flow,
                rotation,
                sign_in_codes: SignInCodes::default(),
                storage: grpc::Storage {
                    store: store.clone(),
                    streams: streams.clone(),
                    backup: Arc::default(),
                    last_backup: metrics.last_backup(),
                },
            },
            workflows: workflow_service,
            artifacts: grpc::ArtifactsService::new(&sessions, streams),
            workers: sessions::Service { deps: Arc::new(sessions) },
            health: grpc::HealthService { health: Arc::clone(&health), stop: stop.clone() },
        };
        Ok(Bound {
            addr,
            listener,
            tls,
            http,
            authenticator,
            worker_tokens,
            shutdown_grace: options.timing.shutdown_grace,
            limits: options.limits,
            console: options.console,
            cors_origins: options.cors_origins,
            store,
            services,
            pages: Pages { health, scraper },
            background,
            stop,
        })
    }
}

impl Bound {
    /// Returns the address of the gRPC listener.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the address of the HTTP probe and metrics listener.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }

    /// Returns what issues tokens for workers of this process.
    pub fn worker_tokens(&self) -> WorkerTokens {
        self.worker_tokens.clone()
    }
}
