//! Build checks.

use super::fake::Fake;

fn told(text: &str) -> Vec<String> {
    let fake = Fake::new(text);
    fake.plan().unwrap();
    fake.told.into_inner().unwrap()
}

#[test]
fn each_rule_finds_what_it_is_for() {
    for (text, expected) in [
        ("FROM alpine\nRUN a", &[][..]),
        (
            "FROM alpine AS Build\nRUN a",
            &["StageNameCasing: Stage name 'Build' should be lowercase (line 1)"],
        ),
        (
            "FROM alpine as build\nRUN a",
            &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
        ),
        ("FROM alpine\nRUN a \\\n\n b", &["NoEmptyContinuation: Empty continuation line (line 4)"]),
        (
            "FROM alpine\nRUN a\nrun b",
            &[
                "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
            ],
        ),
        (
            "from alpine\nrun a\nRun b",
            &[
                "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (lowercase) (line 3)",
            ],
        ),
        (
            "FROM alpine AS a\nFROM alpine AS a",
            &["DuplicateStageName: Duplicate stage name \"a\", stage names should be unique (line 2)"],
        ),
        (
            "FROM alpine AS scratch\nRUN a",
            &[
                "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
            ],
        ),
        (
            "FROM alpine\nCMD a",
            &[
                "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
            ],
        ),
        ("FROM alpine\nSHELL [\"x\"]\nCMD a", &[]),
        (
            "FROM alpine\nMAINTAINER a",
            &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
        ),
        (
            "ARG version=1\nFROM alpine${vesion}",
            &["UndefinedArgInFrom: FROM argument 'vesion' is not declared (did you mean version?) (line 2)"],
        ),
        (
            "FROM alpine\nWORKDIR a\nWORKDIR b",
            &[
                "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 2)",
            ],
        ),
        ("FROM alpine\nWORKDIR /a\nWORKDIR b", &[]),
        ("FROM alpine\nCOPY $foo /x", &["UndefinedVar: Usage of undefined variable '$foo' (line 2)"]),
        (
            "FROM alpine\nENV food=1\nCOPY $foo /x",
            &["UndefinedVar: Usage of undefined variable '$foo' (did you mean $food?) (line 3)"],
        ),
        ("FROM alpine\nARG foo\nCOPY $foo ${x:-y} /x", &[]),
        (
            "FROM alpine\nCMD [\"a\"]\nCMD [\"b\"]",
            &[
                "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
            ],
        ),
        (
            "FROM alpine\nENV a b",
            &[
                "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            ],
        ),
        (
            "FROM --platform=linux/arm64 alpine\nRUN a",
            &[
                "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\" (line 1)",
                "InvalidBaseImagePlatform: Base image alpine was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build (line 1)",
            ],
        ),
        ("FROM --platform=linux/amd64 alpine AS build-amd64\nRUN a", &[]),
        (
            "FROM --platform=$TARGETPLATFORM alpine\nRUN a",
            &[
                "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
            ],
        ),
        ("FROM --platform=$BUILDPLATFORM alpine\nRUN a", &[]),
        (
            "FROM alpine\nENV DB_PASSWORD=x API_TOKEN=y MONKEY=z",
            &[
                "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"DB_PASSWORD\") (line 2)",
                "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"API_TOKEN\") (line 2)",
            ],
        ),
        (
            "FROM alpine\nARG secret\nARG PUBLIC_KEY",
            &[
                "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"secret\") (line 2)",
            ],
        ),
        (
            "FROM alpine\nEXPOSE 80/TCP",
            &[
                "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
            ],
        ),
        (
            "FROM alpine\nEXPOSE 127.0.0.1:80:80",
            &[
                "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)",
            ],
        ),
        ("# check=skip=JSONArgsRecommended\nFROM alpine\nCMD a\nENTRYPOINT b", &[]),
        ("# check=skip=all\nFROM alpine as a\nCMD a", &[]),
        (
            "# check=experimental=InvalidDefinitionDescription\n# nothing\nFROM alpine AS base\nRUN a",
            &[
                "InvalidDefinitionDescription: Comment for FROM should follow the format: `# base <description>` (line 3)",
            ],
        ),
        ("# check=experimental=all\n# base is the base\nFROM alpine AS base\n# a is a\nARG a\nRUN x", &[]),
    ] {
        assert_eq!(told(text), expected, "{text:?}");
    }
}

#[test]
fn a_default_that_makes_no_name_is_found() {
    let fake = Fake::new("ARG TAG\nFROM alpine:$TAG\nRUN a").with("build-arg:TAG", "latest");
    fake.plan().unwrap();
    assert_eq!(
        *fake.told.lock().unwrap(),
        [
            "InvalidDefaultArgInFrom: Default value for ARG alpine:$TAG results in empty or invalid base image name (line 2)"
        ]
    );
}

#[test]
fn an_ignored_file_that_is_copied_is_found() {
    let text = "# check=experimental=CopyIgnoredFile\nFROM alpine\nCOPY secret.txt ok /x/\nADD a/b.md /\nCOPY --from=busybox secret.txt /";
    let fake = Fake::new(text).file("context", ".dockerignore", "secret*\n**/*.md\n");
    fake.plan().unwrap();
    assert_eq!(
        *fake.told.lock().unwrap(),
        [
            "CopyIgnoredFile: Attempting to Copy file \"secret.txt\" that is excluded by .dockerignore (line 3)",
            "CopyIgnoredFile: Attempting to Add file \"a/b.md\" that is excluded by .dockerignore (line 4)",
        ]
    );
}

#[test]
fn findings_can_be_errors() {
    let fake = Fake::new("# check=error=true\nFROM alpine as a\nCMD a");
    assert_eq!(fake.error().to_string(), "lint violation found for rules: FromAsCasing, JSONArgsRecommended");
    assert_eq!(fake.told.lock().unwrap().len(), 2, "they are told all the same");
    // The client's choice counts more than the file's.
    let fake = fake.with("build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip=all");
    assert!(fake.plan().is_ok());
}
