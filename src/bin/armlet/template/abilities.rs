//! What a template shows of tools.

use crate::tools::{Dialect, GENERIC};

/// What a template shows.
pub(crate) struct Abilities {
    pub(crate) dialect: &'static Dialect,
    pub(super) tools: Place,
    /// Calls in a conversation; whether their arguments are texts, and not objects.
    pub(super) calls: Option<bool>,
    /// Results of calls.
    pub(super) results: bool,
}

/// Where a template has tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a variable of its own.
    Variable,
    /// In the system message, as a text.
    System,
    /// Nowhere: the system message says what there is.
    Nowhere,
}

impl Abilities {
    /// Of a template that knows no tools.
    pub(super) const NONE: Abilities =
        Abilities { dialect: &GENERIC, tools: Place::Nowhere, calls: None, results: false };
}
