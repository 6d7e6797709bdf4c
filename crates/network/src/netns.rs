use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::LinkNameSpaceType;

use crate::{Error, links, netlink::Socket, sysctl};

/// What the kernel says when there is no such route.
const SRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();

/// A network namespace, alive as long as this descriptor (or a process in it).
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

impl NetNs {
    /// Makes a namespace with its loopback interface up.
    ///
    /// Interfaces that come into it later have IPv6 off, as in Docker's IPv4-only networks; loopback keeps `::1`.
    pub fn create() -> Result<Self, Error> {
        let make = || {
            skiff_linux_sys::netns::unshare_network()
                .map_err(|source| Error::Namespace { op: "create it", source })?;
            let fd = File::open("/proc/thread-self/ns/net")
                .map_err(|source| Error::Namespace { op: "open it", source })?
                .into();
            let mut socket = Socket::open()?;
            socket.request(links::set_up(links::LOOPBACK_INDEX, "lo"))?;
            sysctl::set_if_present("ipv6/conf/default/disable_ipv6", "1")?;
            Ok(Self { fd })
        };
        on_own_thread(make)?
    }

    /// Opens the namespace that a process is in.
    pub fn of_pid(pid: i32) -> Result<Self, Error> {
        let fd = File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|source| Error::Namespace { op: "open the process's", source })?;
        Ok(Self { fd: fd.into() })
    }

    /// Takes over a descriptor of a namespace, for example one that survived an engine restart.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Runs `work` on a thread inside the namespace and returns what it returns.
    ///
    /// Sockets opened there belong to the namespace for good, wherever they are used afterwards.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        enter(self.fd.as_fd(), work)
    }

    /// Leads the IPv4 default route through `gateway` of the interface `ifname`; `None` removes it.
    pub fn set_default_route(&self, route: Option<(&str, Ipv4Addr)>) -> Result<(), Error> {
        let work = || {
            let mut socket = Socket::open()?;
            let request = match route {
                Some((ifname, gateway)) => {
                    links::set_default_route(links::by_name(&mut socket, ifname)?.index, gateway.into())
                }
                None => links::delete_default_route(),
            };
            match socket.request(request) {
                // There was none.
                Err(Error::Refused { source, .. })
                    if route.is_none() && source.raw_os_error() == Some(SRCH) =>
                {
                    Ok(())
                }
                other => other.map(drop),
            }
        };
        self.enter(work)?
    }

    /// Leads the IPv6 default route through `gateway` of the interface `ifname`. Another one goes with its interface.
    pub fn set_default_route_ipv6(&self, ifname: &str, gateway: Ipv6Addr) -> Result<(), Error> {
        self.enter(|| {
            let mut socket = Socket::open()?;
            let index = links::by_name(&mut socket, ifname)?.index;
            socket.request(links::set_default_route(index, gateway.into())).map(drop)
        })?
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Brings the loopback interface of this process's own namespace up, which the kernel leaves down at boot.
///
/// # Errors
/// When the kernel refuses, for example without `CAP_NET_ADMIN`.
pub fn bring_loopback_up() -> Result<(), Error> {
    Socket::open()?.request(links::set_up(links::LOOPBACK_INDEX, "lo")).map(drop)
}

/// Runs `work` on a thread inside the namespace `netns`.
pub fn enter<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    on_own_thread(|| {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::Namespace { op: "enter it", source: errno.into() })?;
        Ok(work())
    })?
}

/// A thread that changes its namespace is never used for anything else afterwards.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .map_err(|source| Error::Namespace { op: "start a thread for it", source })?;
        thread.join().map_err(|_| Error::Namespace {
            op: "finish the work in it",
            source: io::Error::other("the thread panicked"),
        })
    })
}
