//! The client's ssh agents: a step's connection to its agent socket goes on as a stream of the session.

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use skiff_build::{Error, Result, Ssh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::caller::Caller;
use super::{MESSAGE_LIMIT, SessionClient};

const METHOD: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const BUFFER: usize = 32 << 10;

#[async_trait]
impl Ssh for SessionClient {
    async fn has(&self, id: &str) -> Result<bool> {
        let session = self.session("").await?;
        if !session.supports(METHOD) {
            return Ok(false);
        }
        let mut client = SshClient::with_origin(session.caller(), Caller::origin());
        match session.call(client.check_agent(CheckAgentRequest { id: id.to_owned() })).await {
            Ok(_) => Ok(true),
            // Clients say it in words only: "unset ssh forward key default".
            Err(status) if matches!(status.code(), Code::Unknown | Code::NotFound | Code::Unimplemented) => {
                Ok(false)
            }
            Err(status) => Err(Error::unavailable(format!("ssh agent {id}: {}", status.message()))),
        }
    }

    async fn connect(&self, id: &str, stream: OwnedFd) -> Result<()> {
        let failed = |error: std::io::Error| Error::failed(format!("ssh agent {id}: {error}"));
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true).map_err(failed)?;
        let (mut reader, mut writer) = UnixStream::from_std(stream).map_err(failed)?.into_split();
        let session = self.session("").await?;
        let mut client = SshClient::with_origin(session.caller(), Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT);
        let (send, outgoing) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let value = MetadataValue::try_from(id)
            .map_err(|_| Error::invalid(format!("invalid ssh forward key {id:?}")))?;
        request.metadata_mut().insert("buildkit.ssh.id", value);
        let up = async move {
            let mut buffer = vec![0; BUFFER];
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                if send.send(BytesMessage { data: buffer[..read].to_vec() }).await.is_err() {
                    break;
                }
            }
            // The step has closed its side; the stream's end tells the client, whose last answers still come down.
            drop(send);
            std::future::pending::<()>().await;
        };
        let down = session.call(async {
            let mut incoming = client.forward_agent(request).await?.into_inner();
            while let Some(message) = incoming.message().await? {
                if writer.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        tokio::select! {
            () = up => Ok(()),
            result = down => {
                result.map_err(|status| Error::unavailable(format!("ssh agent {id}: {}", status.message())))
            }
        }
    }
}
