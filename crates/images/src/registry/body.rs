//! The body of an answer, arriving piece by piece with a limit on every wait.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Failure, request_error, words};
use crate::error::Error;

/// The bytes of a blob, arriving.
pub(crate) struct BlobBody {
    pub(super) body: Incoming,
    pub(super) stall: Duration,
    pub(super) url: String,
    /// Where in the blob the first byte belongs: the server may have ignored the range.
    pub offset: u64,
}

impl BlobBody {
    /// Waits for the next bytes; `None` at the end, which may come too early.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match tokio::time::timeout(self.stall, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => return Err(request_error("Get", &self.url, words::of(&error))),
                Err(_) => {
                    return Err(request_error("Get", &self.url, "i/o timeout: no data arrives".to_owned()));
                }
            }
        }
    }

    pub(super) async fn collect(&mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next().await.map_err(Failure::Again)? {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(Failure::Final(Error::Registry {
                    message: format!("{}: answer is larger than {limit} bytes", self.url),
                }));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}
