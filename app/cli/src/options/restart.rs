//! `--restart no|always|unless-stopped|on-failure[:max]`.

use bollard_stubs::models::{RestartPolicy, RestartPolicyNameEnum};

/// Parses a restart policy.
pub fn parse(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        None => (text, None),
        Some((name, count)) => (name, Some(count)),
    };
    let maximum = match count {
        None => None,
        Some("") => return Err("invalid restart policy format: no policy provided before colon".to_owned()),
        Some(count) => Some(
            count
                .parse()
                .map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?,
        ),
    };
    let name = match name {
        "" if text.is_empty() => RestartPolicyNameEnum::NO,
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        "" => return Err("invalid restart policy format: no policy provided before colon".to_owned()),
        other => {
            return Err(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    };
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_names_and_counts() {
        assert_eq!(parse("on-failure:3").unwrap().maximum_retry_count, Some(3));
        assert_eq!(parse("always").unwrap().name, Some(RestartPolicyNameEnum::ALWAYS));
        for bad in ["sometimes", "on-failure:x", ":3", "always:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
