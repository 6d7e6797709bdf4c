//! Every environment variable that a Skiff programme reads, in one place.
//!
//! Code elsewhere names the constant, never the string, so that this file is also the reference for users.

/// One environment variable and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The name as it stands in the environment.
    pub name: &'static str,
    /// One sentence for the reference.
    pub help: &'static str,
}

macro_rules! variables {
    ($($(#[doc = $doc:literal])+ $ident:ident = $name:literal;)*) => {
        $($(#[doc = $doc])+ pub const $ident: &str = $name;)*
        /// Every variable with its help text, in the order of this file.
        pub const ALL: &[Variable] = &[$(Variable { name: $name, help: concat!($($doc),+).trim_ascii() }),*];
    };
}

variables! {
    /// State directory of the daemon, instead of the platform's usual place.
    SKIFF_STATE = "SKIFF_STATE";
    /// Directory with the guest's kernel, initramfs and disk template.
    SKIFF_GUEST_IMAGE = "SKIFF_GUEST_IMAGE";
    /// Log filter in the syntax of tracing-subscriber, for example `info,skiff_link=debug`.
    SKIFF_LOG = "SKIFF_LOG";
    /// Set by the supervisor for the engine: number of the descriptor they talk over.
    SKIFF_SUPERVISOR_FD = "SKIFF_SUPERVISOR_FD";
    /// Docker endpoint that the command line talks to, instead of the daemon's own socket.
    DOCKER_HOST = "DOCKER_HOST";
    /// Docker's client configuration directory, instead of `~/.docker`.
    DOCKER_CONFIG = "DOCKER_CONFIG";
    /// File with the certificate authorities that pulls trust beside the built-in ones, instead of the system's.
    SSL_CERT_FILE = "SSL_CERT_FILE";
    /// HTTP proxy of pulls from registries without TLS.
    HTTP_PROXY = "HTTP_PROXY";
    /// HTTP proxy of pulls from registries with TLS.
    HTTPS_PROXY = "HTTPS_PROXY";
    /// Hosts, domains and networks that are pulled from without a proxy, separated by commas.
    NO_PROXY = "NO_PROXY";
    /// Home directory, for the state directory's default.
    HOME = "HOME";
    /// Base of the default state directory on Linux, instead of `~/.local/state`.
    XDG_STATE_HOME = "XDG_STATE_HOME";
    /// Base of the default state directory on Windows.
    LOCALAPPDATA = "LOCALAPPDATA";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_listed_once_and_explained() {
        let mut names: Vec<_> = ALL.iter().map(|variable| variable.name).collect();
        assert!(ALL.iter().all(|variable| variable.help.ends_with('.')));
        assert_eq!(ALL[0], Variable { name: SKIFF_STATE, help: ALL[0].help });
        let before = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
