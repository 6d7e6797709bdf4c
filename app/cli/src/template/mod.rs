//! The part of Go's text/template that `--format` needs.
//!
//! `parser` turns text into nodes, `eval` walks them over a [`Value`], `functions` holds the built-in
//! functions and Docker's additions. Not supported, and refused by name: `define`, `template`, `block`.

mod eval;
mod functions;
mod lexer;
mod parser;

use crate::format::value::Value;

/// A template that cannot be read or carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not a template.
    #[error("template parsing error: template: :{line}: {message}")]
    Parse {
        /// Line of the mistake, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template does not fit the data.
    #[error("template: :{line}:{column}: executing \"\" at <{at}>: {message}")]
    Execute {
        /// Line of the expression, from 1.
        line: usize,
        /// Column of the expression, from 0 as Go counts.
        column: usize,
        /// The expression.
        at: String,
        /// What is wrong.
        message: String,
    },
}

/// A parsed template.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    nodes: Vec<parser::Node>,
    lenient: bool,
}

/// Answers calls of methods with arguments on the top value, such as `{{.Label "name"}}`.
pub type Methods<'a> = &'a dyn Fn(&str, &[Value]) -> Option<Value>;

impl Template {
    /// Parses `source`.
    pub fn parse(source: &str) -> Result<Template, Error> {
        let nodes = parser::parse(source)?;
        Ok(Template { source: source.to_owned(), nodes, lenient: false })
    }

    /// Makes a missing key of a map no error but `<no value>`, as `events` wants it: each event has other attributes.
    pub fn lenient(mut self) -> Template {
        self.lenient = true;
        self
    }

    /// Carries the template out over `data`.
    pub fn execute(&self, data: &Value) -> Result<String, Error> {
        self.execute_with(data, &|_, _| None)
    }

    /// Carries the template out over `data`, whose methods `methods` answers.
    pub fn execute_with(&self, data: &Value, methods: Methods<'_>) -> Result<String, Error> {
        eval::run(
            &self.source,
            &self.nodes,
            data,
            methods,
            if self.lenient { eval::Mode::Lenient } else { eval::Mode::Row },
        )
    }

    /// Carries the template out over the column titles: functions that change text leave it alone.
    pub fn header(&self, titles: &Value) -> Result<String, Error> {
        eval::run(&self.source, &self.nodes, titles, &|_, args| args.first().cloned(), eval::Mode::Header)
    }
}

#[cfg(test)]
mod tests;
