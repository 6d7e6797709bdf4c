//! Docker's display of JSON progress: a line per layer that is redrawn on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::Write;

use futures_util::{Stream, StreamExt};

use crate::error::Error;
use crate::format::units::size_precise;
use crate::format::value::Value;

/// Where progress is drawn.
#[derive(Debug)]
pub struct Display<W> {
    out: W,
    /// Columns of the terminal; none without a terminal.
    width: Option<u16>,
    /// Ids in the order of their lines.
    lines: Vec<String>,
}

impl<W: Write> Display<W> {
    /// Draws on `out`; `width` is the terminal's, none for plain lines.
    pub fn new(out: W, width: Option<u16>) -> Display<W> {
        Display { out, width, lines: Vec::new() }
    }

    /// Shows all messages; an `error` among them is the result.
    pub async fn show(
        mut self,
        mut messages: impl Stream<Item = Result<Value, Error>> + Unpin,
    ) -> Result<Vec<Value>, Error> {
        let mut aux = Vec::new();
        while let Some(message) = messages.next().await {
            let message = message?;
            if let Some(error) = message.at(&["errorDetail", "message"]).or(message.get("error")) {
                return Err(Error::plain(error.to_string()));
            }
            if let Some(value) = message.get("aux") {
                aux.push(value.clone());
                continue;
            }
            let text = self.message(&message);
            // Nobody reads any more: the work goes on all the same.
            let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        }
        Ok(aux)
    }

    fn message(&mut self, message: &Value) -> String {
        let mut out = String::new();
        let id = message.text("id");
        let progress = message.get("progressDetail").or(message.get("progress"));
        let bar = progress.map(|detail| bar(detail, self.width.unwrap_or(200))).unwrap_or_default();
        if self.width.is_none() {
            if bar.is_empty() {
                line(&mut out, id, message, "", "\n");
            }
            return out;
        }
        let mut up = 0;
        if !id.is_empty() && progress.is_some() {
            let place = self.lines.iter().position(|known| known == id).unwrap_or_else(|| {
                self.lines.push(id.to_owned());
                out.push('\n');
                self.lines.len() - 1
            });
            up = self.lines.len() - place;
            write!(out, "\x1b[{up}A").expect("writing to a string never fails");
        } else {
            self.lines.clear();
        }
        if message.get("stream").is_none() && progress.is_some() {
            out.push_str("\x1b[2K\r");
            line(&mut out, id, message, &bar, "\r");
        } else {
            line(&mut out, id, message, &bar, "\n");
        }
        if up > 0 {
            write!(out, "\x1b[{up}B").expect("writing to a string never fails");
        }
        out
    }
}

fn line(out: &mut String, id: &str, message: &Value, bar: &str, end: &str) {
    if let Some(stream) = message.get("stream") {
        write!(out, "{stream}").expect("writing to a string never fails");
        return;
    }
    if !id.is_empty() {
        out.push_str(id);
        out.push_str(": ");
    }
    out.push_str(message.text("status"));
    if !bar.is_empty() {
        out.push(' ');
        out.push_str(bar);
    }
    out.push_str(end);
}

fn bar(detail: &Value, width: u16) -> String {
    let (current, total) = (detail.int("current"), detail.int("total"));
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let done = size_precise(current);
    if total <= 0 || current > total {
        return format!("{done:>8}");
    }
    let mut text = String::new();
    if width > 110 {
        let half = ((current as f64 / total as f64 * 100.0) as usize / 2).min(50);
        write!(text, "[{}>{}] ", "=".repeat(half), " ".repeat(50 - half))
            .expect("writing to a string never fails");
    }
    write!(text, "{done:>8}/{}", size_precise(total)).expect("writing to a string never fails");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(width: Option<u16>, messages: &[&str]) -> String {
        let mut display = Display::new(Vec::new(), width);
        messages.iter().map(|text| display.message(&Value::parse(text.as_bytes()).unwrap())).collect()
    }

    const PULL: &[&str] = &[
        r#"{"status":"Pulling from library/x","id":"latest"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"a"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"b"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"a"}"#,
        r#"{"status":"Pull complete","progressDetail":{},"id":"a"}"#,
        r#"{"status":"Digest: sha256:0"}"#,
    ];

    #[test]
    fn without_a_terminal_there_are_lines_and_no_bars() {
        assert_eq!(
            shown(None, PULL),
            "latest: Pulling from library/x\na: Pulling fs layer\nb: Pulling fs layer\na: Pull complete\nDigest: sha256:0\n"
        );
    }

    #[test]
    fn on_a_terminal_every_layer_keeps_its_line() {
        let text = shown(Some(80), PULL);
        assert!(
            text.starts_with(
                "latest: Pulling from library/x\n\n\x1b[1A\x1b[2K\ra: Pulling fs layer\r\x1b[1B"
            )
        );
        assert!(text.contains("\x1b[2A\x1b[2K\ra: Downloading     500B/1kB\r\x1b[2B"));
        assert!(text.ends_with("Digest: sha256:0\n"));
        assert!(
            shown(Some(120), PULL)
                .contains("[=========================>                         ]     500B/1kB")
        );
    }

    #[tokio::test]
    async fn an_error_in_the_stream_is_the_result() {
        let message = Value::parse(br#"{"errorDetail":{"message":"no space"},"error":"no space"}"#).unwrap();
        let stream = futures_util::stream::iter([Ok(message)]);
        let error = Display::new(Vec::new(), None).show(stream).await.unwrap_err();
        assert_eq!(error.to_string(), "no space");
    }
}
