//! `--mount type=bind,source=…,target=…`.

use bollard_stubs::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use super::bytes;

/// Splits comma-separated fields; a field in double quotes may hold commas.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = all.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => last.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            c => last.push(c),
        }
    }
    if quoted { Err(format!("unclosed quote in {text}")) } else { Ok(all) }
}

fn boolean(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("invalid value for {key}: {value}")),
    }
}

/// Parses one mount.
pub fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Default::default() };
    let (mut bind, mut volume, mut tmpfs): (
        Option<MountBindOptions>,
        Option<MountVolumeOptions>,
        Option<MountTmpfsOptions>,
    ) = (None, None, None);
    for field in fields(text.trim())? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => {
                mount.read_only = Some(boolean(&key, value)?);
                continue;
            }
            ("volume-nocopy", value) => {
                volume.get_or_insert_default().no_copy = Some(boolean(&key, value)?);
                continue;
            }
            ("bind-nonrecursive", value) => {
                bind.get_or_insert_default().non_recursive = Some(boolean(&key, value)?);
                continue;
            }
            _ => {}
        }
        let Some(value) = value else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.as_str() {
            "type" => {
                mount.typ = Some(match value.to_ascii_lowercase().as_str() {
                    "bind" => MountType::BIND,
                    "volume" => MountType::VOLUME,
                    "tmpfs" => MountType::TMPFS,
                    "image" => MountType::IMAGE,
                    _ => return Err(format!("invalid mount type: {value}")),
                });
            }
            "source" | "src" => {
                let absolute = if value.starts_with('.') {
                    std::path::absolute(value)
                        .map_err(|error| error.to_string())?
                        .to_string_lossy()
                        .into_owned()
                } else {
                    value.to_owned()
                };
                mount.source = Some(absolute);
            }
            "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
            "consistency" => mount.consistency = Some(value.to_ascii_lowercase()),
            "bind-propagation" => {
                bind.get_or_insert_default().propagation = Some(match value {
                    "private" => MountBindOptionsPropagationEnum::PRIVATE,
                    "rprivate" => MountBindOptionsPropagationEnum::RPRIVATE,
                    "shared" => MountBindOptionsPropagationEnum::SHARED,
                    "rshared" => MountBindOptionsPropagationEnum::RSHARED,
                    "slave" => MountBindOptionsPropagationEnum::SLAVE,
                    "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
                    _ => return Err(format!("invalid propagation mode: {value}")),
                });
            }
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => bind.get_or_insert_default().non_recursive = Some(true),
                "writable" => bind.get_or_insert_default().read_only_non_recursive = Some(true),
                "readonly" => bind.get_or_insert_default().read_only_force_recursive = Some(true),
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            "image-subpath" => {
                mount.image_options = Some(MountImageOptions { subpath: Some(value.to_owned()) });
            }
            "volume-subpath" => volume.get_or_insert_default().subpath = Some(value.to_owned()),
            "volume-label" => {
                let (name, label) = value.split_once('=').unwrap_or((value, ""));
                volume
                    .get_or_insert_default()
                    .labels
                    .get_or_insert_default()
                    .insert(name.to_owned(), label.to_owned());
            }
            "volume-driver" => driver(volume.get_or_insert_default()).name = Some(value.to_owned()),
            "volume-opt" => {
                let (name, option) = value.split_once('=').unwrap_or((value, ""));
                driver(volume.get_or_insert_default())
                    .options
                    .get_or_insert_default()
                    .insert(name.to_owned(), option.to_owned());
            }
            "tmpfs-size" => {
                let size = bytes::parse(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs.get_or_insert_default().size_bytes = Some(size);
            }
            "tmpfs-mode" => {
                let mode =
                    i64::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs.get_or_insert_default().mode = Some(mode);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err("target is required".to_owned());
    }
    let kind = mount.typ.unwrap_or(MountType::VOLUME);
    for (given, wanted, prefix) in [
        (bind.is_some(), MountType::BIND, "bind-*"),
        (volume.is_some(), MountType::VOLUME, "volume-*"),
        (tmpfs.is_some(), MountType::TMPFS, "tmpfs-*"),
        (mount.image_options.is_some(), MountType::IMAGE, "image-*"),
    ] {
        if given && kind != wanted {
            return Err(format!("cannot mix '{prefix}' options with mount type '{kind}'"));
        }
    }
    mount.bind_options = bind;
    mount.volume_options = volume;
    mount.tmpfs_options = tmpfs;
    Ok(mount)
}

fn driver(options: &mut MountVolumeOptions) -> &mut MountVolumeOptionsDriverConfig {
    options.driver_config.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_keys_and_values() {
        let mount = parse("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert_eq!((mount.typ, mount.read_only), (Some(MountType::BIND), Some(true)));
        assert_eq!((mount.source.as_deref(), mount.target.as_deref()), (Some("/a"), Some("/b")));
        let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let options = mount.tmpfs_options.unwrap();
        assert_eq!((options.size_bytes, options.mode), (Some(1 << 20), Some(0o1770)));
        let mount = parse("\"source=a,b\",target=/t").unwrap();
        assert_eq!((mount.typ, mount.source.as_deref()), (Some(MountType::VOLUME), Some("a,b")));
    }

    #[test]
    fn wrong_mounts_are_named() {
        for (text, message) in [
            ("type=bind,source=/a", "target is required"),
            ("type=foo,target=/a", "invalid mount type: foo"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("target=/a,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("type=bind,target=/a,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'bind'"),
            ("target=/a,ro=maybe", "invalid value for ro: maybe"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }
}
