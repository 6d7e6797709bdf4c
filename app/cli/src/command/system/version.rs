//! `version`.

use clap::Args;

use crate::api::{Client, Query};
use crate::command::Context;
use crate::error::Error;
use crate::format::list::object;
use crate::format::value::Value;
use crate::terminal::{print, print_line};

/// Show the version information of client and engine
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff version [OPTIONS]")]
pub struct Version {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
}

fn own(api_version: &str) -> Value {
    let entry = |key: &str, value: &str| (key.to_owned(), Value::from(value));
    Value::Map(vec![
        entry("Version", env!("CARGO_PKG_VERSION")),
        entry("APIVersion", api_version),
        entry("DefaultAPIVersion", &Client::newest_api_version()),
        entry("Os", std::env::consts::OS),
        entry("Arch", architecture()),
    ])
}

/// Names the processor the way Go does, since Docker's clients compare with that.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Carries `version` out. What the client is, is told even when nobody answers.
pub async fn run(context: &Context, args: &Version) -> Result<(), Error> {
    let client = context.client().await;
    let (client_part, server) = match &client {
        Ok(client) => (own(client.api_version()), client.get("/version", &Query::new()).await.map(Some)),
        Err(_) => (own(&Client::newest_api_version()), Ok(None)),
    };
    let (server, failed) = match server {
        Ok(server) => (server, None),
        Err(error) => (None, Some(error)),
    };
    let failed = failed.or(client.err());
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        let both = Value::Map(vec![
            ("Client".to_owned(), client_part),
            ("Server".to_owned(), server.unwrap_or(Value::Null)),
        ]);
        let text = object(format, &both)?;
        print_line(text);
    } else {
        print(&describe(&client_part, server.as_ref()));
    }
    failed.map_or(Ok(()), Err)
}

fn describe(client: &Value, server: Option<&Value>) -> String {
    let mut out = String::from("Client: Skiff\n");
    field(&mut out, 1, "Version", client.text("Version"));
    field(&mut out, 1, "API version", client.text("APIVersion"));
    field(&mut out, 1, "OS/Arch", &format!("{}/{}", client.text("Os"), client.text("Arch")));
    let Some(server) = server else { return out };
    let platform = server.get("Platform").map_or("", |platform| platform.text("Name"));
    out.push_str(&format!("\nServer: {platform}\n"));
    let mut components: Vec<&Value> = server.list("Components").iter().collect();
    if components.is_empty() {
        components.push(server);
    }
    for component in components {
        let details = component.get("Details").unwrap_or(server);
        // What the component does not say of itself, the engine says of all.
        let text = |key: &str| match details.text(key) {
            "" => server.text(key),
            text => text,
        };
        let name = component.text("Name");
        let version = component.text("Version");
        let engine = name.is_empty() || name == "Engine";
        out.push_str(&format!(" {}:\n", if engine { "Engine" } else { name }));
        field(&mut out, 2, "Version", version);
        if !engine {
            continue;
        }
        let minimum = text("MinAPIVersion");
        let minimum =
            if minimum.is_empty() { String::new() } else { format!(" (minimum version {minimum})") };
        field(&mut out, 2, "API version", &format!("{}{minimum}", text("ApiVersion")));
        field(&mut out, 2, "OS/Arch", &format!("{}/{}", text("Os"), text("Arch")));
        field(&mut out, 2, "Kernel", text("KernelVersion"));
        field(&mut out, 2, "Git commit", text("GitCommit"));
        field(&mut out, 2, "Built", text("BuildTime"));
    }
    out
}

/// Adds `key: value`, the values in one column; an empty value adds nothing.
fn field(out: &mut String, indent: usize, key: &str, value: &str) {
    if !value.is_empty() {
        let name = format!("{:indent$}{key}:", "");
        out.push_str(&format!("{name:<20}{value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_server_are_described() {
        let server = Value::parse(
            br#"{"Platform":{"Name":"Skiff"},"Version":"0.1.0","ApiVersion":"1.51","MinAPIVersion":"1.24","Os":"linux",
            "Arch":"amd64","KernelVersion":"6.12"}"#,
        )
        .unwrap();
        let text = describe(&own("1.51"), Some(&server));
        assert!(
            text.starts_with("Client: Skiff\n Version:           0.1.0\n API version:       1.51\n"),
            "{text}"
        );
        assert!(
            text.contains("\nServer: Skiff\n Engine:\n  Version:          0.1.0\n  API version:      1.51 (minimum version 1.24)\n"),
            "{text}"
        );
    }
}
