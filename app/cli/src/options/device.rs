//! `--device host[:container[:permissions]]`.

use bollard_stubs::models::DeviceMapping;

/// Parses one device.
pub fn parse(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let permissions_valid = |mode: &str| {
        !mode.is_empty() && mode.len() <= 3 && mode.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
    };
    let (host, container, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if permissions_valid(mode) => (*host, *host, *mode),
        [host, container] => (*host, *container, "rwm"),
        [host, container, mode] if permissions_valid(mode) => (*host, *container, *mode),
        [_, _, mode] => return Err(format!("invalid device mode: {mode}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() || container.is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_up_to_three_parts() {
        let device = parse("/dev/a:/dev/b:rw").unwrap();
        assert_eq!(device.path_in_container.as_deref(), Some("/dev/b"));
        assert_eq!(device.cgroup_permissions.as_deref(), Some("rw"));
        assert_eq!(parse("/dev/a:r").unwrap().path_in_container.as_deref(), Some("/dev/a"));
        for bad in ["", "a:b:c:d", "/dev/a:/dev/b:x", ":b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
