//! Profiles that nobody would write: refused with a reason, or compiled to what their rules say, one after the other.

use super::tests::{holds, run};
use super::*;
use crate::seccomp::{Error, from_docker_json};
use oci_spec::runtime::Capabilities;
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 9] =
    ["read", "socket", "clone", "personality", "socketcall", "sendmsg", "nosuchcall", "", "openat"];
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, Just(u64::MAX), any::<u64>(), (0u64..3).prop_map(|high| high << 32 | 1)]
}

fn any_argument() -> impl Strategy<Value = Value> {
    (0usize..7, prop::sample::select(&OPERATORS[..]), any_value(), any_value()).prop_map(
        |(index, op, value, second)| json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": second}),
    )
}

/// What a rule includes or excludes; mostly nothing.
fn any_filter() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({}),
        json!({"caps": ["CAP_SYS_ADMIN"]}),
        json!({"caps": ["CAP_CHOWN"]}),
        json!({"arches": ["amd64", "arm64"]}),
        json!({"arches": ["s390"]}),
        json!({"minKernel": "4.8"}),
        json!({"minKernel": "999.0"}),
        json!({"minKernel": "new"}),
    ])
}

fn any_rule() -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(prop::sample::select(&NAMES[..]), 0..4),
        prop::sample::select(&ACTIONS[..]),
        prop::option::of(0u32..100_000),
        prop::collection::vec(any_argument(), 0..4),
        any_filter(),
        any_filter(),
    )
        .prop_map(|(names, action, errno, args, includes, excludes)| {
            json!({"names": names, "action": action, "errnoRet": errno, "args": args, "includes": includes, "excludes": excludes})
        })
}

fn any_profile() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(&ACTIONS[..]),
        prop::option::of(0u32..5000),
        prop::collection::vec(any_rule(), 0..10),
        prop::sample::select(vec![
            json!({}),
            json!({"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_ARM", "SCMP_ARCH_X86"]}),
            json!({"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}]}),
            json!({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_ARM"}]}),
        ]),
    )
        .prop_map(|(action, errno, rules, mut profile)| {
            profile["defaultAction"] = action.into();
            profile["defaultErrnoRet"] = errno.into();
            profile["syscalls"] = rules.into();
            profile
        })
}

/// What the rules say, read from the first to the last.
fn decision(profile: &LinuxSeccomp, name: &str, arguments: [u64; 6]) -> u32 {
    let default = action(profile.default_action(), profile.default_errno_ret());
    for rule in profile.syscalls().iter().flatten() {
        let wanted = action(rule.action(), rule.errno_ret());
        let conditions = rule.args().clone().unwrap_or_default();
        let mut met = conditions.iter().map(|arg| holds(arg, arguments[arg.index()]));
        let met = if has_repeated_index(&conditions) { met.any(|met| met) } else { met.all(|met| met) };
        if wanted != default && rule.names().iter().any(|known| known == name) && met {
            return wanted;
        }
    }
    default
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_profile_is_refused_with_a_reason_or_decides_as_its_rules_in_turn(
        profile in any_profile(), arguments in prop::array::uniform6(any_value()),
    ) {
        let read = from_docker_json(&profile.to_string(), &Capabilities::new());
        let compiled = match read {
            Ok(profile) => compile(&profile, native()).map(|code| (profile, code)),
            Err(error) => Err(error),
        };
        match compiled {
            Ok((profile, code)) => {
                prop_assert!(code.len() <= MAX_INSTRUCTIONS);
                for name in NAMES {
                    let Some(number) = number(native(), name) else { continue };
                    let made = run(&code, native().audit(), number, arguments);
                    prop_assert_eq!(made, decision(&profile, name, arguments), "{} {:?}", name, arguments);
                }
            }
            Err(Error::Argument { index, .. }) => prop_assert_eq!(index, 6),
            Err(Error::Unsupported { what }) => prop_assert!(what.contains("SCMP_ACT_NOTIFY")),
            Err(Error::Profile { what }) => prop_assert!(what.contains("kernel version") || what.contains("archMap"), "{}", what),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![".{0,60}", "[\\[\\]{}:,\"a-z0-9]{0,60}"]) {
        let _ = from_docker_json(&text, &Capabilities::new());
    }

    #[test]
    fn a_profile_with_anything_in_place_of_a_part_is_read_or_refused(
        profile in any_profile(), key in prop::sample::select(vec!["defaultAction", "archMap", "architectures", "syscalls",
            "/syscalls/0/names", "/syscalls/0/args", "/syscalls/0/includes", "/syscalls/0/action", "/syscalls/0/errnoRet"]),
        other in prop::sample::select(vec![json!(null), json!(-1), json!("x"), json!([null]), json!({"a": 1}), json!(1e300)]),
    ) {
        let mut profile = profile;
        if let Some(place) = profile.pointer_mut(key) {
            *place = other;
        } else if !key.starts_with('/') {
            profile[key] = other;
        }
        if let Ok(profile) = from_docker_json(&profile.to_string(), &Capabilities::new()) {
            let _ = compile(&profile, native());
        }
    }
}
