//! Nodes and pipelines.

use serde_json::Number;

use super::Error;
use super::functions;
use super::lexer::{self, Kind, Piece, Token};

/// How deep blocks and parentheses may nest: templates come from the command line, the stack is finite.
const MAX_DEPTH: usize = 100;

/// A part of a template.
#[derive(Debug, Clone)]
pub enum Node {
    /// Text printed as it is.
    Text(String),
    /// `{{pipeline}}`
    Print(Pipeline),
    /// `{{if}}`, `{{else if}}` as a nested one.
    If(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{with}}`
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// `{{range}}`
    Range(Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands joined by `|`, with the variables that take the result.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// `$a` or `$i, $e`.
    pub variables: Vec<String>,
    /// `:=` makes new variables, `=` sets existing ones.
    pub declares: bool,
    /// The commands.
    pub commands: Vec<Command>,
}

/// A value or function with its arguments.
#[derive(Debug, Clone)]
pub struct Command(pub Vec<Operand>);

/// One word of a command.
#[derive(Debug, Clone)]
pub struct Operand {
    /// Where the value comes from.
    pub base: Base,
    /// `.A.B` after it.
    pub fields: Vec<String>,
    /// Byte offset in the source.
    pub offset: usize,
}

/// Where an operand starts.
#[derive(Debug, Clone)]
pub enum Base {
    /// The current value.
    Dot,
    /// A variable; the empty name is the top value.
    Variable(String),
    /// A function.
    Function(String),
    /// `(pipeline)`
    Group(Box<Pipeline>),
    /// A string.
    Text(String),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
    /// `nil`
    Nil,
}

enum Stop {
    Source,
    Close,
    Else(Vec<Token>, usize),
}

struct Parser<'a> {
    source: &'a str,
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

/// Parses a whole template.
pub fn parse(source: &str) -> Result<Vec<Node>, Error> {
    let mut parser = Parser { source, pieces: lexer::split(source)?.into_iter(), depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        Stop::Source => Ok(nodes),
        Stop::Close => Err(parser.error(source.len(), "unexpected {{end}}")),
        Stop::Else(_, offset) => Err(parser.error(offset, "unexpected {{else}}")),
    }
}

impl Parser<'_> {
    fn error(&self, offset: usize, message: impl Into<String>) -> Error {
        Error::Parse { line: lexer::line_of(self.source, offset), message: message.into() }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (mut tokens, offset) = match piece {
                Piece::Text(text) if text.is_empty() => continue,
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, offset) => (tokens, offset),
            };
            let keyword = match tokens.first() {
                None => return Err(self.error(offset, "missing value for command")),
                Some(Token { kind: Kind::Word(word), .. }) => word.clone(),
                Some(_) => String::new(),
            };
            match keyword.as_str() {
                "end" if tokens.len() == 1 => return Ok((nodes, Stop::Close)),
                "else" => {
                    tokens.remove(0);
                    return Ok((nodes, Stop::Else(tokens, offset)));
                }
                "if" | "with" | "range" => {
                    tokens.remove(0);
                    nodes.push(self.block(&keyword, tokens, offset)?);
                }
                "define" | "template" | "block" | "break" | "continue" | "end" => {
                    return Err(self.error(offset, format!("unexpected {{{{{keyword}}}}}")));
                }
                _ => nodes.push(Node::Print(self.whole_pipeline(tokens, offset)?)),
            }
        }
        Ok((nodes, Stop::Source))
    }

    fn block(&mut self, keyword: &str, tokens: Vec<Token>, offset: usize) -> Result<Node, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(offset, "blocks nest too deep"));
        }
        let pipeline = self.whole_pipeline(tokens, offset)?;
        let (body, end) = self.nodes()?;
        let otherwise = match end {
            Stop::Close => Vec::new(),
            Stop::Source => return Err(self.error(self.source.len(), "unexpected EOF")),
            Stop::Else(mut tokens, offset) if !tokens.is_empty() => {
                // `{{else if}}` shares the closing {{end}} with its {{if}}.
                match &tokens[0].kind {
                    Kind::Word(word) if word == keyword && keyword != "range" => {
                        tokens.remove(0);
                        vec![self.block(keyword, tokens, offset)?]
                    }
                    _ => return Err(self.error(offset, "unexpected token after {{else}}")),
                }
            }
            Stop::Else(_, offset) => match self.nodes()? {
                (nodes, Stop::Close) => nodes,
                (_, Stop::Else(..)) => return Err(self.error(offset, "expected end; found {{else}}")),
                (_, Stop::Source) => return Err(self.error(self.source.len(), "unexpected EOF")),
            },
        };
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn whole_pipeline(&self, tokens: Vec<Token>, offset: usize) -> Result<Pipeline, Error> {
        let mut at = 0;
        let pipeline = self.pipeline(&tokens, &mut at, offset, 0)?;
        match tokens.get(at) {
            None => Ok(pipeline),
            Some(token) => Err(self.error(token.offset, "unexpected right paren")),
        }
    }

    fn pipeline(
        &self,
        tokens: &[Token],
        at: &mut usize,
        offset: usize,
        depth: usize,
    ) -> Result<Pipeline, Error> {
        if depth > MAX_DEPTH {
            return Err(self.error(offset, "parentheses nest too deep"));
        }
        let mut variables = Vec::new();
        let mut declares = false;
        let kind = |index: usize| tokens.get(index).map(|token| &token.kind);
        match (kind(*at), kind(*at + 1), kind(*at + 2), kind(*at + 3)) {
            (Some(Kind::Variable(name)), Some(sign @ (Kind::Declare | Kind::Sign('='))), ..) => {
                variables.push(name.clone());
                declares = *sign == Kind::Declare;
                *at += 2;
            }
            (
                Some(Kind::Variable(first)),
                Some(Kind::Sign(',')),
                Some(Kind::Variable(second)),
                Some(sign @ (Kind::Declare | Kind::Sign('='))),
            ) => {
                variables.extend([first.clone(), second.clone()]);
                declares = *sign == Kind::Declare;
                *at += 4;
            }
            _ => {}
        }
        let mut commands = Vec::new();
        loop {
            let mut operands = Vec::new();
            while let Some(operand) = self.operand(tokens, at, depth)? {
                operands.push(operand);
            }
            if operands.is_empty() {
                return Err(self.error(offset, "missing value for command"));
            }
            commands.push(Command(operands));
            match tokens.get(*at).map(|token| &token.kind) {
                Some(Kind::Sign('|')) => *at += 1,
                None | Some(Kind::Sign(')')) => break,
                Some(_) => return Err(self.error(tokens[*at].offset, "unexpected token in operand")),
            }
        }
        Ok(Pipeline { variables, declares, commands })
    }

    fn operand(&self, tokens: &[Token], at: &mut usize, depth: usize) -> Result<Option<Operand>, Error> {
        let Some(token) = tokens.get(*at) else { return Ok(None) };
        let mut fields = Vec::new();
        let base = match &token.kind {
            Kind::Field(name) => {
                fields.push(name.clone());
                Base::Dot
            }
            Kind::Dot => Base::Dot,
            Kind::Variable(name) => Base::Variable(name.clone()),
            Kind::Text(text) => Base::Text(text.clone()),
            Kind::Number(number) => Base::Number(number.clone()),
            Kind::Word(word) => match word.as_str() {
                "true" => Base::Bool(true),
                "false" => Base::Bool(false),
                "nil" => Base::Nil,
                name if functions::exists(name) => Base::Function(name.to_owned()),
                name => return Err(self.error(token.offset, format!("function {name:?} not defined"))),
            },
            Kind::Sign('(') => {
                *at += 1;
                let inner = self.pipeline(tokens, at, token.offset, depth + 1)?;
                if tokens.get(*at).map(|token| &token.kind) != Some(&Kind::Sign(')')) {
                    return Err(self.error(token.offset, "unclosed left paren"));
                }
                Base::Group(Box::new(inner))
            }
            Kind::Sign(_) | Kind::Declare => return Ok(None),
        };
        *at += 1;
        while let Some(Token { kind: Kind::Field(name), spaced: false, .. }) = tokens.get(*at) {
            fields.push(name.clone());
            *at += 1;
        }
        Ok(Some(Operand { base, fields, offset: token.offset }))
    }
}
