//! Image references as users write them.

/// Names the image the way Docker's messages do: familiar, with its tag (`busybox:latest`).
pub fn familiar_with_tag(reference: &str) -> String {
    let short = reference
        .strip_prefix("docker.io/")
        .or_else(|| reference.strip_prefix("index.docker.io/"))
        .unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let (_, tag, digest) = parts(short);
    if tag.is_none() && digest.is_none() { format!("{short}:latest") } else { short.to_owned() }
}

/// Splits `name[:tag][@digest]`; a colon before a slash belongs to a port.
pub fn parts(reference: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag), digest),
        _ => (rest, None, digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_familiar() {
        for (given, shown) in [
            ("busybox", "busybox:latest"),
            ("docker.io/library/busybox", "busybox:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("a@sha256:0", "a@sha256:0"),
        ] {
            assert_eq!(familiar_with_tag(given), shown);
        }
        assert_eq!(parts("h:5/a:t@sha256:1"), ("h:5/a", Some("t"), Some("sha256:1")));
    }
}
