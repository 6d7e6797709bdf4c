//! What instructions leave in the image's configuration and history.

use serde_json::json;

use super::fake::Fake;

#[test]
fn each_instruction_sets_its_part_and_is_recorded() {
    for (line, key, value, history) in [
        ("ENV a=b c=\"d e\"", "Env", json!(["PATH=/bin", "BASE=1", "a=b", "c=d e"]), "ENV a=b c=d e"),
        ("ENV BASE=$BASE$BASE", "Env", json!(["PATH=/bin", "BASE=11"]), "ENV BASE=11"),
        ("ENV a b  c", "Env", json!(["PATH=/bin", "BASE=1", "a=b  c"]), "ENV a=b  c"),
        ("LABEL a=b \"c d\"=$BASE", "Labels", json!({"a": "b", "c d": "1"}), "LABEL a=b c d=1"),
        ("WORKDIR /x/../y/", "WorkingDir", json!("/y"), "+ WORKDIR /y"),
        ("WORKDIR x", "WorkingDir", json!("/base/x"), "+ WORKDIR /base/x"),
        ("WORKDIR /", "WorkingDir", json!("/"), "WORKDIR /"),
        ("USER a$BASE:b", "User", json!("a1:b"), "USER a1:b"),
        ("VOLUME /a /$BASE", "Volumes", json!({"/a": {}, "/1": {}}), "VOLUME [/a /1]"),
        ("VOLUME [\"/a b\"]", "Volumes", json!({"/a b": {}}), "VOLUME [/a b]"),
        (
            "EXPOSE 80 8$BASE/udp",
            "ExposedPorts",
            json!({"80/tcp": {}, "81/udp": {}}),
            "EXPOSE map[80/tcp:{} 81/udp:{}]",
        ),
        ("CMD a b", "Cmd", json!(["/bin/sh", "-c", "a b"]), "CMD [\"/bin/sh\" \"-c\" \"a b\"]"),
        ("CMD [\"a\", \"$BASE\"]", "Cmd", json!(["a", "$BASE"]), "CMD [\"a\" \"$BASE\"]"),
        ("CMD []", "Cmd", json!(null), "CMD []"),
        ("CMD [\"a\"]", "ArgsEscaped", json!(true), "CMD [\"a\"]"),
        ("ENTRYPOINT a", "ArgsEscaped", json!(null), "ENTRYPOINT [\"/bin/sh\" \"-c\" \"a\"]"),
        ("STOPSIGNAL 99", "StopSignal", json!("99"), "STOPSIGNAL 99"),
        ("ENTRYPOINT [\"a\"]", "Entrypoint", json!(["a"]), "ENTRYPOINT [\"a\"]"),
        (
            "ENTRYPOINT a",
            "Entrypoint",
            json!(["/bin/sh", "-c", "a"]),
            "ENTRYPOINT [\"/bin/sh\" \"-c\" \"a\"]",
        ),
        ("ENTRYPOINT [\"a\"]", "Cmd", json!(null), "ENTRYPOINT [\"a\"]"),
        ("SHELL [\"/bin/bash\", \"-c\"]", "Shell", json!(["/bin/bash", "-c"]), "SHELL [/bin/bash -c]"),
        ("STOPSIGNAL SIGRTMIN+3", "StopSignal", json!("SIGRTMIN+3"), "STOPSIGNAL SIGRTMIN+3"),
        (
            "HEALTHCHECK NONE",
            "Healthcheck",
            json!({"Test": ["NONE"]}),
            "HEALTHCHECK &{[\"NONE\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
        ),
        (
            "HEALTHCHECK --interval=1m --retries=2 CMD a b",
            "Healthcheck",
            json!({"Test": ["CMD-SHELL", "a b"], "Interval": 60_000_000_000i64, "Retries": 2}),
            "HEALTHCHECK &{[\"CMD-SHELL\" \"a b\"] \"1m0s\" \"0s\" \"0s\" \"0s\" '\\x02'}",
        ),
        ("ARG x=1 y", "Env", json!(["PATH=/bin", "BASE=1"]), "ARG x=1 y"),
        ("RUN a", "Env", json!(["PATH=/bin", "BASE=1"]), "+ RUN /bin/sh -c a # buildkit"),
        ("RUN [\"a\", \"b\"]", "Cmd", json!(["sh"]), "+ RUN a b # buildkit"),
        ("COPY a b /c/", "Cmd", json!(["sh"]), "+ COPY a b /c/ # buildkit"),
        (
            "COPY --chown=1:2 --chmod=755 --parents a /c",
            "Cmd",
            json!(["sh"]),
            "+ COPY --parents --chown=1:2 --chmod=755 a /c # buildkit",
        ),
        ("COPY <<x /c\nX\nx", "Cmd", json!(["sh"]), "+ COPY <<x /c # buildkit"),
        ("ADD a$BASE /c", "Cmd", json!(["sh"]), "+ ADD a1 /c # buildkit"),
    ] {
        let made = Fake::new(&format!("FROM alpine\n{line}\n")).build();
        assert_eq!(made.config(key), value, "{line}");
        assert_eq!(made.history(), [history], "{line}");
    }
}

#[test]
fn a_new_entrypoint_forgets_the_bases_command_only() {
    let cmd = |text: &str| Fake::new(text).build().config("Cmd");
    assert_eq!(cmd("FROM alpine\nENTRYPOINT [\"a\"]\nCMD [\"b\"]"), json!(["b"]));
    assert_eq!(cmd("FROM alpine\nCMD [\"b\"]\nENTRYPOINT [\"a\"]"), json!(["b"]));
    assert_eq!(cmd("FROM alpine AS x\nCMD [\"b\"]\nFROM x\nENTRYPOINT [\"a\"]"), json!(null));
}

#[test]
fn a_shell_is_used_by_what_follows_it() {
    let made = Fake::new("FROM alpine\nRUN a\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN b\nCMD c").build();
    let args: Vec<_> = made.execs().into_iter().map(|exec| exec.meta.unwrap().args).collect();
    assert_eq!(args, [["/bin/sh", "-c", "a"], ["/bin/bash", "-ec", "b"]]);
    assert_eq!(made.config("Cmd"), json!(["/bin/bash", "-ec", "c"]));
}

#[test]
fn arguments_have_scopes() {
    for (text, given, expected) in [
        ("ARG v=1\nFROM alpine\nLABEL l=$v", &[][..], ""),
        ("ARG v=1\nFROM alpine\nARG v\nLABEL l=$v", &[], "1"),
        ("ARG v=1\nFROM alpine\nARG v=2\nLABEL l=$v", &[], "2"),
        ("ARG v=1\nFROM alpine\nARG v\nLABEL l=$v", &[("v", "9")], "9"),
        ("ARG v=1\nFROM alpine\nARG v=2\nLABEL l=$v", &[("v", "9")], "9"),
        ("FROM alpine\nLABEL l=$v\nARG v=1", &[("v", "9")], ""),
        ("FROM alpine\nARG v\nLABEL l=[$v]", &[], "[]"),
        ("FROM alpine\nARG a=1\nARG b=${a}2\nLABEL l=$b", &[], "12"),
        ("ARG a=1\nARG b=${a}2\nFROM alpine\nARG b\nLABEL l=$b", &[("a", "x")], "x2"),
        ("FROM alpine\nARG v=1\nENV v=2\nLABEL l=$v", &[("v", "9")], "2"),
        ("FROM alpine\nENV v=2\nARG v=1\nLABEL l=$v", &[], "1"),
        ("FROM alpine AS a\nARG v=1\nFROM alpine\nLABEL l=[$v]", &[], "[]"),
        ("FROM alpine AS a\nARG v=1\nFROM a\nLABEL l=[$v]", &[], "[1]"),
        (
            "FROM alpine\nARG TARGETPLATFORM\nARG BUILDARCH\nLABEL l=$TARGETPLATFORM,$BUILDARCH",
            &[],
            "linux/amd64,amd64",
        ),
        ("FROM alpine\nLABEL l=[$TARGETARCH]", &[], "[]"),
        ("FROM alpine\nARG TARGETARCH\nLABEL l=$TARGETARCH", &[("TARGETARCH", "z")], "z"),
        ("FROM alpine\nARG TARGETSTAGE\nLABEL l=$TARGETSTAGE", &[], "default"),
        ("FROM alpine AS fin\nARG TARGETSTAGE\nLABEL l=$TARGETSTAGE", &[], "fin"),
        ("FROM alpine\nLABEL l=$BASE", &[], "1"),
        ("FROM alpine\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nLABEL l=[$BUILDKIT_SBOM_SCAN_STAGE]", &[], "[]"),
        ("FROM alpine\nENV a=1\nENV a=2 b=$a\nLABEL l=$b", &[], "1"),
        ("FROM alpine\nENV a=x\\ y b='$a'\nLABEL l=\"$a$b\"", &[], "x y$a"),
    ] {
        let fake = given.iter().fold(Fake::new(text), |fake, (k, v)| fake.with(&format!("build-arg:{k}"), v));
        assert_eq!(fake.build().config("Labels")["l"], expected, "{text:?} {given:?}");
    }
}

#[test]
fn arguments_are_part_of_what_was_run_but_proxies_are_not() {
    let made = Fake::new("FROM alpine\nARG a=1\nARG b\nARG a=2\nRUN x")
        .with("build-arg:b", "B")
        .with("build-arg:HTTP_PROXY", "p")
        .build();
    assert_eq!(made.history()[3], "+ RUN |2 a=2 b=B /bin/sh -c x # buildkit");
    let meta = made.execs()[0].meta.clone().unwrap();
    assert_eq!(meta.env, ["PATH=/bin", "BASE=1", "a=2", "b=B"]);
    assert_eq!(meta.proxy_env.unwrap().http_proxy, "p");
}

#[test]
fn labels_and_times_of_the_request_are_taken() {
    let made = Fake::new("FROM scratch\nLABEL a=1 b=1\nCMD [\"x\"]")
        .with("label:b", "2")
        .with("label:c", "3")
        .with("build-arg:SOURCE_DATE_EPOCH", "60")
        .build();
    assert_eq!(made.config("Labels"), json!({"a": "1", "b": "2", "c": "3"}));
    assert_eq!(made.json()["history"][0]["created"], "1970-01-01T00:01:00Z");
    assert_eq!(
        made.config("Env"),
        json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    );
    assert_eq!(made.0.definition.def.len(), 0, "scratch has no files");
    assert_eq!((&made.json()["os"], &made.json()["architecture"]), (&json!("linux"), &json!("amd64")));
    assert!(made.json().get("created").is_none());
}

#[test]
fn the_bases_configuration_is_kept_where_nothing_says_otherwise() {
    let base = json!({"User": "u", "Labels": {"x": "y"}, "ExposedPorts": {"1/tcp": {}}, "Shell": ["s"], "StopSignal": "9"});
    let made = Fake::new("FROM own\nRUN a").image("own", base.clone()).build();
    for key in ["User", "Labels", "ExposedPorts", "Shell", "StopSignal"] {
        assert_eq!(made.config(key), base[key], "{key}");
    }
    assert_eq!(made.execs()[0].meta.as_ref().unwrap().user, "u");
    assert_eq!(made.execs()[0].meta.as_ref().unwrap().args, ["s", "a"]);
    assert!(made.0.base_config.is_some());
}

#[test]
fn maintainers_and_triggers_are_recorded() {
    let made = Fake::new("FROM alpine\nMAINTAINER me\nONBUILD RUN <<E\na\nE\nONBUILD COPY a b").build();
    assert_eq!(made.json()["author"], "me");
    assert_eq!(made.history(), ["MAINTAINER me"]);
    assert_eq!(made.config("OnBuild"), json!(["RUN <<E\na\nE", "COPY a b"]));
}
