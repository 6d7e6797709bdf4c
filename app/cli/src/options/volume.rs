//! `-v [source:]target[:options]`.

/// What a `--volume` asks for.
#[derive(Debug, PartialEq)]
pub enum Volume {
    /// A new volume without a name at this path.
    Anonymous(String),
    /// `source:target[:options]`, the source a host path or a volume's name.
    Bind(String),
}

/// Parses one volume. Relative host paths (`./x`, `..`, `.`) become absolute with `absolute`.
pub fn parse(spec: &str, absolute: impl Fn(&str) -> std::io::Result<String>) -> Result<Volume, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts = split(spec);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {spec}: empty section between colons"));
    }
    match parts.as_slice() {
        [target] => Ok(Volume::Anonymous((*target).to_owned())),
        [source, rest @ ..] if rest.len() <= 2 => {
            let source = match source.starts_with('.') {
                true => absolute(source).map_err(|error| error.to_string())?,
                false => (*source).to_owned(),
            };
            Ok(Volume::Bind(format!("{source}:{}", rest.join(":"))))
        }
        _ => Err(format!("invalid spec: {spec}: too many colons")),
    }
}

/// Splits at colons, but not at the one behind a drive letter (`C:\data:/data`).
fn split(spec: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in spec.match_indices(':') {
        let drive = at == start + 1
            && spec.as_bytes()[start].is_ascii_alphabetic()
            && matches!(spec.as_bytes().get(at + 1), Some(b'\\'));
        if !drive {
            parts.push(&spec[start..at]);
            start = at + 1;
        }
    }
    parts.push(&spec[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(spec: &str) -> Result<Volume, String> {
        parse(spec, |path| Ok(format!("/cwd/{path}")))
    }

    #[test]
    fn volumes_have_one_to_three_parts() {
        assert_eq!(parsed("/data").unwrap(), Volume::Anonymous("/data".into()));
        for (spec, bind) in [
            ("/a:/b", "/a:/b"),
            ("/a:/b:ro,z", "/a:/b:ro,z"),
            ("name:/b", "name:/b"),
            ("./x:/b", "/cwd/./x:/b"),
            ("C:\\data:/b:ro", "C:\\data:/b:ro"),
        ] {
            assert_eq!(parsed(spec).unwrap(), Volume::Bind(bind.into()), "{spec}");
        }
        assert_eq!(parsed(":/x").unwrap_err(), "invalid spec: :/x: empty section between colons");
        assert!(parsed("a:b:c:d").is_err());
        assert!(parsed("").is_err());
    }
}
