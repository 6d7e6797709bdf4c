//! Push.

use serde_json::json;
use skiff_testkit::image::digest;

use super::subject::{INDEX, MANIFEST, Subject, body, code, nothing_left};

#[test]
fn a_blob_is_pushed_at_once_or_in_two_or_in_many_steps() {
    let on = Subject::start();
    let data = b"some content";
    let wanted = digest(data);
    // POST with the content.
    let answer = on.call("POST", &format!("/v2/a/blobs/uploads/?digest={wanted}"), &[], data);
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, Some(format!("/v2/a/blobs/{wanted}").as_str()))
    );
    // POST, PUT.
    let begun = on.call("POST", "/v2/b/blobs/uploads/", &[], &[]);
    assert_eq!((begun.status, begun.header("range")), (202, Some("0-0")));
    let place = begun.header("location").unwrap().to_owned();
    assert_eq!(on.call("PUT", &format!("{place}?digest={wanted}"), &[], data).status, 201);
    // POST, PATCH…, PUT.
    let begun = on.call("POST", "/v2/c/blobs/uploads/", &[], &[]);
    let place = begun.header("location").unwrap().to_owned();
    let first = on.call("PATCH", &place, &[("Content-Range", "0-4")], &data[..5]);
    assert_eq!((first.status, first.header("range")), (202, Some("0-4")));
    let asked = on.get(&place);
    assert_eq!((asked.status, asked.header("range")), (204, Some("0-4")));
    let wrong = on.call("PATCH", &place, &[("Content-Range", "9-11")], &data[9..]);
    assert_eq!(wrong.status, 416);
    assert_eq!(on.call("PATCH", &place, &[("Content-Range", "5-8")], &data[5..9]).status, 202);
    let last = on.call("PUT", &format!("{place}?digest={wanted}"), &[("Content-Range", "9-11")], &data[9..]);
    assert_eq!(last.status, 201, "{}", last.text());
    for name in ["a", "b", "c"] {
        assert_eq!(on.get(&format!("/v2/{name}/blobs/{wanted}")).body, data);
    }
    assert!(nothing_left(on.root.path()));
    assert_eq!(on.status("GET", &place), 404, "an upload that is done is gone");
}

#[test]
fn what_is_not_what_was_promised_is_refused() {
    let on = Subject::start();
    let wanted = digest(b"right");
    let answer = on.call("POST", &format!("/v2/a/blobs/uploads/?digest={wanted}"), &[], b"wrong");
    assert_eq!((answer.status, code(&answer)), (400, "DIGEST_INVALID".into()));
    let begun = on.call("POST", "/v2/a/blobs/uploads/", &[], &[]);
    let place = begun.header("location").unwrap().to_owned();
    assert_eq!(code(&on.call("PUT", &place, &[], b"x")), "DIGEST_INVALID", "no digest");
    let short = on.call("PATCH", &place, &[("Content-Range", "0-99")], b"x");
    assert_eq!(code(&short), "BLOB_UPLOAD_INVALID");
    assert_eq!(on.get(&place).header("range"), Some("0-0"), "nothing of it stays");
    assert_eq!(on.status("DELETE", &place), 204);
    assert_eq!(on.status("DELETE", &place), 404);
    assert_eq!(on.status("GET", "/v2/a/blobs/uploads/../../../x"), 404);
    assert!(nothing_left(on.root.path()));
    let long = on.call("POST", &format!("/v2/a/blobs/uploads/?digest=sha512:{}", "a".repeat(128)), &[], b"x");
    assert_eq!(code(&long), "DIGEST_INVALID");
}

#[test]
fn blobs_of_other_repositories_are_mounted() {
    let on = Subject::start();
    let blob = on.blob("a", b"content");
    let mounted = on.call("POST", &format!("/v2/b/blobs/uploads/?mount={blob}&from=a"), &[], &[]);
    assert_eq!((mounted.status, mounted.header("docker-content-digest")), (201, Some(blob.as_str())));
    // What there isn't is to be sent.
    let unknown = digest(b"unknown");
    for path in [
        format!("/v2/b/blobs/uploads/?mount={unknown}&from=a"),
        format!("/v2/b/blobs/uploads/?mount={blob}&from=nowhere"),
        format!("/v2/b/blobs/uploads/?mount={blob}"),
    ] {
        assert_eq!(on.status("POST", &path), 202, "{path}");
    }
}

#[test]
fn manifests_are_checked() {
    let on = Subject::start();
    let there = on.blob("a", b"{}");
    let manifest = |config: &str| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "x", "digest": config, "size": 2}, "layers": []})
            .to_string()
            .into_bytes()
    };
    for (reference, kind, bytes, status, expected) in [
        ("v1", MANIFEST, manifest(&there), 201, ""),
        ("v1", MANIFEST, manifest(&digest(b"none")), 404, "MANIFEST_BLOB_UNKNOWN"),
        ("v1", INDEX, manifest(&there), 400, "MANIFEST_INVALID"),
        ("v1", MANIFEST, b"{".to_vec(), 400, "MANIFEST_INVALID"),
        ("v1", MANIFEST, b"{\"schemaVersion\":1}".to_vec(), 400, "MANIFEST_INVALID"),
        (&digest(b"other"), MANIFEST, manifest(&there), 400, "DIGEST_INVALID"),
        ("v1", MANIFEST, vec![b' '; 5 << 20], 413, "SIZE_INVALID"),
    ] {
        let answer = on.put("a", reference, kind, &bytes);
        assert_eq!((answer.status, code(&answer).as_str()), (status, expected), "{reference} {kind}");
    }
    // A list of manifests that are there, and of one that isn't.
    let child = on.image("a", "", json!({}));
    let index = |child: &str| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": child, "size": 2}]})
            .to_string()
            .into_bytes()
    };
    assert_eq!(on.put("a", "list", INDEX, &index(&child)).status, 201);
    assert_eq!(code(&on.put("a", "list", INDEX, &index(&digest(b"none")))), "MANIFEST_BLOB_UNKNOWN");
    // An artefact of a type of its own comes back as it was sent.
    let odd = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "my/thing", "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": there, "size": 2}, "layers": [], "extra": [1, 2]});
    let bytes = format!("  {odd}\n").into_bytes();
    assert_eq!(on.put("a", "odd", MANIFEST, &bytes).status, 201);
    assert_eq!(on.get("/v2/a/manifests/odd").body, bytes);
    assert_eq!(body(&on.get("/v2/a/tags/list"))["tags"], json!(["list", "odd", "v1"]));
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    use std::io::Write as _;

    let on = Subject::start();
    let wanted = digest(b"never");
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(on.address).unwrap();
        let head = format!(
            "POST /v2/a/blobs/uploads/?digest={wanted} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome"
        );
        stream.write_all(head.as_bytes()).unwrap();
    }
    // The registry goes on, and the content is not there.
    skiff_testkit::wait_until("the uploads to end", std::time::Duration::from_secs(20), || {
        (on.status("GET", &format!("/v2/a/blobs/{wanted}")) == 404
            && std::fs::read_dir(on.root.path().join("uploads"))
                .unwrap()
                .all(|entry| entry.unwrap().metadata().is_ok_and(|m| m.len() == 0)))
        .then_some(())
    })
    .unwrap();
}

#[test]
fn pushes_at_the_same_time_end_as_if_one_came_after_the_other() {
    let on = Subject::start();
    let data = vec![7; 300_000];
    let wanted = digest(&data);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (on, data, wanted) = (&on, &data, &wanted);
            scope.spawn(move || {
                // The same blob in the same and in another repository, and a tag that all of them move.
                let name = if number % 2 == 0 { "same" } else { "other" };
                assert_eq!(on.blob(name, data), *wanted);
                on.image(name, "moving", json!({"annotations": {"of": number.to_string()}}));
                on.image(name, &format!("own-{number}"), json!({"annotations": {"of": number.to_string()}}));
            });
        }
    });
    for (name, parity) in [("same", 0), ("other", 1)] {
        assert_eq!(on.get(&format!("/v2/{name}/blobs/{wanted}")).body, data);
        let moved = on.get(&format!("/v2/{name}/manifests/moving"));
        assert_eq!(moved.header("docker-content-digest"), Some(digest(&moved.body).as_str()));
        let tags = body(&on.get(&format!("/v2/{name}/tags/list")))["tags"].as_array().unwrap().len();
        assert_eq!(tags, 5);
        for number in (0..8).filter(|number| number % 2 == parity) {
            let own = on.get(&format!("/v2/{name}/manifests/own-{number}"));
            assert_eq!(body(&own)["annotations"]["of"], json!(number.to_string()));
        }
    }
    assert!(nothing_left(on.root.path()));
}
