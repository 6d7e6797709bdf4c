//! `EXPOSE`: ports, ranges and protocols.

use crate::dockerfile::check::{Linter, Rule};
use crate::dockerfile::fault::{Fault, Lines, Result};

/// Reads ports as `port/protocol`, each port of a range by itself.
///
/// # Errors
/// What is no port, in the words of BuildKit.
pub fn ports(words: &[String], lines: Lines, linter: &mut Linter) -> Result<Vec<String>> {
    let mut ports = Vec::new();
    for word in words {
        ports.extend(one(word, lines, linter)?);
    }
    Ok(ports)
}

fn one(word: &str, lines: Lines, linter: &mut Linter) -> Result<Vec<String>> {
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next();
    let address = parts.next();
    if host.is_some() {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        );
        linter.warn(Rule::ExposeInvalidFormat, lines, message);
    }
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        linter.warn(Rule::ExposeProtoCasing, lines, message);
    }
    let protocol = match protocol.to_lowercase().as_str() {
        _ if container.is_empty() => return Err(Fault::new(format!("no port specified: {word}<empty>"))),
        "" => "tcp",
        "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        other => return Err(Fault::new(format!("invalid proto: {other}"))),
    };
    if let Some(address) = address.filter(|address| !address.is_empty()) {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if bare.parse::<std::net::IpAddr>().is_err() {
            return Err(Fault::new(format!("invalid IP address: {bare}")));
        }
    }
    let range_of =
        |text: &str, what: &str| range(text).ok_or_else(|| Fault::new(format!("invalid {what}: {text}")));
    let (start, end) = range_of(container, "containerPort")?;
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let (host_start, host_end) = range_of(host, "hostPort")?;
        if end - start != host_end - host_start && end != start {
            return Err(Fault::new(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            )));
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((start, end)) => {
            let (start, end) = (number(start)?, number(end)?);
            (start <= end).then_some((start, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Result<Vec<String>, String> {
        ports(&[word.to_owned()], Lines::new(1, 1), &mut Linter::default()).map_err(|fault| fault.message)
    }

    #[test]
    fn ports_have_protocols_and_ranges() {
        for (word, expected) in [
            ("80", Ok(vec!["80/tcp"])),
            ("80/UDP", Ok(vec!["80/udp"])),
            ("80/sctp", Ok(vec!["80/sctp"])),
            ("8000-8002/udp", Ok(vec!["8000/udp", "8001/udp", "8002/udp"])),
            ("8080:80", Ok(vec!["80/tcp"])),
            ("127.0.0.1:8080:80", Ok(vec!["80/tcp"])),
            ("[::1]:8080:80", Ok(vec!["80/tcp"])),
            ("127.0.0.1::80", Ok(vec!["80/tcp"])),
            ("80/", Ok(vec!["80/tcp"])),
            ("80/icmp", Err("invalid proto: icmp")),
            ("http", Err("invalid containerPort: http")),
            ("70000", Err("invalid containerPort: 70000")),
            ("9-8", Err("invalid containerPort: 9-8")),
            ("", Err("no port specified: <empty>")),
            ("x:80", Err("invalid hostPort: x")),
            ("1.2.3:80:80", Err("invalid IP address: 1.2.3")),
            ("80-81:90-95", Err("invalid ranges specified for container and host Ports: 90-95 and 80-81")),
        ] {
            let expected = expected
                .map(|ports| ports.into_iter().map(str::to_owned).collect::<Vec<_>>())
                .map_err(str::to_owned);
            assert_eq!(read(word), expected, "{word}");
        }
    }
}
