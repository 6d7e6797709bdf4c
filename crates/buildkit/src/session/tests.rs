//! Sessions against a client that is played by the test: gRPC servers at the far end of a pipe.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{
    Secrets as SecretsService, SecretsServer,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::packet::file_send_server::{
    FileSend as PacketSendService, FileSendServer as PacketSendServer,
};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth as AuthService, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::{
    FileSend as FileSendService, FileSendServer,
};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::{
    FileSync as FileSyncService, FileSyncServer,
};
use bollard_buildkit_proto::moby::filesync::v1::{self as filesync};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh as SshService, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{self as sshforward};
use bollard_buildkit_proto::moby::upload::v1::upload_server::{Upload as UploadService, UploadServer};
use bollard_buildkit_proto::moby::upload::v1::{self as uploads};
use futures_util::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use skiff_build::{
    ContextEntry, ContextSink, Contexts, Credentials, EntryKind, LocalRequest, Secrets, Ssh, Wanted,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::{Offer, SessionClient, SessionError, Sessions};
use crate::fsutil;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the played client has, and what it was told.
#[derive(Default)]
struct Played {
    directory: Option<tempfile::TempDir>,
    metadata: Mutex<Vec<(String, String)>>,
    file: Mutex<Vec<u8>>,
    file_ended: Mutex<bool>,
    tree: Mutex<Tree>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeClient(Arc<Played>);

impl FakeClient {
    pub fn with_directory() -> Self {
        Self(Arc::new(Played { directory: tempfile::tempdir().ok(), ..Played::default() }))
    }

    pub fn directory(&self) -> &Path {
        self.0.directory.as_ref().unwrap().path()
    }

    /// What came as an archive.
    pub fn file(&self) -> Vec<u8> {
        self.0.file.lock().unwrap().clone()
    }
}

#[async_trait]
impl FileSyncService for FakeClient {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let mut seen = self.0.metadata.lock().unwrap();
        for key in
            ["dir-name", "include-patterns", "exclude-patterns", "followpaths", "exclude-patterns-encoded"]
        {
            for value in request.metadata().get_all(key) {
                seen.push((key.to_owned(), value.to_str().unwrap().to_owned()));
            }
        }
        drop(seen);
        let root = open(self.0.directory.as_ref().unwrap().path());
        let (packets, outgoing) = mpsc::channel(8);
        tokio::spawn(async move {
            let sent =
                fsutil::send(root, fsutil::Shape::default(), request.into_inner(), packets, Arc::new(|_| {}))
                    .await;
            assert!(sent.is_ok() || matches!(sent, Err(fsutil::SendError::Receiver { .. })), "{sent:?}");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok))))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("as every client"))
    }
}

#[async_trait]
impl FileSendService for FakeClient {
    type DiffCopyStream = Answers<filesync::BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<filesync::BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let mut incoming = request.into_inner();
        let played = self.0.clone();
        let receive = async move {
            while let Some(message) = incoming.message().await? {
                let mut file = played.file.lock().unwrap();
                file.extend_from_slice(&message.data);
                if file.starts_with(b"no room") {
                    return Err(Status::unknown("write out.tar: no space left on device"));
                }
            }
            *played.file_ended.lock().unwrap() = true;
            Ok(())
        };
        let outcome = futures_util::stream::once(receive)
            .filter_map(|outcome| std::future::ready(outcome.err().map(Err)));
        Ok(Response::new(Box::pin(outcome)))
    }
}

#[async_trait]
impl PacketSendService for FakeClient {
    type DiffCopyStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let played = self.0.clone();
        let mut incoming = request.into_inner();
        // As real clients: no answer before the first packet.
        let first = incoming.message().await?;
        let packets = futures_util::stream::iter(first.map(Ok)).chain(incoming);
        tokio::spawn(async move {
            let mut tree = Tree::default();
            fsutil::receive(packets, requests.clone(), &mut tree, &|_, _| {}).await.unwrap();
            *played.tree.lock().unwrap() = tree;
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::UnboundedReceiverStream::new(outgoing).map(Ok))))
    }
}

#[async_trait]
impl SecretsService for FakeClient {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let data = match request.into_inner().id.as_str() {
            "token" => b"s3cret".to_vec(),
            "large" => vec![0; (500 << 10) + 1],
            other => return Err(Status::not_found(format!("secret {other} not found"))),
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[async_trait]
impl SshService for FakeClient {
    async fn check_agent(
        &self,
        request: Request<sshforward::CheckAgentRequest>,
    ) -> Result<Response<sshforward::CheckAgentResponse>, Status> {
        match request.into_inner().id.as_str() {
            "default" => Ok(Response::new(sshforward::CheckAgentResponse {})),
            other => Err(Status::unknown(format!("unset ssh forward key {other}"))),
        }
    }

    type ForwardAgentStream = Answers<sshforward::BytesMessage>;

    /// An agent that says everything in capitals, and good bye.
    async fn forward_agent(
        &self,
        request: Request<Streaming<sshforward::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        assert_eq!(request.metadata().get("buildkit.ssh.id").unwrap(), "default");
        let spoken = request
            .into_inner()
            .map(|message| Ok(sshforward::BytesMessage { data: message?.data.to_ascii_uppercase() }));
        let bye = futures_util::stream::iter([Ok(sshforward::BytesMessage { data: b"bye".to_vec() })]);
        Ok(Response::new(Box::pin(spoken.chain(bye))))
    }
}

#[async_trait]
impl AuthService for FakeClient {
    async fn credentials(
        &self,
        request: Request<filesync::CredentialsRequest>,
    ) -> Result<Response<filesync::CredentialsResponse>, Status> {
        let (username, secret) = match request.into_inner().host.as_str() {
            "registry-1.docker.io" => ("hub", "password"),
            "tokens:5000" => ("", "identity"),
            _ => ("", ""),
        };
        Ok(Response::new(filesync::CredentialsResponse {
            username: username.to_owned(),
            secret: secret.to_owned(),
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<filesync::FetchTokenRequest>,
    ) -> Result<Response<filesync::FetchTokenResponse>, Status> {
        let request = request.into_inner();
        match request.host.as_str() {
            "old:5000" => Err(Status::unimplemented("old client")),
            "wrong:5000" => Err(Status::unknown("401 Unauthorized")),
            _ => Ok(Response::new(filesync::FetchTokenResponse {
                token: format!(
                    "{} {} {} {}",
                    request.host,
                    request.realm,
                    request.service,
                    request.scopes.join(",")
                ),
                ..filesync::FetchTokenResponse::default()
            })),
        }
    }

    async fn get_token_authority(
        &self,
        _: Request<filesync::GetTokenAuthorityRequest>,
    ) -> Result<Response<filesync::GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("old client"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<filesync::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<filesync::VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("old client"))
    }
}

#[async_trait]
impl UploadService for FakeClient {
    type PullStream = Answers<uploads::BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<uploads::BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        if request.metadata().get("urlpath").is_none_or(|path| path != "/abc") {
            return Err(Status::unknown("unknown path"));
        }
        let parts = ["FROM ", "scratch"].map(|part| Ok(uploads::BytesMessage { data: part.into() }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(parts))))
    }
}

/// A tree in memory.
#[derive(Default, Debug)]
struct Tree {
    entries: BTreeMap<String, ContextEntry>,
    paths: BTreeMap<u32, String>,
    data: BTreeMap<String, Vec<u8>>,
}

impl ContextSink for Tree {
    fn entry(&mut self, id: u32, entry: ContextEntry, _: bool) -> skiff_build::Result<Wanted> {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        let wanted = matches!(entry.kind, EntryKind::File { .. });
        self.paths.insert(id, path.clone());
        self.entries.insert(path, entry);
        Ok(if wanted { Wanted::Yes } else { Wanted::No })
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> skiff_build::Result<()> {
        self.data.entry(self.paths[&id].clone()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self, id: u32) -> skiff_build::Result<()> {
        self.data.entry(self.paths[&id].clone()).or_default();
        Ok(())
    }
}

fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

const METHODS: [&str; 6] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/diffcopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.upload.v1.Upload/Pull",
];

fn offer(id: &str) -> Offer {
    let methods = METHODS.iter().map(|method| (*method).to_owned()).collect();
    Offer { id: id.to_owned(), shared_key: "key".to_owned(), methods }
}

/// Opens a session whose client serves these.
pub(crate) fn open_session(sessions: &Sessions, id: &str, routes: Routes) -> tokio::task::JoinHandle<()> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let place = sessions.reserve(&offer(id)).unwrap();
    let offer = offer(id);
    tokio::spawn(async move { place.serve(offer, near).await });
    tokio::spawn(async move {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(routes))
            .await;
    })
}

pub(crate) fn everything(client: &FakeClient) -> Routes {
    Routes::new(FileSyncServer::new(client.clone()))
        .add_service(FileSendServer::new(client.clone()))
        .add_service(SecretsServer::new(client.clone()))
        .add_service(SshServer::new(client.clone()))
        .add_service(AuthServer::new(client.clone()))
        .add_service(UploadServer::new(client.clone()))
}

/// A session of a client that has all of it.
fn played() -> (FakeClient, SessionClient) {
    let client = FakeClient::with_directory();
    let sessions = Sessions::default();
    open_session(&sessions, "one", everything(&client));
    (client, SessionClient { sessions, id: "one".to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_arrives_as_it_is_on_the_clients_disk() {
    let (client, session) = played();
    let root = client.directory();
    std::fs::create_dir_all(root.join("a/deep")).unwrap();
    std::fs::write(root.join("a/deep/large"), vec![7; 100_000]).unwrap();
    std::fs::write(root.join("a.txt"), "text").unwrap();
    std::fs::hard_link(root.join("a.txt"), root.join("b.txt")).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("../elsewhere", root.join("link")).unwrap();
    let _ignored = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let request = LocalRequest {
        name: "context".to_owned(),
        exclude: vec!["**/ünwanted".to_owned(), "!x y".to_owned()],
        follow: vec!["Dockerfile".to_owned()],
        ..LocalRequest::default()
    };
    let mut tree = Tree::default();
    session.send(&request, &mut tree, &|_, _| {}).await.unwrap();
    let names: Vec<&str> = tree.entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "a.txt", "a/deep", "a/deep/large", "b.txt", "empty", "link"]);
    assert_eq!(tree.data["a/deep/large"], vec![7; 100_000]);
    assert_eq!(tree.data["a.txt"], b"text");
    assert_eq!(tree.data["empty"], b"");
    assert_eq!(tree.entries["b.txt"].kind, EntryKind::HardLink { target: b"a.txt".to_vec() });
    assert_eq!(tree.entries["link"].kind, EntryKind::Symlink { target: b"../elsewhere".to_vec() });
    let seen = client.0.metadata.lock().unwrap();
    let expected = [
        ("dir-name", "context"),
        ("exclude-patterns", "%2A%2A%2F%C3%BCnwanted"),
        ("exclude-patterns", "%21x%20y"),
        ("followpaths", "Dockerfile"),
        ("exclude-patterns-encoded", "1"),
    ];
    assert_eq!(*seen, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn secrets_are_found_absent_or_too_large() {
    let (_, session) = played();
    assert_eq!(session.secret("token").await.unwrap().as_deref(), Some(&b"s3cret"[..]));
    assert_eq!(session.secret("other").await.unwrap(), None);
    assert_eq!(session.secret("large").await.unwrap_err().to_string(), "invalid secret size 512001");
}

#[tokio::test]
async fn an_agents_answers_come_after_the_step_has_said_all() {
    let (_, session) = played();
    assert!(session.has("default").await.unwrap());
    assert!(!session.has("other").await.unwrap());
    let (step, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let serve = tokio::spawn(async move { session.connect("default", ours.into()).await });
    step.set_nonblocking(true).unwrap();
    let mut step = tokio::net::UnixStream::from_std(step).unwrap();
    step.write_all(b"hello ").await.unwrap();
    let mut heard = [0; 6];
    step.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELLO ");
    step.shutdown().await.unwrap();
    let mut rest = String::new();
    step.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    serve.await.unwrap().unwrap();
}

#[tokio::test]
async fn logins_are_asked_for_by_the_name_that_clients_know() {
    let (_, session) = played();
    let hub = session.registry("docker.io").await.unwrap().unwrap();
    assert_eq!((hub.username.as_str(), hub.password.expose()), ("hub", "password"));
    let token = session.registry("tokens:5000").await.unwrap().unwrap();
    assert_eq!(token.identity_token.expose(), "identity");
    assert!(session.registry("localhost:5000").await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_is_read_by_its_address() {
    let (_, session) = played();
    let mut text = String::new();
    let mut upload = session.upload("http://buildkit-session/abc").await.unwrap();
    upload.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "FROM scratch");
    assert!(session.upload("http://elsewhere/abc").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_arrives_whole_or_not_as_one() {
    let (client, session) = played();
    let far = session.session("").await.unwrap();
    let (mut writer, end) = far.open_file(0);
    let data = vec![3; 7 << 20];
    let written = data.clone();
    tokio::task::spawn_blocking(move || writer.write_all(&written).unwrap()).await.unwrap();
    end.finish().await.unwrap();
    assert!(*client.0.file_ended.lock().unwrap());
    assert!(*client.0.file.lock().unwrap() == data);

    *client.0.file_ended.lock().unwrap() = false;
    let (mut writer, end) = far.open_file(0);
    tokio::task::spawn_blocking(move || writer.write_all(b"half").unwrap()).await.unwrap();
    drop(end);
    // A later call on the same connection comes after the break.
    session.secret("token").await.unwrap();
    assert!(!*client.0.file_ended.lock().unwrap());

    client.0.file.lock().unwrap().clear();
    let (mut writer, end) = far.open_file(0);
    tokio::task::spawn_blocking(move || writer.write_all(b"no room").unwrap()).await.unwrap();
    let error = end.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "write out.tar: no space left on device");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_sent_to_the_client() {
    let client = FakeClient::default();
    let sessions = Sessions::default();
    open_session(&sessions, "files", Routes::new(PacketSendServer::new(client.clone())));
    let result = tempfile::tempdir().unwrap();
    std::fs::create_dir(result.path().join("bin")).unwrap();
    std::fs::write(result.path().join("bin/app"), vec![1; 70_000]).unwrap();
    std::os::unix::fs::symlink("/bin/app", result.path().join("app")).unwrap();
    let session = sessions.get("x:files").await.unwrap();
    session.send_files(open(result.path()), fsutil::Shape::default(), 0, Arc::new(|_| {})).await.unwrap();
    // The client has it all when it says so; it stores it right after.
    let tree = loop {
        let tree = std::mem::take(&mut *client.0.tree.lock().unwrap());
        if !tree.entries.is_empty() {
            break tree;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(tree.entries.keys().collect::<Vec<_>>(), ["app", "bin", "bin/app"]);
    assert_eq!(tree.data["bin/app"], vec![1; 70_000]);
}

#[tokio::test]
async fn an_id_is_one_sessions_and_free_again_after_it() {
    let sessions = Sessions::default();
    let far = open_session(&sessions, "one", Routes::default());
    assert!(matches!(sessions.reserve(&offer("one")), Err(SessionError::Exists { .. })));
    assert!(matches!(sessions.reserve(&offer("")), Err(SessionError::Invalid { .. })));
    let session = sessions.get("one").await.unwrap();
    far.abort();
    session.ended().await;
    while let Err(SessionError::Exists { .. }) = sessions.reserve(&offer("one")) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_waited_for_but_not_for_ever() {
    let sessions = Sessions::default();
    let waiting = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.get("late").await.is_ok() }
    });
    tokio::task::yield_now().await;
    open_session(&sessions, "late", Routes::default());
    assert!(waiting.await.unwrap());
    let error = sessions.get("never").await.unwrap_err();
    assert_eq!(error.to_string(), "no active session for never: context deadline exceeded");
}

#[tokio::test]
async fn a_client_that_speaks_no_http_gets_no_session() {
    let sessions = Sessions::default();
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let _ = sessions.serve(offer("bad"), near).await;
    assert!(sessions.reserve(&offer("bad")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_given_up() {
    let sessions = Sessions::default();
    let (near, _far) = tokio::io::duplex(64 << 10);
    let mut offer = offer("silent");
    offer.methods.push("/grpc.health.v1.Health/Check".to_owned());
    let serve = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.serve(offer, near).await }
    });
    let client = SessionClient { sessions, id: "silent".to_owned() };
    let error = client.secret("token").await.unwrap_err();
    assert!(error.to_string().contains("session silent closed"), "{error}");
    serve.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fetches_tokens_keeps_its_login() {
    let client = FakeClient::with_directory();
    let sessions = Sessions::default();
    let mut offered = offer("new");
    offered.methods.push("/moby.filesync.v1.Auth/FetchToken".to_owned());
    let (near, far) = tokio::io::duplex(64 << 10);
    let place = sessions.reserve(&offered).unwrap();
    tokio::spawn(async move { place.serve(offered, near).await });
    let routes = everything(&client);
    tokio::spawn(async move {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(routes))
            .await;
    });
    let session = SessionClient { sessions, id: "new".to_owned() };
    let delegate = async |host: &str| {
        let auth = session.registry(host).await.unwrap().unwrap();
        assert!(auth.username.is_empty(), "the login came along");
        auth.delegate.unwrap().0
    };
    let hub = delegate("docker.io").await;
    let (token, seconds) = hub.token("http://realm", "reg", &["a", "b"]).await.unwrap().unwrap();
    assert_eq!((token.expose(), seconds), ("registry-1.docker.io http://realm reg a,b", 60));
    assert_eq!(hub.login().await.unwrap().unwrap().username, "hub", "for registries without tokens");
    assert_eq!(delegate("old:5000").await.token("r", "s", &[]).await.unwrap(), None);
    assert_eq!(delegate("old:5000").await.login().await.unwrap(), None);
    let refused = delegate("wrong:5000").await.token("r", "s", &[]).await.unwrap_err();
    assert_eq!(refused, "failed to authorize: failed to fetch oauth token: 401 Unauthorized");
    assert_ne!(hub.id(), delegate("old:5000").await.id());
}
