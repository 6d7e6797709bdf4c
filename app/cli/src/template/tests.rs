use proptest::prelude::*;

use super::*;

fn data() -> Value {
    Value::parse(
        br#"{"Name":"/web","Id":"abc","Count":3,"Tags":["a","b"],"Labels":{"z":"1","a.b":"2"},
            "State":{"Running":true,"Health":null},"Empty":[],"Ports":[{"P":80},{"P":81}]}"#,
    )
    .unwrap()
}

fn render(template: &str) -> String {
    Template::parse(template).unwrap().execute(&data()).unwrap()
}

#[test]
fn templates_give_what_go_gives() {
    for (template, text) in [
        ("{{.Name}}", "/web"),
        ("{{ .Name }} x", "/web x"),
        ("a {{- .Name -}} b", "a/webb"),
        ("{{/* note */}}x", "x"),
        ("{{- /* note */ -}} x", "x"),
        ("{{.State.Running}}", "true"),
        ("{{.ID}}", "abc"),
        ("{{json .Tags}}", r#"["a","b"]"#),
        ("{{json .State}}", r#"{"Running":true,"Health":null}"#),
        ("{{.Tags}}", "[a b]"),
        ("{{.Labels}}", "map[a.b:2 z:1]"),
        ("{{.State.Health}}", "<no value>"),
        (r#"{{join .Tags ","}}"#, "a,b"),
        (r#"{{upper .Name}}{{lower "ABC"}}{{title "hello you"}}"#, "/WEBabcHello You"),
        (r#"{{index .Labels "a.b"}}"#, "2"),
        (r#"{{(index .Ports 1).P}}"#, "81"),
        ("{{len .Tags}}{{len .Name}}", "24"),
        ("{{range .Tags}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $t := .Tags}}{{$i}}={{$t}};{{end}}", "0=a;1=b;"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b=2;z=1;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Ports}}{{$.Name}}:{{.P}} {{end}}", "/web:80 /web:81 "),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Empty}}x{{else if eq .Count 3}}three{{else}}y{{end}}", "three"),
        ("{{with .State}}{{.Running}}{{end}}", "true"),
        ("{{$x := .Count}}{{$x}}", "3"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        (r#"{{if and .State.Running (eq .Name "/web")}}yes{{end}}"#, "yes"),
        (r#"{{if or .Empty (ne .Count 3)}}yes{{else}}no{{end}}"#, "no"),
        ("{{not .Empty}}{{lt 1 2}}{{ge 2 2}}{{gt 1.5 1}}", "truetruetruetrue"),
        (r#"{{.Name | upper | printf "%-6s|%5d|%q" "x"}}"#, "x     |%!d(string=/WEB)|%!q(MISSING)"),
        (r#"{{printf "%-6s|%05d|%q|%.2s|%v" "x" 42 "q" "abc" true}}"#, r#"x     |00042|"q"|ab|true"#),
        (r#"{{println "a" 1}}"#, "a 1\n"),
        (r#"{{print "a" 1 2}}"#, "a1 2"),
        ("{{slice .Name 1}}{{slice .Name 1 2}}", "webw"),
        (r#"{{range split "a/b/c" "/"}}{{.}} {{end}}"#, "a b c "),
        (r#"{{pad "x" 1 2}}|{{truncate "hello" 2}}"#, " x  |he"),
        ("{{`raw`}}{{\"a\\tb\"}}", "rawa\tb"),
        (r#"{{index .Labels "missing"}}"#, "<no value>"),
    ] {
        assert_eq!(render(template), text, "{template}");
    }
}

#[test]
fn errors_name_the_place() {
    let parse = |text: &str| Template::parse(text).unwrap_err().to_string();
    assert_eq!(parse("{{.Name"), "template parsing error: template: :1: unclosed action");
    assert_eq!(parse("\n{{foo}}"), "template parsing error: template: :2: function \"foo\" not defined");
    assert_eq!(parse("{{if .A}}"), "template parsing error: template: :1: unexpected EOF");
    assert_eq!(parse("{{end}}"), "template parsing error: template: :1: unexpected {{end}}");
    assert_eq!(parse("{{}}"), "template parsing error: template: :1: missing value for command");
    let execute = |text: &str| Template::parse(text).unwrap().execute(&data()).unwrap_err().to_string();
    assert_eq!(
        execute("{{.Foo}}"),
        "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
    );
    assert_eq!(
        execute("x\n{{.State.Health.Log}}"),
        "template: :2:2: executing \"\" at <.State.Health.Log>: nil pointer evaluating interface {}.Log"
    );
    assert_eq!(
        execute("{{index .Tags 9}}"),
        "template: :1:2: executing \"\" at <index>: error calling index: index out of range: 9"
    );
}

#[test]
fn methods_take_arguments_and_headers_stay_titles() {
    let template = Template::parse(r#"{{.Label "a"}} {{upper .Name}}"#).unwrap();
    let labels =
        |name: &str, args: &[Value]| (name == "Label").then(|| Value::from(format!("<{}>", args[0])));
    assert_eq!(template.execute_with(&data(), &labels).unwrap(), "<a> /WEB");
    let titles = Value::Map(vec![("Name".into(), "Names".into())]);
    assert_eq!(template.header(&titles).unwrap(), "a Names");
}

#[test]
fn a_lenient_template_shows_missing_keys_as_no_value() {
    let template = Template::parse("{{.Nope}} {{.Nope.More}} {{.Name}}").unwrap().lenient();
    assert_eq!(template.execute(&data()).unwrap(), "<no value> <no value> /web");
}

#[test]
fn deep_nesting_is_refused_not_a_stack_overflow() {
    assert!(Template::parse(&format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(Template::parse(&"{{if true}}".repeat(5000)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.execute(&data());
        }
    }

    #[test]
    fn any_mix_of_template_words_is_parsed_or_refused(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "{{", "}}", "{{-", "-}}", ".", ".Name", ".Tags", "$", "$x", ":=", "=", "|", "(", ")", "if", "range", "end",
            "else", "with", "json", "index", "slice", "printf", "len", "eq", "\"%5d%-3s\"", "1", "-2", "9999999999", "`", ",", " ",
            "\"", "ä", "/*", "*/",
        ]), 0..25)) {
        if let Ok(template) = Template::parse(&words.concat()) {
            let _ = template.execute(&data());
            let _ = template.header(&data());
        }
    }
}
