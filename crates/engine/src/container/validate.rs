//! What a creation must satisfy before anything is made, in Docker's words where it does not.

use bollard_stubs::models::{ContainerConfig, HostConfig, RestartPolicyNameEnum};

use super::limits;
use crate::error::{Error, Result};
use crate::health;
use crate::log::options;
use crate::signals;
use crate::spec::devices::parse_rule;
use crate::spec::files::is_extra_host;
use crate::spec::security::Security;

/// Checks everything that does not need to look at images or other containers.
pub fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    check_config(config)?;
    limits::check(host, limits::Occasion::Create)?;
    check_annotations(host)?;
    check_lifecycle(host)?;
    check_refused(host)?;
    check_modes(host)?;
    Security::of(host)?.seccomp()?;
    if let Some(host) = host.extra_hosts.iter().flatten().find(|line| !is_extra_host(line)) {
        let address =
            host.split_once('=').or_else(|| host.split_once(':')).filter(|(name, _)| !name.is_empty());
        return Err(Error::invalid(match address {
            Some((_, address)) => format!("invalid IP address in add-host: {address:?}"),
            None => format!("bad format for add-host: {host:?}"),
        }));
    }
    if let Some(server) = host.dns.iter().flatten().find(|server| server.parse::<std::net::IpAddr>().is_err())
    {
        return Err(Error::invalid(format!("bad nameserver address {server}")));
    }
    Ok(())
}

/// Checks what a request says by itself, before anything is filled in from the image.
pub fn check_request(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let clash = |text: &str| Err(Error::invalid(format!("conflicting options: {text}")));
    let shares = host.network_mode.as_deref().is_some_and(|mode| mode.starts_with("container:"));
    let is_named = config.hostname.as_deref().is_some_and(|name| !name.is_empty());
    if shares && is_named {
        return clash("hostname and the network mode");
    }
    let publishes = host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty());
    if shares && !publishes && config.exposed_ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
        return clash("port exposing and the container type network mode");
    }
    if host.uts_mode.as_deref() == Some("host") && is_named {
        return clash("hostname and the UTS mode");
    }
    Ok(())
}

/// Checks what the client says itself. An image may say worse, and only its start fails, as with Docker.
pub(super) fn check_own(config: &ContainerConfig) -> Result<()> {
    if let Some(dir) = config.working_dir.as_deref().filter(|dir| !dir.is_empty() && !dir.starts_with('/')) {
        return Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    if let Some(entry) = config.env.iter().flatten().find(|entry| entry.starts_with('=') || entry.is_empty())
    {
        return Err(Error::invalid(format!("invalid environment variable: {entry}")));
    }
    for port in config.exposed_ports.iter().flatten() {
        exposed(port)?;
    }
    Ok(())
}

fn check_config(config: &ContainerConfig) -> Result<()> {
    if let Some(signal) = config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
        signals::parse(signal)?;
    }
    if let Some(name) =
        config.hostname.as_deref().filter(|name| name.len() > 63 || name.contains(['/', '\n', '\0']))
    {
        return Err(Error::invalid(format!("invalid hostname format: {name}")));
    }
    config.healthcheck.as_ref().map_or(Ok(()), health::check)
}

/// Annotations need names.
fn check_annotations(host: &HostConfig) -> Result<()> {
    if host.annotations.as_ref().is_some_and(|annotations| annotations.contains_key("")) {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    Ok(())
}

/// Checks restart policy, removal and log.
pub fn check_lifecycle(host: &HostConfig) -> Result<()> {
    if let Some(policy) = &host.restart_policy {
        let retries = policy.maximum_retry_count.unwrap_or(0);
        let on_failure = policy.name == Some(RestartPolicyNameEnum::ON_FAILURE);
        if retries != 0 && !on_failure {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        if retries < 0 {
            return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
        }
        let restarts =
            !matches!(policy.name, None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO));
        if restarts && host.auto_remove == Some(true) {
            return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
        }
    }
    options::limit(host.log_config.as_ref())?;
    Ok(())
}

/// What is not done yet is refused, not ignored.
fn check_refused(host: &HostConfig) -> Result<()> {
    if let Some(request) = host.device_requests.iter().flatten().next() {
        // Lists as Go writes them.
        let sets: Vec<_> =
            request.capabilities.iter().flatten().map(|set| format!("[{}]", set.join(" "))).collect();
        return Err(Error::invalid(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver.as_deref().unwrap_or(""),
            sets.join(" ")
        )));
    }
    if host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if let Some(runtime) =
        host.runtime.as_deref().filter(|name| !matches!(*name, "" | "runc" | "io.containerd.runc.v2"))
    {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {runtime}")));
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        parse_rule(rule)?;
    }
    Ok(())
}

fn check_modes(host: &HostConfig) -> Result<()> {
    let mode = host.network_mode.as_deref().unwrap_or("");
    let own = !matches!(mode, "host") && !mode.starts_with("container:");
    if mode.starts_with("container:") {
        let clash = |text: &str| Err(Error::invalid(format!("conflicting options: {text}")));
        if host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty())
            || host.publish_all_ports == Some(true)
        {
            return clash("port publishing and the container type network mode");
        }
        if host.dns.as_ref().is_some_and(|dns| !dns.is_empty()) {
            return clash("dns and the network mode");
        }
        if host.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
            return clash("custom host-to-IP mapping and the network mode");
        }
    }
    if !own
        && let Some(name) =
            host.sysctls.iter().flatten().map(|(name, _)| name).find(|name| name.starts_with("net."))
    {
        return Err(Error::invalid(format!("sysctl '{name}' is not allowed in host network namespace")));
    }
    match host.ipc_mode.as_deref().unwrap_or("") {
        "" | "none" | "private" | "shareable" | "host" => {}
        mode if mode.starts_with("container:") => {}
        mode => return Err(Error::invalid(format!("invalid IPC mode: {mode}"))),
    }
    match host.pid_mode.as_deref().unwrap_or("") {
        "" | "host" => {}
        mode if mode.starts_with("container:") => {}
        mode => return Err(Error::invalid(format!("invalid PID mode: {mode}"))),
    }
    if let Some(mode) = host.uts_mode.as_deref().filter(|mode| !matches!(*mode, "" | "host")) {
        return Err(Error::invalid(format!("invalid UTS mode: {mode}")));
    }
    Ok(())
}

/// The number and protocol of `80/tcp`.
pub fn parse_port(text: &str) -> Result<(u16, crate::publish::Protocol)> {
    use crate::publish::Protocol;
    let invalid = || Error::invalid(format!("invalid port specification: \"{text}\""));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(Error::invalid(format!("invalid proto: {protocol}"))),
    };
    number.parse().ok().filter(|number| *number > 0).map(|number| (number, protocol)).ok_or_else(invalid)
}

/// The ports of `80/tcp`, or those of a range: compose files expose `9001-9002/udp`, and dockerd takes that.
pub fn exposed(text: &str) -> Result<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let Some((first, last)) = range.split_once('-') else {
        return parse_port(text).map(|_| vec![text.to_owned()]);
    };
    let invalid = || Error::invalid(format!("invalid port specification: \"{text}\""));
    let (first, protocol) = parse_port(&format!("{first}/{protocol}"))?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{}", protocol.name())).collect())
}

/// The first and last host port of a binding: empty means any, a range means any of it.
pub fn parse_host_port(text: &str) -> Result<(u16, u16)> {
    let invalid = || Error::invalid(format!("invalid port specification: \"{text}\""));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| invalid())?, last.parse().map_err(|_| invalid())?);
    if first > last { Err(invalid()) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ranges_are_their_ports() {
        assert_eq!(exposed("80").unwrap(), ["80"]);
        assert_eq!(exposed("9001-9003/udp").unwrap(), ["9001/udp", "9002/udp", "9003/udp"]);
        assert_eq!(exposed("9001-9001").unwrap(), ["9001/tcp"]);
        for wrong in ["9002-9001/udp", "0-5", "1-x/tcp", "1-70000", "1-2/foo", "-"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_read_as_docker_does() {
        use crate::publish::Protocol;
        assert_eq!(parse_port("80").unwrap(), (80, Protocol::Tcp));
        assert_eq!(parse_port("53/udp").unwrap(), (53, Protocol::Udp));
        for wrong in ["", "0/tcp", "65536/tcp", "80/foo", "x"] {
            assert!(parse_port(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_host_port("").unwrap(), (0, 0));
        assert_eq!(parse_host_port("8000-8010").unwrap(), (8000, 8010));
        assert!(parse_host_port("8010-8000").is_err());
    }

    #[test]
    fn what_is_not_done_is_refused_in_dockers_words() {
        let refused = |host: HostConfig| check(&ContainerConfig::default(), &host).unwrap_err().message;
        assert_eq!(
            refused(HostConfig { memory: Some(1024), ..HostConfig::default() }),
            "Minimum memory limit allowed is 6MB"
        );
        assert_eq!(
            refused(HostConfig { runtime: Some("kata".to_owned()), ..HostConfig::default() }),
            "unknown or invalid runtime name: kata"
        );
        assert_eq!(
            refused(HostConfig {
                device_cgroup_rules: Some(vec!["c 1:3".to_owned()]),
                ..HostConfig::default()
            }),
            "invalid device cgroup rule format: 'c 1:3'"
        );
        assert!(check(&ContainerConfig::default(), &HostConfig::default()).is_ok());
    }
}
