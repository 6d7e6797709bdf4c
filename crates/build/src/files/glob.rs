//! Patterns as Go's `path.Match` has them: `*` and `?` stop at slashes, `[a-z]`, `[^a]`, `\` quotes.

/// Says whether all of `name` fits the pattern; `None` for a pattern that is none.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> Option<bool> {
    // Where to go on when a later part fails: after the last star, one letter further.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let fits = match pattern.get(p) {
            None if n == name.len() => return valid(&pattern[p.min(pattern.len())..]).then_some(true),
            None => None,
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(b'?') => name.get(n).filter(|c| **c != b'/').map(|_| p + 1),
            Some(b'[') => {
                let (end, set) = class(&pattern[p..])?;
                name.get(n).filter(|c| **c != b'/' && set.has(**c)).map(|_| p + end)
            }
            Some(b'\\') => {
                let quoted = pattern.get(p + 1)?;
                name.get(n).filter(|c| *c == quoted).map(|_| p + 2)
            }
            Some(letter) => name.get(n).filter(|c| *c == letter).map(|_| p + 1),
        };
        match (fits, star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((after, from))) if name.get(from).is_some_and(|c| *c != b'/') => {
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            (None, _) => return valid(&pattern[p..]).then_some(false),
        }
    }
}

/// Says whether a text has letters that mean something in patterns.
pub(crate) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|c| b"*?[\\".contains(c))
}

fn valid(mut rest: &[u8]) -> bool {
    while let Some(first) = rest.first() {
        rest = match first {
            b'[' => match class(rest) {
                Some((end, _)) => &rest[end..],
                None => return false,
            },
            b'\\' => match rest.get(2..) {
                Some(after) => after,
                None => return false,
            },
            _ => &rest[1..],
        };
    }
    true
}

struct Set {
    not: bool,
    ranges: Vec<(u8, u8)>,
}

impl Set {
    fn has(&self, c: u8) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.not
    }
}

/// Reads `[…]`; returns its length.
fn class(text: &[u8]) -> Option<(usize, Set)> {
    let mut at = 1;
    let not = text.get(at) == Some(&b'^');
    at += usize::from(not);
    let mut ranges = Vec::new();
    let letter = |at: &mut usize| -> Option<u8> {
        let c = *text.get(*at)?;
        if c == b'\\' {
            *at += 1;
        }
        let c = *text.get(*at)?;
        *at += 1;
        Some(c)
    };
    loop {
        if text.get(at) == Some(&b']') && !ranges.is_empty() {
            return Some((at + 1, Set { not, ranges }));
        }
        if matches!(text.get(at), Some(b'-' | b']')) {
            return None;
        }
        let low = letter(&mut at)?;
        let high = match text.get(at) {
            Some(b'-') => {
                at += 1;
                letter(&mut at)?
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_gos_do() {
        let cases = [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[^e-g]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("[]a]", "]", None),
            ("[", "a", None),
            ("a[", "ab", None),
            ("*x", "xxx", Some(true)),
            ("a?b", "a/b", Some(false)),
        ];
        for (pattern, name, wanted) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_tried_without_panic(pattern in "[a*?\\[\\]^\\\\/-]{0,12}", name in "[a/-]{0,12}") {
            let _ = matches(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn a_name_quoted_matches_itself(name in "[a*?\\[\\]^/-]{0,12}") {
            let quoted: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert_eq!(matches(quoted.as_bytes(), name.as_bytes()), Some(true));
        }
    }
}
