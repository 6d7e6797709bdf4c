//! What a client reads from its standard input: a Dockerfile, or a tar of a context.

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use skiff_build::{Error, Result};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::caller::Caller;
use super::{MESSAGE_LIMIT, SessionClient};

/// Opens an upload by its address.
pub(super) async fn open(client: &SessionClient, url: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
    let path = url
        .strip_prefix("http://buildkit-session/")
        .ok_or_else(|| Error::invalid(format!("invalid upload address {url}")))?;
    let session = client.session("").await?;
    let mut uploads = UploadClient::with_origin(session.caller(), Caller::origin())
        .max_decoding_message_size(MESSAGE_LIMIT);
    // Nothing is said on our side, but it stays open until all of theirs is read.
    let mut request = Request::new(futures_util::stream::pending::<BytesMessage>());
    let value = MetadataValue::try_from(format!("/{path}"))
        .map_err(|_| Error::invalid(format!("invalid upload address {url}")))?;
    request.metadata_mut().insert("urlpath", value);
    let incoming = session.call(uploads.pull(request)).await.map_err(|status| {
        if status.code() == tonic::Code::Unimplemented {
            return Error::not_found(format!("no upload {url} from the client"));
        }
        Error::unavailable(format!("failed to read the upload: {}", status.message()))
    })?;
    let bytes = incoming
        .into_inner()
        .map_ok(|message| Bytes::from(message.data))
        .map_err(|status| std::io::Error::other(status.message().to_owned()));
    let ended = Box::pin(async move { session.ended().await });
    let bytes = bytes.take_until(ended);
    Ok(Box::new(StreamReader::new(Box::pin(bytes))))
}
