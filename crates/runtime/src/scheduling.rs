//! Processors, priorities, memory nodes and execution domain of a process.

use crate::error::Error;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use skiff_linux_sys::child::{Program, SchedulerAttributes, Step};

/// The highest processor or memory node that a list may name.
const HIGHEST: u32 = 8191;

/// Adds the steps that need privileges which the process does not keep.
pub(crate) fn push(process: &Process, linux: Option<&Linux>, program: &mut Program) -> Result<(), Error> {
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        if !(0..=7).contains(&priority.priority()) {
            return Err(invalid(format!(
                "process.ioPriority.priority {} is not in 0-7",
                priority.priority()
            )));
        }
        let value = class << 13 | priority.priority() as i32;
        program.push(Step::IoPriority(value), "setting the io priority");
    }
    if let Some(scheduler) = process.scheduler() {
        program.push(Step::Scheduler(attributes(scheduler)?), "setting the scheduler");
    }
    if let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) {
        let nodes = policy.nodes().as_deref().unwrap_or("");
        let nodes = if nodes.is_empty() { Vec::new() } else { mask(nodes, "linux.memoryPolicy.nodes")? };
        let mode =
            mode(policy.mode()) | policy.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag));
        program.push(Step::MemoryPolicy { mode, nodes }, "setting the memory policy");
    }
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        // linux/personality.h
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            return Err(invalid("linux.personality.flags are not defined by the spec".into()));
        }
        program.push(Step::Personality(domain), "setting the personality");
    }
    Ok(())
}

/// Adds the step for the processors of a process that joins a container.
pub(crate) fn push_affinity(process: &Process, program: &mut Program) -> Result<(), Error> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(()) };
    let last = affinity.cpu_affinity_final().as_ref().or(affinity.initial().as_ref());
    if let Some(list) = last.filter(|list| !list.is_empty()) {
        let mask = mask(list, "process.execCPUAffinity")?;
        program.push(Step::Affinity(mask), "setting the cpu affinity");
    }
    Ok(())
}

fn invalid(what: String) -> Error {
    Error::Spec { what }
}

fn attributes(scheduler: &Scheduler) -> Result<SchedulerAttributes, Error> {
    // linux/sched.h
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(invalid("process.scheduler.policy: Linux has no SCHED_ISO".into()));
        }
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0u64, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    let priority = scheduler.priority().unwrap_or(0);
    let priority = u32::try_from(priority)
        .map_err(|_| invalid(format!("process.scheduler.priority {priority} is negative")))?;
    Ok(SchedulerAttributes {
        policy,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..SchedulerAttributes::default()
    })
}

fn mode(mode: MemoryPolicyModeType) -> i32 {
    // linux/mempolicy.h
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

fn flag_bit(flag: MemoryPolicyFlagType) -> i32 {
    match flag {
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
    }
}

/// A list like `0-3,7` (cpuset(7), "List format") as a bit mask.
fn mask(list: &str, field: &str) -> Result<Vec<u64>, Error> {
    let wrong = || invalid(format!("{field}: \"{list}\" is no list of numbers up to {HIGHEST}"));
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|&n| n <= HIGHEST).ok_or_else(wrong);
    let mut mask: Vec<u64> = Vec::new();
    for part in list.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(wrong());
        }
        for bit in first..=last {
            let word = bit as usize / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << (bit % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("0-3,7", "x").unwrap(), [0x8f]);
        assert_eq!(mask("64", "x").unwrap(), [0, 1]);
        for wrong in ["", "a", "3-1", "8192", "1,,2", "-1"] {
            assert!(mask(wrong, "x").is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_list(text in "[0-9,-]{0,24}") {
            if let Ok(mask) = mask(&text, "x") {
                prop_assert!(mask.len() <= 128);
            }
        }
    }
}
