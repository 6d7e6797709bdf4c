//! A client's blobs: what it offers in its session under the name of a store.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use skiff_build::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use crate::session::{Caller, MESSAGE_LIMIT};

/// Says which store of a client is meant.
const STORE: &str = "buildkit-attachable-store-id";
/// As much as one message of a write has, in bytes.
const CHUNK: usize = 1 << 20;

/// See the module's text.
pub(crate) struct ClientStore {
    caller: Caller,
    store: String,
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

fn failed(status: &Status) -> Error {
    match status.code() {
        Code::NotFound => Error::not_found(status.message()),
        Code::Cancelled => Error::Cancelled,
        Code::Unimplemented => Error::not_found("the client has no content"),
        _ => Error::unavailable(status.message()),
    }
}

impl ClientStore {
    pub fn new(caller: Caller, store: &str) -> Self {
        Self { caller, store: store.to_owned() }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let store = MetadataValue::try_from(&self.store);
        let store = store.map_err(|_| Error::invalid(format!("invalid content store {:?}", self.store)))?;
        request.metadata_mut().insert(STORE, store);
        Ok(request)
    }

    async fn ready(&self) -> Result<Grpc<Caller>> {
        let mut client =
            Grpc::with_origin(self.caller.clone(), Caller::origin()).max_decoding_message_size(MESSAGE_LIMIT);
        let ready = client.ready().await;
        ready.map_err(|error| Error::unavailable(format!("the client's session: {error}")))?;
        Ok(client)
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// When the client has no such blob.
    pub async fn open(&self, digest: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let request =
            self.request(ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() })?;
        let codec: ProstCodec<ReadContentRequest, ReadContentResponse> = ProstCodec::default();
        let method = path("/containerd.services.content.v1.Content/Read");
        let answer = self.ready().await?.server_streaming(request, method, codec).await;
        let pieces = answer.map_err(|status| failed(&status))?.into_inner();
        let pieces = pieces
            .map_ok(|piece| Bytes::from(piece.data))
            .map_err(|status| io::Error::other(status.message().to_owned()));
        Ok(Box::new(StreamReader::new(Box::pin(pieces))))
    }

    /// Whether the client has a blob.
    async fn has(&self, digest: &str) -> Result<bool> {
        let request = self.request(InfoRequest { digest: digest.to_owned() })?;
        let codec: ProstCodec<InfoRequest, InfoResponse> = ProstCodec::default();
        let method = path("/containerd.services.content.v1.Content/Info");
        match self.ready().await?.unary(request, method, codec).await {
            Ok(_) => Ok(true),
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unknown) => Ok(false),
            Err(status) => Err(failed(&status)),
        }
    }

    /// Gives the client a blob, unless it has it.
    ///
    /// # Errors
    /// When the client does not take it; a blob of another length.
    pub async fn write(
        &self,
        digest: &str,
        size: u64,
        mut bytes: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        if self.has(digest).await? {
            return Ok(());
        }
        let total = i64::try_from(size).map_err(|_| Error::invalid("a blob that is too large"))?;
        let (messages, outgoing) = mpsc::channel(4);
        let message = |action: WriteAction, offset: i64, data: Vec<u8>| WriteContentRequest {
            action: action.into(),
            r#ref: format!("skiff-{digest}"),
            total,
            expected: digest.to_owned(),
            offset,
            data,
            ..WriteContentRequest::default()
        };
        let request = self.request(ReceiverStream::new(outgoing))?;
        let codec: ProstCodec<WriteContentRequest, WriteContentResponse> = ProstCodec::default();
        let method = path("/containerd.services.content.v1.Content/Write");
        let mut client = self.ready().await?;
        let call = async move {
            let mut answers = client.streaming(request, method, codec).await?.into_inner();
            while let Some(answer) = answers.next().await {
                if answer?.action == i32::from(WriteAction::Commit) {
                    return Ok(());
                }
            }
            Err(Status::unknown("the client did not commit the blob"))
        };
        let send = async {
            let gone = |_| Error::unavailable("the client takes no content");
            let mut offset = 0;
            loop {
                let mut data = Vec::with_capacity(CHUNK);
                let mut piece = (&mut bytes).take(CHUNK as u64);
                let read = piece.read_to_end(&mut data).await;
                let read = read.map_err(|error| Error::failed(format!("read {digest}: {error}")))?;
                if read == 0 {
                    break;
                }
                messages.send(message(WriteAction::Write, offset, data)).await.map_err(gone)?;
                offset += i64::try_from(read).unwrap_or(0);
            }
            if offset != total {
                return Err(Error::failed(format!("{digest}: {offset} bytes of {total}")));
            }
            messages.send(message(WriteAction::Commit, offset, Vec::new())).await.map_err(gone)?;
            // Open until the client has answered.
            std::future::pending::<()>().await;
            Ok(())
        };
        tokio::select! {
            biased;
            done = call => match done {
                Ok(()) => Ok(()),
                Err(status) if status.code() == Code::AlreadyExists => Ok(()),
                Err(status) => Err(failed(&status)),
            },
            sent = send => sent,
        }
    }
}
