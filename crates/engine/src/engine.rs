//! The engine itself: what its parts share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::build::Steps;
use crate::config::Config;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::{Bus, EventOptions, EventStream, Kind};
use crate::exec::Execs;
use crate::log::pump::Pump;
use crate::names;
use crate::network::Networks;
use crate::recover::StopReason;
use crate::registry::Registry;
use crate::state::{Database, Op, Record, Table};
use crate::volumes::Volumes;

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: Config,
    pub facts: Facts,
    pub database: Database,
    pub events: Bus,
    pub registry: Registry,
    pub pump: Pump,
    pub networks: Networks,
    pub volumes: Volumes,
    pub execs: Execs,
    /// Steps of builds that run.
    pub steps: Steps,
    /// Opened with the first build: a start need not wait for it.
    pub solver: Mutex<Option<skiff_build::Solver>>,
    /// Whether containers get cgroups, which can be paused.
    pub cgroups: bool,
    /// Whether these have limits.
    pub limits: bool,
    /// Set once the engine should end.
    pub stop: tokio::sync::watch::Sender<Option<StopReason>>,
    /// The runtime whose tasks do the engine's work, for threads that are not its own.
    pub runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// What the engine remembers about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Its id in `docker info`.
    pub id: String,
    /// The subnet that its bridge had last.
    pub subnet: Option<ipnet::Ipv4Net>,
    /// The id of each built-in network.
    pub networks: HashMap<String, String>,
    /// When it was first opened.
    pub created: u64,
}

impl Engine {
    /// Opens the engine: brings what the last one left into order and takes its running containers over.
    ///
    /// # Errors
    /// When the root can't be used, another engine has it, or the supervisor does not answer.
    pub async fn open(config: Config) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let engine = blocking(move || Self::open_blocking(config, runtime)).await?;
        engine.recover().await?;
        engine.watch_outside();
        Ok(engine)
    }

    fn open_blocking(config: Config, runtime: tokio::runtime::Handle) -> Result<Self> {
        for dir in [config.root.clone(), config.containers(), config.volumes()] {
            std::fs::create_dir_all(&dir).map_err(|error| Error::file("create", &dir, &error))?;
        }
        raise_descriptor_limit();
        let database = Database::open(&config.root.join("engine.redb"))?;
        let facts = load_facts(&database)?;
        let pump = Pump::start().map_err(|error| Error::internal("start the output threads", &error))?;
        let networks = Networks::open(&config, &facts, &database)?;
        let mut facts = facts;
        if networks.default_subnet().is_some() && networks.default_subnet() != facts.subnet {
            facts.subnet = networks.default_subnet();
            database.commit([Op::put(Table::Engine, "facts", &facts)])?;
        }
        let volumes = Volumes::open(config.volumes(), database.clone())?;
        let cgroups = config.cgroup_parent.as_deref().is_some_and(skiff_runtime::Cgroup::available);
        let limits = config.cgroup_parent.as_deref().is_some_and(skiff_runtime::Cgroup::limits);
        Ok(Self(Arc::new(Inner {
            config,
            facts,
            database,
            events: Bus::new(),
            registry: Registry::default(),
            pump,
            networks,
            volumes,
            execs: Execs::default(),
            cgroups,
            steps: Steps::default(),
            solver: Mutex::default(),
            limits,
            stop: tokio::sync::watch::channel(None).0,
            runtime,
        })))
    }

    /// Listens to what happens.
    ///
    /// # Errors
    /// When a filter is not known.
    pub fn events(&self, options: EventOptions) -> Result<EventStream> {
        self.0.events.subscribe(options)
    }

    /// Publishes an event about a container, with the attributes that Docker gives them.
    pub(crate) fn container_event(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.insert("image".to_owned(), record.config.image.clone().unwrap_or_default());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.0.events.publish(Kind::Container, action, &record.id, attributes);
    }

    /// Stores a record; it is on the disk when this returns. Blocks.
    pub(crate) fn store(&self, record: &Record) -> Result<()> {
        self.0.database.commit([Op::put(Table::Containers, &record.id, record)])
    }

    /// Stores a record soon; see [`Database::later`].
    pub(crate) fn store_later(&self, record: &Record) {
        self.0.database.later(Op::put(Table::Containers, &record.id, record));
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.0.registry.get(id)
    }

    /// How many containers run: what the idle policy asks.
    #[must_use]
    pub fn running_containers(&self) -> usize {
        self.0.registry.all().iter().filter(|container| container.changes.borrow().running).count()
    }
}

/// A running container takes about ten descriptors here. The limit is inherited by containers, which get as many as
/// with dockerd.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "limit of open files stays low");
        }
    }
}

fn load_facts(database: &Database) -> Result<Facts> {
    if let Some(facts) = database.all::<Facts>(Table::Engine)?.pop() {
        return Ok(facts);
    }
    let networks =
        ["bridge", "host", "none"].iter().map(|name| ((*name).to_owned(), names::random_id())).collect();
    let id = names::random_id();
    let facts = Facts {
        id: format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]),
        subnet: None,
        networks,
        created: crate::clock::now_ns(),
    };
    database.commit([Op::put(Table::Engine, "facts", &facts)])?;
    Ok(facts)
}

/// Runs blocking work on the threads that are there for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("worker", &error)),
    }
}
