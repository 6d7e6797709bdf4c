//! Archives on their way to a file or to standard output.

use std::path::Path;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::error::Error;
use crate::terminal;

/// Refuses to write an archive to a terminal, or to where nothing can be written.
pub fn check(command: &str, output: Option<&str>) -> Result<(), Error> {
    match output {
        None if terminal::stdout_is_terminal() => {
            Err(Error::plain("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
        }
        None => Ok(()),
        Some(path) => {
            let parent = Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent {
                Some(parent) if !parent.is_dir() => Err(Error::plain(format!(
                    "failed to {command}: invalid output path: directory \"{}\" does not exist",
                    parent.display()
                ))),
                _ if Path::new(path).is_dir() => {
                    Err(Error::plain(format!("failed to {command}: \"{path}\" is a directory")))
                }
                _ => Ok(()),
            }
        }
    }
}

/// Writes an answer's bytes. A file gets its name only when it is whole.
pub async fn save(response: Response<Incoming>, output: Option<&str>) -> Result<(), Error> {
    let Some(path) = output else {
        return copy(response, &mut tokio::io::stdout(), "stdout").await;
    };
    let fresh = format!("{path}.skiff-{}", std::process::id());
    let failed = |error| Error::file(path, error);
    let mut file = tokio::fs::File::create(&fresh).await.map_err(failed)?;
    let copied = copy(response, &mut file, path).await;
    let result = match copied {
        Ok(()) => tokio::fs::rename(&fresh, path).await.map_err(failed),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // The error that is told is the one before.
        let _ = tokio::fs::remove_file(&fresh).await;
    }
    result
}

async fn copy(
    response: Response<Incoming>,
    to: &mut (impl AsyncWrite + Unpin),
    name: &str,
) -> Result<(), Error> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Error::Connection { endpoint: name.to_owned(), source: error.into() })?;
        if let Ok(data) = frame.into_data() {
            to.write_all(&data).await.map_err(|error| Error::file(name, error))?;
        }
    }
    to.flush().await.map_err(|error| Error::file(name, error))
}
