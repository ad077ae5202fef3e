//! A JSON value that comes character by character.

/// Finds the end of a value, which is passed on as it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    depth: usize,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

/// What a character was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A part of the value.
    Part,
    /// The last part of it.
    Last,
    /// Behind it: the end of a number or a word.
    Behind,
}

impl Value {
    pub(super) fn push(&mut self, c: char) -> Next {
        if self.in_string {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.in_string = false;
                    return if self.depth == 0 { Next::Last } else { Next::Part };
                }
                _ => {}
            }
            return Next::Part;
        }
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' | ',' if self.depth == 0 => return Next::Behind,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Next::Last;
                }
            }
            c if c.is_whitespace() && self.depth == 0 && self.begun => return Next::Behind,
            _ => {}
        }
        self.begun |= !c.is_whitespace();
        Next::Part
    }
}
