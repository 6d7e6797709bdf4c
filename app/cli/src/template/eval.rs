//! Walks the nodes over a value.

use super::functions;
use super::lexer::line_of;
use super::parser::{Base, Command, Node, Operand, Pipeline};
use super::{Error, Methods};
use crate::format::value::Value;

/// Whether functions change text (a row) or leave titles alone (a table's header).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Data.
    Row,
    /// Data whose missing keys are no error.
    Lenient,
    /// Column titles.
    Header,
}

/// Output of one template stops growing here: nested ranges can multiply.
const MAX_OUTPUT: usize = 64 << 20;

struct Run<'a> {
    source: &'a str,
    root: &'a Value,
    methods: Methods<'a>,
    mode: Mode,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Carries out `nodes` over `root`.
pub fn run(
    source: &str,
    nodes: &[Node],
    root: &Value,
    methods: Methods<'_>,
    mode: Mode,
) -> Result<String, Error> {
    let mut run = Run { source, root, methods, mode, variables: Vec::new(), out: String::new() };
    run.nodes(nodes, root)?;
    Ok(run.out)
}

/// Tells whether Go counts the value as true: not zero, not empty.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
    }
}

impl Run<'_> {
    fn error(&self, offset: usize, at: impl Into<String>, message: impl Into<String>) -> Error {
        let line_start = self.source[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        Error::Execute {
            line: line_of(self.source, offset),
            column: offset - line_start,
            at: at.into(),
            message: message.into(),
        }
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Error> {
        for node in nodes {
            let scope = self.variables.len();
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    }
                }
                Node::If(pipeline, body, otherwise) => {
                    let value = self.pipeline(pipeline, dot)?;
                    self.nodes(if truth(&value) { body } else { otherwise }, dot)?;
                    self.variables.truncate(scope);
                }
                Node::With(pipeline, body, otherwise) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if truth(&value) {
                        self.nodes(body, &value)?;
                    } else {
                        self.nodes(otherwise, dot)?;
                    }
                    self.variables.truncate(scope);
                }
                Node::Range(pipeline, body, otherwise) => {
                    self.range(pipeline, body, otherwise, dot)?;
                    self.variables.truncate(scope);
                }
            }
            if self.out.len() > MAX_OUTPUT {
                return Err(self.error(0, "", "output is too large"));
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), Error> {
        let value = self.commands(pipeline, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::List(items) => {
                items.into_iter().enumerate().map(|(index, item)| (Value::from(index as i64), item)).collect()
            }
            Value::Map(mut entries) => {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.into_iter().map(|(key, item)| (Value::from(key), item)).collect()
            }
            other => {
                return Err(self.error(
                    pipeline.commands[0].0[0].offset,
                    "range",
                    format!("range can't iterate over {other}"),
                ));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let scope = self.variables.len();
        for (key, item) in items {
            match pipeline.variables.as_slice() {
                [element] => self.variables.push((element.clone(), item.clone())),
                [index, element] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(body, &item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    /// Evaluates a pipeline and gives the result to its variable.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let value = self.commands(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else {
                let slot = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                match slot {
                    Some(slot) => slot.1 = value.clone(),
                    None => {
                        let offset = pipeline.commands[0].0[0].offset;
                        return Err(self.error(offset, format!("${name}"), "undefined variable"));
                    }
                }
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Error> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.unwrap_or_default())
    }

    fn command(
        &mut self,
        Command(operands): &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, Error> {
        let (first, arguments) = operands.split_first().expect("the parser makes no empty command");
        if let Base::Function(name) = &first.base {
            // `and` and `or` look at their arguments one after the other, and stop.
            if name == "and" || name == "or" {
                let mut last = Value::Null;
                for operand in arguments {
                    last = self.operand(operand, dot)?;
                    if truth(&last) == (name == "or") {
                        return Ok(last);
                    }
                }
                return Ok(piped.unwrap_or(last));
            }
            let mut values =
                arguments.iter().map(|arg| self.operand(arg, dot)).collect::<Result<Vec<_>, _>>()?;
            values.extend(piped);
            let value = functions::call(name, &values, self.mode).map_err(|message| {
                self.error(first.offset, name.clone(), format!("error calling {name}: {message}"))
            })?;
            return self.fields(value, &first.fields, first.offset);
        }
        if arguments.is_empty() && piped.is_none() {
            return self.operand(first, dot);
        }
        // A field with arguments is a method call, as `.Label "x"`.
        let mut values = arguments.iter().map(|arg| self.operand(arg, dot)).collect::<Result<Vec<_>, _>>()?;
        values.extend(piped);
        let name = first.fields.last().cloned().unwrap_or_default();
        (self.methods)(&name, &values)
            .ok_or_else(|| self.error(first.offset, describe(first), "can't give argument to non-function"))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, Error> {
        let base = match &operand.base {
            // Fields are followed by reference: only what is asked for is copied.
            Base::Dot => return self.follow(dot, &operand.fields, operand),
            Base::Variable(name) if name.is_empty() => {
                let root = self.root;
                return self.follow(root, &operand.fields, operand);
            }
            Base::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| self.error(operand.offset, format!("${name}"), "undefined variable"))?,
            Base::Function(name) => functions::call(name, &[], self.mode).map_err(|message| {
                self.error(operand.offset, name.clone(), format!("error calling {name}: {message}"))
            })?,
            Base::Group(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Text(text) => Value::from(text.as_str()),
            Base::Number(number) => Value::Number(number.clone()),
            Base::Bool(value) => Value::Bool(*value),
            Base::Nil => Value::Null,
        };
        self.fields(base, &operand.fields, operand.offset)
    }

    fn fields(&self, value: Value, fields: &[String], offset: usize) -> Result<Value, Error> {
        if fields.is_empty() {
            return Ok(value);
        }
        let operand = Operand { base: Base::Dot, fields: fields.to_vec(), offset };
        self.follow(&value, fields, &operand)
    }

    fn follow(&self, start: &Value, fields: &[String], operand: &Operand) -> Result<Value, Error> {
        let mut value = start;
        for name in fields {
            value = match value {
                Value::Null if self.mode == Mode::Lenient => &Value::Null,
                Value::Null => {
                    let message = format!("nil pointer evaluating interface {{}}.{name}");
                    return Err(self.error(operand.offset, describe(operand), message));
                }
                Value::Map(_) if self.mode == Mode::Lenient => value.get(name).unwrap_or(&Value::Null),
                Value::Map(_) => value.get(name).ok_or_else(|| {
                    self.error(
                        operand.offset,
                        describe(operand),
                        format!("map has no entry for key {name:?}"),
                    )
                })?,
                other => {
                    let kind = match other {
                        Value::String(_) => "string",
                        Value::Bool(_) => "bool",
                        Value::Number(_) => "int",
                        _ => "[]interface {}",
                    };
                    let message = format!("can't evaluate field {name} in type {kind}");
                    return Err(self.error(operand.offset, describe(operand), message));
                }
            };
        }
        Ok(value.clone())
    }
}

fn describe(operand: &Operand) -> String {
    let base = match &operand.base {
        Base::Variable(name) => format!("${name}"),
        Base::Dot if operand.fields.is_empty() => ".".to_owned(),
        _ => String::new(),
    };
    operand.fields.iter().fold(base, |text, name| format!("{text}.{name}"))
}
