//! What instructions become in the graph.

use serde_json::json;

use super::fake::{DIGEST, Fake};
use crate::dockerfile::frontend::Plan;
use crate::graph::pb;

#[test]
fn vertices_are_named_as_buildkit_names_them() {
    let text = "FROM golang AS build\nWORKDIR /src\nCOPY . .\nENV x=1\nRUN make \"$x\" $y\nFROM alpine\nCOPY --from=build /src/out /bin/\nCMD [\"x\"]";
    let fake = Fake::new(text);
    assert_eq!(
        fake.build().names(),
        [
            &format!("[stage-1 1/2] FROM docker.io/library/alpine:latest@{DIGEST}"),
            &format!("[build 1/4] FROM docker.io/library/golang:latest@{DIGEST}"),
            "[build 2/4] WORKDIR /src",
            "[internal] load build context",
            "[build 3/4] COPY . .",
            "[build 4/4] RUN make \"1\" $y",
            "[stage-1 2/2] COPY --from=build /src/out /bin/",
        ]
    );
    assert_eq!(
        fake.asked(),
        [
            "[internal] load .dockerignore",
            "[internal] load build definition from Dockerfile",
            "[internal] load metadata for docker.io/library/alpine:latest",
            "[internal] load metadata for docker.io/library/golang:latest",
        ]
    );
    // One stage has no name; numbers are as wide as the last one.
    let many = format!("FROM alpine\n{}", "RUN a\n".repeat(11));
    let names = Fake::new(&many).build().names();
    assert_eq!((names[1].as_str(), names[11].as_str()), ("[ 2/12] RUN a", "[12/12] RUN a"));
}

#[test]
fn vertices_know_their_lines_and_commands() {
    let made = Fake::new("FROM alpine\nRUN a \\\n  b").build();
    let source = made.0.definition.source.clone().unwrap();
    assert_eq!(source.infos[0].filename, "Dockerfile");
    let exec =
        made.vertices().into_iter().find(|seen| matches!(seen.op.op, Some(pb::op::Op::Exec(_)))).unwrap();
    assert_eq!(exec.metadata.description["com.docker.dockerfile.v1.command"], "RUN a   b");
    let place =
        source.locations.values().find(|l| l.locations[0].ranges[0].start.unwrap().line == 2).unwrap();
    assert_eq!(place.locations[0].ranges[0].end.unwrap().line, 3);
}

#[test]
fn a_command_gets_its_mounts_and_surroundings() {
    let text = "FROM alpine\nUSER u\nWORKDIR /w\nRUN --mount=type=cache,target=c,id=k$BASE,sharing=locked \
        --mount=type=secret,id=s,required --mount=type=secret,id=e,env=E --mount=type=ssh \
        --mount=type=tmpfs,target=/t,size=1m --mount=source=x,target=/b --mount=from=busybox,source=/bin,target=/z,rw \
        --network=none --security=insecure make";
    let made = Fake::new(text)
        .with("add-hosts", "h=1.2.3.4")
        .with("ulimit", "nofile=5:6")
        .with("shm-size", "77")
        .with("hostname", "box")
        .with("cgroup-parent", "/p")
        .with("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns")
        .build();
    let exec = made.execs().remove(0);
    let meta = exec.meta.clone().unwrap();
    assert_eq!(meta.args, ["/bin/sh", "-c", "make"]);
    assert_eq!((meta.cwd.as_str(), meta.user.as_str(), meta.hostname.as_str()), ("/w", "u", "box"));
    assert_eq!((meta.extra_hosts.len(), meta.ulimit[0].hard, meta.cgroup_parent.as_str()), (1, 6, "/p"));
    assert_eq!(meta.env, ["PATH=/bin", "BASE=1", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]);
    assert_eq!((exec.network(), exec.security()), (pb::NetMode::None, pb::SecurityMode::Insecure));
    assert_eq!(exec.secretenv, [pb::SecretEnv { id: "e".into(), name: "E".into(), optional: true }]);
    let find =
        |dest: &str| exec.mounts.iter().find(|mount| mount.dest == dest).unwrap_or_else(|| panic!("{dest}"));
    assert_eq!((exec.mounts[0].dest.as_str(), exec.mounts[0].input, exec.mounts[0].output), ("/", 0, 0));
    let cache = find("/w/c");
    let options = cache.cache_opt.clone().unwrap();
    assert_eq!((options.id.as_str(), options.sharing()), ("ns/k1", pb::CacheSharingOpt::Locked));
    assert_eq!((cache.input, cache.output, cache.mount_type()), (-1, -1, pb::MountType::Cache));
    let secret = find("/run/secrets/s").secret_opt.clone().unwrap();
    assert_eq!((secret.id.as_str(), secret.mode, secret.optional), ("s", 0o400, false));
    let ssh = find("/run/buildkit/ssh_agent.0").ssh_opt.clone().unwrap();
    assert_eq!((ssh.id.as_str(), ssh.mode, ssh.optional), ("default", 0o600, true));
    assert_eq!(find("/t").tmpfs_opt.unwrap().size, 1 << 20);
    assert_eq!(find("/dev/shm").tmpfs_opt.unwrap().size, 77);
    let bind = find("/b");
    assert_eq!((bind.selector.as_str(), bind.readonly, bind.output), ("/x", true, -1));
    let rw = find("/z");
    assert_eq!((rw.selector.as_str(), rw.readonly, rw.output), ("/bin", false, -1));
    assert!(made.names().contains(&format!("FROM docker.io/library/busybox:latest@{DIGEST}")));
    assert_eq!(made.history()[2], "+ RUN /bin/sh -c make # buildkit");
}

#[test]
fn a_cache_may_begin_as_something_or_belong_to_somebody() {
    let made = Fake::new("FROM alpine\nRUN --mount=type=cache,target=/a/,from=busybox,source=/s --mount=type=cache,target=/b,uid=3,mode=0700 x").build();
    let exec = made.execs().remove(0);
    let seeded = exec.mounts.iter().find(|mount| mount.dest == "/a").unwrap();
    assert_eq!((seeded.selector.as_str(), seeded.input > 0), ("/s", true));
    assert_eq!(seeded.cache_opt.clone().unwrap().id, "//a");
    let owned = exec.mounts.iter().find(|mount| mount.dest == "/b").unwrap();
    assert_eq!((owned.selector.as_str(), owned.input > 0), ("/cache", true));
    assert!(made.names().contains(&"[internal] settings cache mount permissions".to_owned()));
}

#[test]
fn a_secret_that_is_a_variable_is_not_shown() {
    let made = Fake::new("FROM alpine\nENV T=1\nRUN --mount=type=secret,id=T,env=T echo $T").build();
    assert!(made.names()[1].ends_with("echo ****"), "{:?}", made.names());
}

#[test]
fn here_documents_are_scripts_or_files() {
    for (text, args, name) in [
        ("RUN <<EOF\na\nb\nEOF", vec!["/bin/sh", "-c", "a\nb\n"], "[2/2] RUN <<EOF (a...)"),
        ("RUN <<-EOF\n\ta\n\tEOF", vec!["/bin/sh", "-c", "a\n"], "[2/2] RUN <<-EOF (a)"),
        (
            "RUN <<EOF\n#!/usr/bin/env python3\nx\nEOF",
            vec!["/bin/sh", "-c", "/dev/pipes/EOF"],
            "[2/2] RUN <<EOF (#!/usr/bin/env python3...)",
        ),
        (
            "RUN cat <<A <<B\n1\nA\n2\nB",
            vec!["/bin/sh", "-c", "cat <<A <<B\n1\nA\n2\nB"],
            "[2/2] RUN cat <<A <<B",
        ),
        (
            "RUN python3 <<'E'\nprint($x)\nE",
            vec!["/bin/sh", "-c", "python3 <<'E'\nprint($x)\nE"],
            "[2/2] RUN python3 <<'E'",
        ),
    ] {
        let made = Fake::new(&format!("FROM alpine\n{text}")).build();
        assert_eq!(made.execs()[0].meta.as_ref().unwrap().args, args, "{text}");
        assert_eq!(made.names().last().unwrap(), name, "{text}");
    }
    let script = Fake::new("FROM alpine\nRUN <<EOF\n#!/bin/x\nEOF").build();
    let mount = script.execs()[0].mounts.iter().find(|mount| mount.dest == "/dev/pipes").cloned().unwrap();
    assert!(mount.readonly && mount.input > 0);
}

fn made_files(text: &str) -> Vec<(String, String)> {
    Fake::new(text)
        .build()
        .vertices()
        .into_iter()
        .filter_map(|seen| match seen.op.op {
            Some(pb::op::Op::File(file)) => Some(file.actions),
            _ => None,
        })
        .flatten()
        .filter_map(|action| match action.action {
            Some(pb::file_action::Action::Mkfile(file)) => {
                Some((file.path, String::from_utf8(file.data).unwrap()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn files_from_here_documents_have_their_variables_filled_in() {
    for (text, expected) in [
        ("COPY <<a /x\n$BASE it's \"$BASE\" \\$BASE\na", vec![("/a", "1 it's \"1\" $BASE\n")]),
        ("COPY <<\"a\" /x\n$BASE\na", vec![("/a", "$BASE\n")]),
        ("COPY <<-a <<'b' /x/\n\t\t1\n\ta\n\t2\nb", vec![("/a", "1\n"), ("/b", "\t2\n")]),
        ("ADD <<a.txt /x/\n${none:-d}\na.txt", vec![("/a.txt", "d\n")]),
    ] {
        let expected: Vec<(String, String)> =
            expected.into_iter().map(|(name, data)| (name.to_owned(), data.to_owned())).collect();
        assert_eq!(made_files(&format!("FROM alpine\n{text}")), expected, "{text}");
    }
}

#[test]
fn copies_have_their_options() {
    let copy = |line: &str| Fake::new(&format!("FROM alpine\n{line}")).build().copies().remove(0);
    for (line, src, dest) in [
        ("COPY a b", "/a", "/base/b"),
        ("COPY a .", "/a", "/base/"),
        ("COPY a ./", "/a", "/base/"),
        ("COPY ../../a /b/", "/a", "/b/"),
        ("COPY . /", "/", "/"),
        ("COPY a/ /b", "/a/", "/b"),
        ("COPY a/*.x /b/", "/a/*.x", "/b/"),
        ("COPY a$BASE /b$BASE", "/a1", "/b1"),
        ("COPY [\"a b\", \"/c d/\"]", "/a b", "/c d/"),
        ("COPY a /b/.", "/a", "/b/"),
    ] {
        let copy = copy(line);
        assert_eq!((copy.src.as_str(), copy.dest.as_str()), (src, dest), "{line}");
        assert!(
            copy.follow_symlink && copy.dir_copy_contents && copy.create_dest_path && copy.allow_wildcard
        );
        assert!(!copy.attempt_unpack_docker_compatibility);
        assert_eq!((copy.mode, copy.timestamp), (-1, -1));
    }
    assert!(copy("ADD a b").attempt_unpack_docker_compatibility);
    assert!(!copy("ADD --unpack=false a b").attempt_unpack_docker_compatibility);
    assert!(!copy("ADD https://h/a.tar b").attempt_unpack_docker_compatibility);
    assert!(copy("ADD --unpack https://h/a.tar b").attempt_unpack_docker_compatibility);
    assert_eq!(copy("COPY --chmod=755 a b").mode, 0o755);
    assert_eq!(copy("COPY --chmod=u+x a b").mode_str, "u+x");
    assert_eq!(copy("COPY --exclude=*.md --exclude=!$BASE a b").exclude_patterns, ["*.md", "!1"]);
    let parents = copy("COPY --parents x/./a/b c/");
    assert_eq!((parents.src.as_str(), parents.include_patterns[0].as_str()), ("/x", "a/b"));
    assert_eq!(parents.required_paths, ["/x/a/b"]);
    assert_eq!(copy("COPY --parents a/*/c d/").src, "/");
    let owner = copy("COPY --chown=10:staff a b").owner.unwrap();
    assert_eq!(owner.user.unwrap().user, Some(pb::user_opt::User::ById(10)));
    let group = pb::NamedUserOpt { name: "staff".into(), input: 0 };
    assert_eq!(owner.group.unwrap().user, Some(pb::user_opt::User::ByName(group)));
}

#[test]
fn several_sources_are_one_operation() {
    let made = Fake::new("FROM alpine\nCOPY a b <<c /x/\nC\nc").build();
    let actions = made
        .vertices()
        .into_iter()
        .find_map(|seen| match seen.op.op {
            Some(pb::op::Op::File(file)) if file.actions.len() == 3 => Some((seen.op.inputs, file.actions)),
            _ => None,
        })
        .unwrap();
    let chain: Vec<(i64, i64, i64)> =
        actions.1.iter().map(|action| (action.input, action.secondary_input, action.output)).collect();
    assert_eq!(actions.0.len(), 3);
    assert_eq!(chain, [(0, 1, -1), (3, 1, -1), (4, 2, 0)]);
}

#[test]
fn a_link_is_an_ordinary_copy_as_with_dockers_own_store() {
    for text in ["FROM alpine\nCOPY --link a /b\nRUN x", "FROM scratch\nCOPY --link a /b"] {
        let made = Fake::new(text).build();
        let names = made.names();
        assert!(names.iter().any(|name| name.ends_with("COPY --link a /b")), "{names:?}");
        assert!(
            !made.vertices().iter().any(|seen| matches!(seen.op.op, Some(pb::op::Op::Merge(_)))),
            "{text}"
        );
    }
}

#[test]
fn only_what_is_copied_is_asked_of_the_client() {
    let paths = |text: &str| {
        let made = Fake::new(text).file("context", ".dockerignore", "x\n!y\n").build();
        let local = made.sources().into_iter().find(|source| source.identifier == "local://context").unwrap();
        assert_eq!(local.attrs["local.excludepatterns"], "[\"x\",\"!y\"]");
        assert_eq!(local.attrs["local.sharedkeyhint"], "context");
        local.attrs.get("local.followpaths").cloned()
    };
    assert_eq!(paths("FROM alpine\nCOPY b a/*.x /c/").as_deref(), Some("[\"a/*.x\",\"b\"]"));
    assert_eq!(paths("FROM alpine\nCOPY . /c/"), None);
    assert_eq!(paths("FROM alpine\nRUN --mount=target=/c x"), None);
    assert_eq!(paths("FROM alpine\nRUN --mount=source=a,target=/c x").as_deref(), Some("[\"a\"]"));
    let unused = Fake::new("FROM alpine AS x\nCOPY a b\nFROM alpine\nCOPY --from=busybox a b").build();
    assert!(!unused.sources().iter().any(|source| source.identifier.starts_with("local://")));
}

#[test]
fn remote_files_are_sources() {
    let made = Fake::new(&format!(
        "FROM alpine\nADD --checksum={DIGEST} https://h/p/a.tar?x /x/\nADD --keep-git-dir https://h/r.git#v1:sub /y"
    ))
    .build();
    let sources = made.sources();
    let http = sources.iter().find(|source| source.identifier.starts_with("https:")).unwrap();
    assert_eq!(http.identifier, "https://h/p/a.tar?x");
    assert_eq!(
        (http.attrs["http.filename"].as_str(), http.attrs["http.checksum"].as_str()),
        ("a.tar", DIGEST)
    );
    let git = sources.iter().find(|source| source.identifier.starts_with("git:")).unwrap();
    assert_eq!(git.identifier, "git://h/r.git#v1:sub");
    assert_eq!(
        (git.attrs["git.fullurl"].as_str(), git.attrs["git.keepgitdir"].as_str()),
        ("https://h/r.git", "true")
    );
}

#[test]
fn the_cache_is_not_asked_where_the_user_says_so() {
    let ignoring = |fake: Fake| {
        let vertices = fake.build().vertices();
        let ignoring = vertices.into_iter().filter(|seen| seen.metadata.ignore_cache);
        ignoring.map(|seen| seen.name).collect::<Vec<_>>()
    };
    let text = "FROM alpine AS a\nRUN x\nFROM a AS b\nRUN y";
    assert_eq!(ignoring(Fake::new(text)), Vec::<String>::new());
    assert_eq!(ignoring(Fake::new(text).with("no-cache", "")), ["[a 2/2] RUN x", "[b 1/1] RUN y"]);
    assert_eq!(ignoring(Fake::new(text).with("no-cache", "B")), ["[b 1/1] RUN y"]);
}

#[test]
fn each_platform_has_its_own_graph() {
    let fake = Fake::new(
        "FROM --platform=$BUILDPLATFORM golang AS b\nARG TARGETARCH\nRUN x\nFROM alpine\nCOPY --from=b /x /x",
    )
    .with("platform", "linux/amd64,linux/arm64");
    let Plan::Build(build) = fake.plan().unwrap() else { panic!("an answer") };
    let metadata = build.metadata();
    let platforms: serde_json::Value = serde_json::from_slice(&metadata["refs.platforms"]).unwrap();
    assert_eq!(
        platforms["Platforms"][1],
        json!({"ID": "linux/arm64", "Platform": {"architecture": "arm64", "os": "linux"}})
    );
    assert!(metadata.contains_key("containerimage.config/linux/arm64"));
    let names: Vec<String> =
        super::fake::vertices(&build.images[1].definition).into_iter().map(|seen| seen.name).collect();
    let host = skiff_images::Platform::host();
    if host.architecture == "amd64" {
        assert!(names.contains(&"[linux/amd64->arm64 b 2/2] RUN x".to_owned()), "{names:?}");
    }
    assert!(names.contains(&"[linux/arm64 stage-1 2/2] COPY --from=b /x /x".to_owned()), "{names:?}");
    let config: serde_json::Value = serde_json::from_slice(&build.images[1].config).unwrap();
    assert_eq!(config["architecture"], "arm64");
}

#[test]
fn steps_are_told_for_the_classic_builder() {
    let made = Fake::new("FROM alpine AS x\nRUN a\nFROM x\nLABEL a=b\nRUN c").build();
    let steps: Vec<&str> = made.0.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(steps, ["FROM alpine AS x", "RUN a", "FROM x", "LABEL a=b", "RUN c"]);
    let vertices: Vec<_> = made.0.steps.iter().map(|step| step.vertex.clone().unwrap()).collect();
    assert_eq!((&vertices[1], &vertices[2]), (&vertices[2], &vertices[3]));
    assert_ne!(vertices[3], vertices[4]);
    assert!(made.0.definition.metadata.contains_key(&vertices[4]));
}

#[test]
fn a_mount_counts_as_another_stage_for_the_names() {
    let last = |text: &str| Fake::new(text).build().names().last().unwrap().clone();
    assert_eq!(last("FROM alpine\nRUN a"), "[2/2] RUN a");
    assert_eq!(
        last("FROM alpine\nRUN --mount=type=tmpfs,target=/t a"),
        "[stage-0 2/2] RUN --mount=type=tmpfs,target=/t a"
    );
}
