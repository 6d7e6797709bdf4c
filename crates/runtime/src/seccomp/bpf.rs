//! From a profile to a filter programme.
//!
//! ```text
//!  load arch ── which convention? ── load number ── binary search over ranges of numbers with one outcome
//!                    │                                  ├─ return an action
//!               unknown: kill                           └─ compare arguments, rule by rule, then return
//! ```

use super::Error;
use super::syscalls::{Abi, number};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use skiff_linux_sys::seccomp::{Instruction, MAX_INSTRUCTIONS};
use std::collections::BTreeMap;

// linux/bpf_common.h
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// struct seccomp_data of linux/seccomp.h
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
/// Numbers of the x32 convention have this bit; it shares its audit value with x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// One way to an action: all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    action: u32,
}

type Code = Vec<Instruction>;

fn op(code: u16, value: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, value }
}

fn branch(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, value }
}

/// Compiles for a machine whose own convention is `native`.
pub(super) fn compile(profile: &LinuxSeccomp, native: Abi) -> Result<Code, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    check_notify(profile)?;
    check_arguments(profile)?;
    let mut abis = vec![native];
    for arch in profile.architectures().iter().flatten() {
        if let Some(abi) =
            abi(*arch, native).filter(|abi| family(native).contains(abi) && !abis.contains(abi))
        {
            abis.push(abi);
        }
    }
    let mut code = vec![op(LOAD, ARCH)];
    for abi in abis.iter().filter(|&&abi| abi != Abi::X32) {
        let mut section = vec![op(LOAD, NUMBER)];
        if *abi == Abi::X86_64 {
            let x32 = if abis.contains(&Abi::X32) {
                search(&ranges(&rules(profile, Abi::X32, default), default))?
            } else {
                vec![op(RETURN, KILL_PROCESS)]
            };
            let below = search(&ranges(&rules(profile, Abi::X86_64, default), default))?;
            section.push(branch(AT_LEAST, X32_BIT, 0, 1));
            section.push(op(JUMP, below.len() as u32));
            section.extend(below);
            section.extend(x32);
        } else {
            section.extend(search(&ranges(&rules(profile, *abi, default), default))?);
        }
        code.push(branch(EQUAL, abi.audit(), 1, 0));
        code.push(op(JUMP, section.len() as u32));
        code.extend(section);
    }
    code.push(op(RETURN, KILL_PROCESS));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong { length: code.len() });
    }
    Ok(code)
}

/// The convention of this machine.
pub(super) fn native() -> Abi {
    if cfg!(target_arch = "aarch64") { Abi::Aarch64 } else { Abi::X86_64 }
}

/// The conventions that a machine can run.
fn family(native: Abi) -> &'static [Abi] {
    match native {
        Abi::Aarch64 | Abi::Arm => &[Abi::Aarch64, Abi::Arm],
        Abi::X86_64 | Abi::I386 | Abi::X32 => &[Abi::X86_64, Abi::I386, Abi::X32],
    }
}

fn abi(arch: Arch, native: Abi) -> Option<Abi> {
    match arch {
        Arch::ScmpArchNative => Some(native),
        Arch::ScmpArchX86 => Some(Abi::I386),
        Arch::ScmpArchX86_64 => Some(Abi::X86_64),
        Arch::ScmpArchX32 => Some(Abi::X32),
        Arch::ScmpArchArm => Some(Abi::Arm),
        Arch::ScmpArchAarch64 => Some(Abi::Aarch64),
        _ => None,
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    // Only the low 16 bits carry data; the kernel cuts errnos at 4095.
    action.as_u32(errno.map(|errno| errno & 0xffff))
}

/// The process makes this call to hand its listener over; nobody could answer a notification before that.
fn check_notify(profile: &LinuxSeccomp) -> Result<(), Error> {
    const HAND_OVER: &str = "sendmsg";
    let notify = LinuxSeccompAction::ScmpActNotify;
    let named =
        profile.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|name| name == HAND_OVER));
    let mut named = named.peekable();
    let by_default = profile.default_action() == notify && named.peek().is_none();
    if by_default || named.any(|rule| rule.action() == notify) {
        return Err(Error::Unsupported { what: "SCMP_ACT_NOTIFY for sendmsg" });
    }
    Ok(())
}

/// Refuses conditions on arguments that no call has, wherever they are.
fn check_arguments(profile: &LinuxSeccomp) -> Result<(), Error> {
    for rule in profile.syscalls().iter().flatten() {
        if let Some(bad) = rule.args().iter().flatten().find(|condition| condition.index() > 5) {
            let name = rule.names().first().cloned().unwrap_or_default();
            return Err(Error::Argument { name, index: bad.index() });
        }
    }
    Ok(())
}

/// The rules of every call of one convention, in the profile's order. A rule without conditions ends the list.
fn rules(profile: &LinuxSeccomp, abi: Abi, default: u32) -> BTreeMap<u32, Vec<Rule>> {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = action(entry.action(), entry.errno_ret());
        if action == default {
            continue;
        }
        for name in entry.names() {
            // Names that this convention lacks can't be called in it.
            let Some(number) = number(abi, name) else { continue };
            let list = rules.entry(number).or_default();
            if list.last().is_some_and(|rule| rule.conditions.is_empty()) {
                continue;
            }
            let conditions = entry.args().clone().unwrap_or_default();
            if has_repeated_index(&conditions) {
                // As libseccomp's callers do it: conditions on one argument are alternatives.
                list.extend(conditions.into_iter().map(|one| Rule { conditions: vec![one], action }));
            } else {
                list.push(Rule { conditions, action });
            }
        }
    }
    rules
}

fn has_repeated_index(conditions: &[LinuxSeccompArg]) -> bool {
    let mut seen = [false; 6];
    conditions.iter().any(|condition| std::mem::replace(&mut seen[condition.index()], true))
}

/// Cuts all numbers into ranges with one outcome, as (first number, code).
fn ranges(rules: &BTreeMap<u32, Vec<Rule>>, default: u32) -> Vec<(u32, Code)> {
    let otherwise = vec![op(RETURN, default)];
    let mut ranges: Vec<(u32, Code)> = vec![(0, otherwise.clone())];
    let mut add = |first: u32, code: Code| match ranges.last_mut() {
        Some((start, last)) if *start == first => *last = code,
        Some((_, last)) if *last == code => {}
        _ => ranges.push((first, code)),
    };
    let mut next = 0;
    for (&number, list) in rules {
        if number > next {
            add(next, otherwise.clone());
        }
        add(number, outcome(list, default));
        next = number.saturating_add(1);
    }
    add(next, otherwise);
    ranges
}

/// Finds the range of the loaded number by halving.
fn search(ranges: &[(u32, Code)]) -> Result<Code, Error> {
    match ranges {
        [] => Ok(Vec::new()),
        [(_, code)] => Ok(code.clone()),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(first, _)| *first);
            let (low, high) = (search(low)?, search(high)?);
            let mut code = Vec::with_capacity(low.len() + high.len() + 2);
            match u8::try_from(low.len()) {
                Ok(skip) => code.push(branch(AT_LEAST, middle, skip, 0)),
                Err(_) => {
                    code.push(branch(AT_LEAST, middle, 0, 1));
                    code.push(op(JUMP, low.len() as u32));
                }
            }
            code.extend(low);
            code.extend(high);
            Ok(code)
        }
    }
}

/// The code for one call: its rules in turn, then the default.
fn outcome(rules: &[Rule], default: u32) -> Code {
    let mut code = Vec::new();
    for rule in rules {
        let mut one: Code = rule.conditions.iter().flat_map(condition).collect();
        one.push(op(RETURN, rule.action));
        // A condition that fails goes behind the rule's return. At most 6 conditions of 6 instructions: fits in a byte.
        let end = one.len();
        for (at, instruction) in one.iter_mut().enumerate() {
            let behind = (end - at - 1) as u8;
            if instruction.jump_true == FAIL {
                instruction.jump_true = behind;
            }
            if instruction.jump_false == FAIL {
                instruction.jump_false = behind;
            }
        }
        code.extend(one);
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(op(RETURN, default));
    code
}

/// Stands for a jump behind the rule until the rule's length is known.
const FAIL: u8 = u8::MAX;

/// Compares one 64-bit argument, high half first: falls through when the condition holds.
fn condition(arg: &LinuxSeccompArg) -> Code {
    use LinuxSeccompOperator as Op;
    let low = ARGUMENTS + 8 * arg.index() as u32;
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (h, l) = halves(arg.value());
    match arg.op() {
        Op::ScmpCmpEq => {
            vec![op(LOAD, high), branch(EQUAL, h, 0, FAIL), op(LOAD, low), branch(EQUAL, l, 0, FAIL)]
        }
        Op::ScmpCmpNe => {
            vec![op(LOAD, high), branch(EQUAL, h, 0, 2), op(LOAD, low), branch(EQUAL, l, FAIL, 0)]
        }
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            let compare = if arg.op() == Op::ScmpCmpGt { GREATER } else { AT_LEAST };
            let equal = branch(EQUAL, h, 0, FAIL);
            vec![op(LOAD, high), branch(GREATER, h, 3, 0), equal, op(LOAD, low), branch(compare, l, 0, FAIL)]
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            let compare = if arg.op() == Op::ScmpCmpLt { AT_LEAST } else { GREATER };
            let equal = branch(EQUAL, h, 0, 2);
            vec![
                op(LOAD, high),
                branch(GREATER, h, FAIL, 0),
                equal,
                op(LOAD, low),
                branch(compare, l, FAIL, 0),
            ]
        }
        Op::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(arg.value_two().unwrap_or(0) & arg.value());
            vec![
                op(LOAD, high),
                op(AND, h),
                branch(EQUAL, wanted_high, 0, FAIL),
                op(LOAD, low),
                op(AND, l),
                branch(EQUAL, wanted_low, 0, FAIL),
            ]
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
