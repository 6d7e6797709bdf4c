//! Device rules of the spec as a filter of cgroup v2.
//!
//! ```text
//!  r2 = kind   r3 = what is asked and not yet granted   r4 = major   r5 = minor
//!  rules, the last one first:
//!     another device: next rule
//!     allows:  r3 &= !access; nothing left: return 1
//!     refuses: r3 & access:   return 0
//!  return 0
//! ```
//!
//! So each of read, write and mknod is decided by the last rule that speaks of it, whatever others are asked with it.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use skiff_linux_sys::bpf::Instruction;

// linux/bpf.h
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_UNEQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// BPF_DEVCG_*
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// What every container may use whatever its rules say, as in runc: making nodes, and the devices of its `/dev`.
pub(super) const ALWAYS: [Rule; 11] = [
    device(CHARACTER, None, None, MKNOD),
    device(BLOCK, None, None, MKNOD),
    device(CHARACTER, Some(1), Some(3), MKNOD | READ | WRITE),
    device(CHARACTER, Some(1), Some(5), MKNOD | READ | WRITE),
    device(CHARACTER, Some(1), Some(7), MKNOD | READ | WRITE),
    device(CHARACTER, Some(1), Some(8), MKNOD | READ | WRITE),
    device(CHARACTER, Some(1), Some(9), MKNOD | READ | WRITE),
    device(CHARACTER, Some(5), Some(0), MKNOD | READ | WRITE),
    device(CHARACTER, Some(5), Some(1), MKNOD | READ | WRITE),
    device(CHARACTER, Some(5), Some(2), MKNOD | READ | WRITE),
    device(CHARACTER, Some(136), None, MKNOD | READ | WRITE),
];

const fn device(kind: i32, major: Option<u32>, minor: Option<u32>, access: i32) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

/// One rule; what is `None` matches everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

/// Compiles rules, which apply in their order, and those of every container behind them.
///
/// # Errors
/// The text of what is wrong with a rule, naming it.
pub(super) fn compile(rules: &[LinuxDeviceCgroup], always: &[Rule]) -> Result<Vec<Instruction>, String> {
    let mut list = Vec::with_capacity(rules.len() + always.len());
    for (index, rule) in rules.iter().enumerate() {
        list.push(read(rule).map_err(|what| format!("linux.resources.devices[{index}]: {what}"))?);
    }
    list.extend(always);
    Ok(assemble(&list))
}

fn read(rule: &LinuxDeviceCgroup) -> Result<Rule, String> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
        Some(LinuxDeviceType::P) => return Err("type \"p\" is no device".into()),
    };
    let number = |number: Option<i64>, name: &str| match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            // The filter compares with signed constants; no device number comes near their end.
            i32::try_from(number)
                .ok()
                .and_then(|number| u32::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| format!("{name} {number} is out of range"))
        }
    };
    let (major, minor) = (number(rule.major(), "major")?, number(rule.minor(), "minor")?);
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(format!("access \"{other}\" is none of \"r\", \"w\" and \"m\"")),
        };
    }
    Ok(Rule { allow: rule.allow(), kind, major, minor, access })
}

fn op(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, value }
}

fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
    let mut code = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE_REGISTER, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let act = match rule.allow {
            true => vec![
                op(AND, 3, 0, 0, !rule.access),
                op(JUMP_UNEQUAL, 3, 0, 2, 0),
                op(MOVE, 0, 0, 0, 1),
                op(EXIT, 0, 0, 0, 0),
            ],
            false => vec![
                op(MOVE_REGISTER, 1, 3, 0, 0),
                op(AND, 1, 0, 0, rule.access),
                op(JUMP_EQUAL, 1, 0, 2, 0),
                op(MOVE, 0, 0, 0, 0),
                op(EXIT, 0, 0, 0, 0),
            ],
        };
        let tests: Vec<(u8, i32)> = [
            rule.kind.map(|kind| (2, kind)),
            rule.major.map(|major| (4, major as i32)),
            rule.minor.map(|minor| (5, minor as i32)),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (index, (register, value)) in tests.iter().enumerate() {
            let behind = tests.len() - index - 1 + act.len();
            code.push(op(JUMP_UNEQUAL, *register, 0, behind as i16, *value));
        }
        code.extend(act);
    }
    code.extend([op(MOVE, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a filter as the kernel would.
    fn run(code: &[Instruction], kind: i32, access: i32, major: u32, minor: u32) -> u64 {
        let context = [(access << 16 | kind) as u32, major, minor];
        let (mut registers, mut at) = ([0u64; 11], 0usize);
        loop {
            let Instruction { code: operation, registers: named, offset, value } = code[at];
            let (to, from) = (usize::from(named & 15), usize::from(named >> 4));
            let constant = i64::from(value) as u64;
            at += 1;
            let jump = match operation {
                LOAD_WORD => {
                    registers[to] = u64::from(context[offset as usize / 4]);
                    false
                }
                MOVE => {
                    registers[to] = constant;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= constant;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                JUMP_EQUAL => registers[to] == constant,
                JUMP_UNEQUAL => registers[to] != constant,
                EXIT => return registers[0],
                other => panic!("operation {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    /// What the rules say of one kind of access, read plainly.
    fn allowed(rules: &[Rule], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&Rule| {
                rule.access & bit != 0
                    && rule.kind.is_none_or(|wanted| wanted == kind)
                    && rule.major.is_none_or(|wanted| wanted == major)
                    && rule.minor.is_none_or(|wanted| wanted == minor)
            };
            rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn dockers_rules_let_the_usual_devices_through() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":200,"access":"rw"}]"#,
        )
        .unwrap();
        let code = compile(&rules, &ALWAYS).unwrap();
        assert_eq!(run(&code, CHARACTER, READ | WRITE, 1, 3), 1);
        assert_eq!(run(&code, CHARACTER, READ | WRITE, 10, 200), 1);
        assert_eq!(run(&code, CHARACTER, READ | WRITE | MKNOD, 10, 200), 1);
        assert_eq!(run(&code, BLOCK, MKNOD, 8, 0), 1);
        assert_eq!(run(&code, BLOCK, READ, 8, 0), 0);
        assert_eq!(run(&code, CHARACTER, READ, 10, 229), 0);
    }

    #[test]
    fn wrong_rules_are_named() {
        let wrong = |json: &str| compile(&serde_json::from_str::<Vec<_>>(json).unwrap(), &[]).unwrap_err();
        assert!(wrong(r#"[{"allow":true},{"allow":true,"access":"x"}]"#).contains("devices[1]: access"));
        assert!(wrong(r#"[{"allow":true,"major":-7}]"#).contains("major -7"));
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let number = || proptest::option::of(0u32..3);
        (any::<bool>(), proptest::option::of(1i32..3), number(), number(), 0i32..8)
            .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
    }

    proptest! {
        #[test]
        fn the_last_rule_decides_each_kind_of_access(
            rules in proptest::collection::vec(rule(), 0..12),
            kind in 1i32..3, access in 1i32..8, major in 0u32..3, minor in 0u32..3,
        ) {
            let code = assemble(&rules);
            let wanted = u64::from(allowed(&rules, kind, access, major, minor));
            prop_assert_eq!(run(&code, kind, access, major, minor), wanted);
        }
    }
}
