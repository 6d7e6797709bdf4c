//! What is private is left out of what is shown to others.

/// What stands in the place of a secret.
const HIDDEN: &str = "…";
/// Words before a `=` or `:` whose value is a secret.
const SECRETS: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "apikey",
    "api_key",
    "x-registry-auth",
    "cookie",
];

/// Leaves out what is private.
#[derive(Debug, Clone, Default)]
pub(super) struct Redactor {
    /// What is replaced by what, the longest first.
    names: Vec<(String, &'static str)>,
}

impl Redactor {
    /// For the user whose process this is: home directory, user name and the computer's own.
    pub fn of_this_user() -> Self {
        let home = std::env::home_dir().map(|home| home.display().to_string());
        let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
        #[cfg(unix)]
        let host = Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
        #[cfg(not(unix))]
        let host = std::env::var("COMPUTERNAME").ok();
        Self::new(home.as_deref(), user.as_deref(), host.as_deref())
    }

    fn new(home: Option<&str>, user: Option<&str>, host: Option<&str>) -> Self {
        let mut names = Vec::new();
        if let Some(home) = home.filter(|home| home.len() > 1) {
            names.push((home.trim_end_matches('/').to_owned(), "~"));
        }
        // Short names, and those that everybody has, are part of too many words.
        let is_own = |name: &&str| name.len() > 2 && !matches!(*name, "root" | "localhost" | "skiff");
        names.extend(host.filter(is_own).map(|name| (name.to_owned(), "COMPUTER")));
        names.extend(user.filter(is_own).map(|name| (name.to_owned(), "USER")));
        Self { names }
    }

    /// Gives the text without what is private.
    pub fn redact(&self, text: &str) -> String {
        let mut all = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let mut line = logins(line);
            line = secrets(&line);
            for (name, instead) in &self.names {
                line = whole_words(&line, name, instead);
            }
            all.push_str(&line);
        }
        all
    }
}

/// Leaves out what stands before the `@` of an address.
fn logins(line: &str) -> String {
    let mut done = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        done.push_str(before);
        let authority = after.find(|c: char| c == '/' || c == '?' || c == '"' || c.is_whitespace());
        let authority = &after[..authority.unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(end) => {
                done.push_str(HIDDEN);
                rest = &after[end..];
            }
            None => rest = after,
        }
    }
    done.push_str(rest);
    done
}

/// Leaves out what follows `token=`, `Authorization: ` and the like.
fn secrets(line: &str) -> String {
    let mut done = String::new();
    let mut rest = line;
    loop {
        // Lowering ASCII letters keeps every place where it is.
        let lower = rest.to_ascii_lowercase();
        let found = SECRETS.iter().filter_map(|word| Some((lower.find(word)?, word.len()))).min();
        let Some((at, length)) = found else { break };
        let (before, after) = rest.split_at(at + length);
        done.push_str(before);
        let sign = after.trim_start_matches(['"', '\'', ' ']);
        let Some(value) = sign.strip_prefix([':', '=']) else {
            rest = after;
            continue;
        };
        let start = value.trim_start_matches(['"', '\'', ' ']);
        done.push_str(&after[..after.len() - start.len()]);
        // `Bearer` and `Basic` are followed by what is meant.
        let scheme = ["bearer ", "basic "]
            .iter()
            .find(|scheme| start.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)));
        let (kept, secret) = start.split_at(scheme.map_or(0, |scheme| scheme.len()));
        done.push_str(kept);
        let end = secret.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '&' | ',' | ';'));
        let end = end.unwrap_or(secret.len());
        if end > 0 {
            done.push_str(HIDDEN);
        }
        rest = &secret[end..];
    }
    done.push_str(rest);
    done
}

fn whole_words(line: &str, name: &str, instead: &str) -> String {
    let mut done = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let inside = |c: char| c.is_alphanumeric();
        let is_word = !before.ends_with(inside) && !after.starts_with(inside);
        done.push_str(before);
        done.push_str(if is_word { instead } else { name });
        rest = after;
    }
    done.push_str(rest);
    done
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn homes_names_and_secrets_are_left_out() {
        let redactor = Redactor::new(Some("/home/ada"), Some("ada"), Some("babbage"));
        for (text, expected) in [
            ("open /home/ada/src: no", "open ~/src: no"),
            ("user ada on babbage, not adamant", "user USER on COMPUTER, not adamant"),
            ("proxy http://ada:pw@proxy:3128/x and https://h", "proxy http://…@proxy:3128/x and https://h"),
            ("GET /x?token=abc&y=1", "GET /x?token=…&y=1"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
            (r#"{"password": "p w", "n": 1}"#, r#"{"password": "… w", "n": 1}"#),
            ("tokens are counted", "tokens are counted"),
            ("secret=\n", "secret=\n"),
        ] {
            assert_eq!(redactor.redact(text), expected);
        }
        assert_eq!(
            Redactor::new(Some("/"), Some("root"), Some("pc")).redact("root at / on pc"),
            "root at / on pc"
        );
    }

    proptest! {
        #[test]
        fn no_login_of_an_address_is_left(before in "\\PC{0,30}", login in "[a-z]{8}:[a-z0-9]{9}", after in "\\PC{0,30}") {
            let text = format!("{before} http://{login}@host.example {after}");
            let shown = Redactor::default().redact(&text);
            prop_assert!(!shown.contains(&login) || before.contains(&login) || after.contains(&login), "{}", shown);
        }
    }
}
