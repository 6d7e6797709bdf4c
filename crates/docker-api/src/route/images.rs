//! Images.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{Answer, Call, page_not_found};
use crate::backend::{
    Auth, ImportImage, ListImages, ProgressStream, PullImage, PushImage, PushList, RemoveImage, SearchImages,
};
use crate::body;
use crate::error::{ApiError, Result};
use crate::shape;
use crate::version::ApiVersion;

const LIST_FILTERS: &[&str] = &["before", "dangling", "label", "label!", "reference", "since", "until"];
const SEARCH_FILTERS: &[&str] = &["is-automated", "is-official", "stars"];
const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

/// Clients differ on padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) async fn route(call: Call, path: &[&str]) -> Result<Answer> {
    match (call.method.as_str(), path) {
        ("GET", ["json"]) => list(call).await,
        ("GET", ["search"]) => search(call).await,
        ("POST", ["create"]) => create(call).await,
        ("POST", ["load"]) => load(call).await,
        ("POST", ["prune"]) => {
            let report = call.backend.prune_images(call.query.filters(PRUNE_FILTERS)?).await?;
            Ok(body::json(StatusCode::OK, &shape::image_prune(report)?)?.into())
        }
        ("GET", ["get"]) => {
            let names = call.query.all("names").map(str::to_owned).collect();
            save(call, names).await
        }
        // Names contain slashes.
        ("GET", [name @ .., "get"]) if !name.is_empty() => save(call, vec![name.join("/")]).await,
        ("GET", [name @ .., "json"]) if !name.is_empty() => {
            let platform = platform(&call)?;
            let image = call.backend.inspect_image(&name.join("/"), platform.as_deref()).await?;
            Ok(body::json(StatusCode::OK, &shape::image(image, call.version)?)?.into())
        }
        ("GET", [name @ .., "history"]) if !name.is_empty() => {
            let platform = platform(&call)?;
            let history = call.backend.image_history(&name.join("/"), platform.as_deref()).await?;
            Ok(body::json(StatusCode::OK, &shape::image_history(history)?)?.into())
        }
        ("POST", [name @ .., "tag"]) if !name.is_empty() => {
            let repository = call.query.get("repo").unwrap_or_default();
            let tag = call.query.get("tag").unwrap_or_default();
            call.backend.tag_image(&name.join("/"), repository, tag).await?;
            Ok(body::empty(StatusCode::CREATED).into())
        }
        ("POST", [name @ .., "push"]) if !name.is_empty() => push(call, &name.join("/")).await,
        ("DELETE", name) if !name.is_empty() => remove(call, &name.join("/")).await,
        _ => Err(page_not_found()),
    }
}

async fn list(call: Call) -> Result<Answer> {
    let mut filters = call.query.filters(LIST_FILTERS)?;
    if call.version < ApiVersion::minor(41)
        && let Some(pattern) = call.query.filled("filter")
    {
        filters.add("reference", pattern);
    }
    let options =
        ListImages { all: call.query.flag("all"), shared_size: call.query.flag("shared-size"), filters };
    let images = call.backend.list_images(options).await?;
    Ok(body::json(StatusCode::OK, &shape::image_list(images, call.version)?)?.into())
}

async fn create(call: Call) -> Result<Answer> {
    let query = &call.query;
    let platform =
        query.filled("platform").filter(|_| call.version >= ApiVersion::minor(32)).map(str::to_owned);
    let tag = query.filled("tag");
    if let Some(image) = query.filled("fromImage") {
        let (reference, all_tags) = pull_reference(image, tag);
        let request = PullImage { reference, all_tags, platform, auth: registry_auth(&call.headers) };
        return progress(call.backend.pull_image(request).await?).await;
    }
    let url = match query.filled("fromSrc") {
        Some("-") => None,
        Some(url) if url.contains("://") => Some(url.to_owned()),
        Some(address) => Some(format!("http://{address}")),
        None => return Err(ApiError::bad_request("neither fromImage nor fromSrc is given")),
    };
    let request = ImportImage {
        url,
        reference: query.filled("repo").map(|repository| join_tag(repository, tag)),
        message: query.get("message").unwrap_or_default().to_owned(),
        changes: query.all("changes").map(str::to_owned).collect(),
        platform,
    };
    let backend = call.backend.clone();
    progress(backend.import_image(request, call.into_reader()).await?).await
}

async fn search(call: Call) -> Result<Answer> {
    let wrong = |reason: &str| ApiError::bad_request(format!("invalid limit specified: {reason}"));
    let limit = match call.query.filled("limit").map(|text| (text, text.parse::<i64>())) {
        None => 0,
        Some((_, Ok(limit))) if limit >= 0 => limit,
        Some((_, Ok(_))) => return Err(wrong("it is negative")),
        Some((text, Err(_))) => {
            return Err(wrong(&format!("strconv.Atoi: parsing {text:?}: invalid syntax")));
        }
    };
    let request = SearchImages {
        term: call.query.get("term").unwrap_or_default().to_owned(),
        limit,
        filters: call.query.filters(SEARCH_FILTERS)?,
        auth: registry_auth(&call.headers),
    };
    let found = call.backend.search_images(request).await?;
    Ok(body::json(StatusCode::OK, &found)?.into())
}

/// Reads the platform that an image must be for; clients of before `since` did not know of it.
fn platform_since(call: &Call, since: u16) -> Result<Option<String>> {
    let given = call.query.filled("platform").filter(|_| call.version >= ApiVersion::minor(since));
    given.map(parse_platform).transpose()
}

fn platform(call: &Call) -> Result<Option<String>> {
    platform_since(call, 48)
}

/// Turns `{"os":…,"architecture":…,"variant":…}` into `os/architecture/variant`.
fn parse_platform(text: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Wanted {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let wanted: Wanted = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("failed to parse platform: {error}")))?;
    let parts = [wanted.os, wanted.architecture, wanted.variant];
    Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
}

async fn push(call: Call, name: &str) -> Result<Answer> {
    let reference = join_tag(name, call.query.filled("tag"));
    let platform = platform_since(&call, 46)?;
    let request = PushImage { reference, platform, auth: registry_auth(&call.headers) };
    progress(call.backend.push_image(request).await?).await
}

/// `POST /auth`: `docker login` asks whether a registry takes the credentials.
pub(super) async fn login(call: Call) -> Result<Answer> {
    let backend = call.backend.clone();
    let token = backend.check_credentials(call.json().await?).await?;
    Ok(body::json(StatusCode::OK, &json!({ "Status": "Login Succeeded", "IdentityToken": token }))?.into())
}

/// `GET /distribution/{name}/json`.
pub(super) async fn distribution(call: Call, name: &str) -> Result<Answer> {
    let found = call.backend.describe_remote_image(name, registry_auth(&call.headers)).await?;
    Ok(body::json(StatusCode::OK, &found)?.into())
}

/// `GET /distribution/{name}/manifest`.
pub(super) async fn manifest(call: Call, name: &str) -> Result<Answer> {
    let found = call.backend.remote_manifest(name, registry_auth(&call.headers)).await?;
    let mut answer = found.description;
    answer["Raw"] = STANDARD.encode(&found.bytes).into();
    answer["List"] = found.is_list.into();
    Ok(body::json(StatusCode::OK, &answer)?.into())
}

/// `POST /distribution/{name}/manifest`.
pub(super) async fn push_list(call: Call, name: String) -> Result<Answer> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        raw: String,
        #[serde(default)]
        members: Vec<String>,
    }
    let (backend, auth) = (call.backend.clone(), registry_auth(&call.headers));
    let given: Given = call.json().await?;
    let list = STANDARD
        .decode(&given.raw)
        .map_err(|error| ApiError::bad_request(format!("the list is not in base64: {error}")))?;
    let pushed = backend.push_manifest_list(PushList { name, list, members: given.members, auth }).await?;
    let members: Vec<_> = pushed
        .members
        .iter()
        .map(|(reference, digest)| json!({ "Ref": reference, "Digest": digest }))
        .collect();
    Ok(body::json(StatusCode::OK, &json!({ "Digest": pushed.digest, "Members": members }))?.into())
}

/// Merges `fromImage` and `tag`: the tag may also be a digest, and without either all tags are meant.
fn pull_reference(image: &str, tag: Option<&str>) -> (String, bool) {
    let last = image.rsplit('/').next().unwrap_or(image);
    let named = last.contains(':') || image.contains('@');
    match tag {
        Some(tag) if image.contains('@') || tag == image => {
            (join_tag(image.split('@').next().unwrap_or(image), Some(tag)), false)
        }
        Some(tag) if named => (
            join_tag(&image[..image.len() - last.len() + last.find(':').unwrap_or(last.len())], Some(tag)),
            false,
        ),
        Some(tag) => (join_tag(image, Some(tag)), false),
        None => (image.to_owned(), !named),
    }
}

pub(super) fn join_tag(repository: &str, tag: Option<&str>) -> String {
    match tag {
        None => repository.to_owned(),
        Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
    }
}

/// Credentials that cannot be read count as none: the registry will ask for them if it needs them.
fn registry_auth(headers: &HeaderMap) -> Option<Auth> {
    let decoded = BASE64.decode(headers.get("x-registry-auth")?.as_bytes()).ok()?;
    let auth: Auth = serde_json::from_slice(&decoded).ok()?;
    (auth != Auth::default()).then_some(auth)
}

async fn load(call: Call) -> Result<Answer> {
    let quiet = call.query.flag_or("quiet", true);
    let (backend, platform) = (call.backend.clone(), platform(&call)?);
    // As dockerd, whose answer has begun by the time that it looks into the archive.
    Ok(body::json_stream(backend.load_images(call.into_reader(), quiet, platform).await?, last_line).into())
}

async fn save(call: Call, names: Vec<String>) -> Result<Answer> {
    let platform = platform(&call)?;
    let archive = call.backend.save_images(names, platform).await?;
    Ok(body::bytes(archive, HeaderValue::from_static("application/x-tar")).await?.into())
}

async fn remove(call: Call, name: &str) -> Result<Answer> {
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("image name cannot be blank"));
    }
    let mut wanted = call.query.all("platforms").filter(|_| call.version >= ApiVersion::minor(50));
    let platform = wanted.next().map(parse_platform).transpose()?;
    if wanted.next().is_some() {
        return Err(ApiError::bad_request("multiple platforms are not supported"));
    }
    let options =
        RemoveImage { force: call.query.flag("force"), no_prune: call.query.flag("noprune"), platform };
    let removed = call.backend.remove_image(name, options).await?;
    Ok(body::json(StatusCode::OK, &removed)?.into())
}

/// The last line of progress that has failed.
fn last_line(error: &ApiError) -> Option<Value> {
    Some(json!({ "errorDetail": { "message": error.message }, "error": error.message }))
}

pub(super) async fn progress(lines: ProgressStream) -> Result<Answer> {
    Ok(body::json_lines(lines, last_line).await?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_join_their_image() {
        let cases = [
            ("busybox", None, ("busybox", true)),
            ("busybox", Some("latest"), ("busybox:latest", false)),
            ("busybox:1.36", None, ("busybox:1.36", false)),
            ("busybox:1.36", Some("1.37"), ("busybox:1.37", false)),
            ("localhost:5000/busybox", None, ("localhost:5000/busybox", true)),
            ("localhost:5000/busybox", Some("a"), ("localhost:5000/busybox:a", false)),
            ("localhost:5000/busybox:b", Some("a"), ("localhost:5000/busybox:a", false)),
            ("busybox", Some("sha256:abc"), ("busybox@sha256:abc", false)),
            ("busybox@sha256:abc", None, ("busybox@sha256:abc", false)),
            ("busybox@sha256:abc", Some("sha256:abc"), ("busybox@sha256:abc", false)),
        ];
        for (image, tag, (reference, all)) in cases {
            assert_eq!(pull_reference(image, tag), (reference.to_owned(), all), "{image} {tag:?}");
        }
    }

    #[test]
    fn credentials_are_read_with_and_without_padding() {
        // {"username":"a","password":"b?>"}
        for text in [
            "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI_PiJ9",
            "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI_PiJ9====",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.trim_end_matches("====").parse().unwrap());
            let auth = registry_auth(&headers).unwrap();
            assert_eq!((auth.username.as_str(), auth.password.as_str()), ("a", "b?>"));
            assert!(!format!("{auth:?}").contains("b?>"), "secrets stay out of logs");
        }
    }

    #[test]
    fn unreadable_and_empty_credentials_are_none() {
        // "e30" is {}, what the docker CLI sends when it isn't logged in.
        for text in ["e30=", "e30", "!!", "bm9uc2Vuc2U="] {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            assert_eq!(registry_auth(&headers), None, "{text}");
        }
        assert_eq!(registry_auth(&HeaderMap::new()), None);
    }
}
