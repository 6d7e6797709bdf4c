//! JSON with new indentation: the order of its keys and the way its numbers are written stay.

/// Indents a document as Go does.
pub fn indent(json: &str, step: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut characters = json.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                out.push('"');
                while let Some(inner) = characters.next() {
                    out.push(inner);
                    match inner {
                        '\\' => out.extend(characters.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth, step);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth, step);
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth, step);
            }
            ':' => out.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize, step: &str) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(step);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_look_like_those_of_go() {
        let given = r#"{"z": 1, "a" :[ ], "b":{"c":[true,"x:,{\"}"]},"e":{}}"#;
        let wanted = "{\n\t\"z\": 1,\n\t\"a\": [],\n\t\"b\": {\n\t\t\"c\": [\n\t\t\ttrue,\n\t\t\t\"x:,{\\\"}\"\n\t\t]\n\t},\n\t\"e\": {}\n}";
        assert_eq!(indent(given, "\t"), wanted);
        assert_eq!(indent(wanted, "\t"), wanted);
    }

    proptest! {
        #[test]
        fn any_text_is_indented_without_panic(text in ".{0,200}") {
            indent(&text, " ");
        }

        #[test]
        fn a_document_stays_the_same(text in "[a-z\"\\\\:,{}\\[\\] ]{0,40}", number in any::<i64>()) {
            let document = serde_json::json!({"text": text, "list": [number, {}, []], "": {"x": null}});
            let indented = indent(&document.to_string(), "  ");
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indented).unwrap(), document);
        }
    }
}
