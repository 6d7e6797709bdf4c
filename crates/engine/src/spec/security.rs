//! Capabilities, seccomp and the other security options.

use std::collections::HashSet;

use bollard_stubs::models::HostConfig;
use oci_spec::runtime::{Capability, LinuxSeccomp};
use skiff_runtime::{DEFAULT_CAPABILITIES, all_capabilities, capability_from_name, seccomp};

use crate::error::{Error, Result};

/// Which seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Profile {
    Default,
    Unconfined,
    Json(String),
}

/// What a container may do.
#[derive(Debug)]
pub struct Security {
    /// Everything.
    pub privileged: bool,
    /// No program gets more rights than its caller.
    pub no_new_privileges: bool,
    /// Nothing of `/proc` and `/sys` is hidden.
    pub system_paths_unconfined: bool,
    /// Its capabilities.
    pub capabilities: HashSet<Capability>,
    profile: Profile,
}

impl Security {
    /// Reads the host configuration.
    ///
    /// # Errors
    /// For an option or a capability that does not exist: security is never guessed.
    pub fn of(host: &HostConfig) -> Result<Self> {
        let privileged = host.privileged.unwrap_or(false);
        let mut security = Self {
            privileged,
            no_new_privileges: false,
            system_paths_unconfined: false,
            capabilities: capabilities(host, privileged)?,
            profile: if privileged { Profile::Unconfined } else { Profile::Default },
        };
        for option in host.security_opt.iter().flatten() {
            security.apply(option)?;
        }
        Ok(security)
    }

    fn apply(&mut self, option: &str) -> Result<()> {
        match option {
            "no-new-privileges" => {
                self.no_new_privileges = true;
                return Ok(());
            }
            // No SELinux label is ever set: as dockerd on a kernel without it, options for labels mean nothing.
            "disable" => return Ok(()),
            _ => {}
        }
        // The colon is the separator of old clients.
        let split = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((key, value)) = split else {
            return Err(Error::invalid(format!("invalid --security-opt 1: {option:?}")));
        };
        match (key, value) {
            // As dockerd on a kernel without AppArmor: its own profile, which is no profile of the user's, is left out.
            ("label", _) | ("apparmor", "" | "unconfined" | "docker-default") => {}
            ("apparmor", profile) => {
                return Err(Error::invalid(format!(
                    "unable to apply apparmor profile {profile:?}: apparmor: config provided but apparmor not supported"
                )));
            }
            ("no-new-privileges", "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("systempaths", "unconfined") => self.system_paths_unconfined = true,
            ("seccomp", "unconfined") => self.profile = Profile::Unconfined,
            ("seccomp", "builtin" | "default") => self.profile = Profile::Default,
            ("seccomp", json) => self.profile = Profile::Json(json.to_owned()),
            _ => return Err(Error::invalid(format!("invalid --security-opt 2: {option:?}"))),
        }
        Ok(())
    }

    /// The seccomp profile for the runtime.
    ///
    /// # Errors
    /// When a profile of the user's makes no sense.
    pub fn seccomp(&self) -> Result<Option<LinuxSeccomp>> {
        match &self.profile {
            Profile::Unconfined => Ok(None),
            Profile::Default => Ok(Some(seccomp::docker_default_for(&self.capabilities))),
            Profile::Json(json) => {
                seccomp::from_docker_json(json, &self.capabilities).map(Some).map_err(|error| {
                    Error::invalid(format!(
                        "Decoding seccomp profile failed: {}",
                        crate::error::chain(&error)
                    ))
                })
            }
        }
    }
}

fn capabilities(host: &HostConfig, privileged: bool) -> Result<HashSet<Capability>> {
    if privileged {
        return Ok(all_capabilities().into_iter().collect());
    }
    let parse = |list: &Option<Vec<String>>, field: &str| -> Result<(bool, HashSet<Capability>)> {
        let (mut all, mut some) = (false, HashSet::new());
        for name in list.iter().flatten() {
            if name.eq_ignore_ascii_case("ALL") {
                all = true;
                continue;
            }
            some.insert(capability_from_name(name).ok_or_else(|| {
                let upper = name.to_ascii_uppercase();
                let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
                Error::invalid(format!("invalid {field}: unknown capability: {full:?}"))
            })?);
        }
        Ok((all, some))
    };
    let (add_all, add) = parse(&host.cap_add, "CapAdd")?;
    let (drop_all, drop) = parse(&host.cap_drop, "CapDrop")?;
    let base: HashSet<Capability> = if add_all {
        all_capabilities().into_iter().collect()
    } else if drop_all {
        HashSet::new()
    } else {
        DEFAULT_CAPABILITIES.iter().copied().collect()
    };
    // What is added by name stays, unless everything was added and it is dropped by name.
    let kept: HashSet<Capability> = base.difference(&drop).copied().collect();
    Ok(if add_all { kept } else { kept.union(&add).copied().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(add: &[&str], drop: &[&str], options: &[&str]) -> HostConfig {
        let list = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
        HostConfig {
            cap_add: list(add),
            cap_drop: list(drop),
            security_opt: list(options),
            ..HostConfig::default()
        }
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let of = |add: &[&str], drop: &[&str]| Security::of(&host(add, drop, &[])).unwrap().capabilities;
        assert_eq!(of(&[], &[]).len(), 14);
        assert!(of(&["NET_ADMIN"], &[]).contains(&Capability::NetAdmin));
        assert!(!of(&[], &["cap_chown"]).contains(&Capability::Chown));
        assert_eq!(of(&["CHOWN"], &["ALL"]), HashSet::from([Capability::Chown]));
        assert!(of(&["ALL"], &["SYS_ADMIN"]).contains(&Capability::NetAdmin));
        assert!(!of(&["ALL"], &["SYS_ADMIN"]).contains(&Capability::SysAdmin));
        let error = Security::of(&host(&["FOO"], &[], &[])).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }

    #[test]
    fn security_options_are_known_or_refused() {
        let of = |option: &str| Security::of(&host(&[], &[], &[option]));
        assert!(of("no-new-privileges").unwrap().no_new_privileges);
        assert!(of("no-new-privileges:true").unwrap().no_new_privileges);
        assert!(of("seccomp=unconfined").unwrap().seccomp().unwrap().is_none());
        assert!(of("label=disable").unwrap().seccomp().unwrap().is_some());
        assert!(of("seccomp={not json").unwrap().seccomp().is_err());
        for option in ["apparmor=unconfined", "apparmor=docker-default", "apparmor:unconfined"] {
            of(option).unwrap();
        }
        assert_eq!(
            of("apparmor=mine").unwrap_err().message,
            "unable to apply apparmor profile \"mine\": apparmor: config provided but apparmor not supported"
        );
        assert_eq!(of("foo").unwrap_err().message, "invalid --security-opt 1: \"foo\"");
        assert_eq!(of("foo=bar").unwrap_err().message, "invalid --security-opt 2: \"foo=bar\"");
    }
}
