//! Streams that begin as HTTP: attach and exec.

use http::Method;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;

use super::Query;
use super::client::{Client, empty, json};
use crate::error::Error;

/// The two directions of an attached process. Shutting the writing half down is the process's end of input.
pub type Stream = TokioIo<Upgraded>;

impl Client {
    /// Sends POST and takes over the connection.
    pub async fn hijack(
        &self,
        path: &str,
        query: &Query,
        body: Option<&impl Serialize>,
    ) -> Result<Stream, Error> {
        let mut request =
            self.request(Method::POST, path, query, body.map_or_else(empty, |body| json(body)))?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.check(self.exchange(request).await?).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::plain(format!(
                "unable to upgrade to tcp, received {}",
                response.status().as_u16()
            )));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| Error::Connection { endpoint: path.to_owned(), source: error.into() })?;
        Ok(TokioIo::new(upgraded))
    }
}
