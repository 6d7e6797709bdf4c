//! Names of vertices, as BuildKit's progress shows them: `[build 2/4] RUN make`.

use skiff_images::Platform;

use super::stage::StageState;
use crate::dockerfile::expand::{Lex, Variables};

/// The name of a stage's next vertex.
pub fn prefixed(state: &mut StageState, text: &str, platform: Option<&Platform>, on_build: bool) -> String {
    if state.total == 0 {
        return text.to_owned();
    }
    state.index += 1;
    let width = state.total.to_string().len();
    let mut out = String::from("[");
    if let Some(platform) = platform {
        out.push_str(&format!("{platform}{} ", target(platform, &state.state.env)));
    }
    if !state.shown.is_empty() {
        out.push_str(&format!("{} ", state.shown));
    }
    out.push_str(&format!("{:width$}/{}] ", state.index, state.total));
    if on_build {
        out.push_str("ONBUILD ");
    }
    out + text
}

/// What a cross compilation is for: `->arm64`.
fn target(base: &Platform, env: &Variables) -> String {
    let wanted = match env.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok()) {
        Some(platform) => platform,
        None => {
            let part = |name: &str| env.get(name).unwrap_or_default();
            let (os, architecture) = (part("TARGETOS"), part("TARGETARCH"));
            if os.is_empty() && architecture.is_empty() {
                return String::new();
            }
            let or =
                |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
            Platform::normalise(
                &or(os, &base.os),
                &or(architecture, &base.architecture),
                part("TARGETVARIANT"),
            )
        }
    };
    if wanted.os != base.os {
        return format!("->{wanted}");
    }
    if wanted.architecture == base.architecture {
        return String::new();
    }
    match wanted.variant.as_str() {
        "" => format!("->{}", wanted.architecture),
        variant => format!("->{}/{variant}", wanted.architecture),
    }
}

/// An instruction with its keyword in capitals and its variables filled in.
pub fn shown(lex: Lex, code: &str, env: &Variables) -> String {
    let text = lex.expand(code, env).map_or_else(|_| code.to_owned(), |expanded| expanded.text);
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// The first line of a here-document.
pub fn summary(document: &str) -> String {
    let mut lines = document.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}
