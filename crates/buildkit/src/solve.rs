//! One build from its request to what its client is told: frontend or graph or the client's own driving, then exporters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, Exporter as Asked, SolveRequest,
};
use bollard_buildkit_proto::pb;
use skiff_build::export::{self, CacheExport};
use skiff_build::{
    BuildResult, CacheImport, Client, Entitlement, Error, FrontendRequest, Job, JobOptions, Refs,
};
use tonic::Status as Refusal;

use crate::builds::Build;
use crate::export::{Exported, Exporter};
use crate::fault;
use crate::gateway::Gateway;
use crate::history::{Evidence, Recording};
use crate::service::Inner;
use crate::session::SessionClient;
use crate::status::Status;

/// What a build asks for, old forms of it folded into today's.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// The client's name for it.
    pub name: String,
    /// The session that it belongs to.
    pub session: String,
    /// `dockerfile.v0`, or nothing.
    pub frontend: String,
    /// The frontend's attributes.
    pub attributes: HashMap<String, String>,
    /// Definitions for the frontend.
    pub inputs: HashMap<String, pb::Definition>,
    /// What to build when there is no frontend.
    pub definition: Option<pb::Definition>,
    /// Where the result goes.
    pub exporters: Vec<Asked>,
    /// Caches to use and to make.
    pub cache: CacheOptions,
    /// What the build may do.
    pub entitlements: Vec<String>,
    /// The client's own business: nothing that the history has.
    pub internal: bool,
}

impl From<SolveRequest> for Request {
    fn from(request: SolveRequest) -> Self {
        let mut exporters = request.exporters;
        if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            exporters.push(Asked {
                r#type: request.exporter_deprecated,
                attrs: request.exporter_attrs_deprecated,
            });
        }
        let mut cache = request.cache.unwrap_or_default();
        for reference in std::mem::take(&mut cache.import_refs_deprecated) {
            let attrs = HashMap::from([("ref".to_owned(), reference)]);
            cache.imports.push(CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
        }
        if !cache.export_ref_deprecated.is_empty() {
            let mut attrs = std::mem::take(&mut cache.export_attrs_deprecated);
            attrs.insert("ref".to_owned(), std::mem::take(&mut cache.export_ref_deprecated));
            cache.exports.push(CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
        }
        Self {
            name: request.r#ref,
            session: request.session,
            frontend: request.frontend,
            attributes: request.frontend_attrs,
            inputs: request.frontend_inputs,
            definition: request.definition.filter(|definition| !definition.def.is_empty()),
            exporters,
            cache,
            entitlements: request.entitlements,
            internal: request.internal,
        }
    }
}

/// A build that has been entered and not been run yet.
pub(crate) struct Prepared {
    request: Request,
    exporters: Vec<Exporter>,
    caches: Vec<CacheExport>,
    running: crate::builds::Running,
    recording: Option<Recording>,
    inner: Arc<Inner>,
}

impl Inner {
    /// Checks a request and enters its build: from here on its progress can be listened to.
    pub fn prepare(self: &Arc<Self>, request: Request, client: Option<Client>) -> Result<Prepared, Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::invalid_argument("a build needs a ref"));
        }
        let epoch = request.attributes.get("build-arg:SOURCE_DATE_EPOCH");
        let mut exporters = Vec::new();
        for (index, asked) in request.exporters.iter().enumerate() {
            let mut attributes = asked.attrs.clone();
            if let Some(epoch) = epoch {
                attributes.entry("source-date-epoch".to_owned()).or_insert_with(|| epoch.clone());
            }
            let exporter = Exporter::read(&asked.r#type, &attributes, index);
            exporters.extend(exporter.map_err(|error| fault::status(&error))?);
        }
        let mut caches = Vec::new();
        for asked in &request.cache.exports {
            match CacheExport::read(&asked.r#type, &asked.attrs).map_err(|error| fault::status(&error))? {
                Some(cache) => caches.push(cache),
                None => exporters = exporters.into_iter().map(Exporter::with_inline_cache).collect(),
            }
        }
        let status = Status::default();
        let client = client.unwrap_or_else(|| {
            let client = SessionClient { sessions: self.sessions.clone(), id: request.session.clone() };
            client.into_client()
        });
        let mut options = JobOptions::new(client, Arc::new(status.clone()));
        options.entitlements = entitlements(&request.entitlements)?;
        options.cache_imports = request.cache.imports.iter().map(cache_import).collect();
        let job = self.solver.begin(options);
        let driven = request.frontend.is_empty() && request.definition.is_none();
        let gateway = driven.then(|| Gateway::new(request.inputs.clone()));
        let build = Build::new(status.clone(), job, gateway);
        let running = self
            .builds
            .enter(&request.name, build)
            .ok_or_else(|| Refusal::already_exists(format!("job ID {} exists", request.name)))?;
        let recording = (!request.internal).then(|| {
            let (name, frontend) = (&request.name, &request.frontend);
            let (attributes, exporters) = (&request.attributes, &request.exporters);
            Recording::begin(self.history.clone(), name, frontend, attributes, exporters, status)
        });
        Ok(Prepared { request, exporters, running, recording, caches, inner: self.clone() })
    }
}

impl Prepared {
    /// The progress.
    pub fn status(&self) -> Status {
        self.running.build.status.clone()
    }

    /// A hold on the build, to cancel it by.
    pub fn build(&self) -> Arc<Build> {
        self.running.build.clone()
    }

    /// Runs the build to its end. Dropping the future cancels it.
    pub async fn run(self) -> Result<HashMap<String, String>, Refusal> {
        let Self { request, exporters, caches, running, recording, inner } = self;
        let build = running.build.clone();
        let result = tokio::select! {
            result = work(request, exporters, caches, &build, &inner) => result,
            () = build.cancelled() => Err(Refusal::cancelled("context canceled")),
        };
        let (outcome, configuration) = match result {
            Ok(Exported { told, configuration, .. }) => (Ok(told), configuration),
            Err(refusal) => (Err(refusal), None),
        };
        if let Some(recording) = recording {
            // Nothing more is told: who listens need not wait for the record.
            build.status.finish();
            let frontend = build.frontend.lock().unwrap_or_else(PoisonError::into_inner).clone();
            recording
                .end(Evidence {
                    outcome: Some(outcome.clone()),
                    configuration,
                    materials: build.job.materials(),
                    frontend,
                    platform: inner.platform(),
                })
                .await;
        }
        outcome
    }
}

async fn work(
    request: Request,
    exporters: Vec<Exporter>,
    caches: Vec<CacheExport>,
    build: &Arc<Build>,
    inner: &Arc<Inner>,
) -> Result<Exported, Refusal> {
    let refused = |error: Error| fault::status(&error);
    // The client's going ends the build, though its connection for calls may stay.
    let session =
        if request.session.is_empty() { None } else { inner.sessions.get(&request.session).await.ok() };
    if exporters.iter().any(Exporter::wants_session) && session.is_none() {
        return Err(Refusal::unavailable(format!(
            "no active session for {}: context deadline exceeded",
            request.session
        )));
    }
    let gone = async {
        match &session {
            Some(session) => session.ended().await,
            None => std::future::pending().await,
        }
    };
    let work = async {
        let result = match (&build.gateway, request.definition) {
            (Some(gateway), _) => gateway.returned().await?,
            (None, Some(definition)) if request.frontend.is_empty() => {
                solve(&build.job, definition).map_err(refused)?
            }
            _ => {
                build.made_by(&request.frontend, &request.attributes);
                let asked = FrontendRequest {
                    attributes: request.attributes.into_iter().collect(),
                    inputs: request.inputs.into_iter().collect(),
                };
                frontend(&build.job, &request.frontend, asked).await.map_err(refused)?
            }
        };
        if exporters.is_empty() {
            // Without an exporter the cache is what a build is for.
            evaluate(&result).await.map_err(refused)?;
        }
        let mut all = Exported::default();
        for exporter in exporters {
            let progress = Arc::new(build.status.clone());
            let exported = exporter.run(&build.job, progress, session.clone(), &result).await;
            let exported = exported.map_err(refused)?;
            if let Some((id, names)) = &exported.stored {
                (inner.on_image)(id, names);
            }
            all.told.extend(exported.told);
            all.configuration = all.configuration.or(exported.configuration);
        }
        for cache in caches {
            all.told.extend(export::cache(&build.job, &result, &cache).await.map_err(refused)?);
        }
        Ok(all)
    };
    tokio::select! {
        result = work => result,
        () = gone => Err(Refusal::cancelled("context canceled: the client's session ended")),
    }
}

/// Runs a frontend by its name.
pub(crate) async fn frontend(
    job: &Job,
    name: &str,
    request: FrontendRequest,
) -> skiff_build::Result<BuildResult> {
    let own = match name {
        "dockerfile.v0" => true,
        // An image whose program reads Dockerfiles: the language is built in here.
        "gateway.v0" => request.attributes.get("source").is_some_and(|source| is_dockerfile_frontend(source)),
        _ => false,
    };
    if !own {
        return Err(Error::not_found(match request.attributes.get("source") {
            Some(source) if name == "gateway.v0" => {
                format!("frontend {source} is not supported: only docker/dockerfile is built in")
            }
            _ => format!("failed to find frontend: {name}"),
        }));
    }
    skiff_build::dockerfile::build(job, &request).await
}

/// `docker/dockerfile` of any version, with or without its registry.
fn is_dockerfile_frontend(source: &str) -> bool {
    let name = source.split('@').next().unwrap_or(source);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// Takes a definition as a build's result.
pub(crate) fn solve(job: &Job, definition: pb::Definition) -> skiff_build::Result<BuildResult> {
    let reference = job.solve(definition)?;
    let refs = if reference.is_scratch() { Refs::None } else { Refs::Single(reference) };
    Ok(BuildResult { refs, metadata: BTreeMap::new() })
}

/// Makes every file system of a result.
pub(crate) async fn evaluate(result: &BuildResult) -> skiff_build::Result<()> {
    match &result.refs {
        Refs::None => {}
        Refs::Single(reference) => reference.evaluate().await?,
        Refs::Map(refs) => {
            for reference in refs.values() {
                reference.evaluate().await?;
            }
        }
    }
    Ok(())
}

fn cache_import(entry: &CacheOptionsEntry) -> CacheImport {
    CacheImport {
        kind: entry.r#type.clone(),
        attributes: entry.attrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

fn entitlements(asked: &[String]) -> Result<HashSet<Entitlement>, Refusal> {
    asked
        .iter()
        .map(|name| match name.as_str() {
            "network.host" => Ok(Entitlement::NetworkHost),
            // A step with all privileges could leave the guest's engine nothing of its own; dockerd refuses it too
            // unless it is configured to.
            "security.insecure" => Err(Refusal::unknown(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            ))),
            _ => Err(Refusal::unknown(format!("invalid entitlement: {name}"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_frontend_is_known_by_all_its_names() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:1@sha256:0000",
        ] {
            assert!(is_dockerfile_frontend(name), "{name}");
        }
        for name in ["evil/dockerfile", "docker/dockerfile2", "localhost:5000/docker/dockerfile", ""] {
            assert!(!is_dockerfile_frontend(name), "{name}");
        }
    }

    #[test]
    fn old_forms_of_a_request_are_folded_into_todays() {
        let request = Request::from(SolveRequest {
            exporter_deprecated: "moby".to_owned(),
            exporter_attrs_deprecated: HashMap::from([("name".to_owned(), "a".to_owned())]),
            cache: Some(CacheOptions {
                import_refs_deprecated: vec!["b".to_owned()],
                export_ref_deprecated: "c".to_owned(),
                ..CacheOptions::default()
            }),
            definition: Some(pb::Definition::default()),
            ..SolveRequest::default()
        });
        assert_eq!(request.exporters[0].r#type, "moby");
        assert_eq!(request.cache.imports[0].attrs["ref"], "b");
        assert_eq!(request.cache.exports[0].attrs["ref"], "c");
        assert_eq!(request.definition, None);
    }

    #[test]
    fn privileges_are_refused_in_buildkits_words() {
        assert!(entitlements(&["network.host".to_owned()]).unwrap().contains(&Entitlement::NetworkHost));
        assert_eq!(
            entitlements(&["security.insecure".to_owned()]).unwrap_err().message(),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
        assert!(entitlements(&["x".to_owned()]).is_err());
    }
}
