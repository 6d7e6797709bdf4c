//! Patterns for names of images: Go's `path.Match`, by Docker's rules.

/// Says whether a name fits a pattern, with or without its tag or digest.
pub(super) fn reference_matches(pattern: &str, name: &str) -> bool {
    let untagged = match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .map_or(name, |(repository, _)| repository),
    };
    matches(pattern, name) || matches(pattern, untagged)
}

/// Says whether a pattern makes sense: every class has an end, every backslash something to quote.
pub(super) fn is_valid(pattern: &str) -> bool {
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.next().is_none() => return false,
            '[' => match Class::read(rest.as_str()) {
                Some((_, after)) => rest = after.chars(),
                None => return false,
            },
            _ => {}
        }
    }
    true
}

fn matches(pattern: &str, text: &str) -> bool {
    // Where to go on after the last star, with one character more given to it. A star does not cross a slash.
    let mut again: Option<(&str, &str)> = None;
    let (mut pattern, mut text) = (pattern, text);
    loop {
        if let Some(rest) = pattern.strip_prefix('*') {
            again = Some((rest, text));
            pattern = rest;
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return true;
        }
        if let Some((after_pattern, after_text)) = one(pattern, text) {
            (pattern, text) = (after_pattern, after_text);
            continue;
        }
        let Some((after_star, from)) = again else { return false };
        let mut longer = from.chars();
        match longer.next() {
            None | Some('/') => return false,
            Some(_) => again = Some((after_star, longer.as_str())),
        }
        (pattern, text) = (after_star, longer.as_str());
    }
}

/// Takes one character off both when they fit.
fn one<'p, 't>(pattern: &'p str, text: &'t str) -> Option<(&'p str, &'t str)> {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let (wanted, c) = (pattern.next()?, text.next()?);
    let fits = match wanted {
        '?' => c != '/',
        '[' => {
            let (class, after) = Class::read(pattern.as_str())?;
            pattern = after.chars();
            c != '/' && class.has(c)
        }
        '\\' => pattern.next()? == c,
        other => other == c,
    };
    fits.then_some((pattern.as_str(), text.as_str()))
}

/// `[a-z]`, `[^x]`.
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// Reads what follows the bracket; returns what comes after the closing one.
    fn read(text: &str) -> Option<(Class, &str)> {
        let (negated, mut rest) = match text.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut ranges = Vec::new();
        loop {
            if let (Some(after), false) = (rest.strip_prefix(']'), ranges.is_empty()) {
                return Some((Class { negated, ranges }, after));
            }
            let (low, after) = Self::character(rest)?;
            let (high, after) = match after.strip_prefix('-') {
                Some(after) => Self::character(after)?,
                None => (low, after),
            };
            ranges.push((low, high));
            rest = after;
        }
    }

    fn character(text: &str) -> Option<(char, &str)> {
        let mut characters = text.chars();
        let c = match characters.next()? {
            '-' | ']' => return None,
            '\\' => characters.next()?,
            c => c,
        };
        Some((c, characters.as_str()))
    }

    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reference_patterns_match_with_and_without_the_tag() {
        for (pattern, name) in [
            ("busybox", "busybox:latest"),
            ("busy*", "busybox:latest"),
            ("busybox:l*", "busybox:latest"),
            ("localhost:5000/*", "localhost:5000/app:1"),
            ("*/app", "localhost:5000/app:1"),
            ("b?sybox", "busybox:latest"),
            ("b[a-u]sybox:[^x]*t", "busybox:latest"),
            ("bus\\ybox", "busybox:latest"),
            ("*b*x:*", "busybox:latest"),
        ] {
            assert!(reference_matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("busy", "busybox:latest"),
            ("*", "a/b:c"),
            ("busybox:1", "busybox:latest"),
            ("[^b]*", "busybox:latest"),
            ("a?b", "a/b"),
        ] {
            assert!(!reference_matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn broken_patterns_are_told() {
        for pattern in ["[", "[]", "[]a]", "[-]", "[a-", "a\\", "[^"] {
            assert!(!is_valid(pattern), "{pattern}");
        }
        for pattern in ["", "*", "[a]", "[^a-z]", "\\[", "a[\\]]"] {
            assert!(is_valid(pattern), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_answered_in_time(pattern in "[*?a\\[\\]^\\\\/-]{0,40}", text in "[ab/]{0,40}") {
            let _ = (is_valid(&pattern), reference_matches(&pattern, &text));
        }

        #[test]
        fn plain_text_matches_itself_alone(text in "[a-z/:.]{1,20}", other in "[a-z/:.]{1,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }
    }
}
