//! Numbers of system calls by name, for every machine that a filter of ours can meet.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A system call convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

impl Abi {
    /// The value of `seccomp_data.arch` (linux/audit.h).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }
}

/// One line a call: its name and its numbers; "-" where there is none.
const TABLE: &str = include_str!("syscalls.txt");

/// The number of a call, if the convention has it.
pub(super) fn number(abi: Abi, name: &str) -> Option<u32> {
    static NUMBERS: OnceLock<HashMap<&'static str, [Option<u32>; 5]>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        TABLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut words = line.split(' ');
                let name = words.next()?;
                let mut numbers = [None; 5];
                for (number, word) in numbers.iter_mut().zip(words) {
                    *number = word.parse().ok();
                }
                Some((name, numbers))
            })
            .collect()
    });
    let column = match abi {
        Abi::X86_64 => 0,
        Abi::I386 => 1,
        Abi::X32 => 2,
        Abi::Aarch64 => 3,
        Abi::Arm => 4,
    };
    numbers.get(name).and_then(|numbers| numbers[column])
}

/// Every name of the table.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(number(Abi::X86_64, "execve"), Some(libc_number(libc::SYS_execve, 59)));
        assert_eq!(number(Abi::I386, "socketcall"), Some(102));
        assert_eq!(number(Abi::X32, "execve"), Some(0x4000_0000 + 520));
        assert_eq!(number(Abi::Aarch64, "clone3"), Some(435));
        assert_eq!(number(Abi::Arm, "set_tls"), Some(983_045));
        assert_eq!(number(Abi::Aarch64, "open"), None);
        assert_eq!(number(Abi::X86_64, "nonsense"), None);
    }

    fn libc_number(native: i64, x86_64: u32) -> u32 {
        if cfg!(target_arch = "x86_64") { native as u32 } else { x86_64 }
    }
}
