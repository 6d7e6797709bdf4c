//! A bundle: a directory with `config.json` and a root file system.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use oci_spec::runtime::{Process, Spec};

/// The longest configuration that is read.
const LONGEST: u64 = 16 << 20;

/// What `spec` takes.
#[derive(Debug, clap::Args)]
pub struct SpecOptions {
    /// The bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a user without privilege
    #[arg(long = "rootless")]
    without_privilege: bool,
}

/// Reads and checks the configuration of a bundle.
pub fn read(bundle: &Path) -> anyhow::Result<Spec> {
    let path = bundle.join("config.json");
    let spec: Spec = parse(&path)?;
    check(&spec).with_context(|| format!("{} is not valid", path.display()))?;
    Ok(spec)
}

/// Reads a process as `exec --process` takes it.
pub fn read_process(path: &Path) -> anyhow::Result<Process> {
    parse(path)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.take(LONGEST + 1).read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
    if text.len() as u64 > LONGEST {
        bail!("{} is longer than {LONGEST} bytes", path.display());
    }
    let mut reader = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        anyhow::Error::new(error.into_inner()).context(format!("{}: field {field}", path.display()))
    })
}

fn check(spec: &Spec) -> anyhow::Result<()> {
    let version = spec.version();
    if !version.starts_with("1.") {
        bail!("ociVersion: version {version:?} is not supported, 1.x is");
    }
    if spec.root().is_none() {
        bail!("root: missing");
    }
    if spec.linux().is_none() {
        bail!("linux: missing");
    }
    if spec.windows().is_some() || spec.solaris().is_some() || spec.vm().is_some() || spec.zos().is_some() {
        bail!("the configuration is for another platform than linux");
    }
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        if mount.destination().as_os_str().is_empty() {
            bail!("mounts[{index}].destination: empty");
        }
    }
    Ok(())
}

/// Writes a configuration with Docker's defaults that runs a shell.
pub fn write_spec(options: &SpecOptions) -> anyhow::Result<()> {
    let path = options.bundle.join("config.json");
    if path.exists() {
        bail!("File {} exists. Remove it first", path.display());
    }
    let mut spec = skiff_runtime::default_spec();
    spec.set_version(super::SPEC_VERSION.to_owned());
    spec.set_hostname(Some("skiff".to_owned()));
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["sh".to_owned()])).set_terminal(Some(true));
        let mut env = process.env().clone().unwrap_or_default();
        env.push("TERM=xterm".to_owned());
        process.set_env(Some(env));
    }
    let mut value = serde_json::to_value(&spec)?;
    value["linux"]["resources"]["devices"] = serde_json::json!([{ "allow": false, "access": "rwm" }]);
    if options.without_privilege {
        without_privilege(&mut value);
    }
    std::fs::write(&path, serde_json::to_vec_pretty(&value)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Turns a configuration into one that an ordinary user can run: the user's own ids, and nothing that belongs to the host.
fn without_privilege(spec: &mut serde_json::Value) {
    let id = |own: u32| serde_json::json!([{ "containerID": 0, "hostID": own, "size": 1 }]);
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("resources");
    }
    spec["linux"]["uidMappings"] = id(rustix::process::geteuid().as_raw());
    spec["linux"]["gidMappings"] = id(rustix::process::getegid().as_raw());
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.push(serde_json::json!({ "type": "user" }));
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        for options in mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut()) {
            // No other group than the own one exists in there.
            options.retain(|option| option != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), text).unwrap();
        format!("{:#}", read(bundle.path()).unwrap_err())
    }

    #[test]
    fn a_wrong_configuration_is_refused_by_the_name_of_the_field() {
        let root = r#""ociVersion":"1.0.2","root":{"path":"rootfs"}"#;
        let wrong =
            format!(r#"{{{root},"linux":{{"namespaces":[{{"type":"pid"}},{{"type":"nonsense"}}]}}}}"#);
        assert!(error(&wrong).contains("linux.namespaces[1].type"), "{}", error(&wrong));
        let wrong = format!(r#"{{{root},"linux":{{"resources":{{"memory":{{"limit":"1"}}}}}}}}"#);
        assert!(error(&wrong).contains("linux.resources.memory.limit"), "{}", error(&wrong));
        assert!(error(&format!("{{{root}}}")).contains("linux: missing"));
        assert!(error(r#"{"ociVersion":"2.0.0"}"#).contains("ociVersion"));
        assert!(error("{").contains("config.json"));
    }

    /// Every place in a configuration that can be something else.
    fn places(value: &serde_json::Value, here: &str, all: &mut Vec<String>) {
        let mut below = |name: &str, value: &serde_json::Value| {
            let place = format!("{here}/{name}");
            all.push(place.clone());
            places(value, &place, all);
        };
        match value {
            serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| below(name, value)),
            serde_json::Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value));
            }
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_configuration_with_anything_anywhere_is_read_or_refused(
            place in any::<proptest::sample::Index>(), choice in 0usize..8, text in ".{0,20}", number in any::<i64>(),
        ) {
            let mut value = serde_json::to_value(skiff_runtime::default_spec()).unwrap();
            value["ociVersion"] = "1.2.0".into();
            let mut all = Vec::new();
            places(&value, "", &mut all);
            let other = [
                serde_json::Value::Null, true.into(), number.into(), text.into(), serde_json::json!([]),
                serde_json::json!({}), serde_json::json!([null]), serde_json::json!({"type": number}),
            ];
            let at: &String = place.get(&all);
            if let Some(there) = value.pointer_mut(at) {
                *there = other[choice].clone();
            }
            let bundle = tempfile::tempdir().unwrap();
            std::fs::write(bundle.path().join("config.json"), value.to_string()).unwrap();
            match read(bundle.path()) {
                Ok(spec) => {
                    let linux = spec.linux().clone().unwrap();
                    if let Some(profile) = linux.seccomp() {
                        let _ = skiff_runtime::seccomp::compile(profile);
                    }
                }
                Err(error) => {
                    let told = format!("{error:#}");
                    prop_assert!(told.contains("config.json"), "{told}");
                    let field = at.split('/').nth(1).unwrap_or_default();
                    prop_assert!(told.contains(field), "{at}: {told}");
                }
            }
        }
    }

    #[test]
    fn what_spec_writes_can_be_read_and_is_not_overwritten() {
        for without_privilege in [false, true] {
            let bundle = tempfile::tempdir().unwrap();
            let options = SpecOptions { bundle: bundle.path().to_owned(), without_privilege };
            write_spec(&options).unwrap();
            let spec = read(bundle.path()).unwrap();
            assert_eq!(spec.linux().as_ref().unwrap().uid_mappings().is_some(), without_privilege);
            assert!(write_spec(&options).is_err());
        }
    }
}
