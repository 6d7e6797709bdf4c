use proptest::prelude::*;

use super::*;

fn variables() -> Variables {
    let mut variables = Variables::default();
    for (name, value) in [
        ("foo", "bar"),
        ("empty", ""),
        ("path", "/usr/local/lib/a.tar.gz"),
        ("words", "a  b c"),
        ("_x1", "under"),
        ("star", "a*b"),
        ("ab", "abcabc"),
        ("uni", "für"),
    ] {
        variables.set(name, value).unwrap();
    }
    variables
}

#[test]
fn words_expand_as_the_shell_does_it() {
    let variables = variables();
    for (word, expected) in [
        // Plain text, quotes, escapes.
        ("hello", "hello"),
        ("", ""),
        ("he'll'o", "hello"),
        ("he'll", "ERR unexpected end of statement while looking for matching single-quote"),
        ("he\\'llo", "he'llo"),
        ("he\\\\'llo'", "he\\llo"),
        ("abc\\tdef", "abctdef"),
        ("'abc\\tdef'", "abc\\tdef"),
        ("\"abc\\tdef\"", "abc\\tdef"),
        ("\"abc", "ERR unexpected end of statement while looking for matching double-quote"),
        ("\"a\\\"b\"", "a\"b"),
        ("\"a\\$b\"", "a$b"),
        ("\"a\\\\b\"", "a\\b"),
        ("\"it's\"", "it's"),
        ("'say \"x\"'", "say \"x\""),
        ("he\\", "he"),
        ("\"\"", ""),
        ("''", ""),
        ("a b  c", "a b  c"),
        ("\\$foo", "$foo"),
        ("'$foo'", "$foo"),
        ("\"$foo\"", "bar"),
        ("'\\''", "ERR unexpected end of statement while looking for matching single-quote"),
        ("€$foo€", "€bar€"),
        ("$uni", "für"),
        // Names.
        ("$foo", "bar"),
        ("$foo.x", "bar.x"),
        ("$foox", ""),
        ("${foo}x", "barx"),
        ("$_x1", "under"),
        ("a$", "a$"),
        ("a$ b", "a$ b"),
        ("$$", ""),
        ("$.", "$."),
        ("$1", ""),
        ("$12a", "a"),
        ("$@x", "x"),
        ("${@}x", "x"),
        ("$?x", "x"),
        ("$#", ""),
        ("$none", ""),
        ("a${none}b", "ab"),
        ("$foo$foo", "barbar"),
        ("${foo}${foo}", "barbar"),
        // Braces.
        ("${", "ERR syntax error: missing '}'"),
        ("${foo", "ERR syntax error: missing '}'"),
        ("${}", "ERR syntax error: bad substitution"),
        ("${{foo}}", "ERR syntax error: bad substitution"),
        ("${:foo}", "ERR syntax error: bad substitution"),
        ("${foo bar}", "ERR unsupported modifier ( ) in substitution"),
        ("${foo:}", "ERR unsupported modifier (:}) in substitution"),
        ("${foo:x}", "ERR unsupported modifier (:x) in substitution"),
        ("${foo:#x}", "ERR unsupported modifier (:#) in substitution"),
        ("${foo:%x}", "ERR unsupported modifier (:%) in substitution"),
        ("${foo:", "ERR syntax error: missing '}'"),
        ("${foo:-", "ERR syntax error: missing '}'"),
        ("${foo^^}", "ERR unsupported modifier (^) in substitution"),
        // Instead of unset.
        ("${foo:-x}", "bar"),
        ("${foo-x}", "bar"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${none:-x}", "x"),
        ("${none-x}", "x"),
        ("${none:-}", ""),
        ("${none:-$foo}", "bar"),
        ("${none:-${foo}}", "bar"),
        ("${none:-${nothing:-${foo}}}", "bar"),
        ("${none:-'a b'}", "a b"),
        ("${none:-\"$foo b\"}", "bar b"),
        ("${none:-a\\}b}", "a}b"),
        ("\"${none:-a b}\"", "a b"),
        // Instead of set.
        ("${foo:+x}", "x"),
        ("${foo+x}", "x"),
        ("${empty:+x}", ""),
        ("${empty+x}", "x"),
        ("${none:+x}", ""),
        ("${none+x}", ""),
        ("${foo:+$path}", "/usr/local/lib/a.tar.gz"),
        // Must be set.
        ("${foo:?no}", "bar"),
        ("${foo?no}", "bar"),
        ("${empty?no}", ""),
        ("${empty:?no}", "ERR empty: no"),
        ("${empty:?}", "ERR empty: is not allowed to be empty"),
        ("${none:?}", "ERR none: is not allowed to be unset"),
        ("${none?}", "ERR none: is not allowed to be unset"),
        ("${none?set $foo}", "ERR none: set bar"),
        // Cut at the beginning.
        ("${path#/}", "usr/local/lib/a.tar.gz"),
        ("${path#*/}", "usr/local/lib/a.tar.gz"),
        ("${path##*/}", "a.tar.gz"),
        ("${path#*.}", "tar.gz"),
        ("${path##*.}", "gz"),
        ("${path#x}", "/usr/local/lib/a.tar.gz"),
        ("${path#????}", "/local/lib/a.tar.gz"),
        ("${path#/u*l}", "ocal/lib/a.tar.gz"),
        ("${path##/u*l}", "ib/a.tar.gz"),
        ("${star#a\\*}", "b"),
        ("${star#a*}", "*b"),
        ("${star##a*}", ""),
        ("${none#x}", ""),
        ("${foo#}", "bar"),
        // Cut at the end.
        ("${path%.gz}", "/usr/local/lib/a.tar"),
        ("${path%.*}", "/usr/local/lib/a.tar"),
        ("${path%%.*}", "/usr/local/lib/a"),
        ("${path%/*}", "/usr/local/lib"),
        ("${path%%/*}", ""),
        ("${path%x}", "/usr/local/lib/a.tar.gz"),
        ("${uni%r}", "fü"),
        ("${star%\\*b}", "a"),
        ("${none%%x}", ""),
        // Replace.
        ("${ab/b/X}", "aXcabc"),
        ("${ab//b/X}", "aXcaXc"),
        ("${ab/b/}", "acabc"),
        ("${ab//[b]/X}", "abcabc"),
        ("${ab/*/X}", "X"),
        ("${ab//?c/X}", "aXaX"),
        ("${ab/b/$foo}", "abarcabc"),
        ("${ab/b/\\$1}", "a$1cabc"),
        ("${path//\\//-}", "-usr-local-lib-a.tar.gz"),
        ("${none/a/b}", ""),
        ("${ab/b", "ERR syntax error: missing '}'"),
        ("${ab/b/", "ERR syntax error: missing '}'"),
    ] {
        let found = match Lex::new('\\').expand(word, &variables) {
            Ok(expanded) => expanded.text,
            Err(fault) => {
                format!("ERR {}", fault.message.trim_start_matches(&format!("failed to process {word:?}: ")))
            }
        };
        assert_eq!(found, expected, "{word}");
    }
}

#[test]
fn values_are_split_where_they_are_not_quoted() {
    let variables = variables();
    for (word, expected) in [
        ("a b", vec!["a", "b"]),
        ("  a  ", vec!["a"]),
        ("$words", vec!["a", "b", "c"]),
        ("x$words", vec!["xa", "b", "c"]),
        ("\"$words\"", vec!["a  b c"]),
        ("'$words'", vec!["$words"]),
        ("a\\ b", vec!["a b"]),
        ("$none", vec![]),
        ("$none x", vec!["x"]),
        ("80 $foo", vec!["80", "bar"]),
        ("", vec![]),
    ] {
        assert_eq!(Lex::new('\\').expand(word, &variables).unwrap().words, expected, "{word}");
    }
}

#[test]
fn another_escape_makes_the_backslash_a_letter() {
    let variables = variables();
    for (word, expected) in [("a\\b", "a\\b"), ("`$foo", "$foo"), ("\"`\"\"", "\""), ("c:\\$foo", "c:\\bar")]
    {
        assert_eq!(Lex::new('`').expand(word, &variables).unwrap().text, expected, "{word}");
    }
}

#[test]
fn what_is_shown_keeps_quotes_and_unset_variables() {
    let variables = variables();
    let lex = Lex::new('\\').raw_quotes().skip_unset();
    for (word, expected) in [
        ("RUN echo \"$foo\" '$foo' $none", "RUN echo \"bar\" '$foo' $none"),
        ("${none}", "${none}"),
        ("${none:-x}", "${none:-x}"),
        ("${none:+x}", "${none:+x}"),
        ("${none#x}", "${none#x}"),
        ("${none%%x}", "${none%%x}"),
        ("${none//a/b}", "${none//a/b}"),
        ("${none/a/b}", "${none/a/b}"),
    ] {
        assert_eq!(lex.expand(word, &variables).unwrap().text, expected, "{word}");
    }
    let raw = lex.raw_escapes();
    assert_eq!(raw.expand("a\\ b", &variables).unwrap().words, ["a\\ b"]);
    assert_eq!(
        Lex::new('\\').plain_quotes().expand("it's \"$foo\"", &variables).unwrap().text,
        "it's \"bar\""
    );
}

#[test]
fn names_that_are_set_and_that_are_not_are_told() {
    let variables = variables();
    let expanded =
        Lex::new('\\').expand("$foo ${none} ${other:-x} ${path##*/} ${gone%x}", &variables).unwrap();
    assert_eq!(expanded.found.into_iter().collect::<Vec<_>>(), ["foo", "path"]);
    assert_eq!(expanded.missing.into_iter().collect::<Vec<_>>(), ["gone", "none"]);
}

#[test]
fn expansions_are_bounded() {
    let mut variables = Variables::default();
    let mut grown = false;
    variables.set("a", "x".repeat(1000)).unwrap();
    for _ in 0..40 {
        let Ok(expanded) = Lex::new('\\').expand("$a$a", &variables) else { break };
        if variables.set("a", expanded.text).is_err() {
            grown = true;
            break;
        }
    }
    assert!(grown, "doubling went on for ever");
    assert!(Lex::new('\\').expand(&"$a".repeat(10_000), &variables).is_err());
    assert!(Lex::new('\\').expand(&"${a:-".repeat(10_000), &Variables::default()).is_err());
    assert!(Lex::new('\\').expand("${a//?/$a}", &variables).is_err());
}

proptest! {
    #[test]
    fn no_word_panics(word in "[a-z$:{}/#%*?\\\\'\" +\\-`<]{0,40}", escape in prop::sample::select(vec!['\\', '`'])) {
        let mut variables = Variables::default();
        variables.set("a", "x/y z").unwrap();
        for lex in [
            Lex::new(escape),
            Lex::new(escape).raw_quotes().skip_unset(),
            Lex::new(escape).raw_quotes().raw_escapes().skip_unset(),
            Lex::new(escape).plain_quotes(),
        ] {
            let _ = lex.expand(&word, &variables);
        }
    }

    #[test]
    fn text_without_special_letters_is_itself(word in "[a-zA-Z0-9 ./=,-]{0,60}") {
        prop_assert_eq!(Lex::new('\\').expand(&word, &Variables::default()).unwrap().text, word);
    }
}
