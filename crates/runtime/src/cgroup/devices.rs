//! Which devices the processes of a cgroup may use, as a program for the kernel (runc's `devicefilter` is the model).
//!
//! The kernel asks it with three numbers: kind and access of the device in one, major, minor. The last rule that speaks
//! of a device decides; what no rule speaks of is refused.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// `BPF_DEVCG_DEV_*` and `BPF_DEVCG_ACC_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ANY_ACCESS: i32 = MAKE | READ | WRITE;

/// Registers.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Operations (`code` of `struct bpf_insn`).
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_NUMBER: u8 = 0xb4;
const JUMP_IF_NOT_NUMBER: u8 = 0x55;
const JUMP_IF_NOT: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = number.to_ne_bytes();
    u64::from_ne_bytes([code, registers, a, b, c, d, e, f])
}

/// Makes the program for a list of rules.
pub(super) fn program(rules: &[LinuxDeviceCgroup]) -> Vec<u64> {
    let mut program = vec![
        instruction(LOAD, KIND, CONTEXT, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD, ACCESS, CONTEXT, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend(answer(false));
    program
}

fn answer(allow: bool) -> [u64; 2] {
    [instruction(MOVE_NUMBER, ANSWER, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)]
}

/// The instructions of one rule: every test that fails jumps behind them.
fn block(rule: &LinuxDeviceCgroup) -> Vec<u64> {
    // Tests as the two registers or the register and the number that must be equal.
    let mut tests: Vec<(u8, Option<i32>)> = Vec::new();
    match rule.typ() {
        Some(LinuxDeviceType::B) => tests.push((KIND, Some(BLOCK))),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => tests.push((KIND, Some(CHARACTER))),
        _ => {}
    }
    let access = rule.access().as_deref().unwrap_or("rwm");
    let bits = access.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => MAKE,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        }
    });
    let number =
        |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok()).filter(|n| *n >= 0);
    tests.extend(number(rule.major()).map(|major| (MAJOR, Some(major))));
    tests.extend(number(rule.minor()).map(|minor| (MINOR, Some(minor))));
    let masked = bits != ANY_ACCESS;
    let length = tests.len() + if masked { 3 } else { 0 } + 2;
    let mut block = Vec::with_capacity(length);
    // From the instruction after the jump to the one after the block.
    let past = |at: usize| (length - at - 1) as i16;
    if masked {
        block.push(instruction(MOVE, CONTEXT, ACCESS, 0, 0));
        block.push(instruction(AND, CONTEXT, 0, 0, bits));
        block.push(instruction(JUMP_IF_NOT, CONTEXT, ACCESS, past(2), 0));
    }
    for (register, wanted) in tests {
        let wanted = wanted.unwrap_or_default();
        block.push(instruction(JUMP_IF_NOT_NUMBER, register, 0, past(block.len()), wanted));
    }
    block.extend(answer(rule.allow()));
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rules(text: &str) -> Vec<LinuxDeviceCgroup> {
        text.split(';')
            .map(|rule| {
                let words: Vec<&str> = rule.split_whitespace().collect();
                let number = |text: &str| text.parse::<i64>().ok();
                let (major, minor) = words[2].split_once(':').unwrap();
                serde_json::from_value(json!({
                    "allow": words[0] == "+", "type": words[1], "major": number(major), "minor": number(minor),
                    "access": words[3],
                }))
                .unwrap()
            })
            .collect()
    }

    /// What the kernel's machine makes of a program.
    fn run(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut registers = [0i64; 11];
        let mut at = 0;
        loop {
            let bytes = program[at].to_ne_bytes();
            let (to, from) = (usize::from(bytes[1] & 15), usize::from(bytes[1] >> 4));
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let number = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            let mut jump = |wanted: bool| at = if wanted { at + offset as usize } else { at };
            match bytes[0] {
                LOAD => registers[to] = context[offset as usize / 4].into(),
                AND => registers[to] &= i64::from(number),
                SHIFT_RIGHT => registers[to] >>= number,
                MOVE => registers[to] = registers[from],
                MOVE_NUMBER => registers[to] = number.into(),
                JUMP_IF_NOT => jump(registers[to] != registers[from]),
                JUMP_IF_NOT_NUMBER => jump(registers[to] != i64::from(number)),
                EXIT => return registers[0] == 1,
                code => panic!("no such operation: {code:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_speaks_of_a_device_decides() {
        let program = program(&rules("+ c *:* m; + c 1:3 rwm; + b 8:* r; - b 8:1 r"));
        assert!(run(&program, CHARACTER, MAKE, 10, 200));
        assert!(!run(&program, CHARACTER, READ, 10, 200));
        assert!(run(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(!run(&program, BLOCK, READ | WRITE, 8, 0));
        assert!(run(&program, BLOCK, READ, 8, 0));
        assert!(!run(&program, BLOCK, READ, 8, 1));
        assert!(!run(&program, BLOCK, MAKE, 1, 3));
    }

    proptest! {
        #[test]
        fn programs_judge_as_their_rules_say(
            list in proptest::collection::vec((any::<bool>(), 0..3, -1i64..3, -1i64..3, 1i32..8), 0..5),
            kind in 1i32..3, access in 1i32..8, major in 0i32..3, minor in 0i32..3,
        ) {
            let rules: Vec<LinuxDeviceCgroup> = list.iter().map(|&(allow, typ, major, minor, access)| {
                let letters: String =
                    [('m', 1), ('r', 2), ('w', 4)].iter().filter(|(_, bit)| access & bit != 0).map(|(letter, _)| *letter).collect();
                serde_json::from_value(json!({
                    "allow": allow, "type": (["a", "b", "c"][typ as usize]), "major": major, "minor": minor, "access": letters,
                })).unwrap()
            }).collect();
            let expected = list.iter().rev().find(|&&(_, typ, rule_major, rule_minor, rule_access)| {
                (typ == 0 || typ == kind)
                    && access & !rule_access == 0
                    && (rule_major < 0 || rule_major == i64::from(major))
                    && (rule_minor < 0 || rule_minor == i64::from(minor))
            }).is_some_and(|rule| rule.0);
            prop_assert_eq!(run(&program(&rules), kind, access, major, minor), expected);
        }
    }
}
