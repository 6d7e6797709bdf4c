//! Platforms: `os/architecture[/variant]` with the normal forms and the preferences that Docker uses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Names that stand alone as a platform: Go's values of `GOOS` and `GOARCH`.
const OPERATING_SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 23] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc64",
    "wasm",
];

/// A platform in its normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, `linux`.
    pub os: String,
    /// Architecture in Go's words, `amd64`.
    pub architecture: String,
    /// Variant, such as `v7`; empty where the architecture's usual one is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// Returns the platform that this programme runs on.
    pub fn host() -> Platform {
        Platform::normalise("linux", std::env::consts::ARCH, "")
    }

    /// Brings the several spellings of one platform together.
    pub fn normalise(os: &str, architecture: &str, variant: &str) -> Platform {
        let os = match os.to_ascii_lowercase() {
            os if os.is_empty() => "linux".to_owned(),
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            ("i386" | "x86" | "i686", _) => ("386", ""),
            (other, v) => (other, v),
        };
        Platform { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Returns how well `other` runs where `self` is wanted: smaller is better, `None` is not at all.
    pub fn distance(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            // A 64-bit ARM kernel usually runs 32-bit programs, but only when nothing else was asked for.
            return None;
        }
        if self.variant == other.variant {
            return Some(0);
        }
        let level = |p: &Platform| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "") => Some(8),
            ("amd64", "") => Some(1),
            (_, v) => {
                v.strip_prefix('v').and_then(|v| v.split('.').next()).and_then(|v| v.parse::<u32>().ok())
            }
        };
        let (wanted, offered) = (level(self)?, level(other)?);
        wanted.checked_sub(offered).map(|d| d + 1)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let sane = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if let Some(wrong) = parts.iter().position(|part| !sane(part)) {
            let part = parts[wrong];
            let rule = match wrong {
                0 => {
                    "OS component of {}: OSAndVersion specifier component must match \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\""
                }
                _ => "component of {}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\"",
            };
            let rule = rule.replace("{}", &format!("\"{text}\""));
            return Err(Error::Invalid {
                message: format!("\"{part}\" is an invalid {rule}: invalid argument"),
            });
        }
        match parts.as_slice() {
            // One word alone is either.
            [word] => {
                let os = Platform::normalise(word, Platform::host().architecture.as_str(), "");
                let architecture = Platform::normalise("linux", word, "");
                if OPERATING_SYSTEMS.contains(&os.os.as_str()) {
                    Ok(os)
                } else if ARCHITECTURES.contains(&architecture.architecture.as_str()) {
                    Ok(architecture)
                } else {
                    let message =
                        format!("\"{text}\": unknown operating system or architecture: invalid argument");
                    Err(Error::Invalid { message })
                }
            }
            [os, architecture] => Ok(Platform::normalise(os, architecture, "")),
            [os, architecture, variant] => Ok(Platform::normalise(os, architecture, variant)),
            _ => Err(Error::Invalid {
                message: format!("\"{text}\": cannot parse platform specifier: invalid argument"),
            }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_platform_are_equal() {
        assert_eq!(p("linux/aarch64/v8"), p("arm64"));
        assert_eq!(p("linux/x86_64"), p("linux/amd64"));
        assert_eq!(p("linux/arm"), p("armhf"));
        assert_eq!(p("linux/arm64/v8").to_string(), "linux/arm64");
        assert!("linux/a b".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
        assert_eq!(p("macOS").os, "darwin");
        let error = "foo".parse::<Platform>().unwrap_err().to_string();
        assert_eq!(error, "\"foo\": unknown operating system or architecture: invalid argument");
    }

    #[test]
    fn an_older_variant_will_do_and_a_newer_one_will_not() {
        assert_eq!(p("linux/arm/v7").distance(&p("linux/arm/v6")), Some(2));
        assert_eq!(p("linux/arm/v6").distance(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/amd64").distance(&p("linux/amd64/v3")), None);
        assert_eq!(p("linux/amd64/v3").distance(&p("linux/amd64")), Some(3));
        assert_eq!(p("linux/amd64").distance(&p("linux/arm64")), None);
    }
}
