//! `moby.buildkit.v1.frontend.LLBBridge`: how a client drives its build. This is what `docker buildx build` speaks.

use std::result::Result;
use std::sync::Arc;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::*;
use skiff_build::{Event, FrontendRequest, Progress, Ref, ResolveMode};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::builds::Build;
use crate::gateway::Gateway;
use crate::service::Inner;
use crate::{caps, fault, solve};

/// Says whose build a call is about.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// The kind of resolver that reads images in directories of the client.
const OCI_LAYOUT: i32 = 1;

type Reply<T> = Result<Response<T>, Status>;

/// See the module's text.
pub(crate) struct Bridge(pub Arc<Inner>);

impl Bridge {
    /// The build that a call is about; waits a little for it.
    async fn build(&self, metadata: &MetadataMap) -> Result<Driven, Status> {
        let name = metadata
            .get(BUILD_ID)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| Status::invalid_argument("no build id in the call"))?;
        let build = self.0.builds.get(name).await;
        let build = build.filter(|build| build.gateway.is_some());
        build.map(Driven).ok_or_else(|| Status::unknown(format!("no such job {name}")))
    }

    async fn reference(&self, metadata: &MetadataMap, id: &str) -> Result<Ref, Status> {
        self.build(metadata).await?.gateway().get(id)
    }
}

/// A build that its client drives.
struct Driven(Arc<Build>);

impl Driven {
    fn gateway(&self) -> &Gateway {
        self.0.gateway.as_ref().expect("it was looked up for having one")
    }
}

fn refused(error: skiff_build::Error) -> Status {
    fault::status(&error)
}

fn mode(text: &str) -> ResolveMode {
    // The others prefer what is here, each in its own words.
    if text == "pull" { ResolveMode::ForcePull } else { ResolveMode::PreferLocal }
}

fn log_name(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[async_trait]
impl LlbBridge for Bridge {
    async fn ping(&self, _: Request<PingRequest>) -> Reply<PongResponse> {
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::frontend(),
            llb_caps: caps::graph(),
            workers: vec![self.0.worker()],
        }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Reply<ResolveImageConfigResponse> {
        let build = self.build(request.metadata()).await?;
        let request = request.into_inner();
        if request.resolver_type == OCI_LAYOUT {
            let image = build.0.job.resolve_layout(
                &request.r#ref,
                &request.store_id,
                &request.session_id,
                request.platform.as_ref(),
                log_name(&request.log_name),
            );
            let image = image.await.map_err(refused)?;
            return Ok(Response::new(ResolveImageConfigResponse {
                digest: image.digest,
                config: image.config,
                r#ref: request.r#ref,
            }));
        }
        let image = build.0.job.resolve_image(
            &request.r#ref,
            request.platform.as_ref(),
            mode(&request.resolve_mode),
            log_name(&request.log_name),
        );
        let image = image.await.map_err(refused)?;
        Ok(Response::new(ResolveImageConfigResponse {
            digest: image.digest,
            config: image.config,
            r#ref: request.r#ref,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Reply<ResolveSourceMetaResponse> {
        let build = self.build(request.metadata()).await?;
        let request = request.into_inner();
        let source = request.source.ok_or_else(|| Status::invalid_argument("no source"))?;
        let mut response = ResolveSourceMetaResponse { source: Some(source.clone()), ..Default::default() };
        if let Some(name) = source.identifier.strip_prefix("docker-image://") {
            let image = build.0.job.resolve_image(
                name,
                request.platform.as_ref(),
                mode(&request.resolve_mode),
                log_name(&request.log_name),
            );
            let image = image.await.map_err(refused)?;
            let config =
                if request.image.is_some_and(|image| image.no_config) { Vec::new() } else { image.config };
            response.image =
                Some(ResolveSourceImageResponse { digest: image.digest, config, attestation_chain: None });
        }
        // Of the other kinds nothing is known before they are fetched: the source stands as it is.
        Ok(Response::new(response))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Reply<SolveResponse> {
        let build = self.build(request.metadata()).await?;
        let request = request.into_inner();
        let job = &build.0.job;
        let definition = request.definition.filter(|definition| !definition.def.is_empty());
        let result = if request.frontend.is_empty() {
            solve::solve(job, definition.unwrap_or_default()).map_err(refused)?
        } else {
            if definition.is_some() {
                return Err(Status::invalid_argument(
                    "cannot solve with both Definition and Frontend specified",
                ));
            }
            build.0.made_by(&request.frontend, &request.frontend_opt);
            let asked = FrontendRequest {
                attributes: request.frontend_opt.into_iter().collect(),
                inputs: request.frontend_inputs.into_iter().collect(),
            };
            solve::frontend(job, &request.frontend, asked).await.map_err(refused)?
        };
        if request.evaluate {
            solve::evaluate(&result).await.map_err(refused)?;
        }
        let result = build.gateway().result(result)?;
        // What the oldest clients read: the one reference by its bare name.
        let r#ref = match &result.result {
            Some(result::Result::Ref(reference)) if !request.allow_result_return => reference.id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(SolveResponse { r#ref, result: Some(result) }))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Reply<ReadFileResponse> {
        let reference = self.reference(request.metadata(), &request.get_ref().r#ref).await?;
        let request = request.into_inner();
        let range = request.range.map(|range| {
            (u64::try_from(range.offset).unwrap_or(0), u64::try_from(range.length).unwrap_or(0))
        });
        let data = reference.read_file(&request.file_path, range).await.map_err(refused)?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Reply<ReadDirResponse> {
        let reference = self.reference(request.metadata(), &request.get_ref().r#ref).await?;
        let request = request.into_inner();
        let include = (!request.include_pattern.is_empty()).then_some(request.include_pattern.as_str());
        let entries = reference.read_dir(&request.dir_path, include).await.map_err(refused)?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Reply<StatFileResponse> {
        let reference = self.reference(request.metadata(), &request.get_ref().r#ref).await?;
        let stat = reference.stat_file(&request.get_ref().path).await.map_err(refused)?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Reply<EvaluateResponse> {
        let id = &request.get_ref().r#ref;
        if !id.is_empty() {
            self.reference(request.metadata(), id).await?.evaluate().await.map_err(refused)?;
        }
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Reply<ReturnResponse> {
        let build = self.build(request.metadata()).await?;
        build.gateway().give_back(request.into_inner())?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Reply<InputsResponse> {
        let build = self.build(request.metadata()).await?;
        Ok(Response::new(InputsResponse { definitions: build.gateway().inputs.clone() }))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Reply<WarnResponse> {
        let build = self.build(request.metadata()).await?;
        let warning = request.into_inner();
        build.0.status.event(Event::Warning(VertexWarning {
            vertex: warning.digest,
            level: warning.level,
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            info: warning.info,
            ranges: warning.ranges,
        }));
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(&self, _: Request<NewContainerRequest>) -> Reply<NewContainerResponse> {
        Err(no_containers())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Reply<ReleaseContainerResponse> {
        Err(no_containers())
    }

    type ExecProcessStream = futures_util::stream::Empty<Result<ExecMessage, Status>>;

    async fn exec_process(&self, _: Request<Streaming<ExecMessage>>) -> Reply<Self::ExecProcessStream> {
        Err(no_containers())
    }

    async fn read_file_container(&self, _: Request<ReadFileRequest>) -> Reply<ReadFileResponse> {
        Err(no_containers())
    }

    async fn read_dir_container(&self, _: Request<ReadDirRequest>) -> Reply<ReadDirResponse> {
        Err(no_containers())
    }

    async fn stat_file_container(&self, _: Request<StatFileRequest>) -> Reply<StatFileResponse> {
        Err(no_containers())
    }
}

/// Clients know from what we announce that they can't have them.
fn no_containers() -> Status {
    Status::unimplemented("containers of a client's own are not supported")
}
