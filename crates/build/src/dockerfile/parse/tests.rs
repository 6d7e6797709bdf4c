use proptest::prelude::*;

use super::*;

fn shown(text: &str) -> String {
    match parse(text) {
        Ok(parsed) => parsed.nodes.iter().map(show).collect::<Vec<_>>().join("; "),
        Err(fault) => format!("ERR {} {:?}", fault.message, fault.lines.first().map(|l| (l.start, l.end))),
    }
}

fn show(node: &Node) -> String {
    let flags: String = node.flags.iter().map(|flag| format!(" {flag}")).collect();
    let heredocs: String = node.heredocs.iter().map(|h| format!(" <<{}:{:?}", h.name, h.content)).collect();
    format!("{}{flags} {}{heredocs}", node.keyword, arguments(&node.arguments))
}

fn arguments(arguments: &Arguments) -> String {
    match arguments {
        Arguments::None => "-".to_owned(),
        Arguments::Words(words) => format!("{words:?}"),
        Arguments::Json(words) => format!("json{words:?}"),
        Arguments::Pairs(pairs) => {
            let list: Vec<String> = pairs.iter().map(|p| format!("{}={}", p.key, p.value)).collect();
            format!("{{{}}}", list.join(", "))
        }
        Arguments::Typed(kind, rest) => format!("{kind}:{}", self::arguments(rest)),
        Arguments::Instruction(node) => format!("({})", show(node)),
    }
}

#[test]
fn lines_become_instructions() {
    for (text, expected) in [
        // Words, texts, JSON.
        ("FROM alpine", "FROM [\"alpine\"]"),
        ("from  alpine\tas  x ", "from [\"alpine\", \"as\", \"x\"]"),
        ("FROM --platform=linux/amd64 a AS b", "FROM --platform=linux/amd64 [\"a\", \"AS\", \"b\"]"),
        ("RUN echo a  b", "RUN [\"echo a  b\"]"),
        ("RUN [\"a\", \"b c\"]", "RUN json[\"a\", \"b c\"]"),
        ("RUN ['a']", "RUN [\"['a']\"]"),
        ("RUN [ -f x ] && y", "RUN [\"[ -f x ] && y\"]"),
        ("RUN", "RUN -"),
        ("CMD []", "CMD json[]"),
        ("COPY a b c/", "COPY [\"a\", \"b\", \"c/\"]"),
        ("COPY [\"a b\", \"c\"]", "COPY json[\"a b\", \"c\"]"),
        ("COPY --from=x --chown=1:2 a b", "COPY --from=x --chown=1:2 [\"a\", \"b\"]"),
        (
            "RUN --mount=type=cache,target=/a --network=none make",
            "RUN --mount=type=cache,target=/a --network=none [\"make\"]",
        ),
        ("ENV a=b c=\"d e\"", "ENV {a=b, c=\"d e\"}"),
        ("ENV a b c", "ENV {a=b c}"),
        ("ENV a=b\\ c d='e f'", "ENV {a=b\\ c, d='e f'}"),
        ("LABEL \"a b\"=c", "LABEL {\"a b\"=c}"),
        ("ARG a=1 b c=\"x y\"", "ARG [\"a=1\", \"b\", \"c=\\\"x y\\\"\"]"),
        ("EXPOSE 80 443/udp", "EXPOSE [\"80\", \"443/udp\"]"),
        ("HEALTHCHECK NONE", "HEALTHCHECK NONE:-"),
        ("HEALTHCHECK --interval=5s CMD curl x", "HEALTHCHECK --interval=5s CMD:[\"curl x\"]"),
        ("HEALTHCHECK CMD [\"a\"]", "HEALTHCHECK CMD:json[\"a\"]"),
        ("ONBUILD RUN a", "ONBUILD (RUN [\"a\"])"),
        ("ONBUILD COPY --from=x a b", "ONBUILD (COPY --from=x [\"a\", \"b\"])"),
        ("ONBUILD", "ONBUILD -"),
        ("ONBUILD ONBUILD RUN a", "ONBUILD (ONBUILD -)"),
        ("WORKDIR /a b", "WORKDIR [\"/a b\"]"),
        ("USER a", "USER [\"a\"]"),
        ("VOLUME /a /b", "VOLUME [\"/a\", \"/b\"]"),
        ("VOLUME [\"/a\"]", "VOLUME json[\"/a\"]"),
        ("NOTHING a b", "NOTHING -"),
        ("MAINTAINER a <b@c>", "MAINTAINER [\"a <b@c>\"]"),
        // Comments, blanks, continuations.
        ("\u{feff}FROM a", "FROM [\"a\"]"),
        ("# c\n\n  FROM a\n#d\nRUN b", "FROM [\"a\"]; RUN [\"b\"]"),
        ("RUN a \\\n  b", "RUN [\"a   b\"]"),
        ("RUN a \\  \nb", "RUN [\"a b\"]"),
        ("RUN a \\\n# c\nb", "RUN [\"a b\"]"),
        ("RUN a \\\n\n\nb", "RUN [\"a b\"]"),
        ("RUN a \\\n  # c\n  b \\\n  c", "RUN [\"a   b   c\"]"),
        ("RUN a \\\\\nRUN b", "RUN [\"a \\\\\\\\\"]; RUN [\"b\"]"),
        ("RUN a \\", "RUN [\"a\"]"),
        ("RUN a # b", "RUN [\"a # b\"]"),
        ("FROM a\r\nRUN b\r\n", "FROM [\"a\"]; RUN [\"b\"]"),
        ("RUN a \\\r\nb\r\n", "RUN [\"a b\"]"),
        ("# escape=`\nRUN a `\nb\\\nRUN c", "RUN [\"a b\\\\\"]; RUN [\"c\"]"),
        ("# escape=\\\nRUN a", "RUN [\"a\"]"),
        ("# x\n# escape=`\nRUN a `", "RUN [\"a `\"]"),
        // Here-documents.
        ("RUN <<EOF\na\nb\nEOF\nRUN c", "RUN [\"<<EOF\"] <<EOF:\"a\\nb\\n\"; RUN [\"c\"]"),
        ("RUN <<-EOF\n\ta\n\tEOF", "RUN [\"<<-EOF\"] <<EOF:\"\\ta\\n\""),
        ("RUN <<EOF\na\n EOF\nEOF", "RUN [\"<<EOF\"] <<EOF:\"a\\n EOF\\n\""),
        ("RUN <<\"E F\"\na\nE F\n", "RUN [\"<<\\\"E F\\\"\"] <<E F:\"a\\n\""),
        ("COPY <<a <<b /x\n1\na\n2\nb", "COPY [\"<<a\", \"<<b\", \"/x\"] <<a:\"1\\n\" <<b:\"2\\n\""),
        ("RUN cat <<A > b\nx\nA", "RUN [\"cat <<A > b\"] <<A:\"x\\n\""),
        (
            "RUN <<EOF\n# no comment\nFROM x \\\nEOF",
            "RUN [\"<<EOF\"] <<EOF:\"# no comment\\nFROM x \\\\\\n\"",
        ),
        ("RUN <<EOF\r\na\r\nEOF\r\n", "RUN [\"<<EOF\"] <<EOF:\"a\\r\\n\""),
        ("ONBUILD RUN <<EOF\na\nEOF", "ONBUILD (RUN [\"<<EOF\"]) <<EOF:\"a\\n\""),
        ("RUN [\"<<EOF\"]\nRUN b", "RUN json[\"<<EOF\"]; RUN [\"b\"]"),
        ("CMD <<EOF\nRUN a", "CMD [\"<<EOF\"]; RUN [\"a\"]"),
        ("RUN echo \"<<EOF\"\nRUN b", "RUN [\"echo \\\"<<EOF\\\"\"]; RUN [\"b\"]"),
        ("RUN a <<<b\nRUN b", "RUN [\"a <<<b\"]; RUN [\"b\"]"),
        ("RUN <<EOF \\\n && x\na\nEOF", "RUN [\"<<EOF  && x\"] <<EOF:\"a\\n\""),
        // Errors.
        ("", "ERR file with no instructions Some((0, 0))"),
        ("# only\n\n", "ERR file with no instructions Some((2, 2))"),
        ("RUN <<EOF\na", "ERR unterminated heredoc Some((1, 2))"),
        ("FROM a\nENV b", "ERR ENV must have two arguments Some((2, 2))"),
        (
            "ENV a=b \\\n c",
            "ERR Syntax error - can't find = in \"c\". Must be of the form: name=value Some((1, 2))",
        ),
        ("# escape=x\nFROM a", "ERR invalid escape token 'x' does not match ` or \\ Some((1, 1))"),
        ("# escape=`\n# escape=`\n", "ERR only one escape parser directive can be used Some((2, 2))"),
        (
            "CMD [1]",
            "ERR when using JSON array syntax, arrays must be comprised of strings only Some((1, 1))",
        ),
    ] {
        assert_eq!(shown(text), expected, "{text:?}");
    }
}

#[test]
fn instructions_know_their_lines_and_comments() {
    let parsed =
        parse("# syntax=x\n# about a\nFROM a\n# old\n\n# b c\n# d\nRUN x \\\n y\nCOPY <<E /\nE\n").unwrap();
    let lines: Vec<(u32, u32)> = parsed.nodes.iter().map(|node| (node.lines.start, node.lines.end)).collect();
    assert_eq!(lines, [(3, 3), (8, 9), (10, 11)]);
    assert_eq!(parsed.nodes[0].comments, ["about a"]);
    assert_eq!(parsed.nodes[1].comments, ["b c", "d"]);
    assert!(parsed.nodes[2].comments.is_empty());
    assert_eq!(parse("RUN a \\\n\n b\nRUN c").unwrap().empty_continuations, [Lines::new(1, 3)]);
}

#[test]
fn long_lines_and_files_are_refused_and_many_lines_are_read() {
    let long = format!("FROM a\nRUN {}", "x".repeat(70_000));
    let fault = parse(&long).unwrap_err();
    assert_eq!(fault.message, "dockerfile line greater than max allowed size of 65535");
    assert_eq!(fault.lines, [Lines::new(2, 2)]);
    assert!(parse(&"RUN a\n".repeat(3 << 20)).unwrap_err().message.contains("larger than 16 MiB"));
    assert_eq!(parse(&"RUN a\n".repeat(1_000_000)).unwrap().nodes.len(), 1_000_000);
    assert_eq!(parse(&"RUN a \\\n".repeat(100_000)).unwrap().nodes.len(), 1);
    assert_eq!(parse(&format!("RUN <<E\n{}E", "x\n".repeat(100_000))).unwrap().nodes.len(), 1);
    assert!(parse(&"ONBUILD ".repeat(8_000)).is_ok());
    assert!(
        parse(&format!("COPY {} /", "<<a ".repeat(2_000))).unwrap_err().message.contains("here-documents")
    );
    assert!(parse(&format!("RUN {}", "--mount=a ".repeat(2_000))).unwrap_err().message.contains("flags"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_of_the_language_panics(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "FROM a", "RUN ", "<<EOF", "EOF", "\\", " ", "\n", "ENV a=", "\"", "'", "# escape=`", "`", "COPY ",
                "--from=x", "[\"a\"", "]", "ONBUILD ", "HEALTHCHECK ", "CMD", "\t", "\r\n", "-", "LABEL x y", "ARG",
            ]),
            0..40,
        ),
    ) {
        let _ = parse(&lines.concat());
        let _ = parse(&lines.join("\n"));
    }
}
