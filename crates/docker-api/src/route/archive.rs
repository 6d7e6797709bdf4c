//! Files of a container: `archive`, `export`, `changes` and `commit`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::ContainerConfig;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::images::join_tag;
use super::{Answer, Call, page_not_found};
use crate::backend::{ByteStream, CommitContainer, PathStat, PutArchive};
use crate::body;
use crate::error::{ApiError, Result};

const PATH_STAT: &str = "x-docker-container-path-stat";
const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `HEAD`, `GET` and `PUT` of a path.
pub(super) async fn route(call: Call, id: &str) -> Result<Answer> {
    if !matches!(call.method.as_str(), "HEAD" | "GET" | "PUT") {
        return Err(page_not_found());
    }
    let Some(path) = call.query.filled("path").map(str::to_owned) else {
        return Err(ApiError::bad_request("bad parameter: pathcannot be empty"));
    };
    match call.method.as_str() {
        "HEAD" => found(&call.backend.stat_container_path(id, &path).await?),
        "GET" => {
            let (stat, archive) = call.backend.container_archive(id, &path).await?;
            packed(&stat, archive).await
        }
        _ => {
            let options = PutArchive {
                path,
                copy_uid_gid: call.query.flag("copyUIDGID"),
                no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
            };
            let backend = call.backend.clone();
            backend.put_container_archive(id, options, call.into_reader()).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
    }
}

/// The same for a path of a volume.
pub(super) async fn of_volume(call: Call, name: &str) -> Result<Answer> {
    let path = call.query.filled("path").unwrap_or("/").to_owned();
    let backend = call.backend.clone();
    match call.method.as_str() {
        "HEAD" => found(&backend.stat_volume_path(name, &path).await?),
        "GET" => {
            let (stat, archive) = backend.volume_archive(name, &path).await?;
            packed(&stat, archive).await
        }
        "PUT" => {
            backend.put_volume_archive(name, &path, call.into_reader()).await?;
            Ok(body::empty(StatusCode::OK).into())
        }
        _ => Err(page_not_found()),
    }
}

fn found(stat: &PathStat) -> Result<Answer> {
    let mut response = body::empty(StatusCode::OK);
    announce(stat, response.headers_mut())?;
    Ok(response.into())
}

async fn packed(stat: &PathStat, archive: ByteStream) -> Result<Answer> {
    let mut response = body::bytes(archive, TAR).await?;
    announce(stat, response.headers_mut())?;
    Ok(response.into())
}

/// `GET /containers/{id}/export`.
pub(super) async fn export(call: Call, id: &str) -> Result<Answer> {
    let archive = call.backend.export_container(id).await?;
    Ok(body::bytes(archive, OCTETS).await?.into())
}

/// `GET /containers/{id}/changes`; `null` when there are none, as dockerd answers.
pub(super) async fn changes(call: Call, id: &str) -> Result<Answer> {
    let changes = call.backend.container_changes(id).await?;
    let list: Vec<Value> =
        changes.iter().map(|change| json!({ "Path": change.path, "Kind": change.kind })).collect();
    let answer = if list.is_empty() { Value::Null } else { Value::from(list) };
    Ok(body::json(StatusCode::OK, &answer)?.into())
}

/// `POST /commit`.
pub(super) async fn commit(mut call: Call) -> Result<Answer> {
    let config: Option<ContainerConfig> = call.take_optional_json().await?;
    let query = &call.query;
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let request = CommitContainer {
        container: text("container"),
        reference: query.filled("repo").map(|repository| join_tag(repository, query.filled("tag"))),
        author: text("author"),
        comment: text("comment"),
        pause: query.filled("pause").is_none() || query.flag("pause"),
        changes: query.all("changes").map(str::to_owned).collect(),
        config,
    };
    let id = call.backend.commit_container(request).await?;
    Ok(body::json(StatusCode::CREATED, &json!({ "Id": id }))?.into())
}

/// Describes the path in a header.
fn announce(stat: &PathStat, headers: &mut HeaderMap) -> Result<()> {
    let document = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": stat.modified,
        "linkTarget": stat.link_target,
    });
    let value = HeaderValue::try_from(STANDARD.encode(document.to_string()))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    headers.insert(PATH_STAT, value);
    Ok(())
}

/// A mode of stat(2) in the bits of Go's `os.FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bit = |from: u32, to: u32| if mode & from != 0 { to } else { 0 };
    kind | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20) | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_gos_bits() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 0x8000_0000 | 0x0010_0000 | 0o777);
        assert_eq!(go_mode(0o120_777), 0x0800_0000 | 0o777);
        assert_eq!(go_mode(0o104_755), 0x0080_0000 | 0o755);
        assert_eq!(go_mode(0o020_600), 0x0400_0000 | 0x0020_0000 | 0o600);
    }
}
