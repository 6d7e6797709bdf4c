//! What a saved guest depends on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Accelerator, qemu::verdict::HostFacts};

/// Everything that must be the same for a saved guest to go on: one that wakes in another machine than it slept in is not
/// tried, but booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// The host's kernel and processor, and the version of the program that runs the guest.
    pub host: HostFacts,
    /// The program's file: packages are rebuilt without a new version.
    pub program: String,
    /// The bytes of kernel and initial RAM file system.
    pub image: String,
    /// The program's arguments, except those about saving.
    pub arguments: Vec<String>,
}

impl Key {
    /// Names what differs, for messages; nothing if all is the same.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.accelerator != other.accelerator {
            Some("the accelerator")
        } else if self.host.qemu != other.host.qemu || self.program != other.program {
            Some("QEMU's version")
        } else if self.host != other.host {
            Some("the host's kernel or processor")
        } else if self.image != other.image {
            Some("the guest image")
        } else if self.arguments != other.arguments {
            Some("the machine")
        } else {
            None
        }
    }
}

/// A saved guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// What [`save`](crate::Guest::save) wrote.
    pub path: PathBuf,
    /// What it depends on.
    pub key: Key,
    /// Whether it is the beginning of any number of guests, and not one that goes on where it was.
    pub template: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_named() {
        let host = HostFacts { kernel: "6.18".into(), qemu: "10.0.2".into(), cpu: "x".into() };
        let key = Key {
            accelerator: Accelerator::Tcg,
            host,
            program: "/usr/bin/qemu".into(),
            image: "a".into(),
            arguments: vec!["-m".into(), "512M".into()],
        };
        assert_eq!(key.difference(&key.clone()), None);
        type Change = fn(&mut Key);
        let changes: [(&str, Change); 6] = [
            ("the accelerator", |key| key.accelerator = Accelerator::Kvm),
            ("QEMU's version", |key| key.host.qemu.push('1')),
            ("QEMU's version", |key| key.program.push('1')),
            ("the host's kernel or processor", |key| key.host.cpu.push('y')),
            ("the guest image", |key| key.image.push('b')),
            ("the machine", |key| key.arguments[1] = "513M".into()),
        ];
        for (name, change) in changes {
            let mut other = key.clone();
            change(&mut other);
            assert_eq!(key.difference(&other), Some(name));
        }
    }
}
