//! Nothing that a Dockerfile or an image says makes it endless or too large.

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::json;

use super::fake::Fake;

#[test]
fn many_lines_end() {
    for line in ["LABEL a=b", "ENV a=$a", "RUN a", "COPY a b", "EXPOSE 1-65535", "WORKDIR x", "CMD a", "# c"]
    {
        // Whether it is refused or built: it ends, and takes no more than is allowed.
        let _ = Fake::new(&format!("FROM alpine\n{}", format!("{line}\n").repeat(4_000))).plan();
    }
    let mut stages = String::new();
    for number in 0..100_000 {
        let _ = writeln!(stages, "FROM s{number} AS s{}", number + 1);
    }
    assert!(Fake::new(&stages).error().to_string().contains("more than 10000 stages"));
}

#[test]
fn values_do_not_grow_without_bound() {
    let doubling = format!("FROM alpine\nENV a=xxxxxxxx\n{}", "ENV a=$a$a\n".repeat(60));
    assert!(Fake::new(&doubling).error().to_string().contains("larger than"));
    let arguments = format!("ARG a=xxxxxxxx\n{}FROM alpine", "ARG a=$a$a\n".repeat(60));
    assert!(Fake::new(&arguments).error().to_string().contains("larger than"));
    let mut many = String::from("FROM alpine\n");
    for number in 0..20_000 {
        let _ = writeln!(many, "ENV v{number}={}", "x".repeat(400));
    }
    assert!(Fake::new(&many).error().to_string().contains("larger than"));
}

#[test]
fn images_can_not_make_a_build_endless() {
    let many: Vec<&str> = std::iter::repeat_n("RUN a", 2_000).collect();
    let error = Fake::new("FROM own").image("own", json!({"OnBuild": many})).error();
    assert_eq!(error.to_string(), "more than 1000 ONBUILD triggers");
    // Stages that hand their triggers down.
    let mut text = String::from("FROM alpine AS s0\nONBUILD RUN a\n");
    for number in 0..500 {
        let _ = writeln!(text, "FROM s{number} AS s{}\nONBUILD RUN a", number + 1);
    }
    assert!(Fake::new(&text).plan().is_ok());
    // A long chain of stages and sources needs no stack.
    let mut text = String::from("FROM alpine AS s0\n");
    for number in 0..5_000 {
        let _ = writeln!(text, "FROM scratch AS s{}\nCOPY --from=s{number} a b", number + 1);
    }
    assert!(Fake::new(&text).plan().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_dockerfile_panics(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "FROM alpine", " AS a", "\nFROM a", "\nFROM scratch", "\nRUN ", "x", "--mount=type=cache,target=/a ",
                "--mount=from=a,target=/b ", "--mount=type=secret,id=a,env=B ", "--mount=type=ssh ", "<<E", "\nE\n", "\\\n",
                "\nENV a=$a", "${a:-", "}", "${a#*", "${a//x/", "\"", "'", "\nCOPY --from=0 a b", "\nCOPY --from=a . .",
                "\nCOPY --link --chown=a:b --chmod=u+x a b", "\nADD https://h/x y", "\nADD https://h/x.git#a:b y", "\nARG a",
                "=1", "\nONBUILD RUN x", "\nHEALTHCHECK CMD a", "\nLABEL a=b", "\nWORKDIR $a", "\nUSER $a", "\nVOLUME [\"a\"]",
                "\nEXPOSE 1-9/udp", "\nCMD [\"a\"]", "\nENTRYPOINT a", "\nSHELL [\"a\"]", "\nSTOPSIGNAL 9", "\n", " ", "# check=error=1\n",
                "# escape=`\n", "`",
            ]),
            0..24,
        ),
    ) {
        let _ = Fake::new(&parts.concat()).plan();
        let _ = Fake::new(&format!("FROM alpine\n{}", parts.concat())).with("requestid", "frontend.outline").plan();
        let _ = Fake::new(&format!("FROM own\n{}", parts.concat()))
            .image("own", json!({"OnBuild": [parts.concat()]}))
            .with("requestid", "frontend.lint")
            .plan();
    }
}
