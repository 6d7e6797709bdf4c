//! A backend that answers from memory and remembers what it was asked.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use skiff_docker_api::backend::ProgressDetail;
use skiff_docker_api::backend::*;
use skiff_docker_api::models::*;
use skiff_docker_api::{ApiError, Filters, Result};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{Notify, mpsc};

/// Where a test puts what the container writes, and finds what it reads.
pub struct Stdio {
    pub output: mpsc::Sender<std::io::Result<Chunk>>,
    pub input: Option<DuplexStream>,
}

#[derive(Default)]
pub struct Fake {
    /// Every call, with its options in debug form.
    pub calls: Mutex<Vec<String>>,
    /// Stdio of what was attached or started.
    pub stdio: Mutex<Vec<Stdio>>,
    pub tty: bool,
    /// Ends waits.
    pub exited: std::sync::Arc<Notify>,
    pub detached: std::sync::Arc<Notify>,
    /// Image streams fail at their first line, or after it.
    pub fail_first: bool,
    pub fail_late: bool,
}

impl Fake {
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub fn last_call(&self) -> String {
        self.calls().pop().expect("something was called")
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn known(&self, kind: &str, name: &str) -> Result<()> {
        if name == "missing" || name == "a/missing" {
            return Err(ApiError::not_found(format!("No such {kind}: {name}")));
        }
        Ok(())
    }

    pub fn take_stdio(&self) -> Stdio {
        self.stdio.lock().unwrap().pop().expect("something was attached")
    }

    fn streams(&self, stdin: bool) -> AttachStreams {
        let (output, receiver) = mpsc::channel(1);
        let (near, far) = tokio::io::duplex(64);
        self.stdio.lock().unwrap().push(Stdio { output, input: stdin.then_some(far) });
        let detached = self.detached.clone();
        AttachStreams {
            output: tokio_stream::wrappers::ReceiverStream::new(receiver).boxed(),
            input: stdin.then(|| Box::new(near) as InputWriter),
            tty: self.tty,
            detach_keys: None,
            on_detach: Some(Box::new(move || detached.notify_one())),
        }
    }

    fn progress(&self) -> ProgressStream {
        let mut lines = vec![
            Ok(Progress::status("Pulling from library/busybox")),
            Ok(Progress {
                id: Some("0123456789ab".to_owned()),
                status: Some("Downloading".to_owned()),
                detail: Some(ProgressDetail { current: Some(1), total: Some(2) }),
                ..Progress::default()
            }),
        ];
        if self.fail_first {
            lines.insert(0, Err(ApiError::not_found("pull access denied for busybox")));
        }
        if self.fail_late {
            lines.push(Err(ApiError::internal("unexpected EOF")));
        }
        futures_util::stream::iter(lines).boxed()
    }
}

pub fn chunk(kind: StreamKind, text: &'static str) -> std::io::Result<Chunk> {
    Ok(Chunk { kind, bytes: Bytes::from_static(text.as_bytes()) })
}

fn model<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn summary() -> ContainerSummary {
    model(json!({
        "Id": "0123456789abcdef", "Names": ["/web"], "Image": "busybox", "Command": "sleep 1", "Created": 1,
        "State": "running", "Status": "Up 2 seconds", "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
        "Mounts": [{"Type": "volume", "Name": "data", "Destination": "/data"}], "Health": {"Status": "healthy", "FailingStreak": 0},
    }))
}

fn image_summary() -> ImageSummary {
    model(json!({
        "Id": "sha256:01", "ParentId": "", "RepoTags": [], "RepoDigests": [], "Created": 1, "Size": 2, "SharedSize": -1,
        "Labels": {}, "Containers": -1,
    }))
}

fn path_stat() -> PathStat {
    PathStat {
        name: "etc".to_owned(),
        size: 4096,
        mode: 0o040_755,
        modified: "2026-01-02T03:04:05Z".to_owned(),
        link_target: String::new(),
    }
}

fn bytes() -> ByteStream {
    let pieces = ["a tar", " stream"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    futures_util::stream::iter(pieces).boxed()
}

fn volume() -> Volume {
    model(
        json!({ "Name": "data", "Driver": "local", "Scope": "local", "Mountpoint": "/v/data", "CreatedAt": "2026-01-02T03:04:05Z", "Labels": {}, "Options": {} }),
    )
}

#[async_trait]
impl System for Fake {
    async fn version(&self) -> Result<SystemVersion> {
        Ok(model(json!({
            "Version": "28.5.2", "Arch": "amd64", "KernelVersion": "6.12.0", "GitCommit": "0123456",
            "Platform": {"Name": "Skiff"},
            "Components": [{"Name": "Engine", "Version": "28.5.2", "Details": {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}}],
        })))
    }

    async fn info(&self) -> Result<SystemInfo> {
        Ok(model(json!({
            "ID": "id", "Name": "skiff", "ServerVersion": "28.5.2", "NCPU": 2, "MemTotal": 1024, "OperatingSystem": "Skiff",
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        })))
    }

    async fn events(&self, options: EventsOptions) -> Result<EventStream> {
        self.note(format!("{options:?}"));
        let events = [
            json!({"Type": "container", "Action": "start", "Actor": {"ID": "01", "Attributes": {"image": "busybox", "name": "web"}}, "time": 1, "timeNano": 1_000_000_001}),
            json!({"Type": "network", "Action": "connect", "Actor": {"ID": "02"}, "time": 1, "timeNano": 1_000_000_002}),
        ];
        Ok(futures_util::stream::iter(events.map(|event| Ok(model(event)))).boxed())
    }

    async fn disk_usage(&self, kinds: DiskUsageKinds) -> Result<DiskUsage> {
        Ok(DiskUsage {
            layers_size: 7,
            images: kinds.images.then(|| vec![image_summary()]),
            containers: kinds.containers.then(|| vec![summary()]),
            volumes: kinds.volumes.then(|| {
                vec![Volume { usage_data: Some(VolumeUsageData { size: 3, ref_count: 1 }), ..volume() }]
            }),
            build_cache: kinds.build_cache.then(Vec::new),
        })
    }
}

#[async_trait]
impl Build for Fake {
    async fn build_image(&self, request: BuildImage, mut context: BodyReader) -> Result<ProgressStream> {
        let mut bytes = Vec::new();
        context.read_to_end(&mut bytes).await.unwrap();
        self.note(format!("{request:?} {}", bytes.len()));
        Ok(self.progress())
    }

    async fn prune_builds(&self, request: PruneBuilds) -> Result<PrunedBuilds> {
        self.note(format!("{request:?}"));
        Ok(PrunedBuilds { deleted: vec!["a".to_owned()], reclaimed: 3 })
    }
}

#[async_trait]
impl BuildHistory for Fake {
    async fn past_builds(&self) -> Result<Vec<PastBuild>> {
        Ok(vec![PastBuild {
            id: "b1".to_owned(),
            tags: vec!["app:1".to_owned()],
            source: String::new(),
            dockerfile: String::new(),
            target: "test".to_owned(),
            state: BuildState::Error,
            error: "exit code: 7".to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            completed: Some("2026-01-01T00:00:02Z".to_owned()),
            steps: 4,
            cached: 1,
            warnings: 0,
            pinned: false,
        }])
    }

    async fn build_tale(&self, id: &str) -> Result<BuildTale> {
        if id != "b1" {
            return Err(ApiError::not_found(format!("no build {id} in the history")));
        }
        let told = [
            BuildTold::Step {
                id: "s".to_owned(),
                name: "RUN x".to_owned(),
                started: None,
                completed: None,
                cached: false,
                error: String::new(),
            },
            BuildTold::Log { step: "s".to_owned(), text: "hi\n".to_owned() },
        ];
        Ok(futures_util::stream::iter(told.map(Ok)).boxed())
    }

    async fn forget_build(&self, id: &str) -> Result<()> {
        self.note(format!("forget {id}"));
        Ok(())
    }
}

#[async_trait]
impl BuildKit for Fake {
    /// Repeats what it is sent, with the call's path as a header.
    async fn grpc(&self, request: http::Request<GrpcBody>) -> http::Response<GrpcBody> {
        let path = request.uri().path().to_owned();
        self.note(format!("grpc {path}"));
        let response = http::Response::builder().header("x-path", path);
        response.body(request.into_body()).unwrap()
    }

    /// Says hello and repeats what it hears.
    fn open_session(&self, offer: SessionOffer) -> Result<TakeConnection> {
        if offer.id == "taken" {
            return Err(ApiError::bad_request("session taken already exists"));
        }
        self.note(format!("{offer:?}"));
        Ok(Box::new(|connection| {
            Box::pin(async move {
                let (mut reader, mut writer) = tokio::io::split(connection);
                tokio::io::AsyncWriteExt::write_all(&mut writer, b"hello ").await.unwrap();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                tokio::io::AsyncWriteExt::shutdown(&mut writer).await.unwrap();
            })
        }))
    }

    async fn build(&self, request: BuildKitBuild, mut context: BodyReader) -> Result<ProgressStream> {
        let mut bytes = Vec::new();
        context.read_to_end(&mut bytes).await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.note(format!("{request:?} {}", bytes.len()));
        let trace = Progress {
            id: Some("moby.buildkit.trace".to_owned()),
            aux: Some("AAAA".into()),
            ..Progress::default()
        };
        let mut lines = vec![Ok(trace)];
        if self.fail_late {
            lines.push(Err(ApiError::internal("failed to solve")));
        }
        Ok(futures_util::stream::iter(lines).boxed())
    }

    async fn cancel_build(&self, id: &str) -> Result<()> {
        self.note(format!("cancel build {id}"));
        Ok(())
    }
}

#[async_trait]
impl Images for Fake {
    async fn pull_image(&self, request: PullImage) -> Result<ProgressStream> {
        self.note(format!("{request:?}"));
        Ok(self.progress())
    }

    async fn push_image(&self, request: PushImage) -> Result<ProgressStream> {
        self.note(format!("{request:?}"));
        Ok(self.progress())
    }

    async fn check_credentials(&self, auth: Auth) -> Result<String> {
        match auth.password.as_str() {
            "right" => Ok("token".to_owned()),
            _ => Err(ApiError::unauthorized("unauthorized: incorrect username or password")),
        }
    }

    async fn describe_remote_image(&self, name: &str, auth: Option<Auth>) -> Result<Value> {
        self.note(format!("{name} {auth:?}"));
        Ok(json!({ "Descriptor": { "size": 1 }, "Platforms": [] }))
    }

    async fn remote_manifest(&self, name: &str, auth: Option<Auth>) -> Result<RemoteManifest> {
        self.note(format!("manifest {name} {auth:?}"));
        let description = json!({ "Descriptor": { "size": 2 }, "Platforms": null });
        Ok(RemoteManifest { description, bytes: b"{}".to_vec(), is_list: false })
    }

    async fn push_manifest_list(&self, list: PushList) -> Result<PushedList> {
        self.note(format!("{list:?}"));
        let members = list.members.iter().map(|name| (format!("{name}@sha256:1"), "sha256:1".to_owned()));
        Ok(PushedList { digest: "sha256:2".to_owned(), members: members.collect() })
    }

    async fn search_images(&self, request: SearchImages) -> Result<Vec<SearchResult>> {
        self.note(format!("search {} {}", request.term, request.limit));
        Ok(vec![SearchResult { name: "busybox".to_owned(), star_count: 3, ..SearchResult::default() }])
    }

    async fn import_image(&self, request: ImportImage, mut tar: BodyReader) -> Result<ProgressStream> {
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.note(format!("{request:?} {}", bytes.len()));
        Ok(futures_util::stream::iter([Ok(Progress::status("sha256:02"))]).boxed())
    }

    async fn load_images(
        &self,
        mut archive: BodyReader,
        quiet: bool,
        _platform: Option<String>,
    ) -> Result<ProgressStream> {
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.note(format!("load {} quiet={quiet}", bytes.len()));
        Ok(futures_util::stream::iter([Ok(Progress::stream("Loaded image: busybox:latest\n"))]).boxed())
    }

    async fn save_images(&self, names: Vec<String>, _platform: Option<String>) -> Result<ByteStream> {
        for name in &names {
            self.known("image", name)?;
        }
        self.note(format!("save {names:?}"));
        Ok(bytes())
    }

    async fn list_images(&self, options: ListImages) -> Result<Vec<ImageSummary>> {
        self.note(format!("{options:?}"));
        Ok(vec![image_summary()])
    }

    async fn inspect_image(&self, name: &str, _platform: Option<&str>) -> Result<ImageDetails> {
        self.known("image", name)?;
        self.note(format!("inspect image {name}"));
        let model = model(json!({
            "Id": "sha256:01", "RepoTags": ["busybox:latest"], "Created": "2026-01-02T03:04:05Z", "Architecture": "amd64",
            "Os": "linux", "Size": 5, "Config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]}, "RootFS": {"Type": "layers", "Layers": ["sha256:03"]},
        }));
        Ok(ImageDetails { model, ..ImageDetails::default() })
    }

    async fn image_history(
        &self,
        name: &str,
        _platform: Option<&str>,
    ) -> Result<Vec<ImageHistoryResponseItem>> {
        self.known("image", name)?;
        Ok(vec![model(
            json!({"Id": "sha256:01", "Created": 1, "CreatedBy": "sh", "Tags": [], "Size": 5, "Comment": ""}),
        )])
    }

    async fn tag_image(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        self.known("image", name)?;
        self.note(format!("tag {name} {repository} {tag}"));
        Ok(())
    }

    async fn remove_image(&self, name: &str, options: RemoveImage) -> Result<Vec<ImageDeleteResponseItem>> {
        self.known("image", name)?;
        self.note(format!("remove {name} {options:?}"));
        Ok(vec![
            ImageDeleteResponseItem { untagged: Some("busybox:latest".to_owned()), deleted: None },
            ImageDeleteResponseItem { untagged: None, deleted: Some("sha256:01".to_owned()) },
        ])
    }

    async fn prune_images(&self, filters: Filters) -> Result<ImagePruneResponse> {
        self.note(format!("prune {filters:?}"));
        Ok(ImagePruneResponse::default())
    }
}

#[async_trait]
impl Containers for Fake {
    async fn create_container(&self, request: CreateContainer) -> Result<ContainerCreateResponse> {
        self.note(format!(
            "create {:?} {:?} {:?} {}",
            request.name, request.platform, request.body.image, request.version
        ));
        Ok(ContainerCreateResponse { id: "01".to_owned(), warnings: Vec::new() })
    }

    async fn list_containers(&self, options: ListContainers) -> Result<Vec<ContainerSummary>> {
        self.note(format!("{options:?}"));
        Ok(vec![summary()])
    }

    async fn inspect_container(&self, id: &str, size: bool) -> Result<InspectedContainer> {
        self.known("container", id)?;
        self.note(format!("inspect {id} {size}"));
        let container = model(json!({
            "Id": "01", "Name": "/web", "Created": "2026-01-02T03:04:05Z", "Path": "sleep", "Args": ["1"],
            "State": {"Status": "running", "Running": true, "Pid": 9, "StartedAt": "2026-01-02T03:04:05Z"},
            "Config": {"Image": "busybox", "Cmd": ["sleep", "1"], "ExposedPorts": {"80/tcp": {}}, "Tty": self.tty},
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "always"}, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
            "NetworkSettings": {"SandboxID": "sb", "Networks": {"bridge": {"IPAddress": "172.17.0.2", "IPPrefixLen": 16, "Gateway": "172.17.0.1", "MacAddress": "02:42:ac:11:00:02", "EndpointID": "e"}}},
            "Mounts": [],
        }));
        Ok(InspectedContainer { container, mac_address: Some("02:42:ac:11:00:02".to_owned()) })
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.known("container", id)?;
        if id == "running" { Err(ApiError::not_modified()) } else { Ok(()) }
    }

    async fn stop_container(&self, id: &str, options: StopOptions) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("stop {options:?}"));
        if id == "stopped" { Err(ApiError::not_modified()) } else { Ok(()) }
    }

    async fn restart_container(&self, id: &str, options: StopOptions) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("restart {options:?}"));
        Ok(())
    }

    async fn kill_container(&self, id: &str, signal: Option<&str>) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("kill {id} {signal:?}"));
        Ok(())
    }

    async fn pause_container(&self, id: &str) -> Result<()> {
        self.known("container", id)
    }

    async fn unpause_container(&self, id: &str) -> Result<()> {
        self.known("container", id)
    }

    async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<WaitResult> {
        self.known("container", id)?;
        self.note(format!("wait {condition:?}"));
        if id == "broken" {
            return Ok(Box::pin(async { Err(ApiError::internal("removal failed")) }));
        }
        if id == "waiting" {
            let exited = self.exited.clone();
            return Ok(Box::pin(async move {
                exited.notified().await;
                Ok(ContainerWaitResponse { status_code: 4, error: None })
            }));
        }
        Ok(Box::pin(async { Ok(ContainerWaitResponse { status_code: 3, error: None }) }))
    }

    async fn remove_container(&self, id: &str, options: RemoveContainer) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("remove {id} {options:?}"));
        if id == "running" {
            return Err(ApiError::conflict(
                "cannot remove container \"running\": container is running: stop the container before removing or force remove",
            ));
        }
        Ok(())
    }

    async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("rename {id} {name}"));
        Ok(())
    }

    async fn update_container(
        &self,
        id: &str,
        update: ContainerUpdateBody,
    ) -> Result<ContainerUpdateResponse> {
        self.known("container", id)?;
        self.note(format!("update {id} {:?} {:?}", update.memory, update.pids_limit));
        Ok(ContainerUpdateResponse { warnings: None })
    }

    async fn resize_container(&self, id: &str, size: TerminalSize) -> Result<()> {
        self.known("container", id)?;
        self.note(format!("resize {id} {size:?}"));
        Ok(())
    }

    async fn top_container(&self, id: &str, ps_args: &str) -> Result<ContainerTopResponse> {
        self.known("container", id)?;
        self.note(format!("top {ps_args}"));
        Ok(ContainerTopResponse {
            titles: Some(vec!["PID".to_owned()]),
            processes: Some(vec![vec!["1".to_owned()]]),
        })
    }

    async fn container_logs(&self, id: &str, options: LogsOptions) -> Result<LogStreams> {
        self.known("container", id)?;
        self.note(format!("{options:?}"));
        let lines = [chunk(StreamKind::Stdout, "out\n"), chunk(StreamKind::Stderr, "err\n")];
        Ok(LogStreams { output: futures_util::stream::iter(lines).boxed(), tty: self.tty })
    }

    async fn attach_container(&self, id: &str, options: AttachOptions) -> Result<AttachStreams> {
        self.known("container", id)?;
        self.note(format!("{options:?}"));
        Ok(self.streams(options.stdin))
    }

    async fn container_stats(&self, id: &str, options: StatsOptions) -> Result<StatsStream> {
        self.known("container", id)?;
        self.note(format!("{options:?}"));
        let stats = || {
            Ok(ContainerStatsResponse {
                id: Some("01".to_owned()),
                name: Some("/web".to_owned()),
                ..Default::default()
            })
        };
        Ok(futures_util::stream::iter([stats(), stats()]).boxed())
    }

    async fn stat_container_path(&self, id: &str, path: &str) -> Result<PathStat> {
        self.known("container", id)?;
        self.note(format!("stat {path}"));
        Ok(path_stat())
    }

    async fn container_archive(&self, id: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        self.known("container", id)?;
        self.note(format!("archive {path}"));
        Ok((path_stat(), bytes()))
    }

    async fn put_container_archive(
        &self,
        id: &str,
        options: PutArchive,
        mut archive: BodyReader,
    ) -> Result<()> {
        self.known("container", id)?;
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.note(format!("{options:?} {}", bytes.len()));
        Ok(())
    }

    async fn export_container(&self, id: &str) -> Result<ByteStream> {
        self.known("container", id)?;
        Ok(bytes())
    }

    async fn container_changes(&self, id: &str) -> Result<Vec<PathChange>> {
        self.known("container", id)?;
        if id == "unchanged" {
            return Ok(Vec::new());
        }
        Ok(vec![PathChange { path: "/etc".to_owned(), kind: 0 }])
    }

    async fn commit_container(&self, request: CommitContainer) -> Result<String> {
        self.known("container", &request.container)?;
        let config = request.config.is_some();
        self.note(format!("commit {:?} {} {:?} {config}", request.reference, request.pause, request.changes));
        Ok("sha256:03".to_owned())
    }

    async fn prune_containers(&self, filters: Filters) -> Result<ContainerPruneResponse> {
        self.note(format!("prune {filters:?}"));
        Ok(ContainerPruneResponse::default())
    }
}

#[async_trait]
impl Exec for Fake {
    async fn create_exec(&self, container: &str, config: ExecConfig) -> Result<String> {
        self.known("container", container)?;
        self.note(format!("exec {container} {:?}", config.cmd));
        Ok("e1".to_owned())
    }

    async fn start_exec(&self, id: &str, options: StartExec) -> Result<AttachStreams> {
        self.known("exec instance", id)?;
        self.note(format!("start {id} {options:?}"));
        Ok(self.streams(true))
    }

    async fn start_exec_detached(&self, id: &str, options: StartExec) -> Result<()> {
        self.known("exec instance", id)?;
        self.note(format!("start detached {id} {options:?}"));
        Ok(())
    }

    async fn resize_exec(&self, id: &str, size: TerminalSize) -> Result<()> {
        self.known("exec instance", id)?;
        self.note(format!("resize {id} {size:?}"));
        Ok(())
    }

    async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse> {
        self.known("exec instance", id)?;
        Ok(model(
            json!({ "ID": "e1", "Running": true, "ContainerID": "01", "ProcessConfig": {"tty": true, "entrypoint": "sh"} }),
        ))
    }
}

#[async_trait]
impl Networks for Fake {
    async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>> {
        self.note(format!("networks {filters:?}"));
        Ok(vec![model(json!({"Name": "bridge", "Id": "n1", "Driver": "bridge", "Scope": "local"}))])
    }

    async fn inspect_network(&self, id: &str, options: InspectNetwork) -> Result<NetworkInspect> {
        self.known("network", id)?;
        self.note(format!("{options:?}"));
        Ok(model(json!({
            "Name": "bridge", "Id": "n1", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]},
            "Containers": {"01": {"Name": "web", "IPv4Address": "172.17.0.2/16"}},
        })))
    }

    async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        self.note(format!("create network {} {:?} {:?}", request.name, request.internal, request.labels));
        Ok(NetworkCreateResponse { id: "n2".to_owned(), warning: String::new() })
    }

    async fn connect_network(
        &self,
        id: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<()> {
        self.known("network", id)?;
        let aliases = settings.and_then(|settings| settings.aliases);
        self.note(format!("connect {container} to {id} as {aliases:?}"));
        Ok(())
    }

    async fn disconnect_network(&self, id: &str, container: &str, force: bool) -> Result<()> {
        self.known("network", id)?;
        self.note(format!("disconnect {container} from {id} {force}"));
        Ok(())
    }

    async fn remove_network(&self, id: &str) -> Result<()> {
        self.known("network", id)?;
        self.note(format!("remove network {id}"));
        Ok(())
    }

    async fn prune_networks(&self, filters: Filters) -> Result<NetworkPruneResponse> {
        self.note(format!("prune networks {filters:?}"));
        Ok(NetworkPruneResponse::default())
    }
}

#[async_trait]
impl Volumes for Fake {
    async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse> {
        self.note(format!("volumes {filters:?}"));
        Ok(VolumeListResponse { volumes: Some(vec![volume()]), warnings: None })
    }

    async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        let labels: HashMap<String, String> = request.labels.unwrap_or_default();
        Ok(Volume { name: request.name.unwrap_or_else(|| "anonymous".to_owned()), labels, ..volume() })
    }

    async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.known("volume", name)?;
        Ok(volume())
    }

    async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        self.known("volume", name)?;
        self.note(format!("remove volume {name} {force}"));
        Ok(())
    }

    async fn prune_volumes(&self, filters: Filters) -> Result<VolumePruneResponse> {
        self.note(format!("prune {filters:?}"));
        Ok(VolumePruneResponse::default())
    }

    async fn volume_files(&self, name: &str, path: &str) -> Result<VolumeFiles> {
        self.known("volume", name)?;
        let file = VolumeFile {
            name: path.to_owned(),
            kind: VolumeFileKind::Directory,
            size: 4096,
            mode: 0o040_755,
            uid: 0,
            gid: 0,
            modified: "2026-01-01T00:00:00Z".to_owned(),
            target: String::new(),
        };
        Ok(VolumeFiles { files: vec![file], cut: false })
    }

    async fn stat_volume_path(&self, name: &str, _path: &str) -> Result<PathStat> {
        self.known("volume", name)?;
        Ok(path_stat())
    }

    async fn volume_archive(&self, name: &str, _path: &str) -> Result<(PathStat, ByteStream)> {
        self.known("volume", name)?;
        Ok((path_stat(), bytes()))
    }

    async fn put_volume_archive(&self, name: &str, path: &str, mut archive: BodyReader) -> Result<()> {
        self.known("volume", name)?;
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.note(format!("put {path} {}", bytes.len()));
        Ok(())
    }
}
