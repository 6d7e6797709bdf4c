use std::io;

use ipnet::IpNet;

/// What can go wrong while the kernel's network objects are changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The netlink socket itself failed.
    #[error("netlink socket: cannot {op}")]
    Socket {
        /// The system call that was tried.
        op: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {op} {object}")]
    Refused {
        /// What was asked for, as a verb phrase: `create bridge`.
        op: &'static str,
        /// The interface, address or route in question.
        object: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("unexpected netlink answer: {reason}")]
    Answer {
        /// What was wrong with it.
        reason: String,
    },
    /// A network namespace could not be made, opened or entered.
    #[error("network namespace: cannot {op}")]
    Namespace {
        /// The step that failed.
        op: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// A kernel setting below `/proc/sys` could not be read or written.
    #[error("cannot set {path}")]
    Setting {
        /// The file.
        path: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The interface name is empty, too long (15 bytes are the limit) or has a character the kernel refuses.
    #[error("invalid interface name {name:?}")]
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// An interface of this name exists and is something else.
    #[error("interface {name} exists and is not a bridge")]
    NotABridge {
        /// The interface.
        name: String,
    },
    /// There is no interface to share.
    #[error("-o parent interface was not found on the host: {name}")]
    NoParent {
        /// Its name.
        name: String,
    },
    /// Another interface routes (a part of) the subnet already.
    #[error("subnet {subnet} overlaps {other}, which the host uses already")]
    SubnetInUse {
        /// The subnet that was asked for.
        subnet: IpNet,
        /// The route in its way.
        other: IpNet,
    },
    /// Another firewall of the machine can't be told of our bridges.
    #[error("cannot run {program}")]
    OtherFirewall {
        /// The program that changes it.
        program: String,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// No subnet could be chosen.
    #[error(transparent)]
    Subnet(#[from] crate::SubnetError),
}

impl Error {
    /// Whether the kernel said that it knows no such kind of object.
    pub(crate) fn is_not_supported(&self) -> bool {
        let code = rustix::io::Errno::OPNOTSUPP.raw_os_error();
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(code))
    }

    /// Whether the kernel said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if {
            let code = source.raw_os_error();
            code == Some(rustix::io::Errno::NODEV.raw_os_error()) || code == Some(rustix::io::Errno::NOENT.raw_os_error())
        })
    }
}
