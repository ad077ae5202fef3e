//! Why an answer does not keep to its form.

use std::fmt;

use super::{LOOKED_AT, PLACES, STATES};

/// Why there is no answer of a form, or why it does not go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// What is wrong with the form, or which limit it exceeds.
    Form(String),
    /// There is no room for it now.
    Busy(String),
    /// Something here failed, and not the form.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Trouble::Form(why) | Trouble::Busy(why) | Trouble::Failed(why)) = self;
        f.write_str(why)
    }
}

impl Trouble {
    /// What llguidance says of a form, before there is an answer.
    pub(super) fn at_start(error: &str) -> Self {
        let error = plain(error);
        match error {
            "NoExtensionBias" => Trouble::Form("no text is of it: what it needs is not there, or never ends".into()),
            // What it says of itself is not the form's fault.
            error if ["Internal error: ", "panic: "].iter().any(|own| error.starts_with(own)) => {
                Trouble::Failed(error.into())
            }
            error => Trouble::Form(limit(error).unwrap_or_else(|| error.into())),
        }
    }

    /// What it says within an answer: of all that was allowed so far, only limits are the form's fault.
    pub(super) fn within(error: &str) -> Self {
        let error = plain(error);
        match error {
            "NoExtensionBias" => Trouble::Form("nothing that the model can write may follow".into()),
            error => limit(error).map_or_else(|| Trouble::Failed(error.into()), Trouble::Form),
        }
    }
}

/// Without the marks of llguidance's own.
fn plain(error: &str) -> &str {
    error.trim_end_matches("\n<non-verbose/>")
}

/// The limit that llguidance says was met.
fn limit(error: &str) -> Option<String> {
    let limits = [
        ("too many states: ", format!("more than {STATES} states of its patterns and texts")),
        ("too many expressions constructed", "too many expressions for what may follow in its patterns".into()),
        ("Too many items (limit ", format!("more than {LOOKED_AT} ways to look at for what may follow")),
        ("Current row has ", format!("more than {PLACES} ways to go on at one place")),
    ];
    limits.into_iter().find(|(text, _)| error.contains(text)).map(|(_, what)| format!("it has {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_within_are_no_fault_of_the_form() {
        for own in ["Internal error: no row", "panic: index out of bounds"] {
            assert_eq!(Trouble::at_start(own), Trouble::Failed(own.into()));
        }
        let of_form = "Invalid type: panic: or Internal error: ";
        assert_eq!(Trouble::at_start(of_form), Trouble::Form(of_form.into()));
    }
}
