//! Profiles as Docker's users write them (`--security-opt seccomp=FILE`): OCI rules with conditions on the container.

use super::Error;
use super::syscalls::Abi;
use crate::capability::capability_from_name;
use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

/// As in the OCI spec, but Docker's writers leave out what is zero.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: oci_spec::runtime::LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What a rule's conditions are about: a container on a machine.
struct Place<'a> {
    capabilities: &'a Capabilities,
    /// Go's name of the machine's architecture.
    architecture: &'static str,
    kernel: (u32, u32),
}

/// Reads a profile in Docker's JSON and resolves its conditions for a container with these capabilities.
pub fn from_docker_json(json: &str, capabilities: &Capabilities) -> Result<LinuxSeccomp, Error> {
    read(json, super::bpf::native(), capabilities)
}

/// As [`from_docker_json`], for a machine whose own convention is `native`.
pub(super) fn read(json: &str, native: Abi, capabilities: &Capabilities) -> Result<LinuxSeccomp, Error> {
    let (architecture, native) = match native {
        Abi::Aarch64 | Abi::Arm => ("arm64", Arch::ScmpArchAarch64),
        Abi::X86_64 | Abi::I386 | Abi::X32 => ("amd64", Arch::ScmpArchX86_64),
    };
    let place = Place { capabilities, architecture, kernel: kernel_version() };
    let profile: Profile = serde_json::from_str(json).map_err(|source| Error::Json { source })?;
    let wrong = |what: &str| Error::Profile { what: what.to_owned() };
    let (listed, map) = (profile.architectures.unwrap_or_default(), profile.arch_map.unwrap_or_default());
    if !listed.is_empty() && !map.is_empty() {
        return Err(wrong("both 'architectures' and 'archMap' are specified, use one of them"));
    }
    let mut architectures = listed;
    if let Some(entry) = map.into_iter().find(|entry| entry.architecture == native) {
        architectures.push(entry.architecture);
        architectures.extend(entry.sub_architectures.unwrap_or_default());
    }
    let mut rules: Vec<LinuxSyscall> = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        let mut names = rule.names.unwrap_or_default();
        if rule.name.is_some() && !names.is_empty() {
            return Err(wrong("both 'name' and 'names' are specified, use one of them"));
        }
        names.extend(rule.name);
        if !rule.includes.included(&place)? || rule.excludes.excluded(&place)? {
            continue;
        }
        let args: Vec<LinuxSeccompArg> =
            rule.args.unwrap_or_default().into_iter().map(Argument::into_oci).collect();
        let built = LinuxSyscallBuilder::default().names(names).action(rule.action).args(args).build();
        let mut built = built.map_err(|error| Error::Profile { what: error.to_string() })?;
        built.set_errno_ret(rule.errno_ret);
        rules.push(built);
    }
    let mut out = LinuxSeccomp::default();
    out.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(Some(architectures))
        .set_flags(profile.flags)
        .set_syscalls(Some(rules));
    Ok(out)
}

impl Argument {
    fn into_oci(self) -> LinuxSeccompArg {
        super::argument(self.index, self.op, self.value, Some(self.value_two))
    }
}

impl Filter {
    /// Whether everything that a rule asks for is there.
    fn included(&self, place: &Place<'_>) -> Result<bool, Error> {
        let caps = self.caps.iter().flatten().all(|name| holds(name, place.capabilities));
        let arches = self.arches.as_ref().is_none_or(|list| list.is_empty() || place.is_of(list));
        let recent =
            self.min_kernel.as_deref().map(version).transpose()?.is_none_or(|wanted| place.kernel >= wanted);
        Ok(caps && arches && recent)
    }

    /// Whether something that a rule must not meet is there.
    fn excluded(&self, place: &Place<'_>) -> Result<bool, Error> {
        let caps = self.caps.iter().flatten().any(|name| holds(name, place.capabilities));
        let recent =
            self.min_kernel.as_deref().map(version).transpose()?.is_some_and(|wanted| place.kernel >= wanted);
        Ok(caps || self.arches.as_ref().is_some_and(|list| place.is_of(list)) || recent)
    }
}

fn holds(name: &str, capabilities: &Capabilities) -> bool {
    capability_from_name(name).is_some_and(|capability| capabilities.contains(&capability))
}

impl Place<'_> {
    fn is_of(&self, architectures: &[String]) -> bool {
        architectures.iter().any(|name| name == self.architecture)
    }
}

fn version(text: &str) -> Result<(u32, u32), Error> {
    let wrong = || Error::Profile { what: format!("kernel version \"{text}\" cannot be read") };
    let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
    Ok((major.parse().map_err(|_| wrong())?, minor.parse().map_err(|_| wrong())?))
}

fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                   {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
        "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
                    {"name":"acct","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_PACCT"]}},
                    {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]},
                     "args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]},
                    {"names":["s390_pci_mmio_read"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390"]}},
                    {"names":["write"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}}]}"#;

    fn names(capabilities: &[Capability]) -> Vec<String> {
        let profile = from_docker_json(PROFILE, &capabilities.iter().copied().collect()).unwrap();
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn conditions_are_resolved_for_the_container() {
        assert_eq!(names(&[]), ["read", "clone"]);
        assert_eq!(names(&[Capability::SysPacct]), ["read", "acct", "clone"]);
        assert_eq!(names(&[Capability::SysAdmin]), ["read"]);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let none = Capabilities::new();
        assert!(matches!(from_docker_json("{", &none), Err(Error::Json { .. })));
        let both = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"}]}"#;
        assert!(matches!(from_docker_json(both, &none), Err(Error::Profile { .. })));
    }
}
