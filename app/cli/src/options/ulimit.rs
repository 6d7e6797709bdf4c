//! `--ulimit name=soft[:hard]`.

use bollard_stubs::models::ResourcesUlimits;

const NAMES: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses one limit.
pub fn parse(text: &str) -> Result<ResourcesUlimits, String> {
    let (name, values) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |value: &str| {
        value.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
    };
    let (soft, hard) = match values.split_once(':') {
        None => (number(values)?, number(values)?),
        Some((_, hard)) if hard.contains(':') => {
            return Err(format!(
                "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
            ));
        }
        Some((soft, hard)) => (number(soft)?, number(hard)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(if soft == -1 {
            format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            )
        } else {
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        });
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_one_or_two_numbers() {
        let limit = parse("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(2048)));
        let limit = parse("core=-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(-1), Some(-1)));
        assert_eq!(parse("foo=1").unwrap_err(), "invalid ulimit type: foo");
        assert_eq!(parse("nofile").unwrap_err(), "invalid ulimit argument: nofile");
        assert!(parse("nofile=2:1").unwrap_err().ends_with("2 > 1"));
        assert!(parse("nofile=1:2:3").is_err());
        assert!(parse("nofile=a").is_err());
    }
}
