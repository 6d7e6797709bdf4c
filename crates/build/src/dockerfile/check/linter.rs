//! Collects what the rules find.

use std::collections::BTreeSet;

use super::rule::Rule;
use crate::dockerfile::fault::{Fault, Lines, Result};
use crate::dockerfile::instruction::boolean;

/// How many warnings are kept: nobody reads more.
const MAX_WARNINGS: usize = 1_000;

/// Which rules are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    error: bool,
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

/// Collects warnings.
#[derive(Debug, Clone, Default)]
pub struct Linter {
    options: Options,
    warnings: Vec<Warning>,
    rules: BTreeSet<Rule>,
}

impl Options {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    /// An option that there isn't.
    pub fn parse(text: &str) -> Result<Options> {
        let mut options = Options::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(Fault::new(format!("invalid check option {part:?}")));
            };
            let value = value.trim();
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => {
                    options.error = boolean(value).ok_or_else(|| {
                        Fault::new(format!(
                            "failed to parse check option {part:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
                        ))
                    })?;
                }
                key => return Err(Fault::new(format!("invalid check option {key:?}"))),
            }
        }
        Ok(options)
    }
}

impl Linter {
    /// Makes one.
    pub fn new(options: Options) -> Linter {
        Linter { options, ..Linter::default() }
    }

    /// Takes a finding, unless its rule is left out. The same finding counts once.
    pub fn warn(&mut self, rule: Rule, lines: Lines, message: String) {
        let options = &self.options;
        let wanted = match rule.is_experimental() {
            true => options.experimental_all || options.experimental.contains(rule.name()),
            false => !options.skip_all && !options.skip.contains(rule.name()),
        };
        if !wanted {
            return;
        }
        self.rules.insert(rule);
        let warning = Warning { rule, message, lines };
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Says that no more is kept.
    pub fn is_full(&self) -> bool {
        self.warnings.len() >= MAX_WARNINGS
    }

    /// Returns what was found.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Fails when findings are errors (`error=true`) and there are some.
    ///
    /// # Errors
    /// The names of their rules.
    pub fn check(&self) -> Result<()> {
        if !self.options.error || self.rules.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.rules.iter().map(|rule| rule.name()).collect();
        Err(Fault::new(format!("lint violation found for rules: {}", names.join(", "))))
    }
}

impl Warning {
    /// The line that progress shows: `FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 3)`.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), self.message, self.lines.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(" skip=A, B ; error=true;experimental=all").unwrap();
        assert_eq!(options.skip.iter().collect::<Vec<_>>(), ["A", "B"]);
        assert!(options.error && options.experimental_all && !options.skip_all);
        assert!(Options::parse("skip=all").unwrap().skip_all);
        assert_eq!(Options::parse("").unwrap(), Options::default());
        for (text, message) in [
            ("skip", "invalid check option \"skip\""),
            ("x=y", "invalid check option \"x\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(Options::parse(text).unwrap_err().message, message);
        }
    }

    #[test]
    fn findings_are_errors_only_when_asked_for() {
        let lines = Lines::new(1, 1);
        let mut linter = Linter::new(Options::parse("skip=UndefinedVar;error=true").unwrap());
        linter.warn(Rule::UndefinedVar, lines, "x".into());
        linter.warn(Rule::CopyIgnoredFile, lines, "x".into());
        assert!(linter.check().is_ok());
        linter.warn(Rule::StageNameCasing, lines, "x".into());
        linter.warn(Rule::StageNameCasing, lines, "x".into());
        assert_eq!(linter.warnings().len(), 1);
        assert_eq!(linter.check().unwrap_err().message, "lint violation found for rules: StageNameCasing");
        assert_eq!(linter.warnings()[0].short(), "StageNameCasing: x (line 1)");
    }
}
