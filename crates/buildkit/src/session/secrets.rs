//! The client's secrets.

use std::collections::HashMap;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use skiff_build::{Error, Result, Secrets};
use tonic::Code;

use super::caller::Caller;
use super::{MESSAGE_LIMIT, SessionClient};

const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// As large as a secret may be, in bytes.
const LIMIT: usize = 500 << 10;

#[async_trait]
impl Secrets for SessionClient {
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let session = self.session("").await?;
        if !session.supports(METHOD) {
            return Ok(None);
        }
        let mut client = SecretsClient::with_origin(session.caller(), Caller::origin())
            .max_decoding_message_size(MESSAGE_LIMIT);
        let request = GetSecretRequest { id: id.to_owned(), annotations: HashMap::new() };
        match session.call(client.get_secret(request)).await {
            Ok(response) => {
                let data = response.into_inner().data;
                if data.len() > LIMIT {
                    return Err(Error::invalid(format!("invalid secret size {}", data.len())));
                }
                Ok(Some(data))
            }
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
            Err(status) => Err(Error::unavailable(format!("secret {id}: {}", status.message()))),
        }
    }
}
