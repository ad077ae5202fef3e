//! In the place of `grammar`, in a program without it.

use std::convert::Infallible;

use armlet::tokenizer::Tokenizer;

use crate::args;
use crate::error::Failure;

/// No form.
pub(crate) type Form = Infallible;

/// None.
#[derive(Clone)]
pub(crate) struct Vocabulary(Infallible);

/// None.
#[derive(Clone, Debug)]
pub(crate) struct Grammar(Infallible);

/// None.
pub(crate) struct Constraint(Infallible);

/// None.
pub(crate) type Trouble = Infallible;

/// What the options say, which is refused.
pub(crate) fn form(args: &args::Sampling) -> Result<Option<Form>, Failure> {
    match (&args.json_schema, &args.grammar) {
        (None, None) => Ok(None),
        _ => Err(Failure::Usage("this program was built without the feature grammar".into())),
    }
}

impl Vocabulary {
    pub(crate) fn new(_: &Tokenizer<'_>) -> Result<Self, String> {
        Err("this program was built without the feature grammar".into())
    }
}

impl Grammar {
    pub(crate) fn new(_: Vocabulary, form: &Form) -> Result<Self, String> {
        match *form {}
    }

    pub(crate) fn start(&self) -> Result<Constraint, Trouble> {
        match self.0 {}
    }
}

impl Constraint {
    pub(crate) fn allows(&self, _: &Tokenizer<'_>, _: u32) -> bool {
        match self.0 {}
    }

    pub(crate) fn check(&self) -> Result<(), Trouble> {
        match self.0 {}
    }

    pub(crate) fn accept(&mut self, _: u32) -> Result<(), Trouble> {
        match self.0 {}
    }

    pub(crate) fn is_complete(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn may_end(&mut self) -> bool {
        match self.0 {}
    }
}
