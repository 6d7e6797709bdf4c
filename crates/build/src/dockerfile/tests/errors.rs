//! What is wrong, in BuildKit's words, with its lines.

use super::fake::Fake;
use crate::dockerfile::excerpt;

fn error(text: &str) -> (String, Option<(i32, i32)>) {
    let error = Fake::new(text).error();
    let lines = error.location().map(|location| {
        let range = &location.ranges[0];
        (range.start.unwrap().line, range.end.unwrap().line)
    });
    (error.to_string(), lines)
}

#[test]
fn what_is_wrong_is_said_in_buildkits_words() {
    let parse = |line: u32, message: &str| format!("dockerfile parse error on line {line}: {message}");
    for (text, message, lines) in [
        ("", "the Dockerfile cannot be empty".to_owned(), None),
        ("# x", "file with no instructions".to_owned(), Some((1, 1))),
        ("ARG a", "dockerfile contains no stages to build".to_owned(), None),
        ("RUN a", "no build stage in current context".to_owned(), Some((1, 1))),
        ("FORM alpine", parse(1, "unknown instruction: FORM (did you mean FROM?)"), Some((1, 1))),
        ("FROM alpine\nrum x", parse(2, "unknown instruction: rum (did you mean run?)"), Some((2, 2))),
        ("FROM alpine\nXYZZY x", parse(2, "unknown instruction: XYZZY"), Some((2, 2))),
        ("FROM", parse(1, "FROM requires either one or three arguments"), Some((1, 1))),
        ("FROM a b", parse(1, "FROM requires either one or three arguments"), Some((1, 1))),
        ("FROM alpine AS 1x", parse(1, "invalid name for build stage: \"1x\", name can't start with a number or contain symbols"), Some((1, 1))),
        ("FROM --platfrom=x alpine", parse(1, "unknown flag: --platfrom (did you mean platform?)"), Some((1, 1))),
        ("FROM alpine\nCOPY a", parse(2, "COPY requires at least two arguments, but only one was provided. Destination could not be determined"), Some((2, 2))),
        ("FROM alpine\nADD", parse(2, "ADD requires at least two arguments, but only one was provided. Destination could not be determined"), Some((2, 2))),
        ("FROM alpine\nCOPY --form=x a b", parse(2, "unknown flag: --form (did you mean from?)"), Some((2, 2))),
        ("FROM alpine\nCOPY --link=x a b", parse(2, "expecting boolean value for flag --link, not: x"), Some((2, 2))),
        ("FROM alpine\nCOPY --from a b", parse(2, "missing a value on flag: --from"), Some((2, 2))),
        ("FROM alpine\nCOPY a <<E\nE", parse(2, "COPY cannot accept a heredoc as a destination"), Some((2, 3))),
        ("FROM alpine\nENV", parse(2, "ENV requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nENV =x", parse(2, "ENV names can not be blank"), Some((2, 2))),
        ("FROM alpine\nLABEL", parse(2, "LABEL requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nARG", parse(2, "ARG requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nARG =x", parse(2, "ARG names can not be blank"), Some((2, 2))),
        ("FROM alpine\nEXPOSE", parse(2, "EXPOSE requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nUSER", parse(2, "USER requires exactly one argument"), Some((2, 2))),
        ("FROM alpine\nWORKDIR", parse(2, "WORKDIR requires exactly one argument"), Some((2, 2))),
        ("FROM alpine\nSTOPSIGNAL", parse(2, "STOPSIGNAL requires exactly one argument"), Some((2, 2))),
        ("FROM alpine\nVOLUME", parse(2, "VOLUME requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nVOLUME [\" \"]", parse(2, "VOLUME specified can not be an empty string"), Some((2, 2))),
        ("FROM alpine\nMAINTAINER", parse(2, "MAINTAINER requires exactly one argument"), Some((2, 2))),
        ("FROM alpine\nSHELL a", parse(2, "SHELL requires the arguments to be in JSON form"), Some((2, 2))),
        ("FROM alpine\nSHELL []", parse(2, "SHELL requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nONBUILD", parse(2, "ONBUILD requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nONBUILD ONBUILD RUN a", parse(2, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"), Some((2, 2))),
        ("FROM alpine\nONBUILD FROM a", parse(2, "FROM isn't allowed as an ONBUILD trigger"), Some((2, 2))),
        ("FROM alpine\nONBUILD maintainer a", parse(2, "MAINTAINER isn't allowed as an ONBUILD trigger"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK", parse(2, "HEALTHCHECK requires at least one argument"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK NONE x", parse(2, "HEALTHCHECK NONE takes no arguments"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK CMD", parse(2, "Missing command after HEALTHCHECK CMD"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK foo bar", parse(2, "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK --interval=1ns CMD a", parse(2, "Interval \"interval\" cannot be less than 1ms"), Some((2, 2))),
        ("FROM alpine\nHEALTHCHECK --retries=-1 CMD a", parse(2, "--retries cannot be negative (-1)"), Some((2, 2))),
        ("FROM alpine\nRUN --network=x a", parse(2, "invalid network mode \"x\""), Some((2, 2))),
        ("FROM alpine\nRUN --security=x a", parse(2, "security \"x\" is not valid"), Some((2, 2))),
        ("FROM alpine\nRUN --device=a.b/c=d,x=1 a", parse(2, "unexpected key 'x' in 'x=1'"), Some((2, 2))),
        ("FROM alpine\nRUN --mount=from=$x,target=/a b", parse(2, "'from' doesn't support variable expansion, define alias stage instead"), Some((2, 2))),
        // What is found later has no such prefix.
        ("FROM alpine\nENV a", "ENV must have two arguments".to_owned(), Some((2, 2))),
        ("FROM alpine\nRUN <<E", "unterminated heredoc".to_owned(), Some((2, 2))),
        ("FROM $none", "base name ($none) should not be blank".to_owned(), Some((1, 1))),
        ("FROM ALPINE", "failed to parse stage name \"ALPINE\": invalid reference format: repository name (library/ALPINE) must be lowercase".to_owned(), Some((1, 1))),
        ("FROM alpin", "alpin: failed to resolve source metadata for docker.io/library/alpin:latest: not found (did you mean alpine?)".to_owned(), Some((1, 1))),
        ("FROM --platform=$none alpine", "empty platform value from expression $none".to_owned(), Some((1, 1))),
        ("FROM --platform=x alpine", "failed to parse platform x: \"x\": unknown operating system or architecture: invalid argument".to_owned(), Some((1, 1))),
        ("FROM alpine\nEXPOSE x", "invalid containerPort: x".to_owned(), Some((2, 2))),
        ("FROM alpine\nSTOPSIGNAL x", "invalid signal: x".to_owned(), Some((2, 2))),
        ("FROM alpine\nVOLUME $none", "VOLUME specified can not be an empty string".to_owned(), Some((2, 2))),
        ("FROM alpine\nENV a=${b", "failed to process \"${b\": syntax error: missing '}'".to_owned(), Some((2, 2))),
        ("FROM alpine\nENV a=${b:?must}", "failed to process \"${b:?must}\": b: must".to_owned(), Some((2, 2))),
        ("FROM alpine\nCOPY --chmod=9 a b", "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777".to_owned(), Some((2, 2))),
        ("FROM alpine\nCOPY https://h/a b", "source can't be a URL for COPY".to_owned(), Some((2, 2))),
        ("FROM alpine\nCOPY https://h/a.git b", "source can't be a git ref for COPY".to_owned(), Some((2, 2))),
        ("FROM alpine\nADD --checksum=sha256:0 a b", "checksum requires HTTP(S) or Git sources".to_owned(), Some((2, 2))),
        ("FROM alpine\nADD --checksum=x https://h/a https://h/b c/", "checksum can't be specified for multiple sources".to_owned(), Some((2, 2))),
        ("FROM alpine\nRUN --mount=type=cach,target=/a b", "unsupported mount type \"cach\" (did you mean cache?)".to_owned(), Some((2, 2))),
        ("FROM alpine\nRUN --mount=target=/ b", "invalid mount target \"/\"".to_owned(), Some((2, 2))),
        ("FROM alpine\nCOPY --from=7 a b", "invalid stage index 7".to_owned(), Some((2, 2))),
        ("FROM alpine AS a\nCOPY --from=b x y\nFROM alpine AS b\nFROM a", "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"".to_owned(), Some((2, 2))),
        ("FROM alpine AS a\nRUN --mount=from=b,target=/x y\nFROM alpine AS b\nFROM a", "cannot mount from stage \"b\" to \"/x\", stage needs to be defined before current command".to_owned(), Some((2, 2))),
        ("FROM alpine AS a\nCOPY --from=a x y", "circular dependency detected on stage: a".to_owned(), Some((2, 2))),
        ("FROM alpine AS a\nCOPY --from=b x y\nFROM alpine AS b\nCOPY --from=a x y", "circular dependency detected on stage: a".to_owned(), Some((2, 2))),
        ("# syntax=me/mine:1\nFROM alpine", "syntax me/mine:1 is not supported: only docker/dockerfile is, which is built in".to_owned(), Some((1, 1))),
        ("# check=foo=1\nFROM alpine", "failed to parse check options: invalid check option \"foo\"".to_owned(), None),
    ] {
        assert_eq!(error(text), (message, lines), "{text:?}");
    }
}

#[test]
fn what_is_wrong_with_the_request_is_said() {
    for (key, value, message) in [
        ("target", "buld", "target stage \"buld\" could not be found (did you mean build?)"),
        ("target", "zzzzz", "target stage \"zzzzz\" could not be found"),
        (
            "platform",
            "a/b/c/d",
            "failed to parse target platform a/b/c/d: \"a/b/c/d\": cannot parse platform specifier: invalid argument",
        ),
        ("requestid", "frontend.other", "unsupported request frontend.other"),
        ("frontend.caps", "x.y", "unsupported frontend capability x.y"),
        ("filename", "Other", "failed to read dockerfile: open Other: no such file or directory"),
        (
            "build-arg:BUILDKIT_SYNTAX",
            "me/mine",
            "syntax me/mine is not supported: only docker/dockerfile is, which is built in",
        ),
        (
            "build-arg:SOURCE_DATE_EPOCH",
            "x",
            "invalid SOURCE_DATE_EPOCH: x: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        ("context:alpine", "nonsense", "invalid context specifier nonsense for alpine"),
        ("context:alpine", "ftp://x", "unsupported context source ftp for alpine"),
        ("context:alpine", "input:x", "invalid input x for alpine"),
        (
            "context:alpine",
            "oci-layout://x@sha256:bad",
            "could not parse oci-layout reference \"x@sha256:bad\": invalid reference format",
        ),
    ] {
        let error = Fake::new("FROM alpine AS build\nRUN a").with(key, value).error();
        assert_eq!(error.to_string(), message, "{key}={value}");
    }
}

#[test]
fn an_error_shows_its_line() {
    let error = Fake::new("FROM alpine\n\nRUN true\nRUM false\n").error();
    assert_eq!(
        excerpt(error.location().unwrap()),
        "Dockerfile:4\n--------------------\n   2 |     \n   3 |     RUN true\n   4 | >>> RUM false\n   5 |     \n\
         --------------------\n"
    );
}

#[test]
fn all_instructions_of_a_circle_are_shown() {
    let text = "FROM alpine AS a\nCOPY --from=c x y\nFROM alpine AS b\nCOPY --from=a x y\nFROM alpine AS c\nCOPY --from=b x y";
    let error = Fake::new(text).error();
    let mut lines: Vec<i32> =
        error.location().unwrap().ranges.iter().map(|range| range.start.unwrap().line).collect();
    lines.sort_unstable();
    assert_eq!(lines, [2, 4, 6]);
}
