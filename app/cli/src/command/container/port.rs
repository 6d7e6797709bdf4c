//! `port`, and the PORTS column.

use clap::Args;

use crate::api::Query;
use crate::command::{Context, name_in_path};
use crate::error::Error;
use crate::format::value::Value;
use crate::terminal::print_line;

/// List port mappings or a specific mapping for the container
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff port CONTAINER [PRIVATE_PORT[/PROTO]]")]
pub struct Port {
    /// Container
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
    /// Port of the container
    #[arg(value_name = "PRIVATE_PORT", hide = true)]
    port: Option<String>,
}

/// Carries `port` out.
pub async fn run(context: &Context, args: &Port) -> Result<(), Error> {
    let client = context.client().await?;
    let details =
        client.get(&format!("/containers/{}/json", name_in_path(&args.container)), &Query::new()).await?;
    let settings = details.get("NetworkSettings").unwrap_or(&Value::Null);
    let shown = |binding: &Value| {
        let ip = binding.text("HostIp");
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        format!("{ip}:{}", binding.text("HostPort"))
    };
    let bindings = |list: &Value| match list {
        Value::List(items) => items.clone(),
        _ => Vec::new(),
    };
    if let Some(port) = &args.port {
        let wanted = if port.contains('/') { port.to_ascii_lowercase() } else { format!("{port}/tcp") };
        let found =
            settings.entries("Ports").iter().find(|(key, _)| *key == wanted).map(|(_, list)| bindings(list));
        return match found {
            Some(list) if !list.is_empty() => {
                list.iter().for_each(|binding| print_line(shown(binding)));
                Ok(())
            }
            _ => {
                Err(Error::plain(format!("Error: No public port '{port}' published for {}", args.container)))
            }
        };
    }
    let mut lines = Vec::new();
    for (port, list) in settings.entries("Ports") {
        for binding in bindings(list) {
            let number: u32 = port.split('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            lines.push((number, format!("{port} -> {}", shown(&binding))));
        }
    }
    lines.sort();
    lines.iter().for_each(|(_, line)| print_line(line));
    Ok(())
}

/// Neighbouring ports with the same number inside and outside, or inside only.
struct Stretch {
    ip: String,
    protocol: String,
    first: i64,
    last: i64,
}

impl Stretch {
    fn text(&self) -> String {
        let range = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        match self.ip.as_str() {
            "" => format!("{range}/{}", self.protocol),
            ip => format!("{}{range}->{range}/{}", host(ip), self.protocol),
        }
    }
}

fn host(ip: &str) -> String {
    match ip {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    }
}

/// Words the ports of a container as Docker does: stretches of unpublished ports and of those published under their
/// own number first, then the others one by one.
pub fn summary(ports: &[Value]) -> String {
    let mut ports: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|port| (port.int("PrivatePort"), port.text("IP"), port.int("PublicPort"), port.text("Type")))
        .collect();
    ports.sort_unstable();
    let mut texts = Vec::new();
    let mut open: Vec<Stretch> = Vec::new();
    let mut mapped = Vec::new();
    for (private, ip, public, protocol) in ports {
        if public > 0 && public != private {
            mapped.push(format!("{}{public}->{private}/{protocol}", host(ip)));
            continue;
        }
        let ip = if public > 0 { ip } else { "" };
        let new = Stretch { ip: ip.to_owned(), protocol: protocol.to_owned(), first: private, last: private };
        match open.iter_mut().find(|stretch| stretch.ip == ip && stretch.protocol == protocol) {
            None => open.push(new),
            Some(stretch) if stretch.last + 1 == private || stretch.last == private => stretch.last = private,
            Some(stretch) => texts.push(std::mem::replace(stretch, new).text()),
        }
    }
    texts.extend(open.iter().map(Stretch::text));
    texts.extend(mapped);
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_are_one_stretch_and_mapped_ports_come_last() {
        let ports = Value::parse(
            br#"[{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":8001,"Type":"tcp"},
                 {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8000,"Type":"tcp"},
                 {"IP":"::","PrivatePort":70,"PublicPort":70,"Type":"tcp"},
                 {"IP":"::","PrivatePort":71,"PublicPort":71,"Type":"tcp"},
                 {"PrivatePort":90,"Type":"tcp"},{"PrivatePort":91,"Type":"tcp"},{"PrivatePort":95,"Type":"tcp"},
                 {"PrivatePort":91,"Type":"udp"}]"#,
        )
        .unwrap();
        let Value::List(ports) = ports else { panic!("it is a list") };
        assert_eq!(
            summary(&ports),
            "90-91/tcp, [::]:70-71->70-71/tcp, 95/tcp, 91/udp, 0.0.0.0:8000->80/tcp, 0.0.0.0:8001->81/tcp"
        );
        assert_eq!(summary(&[]), "");
    }
}
