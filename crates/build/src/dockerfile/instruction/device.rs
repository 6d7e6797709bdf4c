//! `RUN --device`.

use super::mount::{boolean, fields};
use crate::dockerfile::fault::{Fault, Result};
use crate::dockerfile::suggest::suggest;

/// A device that a command wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Its CDI name, `vendor.com/class=name`.
    pub name: String,
    /// Whether the command must not run without it.
    pub required: bool,
}

impl Device {
    /// Reads `NAME`, `NAME,required` or `name=NAME,required=true`.
    ///
    /// # Errors
    /// Fields that there aren't, in BuildKit's words.
    pub fn parse(text: &str) -> Result<Device> {
        let mut device = Device::default();
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    let wrong = || Fault::new(format!("invalid value for {key}: {value}"));
                    device.required = boolean(value).ok_or_else(wrong)?;
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(Fault::new(format!("device name already set to {}", device.name)));
                }
                ("name", Some(value)) => value.clone_into(&mut device.name),
                // The name has an equals sign in it.
                _ if device.name.is_empty() => device.name = field,
                (_, None) => {
                    return Err(Fault::new(format!("invalid field '{field}' must be a key=value pair")));
                }
                (key, Some(_)) => {
                    let fault = Fault::new(format!("unexpected key '{key}' in '{field}'"));
                    return Err(suggest(fault, key, ["name", "required"], true));
                }
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_and_may_be_required() {
        let read = |text: &str| Device::parse(text).map(|device| (device.name, device.required));
        for (text, name, required) in [
            ("vendor1.com/device=foo", "vendor1.com/device=foo", false),
            ("vendor1.com/device", "vendor1.com/device", false),
            ("vendor1.com/device=foo,required", "vendor1.com/device=foo", true),
            ("name=vendor1.com/device=foo,required=1", "vendor1.com/device=foo", true),
            ("required=false,name=a.b/c=*", "a.b/c=*", false),
        ] {
            assert_eq!(read(text).unwrap(), (name.to_owned(), required), "{text}");
        }
        for (text, message) in [
            ("a.b/c=d,name=e", "device name already set to a.b/c=d"),
            ("a.b/c=d,required=x", "invalid value for required: x"),
            ("a.b/c=d,requird=1", "unexpected key 'requird' in 'requird=1' (did you mean required?)"),
            ("a.b/c=d,e", "invalid field 'e' must be a key=value pair"),
        ] {
            assert_eq!(read(text).unwrap_err().message, message);
        }
    }
}
