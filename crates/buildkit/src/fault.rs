//! Errors on the wire: gRPC statuses whose details tell buildx which vertex failed and which lines to show.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use prost::Message;
use serde_json::{Value, json};
use skiff_build::{Error, Location};
use tonic::{Code, Status};

/// The names of Go types whose JSON is a detail.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";

/// As much of a Dockerfile as an error carries, in bytes: it travels in a header.
const SOURCE_LIMIT: usize = 256 << 10;

/// Writes an error as a status.
pub(crate) fn status(error: &Error) -> Status {
    // BuildKit's errors have no codes of gRPC; clients print those that there are before the message.
    let code = match error.code() {
        skiff_build::Code::Cancelled => Code::Cancelled,
        skiff_build::Code::Internal => Code::Internal,
        _ => Code::Unknown,
    };
    let mut details = Vec::new();
    if let Some(digest) = error.vertex() {
        details.push(any(VERTEX, &json!({ "digest": digest })));
    }
    if let Some(location) = error.location()
        && location.source.data.len() <= SOURCE_LIMIT
    {
        details.push(any(SOURCE, &source(location)));
    }
    from_rpc(rpc::Status { code: i32::from(code), message: error.to_string(), details })
}

/// Makes a status of a message of it, details and all.
pub(crate) fn from_rpc(status: rpc::Status) -> Status {
    let mut code = Code::from(status.code);
    if code == Code::Ok {
        // Whoever reports an error means one.
        code = Code::Unknown;
    }
    Status::with_details(code, status.message.clone(), status.encode_to_vec().into())
}

fn any(type_url: &str, value: &Value) -> Any {
    Any { type_url: type_url.to_owned(), value: value.to_string().into_bytes() }
}

/// `errdefs.Source` in Go's JSON.
fn source(location: &Location) -> Value {
    let position = |position: Option<skiff_build::graph::pb::Position>| {
        let position = position.unwrap_or_default();
        json!({ "line": position.line, "character": position.character })
    };
    let ranges: Vec<Value> = location
        .ranges
        .iter()
        .map(|range| json!({ "start": position(range.start), "end": position(range.end) }))
        .collect();
    json!({
        "info": {
            "filename": location.source.filename,
            "data": STANDARD.encode(&location.source.data),
            "language": location.source.language,
        },
        "ranges": ranges,
    })
}

#[cfg(test)]
mod tests {
    use skiff_build::graph::pb;

    use super::*;

    #[test]
    fn a_failed_vertex_carries_its_digest_and_its_lines() {
        let location = Location {
            source: pb::SourceInfo {
                filename: "Dockerfile".to_owned(),
                data: b"FROM scratch\n".to_vec(),
                ..pb::SourceInfo::default()
            },
            ranges: vec![pb::Range {
                start: Some(pb::Position { line: 1, character: 0 }),
                end: Some(pb::Position { line: 1, character: 12 }),
            }],
        };
        let error = Error::Vertex {
            digest: "sha256:1".to_owned(),
            location: Some(Box::new(location)),
            cause: Box::new(Error::Process { command: "/bin/sh -c false".to_owned(), exit_code: 1 }),
        };
        let status = status(&error);
        assert_eq!(status.code(), Code::Unknown);
        let read = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(read.message, "process \"/bin/sh -c false\" did not complete successfully: exit code: 1");
        assert_eq!(read.details[0].type_url, VERTEX);
        assert_eq!(read.details[0].value, br#"{"digest":"sha256:1"}"#);
        assert_eq!(read.details[1].type_url, SOURCE);
        let shown: Value = serde_json::from_slice(&read.details[1].value).unwrap();
        assert_eq!(shown["info"]["data"], "RlJPTSBzY3JhdGNoCg==");
        assert_eq!(shown["ranges"][0]["start"]["line"], 1);
        assert_eq!(shown["ranges"][0]["end"]["character"], 12);
    }

    #[test]
    fn an_error_is_never_ok() {
        let status = from_rpc(rpc::Status { code: 0, message: "bad".to_owned(), details: Vec::new() });
        assert_eq!((status.code(), status.message()), (Code::Unknown, "bad"));
    }
}
