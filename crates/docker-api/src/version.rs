//! API versions: which ones are spoken, and how a client's `/v1.NN` prefix is judged.

use std::fmt;

use crate::error::ApiError;

/// A version of the Docker Engine API, always `1.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    minor: u16,
}

impl ApiVersion {
    /// The oldest version served.
    pub const MIN: Self = Self::minor(24);
    /// The newest version served, and the one of requests without a version prefix.
    pub const MAX: Self = Self::minor(51);

    /// [`Self::MAX`] as text.
    pub(crate) const MAX_TEXT: &str = "1.51";

    /// Makes version `1.minor`.
    pub const fn minor(minor: u16) -> Self {
        Self { minor }
    }

    /// Judges the text after `/v` in a request path.
    ///
    /// # Errors
    /// 400 in dockerd's words for versions that are too old or too new.
    pub(crate) fn negotiate(text: &str) -> Result<Self, ApiError> {
        // As dockerd compares them: part by part, and a part that is no number counts nothing.
        let parts: Vec<u16> = text.split('.').map(saturating_number).collect();
        let [major, minor] = [0, 1].map(|at| parts.get(at).copied().unwrap_or(0));
        if (major, minor) < (1, Self::MIN.minor) {
            return Err(ApiError::bad_request(format!(
                "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        let beyond = parts.iter().skip(2).any(|part| *part > 0);
        if (major, minor, beyond) > (1, Self::MAX.minor, false) {
            return Err(ApiError::bad_request(format!(
                "client version {text} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        Ok(Self::minor(minor))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// Digits, as the path's pattern demands, or nothing; numbers past `u16` are just "very new".
fn saturating_number(text: &str) -> u16 {
    if text.is_empty() { 0 } else { text.parse().unwrap_or(u16::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_range_are_accepted() {
        assert_eq!(ApiVersion::negotiate("1.24").unwrap(), ApiVersion::MIN);
        assert_eq!(ApiVersion::negotiate("1.51").unwrap(), ApiVersion::MAX);
    }

    #[test]
    fn the_newest_version_has_its_text() {
        assert_eq!(ApiVersion::MAX.to_string(), ApiVersion::MAX_TEXT);
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockerds_words() {
        assert_eq!(
            ApiVersion::negotiate("1.20").unwrap_err().message,
            "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(
            ApiVersion::negotiate("1.99").unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert!(ApiVersion::negotiate("99999999.1").unwrap_err().message.contains("too new"));
    }

    #[test]
    fn odd_versions_are_compared_part_by_part() {
        for text in ["", "1", "1.", ".1", "1.2.3", "..", "0.99"] {
            assert!(ApiVersion::negotiate(text).unwrap_err().message.contains("too old"), "{text}");
        }
        for text in ["2", "1.51.1", "1.052"] {
            assert!(ApiVersion::negotiate(text).unwrap_err().message.contains("too new"), "{text}");
        }
        assert_eq!(ApiVersion::negotiate("1.30.9").unwrap(), ApiVersion::minor(30));
        assert_eq!(ApiVersion::negotiate("1.51.0").unwrap(), ApiVersion::MAX);
    }
}
