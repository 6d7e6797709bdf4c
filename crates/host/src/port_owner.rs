//! Who has a port: the name and id of the process that listens there, as far as the system tells.

use std::net::SocketAddr;

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Finds the process that keeps `address` from being bound; tells nothing on systems without `/proc`.
pub(crate) fn find(address: SocketAddr) -> Option<Owner> {
    #[cfg(target_os = "linux")]
    {
        linux::find(address)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    };

    use super::Owner;

    /// State LISTEN in `/proc/net/tcp` (proc_net_tcp documentation of the kernel).
    const LISTEN: &str = "0A";

    pub(super) fn find(address: SocketAddr) -> Option<Owner> {
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
            let text = fs::read_to_string(table).ok()?;
            text.lines()
                .skip(1)
                .filter_map(listening)
                .find(|(bound, _)| clashes(*bound, address))
                .map(|(_, i)| i)
        })?;
        owner(&format!("socket:[{inode}]"))
    }

    /// Two listeners clash on the same port when either takes every address or both take the same one.
    fn clashes(a: SocketAddr, b: SocketAddr) -> bool {
        a.port() == b.port() && (a.ip().is_unspecified() || b.ip().is_unspecified() || a.ip() == b.ip())
    }

    /// `sl local_address rem_address st … inode`: a listening socket's address and inode.
    pub(super) fn listening(line: &str) -> Option<(SocketAddr, u64)> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if *fields.get(3)? != LISTEN {
            return None;
        }
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some((SocketAddr::new(parse_ip(ip)?, port), fields.get(9)?.parse().ok()?))
    }

    /// Words of 32 bits in the host's byte order, each as eight hexadecimal digits.
    fn parse_ip(text: &str) -> Option<IpAddr> {
        if !text.is_ascii() {
            return None;
        }
        let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
        match text.len() {
            8 => Some(Ipv4Addr::from(word(0)?).into()),
            32 => {
                let mut bytes = [0; 16];
                for index in 0..4 {
                    bytes[index * 4..index * 4 + 4].copy_from_slice(&word(index * 8)?);
                }
                Some(Ipv6Addr::from(bytes).to_canonical())
            }
            _ => None,
        }
    }

    fn owner(socket: &str) -> Option<Owner> {
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Other users' processes keep their descriptors to themselves.
            let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
            let holds =
                |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == socket);
            if descriptors.flatten().any(holds) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(Owner { pid, name: name.trim().to_owned() });
            }
        }
        None
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn own_listener_is_found_by_any_clashing_address() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            for asked in [address, everywhere] {
                assert_eq!(find(asked).unwrap().pid, std::process::id());
            }
            drop(listener);
            assert_eq!(find(address), None);
        }

        #[test]
        fn table_lines_are_read_and_nonsense_is_not() {
            let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 x";
            assert_eq!(listening(line), Some(("127.0.0.1:8080".parse().unwrap(), 4242)));
            let line = "   1: 00000000000000000000000001000000:0050 0:0 0A 0 0 0 0 0 77 1";
            assert_eq!(listening(line), Some(("[::1]:80".parse().unwrap(), 77)));
            for bad in
                ["", "0: x:y 0 0A", "0: 0100007F:1F90 0 01 0 0 0 0 0 1", "0: é100007:1F90 0 0A 0 0 0 0 0 1"]
            {
                assert_eq!(listening(bad), None);
            }
        }
    }
}
