//! Whole builds over gRPC, with a real solver and a client that the test plays.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use async_trait::async_trait;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{self as api, result};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRequest, Exporter, InfoRequest, ListWorkersRequest, SolveRequest, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest,
};
use futures_util::{StreamExt, TryStreamExt};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use skiff_build::{Solver, Step, StepRunner};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

use crate::session::tests::{FakeClient, everything, open_session};
use crate::session::{Caller, MESSAGE_LIMIT};
use crate::{BuildKit, Config};

struct NoSteps;

#[async_trait]
impl StepRunner for NoSteps {
    async fn run(&self, _: Step, _: CancellationToken) -> skiff_build::Result<i32> {
        Err(skiff_build::Error::failed("no steps here"))
    }
}

/// A builder with a client that has a directory with a Dockerfile and a file.
struct Bench {
    kit: BuildKit,
    client: FakeClient,
    session: tokio::task::JoinHandle<()>,
    _root: tempfile::TempDir,
}

async fn bench(dockerfile: &str) -> Bench {
    let root = tempfile::tempdir().unwrap();
    let images = skiff_images::Store::open(skiff_images::Config::new(root.path())).unwrap();
    let solver = Solver::open(skiff_build::Config {
        root: root.path().join("build"),
        images,
        runner: Arc::new(NoSteps),
        keep_storage: 1 << 30,
    })
    .unwrap();
    let kit = BuildKit::new(Config {
        solver,
        worker: "worker".to_owned(),
        host_gateway: None,
        history: root.path().join("build/history"),
        on_image: Arc::new(|_, _| {}),
    });
    let client = FakeClient::with_directory();
    std::fs::write(client.directory().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(client.directory().join("file"), "contents").unwrap();
    let session = open_session(kit.sessions(), "one", everything(&client));
    Bench { kit, client, session, _root: root }
}

impl Bench {
    async fn caller(&self) -> Caller {
        let (near, far) = tokio::io::duplex(256 << 10);
        let kit = self.kit.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let kit = kit.clone();
                async move { Ok::<_, Infallible>(kit.grpc(request).await) }
            });
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(far), service)
                .await
        });
        let (caller, connection) = Caller::connect(near).await.unwrap();
        tokio::spawn(connection);
        caller
    }

    async fn control(&self) -> ControlClient<Caller> {
        ControlClient::with_origin(self.caller().await, Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    async fn bridge(&self) -> LlbBridgeClient<Caller> {
        LlbBridgeClient::with_origin(self.caller().await, Caller::origin())
    }

    /// Begins a build that the client drives.
    async fn drive(
        &self,
        name: &str,
        exporter: &str,
    ) -> tokio::task::JoinHandle<Result<HashMap<String, String>, tonic::Status>> {
        let mut control = self.control().await;
        let request = request(name, "", exporter);
        tokio::spawn(async move { Ok(control.solve(request).await?.into_inner().exporter_response) })
    }
}

fn request(name: &str, frontend: &str, exporter: &str) -> SolveRequest {
    let exporter = Exporter { r#type: exporter.to_owned(), attrs: HashMap::new() };
    SolveRequest {
        r#ref: name.to_owned(),
        session: "one".to_owned(),
        frontend: frontend.to_owned(),
        exporters: vec![exporter],
        ..SolveRequest::default()
    }
}

/// A call of the bridge about a build.
fn about<T>(name: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", name.parse().unwrap());
    request
}

fn dockerfile() -> api::SolveRequest {
    api::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..api::SolveRequest::default()
    }
}

fn ref_of(solved: &api::SolveResponse) -> String {
    match solved.result.as_ref().and_then(|result| result.result.as_ref()) {
        Some(result::Result::Ref(reference)) => reference.id.clone(),
        other => panic!("no single reference: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_becomes_an_archive_at_the_client_and_its_progress_can_be_heard_late() {
    let bench = bench("FROM scratch\nCOPY file /\nCMD [\"/file\"]\n").await;
    let mut control = bench.control().await;
    let solved = control.solve(request("r", "dockerfile.v0", "oci")).await.unwrap().into_inner();
    let id = &solved.exporter_response["containerimage.config.digest"];
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(&solved.exporter_response["containerimage.digest"], id);
    let archive = bench.client.file();
    let hex = id.trim_start_matches("sha256:").as_bytes();
    assert!(archive.windows(hex.len()).any(|window| window == hex), "the archive doesn't name the image");
    let heard = control.status(StatusRequest { r#ref: "r".to_owned() }).await.unwrap();
    assert!(heard.metadata().contains_key("buildkit-current-timestamp"));
    let heard: Vec<StatusResponse> = heard.into_inner().try_collect().await.unwrap();
    let names: Vec<&str> =
        heard.iter().flat_map(|part| &part.vertexes).map(|vertex| vertex.name.as_str()).collect();
    for name in ["[internal] load build definition from Dockerfile", "[1/1] COPY file /"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_drives_its_build_and_reads_its_files() {
    let bench = bench("FROM scratch\nCOPY file /dir/\n").await;
    let mut bridge = bench.bridge().await;
    let pong = bridge.ping(about("r", api::PingRequest {})).await.unwrap().into_inner();
    assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "solve.base" && cap.enabled));
    assert!(!pong.frontend_api_caps.iter().any(|cap| cap.id == "gateway.exec"));
    assert_eq!(pong.workers[0].id, "worker");
    // The bridge's first call may come before the build that it is about.
    let begun = {
        let mut bridge = bridge.clone();
        tokio::spawn(async move { bridge.solve(about("r", dockerfile())).await })
    };
    let build = bench.drive("r", "tar").await;
    let solved = begun.await.unwrap().unwrap().into_inner();
    let id = ref_of(&solved);
    let metadata = &solved.result.as_ref().unwrap().metadata;
    let config: serde_json::Value = serde_json::from_slice(&metadata["containerimage.config"]).unwrap();
    assert_eq!(config["os"], "linux");

    let read = |path: &str, range| api::ReadFileRequest {
        r#ref: id.clone(),
        file_path: path.to_owned(),
        range,
        ..api::ReadFileRequest::default()
    };
    let all = bridge.read_file(about("r", read("/dir/file", None))).await.unwrap().into_inner();
    assert_eq!(all.data, b"contents");
    let part = Some(api::FileRange { offset: 3, length: 2 });
    let part = bridge.read_file(about("r", read("/dir/file", part))).await.unwrap().into_inner();
    assert_eq!(part.data, b"te");
    assert!(bridge.read_file(about("r", read("/absent", None))).await.is_err());
    let list =
        api::ReadDirRequest { r#ref: id.clone(), dir_path: "/".to_owned(), ..api::ReadDirRequest::default() };
    let list = bridge.read_dir(about("r", list)).await.unwrap().into_inner().entries;
    assert_eq!(list.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["dir"]);
    let stat = api::StatFileRequest {
        r#ref: id.clone(),
        path: "/dir/file".to_owned(),
        ..api::StatFileRequest::default()
    };
    assert_eq!(bridge.stat_file(about("r", stat)).await.unwrap().into_inner().stat.unwrap().size, 8);
    bridge.evaluate(about("r", api::EvaluateRequest { r#ref: id })).await.unwrap();

    let result = api::ReturnRequest { result: solved.result, error: None };
    bridge.r#return(about("r", result)).await.unwrap();
    build.await.unwrap().unwrap();
    assert!(bench.client.file().windows(8).any(|window| window == b"dir/file"), "no such file in the tar");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_lines_and_come_back_as_the_client_returns_them() {
    let bench = bench("FROM scratch\nCOPY absent /\n").await;
    let build = bench.drive("r", "").await;
    let mut bridge = bench.bridge().await;
    let solved = bridge.solve(about("r", api::SolveRequest { evaluate: true, ..dockerfile() })).await;
    let status = solved.unwrap_err();
    assert!(status.message().contains("\"/absent\": not found"), "{status:?}");
    let error = rpc::Status::decode(status.details()).unwrap();
    let source =
        error.details.iter().find(|detail| detail.type_url.ends_with("/errdefs.Source+json")).unwrap();
    let source: serde_json::Value = serde_json::from_slice(&source.value).unwrap();
    assert_eq!(source["ranges"][0]["start"]["line"], 2);
    bridge
        .r#return(about("r", api::ReturnRequest { result: None, error: Some(error.clone()) }))
        .await
        .unwrap();
    let failed = build.await.unwrap().unwrap_err();
    assert_eq!(rpc::Status::decode(failed.details()).unwrap(), error);
    assert_eq!((failed.code(), failed.message()), (status.code(), status.message()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_said_in_the_way_that_clients_understand() {
    let bench = bench("").await;
    let mut control = bench.control().await;
    let workers = control.list_workers(ListWorkersRequest::default()).await.unwrap().into_inner();
    // Without it clients ask for neither archives nor caches.
    assert!(workers.record[0].labels.contains_key("org.mobyproject.buildkit.worker.snapshotter"));
    assert!(control.info(InfoRequest {}).await.unwrap().into_inner().buildkit_version.is_some());
    let filter = BuildHistoryRequest { filter: vec!["?".to_owned()], ..BuildHistoryRequest::default() };
    let history = control.listen_build_history(filter).await;
    assert_eq!(history.unwrap_err().code(), Code::InvalidArgument);
    let exporter = control.solve(request("r", "dockerfile.v0", "sky")).await.unwrap_err();
    assert_eq!(exporter.message(), "exporter \"sky\" could not be found");
    let frontend = control.solve(request("r", "sky.v0", "")).await.unwrap_err();
    assert_eq!(frontend.message(), "failed to find frontend: sky.v0");
    let mut bridge = bench.bridge().await;
    let container = bridge.new_container(about("r", api::NewContainerRequest::default())).await;
    assert_eq!(container.unwrap_err().code(), Code::Unimplemented);
    let nameless = bridge.inputs(api::InputsRequest {}).await;
    assert_eq!(nameless.unwrap_err().code(), Code::InvalidArgument);
    let trace = http::Request::post("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        .body(tonic::body::Body::empty())
        .unwrap();
    assert_eq!(bench.kit.grpc(trace).await.headers()["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_ends_with_its_clients_call_or_session() {
    let bench = bench("FROM scratch\n").await;
    let build = bench.drive("call", "").await;
    let mut control = bench.control().await;
    let mut heard = control.status(StatusRequest { r#ref: "call".to_owned() }).await.unwrap().into_inner();
    assert_eq!(control.solve(request("call", "", "")).await.unwrap_err().code(), Code::AlreadyExists);
    build.abort();
    assert!(heard.next().await.is_none(), "the build goes on without its client");

    let build = bench.drive("session", "").await;
    let mut heard = control.status(StatusRequest { r#ref: "session".to_owned() }).await.unwrap().into_inner();
    bench.session.abort();
    assert_eq!(build.await.unwrap().unwrap_err().code(), Code::Cancelled);
    assert!(heard.next().await.is_none());
}

/// All that the content service has of a blob.
async fn content(bench: &Bench, digest: &str, offset: i64) -> Result<Vec<u8>, tonic::Status> {
    use crate::content::messages::{ReadContentRequest, ReadContentResponse};

    let mut client = tonic::client::Grpc::with_origin(bench.caller().await, Caller::origin());
    client.ready().await.unwrap();
    let request = Request::new(ReadContentRequest { digest: digest.to_owned(), offset, size: 0 });
    let codec: tonic_prost::ProstCodec<ReadContentRequest, ReadContentResponse> = Default::default();
    let method = http::uri::PathAndQuery::from_static("/containerd.services.content.v1.Content/Read");
    let pieces: Vec<ReadContentResponse> =
        client.server_streaming(request, method, codec).await?.into_inner().try_collect().await?;
    Ok(pieces.into_iter().flat_map(|piece| piece.data).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_has_a_build_with_what_it_told_and_where_it_came_from() {
    let bench = bench("FROM scratch\nCOPY file /\n").await;
    let mut control = bench.control().await;
    let mut asked = request("good", "dockerfile.v0", "oci");
    asked.frontend_attrs.insert("build-arg:A".to_owned(), "1".to_owned());
    control.solve(asked).await.unwrap();
    let mut internal = request("internal", "dockerfile.v0", "");
    internal.internal = true;
    control.solve(internal).await.unwrap();
    std::fs::write(bench.client.directory().join("Dockerfile"), "FROM scratch\nCOPY nothing /\n").unwrap();
    control.solve(request("bad", "dockerfile.v0", "")).await.unwrap_err();

    let listed = BuildHistoryRequest { early_exit: true, limit: 10, ..BuildHistoryRequest::default() };
    let events = control.listen_build_history(listed).await.unwrap().into_inner();
    let events: Vec<_> = events.try_collect().await.unwrap();
    let records: Vec<_> = events.into_iter().map(|event| event.record.unwrap()).collect();
    let names: Vec<&str> = records.iter().map(|record| record.r#ref.as_str()).collect();
    assert_eq!(names, ["bad", "good"], "newest first, and not what is a client's own business");
    let (bad, good) = (&records[0], &records[1]);
    let message = &bad.error.as_ref().unwrap().message;
    assert!(message.contains("\"/nothing\": not found"), "{message}");
    let whole = content(&bench, &bad.external_error.as_ref().unwrap().digest, 0).await.unwrap();
    let whole = rpc::Status::decode(whole.as_slice()).unwrap();
    assert!(whole.details.iter().any(|detail| detail.type_url.ends_with("errdefs.Source+json")));
    assert_eq!(good.num_total_steps, good.num_completed_steps);
    let result = good.result.as_ref().unwrap();
    let provenance = content(&bench, &result.attestations[0].digest, 0).await.unwrap();
    let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
    assert_eq!(provenance["invocation"]["parameters"]["frontend"], "dockerfile.v0");
    assert_eq!(provenance["invocation"]["parameters"]["args"]["build-arg:A"], "1");
    let configuration = content(&bench, &result.results[&0].digest, 1).await.unwrap();
    assert!(configuration.starts_with(b"\""), "the object without its brace: {configuration:?}");
    assert_eq!(content(&bench, "sha256:00", 0).await.unwrap_err().code(), Code::NotFound);
    let remove = UpdateBuildHistoryRequest { r#ref: "bad".to_owned(), delete: true, ..Default::default() };
    control.update_build_history(remove.clone()).await.unwrap();
    assert_eq!(control.update_build_history(remove).await.unwrap_err().code(), Code::NotFound);
}
