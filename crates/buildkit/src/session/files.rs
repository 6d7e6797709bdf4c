//! Files to and from the client.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as PacketSendClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use futures_util::TryStreamExt;
use skiff_build::{ContextSink, Contexts, Error, LocalRequest, Result};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};

use super::caller::Caller;
use super::{MESSAGE_LIMIT, Session, SessionClient, upload};
use crate::fsutil::{self, ReceiveError, SendError};

const SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// As large as a message of an archive is at most, in bytes.
const CHUNK: usize = 3 << 20;
/// How long a client that broke a transfer off may take to say why.
const REASON: Duration = Duration::from_secs(1);

#[async_trait]
impl Contexts for SessionClient {
    async fn send(
        &self,
        request: &LocalRequest,
        sink: &mut dyn ContextSink,
        progress: &(dyn for<'a> Fn(&'a str, u64) + Send + Sync),
    ) -> Result<()> {
        let session = self.session(&request.session).await?;
        if !session.supports(SYNC) {
            return Err(Error::not_found(format!("no local source {:?} from the client", request.name)));
        }
        let mut client = FileSyncClient::with_origin(session.caller(), Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT);
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut call = Request::new(UnboundedReceiverStream::new(outgoing));
        let metadata = call.metadata_mut();
        fsutil::put_metadata(metadata, "dir-name", std::slice::from_ref(&request.name));
        fsutil::put_metadata(metadata, "include-patterns", &request.include);
        fsutil::put_metadata(metadata, "exclude-patterns", &request.exclude);
        fsutil::put_metadata(metadata, "followpaths", &request.follow);
        let transfer = async {
            let packets = client.diff_copy(call).await.map_err(ReceiveError::Transport)?.into_inner();
            fsutil::receive(packets, requests, sink, progress).await
        };
        let outcome = tokio::select! {
            outcome = transfer => outcome,
            () = session.ended() => Err(ReceiveError::Ended),
        };
        outcome.map_err(|error| match error {
            ReceiveError::Sink(error) => error,
            ReceiveError::Transport(status) => match status.code() {
                Code::NotFound => Error::not_found(status.message()),
                Code::InvalidArgument => Error::invalid(status.message()),
                Code::Cancelled => Error::Cancelled,
                _ => Error::unavailable(status.message()),
            },
            ReceiveError::Ended => Error::unavailable("the client left while it sent its files"),
            ReceiveError::Sender { message } => Error::failed(message),
            error => Error::invalid(error.to_string()),
        })
    }

    async fn shared_key(&self, session: &str) -> String {
        let session = self.session(session).await;
        session.map(|session| session.shared_key().to_owned()).unwrap_or_default()
    }

    async fn upload(&self, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        upload::open(self, url).await
    }
}

/// What the client gets as the outcome of an exporter.
impl Session {
    /// Sends a directory; `index` says which of the build's exporters it is of.
    pub(crate) async fn send_files(
        &self,
        root: OwnedFd,
        shape: fsutil::Shape,
        index: usize,
        on_sent: fsutil::OnSent,
    ) -> Result<()> {
        let mut client = PacketSendClient::with_origin(self.caller(), Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT);
        let (packets, outgoing) = mpsc::channel(64);
        let mut call = Request::new(ReceiverStream::new(outgoing));
        exporter(call.metadata_mut(), index);
        // Clients answer the call only once they have had a packet: it is sent while the answer is waited for.
        let answer = async move { Ok::<_, Status>(client.diff_copy(call).await?.into_inner()) };
        let requests = Box::pin(futures_util::stream::once(answer).try_flatten());
        let transfer = fsutil::send(root, shape, requests, packets, on_sent);
        let outcome = tokio::select! {
            outcome = transfer => outcome,
            () = self.ended() => Err(SendError::Ended),
        };
        outcome.map_err(|error| match error {
            SendError::Transport(status) if status.code() == Code::Unimplemented => {
                Error::invalid("the client takes no files")
            }
            SendError::Transport(status) => Error::failed(status.message()),
            SendError::Receiver { message } => Error::failed(message),
            error => Error::failed(format!("failed to send the result: {error}")),
        })
    }

    /// Opens a file at the client that an archive is written to.
    pub(crate) fn open_file(self: &Arc<Self>, index: usize) -> (FileWriter, FileEnd) {
        let mut client = FileSendClient::with_origin(self.caller(), Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT);
        let (chunks, outgoing) = mpsc::channel(2);
        let mut call = Request::new(ReceiverStream::new(outgoing));
        exporter(call.metadata_mut(), index);
        let session = self.clone();
        let sending = tokio::spawn(async move {
            let work = async {
                let mut incoming = client.diff_copy(call).await?.into_inner();
                while incoming.message().await?.is_some() {}
                Ok(())
            };
            session.call(work).await
        });
        let pending = Arc::new(Mutex::new(Vec::new()));
        let writer = FileWriter { chunks: chunks.clone(), pending: pending.clone() };
        (writer, FileEnd { chunks: Some(chunks), pending, sending })
    }
}

fn exporter(metadata: &mut MetadataMap, index: usize) {
    metadata.insert("buildkit-attachable-exporter-id", MetadataValue::from(index));
}

/// Writes to a file at the client. Blocks: for threads of their own.
#[derive(Debug)]
pub(crate) struct FileWriter {
    chunks: mpsc::Sender<BytesMessage>,
    /// What is too little for a message; the end sends it.
    pending: Arc<Mutex<Vec<u8>>>,
}

impl io::Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bytes.len().min(CHUNK - pending.len());
        pending.extend_from_slice(&bytes[..taken]);
        if pending.len() == CHUNK {
            let data = std::mem::take(&mut *pending);
            self.chunks
                .blocking_send(BytesMessage { data })
                .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client takes no more"))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of a file at the client. Dropped without [`FileEnd::finish`] it breaks the transfer off, so that the client
/// doesn't take half of a file for all of it.
#[derive(Debug)]
pub(crate) struct FileEnd {
    chunks: Option<mpsc::Sender<BytesMessage>>,
    pending: Arc<Mutex<Vec<u8>>>,
    sending: JoinHandle<std::result::Result<(), Status>>,
}

impl FileEnd {
    /// Sends the rest and waits until the client has it all.
    pub async fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(chunks) = self.chunks.take()
            && !rest.is_empty()
        {
            // A client that takes no more says why below.
            let _ = chunks.send(BytesMessage { data: rest }).await;
        }
        self.outcome().await
    }

    /// Why the client takes no more, where it is that that made writing fail: the client knows best.
    pub async fn reason(&mut self) -> Option<Error> {
        tokio::time::timeout(REASON, self.outcome()).await.ok()?.err()
    }

    async fn outcome(&mut self) -> Result<()> {
        match (&mut self.sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                Err(Error::invalid("the client takes no archive"))
            }
            Ok(Err(status)) => Err(Error::failed(status.message())),
            Err(error) => Err(Error::failed(error.to_string())),
        }
    }
}

impl Drop for FileEnd {
    fn drop(&mut self) {
        self.sending.abort();
    }
}
