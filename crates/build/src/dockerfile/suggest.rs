//! "Did you mean": the nearest of some words.

use super::fault::Fault;

/// How many letters may differ.
const FAR: usize = 3;
/// Longer words than this are nobody's slip.
const LONG: usize = 128;

/// Finds the option that is nearest to a word, less than three edits away. Nothing when the word is one of them: then it
/// is not what was wrong.
pub fn nearest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_matters: bool,
) -> Option<String> {
    let fold = |text: &str| if case_matters { text.to_owned() } else { text.to_lowercase() };
    let folded = fold(word);
    let (mut best, mut found) = (FAR, None);
    for option in options {
        let option = fold(option);
        if option == folded {
            return None;
        }
        let distance = distance(&folded, &option, best);
        if distance < best {
            best = distance;
            found = Some(option);
        }
    }
    found.map(|found| if case_matters { found } else { in_case_of(word, found) })
}

/// Adds `(did you mean X?)` to an error when there is something near.
pub fn suggest<'a>(
    mut fault: Fault,
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_matters: bool,
) -> Fault {
    if let Some(near) = nearest(word, options, case_matters) {
        fault.message.push_str(&format!(" (did you mean {near}?)"));
    }
    fault
}

fn in_case_of(word: &str, found: String) -> String {
    if word == word.to_uppercase() {
        return found.to_uppercase();
    }
    let mut letters = found.chars();
    match (word.chars().next().is_some_and(char::is_uppercase), letters.next()) {
        (true, Some(first)) => first.to_uppercase().chain(letters).collect(),
        _ => found,
    }
}

/// The number of letters to insert, remove or change; `bound` or more when it is too much.
fn distance(a: &str, b: &str, bound: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(LONG).collect(), b.chars().take(LONG).collect());
    if a.len().abs_diff(b.len()) >= bound {
        return bound;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_in_the_writers_case() {
        let words = ["FROM", "RUN", "ENTRYPOINT"];
        assert_eq!(nearest("FORM", words, false).as_deref(), Some("FROM"));
        assert_eq!(nearest("form", words, false).as_deref(), Some("from"));
        assert_eq!(nearest("Entrypont", words, false).as_deref(), Some("Entrypoint"));
        assert_eq!(nearest("XYZZY", words, false), None);
        assert_eq!(nearest("run", words, false), None);
    }

    #[test]
    fn case_counts_where_it_matters() {
        assert_eq!(nearest("Base", ["base"], true).as_deref(), Some("base"));
        assert_eq!(nearest("base", ["base", "bass"], true), None);
    }
}
