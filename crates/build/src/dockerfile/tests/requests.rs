//! Outlines, targets, checks without a build.

use serde_json::Value;

use super::fake::Fake;

fn json(fake: &Fake) -> Value {
    serde_json::from_str(&fake.answer("result.json")).unwrap()
}

#[test]
fn an_outline_lists_what_a_target_takes() {
    let text = "# version of the base\nARG version=3\n# unused\nARG unused=1\nFROM alpine AS base\n\n# fin is what users get\nFROM base AS fin\n\
        # mode how it is built\nARG mode=fast\nRUN --mount=type=secret,id=tok,required --mount=type=ssh --mount=type=cache,target=/c x\n";
    let fake = Fake::new(text).with("requestid", "frontend.outline").with("build-arg:mode", "slow");
    let outline = json(&fake);
    assert_eq!((&outline["name"], &outline["description"]), (&"fin".into(), &"is what users get".into()));
    assert_eq!(outline["args"].as_array().unwrap().len(), 1);
    assert_eq!(outline["args"][0]["name"], "mode");
    assert_eq!(outline["args"][0]["value"], "slow");
    assert_eq!(outline["args"][0]["description"], "how it is built");
    assert_eq!(outline["args"][0]["location"]["ranges"][0]["start"]["line"], 10);
    assert_eq!(
        outline["secrets"][0],
        serde_json::json!({"name": "tok", "required": true, "location": {"ranges": [{"start": {"line": 11}, "end": {"line": 11}}]}})
    );
    assert_eq!(outline["ssh"][0]["name"], "default");
    assert_eq!(outline["cache"][0]["ID"], "//c");
    let shown = fake.answer("result.txt");
    assert!(shown.starts_with("TARGET:        fin\nDESCRIPTION:   is what users get\n\n"), "{shown}");
    assert!(
        shown.contains("BUILD ARG   VALUE   DESCRIPTION\nmode        slow    how it is built\n"),
        "{shown}"
    );
    assert!(shown.contains("SECRET   REQUIRED\ntok      true\n"), "{shown}");
}

#[test]
fn targets_are_listed() {
    let fake = Fake::new("# a builds\nFROM --platform=linux/arm64 golang AS a\nFROM a\nFROM alpine AS c")
        .with("requestid", "frontend.targets");
    let targets = json(&fake);
    assert_eq!(targets["targets"][0]["description"], "builds");
    assert_eq!(targets["targets"][0]["platform"], "linux/arm64");
    assert_eq!(targets["targets"][2]["default"], true);
    assert_eq!(targets["targets"][2]["base"], "alpine");
    assert_eq!(
        fake.answer("result.txt"),
        "TARGET        DESCRIPTION\na             builds\nc (default)   \n"
    );
}

#[test]
fn checks_can_be_asked_for_alone() {
    let fake =
        Fake::new("FROM alpine as a\nCMD x\nFROM busybox\nEXPOSE 1/TCP").with("requestid", "frontend.lint");
    let lint = json(&fake);
    let rules: Vec<&str> =
        lint["warnings"].as_array().unwrap().iter().map(|w| w["ruleName"].as_str().unwrap()).collect();
    assert_eq!(rules, ["FromAsCasing", "JSONArgsRecommended", "ExposeProtoCasing"]);
    assert_eq!(fake.answer("result.statuscode"), "1");
    assert!(fake.answer("result.txt").starts_with(
        "\nWARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n'as' and 'FROM' keywords' casing do not match\nDockerfile:1\n--------------------\n   1 | >>> FROM alpine as a\n"
    ));
    assert!(fake.told.lock().unwrap().is_empty());
    let fine = Fake::new("FROM alpine\nRUN x").with("requestid", "frontend.lint");
    assert_eq!((fine.answer("result.statuscode"), fine.answer("result.txt")), ("0".into(), String::new()));
}

#[test]
fn a_file_that_is_wrong_is_a_finding() {
    let fake = Fake::new("FROM alpine as a\nRUM x").with("requestid", "frontend.lint");
    let lint = json(&fake);
    assert_eq!(
        lint["buildError"]["message"],
        "dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)"
    );
    assert_eq!(lint["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(lint["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(fake.answer("result.statuscode"), "1");
}

#[test]
fn requests_describe_themselves() {
    let fake = Fake::new("")
        .with("requestid", "frontend.subrequests.describe")
        .with("frontend.caps", "moby.buildkit.frontend.subrequests");
    assert_eq!(json(&fake).as_array().unwrap().len(), 4);
    assert!(fake.answer("result.txt").starts_with("NAME"));
}

#[test]
fn the_frontends_own_syntax_is_built_in() {
    for syntax in [
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile:1.7-labs",
        "docker/dockerfile-upstream:master",
        "docker/dockerfile",
    ] {
        assert_eq!(
            Fake::new(&format!("# syntax={syntax}\nFROM alpine\nRUN a")).build().execs().len(),
            1,
            "{syntax}"
        );
    }
    let fake = Fake::new("FROM alpine\nRUN a").without("platform");
    assert_eq!(fake.build().execs().len(), 1);
}
