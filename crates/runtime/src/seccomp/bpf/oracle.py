"""Compiles seccomp profiles with libseccomp: what our own compiler is compared with.

Reads from its standard input one JSON object: {"profiles": [OCI profile, ...], "out": directory}. Writes OUT/N.bpf for each
profile and prints the names that libseccomp does not know, which it leaves out, as a JSON list.
"""

import json
import sys

import seccomp

ARCHES = {
    "SCMP_ARCH_X86_64": seccomp.Arch.X86_64,
    "SCMP_ARCH_X86": seccomp.Arch.X86,
    "SCMP_ARCH_X32": seccomp.Arch.X32,
    "SCMP_ARCH_AARCH64": seccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": seccomp.Arch.ARM,
}
OPERATORS = {
    "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_NE": seccomp.NE,
    "SCMP_CMP_LT": seccomp.LT,
    "SCMP_CMP_LE": seccomp.LE,
    "SCMP_CMP_GT": seccomp.GT,
    "SCMP_CMP_GE": seccomp.GE,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}


def action(name, errno):
    if name == "SCMP_ACT_ERRNO":
        return seccomp.ERRNO(1 if errno is None else errno)
    if name == "SCMP_ACT_TRACE":
        return seccomp.TRACE(1 if errno is None else errno)
    return {
        "SCMP_ACT_ALLOW": seccomp.ALLOW,
        "SCMP_ACT_KILL": seccomp.KILL,
        "SCMP_ACT_KILL_THREAD": seccomp.KILL,
        "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
        "SCMP_ACT_LOG": seccomp.LOG,
        "SCMP_ACT_TRAP": seccomp.TRAP,
    }[name]


def compile_profile(profile, path, unknown):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    compiled = seccomp.SyscallFilter(default)
    compiled.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    arches = profile.get("architectures") or []
    for arch in arches:
        if not compiled.exist_arch(ARCHES[arch]):
            compiled.add_arch(ARCHES[arch])
    # A filter for another machine does not have this one's convention.
    if arches and seccomp.system_arch() not in (int(ARCHES[arch]) & 0xFFFFFFFF for arch in arches):
        compiled.remove_arch(seccomp.Arch.NATIVE)
    for rule in profile.get("syscalls", []):
        wanted = action(rule["action"], rule.get("errnoRet"))
        if wanted == default:
            continue
        conditions = []
        for arg in rule.get("args") or []:
            op, first, second = OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo") or 0
            conditions.append(seccomp.Arg(arg["index"], op, first, second))
        for name in rule["names"]:
            try:
                compiled.add_rule(wanted, name, *conditions)
            except (ValueError, RuntimeError, OSError):
                unknown.add(name)
    with open(path, "wb") as file:
        compiled.export_bpf(file)


def main():
    wanted = json.load(sys.stdin)
    unknown = set()
    for index, profile in enumerate(wanted["profiles"]):
        compile_profile(profile, f"{wanted['out']}/{index}.bpf", unknown)
    print(json.dumps(sorted(unknown)))


main()
