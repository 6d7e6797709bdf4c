//! Answers that are no image: `frontend.outline`, `frontend.targets`, `frontend.lint`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::dockerfile::check::{Linter, Warning};
use crate::dockerfile::fault::{Fault, Lines, excerpt};
use crate::dockerfile::instruction::Stage;
use crate::dockerfile::lower::Converted;
use crate::error::Location;
use crate::graph::pb;

/// Keys of results' metadata.
const JSON: &str = "result.json";
const TEXT: &str = "result.txt";
const STATUS: &str = "result.statuscode";
const VERSION: &str = "version";

type Answer = BTreeMap<String, Vec<u8>>;

fn answer(value: &Value, text: String, version: &str) -> Answer {
    let json = serde_json::to_vec_pretty(value).expect("values always become JSON");
    BTreeMap::from([
        (JSON.to_owned(), json),
        (TEXT.to_owned(), text.into_bytes()),
        (VERSION.to_owned(), version.as_bytes().to_vec()),
    ])
}

fn base64(data: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(data)
}

fn place(lines: &[Lines]) -> Value {
    let ranges: Vec<Value> = lines
        .iter()
        .map(|lines| json!({"start": {"line": lines.start}, "end": {"line": lines.end}}))
        .collect();
    json!({ "ranges": ranges })
}

/// Leaves out what Go leaves out: empty texts and lists, `false`.
fn sparse(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !empty(value)).collect())
}

/// Aligns columns as Go's tabwriter does, three spaces between them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 == row.len() { 0 } else { widths[column] + 3 };
            let _ = write!(text, "{cell:width$}");
        }
        text.push('\n');
    }
    text
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// What a target takes from outside.
pub fn outline(converted: &Converted, source: &pb::SourceInfo) -> Answer {
    let outline = &converted.outline;
    let needs = &outline.needs;
    let mut arguments: Vec<_> = needs.used.iter().filter_map(|name| needs.all.get(name)).collect();
    arguments.sort_by_key(|info| (info.lines, info.argument.key.clone()));
    let named = |required: bool, name: &str, lines: Lines| {
        sparse(json!({"name": name, "required": required, "location": place(&[lines])}))
    };
    let value = sparse(json!({
        "name": outline.name,
        "description": outline.description,
        "args": arguments.iter().map(|info| sparse(json!({
            "name": info.argument.key,
            "description": info.argument.description,
            "value": info.value.clone().unwrap_or_default(),
            "location": place(&[info.lines]),
        }))).collect::<Vec<_>>(),
        "secrets": needs.secrets.iter().map(|(name, (required, lines))| named(*required, name, *lines)).collect::<Vec<_>>(),
        "ssh": needs.ssh.iter().map(|(name, (required, lines))| named(*required, name, *lines)).collect::<Vec<_>>(),
        "cache": needs.caches.iter().map(|(id, lines)| json!({"ID": id, "location": place(&[*lines])})).collect::<Vec<_>>(),
        "sources": [base64(&source.data)],
    }));
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![row(&["TARGET:", name])];
        if !outline.description.is_empty() {
            rows.push(row(&["DESCRIPTION:", &outline.description]));
        }
        text.push_str(&table(&rows));
        text.push('\n');
    }
    if !arguments.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        for info in &arguments {
            rows.push(row(&[
                &info.argument.key,
                info.value.as_deref().unwrap_or_default(),
                &info.argument.description,
            ]));
        }
        text.push_str(&table(&rows));
        text.push('\n');
    }
    for (title, list) in [("SECRET", &needs.secrets), ("SSH", &needs.ssh)] {
        if !list.is_empty() {
            let mut rows = vec![row(&[title, "REQUIRED"])];
            rows.extend(
                list.iter().map(|(name, (required, _))| row(&[name, if *required { "true" } else { "" }])),
            );
            text.push_str(&table(&rows));
            text.push('\n');
        }
    }
    if !needs.caches.is_empty() {
        let mut rows = vec![row(&["CACHE ID"])];
        rows.extend(needs.caches.keys().map(|id| row(&[id])));
        text.push_str(&table(&rows));
    }
    answer(&value, text, "1.0.0")
}

/// The stages that can be targets.
pub fn targets(stages: &[Stage], source: &pb::SourceInfo) -> Answer {
    let last = stages.len().saturating_sub(1);
    let list: Vec<Value> = stages
        .iter()
        .enumerate()
        .map(|(number, stage)| {
            sparse(json!({
                "name": stage.name,
                "default": number == last,
                "description": stage.description,
                "base": stage.base,
                "platform": stage.platform,
                "location": place(&[stage.lines]),
            }))
        })
        .collect();
    let value = json!({"targets": list, "sources": [base64(&source.data)]});
    let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
    for (number, stage) in stages.iter().enumerate() {
        let name = match (stage.name.as_str(), number == last) {
            ("", true) => "(default)".to_owned(),
            ("", false) => continue,
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(row(&[&name, &stage.description]));
    }
    answer(&value, table(&rows), "1.0.0")
}

/// What the build checks find, and how the file fails, when it does.
#[derive(Debug)]
pub struct LintReport<'a> {
    /// The findings.
    pub linter: &'a Linter,
    /// The failure.
    pub fault: Option<&'a Fault>,
}

/// The findings of the build checks.
pub fn lint(report: &LintReport<'_>, source: &pb::SourceInfo) -> Answer {
    let mut warnings: Vec<&Warning> = report.linter.warnings().iter().collect();
    warnings.sort_by_key(|warning| warning.lines);
    let list: Vec<Value> = warnings
        .iter()
        .map(|warning| {
            json!({
                "ruleName": warning.rule.name(),
                "description": warning.rule.description(),
                "url": warning.rule.url(),
                "detail": warning.message,
                "location": place(&[warning.lines]),
            })
        })
        .collect();
    let mut value = json!({
        "warnings": list,
        "sources": [{
            "filename": source.filename,
            "data": base64(&source.data),
            "language": source.language,
        }],
    });
    let mut text = String::new();
    for warning in &warnings {
        let location = Location { source: source.clone(), ranges: vec![warning.lines.range()] };
        let _ = write!(
            text,
            "\nWARNING: {} - {}\n{}\n{}",
            warning.rule.name(),
            warning.rule.url(),
            warning.message,
            excerpt(&location)
        );
    }
    if let Some(fault) = report.fault {
        value["buildError"] = json!({"message": fault.message, "location": place(&fault.lines)});
        let ranges = fault.lines.iter().map(|lines| lines.range()).collect();
        let location = Location { source: source.clone(), ranges };
        let _ = write!(text, "\nERROR: {}\n{}", fault.message, excerpt(&location));
    }
    let failed = report.fault.is_some() || !warnings.is_empty();
    let mut answer = answer(&value, text, "1.0.0");
    answer.insert(STATUS.to_owned(), if failed { b"1".to_vec() } else { b"0".to_vec() });
    answer
}

/// The requests that there are.
pub fn describe() -> Answer {
    let requests = [
        ("frontend.outline", "List all parameters current build target supports"),
        ("frontend.targets", "List all targets current build supports"),
        ("frontend.lint", "Lint a Dockerfile"),
        ("frontend.subrequests.describe", "List available subrequest types"),
    ];
    let list: Vec<Value> = requests
        .iter()
        .map(|(name, description)| {
            json!({
                "name": name,
                "version": "1.0.0",
                "type": "rpc",
                "description": description,
                "metadata": [{"name": JSON}, {"name": TEXT}],
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = std::iter::once(row(&["NAME", "VERSION", "DESCRIPTION"]))
        .chain(requests.iter().map(|(name, description)| row(&[name, "1.0.0", description])))
        .collect();
    answer(&Value::Array(list), table(&rows), "1.0.0")
}
