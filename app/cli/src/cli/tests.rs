use proptest::prelude::*;

use super::*;
use crate::arguments;
use clap::FromArgMatches;

fn words(line: &str) -> Vec<String> {
    std::iter::once("skiff").chain(line.split_whitespace()).map(str::to_owned).collect()
}

fn parse(line: &str) -> Result<Cli, arguments::Refusal> {
    parse_words(words(line))
}

fn parse_words(words: Vec<String>) -> Result<Cli, arguments::Refusal> {
    let root = command();
    let words = arguments::normalise(&root, words);
    root.clone()
        .try_get_matches_from(&words)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| arguments::refusal(&root, &words, &error))
}

#[test]
fn clap_finds_no_fault_with_the_commands() {
    command().debug_assert();
}

#[test]
fn the_help_of_every_command_is_known() {
    fn walk(command: &Command, path: &str, out: &mut String) {
        let mut command = command.clone();
        let help = command.render_help();
        out.push_str(&format!("$ {path} --help\n{help}\n\n"));
        for sub in command.get_subcommands() {
            walk(sub, &format!("{path} {}", sub.get_name()), out);
        }
    }
    let mut out = String::new();
    walk(&command().term_width(100), "skiff", &mut out);
    let out: Vec<&str> = out.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("help", out.join("\n"));
}

#[test]
fn what_follows_the_image_is_the_container_s() {
    let Ok(Cli { command: Top::Container(container::Shared::Run(run)), .. }) =
        parse("run --rm -it --name=x busybox ls --rm -la --foo=true")
    else {
        panic!("the line is valid")
    };
    let text = format!("{run:?}");
    assert!(text.contains(r#"words: ["busybox", "ls", "--rm", "-la", "--foo=true"]"#), "{text}");
    assert!(
        text.contains("rm: true") && text.contains("tty: true") && text.contains("interactive: true"),
        "{text}"
    );
}

#[test]
fn flags_may_have_boolean_values_and_repeat() {
    let Ok(cli) = parse("run --rm=false -d=true --name a --name b -m 1g -m 2g --sig-proxy=false busybox")
    else {
        panic!("the line is valid")
    };
    let text = format!("{cli:?}");
    for part in
        ["rm: false", "detach: true", r#"name: Some("b")"#, "memory: Some(2147483648)", "sig_proxy: false"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn values_may_begin_with_a_hyphen() {
    assert!(parse("run --memory-swap -1 --pids-limit -1 -e -x busybox").is_ok());
    assert!(parse("ps -n -1").is_ok());
    assert!(parse("top web -ef").is_ok());
    assert!(parse("machine ssh -- ls -la").is_ok());
    assert!(parse("machine ssh ls -la").is_ok());
    assert!(parse("-H unix:///x run busybox -H").is_ok());
}

#[test]
fn mistakes_are_worded_like_docker_s() {
    for (line, text, code) in [
        (
            "ps --foo",
            "unknown flag: --foo\n\nUsage:  skiff ps [OPTIONS]\n\nRun 'skiff ps --help' for more information",
            125,
        ),
        (
            "ps -x",
            "unknown shorthand flag: 'x' in -x\n\nUsage:  skiff ps [OPTIONS]\n\nRun 'skiff ps --help' for more information",
            125,
        ),
        (
            "run",
            "skiff: 'skiff run' requires at least 1 argument\n\nUsage:  skiff run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'skiff run --help' for more information",
            1,
        ),
        (
            "ps a",
            "skiff: 'skiff ps' accepts no arguments\n\nUsage:  skiff ps [OPTIONS]\n\nRun 'skiff ps --help' for more information",
            1,
        ),
        (
            "tag a",
            "skiff: 'skiff tag' requires 2 arguments\n\nUsage:  skiff tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n\nRun 'skiff tag --help' for more information",
            1,
        ),
        (
            "rnu",
            "skiff: unknown command: skiff rnu\n\nDid you mean: run?\n\nRun 'skiff --help' for more information",
            1,
        ),
        (
            "container foo",
            "skiff: unknown command: skiff container foo\n\nRun 'skiff container --help' for more information",
            1,
        ),
        (
            "run --memory 1x busybox",
            "invalid argument \"1x\" for \"-m, --memory\" flag: invalid suffix: 'x'\n\nUsage:  skiff run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'skiff run --help' for more information",
            125,
        ),
        (
            "run --name",
            "flag needs an argument: --name\n\nUsage:  skiff run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'skiff run --help' for more information",
            125,
        ),
    ] {
        let refusal = parse(line).map(|_| ()).unwrap_err();
        assert_eq!((refusal.text.as_str(), refusal.code), (text, code), "{line}");
    }
}

#[test]
fn help_is_no_mistake() {
    for line in ["--help", "run --help", "container", "container ls --help", "--version"] {
        assert_eq!(parse(line).map(|_| ()).unwrap_err().code, 0, "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_words_are_parsed_or_refused(line in proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(vec![
                "run", "exec", "ps", "container", "ls", "image", "machine", "ssh", "--", "-", "-it", "-p", "-H", "--rm=true",
                "--rm=maybe", "-d=false", "--sig-proxy=x", "--mount", "-v", "a:b", "type=bind", "--format", "{{", "-n", "-1", "=", "--=",
                "-=", "ä", "--ä=1", "-äx", "",
            ]).prop_map(str::to_owned),
            "\\PC{0,8}",
        ], 0..8)) {
        let _ = parse_words(std::iter::once("skiff".to_owned()).chain(line).collect());
    }
}
