//! Types that both sides name differently.

use futures_util::StreamExt;
use skiff_docker_api::backend::{self as api, Chunk, ChunkStream, StreamKind};
use skiff_docker_api::{ApiError, Filters, Result};
use skiff_engine::{self as engine, Code};

/// The one place where an engine's error becomes a status.
pub fn error(error: engine::Error) -> ApiError {
    match error.code {
        Code::InvalidArgument => ApiError::bad_request(error.message),
        Code::NotFound => ApiError::not_found(error.message),
        Code::Conflict => ApiError::conflict(error.message),
        Code::NotModified => ApiError::not_modified(),
        Code::Unauthorized => ApiError::unauthorized(error.message),
        Code::Forbidden => ApiError::forbidden(error.message),
        Code::Unavailable => ApiError::unavailable(error.message),
        Code::NotImplemented => ApiError::not_implemented(error.message),
        Code::Internal => ApiError::internal(error.message),
    }
}

/// Results of the engine with their errors mapped.
pub trait OrApiError<T> {
    /// Maps the error.
    fn or_api(self) -> Result<T>;
}

impl<T> OrApiError<T> for engine::Result<T> {
    fn or_api(self) -> Result<T> {
        self.map_err(error)
    }
}

pub fn filters(filters: &Filters) -> engine::Filters {
    engine::Filters(
        filters.iter().map(|(name, values)| (name.to_owned(), values.map(str::to_owned).collect())).collect(),
    )
}

pub fn chunks(chunks: engine::ChunkStream) -> ChunkStream {
    Box::pin(chunks.map(|chunk| {
        chunk.map(|chunk| Chunk {
            kind: match chunk.stream {
                engine::Stream::Stdout => StreamKind::Stdout,
                engine::Stream::Stderr => StreamKind::Stderr,
            },
            bytes: chunk.bytes,
        })
    }))
}

pub fn attach(streams: engine::AttachStreams) -> api::AttachStreams {
    api::AttachStreams {
        output: chunks(streams.output),
        input: streams.input,
        tty: streams.tty,
        detach_keys: streams.detach_keys,
        on_detach: streams.on_detach,
    }
}

pub fn size(size: api::TerminalSize) -> engine::TerminalSize {
    engine::TerminalSize { height: size.height, width: size.width }
}

/// Nanoseconds since 1970; times before that are all the same to a log that began later.
pub fn nanoseconds(time: api::UnixTime) -> u64 {
    u64::try_from(time.seconds).map_or(0, |seconds| {
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(time.nanoseconds))
    })
}
