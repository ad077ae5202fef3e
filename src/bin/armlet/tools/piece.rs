//! What reading an answer gives.

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// A call begins, of the tool of this name.
    Begin(String),
    /// More of its arguments, as JSON.
    Arguments(String),
    /// It is complete.
    End,
}
