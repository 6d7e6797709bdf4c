//! The client's blobs.

use async_trait::async_trait;
use skiff_build::{Error, Result, Stores};
use tokio::io::AsyncRead;

use super::SessionClient;
use crate::content::ClientStore;

#[async_trait]
impl Stores for SessionClient {
    async fn open(
        &self,
        session: &str,
        store: &str,
        digest: &str,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let session = self.session(session).await?;
        let opening = async { Ok(ClientStore::new(session.caller(), store).open(digest).await) };
        let opened = session.call(opening).await;
        opened.map_err(|status| Error::unavailable(status.message()))?
    }

    async fn write(
        &self,
        store: &str,
        digest: &str,
        size: u64,
        bytes: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<()> {
        let session = self.session("").await?;
        let writing =
            async { Ok(ClientStore::new(session.caller(), store).write(digest, size, bytes).await) };
        let written = session.call(writing).await;
        written.map_err(|status| Error::unavailable(status.message()))?
    }
}
