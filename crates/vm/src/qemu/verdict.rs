//! Which accelerator to try, and what is remembered about it.
//!
//! A `/dev/kvm` that opens may still never run a guest (nested virtualisation is often like that). That costs one
//! missed deadline; the [`Verdict`] remembers it for as long as kernel, QEMU and processor stay the same.

use std::{
    io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::Accelerator;

/// What a verdict depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Release of the host's kernel.
    pub kernel: String,
    /// QEMU's version.
    pub qemu: String,
    /// Model of the processor.
    pub cpu: String,
}

/// What an accelerator did when it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The accelerator.
    pub accelerator: Accelerator,
    /// Whether it ran a guest.
    pub works: bool,
    /// What went wrong, empty if nothing did.
    pub reason: String,
    /// Where this was found out.
    pub facts: HostFacts,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Verdict {
    /// Makes a verdict as of now.
    pub fn new(accelerator: Accelerator, failure: Option<String>, facts: HostFacts) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        Self { accelerator, works: failure.is_none(), reason: failure.unwrap_or_default(), facts, at }
    }

    /// Reads the remembered verdict; a missing or unreadable one counts as none.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Remembers the verdict.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let staging = path.with_extension("new");
        std::fs::write(&staging, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(staging, path)
    }
}

/// In which order accelerators are tried, and what the user should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Never empty; the last one is always the translator.
    pub attempts: Vec<Accelerator>,
    /// Why the hardware is not used.
    pub note: Option<String>,
}

/// Decides what to try.
///
/// `hardware` is this host's accelerator, or why it has none; `retry` is the user's wish to forget the verdict.
pub fn plan(
    hardware: Result<Accelerator, String>,
    verdict: Option<&Verdict>,
    facts: &HostFacts,
    retry: bool,
) -> Plan {
    let accelerator = match hardware {
        Ok(accelerator) => accelerator,
        Err(reason) => return Plan { attempts: vec![Accelerator::Tcg], note: Some(reason) },
    };
    match verdict {
        Some(v) if !v.works && v.accelerator == accelerator && v.facts == *facts && !retry => Plan {
            attempts: vec![Accelerator::Tcg],
            note: Some(format!("{accelerator} does not run guests here: {}", v.reason)),
        },
        _ => Plan { attempts: vec![accelerator, Accelerator::Tcg], note: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(kernel: &str) -> HostFacts {
        HostFacts { kernel: kernel.to_owned(), qemu: "10.0.2".to_owned(), cpu: "x".to_owned() }
    }

    fn bad() -> Verdict {
        Verdict::new(Accelerator::Kvm, Some("no console byte within 4 s".to_owned()), facts("6.1"))
    }

    #[test]
    fn hardware_is_tried_first_and_the_translator_last() {
        let plan = plan(Ok(Accelerator::Kvm), None, &facts("6.1"), false);
        assert_eq!(plan, Plan { attempts: vec![Accelerator::Kvm, Accelerator::Tcg], note: None });
    }

    #[test]
    fn bad_verdict_is_remembered_and_explained() {
        let plan = plan(Ok(Accelerator::Kvm), Some(&bad()), &facts("6.1"), false);
        assert_eq!(plan.attempts, [Accelerator::Tcg]);
        assert_eq!(plan.note.unwrap(), "kvm does not run guests here: no console byte within 4 s");
    }

    #[test]
    fn verdict_falls_with_its_facts_or_by_the_users_wish() {
        let tried = [Accelerator::Kvm, Accelerator::Tcg];
        assert_eq!(plan(Ok(Accelerator::Kvm), Some(&bad()), &facts("6.2"), false).attempts, tried);
        assert_eq!(plan(Ok(Accelerator::Kvm), Some(&bad()), &facts("6.1"), true).attempts, tried);
        let good = Verdict::new(Accelerator::Kvm, None, facts("6.1"));
        assert_eq!(plan(Ok(Accelerator::Kvm), Some(&good), &facts("6.1"), false).attempts, tried);
    }

    #[test]
    fn host_without_hardware_translates_and_says_why() {
        let plan = plan(Err("/dev/kvm is missing".to_owned()), None, &facts("6.1"), true);
        assert_eq!(plan.attempts, [Accelerator::Tcg]);
        assert_eq!(plan.note.unwrap(), "/dev/kvm is missing");
    }

    #[test]
    fn verdict_survives_the_disk_and_garbage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("verdict.json");
        assert_eq!(Verdict::load(&path), None);
        bad().save(&path).unwrap();
        assert_eq!(
            Verdict::load(&path),
            Some(bad()).map(|v| Verdict { at: Verdict::load(&path).unwrap().at, ..v })
        );
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(Verdict::load(&path), None);
    }
}
