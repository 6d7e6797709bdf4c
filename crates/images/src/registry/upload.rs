//! Blobs and manifests to a registry (OCI distribution specification, "Push").

use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::auth::form;
use super::uri::{resolve, shown_url};
use super::{Failure, MAX_ATTEMPTS, Outgoing, Repository, Sent, request_error};
use crate::digest::Digest;
use crate::error::Error;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

impl Repository {
    /// Says whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.reference.path());
        let answer = self.request(Method::HEAD, &url, &HeaderMap::new(), &Outgoing::Nothing).await;
        let answer = answer.map_err(Failure::into_error)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(answer).await.into_error()),
        }
    }

    /// Asks the registry to take a blob over from another of its repositories; `false` when it would not.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        let query = form(&[("mount", digest.as_str()), ("from", from)]);
        let url = format!("{}/v2/{}/blobs/uploads/?{query}", self.base, self.reference.path());
        let answer = self.request(Method::POST, &url, &empty_upload(), &Outgoing::Nothing).await;
        // Rights to the other repository may be missing: then the blob is uploaded, and nothing is wrong.
        Ok(answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED))
    }

    /// Uploads a file as a blob; a broken connection starts it anew.
    pub async fn upload(&self, digest: &Digest, path: &Path, size: u64, sent: &Sent) -> Result<(), Error> {
        let body = Outgoing::File { path: path.to_owned(), sent: sent.clone() };
        self.upload_body(digest, &body, size).await
    }

    /// Uploads a few bytes as a blob.
    pub async fn upload_bytes(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.upload_body(digest, &Outgoing::Bytes(Bytes::from(bytes)), size).await
    }

    async fn upload_body(&self, digest: &Digest, body: &Outgoing, size: u64) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.upload_once(digest, body, size).await {
                Ok(()) => return Ok(()),
                Err(Failure::Again(error)) if attempt < MAX_ATTEMPTS => {
                    tracing::info!(blob = %digest, %error, attempt, "upload is repeated");
                    tokio::time::sleep(self.client.backoff(attempt)).await;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    /// Begins an upload, sends everything in one piece and closes it with the digest.
    async fn upload_once(&self, digest: &Digest, body: &Outgoing, size: u64) -> Result<(), Failure> {
        let url = format!("{}/v2/{}/blobs/uploads/", self.base, self.reference.path());
        let begun = self.request(Method::POST, &url, &empty_upload(), &Outgoing::Nothing).await?;
        let location = self.location(begun, StatusCode::ACCEPTED, &url).await?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, OCTETS)]);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let taken = self.request(Method::PATCH, &location.to_string(), &headers, body).await?;
        let location = self.location(taken, StatusCode::ACCEPTED, &shown_url(&location)).await?.to_string();
        let separator = if location.contains('?') { '&' } else { '?' };
        let close = format!("{location}{separator}{}", form(&[("digest", digest.as_str())]));
        let closed = self.request(Method::PUT, &close, &empty_upload(), &Outgoing::Nothing).await?;
        match closed.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.refusal(closed).await),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let url = format!("{}/v2/{}/manifests/{tag_or_digest}", self.base, self.reference.path());
        let wrong = |e: http::header::InvalidHeaderValue| Error::Malformed {
            what: "manifest media type".to_owned(),
            reason: e.to_string(),
        };
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(media_type).map_err(wrong)?)]);
        let body = Outgoing::Bytes(Bytes::from(bytes));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.request(Method::PUT, &url, &headers, &body).await {
                Ok(answer) if matches!(answer.status(), StatusCode::CREATED | StatusCode::OK) => {
                    return Ok(());
                }
                Ok(answer) => self.refusal(answer).await,
                Err(failure) => failure,
            };
            match failure {
                Failure::Again(error) if attempt < MAX_ATTEMPTS => {
                    tracing::info!(%error, attempt, "manifest is sent again");
                    tokio::time::sleep(self.client.backoff(attempt)).await;
                }
                failure => return Err(failure.into_error()),
            }
        }
    }

    /// Where an upload goes on.
    async fn location(
        &self,
        answer: Response<Incoming>,
        wanted: StatusCode,
        asked: &str,
    ) -> Result<Uri, Failure> {
        if answer.status() != wanted {
            return Err(self.refusal(answer).await);
        }
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let base: Option<Uri> = asked.parse().ok();
        base.zip(location).and_then(|(base, location)| resolve(&base, location)).ok_or_else(|| {
            let reason = "the registry does not say where to upload to".to_owned();
            Failure::Final(request_error("Post", asked, reason))
        })
    }
}

/// Some registries insist on a length of zero.
fn empty_upload() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))])
}
