//! Filters of the history, as `buildx history ls --filter` has them.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;

/// Signs, longest first.
const SIGNS: [(&str, Operator); 8] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("~=", Operator::Contains),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equal),
    (">", Operator::More),
    ("<", Operator::Less),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Contains,
    AtLeast,
    AtMost,
    More,
    Less,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Text(String),
    /// Nanoseconds: of a duration, or since 1970.
    Number(i128),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    operator: Operator,
    wanted: Wanted,
}

/// Filters: one of them has to hold, with all of its terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filters(Vec<Vec<Term>>);

impl Filters {
    /// Reads filters.
    pub fn parse(filters: &[String]) -> Result<Self, String> {
        let parts = |filter: &String| filter.split(',').filter(|part| !part.is_empty()).map(term).collect();
        filters.iter().map(parts).collect::<Result<_, String>>().map(Self)
    }

    /// Whether a build fits.
    pub fn fit(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|terms| terms.iter().all(|term| holds(term, record)))
    }
}

fn term(text: &str) -> Result<Term, String> {
    let wrong = || format!("invalid filter \"{text}\"");
    // The first sign in the text is the one; of those at the same place the longest.
    let found = SIGNS.iter().filter_map(|(sign, operator)| Some((text.find(sign)?, *sign, *operator)));
    let (at, sign, operator) =
        found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len()))).ok_or_else(wrong)?;
    let (field, value) = (text[..at].trim(), text[at + sign.len()..].trim().trim_matches('"'));
    let compares = !matches!(operator, Operator::Equal | Operator::NotEqual | Operator::Contains);
    let wanted = match field {
        "ref" | "status" | "repository" if !compares => Wanted::Text(value.to_owned()),
        "startedAt" | "completedAt" => Wanted::Number(time(value).ok_or_else(wrong)?),
        "duration" => Wanted::Number(duration(value).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    Ok(Term { field: field.to_owned(), operator, wanted })
}

/// A time, or one so long ago.
fn time(text: &str) -> Option<i128> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_nanosecond());
    }
    Some(jiff::Timestamp::now().as_nanosecond() - duration(text)?)
}

/// A duration as Go writes it (`1h30m`, `1.5s`) and no other.
fn duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && total < 1e24).then_some(total as i128)
}

fn nanoseconds(at: Timestamp) -> i128 {
    i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
}

/// How a build stands, in one word.
pub(super) fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.message.contains("context canceled") => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

fn holds(term: &Term, record: &BuildHistoryRecord) -> bool {
    let number = match term.field.as_str() {
        "startedAt" => record.created_at.map(nanoseconds),
        "completedAt" => record.completed_at.map(nanoseconds),
        "duration" => {
            record.created_at.zip(record.completed_at).map(|(from, to)| nanoseconds(to) - nanoseconds(from))
        }
        _ => None,
    };
    match &term.wanted {
        Wanted::Number(wanted) => number.is_some_and(|number| match term.operator {
            Operator::Equal => number == *wanted,
            Operator::NotEqual => number != *wanted,
            Operator::AtLeast => number >= *wanted,
            Operator::AtMost => number <= *wanted,
            Operator::More => number > *wanted,
            Operator::Less => number < *wanted,
            Operator::Contains => false,
        }),
        Wanted::Text(wanted) => {
            let text = match term.field.as_str() {
                "ref" => record.r#ref.as_str(),
                "status" => status(record),
                _ => {
                    let attributes = &record.frontend_attrs;
                    let place = attributes.get("vcs:source").or_else(|| attributes.get("context"));
                    place.map_or("", |place| place.split('#').next().unwrap_or(place))
                }
            };
            match term.operator {
                Operator::Equal => text == wanted,
                Operator::NotEqual => text != wanted,
                _ => text.contains(wanted.as_str()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::rpc;
    use proptest::prelude::*;

    use super::*;

    fn record() -> BuildHistoryRecord {
        BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            created_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            completed_at: Some(Timestamp { seconds: 1_700_000_090, nanos: 0 }),
            error: Some(rpc::Status { code: 2, message: "bad".to_owned(), details: Vec::new() }),
            frontend_attrs: [("vcs:source".to_owned(), "https://example.com/a.git".to_owned())].into(),
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn filters_choose_builds() {
        let fits = |filter: &str| Filters::parse(&[filter.to_owned()]).unwrap().fit(&record());
        for filter in [
            "",
            "status=error",
            "status==error,ref=abc",
            "ref~=b",
            "duration>1m",
            "duration<=1m30s",
            "startedAt>2020-01-01T00:00:00Z",
            "completedAt<1h",
            "repository=https://example.com/a.git",
        ] {
            assert!(fits(filter), "{filter}");
        }
        for filter in
            ["status=running", "status!=error", "duration>2m", "startedAt>1h", "ref=abc,status=completed"]
        {
            assert!(!fits(filter), "{filter}");
        }
        for wrong in ["nothing", "size>3", "duration>x", "status>error", "startedAt>maybe"] {
            assert!(Filters::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_filter_breaks_the_reader(text in "\\PC{0,40}") {
            if let Ok(filters) = Filters::parse(&[text]) {
                filters.fit(&record());
            }
        }
    }
}
