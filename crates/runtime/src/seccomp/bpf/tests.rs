use super::{compile as compile_for, *};
use crate::seccomp::{docker_default, docker_default_for};
use oci_spec::runtime::Capability;
use proptest::prelude::*;

/// Compiles for this machine.
fn compile(profile: &LinuxSeccomp) -> Result<Code, Error> {
    compile_for(profile, native())
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Runs a filter as the kernel does (Documentation/networking/filter.rst).
pub(super) fn run(code: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let Instruction { code: operation, jump_true, jump_false, value } = code[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
        match operation {
            LOAD => {
                let from = value as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            AND => accumulator &= value,
            JUMP => at += value as usize,
            EQUAL => at += jump(accumulator == value),
            GREATER => at += jump(accumulator > value),
            AT_LEAST => at += jump(accumulator >= value),
            RETURN => return value,
            other => panic!("unknown operation {other:#x}"),
        }
    }
}

fn call(code: &[Instruction], name: &str, first: u64) -> u32 {
    run(code, native().audit(), number(native(), name).unwrap(), [first, 0, 0, 0, 0, 0])
}

#[test]
fn the_default_profile_decides_as_dockers_does() {
    let code = compile(&docker_default()).unwrap();
    for name in ["read", "openat", "execve", "ptrace", "chroot", "statx", "futex_waitv"] {
        assert_eq!(call(&code, name, 0), ALLOW, "{name}");
    }
    for name in
        ["mount", "unshare", "setns", "bpf", "keyctl", "reboot", "swapon", "io_uring_setup", "kexec_load"]
    {
        assert_eq!(call(&code, name, 0), EPERM, "{name}");
    }
    assert_eq!(call(&code, "clone3", 0), ENOSYS);
    assert_eq!(call(&code, "clone", 17), ALLOW);
    assert_eq!(call(&code, "clone", 0x1000_0011), EPERM);
    let families: Vec<u64> = (0..64).filter(|&family| call(&code, "socket", family) == ALLOW).collect();
    assert_eq!(families.len(), 12 + 25);
    assert!(
        families.contains(&2) && families.contains(&16) && !families.contains(&40) && !families.contains(&38)
    );
    assert_eq!(call(&code, "personality", 0xffff_ffff), ALLOW);
    assert_eq!(call(&code, "personality", 0x0004_0000), EPERM);
    assert_eq!(run(&code, native().audit(), 0x3fff_ffff, [0; 6]), EPERM);
}

#[test]
fn capabilities_bring_system_calls() {
    let code = compile(&docker_default_for(&[Capability::SysAdmin].into_iter().collect())).unwrap();
    for name in ["mount", "unshare", "clone3", "setns"] {
        assert_eq!(call(&code, name, 0), ALLOW, "{name}");
    }
    assert_eq!(call(&code, "clone", 0x1000_0011), ALLOW);
    assert_eq!(call(&code, "chroot", 0), EPERM);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_convention_of_the_machine_has_its_own_numbers() {
    let code = compile(&docker_default()).unwrap();
    let i386 = Abi::I386.audit();
    assert_eq!(run(&code, i386, number(Abi::I386, "read").unwrap(), [0; 6]), ALLOW);
    assert_eq!(run(&code, i386, number(Abi::I386, "mount").unwrap(), [0; 6]), EPERM);
    assert_eq!(run(&code, Abi::X32.audit(), number(Abi::X32, "execve").unwrap(), [0; 6]), ALLOW);
    assert_eq!(run(&code, Abi::X32.audit(), number(Abi::X32, "mount").unwrap(), [0; 6]), EPERM);
    assert_eq!(run(&code, Abi::Aarch64.audit(), 0, [0; 6]), KILL_PROCESS);
    let mut native_only = docker_default();
    native_only.set_architectures(None);
    let code = compile(&native_only).unwrap();
    assert_eq!(run(&code, i386, 3, [0; 6]), KILL_PROCESS);
    assert_eq!(run(&code, Abi::X32.audit(), 0x4000_0000, [0; 6]), KILL_PROCESS);
}

#[test]
fn the_default_filter_is_short() {
    let length = compile(&docker_default()).unwrap().len();
    assert!(length < 2500, "{length} instructions");
}

#[test]
fn a_lookup_takes_few_steps() {
    let code = compile(&docker_default()).unwrap();
    // Loads, the arch and x32 tests, and the halving: far below one comparison for each of 400 calls.
    let depth = (code.len() as f64).log2() as usize + 10;
    let number = number(native(), "statx").unwrap();
    let mut at = 0;
    let mut steps = 0;
    let mut accumulator = 0;
    while code[at].code != RETURN {
        let one = code[at];
        at += 1;
        steps += 1;
        match one.code {
            LOAD if one.value == ARCH => accumulator = native().audit(),
            LOAD => accumulator = number,
            JUMP => at += one.value as usize,
            EQUAL => at += usize::from(if accumulator == one.value { one.jump_true } else { one.jump_false }),
            _ => at += usize::from(if accumulator >= one.value { one.jump_true } else { one.jump_false }),
        }
    }
    assert!(steps <= depth, "{steps} steps");
}

/// Whether a condition is met by a value.
pub(super) fn holds(arg: &LinuxSeccompArg, value: u64) -> bool {
    use LinuxSeccompOperator as Op;
    match arg.op() {
        Op::ScmpCmpNe => value != arg.value(),
        Op::ScmpCmpLt => value < arg.value(),
        Op::ScmpCmpLe => value <= arg.value(),
        Op::ScmpCmpEq => value == arg.value(),
        Op::ScmpCmpGe => value >= arg.value(),
        Op::ScmpCmpGt => value > arg.value(),
        Op::ScmpCmpMaskedEq => value & arg.value() == arg.value_two().unwrap_or(0) & arg.value(),
    }
}

fn any_operator() -> impl Strategy<Value = LinuxSeccompOperator> {
    use LinuxSeccompOperator as Op;
    prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ])
}

/// Values whose halves are often equal, so that both halves matter.
fn any_value() -> impl Strategy<Value = u64> {
    (0u64..3, 0u64..3).prop_map(|(high, low)| high << 32 | low | low << 31)
}

proptest! {
    #[test]
    fn comparisons_see_all_64_bits(op in any_operator(), value in any_value(), second in any_value(),
                                   index in 0usize..6, given in any_value()) {
        let arg = crate::seccomp::argument(index, op, value, Some(second));
        let rules = [Rule { conditions: vec![arg], action: ALLOW }];
        let code = outcome(&rules, EPERM);
        let mut arguments = [7u64; 6];
        arguments[index] = given;
        let wanted = if holds(&arg, given) { ALLOW } else { EPERM };
        prop_assert_eq!(run(&code, 0, 0, arguments), wanted);
    }

    #[test]
    fn the_search_finds_every_number(numbers in prop::collection::btree_set(0u32..600, 0..200), asked in 0u32..700) {
        let rules: BTreeMap<u32, Vec<Rule>> = numbers
            .iter()
            .map(|&n| (n, vec![Rule { conditions: Vec::new(), action: if n % 3 == 0 { ENOSYS } else { ALLOW } }]))
            .collect();
        let mut code = vec![op(LOAD, NUMBER)];
        code.extend(search(&ranges(&rules, EPERM)).unwrap());
        let wanted = rules.get(&asked).map_or(EPERM, |list| list[0].action);
        prop_assert_eq!(run(&code, 0, asked, [0; 6]), wanted);
    }
}
