//! A call as a JSON object with a name and arguments.

use super::json::{Next, Value};
use super::piece::Piece;

/// A call as a JSON object, whose opening brace has been read.
#[derive(Debug)]
pub(super) struct Object {
    place: Member,
    name: Option<String>,
    /// Arguments that came before the name, or are a text.
    held: String,
    has_arguments: bool,
}

#[derive(Debug)]
enum Member {
    /// Before the name of a member, or the end.
    Before,
    Key(Value, String),
    Colon(String),
    Value(Kind, Value, String),
}

/// What the value of a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Arguments,
    /// Arguments in a text, as OpenAI's API has them.
    Quoted,
    Other,
}

impl Object {
    pub(super) fn new() -> Self {
        Object { place: Member::Before, name: None, held: String::new(), has_arguments: false }
    }

    /// Takes a character; an error is that this is no call.
    pub(super) fn push(&mut self, c: char) -> Result<Vec<Piece>, ()> {
        match &mut self.place {
            Member::Before => match c {
                '"' => {
                    let mut value = Value::default();
                    value.push(c);
                    self.place = Member::Key(value, c.into());
                    Ok(Vec::new())
                }
                '}' => self.end(),
                c if c.is_whitespace() || c == ',' => Ok(Vec::new()),
                _ => self.lost(),
            },
            Member::Key(value, text) => {
                text.push(c);
                if value.push(c) == Next::Last {
                    self.place = Member::Colon(serde_json::from_str(text).unwrap_or_default());
                }
                Ok(Vec::new())
            }
            Member::Colon(key) => match c {
                ':' => {
                    let kind = match key.as_str() {
                        "name" if self.name.is_none() => Kind::Name,
                        "arguments" | "parameters" if !self.has_arguments => Kind::Arguments,
                        _ => Kind::Other,
                    };
                    self.place = Member::Value(kind, Value::default(), String::new());
                    Ok(Vec::new())
                }
                c if c.is_whitespace() => Ok(Vec::new()),
                _ => self.lost(),
            },
            Member::Value(..) => self.value(c),
        }
    }

    /// No call any more; one that has begun ends where it is.
    fn lost(&mut self) -> Result<Vec<Piece>, ()> {
        if self.name.is_some() { Ok(vec![Piece::End]) } else { Err(()) }
    }

    fn value(&mut self, c: char) -> Result<Vec<Piece>, ()> {
        let Member::Value(kind, value, text) = &mut self.place else { return Err(()) };
        if text.is_empty() {
            match (c, *kind) {
                (c, _) if c.is_whitespace() => return Ok(Vec::new()),
                ('{', Kind::Arguments) => self.has_arguments = true,
                ('"', Kind::Arguments) => (*kind, self.has_arguments) = (Kind::Quoted, true),
                (_, Kind::Arguments) => *kind = Kind::Other,
                (c, Kind::Name) if c != '"' => *kind = Kind::Other,
                _ => {}
            }
        }
        let (kind, next) = (*kind, value.push(c));
        let mut out = Vec::new();
        if next != Next::Behind {
            // Of arguments, all that matters is that there are some.
            if kind != Kind::Arguments || text.is_empty() {
                text.push(c);
            }
            if kind == Kind::Arguments {
                match self.name {
                    Some(_) => out.push(Piece::Arguments(c.into())),
                    None => self.held.push(c),
                }
            }
        }
        if next == Next::Part {
            return Ok(out);
        }
        let text = std::mem::take(text);
        self.place = Member::Before;
        match kind {
            Kind::Name => {
                let name: String = serde_json::from_str(&text).unwrap_or_default();
                out.push(Piece::Begin(name.clone()));
                self.name = Some(name);
                out.push(Piece::Arguments(std::mem::take(&mut self.held)));
            }
            Kind::Quoted => {
                let inner: String = serde_json::from_str(&text).unwrap_or_default();
                match self.name {
                    Some(_) => out.push(Piece::Arguments(inner)),
                    None => self.held = inner,
                }
            }
            Kind::Arguments | Kind::Other => {}
        }
        // A number or a word ends with what follows it.
        if next == Next::Behind && !c.is_whitespace() {
            out.extend(self.push(c)?);
        }
        Ok(out)
    }

    fn end(&mut self) -> Result<Vec<Piece>, ()> {
        if self.name.is_none() {
            return Err(());
        }
        let empty = (!self.has_arguments).then(|| Piece::Arguments("{}".into()));
        Ok(empty.into_iter().chain([Piece::End]).collect())
    }
}
