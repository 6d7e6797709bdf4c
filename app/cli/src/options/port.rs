//! `-p [ip:][host]:container[/protocol]` and `--expose`, ranges included.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use bollard_stubs::models::PortBinding;

/// Published ports: container port with protocol (`80/tcp`) and where it appears on the host.
pub type Bindings = HashMap<String, Option<Vec<PortBinding>>>;

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    match text.split_once('-') {
        None => number(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        }
    }
}

fn protocol(text: &str) -> Result<String, String> {
    let protocol = text.to_ascii_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok(protocol),
        _ => Err(format!("invalid proto: {text}")),
    }
}

/// Splits `port[/protocol]`; the protocol is tcp without one.
fn with_protocol(text: &str) -> Result<(&str, String), String> {
    match text.split_once('/') {
        None => Ok((text, "tcp".to_owned())),
        Some((port, "")) => Ok((port, "tcp".to_owned())),
        Some((port, name)) => Ok((port, protocol(name)?)),
    }
}

/// Turns the long form `target=80,published=8080,protocol=tcp` into the short one.
fn short_form(text: &str) -> Result<String, String> {
    let (mut target, mut published, mut proto) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => proto = value,
            Some(("mode", _)) => {}
            _ => return Err(format!("invalid publish opts format (should be name=value but got '{field}')")),
        }
    }
    Ok(format!("{published}:{target}/{proto}"))
}

/// Adds one `--publish` to the bindings.
pub fn publish(spec: &str, bindings: &mut Bindings) -> Result<(), String> {
    let long;
    let spec = if spec.contains('=') {
        long = short_form(spec)?;
        &long
    } else {
        spec
    };
    let (ports, protocol) = with_protocol(spec)?;
    let (rest, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let address = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(inner) => inner,
        None => ip,
    };
    // An IPv6 address is written in brackets, or the last colon of it would be ours.
    if !address.is_empty() && (address.parse::<IpAddr>().is_err() || (address.contains(':') && address == ip))
    {
        return Err(format!("invalid IP address: {ip}"));
    }
    let container_ports =
        port_range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let host_ports = match host {
        "" => None,
        host => Some(port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    if let Some(host_ports) = &host_ports
        && host_ports.len() != container_ports.len()
        && container_ports.len() != 1
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    for (index, port) in container_ports.clone().enumerate() {
        let host_port = match &host_ports {
            None => String::new(),
            // One container port and many host ports: the engine takes a free one of them.
            Some(range) if range.len() != container_ports.len() => host.to_owned(),
            Some(range) => (range.start() + index as u16).to_string(),
        };
        let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(host_port) };
        bindings.entry(format!("{port}/{protocol}")).or_default().get_or_insert_default().push(binding);
    }
    Ok(())
}

/// Parses one `--expose` into container ports with protocol.
pub fn expose(spec: &str) -> Result<Vec<String>, String> {
    if spec.contains(':') {
        return Err(format!("invalid port format for --expose: {spec}"));
    }
    let (ports, protocol) = with_protocol(spec)?;
    let range = port_range(ports)
        .ok_or_else(|| format!("invalid range format for --expose: {spec}, error: invalid port or range"))?;
    Ok(range.map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<Vec<String>, String> {
        let mut bindings = Bindings::new();
        publish(spec, &mut bindings)?;
        let mut all: Vec<String> = bindings
            .into_iter()
            .flat_map(|(port, list)| {
                list.unwrap_or_default().into_iter().map(move |binding| {
                    let (ip, host) =
                        (binding.host_ip.unwrap_or_default(), binding.host_port.unwrap_or_default());
                    format!("{ip}|{host}->{port}")
                })
            })
            .collect();
        all.sort();
        Ok(all)
    }

    #[test]
    fn ports_follow_docker_s_forms() {
        for (spec, bindings) in [
            ("80", &["|->80/tcp"][..]),
            ("8080:80", &["|8080->80/tcp"]),
            ("8080:80/udp", &["|8080->80/udp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1|8080->80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1|->80/tcp"]),
            ("[::1]:8080:80", &["::1|8080->80/tcp"]),
            ("8000-8001:80-81", &["|8000->80/tcp", "|8001->81/tcp"]),
            ("8000-8010:80", &["|8000-8010->80/tcp"]),
            ("80-81", &["|->80/tcp", "|->81/tcp"]),
            ("target=80,published=8080,protocol=udp", &["|8080->80/udp"]),
            ("8080:80/SCTP", &["|8080->80/sctp"]),
        ] {
            assert_eq!(parse(spec).unwrap(), bindings, "{spec}");
        }
    }

    #[test]
    fn wrong_ports_are_named() {
        for (spec, message) in [
            ("a:b:c:d:e", "invalid IP address: a:b:c"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("x:80", "invalid hostPort: x"),
            ("80:x", "invalid containerPort: x"),
            ("80:70000", "invalid containerPort: 70000"),
            ("80:80/xyz", "invalid proto: xyz"),
            ("80-82:80-81", "invalid ranges specified for container and host Ports: 80-81 and 80-82"),
            ("82-80:80", "invalid hostPort: 82-80"),
            ("+80:80", "invalid hostPort: +80"),
        ] {
            assert_eq!(parse(spec).unwrap_err(), message, "{spec}");
        }
    }

    #[test]
    fn exposed_ports_are_single_or_ranges() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("80-82/udp").unwrap().len(), 3);
        assert!(expose("80:80").is_err());
        assert!(expose("x").is_err());
    }
}
