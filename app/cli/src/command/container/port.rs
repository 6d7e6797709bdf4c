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
            _ => Err(Error::plain(format!("no public port '{port}' published for {}", args.container))),
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

/// One stretch of neighbouring ports.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    ip: String,
    protocol: String,
    private: (i64, i64),
    public: Option<(i64, i64)>,
}

/// Words the ports of a container: `0.0.0.0:8000-8001->80-81/tcp, 90/tcp`.
pub fn summary(ports: &[Value]) -> String {
    let mut all: Vec<Stretch> = ports
        .iter()
        .map(|port| {
            let public = port.int("PublicPort");
            Stretch {
                ip: port.text("IP").to_owned(),
                protocol: port.text("Type").to_owned(),
                private: (port.int("PrivatePort"), port.int("PrivatePort")),
                public: (public > 0).then_some((public, public)),
            }
        })
        .collect();
    all.sort_by(|a, b| {
        (a.private, &a.ip, a.public, &a.protocol).cmp(&(b.private, &b.ip, b.public, &b.protocol))
    });
    all.dedup();
    let mut stretches: Vec<Stretch> = Vec::new();
    for port in all {
        let joined = stretches.iter_mut().find(|known| {
            known.ip == port.ip
                && known.protocol == port.protocol
                && known.private.1 + 1 == port.private.0
                && match (known.public, port.public) {
                    (None, None) => true,
                    (Some(known), Some(port)) => known.1 + 1 == port.0,
                    _ => false,
                }
        });
        match joined {
            Some(known) => {
                known.private.1 = port.private.1;
                if let (Some(public), Some(last)) = (&mut known.public, port.public) {
                    public.1 = last.1;
                }
            }
            None => stretches.push(port),
        }
    }
    let range = |(first, last): (i64, i64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let texts: Vec<String> = stretches
        .into_iter()
        .map(|stretch| {
            let private = format!("{}/{}", range(stretch.private), stretch.protocol);
            match stretch.public {
                None => private,
                Some(public) if stretch.ip.is_empty() => format!("{}->{private}", range(public)),
                Some(public) if stretch.ip.contains(':') => {
                    format!("[{}]:{}->{private}", stretch.ip, range(public))
                }
                Some(public) => format!("{}:{}->{private}", stretch.ip, range(public)),
            }
        })
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_are_one_stretch() {
        let ports = Value::parse(
            br#"[{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":8001,"Type":"tcp"},
                 {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8000,"Type":"tcp"},
                 {"IP":"::","PrivatePort":80,"PublicPort":8000,"Type":"tcp"},
                 {"PrivatePort":90,"Type":"tcp"},{"PrivatePort":91,"Type":"tcp"},{"PrivatePort":91,"Type":"udp"}]"#,
        )
        .unwrap();
        let Value::List(ports) = ports else { panic!("it is a list") };
        assert_eq!(summary(&ports), "0.0.0.0:8000-8001->80-81/tcp, [::]:8000->80/tcp, 90-91/tcp, 91/udp");
        assert_eq!(summary(&[]), "");
    }
}
