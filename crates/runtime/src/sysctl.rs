//! Kernel settings of a container's own namespaces.

use crate::error::Error;
use crate::mounts::c_string;
use crate::namespaces::Plan;
use oci_spec::runtime::Spec;
use skiff_linux_sys::child::{Program, Step};
use skiff_linux_sys::namespace::Namespaces;

/// Adds a step for every setting, refusing those that would change the host.
pub(crate) fn push(spec: &Spec, namespaces: &Plan, program: &mut Program) -> Result<(), Error> {
    let settings = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut settings: Vec<_> = settings.into_iter().flatten().collect();
    settings.sort();
    for (name, value) in settings {
        let path = path(name);
        let own = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["net", ..] => namespaces.separate(Namespaces::NETWORK),
            ["kernel", "domainname"] => namespaces.separate(Namespaces::UTS),
            ["fs", "mqueue", ..] => namespaces.separate(Namespaces::IPC),
            ["kernel", "sem"] => namespaces.separate(Namespaces::IPC),
            ["kernel", key] if key.starts_with("shm") || key.starts_with("msg") => {
                namespaces.separate(Namespaces::IPC)
            }
            _ => false,
        };
        if !own || path.split('/').any(|part| part == "..") {
            return Err(Error::Spec {
                what: format!("sysctl \"{name}\" is not in a separate kernel namespace"),
            });
        }
        let path = c_string(format!("sys/{path}"))?;
        let label = format!("write sysctl key {name}");
        program.push(Step::Sysctl { path, data: value.clone().into_bytes() }, label);
    }
    Ok(())
}

/// Turns a name into a path: whichever of `.` and `/` comes first separates (sysctl.d(5)).
fn path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(path("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }
}
