//! What people see instead of a container's page.

use hyper::StatusCode;

use super::{NoTarget, PORT_LABEL};
use crate::containers::printable;

/// Names that are listed on a page.
const MOST_NAMES: usize = 100;

/// The status and the page for a name behind which nobody is.
pub(super) fn of(error: &NoTarget, host: &str, suffix: &str) -> (StatusCode, String) {
    let host = escape(&printable(host));
    match error {
        NoTarget::NotAName => page(
            StatusCode::NOT_FOUND,
            "No container is meant",
            &format!("{host} is not below localhost. Containers are at http://CONTAINER.localhost{suffix}."),
            "",
        ),
        NoTarget::Stopped => page(
            StatusCode::SERVICE_UNAVAILABLE,
            "The machine is stopped",
            "No container runs. Start one, or the machine with <code>skiff machine start</code>.",
            "",
        ),
        NoTarget::Unknown { known } => {
            let links: String = known
                .iter()
                .take(MOST_NAMES)
                .map(|name| escape(name))
                .map(|name| format!("<li><a href=\"//{name}{suffix}/\">{name}</a></li>"))
                .collect();
            let list = match links.as_str() {
                "" => "<p>No container runs.</p>".to_owned(),
                links => format!("<p>These names lead somewhere:</p><ul>{links}</ul>"),
            };
            page(
                StatusCode::NOT_FOUND,
                "No container has this name",
                &format!("Nothing that runs is called {host}."),
                &list,
            )
        }
        NoTarget::Paused { container } => {
            let name = escape(&printable(container));
            page(
                StatusCode::SERVICE_UNAVAILABLE,
                "The container is paused",
                &format!(
                    "Container {name} stands still. Let it go on with <code>skiff unpause {name}</code>."
                ),
                "",
            )
        }
        NoTarget::NoPort { container } => {
            let name = escape(&printable(container));
            page(
                StatusCode::BAD_GATEWAY,
                "No port speaks HTTP",
                &format!("Container {name} runs, but listens on no port that answers in HTTP."),
                &format!(
                    "<p>Is it still starting, or does it listen on 127.0.0.1 only? A port can be named by the label \
                     <code>{PORT_LABEL}</code>.</p>"
                ),
            )
        }
        NoTarget::Dial { container, port, reason } => {
            let name = escape(&printable(container));
            page(
                StatusCode::BAD_GATEWAY,
                "The container does not answer",
                &format!("Container {name} was asked on port {port}: {}.", escape(&printable(reason))),
                &format!("<p>See what it does with <code>skiff logs {name}</code>.</p>"),
            )
        }
        NoTarget::Engine(reason) => page(
            StatusCode::BAD_GATEWAY,
            "The engine does not answer",
            &format!("{}.", escape(&printable(reason))),
            "<p>See <code>skiff machine logs --daemon</code>.</p>",
        ),
    }
}

fn page(status: StatusCode, title: &str, text: &str, more: &str) -> (StatusCode, String) {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;\
         margin:4em auto;padding:0 1em}}code{{background:#8882;padding:.1em .3em}}:root{{color-scheme:light dark}}</style>\
         <h1>{title}</h1><p>{text}</p>{more}<p><small>Skiff</small></p>\n"
    );
    (status, page)
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_say_what_is_wrong_and_what_there_is() {
        let error = NoTarget::Unknown { known: vec!["web.localhost".into()] };
        let (status, text) = of(&error, "wep.localhost", ":8080");
        assert_eq!(status, 404);
        assert!(text.contains("Nothing that runs is called wep.localhost."), "{text}");
        assert!(text.contains("<a href=\"//web.localhost:8080/\">web.localhost</a>"), "{text}");
        let error = NoTarget::Dial { container: "web".into(), port: 80, reason: "connection refused".into() };
        let (status, text) = of(&error, "web.localhost", "");
        assert_eq!(status, 502);
        assert!(text.contains("Container web was asked on port 80: connection refused."), "{text}");
        assert_eq!(of(&NoTarget::Stopped, "", "").0, 503);
        let (status, text) = of(&NoTarget::Paused { container: "web".into() }, "web.localhost", "");
        assert_eq!(status, 503);
        assert!(text.contains("skiff unpause web"), "{text}");
    }

    #[test]
    fn what_others_say_is_no_markup() {
        let error = NoTarget::Unknown { known: vec!["<img>.localhost".into()] };
        let (_, text) = of(&error, "<script>alert('x')</script>.localhost", "");
        assert!(!text.contains("<script>") && !text.contains("<img>"), "{text}");
    }
}
