//! Pull, discovery, management.

use serde_json::json;
use skiff_registry::Users;
use skiff_testkit::image::digest;

use super::subject::{INDEX, MANIFEST, Subject, body, code};

#[test]
fn blobs_and_manifests_are_pulled() {
    let on = Subject::start();
    let digest = on.image("a/b", "v1", json!({}));
    let answer = on.get("/v2/");
    assert_eq!(
        (answer.status, answer.header("docker-distribution-api-version")),
        (200, Some("registry/2.0"))
    );
    for reference in ["v1", digest.as_str()] {
        let path = format!("/v2/a/b/manifests/{reference}");
        let answer = on.get(&path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(MANIFEST)));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(skiff_testkit::image::digest(&answer.body), digest);
        let head = on.call("HEAD", &path, &[], &[]);
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    let layer = skiff_testkit::image::digest(b"a/b");
    let blob = on.get(&format!("/v2/a/b/blobs/{layer}"));
    assert_eq!((blob.status, blob.body.as_slice()), (200, b"a/b".as_slice()));
    assert_eq!(
        on.call("HEAD", &format!("/v2/a/b/blobs/{layer}"), &[], &[]).header("content-length"),
        Some("3")
    );
    let unknown = skiff_testkit::image::digest(b"unknown");
    for (path, expected) in [
        (format!("/v2/a/b/blobs/{unknown}"), "BLOB_UNKNOWN"),
        ("/v2/a/b/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/a/b/manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        ("/v2/none/tags/list".to_owned(), "NAME_UNKNOWN"),
    ] {
        let answer = on.get(&path);
        assert_eq!((answer.status, code(&answer)), (404, expected.to_owned()), "{path}");
    }
    // What one repository has, another does not show.
    assert_eq!(on.status("GET", &format!("/v2/other/blobs/{layer}")), 404);
    for (path, expected) in [
        ("/v2/A/tags/list", "NAME_INVALID"),
        ("/v2/a/b/blobs/sha256:xyz", "DIGEST_INVALID"),
        ("/v2/a/b/manifests/.x", "TAG_INVALID"),
        ("/v2/a/../../etc/tags/list", "NAME_INVALID"),
        ("/v2/a%2f..%2f..%2fb/tags/list", "NAME_INVALID"),
    ] {
        let answer = on.get(path);
        assert_eq!((answer.status, code(&answer)), (400, expected.to_owned()), "{path}");
    }
    assert_eq!(on.status("GET", "/v1/x"), 404);
    assert_eq!(on.status("PATCH", "/v2/a/b/manifests/v1"), 405);
}

#[test]
fn parts_of_blobs_are_pulled() {
    let on = Subject::start();
    let digest = on.blob("a", b"0123456789");
    let part = |range: &str| on.call("GET", &format!("/v2/a/blobs/{digest}"), &[("Range", range)], &[]);
    for (range, status, bytes, shown) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=5-100", 206, "56789", Some("bytes 5-9/10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("bytes=4-2", 200, "0123456789", None),
    ] {
        let answer = part(range);
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.header("content-range")),
            (status, bytes, shown)
        );
    }
}

#[test]
fn tags_and_repositories_are_listed_in_pages() {
    let on = Subject::start();
    for tag in ["c", "a", "b", "d"] {
        on.image("x/y", tag, json!({}));
    }
    on.image("w", "latest", json!({}));
    on.blob("only-blobs", b"x");
    assert_eq!(body(&on.get("/v2/x/y/tags/list")), json!({"name": "x/y", "tags": ["a", "b", "c", "d"]}));
    let first = on.get("/v2/x/y/tags/list?n=2");
    assert_eq!(body(&first)["tags"], json!(["a", "b"]));
    assert_eq!(first.header("link"), Some("</v2/x/y/tags/list?last=b&n=2>; rel=\"next\""));
    let second = on.get("/v2/x/y/tags/list?last=b&n=2");
    assert_eq!((&body(&second)["tags"], second.header("link")), (&json!(["c", "d"]), None));
    assert_eq!(body(&on.get("/v2/x/y/tags/list?n=0"))["tags"], json!([]));
    assert_eq!(on.status("GET", "/v2/x/y/tags/list?n=x"), 400);
    assert_eq!(body(&on.get("/v2/_catalog")), json!({"repositories": ["w", "x/y"]}));
    assert_eq!(on.get("/v2/_catalog?n=1").header("link"), Some("</v2/_catalog?last=w&n=1>; rel=\"next\""));
}

#[test]
fn referrers_are_listed_also_before_their_subject_is_there() {
    let on = Subject::start();
    let none = on.get(&format!("/v2/a/referrers/{}", digest(b"nothing")));
    assert_eq!((none.status, none.header("content-type")), (200, Some(INDEX)));
    assert_eq!(body(&none)["manifests"], json!([]));
    let subject = on.image("a", "v1", json!({}));
    let refers = json!({"subject": {"mediaType": MANIFEST, "digest": subject, "size": 7}});
    let with = |kind: &str| {
        let mut extra = refers.clone();
        extra["artifactType"] = kind.into();
        extra["annotations"] = json!({"k": kind});
        on.image("a", "", extra)
    };
    let (first, second) = (with("x/sig"), with("x/sbom"));
    let all = body(&on.get(&format!("/v2/a/referrers/{subject}")));
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    let some = on.get(&format!("/v2/a/referrers/{subject}?artifactType=x/sig"));
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    let listed = &body(&some)["manifests"];
    assert_eq!((&listed[0]["digest"], &listed[0]["annotations"]["k"]), (&json!(first), &json!("x/sig")));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(on.status("DELETE", &format!("/v2/a/manifests/{second}")), 202);
    assert_eq!(
        body(&on.get(&format!("/v2/a/referrers/{subject}")))["manifests"].as_array().unwrap().len(),
        1
    );
    let answer = on.put("a", "later", MANIFEST, &{
        let mut manifest = body(&on.get("/v2/a/manifests/v1"));
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": digest(b"to come"), "size": 7});
        manifest.to_string().into_bytes()
    });
    assert_eq!(answer.header("oci-subject"), Some(digest(b"to come").as_str()));
    assert_eq!(on.status("GET", "/v2/a/referrers/x"), 400);
}

#[test]
fn what_is_deleted_is_gone_and_takes_no_room() {
    let on = Subject::start();
    let digest = on.image("a", "one", json!({}));
    on.image("a", "two", json!({}));
    assert_eq!(on.status("DELETE", "/v2/a/manifests/one"), 202);
    assert_eq!(on.status("GET", "/v2/a/manifests/one"), 404);
    assert_eq!(on.status("GET", &format!("/v2/a/manifests/{digest}")), 200, "a tag is only a name");
    assert_eq!(on.status("DELETE", &format!("/v2/a/manifests/{digest}")), 202);
    for path in ["/v2/a/manifests/two".to_owned(), format!("/v2/a/manifests/{digest}")] {
        assert_eq!(on.status("GET", &path), 404, "{path}");
        assert_eq!(on.status("DELETE", &path), 404, "{path}");
    }
    assert_eq!(body(&on.get("/v2/a/tags/list"))["tags"], json!([]));
    assert!(!on.blob_file(&digest).exists());
    // A blob that two repositories have stays until both have let go of it.
    let blob = on.blob("a", b"shared");
    assert_eq!(on.status("POST", &format!("/v2/b/blobs/uploads/?mount={blob}&from=a")), 201);
    assert_eq!(on.status("DELETE", &format!("/v2/a/blobs/{blob}")), 202);
    assert_eq!(
        (on.status("GET", &format!("/v2/a/blobs/{blob}")), on.status("GET", &format!("/v2/b/blobs/{blob}"))),
        (404, 200)
    );
    assert_eq!(on.status("DELETE", &format!("/v2/b/blobs/{blob}")), 202);
    assert!(!on.blob_file(&blob).exists());
    assert_eq!(on.status("DELETE", &format!("/v2/b/blobs/{blob}")), 404);
}

#[test]
fn what_was_pushed_survives_and_what_was_being_sent_does_not() {
    let on = Subject::start();
    let digest = on.image("a", "v1", json!({}));
    let upload = on.call("POST", "/v2/a/blobs/uploads/", &[], &[]);
    let path = upload.header("location").unwrap().to_owned();
    assert_eq!(on.call("PATCH", &path, &[], b"half").status, 202);
    let on = on.restart();
    assert_eq!(on.get("/v2/a/manifests/v1").header("docker-content-digest"), Some(digest.as_str()));
    let answer = on.get(&path);
    assert_eq!((answer.status, code(&answer)), (404, "BLOB_UPLOAD_UNKNOWN".into()));
}

#[test]
fn a_read_only_registry_changes_nothing() {
    let on = Subject::start_with(Users::default(), None, true);
    let answer = on.call("POST", "/v2/a/blobs/uploads/", &[], &[]);
    assert_eq!((answer.status, code(&answer)), (403, "DENIED".into()));
    assert_eq!(on.status("GET", "/v2/"), 200);
}
