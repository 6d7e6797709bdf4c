//! BuildKit's doors: the two upgrades, and builds through a session.

use std::collections::BTreeMap;

use http::header::UPGRADE;
use http::{HeaderMap, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::backend::{BuildKitBuild, SessionOffer};
use crate::body;
use crate::connection::serve_grpc;
use crate::error::{ApiError, Result};
use crate::query::Query;

/// `POST /grpc`: the connection becomes HTTP/2 with gRPC calls of the client.
pub(super) fn grpc(call: Call) -> Result<Answer> {
    check_upgrade(&call.headers)?;
    let backend = call.backend;
    Ok(Answer::Upgrade(Box::new(move |connection| Box::pin(serve_grpc(backend, connection)))))
}

/// `POST /session`: the connection becomes HTTP/2 with gRPC calls of ours.
pub(super) fn session(call: Call) -> Result<Answer> {
    check_upgrade(&call.headers)?;
    let values = |name: &str| {
        let values = call.headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect::<Vec<_>>()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let offer = SessionOffer {
        id: first("x-docker-expose-session-uuid"),
        shared_key: first("x-docker-expose-session-sharedkey"),
        methods: values("x-docker-expose-session-grpc-method"),
    };
    Ok(Answer::Upgrade(call.backend.open_session(offer)?))
}

fn check_upgrade(headers: &HeaderMap) -> Result<()> {
    match headers.get(UPGRADE).map(|value| value.as_bytes()) {
        None | Some(b"") => Err(ApiError::bad_request("no upgrade proto in request")),
        Some(b"h2c") => Ok(()),
        Some(other) => {
            Err(ApiError::bad_request(format!("protocol {} not supported", String::from_utf8_lossy(other))))
        }
    }
}

/// `POST /build?version=2`.
pub(super) async fn build(call: Call) -> Result<Answer> {
    let request = read_build(&call.query)?;
    let upload = request.id.starts_with("upload-request:");
    let backend = call.backend.clone();
    let lines = backend.build(request, call.into_reader()).await?;
    if upload {
        return Ok(body::empty(StatusCode::OK).into());
    }
    let response: Response<_> = body::json_stream(lines, last_line);
    Ok(response.into())
}

pub(super) fn last_line(error: &ApiError) -> Option<Value> {
    Some(json!({ "errorDetail": { "message": error.message }, "error": error.message }))
}

/// `POST /build/cancel`.
pub(super) async fn cancel(call: Call) -> Result<Answer> {
    let id = call.query.filled("id").ok_or_else(|| ApiError::bad_request("build ID not provided"))?;
    call.backend.cancel_build(id).await?;
    Ok(body::empty(StatusCode::OK).into())
}

fn read_build(query: &Query) -> Result<BuildKitBuild> {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let build_args: BTreeMap<String, Option<String>> = json_parameter(query, "buildargs")?;
    let labels: BTreeMap<String, String> = json_parameter(query, "labels")?;
    Ok(BuildKitBuild {
        id: text("buildid"),
        session: text("session"),
        remote: text("remote"),
        dockerfile: text("dockerfile"),
        target: text("target"),
        tags: query.all("t").filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        build_args: build_args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels: labels.into_iter().collect(),
        cache_from: json_parameter(query, "cachefrom")?,
        no_cache: query.flag("nocache"),
        quiet: query.flag("q"),
        pull: query.flag("pull"),
        platform: text("platform"),
        network: text("networkmode"),
        extra_hosts: extra_hosts(query)?,
        shm_size: query.integer("shmsize")?.unwrap_or_default(),
        ulimits: json_parameter(query, "ulimits")?,
        outputs: json_parameter(query, "outputs")?,
    })
}

/// `extrahosts` several times, as the docker command sends it, or once as a list in JSON.
fn extra_hosts(query: &Query) -> Result<Vec<String>> {
    match query.filled("extrahosts") {
        Some(text) if text.starts_with('[') => json_parameter(query, "extrahosts"),
        _ => Ok(query.all("extrahosts").filter(|host| !host.is_empty()).map(str::to_owned).collect()),
    }
}

/// Reads a parameter of JSON; absent, empty and `null` are its empty value.
fn json_parameter<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T> {
    let Some(text) = query.filled(name) else { return Ok(T::default()) };
    serde_json::from_str::<Option<T>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|error| ApiError::bad_request(format!("error reading {name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_docker_cli_sends_is_read() {
        let query = Query::parse(
            "buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&buildid=b1&cachefrom=%5B%22x%22%5D&dockerfile=Dockerfile\
             &labels=null&networkmode=default&remote=client-session&session=s1&shmsize=0&t=a&t=b%3A1&ulimits=null\
             &version=2&outputs=%5B%7B%22Type%22%3A%22local%22%2C%22Attrs%22%3A%7B%22dest%22%3A%22out%22%7D%7D%5D",
        );
        let build = read_build(&query).unwrap();
        assert_eq!(build.build_args, [("A".to_owned(), "1".to_owned())]);
        assert_eq!(build.tags, ["a", "b:1"]);
        assert_eq!((build.id.as_str(), build.session.as_str()), ("b1", "s1"));
        assert_eq!(build.outputs[0].kind, "local");
        assert_eq!(build.outputs[0].attrs.as_ref().unwrap()["dest"], "out");
        assert_eq!(build.cache_from, ["x"]);
        assert_eq!(read_build(&Query::parse("labels=x")).unwrap_err().status, 400);
    }
}
