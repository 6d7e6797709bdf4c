//! Our compiler beside libseccomp: the same profiles, every number of every convention.

use super::super::syscalls::{Abi, names};
use super::tests::run;
use super::{family, native};
use crate::capability::{DEFAULT_CAPABILITIES, all_capabilities};
use crate::seccomp::{compile, docker, json};
use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp};
use skiff_linux_sys::seccomp::Instruction;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// First arguments at which some rule of Docker's profile changes its mind, and values beside them.
const FIRST_ARGUMENTS: [u64; 20] = [
    0,
    1,
    2,
    8,
    9,
    11,
    12,
    13,
    17,
    38,
    40,
    45,
    46,
    0x2_0000,
    0x2_0008,
    0x7e02_0000,
    0x1000_0011,
    0xffff_ffff,
    0x1_0000_0002,
    u64::MAX,
];

/// Compiles profiles with libseccomp; also gives the names that it does not know.
fn libseccomp(profiles: &[LinuxSeccomp]) -> (Vec<Vec<Instruction>>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    // Debian's own interpreter: the module belongs to it.
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", include_str!("oracle.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted = serde_json::json!({ "profiles": profiles, "out": directory.path() });
    child.stdin.take().unwrap().write_all(wanted.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "libseccomp's python module (python3-seccomp) is needed: scripts/setup test"
    );
    let filters = (0..profiles.len())
        .map(|index| {
            let bytes = std::fs::read(directory.path().join(format!("{index}.bpf"))).unwrap();
            bytes
                .chunks_exact(8)
                .map(|raw| Instruction {
                    code: u16::from_ne_bytes([raw[0], raw[1]]),
                    jump_true: raw[2],
                    jump_false: raw[3],
                    value: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
                })
                .collect()
        })
        .collect();
    (filters, serde_json::from_slice(&output.stdout).unwrap())
}

/// The profile without names that libseccomp is too old for.
fn without(profile: &LinuxSeccomp, unknown: &[String]) -> LinuxSeccomp {
    let mut profile = profile.clone();
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        rule.set_names(rule.names().iter().filter(|name| !unknown.contains(name)).cloned().collect());
    }
    profile.set_syscalls(Some(rules));
    profile
}

/// No capability, Docker's, all, and each alone.
fn capability_sets() -> Vec<Capabilities> {
    let set = |list: &[Capability]| -> Capabilities { list.iter().copied().collect() };
    let mut sets = vec![set(&[]), set(&DEFAULT_CAPABILITIES), set(&all_capabilities())];
    sets.extend(all_capabilities().into_iter().map(|one| set(&[one])));
    sets
}

/// Every number that a call of a convention could have and one that none has, with first arguments to look at.
fn calls(profile: &LinuxSeccomp, abi: Abi) -> impl Iterator<Item = (u32, u64)> {
    let first = if abi == Abi::X32 { 0x4000_0000 } else { 0 };
    let looked_at: Vec<u32> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.args().is_some())
        .flat_map(|rule| rule.names())
        .filter_map(|name| super::number(abi, name))
        .collect();
    // ARM has private calls far above the others.
    let private = if abi == Abi::Arm { 0x000f_0000..0x000f_0010 } else { 0..0 };
    (first..first + 700).chain([first + 0x00ff_ffff]).chain(private).flat_map(move |number| {
        let count = if looked_at.contains(&number) { FIRST_ARGUMENTS.len() } else { 1 };
        // Registers of 32-bit conventions reach a filter without a high half. Of x32's, libseccomp looks at the low one
        // alone; ours refuses what has anything in the other.
        let wide = matches!(abi, Abi::X86_64 | Abi::Aarch64);
        let cut = move |argument: u64| if wide { argument } else { argument & 0xffff_ffff };
        FIRST_ARGUMENTS.iter().rev().take(count).map(move |&argument| (number, cut(argument)))
    })
}

#[test]
fn dockers_profile_decides_as_libseccomp_would_for_every_call_capability_and_convention() {
    let sets = capability_sets();
    for machine in [Abi::X86_64, Abi::Aarch64] {
        let profiles: Vec<LinuxSeccomp> = sets.iter().map(|set| docker::profile(machine, set)).collect();
        let (theirs, unknown) = libseccomp(&profiles);
        assert!(unknown.len() < 40, "libseccomp knows too little: {unknown:?}");
        for ((profile, set), theirs) in profiles.iter().zip(&sets).zip(&theirs) {
            let ours = super::compile(&without(profile, &unknown), machine).unwrap();
            for &abi in family(machine) {
                for (number, argument) in calls(profile, abi) {
                    let arguments = [argument, 0, 0, 0, 0, 0];
                    assert_eq!(
                        run(&ours, abi.audit(), number, arguments),
                        run(theirs, abi.audit(), number, arguments),
                        "{abi:?} call {number} first argument {argument:#x} with {set:?}"
                    );
                }
            }
            let foreign = if machine == Abi::Aarch64 { Abi::X86_64 } else { Abi::Aarch64 };
            assert_eq!(run(&ours, foreign.audit(), 0, [0; 6]), run(theirs, foreign.audit(), 0, [0; 6]));
        }
    }
}

/// What `seccomp/default.json` of moby/profiles decides, at the commit 02e898b of 2026. Its text gives the same numbers when
/// it is read by `from_docker_json`: `SKIFF_MOBY_PROFILE=default.json` before this test compares a newer one.
const OF_MOBY: [(Abi, u64); 2] =
    [(Abi::X86_64, 0x41db_28c4_6822_df4c), (Abi::Aarch64, 0x294e_6fd8_0198_af11)];

#[test]
fn dockers_profile_decides_as_mobys_does() {
    let sets = capability_sets();
    // FNV-1a over every decision.
    let fingerprint = |machine: Abi, profile: &dyn Fn(&Capabilities) -> LinuxSeccomp| {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for set in &sets {
            let profile = profile(set);
            let filter = super::compile(&profile, machine).unwrap();
            for &abi in family(machine) {
                for (number, argument) in calls(&docker::profile(machine, set), abi) {
                    let decision = run(&filter, abi.audit(), number, [argument, 0, 0, 0, 0, 0]);
                    for byte in decision.to_le_bytes() {
                        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                    }
                }
            }
        }
        hash
    };
    for (machine, of_moby) in OF_MOBY {
        assert_eq!(fingerprint(machine, &|set| docker::profile(machine, set)), of_moby, "{machine:?}");
    }
    if let Some(path) = std::env::var_os("SKIFF_MOBY_PROFILE") {
        let text = std::fs::read_to_string(path).unwrap();
        for (machine, of_moby) in OF_MOBY {
            let read = |set: &Capabilities| json::read(&text, machine, set).unwrap();
            assert_eq!(fingerprint(machine, &read), of_moby, "moby's profile has changed for {machine:?}");
        }
    }
}

#[test]
fn conditions_of_every_kind_decide_as_libseccomps() {
    let operators = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
    let values = [0, 1, 7, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0007, u64::MAX];
    let mut profiles: Vec<LinuxSeccomp> = Vec::new();
    for operator in operators {
        for value in values {
            let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                    "args": [{"index": 1, "value": value, "valueTwo": value & 7, "op": format!("SCMP_CMP_{operator}")}]},
                {"names": ["fcntl"], "action": "SCMP_ACT_KILL_PROCESS",
                    "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"},
                        {"index": 2, "value": value, "valueTwo": value, "op": format!("SCMP_CMP_{operator}")}]}]});
            profiles.push(serde_json::from_value(json).unwrap());
        }
    }
    let (theirs, unknown) = libseccomp(&profiles);
    assert!(unknown.is_empty(), "{unknown:?}");
    for (profile, theirs) in profiles.iter().zip(&theirs) {
        let ours = compile(profile).unwrap();
        for name in ["lseek", "fcntl"] {
            let number = super::number(native(), name).unwrap();
            for first in [0, 3] {
                for second in values.into_iter().chain(values.map(|value| value.wrapping_sub(1))) {
                    let arguments = [first, second, second, 0, 0, 0];
                    let audit = native().audit();
                    assert_eq!(
                        run(&ours, audit, number, arguments),
                        run(theirs, audit, number, arguments),
                        "{name} {arguments:x?} {profile:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_name_of_the_table_is_a_call_that_libseccomp_or_a_newer_kernel_has() {
    let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": names().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}]});
    let profile: LinuxSeccomp = serde_json::from_value(json).unwrap();
    let (theirs, unknown) = libseccomp(std::slice::from_ref(&profile));
    let ours = compile(&without(&profile, &unknown)).unwrap();
    for number in 0..700 {
        let audit = native().audit();
        assert_eq!(
            run(&ours, audit, number, [0; 6]),
            run(&theirs[0], audit, number, [0; 6]),
            "call {number}"
        );
    }
}
