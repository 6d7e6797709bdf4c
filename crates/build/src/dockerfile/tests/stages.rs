//! Stages, contexts and triggers.

use prost::Message as _;
use serde_json::json;

use super::fake::{DIGEST, Fake};
use crate::graph::pb;

fn metadata_asked(fake: &Fake) -> Vec<String> {
    let asked = fake.asked().into_iter();
    asked
        .filter_map(|name| Some(name.split_once("load metadata for docker.io/library/")?.1.to_owned()))
        .collect()
}

#[test]
fn stages_that_are_not_needed_are_not_resolved() {
    for (text, target, expected) in [
        ("FROM golang AS a\nFROM alpine", "", &["alpine:latest"][..]),
        ("FROM golang AS a\nFROM alpine\nCOPY --from=a x y", "", &["alpine:latest", "golang:latest"]),
        ("FROM golang AS a\nFROM alpine\nCOPY --from=0 x y", "", &["alpine:latest", "golang:latest"]),
        ("FROM golang AS a\nFROM alpine\nCOPY --from=A x y", "", &["alpine:latest", "golang:latest"]),
        ("FROM golang AS a\nFROM alpine AS b\nFROM busybox", "a", &["golang:latest"]),
        ("FROM golang AS a\nFROM alpine AS b\nFROM busybox", "1", &["alpine:latest"]),
        ("FROM golang AS a\nFROM a AS b\nFROM busybox", "B", &["golang:latest"]),
        ("FROM nowhere AS a\nFROM alpine", "", &["alpine:latest"]),
        ("FROM scratch\nCOPY --from=golang x y\nCOPY --from=golang z y", "", &["golang:latest"]),
        ("FROM alpine\nRUN --mount=from=golang,target=/x y", "", &["alpine:latest", "golang:latest"]),
        (
            "FROM golang AS a\nFROM alpine\nRUN --mount=from=a,target=/x y",
            "",
            &["alpine:latest", "golang:latest"],
        ),
        ("ARG base=golang\nFROM ${base} AS a\nRUN x", "", &["golang:latest"]),
        ("FROM alpine:3.20 AS a\nRUN x", "", &["alpine:3.20"]),
    ] {
        let fake = Fake::new(text).with("target", target).image("alpine:3.20", json!({}));
        fake.build();
        assert_eq!(metadata_asked(&fake), expected, "{text:?} {target}");
    }
}

#[test]
fn triggers_of_the_base_image_run_first() {
    let fake = Fake::new("FROM own AS x\nRUN b\nFROM x\nRUN c")
        .image("own", json!({"OnBuild": ["RUN a $BASE", "ENV t=1", "COPY --from=busybox /k /k"]}));
    let made = fake.build();
    assert_eq!(
        made.history(),
        [
            "+ RUN /bin/sh -c a $BASE # buildkit",
            "ENV t=1",
            "+ COPY /k /k # buildkit",
            "+ RUN /bin/sh -c b # buildkit",
            "+ RUN /bin/sh -c c # buildkit",
        ]
    );
    assert_eq!(made.config("OnBuild"), json!(null));
    assert!(made.names().contains(&"[x 2/4] ONBUILD RUN a $BASE".to_owned()), "{:?}", made.names());
    assert!(metadata_asked(&fake).contains(&"busybox:latest".to_owned()), "what triggers name is resolved");
    assert_eq!(made.0.steps[1].text, "ONBUILD RUN a $BASE");
}

#[test]
fn triggers_of_a_stage_run_in_what_is_built_on_it_once() {
    let made = Fake::new("FROM alpine AS a\nONBUILD RUN t\nRUN x\nFROM a AS b\nRUN y\nFROM b\nRUN z").build();
    let runs: Vec<String> = made.execs().into_iter().map(|exec| exec.meta.unwrap().args[2].clone()).collect();
    assert_eq!(runs, ["x", "t", "y", "z"]);
    assert_eq!(made.config("OnBuild"), json!(null));
}

#[test]
fn triggers_that_are_wrong_are_refused_at_the_from() {
    for (trigger, message) in [
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("XYZZY", "unknown instruction: XYZZY"),
        ("", "file with no instructions"),
    ] {
        let error = Fake::new("\nFROM own\nRUN x").image("own", json!({"OnBuild": [trigger]})).error();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.location().unwrap().ranges[0].start.unwrap().line, 2);
    }
}

#[test]
fn an_image_without_layers_is_scratch() {
    let mut fake = Fake::new("FROM empty\nLABEL a=b");
    fake.images.insert(
        "docker.io/library/empty:latest".into(),
        json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["x"]}}),
    );
    let made = fake.build();
    assert!(made.0.definition.def.is_empty());
    assert_eq!(made.config("Cmd"), json!(["x"]));
}

fn place(identifier: &str, fake: &Fake) -> bool {
    fake.build().sources().iter().any(|source| source.identifier == identifier)
}

#[test]
fn contexts_stand_in_place_of_stages_and_images() {
    let text = "FROM alpine AS base\nRUN old\nFROM base\nCOPY --from=data /a /b\nRUN new";
    // An image in place of a stage: none of the stage's instructions are carried out.
    let fake = Fake::new(text)
        .with("context:base", "docker-image://busybox")
        .with("context:data", "docker-image://golang");
    let made = fake.build();
    assert_eq!(made.execs().len(), 1);
    assert!(place(&format!("docker-image://docker.io/library/busybox:latest@{DIGEST}"), &fake));
    assert!(
        made.names().contains(&format!("[context base] docker.io/library/busybox:latest@{DIGEST}")),
        "{:?}",
        made.names()
    );
    // In place of an image.
    let fake = Fake::new("FROM alpine\nRUN x").with("context:alpine", "docker-image://busybox");
    assert!(place(&format!("docker-image://docker.io/library/busybox:latest@{DIGEST}"), &fake));
    assert_eq!(fake.build().names()[1], "[1/1] RUN x");
    // For one platform only.
    let fake = Fake::new("FROM alpine\nRUN x")
        .with("context:alpine::linux/amd64", "docker-image://busybox")
        .with("context:alpine", "docker-image://golang");
    assert!(place(&format!("docker-image://docker.io/library/busybox:latest@{DIGEST}"), &fake));
    // Scratch, git, a URL.
    let data = |place: &str| Fake::new("FROM scratch\nCOPY --from=data /a /b").with("context:data", place);
    assert!(data("docker-image://scratch").build().sources().is_empty());
    assert!(place("git://h/r.git#main", &data("https://h/r.git#main")));
    assert!(place("https://h/x.tar", &data("https://h/x.tar")));
}

#[test]
fn a_local_context_has_its_own_ignore_file_and_paths() {
    let fake = Fake::new("FROM scratch\nCOPY --from=data a/b /c\nRUN --mount=from=data,source=d,target=/x y")
        .with("context:data", "local:dir")
        .file("dir", ".dockerignore", "node_modules\n");
    let made = fake.build();
    let local = made.sources().into_iter().find(|source| source.identifier == "local://dir").unwrap();
    assert_eq!(local.attrs["local.followpaths"], "[\"a/b\",\"d\"]");
    assert_eq!(local.attrs["local.excludepatterns"], "[\"node_modules\"]");
    assert_eq!(local.attrs["local.sharedkeyhint"], "context:data");
    assert!(made.names().contains(&"[context data] load from client".to_owned()));
    assert!(fake.asked().contains(&"[context data] load .dockerignore".to_owned()));
}

#[test]
fn an_input_is_part_of_the_graph() {
    let mut inner = Fake::new("FROM busybox\nRUN inner").build().0;
    let config = std::mem::take(&mut inner.config);
    let mut fake = Fake::new("FROM base\nRUN outer").with("context:base", "input:base");
    fake.inputs.insert("base".into(), inner.definition);
    let made = fake.build();
    let runs: Vec<String> = made.execs().into_iter().map(|exec| exec.meta.unwrap().args[2].clone()).collect();
    assert_eq!(runs, ["inner", "outer"]);
    // With its configuration.
    use base64::Engine as _;
    let metadata = json!({"containerimage.config": base64::engine::general_purpose::STANDARD.encode(config)});
    let made = fake.with("input-metadata:base", &metadata.to_string()).build();
    assert_eq!(made.config("Cmd"), json!(["sh"]));
    assert_eq!(made.execs()[1].meta.as_ref().unwrap().cwd, "/base");
}

#[test]
fn the_main_context_may_be_elsewhere() {
    // A repository, with a directory of it.
    let fake = Fake::new("").with("context", "https://h/r.git").with("contextsubdir", "d");
    let fake = Fake {
        files: [((("git://h/r.git").to_owned(), "Dockerfile".to_owned()), b"FROM alpine\nCOPY a b".to_vec())]
            .into(),
        ..fake
    };
    let made = fake.build();
    assert!(made.names().contains(&"[internal] load git source https://h/r.git".to_owned()));
    assert!(made.copies().iter().any(|copy| copy.src == "/d"));
    // The client's Dockerfile beside it.
    let fake = Fake::new("FROM alpine\nCOPY a b")
        .with("context", "https://h/r.git")
        .with("dockerfilekey", "dockerfile");
    assert!(place("git://h/r.git", &fake));
    // A URL that is a Dockerfile.
    let fake = Fake::new("").with("context", "https://h/D");
    let fake = Fake {
        files: [(("https://h/D".to_owned(), "context".to_owned()), b"FROM alpine\nRUN a".to_vec())].into(),
        ..fake
    };
    assert_eq!(fake.build().execs().len(), 1);
    // Definitions of the client.
    let mut fake = Fake::new("FROM alpine\nCOPY a b");
    let inner = Fake::new("FROM busybox\nRUN inner").build().0.definition;
    fake.inputs.insert("context".into(), inner);
    assert_eq!(fake.build().execs().len(), 1);
}

#[test]
fn the_ignore_file_beside_the_dockerfile_comes_first() {
    let excludes = |fake: Fake| {
        let made = fake.build();
        let local = made.sources().into_iter().find(|source| source.identifier == "local://context").unwrap();
        local.attrs.get("local.excludepatterns").cloned()
    };
    let fake = || Fake::new("FROM alpine\nCOPY a b").file("context", ".dockerignore", "common\n");
    assert_eq!(excludes(fake()).as_deref(), Some("[\"common\"]"));
    let own = fake().file("dockerfile", "Dockerfile.dockerignore", "own\n");
    assert_eq!(excludes(own).as_deref(), Some("[\"own\"]"));
    let other = fake()
        .with("filename", "sub/Other")
        .file("dockerfile", "sub/Other", "FROM alpine\nCOPY a b")
        .file("dockerfile", "sub/Other.dockerignore", "other\n");
    assert_eq!(excludes(other).as_deref(), Some("[\"other\"]"));
    let wrong = fake().file("dockerfile", "Dockerfile.dockerignore", "[\n").error();
    assert_eq!(wrong.to_string(), "failed parsing Dockerfile.dockerignore: syntax error in pattern");
}

#[test]
fn a_dockerfile_in_small_letters_will_do() {
    let mut fake = Fake::new("").file("dockerfile", "dockerfile", "FROM alpine\nRUN a");
    fake.files.remove(&("local://dockerfile".to_owned(), "Dockerfile".to_owned()));
    assert_eq!(fake.build().execs().len(), 1);
}

#[test]
fn the_same_file_makes_the_same_graph() {
    let text = "FROM alpine\nCOPY --link a b\nRUN --mount=type=cache,target=/c --mount=type=secret,id=s x";
    let once = |_| Fake::new(text).build().0.definition.encode_to_vec();
    let graphs: Vec<Vec<u8>> = (0..3).map(once).collect();
    assert!(graphs.windows(2).all(|pair| pair[0] == pair[1]));
    let _ = pb::Definition::decode(graphs[0].as_slice()).unwrap();
}
