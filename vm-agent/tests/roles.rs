//! What the agent is besides the guest's first process.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn the_agent_is_the_runtime_by_a_role_and_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("skiff-oci");
    let agent = env!("CARGO_BIN_EXE_skiff-agent");
    std::os::unix::fs::symlink(agent, &link).unwrap();
    let told = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let by_role = told(Command::new(agent).args(["oci", "features"]));
    assert!(by_role.contains("ociVersionMax"), "{by_role}");
    assert_eq!(told(Command::new(&link).arg("features")), by_role);
}
